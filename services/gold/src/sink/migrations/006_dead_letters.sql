-- The position in the dead-letter topic. It has its own table, so that it never mixes with gold's position in a topic of the same name.
CREATE TABLE candleflight_dead_letter_position (
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (topic, partition)
);
-- Positions of topics with the usual names move here. A topic with another name is read again, and existing letters do not change.
WITH moved AS (
    DELETE FROM candleflight_position
    WHERE topic LIKE '%\_dlq' AND topic NOT IN (SELECT topic FROM candleflight_symbol)
    RETURNING topic, partition, next_offset
)
INSERT INTO candleflight_dead_letter_position (topic, partition, next_offset)
SELECT topic, partition, next_offset FROM moved;

-- Time at which the message was produced; NULL if the letter does not contain it. kafka_time is the time of the dead letter.
ALTER TABLE bitcoin_dead_letters ADD COLUMN message_time timestamptz;
