//! Finds the columns in the first line of a file. Otherwise explains in one sentence what is wrong with it and what to do.

use super::{COLUMNS, bare, excerpt};

/// Example of a valid header, to show to a person.
const HEADER: &str = "Timestamp,Open,High,Low,Close,Volume";
/// Columns with the names that other sources use for them, and the name and form that are needed.
const OTHER_NAMES: [(&str, &[&str], &str); 3] = [
    (
        "timestamp",
        &["date", "time", "unix", "open_time", "open time", "opentime"],
        "Timestamp (in Unix seconds)",
    ),
    ("close", &["price", "last", "adj close"], "Close"),
    ("volume", &["vol", "quantity", "amount"], "Volume (a plain number)"),
];
/// Separators that are not supported, and their names.
const SEPARATORS: [(char, &str); 3] = [(';', "semicolons"), ('\t', "tabs"), ('|', "bars")];

/// Returns the index in a [`Row`](super::Row) of each column of the file, or explains what is wrong with the first line.
pub(super) fn slots(line: &[u8]) -> Result<Vec<Option<usize>>, String> {
    if line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") {
        return Err("is UTF-16: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)".to_owned());
    }
    if line.contains(&0) {
        return Err("is not text: a CSV file is needed (plain, .gz or .zip)".to_owned());
    }
    let header = String::from_utf8_lossy(line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line));
    let names: Vec<String> = header.split(',').map(|name| bare(name).to_ascii_lowercase()).collect();
    // Older Kaggle files have a column Volume_(BTC), followed by Volume_(Currency).
    let index = |column: &str| {
        names.iter().position(|name| name == column || name.starts_with(&format!("{column}_(")))
    };
    let mut slots = vec![None; names.len()];
    let mut missing = Vec::new();
    for (slot, column) in COLUMNS.into_iter().enumerate() {
        match index(column) {
            Some(index) => slots[index] = Some(slot),
            None => missing.push(column),
        }
    }
    if missing.is_empty() { Ok(slots) } else { Err(problem(&header, &names, &missing)) }
}

fn problem(header: &str, names: &[String], missing: &[&str]) -> String {
    let first = header.trim().to_ascii_lowercase();
    if first.starts_with("sep=") {
        return "begins with Excel's `sep=`: delete that line, and use commas as separators".to_owned();
    }
    if first.starts_with("http://") || first.starts_with("https://") {
        return format!(
            "begins with a web address, as files of CryptoDataDownload do: delete that line, and name the columns {HEADER} in the next one \
             (Timestamp in Unix seconds)"
        );
    }
    let is_candle = names.len() >= COLUMNS.len() && names.iter().all(|name| name.parse::<f64>().is_ok());
    if is_candle {
        let others = (COLUMNS.len() + 1..=names.len()).map(|column| format!(",column{column}"));
        let unit = names[0].parse().ok().and_then(unit);
        let unit =
            unit.map(|unit| format!(", and write Timestamp in seconds, not {unit}")).unwrap_or_default();
        return format!(
            "has no header, as files of Binance and Kraken: if its columns are in this order, put this line first{unit}: {HEADER}{}",
            others.collect::<String>()
        );
    }
    let separated = |(separator, _): &&(char, &str)| header.split(*separator).count() >= COLUMNS.len();
    if let Some((_, name)) = SEPARATORS.iter().find(separated).filter(|_| names.len() < COLUMNS.len()) {
        return format!("separates its columns with {name}: use commas, and decimal points in the numbers");
    }
    let renames = OTHER_NAMES.iter().filter(|(column, ..)| missing.contains(column));
    let renames = renames.filter_map(|(_, others, wanted)| {
        let name = names.iter().find(|name| others.iter().any(|other| name.starts_with(other)))?;
        Some(format!("rename {name:?} to {wanted}"))
    });
    let advice = renames.collect::<Vec<_>>().join(", ");
    let advice = if advice.is_empty() { format!("{HEADER} are needed") } else { advice };
    format!("has no column {}: its first line is {:?}; {advice}", missing.join(", "), excerpt(header))
}

/// Returns the unit of a Unix time that is not in seconds, guessed from its size. Returns `None` for seconds.
pub(super) fn unit(timestamp: f64) -> Option<&'static str> {
    match timestamp {
        1e11..1e14 => Some("milliseconds"),
        1e14..1e17 => Some("microseconds"),
        1e17.. => Some("nanoseconds"),
        _ => None,
    }
}
