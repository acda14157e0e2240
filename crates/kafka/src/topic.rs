//! Creating topics, and telling one life of a topic from another.

use position::Topic;
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

/// Returns the topic that `args` name, with its id where the brokers give topics one.
///
/// # Errors
///
/// [`Error`]; transient while the topic is not there, no broker answers within [`REQUEST_MAX`], or brokers refuse us.
pub async fn describe_topic(args: &Args) -> Result<Topic, Error> {
    let failed = || Error::new(format!("look up the id of topic {} at {}", args.topic, args.brokers));
    let (config, name) = (args.with_options(args.client()), args.topic.clone());
    // librdkafka blocks its caller.
    let id = tokio::task::spawn_blocking(move || {
        let client = AdminClient::from_config_and_context(&config, Logs)?;
        topic_id::topic_id(client.inner(), &name, REQUEST_MAX)
    });
    let id = async {
        let id = id.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        id.map_err(failed())
    };
    Ok(Topic { name: args.topic.clone(), id: unless_refused(args, id).await? })
}
