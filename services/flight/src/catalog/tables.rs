//! The SQL tables `bronze` and `gold`.
//!
//! They hold no rows: a scan reads the [`QuerySnapshot`] of its session. So a logical plan depends on no snapshot and can be kept.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::internal_datafusion_err;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::TableType;
use tokio::sync::OnceCell;

use super::Catalog;
use crate::gold::table::GoldTable;
use crate::late_table::{LateTable, Resolve};

/// Snapshots of the tables for one query, as an extension of its session. Every reference to a table reads the same snapshot.
#[derive(Debug)]
pub(super) struct QuerySnapshot {
    bronze: Arc<dyn TableProvider>,
    /// Empty until a scan needs it, because reading gold's version costs a request to the lake.
    gold: OnceCell<Arc<dyn TableProvider>>,
    gold_log: Arc<GoldTable>,
}

impl QuerySnapshot {
    pub(super) fn new(bronze: Arc<dyn TableProvider>, gold_log: Arc<GoldTable>) -> Self {
        QuerySnapshot { bronze, gold: OnceCell::new(), gold_log }
    }

    async fn gold(&self) -> Result<&Arc<dyn TableProvider>, DataFusionError> {
        let open = async || {
            let gold = self.gold_log.snapshot().await;
            let gold = gold.map_err(|error| DataFusionError::External(Box::new(error)))?;
            Ok(lake::provider(gold, Vec::new()))
        };
        self.gold.get_or_try_init(open).await
    }
}

/// Either of the two tables.
#[derive(Debug)]
pub(super) struct PublicTable {
    is_gold: bool,
    schema: SchemaRef,
}

#[async_trait]
impl Resolve for PublicTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn resolve(&self, state: &dyn Session) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let snapshot = state.config().get_extension::<QuerySnapshot>();
        let snapshot =
            snapshot.ok_or_else(|| internal_datafusion_err!("the session has no snapshots of the tables"))?;
        let table = if self.is_gold { snapshot.gold().await? } else { &snapshot.bronze };
        Ok(Arc::clone(table))
    }
}

/// Schema of the two tables.
#[derive(Debug)]
pub(super) struct PublicSchema;

#[async_trait]
impl SchemaProvider for PublicSchema {
    fn table_names(&self) -> Vec<String> {
        proto::TABLES.map(str::to_owned).to_vec()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let table = |schema| Arc::new(LateTable(PublicTable { is_gold: name == proto::GOLD, schema })) as _;
        Ok(Catalog::schema(name).map(table))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        proto::TABLES.contains(&name)
    }
}
