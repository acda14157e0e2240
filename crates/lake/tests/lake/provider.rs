//! SQL over a snapshot and hot batches.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use lake::{Snapshot, Table};

use crate::lakes;
use crate::rows::{DAY, bronze_run, plan, position, query};

/// Six files over three days and two partitions, and two hot batches.
async fn table(lake: &lake::Lake) -> (Snapshot, Vec<RecordBatch>, Vec<RecordBatch>) {
    let mut table = Table::open(lake, lake::bronze("candles")).await.unwrap();
    let mut all = Vec::new();
    for first in [0, 1_000, 2_000] {
        let day = DAY + (first / 1_000) as i32;
        let batches = [bronze_run(0, first..first + 1_000, day), bronze_run(1, first..first + 500, day)];
        table.append(&batches, &position(&[(0, first + 1_000), (1, first + 500)])).await.unwrap();
        all.extend(batches);
    }
    let hot = vec![bronze_run(0, 3_000..3_100, DAY + 2), bronze_run(1, 2_500..2_510, DAY + 3)];
    all.extend(hot.iter().cloned());
    (table.snapshot(), hot, all)
}

#[tokio::test]
async fn queries_answer_as_over_plain_rows() {
    let queries = [
        "SELECT count(*) FROM t",
        "SELECT count(*), min(kafka_offset), max(kafka_offset), min(event_time), max(event_time) FROM t",
        "SELECT kafka_partition, count(*), min(kafka_offset), max(kafka_offset) FROM t GROUP BY 1 ORDER BY 1",
        "SELECT count(*), min(kafka_offset) FROM t WHERE kafka_partition = 1",
        "SELECT count(*), sum(close) FROM t WHERE date = DATE '2024-01-02'",
        "SELECT count(*), sum(close) FROM t WHERE event_time >= TIMESTAMP '2024-01-02T00:00:00Z' AND symbol = 'ETH-USD'",
        "SELECT * FROM t WHERE kafka_offset IN (7, 2999, 3050, 2505) ORDER BY kafka_partition, kafka_offset",
        "SELECT date, symbol, kafka_time FROM t ORDER BY kafka_offset DESC, kafka_partition LIMIT 5",
        "SELECT count(*) FROM t WHERE kafka_offset > 100000",
        "SELECT count(*) FROM (SELECT 1 FROM t LIMIT 7)",
    ];
    for test in lakes().await {
        let (snapshot, hot, all) = table(&test.lake).await;
        let plain = Arc::new(MemTable::try_new(schema::bronze::schema(), vec![all]).unwrap());
        for sql in queries {
            let expected = query(Arc::clone(&plain) as _, sql).await;
            assert_eq!(query(lake::provider(snapshot.clone(), hot.clone()), sql).await, expected, "{sql}");
        }
    }
}

#[tokio::test]
async fn filters_leave_just_the_files_that_can_match() {
    for test in lakes().await {
        let (snapshot, _, _) = table(&test.lake).await;
        for (filter, files) in [
            ("true", 6),
            ("date = DATE '2024-01-02'", 2),
            ("kafka_partition = 1", 3),
            ("kafka_partition = 0 AND kafka_offset BETWEEN 1500 AND 1600", 1),
            ("event_time < TIMESTAMP '2024-01-01T12:00:00Z'", 2),
            ("symbol = 'XRP-USD'", 0),
        ] {
            let table = lake::provider(snapshot.clone(), Vec::new());
            let printed = plan(table, &format!("SELECT close FROM t WHERE {filter}")).await;
            assert_eq!(printed.matches(".parquet").count(), files, "{filter}: {printed}");
        }
    }
}

#[tokio::test]
async fn a_count_is_answered_from_the_log() {
    for test in lakes().await {
        let (snapshot, hot, _) = table(&test.lake).await;
        for (hot, sql) in [
            (hot, "SELECT count(*) FROM t"),
            (Vec::new(), "SELECT count(*), min(kafka_offset), max(event_time) FROM t"),
        ] {
            let printed = plan(lake::provider(snapshot.clone(), hot), sql).await;
            assert!(!printed.contains(".parquet"), "{printed}");
        }
    }
}

#[tokio::test]
async fn the_schema_is_the_tables_own_also_in_results() {
    for test in lakes().await {
        let (snapshot, hot, _) = table(&test.lake).await;
        let provider = lake::provider(snapshot, hot);
        assert_eq!(provider.schema(), schema::bronze::schema());
        let context = SessionContext::new();
        context.register_table("t", provider).unwrap();
        for batch in context.sql("SELECT * FROM t").await.unwrap().collect().await.unwrap() {
            assert_eq!(batch.schema(), schema::bronze::schema());
        }
    }
}
