//! Where an earlier run stopped: the topic itself says so, in the headers of its last records.

use std::ops::Range;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::Input;
use crate::sink::{CUT, LINE, SOURCE};

/// Group id of the reader; it never joins nor commits.
const GROUP: &str = "candleflight-producer";
/// Offsets of a partition that are read first, from its end: the last record of the only input is among them.
const WINDOW_MIN: i64 = 256;
/// Each next window is this much longer, so that a whole topic takes a dozen of them.
const WINDOW_FACTOR: i64 = 8;
/// How long one poll waits: how late Ctrl-C is noticed.
const POLL_MAX: Duration = Duration::from_millis(100);

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

/// The part of a partition that was not looked at yet.
struct Tail {
    partition: i32,
    low: i64,
    high: i64,
}

/// Returns for each input where it goes on.
///
/// Reads each partition backwards, in growing windows, until all inputs are found; each offset at most once.
/// A `shutdown` in between is an error.
pub(crate) fn starts(
    args: &kafka::Args,
    inputs: &[Input],
    shutdown: &CancellationToken,
) -> Result<Vec<Start>, kafka::Error> {
    let failed = || kafka::Error::new(format!("look up where {} stopped", args.topic));
    let mut config = args.consumer(GROUP);
    config.set("enable.partition.eof", "true");
    let consumer = BaseConsumer::from_config(&config).map_err(failed())?;
    let mut tails = tails(&consumer, &args.topic).map_err(failed())?;
    // Kafka removes the oldest records, of any partition: what is not found may have been among them.
    let is_whole = tails.iter().all(|tail| tail.low == 0);
    let names: Vec<String> = inputs.iter().map(Input::name).collect();
    let mut found: Vec<Option<Sent>> = vec![None; inputs.len()];
    let mut window = WINDOW_MIN;
    while found.contains(&None) && tails.iter().any(|tail| tail.low < tail.high) {
        let mut later: Vec<Option<Sent>> = vec![None; inputs.len()];
        for tail in tails.iter_mut().filter(|tail| tail.low < tail.high) {
            let first = tail.low.max(tail.high - window);
            let partition = (args.topic.as_str(), tail.partition);
            read(&consumer, partition, first..tail.high, shutdown, |message| {
                let is_from = |index: &usize| message.key() == Some(inputs[*index].symbol.as_bytes());
                let Some((source, sent)) = origin(message) else { return };
                let input =
                    (0..inputs.len()).filter(is_from).find(|index| source == names[*index].as_bytes());
                if let Some(input) = input {
                    later[input] = Some(sent);
                }
            })
            .map_err(failed())?;
            tail.high = first;
        }
        for (found, later) in found.iter_mut().zip(later) {
            *found = found.take().or(later);
        }
        window = window.saturating_mul(WINDOW_FACTOR);
    }
    let missing = if is_whole { Start::Beginning } else { Start::Unknown };
    Ok(found.into_iter().map(|sent| sent.map_or_else(|| missing.clone(), Start::After)).collect())
}

fn tails(consumer: &BaseConsumer, topic: &str) -> Result<Vec<Tail>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), kafka::REQUEST_MAX)?;
    let partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
    partitions
        .map(|partition| {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), kafka::REQUEST_MAX)?;
            Ok(Tail { partition: partition.id(), low, high })
        })
        .collect()
}

/// Reads the records of a run of offsets.
fn read(
    consumer: &BaseConsumer,
    (topic, partition): (&str, i32),
    offsets: Range<i64>,
    shutdown: &CancellationToken,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), KafkaError> {
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(offsets.start))?;
    consumer.assign(&assignment)?;
    let mut silence = Duration::ZERO;
    while !shutdown.is_cancelled() {
        match consumer.poll(POLL_MAX) {
            Some(Ok(message)) if message.offset() >= offsets.end => return Ok(()),
            Some(Ok(message)) => {
                each(&message);
                if message.offset() == offsets.end - 1 {
                    return Ok(());
                }
                silence = Duration::ZERO;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) if kafka::is_fatal(&error) => return Err(error),
            Some(Err(error)) => tracing::debug!("{error}"),
            None => silence += POLL_MAX,
        }
        if silence >= kafka::REQUEST_MAX {
            return Err(KafkaError::NoMessageReceived);
        }
    }
    Err(KafkaError::Canceled)
}

/// Returns the file name in a record's headers, and what was sent.
fn origin<'a>(message: &'a BorrowedMessage<'_>) -> Option<(&'a [u8], Sent)> {
    let headers = message.headers()?;
    let value = |key| headers.iter().find(|header| header.key == key).and_then(|header| header.value);
    let line = str::from_utf8(value(LINE)?).ok()?.parse().ok()?;
    let sent = Sent { line, value: message.payload()?.to_vec(), was_cut: value(CUT).is_some() };
    Some((value(SOURCE)?, sent))
}
