//! Catalog for SQL: the tables `bronze` and `gold`, and the schema `system`. Each query reads one snapshot of both tables.

mod as_of;
mod plans;
pub(crate) mod schemas;
mod tables;

use std::fmt::Display;
use std::num::NonZero;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::available_parallelism;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
};
use datafusion::common::ParamValues;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionConfig;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement;
use datafusion_substrait::logical_plan::consumer::from_substrait_plan;
use datafusion_substrait::substrait::proto::Plan;
use futures::FutureExt as _;
use prost::Message as _;
use proto::ticket::{History, Margin};
use schema::candle::MAGNITUDE_MAX;
use schema::{KAFKA_TIME, bronze};
use service::status::Status;

use self::as_of::{BRONZE_AT, BronzeAt, GOLD_AT, GoldAt};
use self::plans::Plans;
use self::schemas::{CATALOG, PUBLIC};
use self::tables::{PublicSchema, QuerySnapshot};
use crate::bronze::buffer::HotBuffer;
use crate::error::CallError;
use crate::gold::table::GoldTable;
use crate::queries::{Queries, bound_functions};
use crate::request::RequestContext;
use crate::sql::depth::check_depth;
use crate::sql::prepared::Query;
use crate::sql::{names, size};
use crate::system::{self, Logs, System, SystemSchema};

/// Parallel parts of a query for each core. While one part waits for a file, another part decodes a different file.
const PARTITIONS_PER_CORE: usize = 2;

/// Query for the first offset of each partition at or after a time.
pub(crate) const OFFSETS_AT: &str = "SELECT kafka_partition, min(kafka_offset) FROM bronze WHERE kafka_time >= $time GROUP BY kafka_partition";

/// Catalog that creates a session for each query.
#[derive(Debug)]
pub(crate) struct Catalog {
    hot: Arc<HotBuffer>,
    gold: Arc<GoldTable>,
    status: Status,
    queries: Queries,
    /// State that all sessions share: functions, rules and settings.
    template: SessionState,
    plans: Plans,
}

impl Catalog {
    pub(crate) fn new(hot: Arc<HotBuffer>, gold: Arc<GoldTable>, status: Status, queries: Queries) -> Self {
        let template = template(&queries);
        Catalog { hot, gold, status, queries, template, plans: Plans::default() }
    }

    /// Plans a read-only query on the present snapshots.
    ///
    /// # Errors
    ///
    /// The query is not valid SQL, names something that does not exist, or is not a query.
    pub(crate) async fn plan(&self, context: &RequestContext, query: &Query) -> Result<DataFrame, CallError> {
        let read_only =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let session = self.session(&context.session.schema)?;
        let catalog = session.catalog(CATALOG).expect("a session has its default catalog");
        let system = System::new(self.status.clone(), self.queries.clone(), context.caller.clone());
        let logs = Logs { hot: Arc::clone(&self.hot), gold: Arc::clone(&self.gold) };
        catalog.register_schema(system::SCHEMA, Arc::new(SystemSchema { system, logs }))?;
        match query {
            Query::Sql(text) => {
                let schema = &context.session.schema;
                if let Some(plan) = self.plans.get(schema, text) {
                    return Ok(DataFrame::new(session.state(), plan));
                }
                check_depth(text)?;
                let plan = plan_text(&session.state(), text).await?;
                size::check_plan(&plan)?;
                read_only.verify_plan(&plan)?;
                let planned = session.execute_logical_plan(plan).await?;
                self.plans.keep(schema, text, planned.logical_plan())?;
                Ok(planned)
            }
            Query::Substrait(plan) => {
                // A plan that the library cannot read is an error of the client, whatever the library calls it. Some plans make the library
                // panic.
                let bad =
                    |error: &dyn Display| CallError::BadRequest(format!("plan the Substrait plan: {error}"));
                let plan = Plan::decode(plan.clone()).map_err(|error| bad(&error))?;
                let state = session.state();
                let planning = AssertUnwindSafe(from_substrait_plan(&state, &plan)).catch_unwind();
                let planned = planning.await.map_err(|_| bad(&"it is incomplete"))?;
                let plan = planned.map_err(|error| bad(&error))?;
                size::check_plan(&plan)?;
                read_only.verify_plan(&plan)?;
                Ok(session.execute_logical_plan(plan).await?)
            }
        }
    }

    /// Plans the read of one symbol's candles around a time span, as [`History`] defines it. The rows ascend by event time and partition.
    ///
    /// # Errors
    ///
    /// The lake cannot be read.
    pub(crate) async fn history(&self, history: &History) -> Result<DataFrame, CallError> {
        let columns: Vec<String> =
            bronze::schema().fields().iter().map(|field| field.name().clone()).collect();
        let columns = columns.join(", ");
        let below = history.below.iter();
        let below: Vec<String> = below
            .map(|(partition, next)| format!("(kafka_partition = {partition} AND kafka_offset < {next})"))
            .collect();
        let below = if below.is_empty() { "false".to_owned() } else { below.join(" OR ") };
        // Within a partition the later offset wins, except for rows that gold cannot hold. `$…` keeps the symbol out of the text.
        let candles = |bounds: &str| {
            format!(
                "SELECT {columns} FROM (SELECT *, row_number() OVER \
                 (PARTITION BY event_time, kafka_partition ORDER BY is_held DESC, kafka_offset DESC) AS recency \
                 FROM (SELECT *, {} AS is_held FROM bronze WHERE symbol = $symbol AND ({below}) AND {bounds})) \
                 WHERE recency = 1 AND is_held",
                is_held()
            )
        };
        let partitions = history.below.iter().count();
        let query = match history.margin {
            Margin::Micros(_) => candles("event_time > $after AND event_time < $before"),
            // Each event time may have a row from each partition.
            Margin::Rows(rows) => format!(
                "(SELECT * FROM ({}) ORDER BY event_time DESC LIMIT {limit}) UNION ALL {} UNION ALL \
                 (SELECT * FROM ({}) ORDER BY event_time ASC LIMIT {limit})",
                candles("event_time < $first"),
                candles("event_time >= $first AND event_time <= $last"),
                candles("event_time > $last"),
                limit = u64::from(rows).saturating_mul(u64::try_from(partitions).unwrap_or(u64::MAX)),
            ),
        };
        let query = format!("SELECT {columns} FROM ({query}) ORDER BY event_time, kafka_partition");
        Ok(self.session(PUBLIC)?.sql(&query).await?.with_param_values(parameters(history))?)
    }

    /// Plans a query for the first offset of each partition whose `kafka_time` is at or after a time. Partitions without such an offset
    /// have no row.
    ///
    /// # Errors
    ///
    /// The lake cannot be read.
    pub(crate) async fn offsets_at(&self, micros: i64) -> Result<DataFrame, CallError> {
        let plan = self.session(PUBLIC)?.sql(OFFSETS_AT).await?;
        let time = ("time", ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())));
        Ok(plan.with_param_values(ParamValues::from(vec![time]))?)
    }

    /// Returns the gold table.
    pub(crate) fn gold(&self) -> &Arc<GoldTable> {
        &self.gold
    }

    /// Returns the schema of a table, or `None` if there is no such table.
    pub(crate) fn schema(table: &str) -> Option<SchemaRef> {
        match table {
            "bronze" => Some(bronze::schema()),
            "gold" => Some(schema::gold::schema()),
            _ => None,
        }
    }

    /// Creates a session on the present snapshots. A table name without a schema belongs to `schema`.
    fn session(&self, schema: &str) -> Result<SessionContext, DataFusionError> {
        let received = self.hot.progress().received;
        let (durable, hot) = self.hot.snapshot();
        let snapshot =
            QuerySnapshot::new(lake::provider(durable.clone(), hot.clone()), Arc::clone(&self.gold));
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(PUBLIC, Arc::new(PublicSchema))?;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        let mut state = self.template.clone();
        schema.clone_into(&mut state.config_mut().options_mut().catalog.default_schema);
        state.config_mut().set_extension(Arc::new(snapshot));
        state.register_catalog_list(Arc::new(catalogs));
        state.register_udtf(BRONZE_AT, Arc::new(BronzeAt { durable, hot, received }));
        state.register_udtf(GOLD_AT, Arc::new(GoldAt { gold: Arc::clone(&self.gold) }));
        Ok(SessionContext::new_with_state(state))
    }
}

/// Plans a query text. Its result may have several columns of the same name.
async fn plan_text(state: &SessionState, text: &str) -> Result<LogicalPlan, CallError> {
    let mut statement = state.sql_to_statement(text, &state.config_options().sql_parser.dialect)?;
    if let Statement::Statement(statement) = &mut statement {
        size::check_statement(statement)?;
        names::distinguish(statement);
    }
    Ok(state.statement_to_plan(statement).await?)
}

/// Creates the state that every session copies. Registering the hundreds of functions and rules for each session took a third of the time
/// of a short query.
pub(crate) fn template(queries: &Queries) -> SessionState {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let config = SessionConfig::new()
        .with_target_partitions(cores * PARTITIONS_PER_CORE)
        .with_information_schema(true)
        .with_default_catalog_and_schema(CATALOG, PUBLIC)
        .with_create_default_catalog_and_schema(false)
        // Clients in other languages cannot read view types.
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
        .set_bool("datafusion.optimizer.expand_views_at_output", true)
        // A result of at most one batch is not distributed to several cores.
        .set_bool("datafusion.execution.use_row_number_estimates_to_optimize_partitioning", true)
        .set_bool("datafusion.execution.parquet.pushdown_filters", true);
    let mut state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(Arc::clone(queries.shared()))
        .build();
    bound_functions(&mut state).expect("the engine has these functions");
    state
}

/// Returns the SQL condition that gold can hold a row's numbers and its Kafka time. A comparison with NaN is false.
fn is_held() -> String {
    let numbers = [schema::OPEN, schema::HIGH, schema::LOW, schema::CLOSE, schema::VOLUME];
    let (first, last) = (schema::gold::TIMES.start(), schema::gold::TIMES.end());
    let numbers = numbers.map(|number| format!("abs({number}) <= {MAGNITUDE_MAX}"));
    format!("({} AND CAST({KAFKA_TIME} AS BIGINT) BETWEEN {first} AND {last})", numbers.join(" AND "))
}

fn parameters(history: &History) -> ParamValues {
    let time = |micros: i64| ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
    let margin_micros = if let Margin::Micros(micros) = history.margin { micros } else { 0 };
    let named = [
        ("symbol", ScalarValue::Utf8(Some(history.symbol.clone()))),
        ("first", time(history.first_micros)),
        ("last", time(history.last_micros)),
        ("after", time(history.first_micros.saturating_sub(margin_micros))),
        ("before", time(history.last_micros.saturating_add(margin_micros))),
    ];
    ParamValues::from(named.to_vec())
}

#[cfg(test)]
pub(crate) mod tests;
