//! The text of a file, decompressed while it is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::{DeflateDecoder, MultiGzDecoder};
use zip::{CompressionMethod, ZipArchive};

use crate::Error;

/// Number of bytes read from the file at once.
const READ_BYTES: usize = 256 << 10;
/// Maximum number of names of CSV files that an error shows.
const NAMES_MAX: usize = 5;
/// Folder in an archive where macOS stores its own metadata of each file, under the name of the file.
const MAC_NOTES: &str = "__MACOSX/";

/// First bytes of file formats that are not supported, with the problem and what to do.
const REFUSED: [(&[u8], &str); 5] = [
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard: decompress it first (zstd -d), or use gzip"),
    (b"\xfd7zXZ\0", "is compressed with xz: decompress it first (xz -d), or use gzip"),
    (b"BZh", "is compressed with bzip2: decompress it first (bzip2 -d), or use gzip"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it first (7z x), or use gzip"),
    (b"PAR1", "is a Parquet file: convert it to CSV first"),
];

/// Text of a file, and for a compressed file the number of bytes read from it.
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

/// File that counts the bytes read from it.
struct Counted {
    file: File,
    count: Arc<AtomicU64>,
}

impl Counted {
    /// Limits the reader to the bytes of one entry of an archive.
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

/// Place of an archive's entry in the file.
struct Entry {
    start: u64,
    byte_count: u64,
}

/// Finds the only CSV file in an archive. Several CSV files are an error: the user must choose.
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
