//! The id that Kafka gives a topic when it is created. A topic that is created later under the same name gets a different id.
//!
//! librdkafka has the id, but its Rust binding does not expose it. This crate therefore calls the C library directly. It is the only crate
//! of the workspace with unsafe code.
//!
//! This crate does not configure clients, and it does not create or change topics. The `kafka` crate does both, and calls
//! [`topic_id()`] with a client of its own.

use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Returns the id of `topic`, as Kafka's tools print it. Returns `None` if the brokers give topics no id (before Kafka 2.8).
///
/// Blocks until a broker answers, at most for `timeout`.
///
/// # Errors
///
/// [`KafkaError::AdminOp`] if the topic does not exist, if the client may not describe it, or if no broker answers in time.
/// [`KafkaError::Nul`] if the name contains a zero byte.
pub fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>, KafkaError> {
    let failed = |code| Err(KafkaError::AdminOp(code));
    let Some(event) = describe(client, topic, timeout)? else {
        return failed(RDKafkaErrorCode::OperationTimedOut);
    };
    // SAFETY: the event is live.
    let code = unsafe { c::rd_kafka_event_error(event.0.as_ptr()) };
    if code != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return failed(code.into());
    }
    // SAFETY: the event is live. The result is null if the event has a different type.
    let result = unsafe { c::rd_kafka_event_DescribeTopics_result(event.0.as_ptr()) };
    if result.is_null() {
        return failed(RDKafkaErrorCode::Fail);
    }
    let mut count = 0;
    // SAFETY: the result is not null and lives as long as the event. `count` is a valid place to write to.
    let topics = unsafe { c::rd_kafka_DescribeTopics_result_topics(result, &raw mut count) };
    if topics.is_null() || count == 0 {
        return failed(RDKafkaErrorCode::UnknownTopicOrPartition);
    }
    // SAFETY: the array is not null and has `count` entries, at least one.
    let description = unsafe { *topics };
    // SAFETY: an entry of the array is a description, which lives as long as the event.
    let error = unsafe { c::rd_kafka_TopicDescription_error(description) };
    // SAFETY: the error belongs to the description. librdkafka treats null as no error.
    let code = unsafe { c::rd_kafka_error_code(error) };
    if code != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return failed(code.into());
    }
    // SAFETY: the description lives as long as the event.
    let id = unsafe { c::rd_kafka_TopicDescription_topic_id(description) };
    // SAFETY: the id is part of the description.
    let high = unsafe { c::rd_kafka_Uuid_most_significant_bits(id) };
    // SAFETY: the id is part of the description.
    let low = unsafe { c::rd_kafka_Uuid_least_significant_bits(id) };
    if (high, low) == (0, 0) {
        return Ok(None);
    }
    // SAFETY: the id is part of the description.
    let text = unsafe { c::rd_kafka_Uuid_base64str(id) };
    // SAFETY: the id owns its text, which ends with a zero byte.
    let text = unsafe { CStr::from_ptr(text) };
    // Kafka's tools use the URL-safe Base64 alphabet, librdkafka the standard one.
    Ok(Some(text.to_string_lossy().replace('+', "-").replace('/', "_")))
}

/// Requests a description of the topic from a broker. Returns `None` if no broker answers in time.
fn describe<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<Event>, KafkaError> {
    let name = CString::new(topic)?;
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the array holds one name, which outlives the call. librdkafka copies the name.
    let collection = unsafe { c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1) };
    let collection = Collection(NonNull::new(collection).expect("librdkafka aborts if memory runs out"));
    // SAFETY: the client is live.
    let queue = unsafe { c::rd_kafka_queue_new(client.native_ptr()) };
    let queue = Queue(NonNull::new(queue).expect("librdkafka aborts if memory runs out"));
    // SAFETY: the client, the collection and the queue are live. Null stands for the default options.
    unsafe {
        c::rd_kafka_DescribeTopics(
            client.native_ptr(),
            collection.0.as_ptr(),
            std::ptr::null(),
            queue.0.as_ptr(),
        );
    }
    // SAFETY: the queue is live.
    let event = unsafe { c::rd_kafka_queue_poll(queue.0.as_ptr(), millis) };
    Ok(NonNull::new(event).map(Event))
}

/// Topic names, freed when dropped.
struct Collection(NonNull<c::rd_kafka_TopicCollection_t>);

/// A queue of answers, freed when dropped. librdkafka drops an answer that arrives later.
struct Queue(NonNull<c::rd_kafka_queue_t>);

/// An answer, freed when dropped.
struct Event(NonNull<c::rd_kafka_event_t>);

impl Drop for Collection {
    fn drop(&mut self) {
        // SAFETY: it is live and nothing else frees it.
        unsafe { c::rd_kafka_TopicCollection_destroy(self.0.as_ptr()) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it is live and nothing else frees it.
        unsafe { c::rd_kafka_queue_destroy(self.0.as_ptr()) };
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is live and nothing else frees it.
        unsafe { c::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}
