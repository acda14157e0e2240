//! Reads a CSV file, plain or compressed, into rows of numbers with their line numbers.
//!
//! A line is split at its commas only, and quotes have no meaning. The fields are numbers, so they need no quotes, and a stray quote must
//! not swallow the lines after it.

mod hint;
mod layout;
mod packed;

use std::io::{BufRead, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schema::{CLOSE, HIGH, LOW, OPEN, VOLUME};

use crate::Error;

/// Columns of a [`Row`], by their names in the header. Upper and lower case are equal.
const COLUMNS: [&str; 6] = ["timestamp", OPEN, HIGH, LOW, CLOSE, VOLUME];
/// Longest line that is read, in bytes: a thousand times the line of a candle.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Number of characters of a line that an error shows.
const EXCERPT_CHARACTERS: usize = 120;

/// Timestamp, open, high, low, close and volume, as in the file: the values may be NaN or infinite.
pub(crate) type Row = [f64; COLUMNS.len()];

/// Content of a line: a row, or the reason code why there is none.
pub(crate) type Line = Result<Row, &'static str>;

/// A CSV file that is being read.
pub(crate) struct CsvFile {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    /// Number of bytes that were read from a compressed file. `None` for a plain file.
    packed_bytes: Option<Arc<AtomicU64>>,
    line_bytes: u64,
    /// Index in [`Row`] of each column of the file. `None` for a column that is not used.
    slots: Vec<Option<usize>>,
    line: u64,
    buffer: Vec<u8>,
}

impl CsvFile {
    /// Opens a file and reads its header.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let (reader, packed_bytes) = packed::open(path)?;
        let (slots, buffer) = (Vec::new(), Vec::with_capacity(256));
        let mut csv =
            CsvFile { path: path.to_owned(), reader, packed_bytes, line_bytes: 0, slots, line: 0, buffer };
        csv.read_header()?;
        Ok(csv)
    }

    /// Reads the next line. Returns `None` at the end of the file.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, Error> {
        while self.read_line()? {
            let line = self.text();
            if !line.is_empty() {
                return Ok(Some(parse(line, &self.slots)));
            }
        }
        Ok(None)
    }

    /// Skips lines up to and including the one numbered `last`.
    pub(crate) fn skip_to(&mut self, last: u64) -> Result<(), Error> {
        while self.line < last && self.read_line()? {}
        Ok(())
    }

    /// Returns true if the line that was read last has no line end. The file may still grow, so the line may be incomplete.
    pub(crate) fn is_cut(&self) -> bool {
        !self.buffer.ends_with(b"\n") && (self.buffer.len() as u64) < LINE_BYTES_MAX
    }

    /// Returns the beginning of the line that was read last, to show to a person.
    pub(crate) fn excerpt(&self) -> String {
        excerpt(&String::from_utf8_lossy(self.text()))
    }

    /// Returns the probable cause why the line that was read last was rejected for `reason`.
    pub(crate) fn hint(&self, reason: &'static str) -> String {
        hint::hint(&String::from_utf8_lossy(self.text()), &self.slots, reason)
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of the line that was read last. The header is line 1.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// Returns the number of bytes read from the file. For a compressed file, these are compressed bytes.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.packed_bytes.as_ref().map_or(self.line_bytes, |count| count.load(Ordering::Relaxed))
    }

    fn read_header(&mut self) -> Result<(), Error> {
        let slots = if self.read_line()? { layout::slots(self.text()) } else { Err("is empty".to_owned()) };
        let failed = |problem| Error::Layout { path: self.path.clone(), problem };
        self.slots = slots.map_err(failed)?;
        Ok(())
    }

    /// Reads one line, truncated to [`LINE_BYTES_MAX`] bytes. Returns false at the end of the file.
    fn read_line(&mut self) -> Result<bool, Error> {
        self.buffer.clear();
        let read = (|| {
            let mut read =
                (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.buffer)? as u64;
            if read == LINE_BYTES_MAX && !self.buffer.ends_with(b"\n") {
                read += self.reader.skip_until(b'\n')? as u64;
            }
            Ok(read)
        })();
        let read =
            read.map_err(|source| Error::Read { path: self.path.clone(), line: self.line + 1, source })?;
        if read == 0 {
            return Ok(false);
        }
        self.line += 1;
        self.line_bytes += read;
        Ok(true)
    }

    /// Returns the line that was read last, without its line end.
    fn text(&self) -> &[u8] {
        self.buffer.trim_ascii_end()
    }
}

fn parse(line: &[u8], slots: &[Option<usize>]) -> Line {
    if line.len() as u64 >= LINE_BYTES_MAX {
        return Err("line_too_long");
    }
    let mut row = [0.0; COLUMNS.len()];
    let mut found = 0;
    let mut fields = line.split(|byte| *byte == b',');
    // The slots come first: `zip` takes an item from its first iterator even if the second has ended. This item must not be a field,
    // because the field would be lost.
    for (slot, field) in slots.iter().zip(fields.by_ref()) {
        let quoted = field.trim_ascii();
        // The quotes are unbalanced: the comma that ended the field was inside its quotes.
        if quoted.starts_with(b"\"") != quoted.ends_with(b"\"") || quoted == b"\"" {
            return Err("comma_in_quotes");
        }
        let Some(slot) = slot else { continue };
        let text = str::from_utf8(field).map_err(|_| "not_a_number")?;
        row[*slot] = bare(text).parse().map_err(|_| "not_a_number")?;
        found += 1;
    }
    if fields.next().is_some() {
        return Err("too_many_fields");
    }
    if found == COLUMNS.len() { Ok(row) } else { Err("missing_field") }
}

/// Removes spaces and quotes around a field.
fn bare(field: &str) -> &str {
    field.trim().trim_matches('"').trim()
}

fn excerpt(line: &str) -> String {
    line.chars().take(EXCERPT_CHARACTERS).collect()
}

#[cfg(test)]
mod tests;
