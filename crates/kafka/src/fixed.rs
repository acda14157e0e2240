//! Options of librdkafka that are not the user's to set: exactly once rests on them, or a flag of ours sets them.

/// Says why `key` cannot have `value`, if it is such an option; one that has the value which we give it anyway is taken.
pub(crate) fn refusal(key: &str, value: &str) -> Option<&'static str> {
    let (_, values, reason) = FIXED.iter().find(|(keys, ..)| keys.contains(&key))?;
    (!values.contains(&value)).then_some(reason)
}

/// Names of an option, the values that it may have, and why no other.
const FIXED: &[(&[&str], &[&str], &str)] = &[
    (&["bootstrap.servers", "metadata.broker.list"], &[], "--kafka names the brokers"),
    (&["group.id"], &[], "--group names the consumer group"),
    (&["group.instance.id"], &[], "--group-instance names the member"),
    (&["acks", "request.required.acks"], &["all", "-1"], "a record counts once all replicas in sync have it"),
    (&["enable.idempotence"], &["true"], "without it, a retry writes a record twice"),
    (&["enable.gapless.guarantee"], &["true"], "without it, a record may be missing between two others"),
    (
        &["max.in.flight.requests.per.connection", "max.in.flight"],
        &["1"],
        "of several requests a broker may refuse the first and take the second, and a record is missing",
    ),
    (&["retries", "message.send.max.retries"], &["2147483647"], "a record is sent until its time is over"),
    (&["queuing.strategy"], &["fifo"], "records keep their order"),
    (
        &["transactional.id"],
        &[],
        "the producer needs no transactions: --resume goes on after the last record",
    ),
    (&["delivery.report.only.error"], &["false"], "the producer counts what is acknowledged"),
    (&["partitioner"], PARTITIONERS, "a symbol's candles stay in one partition"),
    (
        &["enable.auto.commit", "auto.commit.enable"],
        &["false"],
        "an offset is committed once its rows are durable",
    ),
    (&["enable.auto.offset.store"], &["false"], "an offset is committed once its rows are durable"),
    (&["auto.offset.reset"], &["error"], "reading starts where bronze ends, and lost messages are an error"),
    (&["offset.store.method"], &["broker"], "offsets are committed to the brokers"),
    (&["isolation.level"], &["read_committed"], "records of aborted transactions are no candles"),
    (&["check.crcs"], &["true"], "a damaged record is no candle"),
    (&["enable.partition.eof"], &["false"], "the end of a partition is no error"),
    (&["group.protocol"], &["classic"], "sessions follow the classic protocol's rebalances"),
    (&["group.protocol.type"], &["consumer"], "sessions follow the classic protocol's rebalances"),
    (&["group.remote.assignor"], &[], "sessions follow the classic protocol's rebalances"),
    (
        &["partition.assignment.strategy"],
        &["range", "roundrobin", "range,roundrobin", "roundrobin,range"],
        "an assignment is taken as a whole, which cooperative ones are not",
    ),
    (&["test.mock.num.brokers"], &["0"], "candles go to real brokers"),
];

/// Partitioners that find the partition by the key; `random` alone does not.
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
    fn what_does_no_harm_is_taken() {
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
