-- A symbol may come from several partitions. Gold reads the earlier candles of a symbol from the partitions listed here.
ALTER TABLE candleflight_symbol DROP CONSTRAINT candleflight_symbol_pkey, ADD PRIMARY KEY (topic, symbol, partition);

-- The partitions of symbols from an older version are unknown, so every partition that was read is listed.
INSERT INTO candleflight_symbol (topic, symbol, partition)
SELECT position.topic, gold.symbol, position.partition
FROM dashboard_symbols gold
CROSS JOIN candleflight_position position
WHERE NOT EXISTS (
    SELECT FROM candleflight_symbol known WHERE known.topic = position.topic AND known.symbol = gold.symbol
);

-- The frame of the windows: time or rows. Tables of an older version get it when they are next opened.
CREATE TABLE candleflight_frame (
    topic text PRIMARY KEY,
    frame text NOT NULL
);
