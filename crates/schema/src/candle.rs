//! The candle as it travels on Kafka: a flat JSON object.

mod plain;

use std::borrow::Cow;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Latest event time that is accepted, in Unix seconds: the end of the year 9999. This is the last year that all date formats support.
pub const TIMESTAMP_SECONDS_MAX: f64 = 253_402_300_799.0;

/// [`TIMESTAMP_SECONDS_MAX`] in microseconds. No time in either table is later, and none is before 1970.
pub const TIME_MICROS_MAX: i64 = 253_402_300_799_000_000;

/// One message: `{"symbol","timestamp","open","high","low","close","volume"}`. The capitalised names of the Kaggle CSV are accepted too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candle<'a> {
    /// Symbol of the instrument.
    #[serde(borrow, alias = "Symbol")]
    pub symbol: Cow<'a, str>,
    /// Open time of the candle in Unix seconds, integer or float.
    #[serde(alias = "Timestamp", serialize_with = "seconds", deserialize_with = "number")]
    pub timestamp: f64,
    /// First price.
    #[serde(alias = "Open", deserialize_with = "number")]
    pub open: f64,
    /// Highest price.
    #[serde(alias = "High", deserialize_with = "number")]
    pub high: f64,
    /// Lowest price.
    #[serde(alias = "Low", deserialize_with = "number")]
    pub low: f64,
    /// Last price.
    #[serde(alias = "Close", deserialize_with = "number")]
    pub close: f64,
    /// Traded volume.
    #[serde(alias = "Volume", deserialize_with = "number")]
    pub volume: f64,
}

/// Longest time by which a candle's open time may lie after its production, in microseconds: a day, for clocks in the wrong time zone. The
/// limit applies to the message's own Kafka timestamp, so that reading the message again gives the same result.
pub const FUTURE_MICROS_MAX: i64 = 86_400_000_000;

/// Largest magnitude of a price or volume that is accepted. Above 10^15, a float64 no longer holds tenths.
pub const MAGNITUDE_MAX: f64 = 1e15;

/// Reason why a candle cannot be used. [`Rejection::reason`] is its stable name in headers and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The symbol is not valid: see [`is_symbol`].
    Symbol,
    /// The time is not finite, is negative, is after [`TIMESTAMP_SECONDS_MAX`], or is more than [`FUTURE_MICROS_MAX`] after the message was
    /// produced.
    TimeOutOfRange,
    /// A price or the volume is not finite.
    NotFinite,
    /// A price or the volume is larger than [`MAGNITUDE_MAX`].
    NumberOutOfRange,
    /// `high` is below `low`.
    HighBelowLow,
    /// The volume is negative.
    NegativeVolume,
}

/// Longest symbol that is accepted, in bytes: several times the longest of any exchange, and short enough for a key.
pub const SYMBOL_BYTES_MAX: usize = 64;

impl Rejection {
    /// Returns the stable name of the reason.
    pub fn reason(self) -> &'static str {
        match self {
            Rejection::Symbol => "bad_symbol",
            Rejection::TimeOutOfRange => "time_out_of_range",
            Rejection::NotFinite => "not_finite",
            Rejection::NumberOutOfRange => "number_out_of_range",
            Rejection::HighBelowLow => "high_below_low",
            Rejection::NegativeVolume => "negative_volume",
        }
    }
}

impl<'a> Candle<'a> {
    /// Decodes a message.
    ///
    /// # Errors
    ///
    /// [`serde_json::Error`] if the message is not a candle.
    pub fn from_json(json: &'a [u8]) -> serde_json::Result<Self> {
        plain::read(json).map_or_else(|| serde_json::from_slice(json), Ok)
    }

    /// Checks the candle and returns its event time in microseconds. The message was produced at `kafka_time_micros`.
    ///
    /// # Errors
    ///
    /// [`Rejection`] for the first rule that the candle breaks. The message then belongs in the dead-letter topic.
    pub fn validate(&self, kafka_time_micros: i64) -> Result<i64, Rejection> {
        if !is_symbol(&self.symbol) {
            return Err(Rejection::Symbol);
        }
        if !(0.0..=TIMESTAMP_SECONDS_MAX).contains(&self.timestamp) {
            return Err(Rejection::TimeOutOfRange);
        }
        let event_time = event_time_micros(self.timestamp);
        check_times(event_time, kafka_time_micros)?;
        check_numbers([self.open, self.high, self.low, self.close, self.volume])?;
        Ok(event_time)
    }
}

/// Returns true if the text can be a symbol everywhere: one to [`SYMBOL_BYTES_MAX`] bytes without control characters. PostgreSQL cannot
/// hold some of these characters, and a person can read none of them.
pub fn is_symbol(text: &str) -> bool {
    (1..=SYMBOL_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

/// Checks a candle's event time and the time at which its message was produced, both in microseconds.
///
/// # Errors
///
/// [`Rejection::TimeOutOfRange`] if a time is before 1970 or after [`TIME_MICROS_MAX`], or if the event time is more than
/// [`FUTURE_MICROS_MAX`] after `kafka_time`.
pub fn check_times(event_time: i64, kafka_time: i64) -> Result<(), Rejection> {
    let is_early_enough = event_time <= kafka_time.saturating_add(FUTURE_MICROS_MAX);
    let are_known = [event_time, kafka_time].iter().all(|time| (0..=TIME_MICROS_MAX).contains(time));
    (are_known && is_early_enough).then_some(()).ok_or(Rejection::TimeOutOfRange)
}

/// Checks a candle's prices and its volume.
///
/// # Errors
///
/// [`Rejection`] for the first rule that they break.
pub fn check_numbers([open, high, low, close, volume]: [f64; 5]) -> Result<(), Rejection> {
    let numbers = [open, high, low, close, volume];
    if !numbers.iter().all(|number| number.is_finite()) {
        return Err(Rejection::NotFinite);
    }
    if numbers.iter().any(|number| number.abs() > MAGNITUDE_MAX) {
        return Err(Rejection::NumberOutOfRange);
    }
    if high < low {
        return Err(Rejection::HighBelowLow);
    }
    if volume < 0.0 {
        return Err(Rejection::NegativeVolume);
    }
    Ok(())
}

/// Converts Unix seconds to microseconds, rounded to the nearest.
#[expect(clippy::cast_possible_truncation, reason = "the caller checks the range, which is far inside i64")]
fn event_time_micros(timestamp_seconds: f64) -> i64 {
    (timestamp_seconds * 1e6).round() as i64
}

/// Writes whole seconds as an integer, as most feeds do.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn seconds<S: Serializer>(timestamp: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if timestamp.fract() == 0.0 && timestamp.abs() <= TIMESTAMP_SECONDS_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "the number is whole and in range")]
        return serializer.serialize_i64(*timestamp as i64);
    }
    serializer.serialize_f64(*timestamp)
}

/// Reads a number as the nearest float64. The result of `serde_json` itself may differ in the last bit, and bronze would then differ from
/// the message.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let text = <&RawValue>::deserialize(deserializer)?.get();
    text.parse().map_err(|_| D::Error::custom(format_args!("invalid type: {text:.40}, expected a number")))
}

#[cfg(test)]
mod tests;
