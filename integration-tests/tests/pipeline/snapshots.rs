//! Snapshots under load, with a flush every 50 ms: no query returns a row twice or misses one, and no follower misses an offset.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt as _;
use integration_tests::check::{pipeline, topic_ends};
use integration_tests::input::{self, synthetic};
use position::Position;
use proto::ticket::{Follow, Ticket};
use schema::RangedBatch;
use schema::ranged::offsets;
use tokio::task::JoinSet;
use transport::client::{connect, read};

/// Concurrent clients.
const CLIENTS: usize = 8;
/// Queries of each client.
const QUERIES: usize = 250;
/// Longest time for the server to start.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// Query of all clients. On a topic without bad messages, the count of a partition is always max − min + 1.
const QUERY: &str = "SELECT kafka_partition, count(*) AS rows, min(kafka_offset) AS first, max(kafka_offset) AS last \
                     FROM bronze GROUP BY kafka_partition";

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_queries_and_followers_see_every_offset_once() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let inputs = [
        synthetic(&pipeline, "ONE-USD", 20, 1).await?,
        synthetic(&pipeline, "TWO-USD", 20, 2).await?,
        synthetic(&pipeline, "THREE-USD", 20, 3).await?,
    ];
    let mut flight = pipeline.start(&["flight", "--flush-interval", "50ms"])?;
    flight.ready().await;
    let mut producer = pipeline.start(&input::producer(&inputs, &["--rate", "2000/s", "--quiet"]))?;
    let _ingest = pipeline.start(&["ingest"])?;

    let mut tasks = JoinSet::new();
    for _client in 0..CLIENTS {
        tasks.spawn(query(pipeline.flight.clone()));
    }
    let total = i64::try_from(inputs.iter().map(input::Input::row_count).sum::<anyhow::Result<usize>>()?)?;
    ensure!(producer.ended().await?.success(), "the producer has sent everything: {}", producer.log()?);
    let ends: Position = topic_ends(&environment.kafka, &pipeline.topic)
        .await?
        .into_iter()
        .filter(|(_, end)| *end > 0)
        .collect();
    let sent: i64 = ends.iter().map(|(_, next)| next).sum();
    ensure!(sent == total, "the topic has {sent} of {total} candles: {ends}");
    for start in [0, 1, 777, 10_000] {
        tasks.spawn(follow(pipeline.flight.clone(), start, ends.clone()));
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    ensure!(flight.terminate().await?.success(), "a drain ends with exit code 0");
    Ok(())
}

/// Queries repeatedly. Each answer must be complete, and none smaller than the previous one.
async fn query(address: String) -> anyhow::Result<()> {
    let mut client =
        FlightSqlServiceClient::new_from_inner(connect(&address, &access::Identity::default()).await?);
    let mut seen: BTreeMap<i32, i64> = BTreeMap::new();
    for _query in 0..QUERIES {
        let info = client.execute(QUERY.to_owned(), None).await?;
        let ticket =
            info.endpoint.first().and_then(|endpoint| endpoint.ticket.clone()).context("an endpoint")?;
        let batches: Vec<RecordBatch> = client.do_get(ticket).await?.try_collect().await?;
        for batch in batches {
            for row in 0..batch.num_rows() {
                let partition = batch.column(0).as_primitive::<Int32Type>().value(row);
                let number = |column: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
                let (rows, first, last) = (number(1), number(2), number(3));
                ensure!(
                    rows == last - first + 1,
                    "partition {partition}: {rows} rows from {first} to {last}"
                );
                let before = seen.insert(partition, rows).unwrap_or(0);
                ensure!(rows >= before, "partition {partition}: {rows} rows after {before}");
            }
        }
    }
    Ok(())
}

/// Follows every partition from `start` to `ends`, and checks that every offset comes once and in order.
async fn follow(address: String, start: i64, ends: Position) -> anyhow::Result<()> {
    let mut client = connect(&address, &access::Identity::default()).await?;
    let from: Position = ends.iter().map(|(partition, next)| (partition, start.min(next))).collect();
    let mut next = from.clone();
    let ticket = Ticket::Bronze(Follow::from(from).until(ends.clone()));
    let mut batches = std::pin::pin!(read(&mut client, &ticket).await?);
    while let Some(RangedBatch { range, rows }) =
        tokio::time::timeout(START_DEADLINE, batches.try_next()).await??
    {
        ensure!(next.next(range.partition) == Some(range.first), "{range} does not join {next}");
        ensure!(offsets(&rows) == (range.first..range.next).collect::<Vec<_>>(), "{range} lacks an offset");
        next.advance(range);
    }
    ensure!(next == ends, "the stream ended at {next}, before {ends}");
    Ok(())
}
