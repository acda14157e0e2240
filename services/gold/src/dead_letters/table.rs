//! Dead letters in PostgreSQL, limited by number and age.

use std::time::Duration;

use deadpool_postgres::Pool;
use position::Position;
use tokio_postgres::types::{ToSql, Type};

use crate::connection::{Postgres, connect, end_with_us};
use crate::dead_letters::letter::Letter;
use crate::error::Error;
use crate::sink::postgres::migrate;

/// Maximum number of letters that one statement deletes: a tenth of a second.
const DELETE_MAX: i64 = 10_000;
/// Deletions in the time in which the bound's number of letters arrives. Each deletion reads the bound's rows in the index, so more
/// frequent deletions would be expensive.
const DELETE_EVERY: u32 = 10;

const INSERT: &str = "INSERT INTO bitcoin_dead_letters \
    (topic, kafka_partition, kafka_offset, reason, detail, key, message, kafka_time, message_time) \
    SELECT topic, partition, next, reason, detail, key, message, to_timestamp(millis / 1000.0), to_timestamp(message_millis / 1000.0) \
    FROM unnest($1::text[], $2::int4[], $3::int8[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int8[], $9::int8[]) \
    AS letter (topic, partition, next, reason, detail, key, message, millis, message_millis) ON CONFLICT DO NOTHING";
const MOVE: &str = "INSERT INTO candleflight_dead_letter_position (topic, partition, next_offset) \
    SELECT $1, * FROM unnest($2::int4[], $3::int8[]) \
    ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset";
const READ: &str = "SELECT partition, next_offset FROM candleflight_dead_letter_position WHERE topic = $1";
/// Deletions of surplus letters. Both use the index on `kafka_time`. Of letters with the same time, those with the higher offsets are newer.
const DELETE_MANY: &str = "DELETE FROM bitcoin_dead_letters WHERE ctid = ANY (ARRAY (\
    SELECT ctid FROM bitcoin_dead_letters ORDER BY kafka_time DESC, kafka_offset DESC OFFSET $1 LIMIT $2))";
const DELETE_OLD: &str = "DELETE FROM bitcoin_dead_letters WHERE ctid = ANY (ARRAY (\
    SELECT ctid FROM bitcoin_dead_letters WHERE kafka_time < now() - make_interval(secs => $1) ORDER BY kafka_time LIMIT $2))";

/// Bounds of the letters in the table. The topic has the rest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Maximum number of letters, within ten percent.
    pub(super) count_max: u32,
    /// Age of the oldest letter.
    pub(super) age_max: Duration,
}

/// Table of the letters of one topic.
pub(super) struct Table {
    pool: Pool,
    topic: String,
    bounds: Bounds,
    /// Letters written since the last deletion of surplus ones.
    written: u32,
}

impl Table {
    /// Connects, and creates or migrates the tables.
    pub(super) async fn open(postgres: &Postgres, topic: &str, bounds: Bounds) -> Result<Self, Error> {
        let pool = postgres.pool()?;
        let mut client = connect(&pool).await?;
        migrate::migrate(&mut client).await?;
        drop(client);
        Ok(Table { pool, topic: topic.to_owned(), bounds, written: 0 })
    }

    /// Returns the position in the dead-letter topic. It has its own table, so that it never mixes with gold's position in a topic of the
    /// same name.
    pub(super) async fn position(&self) -> Result<Position, Error> {
        let rows = connect(&self.pool).await?.query_typed(READ, &[(&self.topic, Type::TEXT)]).await;
        let rows = rows.map_err(Error::postgres("read the position in the dead-letter topic"))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Writes letters and moves the position in one transaction, then deletes surplus letters. Letters that are already in the table are
    /// skipped.
    pub(super) async fn write(&mut self, letters: &[Letter]) -> Result<(), Error> {
        let failed = Error::postgres("commit dead letters");
        let mut client = connect(&self.pool).await?;
        let transaction = client.transaction().await.map_err(&failed)?;
        end_with_us(&transaction).await?;
        let topics: Vec<&str> = letters.iter().map(|letter| letter.source.topic.as_str()).collect();
        let partitions: Vec<i32> = letters.iter().map(|letter| letter.source.partition).collect();
        let offsets: Vec<i64> = letters.iter().map(|letter| letter.source.offset).collect();
        let texts = [0, 1, 2, 3]
            .map(|text| letters.iter().map(|letter| letter.texts[text].as_str()).collect::<Vec<_>>());
        let millis: Vec<i64> = letters.iter().map(|letter| letter.millis).collect();
        let message_millis: Vec<Option<i64>> = letters.iter().map(|letter| letter.message_millis).collect();
        let mut columns: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&topics, Type::TEXT_ARRAY), (&partitions, Type::INT4_ARRAY), (&offsets, Type::INT8_ARRAY)];
        columns.extend(texts.iter().map(|texts| (texts as _, Type::TEXT_ARRAY)));
        columns.extend([(&millis as _, Type::INT8_ARRAY), (&message_millis as _, Type::INT8_ARRAY)]);
        transaction.execute_typed(INSERT, &columns).await.map_err(&failed)?;
        // Offsets ascend, so the last one of each partition remains.
        let position: Position =
            letters.iter().map(|letter| (letter.place.partition, letter.place.offset + 1)).collect();
        let (partitions, nexts): (Vec<i32>, Vec<i64>) = position.iter().unzip();
        let moved = [
            (&self.topic as _, Type::TEXT),
            (&partitions as _, Type::INT4_ARRAY),
            (&nexts as _, Type::INT8_ARRAY),
        ];
        transaction.execute_typed(MOVE, &moved).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        drop(client);
        self.written = self.written.saturating_add(u32::try_from(letters.len()).unwrap_or(u32::MAX));
        if self.written >= self.bounds.count_max / DELETE_EVERY {
            self.delete_surplus().await?;
        }
        Ok(())
    }

    /// Deletes the oldest letters in small transactions until number and age are within their bounds.
    pub(super) async fn delete_surplus(&mut self) -> Result<(), Error> {
        let client = connect(&self.pool).await?;
        let count_max = i64::from(self.bounds.count_max);
        let age_max = self.bounds.age_max.as_secs_f64();
        let deletions: [(&str, (&(dyn ToSql + Sync), Type)); 2] =
            [(DELETE_MANY, (&count_max, Type::INT8)), (DELETE_OLD, (&age_max, Type::FLOAT8))];
        for (delete, bound) in deletions {
            let parameters = [bound, (&DELETE_MAX as _, Type::INT8)];
            let failed = Error::postgres("delete old dead letters");
            while client.execute_typed(delete, &parameters).await.map_err(&failed)? > 0 {}
        }
        self.written = 0;
        Ok(())
    }
}
