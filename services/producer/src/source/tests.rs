use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::{Next, Source};
use crate::resume::{Sent, Start};
use crate::{Error, Input};

/// A time in 2012, in microseconds, long after all candles of these tests.
const NOW_MICROS: i64 = 1_325_412_060_000_000;

/// Writes a file of these lines. If `is_cut`, the last line has no line end.
fn write(folder: &Path, index: usize, lines: &[&str], is_cut: bool) -> Input {
    let mut content = "Timestamp,Open,High,Low,Close,Volume\n".to_owned();
    for line in lines {
        writeln!(content, "{line}").unwrap();
    }
    let content = if is_cut { content.trim_end() } else { &content };
    let path = folder.join(index.to_string());
    std::fs::write(&path, content).unwrap();
    Input { path, symbol: format!("S{index}") }
}

/// Input, line and timestamp, or the reason why the line has none.
type Read = (usize, u64, Result<f64, &'static str>);

/// Reads all inputs. Returns the lines, and the inputs that failed.
fn read_from(inputs: &[Input], starts: Vec<Start>) -> (Vec<Read>, Vec<(usize, Error)>) {
    let mut source = Source::open(inputs, starts, "topic", NOW_MICROS);
    let (mut read, mut failed) = (Vec::new(), Vec::new());
    while let Some(next) = source.next() {
        match next {
            Next::Candle { input, line, candle, .. } => {
                assert_eq!(candle.symbol, format!("S{input}"));
                read.push((input, line, Ok(candle.timestamp)));
            }
            Next::Rejected { input, line, reason } => read.push((input, line, Err(reason))),
            Next::Failed { input, error } => failed.push((input, error)),
        }
    }
    (read, failed)
}

/// Reads files of the given lines. An input may fail only because it has no line.
fn read(files: &[Vec<&str>], starts: &[Start]) -> Vec<Read> {
    let directory = tempfile::tempdir().unwrap();
    let inputs = files.iter().enumerate().map(|(index, lines)| write(directory.path(), index, lines, false));
    let (read, failed) = read_from(&inputs.collect::<Vec<_>>(), starts.to_vec());
    assert!(failed.iter().all(|(_, error)| matches!(error, Error::Layout { .. })), "{failed:?}");
    read
}

/// Returns the start after a line that held this candle.
fn after(line: u64, [timestamp, price, volume]: [f64; 3], was_cut: bool) -> Start {
    let (open, high, low, close) = (price, price, price, price);
    let candle = schema::candle::Candle { symbol: "S0".into(), timestamp, open, high, low, close, volume };
    Start::After(Sent { line, value: serde_json::to_vec(&candle).unwrap(), was_cut })
}

#[test]
fn inputs_are_merged_by_timestamp_and_ties_by_input() {
    let files = [vec!["60,1,1,1,1,0", "120,1,1,1,1,0"], vec!["0,1,1,1,1,0", "60,1,1,1,1,0", "180,1,1,1,1,0"]];
    let expected =
        [(1, 2, Ok(0.0)), (0, 2, Ok(60.0)), (1, 3, Ok(60.0)), (0, 3, Ok(120.0)), (1, 4, Ok(180.0))];
    assert_eq!(read(&files, &[Start::Beginning, Start::Beginning]), expected);
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
    assert_eq!(read(&[lines], &[Start::Beginning]), expected);
}

#[test]
fn each_input_goes_on_after_its_own_line() {
    let files = [vec!["0,1,1,1,1,0", "", "60,1,1,1,1,0"], vec!["0,1,1,1,1,0"]];
    let first = after(2, [0.0, 1.0, 0.0], false);
    assert_eq!(read(&files, &[first, Start::Beginning]), [(1, 2, Ok(0.0)), (0, 4, Ok(60.0))]);
    let last = after(4, [60.0, 1.0, 0.0], false);
    assert_eq!(read(&files[..1], &[last]), []);
}

/// Reads a file of these lines after line 2, which was sent as `60,1,1,1,1,277.4`. Returns the numbers of the lines.
fn go_on(lines: &[&str], was_cut: bool) -> Result<Vec<u64>, Error> {
    let directory = tempfile::tempdir().unwrap();
    let input = write(directory.path(), 0, lines, false);
    let (read, mut failed) = read_from(&[input], vec![after(2, [60.0, 1.0, 277.4], was_cut)]);
    failed
        .pop()
        .map_or_else(|| Ok(read.into_iter().map(|(_, line, _)| line).collect()), |(_, error)| Err(error))
}

#[test]
fn another_file_of_the_same_name_is_refused() {
    let next = "120,1,1,1,1,0";
    assert_eq!(go_on(&["60,1,1,1,1,277.4", next], false).unwrap(), [3]);
    for other in [&["60,1,1,1,1,277.5", next][..], &["0,1,1,1,1,277.4", next], &["bad", next], &[]] {
        assert!(matches!(go_on(other, false), Err(Error::AnotherFile { line: 2, .. })), "{other:?}");
    }
    // Another program's record may have any line number in its headers.
    let directory = tempfile::tempdir().unwrap();
    let input = write(directory.path(), 0, &[next], false);
    let (_, failed) = read_from(&[input], vec![after(0, [120.0, 1.0, 0.0], false)]);
    assert!(matches!(failed[..], [(0, Error::AnotherFile { line: 0, .. })]), "{failed:?}");
}

#[test]
fn a_line_that_was_cut_when_it_was_sent_is_corrected() {
    let next = "120,1,1,1,1,0";
    assert_eq!(go_on(&["60,1,1,1,1,277.448", next], true).unwrap(), [2, 3]);
    assert_eq!(go_on(&["60,1,1,1,1,277.4", next], true).unwrap(), [3]);
    assert_eq!(go_on(&["60,1,1,1,1,-277.4", next], true).unwrap(), [2, 3], "a corrected line is validated");
    assert!(matches!(go_on(&["180,1,1,1,1,277.448", next], true), Err(Error::AnotherFile { .. })));

    let directory = tempfile::tempdir().unwrap();
    let input = write(directory.path(), 0, &[next, "180,1,1,1,1,277.4"], true);
    let mut source = Source::open(&[input], vec![Start::Beginning], "topic", NOW_MICROS);
    for expected in [false, true] {
        assert!(matches!(source.next(), Some(Next::Candle { is_cut, .. }) if is_cut == expected));
    }
}

#[test]
fn an_input_that_ends_badly_leaves_the_others_alone() {
    let directory = tempfile::tempdir().unwrap();
    let write = |index, lines: &[&str]| write(directory.path(), index, lines, false);
    let millis = write(0, &["1735689600000,1,1,1,1,1", "1735689660000,1,1,1,1,1"]);
    let good = write(1, &["60,1,1,1,1,1"]);
    let gone = Input { path: directory.path().join("gone.csv"), symbol: "S2".to_owned() };
    let expired = write(3, &["60,1,1,1,1,1"]);
    let header_only = write(4, &[]);
    let starts = [Start::Beginning, Start::Beginning, Start::Beginning, Start::Unknown, Start::Beginning];
    let (read, failed) = read_from(&[millis, good, gone, expired, header_only], starts.to_vec());
    assert_eq!(read.iter().filter(|(_, _, candle)| candle.is_ok()).collect::<Vec<_>>(), [&(1, 2, Ok(60.0))]);
    let of = |wanted| failed.iter().find(|(input, _)| *input == wanted).map(|(_, error)| error).unwrap();
    assert!(failed.len() == 4 && failed.iter().all(|(_, error)| error.is_input()), "{failed:?}");
    assert!(
        matches!(of(0), Error::Unusable { count: 2, line: 2, hint, .. } if hint.contains("milliseconds"))
    );
    assert!(matches!(of(2), Error::Missing { .. }));
    assert!(matches!(of(3), Error::Expired { .. }));
    assert!(matches!(of(4), Error::Layout { problem, .. } if problem.contains("no line after its header")));
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
            read(&files, &vec![Start::Beginning; files.len()]).into_iter().map(|(_, _, timestamp)| timestamp.unwrap()).collect();
        let mut expected: Vec<f64> = minutes.into_iter().flatten().map(f64::from).collect();
        expected.sort_by(f64::total_cmp);
        prop_assert_eq!(merged, expected);
    }
}
