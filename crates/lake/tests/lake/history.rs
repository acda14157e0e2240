//! Tests of earlier versions, and of the changes since a position.

use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use lake::{LakeError, Snapshot, Table};

use crate::lakes;
use crate::rows::{DAY, GoldRow, bronze_run, gold, position};

const A: &str = "A";

/// Returns the closes of the rows that changed since a position, ascending.
async fn changed(snapshot: &Snapshot, since: &[(i32, i64)]) -> Vec<f64> {
    let mut changes = snapshot.changed_since(&position(since)).await.unwrap();
    let mut batches: Vec<RecordBatch> = Vec::new();
    while let Some(rows) = changes.next().await.unwrap() {
        batches.extend(rows);
    }
    let close = |batch: &RecordBatch| {
        batch.column_by_name("close").unwrap().as_primitive::<Float64Type>().values().to_vec()
    };
    let mut closes: Vec<f64> = batches.iter().flat_map(close).collect();
    closes.sort_by(f64::total_cmp);
    closes
}

#[tokio::test]
async fn what_changed_since_a_position_is_what_was_written_since() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::gold("candles")).await.unwrap();
        let row = |day: i32, minute: i64, close: f64| -> GoldRow { (A, day, minute, close, None) };
        table.append(&[gold(&[row(DAY, 0, 1.0)])], &position(&[(0, 10)])).await.unwrap();
        table.append(&[gold(&[row(DAY + 1, 0, 2.0)])], &position(&[(0, 20)])).await.unwrap();
        table.append(&[gold(&[row(DAY + 2, 0, 3.0)])], &position(&[(0, 20), (1, 5)])).await.unwrap();
        // A correction replaces the file of its date.
        table.upsert(&[gold(&[row(DAY, 0, 4.0)])], &position(&[(0, 30), (1, 5)])).await.unwrap();
        let snapshot = table.snapshot();
        for (since, expected) in [
            (&[][..], &[2.0, 3.0, 4.0][..]),
            (&[(0, 10)], &[2.0, 3.0, 4.0]),
            (&[(0, 10), (1, 5)], &[2.0, 3.0, 4.0]),
            (&[(0, 15), (1, 5)], &[2.0, 3.0, 4.0]),
            (&[(0, 20), (1, 5)], &[3.0, 4.0]),
            (&[(0, 25), (1, 7)], &[3.0, 4.0]),
            (&[(0, 30), (1, 5)], &[]),
        ] {
            assert_eq!(changed(&snapshot, since).await, expected, "since {since:?}");
        }
        // A file that compaction writes holds the rows of the files that it replaces.
        table.append(&[gold(&[row(DAY, 1, 5.0)])], &position(&[(0, 40), (1, 5)])).await.unwrap();
        assert!(table.compact(DAY + 5).await.unwrap());
        assert_eq!(changed(&table.snapshot(), &[(0, 30), (1, 5)]).await, [4.0, 5.0]);
        assert_eq!(changed(&table.snapshot(), &[(0, 40), (1, 5)]).await, [0.0; 0]);
    }
}

#[tokio::test]
async fn an_earlier_version_has_its_rows_and_its_position() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        for first in 0..3 {
            table
                .append(&[bronze_run(0, first..first + 1, DAY)], &position(&[(0, first + 1)]))
                .await
                .unwrap();
        }
        let snapshot = table.snapshot();
        for version in 0..=3 {
            let then = snapshot.at(version).await.unwrap();
            assert_eq!((then.version(), then.row_count()), (version, version));
            assert_eq!(then.position().next(0), (version > 0).then_some(version as i64));
            then.check_files(&snapshot).await.unwrap();
        }
        let error = snapshot.at(4).await.unwrap_err();
        assert_eq!(error.to_string(), "the bronze table has no version 4: there are versions 0 to 3");
        let versions = snapshot.versions(2).await.unwrap();
        let found: Vec<_> = versions
            .iter()
            .map(|version| (version.version, version.row_count, version.position.next(0)))
            .collect();
        assert_eq!(found, [(2, 2, Some(2)), (3, 3, Some(3))]);
        assert_eq!(snapshot.versions(100).await.unwrap().len(), 4);
    }
}

#[tokio::test]
async fn an_earlier_version_says_when_its_files_are_gone() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::gold("candles")).await.unwrap();
        table.append(&[gold(&[(A, DAY, 0, 1.0, None)])], &position(&[(0, 1)])).await.unwrap();
        table.upsert(&[gold(&[(A, DAY, 0, 2.0, None)])], &position(&[(0, 2)])).await.unwrap();
        let then = table.snapshot().at(1).await.unwrap();
        then.check_files(&table.snapshot()).await.unwrap();
        assert_eq!(table.vacuum(Duration::ZERO).await.unwrap(), 1);
        let error = then.check_files(&table.snapshot()).await.unwrap_err();
        assert!(matches!(error, LakeError::Expired { .. }), "{error:?}");
    }
}
