//! Where unusable messages go, and what their headers are called.

use crate::Error;

/// Header: topic that the message came from.
pub const SOURCE_TOPIC: &str = "source_topic";
/// Header: its partition.
pub const SOURCE_PARTITION: &str = "source_partition";
/// Header: its offset.
pub const SOURCE_OFFSET: &str = "source_offset";
/// Header: when it was produced, in Unix milliseconds, as Kafka has it.
pub const SOURCE_TIMESTAMP: &str = "source_timestamp";
/// Header: its key.
pub const SOURCE_KEY: &str = "source_key";
/// Header: why it cannot be used, one of a few words.
pub const REASON: &str = "reason";
/// Header: why, in full.
pub const ERROR: &str = "error";
/// Header: size of the message's value.
pub const PAYLOAD_BYTES: &str = "payload_bytes";
/// Header: whether the dead letter holds only the beginning of it.
pub const TRUNCATED: &str = "truncated";

/// Returns the dead-letter topic of `topic`, unless another was `given`.
///
/// # Errors
///
/// [`Error::DeadLetterTopic`] where both are one topic: each dead letter would be read as a message, and become a dead letter again.
pub fn topic_of(topic: &str, given: Option<&str>) -> Result<String, Error> {
    let dead_letter_topic = given.map_or_else(|| format!("{topic}_dlq"), str::to_owned);
    if dead_letter_topic == topic {
        return Err(Error::DeadLetterTopic { topic: dead_letter_topic });
    }
    Ok(dead_letter_topic)
}

#[cfg(test)]
mod tests {
    use super::topic_of;

    #[test]
    fn dead_letters_have_a_topic_of_their_own() {
        assert_eq!(topic_of("candles", None).unwrap(), "candles_dlq");
        assert_eq!(topic_of("candles", Some("bad")).unwrap(), "bad");
        let error = topic_of("candles", Some("candles")).unwrap_err();
        assert!(!error.is_transient() && error.to_string().contains("--dead-letter-topic"), "{error}");
    }
}
