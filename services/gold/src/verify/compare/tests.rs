use arrow::array::RecordBatch;
use futures::stream;

use super::compare;
use crate::candle::Candle;
use crate::rows::Rows;
use crate::verify::report::TableReport;
use kernel::Frame;

/// Returns the gold of one symbol at the given minutes. Each candle has the given volume.
fn gold(symbol: &str, candles: &[(i64, f64)]) -> RecordBatch {
    let candle = |(minute, volume): &(i64, f64)| Candle {
        event_time: minute * schema::MINUTE_MICROS,
        open: 1.0,
        high: 2.0,
        low: 0.5,
        close: 1.5,
        volume: *volume,
        kafka_time: 7,
        partition: 0,
    };
    let candles: Vec<Candle> = candles.iter().map(candle).collect();
    let mut rows = Rows::default();
    // One row at a time, so that the averages of a row depend on its own candle only.
    for row in 0..candles.len() {
        rows.append(symbol, &candles[row..=row], 0..1, Frame::Time);
    }
    rows.finish(candles.len().try_into().unwrap())
}

async fn check(expected: &[RecordBatch], found: &[RecordBatch]) -> TableReport {
    let mut report = TableReport::default();
    let found = stream::iter(found.iter().cloned().map(Ok));
    compare(expected.iter().cloned(), found, &mut report).await.unwrap();
    report
}

#[tokio::test]
async fn the_same_rows_in_other_batches_are_the_same() {
    let expected = [gold("A", &[(1, 1.0), (2, 2.0)]), gold("B", &[(1, 1.0)])];
    let found = [gold("A", &[(1, 1.0)]), gold("A", &[(2, 2.0)]), gold("A", &[]), gold("B", &[(1, 1.0)])];
    let report = check(&expected, &found).await;
    assert!(report.is_empty());
    assert_eq!((report.expected_rows, report.found_rows), (3, 3));
}

#[tokio::test]
async fn missing_and_extra_rows_are_told_by_key() {
    let expected = [gold("A", &[(1, 1.0), (2, 2.0)]), gold("B", &[(1, 1.0)])];
    let found = [gold("A", &[(2, 2.0), (3, 3.0)]), gold("C", &[(1, 1.0)])];
    let report = check(&expected, &found).await;
    assert_eq!((report.missing_rows, report.extra_rows, report.different_rows), (2, 2, 0));
    let keys: Vec<_> = report
        .differences
        .iter()
        .map(|d| (d.symbol.as_str(), d.event_time.as_str(), d.found.as_str()))
        .collect();
    let expected_keys = [
        ("A", "1970-01-01T00:01:00Z", "absent"),
        ("A", "1970-01-01T00:03:00Z", "present"),
        ("B", "1970-01-01T00:01:00Z", "absent"),
        ("C", "1970-01-01T00:01:00Z", "present"),
    ];
    assert_eq!(keys, expected_keys);
}

#[tokio::test]
async fn a_difference_in_the_last_bit_is_a_difference() {
    let report = check(&[gold("A", &[(1, 0.1)])], &[gold("A", &[(1, 0.1_f64.next_up())])]).await;
    assert_eq!(report.different_rows, 1);
    let columns: Vec<_> = report.differences.iter().map(|difference| difference.column.as_str()).collect();
    assert_eq!(columns, ["volume", "volume_ma_5m", "volume_ma_10m", "volume_ma_30m"]);
    assert_eq!(
        (report.differences[0].expected.as_str(), report.differences[0].found.as_str()),
        ("0.1", "0.10000000000000002")
    );
}

#[tokio::test]
async fn minus_zero_is_not_zero() {
    let report = check(&[gold("A", &[(1, 0.0)])], &[gold("A", &[(1, -0.0)])]).await;
    assert_eq!(report.different_rows, 1);
}
