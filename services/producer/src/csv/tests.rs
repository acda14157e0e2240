use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{CsvFile, LINE_BYTES_MAX, Line};
use crate::Error;

const HEADER: &str = "Timestamp,Open,High,Low,Close,Volume\n";
const ROW: [f64; 6] = [1_325_412_060.0, 4.58, 4.6, 4.5, 4.59, 0.25];

fn lines(path: &Path) -> Result<Vec<(u64, Line)>, Error> {
    let mut csv = CsvFile::open(path)?;
    let mut lines = Vec::new();
    while let Some(line) = csv.next()? {
        lines.push((csv.line(), line));
    }
    Ok(lines)
}

fn file(content: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    std::fs::write(&path, content).unwrap();
    (directory, path)
}

fn check(content: &str, expected: &[(u64, Line)]) {
    let (_directory, path) = file(content.as_bytes());
    assert_eq!(lines(&path).unwrap(), expected, "{content:.200}");
}

#[test]
fn rows_keep_their_line_numbers_past_lines_that_hold_none() {
    let content = "\
        1325412060.0,4.58,4.6,4.5,4.59,0.25\n\
        \n\
        garbage\n\
        1325412060.0,4.58,4.6,4.5,4.59\n\
        1325412060.0,4.58,4.6,4.5,,0.25\n\
        1325412060.0,4.58,4.6,4.5,4.59,0.25,more\r\n\
        1325412060,\"4.58\",4.6, 4.5 ,4.59,0.25";
    let not = "not_a_number";
    let expected =
        [(2, Ok(ROW)), (4, Err(not)), (5, Err("missing_field")), (6, Err(not)), (7, Ok(ROW)), (8, Ok(ROW))];
    check(&format!("{HEADER}{content}"), &expected);
}

#[test]
fn a_stray_quote_does_not_swallow_the_lines_after_it() {
    let row = "1325412060.0,4.58,4.6,4.5,4.59,0.25\n";
    check(&format!("{HEADER}\"oops\n{row}{row}"), &[(2, Err("not_a_number")), (3, Ok(ROW)), (4, Ok(ROW))]);
}

#[test]
fn a_line_without_end_is_cut_and_counted() {
    let endless = "1,".repeat(usize::try_from(LINE_BYTES_MAX).unwrap());
    let row = "1325412060.0,4.58,4.6,4.5,4.59,0.25\n";
    check(&format!("{HEADER}{endless}\n{row}"), &[(2, Err("line_too_long")), (3, Ok(ROW))]);
}

#[test]
fn columns_are_found_by_name_whatever_their_order_case_and_company() {
    check(
        "close,LOW,High,open,extra,Timestamp,volume\n4.59,4.5,4.6,4.58,x,1325412060,0.25\n",
        &[(2, Ok(ROW))],
    );
    check(
        "\u{feff}\"Timestamp\",\"Open\",\"High\",\"Low\",\"Close\",\"Volume_(BTC)\",\"Volume_(Currency)\",\"Weighted_Price\"\n\
         1325412060,4.58,4.6,4.5,4.59,0.25,1.1,4.5\n",
        &[(2, Ok(ROW))],
    );
}

#[test]
fn a_missing_column_is_named() {
    let (_directory, path) = file(b"Timestamp,Open,High,Low,Volume\n1,2,3,4,5\n");
    let error = lines(&path).unwrap_err();
    assert!(matches!(error, Error::Column { column: "close", .. }), "{error}");
    let (_directory, path) = file(b"");
    assert!(matches!(lines(&path).unwrap_err(), Error::Column { column: "timestamp", .. }));
}

#[test]
fn a_missing_file_says_where_to_get_it() {
    let error = lines(Path::new("data/no such file.csv")).unwrap_err().to_string();
    assert!(
        error.contains("mczielinski/bitcoin-historical-data") && error.contains("candleflight sample"),
        "{error}"
    );
}

#[test]
fn packed_files_read_like_plain_ones() {
    let content = format!("{HEADER}1325412060.0,4.58,4.6,4.5,4.59,0.25\n");
    let expected = [(2, Ok(ROW))];

    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(content.as_bytes()).unwrap();
    let (_directory, path) = file(&gzip.finish().unwrap());
    assert_eq!(lines(&path).unwrap(), expected);

    for method in [CompressionMethod::Deflated, CompressionMethod::Stored] {
        let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file("README.txt", options).unwrap();
        zip.write_all(b"not this one").unwrap();
        zip.start_file("btcusd_1-min_data.CSV", options).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
        let (_directory, path) = file(&zip.finish().unwrap().into_inner());
        assert_eq!(lines(&path).unwrap(), expected, "{method}");
    }
}

#[test]
fn a_truncated_gzip_is_an_error_with_its_line() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(HEADER.as_bytes()).unwrap();
    (0..100).for_each(|_| gzip.write_all(b"1325412060.0,4.58,4.6,4.5,4.59,0.25\n").unwrap());
    let bytes = gzip.finish().unwrap();
    let (_directory, path) = file(&bytes[..bytes.len() / 2]);
    assert!(matches!(lines(&path).unwrap_err(), Error::Read { line: 2.., .. }));
}

#[test]
fn reading_goes_on_after_a_line() {
    let (_directory, path) = file(format!("{HEADER}bad\n1325412060.0,4.58,4.6,4.5,4.59,0.25\n").as_bytes());
    let mut csv = CsvFile::open(&path).unwrap();
    csv.skip_to(2).unwrap();
    assert_eq!(csv.next().unwrap(), Some(Ok(ROW)));
    assert_eq!(csv.line(), 3);
    assert_eq!(csv.next().unwrap(), None);
    assert_eq!(csv.bytes_read(), std::fs::metadata(&path).unwrap().len());
}

proptest! {
    #[test]
    fn any_number_reads_back_bit_for_bit(row in prop::array::uniform6(any::<f64>())) {
        let fields: Vec<String> = row.iter().map(f64::to_string).collect();
        let (_directory, path) = file(format!("{HEADER}{}\n", fields.join(",")).as_bytes());
        let read = lines(&path).unwrap();
        let bits = |row: [f64; 6]| row.map(|number| if number.is_nan() { 0 } else { number.to_bits() });
        prop_assert_eq!(read.len(), 1);
        prop_assert_eq!(read[0].1.map(bits), Ok(bits(row)));
    }

    #[test]
    fn no_bytes_make_it_panic_or_lose_count(content in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = HEADER.as_bytes().to_vec();
        bytes.extend_from_slice(&content);
        let (_directory, path) = file(&bytes);
        let blank = |line: &&[u8]| line.trim_ascii_end().is_empty();
        let full = content.split(|byte| *byte == b'\n').filter(|line| !blank(line)).count();
        prop_assert_eq!(lines(&path).unwrap().len(), full);
    }
}
