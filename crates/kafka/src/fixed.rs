//! Options of librdkafka that the user may not set: exactly-once delivery depends on them, or a flag sets them.

/// Returns the reason why `key` cannot have `value`, if `key` is a fixed option. The value that our clients use anyway is accepted.
pub(crate) fn refusal(key: &str, value: &str) -> Option<&'static str> {
    let (_, values, reason) = FIXED.iter().find(|(keys, ..)| keys.contains(&key))?;
    (!values.contains(&value)).then_some(reason)
}

/// Names of each fixed option, its allowed values, and the reason for the limit.
const FIXED: &[(&[&str], &[&str], &str)] = &[
    (&["bootstrap.servers", "metadata.broker.list"], &[], "--kafka names the brokers"),
    (&["group.id"], &[], "--group names the consumer group"),
    (&["group.instance.id"], &[], "--group-instance names the member"),
    (
        &["acks", "request.required.acks"],
        &["all", "-1"],
        "a record counts only once all in-sync replicas have it",
    ),
    (&["enable.idempotence"], &["true"], "without it, a retry writes a record twice"),
    (&["enable.gapless.guarantee"], &["true"], "without it, a record may be missing between two others"),
    (
        &["max.in.flight.requests.per.connection", "max.in.flight"],
        &["1"],
        "with several requests in flight, a broker may reject the first and accept the second, and records are lost",
    ),
    (
        &["retries", "message.send.max.retries"],
        &["2147483647"],
        "a record is retried until its delivery times out",
    ),
    (&["queuing.strategy"], &["fifo"], "records must keep their order"),
    (
        &["transactional.id"],
        &[],
        "the producer needs no transactions: --resume continues after the last record",
    ),
    (&["delivery.report.only.error"], &["false"], "the producer counts acknowledged records"),
    (&["partitioner"], PARTITIONERS, "a symbol's candles must stay in one partition"),
    (
        &["enable.auto.commit", "auto.commit.enable"],
        &["false"],
        "an offset is committed once its rows are durable",
    ),
    (&["enable.auto.offset.store"], &["false"], "an offset is committed once its rows are durable"),
    (
        &["auto.offset.reset"],
        &["error"],
        "ingest starts reading where bronze ends, and lost messages are an error",
    ),
    (&["offset.store.method"], &["broker"], "offsets are committed to the brokers"),
    (&["isolation.level"], &["read_committed"], "records of aborted transactions are not candles"),
    (&["check.crcs"], &["true"], "a damaged record is not a candle"),
    (&["enable.partition.eof"], &["false"], "the end of a partition is not an error"),
    (&["group.protocol"], &["classic"], "sessions follow the classic protocol's rebalances"),
    (&["group.protocol.type"], &["consumer"], "sessions follow the classic protocol's rebalances"),
    (&["group.remote.assignor"], &[], "sessions follow the classic protocol's rebalances"),
    (
        &["partition.assignment.strategy"],
        &["range", "roundrobin", "range,roundrobin", "roundrobin,range"],
        "ingest needs each assignment as a whole, and cooperative assignors send only changes",
    ),
    (&["test.mock.num.brokers"], &["0"], "candles go to real brokers"),
];

/// Partitioners that choose the partition by the key. `random` does not.
const PARTITIONERS: &[&str] =
    &["consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random"];

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn what_the_guarantee_rests_on_is_refused() {
        for (key, value) in [
            ("acks", "1"),
            ("request.required.acks", "0"),
            ("enable.idempotence", "false"),
            ("max.in.flight", "5"),
            ("isolation.level", "read_uncommitted"),
            ("enable.auto.commit", "true"),
            ("auto.offset.reset", "latest"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("group.protocol", "consumer"),
            ("group.id", "candleflight-ingest"),
            ("bootstrap.servers", "broker:9092"),
            ("transactional.id", "mine"),
            ("partitioner", "random"),
        ] {
            assert!(refusal(key, value).is_some(), "{key}={value}");
        }
    }

    #[test]
    fn harmless_options_are_accepted() {
        for (key, value) in [
            ("acks", "all"),
            ("acks", "-1"),
            ("isolation.level", "read_committed"),
            ("security.protocol", "SASL_SSL"),
            ("compression.type", "zstd"),
            ("partitioner", "consistent_random"),
            ("partition.assignment.strategy", "range"),
            ("client.rack", "a"),
        ] {
            assert_eq!(refusal(key, value), None, "{key}={value}");
        }
    }
}
