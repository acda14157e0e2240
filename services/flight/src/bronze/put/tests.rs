use std::sync::Arc;
use std::task::Poll;

use arrow::array::{RecordBatch, StringArray};
use arrow_flight::FlightData;
use futures::{StreamExt, poll};
use position::OffsetRange;
use proto::metadata::RANGE_OFFSETS_MAX;
use schema::RangedBatch;
use schema::bronze::column;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use transport::stream::{batch_bytes, encode_batch, encode_schema};

use super::put;
use crate::bronze::buffer::HotBuffer;
use crate::bronze::buffer::tests::{rows, table};
use crate::error::CallError;
use crate::ipc::{OFFSETS_MAX, PARTITIONS_MAX};
use crate::metrics::Metrics;

type Messages = Vec<Result<FlightData, Status>>;

fn messages(batches: &[(i64, &[i64], i64)]) -> Messages {
    let mut messages = vec![Ok(encode_schema(&schema::bronze::schema()))];
    for (first, offsets, next) in batches {
        let range = OffsetRange { partition: 0, first: *first, next: *next };
        messages.extend(
            encode_batch(&RangedBatch { range, rows: rows(0, offsets) }).unwrap().into_iter().map(Ok),
        );
    }
    messages
}

fn metrics() -> Metrics {
    Metrics::new(&service::metrics::Metrics::default())
}

/// Puts `messages` and returns the server's error.
async fn refusal(messages: Messages) -> String {
    let folder = tempfile::tempdir().unwrap();
    let hot = Arc::new(HotBuffer::new(table(&folder).await.snapshot()));
    let mut answers =
        Box::pin(put(hot, usize::MAX, futures::stream::iter(messages), metrics(), CancellationToken::new()));
    loop {
        if let Err(error) = answers.next().await.expect("a refusal") {
            return error.to_string();
        }
    }
}

#[tokio::test]
async fn rows_that_came_as_one_message_count_once_and_not_for_each_column() {
    let folder = tempfile::tempdir().unwrap();
    let hot = Arc::new(HotBuffer::new(table(&folder).await.snapshot()));
    let offsets: Vec<i64> = (0..1000).collect();
    let messages = futures::stream::iter(messages(&[(0, &offsets, 1000)]));
    let messages = messages.chain(futures::stream::pending());
    let shutdown = CancellationToken::new();
    let mut answers = Box::pin(put(Arc::clone(&hot), usize::MAX, messages, metrics(), shutdown));
    answers.next().await.unwrap().unwrap();
    let bytes = batch_bytes(&rows(0, &offsets)).unwrap();
    assert!((bytes..bytes + bytes / 10).contains(&hot.size().bytes), "{bytes}: {:?}", hot.size());
}

#[tokio::test]
async fn a_full_buffer_makes_puts_wait_for_the_flush() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = table(&folder).await;
    let hot = Arc::new(HotBuffer::new(table.snapshot()));
    let messages = futures::stream::iter(messages(&[(0, &[0, 1], 2), (2, &[2], 3)]));
    let messages = messages.chain(futures::stream::pending());
    let mut answers = Box::pin(put(Arc::clone(&hot), 1, messages, metrics(), CancellationToken::new()));
    assert_eq!(answers.next().await.unwrap().unwrap().received.next(0), Some(2));
    assert!(poll!(answers.next()).is_pending(), "one byte is all that may be hot");
    let (batches, position) = hot.to_flush().unwrap();
    hot.set_durable(table.append(&batches, &position).await.unwrap());
    let progress = answers.next().await.unwrap().unwrap();
    assert_eq!((progress.received.next(0), progress.durable.next(0)), (Some(3), Some(2)));
}

#[tokio::test]
async fn a_put_ends_once_all_of_it_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = table(&folder).await;
    let hot = Arc::new(HotBuffer::new(table.snapshot()));
    let messages = futures::stream::iter(messages(&[(0, &[0, 1], 2)]));
    let mut answers =
        Box::pin(put(Arc::clone(&hot), usize::MAX, messages, metrics(), CancellationToken::new()));
    assert_eq!(answers.next().await.unwrap().unwrap().received.next(0), Some(2));
    assert!(matches!(poll!(answers.next()), Poll::Pending));
    let (batches, position) = hot.to_flush().unwrap();
    hot.set_durable(table.append(&batches, &position).await.unwrap());
    assert_eq!(answers.next().await.unwrap().unwrap().durable.next(0), Some(2));
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_batch_that_is_not_what_it_says_is_refused() {
    for (batch, reason) in [
        ((0, &[0_i64, 1][..], 1), "the offsets of 0:0..1 do not ascend inside it"),
        ((1, &[0, 1], 2), "the offsets of 0:1..2 do not ascend inside it"),
        ((0, &[1, 1], 2), "the offsets of 0:0..2 do not ascend inside it"),
        ((5, &[], 2), "0:5..2 is not a range of offsets"),
        ((-1, &[], 2), "0:-1..2 is not a range of offsets"),
    ] {
        assert_eq!(refusal(messages(&[batch])).await, format!("put bronze: {reason}"));
    }
    let gap = messages(&[(0, &[0], 1), (5, &[5], 6)]);
    assert_eq!(refusal(gap).await, "put bronze: partition 0 is expected at offset 1, not 5");
}

/// Returns the messages of one batch of a partition.
fn message(rows: &RecordBatch, range: OffsetRange) -> Messages {
    let batch = encode_batch(&RangedBatch { range, rows: rows.clone() }).unwrap();
    [encode_schema(&rows.schema())].into_iter().chain(batch).map(Ok).collect()
}

#[tokio::test]
async fn a_range_that_no_topic_has_is_refused() {
    for (partition, first, next, reason) in [
        (i32::MAX, 0, 1, "beyond all topics"),
        (PARTITIONS_MAX, 0, 1, "beyond all topics"),
        (0, OFFSETS_MAX, OFFSETS_MAX, "beyond all topics"),
        (0, 0, i64::MAX, "beyond all topics"),
        (0, 0, RANGE_OFFSETS_MAX + 1, "too long a range for one batch"),
    ] {
        let range = OffsetRange { partition, first, next };
        let refused = refusal(message(&rows(partition, &[]), range)).await;
        assert!(refused.contains(reason), "{refused}");
    }
}

#[tokio::test]
async fn a_row_that_no_message_can_hold_is_refused() {
    let good = rows(0, &[0, 1]);
    let mut columns = good.columns().to_vec();
    columns[column::SYMBOL] = Arc::new(StringArray::from(vec!["BTC-USD", "BTC\0USD"]));
    let bad = RecordBatch::try_new(good.schema(), columns).unwrap();
    let refused = refusal(message(&bad, OffsetRange { partition: 0, first: 0, next: 2 })).await;
    assert_eq!(refused, "put bronze: the row of offset 1: bad_symbol");
}

/// The decoder drops metadata that pandas and other tools add to a schema.
#[tokio::test]
async fn a_schema_with_metadata_is_put_and_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = table(&folder).await;
    let hot = Arc::new(HotBuffer::new(table.snapshot()));
    let metadata = [("pandas".to_owned(), "{}".to_owned())].into();
    let schema = schema::bronze::schema().as_ref().clone().with_metadata(metadata);
    let rows = rows(0, &[0, 1]).with_schema(Arc::new(schema)).unwrap();
    let messages = futures::stream::iter(message(&rows, OffsetRange { partition: 0, first: 0, next: 2 }));
    let mut answers =
        Box::pin(put(Arc::clone(&hot), usize::MAX, messages, metrics(), CancellationToken::new()));
    answers.next().await.unwrap().unwrap();
    let (batches, position) = hot.to_flush().unwrap();
    assert_eq!(table.append(&batches, &position).await.unwrap().row_count(), 2);
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_its_own_status() {
    let broken = vec![Err(Status::out_of_range("the message is too large"))];
    assert_eq!(refusal(broken).await, "the message is too large");
}

#[tokio::test]
async fn a_stopping_server_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let hot = Arc::new(HotBuffer::new(table(&folder).await.snapshot()));
    let shutdown = CancellationToken::new();
    let mut answers = Box::pin(put(hot, usize::MAX, futures::stream::pending(), metrics(), shutdown.clone()));
    assert!(poll!(answers.next()).is_pending());
    shutdown.cancel();
    assert!(matches!(answers.next().await, Some(Err(CallError::Stopping))));
}
