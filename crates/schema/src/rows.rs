//! The rules of a candle, applied to the columns of bronze or gold.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, Float64Type, TimestampMicrosecondType};

use crate::candle::{Rejection, check_numbers, check_times, is_symbol};
use crate::{CLOSE, DATE, DAY_MICROS, EVENT_TIME, HIGH, KAFKA_TIME, LOW, OPEN, SYMBOL, VOLUME};

/// A row that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Index of the row in the batch.
    pub index: usize,
    /// Stable name of the rule.
    pub reason: &'static str,
}

/// Checks that each row of a batch is a candle that a message could hold, stored under its own date. The batch must have the schema of
/// bronze or of gold.
///
/// # Errors
///
/// [`BadRow`] for the first row that breaks a rule.
pub fn check(rows: &RecordBatch) -> Result<(), BadRow> {
    let column = |name| rows.column_by_name(name).expect("both tables have this column");
    let times = |name| column(name).as_primitive::<TimestampMicrosecondType>().values();
    let numbers = |name| column(name).as_primitive::<Float64Type>().values();
    let symbols = column(SYMBOL).as_string::<i32>();
    let (event_times, kafka_times) = (times(EVENT_TIME), times(KAFKA_TIME));
    let [open, high, low, close, volume] = [OPEN, HIGH, LOW, CLOSE, VOLUME].map(numbers);
    let dates = column(DATE).as_primitive::<Date32Type>().values();
    // This loops over rows because a rule needs several columns. A good batch takes a single pass.
    let mut before = "";
    for index in 0..rows.num_rows() {
        let bad = |rejection: Rejection| BadRow { index, reason: rejection.reason() };
        let symbol = symbols.value(index);
        if symbol != before && !is_symbol(symbol) {
            return Err(bad(Rejection::Symbol));
        }
        before = symbol;
        check_times(event_times[index], kafka_times[index]).map_err(bad)?;
        check_numbers([open[index], high[index], low[index], close[index], volume[index]]).map_err(bad)?;
        if event_times[index].div_euclid(DAY_MICROS) != i64::from(dates[index]) {
            return Err(BadRow { index, reason: "date_not_of_event_time" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
