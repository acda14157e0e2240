//! Where an earlier run stopped: the topic itself says so, in the headers of its last records.

use std::collections::VecDeque;

use kafka::RunReader;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};
use schema::candle::Candle;
use tokio_util::sync::CancellationToken;

use crate::Input;
use crate::sink::{CUT, LINE, SOURCE};

/// Group id of the reader; it never joins nor commits.
const GROUP: &str = "candleflight-producer";
/// Offsets of a partition that are read first, from its end: the last record of the only input is among them.
const WINDOW_MIN: i64 = 256;
/// Each next window is this much longer, so that a whole topic takes a dozen of them.
const WINDOW_FACTOR: i64 = 8;

/// Where an input begins or goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Start {
    /// At its first line: the topic holds none of it.
    #[default]
    Beginning,
    /// After the last line that was sent.
    After(Sent),
    /// Undecided: the topic holds no record of it, and may have lost some.
    Unknown,
}

/// The last line of an input that is in the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Its number.
    pub(crate) line: u64,
    /// The record's value: the candle of the line.
    pub(crate) value: Vec<u8>,
    /// Whether the line had no end when it was sent.
    pub(crate) was_cut: bool,
}

/// Event times, in microseconds, of an input's candles behind its last headers: Kafka lost their records, and ingest wrote them back from
/// bronze, which has no headers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Returned(VecDeque<f64>);

/// The part of a partition that was not looked at yet.
struct Tail {
    partition: i32,
    low: i64,
    high: i64,
}

impl Returned {
    /// Returns true if the candle is the next of these, and counts it as sent; another candle ends them all.
    pub(crate) fn takes(&mut self, candle: &Candle<'_>) -> bool {
        let Some(next) = self.0.pop_front() else { return false };
        let is_next = next == event_time(candle);
        if !is_next {
            self.0.clear();
        }
        is_next
    }

    fn extend_front(&mut self, mut earlier: Returned) {
        earlier.0.append(&mut self.0);
        *self = earlier;
    }
}

fn event_time(candle: &Candle<'_>) -> f64 {
    (candle.timestamp * 1e6).round()
}

/// Returns for each input where it goes on, and what of it is in the topic behind that.
///
/// Reads each partition backwards, in growing windows, until all inputs are found; each offset at most once.
/// A `shutdown` in between is an error.
pub(crate) fn starts(
    args: &kafka::Args,
    inputs: &[Input],
    shutdown: &CancellationToken,
) -> Result<(Vec<Start>, Vec<Returned>), kafka::Error> {
    let reader = RunReader::open(args, GROUP)?;
    let tail = |partition| {
        let (low, high) = reader.watermarks(partition)?;
        Ok(Tail { partition, low, high })
    };
    let mut tails = reader.partitions()?.into_iter().map(tail).collect::<Result<Vec<_>, kafka::Error>>()?;
    // Kafka removes the oldest records, of any partition: what is not found may have been among them.
    let is_whole = tails.iter().all(|tail| tail.low == 0);
    let names: Vec<String> = inputs.iter().map(Input::name).collect();
    let mut found: Vec<Option<Sent>> = vec![None; inputs.len()];
    let mut returned = vec![Returned::default(); inputs.len()];
    let mut window = WINDOW_MIN;
    while found.contains(&None) && tails.iter().any(|tail| tail.low < tail.high) {
        let mut later: Vec<Option<Sent>> = vec![None; inputs.len()];
        let mut returned_later = vec![Returned::default(); inputs.len()];
        for tail in tails.iter_mut().filter(|tail| tail.low < tail.high) {
            let first = tail.low.max(tail.high - window);
            reader.read(tail.partition, first..tail.high, shutdown, |message| {
                let is_from = |index: &usize| message.key() == Some(inputs[*index].symbol.as_bytes());
                if let Some((source, sent)) = origin(message) {
                    let mut of_symbol = (0..inputs.len()).filter(is_from);
                    if let Some(input) = of_symbol.find(|index| source == names[*index].as_bytes()) {
                        later[input] = Some(sent);
                        returned_later[input] = Returned::default();
                    }
                } else if let Some(event_time) = refilled(message) {
                    for input in (0..inputs.len()).filter(is_from) {
                        returned_later[input].0.push_back(event_time);
                    }
                }
            })?;
            tail.high = first;
        }
        for (input, (later, returned_later)) in later.into_iter().zip(returned_later).enumerate() {
            if found[input].is_none() {
                returned[input].extend_front(returned_later);
                found[input] = later;
            }
        }
        window = window.saturating_mul(WINDOW_FACTOR);
    }
    let missing = if is_whole { Start::Beginning } else { Start::Unknown };
    let starts = found.into_iter().map(|sent| sent.map_or_else(|| missing.clone(), Start::After));
    Ok((starts.collect(), returned))
}

/// Returns the file name in a record's headers, and what was sent.
fn origin<'a>(message: &'a BorrowedMessage<'_>) -> Option<(&'a [u8], Sent)> {
    let line = str::from_utf8(header(message, LINE)?).ok()?.parse().ok()?;
    let was_cut = header(message, CUT).is_some();
    let sent = Sent { line, value: message.payload()?.to_vec(), was_cut };
    Some((header(message, SOURCE)?, sent))
}

/// Returns the event time of a candle that was written back from bronze.
fn refilled(message: &BorrowedMessage<'_>) -> Option<f64> {
    header(message, kafka::REFILLED)?;
    Some(event_time(&Candle::from_json(message.payload()?).ok()?))
}

fn header<'a>(message: &'a BorrowedMessage<'_>, key: &str) -> Option<&'a [u8]> {
    message.headers()?.iter().find(|header| header.key == key)?.value
}
