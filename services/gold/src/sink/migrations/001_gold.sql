-- Symbols are ordered by their bytes, as everywhere else in Candleflight; an index on them then asks no locale.
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

-- "The last hour of all symbols", what dashboards ask for.
CREATE INDEX bitcoin_gold_data_event_time ON bitcoin_gold_data (event_time DESC);

-- For each partition the next offset that the rows do not know yet; moved in the same transaction as the rows.
CREATE TABLE candleflight_position (
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (topic, partition)
);
