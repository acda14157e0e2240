-- The position in the dead-letter topic: a table of its own, so that it is never taken for gold's position in a topic of the same name.
CREATE TABLE candleflight_dead_letter_position (
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (topic, partition)
);
-- The usual names move here. Where the topic has another name, its letters are read again, and those that are there stay as they are.
WITH moved AS (
    DELETE FROM candleflight_position
    WHERE topic LIKE '%\_dlq' AND topic NOT IN (SELECT topic FROM candleflight_symbol)
    RETURNING topic, partition, next_offset
)
INSERT INTO candleflight_dead_letter_position (topic, partition, next_offset)
SELECT topic, partition, next_offset FROM moved;

-- When the message itself was produced; NULL in letters that do not say so. kafka_time is when it was set aside.
ALTER TABLE bitcoin_dead_letters ADD COLUMN message_time timestamptz;
