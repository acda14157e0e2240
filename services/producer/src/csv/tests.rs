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
    let (few, many) = (Err("missing_field"), Err("too_many_fields"));
    let expected = [(2, Ok(ROW)), (4, Err(not)), (5, few), (6, Err(not)), (7, many), (8, Ok(ROW))];
    check(&format!("{HEADER}{content}"), &expected);
}

#[test]
fn a_stray_quote_does_not_swallow_the_lines_after_it() {
    let row = "1325412060.0,4.58,4.6,4.5,4.59,0.25\n";
    check(&format!("{HEADER}\"oops\n{row}{row}"), &[(2, Err("comma_in_quotes")), (3, Ok(ROW)), (4, Ok(ROW))]);
}

#[test]
fn thousands_separators_never_become_another_number() {
    let quoted = "\"1735689600\",\"42,265.2\",\"42,300.0\",\"42,100.5\",\"42,280.1\",\"1,234.5\"\n";
    check(&format!("{HEADER}{quoted}"), &[(2, Err("comma_in_quotes"))]);
    check(&format!("{HEADER}1735689600,42,265.2,1,1,1,1\n"), &[(2, Err("too_many_fields"))]);
    // With unused columns, the parts of a split number still fit; only the quotes reveal the split.
    let wide = "Timestamp,Open,High,Low,Close,Volume,Trades\n";
    check(&format!("{wide}1735689600,\"42,265.2\",42300,42100,42280,1.5\n"), &[(2, Err("comma_in_quotes"))]);
    check(&format!("{wide}1735689600,1,1,1,1,1,\"1,234\"\n"), &[(2, Err("comma_in_quotes"))]);
    check(&format!("{wide}1325412060,4.58,4.6,4.5,4.59,0.25,caf\u{e9}\n"), &[(2, Ok(ROW))]);
}

#[test]
fn a_last_line_without_end_is_known_as_one() {
    let (_directory, path) = file(format!("{HEADER}1,1,1,1,1,1\n2,1,1,1,1,1").as_bytes());
    let mut csv = CsvFile::open(&path).unwrap();
    assert_eq!((csv.next().unwrap().map(|line| line.is_ok()), csv.is_cut()), (Some(true), false));
    assert_eq!((csv.next().unwrap().map(|line| line.is_ok()), csv.is_cut()), (Some(true), true));
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

/// Opens a file with this content and checks that the error message contains all `words`.
fn check_refused(content: &[u8], words: &[&str]) {
    let (_directory, path) = file(content);
    let error = lines(&path).unwrap_err();
    assert!(error.is_input());
    let error = error.to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{error} lacks one of {words:?}");
    assert!(!error.contains('\n'), "the message has several lines: {error}");
}

#[test]
fn a_layout_that_is_not_read_is_named_with_what_to_do() {
    check_refused(b"", &["is empty"]);
    check_refused(b"Timestamp,Open,High,Low,Volume\n1,2,3,4,5\n", &["no column close"]);
    let binance = b"1735689600000000,93576.0,93610.9,93537.5,93610.9,8.21,1735689659999999,768978.3,2631,3.9,371757.7,0\n";
    check_refused(binance, &["no header", "Close,Volume,column7,", ",column12", "not microseconds"]);
    check_refused(
        b"1735689600,93500.1,93550.0,93480.2,93510.5,12.25,310\n",
        &["no header", "Volume,column7"],
    );
    let futures = b"open_time,open,high,low,close,volume,close_time\n1735689600000,1,1,1,1,1,1\n";
    check_refused(futures, &["no column timestamp", "rename \"open_time\" to Timestamp (in Unix seconds)"]);
    let dump = b"https://www.CryptoDataDownload.com\nunix,date,symbol,open,high,low,close,Volume BTC\n";
    check_refused(dump, &["web address", "delete that line"]);
    let investing = b"\"Date\",\"Price\",\"Open\",\"High\",\"Low\",\"Vol.\",\"Change %\"\n";
    check_refused(
        investing,
        &["timestamp, close, volume", "\"date\" to Timestamp", "\"price\" to Close", "\"vol.\" to Volume"],
    );
    check_refused(b"sep=,\nTimestamp,Open,High,Low,Close,Volume\n", &["sep=", "delete that line"]);
    check_refused(b"Timestamp;Open;High;Low;Close;Volume\n1;1;1;1;1;1\n", &["semicolons", "commas"]);
    check_refused(b"Timestamp\tOpen\tHigh\tLow\tClose\tVolume\n", &["tabs"]);
    let utf16: Vec<u8> = "\u{feff}Timestamp,Open".encode_utf16().flat_map(u16::to_le_bytes).collect();
    check_refused(&utf16, &["UTF-16", "iconv"]);
    check_refused(b"Timestamp\0Open", &["not text"]);
    check_refused(b"\x28\xb5\x2f\xfd\x04\x00", &["Zstandard", "zstd -d"]);
    check_refused(b"\xfd7zXZ\0\x00", &["xz -d"]);
    check_refused(b"PAR1\x15\x04", &["Parquet"]);
}

#[test]
fn of_several_csv_files_in_an_archive_none_is_chosen() {
    let archive = |names: &[&str]| {
        let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for name in names {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(HEADER.as_bytes()).unwrap();
        }
        zip.finish().unwrap().into_inner()
    };
    check_refused(&archive(&["btc.csv", "eth.csv"]), &["2 CSV files (btc.csv, eth.csv)", "unpack it"]);
    let (_directory, path) = file(&archive(&["btc.csv", "__MACOSX/._btc.csv"]));
    assert_eq!(lines(&path).unwrap(), []);
}

#[test]
fn a_line_that_cannot_be_used_comes_with_its_probable_cause() {
    let check = |line: &str, reason, words: &str| {
        let (_directory, path) = file(format!("{HEADER}{line}\n").as_bytes());
        let mut csv = CsvFile::open(&path).unwrap();
        csv.next().unwrap();
        assert!(csv.hint(reason).contains(words), "{line}: {}", csv.hint(reason));
    };
    check("1735689600000,1,1,1,1,1", "time_out_of_range", "Timestamp is in milliseconds");
    check("1735689600000000,1,1,1,1,1", "time_out_of_range", "microseconds");
    check("2025-01-01 00:00:00,1,1,1,1,1", "not_a_number", "\"2025-01-01 00:00:00\" is a date");
    check("1735689600,1,42.5K,1,1,1", "not_a_number", "high is \"42.5K\", which is not a number");
    check("1735689600,\"42,265.2\",1,1,1,1", "comma_in_quotes", "write 42265.2");
    check("1735689600,1,1,2,1,1", "high_below_low", "high below low");
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
