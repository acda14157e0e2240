//! Tests of upserts: new keys, existing keys, and both.

use lake::{LakeError, Snapshot, Table};

use crate::lakes;
use crate::rows::{DAY, GoldRow, gold, position, query_snapshot};

const A: &str = "A";
const B: &str = "B";

/// Upserts `batches` one after the other, and compares the resulting rows.
async fn check(batches: &[&[GoldRow]], expected: &[&str]) -> Vec<Snapshot> {
    let mut snapshots = Vec::new();
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::gold("candles")).await.unwrap();
        for (index, rows) in batches.iter().enumerate() {
            table.upsert(&[gold(rows)], &position(&[(0, index as i64 + 1)])).await.unwrap();
        }
        assert_eq!(table.snapshot().row_count(), expected.len() as u64);
        let reopened = Table::open(&test.lake, lake::gold("candles")).await.unwrap().snapshot();
        for snapshot in [table.snapshot(), reopened] {
            assert_eq!(*snapshot.position(), position(&[(0, batches.len() as i64)]));
            assert_eq!(snapshot.version(), batches.len() as u64, "one commit per upsert");
            let sql = "SELECT concat_ws(' ', symbol, to_char(event_time, '%d %H:%M'), close, price_volatility_5m) AS row FROM t ORDER BY row";
            let printed = query_snapshot(&snapshot, sql).await;
            let rows: Vec<&str> = printed
                .lines()
                .skip(3)
                .filter_map(|line| line.strip_prefix("| "))
                .map(|line| line.trim_end_matches([' ', '|']))
                .collect();
            assert_eq!(rows, expected);
            snapshots.push(snapshot);
        }
    }
    snapshots
}

#[tokio::test]
async fn new_keys_leave_the_files_as_they_are() {
    let one: &[GoldRow] = &[(A, DAY, 1, 1.0, None), (B, DAY, 1, 2.0, Some(0.5))];
    let two: &[GoldRow] = &[(A, DAY, 2, 3.0, Some(0.25)), (A, DAY + 1, 0, 4.0, Some(0.0))];
    let snapshots = check(
        &[one, two],
        &["A 01 00:01 1.0", "A 01 00:02 3.0 0.25", "A 02 00:00 4.0 0.0", "B 01 00:01 2.0 0.5"],
    )
    .await;
    assert!(snapshots.iter().all(|snapshot| snapshot.file_count() == 3));
}

#[tokio::test]
async fn a_key_that_is_there_is_replaced_also_by_null() {
    let one: &[GoldRow] =
        &[(A, DAY, 1, 1.0, Some(9.0)), (A, DAY, 2, 2.0, Some(9.0)), (B, DAY, 1, 2.0, Some(9.0))];
    let two: &[GoldRow] = &[(A, DAY, 2, 5.0, None)];
    let snapshots = check(&[one, two], &["A 01 00:01 1.0 9.0", "A 01 00:02 5.0", "B 01 00:01 2.0 9.0"]).await;
    assert!(snapshots.iter().all(|snapshot| snapshot.file_count() == 1));
}

#[tokio::test]
async fn new_and_corrected_rows_of_several_dates_mix() {
    let one: &[GoldRow] = &[(A, DAY, 1, 1.0, None), (A, DAY + 1, 1, 1.0, None), (A, DAY + 2, 1, 1.0, None)];
    let two: &[GoldRow] = &[
        (B, DAY + 1, 1, 2.0, None),
        (A, DAY + 1, 1, 2.0, None),
        (A, DAY, 0, 2.0, None),
        (A, DAY + 3, 0, 2.0, None),
    ];
    let expected = [
        "A 01 00:00 2.0",
        "A 01 00:01 1.0",
        "A 02 00:01 2.0",
        "A 03 00:01 1.0",
        "A 04 00:00 2.0",
        "B 02 00:01 2.0",
    ];
    check(&[one, two], &expected).await;
}

/// Otherwise corrections all day would turn a date into one file, and each correction would rewrite it.
#[tokio::test]
async fn corrections_leave_the_files_of_a_date_apart() {
    let first: &[GoldRow] = &[(A, DAY, 1, 1.0, None), (B, DAY, 1, 1.0, None)];
    let second: &[GoldRow] = &[(A, DAY, 2, 1.0, None), (B, DAY, 2, 1.0, None)];
    let corrections: &[GoldRow] = &[(A, DAY, 1, 2.0, None), (B, DAY, 2, 2.0, None), (A, DAY, 3, 1.0, None)];
    let expected = ["A 01 00:01 2.0", "A 01 00:02 1.0", "A 01 00:03 1.0", "B 01 00:01 1.0", "B 01 00:02 2.0"];
    let snapshots = check(&[first, second, corrections], &expected).await;
    assert!(snapshots.iter().all(|snapshot| snapshot.file_count() == 3));
}

/// Otherwise a DELETE of another engine would conflict with each flush.
#[tokio::test]
async fn an_append_is_blind_and_a_correction_is_not() {
    let test = lakes().await.swap_remove(0);
    let mut table = Table::open(&test.lake, lake::gold("candles")).await.unwrap();
    for next in 1..=2 {
        table.upsert(&[gold(&[(A, DAY, 1, 1.0, None)])], &position(&[(0, next)])).await.unwrap();
    }
    let log = test.folder.as_ref().unwrap().path().join("gold_aggregates/_delta_log");
    let entry = |version: u64| std::fs::read_to_string(log.join(format!("{version:020}.json"))).unwrap();
    assert!(entry(1).contains(r#""isBlindAppend":true"#), "{}", entry(1));
    assert!(entry(2).contains(r#""isBlindAppend":false"#), "{}", entry(2));
}

#[tokio::test]
async fn the_last_row_of_a_key_in_one_upsert_wins() {
    let one: &[GoldRow] =
        &[(A, DAY, 1, 1.0, None), (B, DAY, 1, 1.0, None), (A, DAY, 1, 2.0, None), (A, DAY, 0, 3.0, None)];
    check(&[one, one], &["A 01 00:00 3.0", "A 01 00:01 2.0", "B 01 00:01 1.0"]).await;
}

#[tokio::test]
async fn a_table_that_may_only_grow_is_refused_for_gold_and_fine_for_bronze() {
    let test = lakes().await.swap_remove(0);
    let folder = test.folder.as_ref().unwrap().path();
    Table::open(&test.lake, lake::gold("candles")).await.unwrap();
    Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
    for table in ["streaming_raw", "gold_aggregates"] {
        let log = folder.join(table).join("_delta_log");
        let first = std::fs::read_to_string(log.join("00000000000000000000.json")).unwrap();
        let metadata = first.lines().find(|line| line.contains("\"metaData\"")).unwrap();
        let altered =
            metadata.replace("\"configuration\":{", "\"configuration\":{\"delta.appendOnly\":\"true\",");
        assert_ne!(altered, metadata);
        std::fs::write(log.join("00000000000000000001.json"), altered).unwrap();
    }
    let error = Table::open(&test.lake, lake::gold("candles")).await.unwrap_err();
    assert!(matches!(error, LakeError::AppendOnly { table: "gold" }) && !error.is_transient(), "{error:?}");
    Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
}
