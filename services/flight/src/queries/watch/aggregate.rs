//! Watched aggregates of windows, which are computed again for every row.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::plan_err;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, LogicalPlan, ReversedUDAF, SetMonotonicity, Signature,
    WindowFunctionDefinition,
};
use datafusion::scalar::ScalarValue;

use super::Guard;

/// Largest value that is not counted, in bytes. Such values are about as large as the rows that they belong to.
const VALUE_BYTES_MAX: usize = 256;
/// Maximum number of centroids of an approximate percentile. 100 are usual.
const CENTROIDS_MAX: f64 = 10_000.0;

/// Watches the aggregates of all windows of an optimized plan. It takes the logical plan, because physical windows hide their parts.
///
/// # Errors
///
/// Errors of the engine.
pub(super) fn watch_aggregates(plan: LogicalPlan, guard: &Guard) -> Result<LogicalPlan> {
    let watch_function = |expression: Expr| {
        let Expr::WindowFunction(mut function) = expression else { return Ok(Transformed::no(expression)) };
        if let WindowFunctionDefinition::AggregateUDF(inner) = &function.fun {
            let watched = WatchedAggregate { inner: Arc::clone(inner), guard: guard.clone() };
            function.fun = WindowFunctionDefinition::AggregateUDF(Arc::new(watched.into()));
            return Ok(Transformed::yes(Expr::WindowFunction(function)));
        }
        Ok(Transformed::no(Expr::WindowFunction(function)))
    };
    plan.transform_up_with_subqueries(|node| {
        if !matches!(node, LogicalPlan::Window(_)) {
            return Ok(Transformed::no(node));
        }
        node.map_expressions(|expression| expression.transform_up(watch_function))
    })
    .data()
}

/// Checks the arguments by which aggregates size an allocation. Too large an allocation would end the process.
///
/// # Errors
///
/// An argument is too large.
pub(super) fn check_sizes(plan: &LogicalPlan) -> Result<()> {
    let check = |expression: &Expr| {
        let (name, arguments) = match expression {
            Expr::AggregateFunction(function) => (function.func.name(), &function.params.args),
            Expr::WindowFunction(function) => (function.fun.name(), &function.params.args),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        if !name.starts_with("approx_percentile_cont") {
            return Ok(TreeNodeRecursion::Continue);
        }
        for argument in arguments {
            let Expr::Literal(size, _) = argument else { continue };
            let size = size.cast_to(&DataType::Float64)?;
            if matches!(size, ScalarValue::Float64(Some(size)) if size > CENTROIDS_MAX) {
                return plan_err!("{name} keeps at most {CENTROIDS_MAX} centroids, not {size}");
            }
        }
        Ok(TreeNodeRecursion::Continue)
    };
    plan.apply_with_subqueries(|node| node.apply_expressions(|expression| expression.apply(check)))?;
    Ok(())
}

/// Aggregate function with watched accumulators.
#[derive(Debug)]
struct WatchedAggregate {
    inner: Arc<AggregateUDF>,
    guard: Guard,
}

impl WatchedAggregate {
    fn watched(&self, inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
        let memory = self.guard.memory("values of window functions");
        Box::new(WatchedAccumulator { inner, memory, guard: self.guard.clone() })
    }
}

impl PartialEq for WatchedAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for WatchedAggregate {}

impl Hash for WatchedAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl AggregateUDFImpl for WatchedAggregate {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn window_function_schema_name(&self, parameters: &WindowFunctionParams) -> Result<String> {
        self.inner.window_function_schema_name(parameters)
    }

    fn window_function_display_name(&self, parameters: &WindowFunctionParams) -> Result<String> {
        self.inner.window_function_display_name(parameters)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(arguments)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(self.watched(self.inner.accumulator(arguments)?))
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(self.watched(self.inner.create_sliding_accumulator(arguments)?))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(arguments)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.inner.reverse_udf() {
            ReversedUDAF::Reversed(inner) => {
                let reversed = WatchedAggregate { inner, guard: self.guard.clone() };
                ReversedUDAF::Reversed(Arc::new(reversed.into()))
            }
            other => other,
        }
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.is_descending()
    }

    fn default_value(&self, kind: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(kind)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn set_monotonicity(&self, kind: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(kind)
    }
}

/// Accumulator that checks the stop flag at every step.
#[derive(Debug)]
struct WatchedAccumulator {
    inner: Box<dyn Accumulator>,
    /// Memory of the large values that it has returned, for example a list for each row.
    memory: MemoryReservation,
    guard: Guard,
}

impl Accumulator for WatchedAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.guard.check()?;
        self.inner.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.guard.check()?;
        self.inner.retract_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.guard.check()?;
        let value = self.inner.evaluate()?;
        let bytes = value.size();
        if bytes > VALUE_BYTES_MAX {
            self.memory.try_grow(bytes)?;
        }
        Ok(value)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}
