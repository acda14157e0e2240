//! Creation of topics, and the ids that distinguish a topic from an earlier one of the same name.

use position::Topic;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::{Args, Error, Logs, REQUEST_MAX, unless_refused};

/// Number of replicas: the brokers' default.
const REPLICAS: TopicReplication<'static> = TopicReplication::Fixed(-1);

/// Creates `topic` with `partitions` partitions. A topic that exists stays unchanged.
///
/// Returns true if the topic was created. A user who may not create topics gets false: the topic is then expected to exist, and later calls
/// fail if it does not.
///
/// # Errors
///
/// [`Error`], transient while no broker answers within [`REQUEST_MAX`], or while brokers reject the connection.
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
                tracing::debug!(topic, "the user may not create topics; the topic is expected to exist");
                return Ok(false);
            }
            Err((_, code)) => return Err(failed()(KafkaError::AdminOp(code))),
        }
    }
    Ok(true)
}

/// Returns the topic that `args` names, with its id if the brokers give topics ids.
///
/// # Errors
///
/// [`Error`], transient while the topic does not exist, while no broker answers within [`REQUEST_MAX`], or while brokers reject the
/// connection.
pub async fn describe_topic(args: &Args) -> Result<Topic, Error> {
    let failed = || Error::new(format!("look up the id of topic {} at {}", args.topic, args.brokers));
    let (config, name) = (args.with_options(args.client()), args.topic.clone());
    // librdkafka blocks the calling thread.
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
