//! Watched windows. They compute row by row over all collected rows, in memory that DataFusion does not count.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::window_state::WindowAggState;
use datafusion::logical_expr::{LimitEffect, PartitionEvaluator};
use datafusion::physical_expr::window::{StandardWindowExpr, StandardWindowFunctionExpr, WindowExpr};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::scalar::ScalarValue;

use super::plan::counted;
use super::{Guard, Watch};

/// Watches windows that collect all their rows before they compute.
///
/// # Errors
///
/// Errors of the engine.
pub(super) fn watch_whole(windows: &WindowAggExec, guard: &Guard) -> Result<Arc<dyn ExecutionPlan>> {
    let input = counted(Arc::clone(windows.input()), guard);
    // The optimizer has already decided whether the input can be split into partitions.
    let can_repartition = !windows.partition_keys().is_empty();
    Ok(Arc::new(WindowAggExec::try_new(watched(windows.window_expr(), guard), input, can_repartition)?))
}

/// Watches windows that compute while rows arrive.
///
/// # Errors
///
/// Errors of the engine.
pub(super) fn watch_bounded(windows: &BoundedWindowAggExec, guard: &Guard) -> Result<Arc<dyn ExecutionPlan>> {
    let (functions, input) = (watched(windows.window_expr(), guard), Arc::clone(windows.input()));
    let can_repartition = !windows.partition_keys().is_empty();
    let mode = windows.input_order_mode.clone();
    Ok(Arc::new(BoundedWindowAggExec::try_new(functions, input, mode, can_repartition)?))
}

/// Watches functions such as `nth_value`. Aggregates are already watched.
fn watched(functions: &[Arc<dyn WindowExpr>], guard: &Guard) -> Vec<Arc<dyn WindowExpr>> {
    let watched = |function: &Arc<dyn WindowExpr>| -> Arc<dyn WindowExpr> {
        let Some(standard) = function.as_any().downcast_ref::<StandardWindowExpr>() else {
            return Arc::clone(function);
        };
        let inner = Arc::clone(standard.get_standard_func_expr());
        let inner = Arc::new(WatchedFunction { inner, watch: guard.watch.clone() });
        let frame = Arc::clone(standard.get_window_frame());
        Arc::new(StandardWindowExpr::new(inner, standard.partition_by(), standard.order_by(), frame))
    };
    functions.iter().map(watched).collect()
}

/// Window function that checks the stop flag at every row.
#[derive(Debug)]
struct WatchedFunction {
    inner: Arc<dyn StandardWindowFunctionExpr>,
    watch: Watch,
}

impl StandardWindowFunctionExpr for WatchedFunction {
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn field(&self) -> Result<FieldRef> {
        self.inner.field()
    }

    fn expressions(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.expressions()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn evaluate_args(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.inner.evaluate_args(rows)
    }

    fn create_evaluator(&self) -> Result<Box<dyn PartitionEvaluator>> {
        let inner = self.inner.create_evaluator()?;
        Ok(Box::new(WatchedEvaluator { inner, watch: self.watch.clone() }))
    }

    fn get_result_ordering(&self, schema: &SchemaRef) -> Option<PhysicalSortExpr> {
        self.inner.get_result_ordering(schema)
    }

    fn limit_effect(&self) -> LimitEffect {
        self.inner.limit_effect()
    }
}

#[derive(Debug)]
struct WatchedEvaluator {
    inner: Box<dyn PartitionEvaluator>,
    watch: Watch,
}

impl PartitionEvaluator for WatchedEvaluator {
    fn memoize(&mut self, state: &mut WindowAggState) -> Result<()> {
        self.inner.memoize(state)
    }

    fn get_range(&self, row: usize, rows: usize) -> Result<Range<usize>> {
        self.inner.get_range(row, rows)
    }

    fn is_causal(&self) -> bool {
        self.inner.is_causal()
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        self.watch.check()?;
        self.inner.evaluate_all(values, rows)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        self.watch.check()?;
        self.inner.evaluate(values, range)
    }

    fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> Result<ArrayRef> {
        self.watch.check()?;
        self.inner.evaluate_all_with_rank(rows, ranks)
    }

    fn supports_bounded_execution(&self) -> bool {
        self.inner.supports_bounded_execution()
    }

    fn uses_window_frame(&self) -> bool {
        self.inner.uses_window_frame()
    }

    fn include_rank(&self) -> bool {
        self.inner.include_rank()
    }
}
