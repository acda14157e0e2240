//! Age of a candle when its gold row is committed, at steady rates. The reference is the minimum time that Kafka and PostgreSQL take: one
//! record is produced, consumed and committed without further steps.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use integration_tests::input::producer;
use integration_tests::pipeline::Pipeline;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use service::clock::now_micros;
use service::metrics::names;
use service::metrics::{Buckets, Samples};
use tokio::runtime::Handle;
use tokio::time::interval;
use tokio_postgres::Client;

use crate::Setting;
use crate::figure::{Aim, Figure};
use crate::{input, watch};

/// Records per second.
const RATES: [u32; 3] = [10, 1_000, 20_000];
/// Partitions of the topic.
const PARTITIONS: usize = 4;
/// Parts of a run. Their p99 are compared to show whether it grows.
const PARTS: u32 = 3;
/// Seconds before a run counts. The first record of a producer waits for its idempotent id.
const WARM_UP_SECONDS: u32 = 3;
/// Longest wait of the bare consumer for a message.
const MESSAGE_MAX: Duration = Duration::from_secs(10);

/// Quantiles of one run, in milliseconds.
#[derive(Clone, Debug, Default)]
struct Ages {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Ages {
    fn of(seconds: &Buckets) -> Ages {
        let at = |q: f64| seconds.quantile(q).map_or(f64::NAN, |seconds| seconds * 1e3);
        Ages { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// Measures each rate.
pub fn measure(setting: &Setting) -> LocalBoxFuture<'_, anyhow::Result<Vec<Figure>>> {
    async {
        let mut figures = Vec::new();
        for rate in RATES {
            figures.extend(measure_rate(setting, rate).await?);
        }
        Ok(figures)
    }
    .boxed_local()
}

async fn measure_rate(setting: &Setting, rate: u32) -> anyhow::Result<Vec<Figure>> {
    let seconds = u32::try_from(setting.scale.seconds)?;
    let (mut ours, mut bare, mut growth) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..setting.scale.runs {
        let (ages, parts) = replay(setting, rate, seconds).await?;
        growth.push(
            parts.last().map_or(f64::NAN, |last| last.p99)
                / parts.first().map_or(f64::NAN, |first| first.p99),
        );
        ours.push(ages);
        bare.push(round_trips(setting, rate, seconds).await?);
    }
    let column = |ages: &[Ages], of: fn(&Ages) -> f64| ages.iter().map(of).collect::<Vec<_>>();
    let figure = |name: &str, of: fn(&Ages) -> f64| {
        Figure::new("freshness", format!("freshness at {rate}/s, {name}"), "ms", column(&ours, of))
            .beside("bare Kafka and PostgreSQL", column(&bare, of))
    };
    let p99 = figure("p99", |ages| ages.p99);
    let p99 = if rate == RATES[0] { p99.aim(Aim::TimesLeast(3.0)) } else { p99 };
    Ok(vec![
        figure("p50", |ages| ages.p50),
        p99,
        figure("max", |ages| ages.max),
        Figure::new(
            "freshness",
            format!("freshness at {rate}/s, p99 of the last third ÷ first third"),
            "×",
            growth,
        ),
    ])
}

/// Replays candles through the whole pipeline. Returns their ages over the whole run and in each part of it.
async fn replay(setting: &Setting, rate: u32, seconds: u32) -> anyhow::Result<(Ages, Vec<Ages>)> {
    let pipeline = Pipeline::new(&setting.environment).await?;
    let records = rate * (seconds + WARM_UP_SECONDS);
    // Twice as many as needed, because files have gaps.
    let inputs = input::files(&pipeline, 2 * records as usize, PARTITIONS).await?;
    let (mut flight, mut gold) = (pipeline.start(&["flight"])?, pipeline.start(&["gold"])?);
    flight.ready().await;
    gold.ready().await;
    let mut ingest = pipeline.start(&["ingest"])?;
    input::send(&pipeline, &inputs, PARTITIONS, Some(1)).await?;
    ingest.ready().await;

    let rows = names::GOLD_ROWS;
    let postgres = ["sink=\"postgres\""];
    let limit = records.to_string();
    let rate_flag = format!("{rate}/s");
    let _producer = pipeline
        .start(&producer(&inputs, &["--quiet", "--resume", "--rate", &rate_flag, "--limit", &limit]))?;
    let mut reached = f64::from(rate * WARM_UP_SECONDS);
    watch::reaches(&gold, rows, &postgres, reached).await?;
    let begin = Samples::new(&gold.metrics().await?).buckets(names::FRESHNESS_SECONDS);
    let (mut before, mut parts) = (begin.clone(), Vec::new());
    for _ in 0..PARTS {
        reached += f64::from(rate * seconds / PARTS);
        watch::reaches(&gold, rows, &postgres, reached).await?;
        let now = Samples::new(&gold.metrics().await?).buckets(names::FRESHNESS_SECONDS);
        parts.push(Ages::of(&now.since(&before)));
        before = now;
    }
    Ok((Ages::of(&before.since(&begin)), parts))
}

/// Produces, consumes and commits records with nothing in between. All records that have arrived go into one transaction, as in gold.
async fn round_trips(setting: &Setting, rate: u32, seconds: u32) -> anyhow::Result<Ages> {
    let pipeline = Pipeline::new(&setting.environment).await?;
    let database = pipeline.database().await?;
    database.batch_execute("CREATE TABLE bare (sent bigint PRIMARY KEY, close float8)").await?;
    let (kafka, topic) = (setting.environment.kafka.clone(), pipeline.topic.clone());
    let flags = Flags::try_parse_from(["bench", "--kafka", &kafka, "--topic", &topic])?;
    kafka::ensure_topic(&flags.kafka, &topic, 1).await?;
    let count = rate * seconds;
    let (sender, runtime) = (flags.kafka.clone(), Handle::current());
    let sending = tokio::task::spawn_blocking(move || send(&sender, rate, rate * WARM_UP_SECONDS + count));
    let receiving = tokio::task::spawn_blocking(move || {
        receive(&flags.kafka, rate * WARM_UP_SECONDS, count, |sent| runtime.block_on(commit(&database, sent)))
    });
    let (sent, received) = tokio::join!(sending, receiving);
    sent??;
    let mut ages = received??;
    ages.sort_by(f64::total_cmp);
    let at = |per_cent: usize| {
        ages.get((ages.len() * per_cent / 100).min(ages.len() - 1)).copied().unwrap_or(f64::NAN)
    };
    Ok(Ages { p50: at(50), p99: at(99), max: at(100) })
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    kafka: kafka::Args,
}

/// Sends the present time `count` times, at a steady rate.
fn send(kafka: &kafka::Args, rate: u32, count: u32) -> anyhow::Result<()> {
    let linger = if rate >= 1_000 { Duration::from_millis(5) } else { Duration::ZERO };
    let producer: BaseProducer = kafka.producer(linger).create()?;
    // Tokio's clock makes the records of one millisecond due together. Missed records are sent later.
    let mut due = interval(Duration::from_secs(1) / rate);
    for _ in 0..count {
        Handle::current().block_on(due.tick());
        let payload = now_micros().to_be_bytes();
        let record: BaseRecord<'_, (), _> = BaseRecord::to(&kafka.topic).payload(&payload);
        producer.send(record).map_err(|(error, _)| error)?;
        producer.poll(Duration::ZERO);
    }
    Ok(producer.flush(MESSAGE_MAX)?)
}

/// Receives records and commits all waiting ones at once. Returns the age of each at its commit in milliseconds, without those of the
/// warm-up.
fn receive(
    kafka: &kafka::Args,
    warm_up: u32,
    count: u32,
    commit: impl Fn(Vec<i64>) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<f64>> {
    let consumer: BaseConsumer = kafka.consumer("bench").create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&kafka.topic, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    let (mut ages, mut received) = (Vec::new(), 0);
    while received < warm_up + count {
        let mut sent = Vec::new();
        let mut wait = MESSAGE_MAX;
        while let Some(message) = consumer.poll(wait) {
            let message = message?;
            sent.push(i64::from_be_bytes(
                message.payload().context("a message without a payload")?.try_into()?,
            ));
            wait = Duration::ZERO;
        }
        ensure!(!sent.is_empty(), "no message after {received}");
        commit(sent.clone())?;
        let now = now_micros();
        for sent in sent {
            received += 1;
            if received > warm_up {
                #[expect(clippy::cast_precision_loss, reason = "some milliseconds")]
                ages.push((now - sent) as f64 / 1e3);
            }
        }
    }
    Ok(ages)
}

async fn commit(database: &Client, sent: Vec<i64>) -> anyhow::Result<()> {
    let insert = "INSERT INTO bare SELECT sent, 1.0 FROM unnest($1::bigint[]) AS sent ON CONFLICT DO NOTHING";
    database.execute(insert, &[&sent]).await?;
    Ok(())
}
