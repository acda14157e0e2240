//! Creating topics.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::{Args, Error, Logs, REQUEST_MAX, unless_refused};

/// As many replicas as the brokers make by default.
const REPLICAS: TopicReplication<'static> = TopicReplication::Fixed(-1);

/// Creates `topic` with so many partitions; one that exists is left as it is.
///
/// Returns whether it was created. Where we may not create topics, one is expected to exist: whoever uses it will be told if not.
///
/// # Errors
///
/// [`Error`]; transient while no broker answers within [`REQUEST_MAX`], or while brokers refuse us.
pub async fn ensure_topic(args: &Args, topic: &str, partitions: i32) -> Result<bool, Error> {
    let failed = || Error::new(format!("create topic {topic} at {}", args.brokers));
    let config = args.with_options(args.client());
    let client = AdminClient::from_config_and_context(&config, Logs).map_err(failed())?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST_MAX)).operation_timeout(Some(REQUEST_MAX));
    let new_topic = NewTopic::new(topic, partitions, REPLICAS);
    let answer = async { client.create_topics([&new_topic], &options).await.map_err(failed()) };
    let results = unless_refused(args, answer).await?;
    for result in results {
        match result {
            Ok(_) => tracing::info!(topic, partitions, "created the topic"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => return Ok(false),
            Err((
                _,
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed,
            )) => {
                tracing::debug!(topic, "not allowed to create topics: expecting it to exist");
                return Ok(false);
            }
            Err((_, code)) => return Err(failed()(KafkaError::AdminOp(code))),
        }
    }
    Ok(true)
}
