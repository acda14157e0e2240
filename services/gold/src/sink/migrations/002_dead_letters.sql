-- Unusable messages of the topic, copied from the dead-letter topic for people to read.
CREATE TABLE bitcoin_dead_letters (
    topic           text        NOT NULL,
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    reason          text        NOT NULL,
    detail          text        NOT NULL,
    -- Contents as text, cut to a limit. The whole message is in the dead-letter topic.
    key             text        NOT NULL,
    message         text        NOT NULL,
    kafka_time      timestamptz NOT NULL,
    -- The same message may be in the dead-letter topic twice, after a crash between the letter and its batch.
    PRIMARY KEY (topic, kafka_partition, kafka_offset)
);

CREATE INDEX bitcoin_dead_letters_kafka_time ON bitcoin_dead_letters (kafka_time DESC);
