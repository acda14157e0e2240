//! Finds the lines after which an earlier run stopped, from the headers of the last records in the topic.

use std::collections::VecDeque;

use kafka::RunReader;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};
use schema::candle::Candle;
use tokio_util::sync::CancellationToken;

use crate::Input;
use crate::sink::{CUT, LINE, SOURCE};

/// Group id of the reader, which never joins the group and never commits.
const GROUP: &str = "candleflight-producer";
/// Number of offsets that are read first from the end of each partition. If there is only one input, its last record is among them.
const WINDOW_MIN: i64 = 256;
/// Growth factor of each further window, so that a whole topic takes about a dozen windows.
const WINDOW_FACTOR: i64 = 8;

/// Place where an input starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Start {
    /// The first line: the topic has no record of the input.
    #[default]
    Beginning,
    /// The line after the last one that was sent.
    After(Sent),
    /// Unknown: the topic has no record of the input, but it may have lost some.
    Unknown,
}

/// The last line of an input that is in the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Number of the line.
    pub(crate) line: u64,
    /// Value of the record: the candle of the line.
    pub(crate) value: Vec<u8>,
    /// True if the line had no line end when it was sent.
    pub(crate) was_cut: bool,
}

/// Event times, in microseconds, of the candles of an input that the topic holds without headers, after its last record with headers.
///
/// Kafka had lost these records. Ingest wrote them back from bronze, which does not store headers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Returned(VecDeque<f64>);

/// Offsets of a partition that are not read yet: `low..high`.
struct Tail {
    partition: i32,
    low: i64,
    high: i64,
}

impl Returned {
    /// Returns true if the candle is the next of these candles, and removes it. A different candle removes all of them.
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

/// Returns the start of each input, and its candles that the topic holds without headers after it.
///
/// It reads each partition backwards, in growing windows, until it has found all inputs. It reads each offset at most once.
/// A `shutdown` during the search is an error.
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
    // Retention removes the oldest records of any partition. An input that is not found may have been among them.
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

/// Returns the file name from the headers of a record, and the line that it was sent for.
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
