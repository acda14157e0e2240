//! SQL on earlier states: `bronze_at(version)`, `bronze_at('{"0":128}')` and `gold_at(version)`.
//!
//! Bronze only grows, so bronze at a position is all rows below that position. Later changes of the files do not matter, and a version is a
//! position. Gold's rows are replaced, so an earlier gold consists of its own files until vacuum removes them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::prelude::{col, lit};
use lake::{LakeError, Snapshot};
use position::Position;
use schema::bronze::{KAFKA_OFFSET, KAFKA_PARTITION};

use crate::gold::table::GoldTable;
use crate::late_table::{LateTable, Resolve};

/// Name of the function that reads bronze.
pub(crate) const BRONZE_AT: &str = "bronze_at";
/// Name of the function that reads gold.
pub(crate) const GOLD_AT: &str = "gold_at";

/// Function [`BRONZE_AT`] on the bronze snapshot of a query.
#[derive(Debug)]
pub(crate) struct BronzeAt {
    pub(crate) durable: Snapshot,
    pub(crate) hot: Vec<RecordBatch>,
    /// Position that bronze had received when `hot` was taken, or shortly before.
    pub(crate) received: Position,
}

/// Function [`GOLD_AT`].
#[derive(Debug)]
pub(crate) struct GoldAt {
    pub(crate) gold: Arc<GoldTable>,
}

impl TableFunctionImpl for BronzeAt {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let moment = match args.exprs() {
            [Expr::Literal(ScalarValue::Utf8(Some(json)), _)] => match serde_json::from_str(json) {
                Ok(position) => Moment::Position(self.checked(position)?),
                Err(error) => {
                    return plan_err!("{json:?} is not a position such as '{{\"0\":128}}': {error}");
                }
            },
            arguments => match version_of(arguments) {
                Some(version) => Moment::Version(version),
                None => {
                    return plan_err!(
                        "write {BRONZE_AT}(12) for a Delta version or {BRONZE_AT}('{{\"0\":128}}') for the rows below these offsets"
                    );
                }
            },
        };
        let table = lake::provider(self.durable.clone(), self.hot.clone());
        Ok(Arc::new(LateTable(BronzeThen { table, durable: self.durable.clone(), moment })))
    }
}

impl BronzeAt {
    /// Rejects a position that bronze has not reached: the same query would return more rows later.
    fn checked(&self, position: Position) -> Result<Position> {
        let is_short = |(partition, next)| self.received.next(partition).unwrap_or(0) < next;
        if position.iter().any(is_short) {
            return plan_err!("bronze is at {} and has not reached {position}", self.received);
        }
        Ok(position)
    }
}

impl TableFunctionImpl for GoldAt {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let Some(version) = version_of(args.exprs()) else {
            return plan_err!("write {GOLD_AT}(12) for a Delta version");
        };
        Ok(Arc::new(LateTable(GoldThen { gold: Arc::clone(&self.gold), version })))
    }
}

fn version_of(arguments: &[Expr]) -> Option<u64> {
    match arguments {
        [Expr::Literal(ScalarValue::Int64(Some(version)), _)] => u64::try_from(*version).ok(),
        _ => None,
    }
}

#[derive(Debug)]
enum Moment {
    Version(u64),
    Position(Position),
}

/// Bronze at an earlier moment.
#[derive(Debug)]
struct BronzeThen {
    /// All of bronze.
    table: Arc<dyn TableProvider>,
    durable: Snapshot,
    moment: Moment,
}

/// Gold at an earlier version.
#[derive(Debug)]
struct GoldThen {
    gold: Arc<GoldTable>,
    version: u64,
}

#[async_trait]
impl Resolve for BronzeThen {
    fn schema(&self) -> SchemaRef {
        schema::bronze::schema()
    }

    async fn resolve(&self, _state: &dyn Session) -> Result<Arc<dyn TableProvider>> {
        let position = match &self.moment {
            Moment::Position(position) => position.clone(),
            Moment::Version(version) => {
                self.durable.at(*version).await.map_err(query_error)?.position().clone()
            }
        };
        let below = position.iter().map(|(partition, next)| {
            col(KAFKA_PARTITION).eq(lit(partition)).and(col(KAFKA_OFFSET).lt(lit(next)))
        });
        let plan = LogicalPlanBuilder::scan("bronze", provider_as_source(Arc::clone(&self.table)), None)?
            .filter(below.reduce(Expr::or).unwrap_or_else(|| lit(false)))?;
        Ok(Arc::new(ViewTable::new(plan.build()?, None)))
    }
}

#[async_trait]
impl Resolve for GoldThen {
    fn schema(&self) -> SchemaRef {
        schema::gold::schema()
    }

    async fn resolve(&self, _state: &dyn Session) -> Result<Arc<dyn TableProvider>> {
        let latest = self.gold.snapshot().await.map_err(query_error)?;
        let then = latest.at(self.version).await.map_err(query_error)?;
        then.check_files(&latest).await.map_err(query_error)?;
        Ok(lake::provider(then, Vec::new()))
    }
}

/// Maps an error to its cause: a missing version is an error of the query. A store that does not answer is an error of the lake.
fn query_error(error: LakeError) -> DataFusionError {
    match error {
        LakeError::Version { .. } => DataFusionError::Plan(error.to_string()),
        LakeError::Expired { .. } => DataFusionError::Plan(format!(
            "{error}: files that corrections or compaction have replaced are kept only for --vacuum-retention"
        )),
        error => DataFusionError::External(Box::new(error)),
    }
}
