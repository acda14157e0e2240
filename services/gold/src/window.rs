//! The candles that windows need, in memory: which gold rows a run of bronze changes, and what must be read back to compute them.
//!
//! Of each symbol the newest candles are held, and `known_after` says how far back they are complete:
//!
//! ```text
//!   event time ───────── known_after ───────────────────── newest ──▶
//!     only in bronze     │  every candle of bronze, as of our cursor
//!                                 │ from here on windows are inside: compute at once
//!     a late candle here, or here │ reads its surroundings back from bronze, as of our cursor
//! ```
//!
//! A symbol's candles may come from several partitions. Of each event time memory then holds one candle a partition, and the windows are
//! made of [`candle::winners`]: gold depends on which rows bronze holds below the cursor, not on how its partitions took turns.
//!
//! No I/O here: [`Window::unread`] and [`Window::apply`] name what to read, the caller reads it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use arrow::array::RecordBatch;
use position::{OffsetRange, Position};
use proto::ticket::{History, Margin};
use schema::MINUTE_MICROS;

use crate::candle::{self, Candle};
use crate::kernel::{Frame, WIDEST};
use crate::rows::Rows;
use crate::run::Run;
use crate::sink::{Newest, Partitions};

/// The widest window in microseconds: how far a candle changes later rows, and a row looks back.
const REACH_MICROS: i64 = WIDEST as i64 * MINUTE_MICROS;
/// The same in rows, without the candle itself.
const REACH_ROWS: usize = WIDEST as usize - 1;
/// How far behind a symbol's newest candle memory goes in the time frame: twice the reach, so that candles up to 30 minutes late
/// need no read.
const KEEP_MICROS: i64 = 2 * REACH_MICROS;
/// How many candles of a symbol memory keeps at least: in the rows frame three times the reach, in the time frame a guard against
/// one candle far in the future that would push all others out.
const KEEP_ROWS: usize = 3 * (REACH_ROWS + 1);
/// How many candles are evicted at once: moves the rest once in so many candles, at the price of holding them meanwhile.
const EVICT_ROWS: usize = 32;
/// Late candles of a symbol closer than this are read back together: 240 candles more cost about what another request does.
const TOGETHER_MICROS: i64 = 240 * MINUTE_MICROS;
/// Longest span of late candles that is read back at once: 43,200 one-minute candles, 3 MB.
const SPAN_MICROS_MAX: i64 = 30 * schema::DAY_MICROS;

/// The candles of a run by symbol, each sorted by event time, of the same time the last.
#[derive(Debug)]
pub(crate) struct Arrivals {
    range: OffsetRange,
    by_symbol: BTreeMap<String, Vec<Candle>>,
}

/// Changed candles of one symbol and where the windows around them are.
#[derive(Debug)]
pub(crate) struct Change {
    symbol: String,
    /// Event times, ascending.
    changed: Vec<i64>,
    late: Option<Late>,
}

/// A change outside of memory.
#[derive(Debug)]
struct Late {
    /// What must be read back from bronze.
    history: History,
    /// The arrivals that the history does not hold yet.
    arrivals: Vec<Candle>,
}

/// The window state of all symbols.
#[derive(Debug)]
pub(crate) struct Window {
    frame: Frame,
    /// The cursor: what was applied.
    reached: Position,
    /// Symbols that bronze holds below the cursor but memory does not yet.
    newest: Newest,
    partitions: Partitions,
    /// Symbols of which a further partition was found, until they are taken.
    split: Vec<String>,
    symbols: HashMap<String, Memory>,
}

#[derive(Debug)]
struct Memory {
    /// Every candle in bronze after this event time is in `candles`.
    known_after: i64,
    /// Sorted, one of each event time and partition.
    candles: Vec<Candle>,
}

impl Arrivals {
    pub(crate) fn of(run: &Run) -> Self {
        let mut by_symbol: BTreeMap<String, Vec<Candle>> = BTreeMap::new();
        for batch in &run.batches {
            let mut rows = candle::decode(batch).peekable();
            // A loop over rows, but one look-up for each stretch of a symbol.
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
    /// Returns what [`Window::compute`] needs of bronze, if anything.
    pub(crate) fn history(&self) -> Option<&History> {
        self.late.as_ref().map(|late| &late.history)
    }
}

impl Window {
    /// Starts at the cursor `reached`, below which bronze holds the symbols of `newest`, none of them with a later event time than it says,
    /// and each of them only in the partitions that `partitions` names, if it names any.
    pub(crate) fn new(frame: Frame, reached: Position, newest: Newest, partitions: Partitions) -> Self {
        Window { frame, reached, newest, partitions, split: Vec::new(), symbols: HashMap::new() }
    }

    /// Returns what must be read and given to [`Self::remember`] before `arrivals` can be applied: the end of each symbol that bronze
    /// holds but memory does not.
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

    /// Takes the end of a symbol's candles into memory.
    pub(crate) fn remember(&mut self, history: History, batches: &[RecordBatch]) {
        let mut candles = decode_history(batches);
        let known_after = match history.margin {
            Margin::Micros(margin) => history.first_micros - margin,
            Margin::Rows(_) => {
                // What is before may be there of some partitions only.
                let winners = candle::winners(&candles);
                let first_whole = winners.len().checked_sub(KEEP_ROWS);
                first_whole.map_or(i64::MIN, |first| winners[first].event_time - 1)
            }
        };
        candles.retain(|candle| candle.event_time > known_after);
        self.symbols.insert(history.symbol, Memory { known_after, candles });
    }

    /// Takes arrivals into memory and returns the changes to compute, in the order of symbol and time.
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

    /// Drops what was applied of `arrivals`, so that they, or a part of them, can be applied again.
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

    /// Returns the symbols of which a further partition was found since the last call.
    pub(crate) fn take_split(&mut self) -> Vec<String> {
        std::mem::take(&mut self.split)
    }

    /// Computes the gold rows of a change and appends them to `rows`, for the changes of [`Self::apply`] in their order.
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

    /// Names the candles of a symbol as of the cursor, in the partitions that it is known to be in.
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

/// Appends the rows that `change` affects, except those that an earlier change of the same symbol has appended: they are the same.
fn append_affected(change: &Change, candles: &[Candle], frame: Frame, rows: &mut Rows) {
    for range in affected(candles, &change.changed, frame) {
        let done = rows.last_event_time(&change.symbol);
        let rest = candles[range.clone()]
            .partition_point(|candle| done.is_some_and(|done| candle.event_time <= done));
        rows.append(&change.symbol, candles, range.start + rest..range.end, frame);
    }
}

/// Returns the rows whose windows hold one of the `changed` event times: disjoint ranges, ascending.
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
    batches.iter().flat_map(|batch| candle::decode(batch).map(|(_, candle)| candle)).collect()
}

#[cfg(test)]
mod tests;
