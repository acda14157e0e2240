//! Reading of Parquet files: fetches the needed bytes, and decodes them off the runtime's threads.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Date32Array, RecordBatch};
use arrow::compute::kernels::cmp::{eq, gt_eq, lt};
use arrow::compute::{and, cast};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ArrowReaderOptions, RowFilter};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder};
use parquet::file::statistics::Statistics;
use position::OffsetRange;
use schema::DATE;
use schema::bronze::{KAFKA_OFFSET, KAFKA_PARTITION};

use crate::LakeError;
use crate::file::DataFile;
use crate::spec::TableSpec;
use crate::store::TableStore;

/// Bytes that the first request fetches from the end of a file if only some rows are wanted. They contain the footer of any file, and all
/// of most files.
const TAIL_BYTES: u64 = 512 * 1024;
/// Largest file that is fetched whole, in one request, when all its rows are wanted. Files of this crate with 131,072 rows are
/// always smaller.
const WHOLE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Rows of a decoded batch: a row group of this crate's files.
const BATCH_ROWS_MAX: usize = 65_536;

/// Reads a file's rows in the table's schema. With `only`, reads just the rows of that partition and those offsets.
pub(crate) async fn read_file(
    spec: Arc<TableSpec>,
    store: TableStore,
    file: Arc<DataFile>,
    only: Option<OffsetRange>,
) -> Result<Vec<RecordBatch>, LakeError> {
    let source = Source { store: &store, file: &file };
    let is_whole = only.is_none() && file.bytes <= WHOLE_BYTES_MAX;
    let tail = if is_whole { 0 } else { file.bytes.saturating_sub(TAIL_BYTES) }..file.bytes;
    let tail_bytes = source.fetch(std::slice::from_ref(&tail)).await?.pop().unwrap_or_default();
    // The index of the pages only serves to skip pages.
    let index = if only.is_some() { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
    let metadata = source.metadata(&tail, &tail_bytes, index).await?;
    let mut decoder = decoder(metadata, only).map_err(source.broken())?;
    if tail.start == 0 {
        decoder.push_range(tail, tail_bytes).map_err(source.broken())?;
    }
    let mut batches = Vec::new();
    loop {
        let decoded = tokio::task::spawn_blocking(move || decode(decoder));
        let decoded = decoded.await.map_err(|error| LakeError::store(source.doing())(error.into()))?;
        let (next, rows, ranges) = decoded.map_err(source.broken())?;
        for batch in rows {
            let conformed = conform(&spec, &batch, file.date);
            batches.push(conformed.map_err(|source| LakeError::Rows { table: spec.name, source })?);
        }
        let Some(ranges) = ranges else { return Ok(batches) };
        let bytes = source.fetch(&ranges).await?;
        decoder = next;
        decoder.push_ranges(ranges, bytes).map_err(source.broken())?;
    }
}

/// Reads whole files, `at_once` at a time. Each file comes with its rows, in the order of `files`.
pub(crate) fn read_files(
    spec: &Arc<TableSpec>,
    store: &TableStore,
    files: Vec<Arc<DataFile>>,
    at_once: usize,
) -> impl Stream<Item = Result<(Arc<DataFile>, Vec<RecordBatch>), LakeError>> + Send + use<> {
    let (spec, store) = (Arc::clone(spec), store.clone());
    let read = move |file: Arc<DataFile>| {
        let rows = read_file(Arc::clone(&spec), store.clone(), Arc::clone(&file), None);
        async move { Ok((file, rows.await?)) }
    };
    futures::stream::iter(files).map(read).buffered(at_once)
}

struct Source<'a> {
    store: &'a TableStore,
    file: &'a DataFile,
}

impl Source<'_> {
    async fn fetch(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, LakeError> {
        match self.store.objects.get_ranges(&self.file.path, ranges).await {
            Err(object_store::Error::NotFound { path, .. }) => Err(LakeError::Expired { path }),
            fetched => fetched.map_err(LakeError::store(self.doing())),
        }
    }

    async fn metadata(
        &self,
        tail: &Range<u64>,
        tail_bytes: &Bytes,
        index: PageIndexPolicy,
    ) -> Result<Arc<ParquetMetaData>, LakeError> {
        let mut decoder = ParquetMetaDataPushDecoder::try_new(self.file.bytes)
            .map_err(self.broken())?
            .with_page_index_policy(index);
        decoder.push_range(tail.clone(), tail_bytes.clone()).map_err(self.broken())?;
        loop {
            match decoder.try_decode().map_err(self.broken())? {
                DecodeResult::Data(metadata) => return Ok(Arc::new(metadata)),
                DecodeResult::NeedsData(ranges) => {
                    let bytes = self.fetch(&ranges).await?;
                    decoder.push_ranges(ranges, bytes).map_err(self.broken())?;
                }
                DecodeResult::Finished => {
                    return Err(self.broken()(ParquetError::General("the file has no footer".to_owned())));
                }
            }
        }
    }

    fn doing(&self) -> String {
        format!("read the data file {}", self.file.path)
    }

    fn broken(&self) -> impl Fn(ParquetError) -> LakeError + use<> {
        let path = self.file.path.to_string();
        move |source| LakeError::Parquet { path: path.clone(), source }
    }
}

fn decoder(
    metadata: Arc<ParquetMetaData>,
    only: Option<OffsetRange>,
) -> Result<ParquetPushDecoder, ParquetError> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let mut builder = ParquetPushDecoderBuilder::try_new_decoder_with_options(metadata, options)?
        .with_batch_size(BATCH_ROWS_MAX);
    if let Some(only) = only {
        let groups = builder.metadata().row_groups().iter().enumerate();
        let groups = groups.filter(|(_, group)| {
            let offsets = group.columns().iter().find(|column| column.column_path().string() == KAFKA_OFFSET);
            match offsets.and_then(|column| column.statistics()) {
                Some(Statistics::Int64(offsets)) => {
                    offsets.min_opt().is_none_or(|min| *min < only.next)
                        && offsets.max_opt().is_none_or(|max| *max >= only.first)
                }
                _ => true,
            }
        });
        let groups = groups.map(|(index, _)| index).collect();
        let columns = ProjectionMask::columns(builder.parquet_schema(), [KAFKA_PARTITION, KAFKA_OFFSET]);
        let filter = ArrowPredicateFn::new(columns, move |batch| within(&batch, only));
        builder = builder.with_row_groups(groups).with_row_filter(RowFilter::new(vec![Box::new(filter)]));
    }
    builder.build()
}

fn within(batch: &RecordBatch, only: OffsetRange) -> Result<BooleanArray, ArrowError> {
    let missing = || ArrowError::SchemaError("the file has no Kafka offsets".to_owned());
    let column = |name| batch.column_by_name(name).ok_or_else(missing);
    let partition = column(KAFKA_PARTITION)?.as_primitive_opt::<Int32Type>().ok_or_else(missing)?;
    let offset = column(KAFKA_OFFSET)?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
    let scalar = arrow::array::Int64Array::new_scalar;
    let offsets = and(&gt_eq(offset, &scalar(only.first))?, &lt(offset, &scalar(only.next))?)?;
    and(&offsets, &eq(partition, &arrow::array::Int32Array::new_scalar(only.partition))?)
}

type Decoded = (ParquetPushDecoder, Vec<RecordBatch>, Option<Vec<Range<u64>>>);

/// Decodes until the file ends (`None`) or more of its bytes are needed.
fn decode(mut decoder: ParquetPushDecoder) -> Result<Decoded, ParquetError> {
    let mut batches = Vec::new();
    loop {
        match decoder.try_decode()? {
            DecodeResult::Data(batch) => batches.push(batch),
            DecodeResult::NeedsData(ranges) => return Ok((decoder, batches, Some(ranges))),
            DecodeResult::Finished => return Ok((decoder, batches, None)),
        }
    }
}

/// Converts a file's columns to the table's schema: by name, and with the date, which only the path holds.
fn conform(spec: &TableSpec, batch: &RecordBatch, date: i32) -> Result<RecordBatch, ArrowError> {
    let columns = spec.schema.fields().iter().map(|field| {
        if field.name() == DATE {
            return Ok(Arc::new(Date32Array::from_value(date, batch.num_rows())) as _);
        }
        let column = batch.column_by_name(field.name());
        let column = column
            .ok_or_else(|| ArrowError::SchemaError(format!("the file has no column {}", field.name())))?;
        if column.data_type() == field.data_type() {
            Ok(Arc::clone(column))
        } else {
            cast(column, field.data_type())
        }
    });
    RecordBatch::try_new(Arc::clone(&spec.schema), columns.collect::<Result<_, _>>()?)
}
