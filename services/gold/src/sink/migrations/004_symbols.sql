-- The partition that each symbol's candles are in: a second one ends gold, after a restart, too. Written in the same transaction as the
-- symbol's first rows; symbols of an older version come here with their next rows.
CREATE TABLE candleflight_symbol (
    topic     text             NOT NULL,
    symbol    text COLLATE "C" NOT NULL,
    partition integer          NOT NULL,
    PRIMARY KEY (topic, symbol)
);
