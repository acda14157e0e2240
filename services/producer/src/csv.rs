//! One CSV file, plain or packed, to rows of numbers with their line numbers.
//!
//! A line is split at its commas and nothing else: the fields are numbers, and a stray quote must not swallow the lines after it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::{DeflateDecoder, MultiGzDecoder};
use schema::{CLOSE, HIGH, LOW, OPEN, VOLUME};
use zip::{CompressionMethod, ZipArchive};

use crate::Error;

/// The columns of a [`Row`], as headers name them, in any case.
const COLUMNS: [&str; 6] = ["timestamp", OPEN, HIGH, LOW, CLOSE, VOLUME];
/// Longest line that is read, in bytes: a thousand times a candle's.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Bytes read from the file at once.
const READ_BYTES: usize = 256 << 10;

/// Timestamp, open, high, low, close, volume, as the file says: possibly NaN or infinite.
pub(crate) type Row = [f64; COLUMNS.len()];

/// What a line holds: a row, or the reason why not.
pub(crate) type Line = Result<Row, &'static str>;

/// A CSV file that is being read.
pub(crate) struct CsvFile {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    /// Bytes read of the packed file, `None` for a plain one.
    packed_bytes: Option<Arc<AtomicU64>>,
    line_bytes: u64,
    /// For each column of the file, its index in [`Row`].
    slots: Vec<Option<usize>>,
    line: u64,
    buffer: Vec<u8>,
}

impl CsvFile {
    /// Opens a file and reads its header.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), line: 0, source };
        let mut file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Missing { path: path.to_owned() },
            _ => failed(error),
        })?;
        let mut magic = Vec::with_capacity(4);
        (&mut file).take(4).read_to_end(&mut magic).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let counter = Arc::new(AtomicU64::new(0));
        let counted = |file| Counted { file, count: Arc::clone(&counter) };
        let mut packed_bytes = Some(Arc::clone(&counter));
        let reader: Box<dyn BufRead + Send> = match magic.as_slice() {
            [0x1f, 0x8b, ..] => {
                buffered(MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, counted(file))))
            }
            b"PK\x03\x04" => match zip_entry(path, &file)? {
                (entry, CompressionMethod::Deflated) => {
                    buffered(DeflateDecoder::new(counted(file).entry(entry).map_err(failed)?))
                }
                (entry, CompressionMethod::Stored) => buffered(counted(file).entry(entry).map_err(failed)?),
                _ => return Err(Error::NoCsv { path: path.to_owned() }),
            },
            _ => {
                packed_bytes = None;
                buffered(file)
            }
        };
        let (slots, buffer) = (Vec::new(), Vec::with_capacity(256));
        let mut csv =
            CsvFile { path: path.to_owned(), reader, packed_bytes, line_bytes: 0, slots, line: 0, buffer };
        csv.read_header()?;
        Ok(csv)
    }

    /// Reads the next line; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, Error> {
        while self.read_line()? {
            let line = self.text();
            if !line.is_empty() {
                return Ok(Some(parse(line, &self.slots)));
            }
        }
        Ok(None)
    }

    /// Skips lines up to and with the one numbered `last`.
    pub(crate) fn skip_to(&mut self, last: u64) -> Result<(), Error> {
        while self.line < last && self.read_line()? {}
        Ok(())
    }

    /// Returns the number of the line read last; the header is line 1.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// Returns how far the file has been read, in bytes of the file as it is.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.packed_bytes.as_ref().map_or(self.line_bytes, |count| count.load(Ordering::Relaxed))
    }

    fn read_header(&mut self) -> Result<(), Error> {
        self.read_line()?;
        let line = self.text();
        let header = String::from_utf8_lossy(line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)).into_owned();
        let names: Vec<String> = header.split(',').map(|name| bare(name).to_ascii_lowercase()).collect();
        let mut slots = vec![None; names.len()];
        for (slot, column) in COLUMNS.into_iter().enumerate() {
            // Kaggle's older files say Volume_(BTC) and, after it, Volume_(Currency).
            let found =
                names.iter().position(|name| name == column || name.starts_with(&format!("{column}_(")));
            let missing = || Error::Column { path: self.path.clone(), column, header: excerpt(&header) };
            let index = found.ok_or_else(missing)?;
            slots[index] = Some(slot);
        }
        self.slots = slots;
        Ok(())
    }

    /// Reads one line, cut at [`LINE_BYTES_MAX`] bytes; false at the end.
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

    /// Returns the line read last without its end.
    fn text(&self) -> &[u8] {
        self.buffer.trim_ascii_end()
    }
}

/// Counts the bytes read of a file.
struct Counted {
    file: File,
    count: Arc<AtomicU64>,
}

impl Counted {
    /// Goes on with the bytes of one entry of an archive only.
    fn entry(mut self, entry: Entry) -> io::Result<io::Take<Self>> {
        self.file.seek(SeekFrom::Start(entry.start))?;
        Ok(self.take(entry.byte_count))
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Where an archive's entry lies in the file.
struct Entry {
    start: u64,
    byte_count: u64,
}

/// Finds the first CSV file in an archive.
fn zip_entry(path: &Path, file: &File) -> Result<(Entry, CompressionMethod), Error> {
    let failed = |source| Error::Zip { path: path.to_owned(), source };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(failed)?;
    let is_csv = |name: &str| {
        Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
    };
    let index = (0..archive.len()).find(|index| archive.name_for_index(*index).is_some_and(is_csv));
    let no_csv = || Error::NoCsv { path: path.to_owned() };
    let entry = archive.by_index(index.ok_or_else(no_csv)?).map_err(failed)?;
    let start = entry.data_start().ok_or_else(no_csv)?;
    Ok((Entry { start, byte_count: entry.compressed_size() }, entry.compression()))
}

fn buffered(reader: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::with_capacity(READ_BYTES, reader))
}

fn parse(line: &[u8], slots: &[Option<usize>]) -> Line {
    if line.len() as u64 >= LINE_BYTES_MAX {
        return Err("line_too_long");
    }
    let mut row = [0.0; COLUMNS.len()];
    let mut found = 0;
    for (field, slot) in line.split(|byte| *byte == b',').zip(slots) {
        let Some(slot) = slot else { continue };
        let text = str::from_utf8(field).map_err(|_| "not_a_number")?;
        row[*slot] = bare(text).parse().map_err(|_| "not_a_number")?;
        found += 1;
    }
    if found == COLUMNS.len() { Ok(row) } else { Err("missing_field") }
}

/// Takes spaces and quotes off a field.
fn bare(field: &str) -> &str {
    field.trim().trim_matches('"').trim()
}

fn excerpt(header: &str) -> String {
    header.chars().take(120).collect()
}

#[cfg(test)]
mod tests;
