//! Watched functions on texts. Their time and memory do not follow from the number of rows. A text can be repeated a billion times, a
//! pattern compiled for each row, two texts compared letter by letter.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _};
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::exec_err;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{FunctionRegistry as _, SessionState};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, LogicalPlan, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::scalar::ScalarValue;

use super::pace::Pace;
use super::{Guard, Watch};

/// Functions that are bounded and watched.
const NAMES: [&str; 12] = [
    "concat",
    "levenshtein",
    "lpad",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "rpad",
    "to_char",
];
/// Largest text that a function may create, in bytes: more than any column holds.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// Largest text that a pattern may search, in bytes.
const SEARCHED_BYTES_MAX: u64 = 1 << 20;
/// Maximum number of pairs of letters that a function compares for one row.
const PAIRS_MAX: u64 = 100_000_000;

/// Bounds the functions of all sessions that are created from `state`.
///
/// # Errors
///
/// Errors of the engine.
pub(crate) fn bound_functions(state: &mut SessionState) -> Result<()> {
    for name in NAMES {
        let inner = state.udf(name)?;
        let aliases = inner.aliases().to_vec();
        state.register_udf(Arc::new(
            Bounded { inner, aliases, watched: None, pace: Pace::default() }.into(),
        ))?;
    }
    Ok(())
}

/// Watches the bounded functions of an optimized plan.
///
/// # Errors
///
/// Errors of the engine.
pub(super) fn watch_functions(plan: LogicalPlan, guard: &Guard) -> Result<LogicalPlan> {
    let watch_function = |expression: Expr| {
        let Expr::ScalarFunction(mut function) = expression else { return Ok(Transformed::no(expression)) };
        let Some(bounded) = function.func.inner().downcast_ref::<Bounded>() else {
            return Ok(Transformed::no(Expr::ScalarFunction(function)));
        };
        let (inner, aliases) = (Arc::clone(&bounded.inner), bounded.aliases.clone());
        // The function's result stays in memory at least until its next rows arrive.
        let watched = Some((guard.watch.clone(), guard.memory("texts that functions make")));
        function.func = Arc::new(Bounded { inner, aliases, watched, pace: Pace::default() }.into());
        Ok(Transformed::yes(Expr::ScalarFunction(function)))
    };
    plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expression| expression.transform_up(watch_function))
    })
    .data()
}

/// Function that rejects rows whose computation would exceed the limits. The function can be stopped between two rows.
#[derive(Debug)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    aliases: Vec<String>,
    /// `None` while the query is planned.
    watched: Option<(Watch, MemoryReservation)>,
    pace: Pace,
}

impl Bounded {
    /// Checks how much one row needs.
    fn check(&self, arguments: &[ColumnarValue], row: usize) -> Result<()> {
        let length = |index: usize| arguments.get(index).map_or(0, |argument| text_bytes(argument, row));
        let (first, second, third) = (length(0), length(1), length(2));
        let count = || arguments.get(1).map_or(0, |argument| whole_number(argument, row));
        let (made, searched) =
            (("make a text of", "bytes", TEXT_BYTES_MAX), ("search a text of", "bytes", SEARCHED_BYTES_MAX));
        let (size, (verb, unit, max)) = match self.inner.name() {
            "repeat" => (first.saturating_mul(count()), made),
            // A letter takes at most four bytes.
            "lpad" | "rpad" => (count().saturating_mul(4), made),
            // No part of a format expands to more bytes than this.
            "to_char" => (second.saturating_mul(32), made),
            "concat" => ((0..arguments.len()).map(length).fold(0, u64::saturating_add), made),
            "replace" => {
                let places = first / second.max(1) + 1;
                (places.saturating_mul(third).saturating_add(first), made)
            }
            "regexp_replace" if first <= SEARCHED_BYTES_MAX => {
                ((first + 1).saturating_mul(third).saturating_add(first), made)
            }
            "levenshtein" => (first.saturating_mul(second), ("compare", "pairs of letters", PAIRS_MAX)),
            _ => (first, searched),
        };
        if size > max {
            return exec_err!(
                "{} would {verb} {size} {unit}, and at most {max} are allowed: use shorter texts",
                self.inner.name()
            );
        }
        Ok(())
    }

    fn invoke_slice(&self, arguments: &ScalarFunctionArgs, first: usize, count: usize) -> Result<ArrayRef> {
        let slice = |argument: &ColumnarValue| match argument {
            ColumnarValue::Array(values) => ColumnarValue::Array(values.slice(first, count)),
            scalar @ ColumnarValue::Scalar(_) => scalar.clone(),
        };
        let args: Vec<_> = arguments.args.iter().map(slice).collect();
        (0..count).try_for_each(|row| self.check(&args, row))?;
        self.inner
            .invoke_with_args(ScalarFunctionArgs {
                args,
                arg_fields: arguments.arg_fields.clone(),
                number_rows: count,
                return_field: Arc::clone(&arguments.return_field),
                config_options: Arc::clone(&arguments.config_options),
            })?
            .into_array(count)
    }
}

/// Returns the length of a text in bytes, or an upper bound of it.
fn text_bytes(argument: &ColumnarValue, row: usize) -> u64 {
    let bytes = match argument {
        ColumnarValue::Scalar(value) if value.is_null() => 0,
        ColumnarValue::Scalar(value) => value.try_as_str().flatten().map_or_else(|| value.size(), str::len),
        ColumnarValue::Array(values) if values.is_null(row) => 0,
        ColumnarValue::Array(values) => match values.data_type() {
            DataType::Utf8 => values.as_string::<i32>().value(row).len(),
            DataType::LargeUtf8 => values.as_string::<i64>().value(row).len(),
            DataType::Utf8View => values.as_string_view().value(row).len(),
            _ => values.get_array_memory_size(),
        },
    };
    bytes as u64
}

/// Returns a count argument. The function itself rejects an argument that is not a number.
fn whole_number(argument: &ColumnarValue, row: usize) -> u64 {
    let number = match argument {
        ColumnarValue::Scalar(ScalarValue::Int64(number)) => number.unwrap_or(0),
        ColumnarValue::Scalar(value) if value.is_null() => 0,
        ColumnarValue::Array(values) if values.is_null(row) => 0,
        ColumnarValue::Array(values) => {
            values.as_primitive_opt::<Int64Type>().map_or(i64::MAX, |values| values.value(row))
        }
        ColumnarValue::Scalar(_) => i64::MAX,
    };
    u64::try_from(number).unwrap_or(0)
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        self.inner.schema_name(arguments)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_one = |argument: &ColumnarValue| matches!(argument, ColumnarValue::Scalar(_));
        if arguments.args.iter().all(is_one) {
            self.check(&arguments.args, 0)?;
            return self.inner.invoke_with_args(arguments);
        }
        let (watch, memory) = self.watched.as_ref().map(|(watch, memory)| (watch, memory)).unzip();
        let mut bytes = 0;
        let slices = self.pace.slices(arguments.number_rows, watch, |first, count| {
            let values = self.invoke_slice(&arguments, first, count)?;
            bytes += values.get_array_memory_size();
            memory.map_or(Ok(()), |memory| memory.try_resize(bytes))?;
            Ok(values)
        })?;
        match &slices[..] {
            [] => self.inner.invoke_with_args(arguments),
            [all] => Ok(ColumnarValue::Array(Arc::clone(all))),
            slices => {
                let slices: Vec<_> = slices.iter().map(AsRef::as_ref).collect();
                Ok(ColumnarValue::Array(concat(&slices)?))
            }
        }
    }

    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(arguments, context)
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn placement(&self, arguments: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.placement(arguments)
    }
}
