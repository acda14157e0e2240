//! What verify found.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use position::Position;

/// Differences that are shown of each table; all are counted.
const SHOWN_MAX: usize = 20;

/// What verify found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each sink.
    pub tables: Vec<TableReport>,
}

/// What verify found of one sink.
#[derive(Clone, Debug, Default)]
pub struct TableReport {
    /// The sink.
    pub name: &'static str,
    /// Its position.
    pub position: Position,
    /// Rows of bronze below the position, all messages.
    pub bronze_rows: u64,
    /// Rows of bronze that gold cannot hold and leaves out.
    pub aside_rows: u64,
    /// Rows that follow from bronze, one a symbol and event time.
    pub expected_rows: u64,
    /// Rows in the sink.
    pub found_rows: u64,
    /// Rows that follow from bronze and are not in the sink.
    pub missing_rows: u64,
    /// Rows in the sink that do not follow from bronze.
    pub extra_rows: u64,
    /// Rows that have another value in at least one column.
    pub different_rows: u64,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// Where the offsets of bronze do not tile the topic.
    pub offset_faults: Vec<String>,
}

/// A value that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Key of the row.
    pub symbol: String,
    /// Key of the row.
    pub event_time: String,
    /// The column, or `(row)` when one side lacks it.
    pub column: String,
    /// What follows from bronze.
    pub expected: String,
    /// What the sink holds.
    pub found: String,
}

impl Report {
    /// Tells whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(TableReport::is_empty)
    }
}

impl TableReport {
    /// Tells whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing_rows + self.extra_rows + self.different_rows == 0 && self.offset_faults.is_empty()
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
        self.tables.iter().try_for_each(|table| table.fmt(f))
    }
}

impl fmt::Display for TableReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_empty() { "ok" } else { "DIFFERENT" };
        writeln!(
            f,
            "{}: {verdict}; {} rows at {}, {} expected from {} of bronze, {} set aside; {} missing, {} extra, {} different",
            self.name,
            self.found_rows,
            if self.position.is_empty() { "the beginning".to_owned() } else { self.position.to_string() },
            self.expected_rows,
            self.bronze_rows,
            self.aside_rows,
            self.missing_rows,
            self.extra_rows,
            self.different_rows,
        )?;
        for fault in self.offset_faults.iter().take(SHOWN_MAX) {
            writeln!(f, "  {fault}")?;
        }
        if self.offset_faults.len() > SHOWN_MAX {
            writeln!(f, "  … {} more", self.offset_faults.len() - SHOWN_MAX)?;
        }
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
