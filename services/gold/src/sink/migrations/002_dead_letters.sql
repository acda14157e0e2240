-- Messages of the topic that could not be used, from the dead-letter topic, for people to look at.
CREATE TABLE bitcoin_dead_letters (
    topic           text        NOT NULL,
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    reason          text        NOT NULL,
    detail          text        NOT NULL,
    -- What was in it, as text and cut: the whole message is in the dead-letter topic.
    key             text        NOT NULL,
    message         text        NOT NULL,
    kafka_time      timestamptz NOT NULL,
    -- The same message may be in the dead-letter topic twice, after a crash between it and its batch.
    PRIMARY KEY (topic, kafka_partition, kafka_offset)
);

CREATE INDEX bitcoin_dead_letters_kafka_time ON bitcoin_dead_letters (kafka_time DESC);
