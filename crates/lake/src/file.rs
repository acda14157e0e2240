//! The facts about a data file in the Delta log: its path, its size and the bounds of its columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNumericType, AsArray, RecordBatch};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use chrono::{DateTime, NaiveDate, SecondsFormat};
use deltalake_core::kernel::{Add, Remove};
use object_store::path::Path;
use schema::bronze::{KAFKA_OFFSET, KAFKA_PARTITION};
use schema::{DATE, EVENT_TIME, SYMBOL};
use serde_json::{Map, Value, json};

/// Tag of the files that this crate writes. Their rows are in the table's order, and their statistics are exact. Another engine's OPTIMIZE
/// writes files without the tag.
const ORDERED_TAG: &str = "candleflight.ordered";
/// Microseconds by which the greatest time may exceed its statistics. Other engines cut times in statistics to milliseconds.
const TIME_CUT_MICROS: i64 = 999;

/// One file of a snapshot. Bounds are inclusive, and absent if the log has none.
#[derive(Debug)]
pub(crate) struct DataFile {
    /// Path relative to the table.
    pub(crate) path: Path,
    pub(crate) bytes: u64,
    pub(crate) modified_millis: i64,
    /// Days since the epoch: the partition value.
    pub(crate) date: i32,
    /// Number of rows. Absent for files of engines that do not count rows.
    pub(crate) rows: Option<u64>,
    /// True if this crate wrote the file. Its rows are then in the table's order, and its statistics are exact.
    pub(crate) ordered: bool,
    pub(crate) symbol: Option<(String, String)>,
    pub(crate) event_time: Option<(i64, i64)>,
    pub(crate) partition: Option<(i32, i32)>,
    pub(crate) offset: Option<(i64, i64)>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Statistics {
    num_records: Option<u64>,
    min_values: HashMap<String, Value>,
    max_values: HashMap<String, Value>,
}

impl DataFile {
    /// Reads an add action. Returns `None` if it has no date or a negative size, which no engine writes.
    pub(crate) fn from_add(add: &Add) -> Option<Arc<DataFile>> {
        let date = date_of_text(add.partition_values.get(DATE)?.as_deref()?)?;
        let statistics: Statistics =
            add.stats.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let ordered = add.tags.as_ref().is_some_and(|tags| tags.contains_key(ORDERED_TAG));
        let both =
            |column: &str| Some((statistics.min_values.get(column)?, statistics.max_values.get(column)?));
        let int = |column| both(column).and_then(|(min, max)| Some((min.as_i64()?, max.as_i64()?)));
        let narrow = |(min, max): (i64, i64)| Some((i32::try_from(min).ok()?, i32::try_from(max).ok()?));
        let text = |(min, max): (&Value, &Value)| Some((min.as_str()?.to_owned(), max.as_str()?.to_owned()));
        let cut = if ordered { 0 } else { TIME_CUT_MICROS };
        let time = |(min, max): (&Value, &Value)| {
            Some((micros_of_text(min.as_str()?)?, micros_of_text(max.as_str()?)? + cut))
        };
        Some(Arc::new(DataFile {
            path: Path::parse(&add.path).unwrap_or_else(|_| Path::from(add.path.as_str())),
            bytes: u64::try_from(add.size).ok()?,
            modified_millis: add.modification_time,
            date,
            rows: statistics.num_records,
            ordered,
            symbol: both(SYMBOL).and_then(text),
            event_time: both(EVENT_TIME).and_then(time),
            partition: int(KAFKA_PARTITION).and_then(narrow),
            offset: int(KAFKA_OFFSET),
        }))
    }

    /// Returns the action that removes the file from the table.
    pub(crate) fn to_remove(&self, now_millis: i64, data_change: bool) -> Remove {
        Remove {
            path: self.path.to_string(),
            data_change,
            deletion_timestamp: Some(now_millis),
            extended_file_metadata: Some(true),
            partition_values: Some(partition_values(self.date)),
            size: i64::try_from(self.bytes).ok(),
            ..Remove::default()
        }
    }
}

/// Returns the add action of a file that holds `batch`, whose rows share one date.
pub(crate) fn add_action(
    path: &Path,
    bytes: usize,
    date: i32,
    batch: &RecordBatch,
    now_millis: i64,
    data_change: bool,
) -> Add {
    Add {
        path: path.to_string(),
        partition_values: partition_values(date),
        size: i64::try_from(bytes).expect("a file in memory is smaller than 2^63 bytes"),
        modification_time: now_millis,
        data_change,
        stats: Some(statistics(batch).to_string()),
        tags: Some(HashMap::from([(ORDERED_TAG.to_owned(), Some("true".to_owned()))])),
        ..Add::default()
    }
}

/// Formats a date as in Delta's partition values and Hive's paths: `2024-01-31`.
pub(crate) fn date_text(days: i32) -> String {
    let date = Date32Type::to_naive_date_opt(days);
    date.map_or_else(|| format!("day {days}"), |date| date.format("%Y-%m-%d").to_string())
}

fn partition_values(date: i32) -> HashMap<String, Option<String>> {
    HashMap::from([(DATE.to_owned(), Some(date_text(date)))])
}

fn date_of_text(text: &str) -> Option<i32> {
    Some(Date32Type::from_naive_date(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?))
}

fn micros_of_text(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}

/// Computes Delta's per-file statistics over every column that the file stores.
fn statistics(batch: &RecordBatch) -> Value {
    let (mut min_values, mut max_values, mut null_count) = (Map::new(), Map::new(), Map::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if field.name() == DATE {
            continue;
        }
        null_count.insert(field.name().clone(), json!(column.null_count()));
        if let Some((min, max)) = bounds(column) {
            min_values.insert(field.name().clone(), min);
            max_values.insert(field.name().clone(), max);
        }
    }
    json!({ "numRecords": batch.num_rows(), "minValues": min_values, "maxValues": max_values, "nullCount": null_count })
}

fn bounds(column: &ArrayRef) -> Option<(Value, Value)> {
    match column.data_type() {
        DataType::Int32 => primitive::<Int32Type>(column).map(|(min, max)| (json!(min), json!(max))),
        DataType::Int64 => primitive::<Int64Type>(column).map(|(min, max)| (json!(min), json!(max))),
        // JSON has no infinity, and NaN has no place in an order. Such a column gets no bounds, so it never excludes its file from a scan.
        DataType::Float64 => primitive::<Float64Type>(column)
            .filter(|(min, max)| min.is_finite() && max.is_finite())
            .map(|(min, max)| (json!(min), json!(max))),
        DataType::Timestamp(..) => {
            let (min, max) = primitive::<TimestampMicrosecondType>(column)?;
            let text = |micros| {
                Some(json!(
                    DateTime::from_timestamp_micros(micros)?.to_rfc3339_opts(SecondsFormat::AutoSi, true)
                ))
            };
            Some((text(min)?, text(max)?))
        }
        DataType::Utf8 => {
            let column = column.as_string::<i32>();
            Some((json!(min_string(column)?), json!(max_string(column)?)))
        }
        _ => None,
    }
}

fn primitive<T: ArrowNumericType>(column: &ArrayRef) -> Option<(T::Native, T::Native)> {
    let column = column.as_primitive::<T>();
    Some((min(column)?, max(column)?))
}
