//! Compares the topic with bronze. Each message must be a row of bronze with the same values, or a dead letter.
//!
//! This is a second implementation: it shares no code with ingest and reads messages with the JSON library only.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use kafka::RunReader;
use kafka::dead_letter::{SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, topic_of};
use position::Position;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use schema::bronze::KAFKA_OFFSET;
use schema::{CLOSE, EVENT_TIME, HIGH, KAFKA_TIME, LOW, OPEN, SYMBOL, VOLUME};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::Config;
use super::bronze::{Bronze, column};
use super::report::TopicReport;
use crate::error::Error;

/// Number of offsets that are compared together: about ten megabytes of messages.
const RUN_OFFSETS: i64 = 65_536;
/// Group id of the consumer. The group has no members and commits nothing.
const GROUP: &str = "candleflight-verify";
/// Columns of numbers. A message has the same names.
const NUMBERS: [&str; 5] = [OPEN, HIGH, LOW, CLOSE, VOLUME];

/// A message without a row in bronze. It may be a dead letter.
#[derive(Clone, Copy, Debug)]
struct Absent {
    /// The message holds all values of a candle.
    is_candle: bool,
    /// Ingest wrote this message back for an offset without a row.
    is_refill: bool,
}

/// Messages by partition and offset.
type AbsentMessages = BTreeMap<(i32, i64), Absent>;

/// Compares the messages that the topic still has, up to the position of bronze, with bronze and with the dead letters.
///
/// # Errors
///
/// [`Error::Kafka`], [`Error::Flight`].
pub(super) async fn compare(config: &Config, bronze: &mut Bronze) -> Result<TopicReport, Error> {
    let mut report = TopicReport::new(kafka::describe_topic(&config.kafka).await?);
    if !report.topic.matches(&bronze.origin.topic) {
        report.push(format!("bronze comes from another topic: {}", bronze.origin.topic));
        return Ok(report);
    }
    report.position = bronze.received().await?;
    let reader = Reader::open(&config.kafka)?;
    let mut absent = AbsentMessages::new();
    for (partition, next) in report.position.clone().iter() {
        let Range { start, end } = reader.offsets(partition).await?;
        if end < next {
            report.push(format!("partition {partition}: the topic ends at {end}, bronze at {next}"));
        }
        let mut first = start;
        while first < next.min(end) {
            let run = first..(first + RUN_OFFSETS).min(next).min(end);
            let rows = read_rows(bronze, partition, &run, &mut report).await?;
            first = run.end;
            let compared = reader.compare(partition, run, rows).await?;
            report.messages += compared.messages;
            report.rows += compared.rows;
            compared.faults.into_iter().for_each(|fault| report.push(fault));
            absent.extend(compared.absent.into_iter().map(|(offset, absent)| ((partition, offset), absent)));
        }
    }
    settle(config, absent, &mut report).await?;
    Ok(report)
}

/// Reads the bronze rows of a run.
async fn read_rows(
    bronze: &mut Bronze,
    partition: i32,
    run: &Range<i64>,
    report: &mut TopicReport,
) -> Result<RecordBatch, Error> {
    let only = |next| Position::from_iter([(partition, next)]);
    let mut batches = Vec::new();
    let each = |batch: &RecordBatch| batches.push(batch.clone());
    let reading = bronze.read(&only(run.start), &only(run.end), each).await?;
    reading.faults.into_iter().for_each(|fault| report.push(fault));
    Ok(concat_batches(&schema::bronze::schema(), &batches)
        .map_err(datafusion::error::DataFusionError::from)?)
}

/// Finds the dead letters among the messages without a row. The others are missing.
async fn settle(config: &Config, mut absent: AbsentMessages, report: &mut TopicReport) -> Result<(), Error> {
    let count = absent.len();
    absent.retain(|_, message| !message.is_refill);
    let mut has_all = true;
    if !absent.is_empty() {
        let topic = topic_of(&config.kafka.topic, config.dead_letter_topic.as_deref())?;
        let reader = Reader::open(&kafka::Args { topic, ..config.kafka.clone() })?;
        for partition in reader.partitions().await? {
            let Range { start, end } = reader.offsets(partition).await?;
            has_all &= start == 0;
            for letter in reader.sources(partition, start..end, config.kafka.topic.clone()).await? {
                absent.remove(&letter);
            }
        }
    }
    // Retention may have removed the dead letter of a message without a candle.
    absent.retain(|_, message| has_all || message.is_candle);
    report.dead_letters = (count - absent.len()) as u64;
    report.missing = absent.len() as u64;
    for (partition, offset) in absent.into_keys() {
        report.push(format!("partition {partition}, offset {offset}: neither in bronze nor a dead letter"));
    }
    Ok(())
}

/// A reader of a topic. Its client blocks the thread.
struct Reader(Arc<RunReader>);

/// Result of comparing a run of messages with bronze.
#[derive(Debug, Default)]
struct Compared {
    messages: u64,
    rows: u64,
    absent: Vec<(i64, Absent)>,
    faults: Vec<String>,
}

impl Reader {
    fn open(args: &kafka::Args) -> Result<Self, Error> {
        Ok(Reader(Arc::new(RunReader::open(args, GROUP)?)))
    }

    async fn partitions(&self) -> Result<Vec<i32>, Error> {
        let reader = Arc::clone(&self.0);
        Ok(tokio::task::spawn_blocking(move || reader.partitions()).await??)
    }

    async fn offsets(&self, partition: i32) -> Result<Range<i64>, Error> {
        let reader = Arc::clone(&self.0);
        let (low, high) = tokio::task::spawn_blocking(move || reader.watermarks(partition)).await??;
        Ok(low..high)
    }

    /// Reads a run of messages and compares them with the bronze rows of the same run.
    async fn compare(&self, partition: i32, run: Range<i64>, rows: RecordBatch) -> Result<Compared, Error> {
        let reader = Arc::clone(&self.0);
        let compare = move || {
            let mut compared = Compared { rows: rows.num_rows() as u64, ..Compared::default() };
            let rows = Rows::of(&rows);
            let mut row = 0;
            reader.read(partition, run, &CancellationToken::new(), |message| {
                row = compared.push(message, &rows, row);
            })?;
            compared.push_extra(partition, &rows.offsets[row..]);
            Ok::<_, Error>(compared)
        };
        tokio::task::spawn_blocking(compare).await?
    }

    /// Reads the places in `topic` of the messages in a run of dead letters.
    async fn sources(
        &self,
        partition: i32,
        run: Range<i64>,
        topic: String,
    ) -> Result<Vec<(i32, i64)>, Error> {
        let reader = Arc::clone(&self.0);
        let read = move || {
            let mut sources = Vec::new();
            if !run.is_empty() {
                reader.read(partition, run, &CancellationToken::new(), |letter| {
                    sources.extend(source(letter, &topic));
                })?;
            }
            Ok::<_, Error>(sources)
        };
        tokio::task::spawn_blocking(read).await?
    }
}

/// Returns the partition and the offset of the message in a dead letter, if the message is from `topic`.
fn source(letter: &BorrowedMessage<'_>, topic: &str) -> Option<(i32, i64)> {
    let headers = letter.headers()?;
    let header = |name: &str| {
        let header = headers.iter().find(|header| header.key == name)?;
        std::str::from_utf8(header.value?).ok()
    };
    let is_ours = header(SOURCE_TOPIC)? == topic;
    is_ours.then_some((header(SOURCE_PARTITION)?.parse().ok()?, header(SOURCE_OFFSET)?.parse().ok()?))
}

/// Columns of bronze that a message determines.
struct Rows<'a> {
    offsets: &'a [i64],
    symbols: &'a arrow::array::StringArray,
    event_times: &'a [i64],
    kafka_times: &'a [i64],
    numbers: [&'a [f64]; NUMBERS.len()],
}

/// Values of a message, in the form in which bronze should have them.
#[derive(Debug, PartialEq)]
struct Values<'a> {
    symbol: Cow<'a, str>,
    event_time: i64,
    kafka_time: i64,
    /// Bits of the numbers, since each bit counts.
    numbers: [u64; NUMBERS.len()],
}

impl<'a> Rows<'a> {
    fn of(batch: &'a RecordBatch) -> Self {
        let times = |name| &**column(batch, name).as_primitive::<TimestampMicrosecondType>().values();
        Rows {
            offsets: column(batch, KAFKA_OFFSET).as_primitive::<Int64Type>().values(),
            symbols: column(batch, SYMBOL).as_string(),
            event_times: times(EVENT_TIME),
            kafka_times: times(KAFKA_TIME),
            numbers: NUMBERS.map(|name| &**column(batch, name).as_primitive::<Float64Type>().values()),
        }
    }

    fn values(&self, row: usize) -> Values<'_> {
        Values {
            symbol: self.symbols.value(row).into(),
            event_time: self.event_times[row],
            kafka_time: self.kafka_times[row],
            numbers: self.numbers.map(|numbers| numbers[row].to_bits()),
        }
    }
}

impl<'a> Values<'a> {
    /// Reads a message. Returns `None` if a value of a candle is missing or not a number.
    fn of(payload: &'a [u8], kafka_millis: i64) -> Option<Values<'a>> {
        let fields: HashMap<String, &RawValue> = serde_json::from_slice(payload).ok()?;
        let fields: HashMap<String, &RawValue> =
            fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        let number = |name: &str| fields.get(name)?.get().parse::<f64>().ok();
        let mut numbers = [0; NUMBERS.len()];
        for (bits, name) in numbers.iter_mut().zip(NUMBERS) {
            *bits = number(name)?.to_bits();
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a time out of range becomes a time that no row has"
        )]
        let event_time = (number("timestamp")? * 1e6).round() as i64;
        let symbol = serde_json::from_str::<String>(fields.get(SYMBOL)?.get()).ok()?.into();
        Some(Values { symbol, event_time, kafka_time: kafka_millis.checked_mul(1000)?, numbers })
    }
}

impl Compared {
    /// Compares a message with the rows from `row` on. Returns the index of the next row.
    fn push(&mut self, message: &BorrowedMessage<'_>, rows: &Rows<'_>, row: usize) -> usize {
        self.messages += 1;
        let offset = message.offset();
        let skipped = rows.offsets[row..].iter().take_while(|held| **held < offset).count();
        self.push_extra(message.partition(), &rows.offsets[row..row + skipped]);
        let row = row + skipped;
        let payload = message.payload().unwrap_or_default();
        let values = Values::of(payload, message.timestamp().to_millis().unwrap_or(-1));
        if rows.offsets.get(row) != Some(&offset) {
            let is_refill = message
                .headers()
                .is_some_and(|headers| headers.iter().any(|header| header.key == kafka::REFILLED));
            let absent = Absent { is_candle: values.is_some(), is_refill: is_refill && payload.is_empty() };
            self.absent.push((offset, absent));
            return row;
        }
        if values.as_ref() != Some(&rows.values(row)) {
            self.faults.push(format!(
                "partition {}, offset {offset}: the message is {}, bronze has {}",
                message.partition(),
                values.map_or_else(|| "no candle".to_owned(), |values| values.to_string()),
                rows.values(row)
            ));
        }
        row + 1
    }

    fn push_extra(&mut self, partition: i32, offsets: &[i64]) {
        self.faults.extend(offsets.iter().map(|offset| {
            format!("partition {partition}, offset {offset}: in bronze, but not in the topic (which is a fault unless Kafka has compacted it)")
        }));
    }
}

impl std::fmt::Display for Values<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [open, high, low, close, volume] = self.numbers.map(f64::from_bits);
        write!(
            f,
            "{:?} at {} µs, open {open:?}, high {high:?}, low {low:?}, close {close:?}, volume {volume:?}, produced at {} µs",
            self.symbol, self.event_time, self.kafka_time
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Values;

    const CANDLE: &str = r#"{"Symbol":"B","timestamp":1700000000.5,"open":1,"high":3e0,"low":0.1,"close":-0,"volume":2,"x":[]}"#;

    #[test]
    fn a_message_is_read_field_by_field() {
        let values = Values::of(CANDLE.as_bytes(), 7).unwrap();
        assert_eq!(
            values.to_string(),
            "\"B\" at 1700000000500000 µs, open 1.0, high 3.0, low 0.1, close -0.0, volume 2.0, produced at 7000 µs"
        );
        let other = CANDLE.replace("0.1", "0.10000000000000002");
        assert_ne!(Values::of(other.as_bytes(), 7).unwrap(), values);
        assert_ne!(Values::of(CANDLE.as_bytes(), 8).unwrap(), values);
    }

    #[test]
    fn what_lacks_a_value_is_no_candle() {
        for text in ["", "{", "[1]", "null", &CANDLE.replace("low", "lower"), &CANDLE.replace("3e0", "\"3\"")]
        {
            assert_eq!(Values::of(text.as_bytes(), 7), None, "{text}");
        }
    }
}
