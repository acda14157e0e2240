//! The only table of Kafka's error codes. It separates errors that pass by themselves from errors that end a service with advice.
//!
//! Some errors pass: brokers are away, elect a leader, move partitions or have no space, or a topic does not exist yet. Services wait out a
//! rejected log-in or certificate as well, because people often correct it at the broker (see [`refused`](crate::refused)). Errors about
//! permissions, limits and settings do not pass: a person must change something.

use rdkafka::error::RDKafkaErrorCode;

/// Returns what a person must do, if `code` does not pass by itself.
pub(crate) fn advice(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as Code;
    Some(match code {
        Code::TopicAuthorizationFailed => {
            "allow the user to read, write and describe the topic and the dead-letter topic (ACLs of the brokers)"
        }
        Code::GroupAuthorizationFailed => {
            "allow the user to read the consumer group (ACLs of the brokers), or name another by --group"
        }
        Code::ClusterAuthorizationFailed => {
            "allow the user to write idempotently and to create topics (ACLs of the brokers), or create the topics"
        }
        Code::TransactionalIdAuthorizationFailed => {
            "allow the user to write idempotently (ACLs of the brokers)"
        }
        Code::InvalidTopic => "name a topic of letters, digits, dots, dashes and underscores, 249 at most",
        Code::InvalidPartitions => "request at least one partition (--partitions)",
        Code::InvalidReplicationFactor => {
            "create the topic with as many replicas as there are brokers, or lower the brokers' default.replication.factor"
        }
        Code::InvalidReplicaAssignment | Code::InvalidConfig | Code::PolicyViolation => {
            "the brokers' policy does not allow this topic: create one that it allows"
        }
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            "raise max.message.bytes of the topic, or lower message.max.bytes by --kafka-option"
        }
        Code::InvalidRecord | Code::InvalidTimestamp => {
            "the topic does not accept these records: check its cleanup.policy and message.timestamp.type"
        }
        Code::InvalidRequiredAcks => "the brokers are too old for acks=all",
        Code::InconsistentGroupProtocol => {
            "another program, or another version of ingest, is in the consumer group: name a separate group by --group"
        }
        Code::InvalidGroupId => "name a consumer group by --group",
        Code::InvalidSessionTimeout => {
            "set session.timeout.ms by --kafka-option to a value that the brokers allow (group.min.session.timeout.ms and …max…)"
        }
        Code::UnsupportedVersion
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedFeature
        | Code::NotImplemented => "use Kafka 2.1 or newer, and a librdkafka with this feature",
        Code::UnsupportedCompressionType | Code::BadCompression => {
            "configure producers to use zstd, lz4, snappy or gzip"
        }
        Code::SecurityDisabled => "the brokers have no authorizer: remove the options that need one",
        Code::InvalidArgument | Code::UnknownProtocol | Code::Conflict => "check --kafka-option",
        Code::Fatal | Code::GaplessGuarantee | Code::Inconsistent => {
            "restart the process: librdkafka has shut down this client"
        }
        _ => return None,
    })
}
