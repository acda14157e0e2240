use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use position::OffsetRange;

use schema::RangedBatch;

use super::encode_put;
use proto::Message as _;
use proto::metadata::{BatchMetadata, RANGE_OFFSETS_MAX};

fn rows(offsets: &[i64]) -> RecordBatch {
    let count = offsets.len();
    let number = || Arc::new(Float64Array::from(vec![1.0; count])) as ArrayRef;
    let time = || Arc::new(TimestampMicrosecondArray::from(vec![0; count]).with_timezone("UTC")) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["A"; count])),
        time(),
        number(),
        number(),
        number(),
        number(),
        number(),
        Arc::new(Int32Array::from(vec![0; count])),
        Arc::new(Int64Array::from(offsets.to_vec())),
        time(),
        Arc::new(Date32Array::from(vec![0; count])),
    ];
    RecordBatch::try_new(schema::bronze::schema(), columns).unwrap()
}

/// Rows may lie any distance apart. The ranges of the pieces tile the whole range, and each keeps within the bound.
#[track_caller]
fn check(offsets: &[i64], range: (i64, i64), expected: &[(i64, i64)]) {
    let (first, next) = range;
    let messages =
        encode_put(&RangedBatch { range: OffsetRange { partition: 0, first, next }, rows: rows(offsets) })
            .unwrap();
    let ranges: Vec<_> =
        messages.iter().map(|message| BatchMetadata::decode(&message.app_metadata).unwrap().range).collect();
    assert_eq!(ranges.iter().map(|range| (range.first, range.next)).collect::<Vec<_>>(), expected);
}

#[test]
fn a_put_of_a_long_range_is_cut_into_ranges_that_a_server_takes() {
    const LONG: i64 = RANGE_OFFSETS_MAX;
    check(&[0, 1, 2], (0, 3), &[(0, 3)]);
    check(&[], (5, 5), &[(5, 5)]);
    check(&[7], (0, LONG), &[(0, LONG)]);
    check(&[LONG], (0, LONG + 1), &[(0, LONG), (LONG, LONG + 1)]);
    check(&[0, 2 * LONG + 5], (0, 2 * LONG + 6), &[(0, LONG), (LONG, 2 * LONG), (2 * LONG, 2 * LONG + 6)]);
    check(&[], (3, 3 + 2 * LONG), &[(3, 3 + LONG), (3 + LONG, 3 + 2 * LONG)]);
}
