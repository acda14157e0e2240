//! A snapshot and hot batches as one DataFusion table.

mod files;
mod statistics;

use std::slice;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::{DFSchema, Result};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use schema::DATE;

use self::files::FilesSource;
use self::statistics::{Bounded, Bounds, predicate, statistics};
use crate::file::DataFile;
use crate::snapshot::Snapshot;

/// Returns one table over the rows of `snapshot` and `hot`. The batches in `hot` have the table's schema, and their rows are not in the
/// snapshot.
///
/// The caller need not register anything: a scan registers the store in its session. The log's statistics prune files, and the batches' own
/// statistics prune hot batches. Without filters, statistics also answer `count(*)`.
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
        // Filters skip files, row groups and pages. The filter above the scan removes single rows.
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
        let (files, hot) = self.prune(state, filters)?;
        if !files.is_empty() {
            inputs.push(self.scan_files(state, files, projection, limit)?);
        }
        if !hot.is_empty() || inputs.is_empty() {
            inputs.push(MemorySourceConfig::try_new_exec(
                slice::from_ref(&hot),
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
    /// Returns the files and the hot batches that may hold rows that match `filters`.
    fn prune(&self, state: &dyn Session, filters: &[Expr]) -> Result<(Vec<Arc<DataFile>>, Vec<RecordBatch>)> {
        let files = &self.snapshot.0.files;
        let Some(filter) = conjunction(filters.iter().cloned()) else {
            return Ok((files.clone(), self.hot.clone()));
        };
        let filter = state.create_physical_expr(filter, &DFSchema::try_from(self.schema())?)?;
        let predicate = predicate(self.schema(), filter)?;
        Ok((kept(files, &predicate)?, kept(&self.hot, &predicate)?))
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        files: Vec<Arc<DataFile>>,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let store = &self.snapshot.0.store;
        let url = ObjectStoreUrl::parse(&store.name)?;
        let runtime = state.runtime_env();
        runtime.register_object_store(url.as_ref(), Arc::clone(&store.objects));
        let (date, stored): (Vec<FieldRef>, Vec<FieldRef>) =
            self.schema().fields().iter().cloned().partition(|field| field.name() == DATE);
        let schema =
            TableSchema::builder(Arc::new(Schema::new(stored))).with_table_partition_cols(date).build();
        let cache = runtime.cache_manager.get_file_metadata_cache();
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..Default::default()
        };
        let source =
            ParquetSource::new(schema).with_table_parquet_options(options).with_parquet_file_reader_factory(
                Arc::new(CachedParquetFileReaderFactory::new(Arc::clone(&store.objects), cache)),
            );
        let scan = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_statistics(statistics(self.schema().fields(), &files))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        let partitions = state.config().target_partitions().min(files.len());
        Ok(DataSourceExec::from_data_source(FilesSource::new(files, scan, partitions)))
    }
}

fn kept<P: Bounded + Clone>(parts: &[P], predicate: &PruningPredicate) -> Result<Vec<P>> {
    let kept = predicate.prune(&Bounds(parts))?;
    Ok(parts.iter().zip(kept).filter(|(_, kept)| *kept).map(|(part, _)| part.clone()).collect())
}
