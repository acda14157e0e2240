//! The start of a stream.

use std::fmt;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::temporal_conversions::timestamp_us_to_datetime;
use position::Position;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// The text that stands for [`Start::Now`].
const NOW: &str = "now";
/// The key of [`Start::Time`].
const TIME: &str = "time";

/// The start of a stream. The server turns it into a position, and sends that first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// `{"0":128}`: these offsets. A partition that is absent starts at its first offset.
    Position(Position),
    /// `"now"`: the rows that arrive after the call.
    Now,
    /// `{"time":"2026-01-01T00:00:00Z"}`: the first offset of each partition whose message was produced (`kafka_time`) at that time or
    /// later, as in Kafka's own search by time. A partition without such an offset starts as with `now`. Microseconds UTC.
    Time(i64),
}

impl Default for Start {
    fn default() -> Self {
        Start::Position(Position::default())
    }
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Start::Position(position) => position.serialize(serializer),
            Start::Now => serializer.serialize_str(NOW),
            Start::Time(micros) => {
                let time = timestamp_us_to_datetime(*micros)
                    .ok_or_else(|| serde::ser::Error::custom(format!("{micros} is no time")))?;
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(TIME, &time.and_utc().to_rfc3339())?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The errors of serde's `untagged` do not say what is wrong.
        deserializer.deserialize_any(StartVisitor)
    }
}

struct StartVisitor;

impl<'de> Visitor<'de> for StartVisitor {
    type Value = Start;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a position such as {"0":128}, "now" or {"time":"2026-01-01T00:00:00Z"}"#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Start, E> {
        if text == NOW { Ok(Start::Now) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Start, A::Error> {
        let (mut time, mut position) = (None, Position::default());
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if key == TIME {
                let micros = micros_of(&value).ok_or_else(|| {
                    A::Error::custom(format!("{value} is no time such as \"2026-01-01T00:00:00Z\""))
                })?;
                time = Some(micros);
            } else {
                let partition = key.parse().ok().filter(|partition: &i32| *partition >= 0);
                let partition =
                    partition.ok_or_else(|| A::Error::custom(format!("{key:?} is no partition")))?;
                let offset = value.as_i64().filter(|offset| *offset >= 0);
                position
                    .set(partition, offset.ok_or_else(|| A::Error::custom(format!("{value} is no offset")))?);
            }
        }
        match time {
            None => Ok(Start::Position(position)),
            Some(micros) if position.is_empty() => Ok(Start::Time(micros)),
            Some(_) => Err(A::Error::custom("both a time and offsets to start from")),
        }
    }
}

/// Reads a time in the format of RFC 3339.
fn micros_of(value: &Value) -> Option<i64> {
    Some(string_to_timestamp_nanos(value.as_str()?).ok()?.div_euclid(1000))
}
