//! A scan that checks files only when their turn comes, so that a query pays only for the files that it needs.
//!
//! DataFusion's own scan lists all files in the plan with all their statistics, and checks whether each can be skipped. With ten thousand
//! files, this takes longer than reading the few files that a query of the newest rows needs.

use std::cmp::Reverse;
use std::fmt::{self, Debug, Formatter};
use std::slice;
use std::sync::Arc;

use chrono::DateTime;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSource;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use futures::{TryStreamExt, stream};
use object_store::ObjectMeta;
use schema::{DATE, EVENT_TIME};

use super::statistics::{Bounds, predicate, statistics};
use crate::file::DataFile;

/// Maximum number of files that a partition takes at a time.
const RUN_MAX: usize = 32;
/// Minimum number of runs that the rest of a share is cut into. By the next run, the filters may exclude more.
const RUNS_LEFT: usize = 4;

/// Files, and the scan that reads them.
#[derive(Clone, Debug)]
pub(super) struct FilesSource {
    /// Files in the order in which they are read. They are dealt to the partitions one by one. A share therefore does not depend on an
    /// earlier execution that was cut short. A plan that is executed again reads each file once.
    files: Arc<[Arc<DataFile>]>,
    /// The scan that reads the files. It has a file group for each partition, without files.
    scan: FileScanConfig,
}

impl FilesSource {
    /// Returns a source that reads `files` as `scan` does, the newest first. A query of the last rows gets them at once, and skips the
    /// files that cannot hold later rows.
    pub(super) fn new(mut files: Vec<Arc<DataFile>>, scan: FileScanConfig, partitions: usize) -> Self {
        files.sort_by_key(|file| Reverse((file.date, file.event_time)));
        let none = vec![FileGroup::default(); partitions];
        let scan = FileScanConfigBuilder::from(scan).with_file_groups(none).build();
        FilesSource { files: files.into(), scan }
    }

    /// Returns the files of a partition, in the order in which they are read.
    fn share(&self, partition: usize) -> Vec<Arc<DataFile>> {
        self.files.iter().skip(partition).step_by(self.scan.file_groups.len().max(1)).cloned().collect()
    }

    /// Takes the next files of a share that may hold matching rows, as far as the filters are known by now. Returns no files at the end.
    fn take(&self, share: &[Arc<DataFile>], taken: &mut usize) -> Vec<Arc<DataFile>> {
        let filter = self.scan.file_source.filter();
        let mut looked_at = RUN_MAX;
        loop {
            let left = &share[*taken..];
            let run_max = (left.len() / RUNS_LEFT).clamp(1, RUN_MAX);
            let next = &left[..left.len().min(looked_at)];
            let kept = match &filter {
                // The reader checks each file as well, so an earlier check pays only if several files are left.
                Some(filter) if left.len() > 1 => {
                    let schema = self.scan.file_source.table_schema().table_schema();
                    // If this check cannot decide, the reader decides row by row.
                    predicate(Arc::clone(schema), Arc::clone(filter))
                        .and_then(|predicate| predicate.prune(&Bounds(next)))
                        .unwrap_or_else(|_| vec![true; next.len()])
                }
                _ => vec![true; next.len()],
            };
            let run: Vec<usize> = (0..next.len()).filter(|index| kept[*index]).take(run_max).collect();
            *taken += run.get(run_max - 1).map_or(next.len(), |last| last + 1);
            if !run.is_empty() || next.is_empty() {
                return run.into_iter().map(|index| Arc::clone(&next[index])).collect();
            }
            // The next check covers twice as many files. Even many files without matching rows are thus skipped in a few steps.
            looked_at *= 2;
        }
    }

    fn open_run(
        &self,
        files: &[Arc<DataFile>],
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let group = files.iter().map(|file| self.partitioned_file(file)).collect();
        let scan =
            FileScanConfigBuilder::from(self.scan.clone()).with_file_groups(vec![FileGroup::new(group)]);
        scan.build().open(0, context)
    }

    fn partitioned_file(&self, file: &Arc<DataFile>) -> PartitionedFile {
        let meta = ObjectMeta {
            location: file.path.clone(),
            last_modified: DateTime::from_timestamp_millis(file.modified_millis).unwrap_or_default(),
            size: file.bytes,
            e_tag: None,
            version: None,
        };
        let stored = self.scan.file_source.table_schema().file_schema().fields();
        PartitionedFile::new_from_meta(meta)
            .with_partition_values(vec![ScalarValue::Date32(Some(file.date))])
            .with_statistics(Arc::new(statistics(stored, slice::from_ref(file))))
    }

    /// Returns a source of the same files, with the scan that the optimizer has changed.
    fn with_scan(&self, scan: &Arc<dyn DataSource>) -> Arc<dyn DataSource> {
        let scan: &FileScanConfig = scan.downcast_ref().expect("the optimizer keeps a file scan a file scan");
        Arc::new(FilesSource { files: Arc::clone(&self.files), scan: scan.clone() })
    }
}

impl DataSource for FilesSource {
    fn open(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.scan.projected_schema()?;
        let share = self.share(partition);
        let runs = stream::try_unfold((self.clone(), share, 0), move |(source, share, mut taken)| {
            let context = Arc::clone(&context);
            async move {
                let files = source.take(&share, &mut taken);
                if files.is_empty() {
                    return Ok(None);
                }
                let rows = source.open_run(&files, context)?;
                Ok::<_, DataFusionError>(Some((rows, (source, share, taken))))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, runs.try_flatten())))
    }

    fn fmt_as(&self, kind: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        let schema = self.scan.projected_schema().map_err(|_| fmt::Error)?;
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let (files, columns) = (self.files.len(), columns.join(", "));
        match kind {
            DisplayFormatType::TreeRender => writeln!(f, "files={files}\ncolumns={columns}")?,
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "files={files}, columns=[{columns}]")?;
            }
        }
        self.scan.file_source.fmt_extra(kind, f)
    }

    fn repartitioned(
        &self,
        partitions: usize,
        file_bytes_min: usize,
        ordering: Option<LexOrdering>,
    ) -> Result<Option<Arc<dyn DataSource>>> {
        if self.files.len() >= partitions {
            return Ok(None);
        }
        // If there are fewer files than partitions, large files are cut into ranges, as DataFusion does.
        let groups = self.files.iter().map(|file| FileGroup::new(vec![self.partitioned_file(file)]));
        let scan = FileScanConfigBuilder::from(self.scan.clone()).with_file_groups(groups.collect());
        scan.build().repartitioned(partitions, file_bytes_min, ordering)
    }

    fn output_partitioning(&self) -> Partitioning {
        self.scan.output_partitioning()
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        self.scan.eq_properties()
    }

    fn scheduling_type(&self) -> SchedulingType {
        self.scan.scheduling_type()
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        self.scan.partition_statistics(partition)
    }

    fn with_fetch(&self, _limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        // Each run of files would apply its own limit.
        None
    }

    fn fetch(&self) -> Option<usize> {
        None
    }

    fn metrics(&self) -> ExecutionPlanMetricsSet {
        self.scan.metrics()
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn DataSource>>> {
        let swapped = self.scan.try_swapping_with_projection(projection)?;
        Ok(swapped.map(|scan| self.with_scan(&scan)))
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn DataSource>>> {
        let pushed = self.scan.try_pushdown_filters(filters, config)?;
        let updated_node = pushed.updated_node.map(|scan| self.with_scan(&scan));
        Ok(FilterPushdownPropagation { filters: pushed.filters, updated_node })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn DataSource>>> {
        let by_time = order.first().filter(|first| {
            let column = first.expr.downcast_ref::<Column>();
            column.is_some_and(|column| [DATE, EVENT_TIME].contains(&column.name()))
        });
        let Some(first) = by_time else { return Ok(SortOrderPushdownResult::Unsupported) };
        let mut source = self.clone();
        // Row groups are also read in this order.
        if let SortOrderPushdownResult::Inexact { inner } =
            self.scan.file_source.try_pushdown_sort(order, &self.scan.eq_properties())?
        {
            source.scan.file_source = inner;
        }
        if !first.options.descending {
            source.files = self.files.iter().rev().map(Arc::clone).collect();
        }
        Ok(SortOrderPushdownResult::Inexact { inner: Arc::new(source) })
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.scan.apply_expressions(f)
    }
}
