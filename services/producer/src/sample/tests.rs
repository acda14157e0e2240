use std::path::Path;

use super::{Config, SplitMix64, write};

fn sample(seed: u64) -> String {
    let start = "2025-01-01T00:00:00Z".parse().unwrap();
    let mut bytes = Vec::new();
    write(&Config { seed, days: 3, start, output: "unused".into() }, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn column(sample: &str, index: usize) -> Vec<f64> {
    sample.lines().skip(1).map(|line| line.split(',').nth(index).unwrap().parse().unwrap()).collect()
}

#[test]
fn the_shipped_sample_is_what_its_seed_gives() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/sample.csv");
    assert!(std::fs::read_to_string(shipped).unwrap() == sample(1), "run `candleflight sample`");
}

#[test]
fn another_seed_gives_another_sample() {
    assert_ne!(sample(1), sample(2));
}

#[test]
fn minutes_ascend_with_a_few_gaps() {
    let timestamps = column(&sample(1), 0);
    let steps: Vec<f64> = timestamps.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.iter().all(|step| *step >= 60.0 && step % 60.0 == 0.0));
    let gaps = steps.iter().filter(|step| **step > 60.0).count();
    assert!((3..30).contains(&gaps), "{gaps} gaps");
    assert!((4200..4320).contains(&timestamps.len()), "{} candles", timestamps.len());
}

#[test]
fn high_and_low_enclose_open_and_close() {
    let sample = sample(1);
    let [open, high, low, close, volume] = [1, 2, 3, 4, 5].map(|index| column(&sample, index));
    for row in 0..open.len() {
        assert!(high[row] >= open[row].max(close[row]) && low[row] <= open[row].min(close[row]), "row {row}");
        assert!(volume[row] > 0.0, "row {row}");
    }
}

/// If volatility clusters, the squared returns of consecutive minutes are correlated. Independent returns would give less than 0.03 (two
/// standard errors) on 4,300 minutes.
#[test]
fn volatility_clusters() {
    let close = column(&sample(1), 4);
    let squares: Vec<f64> = close.windows(2).map(|pair| (pair[1] / pair[0] - 1.0).powi(2)).collect();
    let count = f64::from(u32::try_from(squares.len()).unwrap());
    let mean = squares.iter().sum::<f64>() / count;
    let variance: f64 = squares.iter().map(|square| (square - mean).powi(2)).sum();
    let covariance: f64 = squares.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    assert!(covariance / variance > 0.05, "{}", covariance / variance);
}

/// The expected values come from the reference implementation with seed 1234567.
#[test]
fn the_generator_is_splitmix64() {
    let mut random = SplitMix64(1_234_567);
    assert_eq!(random.next(), 6_457_827_717_110_365_317);
    assert_eq!(random.next(), 3_203_168_211_198_807_973);
    assert_eq!(random.next(), 9_817_491_932_198_370_423);
}
