//! Looks up the first and last offsets of partitions. This waits for brokers, so it does not run on the thread that polls.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use futures::StreamExt as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::source::Consumer;

/// Maximum number of partitions that are looked up concurrently: each waits for two answers of its leader.
const PARTITIONS_AT_ONCE: usize = 16;
/// Pause between two checks for missing leaders.
const LEADER_PAUSE: Duration = Duration::from_secs(1);

/// First and next offset of the partitions whose leader answers, and the other partitions.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// First and next offset by partition.
    pub(super) found: BTreeMap<i32, (i64, i64)>,
    /// Partitions without a leader that answers.
    pub(super) absent: Vec<i32>,
}

impl Ends {
    /// Looks up `partitions` at their leaders. It waits at most [`kafka::REQUEST_MAX`] for the leaders, and as long for each answer.
    ///
    /// # Errors
    ///
    /// [`Error::Kafka`]: no leader answers, or a person must act. [`Error::ReaderStopped`]: the membership has ended.
    pub(super) async fn look_up(
        consumer: &Weak<Consumer>,
        topic: &str,
        partitions: &[i32],
    ) -> Result<Ends, Error> {
        let failed = || kafka::Error::new(format!("look up the first and last offsets of topic {topic}"));
        let mut ends = Ends::default();
        let mut error = None;
        let led = led(consumer, topic).await?;
        let (led, leaderless) =
            partitions.iter().partition::<Vec<i32>, _>(|partition| led.contains(partition));
        ends.absent = leaderless;
        let mut answers = futures::stream::iter(led)
            .map(|partition| async move { (partition, watermarks(consumer, topic, partition).await) })
            .buffer_unordered(PARTITIONS_AT_ONCE);
        while let Some((partition, answer)) = answers.next().await {
            match answer? {
                Ok(watermarks) => drop(ends.found.insert(partition, watermarks)),
                Err(fatal) if kafka::is_fatal(&fatal) => return Err(failed()(fatal).into()),
                Err(passing) => {
                    ends.absent.push(partition);
                    error = Some(passing);
                }
            }
        }
        if ends.found.is_empty() && !ends.absent.is_empty() {
            let error = error.unwrap_or(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable));
            return Err(failed()(error).into());
        }
        ends.absent.sort_unstable();
        Ok(ends)
    }
}

/// Cancels `returned` when one of `partitions` has a leader that answers.
pub(super) async fn await_any(
    consumer: Weak<Consumer>,
    topic: String,
    partitions: Vec<i32>,
    returned: CancellationToken,
) {
    loop {
        tokio::time::sleep(LEADER_PAUSE).await;
        match Ends::look_up(&consumer, &topic, &partitions).await {
            Ok(_) => return returned.cancel(),
            // The next session meets the same error and returns it.
            Err(error) if !error.is_transient() => return returned.cancel(),
            Err(Error::ReaderStopped) => return,
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                ?partitions,
                "these partitions still have no leader"
            ),
        }
    }
}

/// Returns the partitions of `topic` that have a leader.
async fn led(consumer: &Weak<Consumer>, topic: &str) -> Result<Vec<i32>, Error> {
    let name = topic.to_owned();
    let fetched =
        ask(consumer, move |consumer| consumer.fetch_metadata(Some(&name), kafka::REQUEST_MAX)).await?;
    let metadata = fetched.map_err(kafka::Error::new(format!("look up the leaders of topic {topic}")))?;
    let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    Ok(partitions.filter(|partition| partition.leader() >= 0).map(MetadataPartition::id).collect())
}

async fn watermarks(
    consumer: &Weak<Consumer>,
    topic: &str,
    partition: i32,
) -> Result<Result<(i64, i64), KafkaError>, Error> {
    let topic = topic.to_owned();
    ask(consumer, move |consumer| consumer.fetch_watermarks(&topic, partition, kafka::REQUEST_MAX)).await
}

/// Runs a request on a thread that may block.
async fn ask<T: Send + 'static>(
    consumer: &Weak<Consumer>,
    question: impl FnOnce(&Consumer) -> T + Send + 'static,
) -> Result<T, Error> {
    let consumer = consumer.upgrade().ok_or(Error::ReaderStopped)?;
    let answer = tokio::task::spawn_blocking(move || question(&consumer)).await;
    Ok(answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())))
}
