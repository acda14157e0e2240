//! Refills the topic: writes messages that Kafka has lost at the end of a partition back from bronze.
//!
//! After a power cut, Kafka may lose pages that it had not written to disk. The refill gives each candle its old offset. Two checks come
//! first. The topic id proves that the topic is the same. The last messages of the topic must equal the rows of bronze, which proves that
//! no other producer has written to the topic in the meantime.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use futures::TryStreamExt as _;
use kafka::RunReader;
use position::{OffsetRange, Position};
use proto::ticket::{Follow, Ticket};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use schema::RangedBatch;
use schema::bronze::column;
use schema::candle::Candle;
use schema::ranged::offset_at;
use tokio_util::sync::CancellationToken;
use transport::client::{self, Client};

use crate::decoded_batch::DecodedBatch;
use crate::raw_batch::RawBatch;
use crate::{Config, Error};

/// Number of messages at the end of the topic that must equal the rows of bronze.
const COMPARED: i64 = 256;
/// Maximum number of records that wait for their acknowledgement.
const UNACKNOWLEDGED_MAX: usize = 4096;
/// Longest wait of a record for others, to share a Kafka batch.
const LINGER: Duration = Duration::from_millis(5);

/// Writes the offsets `lost`, which begin at the end of their partition, back to the topic.
///
/// The candles of bronze get their old offsets and times. Offsets without a row in bronze get empty records.
///
/// # Errors
///
/// [`Error::TopicDiffers`]: the last messages of the topic differ from bronze, or another producer writes at the same time. Otherwise an
/// error of Kafka or the Flight server.
pub(crate) async fn refill(
    client: &mut Client,
    config: &Config,
    table: &str,
    lost: OffsetRange,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let (compared, in_topic) = read_end(config, lost, shutdown).await?;
    if in_topic != rows(client, table, compared).await? {
        return Err(Error::TopicDiffers { topic: config.kafka.topic.clone(), lost });
    }
    tracing::warn!(topic = config.kafka.topic, %lost, "Kafka has lost the end of a partition: writing it back from bronze");
    let producer = config.kafka.producer(LINGER);
    let producer: FutureProducer<kafka::Logs> =
        FutureProducer::from_config_and_context(&producer, kafka::Logs).map_err(failed(config))?;
    let mut writer = Writer { config, producer, next: lost.first, unacknowledged: VecDeque::new(), lost };
    let ticket = ticket(table, lost);
    let mut stream = pin!(client::read(client, &ticket).await?);
    while let Some(RangedBatch { range, rows }) = stream.try_next().await? {
        for row in 0..rows.num_rows() {
            writer.fill(offset_at(&rows, row)).await?;
            writer.write(Some(&candle(&rows, row))).await?;
        }
        writer.fill(range.next).await?;
    }
    writer.fill(lost.next).await?;
    writer.finish().await?;
    tracing::warn!(topic = config.kafka.topic, %lost, "the lost messages are written back: the partition ends at the position of bronze again");
    Ok(())
}

/// Reads the messages of the topic just before `lost`. Returns their offsets, and the rows that bronze would hold for them.
async fn read_end(
    config: &Config,
    lost: OffsetRange,
    shutdown: &CancellationToken,
) -> Result<(OffsetRange, RecordBatch), Error> {
    let (config, shutdown) = (config.clone(), shutdown.clone());
    let read = tokio::task::spawn_blocking(move || {
        let reader = RunReader::open(&config.kafka, &config.group)?;
        let (low, _) = reader.watermarks(lost.partition)?;
        let end = OffsetRange { first: low.max(lost.first - COMPARED), next: lost.first, ..lost };
        let mut messages = RawBatch::new(end.partition, end.first);
        if !end.is_empty() {
            reader.read(end.partition, end.first..end.next, &shutdown, |message| {
                messages.push(message.into());
            })?;
        }
        Ok((end, DecodedBatch::decode(end, messages.iter()).batch.rows))
    });
    read.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Reads the rows of bronze for the offsets in `run`.
async fn rows(client: &mut Client, table: &str, run: OffsetRange) -> Result<RecordBatch, Error> {
    let schema = schema::bronze::schema();
    if run.is_empty() {
        return Ok(RecordBatch::new_empty(schema));
    }
    let stream = client::read(client, &ticket(table, run)).await?;
    let batches: Vec<_> = stream.map_ok(|batch| batch.rows).try_collect().await?;
    Ok(concat_batches(&schema, &batches)?)
}

fn ticket(table: &str, run: OffsetRange) -> Ticket {
    let only = |next| Position::from_iter([(run.partition, next)]);
    Ticket::Bronze(Follow::from(only(run.first)).until(only(run.next)).of_table(table.to_owned()))
}

/// A candle of bronze as JSON, its key, and the time at which it was produced, in Unix milliseconds.
struct Produced {
    json: Vec<u8>,
    key: String,
    kafka_millis: i64,
}

fn candle(rows: &RecordBatch, row: usize) -> Produced {
    let number = |column: usize| rows.column(column).as_primitive::<Float64Type>().value(row);
    let micros = |column: usize| rows.column(column).as_primitive::<TimestampMicrosecondType>().value(row);
    let symbol = rows.column(column::SYMBOL).as_string::<i32>().value(row);
    #[expect(
        clippy::cast_precision_loss,
        reason = "a float64 holds any microsecond up to the year 9999 exactly enough to read it back"
    )]
    let timestamp = micros(column::EVENT_TIME) as f64 / 1e6;
    let candle = Candle {
        symbol: symbol.into(),
        timestamp,
        open: number(column::OPEN),
        high: number(column::HIGH),
        low: number(column::LOW),
        close: number(column::CLOSE),
        volume: number(column::VOLUME),
    };
    Produced {
        json: serde_json::to_vec(&candle).expect("a candle has string keys"),
        key: symbol.to_owned(),
        kafka_millis: micros(column::KAFKA_TIME).div_euclid(1000),
    }
}

/// Writer of records to one partition. It checks that each record gets the expected offset.
struct Writer<'a> {
    config: &'a Config,
    producer: FutureProducer<kafka::Logs>,
    /// Offset of the next record.
    next: i64,
    unacknowledged: VecDeque<(i64, DeliveryFuture)>,
    lost: OffsetRange,
}

impl Writer<'_> {
    /// Writes empty records up to `offset`.
    async fn fill(&mut self, offset: i64) -> Result<(), Error> {
        while self.next < offset {
            self.write(None).await?;
        }
        Ok(())
    }

    async fn write(&mut self, produced: Option<&Produced>) -> Result<(), Error> {
        let headers = OwnedHeaders::new().insert(Header { key: kafka::REFILLED, value: Some("bronze") });
        let mut record = FutureRecord::<str, [u8]> {
            topic: &self.config.kafka.topic,
            partition: Some(self.lost.partition),
            payload: produced.map(|produced| produced.json.as_slice()),
            key: produced.map(|produced| produced.key.as_str()),
            timestamp: produced.map(|produced| produced.kafka_millis),
            headers: Some(headers),
        };
        loop {
            match self.producer.send_result(record) {
                Ok(delivery) => {
                    self.unacknowledged.push_back((self.next, delivery));
                    break;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if !self.unacknowledged.is_empty() =>
                {
                    record = back;
                    self.acknowledged().await?;
                }
                Err((error, _)) => return Err(failed(self.config)(error).into()),
            }
        }
        // The first record is acknowledged before the second record is sent, so that another producer is noticed before more is written.
        let unacknowledged_max = if self.next == self.lost.first { 0 } else { UNACKNOWLEDGED_MAX };
        self.next += 1;
        while self.unacknowledged.len() > unacknowledged_max {
            self.acknowledged().await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<(), Error> {
        while !self.unacknowledged.is_empty() {
            self.acknowledged().await?;
        }
        Ok(())
    }

    /// Waits for the acknowledgement of the oldest record, and checks its offset.
    async fn acknowledged(&mut self) -> Result<(), Error> {
        let Some((offset, delivery)) = self.unacknowledged.pop_front() else { return Ok(()) };
        let delivered = delivery.await.unwrap_or_else(|_canceled| unreachable!("the producer is still here"));
        let delivered = delivered.map_err(|(error, _)| failed(self.config)(error))?;
        if delivered.offset == offset {
            return Ok(());
        }
        Err(Error::TopicDiffers { topic: self.config.kafka.topic.clone(), lost: self.lost })
    }
}

fn failed(config: &Config) -> impl FnOnce(KafkaError) -> kafka::Error + use<> {
    kafka::Error::new(format!("write lost messages back to topic {}", config.kafka.topic))
}
