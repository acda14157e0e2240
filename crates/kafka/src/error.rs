//! What can go wrong with a Kafka client, and whether to try again.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::refusal::ADVICE;

/// A question or an order to Kafka failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It failed.
    #[error("{action}")]
    Failed {
        /// What was being done, and to what.
        action: String,
        /// Why it failed.
        #[source]
        source: KafkaError,
    },
    /// A broker refuses us.
    #[error("Kafka refuses us: {reason}; {ADVICE}")]
    Refused {
        /// Which broker, and why.
        reason: String,
    },
}

impl Error {
    /// Names what failed; for `map_err`.
    pub fn new(action: impl Into<String>) -> impl FnOnce(KafkaError) -> Self {
        let action = action.into();
        move |source| Error::Failed { action, source: without_value(source) }
    }

    /// Tells whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Failed { source, .. } => !is_fatal(source),
            Error::Refused { .. } => true,
        }
    }
}

/// Takes the value out of an error about an option: it may be a password under a mistyped name.
fn without_value(error: KafkaError) -> KafkaError {
    match error {
        KafkaError::ClientConfig(result, description, key, value) => {
            let description = description.replace(&format!("\"{value}\""), "…");
            KafkaError::ClientConfig(result, description, key, "…".to_owned())
        }
        other => other,
    }
}

/// Tells whether a person must act before this can succeed: the configuration, a right, or the data itself is wrong. A refused login
/// or certificate is not among them: as often as not it is put right at the broker.
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
                Code::TopicAuthorizationFailed
                    | Code::GroupAuthorizationFailed
                    | Code::ClusterAuthorizationFailed
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
