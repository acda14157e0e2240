use std::fmt::Write as _;

use proptest::prelude::*;

use super::{Input, Source};

/// A minute of 2012, in micros: long after all candles of these tests.
const NOW_MICROS: i64 = 1_325_412_060_000_000;

/// Reads files of the given timestamps (or raw lines) and returns input, line and timestamp or reason.
fn read(files: &[Vec<&str>], after: &[u64]) -> Vec<(usize, u64, Result<f64, &'static str>)> {
    let directory = tempfile::tempdir().unwrap();
    let inputs: Vec<Input> = files
        .iter()
        .enumerate()
        .map(|(index, lines)| {
            let mut content = "Timestamp,Open,High,Low,Close,Volume\n".to_owned();
            for line in lines {
                writeln!(content, "{line}").unwrap();
            }
            let path = directory.path().join(index.to_string());
            std::fs::write(&path, content).unwrap();
            Input { path, symbol: format!("S{index}") }
        })
        .collect();
    let mut source = Source::open(&inputs, after, NOW_MICROS).unwrap();
    let mut read = Vec::new();
    while let Some(next) = source.next().unwrap() {
        if let Ok(candle) = &next.candle {
            assert_eq!(candle.symbol, format!("S{}", next.input));
        }
        read.push((next.input, next.line, next.candle.map(|candle| candle.timestamp)));
    }
    read
}

#[test]
fn inputs_are_merged_by_timestamp_and_ties_by_input() {
    let files = [vec!["60,1,1,1,1,0", "120,1,1,1,1,0"], vec!["0,1,1,1,1,0", "60,1,1,1,1,0", "180,1,1,1,1,0"]];
    let expected =
        [(1, 2, Ok(0.0)), (0, 2, Ok(60.0)), (1, 3, Ok(60.0)), (0, 3, Ok(120.0)), (1, 4, Ok(180.0))];
    assert_eq!(read(&files, &[0, 0]), expected);
}

#[test]
fn lines_without_a_usable_candle_come_with_their_reason() {
    let lines = vec![
        "60,NaN,NaN,NaN,NaN,NaN",
        "60,1,1,1,1",
        "sixty,1,1,1,1,1",
        "60,1,1,2,1,1",
        "60,1,1,1,1,-1",
        "1748545200000,1,1,1,1,1",
        "60,1,1,1,1,1e300",
        "60,1,1,1,1,1",
    ];
    let reasons = [
        Err("not_finite"),
        Err("missing_field"),
        Err("not_a_number"),
        Err("high_below_low"),
        Err("negative_volume"),
        Err("time_out_of_range"),
        Err("number_out_of_range"),
        Ok(60.0),
    ];
    let expected: Vec<_> = (2..).zip(reasons).map(|(line, reason)| (0, line, reason)).collect();
    assert_eq!(read(&[lines], &[0]), expected);
}

#[test]
fn each_input_goes_on_after_its_own_line() {
    let files = [vec!["0,1,1,1,1,0", "60,1,1,1,1,0"], vec!["0,1,1,1,1,0"], vec!["0,1,1,1,1,0"]];
    assert_eq!(read(&files, &[2, 99, 0]), [(2, 2, Ok(0.0)), (0, 3, Ok(60.0))]);
}

#[test]
fn an_input_is_a_file_and_a_symbol() {
    let input: Input = "a=b/c.csv=BTC-USD".parse().unwrap();
    assert_eq!(
        (input.path.to_str(), input.symbol.as_str(), input.name().as_str()),
        (Some("a=b/c.csv"), "BTC-USD", "c.csv")
    );
    assert!(["a.csv", "a.csv=", "=BTC-USD", ""].iter().all(|text| text.parse::<Input>().is_err()));
}

proptest! {
    #[test]
    fn merging_sorts_sorted_inputs_and_loses_nothing(
        mut minutes in prop::collection::vec(prop::collection::vec(0_u32..1000, 0..30), 1..5)
    ) {
        for minutes in &mut minutes {
            minutes.sort_unstable();
        }
        let lines: Vec<Vec<String>> =
            minutes.iter().map(|minutes| minutes.iter().map(|minute| format!("{minute},1,1,1,1,1")).collect()).collect();
        let files: Vec<Vec<&str>> = lines.iter().map(|lines| lines.iter().map(String::as_str).collect()).collect();
        let merged: Vec<f64> =
            read(&files, &vec![0; files.len()]).into_iter().map(|(_, _, timestamp)| timestamp.unwrap()).collect();
        let mut expected: Vec<f64> = minutes.into_iter().flatten().map(f64::from).collect();
        expected.sort_by(f64::total_cmp);
        prop_assert_eq!(merged, expected);
    }
}
