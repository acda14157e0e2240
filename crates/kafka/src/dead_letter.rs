//! Where unusable messages go, and what their headers are called.

/// Header: topic that the message came from.
pub const SOURCE_TOPIC: &str = "source_topic";
/// Header: its partition.
pub const SOURCE_PARTITION: &str = "source_partition";
/// Header: its offset.
pub const SOURCE_OFFSET: &str = "source_offset";
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
pub fn topic_of(topic: &str, given: Option<&str>) -> String {
    given.map_or_else(|| format!("{topic}_dlq"), str::to_owned)
}
