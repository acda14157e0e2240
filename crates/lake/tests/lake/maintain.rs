//! Tests of compaction and vacuum.

use std::time::Duration;

use lake::{LakeError, Table};
use position::OffsetRange;

use crate::lakes;
use crate::rows::{DAY, bronze, bronze_run, gold, position, query_snapshot, read};

#[tokio::test]
async fn compaction_merges_closed_dates_and_changes_no_row() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        for first in (0..60).step_by(10) {
            let day = DAY + (first / 20) as i32;
            let rows = [bronze_run(0, first..first + 10, day), bronze_run(1, first..first + 10, day)];
            table.append(&rows, &position(&[(0, first + 10), (1, first + 10)])).await.unwrap();
        }
        let before = table.snapshot();
        assert_eq!(before.file_count(), 12);
        while table.compact(DAY + 2).await.unwrap() {}
        let after = table.snapshot();
        // The two closed dates have a file for each partition, and the open date is unchanged.
        assert_eq!((after.file_count(), after.row_count()), (2 * 2 + 4, 120));
        assert_eq!(after.position(), before.position());
        let reopened = Table::open(&test.lake, lake::bronze("candles")).await.unwrap().snapshot();
        for snapshot in [before, after, reopened] {
            for partition in [0, 1] {
                assert_eq!(
                    read(&snapshot, OffsetRange { partition, first: 0, next: 60 }).await,
                    (0..60).collect::<Vec<_>>()
                );
            }
        }
    }
}

#[tokio::test]
async fn an_open_date_is_compacted_once_it_has_many_files() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        let mut merged_at = None;
        for offset in 0..40 {
            table.append(&[bronze(0, &[(offset, DAY)])], &position(&[(0, offset + 1)])).await.unwrap();
            let files = table.snapshot().file_count();
            if table.compact(DAY).await.unwrap() {
                merged_at = Some(files);
                assert_eq!(table.snapshot().file_count(), 1);
            }
        }
        assert_eq!(merged_at, Some(32));
        let range = OffsetRange { partition: 0, first: 0, next: 40 };
        assert_eq!(read(&table.snapshot(), range).await, (0..40).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn compaction_keeps_apart_what_was_ingested_at_different_times() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        table.append(&[bronze(0, &[(0, DAY)])], &position(&[(0, 1)])).await.unwrap();
        table.append(&[bronze(0, &[(5_000_000, DAY)])], &position(&[(0, 5_000_001)])).await.unwrap();
        assert!(!table.compact(DAY + 1).await.unwrap());
    }
}

#[tokio::test]
async fn gold_is_compacted_by_date() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::gold("candles")).await.unwrap();
        for minute in 0..4 {
            let rows = gold(&[("A", DAY, minute, 1.0, None), ("B", DAY, minute, 2.0, Some(1.0))]);
            table.append(&[rows], &position(&[(0, minute + 1)])).await.unwrap();
        }
        let sql = "SELECT count(*), count(price_volatility_5m), sum(close) FROM t";
        let before = query_snapshot(&table.snapshot(), sql).await;
        assert!(table.compact(DAY + 1).await.unwrap());
        assert_eq!(table.snapshot().file_count(), 1);
        assert_eq!(query_snapshot(&table.snapshot(), sql).await, before);
        assert!(!table.compact(DAY + 1).await.unwrap());
    }
}

#[tokio::test]
async fn vacuum_deletes_what_no_version_within_the_retention_holds() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        for first in 0..3 {
            table
                .append(&[bronze_run(0, first..first + 1, DAY)], &position(&[(0, first + 1)]))
                .await
                .unwrap();
        }
        let before = table.snapshot();
        assert!(table.compact(DAY + 1).await.unwrap());
        assert_eq!(
            table.vacuum(Duration::from_mins(10)).await.unwrap(),
            0,
            "the replaced files are younger than the retention"
        );
        let range = OffsetRange { partition: 0, first: 0, next: 3 };
        assert_eq!(read(&before, range).await, [0, 1, 2], "a snapshot within the retention stays readable");

        assert_eq!(table.vacuum(Duration::ZERO).await.unwrap(), 3);
        assert_eq!(read(&table.snapshot(), range).await, [0, 1, 2]);
        assert_eq!(table.vacuum(Duration::ZERO).await.unwrap(), 0);
        let expired = futures::TryStreamExt::try_collect::<Vec<_>>(before.read(range)).await.unwrap_err();
        assert!(matches!(expired, LakeError::Expired { .. }), "{expired:?}");
    }
}

#[tokio::test]
async fn vacuum_leaves_another_engines_file_whose_commit_is_to_come_for_a_week() {
    let test = lakes().await.swap_remove(0);
    let folder = test.folder.as_ref().unwrap().path().join("streaming_raw");
    let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
    table.append(&[bronze_run(0, 0..2, DAY)], &position(&[(0, 2)])).await.unwrap();
    let file = |name: &str, age: Duration| {
        let path = folder.join("date=2024-01-01").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let modified = service_time() - age;
        std::fs::File::create(&path).unwrap().set_modified(modified).unwrap();
        path
    };
    let minutes = Duration::from_mins;
    let ours = "6d2f8d2e-1b7d-4c9e-9a3f-0123456789ab.parquet";
    let foreign = file("part-00000-6d2f8d2e-1b7d-4c9e-9a3f-0123456789ab-c000.snappy.parquet", minutes(61));
    let stale = file("part-00001-c000.snappy.parquet", minutes(7 * 24 * 60 + 1));
    let crashed = file(ours, minutes(61));
    let staged = file("entry.json#12", minutes(61));
    // The log names a replaced file for an hour. After six hours, it does not show whether one of our files was replaced or never
    // committed.
    assert_eq!(table.vacuum(minutes(6 * 60)).await.unwrap(), 2);
    assert!(foreign.exists() && crashed.exists() && !stale.exists() && !staged.exists());
    assert_eq!(table.vacuum(minutes(60)).await.unwrap(), 1);
    assert!(foreign.exists() && !crashed.exists());
    assert_eq!(table.vacuum(minutes(0)).await.unwrap(), 0);
    assert!(foreign.exists());
    assert_eq!(read(&table.snapshot(), OffsetRange { partition: 0, first: 0, next: 2 }).await, [0, 1]);
}

#[expect(clippy::disallowed_methods, reason = "the test compares the file system's times with the clock")]
fn service_time() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

#[tokio::test]
async fn vacuum_deletes_the_files_of_a_commit_that_never_was() {
    for test in lakes().await {
        let mut fenced = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        table.append(&[bronze_run(0, 0..2, DAY)], &position(&[(0, 2)])).await.unwrap();
        fenced.append(&[bronze_run(0, 0..1, DAY)], &position(&[(0, 1)])).await.unwrap_err();
        assert_eq!(table.vacuum(Duration::ZERO).await.unwrap(), 1);
        assert_eq!(read(&table.snapshot(), OffsetRange { partition: 0, first: 0, next: 2 }).await, [0, 1]);
    }
}

#[tokio::test]
async fn other_engines_keep_replaced_files_as_long_as_the_vacuum_does() {
    for test in lakes().await {
        let Some(folder) = &test.folder else { continue };
        let mut table = Table::open(&test.lake, lake::bronze("a")).await.unwrap();
        for (retention, expected) in
            [(1, "interval 1 hours"), (36, "interval 129600 seconds"), (2, "interval 129600 seconds")]
        {
            table.vacuum(Duration::from_hours(retention)).await.unwrap();
            let next = table.snapshot().position().next(0).unwrap_or(0);
            let rows = [bronze_run(0, next..next + 1, DAY)];
            table.append(&rows, &position(&[(0, next + 1)])).await.unwrap();
            let entries = folder.path().join("streaming_raw/_delta_log");
            let mut entries: Vec<_> =
                std::fs::read_dir(entries).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            let log: Vec<String> =
                entries.iter().map(|entry| std::fs::read_to_string(entry).unwrap()).collect();
            let metadata = log.iter().rev().find(|entry| entry.contains("metaData")).unwrap();
            let property = format!(r#""delta.deletedFileRetentionDuration":"{expected}""#);
            assert!(metadata.contains(&property), "{metadata}");
        }
    }
}
