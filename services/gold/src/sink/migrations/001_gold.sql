-- Symbols are ordered by their bytes, as everywhere in Candleflight, so an index on them does not depend on a locale.
CREATE TABLE bitcoin_gold_data (
    symbol               text COLLATE "C"  NOT NULL,
    event_time           timestamptz       NOT NULL,
    open                 double precision  NOT NULL,
    high                 double precision  NOT NULL,
    low                  double precision  NOT NULL,
    close                double precision  NOT NULL,
    volume               double precision  NOT NULL,
    price_ma_5m          double precision  NOT NULL,
    price_volatility_5m  double precision,
    volume_ma_5m         double precision  NOT NULL,
    samples_5m           integer           NOT NULL,
    price_ma_10m         double precision  NOT NULL,
    price_volatility_10m double precision,
    volume_ma_10m        double precision  NOT NULL,
    samples_10m          integer           NOT NULL,
    price_ma_30m         double precision  NOT NULL,
    price_volatility_30m double precision,
    volume_ma_30m        double precision  NOT NULL,
    samples_30m          integer           NOT NULL,
    kafka_time           timestamptz       NOT NULL,
    computed_at          timestamptz       NOT NULL,
    PRIMARY KEY (symbol, event_time)
);

-- For dashboards, which query the last hour of all symbols.
CREATE INDEX bitcoin_gold_data_event_time ON bitcoin_gold_data (event_time DESC);

-- The next offset of each partition that is not in the rows yet. It moves in the same transaction as the rows.
CREATE TABLE candleflight_position (
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (topic, partition)
);
