//! What can go wrong with a Kafka client, and whether to try again.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::code::advice;
use crate::refusal::ADVICE;

/// A question or an order to Kafka failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It failed.
    #[error("{action}{}", what_to_do(source))]
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
    /// Messages that cannot be used would go back to the topic that they came from.
    #[error("topic {topic} cannot be its own dead-letter topic: name another one by --dead-letter-topic")]
    DeadLetterTopic {
        /// The topic.
        topic: String,
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
            Error::DeadLetterTopic { .. } => false,
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

/// Returns true if a person must act before this can succeed: the configuration, a right, or the data itself is wrong.
pub fn is_fatal(error: &KafkaError) -> bool {
    match error {
        KafkaError::ClientConfig(..)
        | KafkaError::ClientCreation(_)
        | KafkaError::AdminOpCreation(_)
        | KafkaError::Nul(_) => true,
        // Another member has our name, or a broker that was away takes us for one: joining again decides.
        KafkaError::MessageConsumptionFatal(code) => *code != RDKafkaErrorCode::FencedInstanceId,
        _ => code(error).and_then(advice).is_some(),
    }
}

/// Returns what a person can do about an error that does not pass by itself, to be put behind its message.
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
