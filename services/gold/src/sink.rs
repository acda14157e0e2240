//! What the sinks share: what they are given, and where the two that are durable stand.

pub mod lake;
pub(crate) mod live;
pub mod postgres;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use position::{OffsetRange, Position};

use crate::aside::Aside;

/// Index of `symbol` in a gold batch.
const SYMBOL: usize = 0;
/// Index of `event_time` in a gold batch.
const EVENT_TIME: usize = 1;

/// The gold rows of one run of offsets on their way to the sinks; clones share the columns.
#[derive(Clone, Debug)]
pub struct Computed {
    /// The offsets that the rows were computed from.
    pub range: OffsetRange,
    /// All rows that the run changes, of [`schema::gold::schema`], ordered by symbol and event time, one a key.
    pub rows: RecordBatch,
    /// The bronze rows of the run that gold cannot hold, ascending by offset.
    pub asides: Arc<[Aside]>,
    /// When each candle of the run was produced, microseconds UTC.
    pub arrived: Arc<[i64]>,
}

/// Where a sink stands.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What its rows were computed from.
    pub position: Position,
    /// The newest row of each symbol, or a later time: rows later than that are certain not to be there.
    pub newest: Newest,
}

/// The newest event time of each symbol in a table: later rows are certain not to be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Newest(HashMap<String, i64>);

/// The partitions that each symbol's candles have come from: one, unless its producers disagree or partitions were added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Partitions(HashMap<String, BTreeSet<i32>>);

/// Gold rows, split by what a table may already hold.
#[derive(Debug, Default)]
pub(crate) struct Split {
    /// Rows later than all that the table holds of their symbol: no key among them is there, none occurs twice.
    pub(crate) fresh: Vec<RecordBatch>,
    /// The other rows; within each batch no key occurs twice, a later batch wins, also over `fresh`.
    pub(crate) corrections: Vec<RecordBatch>,
}

impl Computed {
    /// Tells whether a sink at `position` holds all of this already.
    pub fn is_held(&self, position: &Position) -> bool {
        position.next(self.range.partition).is_some_and(|next| next >= self.range.next)
    }
}

impl Newest {
    /// Returns the newest event time of `symbol`, in microseconds.
    pub fn get(&self, symbol: &str) -> Option<i64> {
        self.0.get(symbol).copied()
    }

    /// Sets the newest event time of `symbol`, in microseconds.
    pub(crate) fn set(&mut self, symbol: &str, event_time: i64) {
        self.0.insert(symbol.to_owned(), event_time);
    }

    /// Returns the symbols and their newest event times.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(symbol, newest)| (symbol.as_str(), *newest))
    }

    /// Returns the lesser event time of each symbol that both hold. A symbol that one lacks was not there at that one's position.
    pub fn lesser(&self, other: &Newest) -> Newest {
        let both =
            |(symbol, newest): (&String, &i64)| Some((symbol.clone(), other.get(symbol)?.min(*newest)));
        Newest(self.0.iter().filter_map(both).collect())
    }

    /// Splits batches in the order in which they were computed, and moves on to the newest of them.
    pub(crate) fn split<'a>(&mut self, batches: impl IntoIterator<Item = &'a RecordBatch>) -> Split {
        let mut split = Split::default();
        for batch in batches {
            let fresh = self.fresh(batch);
            match fresh.true_count() {
                _ if batch.num_rows() == 0 => (),
                0 => split.corrections.push(batch.clone()),
                count if count == batch.num_rows() => split.fresh.push(batch.clone()),
                _ => {
                    let rows =
                        |mask| filter_record_batch(batch, mask).expect("the mask is as long as the batch");
                    let held = arrow::compute::not(&fresh).expect("a mask has its negation");
                    split.fresh.push(rows(&fresh));
                    split.corrections.push(rows(&held));
                }
            }
        }
        split
    }

    /// Marks the fresh rows of a batch.
    fn fresh(&mut self, batch: &RecordBatch) -> BooleanArray {
        let event_times = batch.column(EVENT_TIME).as_primitive::<TimestampMicrosecondType>().values();
        let mut fresh = Vec::with_capacity(batch.num_rows());
        for (symbol, rows) in stretches(batch) {
            let newest = self.get(symbol);
            let event_times = &event_times[rows];
            fresh.extend(event_times.iter().map(|time| newest.is_none_or(|newest| *time > newest)));
            // Rows ascend by event time, so the last of the stretch is its newest.
            if let (Some(true), Some(last)) = (fresh.last(), event_times.last()) {
                self.0.insert(symbol.to_owned(), *last);
            }
        }
        BooleanArray::from(fresh)
    }
}

impl Partitions {
    /// Returns the partitions of `symbol`, if any is known.
    pub(crate) fn get(&self, symbol: &str) -> Option<&BTreeSet<i32>> {
        self.0.get(symbol)
    }

    /// Adds a partition of `symbol`; returns true if the symbol had others before, but not this one.
    pub(crate) fn insert(&mut self, symbol: &str, partition: i32) -> bool {
        if let Some(known) = self.0.get_mut(symbol) {
            return known.insert(partition);
        }
        self.0.insert(symbol.to_owned(), BTreeSet::from([partition]));
        false
    }

    /// Returns the symbols, each with each of its partitions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i32)> {
        self.0
            .iter()
            .flat_map(|(symbol, partitions)| partitions.iter().map(|index| (symbol.as_str(), *index)))
    }

    /// Returns the symbols of `computed` whose partition is not known here.
    pub(crate) fn missing(&self, computed: &[&Computed]) -> Partitions {
        let mut missing = Partitions::default();
        for Computed { range, rows, .. } in computed {
            for (symbol, _) in stretches(rows) {
                if !self.get(symbol).is_some_and(|known| known.contains(&range.partition)) {
                    missing.insert(symbol, range.partition);
                }
            }
        }
        missing
    }

    /// Takes in the symbols of another.
    pub(crate) fn extend(&mut self, other: &Partitions) {
        for (symbol, partition) in other.iter() {
            self.insert(symbol, partition);
        }
    }
}

impl FromIterator<(String, i32)> for Partitions {
    fn from_iter<I: IntoIterator<Item = (String, i32)>>(pairs: I) -> Self {
        let mut partitions = Partitions::default();
        for (symbol, partition) in pairs {
            partitions.insert(&symbol, partition);
        }
        partitions
    }
}

/// Returns each stretch of one symbol of a gold batch and its rows: a loop over rows, so that callers need one look-up a stretch.
fn stretches(batch: &RecordBatch) -> impl Iterator<Item = (&str, Range<usize>)> {
    let symbols = batch.column(SYMBOL).as_string::<i32>();
    let mut next = 0;
    std::iter::from_fn(move || {
        let first = next;
        let symbol = (first < symbols.len()).then(|| symbols.value(first))?;
        while next < symbols.len() && symbols.value(next) == symbol {
            next += 1;
        }
        Some((symbol, first..next))
    })
}

impl FromIterator<(String, i64)> for Newest {
    fn from_iter<I: IntoIterator<Item = (String, i64)>>(pairs: I) -> Self {
        Newest(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
