use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use access::{Caller, Role};
use arrow::array::{
    ArrayRef, AsArray, Date32Array, Float64Array, Int32Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Float64Type};
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use futures::{Stream, StreamExt, TryStreamExt};
use lake::{Lake, Table};
use position::{OffsetRange, Position};
use proto::Message as _;
use proto::metadata::BatchMetadata;
use schema::RangedBatch;
use tokio_util::sync::CancellationToken;
use transport::stream::{encode_schema, encode_upserts};

use super::GoldFeed;
use crate::bronze::buffer::HotBuffer;
use crate::bronze::buffer::tests::{rows, table};
use crate::error::CallError;
use crate::follow::symbols::Symbols;
use crate::follow::turn::{Turn, Turns};
use crate::follow::{FollowRequest, follow};
use crate::gold::changes::ChangeBuffer;
use crate::gold::put::put;
use crate::gold::table::GoldTable;

/// Returns gold rows from symbol, minute since the epoch and close.
fn gold(rows: &[(&str, i64, f64)]) -> RecordBatch {
    let times = || rows.iter().map(|row| Some(row.1 * schema::MINUTE_MICROS));
    let schema = schema::gold::schema();
    let column = |field: &arrow::datatypes::FieldRef| -> ArrayRef {
        match (field.name().as_str(), field.data_type()) {
            ("symbol", _) => Arc::new(rows.iter().map(|row| Some(row.0)).collect::<StringArray>()),
            ("date", _) => {
                let date =
                    |row: &(&str, i64, f64)| schema::date_of(row.1.clamp(0, 1 << 30) * schema::MINUTE_MICROS);
                Arc::new(rows.iter().map(date).map(Some).collect::<Date32Array>())
            }
            (_, DataType::Timestamp(..)) => {
                Arc::new(times().collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            }
            (_, DataType::Int32) => Arc::new(Int32Array::from_value(1, rows.len())),
            _ => Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Float64Array>()),
        }
    };
    RecordBatch::try_new(Arc::clone(&schema), schema.fields().iter().map(column).collect()).unwrap()
}

fn turn() -> Turn {
    Turns::new(usize::MAX).of(&Caller { user: "ada".into(), role: Role::Reader })
}

fn position(pairs: &[(i32, i64)]) -> Position {
    pairs.iter().copied().collect()
}

fn range(partition: i32, first: i64, next: i64) -> OffsetRange {
    OffsetRange { partition, first, next }
}

/// Gold of a server: the table that its writer has, and the change buffer that followers read.
struct Server {
    folder: tempfile::TempDir,
    table: Table,
    gold: Arc<GoldTable>,
    changes: Arc<ChangeBuffer>,
}

impl Server {
    async fn new() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
        let table = Table::open(&lake, lake::gold("candles")).await.unwrap();
        let gold = Arc::new(GoldTable::new(lake, "candles".to_owned()));
        Server { folder, table, gold, changes: Arc::default() }
    }

    async fn commit(&mut self, rows: &[(&str, i64, f64)], reached: &[(i32, i64)]) {
        self.table.upsert(&[gold(rows)], &position(reached)).await.unwrap();
    }

    fn push(&self, range: OffsetRange, rows: &[(&str, i64, f64)]) {
        self.changes.push(RangedBatch { range, rows: gold(rows) });
    }

    /// Follows gold and describes each batch by its range and the closes of its rows.
    fn follow(&self, from: &[(i32, i64)]) -> impl Stream<Item = String> + use<> {
        self.follow_symbols(from, None)
    }

    fn follow_symbols(
        &self,
        from: &[(i32, i64)],
        symbols: Option<Vec<String>>,
    ) -> impl Stream<Item = String> + use<> {
        let request =
            FollowRequest { from: position(from), until: None, symbols: Symbols::new(symbols), turn: turn() };
        let feed = GoldFeed::new(Arc::clone(&self.changes), Arc::clone(&self.gold));
        let messages = follow(feed, request, CancellationToken::new());
        let messages =
            messages.map_err(|error| arrow_flight::error::FlightError::from_external_error(error.into()));
        FlightDataDecoder::new(messages).filter_map(async |message| {
            let message = message.unwrap();
            let DecodedPayload::RecordBatch(rows) = message.payload else { return None };
            let range = BatchMetadata::decode(&message.inner.app_metadata).unwrap().range;
            let closes =
                rows.column_by_name("close").unwrap().as_primitive::<Float64Type>().values().to_vec();
            Some(format!("{range} {closes:?}"))
        })
    }
}

/// Takes the next batches and compares them with `expected`.
async fn take(follower: &mut (impl Stream<Item = String> + Unpin), expected: &[&str]) {
    for expected in expected {
        assert_eq!(follower.next().await.unwrap(), *expected);
    }
}

#[tokio::test]
async fn a_follower_reads_the_table_then_the_buffer_then_what_comes() {
    let mut server = Server::new().await;
    server.commit(&[("A", 0, 1.0), ("B", 0, 2.0)], &[(0, 10), (1, 5)]).await;
    server.push(range(0, 10, 12), &[("A", 1, 3.0)]);
    let mut follower = pin!(server.follow(&[]));
    take(&mut follower, &["0:0..0 [1.0, 2.0]", "0:0..10 []", "1:0..5 []", "0:10..12 [3.0]"]).await;
    assert!(futures::poll!(follower.next()).is_pending());
    server.push(range(1, 5, 6), &[("B", 1, 4.0)]);
    take(&mut follower, &["1:5..6 [4.0]"]).await;
}

#[tokio::test]
async fn a_follower_is_told_where_it_starts() {
    let server = Server::new().await;
    let mut follower = pin!(server.follow(&[(0, 10), (1, 5)]));
    take(&mut follower, &["0:10..10 []", "1:5..5 []"]).await;
}

#[tokio::test]
async fn a_gap_in_the_buffer_is_filled_from_the_table_which_takes_nothing_back() {
    let mut server = Server::new().await;
    server.commit(&[("A", 0, 1.0), ("B", 0, 1.0)], &[(0, 10), (1, 10)]).await;
    let mut follower = pin!(server.follow(&[(0, 10), (1, 10)]));
    take(&mut follower, &["0:10..10 []", "1:10..10 []"]).await;
    server.push(range(0, 10, 20), &[("A", 0, 2.0)]);
    take(&mut follower, &["0:10..20 [2.0]"]).await;
    // B's rows of 10..15 never come. The server sends nothing until the table has them, and has A as the follower has it.
    server.push(range(1, 15, 20), &[("B", 2, 1.5)]);
    server.push(range(0, 20, 25), &[("A", 0, 3.0)]);
    assert!(futures::poll!(follower.next()).is_pending());
    server.commit(&[("B", 1, 1.25)], &[(0, 10), (1, 15)]).await;
    let waits = tokio::time::timeout(Duration::from_millis(700), follower.next()).await;
    assert!(waits.is_err(), "the table has A as it was before: {waits:?}");
    server.commit(&[("A", 0, 2.0)], &[(0, 20), (1, 15)]).await;
    take(
        &mut follower,
        &["0:20..20 [1.25]", "0:20..20 [2.0, 1.0]", "1:10..15 []", "1:15..20 [1.5]", "0:20..25 [3.0]"],
    )
    .await;
}

#[tokio::test]
async fn what_never_comes_to_the_buffer_is_read_from_the_table() {
    let mut server = Server::new().await;
    let mut follower = pin!(server.follow(&[]));
    assert!(futures::poll!(follower.next()).is_pending());
    server.commit(&[("A", 0, 1.0)], &[(0, 10)]).await;
    take(&mut follower, &["0:0..0 [1.0]", "0:0..10 []"]).await;
}

/// The files of the newest date come first, because maintenance replaces them first.
#[tokio::test]
async fn a_file_that_is_gone_costs_its_own_rows_and_not_those_that_were_sent() {
    let mut server = Server::new().await;
    server.commit(&[("A", 0, 1.0)], &[(0, 10)]).await;
    server.commit(&[("A", 1440, 2.0)], &[(0, 20)]).await;
    let mut follower = pin!(server.follow(&[]));
    take(&mut follower, &["0:0..0 [2.0]"]).await;
    server.commit(&[("A", 0, 5.0)], &[(0, 30)]).await;
    assert_eq!(server.table.vacuum(Duration::ZERO).await.unwrap(), 1);
    take(&mut follower, &["0:0..0 [5.0]", "0:0..30 []"]).await;
}

#[tokio::test]
async fn a_failed_read_is_repeated_and_the_files_before_it_are_not() {
    let mut server = Server::new().await;
    server.commit(&[("A", 0, 1.0)], &[(0, 10)]).await;
    server.commit(&[("A", 1440, 2.0)], &[(0, 20)]).await;
    let mut follower = pin!(server.follow(&[]));
    take(&mut follower, &["0:0..0 [2.0]"]).await;
    let file = server.folder.path().join("gold_aggregates/date=1970-01-01");
    let away = server.folder.path().join("away");
    std::fs::rename(&file, &away).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), follower.next()).await.is_err());
    std::fs::rename(&away, &file).unwrap();
    take(&mut follower, &["0:0..0 [1.0]", "0:0..20 []"]).await;
}

#[tokio::test]
async fn only_the_rows_of_the_symbols_come_and_the_ranges_of_all() {
    let mut server = Server::new().await;
    server.commit(&[("A", 0, 1.0), ("B", 0, 2.0)], &[(0, 10)]).await;
    server.push(range(0, 10, 11), &[("A", 1, 3.0)]);
    let mut follower = pin!(server.follow_symbols(&[], Some(vec!["B".to_owned()])));
    take(&mut follower, &["0:0..0 [2.0]", "0:0..10 []", "0:10..11 []"]).await;
}

/// Puts messages to a server that has received partition 0 up to offset 6. Returns the error of the put.
async fn refusal(messages: Vec<FlightData>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let messages = futures::stream::iter(messages.into_iter().map(Ok));
    put(received(&folder).await, Arc::default(), messages, CancellationToken::new())
        .await
        .unwrap_err()
        .to_string()
}

async fn received(folder: &tempfile::TempDir) -> Arc<HotBuffer> {
    let hot = HotBuffer::new(table(folder).await.snapshot());
    hot.push(&RangedBatch { range: range(0, 0, 6), rows: rows(0, &[0, 1, 2, 3, 4, 5]) }).unwrap();
    Arc::new(hot)
}

#[tokio::test]
async fn a_put_that_is_not_gold_is_refused() {
    let schema = || encode_schema(&schema::gold::schema());
    let batch = |range, rows: &[(&str, i64, f64)]| {
        encode_upserts(&RangedBatch { range, rows: gold(rows) }).unwrap().remove(0)
    };
    for (range, rows, reason) in [
        (range(0, 5, 4), &[][..], "0:5..4 is not a range of offsets"),
        (range(-1, 5, 6), &[], "-1:5..6 is not a range of offsets"),
        (range(0, 5, 5), &[("A", 0, 1.0)], "0:5..5 is empty, but its batch is not"),
        (range(0, 5, 6), &[("A", 0, 1.0), ("A\0", 0, 1.0)], "row 1 of 0:5..6: bad_symbol"),
        (
            range(0, 5, 6),
            &[("A", i64::MAX / schema::MINUTE_MICROS, 1.0)],
            "row 0 of 0:5..6: time_out_of_range",
        ),
    ] {
        let refused = refusal(vec![schema(), batch(range, rows)]).await;
        assert_eq!(refused, format!("read the request: put gold: {reason}"));
    }
    let unmarked = batch(range(0, 0, 1), &[]).with_app_metadata("");
    assert!(refusal(vec![schema(), unmarked]).await.contains("its app_metadata is not a range"));
    let bronze = refusal(vec![encode_schema(&schema::bronze::schema())]).await;
    assert!(bronze.contains("the schema is not gold's"), "{bronze}");
}

/// Otherwise followers would get nothing until bronze has received these offsets.
#[tokio::test]
async fn gold_of_what_bronze_has_not_received_is_refused() {
    for (range, received) in [(range(0, 5, 7), 6), (range(0, 0, 1 << 50), 6), (range(1, 0, 1), 0)] {
        let gold = encode_upserts(&RangedBatch { range, rows: gold(&[]) }).unwrap().remove(0);
        let refused = refusal(vec![encode_schema(&schema::gold::schema()), gold]).await;
        let reason =
            if range.next == 1 << 50 { "too long a range".to_owned() } else { format!("up to {received}") };
        assert!(refused.contains(&reason), "{refused}");
    }
}

#[tokio::test]
async fn a_put_of_gold_ends_when_the_server_stops() {
    let folder = tempfile::tempdir().unwrap();
    let stopped = CancellationToken::new();
    stopped.cancel();
    let stopped = put(received(&folder).await, Arc::default(), futures::stream::pending(), stopped).await;
    assert!(matches!(stopped, Err(CallError::Stopping)));
}
