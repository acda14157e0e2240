//! The one table of Kafka's error codes: which errors pass by themselves, and which end a service with what to do.
//!
//! Brokers that are away, elect, move partitions or are out of room pass, and so does a topic that is not there yet. A refused log-in or
//! certificate is waited out as well, since as often as not it is put right at the broker (see [`refused`](crate::refused)). Rights, limits and
//! settings do not pass: a person must change them.

use rdkafka::error::RDKafkaErrorCode;

/// Says what a person must do, if `code` does not pass by itself.
pub(crate) fn advice(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as Code;
    Some(match code {
        Code::TopicAuthorizationFailed => {
            "let the user read, write and describe the topic and the dead-letter topic (ACLs of the brokers)"
        }
        Code::GroupAuthorizationFailed => {
            "let the user read the consumer group (ACLs of the brokers), or name another by --group"
        }
        Code::ClusterAuthorizationFailed => {
            "let the user write idempotently and create topics (ACLs of the brokers), or create the topics"
        }
        Code::TransactionalIdAuthorizationFailed => "let the user write idempotently (ACLs of the brokers)",
        Code::InvalidTopic => "name a topic of letters, digits, dots, dashes and underscores, 249 at most",
        Code::InvalidPartitions => "ask for at least one partition (--partitions)",
        Code::InvalidReplicationFactor => {
            "create the topic with as many replicas as there are brokers, or lower the brokers' default.replication.factor"
        }
        Code::InvalidReplicaAssignment | Code::InvalidConfig | Code::PolicyViolation => {
            "the brokers' policy does not allow such a topic: create it as they want it"
        }
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            "raise max.message.bytes of the topic, or lower message.max.bytes by --kafka-option"
        }
        Code::InvalidRecord | Code::InvalidTimestamp => {
            "the topic takes no such records: check its cleanup.policy and message.timestamp.type"
        }
        Code::InvalidRequiredAcks => "the brokers are too old for acks=all",
        Code::InconsistentGroupProtocol => {
            "another program, or an ingest of another version, is in the consumer group: name a group of its own by --group"
        }
        Code::InvalidGroupId => "name a consumer group by --group",
        Code::InvalidSessionTimeout => {
            "set session.timeout.ms by --kafka-option to what the brokers allow (group.min.session.timeout.ms and …max…)"
        }
        Code::UnsupportedVersion
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedFeature
        | Code::NotImplemented => "use Kafka 2.1 or newer, and a librdkafka with that feature",
        Code::UnsupportedCompressionType | Code::BadCompression => {
            "have producers use zstd, lz4, snappy or gzip"
        }
        Code::SecurityDisabled => "the brokers have no authorizer: leave out what needs one",
        Code::InvalidArgument | Code::UnknownProtocol | Code::Conflict => "check --kafka-option",
        Code::Fatal | Code::GaplessGuarantee | Code::Inconsistent => {
            "start the process again: librdkafka has given this client up"
        }
        _ => return None,
    })
}
