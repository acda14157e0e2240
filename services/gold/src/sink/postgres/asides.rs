//! Rows of bronze that gold cannot store, in the table of dead letters.

use deadpool_postgres::Transaction;
use tokio_postgres::types::Type;

use super::Parameter;
use super::encode::Micros;
use crate::aside::Aside;
use crate::error::Error;
use crate::metrics::{Metrics, ReasonLabel};

/// Detail text of all these rows.
const DETAIL: &str = "bronze has this row, but gold cannot store it";
/// Maximum number of rows in one INSERT: 2 MB of parameters.
const ROWS_MAX: usize = 4096;
/// Insert of rows. A row may already be there: another gold table uses the same database, or the topic's offsets started again at 0.
const INSERT: &str = "INSERT INTO bitcoin_dead_letters \
    (topic, kafka_partition, kafka_offset, reason, detail, key, message, kafka_time) \
    SELECT $1, partition, next, reason, $2, key, message, kafka_time \
    FROM unnest($3::int4[], $4::int8[], $5::text[], $6::text[], $7::text[], $8::timestamptz[]) \
    AS letter (partition, next, reason, key, message, kafka_time) ON CONFLICT DO NOTHING";

/// Writes rows that are set aside.
pub(super) async fn write(transaction: &Transaction<'_>, topic: &str, asides: &[Aside]) -> Result<(), Error> {
    let failed = Error::postgres("write what gold sets aside");
    for asides in asides.chunks(ROWS_MAX) {
        let partitions: Vec<i32> = asides.iter().map(|aside| aside.partition).collect();
        let offsets: Vec<i64> = asides.iter().map(|aside| aside.offset).collect();
        let reasons: Vec<&str> = asides.iter().map(|aside| aside.reason).collect();
        let symbols: Vec<&str> = asides.iter().map(|aside| aside.symbol.as_str()).collect();
        let candles: Vec<&str> = asides.iter().map(|aside| aside.candle.as_str()).collect();
        let times: Vec<Micros> = asides.iter().map(|aside| Micros(aside.kafka_time)).collect();
        let parameters: [Parameter<'_>; 8] = [
            (&topic, Type::TEXT),
            (&DETAIL, Type::TEXT),
            (&partitions, Type::INT4_ARRAY),
            (&offsets, Type::INT8_ARRAY),
            (&reasons, Type::TEXT_ARRAY),
            (&symbols, Type::TEXT_ARRAY),
            (&candles, Type::TEXT_ARRAY),
            (&times, Type::TIMESTAMPTZ_ARRAY),
        ];
        transaction.execute_typed(INSERT, &parameters).await.map_err(&failed)?;
    }
    Ok(())
}

/// Counts rows that were set aside, and logs the first of them.
pub(super) fn report(topic: &str, asides: &[Aside], metrics: &Metrics) {
    let Some(first) = asides.first() else { return };
    for Aside { reason, .. } in asides {
        metrics.set_aside.get_or_create(&ReasonLabel { reason }).inc();
    }
    tracing::warn!(
        target: service::status::DEAD_LETTER_TARGET,
        topic,
        partition = first.partition,
        offset = first.offset,
        reason = first.reason,
        detail = DETAIL,
        count = asides.len(),
        "gold cannot store some bronze rows and sets them aside"
    );
}
