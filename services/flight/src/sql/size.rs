//! Limits of the size of a plan. A short text can describe a plan of any size. Each join has the columns of all tables before it. A `WITH`
//! that names another `WITH` ten times contains ten copies of its plan.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, GroupingSet, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    Query, Select, SelectItem, Statement, TableFactor, Visit as _, Visitor,
};

use crate::error::CallError;

/// Maximum number of tables, subqueries and functions that a text reads from.
const TABLES_MAX: usize = 300;
/// Maximum number of columns in all lists of a text.
const COLUMNS_MAX: usize = 5_000;
/// Column count of `*`: slightly more than the columns of the widest table.
const WILDCARD_COLUMNS: usize = 25;
/// Maximum number of nodes of a plan.
const NODES_MAX: usize = 5_000;
/// Maximum number of columns of all nodes of a plan. They take a few hundred megabytes while the plan is optimized.
const NODE_COLUMNS_MAX: usize = 500_000;
/// Maximum number of grouping sets of an aggregate: those of a cube of nine columns.
const GROUPINGS_MAX: usize = 512;

/// Checks how many tables and columns a text reads, before it is planned.
///
/// # Errors
///
/// [`CallError::BadRequest`] if there are too many.
pub(crate) fn check_statement(statement: &Statement) -> Result<(), CallError> {
    let mut size = Size::default();
    let ControlFlow::Continue(()) = statement.visit(&mut size);
    check("tables and subqueries", size.tables, TABLES_MAX)?;
    check("columns in its lists", size.columns, COLUMNS_MAX)
}

/// Checks the size of a plan before the optimizer runs, which takes time and memory for each node.
///
/// # Errors
///
/// [`CallError::BadRequest`] if the plan is too large.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<(), CallError> {
    let (mut nodes, mut columns, mut groupings) = (0, 0, 0);
    plan.apply_with_subqueries(|node| {
        nodes += 1;
        if let LogicalPlan::Aggregate(aggregate) = node {
            let sets = aggregate.group_expr.iter().map(sets);
            groupings = sets.fold(1_usize, usize::saturating_mul).max(groupings);
        }
        columns += node.schema().fields().len();
        let is_too_large = nodes > NODES_MAX || columns > NODE_COLUMNS_MAX;
        Ok::<_, DataFusionError>(if is_too_large {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    check("steps in its plan", nodes, NODES_MAX)?;
    check("columns in all steps of its plan", columns, NODE_COLUMNS_MAX)?;
    check("grouping sets", groupings, GROUPINGS_MAX)
}

/// Returns the number of sets in which a group expression groups each row.
fn sets(group: &Expr) -> usize {
    match group {
        Expr::GroupingSet(GroupingSet::Rollup(columns)) => columns.len() + 1,
        Expr::GroupingSet(GroupingSet::Cube(columns)) => u32::try_from(columns.len())
            .ok()
            .and_then(|count| 2_usize.checked_pow(count))
            .unwrap_or(usize::MAX),
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => sets.len(),
        _ => 1,
    }
}

fn check(what: &str, count: usize, max: usize) -> Result<(), CallError> {
    if count <= max {
        return Ok(());
    }
    Err(CallError::BadRequest(format!("the query has more than {max} {what}: split it into several queries")))
}

/// Numbers of tables and columns that a text reads. Each name of a `WITH` counts as everything that it stands for.
#[derive(Default)]
struct Size {
    tables: usize,
    columns: usize,
    /// Table counts of the queries that are being visited, the innermost last.
    open: Vec<usize>,
    /// Table count of each name.
    named: HashMap<String, usize>,
    /// Names of queries that are not visited yet, by the address of the query.
    names: HashMap<*const Query, String>,
}

impl Size {
    fn add(&mut self, tables: usize) {
        self.tables = self.tables.saturating_add(tables);
        if let Some(open) = self.open.last_mut() {
            *open = open.saturating_add(tables);
        }
    }
}

impl Visitor for Size {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        for named in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.names.insert(&raw const *named.query, named.alias.name.value.to_lowercase());
        }
        self.open.push(0);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let tables = self.open.pop().unwrap_or(0);
        match self.names.remove(&(&raw const *query)) {
            Some(name) => {
                let named = self.named.entry(name).or_default();
                *named = tables.max(*named);
            }
            None => {
                if let Some(open) = self.open.last_mut() {
                    *open = open.saturating_add(tables);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<Self::Break> {
        let name = if let TableFactor::Table { name, .. } = table {
            name.to_string().to_lowercase()
        } else {
            String::new()
        };
        let named = self.named.get(name.trim_matches('"')).copied();
        self.add(named.unwrap_or(1).max(1));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        let columns = |item: &SelectItem| match item {
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => WILDCARD_COLUMNS,
            _ => 1,
        };
        self.columns += select.projection.iter().map(columns).sum::<usize>();
        ControlFlow::Continue(())
    }
}
