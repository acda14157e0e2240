//! A scan of files that are looked at only when their turn comes, so that a query pays for the files it needs and not for all there are.
//!
//! DataFusion's own scan lists each file in the plan, with all that is known of it, and asks of each whether it can be skipped: of ten
//! thousand files that takes longer than to read the few that a query of the newest rows needs.

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

/// Files that a partition takes at a time at most.
const RUN_MAX: usize = 32;
/// Into how many runs what is left of a share is cut at least: the filters may know more by the next one.
const RUNS_LEFT: usize = 4;

/// Files, and how they are read.
#[derive(Clone, Debug)]
pub(super) struct FilesSource {
    /// In the order in which they are read. Dealt out to the partitions one by one: a share depends on nothing that an execution has done
    /// before it was cut short, so that a plan which is executed again reads each file once.
    files: Arc<[Arc<DataFile>]>,
    /// Reads them; has a group for each partition, without a file.
    scan: FileScanConfig,
}

impl FilesSource {
    /// Reads `files` as `scan` does, the newest first: whoever wants the last rows has them at once, and skips the files that
    /// cannot hold later ones.
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

    /// Takes the next files of a share that may hold rows which the filters leave, as far as these are known by now; none at the end.
    fn take(&self, share: &[Arc<DataFile>], taken: &mut usize) -> Vec<Arc<DataFile>> {
        let filter = self.scan.file_source.filter();
        let mut looked_at = RUN_MAX;
        loop {
            let left = &share[*taken..];
            let run_max = (left.len() / RUNS_LEFT).clamp(1, RUN_MAX);
            let next = &left[..left.len().min(looked_at)];
            let kept = match &filter {
                // The reader looks at each file, too; before it only many are worth a look.
                Some(filter) if left.len() > 1 => {
                    let schema = self.scan.file_source.table_schema().table_schema();
                    // What cannot be decided here is decided row by row.
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
            // So that the files that a filter leaves none of are skipped in a few steps, however many they are.
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

    /// Reads the same files as the optimizer has changed the scan.
    fn with_scan(&self, scan: &Arc<dyn DataSource>) -> Arc<dyn DataSource> {
        let scan: &FileScanConfig = scan.downcast_ref().expect("a scan of files stays one");
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
        // Fewer files than partitions are cut into ranges, if they are large, as DataFusion does it.
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
        // Each run of files would have its own.
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
        // Row groups, too, are read in this order.
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
