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

use crate::sink::{LINE, SOURCE};
use crate::source::Input;

/// Group id of the reader; it never joins nor commits.
const GROUP: &str = "candleflight-producer";
/// Offsets of a partition that are read first, from its end: the last record of the only input is among them.
const WINDOW_MIN: i64 = 256;
/// Each next window is this much longer, so that a whole topic takes a dozen of them.
const WINDOW_FACTOR: i64 = 8;
/// How long one poll waits: how late Ctrl-C is noticed.
const POLL_MAX: Duration = Duration::from_millis(100);

/// The part of a partition that was not looked at yet.
struct Tail {
    partition: i32,
    low: i64,
    high: i64,
}

/// Returns for each input the last of its lines that is in the topic, 0 when there is none.
///
/// Reads each partition backwards, in growing windows, until all inputs are found; each offset at most once.
/// A `shutdown` in between is an error.
pub(crate) fn last_lines(
    args: &kafka::Args,
    inputs: &[Input],
    shutdown: &CancellationToken,
) -> Result<Vec<u64>, kafka::Error> {
    let failed = || kafka::Error::new(format!("look up where {} stopped", args.topic));
    let mut config = args.consumer(GROUP);
    config.set("enable.partition.eof", "true");
    let consumer = BaseConsumer::from_config(&config).map_err(failed())?;
    let mut tails = tails(&consumer, &args.topic).map_err(failed())?;
    let names: Vec<String> = inputs.iter().map(Input::name).collect();
    let mut lines: Vec<Option<u64>> = vec![None; inputs.len()];
    let mut window = WINDOW_MIN;
    while lines.contains(&None) && tails.iter().any(|tail| tail.low < tail.high) {
        let mut later = vec![None; inputs.len()];
        for tail in tails.iter_mut().filter(|tail| tail.low < tail.high) {
            let first = tail.low.max(tail.high - window);
            let partition = (args.topic.as_str(), tail.partition);
            read(&consumer, partition, first..tail.high, shutdown, |message| {
                let is_from = |index: &usize| message.key() == Some(inputs[*index].symbol.as_bytes());
                let Some((source, line)) = origin(message) else { return };
                let input =
                    (0..inputs.len()).filter(is_from).find(|index| source == names[*index].as_bytes());
                if let Some(input) = input {
                    later[input] = Some(line);
                }
            })
            .map_err(failed())?;
            tail.high = first;
        }
        for (line, later) in lines.iter_mut().zip(later) {
            *line = line.or(later);
        }
        window = window.saturating_mul(WINDOW_FACTOR);
    }
    Ok(lines.into_iter().map(Option::unwrap_or_default).collect())
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

/// Returns the file name and line that a record says it comes from.
fn origin<'a>(message: &'a BorrowedMessage<'_>) -> Option<(&'a [u8], u64)> {
    let headers = message.headers()?;
    let value = |key| headers.iter().find(|header| header.key == key).and_then(|header| header.value);
    Some((value(SOURCE)?, str::from_utf8(value(LINE)?).ok()?.parse().ok()?))
}
