-- The bronze table, by its Delta id, that a topic's rows and positions are computed from: offsets of another one mean other candles.
CREATE TABLE candleflight_source (
    topic  text NOT NULL PRIMARY KEY,
    bronze text NOT NULL
);
