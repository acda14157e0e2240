//! Tests with other engines on the same tables: Python's `deltalake` and Polars. They run if `CANDLEFLIGHT_TEST_PYTHON` names a Python that
//! has both.

use std::process::Command;

use lake::{Lake, LakeError, Table};
use position::OffsetRange;

use crate::rows::{DAY, bronze_run, gold, plan, position, read};

/// Runs `script` with the table's folder as `path`. Returns its output.
fn python(python: &str, path: &str, script: &str) -> String {
    // The threads of these engines do not always survive an orderly exit.
    let script = format!(
        "import deltalake, os, polars, sys\npath = {path:?}\ntable = deltalake.DeltaTable(path)\n{script}\nsys.stdout.flush()\nos._exit(0)"
    );
    let output = Command::new(python).args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_engines_read_compact_and_vacuum_under_a_running_writer() {
    let Ok(interpreter) = std::env::var("CANDLEFLIGHT_TEST_PYTHON") else { return };
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
    let path = folder.path().join("streaming_raw").to_str().unwrap().to_owned();
    let mut writer = Table::open(&lake, lake::bronze("candles")).await.unwrap();
    for first in (0..400).step_by(100) {
        let rows = [bronze_run(1, first..first + 100, DAY), bronze_run(0, first..first + 100, DAY)];
        writer.append(&rows, &position(&[(0, first + 100), (1, first + 100)])).await.unwrap();
    }
    let frame = "frame = polars.scan_delta(path)\n\
        print(frame.filter(polars.col('kafka_offset') >= 350).select(polars.len(), polars.col('close').sum()).collect().row(0), frame.collect().height)";
    // Both partitions hold the offsets 350 to 399, and `close` is the offset plus one.
    assert_eq!(python(&interpreter, &path, frame), "(100, 37550.0) 800");

    // The other engine's compaction mixes both partitions in one file, in its own order, and drops the old files at once.
    let maintain = "table.optimize.compact()\ntable.create_checkpoint()\n\
        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)\nprint(len(deltalake.DeltaTable(path).file_uris()))";
    assert_eq!(python(&interpreter, &path, maintain), "1");
    writer.append(&[bronze_run(0, 400..410, DAY)], &position(&[(0, 410), (1, 400)])).await.unwrap();
    let reopened = Table::open(&lake, lake::bronze("candles")).await.unwrap().snapshot();
    for snapshot in [writer.snapshot(), reopened] {
        assert_eq!((snapshot.row_count(), snapshot.file_count()), (810, 2));
        assert_eq!(*snapshot.position(), position(&[(0, 410), (1, 400)]));
        assert_eq!(
            read(&snapshot, OffsetRange { partition: 0, first: 50, next: 410 }).await,
            (50..410).collect::<Vec<_>>()
        );
        assert_eq!(read(&snapshot, OffsetRange { partition: 1, first: 399, next: 400 }).await, [399]);
        let table = || lake::provider(snapshot.clone(), Vec::new());
        assert!(
            !plan(table(), "SELECT count(*), max(kafka_offset) FROM t").await.contains("files="),
            "offsets stay exact"
        );
        assert!(
            plan(table(), "SELECT max(event_time) FROM t").await.contains("files="),
            "times of other engines may be cut"
        );
    }
    // Our compaction restores the layout.
    while writer.compact(DAY + 1).await.unwrap() {}
    assert_eq!(writer.snapshot().file_count(), 2);
    assert_eq!(
        read(&writer.snapshot(), OffsetRange { partition: 0, first: 0, next: 410 }).await,
        (0..410).collect::<Vec<_>>()
    );
    assert_eq!(
        python(&interpreter, &path, "print(len(table.file_uris()), table.to_pyarrow_table().num_rows)"),
        "2 810"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_engines_see_upserted_gold() {
    let Ok(interpreter) = std::env::var("CANDLEFLIGHT_TEST_PYTHON") else { return };
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
    let path = folder.path().join("gold_aggregates").to_str().unwrap().to_owned();
    let mut table = Table::open(&lake, lake::gold("candles")).await.unwrap();
    table
        .upsert(&[gold(&[("A", DAY, 1, 1.0, None), ("B", DAY, 1, 2.0, Some(0.5))])], &position(&[(0, 2)]))
        .await
        .unwrap();
    table.upsert(&[gold(&[("A", DAY, 1, 7.0, Some(0.25))])], &position(&[(0, 3)])).await.unwrap();
    let rows = "print(polars.scan_delta(path).sort('symbol').select('symbol', 'close', 'price_volatility_5m').collect().rows())";
    assert_eq!(python(&interpreter, &path, rows), "[('A', 7.0, 0.25), ('B', 2.0, 0.5)]");
    let position = "print(table.transaction_version('kafka/candles/0'))";
    assert_eq!(python(&interpreter, &path, position), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_another_engine_restored_is_refused_until_it_is_as_before() {
    let Ok(interpreter) = std::env::var("CANDLEFLIGHT_TEST_PYTHON") else { return };
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
    let path = folder.path().join("streaming_raw").to_str().unwrap().to_owned();
    let mut writer = Table::open(&lake, lake::bronze("candles")).await.unwrap();
    for first in [0, 5] {
        writer.append(&[bronze_run(0, first..first + 5, DAY)], &position(&[(0, first + 5)])).await.unwrap();
    }
    python(&interpreter, &path, "table.restore(1)");
    let error = Table::open(&lake, lake::bronze("candles")).await.unwrap_err();
    assert!(matches!(error, LakeError::Restored { version: 3, before: 2, .. }), "{error}");
    let error = writer.refresh().await.unwrap_err();
    assert!(matches!(error, LakeError::Restored { .. }), "{error}");

    // The test follows the advice of the error.
    python(&interpreter, &path, "table.restore(2)");
    let mut writer = Table::open(&lake, lake::bronze("candles")).await.unwrap();
    let whole = writer.append(&[bronze_run(0, 10..12, DAY)], &position(&[(0, 12)])).await.unwrap();
    let reopened = Table::open(&lake, lake::bronze("candles")).await.unwrap().snapshot();
    for snapshot in [whole, reopened] {
        let rows = read(&snapshot, OffsetRange { partition: 0, first: 0, next: 12 }).await;
        assert_eq!(rows, (0..12).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_position_another_engine_may_drop_is_refused() {
    let Ok(interpreter) = std::env::var("CANDLEFLIGHT_TEST_PYTHON") else { return };
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
    let path = folder.path().join("streaming_raw").to_str().unwrap().to_owned();
    let mut writer = Table::open(&lake, lake::bronze("candles")).await.unwrap();
    let property = "table.alter.set_table_properties({'delta.setTransactionRetentionDuration': 'interval 7 days'}, raise_if_not_exists=False)";
    python(&interpreter, &path, property);
    for error in [
        writer.append(&[bronze_run(0, 0..5, DAY)], &position(&[(0, 5)])).await.unwrap_err(),
        Table::open(&lake, lake::bronze("candles")).await.unwrap_err(),
    ] {
        assert!(matches!(error, LakeError::TransactionRetention { .. }), "{error}");
    }
}
