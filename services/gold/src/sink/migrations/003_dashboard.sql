-- Views of the dashboard. Event times may be years old when history is replayed, so the windows of the views are not relative to now().
-- Each view shows the newest candles of each symbol. It uses the primary key, so it costs the same for a thousand rows as for ten million.

-- Each symbol once. The query takes one step in the primary key for each symbol, while DISTINCT would read every row.
CREATE VIEW dashboard_symbols AS
WITH RECURSIVE symbols AS (
    (SELECT symbol FROM bitcoin_gold_data ORDER BY symbol LIMIT 1)
    UNION ALL
    SELECT (SELECT gold.symbol FROM bitcoin_gold_data gold WHERE gold.symbol > symbols.symbol ORDER BY gold.symbol LIMIT 1)
    FROM symbols
    WHERE symbols.symbol IS NOT NULL
)
SELECT symbol FROM symbols WHERE symbol IS NOT NULL;

-- The latest 360 candles of each symbol (six hours, if none is missing), with the band of two standard deviations around the 30-minute
-- average. The column symbol comes from dashboard_symbols, so that a filter on it reads no other symbol's candles.
CREATE VIEW dashboard_front AS
SELECT
    symbols.symbol,
    event_time, open, high, low, close, volume,
    price_ma_5m, price_volatility_5m, volume_ma_5m,
    price_ma_10m, price_volatility_10m, volume_ma_10m,
    price_ma_30m, price_volatility_30m, volume_ma_30m,
    price_ma_30m + 2 * price_volatility_30m AS band_upper,
    price_ma_30m - 2 * price_volatility_30m AS band_lower,
    kafka_time, computed_at,
    extract(epoch FROM computed_at - kafka_time)::double precision AS lag_seconds
FROM dashboard_symbols symbols
CROSS JOIN LATERAL (
    SELECT * FROM bitcoin_gold_data gold WHERE gold.symbol = symbols.symbol ORDER BY gold.event_time DESC LIMIT 360
) front;

-- The latest candle of each symbol, and the change of its close since an hour and since a day before, as a fraction. The change is NULL if
-- there is no candle to compare with.
CREATE VIEW dashboard_latest AS
SELECT
    symbols.symbol,
    latest.event_time,
    latest.close,
    latest.close / nullif(hour.close, 0) - 1 AS change_1h,
    latest.close / nullif(day.close, 0) - 1 AS change_24h,
    extract(epoch FROM now() - latest.kafka_time)::double precision AS age_seconds
FROM dashboard_symbols symbols
CROSS JOIN LATERAL (
    SELECT * FROM bitcoin_gold_data gold WHERE gold.symbol = symbols.symbol ORDER BY gold.event_time DESC LIMIT 1
) latest
LEFT JOIN LATERAL (
    SELECT close FROM bitcoin_gold_data gold
    WHERE gold.symbol = symbols.symbol AND gold.event_time <= latest.event_time - interval '1 hour'
    ORDER BY gold.event_time DESC LIMIT 1
) hour ON true
LEFT JOIN LATERAL (
    SELECT close FROM bitcoin_gold_data gold
    WHERE gold.symbol = symbols.symbol AND gold.event_time <= latest.event_time - interval '1 day'
    ORDER BY gold.event_time DESC LIMIT 1
) day ON true;

-- One row on the 1,000 most recently produced candles of the front: the age of the newest, their rate, and the time from Kafka to gold.
CREATE VIEW dashboard_pipeline AS
SELECT
    extract(epoch FROM now() - max(kafka_time))::double precision AS age_seconds,
    ((count(*) - 1) / nullif(extract(epoch FROM max(kafka_time) - min(kafka_time)), 0))::double precision AS candles_per_second,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY lag_seconds) AS lag_p50_seconds,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY lag_seconds) AS lag_p99_seconds,
    (SELECT count(*) FROM bitcoin_dead_letters) AS dead_letters
FROM (SELECT kafka_time, lag_seconds FROM dashboard_front ORDER BY kafka_time DESC LIMIT 1000) recent;

-- The latest 100 dead letters. If there are none, one row states this, since an empty table looks like an error.
CREATE VIEW dashboard_dead_letters AS
(
    SELECT kafka_time, reason, detail, topic, kafka_partition, kafka_offset, key, message
    FROM bitcoin_dead_letters
    ORDER BY kafka_time DESC
    LIMIT 100
)
UNION ALL
SELECT NULL, 'none so far', 'every message was usable', NULL, NULL, NULL, NULL, NULL
WHERE NOT EXISTS (SELECT FROM bitcoin_dead_letters);
