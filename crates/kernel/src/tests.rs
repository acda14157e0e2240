use proptest::prelude::*;
use schema::MINUTE_MICROS;
use schema::gold::WINDOWS;

use super::{Averages, Frame, Series, compute};

/// Minutes and closes with minutes 4 to 6 missing; the means were computed by pandas, Polars, `DuckDB`, Spark and TA-Lib.
const GAPPED: [(i64, f64); 10] = [
    (0, 100.0),
    (1, 101.0),
    (2, 99.0),
    (3, 102.0),
    (7, 103.0),
    (8, 104.0),
    (9, 103.0),
    (10, 103.0),
    (11, 100.0),
    (12, 105.0),
];

fn averages(candles: &[(i64, f64, f64)], frame: Frame) -> [Averages; WINDOWS.len()] {
    averages_of(candles, frame, 0..candles.len())
}

fn averages_of(
    candles: &[(i64, f64, f64)],
    frame: Frame,
    rows: std::ops::Range<usize>,
) -> [Averages; WINDOWS.len()] {
    let event_times: Vec<i64> = candles.iter().map(|candle| candle.0).collect();
    let closes: Vec<f64> = candles.iter().map(|candle| candle.1).collect();
    let volumes: Vec<f64> = candles.iter().map(|candle| candle.2).collect();
    let mut columns = Default::default();
    compute(
        Series { event_times: &event_times, closes: &closes, volumes: &volumes },
        frame,
        rows,
        &mut columns,
    );
    columns
}

fn gapped() -> Vec<(i64, f64, f64)> {
    GAPPED.iter().map(|(minute, close)| (minute * MINUTE_MICROS, *close, close * 2.0)).collect()
}

#[track_caller]
fn check_five(frame: Frame, minute: i64, mean: f64, samples: i32) {
    let row = GAPPED.iter().position(|candle| candle.0 == minute).unwrap();
    let [five, ..] = averages(&gapped(), frame);
    assert_eq!((five.price_ma[row], five.volume_ma[row], five.samples[row]), (mean, mean * 2.0, samples));
}

#[test]
fn a_window_of_time_does_not_reach_back_over_a_gap() {
    check_five(Frame::Time, 0, 100.0, 1);
    check_five(Frame::Time, 3, 100.5, 4);
    check_five(Frame::Time, 7, 102.5, 2);
    check_five(Frame::Time, 11, 102.6, 5);
    check_five(Frame::Time, 12, 103.0, 5);
}

#[test]
fn a_window_of_rows_reaches_back_over_a_gap() {
    check_five(Frame::Rows, 0, 100.0, 1);
    check_five(Frame::Rows, 3, 100.5, 4);
    check_five(Frame::Rows, 7, 101.0, 5);
    check_five(Frame::Rows, 11, 102.6, 5);
    check_five(Frame::Rows, 12, 103.0, 5);
}

#[test]
fn volatility_is_the_sample_deviation_and_nothing_for_one_candle() {
    let [five, _, thirty] = averages(&gapped(), Frame::Time);
    assert_eq!((five.samples[0], five.price_volatility[0]), (1, 0.0));
    // 102 and 103: √(0.5² + 0.5²).
    assert_eq!(five.price_volatility[4], 0.5_f64.sqrt());
    // 100, 101, 99, 102: mean 100.5, squares 0.25 + 0.25 + 2.25 + 2.25 = 5, over 3.
    assert_eq!(thirty.price_volatility[3], (5.0_f64 / 3.0).sqrt());
}

#[test]
fn a_candle_exactly_w_minutes_ago_is_outside() {
    let candles = [(0, 1.0, 0.0), (5 * MINUTE_MICROS - 1, 2.0, 0.0), (5 * MINUTE_MICROS, 3.0, 0.0)];
    let [five, ten, _] = averages(&candles, Frame::Time);
    assert_eq!(five.samples, [1, 2, 2]);
    assert_eq!(ten.samples, [1, 2, 3]);
}

#[test]
fn flat_prices_give_exactly_the_price_and_exactly_zero() {
    let candles: Vec<_> = (0..100).map(|minute| (minute * MINUTE_MICROS, 106_013.58, 0.1)).collect();
    for window in averages(&candles, Frame::Time) {
        assert!(window.price_ma.iter().all(|mean| *mean == 106_013.58));
        assert!(window.volume_ma.iter().all(|mean| *mean == 0.1));
        assert!(window.price_volatility[1..].iter().all(|deviation| *deviation == 0.0));
    }
}

/// Exact sums by Shewchuk's growing expansions (Python's `math.fsum`). Unlike the kernel, this method adds in a different order and uses no
/// shift.
fn exact_sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut partials: Vec<f64> = Vec::new();
    for mut x in values {
        let mut kept = Vec::new();
        for y in partials {
            let (large, small) = if x.abs() < y.abs() { (y, x) } else { (x, y) };
            let sum = large + small;
            let rest = small - (sum - large);
            if rest != 0.0 {
                kept.push(rest);
            }
            x = sum;
        }
        kept.push(x);
        partials = kept;
    }
    partials.iter().sum()
}

/// Computes Σ(x − mean)² = Σx² − (Σx)²/n. Each product is split exactly into two floats, and all floats are summed exactly.
fn reference(values: &[f64]) -> (f64, Option<f64>) {
    #[expect(clippy::cast_precision_loss, reason = "a window holds at most a few thousand candles")]
    let n = values.len() as f64;
    let mean = exact_sum(values.iter().copied()) / n;
    let pairs = values.iter().flat_map(|x| values.iter().map(move |y| x - y)).flat_map(|difference| {
        let square = difference * difference;
        [square, difference.mul_add(difference, -square)]
    });
    // Lagrange's identity: Σ(x − mean)² = Σᵢⱼ(xᵢ − xⱼ)² / 2n.
    let deviation = (values.len() > 1).then(|| (exact_sum(pairs) / (2.0 * n) / (n - 1.0)).sqrt());
    (mean, deviation)
}

#[track_caller]
fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found:e} is not {expected:e}");
}

prop_compose! {
    /// Up to 80 candles at a price of any magnitude. They are a few seconds to an hour apart, and mostly a minute.
    fn series()(
        steps in prop::collection::vec(prop_oneof![6 => Just(60_i64), 1 => 1_i64..3600], 1..80),
        price in 1e-3..1e6,
        moves in prop::collection::vec((-0.01..0.01, 0.0..1e4), 80),
    ) -> Vec<(i64, f64, f64)> {
        let mut time = 1_700_000_000;
        steps.iter().zip(moves).map(|(step, (change, volume))| {
            time += step;
            (time * 1_000_000, price * (1.0 + change), volume)
        }).collect()
    }
}

proptest! {
    #[test]
    fn every_window_agrees_with_exact_sums(candles in series(), by_rows in any::<bool>()) {
        let frame = if by_rows { Frame::Rows } else { Frame::Time };
        for (window, found) in WINDOWS.into_iter().zip(averages(&candles, frame)) {
            for (row, candle) in candles.iter().enumerate() {
                let inside: Vec<_> = candles[..=row].iter().rev().enumerate()
                    .filter(|(age, other)| match frame {
                        Frame::Rows => *age < usize::from(window),
                        Frame::Time => candle.0 - other.0 < i64::from(window) * MINUTE_MICROS,
                    })
                    .map(|(_, other)| other).collect();
                let (mean, deviation) = reference(&inside.iter().map(|candle| candle.1).collect::<Vec<_>>());
                let (volume, _) = reference(&inside.iter().map(|candle| candle.2).collect::<Vec<_>>());
                prop_assert_eq!(usize::try_from(found.samples[row]).unwrap(), inside.len());
                assert_close(found.price_ma[row], mean);
                assert_close(found.volume_ma[row], volume);
                assert_close(found.price_volatility[row], deviation.unwrap_or(0.0));
            }
        }
    }

    #[test]
    fn any_range_of_rows_gives_the_same_bits_as_all(candles in series(), cut in 0..80_usize, by_rows in any::<bool>()) {
        let frame = if by_rows { Frame::Rows } else { Frame::Time };
        let cut = cut.min(candles.len());
        let (head, tail) = (averages_of(&candles, frame, 0..cut), averages_of(&candles, frame, cut..candles.len()));
        for ((all, mut head), tail) in averages(&candles, frame).into_iter().zip(head).zip(tail) {
            head.price_ma.extend(tail.price_ma);
            head.price_volatility.extend(tail.price_volatility);
            head.volume_ma.extend(tail.volume_ma);
            head.samples.extend(tail.samples);
            prop_assert_eq!(head, all);
        }
    }
}
