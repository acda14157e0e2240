//! Operators that check the stop flag at every batch.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::JoinType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildStats, DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, PlanProperties,
    RecordBatchStream, ReplaceChildrenOptions, SendableRecordBatchStream, Statistics, StatisticsArgs,
};
use futures::Stream;

use super::expression::{Watched, watch_slow};
use super::{Guard, Watch, window};

/// Copies of collected rows in memory: as they came, and concatenated.
const COPIES: usize = 2;

/// Largest limit that an aggregate applies while it reads its groups.
const GROUPS_MAX: usize = 10_000;

/// Watches an optimized plan: the output of each operator, and the long computations before any output.
pub(super) fn watch(plan: Arc<dyn ExecutionPlan>, guard: &Guard) -> Result<Arc<dyn ExecutionPlan>> {
    // The properties of the original plan are kept. Otherwise the operators above would be planned again, without the filters that scans
    // share with them.
    let properties = Arc::clone(plan.properties());
    let inputs: Vec<_> = plan.children().into_iter().cloned().collect();
    let inputs = inputs.into_iter().map(|input| watch(input, guard)).collect::<Result<_>>()?;
    let plan = replace_children_if_necessary(plan, inputs)?;
    let inner = watch_inside(&plan, guard)?.unwrap_or(plan);
    Ok(Arc::new(WatchedPlan { inner, properties, watch: guard.watch.clone(), held: None }))
}

/// Returns `input`, with its rows counted as memory of the query until its plan ends. The operator that collects them does not count them.
pub(super) fn counted(input: Arc<dyn ExecutionPlan>, guard: &Guard) -> Arc<dyn ExecutionPlan> {
    let held = Some(Arc::new(guard.memory("rows of windows")));
    Arc::new(WatchedPlan {
        properties: Arc::clone(input.properties()),
        inner: input,
        watch: guard.watch.clone(),
        held,
    })
}

/// Returns the operator with its own expressions watched, or `None` if none of them takes long.
fn watch_inside(plan: &Arc<dyn ExecutionPlan>, guard: &Guard) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        let Some(filter) = join.filter() else { return Ok(None) };
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(Some(watched_filter(filter, guard)?));
        return Ok(Some(Arc::new(join.build()?)));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let filter = match (join.filter(), join.join_type()) {
            (Some(filter), _) => watched_filter(filter, guard)?,
            // These joins return rows only after all pairs of equal keys, which can be billions.
            (
                None,
                JoinType::LeftSemi
                | JoinType::RightSemi
                | JoinType::LeftAnti
                | JoinType::RightAnti
                | JoinType::LeftMark
                | JoinType::RightMark,
            ) => watched_filter(&JoinFilter::new(lit(true), Vec::new(), Arc::new(Schema::empty())), guard)?,
            (None, _) => return Ok(None),
        };
        return Ok(Some(join.builder().with_filter(Some(filter)).build_exec()?));
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let expressions = projection.expr().iter().map(|column| &column.expr);
        let Some(expressions) = watch_slow(expressions, guard)? else { return Ok(None) };
        let columns = projection.expr().iter().zip(expressions);
        let columns = columns.map(|(column, expr)| ProjectionExpr { expr, alias: column.alias.clone() });
        let (input, schema) = (Arc::clone(projection.input()), projection.schema());
        let projection = ProjectionExec::try_new_with_schema_metadata(columns, input, &schema)?;
        return Ok(Some(Arc::new(projection)));
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let Some(predicate) = watch_slow([filter.predicate()].into_iter(), guard)? else { return Ok(None) };
        let filter = FilterExecBuilder::from(filter).with_predicate(Arc::clone(&predicate[0]));
        return Ok(Some(Arc::new(filter.build()?)));
    }
    if let Some(groups) = plan.downcast_ref::<AggregateExec>() {
        // The aggregate allocates a place for each group of the limit at once. An operator above applies the limit itself.
        let is_large = groups.limit_options().is_some_and(|options| options.limit() > GROUPS_MAX);
        return Ok(is_large.then(|| Arc::new(groups.with_new_limit_options(None)) as _));
    }
    if let Some(windows) = plan.downcast_ref::<WindowAggExec>() {
        return window::watch_whole(windows, guard).map(Some);
    }
    if let Some(windows) = plan.downcast_ref::<BoundedWindowAggExec>() {
        return window::watch_bounded(windows, guard).map(Some);
    }
    Ok(None)
}

fn watched_filter(filter: &JoinFilter, guard: &Guard) -> Result<JoinFilter> {
    let expression = Watched::over(filter.expression(), guard)?;
    Ok(JoinFilter::new(expression, filter.column_indices().to_vec(), Arc::clone(filter.schema())))
}

/// Operator that behaves and is displayed like the operator that it wraps.
#[derive(Debug)]
pub(super) struct WatchedPlan {
    inner: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    watch: Watch,
    /// Memory that counts all rows.
    held: Option<Arc<MemoryReservation>>,
}

impl WatchedPlan {
    fn with(&self, inner: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        let (properties, watch) = (Arc::clone(inner.properties()), self.watch.clone());
        let held = self.held.as_ref().map(|held| Arc::new(held.new_empty()));
        Arc::new(WatchedPlan { inner, properties, watch, held })
    }
}

impl DisplayAs for WatchedPlan {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_as(kind, f)
    }
}

impl ExecutionPlan for WatchedPlan {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        Some(&*self.inner)
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn dynamic_expressions_produced(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.dynamic_expressions_produced()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.inner.input_distribution_requirements()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.inner.maintains_input_order()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inner.children()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.with(Arc::clone(&self.inner).replace_children(children, options)?))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.with(replace_children_if_necessary(Arc::clone(&self.inner), children)?))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.with(Arc::clone(&self.inner).reset_state()?))
    }

    fn with_new_state(&self, state: Arc<dyn std::any::Any + Send + Sync>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(self.with(self.inner.with_new_state(state)?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let inner = self.inner.execute(partition, context)?;
        Ok(Box::pin(WatchedStream { inner, watch: self.watch.clone(), held: self.held.clone() }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.inner.metrics()
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.inner.child_stats_requests(partition)
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        self.inner.statistics_from_inputs(inputs, args)
    }

    fn fetch(&self) -> Option<usize> {
        self.inner.fetch()
    }
}

/// Watched batches of an operator.
struct WatchedStream {
    inner: SendableRecordBatchStream,
    watch: Watch,
    held: Option<Arc<MemoryReservation>>,
}

impl Stream for WatchedStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(stopped) = self.watch.check() {
            return Poll::Ready(Some(Err(stopped)));
        }
        let batch = ready!(self.inner.as_mut().poll_next(context));
        if let (Some(Ok(rows)), Some(held)) = (&batch, &self.held) {
            held.try_grow(rows.get_array_memory_size() * COPIES)?;
        }
        Poll::Ready(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl RecordBatchStream for WatchedStream {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }
}
