//! Decodes the bytes of a message into a candle, or into the reason why there is none.

use schema::candle::{Candle, Rejection, TIMESTAMP_SECONDS_MAX};
use serde::de::IgnoredAny;

/// Longest detail of an error that is kept, in characters.
const DETAIL_CHARS_MAX: usize = 200;

/// A candle with its times in microseconds.
#[derive(Debug, PartialEq)]
pub(crate) struct Decoded<'a> {
    pub(crate) candle: Candle<'a>,
    pub(crate) event_time: i64,
    pub(crate) kafka_time: i64,
}

/// Reason why a message holds no usable candle.
#[derive(Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Stable name of the reason.
    pub(crate) reason: &'static str,
    /// Description of the problem, for a person.
    pub(crate) detail: String,
}

/// Decodes a message whose Kafka timestamp is `kafka_millis`.
pub(crate) fn decode(payload: Option<&[u8]>, kafka_millis: Option<i64>) -> Result<Decoded<'_>, Unusable> {
    let payload = payload.unwrap_or_default();
    if payload.is_empty() {
        return Err(unusable("null_value", "the message has no value"));
    }
    // serde would also accept an array of seven values.
    if payload.trim_ascii_start().first() != Some(&b'{') {
        let json = serde_json::from_slice::<IgnoredAny>(payload);
        return Err(json.map_or_else(
            |error| unreadable(&error),
            |_| unusable("not_an_object", "valid JSON, but not an object"),
        ));
    }
    let candle = Candle::from_json(payload).map_err(|error| unreadable(&error))?;
    let kafka_time = kafka_millis.and_then(micros);
    let kafka_time = kafka_time.ok_or_else(|| {
        unusable("kafka_time_out_of_range", &format!("the message's timestamp is {kafka_millis:?} ms"))
    })?;
    let event_time = candle
        .validate(kafka_time)
        .map_err(|rejection| unusable(rejection.reason(), &format!("{candle:?}")))?;
    Ok(Decoded { candle, event_time, kafka_time })
}

/// Converts a Kafka timestamp to microseconds. Returns `None` if it is outside the years that all stores support.
fn micros(kafka_millis: i64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "a whole number far inside i64")]
    let millis_max = TIMESTAMP_SECONDS_MAX as i64 * 1000;
    (0..=millis_max).contains(&kafka_millis).then(|| kafka_millis * 1000)
}

/// Finds the reason from the words in serde's message. The tests check that serde still uses these words.
fn unreadable(error: &serde_json::Error) -> Unusable {
    let detail = error.to_string();
    let reason = match detail.as_str() {
        _ if !error.is_data() => "not_json",
        text if text.starts_with("missing field") => "missing_field",
        text if text.starts_with("duplicate field") => "duplicate_field",
        text if text.contains("expected a number") => "not_a_number",
        _ => Rejection::Symbol.reason(),
    };
    unusable(reason, &detail)
}

fn unusable(reason: &'static str, detail: &str) -> Unusable {
    Unusable { reason, detail: detail.chars().take(DETAIL_CHARS_MAX).collect() }
}

#[cfg(test)]
mod tests;
