use std::pin::pin;
use std::sync::Arc;

use access::{Caller, Role};
use futures::{Stream, StreamExt};
use position::{OffsetRange, Position};
use proto::Message as _;
use proto::metadata::BatchMetadata;
use schema::RangedBatch;
use tokio_util::sync::CancellationToken;

use super::BronzeFeed;
use crate::bronze::buffer::HotBuffer;
use crate::bronze::buffer::tests::{rows, table};
use crate::follow::symbols::Symbols;
use crate::follow::turn::{Turn, Turns};
use crate::follow::{FollowRequest, follow};

fn turn(turns: &Turns) -> Turn {
    turns.of(&Caller { user: "ada".into(), role: Role::Reader })
}

/// Follows all of bronze and describes each batch by its range.
fn ranges(hot: &Arc<HotBuffer>, turns: &Turns) -> impl Stream<Item = String> + use<> {
    let request = FollowRequest {
        from: Position::default(),
        until: None,
        symbols: Symbols::new(None),
        turn: turn(turns),
    };
    let messages = follow(BronzeFeed::new(Arc::clone(hot)), request, CancellationToken::new()).skip(1);
    messages.map(|message| BatchMetadata::decode(&message.unwrap().app_metadata).unwrap().range.to_string())
}

fn push(hot: &HotBuffer, partition: i32, first: i64, next: i64) {
    let offsets: Vec<i64> = (first..next).collect();
    let range = OffsetRange { partition, first, next };
    hot.push(&RangedBatch { range, rows: rows(partition, &offsets) }).unwrap();
}

async fn take(follower: &mut (impl Stream<Item = String> + Unpin), expected: &[&str]) {
    for expected in expected {
        assert_eq!(follower.next().await.unwrap(), *expected);
    }
}

#[tokio::test]
async fn no_partition_waits_for_all_of_another_and_no_more_is_taken_than_is_sent_next() {
    let folder = tempfile::tempdir().unwrap();
    let hot = Arc::new(HotBuffer::new(table(&folder).await.snapshot()));
    push(&hot, 0, 0, 20_000);
    push(&hot, 7, 0, 5);
    let mut follower = pin!(ranges(&hot, &Turns::new(usize::MAX)));
    take(&mut follower, &["0:0..8192"]).await;
    push(&hot, 7, 5, 9);
    take(&mut follower, &["7:0..9", "0:8192..16384", "0:16384..20000"]).await;
    assert!(futures::poll!(follower.next()).is_pending());
}

#[tokio::test]
async fn files_are_read_in_turns_and_hot_rows_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = table(&folder).await;
    let hot = Arc::new(HotBuffer::new(table.snapshot()));
    push(&hot, 0, 0, 10);
    let (batches, position) = hot.to_flush().unwrap();
    hot.set_durable(table.append(&batches, &position).await.unwrap());
    push(&hot, 1, 0, 5);
    let turns = Turns::new(1);
    let mut other = turn(&turns);
    other.take().await;
    let mut follower = pin!(ranges(&hot, &turns));
    take(&mut follower, &["1:0..5"]).await;
    assert!(futures::poll!(follower.next()).is_pending());
    push(&hot, 1, 5, 6);
    take(&mut follower, &["1:5..6"]).await;
    assert!(futures::poll!(follower.next()).is_pending());
    other.end();
    take(&mut follower, &["0:0..10"]).await;
    assert!(futures::poll!(follower.next()).is_pending());
    other.take().await;
    push(&hot, 1, 6, 7);
    take(&mut follower, &["1:6..7"]).await;
}
