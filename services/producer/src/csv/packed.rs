//! A file's text, unpacked while it is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::{DeflateDecoder, MultiGzDecoder};
use zip::{CompressionMethod, ZipArchive};

use crate::Error;

/// Bytes read from the file at once.
const READ_BYTES: usize = 256 << 10;
/// Names of CSV files that an error shows.
const NAMES_MAX: usize = 5;
/// Where macOS puts its own notes on each file of an archive, under the file's name.
const MAC_NOTES: &str = "__MACOSX/";

/// First bytes of files that are not read, what they are, and what to do.
const REFUSED: [(&[u8], &str); 5] = [
    (b"\x28\xb5\x2f\xfd", "is packed by Zstandard: unpack it first (zstd -d), or pack it by gzip"),
    (b"\xfd7zXZ\0", "is packed by xz: unpack it first (xz -d), or pack it by gzip"),
    (b"BZh", "is packed by bzip2: unpack it first (bzip2 -d), or pack it by gzip"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it first (7z x), or pack it by gzip"),
    (b"PAR1", "is a Parquet file: write it as CSV first"),
];

/// The text, and a counter of the bytes read of a packed file.
pub(super) type Text = (Box<dyn BufRead + Send>, Option<Arc<AtomicU64>>);

/// Opens a plain file, a gzip file, or the only CSV file of a zip archive.
pub(super) fn open(path: &Path) -> Result<Text, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), line: 0, source };
    let mut file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.to_owned() },
        _ => failed(error),
    })?;
    let mut magic = Vec::with_capacity(6);
    (&mut file).take(6).read_to_end(&mut magic).map_err(failed)?;
    file.rewind().map_err(failed)?;
    if let Some((_, problem)) = REFUSED.iter().find(|(bytes, _)| magic.starts_with(bytes)) {
        return Err(Error::Layout { path: path.to_owned(), problem: (*problem).to_owned() });
    }
    let counter = Arc::new(AtomicU64::new(0));
    let counted = |file| Counted { file, count: Arc::clone(&counter) };
    let reader = match magic.as_slice() {
        [0x1f, 0x8b, ..] => {
            buffered(MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, counted(file))))
        }
        [b'P', b'K', 3, 4, ..] => match zip_entry(path, &file)? {
            (entry, CompressionMethod::Deflated) => {
                buffered(DeflateDecoder::new(counted(file).entry(entry).map_err(failed)?))
            }
            (entry, CompressionMethod::Stored) => buffered(counted(file).entry(entry).map_err(failed)?),
            _ => return Err(Error::NoCsv { path: path.to_owned() }),
        },
        _ => return Ok((buffered(file), None)),
    };
    Ok((reader, Some(counter)))
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

/// Finds the CSV file in an archive. Several are an error: the choice is the user's.
fn zip_entry(path: &Path, file: &File) -> Result<(Entry, CompressionMethod), Error> {
    let failed = |source| Error::Zip { path: path.to_owned(), source };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(failed)?;
    let is_csv = |name: &str| {
        let extension = Path::new(name).extension();
        extension.is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
            && !name.starts_with(MAC_NOTES)
    };
    let found: Vec<usize> =
        (0..archive.len()).filter(|index| archive.name_for_index(*index).is_some_and(is_csv)).collect();
    if found.len() > 1 {
        let names = found.iter().take(NAMES_MAX).filter_map(|index| archive.name_for_index(*index));
        let names = names.collect::<Vec<_>>().join(", ");
        let problem =
            format!("holds {} CSV files ({names}): unpack it and name each as an input", found.len());
        return Err(Error::Layout { path: path.to_owned(), problem });
    }
    let no_csv = || Error::NoCsv { path: path.to_owned() };
    let index = found.first().ok_or_else(no_csv)?;
    let entry = archive.by_index(*index).map_err(failed)?;
    let start = entry.data_start().ok_or_else(no_csv)?;
    Ok((Entry { start, byte_count: entry.compressed_size() }, entry.compression()))
}

fn buffered(reader: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::with_capacity(READ_BYTES, reader))
}
