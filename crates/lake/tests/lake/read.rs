//! Tests of reads by position.

use std::collections::BTreeSet;

use lake::Table;
use position::OffsetRange;
use proptest::prelude::*;

use crate::lakes;
use crate::rows::{DAY, bronze, position, read};

#[tokio::test]
async fn a_range_is_tiled_across_files_holes_partitions_and_interleaved_dates() {
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        // Offsets 3 and 4 are a hole. The dates alternate, so their files interleave.
        let interleaved: Vec<(i64, i32)> =
            [0, 1, 2, 5, 6, 7].iter().map(|offset| (*offset, DAY + (*offset % 3) as i32)).collect();
        table
            .append(&[bronze(0, &interleaved), bronze(1, &[(0, DAY)])], &position(&[(0, 8), (1, 1)]))
            .await
            .unwrap();
        table.append(&[bronze(0, &[(100, DAY)])], &position(&[(0, 200), (1, 1)])).await.unwrap();
        let snapshot = table.snapshot();
        let range = |first, next| OffsetRange { partition: 0, first, next };
        assert_eq!(read(&snapshot, range(0, 200)).await, [0, 1, 2, 5, 6, 7, 100]);
        assert_eq!(read(&snapshot, range(2, 7)).await, [2, 5, 6]);
        assert_eq!(read(&snapshot, range(3, 5)).await, [0; 0]);
        assert_eq!(read(&snapshot, range(150, 200)).await, [0; 0]);
        assert_eq!(read(&snapshot, range(9, 9)).await, [0; 0]);
        assert_eq!(read(&snapshot, OffsetRange { partition: 1, first: 0, next: 1 }).await, [0]);
        assert_eq!(read(&snapshot, OffsetRange { partition: 7, first: 0, next: 5 }).await, [0; 0]);
    }
}

#[tokio::test]
async fn a_long_range_comes_in_pieces_of_bounded_size() {
    use futures::TryStreamExt;
    for test in lakes().await {
        let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
        let rows: Vec<(i64, i32)> =
            (0..150_000).map(|offset| (offset, DAY + (offset / 100_000) as i32)).collect();
        table.append(&[bronze(0, &rows)], &position(&[(0, 150_000)])).await.unwrap();
        let range = OffsetRange { partition: 0, first: 10, next: 149_990 };
        assert_eq!(read(&table.snapshot(), range).await, (10..149_990).collect::<Vec<_>>());
        let pieces: Vec<_> = table.snapshot().read(range).try_collect().await.unwrap();
        // Large batches come as they were decoded. One batch begins where the second file begins, so that file is read once.
        assert!(pieces.iter().all(|piece| piece.rows.num_rows() <= 65_536));
        assert!(pieces.iter().any(|piece| piece.range.first == 100_000));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_range_of_any_appends_is_tiled(
        appends in prop::collection::vec(prop::collection::vec((0..3_i64, 0..4_i32, 0..3_i32), 0..40), 1..6),
        ranges in prop::collection::vec((0..3_i32, 0..120_i64, 0..120_i64), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let test = lakes().await.swap_remove(0);
            let mut table = Table::open(&test.lake, lake::bronze("candles")).await.unwrap();
            let mut next = [0_i64; 3];
            let mut offsets = [const { BTreeSet::new() }; 3];
            for rows in &appends {
                let mut batches = Vec::new();
                for (hole, day, partition) in rows {
                    let index = *partition as usize;
                    let offset = next[index] + hole;
                    next[index] = offset + 1;
                    offsets[index].insert(offset);
                    batches.push(bronze(*partition, &[(offset, DAY + day)]));
                }
                let reached: Vec<_> = (0..3).map(|partition| (partition, next[partition as usize])).collect();
                table.append(&batches, &position(&reached)).await.unwrap();
            }
            if ranges.len() % 2 == 0 {
                table.compact(DAY + 2).await.unwrap();
            }
            for (partition, first, length) in &ranges {
                let range = OffsetRange { partition: *partition, first: *first, next: first + length };
                let expected: Vec<i64> = offsets[*partition as usize].range(*first..first + length).copied().collect();
                assert_eq!(read(&table.snapshot(), range).await, expected);
            }
        });
    }
}
