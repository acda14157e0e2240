//! Tests of appends, positions and competing writers.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use lake::{LakeError, Table};
use position::OffsetRange;
use schema::{DAY_MICROS, MINUTE_MICROS};

use crate::lakes;
use crate::rows::{DAY, bronze, bronze_run, gold, plan, position, read};

#[tokio::test]
async fn rows_and_position_survive_a_reopen() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        assert_eq!(table.snapshot().version(), 0);
        assert!(table.snapshot().position().is_empty());
        table
            .append(&[bronze_run(0, 0..10, DAY), bronze_run(2, 5..8, DAY)], &position(&[(0, 10), (2, 9)]))
            .await
            .unwrap();
        let written = table
            .append(&[bronze(0, &[(10, DAY), (11, DAY + 1)])], &position(&[(0, 12), (2, 9)]))
            .await
            .unwrap();

        let reopened = Table::open(&test.lake, lake::bronze("candles")).await.unwrap().snapshot();
        for snapshot in [written, reopened] {
            assert_eq!((snapshot.version(), snapshot.row_count(), snapshot.file_count()), (2, 15, 4));
            assert_eq!(*snapshot.position(), position(&[(0, 12), (2, 9)]));
            assert!(snapshot.bytes() > 0);
            assert_eq!(
                read(&snapshot, OffsetRange { partition: 0, first: 0, next: 12 }).await,
                (0..12).collect::<Vec<_>>()
            );
            assert_eq!(read(&snapshot, OffsetRange { partition: 2, first: 0, next: 9 }).await, [5, 6, 7]);
        }
    }
}

#[tokio::test]
async fn a_position_moves_without_rows_and_an_equal_one_makes_no_commit() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        table.append(&[], &position(&[(0, 7), (1, 0)])).await.unwrap();
        let again = table.append(&[], &position(&[(0, 7)])).await.unwrap();
        assert_eq!((again.version(), again.row_count()), (1, 0));
        assert_eq!(*again.position(), position(&[(0, 7)]));
        let back = table.append(&[], &position(&[(0, 6)])).await.unwrap_err();
        assert!(matches!(back, LakeError::Moved { .. }) && !back.is_transient());
    }
}

#[tokio::test]
async fn the_second_writer_to_commit_is_fenced_and_nothing_is_doubled() {
    for test in lakes().await {
        let mut old = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        let mut new = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        new.append(&[bronze_run(0, 0..5, DAY)], &position(&[(0, 5)])).await.unwrap();
        let fenced = old.append(&[bronze_run(0, 0..4, DAY)], &position(&[(0, 4)])).await.unwrap_err();
        assert!(matches!(fenced, LakeError::Fenced { table: "bronze", version: 1 }), "{fenced:?}");
        let seen = new.refresh().await.unwrap();
        assert_eq!((seen.version(), seen.row_count()), (1, 5));
    }
}

#[tokio::test]
async fn maintenance_by_another_process_does_not_fence() {
    for test in lakes().await {
        let mut writer = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        for first in [0, 5, 10] {
            writer
                .append(&[bronze_run(0, first..first + 5, DAY)], &position(&[(0, first + 5)]))
                .await
                .unwrap();
        }
        let mut other = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        assert!(other.compact(DAY + 1).await.unwrap());
        let snapshot = writer.append(&[bronze_run(0, 15..20, DAY)], &position(&[(0, 20)])).await.unwrap();
        assert_eq!((snapshot.version(), snapshot.row_count(), snapshot.file_count()), (5, 20, 2));
        assert_eq!(
            read(&snapshot, OffsetRange { partition: 0, first: 0, next: 20 }).await,
            (0..20).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn two_processes_may_create_the_table_at_once() {
    for test in lakes().await {
        let open = || Table::open(&test.lake, lake::gold("candles"));
        let (one, two) = tokio::join!(open(), open());
        assert_eq!((one.unwrap().snapshot().version(), two.unwrap().snapshot().version()), (0, 0));
    }
}

#[tokio::test]
async fn a_table_with_another_schema_is_refused_by_column() {
    for test in lakes().await {
        let mut spec = lake::bronze("candles");
        let mut fields: Vec<Field> =
            spec.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        fields[6] = Field::new("volume", DataType::Int64, false);
        spec.schema = Arc::new(Schema::new(fields));
        Table::open(&test.lake, spec).await.unwrap();
        let error = Table::open(&test.lake, lake::bronze("candles")).await.unwrap_err();
        let LakeError::Schema { table: "bronze", column, found, expected } = error else {
            panic!("{error:?}")
        };
        assert_eq!((column.as_str(), found.as_str(), expected.as_str()), ("volume", "Int64", "Float64"));
    }
}

#[tokio::test]
async fn a_reader_follows_the_writer() {
    for test in lakes().await {
        let mut writer = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        let mut reader = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        for next in 1..=3 {
            writer.append(&[bronze_run(1, next - 1..next, DAY)], &position(&[(1, next)])).await.unwrap();
        }
        let seen = reader.refresh().await.unwrap();
        assert_eq!((seen.version(), seen.row_count()), (3, 3));
        assert_eq!(*seen.position(), position(&[(1, 3)]));
        assert_eq!(reader.refresh().await.unwrap().version(), 3);
    }
}

#[tokio::test]
async fn many_commits_make_checkpoints_from_which_the_table_reopens() {
    check_checkpoints().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commits_make_checkpoints_on_several_threads_too() {
    check_checkpoints().await;
}

async fn check_checkpoints() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        let mut late = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        for next in 1..=210 {
            table.append(&[bronze_run(0, next - 1..next, DAY)], &position(&[(0, next)])).await.unwrap();
        }
        let reopened = Table::open(&test.lake, lake::bronze("candles")).await.unwrap().snapshot();
        for snapshot in [table.snapshot(), reopened, late.refresh().await.unwrap()] {
            assert_eq!((snapshot.version(), snapshot.row_count()), (210, 210));
            assert_eq!(*snapshot.position(), position(&[(0, 210)]));
            assert_eq!(read(&snapshot, OffsetRange { partition: 0, first: 0, next: 210 }).await.len(), 210);
            let sql = "SELECT count(*), max(kafka_offset), max(event_time), min(symbol) FROM t";
            let from_the_log = plan(lake::provider(snapshot.clone(), Vec::new()), sql).await;
            assert!(
                !from_the_log.contains("files="),
                "exact statistics survive the checkpoint: {from_the_log}"
            );
        }
        if let Some(folder) = &test.folder {
            assert!(
                folder
                    .path()
                    .join("streaming_raw/_delta_log/00000000000000000200.checkpoint.parquet")
                    .exists()
            );
            assert!(folder.path().join("streaming_raw/_delta_log/_last_checkpoint").exists());
        }
    }
}

#[tokio::test]
async fn a_backfill_of_many_dates_is_one_commit() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        let rows: Vec<(i64, i32)> =
            (0..500_000).map(|offset| (offset, DAY + (offset / 1440) as i32)).collect();
        let batches: Vec<_> = rows.chunks(10_000).map(|rows| bronze(0, rows)).collect();
        let snapshot = table.append(&batches, &position(&[(0, 500_000)])).await.unwrap();
        assert_eq!((snapshot.version(), snapshot.row_count(), snapshot.file_count()), (1, 500_000, 348));
        assert_eq!(
            read(&snapshot, OffsetRange { partition: 0, first: 0, next: 500_000 }).await.len(),
            500_000
        );
    }
}

#[tokio::test]
async fn the_log_tells_how_late_a_symbols_rows_are_at_most() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::gold("candles")).await.unwrap();
        let rows = gold(&[("A", DAY, 3, 1.0, None), ("C", DAY, 5, 1.0, None)]);
        table.append(&[rows], &position(&[(0, 2)])).await.unwrap();
        let rows = gold(&[("E", DAY + 1, 1, 1.0, None)]);
        table.append(&[rows], &position(&[(0, 3)])).await.unwrap();
        let reopened = Table::open(&test.lake, lake::gold("candles")).await.unwrap();
        for snapshot in [table.snapshot(), reopened.snapshot()] {
            let at = |day: i32, minute: i64| Some(i64::from(day) * DAY_MICROS + minute * MINUTE_MICROS);
            // A's last row is two minutes older than the last row of its file. B may be in a file with A and C.
            let expected =
                [("A", at(DAY, 5)), ("B", at(DAY, 5)), ("C", at(DAY, 5)), ("D", None), ("E", at(DAY + 1, 1))];
            for (symbol, newest) in expected {
                assert_eq!(snapshot.newest_at_most(symbol), newest, "{symbol}");
            }
        }
    }
}

#[tokio::test]
async fn files_have_the_encodings_that_readers_are_told_to_need() {
    use parquet::basic::{Compression, Encoding, PageType};
    use parquet::file::reader::{FileReader as _, SerializedFileReader};

    let test = lakes().await.swap_remove(0);
    let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
    table.append(&[bronze_run(0, 0..20_000, DAY)], &position(&[(0, 20_000)])).await.unwrap();
    let folder = test.folder.as_ref().unwrap().path().join("streaming_raw");
    let mut folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let date = folders.find(|path| path.to_str().unwrap().contains("date=")).unwrap();
    let file = std::fs::read_dir(date).unwrap().next().unwrap().unwrap().path();
    let file = SerializedFileReader::new(std::fs::File::open(file).unwrap()).unwrap();
    let (mut encodings, group) = (std::collections::BTreeSet::new(), file.get_row_group(0).unwrap());
    for column in group.metadata().columns() {
        assert_eq!(column.compression(), Compression::SNAPPY);
        encodings.extend(column.encodings());
    }
    let expected = [Encoding::PLAIN, Encoding::RLE, Encoding::DELTA_BINARY_PACKED, Encoding::RLE_DICTIONARY];
    assert_eq!(encodings, expected.into());
    for column in 0..group.num_columns() {
        let pages = group.get_column_page_reader(column).unwrap().map(|page| page.unwrap().page_type());
        assert!(pages.into_iter().all(|page| page != PageType::DATA_PAGE_V2), "pages of version 1");
    }
}
