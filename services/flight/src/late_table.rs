//! Adaptor for tables whose rows are chosen when a query scans the table. The schema of such a table is known before.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

/// Source of a table.
#[async_trait]
pub(crate) trait Resolve: Debug + Send + Sync + 'static {
    /// Returns the schema of the table.
    fn schema(&self) -> SchemaRef;

    /// Returns the table for one scan.
    async fn resolve(&self, state: &dyn Session) -> Result<Arc<dyn TableProvider>, DataFusionError>;
}

/// Table of a [`Resolve`]. A logical plan that names it depends on no rows, so that the plan can be kept, and planning waits for no store.
#[derive(Debug)]
pub(crate) struct LateTable<R>(pub(crate) R);

#[async_trait]
impl<R: Resolve> TableProvider for LateTable<R> {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        self.0.resolve(state).await?.scan(state, projection, filters, limit).await
    }
}
