//! Watched expressions, which can take long before their operator returns any rows.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat;
use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, LikeExpr};

use super::Guard;
use super::pace::Pace;

/// Expression that checks the stop flag at every evaluation.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Arc<dyn PhysicalExpr>,
    guard: Guard,
    /// Present if single rows can take long: a pattern is compiled for each row, or a text is joined from many.
    pace: Option<Pace>,
}

impl Watched {
    pub(super) fn over(inner: &Arc<dyn PhysicalExpr>, guard: &Guard) -> Result<Arc<dyn PhysicalExpr>> {
        let pace = can_be_slow(inner)?.then(Pace::default);
        Ok(Arc::new(Watched { inner: Arc::clone(inner), guard: guard.clone(), pace }))
    }
}

/// Returns the expressions with the slow ones watched, or `None` if none is slow.
pub(super) fn watch_slow<'a>(
    expressions: impl Iterator<Item = &'a Arc<dyn PhysicalExpr>>,
    guard: &Guard,
) -> Result<Option<Vec<Arc<dyn PhysicalExpr>>>> {
    let (mut is_slow, mut all) = (false, Vec::new());
    for expression in expressions {
        let can_be_slow = can_be_slow(expression)?;
        is_slow |= can_be_slow;
        all.push(if can_be_slow { Watched::over(expression, guard)? } else { Arc::clone(expression) });
    }
    Ok(is_slow.then_some(all))
}

/// Returns true if a row can take long because of an operator on texts. Functions are watched separately.
fn can_be_slow(expression: &Arc<dyn PhysicalExpr>) -> Result<bool> {
    let mut is_slow = false;
    expression.apply(|part| {
        let operator = part.downcast_ref::<BinaryExpr>().map(BinaryExpr::op);
        is_slow |= part.is::<LikeExpr>()
            || matches!(
                operator,
                Some(
                    Operator::StringConcat
                        | Operator::RegexMatch
                        | Operator::RegexIMatch
                        | Operator::RegexNotMatch
                        | Operator::RegexNotIMatch
                )
            );
        Ok(if is_slow { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(is_slow)
}

impl PhysicalExpr for Watched {
    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        self.inner.return_field(input)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        self.guard.check()?;
        let Some(pace) = self.pace.as_ref().filter(|_| rows.num_rows() > 1) else {
            return self.inner.evaluate(rows);
        };
        let memory = self.guard.memory("texts");
        let slices = pace.slices(rows.num_rows(), Some(&self.guard.watch), |first, count| {
            let values = self.inner.evaluate(&rows.slice(first, count))?.into_array(count)?;
            memory.try_grow(values.get_array_memory_size())?;
            Ok(values)
        })?;
        if let [all] = &slices[..] {
            return Ok(ColumnarValue::Array(Arc::clone(all)));
        }
        let slices: Vec<_> = slices.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&slices)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Watched::over(children.first().unwrap_or(&self.inner), &self.guard)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        *self.inner == *other.inner
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}
