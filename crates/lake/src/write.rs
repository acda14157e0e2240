//! Writing of rows to Parquet files: the rows of each file, their order and their encoding.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Date32Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use bytes::Bytes;
use deltalake_core::kernel::Add;
use futures::{StreamExt, TryStreamExt};
use object_store::PutMode;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use schema::{DATE, EVENT_TIME, SYMBOL};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::LakeError;
use crate::clock::now_millis;
use crate::encoders;
use crate::file::{add_action, date_text};
use crate::spec::{Order, TableSpec};
use crate::store::TableStore;

/// Rows of a row group, the unit that a reader decodes: about 6 MiB of bronze.
const ROW_GROUP_ROWS_MAX: usize = 65_536;
/// Rows of a page, the unit that a reader can skip.
const PAGE_ROWS_MAX: usize = 8_192;
/// Most files that are put at once. The latency of a put is tens of milliseconds, and a flush of many dates has thousands of small files.
const PUTS_MAX: usize = 64;
/// Most rows of the files that are encoded and put at once, unless one file has more: about 20 MB encoded.
const PUT_ROWS_MAX: u32 = 524_288;

/// The place of a row: index of the batch, index of the row.
type RowIndex = (usize, usize);

/// The rows of one file, in the table's order.
pub(crate) struct FileRows {
    date: i32,
    rows: Vec<RowIndex>,
}

/// Columns that divide rows into files and order them.
enum Keys<'a> {
    Offset { date: &'a [i32], partition: &'a [i32], offset: &'a [i64] },
    Key { date: &'a [i32], symbol: &'a arrow::array::StringArray, time: &'a [i64] },
}

/// Splits rows into files. Bronze is split by date and Kafka partition, and ordered by offset. Gold is split by date, and ordered by symbol
/// and event time.
///
/// With `last_wins`, only the last row in `batches` stays of all rows that share a place in the order.
pub(crate) fn split(
    spec: &TableSpec,
    batches: &[RecordBatch],
    last_wins: bool,
) -> Result<Vec<FileRows>, LakeError> {
    let keys: Vec<Keys<'_>> = batches.iter().map(|batch| Keys::new(spec, batch)).collect::<Result<_, _>>()?;
    let mut files: BTreeMap<(i32, i32), Vec<RowIndex>> = BTreeMap::new();
    // This loops over rows, because a file takes its rows from many batches. Runs of rows of one file make it cheap.
    for (batch, keys) in keys.iter().enumerate() {
        let mut row = 0;
        while row < batches[batch].num_rows() {
            let file = keys.file(row);
            let rows = files.entry(file).or_default();
            while row < batches[batch].num_rows() && keys.file(row) == file {
                rows.push((batch, row));
                row += 1;
            }
        }
    }
    let compare = |left: &RowIndex, right: &RowIndex| keys[left.0].compare(left.1, &keys[right.0], right.1);
    for rows in files.values_mut() {
        if !rows.is_sorted_by(|left, right| compare(left, right).is_le()) {
            rows.sort_by(compare);
        }
        if last_wins {
            // `dedup` keeps the first of equal rows, so the order is reversed around it.
            rows.reverse();
            rows.dedup_by(|left, right| compare(left, right).is_eq());
            rows.reverse();
        }
    }
    Ok(files.into_iter().map(|((date, _), rows)| FileRows { date, rows }).collect())
}

/// Encodes and puts `files`, and returns their add actions. On return, the files are durable but not yet in any table.
pub(crate) async fn put_files(
    spec: &Arc<TableSpec>,
    store: &TableStore,
    batches: Vec<RecordBatch>,
    files: Vec<FileRows>,
    data_change: bool,
) -> Result<Vec<Add>, LakeError> {
    let batches: Arc<[RecordBatch]> = batches.into();
    let room = Semaphore::new(PUT_ROWS_MAX as usize);
    let puts = files.into_iter().map(|file| {
        let rows = u32::try_from(file.rows.len()).unwrap_or(u32::MAX).min(PUT_ROWS_MAX);
        let put = put_file(Arc::clone(spec), store.clone(), Arc::clone(&batches), file, data_change);
        let room = &room;
        async move {
            let _held = room.acquire_many(rows).await.expect("the semaphore is never closed");
            put.await
        }
    });
    futures::stream::iter(puts).buffer_unordered(PUTS_MAX).try_collect().await
}

async fn put_file(
    spec: Arc<TableSpec>,
    store: TableStore,
    batches: Arc<[RecordBatch]>,
    file: FileRows,
    data_change: bool,
) -> Result<Add, LakeError> {
    let path =
        Path::from_iter([format!("{DATE}={}", date_text(file.date)), format!("{}.parquet", Uuid::new_v4())]);
    let name = path.clone();
    let encoded = encoders::spawn(move || {
        let batch = file.gather(&batches).map_err(|source| LakeError::Rows { table: spec.name, source })?;
        let bytes =
            encode(&spec, &batch).map_err(|source| LakeError::Parquet { path: name.to_string(), source })?;
        let add = add_action(&name, bytes.len(), file.date, &batch, now_millis(), data_change);
        Ok::<_, LakeError>((bytes, add))
    });
    let doing = || format!("put the data file {path}");
    let (bytes, add) = encoded.await.map_err(|error| LakeError::store(doing())(error.into()))??;
    store.put(&path, bytes, PutMode::Overwrite).await.map_err(LakeError::store(doing()))?;
    Ok(add)
}

/// Returns true if this crate has named the file: the name is a UUID alone, which no other engine uses.
pub(crate) fn is_ours(path: &Path) -> bool {
    let name = path.filename().and_then(|name| name.strip_suffix(".parquet"));
    name.is_some_and(|name| Uuid::try_parse(name).is_ok())
}

impl FileRows {
    /// Returns the date that the file's rows share.
    pub(crate) fn date(&self) -> i32 {
        self.date
    }

    /// Copies the file's rows out of `batches`.
    pub(crate) fn gather(&self, batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        interleave_record_batch(&batches, &self.rows)
    }
}

impl<'a> Keys<'a> {
    fn new(spec: &TableSpec, batch: &'a RecordBatch) -> Result<Self, LakeError> {
        if batch.schema_ref() != &spec.schema {
            let text =
                format!("the rows have the schema {} but must have {}", batch.schema_ref(), spec.schema);
            return Err(LakeError::Rows { table: spec.name, source: ArrowError::SchemaError(text) });
        }
        let column = |name| -> &'a ArrayRef { batch.column_by_name(name).expect("the schema was compared") };
        let date = column(DATE).as_primitive::<Date32Type>().values();
        Ok(match spec.order {
            Order::Offset => Keys::Offset {
                date,
                partition: column(schema::bronze::KAFKA_PARTITION).as_primitive::<Int32Type>().values(),
                offset: column(schema::bronze::KAFKA_OFFSET).as_primitive::<Int64Type>().values(),
            },
            Order::Key => Keys::Key {
                date,
                symbol: column(SYMBOL).as_string(),
                time: column(EVENT_TIME).as_primitive::<TimestampMicrosecondType>().values(),
            },
        })
    }

    fn file(&self, row: usize) -> (i32, i32) {
        match self {
            Keys::Offset { date, partition, .. } => (date[row], partition[row]),
            Keys::Key { date, .. } => (date[row], 0),
        }
    }

    fn compare(&self, row: usize, other: &Keys<'_>, other_row: usize) -> std::cmp::Ordering {
        match (self, other) {
            (Keys::Offset { offset, .. }, Keys::Offset { offset: others, .. }) => {
                offset[row].cmp(&others[other_row])
            }
            (Keys::Key { symbol, time, .. }, Keys::Key { symbol: symbols, time: times, .. }) => {
                symbol.value(row).cmp(symbols.value(other_row)).then(time[row].cmp(&times[other_row]))
            }
            _ => unreachable!("all keys of one call come from one table"),
        }
    }
}

fn encode(spec: &TableSpec, batch: &RecordBatch) -> Result<Bytes, ParquetError> {
    let stored: Vec<usize> =
        (0..batch.num_columns()).filter(|index| batch.schema_ref().field(*index).name() != DATE).collect();
    let batch = batch.project(&stored)?;
    // The Arrow schema would take a kilobyte in every file. The Parquet types already express all of it.
    let options = ArrowWriterOptions::new().with_properties(properties(spec)).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), batch.schema(), options)?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?.into())
}

fn properties(spec: &TableSpec) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_data_page_row_count_limit(PAGE_ROWS_MAX)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(None)
        .set_dictionary_enabled(false);
    for field in spec.schema.fields() {
        let column = ColumnPath::from(field.name().as_str());
        properties = match field.data_type() {
            DataType::Utf8 => properties.set_column_dictionary_enabled(column, true),
            // Times and offsets grow in steps, so their differences take a bit or two.
            DataType::Int32 | DataType::Int64 | DataType::Timestamp(..) => {
                properties.set_column_encoding(column, Encoding::DELTA_BINARY_PACKED)
            }
            _ => properties,
        };
    }
    properties.build()
}
