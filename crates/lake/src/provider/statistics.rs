//! Statistics of files and hot batches, in the form that DataFusion needs before it reads them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowNumericType, AsArray, BooleanArray, Date32Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::{max, min};
use arrow::datatypes::{Date32Type, Fields, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use schema::bronze::{KAFKA_OFFSET, KAFKA_PARTITION};
use schema::{DATE, EVENT_TIME, SYMBOL};

use crate::file::DataFile;

/// Returns a predicate that decides whether a part of a table, a file or a hot batch, may hold rows that match `filter`.
pub(super) fn predicate(schema: SchemaRef, filter: Arc<dyn PhysicalExpr>) -> Result<PruningPredicate> {
    PruningPredicateBuilder::new().with_file_schema(schema).try_build(filter)
}

/// Combines the log's statistics. Counts, dates, partitions and offsets are exact. Symbols and times are exact if this crate wrote all
/// files.
pub(super) fn statistics(fields: &Fields, files: &[Arc<DataFile>]) -> Statistics {
    let rows: Option<usize> = files.iter().map(|file| usize::try_from(file.rows?).ok()).sum();
    let all_ordered = files.iter().all(|file| file.ordered);
    let columns = fields.iter().map(|field| {
        let exact = all_ordered || [KAFKA_PARTITION, KAFKA_OFFSET, DATE].contains(&field.name().as_str());
        let precision = if exact { Precision::Exact } else { Precision::Inexact };
        let (min_value, max_value) = bounds(field.name(), files)
            .map_or((Precision::Absent, Precision::Absent), |(min, max)| (precision(min), precision(max)));
        let null_count = if field.is_nullable() { Precision::Absent } else { Precision::Exact(0) };
        ColumnStatistics { null_count, min_value, max_value, ..ColumnStatistics::new_unknown() }
    });
    Statistics {
        num_rows: rows.map_or(Precision::Absent, Precision::Exact),
        total_byte_size: Precision::Absent,
        column_statistics: columns.collect(),
    }
}

/// Returns the least and the greatest value of a column. Returns `None` if a file has no bounds.
fn bounds(column: &str, files: &[Arc<DataFile>]) -> Option<(ScalarValue, ScalarValue)> {
    fn over<'a, T: Ord + 'a>(
        bounds: impl Iterator<Item = Option<&'a (T, T)>> + Clone,
    ) -> Option<(&'a T, &'a T)> {
        // An absent value is less than any other, so a single file without bounds makes the result `None`.
        let least = bounds.clone().map(|bounds| bounds.map(|(least, _)| least)).min()??;
        Some((least, bounds.flatten().map(|(_, greatest)| greatest).max()?))
    }
    let files = files.iter();
    match column {
        DATE => {
            let (min, max) = (files.clone().map(|file| file.date).min(), files.map(|file| file.date).max());
            Some((ScalarValue::Date32(min), ScalarValue::Date32(max)))
        }
        SYMBOL => over(files.map(|file| file.symbol.as_ref()))
            .map(|(min, max)| (ScalarValue::from(min.as_str()), ScalarValue::from(max.as_str()))),
        KAFKA_PARTITION => over(files.map(|file| file.partition.as_ref()))
            .map(|(min, max)| (ScalarValue::from(*min), ScalarValue::from(*max))),
        KAFKA_OFFSET => over(files.map(|file| file.offset.as_ref()))
            .map(|(min, max)| (ScalarValue::from(*min), ScalarValue::from(*max))),
        EVENT_TIME => {
            let time = |micros: &i64| ScalarValue::TimestampMicrosecond(Some(*micros), Some("UTC".into()));
            over(files.map(|file| file.event_time.as_ref())).map(|(min, max)| (time(min), time(max)))
        }
        _ => None,
    }
}

/// Inclusive bounds of the columns of a part of the table. They are `None` if they are not known.
pub(super) trait Bounded {
    fn date(&self) -> Option<(i32, i32)>;
    fn symbol(&self) -> Option<(&str, &str)>;
    fn event_time(&self) -> Option<(i64, i64)>;
    fn partition(&self) -> Option<(i32, i32)>;
    fn offset(&self) -> Option<(i64, i64)>;
    fn rows(&self) -> Option<u64>;
}

/// Bounds as recorded in the log.
impl Bounded for Arc<DataFile> {
    fn date(&self) -> Option<(i32, i32)> {
        Some((self.date, self.date))
    }

    fn symbol(&self) -> Option<(&str, &str)> {
        self.symbol.as_ref().map(|(least, greatest)| (least.as_str(), greatest.as_str()))
    }

    fn event_time(&self) -> Option<(i64, i64)> {
        self.event_time
    }

    fn partition(&self) -> Option<(i32, i32)> {
        self.partition
    }

    fn offset(&self) -> Option<(i64, i64)> {
        self.offset
    }

    fn rows(&self) -> Option<u64> {
        self.rows
    }
}

/// Bounds that are cheap to compute. Comparing the symbols would take as long as filtering the rows.
impl Bounded for RecordBatch {
    fn date(&self) -> Option<(i32, i32)> {
        bounds_of::<Date32Type>(self, DATE)
    }

    fn symbol(&self) -> Option<(&str, &str)> {
        None
    }

    fn event_time(&self) -> Option<(i64, i64)> {
        bounds_of::<TimestampMicrosecondType>(self, EVENT_TIME)
    }

    fn partition(&self) -> Option<(i32, i32)> {
        bounds_of::<Int32Type>(self, KAFKA_PARTITION)
    }

    fn offset(&self) -> Option<(i64, i64)> {
        bounds_of::<Int64Type>(self, KAFKA_OFFSET)
    }

    fn rows(&self) -> Option<u64> {
        u64::try_from(self.num_rows()).ok()
    }
}

fn bounds_of<T: ArrowNumericType>(batch: &RecordBatch, column: &str) -> Option<(T::Native, T::Native)> {
    let values = batch.column_by_name(column)?.as_primitive::<T>();
    Some((min(values)?, max(values)?))
}

/// The bounds of parts in the form that DataFusion's pruning needs: one array per column, one entry per part.
pub(super) struct Bounds<'a, P>(pub(super) &'a [P]);

impl<P: Bounded> Bounds<'_, P> {
    fn values(&self, column: &Column, greatest: bool) -> Option<ArrayRef> {
        fn pick<T>(bounds: Option<(T, T)>, greatest: bool) -> Option<T> {
            bounds.map(|(least, most)| if greatest { most } else { least })
        }
        let parts = self.0.iter();
        Some(match column.name() {
            DATE => Arc::new(parts.map(|part| pick(part.date(), greatest)).collect::<Date32Array>()),
            SYMBOL => Arc::new(parts.map(|part| pick(part.symbol(), greatest)).collect::<StringArray>()),
            KAFKA_PARTITION => {
                Arc::new(parts.map(|part| pick(part.partition(), greatest)).collect::<Int32Array>())
            }
            KAFKA_OFFSET => Arc::new(parts.map(|part| pick(part.offset(), greatest)).collect::<Int64Array>()),
            EVENT_TIME => {
                let times: TimestampMicrosecondArray =
                    parts.map(|part| pick(part.event_time(), greatest)).collect();
                Arc::new(times.with_timezone("UTC"))
            }
            _ => return None,
        })
    }
}

impl<P: Bounded> PruningStatistics for Bounds<'_, P> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, true)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        // Columns with bounds are never null. An empty list of parts already shows which columns have bounds.
        Bounds::<P>(&[]).values(column, false)?;
        Some(Arc::new(UInt64Array::from_value(0, self.0.len())))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.0.iter().map(Bounded::rows).collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
