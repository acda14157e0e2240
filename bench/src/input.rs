//! Topics filled with candles, for the measurements that read them.

use anyhow::ensure;
use integration_tests::check::topic_ends;
use integration_tests::input::{Input, producer, synthetic_from};
use integration_tests::pipeline::Pipeline;

use crate::Setting;

/// Symbols that the partitioner distributes over four partitions, one to each.
pub(crate) const SYMBOLS: [&str; 4] = ["BTC-USD", "ETH-USD", "ADA-USD", "BCH-USD"];
/// Time of the first candle. It is so early that the candles of the largest topic are not in the future.
const START: &str = "2000-01-01T00:00:00Z";
/// Candles of one symbol in a day.
const DAY_ROWS: usize = 1440;

/// Sends about `rows` candles to the pipeline's topic. Each of its partitions has one symbol.
///
/// # Errors
///
/// The producer fails.
pub async fn fill(pipeline: &Pipeline, rows: usize) -> anyhow::Result<()> {
    let inputs = files(pipeline, rows, SYMBOLS.len()).await?;
    send(pipeline, &inputs, SYMBOLS.len(), None).await
}

/// Writes CSV files of about `rows` one-minute candles in total, one for each partition.
///
/// # Errors
///
/// The program is missing.
pub async fn files(pipeline: &Pipeline, rows: usize, partitions: usize) -> anyhow::Result<Vec<Input>> {
    let days = u32::try_from(rows.div_ceil(DAY_ROWS * partitions))?;
    let mut inputs = Vec::new();
    for (seed, symbol) in (1..).zip(&SYMBOLS[..partitions]) {
        inputs.push(synthetic_from(pipeline, symbol, START, days, seed).await?);
    }
    Ok(inputs)
}

/// Sends files to the pipeline's topic as fast as the producer can. Creates the topic with `partitions` partitions. Sends all records that
/// were not sent before, or the next `limit` of them.
///
/// # Errors
///
/// The producer fails.
pub async fn send(
    pipeline: &Pipeline,
    inputs: &[Input],
    partitions: usize,
    limit: Option<usize>,
) -> anyhow::Result<()> {
    let (partitions, limit) = (partitions.to_string(), limit.map(|limit| limit.to_string()));
    let mut flags = vec!["--rate", "max", "--quiet", "--resume", "--partitions", &partitions];
    flags.extend(limit.iter().flat_map(|limit| ["--limit", limit]));
    let output = pipeline.run(&producer(inputs, &flags)).await?;
    ensure!(output.status.success(), "producer: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Counts the messages of a topic.
///
/// # Errors
///
/// Kafka does not answer.
pub async fn count(setting: &Setting, topic: &str) -> anyhow::Result<f64> {
    let ends = topic_ends(&setting.environment.kafka, topic).await?;
    let count: i64 = ends.iter().map(|(_, end)| end).sum();
    #[expect(clippy::cast_precision_loss, reason = "some millions of messages")]
    Ok(count as f64)
}
