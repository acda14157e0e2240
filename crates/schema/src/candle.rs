//! The candle as it travels on Kafka: a flat JSON object.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Latest event time that is accepted, in Unix seconds: the end of the year 9999, the last that date formats agree on.
pub const TIMESTAMP_SECONDS_MAX: f64 = 253_402_300_799.0;

/// One message: `{"symbol","timestamp","open","high","low","close","volume"}`. The capitalised names of the Kaggle CSV are accepted too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candle<'a> {
    /// Symbol of the instrument.
    #[serde(borrow, alias = "Symbol")]
    pub symbol: Cow<'a, str>,
    /// Open time of the candle in Unix seconds, integer or float.
    #[serde(alias = "Timestamp")]
    pub timestamp: f64,
    /// First price.
    #[serde(alias = "Open")]
    pub open: f64,
    /// Highest price.
    #[serde(alias = "High")]
    pub high: f64,
    /// Lowest price.
    #[serde(alias = "Low")]
    pub low: f64,
    /// Last price.
    #[serde(alias = "Close")]
    pub close: f64,
    /// Traded volume.
    #[serde(alias = "Volume")]
    pub volume: f64,
}

/// Latest that a candle's open time may lie after the time it was produced, in microseconds: a day, for clocks in the wrong time zone.
/// Measured against the message's own Kafka timestamp, so that reading it again gives the same answer.
pub const FUTURE_MICROS_MAX: i64 = 86_400_000_000;

/// Largest magnitude of a price or volume that is accepted: above 10^15 a float64 no longer holds a tenth.
pub const MAGNITUDE_MAX: f64 = 1e15;

/// Why a candle cannot be used. [`Rejection::reason`] is its stable name in headers and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The symbol is empty or longer than [`SYMBOL_BYTES_MAX`].
    Symbol,
    /// The time is not finite, negative, after [`TIMESTAMP_SECONDS_MAX`], or more than [`FUTURE_MICROS_MAX`] after it was produced.
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

/// Longest symbol that is accepted, in bytes: several times any exchange's, short enough to be a key.
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

impl Candle<'_> {
    /// Returns the event time in microseconds, for a message that was produced at `kafka_time_micros`.
    ///
    /// # Errors
    ///
    /// [`Rejection`], the first rule that the candle breaks; the message belongs in the dead-letter topic.
    pub fn validate(&self, kafka_time_micros: i64) -> Result<i64, Rejection> {
        if self.symbol.is_empty() || self.symbol.len() > SYMBOL_BYTES_MAX {
            return Err(Rejection::Symbol);
        }
        if !(0.0..=TIMESTAMP_SECONDS_MAX).contains(&self.timestamp) {
            return Err(Rejection::TimeOutOfRange);
        }
        let event_time = event_time_micros(self.timestamp);
        if event_time > kafka_time_micros.saturating_add(FUTURE_MICROS_MAX) {
            return Err(Rejection::TimeOutOfRange);
        }
        let numbers = [self.open, self.high, self.low, self.close, self.volume];
        if !numbers.iter().all(|number| number.is_finite()) {
            return Err(Rejection::NotFinite);
        }
        if numbers.iter().any(|number| number.abs() > MAGNITUDE_MAX) {
            return Err(Rejection::NumberOutOfRange);
        }
        if self.high < self.low {
            return Err(Rejection::HighBelowLow);
        }
        if self.volume < 0.0 {
            return Err(Rejection::NegativeVolume);
        }
        Ok(event_time)
    }
}

/// Converts Unix seconds to microseconds, rounding to the nearest.
#[expect(clippy::cast_possible_truncation, reason = "the caller has checked the range, far inside i64")]
fn event_time_micros(timestamp_seconds: f64) -> i64 {
    (timestamp_seconds * 1e6).round() as i64
}
