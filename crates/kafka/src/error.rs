//! What can go wrong with a Kafka client, and whether to try again.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A question or an order to Kafka failed.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub struct Error {
    /// What was being done, and to what.
    pub action: String,
    /// Why it failed.
    #[source]
    pub source: KafkaError,
}

impl Error {
    /// Names what failed; for `map_err`.
    pub fn new(action: impl Into<String>) -> impl FnOnce(KafkaError) -> Self {
        let action = action.into();
        move |source| Error { action, source }
    }

    /// Tells whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        !is_fatal(&self.source)
    }
}

/// Tells whether a person must act before this can succeed: the configuration, a right, or the data itself is wrong.
pub fn is_fatal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        _ => error.rdkafka_error_code(),
    };
    match error {
        KafkaError::ClientConfig(..)
        | KafkaError::ClientCreation(_)
        | KafkaError::AdminOpCreation(_)
        | KafkaError::Nul(_) => true,
        // Another member has our name, or a broker that was away takes us for one: joining again decides.
        KafkaError::MessageConsumptionFatal(code) => *code != Code::FencedInstanceId,
        _ => matches!(
            code,
            Some(
                Code::Authentication
                    | Code::SaslAuthenticationFailed
                    | Code::TopicAuthorizationFailed
                    | Code::GroupAuthorizationFailed
                    | Code::ClusterAuthorizationFailed
                    | Code::UnsupportedSASLMechanism
                    | Code::SSL
                    | Code::InvalidTopic
                    | Code::InvalidReplicationFactor
                    | Code::InvalidPartitions
                    | Code::PolicyViolation
                    | Code::MessageSizeTooLarge
                    | Code::Fatal
                    | Code::NotImplemented
                    | Code::UnsupportedCompressionType
            )
        ),
    }
}
