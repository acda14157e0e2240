//! Tests of the topic and the bronze table of a position, and of positions that another engine has lost.

use std::path::PathBuf;

use lake::{Lake, LakeError, Table, TableSpec};
use tempfile::TempDir;

use crate::lakes;
use crate::rows::{DAY, bronze_run, gold, position};

/// A bronze or gold table in a folder whose log a test can edit.
struct Edited {
    _folder: TempDir,
    lake: Lake,
    log: PathBuf,
}

impl Edited {
    async fn new(spec: TableSpec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
        let log = folder.path().join(spec.prefix).join("_delta_log");
        Table::open(&lake, spec).await.unwrap();
        Edited { _folder: folder, lake, log }
    }

    /// Rewrites a log entry line by line. A line that becomes `None` is removed.
    fn edit(&self, version: u64, edit: impl Fn(&str) -> Option<String>) {
        let path = self.log.join(format!("{version:020}.json"));
        let entry = std::fs::read_to_string(&path).unwrap();
        let edited: Vec<_> = entry.lines().filter_map(edit).collect();
        assert_ne!(edited.join("\n"), entry.trim(), "the edit must change something");
        std::fs::write(path, edited.join("\n")).unwrap();
    }

    async fn open(&self, spec: TableSpec) -> Result<Table, LakeError> {
        Table::open(&self.lake, spec).await
    }
}

fn without_transactions(line: &str) -> Option<String> {
    (!line.starts_with(r#"{"txn""#)).then(|| line.to_owned())
}

#[tokio::test]
async fn a_table_of_another_topic_is_refused_by_name() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("a")).await.unwrap();
        table.append(&[bronze_run(0, 0..5, DAY)], &position(&[(0, 5)])).await.unwrap();
        let error = Table::open(&test.lake, lake::bronze("b")).await.unwrap_err();
        assert!(
            matches!(&error, LakeError::OtherTopic { found, expected, .. } if found == "a" && expected == "b")
        );
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_table_of_an_older_version_is_refused_by_the_topics_of_its_transactions() {
    let edited = Edited::new(lake::bronze("a")).await;
    let mut table = edited.open(lake::bronze("a")).await.unwrap();
    table.append(&[bronze_run(0, 0..5, DAY)], &position(&[(0, 5)])).await.unwrap();
    edited.edit(0, |line| Some(line.replace(r#""candleflight.topic":"a""#, r#""who":"nobody""#)));
    let error = edited.open(lake::bronze("b")).await.unwrap_err();
    assert!(matches!(&error, LakeError::OtherTopic { found, .. } if found == "a"), "{error}");
    let mut table = edited.open(lake::bronze("a")).await.unwrap();
    assert_eq!(*table.snapshot().position(), position(&[(0, 5)]));
    table.append(&[bronze_run(0, 5..9, DAY)], &position(&[(0, 9)])).await.unwrap();
}

#[tokio::test]
async fn a_position_that_was_lost_is_refused_and_is_not_a_new_table() {
    let edited = Edited::new(lake::bronze("a")).await;
    let mut table = edited.open(lake::bronze("a")).await.unwrap();
    table.append(&[bronze_run(0, 0..5, DAY)], &position(&[(0, 5)])).await.unwrap();
    table.append(&[bronze_run(0, 5..9, DAY)], &position(&[(0, 9)])).await.unwrap();
    edited.edit(2, without_transactions);
    let error = edited.open(lake::bronze("a")).await.unwrap_err();
    assert!(error.to_string().contains("offset 8 of partition 0"), "{error}");
    edited.edit(1, without_transactions);
    let error = edited.open(lake::bronze("a")).await.unwrap_err();
    assert!(matches!(error, LakeError::PositionLost { table: "bronze", .. }), "{error}");

    let edited = Edited::new(lake::gold("a")).await;
    let mut table = edited.open(lake::gold("a")).await.unwrap();
    table.upsert(&[gold(&[("A", DAY, 1, 1.0, None)])], &position(&[(0, 5)])).await.unwrap();
    edited.edit(1, without_transactions);
    let error = edited.open(lake::gold("a")).await.unwrap_err();
    assert!(matches!(error, LakeError::PositionLost { table: "gold", .. }), "{error}");
}

#[tokio::test]
async fn a_running_writer_stops_at_rows_that_its_position_does_not_know() {
    let edited = Edited::new(lake::bronze("a")).await;
    let mut table = edited.open(lake::bronze("a")).await.unwrap();
    let mut other = edited.open(lake::bronze("a")).await.unwrap();
    other.append(&[bronze_run(0, 0..5, DAY)], &position(&[(0, 5)])).await.unwrap();
    edited.edit(1, without_transactions);
    let error = table.refresh().await.unwrap_err();
    assert!(matches!(error, LakeError::PositionLost { .. }), "{error}");
    let rows = [bronze_run(0, 0..5, DAY)];
    let error = table.append(&rows, &position(&[(0, 4)])).await.unwrap_err();
    assert!(matches!(error, LakeError::PositionLost { .. }), "{error}");
}

#[tokio::test]
async fn partitions_far_apart_keep_their_positions() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("a")).await.unwrap();
        table.append(&[], &position(&[(i32::MAX, 1), (0, 5), (70_000, 3)])).await.unwrap();
        let reopened = Table::open(&test.lake, lake::bronze("a")).await.unwrap().snapshot();
        assert_eq!(*reopened.position(), position(&[(i32::MAX, 1), (0, 5), (70_000, 3)]));
    }
}

#[tokio::test]
async fn the_id_of_the_topic_and_of_bronze_are_durable_with_the_next_commit() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::gold("a")).await.unwrap();
        let id = table.snapshot().table_id().to_owned();
        table.set_topic_id("9Z");
        table.set_bronze_id("5f0c");
        assert_eq!(table.snapshot().topic().id, None);
        for row in [1.0, 2.0] {
            table.upsert(&[gold(&[("A", DAY, 1, row, None)])], &position(&[(0, row as i64)])).await.unwrap();
        }
        let reopened = Table::open(&test.lake, lake::gold("a")).await.unwrap().snapshot();
        for snapshot in [table.snapshot(), reopened] {
            assert_eq!(snapshot.topic().id.as_deref(), Some("9Z"));
            assert_eq!((snapshot.bronze_id(), snapshot.table_id()), (Some("5f0c"), id.as_str()));
            assert_eq!((snapshot.version(), snapshot.row_count()), (2, 1));
        }
    }
}

#[tokio::test]
async fn a_table_that_is_emptied_begins_again_and_keeps_its_older_versions() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::gold("a")).await.unwrap();
        table.upsert(&[gold(&[("A", DAY, 1, 1.0, None)])], &position(&[(0, 5), (3, 1)])).await.unwrap();
        let before = table.snapshot();
        table.empty().await.unwrap();
        let mut reopened = Table::open(&test.lake, lake::gold("a")).await.unwrap();
        for snapshot in [table.snapshot(), reopened.snapshot()] {
            assert!(snapshot.position().is_empty(), "{}", snapshot.position());
            assert_eq!(snapshot.row_count(), 0);
        }
        assert_eq!(before.row_count(), 1);
        reopened.upsert(&[gold(&[("A", DAY, 1, 2.0, None)])], &position(&[(0, 2)])).await.unwrap();
        let seen = before.clone();
        table.refresh().await.unwrap();
        assert_eq!((*table.snapshot().position()).clone(), position(&[(0, 2)]));
        assert_eq!(seen.row_count(), 1);
    }
}

#[tokio::test]
async fn a_transaction_says_when_it_was_made() {
    let edited = Edited::new(lake::bronze("a")).await;
    let mut table = edited.open(lake::bronze("a")).await.unwrap();
    table.append(&[bronze_run(0, 0..5, DAY)], &position(&[(0, 5)])).await.unwrap();
    let entry = std::fs::read_to_string(edited.log.join("00000000000000000001.json")).unwrap();
    let transaction = entry.lines().find(|line| line.starts_with(r#"{"txn""#)).unwrap();
    let transaction: serde_json::Value = serde_json::from_str(transaction).unwrap();
    assert_eq!(transaction["txn"]["appId"], "kafka/a/0");
    assert!(transaction["txn"]["lastUpdated"].as_i64().unwrap() > 0);
}
