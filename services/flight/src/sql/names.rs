//! Columns of the same name. PostgreSQL allows them in a result, the engine does not: `SELECT close, close`, `SELECT *, close`, `SELECT 1,
//! 1`.
//!
//! Before planning, each column whose name is repeated gets its own alias. The alias is the name that PostgreSQL gives the column, a mark,
//! and the column's number. The marks are removed when rows are sent.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectNamePart, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, Statement,
    VisitMut, VisitorMut, visit_expressions,
};

/// Separator between a column's name and its number in the list. No column name of this server contains it.
const MARK: char = '\u{1}';

/// Gives the columns in all parts of a statement distinct names.
pub(crate) fn distinguish(statement: &mut Statement) {
    let ControlFlow::Continue(()) = VisitMut::visit(statement, &mut Distinguish);
}

/// Returns a result's schema with the names that the client receives.
pub(crate) fn given(schema: &SchemaRef) -> SchemaRef {
    if !schema.fields().iter().any(|field| field.name().contains(MARK)) {
        return Arc::clone(schema);
    }
    let fields = schema.fields().iter().map(|field| {
        let (name, _) = field.name().split_once(MARK).unwrap_or((field.name(), ""));
        Arc::new(field.as_ref().clone().with_name(name))
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// Returns rows with the names that the client receives.
///
/// # Errors
///
/// Never: the columns do not change.
pub(crate) fn rename(rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = given(rows.schema_ref());
    if Arc::ptr_eq(&schema, rows.schema_ref()) {
        return Ok(rows);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let (_, columns, _) = rows.into_parts();
    RecordBatch::try_new_with_options(schema, columns, &options)
}

struct Distinguish;

impl VisitorMut for Distinguish {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        let computed = query.order_by.as_ref().map(computed_with).unwrap_or_default();
        distinguish_set(&mut query.body, &computed);
        ControlFlow::Continue(())
    }
}

/// Returns the names that an `ORDER BY` computes with. They refer to columns of the tables, not of the result.
fn computed_with(order: &OrderBy) -> HashSet<String> {
    let mut names = HashSet::new();
    let OrderByKind::Expressions(expressions) = &order.kind else { return names };
    for expression in expressions.iter().map(|order| &order.expr) {
        if matches!(expression, Expr::Identifier(_)) {
            continue;
        }
        let ControlFlow::Continue(()) = visit_expressions(expression, |part| {
            if let Expr::Identifier(name) = part {
                names.insert(normalized(name));
            }
            ControlFlow::<std::convert::Infallible>::Continue(())
        });
    }
    names
}

fn distinguish_set(set: &mut SetExpr, computed: &HashSet<String>) {
    match set {
        SetExpr::Select(select) => distinguish_columns(select, computed),
        SetExpr::SetOperation { left, right, .. } => {
            distinguish_set(left, computed);
            distinguish_set(right, computed);
        }
        // Queries in brackets are visited separately.
        _ => (),
    }
}

fn distinguish_columns(select: &mut Select, computed: &HashSet<String>) {
    let is_wild =
        |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let has_wildcard = select.projection.iter().any(is_wild);
    // `HAVING` and `QUALIFY` would resolve an alias. In PostgreSQL they resolve the tables' columns.
    let hides = select.having.is_some() || select.qualify.is_some();
    let mut counts: HashMap<String, usize> = HashMap::new();
    let keys: Vec<Option<String>> = select.projection.iter().map(key).collect();
    for key in keys.iter().flatten() {
        *counts.entry(key.clone()).or_default() += 1;
    }
    let mut first = HashSet::new();
    for (index, (item, key)) in select.projection.iter_mut().zip(keys).enumerate() {
        let Some(key) = key else { continue };
        let comes_again = counts[&key] > 1;
        let is_first = first.insert(key);
        let (expression, name, mark) = match &*item {
            SelectItem::UnnamedExpr(column @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))) => {
                (column, name(column), has_wildcard || !is_first)
            }
            // The engine names a cast after its operand, including the table.
            SelectItem::UnnamedExpr(cast @ Expr::Cast { .. }) => {
                let Some(name) = name(cast).or(comes_again.then(unnamed)) else { continue };
                let is_hidden = hides || computed.contains(&name);
                (cast, Some(name), is_hidden || has_wildcard || !is_first)
            }
            SelectItem::UnnamedExpr(other) if comes_again => (other, name(other), true),
            SelectItem::ExprWithAlias { expr, alias } => {
                (expr, Some(normalized(alias)), !is_first || (has_wildcard && is_of_a_table(alias)))
            }
            _ => continue,
        };
        let is_cast = matches!(item, SelectItem::UnnamedExpr(Expr::Cast { .. }));
        if !mark && !is_cast {
            continue;
        }
        let mut alias = name.unwrap_or_else(unnamed);
        if mark {
            alias = format!("{alias}{MARK}{index}");
        }
        let expr = expression.clone();
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', alias) };
    }
}

/// Returns the key that two columns share if the engine gives them the same name. Returns `None` if that name is unknown.
fn key(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(column) => match without_casts(column) {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => name(column),
            other => Some(other.to_string().to_lowercase()),
        },
        SelectItem::ExprWithAlias { alias, .. } => Some(normalized(alias)),
        _ => None,
    }
}

/// Returns a column without its casts, because the engine leaves them out of names.
fn without_casts(column: &Expr) -> Expr {
    struct Casts;
    impl VisitorMut for Casts {
        type Break = std::convert::Infallible;

        fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Self::Break> {
            while let Expr::Cast { expr, .. } | Expr::Nested(expr) = expression {
                let inner = std::mem::replace(&mut **expr, Expr::Identifier(Ident::new("")));
                *expression = inner;
            }
            ControlFlow::Continue(())
        }
    }
    let mut column = column.clone();
    let ControlFlow::Continue(()) = VisitMut::visit(&mut column, &mut Casts);
    column
}

/// Returns the name that PostgreSQL gives a column, or `None` if that is `?column?`.
fn name(column: &Expr) -> Option<String> {
    match column {
        Expr::Identifier(name) => Some(normalized(name)),
        Expr::CompoundIdentifier(names) => names.last().map(normalized),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => name(expr),
        Expr::Function(function) => match function.name.0.last() {
            Some(ObjectNamePart::Identifier(name)) => Some(normalized(name)),
            _ => None,
        },
        Expr::Case { .. } => Some("case".to_owned()),
        Expr::Extract { .. } => Some("extract".to_owned()),
        _ => None,
    }
}

fn unnamed() -> String {
    "?column?".to_owned()
}

fn normalized(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// Returns true if `bronze` or `gold` has a column of that name. A wildcard may stand for that column.
fn is_of_a_table(name: &Ident) -> bool {
    let name = normalized(name);
    [schema::bronze::schema(), schema::gold::schema()]
        .iter()
        .any(|table| table.field_with_name(&name).is_ok())
}
