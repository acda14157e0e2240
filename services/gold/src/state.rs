//! State between the stages: a computed batch, and a sink's position, newest rows and partitions. It has no I/O.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use position::Position;
use schema::RangedBatch;
use schema::gold::column::{EVENT_TIME, SYMBOL};

use crate::aside::Aside;

/// The gold rows of one run of offsets, on their way to the sinks. Clones share the columns.
#[derive(Clone, Debug)]
pub struct GoldBatch {
    /// All rows that the run of offsets changes, with the schema [`schema::gold::schema`]. They are ordered by symbol and event time, one
    /// for each key.
    pub batch: RangedBatch,
    /// Bronze rows of the run that gold cannot store, ascending by offset.
    pub asides: Arc<[Aside]>,
    /// Time at which each candle of the run was produced, in microseconds UTC.
    pub arrived: Arc<[i64]>,
}

/// Position of a sink and its newest rows.
#[derive(Clone, Debug, Default)]
pub struct SinkState {
    /// Offsets that its rows were computed from.
    pub position: Position,
    /// The event time of each symbol's newest row, or a later time. No row is later than this time.
    pub newest: NewestBySymbol,
}

/// The newest event time of each symbol in a table. The table has no later rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewestBySymbol(HashMap<String, i64>);

/// Partitions of each symbol's candles. There is one, unless producers use different partitioners or partitions were added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SymbolPartitions(HashMap<String, BTreeSet<i32>>);

/// Gold rows, split by whether a table may already contain them.
#[derive(Debug, Default)]
pub(crate) struct Split {
    /// Rows later than all rows of their symbol in the table. None of their keys is in the table, and none occurs twice.
    pub(crate) inserts: Vec<RecordBatch>,
    /// The other rows. Within each batch no key occurs twice. A later batch replaces earlier ones, and also `inserts`.
    pub(crate) updates: Vec<RecordBatch>,
}

impl GoldBatch {
    /// Returns true if a sink at `position` already holds the whole run.
    pub fn is_held(&self, position: &Position) -> bool {
        let range = self.batch.range;
        position.next(range.partition).is_some_and(|next| next >= range.next)
    }
}

impl NewestBySymbol {
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

    /// Returns the lesser event time of each symbol that both sides contain. A symbol that is missing on one side was not in that table at
    /// its position.
    pub fn lesser(&self, other: &NewestBySymbol) -> NewestBySymbol {
        let both =
            |(symbol, newest): (&String, &i64)| Some((symbol.clone(), other.get(symbol)?.min(*newest)));
        NewestBySymbol(self.0.iter().filter_map(both).collect())
    }

    /// Splits batches in the order in which they were computed, and advances to the newest rows.
    pub(crate) fn split<'a>(&mut self, batches: impl IntoIterator<Item = &'a RecordBatch>) -> Split {
        let mut split = Split::default();
        for batch in batches {
            let fresh = self.fresh(batch);
            match fresh.true_count() {
                _ if batch.num_rows() == 0 => (),
                0 => split.updates.push(batch.clone()),
                count if count == batch.num_rows() => split.inserts.push(batch.clone()),
                _ => {
                    let rows =
                        |mask| filter_record_batch(batch, mask).expect("the mask is as long as the batch");
                    let held = arrow::compute::not(&fresh).expect("a mask has its negation");
                    split.inserts.push(rows(&fresh));
                    split.updates.push(rows(&held));
                }
            }
        }
        split
    }

    /// Returns a mask of the fresh rows of a batch.
    fn fresh(&mut self, batch: &RecordBatch) -> BooleanArray {
        let event_times = batch.column(EVENT_TIME).as_primitive::<TimestampMicrosecondType>().values();
        let mut fresh = Vec::with_capacity(batch.num_rows());
        for (symbol, rows) in stretches(batch) {
            let newest = self.get(symbol);
            let event_times = &event_times[rows];
            fresh.extend(event_times.iter().map(|time| newest.is_none_or(|newest| *time > newest)));
            // Rows ascend by event time, so the last row of a stretch is its newest.
            if let (Some(true), Some(last)) = (fresh.last(), event_times.last()) {
                self.0.insert(symbol.to_owned(), *last);
            }
        }
        BooleanArray::from(fresh)
    }
}

impl SymbolPartitions {
    /// Returns the known partitions of `symbol`, if any.
    pub(crate) fn get(&self, symbol: &str) -> Option<&BTreeSet<i32>> {
        self.0.get(symbol)
    }

    /// Adds a partition of `symbol`. Returns true if the symbol already had partitions, but not `partition`.
    pub(crate) fn insert(&mut self, symbol: &str, partition: i32) -> bool {
        if let Some(known) = self.0.get_mut(symbol) {
            return known.insert(partition);
        }
        self.0.insert(symbol.to_owned(), BTreeSet::from([partition]));
        false
    }

    /// Returns pairs of a symbol and one of its partitions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i32)> {
        self.0
            .iter()
            .flat_map(|(symbol, partitions)| partitions.iter().map(|index| (symbol.as_str(), *index)))
    }

    /// Returns the symbols of `batches` whose partition is missing here.
    pub(crate) fn missing(&self, batches: &[&GoldBatch]) -> SymbolPartitions {
        let mut missing = SymbolPartitions::default();
        for RangedBatch { range, rows } in batches.iter().map(|computed| &computed.batch) {
            for (symbol, _) in stretches(rows) {
                if !self.get(symbol).is_some_and(|known| known.contains(&range.partition)) {
                    missing.insert(symbol, range.partition);
                }
            }
        }
        missing
    }

    /// Adds the symbols of `other`.
    pub(crate) fn extend(&mut self, other: &SymbolPartitions) {
        for (symbol, partition) in other.iter() {
            self.insert(symbol, partition);
        }
    }
}

impl FromIterator<(String, i32)> for SymbolPartitions {
    fn from_iter<I: IntoIterator<Item = (String, i32)>>(pairs: I) -> Self {
        let mut partitions = SymbolPartitions::default();
        for (symbol, partition) in pairs {
            partitions.insert(&symbol, partition);
        }
        partitions
    }
}

/// Returns each stretch of rows with one symbol in a gold batch. This loop over rows leaves callers one look-up for each stretch.
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

impl FromIterator<(String, i64)> for NewestBySymbol {
    fn from_iter<I: IntoIterator<Item = (String, i64)>>(pairs: I) -> Self {
        NewestBySymbol(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
