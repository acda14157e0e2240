//! Client of the Flight server that puts bronze without ingest.

use std::sync::Arc;

use access::Identity;
use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::TryStreamExt as _;
use position::OffsetRange;
use schema::RangedBatch;
use tonic::Status;
use transport::client::Client;
use transport::stream::{encode_batch, encode_schema};

use crate::pipeline::Pipeline;

/// Day of [`candle`], the beginning of 2024, in days since the epoch.
const DAY: i32 = 19_723;

/// Connects to the pipeline's Flight server.
///
/// # Errors
///
/// The server does not answer.
pub async fn connect(pipeline: &Pipeline) -> anyhow::Result<Client> {
    Ok(transport::client::connect(&pipeline.flight, &Identity::default()).await?)
}

/// Returns a batch of one candle at `offset` of partition 0. Its event time is `offset` minutes after the beginning of 2024, and all its
/// numbers are 1.
///
/// # Panics
///
/// Never: the columns are those of bronze.
pub fn candle(offset: i64) -> RecordBatch {
    let time = i64::from(DAY) * schema::DAY_MICROS + offset * schema::MINUTE_MICROS;
    let number = || Arc::new(Float64Array::from(vec![1.0])) as ArrayRef;
    let time = || Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone("UTC")) as ArrayRef;
    let columns = vec![
        Arc::new(StringArray::from(vec!["PUT-USD"])) as ArrayRef,
        time(),
        number(),
        number(),
        number(),
        number(),
        number(),
        Arc::new(Int32Array::from(vec![0])),
        Arc::new(Int64Array::from(vec![offset])),
        time(),
        Arc::new(Date32Array::from(vec![DAY])),
    ];
    RecordBatch::try_new(schema::bronze::schema(), columns).expect("the columns are those of bronze")
}

/// Puts messages to a table and returns when the put ends. The rows are then durable.
///
/// # Errors
///
/// The error of the server.
pub async fn put(
    client: &mut Client,
    descriptor: FlightDescriptor,
    mut messages: Vec<FlightData>,
) -> Result<(), Status> {
    messages[0].flight_descriptor = Some(descriptor);
    client.do_put(futures::stream::iter(messages)).await?.into_inner().try_collect::<Vec<_>>().await.map(drop)
}

/// Puts a run of offsets to bronze.
///
/// # Errors
///
/// The error of the server.
///
/// # Panics
///
/// Never: the batch can be encoded.
pub async fn put_run(client: &mut Client, rows: &RecordBatch, range: OffsetRange) -> Result<(), Status> {
    let batch =
        encode_batch(&RangedBatch { range, rows: rows.clone() }).expect("a batch of bronze can be encoded");
    let bronze = FlightDescriptor::new_path(vec![proto::BRONZE.to_owned()]);
    put(client, bronze, [vec![encode_schema(&rows.schema())], batch].concat()).await
}
