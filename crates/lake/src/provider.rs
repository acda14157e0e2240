//! A snapshot and hot batches as one DataFusion table.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::slice;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{FieldRef, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, DFSchema, Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use object_store::ObjectMeta;
use schema::bronze::{KAFKA_OFFSET, KAFKA_PARTITION};
use schema::{DATE, EVENT_TIME, SYMBOL};

use crate::file::DataFile;
use crate::snapshot::Snapshot;

/// Returns one table over the rows of `snapshot` and of `hot`, which have the table's schema and are not in the snapshot.
///
/// Needs nothing registered: a scan makes the store known to the session it runs in. Files are pruned by the statistics of the
/// log; without filters `count(*)` is answered from them.
pub fn provider(snapshot: Snapshot, hot: Vec<RecordBatch>) -> Arc<dyn TableProvider> {
    Arc::new(LakeTable { snapshot, hot })
}

#[derive(Debug)]
struct LakeTable {
    snapshot: Snapshot,
    hot: Vec<RecordBatch>,
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.snapshot.0.spec.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // They skip files, row groups and pages; single rows are left to the filter above.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        let files = self.prune(state, filters)?;
        if !files.is_empty() {
            inputs.push(self.scan_files(state, &files, projection, limit)?);
        }
        if !self.hot.is_empty() || inputs.is_empty() {
            inputs.push(MemorySourceConfig::try_new_exec(
                slice::from_ref(&self.hot),
                self.schema(),
                projection.cloned(),
            )?);
        }
        match <[_; 1]>::try_from(inputs) {
            Ok([input]) => Ok(input),
            Err(inputs) => UnionExec::try_new(inputs),
        }
    }
}

impl LakeTable {
    fn prune(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<Arc<DataFile>>> {
        let files = &self.snapshot.0.files;
        let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(files.clone()) };
        let filter = state.create_physical_expr(filter, &DFSchema::try_from(self.schema())?)?;
        let predicate = PruningPredicateBuilder::new().with_file_schema(self.schema()).try_build(filter)?;
        let kept = predicate.prune(&FileBounds(files))?;
        Ok(files.iter().zip(kept).filter(|(_, kept)| *kept).map(|(file, _)| Arc::clone(file)).collect())
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        files: &[Arc<DataFile>],
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let store = &self.snapshot.0.store;
        let url = ObjectStoreUrl::parse(&store.name)?;
        let runtime = state.runtime_env();
        runtime.register_object_store(url.as_ref(), Arc::clone(&store.objects));
        let (date, stored): (Vec<FieldRef>, Vec<FieldRef>) =
            self.schema().fields().iter().cloned().partition(|field| field.name() == DATE);
        let stored = Fields::from(stored);
        let schema = TableSchema::builder(Arc::new(Schema::new(stored.clone())))
            .with_table_partition_cols(date)
            .build();
        let cache = runtime.cache_manager.get_file_metadata_cache();
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..Default::default()
        };
        let source =
            ParquetSource::new(schema).with_table_parquet_options(options).with_parquet_file_reader_factory(
                Arc::new(CachedParquetFileReaderFactory::new(Arc::clone(&store.objects), cache)),
            );
        let files_each = files.len().div_ceil(state.config().target_partitions());
        let ordered = newest_first(files);
        let groups = ordered.chunks(files_each).map(|files| {
            let files = files.iter().map(|file| partitioned_file(file, &stored));
            FileGroup::new(files.collect())
        });
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups.collect())
            .with_statistics(statistics(self.schema().fields(), files))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Orders files as they are read: whoever wants the last rows has them at once, and skips the files that cannot hold later ones.
fn newest_first(files: &[Arc<DataFile>]) -> Vec<Arc<DataFile>> {
    let mut files = files.to_vec();
    files.sort_by_key(|file| Reverse((file.date, file.event_time)));
    files
}

fn partitioned_file(file: &Arc<DataFile>, stored: &Fields) -> PartitionedFile {
    let meta = ObjectMeta {
        location: file.path.clone(),
        last_modified: DateTime::from_timestamp_millis(file.modified_millis).unwrap_or_default(),
        size: file.bytes,
        e_tag: None,
        version: None,
    };
    PartitionedFile::new_from_meta(meta)
        .with_partition_values(vec![ScalarValue::Date32(Some(file.date))])
        .with_statistics(Arc::new(statistics(stored, slice::from_ref(file))))
}

/// Sums up what the log knows: exact counts and offsets; exact symbols and times where all files were written here.
fn statistics(fields: &Fields, files: &[Arc<DataFile>]) -> Statistics {
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

/// Returns between which values a column lies, `None` where a file does not say.
fn bounds(column: &str, files: &[Arc<DataFile>]) -> Option<(ScalarValue, ScalarValue)> {
    fn over<'a, T: Ord + 'a>(
        bounds: impl Iterator<Item = Option<&'a (T, T)>> + Clone,
    ) -> Option<(&'a T, &'a T)> {
        // What is absent is less than any value.
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

/// The bounds of the files in the log, as DataFusion's pruning asks for them: an array for each column, an entry for each file.
struct FileBounds<'a>(&'a [Arc<DataFile>]);

impl FileBounds<'_> {
    fn values(&self, column: &Column, greatest: bool) -> Option<ArrayRef> {
        fn pick<T: Clone>(bounds: Option<&(T, T)>, greatest: bool) -> Option<T> {
            bounds.map(|(least, most)| if greatest { most.clone() } else { least.clone() })
        }
        let files = self.0.iter();
        Some(match column.name() {
            DATE => Arc::new(files.map(|file| Some(file.date)).collect::<Date32Array>()),
            SYMBOL => {
                Arc::new(files.map(|file| pick(file.symbol.as_ref(), greatest)).collect::<StringArray>())
            }
            KAFKA_PARTITION => {
                Arc::new(files.map(|file| pick(file.partition.as_ref(), greatest)).collect::<Int32Array>())
            }
            KAFKA_OFFSET => {
                Arc::new(files.map(|file| pick(file.offset.as_ref(), greatest)).collect::<Int64Array>())
            }
            EVENT_TIME => {
                let times: TimestampMicrosecondArray =
                    files.map(|file| pick(file.event_time.as_ref(), greatest)).collect();
                Arc::new(times.with_timezone("UTC"))
            }
            _ => return None,
        })
    }
}

impl PruningStatistics for FileBounds<'_> {
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
        // The columns with bounds are never null.
        self.values(column, false).map(|_| Arc::new(UInt64Array::from_value(0, self.0.len())) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.0.iter().map(|file| file.rows).collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
