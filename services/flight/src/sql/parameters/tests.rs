use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, NullArray, RecordBatch};
use arrow_flight::FlightData;
use arrow_flight::utils::batches_to_flight_data;
use futures::StreamExt;
use tonic::Status;

use super::{BYTES_MAX, ROWS_MAX, check, read};

fn rows(count: usize) -> RecordBatch {
    let numbers = Arc::new(Int64Array::from_iter_values(0..count.try_into().unwrap())) as ArrayRef;
    RecordBatch::try_from_iter([("$1", numbers)]).unwrap()
}

fn messages(batches: Vec<RecordBatch>) -> Vec<Result<FlightData, Status>> {
    let messages = batches_to_flight_data(&batches[0].schema(), batches).unwrap();
    messages.into_iter().map(Ok).collect()
}

async fn refusal(messages: Vec<Result<FlightData, Status>>) -> String {
    read(futures::stream::iter(messages)).await.unwrap_err().to_string()
}

#[tokio::test]
async fn batches_are_bound_together() {
    let bound = read(futures::stream::iter(messages(vec![rows(2), rows(3)]))).await.unwrap();
    assert_eq!(bound.num_rows(), 5);
}

#[tokio::test]
async fn no_more_is_read_than_may_be_bound() {
    let refused = refusal(messages(vec![rows(ROWS_MAX), rows(1)])).await;
    assert_eq!(
        refused,
        "read the request: 1001 rows of parameters were bound; at most 1000 are executed together"
    );
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let wide: Vec<_> = messages(vec![rows(0)]);
    let schema = wide[0].clone();
    let endless = futures::stream::repeat(wide[1].clone()).inspect(move |message| {
        let message = message.as_ref().unwrap();
        count.fetch_add(message.data_header.len() + message.data_body.len(), Ordering::Relaxed);
    });
    let refused = read(futures::stream::iter([schema]).chain(endless)).await.unwrap_err();
    assert!(refused.to_string().contains("more than 2097152 bytes"), "{refused}");
    assert!(taken.load(Ordering::Relaxed) <= BYTES_MAX + 4096);
}

#[tokio::test]
async fn a_stream_that_breaks_or_is_empty_says_so() {
    assert_eq!(refusal(Vec::new()).await, "read the request: no parameters were bound");
    assert_eq!(refusal(vec![Err(Status::out_of_range("too large"))]).await, "too large");
}

#[test]
fn all_rows_together_have_a_bound_of_values() {
    let nothing = |count| Arc::new(NullArray::new(count)) as ArrayRef;
    let names: Vec<_> = (0..100).map(|index| format!("${index}")).collect();
    let wide = |count| RecordBatch::try_from_iter(names.iter().map(|name| (name, nothing(count)))).unwrap();
    assert!(check(&wide(655)).is_ok());
    assert!(check(&wide(656)).unwrap_err().to_string().contains("at most 65536 values"));
    assert!(check(&wide(0)).unwrap_err().to_string().contains("no row"));
}
