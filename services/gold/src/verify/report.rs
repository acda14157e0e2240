//! Findings of verify.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use position::{Position, Topic};

/// Maximum number of findings that are shown for the topic and for each table. All are counted.
const SHOWN_MAX: usize = 20;

/// Findings of verify.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Result of comparing the topic with bronze. `None` if this comparison was omitted.
    pub topic: Option<TopicReport>,
    /// Results of comparing the sinks with the gold that follows from bronze.
    pub tables: Vec<TableReport>,
}

/// Result of comparing the topic with bronze.
#[derive(Clone, Debug)]
pub struct TopicReport {
    /// The topic.
    pub topic: Topic,
    /// Position of bronze.
    pub position: Position,
    /// Number of messages in the topic below the position.
    pub messages: u64,
    /// Number of these messages that are rows of bronze.
    pub rows: u64,
    /// Number of messages without a row that are dead letters.
    pub dead_letters: u64,
    /// Number of messages that are neither in bronze nor dead letters.
    pub missing: u64,
    /// Number of findings, including missing messages.
    pub faults: u64,
    /// The first findings.
    pub shown: Vec<String>,
}

/// Result of comparing one sink.
#[derive(Clone, Debug, Default)]
pub struct TableReport {
    /// The sink.
    pub name: &'static str,
    /// Its position.
    pub position: Position,
    /// Number of bronze rows below the position: all messages.
    pub bronze_rows: u64,
    /// Number of bronze rows that gold cannot store and leaves out.
    pub aside_rows: u64,
    /// Number of rows that follow from bronze: one for each symbol and event time.
    pub expected_rows: u64,
    /// Number of rows in the sink.
    pub found_rows: u64,
    /// Number of rows that follow from bronze and are missing in the sink.
    pub missing_rows: u64,
    /// Number of rows in the sink that do not follow from bronze.
    pub extra_rows: u64,
    /// Number of rows with a different value in at least one column.
    pub different_rows: u64,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// Places where the offsets of bronze have gaps or overlaps.
    pub offset_faults: Vec<String>,
    /// Position of bronze, if bronze stopped below the position of the sink. Nothing was compared then.
    pub behind: Option<Position>,
}

/// A value that differs from the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Key of the row.
    pub symbol: String,
    /// Key of the row.
    pub event_time: String,
    /// The column, or `(row)` if one side lacks the row.
    pub column: String,
    /// Value that follows from bronze.
    pub expected: String,
    /// Value in the sink.
    pub found: String,
}

impl Report {
    /// Returns true if nothing differs.
    pub fn is_empty(&self) -> bool {
        self.topic.iter().all(|topic| topic.faults == 0) && self.tables.iter().all(TableReport::is_empty)
    }
}

impl TopicReport {
    pub(super) fn new(topic: Topic) -> Self {
        TopicReport {
            topic,
            position: Position::default(),
            messages: 0,
            rows: 0,
            dead_letters: 0,
            missing: 0,
            faults: 0,
            shown: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, fault: String) {
        self.faults += 1;
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(fault);
        }
    }
}

impl TableReport {
    /// Returns true if nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing_rows + self.extra_rows + self.different_rows == 0
            && self.offset_faults.is_empty()
            && self.behind.is_none()
    }

    pub(super) fn missing(&mut self, difference: impl FnOnce() -> Difference) {
        self.missing_rows += 1;
        self.show(|| vec![difference()]);
    }

    pub(super) fn extra(&mut self, difference: impl FnOnce() -> Difference) {
        self.extra_rows += 1;
        self.show(|| vec![difference()]);
    }

    pub(super) fn different(&mut self, differences: impl FnOnce() -> Vec<Difference>) {
        self.different_rows += 1;
        self.show(differences);
    }

    fn show(&mut self, differences: impl FnOnce() -> Vec<Difference>) {
        if self.differences.len() < SHOWN_MAX {
            self.differences.extend(differences());
            self.differences.truncate(SHOWN_MAX);
        }
    }
}

impl Difference {
    /// A row that only one side has.
    pub(super) fn whole_row([symbol, event_time]: [String; 2], side: &str) -> Self {
        let here = |name: &str| if name == side { "present".to_owned() } else { "absent".to_owned() };
        Difference {
            symbol,
            event_time,
            column: "(row)".to_owned(),
            expected: here("expected"),
            found: here("found"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topic {
            Some(topic) => topic.fmt(f)?,
            None => writeln!(f, "topic: not compared (--no-topic)")?,
        }
        self.tables.iter().try_for_each(|table| table.fmt(f))
    }
}

impl fmt::Display for TopicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "topic {}: {}; {} messages below {}, {} in bronze, {} dead letters; {} missing, {} findings",
            self.topic,
            verdict(self.faults == 0),
            self.messages,
            text(&self.position),
            self.rows,
            self.dead_letters,
            self.missing,
            self.faults,
        )?;
        list(f, &self.shown, self.faults)
    }
}

fn verdict(is_ok: bool) -> &'static str {
    if is_ok { "ok" } else { "DIFFERENT" }
}

fn text(position: &Position) -> String {
    if position.is_empty() { "the beginning".to_owned() } else { position.to_string() }
}

/// Writes the first findings and the number of further ones.
fn list(f: &mut fmt::Formatter<'_>, findings: &[String], count: u64) -> fmt::Result {
    let shown = &findings[..findings.len().min(SHOWN_MAX)];
    shown.iter().try_for_each(|finding| writeln!(f, "  {finding}"))?;
    match count.saturating_sub(shown.len() as u64) {
        0 => Ok(()),
        more => writeln!(f, "  … {more} more"),
    }
}

impl fmt::Display for TableReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(received) = &self.behind {
            return writeln!(
                f,
                "{}: NOT COMPARED; it is at {}, but bronze stopped at {}: let ingest run until bronze reaches that position, or, if this bronze \
                 is not the one that gold was computed from, run `candleflight gold --rebuild`",
                self.name,
                text(&self.position),
                text(received)
            );
        }
        writeln!(
            f,
            "{}: {}; {} rows at {}, {} expected from {} of bronze, {} set aside; {} missing, {} extra, {} different",
            self.name,
            verdict(self.is_empty()),
            self.found_rows,
            text(&self.position),
            self.expected_rows,
            self.bronze_rows,
            self.aside_rows,
            self.missing_rows,
            self.extra_rows,
            self.different_rows,
        )?;
        list(f, &self.offset_faults, self.offset_faults.len() as u64)?;
        if self.differences.is_empty() {
            return Ok(());
        }
        let column = |value: fn(&Difference) -> &String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(self.differences.iter().map(value)))
        };
        let table = RecordBatch::try_from_iter([
            ("symbol", column(|difference| &difference.symbol)),
            ("event_time", column(|difference| &difference.event_time)),
            ("column", column(|difference| &difference.column)),
            ("expected", column(|difference| &difference.expected)),
            ("found", column(|difference| &difference.found)),
        ])
        .expect("the columns are of one length");
        writeln!(f, "{}", pretty_format_batches(&[table]).map_err(|_| fmt::Error)?)
    }
}
