//! The candles that windows need, in memory. They determine the gold rows that a run of bronze changes, and the history to read back
//! to compute these rows.
//!
//! Memory holds the newest candles of each symbol. They are complete after `known_after`:
//!
//! ```text
//!   event time ───────── known_after ───────────────────── newest ──▶
//!     only in bronze     │  every candle of bronze below the cursor
//!                                 │ from here on, windows are in memory: compute at once
//!     a late candle here, or here │ read its surroundings back from bronze below the cursor
//! ```
//!
//! A symbol's candles may come from several partitions. Memory then holds one candle of each event time for each partition, and the
//! windows are made of [`candle::winners`]. So gold depends on the rows of bronze below the cursor, and not on the order of its
//! partitions.
//!
//! This module does no I/O: [`Window::unread`] and [`Window::apply`] return the histories to read, and the caller reads them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use arrow::array::RecordBatch;
use position::{OffsetRange, Position};
use proto::ticket::{History, Margin};
use schema::MINUTE_MICROS;

use crate::aside;
use crate::candle::{self, Candle};
use crate::rows::Rows;
use crate::run::Run;
use crate::state::{NewestBySymbol, SymbolPartitions};
use kernel::{Frame, WIDEST};

/// Widest window in microseconds: a candle changes later rows within this distance, and a row needs candles within it.
const REACH_MICROS: i64 = WIDEST as i64 * MINUTE_MICROS;
/// Widest window in rows, without the candle itself.
const REACH_ROWS: usize = WIDEST as usize - 1;
/// Time range of candles that memory keeps for a symbol in the time frame, back from its newest one. It is twice the reach, so that candles
/// up to 30 minutes late need no read.
const KEEP_MICROS: i64 = 2 * REACH_MICROS;
/// Minimum number of candles that memory keeps for a symbol. In the rows frame it is three times the reach. In the time frame it prevents
/// one candle far in the future from evicting all others.
const KEEP_ROWS: usize = 3 * (REACH_ROWS + 1);
/// Number of candles that are evicted at once. Eviction moves the remaining candles, so it waits for this many evictable candles. They take
/// memory until then.
const EVICT_ROWS: usize = 32;
/// Distance between late candles of a symbol below which they are read back together: reading 240 more candles costs about as much as
/// another request.
const TOGETHER_MICROS: i64 = 240 * MINUTE_MICROS;
/// Longest span of late candles that is read back at once: 43,200 one-minute candles, 3 MB.
const SPAN_MICROS_MAX: i64 = 30 * schema::DAY_MICROS;

/// The candles of a run by symbol, each list sorted by event time. Of duplicates, only the last is there.
#[derive(Debug)]
pub(crate) struct Arrivals {
    range: OffsetRange,
    by_symbol: BTreeMap<String, Vec<Candle>>,
}

/// Changed candles of one symbol, and the source of the windows around them.
#[derive(Debug)]
pub(crate) struct Change {
    symbol: String,
    /// Event times, ascending.
    changed: Vec<i64>,
    late: Option<Late>,
}

/// A change that is outside the candles in memory.
#[derive(Debug)]
struct Late {
    /// History to read back from bronze.
    history: History,
    /// Arrivals that are not in the history yet.
    arrivals: Vec<Candle>,
}

/// Window state of all symbols.
#[derive(Debug)]
pub(crate) struct Window {
    frame: Frame,
    /// Cursor: the position that has been applied.
    reached: Position,
    /// Symbols that bronze has below the cursor and that are not in memory yet.
    newest: NewestBySymbol,
    partitions: SymbolPartitions,
    /// Symbols with a new partition, until the caller takes them.
    split: Vec<String>,
    symbols: HashMap<String, Memory>,
}

#[derive(Debug)]
struct Memory {
    /// Every candle in bronze after this event time is in `candles`.
    known_after: i64,
    /// Candles, sorted, one for each event time and partition.
    candles: Vec<Candle>,
}

impl Arrivals {
    pub(crate) fn of(run: &Run) -> Self {
        let mut by_symbol: BTreeMap<String, Vec<Candle>> = BTreeMap::new();
        for batch in &run.batches {
            let mut rows = aside::decode(batch).peekable();
            // A loop over rows, but with one look-up for each stretch of a symbol.
            while let Some((symbol, first)) = rows.next() {
                if !by_symbol.contains_key(symbol) {
                    by_symbol.insert(symbol.to_owned(), Vec::new());
                }
                let candles = by_symbol.get_mut(symbol).expect("just inserted");
                candles.push(first);
                while let Some((_, candle)) = rows.next_if(|(next, _)| *next == symbol) {
                    candles.push(candle);
                }
            }
        }
        by_symbol.values_mut().for_each(candle::sort);
        Arrivals { range: run.range, by_symbol }
    }
}

impl Change {
    /// Returns the history that [`Window::compute`] needs from bronze, if any.
    pub(crate) fn history(&self) -> Option<&History> {
        self.late.as_ref().map(|late| &late.history)
    }
}

impl Window {
    /// Creates a window that starts at the cursor `reached`. Below `reached`, bronze contains the symbols of `newest`, and no symbol has a
    /// later event time there. A symbol is only in the partitions that `partitions` lists for it. A symbol without an entry may be in any
    /// partition.
    pub(crate) fn new(
        frame: Frame,
        reached: Position,
        newest: NewestBySymbol,
        partitions: SymbolPartitions,
    ) -> Self {
        Window { frame, reached, newest, partitions, split: Vec::new(), symbols: HashMap::new() }
    }

    /// Returns the histories that [`Self::remember`] needs before `arrivals` can be applied: the end of each symbol that is in bronze but
    /// not in memory.
    pub(crate) fn unread(&self, arrivals: &Arrivals) -> Vec<History> {
        let margin = match self.frame {
            Frame::Time => Margin::Micros(KEEP_MICROS),
            Frame::Rows => rows_margin(KEEP_ROWS),
        };
        let symbols = arrivals.by_symbol.keys().filter(|symbol| !self.symbols.contains_key(*symbol));
        let histories = symbols.filter_map(|symbol| {
            let newest = self.newest.get(symbol)?;
            Some(self.history(symbol, newest, i64::MAX, margin))
        });
        histories.collect()
    }

    /// Loads the end of a symbol's candles into memory.
    pub(crate) fn remember(&mut self, history: History, batches: &[RecordBatch]) {
        let mut candles = decode_history(batches);
        let known_after = match history.margin {
            Margin::Micros(margin) => history.first_micros - margin,
            Margin::Rows(_) => {
                // Earlier candles may be missing for some partitions.
                let winners = candle::winners(&candles);
                let first_whole = winners.len().checked_sub(KEEP_ROWS);
                first_whole.map_or(i64::MIN, |first| winners[first].event_time - 1)
            }
        };
        candles.retain(|candle| candle.event_time > known_after);
        self.symbols.insert(history.symbol, Memory { known_after, candles });
    }

    /// Adds arrivals to memory and returns the changes to compute, ordered by symbol and time.
    pub(crate) fn apply(&mut self, arrivals: Arrivals) -> Vec<Change> {
        let mut changes = Vec::new();
        for (symbol, candles) in arrivals.by_symbol {
            let memory = self.symbols.entry(symbol.clone()).or_insert_with(Memory::empty);
            memory.insert(&candles);
            let inside_from = memory.inside_from(self.frame);
            let mut changed: Vec<i64> = candles.iter().map(|candle| candle.event_time).collect();
            let inside = changed.split_off(changed.partition_point(|event_time| *event_time < inside_from));
            for late in changed.chunk_by(|one, next| next - one < TOGETHER_MICROS) {
                let span_of = |event_time: &i64| (event_time - late[0]) / SPAN_MICROS_MAX;
                for span in late.chunk_by(|one, next| span_of(one) == span_of(next)) {
                    changes.push(self.late_change(&symbol, span, &candles));
                }
            }
            if self.partitions.insert(&symbol, arrivals.range.partition) {
                self.split.push(symbol.clone());
            }
            changes.push(Change { symbol, changed: inside, late: None });
        }
        changes
    }

    /// Removes the applied part of `arrivals`, so that they, or a part of them, can be applied again.
    pub(crate) fn forget(&mut self, arrivals: &Arrivals) {
        for symbol in arrivals.by_symbol.keys() {
            let memory = self.symbols.remove(symbol);
            if let Some(newest) = memory.and_then(|memory| memory.candles.last().copied()) {
                self.newest.set(symbol, newest.event_time);
            }
        }
    }

    /// Returns the cursor.
    pub(crate) fn reached(&self) -> &Position {
        &self.reached
    }

    /// Moves the cursor past a run that was applied and computed.
    pub(crate) fn advance(&mut self, range: OffsetRange) {
        self.reached.advance(range);
    }

    /// Returns the symbols for which a new partition was found since the last call.
    pub(crate) fn take_split(&mut self) -> Vec<String> {
        std::mem::take(&mut self.split)
    }

    /// Computes the gold rows of a change and appends them to `rows`. Changes must come in the order of [`Self::apply`].
    pub(crate) fn compute(&mut self, change: &Change, history: &[RecordBatch], rows: &mut Rows) {
        let frame = self.frame;
        if let Some(late) = &change.late {
            let mut candles = decode_history(history);
            candle::merge(&mut candles, &late.arrivals);
            append_affected(change, &candle::winners(&candles), frame, rows);
        } else if let Some(memory) = self.symbols.get_mut(&change.symbol) {
            append_affected(change, &candle::winners(&memory.candles), frame, rows);
            memory.evict(frame);
        }
    }

    fn late_change(&self, symbol: &str, changed: &[i64], arrivals: &[Candle]) -> Change {
        let (first, last) = (changed[0], changed[changed.len() - 1]);
        let index = |event_time: i64| arrivals.partition_point(|candle| candle.event_time < event_time);
        let (margin, near) = match self.frame {
            Frame::Time => {
                (Margin::Micros(REACH_MICROS), index(first - REACH_MICROS)..index(last + REACH_MICROS))
            }
            Frame::Rows => {
                let end = (index(last) + 1 + REACH_ROWS).min(arrivals.len());
                (rows_margin(REACH_ROWS), index(first).saturating_sub(REACH_ROWS)..end)
            }
        };
        let late =
            Late { history: self.history(symbol, first, last, margin), arrivals: arrivals[near].to_vec() };
        Change { symbol: symbol.to_owned(), changed: changed.to_vec(), late: Some(late) }
    }

    /// Returns a request for the candles of a symbol as of the cursor, in its known partitions.
    fn history(&self, symbol: &str, first_micros: i64, last_micros: i64, margin: Margin) -> History {
        let below = match self.partitions.get(symbol) {
            None => self.reached.clone(),
            Some(partitions) => {
                partitions.iter().filter_map(|index| Some((*index, self.reached.next(*index)?))).collect()
            }
        };
        History { symbol: symbol.to_owned(), below, first_micros, last_micros, margin, table: None }
    }
}

impl Memory {
    fn empty() -> Self {
        Memory { known_after: i64::MIN, candles: Vec::new() }
    }

    fn insert(&mut self, arrivals: &[Candle]) {
        let unknown = arrivals.partition_point(|candle| candle.event_time <= self.known_after);
        candle::merge(&mut self.candles, &arrivals[unknown..]);
    }

    /// Returns the event time from which on all candles of all windows are in memory.
    fn inside_from(&self, frame: Frame) -> i64 {
        if self.known_after == i64::MIN {
            return i64::MIN;
        }
        match frame {
            Frame::Time => self.known_after.saturating_add(REACH_MICROS),
            Frame::Rows => {
                let winners = candle::winners(&self.candles);
                winners.get(REACH_ROWS).map_or(i64::MAX, |candle| candle.event_time)
            }
        }
    }

    fn evict(&mut self, frame: Frame) {
        let mut stale = self.candles.len().saturating_sub(KEEP_ROWS);
        if frame == Frame::Time {
            let newest = self.candles.last().map_or(i64::MIN, |candle| candle.event_time);
            stale =
                stale.min(self.candles.partition_point(|candle| newest - candle.event_time >= KEEP_MICROS));
        }
        // The candles of one event time stay together.
        while stale > 0 && self.candles[stale - 1].event_time == self.candles[stale].event_time {
            stale -= 1;
        }
        if stale >= EVICT_ROWS {
            self.known_after = self.candles[stale - 1].event_time;
            self.candles.drain(..stale);
            self.candles.shrink_to(2 * KEEP_ROWS);
        }
    }
}

/// Appends the rows that `change` affects, except those already appended for an earlier change of the same symbol: they are identical.
fn append_affected(change: &Change, candles: &[Candle], frame: Frame, rows: &mut Rows) {
    for range in affected(candles, &change.changed, frame) {
        let done = rows.last_event_time(&change.symbol);
        let rest = candles[range.clone()]
            .partition_point(|candle| done.is_some_and(|done| candle.event_time <= done));
        rows.append(&change.symbol, candles, range.start + rest..range.end, frame);
    }
}

/// Returns the rows whose windows contain one of the `changed` event times, as disjoint ascending ranges.
fn affected(candles: &[Candle], changed: &[i64], frame: Frame) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let (mut start, mut end) = (0, 0);
    for event_time in changed {
        start += candles[start..].iter().take_while(|candle| candle.event_time < *event_time).count();
        end = match frame {
            Frame::Rows => (start + REACH_ROWS + 1).min(candles.len()),
            Frame::Time => {
                let from = start.max(end);
                from + candles[from..]
                    .iter()
                    .take_while(|candle| candle.event_time - event_time < REACH_MICROS)
                    .count()
            }
        };
        match ranges.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

fn rows_margin(rows: usize) -> Margin {
    Margin::Rows(u32::try_from(rows).expect("a margin is a small constant"))
}

fn decode_history(batches: &[RecordBatch]) -> Vec<Candle> {
    batches.iter().flat_map(|batch| aside::decode(batch).map(|(_, candle)| candle)).collect()
}

#[cfg(test)]
mod tests;
