//! Plans of earlier queries. Clients plan a query two or three times: to prepare it, to read its schema and to execute it. Dashboards send
//! the same queries all day.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;

use super::tables::PublicTable;
use crate::late_table::LateTable;

/// Maximum number of kept plans. Each takes some ten kilobytes.
const PLANS_MAX: usize = 128;
/// Longest text whose plan is kept, in bytes.
const TEXT_BYTES_MAX: usize = 2048;
/// Maximum number of columns of all nodes of a kept plan. Each node has the columns of all its inputs, so a short text can have a large
/// plan.
const COLUMNS_MAX: usize = 2000;

/// Plans before the optimizer. The optimizer uses the present time, so its result cannot be kept.
#[derive(Debug, Default)]
pub(super) struct Plans(Mutex<HashMap<Key, LogicalPlan>>);

/// Schema of unqualified names, and text of the query.
type Key = (String, String);

impl Plans {
    pub(super) fn get(&self, schema: &str, text: &str) -> Option<LogicalPlan> {
        let plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        plans.get(&(schema.to_owned(), text.to_owned())).cloned()
    }

    /// Keeps a plan if it is small and reads only tables that each session resolves for itself. When there are too many plans, all others
    /// are dropped.
    pub(super) fn keep(&self, schema: &str, text: &str, plan: &LogicalPlan) -> Result<(), DataFusionError> {
        if text.len() > TEXT_BYTES_MAX || !can_be_kept(plan)? {
            return Ok(());
        }
        let mut plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() == PLANS_MAX {
            plans.clear();
        }
        plans.insert((schema.to_owned(), text.to_owned()), plan.clone());
        Ok(())
    }
}

fn can_be_kept(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let (mut can, mut columns) = (true, 0);
    plan.apply_with_subqueries(|node| {
        columns += node.schema().fields().len();
        can &= columns <= COLUMNS_MAX;
        if let LogicalPlan::TableScan(scan) = node {
            let table = source_as_provider(&scan.source);
            can &= table.is_ok_and(|table| table.downcast_ref::<LateTable<PublicTable>>().is_some());
        }
        Ok(if can { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(can)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::catalog::{CatalogProvider as _, MemTable, MemoryCatalogProvider, MemorySchemaProvider};
    use datafusion::execution::context::SessionContext;
    use datafusion::logical_expr::LogicalPlan;
    use datafusion::prelude::SessionConfig;

    use super::{PLANS_MAX, Plans, TEXT_BYTES_MAX};
    use crate::catalog::tables::PublicSchema;
    use crate::catalog::{CATALOG, PUBLIC};

    /// Returns a session with the public tables and an empty second schema.
    fn session() -> SessionContext {
        let config = SessionConfig::new()
            .with_information_schema(true)
            .with_default_catalog_and_schema(CATALOG, PUBLIC)
            .with_create_default_catalog_and_schema(false);
        let session = SessionContext::new_with_config(config);
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(PUBLIC, Arc::new(PublicSchema)).unwrap();
        catalog.register_schema("other", Arc::new(MemorySchemaProvider::new())).unwrap();
        session.register_catalog(CATALOG, Arc::new(catalog));
        session
    }

    async fn plan(session: &SessionContext, text: &str) -> LogicalPlan {
        session.sql(text).await.unwrap().logical_plan().clone()
    }

    async fn is_kept(text: &str) -> bool {
        let session = session();
        let candles = MemTable::try_new(schema::bronze::schema(), vec![Vec::new()]).unwrap();
        session.register_table("other.candles", Arc::new(candles)).unwrap();
        let plans = Plans::default();
        let plan = plan(&session, text).await;
        plans.keep(PUBLIC, text, &plan).unwrap();
        plans.get(PUBLIC, text).inspect(|kept| assert_eq!(*kept, plan)).is_some()
    }

    #[tokio::test]
    async fn plans_are_kept_that_are_small_and_of_no_one_session() {
        assert!(is_kept("SELECT 1").await);
        assert!(is_kept("SELECT now(), $1, count(*) FROM bronze b JOIN gold g ON b.symbol = g.symbol").await);
        for text in [
            "SELECT * FROM information_schema.tables",
            "SELECT * FROM bronze UNION ALL SELECT * FROM other.candles",
            "SELECT count(*) FROM bronze WHERE symbol IN (SELECT symbol FROM other.candles)",
        ] {
            assert!(!is_kept(text).await, "{text}");
        }
        assert!(!is_kept(&format!("SELECT '{}'", "x".repeat(TEXT_BYTES_MAX))).await);
        let tables: Vec<String> = (0..20).map(|number| format!("gold g{number}")).collect();
        assert!(!is_kept(&format!("SELECT 1 FROM {}", tables.join(", "))).await);
    }

    #[tokio::test]
    async fn the_same_text_in_another_schema_is_another_query() {
        let (session, plans, text) = (session(), Plans::default(), "SELECT * FROM bronze");
        plans.keep(PUBLIC, text, &plan(&session, text).await).unwrap();
        assert!(plans.get("system", text).is_none());
    }

    #[tokio::test]
    async fn the_cache_holds_a_bounded_number_of_plans() {
        let (session, plans) = (session(), Plans::default());
        let plan = plan(&session, "SELECT 1").await;
        let texts: Vec<String> = (0..=PLANS_MAX).map(|text| text.to_string()).collect();
        for text in &texts {
            plans.keep(PUBLIC, text, &plan).unwrap();
        }
        let kept = texts.iter().filter(|text| plans.get(PUBLIC, text).is_some()).count();
        assert!((1..=PLANS_MAX).contains(&kept), "{kept} are kept");
        assert!(plans.get(PUBLIC, &texts[PLANS_MAX]).is_some(), "the newest is kept");
    }
}
