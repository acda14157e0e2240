//! The probable cause why a line holds no usable candle, for a person.

use super::layout::unit;
use super::{COLUMNS, bare};

/// Returns the column and the probable cause. `slots` come from the header. `reason` is the reason code of the rejection.
pub(super) fn hint(line: &str, slots: &[Option<usize>], reason: &'static str) -> String {
    if matches!(reason, "too_many_fields" | "comma_in_quotes") {
        return "the line has more fields than the header; if a number has thousands separators, write 42265.2, not 42,265.2"
            .to_owned();
    }
    let fields = || line.split(',').zip(slots).filter_map(|(field, slot)| Some((bare(field), (*slot)?)));
    let timestamp = fields().find(|(_, slot)| *slot == 0).map(|(field, _)| field).unwrap_or_default();
    match timestamp.parse().map(unit) {
        Ok(Some(unit)) => return format!("Timestamp is in {unit}; Unix seconds are needed"),
        Err(_) if timestamp.contains(['-', '/', ':']) => {
            return format!(
                "Timestamp {timestamp:?} is a date; Unix seconds are needed (date -u +%s -d {timestamp:?})"
            );
        }
        _ => (),
    }
    let wrong = fields().find(|(field, _)| field.parse::<f64>().is_err());
    match wrong {
        Some((field, slot)) => format!("{} is {field:?}, which is not a number", COLUMNS[slot]),
        None => reason.replace('_', " "),
    }
}
