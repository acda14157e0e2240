//! The dead-letter topic for unusable messages, and the names of its headers.

use crate::Error;

/// Header that holds the topic of the message.
pub const SOURCE_TOPIC: &str = "source_topic";
/// Header that holds the partition of the message.
pub const SOURCE_PARTITION: &str = "source_partition";
/// Header that holds the offset of the message.
pub const SOURCE_OFFSET: &str = "source_offset";
/// Header that holds the time at which the message was produced, in Unix milliseconds, as recorded by Kafka.
pub const SOURCE_TIMESTAMP: &str = "source_timestamp";
/// Header that holds the key of the message.
pub const SOURCE_KEY: &str = "source_key";
/// Header that holds the short reason why the message cannot be used: one of a few words.
pub const REASON: &str = "reason";
/// Header that holds the full error.
pub const ERROR: &str = "error";
/// Header that holds the size of the message's value.
pub const PAYLOAD_BYTES: &str = "payload_bytes";
/// Header that is `true` if the dead letter holds only the beginning of the value.
pub const TRUNCATED: &str = "truncated";

/// Returns the dead-letter topic of `topic`: `given`, or by default the topic's name with `_dlq`.
///
/// # Errors
///
/// [`Error::DeadLetterTopic`] if both are the same topic. Each dead letter would then be read as a message and become a dead letter again.
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
