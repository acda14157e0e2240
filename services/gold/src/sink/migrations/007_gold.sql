-- A symbol may come from several partitions: gold reads a symbol's earlier candles in those that are named here.
ALTER TABLE candleflight_symbol DROP CONSTRAINT candleflight_symbol_pkey, ADD PRIMARY KEY (topic, symbol, partition);

-- Of symbols that an older version wrote, it is not known: they may be in any partition that was read.
INSERT INTO candleflight_symbol (topic, symbol, partition)
SELECT position.topic, gold.symbol, position.partition
FROM dashboard_symbols gold
CROSS JOIN candleflight_position position
WHERE NOT EXISTS (
    SELECT FROM candleflight_symbol known WHERE known.topic = position.topic AND known.symbol = gold.symbol
);

-- What a window counts, time or rows. Tables of an older version get it when they are next opened.
CREATE TABLE candleflight_frame (
    topic text PRIMARY KEY,
    frame text NOT NULL
);
