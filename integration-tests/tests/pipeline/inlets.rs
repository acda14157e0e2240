//! Input of the Flight server. It trusts no size in a message, and rejects rows that the table cannot store.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt as _, TicketStatementQuery,
};
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use futures::TryStreamExt as _;
use integration_tests::bronze::{candle, connect, put, put_run};
use integration_tests::check::pipeline;
use position::OffsetRange;
use prost::Message as _;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use transport::stream::encode_schema;

/// Size that the parameters of a prepared statement claim to have, in bytes.
const CLAIM: i64 = 1 << 62;

fn compressed() -> anyhow::Result<IpcWriteOptions> {
    Ok(IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?)
}

fn parameters() -> anyhow::Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter([("$1", Arc::new(Int64Array::from(vec![7; 100])) as ArrayRef)])?)
}

/// Returns a handle of `SELECT $1` whose parameters claim [`CLAIM`] bytes in their LZ4 frame.
fn claiming_handle() -> anyhow::Result<Vec<u8>> {
    let query = b"SELECT $1";
    let mut handle = [&b"q"[..], &u32::try_from(query.len())?.to_le_bytes(), query].concat();
    let rows = parameters()?;
    let mut writer = StreamWriter::try_new_with_options(&mut handle, &rows.schema(), compressed()?)?;
    writer.write(&rows)?;
    writer.finish()?;
    let honest = 800_i64.to_le_bytes();
    let at = handle.windows(8).rposition(|bytes| bytes == honest).context("a compressed buffer")?;
    handle[at..at + 8].copy_from_slice(&CLAIM.to_le_bytes());
    Ok(handle)
}

#[track_caller]
fn check<T>(what: &str, answer: Result<T, Status>, code: Code, reason: &str) -> anyhow::Result<()> {
    let status = answer.err().with_context(|| format!("{what} must be refused"))?;
    ensure!(status.code() == code && status.message().contains(reason), "{what}: {status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_message_claims_ends_the_server() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    let mut flight = pipeline.start(&["flight"])?;
    flight.ready().await;
    let mut client = connect(&pipeline).await?;

    let handle = claiming_handle()?;
    ensure!(handle.len() < 1000, "{} bytes", handle.len());
    let ticket = TicketStatementQuery { statement_handle: [&[7; 16][..], &handle].concat().into() };
    let answer = client.do_get(Ticket::new(ticket.as_any().encode_to_vec())).await;
    check("a ticket", answer, Code::InvalidArgument, "compressed")?;
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.into() };
    let command = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let answer = client.get_flight_info(command).await;
    check("a handle", answer, Code::InvalidArgument, "compressed")?;

    let encoded = |rows: RecordBatch| async {
        let rows = futures::stream::iter([Ok(rows)]);
        let encoder = FlightDataEncoderBuilder::new().with_options(compressed()?);
        Ok::<Vec<FlightData>, anyhow::Error>(encoder.build(rows).try_collect().await?)
    };
    let prepared =
        CommandPreparedStatementQuery { prepared_statement_handle: b"q\x09\0\0\0SELECT $1"[..].into() };
    let prepared = FlightDescriptor::new_cmd(prepared.as_any().encode_to_vec());
    let answer = put(&mut client, prepared, encoded(parameters()?).await?).await;
    check("parameters", answer, Code::InvalidArgument, "compressed")?;
    let path = |table: &str| FlightDescriptor::new_path(vec![table.to_owned()]);
    let answer = put(&mut client, path("bronze"), encoded(candle(0)).await?).await;
    check("bronze", answer, Code::InvalidArgument, "compressed")?;
    let gold = RecordBatch::new_empty(schema::gold::schema());
    let gold = [vec![encode_schema(&gold.schema())], encoded(parameters()?).await?.split_off(1)].concat();
    let answer = put(&mut client, path("gold"), gold).await;
    check("gold", answer, Code::InvalidArgument, "compressed")?;

    let long = CommandStatementQuery { query: "1".repeat(5 << 20), transaction_id: None };
    let answer = client.get_flight_info(FlightDescriptor::new_cmd(long.as_any().encode_to_vec())).await;
    check("a message of 5 MiB", answer, Code::OutOfRange, "4194304")?;

    ensure!(
        flight.is_running()? && pipeline.sql("SELECT 1").await?.contains('1'),
        "the server keeps running"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_that_the_table_cannot_keep() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    let mut flight = pipeline.start(&["flight"])?;
    flight.ready().await;
    let mut client = connect(&pipeline).await?;
    let range = |partition, first, next| OffsetRange { partition, first, next };

    // This is the metadata that pandas writes. The put ends when its row is durable.
    let metadata = [("pandas".to_owned(), "{}".to_owned())].into();
    let pandas = schema::bronze::schema().as_ref().clone().with_metadata(metadata);
    let rows = candle(0).with_schema(Arc::new(pandas))?;
    put_run(&mut client, &rows, range(0, 0, 1)).await?;

    let nothing = RecordBatch::new_empty(schema::bronze::schema());
    for (range, reason) in [
        (range(0, 1, i64::MAX), "beyond all topics"),
        (range(0, 1, 1 << 40), "too long a range"),
        (range(i32::MAX, 0, 1), "beyond all topics"),
    ] {
        let answer = put_run(&mut client, &nothing, range).await;
        check(&range.to_string(), answer, Code::InvalidArgument, reason)?;
    }
    for (index, column, reason) in [
        (
            1,
            Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]).with_timezone("UTC")) as ArrayRef,
            "time_out_of_range",
        ),
        (0, Arc::new(StringArray::from(vec!["PUT\0USD"])), "bad_symbol"),
        (2, Arc::new(Float64Array::from(vec![f64::NAN])), "not_finite"),
    ] {
        let mut columns = candle(1).columns().to_vec();
        columns[index] = column;
        let rows = RecordBatch::try_new(schema::bronze::schema(), columns)?;
        let answer = put_run(&mut client, &rows, range(0, 1, 2)).await;
        check(reason, answer, Code::InvalidArgument, reason)?;
    }
    put_run(&mut client, &candle(1), range(0, 1, 2)).await?;

    // The durable rows can be opened again.
    flight.kill().await?;
    flight.restart()?;
    flight.ready().await;
    let progress = transport::client::progress(&mut connect(&pipeline).await?).await?;
    ensure!(progress.durable.to_string() == "0:2", "{progress:?}");
    ensure!(pipeline.sql("SELECT count(*) FROM bronze").await?.contains('2'));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_answered_without_a_log_in() -> anyhow::Result<()> {
    let Some((_, mut pipeline)) = pipeline().await? else { return Ok(()) };
    pipeline.set("CANDLEFLIGHT_USER", "candleflight");
    pipeline.set("CANDLEFLIGHT_PASSWORD", "a password");
    let mut flight = pipeline.start(&["flight"])?;
    flight.ready().await;
    let mut nobody = connect(&pipeline).await?;
    let answer = nobody.list_flights(arrow_flight::Criteria::default()).await;
    check("a call without a log-in", answer, Code::Unauthenticated, "log in")?;

    let address = pipeline.flight.replace("grpc://", "http://");
    let mut health = HealthClient::new(Endpoint::from_shared(address)?.connect().await?);
    for service in ["", "arrow.flight.protocol.FlightService"] {
        let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await?.into_inner();
        ensure!(answer.status() == ServingStatus::Serving, "{service:?}: {answer:?}");
    }
    let unknown = health.check(HealthCheckRequest { service: "another".to_owned() }).await;
    check("another service", unknown, Code::NotFound, "")?;
    let watched = HealthCheckRequest::default();
    let mut watched = health.watch(watched).await?.into_inner();
    let first = watched.message().await?.context("an answer")?;
    ensure!(first.status() == ServingStatus::Serving, "{first:?}");
    let (second, _) = tokio::join!(watched.message(), flight.terminate());
    let second = second?.context("an answer")?;
    ensure!(second.status() == ServingStatus::NotServing, "{second:?}");
    Ok(())
}
