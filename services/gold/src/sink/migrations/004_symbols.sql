-- The partition of each symbol's candles. It is written in the same transaction as the symbol's first rows. A second partition ends gold,
-- also after a restart. Symbols of an older version are added with their next rows.
CREATE TABLE candleflight_symbol (
    topic     text             NOT NULL,
    symbol    text COLLATE "C" NOT NULL,
    partition integer          NOT NULL,
    PRIMARY KEY (topic, symbol)
);
