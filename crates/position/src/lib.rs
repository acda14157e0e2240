//! Progress in a Kafka topic: a [`Position`] holds the next offset to read in each partition.
//!
//! Ingest, bronze, gold, PostgreSQL and the lake all record their progress as a position. Each stage can therefore be killed at any moment,
//! and continues exactly where its own durable state ends.
//!
//! This crate holds values and their JSON form only. It does not read Kafka, and it does not store or check positions: each stage does that
//! for its own state.
//!
//! ```
//! use position::{OffsetRange, Position};
//!
//! let mut position = Position::default();
//! position.advance(OffsetRange { partition: 0, first: 0, next: 128 });
//! assert_eq!(position.next(0), Some(128));
//! assert_eq!(position.to_string(), "0:128");
//! ```

mod topic;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

pub use crate::topic::{Origin, Topic};

/// A run of offsets of one partition, from `first` up to, but not including, `next`.
///
/// A range may cover more offsets than the rows that travel with it. Dead letters, transaction markers and compacted records leave holes in
/// the rows, never in the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    /// The Kafka partition.
    pub partition: i32,
    /// The first offset of the run.
    pub first: i64,
    /// The offset after the last one of the run.
    pub next: i64,
}

impl OffsetRange {
    /// Returns true if the range holds no offset.
    pub fn is_empty(&self) -> bool {
        self.next <= self.first
    }

    /// Returns the number of offsets in the range.
    pub fn offset_count(&self) -> u64 {
        u64::try_from(self.next - self.first).unwrap_or(0)
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}..{}", self.partition, self.first, self.next)
    }
}

/// The next offset to read, for each partition of a topic. A partition that is absent has not been read at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(#[serde(deserialize_with = "from_text_keys")] BTreeMap<i32, i64>);

impl Position {
    /// Returns the next offset to read of `partition`, or `None` if nothing of it has been read.
    pub fn next(&self, partition: i32) -> Option<i64> {
        self.0.get(&partition).copied()
    }

    /// Sets the next offset to read of `partition`.
    pub fn set(&mut self, partition: i32, next: i64) {
        self.0.insert(partition, next);
    }

    /// Moves past `range`. The caller has checked that the range continues this position.
    pub fn advance(&mut self, range: OffsetRange) {
        self.set(range.partition, range.next);
    }

    /// Iterates over (partition, next offset), ascending by partition.
    pub fn iter(&self) -> impl Iterator<Item = (i32, i64)> + '_ {
        self.0.iter().map(|(partition, next)| (*partition, *next))
    }

    /// Returns true if no partition has been read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if this position has reached `other` in every partition of `other`. Offset 0 is reached before any read.
    pub fn has_reached(&self, other: &Position) -> bool {
        other.iter().all(|(partition, next)| self.next(partition).unwrap_or(0) >= next)
    }

    /// Returns true if this position has every partition of `other`, and has reached `other` in each.
    pub fn covers(&self, other: &Position) -> bool {
        other.iter().all(|(partition, next)| self.next(partition).is_some_and(|ours| ours >= next))
    }

    /// Returns the lesser next offset of each partition that both positions contain.
    pub fn lesser(&self, other: &Position) -> Position {
        let both = |(partition, next)| Some((partition, other.next(partition)?.min(next)));
        self.iter().filter_map(both).collect()
    }

    /// Returns the greater next offset of each partition. A partition that only one position contains keeps its next offset.
    pub fn greater(&self, other: &Position) -> Position {
        let mut greater = self.clone();
        for (partition, next) in other.iter() {
            let ours = greater.next(partition).unwrap_or(next);
            greater.set(partition, ours.max(next));
        }
        greater
    }
}

impl FromIterator<(i32, i64)> for Position {
    fn from_iter<I: IntoIterator<Item = (i32, i64)>>(pairs: I) -> Self {
        Position(pairs.into_iter().collect())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (partition, next)) in self.iter().enumerate() {
            write!(f, "{}{partition}:{next}", if index > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

/// Reads the partitions as text, their form as keys in JSON. Inside a tagged enum, serde does not parse text keys as numbers.
fn from_text_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<i32, i64>, D::Error> {
    let pairs = BTreeMap::<String, i64>::deserialize(deserializer)?;
    let parse =
        |(partition, next): (String, i64)| Ok((partition.parse().map_err(serde::de::Error::custom)?, next));
    pairs.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::Position;

    fn position(pairs: &[(i32, i64)]) -> Position {
        pairs.iter().copied().collect()
    }

    #[test]
    fn the_lesser_of_two_lacks_what_either_lacks() {
        let (ours, theirs) = (position(&[(0, 5), (1, 9)]), position(&[(0, 7), (2, 1)]));
        assert_eq!(ours.lesser(&theirs), position(&[(0, 5)]));
    }

    #[test]
    fn the_greater_of_two_has_what_either_has() {
        let (ours, theirs) = (position(&[(0, 5), (1, 9)]), position(&[(0, 7), (2, 1)]));
        assert_eq!(ours.greater(&theirs), position(&[(0, 7), (1, 9), (2, 1)]));
    }

    #[test]
    fn a_position_covers_what_it_has_reached_in_every_partition() {
        assert!(position(&[(0, 5), (1, 9)]).covers(&position(&[(0, 5)])));
        assert!(!position(&[(0, 5)]).covers(&position(&[(0, 5), (1, 0)])));
        assert!(position(&[]).covers(&position(&[])));
        assert!(position(&[(0, 5)]).has_reached(&position(&[(0, 5), (1, 0)])));
        assert!(!position(&[(0, 5)]).has_reached(&position(&[(0, 5), (1, 1)])));
    }

    #[test]
    fn a_position_is_a_json_object_of_partition_to_next_offset() {
        let json = serde_json::to_string(&position(&[(0, 5), (11, 9)])).unwrap();
        assert_eq!(json, r#"{"0":5,"11":9}"#);
        assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position(&[(0, 5), (11, 9)]));
    }
}
