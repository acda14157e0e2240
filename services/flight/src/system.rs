//! The schema `system`: tables about the pipeline. Their rows are created when a query names a table.

use std::sync::Arc;

use access::{Caller, Role};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, Session, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::TableType;
use lake::LakeError;
use serde::Serialize;
use serde_json::{Value, json};
use service::metrics::Samples;
use service::status::{ProcessEvent, Report, Status, View};

use crate::bronze::buffer::HotBuffer;
use crate::gold::table::GoldTable;
use crate::late_table::{LateTable, Resolve};
use crate::queries::{Queries, Running};

/// Name of the schema.
pub(crate) const SCHEMA: &str = "system";

/// Table with its name, its columns and the source of its rows. Each row is a JSON object.
#[derive(Debug)]
struct SystemTable {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
    rows: Rows,
}

/// Source of the rows of a table.
#[derive(Clone, Copy, Debug)]
enum Rows {
    /// State of the server in memory.
    Known(fn(&System) -> Vec<Value>),
    /// Logs of the lake's tables.
    Logs,
}

/// Type of a column. Every column may be null.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Whole,
    Number,
    Truth,
    /// Time in microseconds, UTC.
    Time,
}

const TABLES: &[SystemTable] = &[
    SystemTable {
        name: "lag",
        columns: &[
            ("partition", Kind::Whole),
            ("end_offset", Kind::Whole),
            ("received_offset", Kind::Whole),
            ("durable_offset", Kind::Whole),
            ("postgres_offset", Kind::Whole),
            ("lake_offset", Kind::Whole),
            ("ingest_lag", Kind::Whole),
            ("gold_lag", Kind::Whole),
        ],
        rows: Rows::Known(lag),
    },
    SystemTable {
        name: "services",
        columns: &[
            ("service", Kind::Text),
            ("process", Kind::Text),
            ("is_ready", Kind::Truth),
            ("reason", Kind::Text),
            ("is_silent", Kind::Truth),
            ("version", Kind::Text),
            ("started_at", Kind::Time),
            ("heard_at", Kind::Time),
            ("address", Kind::Text),
        ],
        rows: Rows::Known(services),
    },
    SystemTable {
        name: "history",
        columns: &[
            ("at", Kind::Time),
            ("produced_per_second", Kind::Number),
            ("received_per_second", Kind::Number),
            ("gold_per_second", Kind::Number),
            ("lag", Kind::Number),
            ("hot", Kind::Number),
            ("durable", Kind::Number),
            ("freshness_p50", Kind::Number),
            ("freshness_p99", Kind::Number),
        ],
        rows: Rows::Known(history),
    },
    SystemTable {
        name: "events",
        columns: &[
            ("at", Kind::Time),
            ("process", Kind::Text),
            ("level", Kind::Text),
            ("target", Kind::Text),
            ("message", Kind::Text),
            ("detail", Kind::Text),
        ],
        rows: Rows::Known(events),
    },
    SystemTable {
        name: "dead_letters",
        columns: &[
            ("at", Kind::Time),
            ("process", Kind::Text),
            ("topic", Kind::Text),
            ("partition", Kind::Whole),
            ("offset", Kind::Whole),
            ("reason", Kind::Text),
            ("detail", Kind::Text),
            ("count", Kind::Whole),
        ],
        rows: Rows::Known(dead_letters),
    },
    SystemTable {
        name: "queries",
        columns: &[
            ("id", Kind::Text),
            ("user", Kind::Text),
            ("query", Kind::Text),
            ("started_at", Kind::Time),
            ("seconds", Kind::Number),
            ("rows", Kind::Whole),
        ],
        rows: Rows::Known(queries),
    },
    SystemTable {
        name: "metrics",
        columns: &[
            ("process", Kind::Text),
            ("name", Kind::Text),
            ("labels", Kind::Text),
            ("value", Kind::Number),
        ],
        rows: Rows::Known(metrics),
    },
    SystemTable {
        name: "versions",
        columns: &[
            ("table", Kind::Text),
            ("version", Kind::Whole),
            ("committed_at", Kind::Time),
            ("rows", Kind::Whole),
            ("position", Kind::Text),
        ],
        rows: Rows::Logs,
    },
];

/// Maximum number of listed versions of each table. The newest are listed, and each is a request to the store.
const VERSIONS_MAX: u64 = 100;

fn lag(System { status, .. }: &System) -> Vec<Value> {
    let behind = |ahead: Option<i64>, behind: Option<i64>| Some((ahead? - behind?).max(0));
    let row = |partition: &service::status::Partition| {
        json!({
            "partition": partition.partition,
            "end_offset": partition.end,
            "received_offset": partition.received,
            "durable_offset": partition.durable,
            "postgres_offset": partition.postgres,
            "lake_offset": partition.lake,
            "ingest_lag": behind(partition.end, partition.received),
            "gold_lag": behind(partition.received, partition.postgres),
        })
    };
    status.numbers().partitions.iter().map(row).collect()
}

fn services(System { status, .. }: &System) -> Vec<Value> {
    let View { processes, .. } = status.view();
    let rows = processes.iter().flat_map(|process| {
        process.services.iter().map(|(service, reason)| {
            json!({
                "service": service,
                "process": process.process.id,
                "is_ready": reason.is_none() && !process.is_silent,
                "reason": reason,
                "is_silent": process.is_silent,
                "version": process.process.version,
                "started_at": process.process.started_micros,
                "heard_at": process.heard_micros,
                "address": process.process.address,
            })
        })
    });
    rows.collect()
}

fn history(System { status, .. }: &System) -> Vec<Value> {
    let row = |sample: &service::status::Sample| {
        let mut row = object(sample);
        row["at"] = sample.at_micros.into();
        row
    };
    status.view().history.iter().map(row).collect()
}

fn events(System { status, caller, .. }: &System) -> Vec<Value> {
    // The causes of an error contain addresses of stores and brokers, and their responses.
    let is_shown = caller.role >= Role::Writer;
    let row = |ProcessEvent { process, event }: &ProcessEvent| {
        let detail: Vec<String> =
            event.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        json!({
            "at": event.at_micros,
            "process": process,
            "level": event.level,
            "target": event.target,
            "message": event.message,
            "detail": is_shown.then(|| detail.join(" ")),
        })
    };
    status.view().events.iter().map(row).collect()
}

fn dead_letters(System { status, .. }: &System) -> Vec<Value> {
    let row = |ProcessEvent { process, event }: &ProcessEvent| {
        let mut row = object(&event.fields);
        for whole in ["partition", "offset", "count"] {
            row[whole] = event.fields.get(whole).and_then(|text| text.parse::<i64>().ok()).into();
        }
        row["at"] = event.at_micros.into();
        row["process"] = process.as_str().into();
        row
    };
    status.view().dead_letters.iter().map(row).collect()
}

fn queries(System { queries, caller, .. }: &System) -> Vec<Value> {
    let open = queries.running().into_iter().filter(|query| query.is_open_to(caller));
    let row = |query: Arc<Running>| {
        json!({
            "id": query.id,
            "user": &*query.user,
            "query": query.text,
            "started_at": query.started_micros,
            "seconds": query.elapsed().as_secs_f64(),
            "rows": query.rows(),
        })
    };
    open.map(row).collect()
}

fn metrics(System { status, .. }: &System) -> Vec<Value> {
    let rows_of = |report: &Report| {
        let row = |(name, labels, value): (&str, &str, f64)| json!({ "process": report.process.id, "name": name, "labels": labels, "value": value });
        Samples::new(&report.metrics).all().map(row).collect::<Vec<_>>()
    };
    status.reports().iter().flat_map(rows_of).collect()
}

/// Reads the versions that `bronze_at` and `gold_at` accept.
async fn versions(Logs { hot, gold }: &Logs) -> Result<Vec<Value>, LakeError> {
    let mut rows = Vec::new();
    for (table, snapshot) in [("bronze", hot.snapshot().0), ("gold", gold.snapshot().await?)] {
        let versions = snapshot.versions(VERSIONS_MAX).await?;
        rows.extend(versions.iter().map(|version| {
            json!({
                "table": table,
                "version": version.version,
                "committed_at": version.committed_at.timestamp_micros(),
                "rows": version.row_count,
                "position": object(&version.position).to_string(),
            })
        }));
    }
    Ok(rows)
}

fn object(row: &impl Serialize) -> Value {
    serde_json::to_value(row).expect("a row is a plain struct with string keys")
}

impl SystemTable {
    fn schema(&self) -> SchemaRef {
        let field = |(name, kind): &(&str, Kind)| {
            let kind = match kind {
                Kind::Text => DataType::Utf8,
                Kind::Whole => DataType::Int64,
                Kind::Number => DataType::Float64,
                Kind::Truth => DataType::Boolean,
                Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            };
            Field::new(*name, kind, true)
        };
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    fn batch(&self, rows: &[Value]) -> Result<RecordBatch, ArrowError> {
        let schema = self.schema();
        let mut decoder =
            ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(rows.len().max(1)).build_decoder()?;
        decoder.serialize(rows)?;
        Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema)))
    }

    fn provider(&self, rows: &[Value]) -> Result<MemTable, DataFusionError> {
        let rows = self.batch(rows)?;
        MemTable::try_new(rows.schema(), vec![vec![rows]])
    }
}

/// Table of versions. Its rows are read when it is scanned, so that a list of tables and columns does not wait for the lake.
#[derive(Debug)]
struct Versions {
    table: &'static SystemTable,
    logs: Logs,
}

#[async_trait]
impl Resolve for Versions {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    async fn resolve(&self, _state: &dyn Session) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let rows = versions(&self.logs).await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(Arc::new(self.table.provider(&rows)?))
    }
}

/// Returns each table's name and columns.
pub(crate) fn tables() -> impl Iterator<Item = (&'static str, SchemaRef)> {
    TABLES.iter().map(|table| (table.name, table.schema()))
}

/// Schema `system` for one caller.
#[derive(Debug)]
pub(crate) struct SystemSchema {
    pub(crate) system: System,
    pub(crate) logs: Logs,
}

/// The tables of the lake.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    pub(crate) hot: Arc<HotBuffer>,
    pub(crate) gold: Arc<GoldTable>,
}

/// State of the pipeline that one caller may see.
#[derive(Debug)]
pub(crate) struct System {
    status: Status,
    queries: Queries,
    caller: Caller,
}

impl System {
    pub(crate) fn new(status: Status, queries: Queries, caller: Caller) -> Self {
        System { status, queries, caller }
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        TABLES.iter().map(|table| table.name.to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(table) = TABLES.iter().find(|table| table.name == name) else { return Ok(None) };
        Ok(Some(match table.rows {
            Rows::Known(rows) => Arc::new(table.provider(&rows(&self.system))?),
            Rows::Logs => Arc::new(LateTable(Versions { table, logs: self.logs.clone() })),
        }))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.iter().any(|table| table.name == name)
    }
}

#[cfg(test)]
mod tests {
    use access::{Caller, Role};
    use service::Context;

    use super::{Rows, System, TABLES};
    use crate::metrics::Metrics;
    use crate::queries::Queries;

    #[test]
    fn every_table_can_be_read_whatever_is_known() {
        let context = Context::default();
        context.status.sample();
        let queries = Queries::new(service::defaults().unwrap(), Metrics::new(&context.metrics)).unwrap();
        let caller = Caller { user: "ada".into(), role: Role::Reader };
        let system = System::new(context.status, queries, caller);
        for table in TABLES {
            let Rows::Known(rows) = table.rows else { continue };
            let rows = table.batch(&rows(&system)).unwrap();
            assert_eq!(rows.num_columns(), table.columns.len(), "{}", table.name);
        }
    }
}
