//! Errors of Kafka clients, and whether to retry.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::code::advice;
use crate::refusal::ADVICE;

/// An error of a Kafka client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to Kafka failed.
    #[error("{action}{}", what_to_do(source))]
    Failed {
        /// The action that failed, and its target.
        action: String,
        /// The cause.
        #[source]
        source: KafkaError,
    },
    /// A broker rejects the connection.
    #[error("Kafka rejects the connection: {reason}; {ADVICE}")]
    Refused {
        /// The broker, and its reason.
        reason: String,
    },
    /// The dead-letter topic is the topic itself, so unusable messages would return to it.
    #[error("topic {topic} cannot be its own dead-letter topic: name another one by --dead-letter-topic")]
    DeadLetterTopic {
        /// The topic.
        topic: String,
    },
}

impl Error {
    /// Returns a function for `map_err` that adds `action` to an error.
    pub fn new(action: impl Into<String>) -> impl FnOnce(KafkaError) -> Self {
        let action = action.into();
        move |source| Error::Failed { action, source: without_value(source) }
    }

    /// Returns true if the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Failed { source, .. } => !is_fatal(source),
            Error::Refused { .. } => true,
            Error::DeadLetterTopic { .. } => false,
        }
    }
}

/// Removes the value from an error about an option. If the name is mistyped, the value may still be a password.
fn without_value(error: KafkaError) -> KafkaError {
    match error {
        KafkaError::ClientConfig(result, description, key, value) => {
            let description = description.replace(&format!("\"{value}\""), "…");
            KafkaError::ClientConfig(result, description, key, "…".to_owned())
        }
        other => other,
    }
}

/// Returns true if a person must act before the call can succeed: the configuration, a permission or the data is wrong.
pub fn is_fatal(error: &KafkaError) -> bool {
    match error {
        KafkaError::ClientConfig(..)
        | KafkaError::ClientCreation(_)
        | KafkaError::AdminOpCreation(_)
        | KafkaError::Nul(_) => true,
        // Another member has the same name, or a broker that was away mistakes this member for another. Joining again decides.
        KafkaError::MessageConsumptionFatal(code) => *code != RDKafkaErrorCode::FencedInstanceId,
        _ => code(error).and_then(advice).is_some(),
    }
}

/// Returns advice on an error that does not pass by itself. The advice goes behind the error's message.
pub fn what_to_do(error: &KafkaError) -> String {
    code(error).and_then(advice).map_or_else(String::new, |advice| format!("; {advice}"))
}

fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        _ => error.rdkafka_error_code(),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

    use super::Error;

    fn failed(code: Code) -> Error {
        Error::new("read topic t")(KafkaError::MessageConsumption(code))
    }

    #[test]
    fn brokers_that_are_away_or_busy_are_waited_out() {
        for code in [
            Code::AllBrokersDown,
            Code::BrokerTransportFailure,
            Code::LeaderNotAvailable,
            Code::NotEnoughReplicas,
            Code::NotLeaderForPartition,
            Code::UnknownTopicOrPartition,
            Code::KafkaStorageError,
            Code::RequestTimedOut,
            Code::ThrottlingQuotaExceeded,
            Code::SaslAuthenticationFailed,
        ] {
            let error = failed(code);
            assert!(error.is_transient() && error.to_string() == "read topic t", "{code}: {error}");
        }
    }

    #[test]
    fn what_only_a_person_can_change_ends_with_what_to_do() {
        for code in [
            Code::TopicAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::InconsistentGroupProtocol,
            Code::InvalidSessionTimeout,
            Code::MessageSizeTooLarge,
            Code::PolicyViolation,
            Code::UnsupportedVersion,
        ] {
            let error = failed(code);
            assert!(!error.is_transient() && error.to_string().contains("; "), "{code}: {error}");
        }
    }
}
