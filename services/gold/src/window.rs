//! The candles that windows need, in memory: which gold rows a run of bronze changes, and what must be read back to compute them.
//!
//! Of each symbol the newest candles are held, and `known_after` says how far back they are complete:
//!
//! ```text
//!   event time ───────── known_after ───────────────────── newest ──▶
//!     only in bronze     │  every candle of bronze, as of our cursor
//!                                 │ from here on windows are inside: compute at once
//!     a late candle here, or here │ reads its surroundings back from bronze, as of the run's first offset
//! ```
//!
//! No I/O here: [`Window::unread`] and [`Window::apply`] name what to read, the caller reads it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use arrow::array::RecordBatch;
use position::OffsetRange;
use proto::ticket::{History, Margin};
use schema::MINUTE_MICROS;

use crate::candle::{self, Candle};
use crate::error::Error;
use crate::kernel::{Frame, WIDEST};
use crate::rows::Rows;
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

/// A run of one partition's offsets, in the order in which they came.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The offsets, all of them.
    pub(crate) range: OffsetRange,
    /// Their bronze rows.
    pub(crate) batches: Vec<RecordBatch>,
}

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
    /// Symbols that bronze holds below the cursor but memory does not yet.
    newest: Newest,
    partitions: Partitions,
    symbols: HashMap<String, Memory>,
}

#[derive(Debug)]
struct Memory {
    /// Every candle in bronze after this event time is in `candles`.
    known_after: i64,
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
    /// Starts at a cursor below which bronze holds the symbols of `newest`, none of them with a later event time than it says;
    /// `partitions` are those of the symbols that came before, as far as they are known.
    pub(crate) fn new(frame: Frame, newest: Newest, partitions: Partitions) -> Self {
        Window { frame, newest, partitions, symbols: HashMap::new() }
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
            Some(history(symbol, arrivals.range, newest, i64::MAX, margin))
        });
        histories.collect()
    }

    /// Takes the end of a symbol's candles into memory.
    pub(crate) fn remember(&mut self, history: History, batches: &[RecordBatch]) {
        let candles = decode_history(batches);
        let known_after = match history.margin {
            Margin::Micros(margin) => history.first_micros - margin,
            Margin::Rows(_) if candles.len() < KEEP_ROWS => i64::MIN,
            Margin::Rows(_) => candles[0].event_time - 1,
        };
        self.symbols.insert(history.symbol, Memory { known_after, candles });
    }

    /// Takes arrivals into memory and returns the changes to compute, in the order of symbol and time.
    ///
    /// # Errors
    ///
    /// [`Error::SymbolMoved`] when a symbol comes from a second partition: its candles have no order.
    pub(crate) fn apply(&mut self, arrivals: Arrivals) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        for (symbol, candles) in arrivals.by_symbol {
            let partition = arrivals.range.partition;
            let known = self.partitions.get_or_insert(&symbol, partition);
            if known != partition {
                return Err(Error::SymbolMoved { symbol, partitions: [known, partition] });
            }
            let memory = self.symbols.entry(symbol.clone()).or_insert_with(Memory::empty);
            memory.insert(&candles);
            let mut changed: Vec<i64> = candles.iter().map(|candle| candle.event_time).collect();
            let inside = changed
                .split_off(changed.partition_point(|event_time| !memory.reaches(*event_time, self.frame)));
            for late in changed.chunk_by(|one, next| next - one < TOGETHER_MICROS) {
                let span_of = |event_time: &i64| (event_time - late[0]) / SPAN_MICROS_MAX;
                for span in late.chunk_by(|one, next| span_of(one) == span_of(next)) {
                    changes.push(self.late_change(&symbol, span, &candles, arrivals.range));
                }
            }
            changes.push(Change { symbol, changed: inside, late: None });
        }
        Ok(changes)
    }

    /// Computes the gold rows of a change and appends them to `rows`, for the changes of [`Self::apply`] in their order.
    pub(crate) fn compute(&mut self, change: &Change, history: &[RecordBatch], rows: &mut Rows) {
        let frame = self.frame;
        if let Some(late) = &change.late {
            let mut candles = decode_history(history);
            candle::merge(&mut candles, &late.arrivals);
            append_affected(change, &candles, frame, rows);
        } else if let Some(memory) = self.symbols.get_mut(&change.symbol) {
            append_affected(change, &memory.candles, frame, rows);
            memory.evict(frame);
        }
    }

    fn late_change(&self, symbol: &str, changed: &[i64], arrivals: &[Candle], range: OffsetRange) -> Change {
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
            Late { history: history(symbol, range, first, last, margin), arrivals: arrivals[near].to_vec() };
        Change { symbol: symbol.to_owned(), changed: changed.to_vec(), late: Some(late) }
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

    /// Tells whether all candles in the windows that end at or after `event_time` are in memory.
    fn reaches(&self, event_time: i64, frame: Frame) -> bool {
        self.known_after == i64::MIN
            || match frame {
                Frame::Time => event_time - REACH_MICROS >= self.known_after,
                Frame::Rows => {
                    self.candles.get(REACH_ROWS).is_some_and(|candle| candle.event_time <= event_time)
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

fn history(symbol: &str, range: OffsetRange, first_micros: i64, last_micros: i64, margin: Margin) -> History {
    let (partition, below_offset) = (range.partition, range.first);
    History {
        symbol: symbol.to_owned(),
        partition,
        below_offset,
        first_micros,
        last_micros,
        margin,
        table: None,
    }
}

fn rows_margin(rows: usize) -> Margin {
    Margin::Rows(u32::try_from(rows).expect("a margin is a small constant"))
}

fn decode_history(batches: &[RecordBatch]) -> Vec<Candle> {
    batches.iter().flat_map(|batch| candle::decode(batch).map(|(_, candle)| candle)).collect()
}

#[cfg(test)]
mod tests;
