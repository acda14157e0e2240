use std::sync::Arc;
use std::task::Poll;

use arrow_flight::error::FlightError;
use futures::{StreamExt, poll};
use position::OffsetRange;
use proto::stream::{batch_bytes, encode_batch, encode_schema};
use tokio_util::sync::CancellationToken;

use super::put;
use crate::error::Refusal;
use crate::hot::Hot;
use crate::hot::tests::{rows, table};
use crate::metrics::Metrics;

type Messages = Vec<Result<arrow_flight::FlightData, FlightError>>;

fn messages(batches: &[(i64, &[i64], i64)]) -> Messages {
    let mut messages = vec![Ok(encode_schema(&schema::bronze::schema()))];
    for (first, offsets, next) in batches {
        let range = OffsetRange { partition: 0, first: *first, next: *next };
        messages.extend(encode_batch(&rows(0, offsets), range).unwrap().into_iter().map(Ok));
    }
    messages
}

fn metrics() -> Metrics {
    Metrics::new(&service::metrics::Metrics::default())
}

/// Puts `messages` and returns why the server refuses them.
async fn refusal(messages: Messages) -> String {
    let folder = tempfile::tempdir().unwrap();
    let hot = Arc::new(Hot::new(table(&folder).await.snapshot()));
    let mut answers =
        Box::pin(put(hot, usize::MAX, futures::stream::iter(messages), metrics(), CancellationToken::new()));
    loop {
        if let Err(refusal) = answers.next().await.expect("a refusal") {
            return refusal.to_string();
        }
    }
}

#[tokio::test]
async fn rows_that_came_as_one_message_count_once_and_not_for_each_column() {
    let folder = tempfile::tempdir().unwrap();
    let hot = Arc::new(Hot::new(table(&folder).await.snapshot()));
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
    let hot = Arc::new(Hot::new(table.snapshot()));
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
    let hot = Arc::new(Hot::new(table.snapshot()));
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
        ((5, &[], 2), "0:5..2 is no range of offsets"),
        ((-1, &[], 2), "0:-1..2 is no range of offsets"),
    ] {
        assert_eq!(refusal(messages(&[batch])).await, format!("put bronze: {reason}"));
    }
    let gap = messages(&[(0, &[0], 1), (5, &[5], 6)]);
    assert_eq!(refusal(gap).await, "put bronze: partition 0 is expected at offset 1, not 5");
}

#[tokio::test]
async fn a_stopping_server_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let hot = Arc::new(Hot::new(table(&folder).await.snapshot()));
    let shutdown = CancellationToken::new();
    let mut answers = Box::pin(put(hot, usize::MAX, futures::stream::pending(), metrics(), shutdown.clone()));
    assert!(poll!(answers.next()).is_pending());
    shutdown.cancel();
    assert!(matches!(answers.next().await, Some(Err(Refusal::Stopping))));
}
