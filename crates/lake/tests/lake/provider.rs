//! Tests of SQL over a snapshot and hot batches.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::{ExecutionPlanProperties, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt as _;
use lake::{Snapshot, Table};

use crate::lakes;
use crate::rows::{DAY, bronze, bronze_run, plan, position, query};

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
            let scanned = printed
                .split_once("files=")
                .map_or("0", |(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap());
            assert_eq!(scanned, files.to_string(), "{filter}: {printed}");
        }
    }
}

#[tokio::test]
async fn filters_leave_just_the_hot_batches_that_can_match() {
    for test in lakes().await {
        let (snapshot, hot, _) = table(&test.lake).await;
        for (filter, batches) in [
            ("true", "partition_sizes=[2]"),
            ("date = DATE '2024-01-04'", "partition_sizes=[1]"),
            ("event_time < TIMESTAMP '2024-01-04T00:00:00Z' AND kafka_offset > 100", "partition_sizes=[1]"),
            ("symbol <> ''", "partition_sizes=[2]"),
        ] {
            let sql = format!("SELECT close FROM t WHERE {filter}");
            let printed = plan(lake::provider(snapshot.clone(), hot.clone()), &sql).await;
            assert!(printed.contains(batches), "{filter}: {printed}");
        }
        let sql = "SELECT close FROM t WHERE kafka_partition = 1 AND date < DATE '2024-01-04'";
        let printed = plan(lake::provider(snapshot, hot), sql).await;
        assert!(!printed.contains("partition_sizes"), "{printed}");
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
            assert!(!printed.contains("files="), "{printed}");
        }
    }
}

/// More files than a partition takes at a time. Queries need all of them, the newest, the oldest, or some that are far apart.
#[tokio::test]
async fn of_many_files_each_is_read_once_or_skipped() {
    const DAYS: i32 = 400;
    let rows = |days: std::ops::Range<i32>| {
        let rows: Vec<_> =
            days.flat_map(|day| (0..3).map(move |row| (i64::from(day * 3 + row), DAY + day))).collect();
        bronze(0, &rows)
    };
    let queries = [
        "SELECT count(*), count(DISTINCT kafka_offset), sum(kafka_offset), sum(close) FROM t WHERE close >= 0",
        "SELECT symbol, kafka_offset FROM t ORDER BY event_time DESC LIMIT 7",
        "SELECT symbol, kafka_offset FROM t WHERE symbol = 'ETH-USD' ORDER BY event_time LIMIT 7",
        "SELECT date, event_time, kafka_offset FROM t ORDER BY date, event_time DESC LIMIT 5",
        "SELECT kafka_offset FROM t ORDER BY close DESC LIMIT 3 OFFSET 600",
        "SELECT max(event_time), min(event_time), max(close) FROM t WHERE symbol = 'BTC-USD'",
        "SELECT close FROM t WHERE kafka_offset IN (0, 500, 1100, 1201) ORDER BY close",
        "SELECT sum(a.close * b.close) FROM t a JOIN t b ON a.kafka_offset = b.kafka_offset + 600",
    ];
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        table.append(&[rows(0..DAYS)], &position(&[(0, i64::from(DAYS) * 3)])).await.unwrap();
        for (hot, days) in [(Vec::new(), DAYS), (vec![rows(DAYS..DAYS + 1)], DAYS + 1)] {
            let plain = MemTable::try_new(schema::bronze::schema(), vec![vec![rows(0..days)]]).unwrap();
            let plain = Arc::new(plain);
            for sql in queries {
                let expected = query(Arc::clone(&plain) as _, sql).await;
                assert_eq!(
                    query(lake::provider(table.snapshot(), hot.clone()), sql).await,
                    expected,
                    "{sql}"
                );
            }
        }
    }
}

/// A nested-loop join executes its input again after it has run out of memory.
#[tokio::test]
async fn a_plan_that_runs_again_reads_all_again() {
    for test in lakes().await {
        let (snapshot, hot, plain) = table(&test.lake).await;
        let rows: usize = plain.iter().map(RecordBatch::num_rows).sum();
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(4));
        context.register_table("t", lake::provider(snapshot, hot)).unwrap();
        let read = context.sql("SELECT kafka_offset FROM t WHERE close > -1e9").await.unwrap();
        let plan = read.create_physical_plan().await.unwrap();
        for _ in 0..2 {
            let batches = collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
            assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
        }
    }
}

/// A nested-loop join may run out of memory while it reads its left side. It has then never opened some partitions.
#[tokio::test]
async fn a_plan_that_runs_again_after_it_was_cut_short_reads_each_row_once() {
    const DAYS: i32 = 400;
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        let rows: Vec<_> = (0..DAYS).map(|day| (i64::from(day), DAY + day)).collect();
        table.append(&[bronze(0, &rows)], &position(&[(0, i64::from(DAYS))])).await.unwrap();
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(4));
        context.register_table("t", lake::provider(table.snapshot(), Vec::new())).unwrap();
        let read = context.sql("SELECT kafka_offset FROM t").await.unwrap();
        let plan = read.create_physical_plan().await.unwrap();
        assert_eq!(plan.output_partitioning().partition_count(), 4);
        let mut cut_short = plan.execute(0, context.task_ctx()).unwrap();
        assert!(cut_short.next().await.unwrap().unwrap().num_rows() < rows.len());
        drop(cut_short);
        let batches = collect(plan, context.task_ctx()).await.unwrap();
        let offsets = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values());
        let mut offsets: Vec<i64> = offsets.copied().collect();
        offsets.sort_unstable();
        assert_eq!(offsets, (0..i64::from(DAYS)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_large_file_is_read_by_all_partitions() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        let rows = bronze_run(0, 0..150_000, DAY);
        table.append(&[rows], &position(&[(0, 150_000)])).await.unwrap();
        let config = SessionConfig::new().with_target_partitions(4).with_repartition_file_min_size(100_000);
        let context = SessionContext::new_with_config(config);
        context.register_table("t", lake::provider(table.snapshot(), Vec::new())).unwrap();
        let read = context.sql("SELECT kafka_offset FROM t WHERE close >= 0").await.unwrap();
        let plan = read.create_physical_plan().await.unwrap();
        assert_eq!(plan.output_partitioning().partition_count(), 4);
        let batches = collect(plan, context.task_ctx()).await.unwrap();
        let offsets = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values());
        let offsets: BTreeSet<i64> = offsets.copied().collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 150_000);
        assert_eq!(offsets, (0..150_000).collect());
    }
}

#[tokio::test]
async fn the_newest_rows_of_many_files_are_in_a_few() {
    const DAYS: i32 = 2_000;
    for test in lakes().await.into_iter().take(1) {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        let rows: Vec<_> = (0..DAYS).map(|day| (i64::from(day), DAY + day)).collect();
        table.append(&[bronze(0, &rows)], &position(&[(0, i64::from(DAYS))])).await.unwrap();
        // The Flight server sets this. Otherwise a filter collects rows before it passes any on.
        let config = SessionConfig::new().with_target_partitions(4);
        let config = config.set_bool("datafusion.execution.parquet.pushdown_filters", true);
        let context = SessionContext::new_with_config(config);
        context.register_table("t", lake::provider(table.snapshot(), Vec::new())).unwrap();
        for sql in [
            "SELECT * FROM t ORDER BY event_time LIMIT 1",
            "SELECT * FROM t ORDER BY event_time DESC LIMIT 1",
            "SELECT max(event_time) FROM t WHERE close >= 0",
        ] {
            let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
            let rows = collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
            assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
            let mut scan = plan;
            while let [input] = scan.children()[..] {
                scan = Arc::clone(input);
            }
            let opened = scan.metrics().unwrap().sum_by_name("files_opened").unwrap().as_usize();
            assert!(opened <= 8 * 32, "{sql}: {opened} of {DAYS} files");
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
