-- The Delta id of the bronze table that a topic's rows and positions are computed from. Offsets of another table refer to other candles.
CREATE TABLE candleflight_source (
    topic  text NOT NULL PRIMARY KEY,
    bronze text NOT NULL
);
