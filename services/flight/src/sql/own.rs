//! Queries that the pipeline itself sends, within the limits of all queries.

use std::sync::Arc;

use access::Caller;
use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;
use position::Position;
use proto::ticket::History;
use uuid::Uuid;

use super::Sql;
use crate::catalog::OFFSETS_AT;
use crate::error::CallError;
use crate::queries::{Answer, Purpose};

impl Sql {
    /// Finds the first offset of each partition whose `kafka_time` is at or after a time. Partitions without such a row are absent. The
    /// query may read all of bronze, so it counts as a query of `caller`.
    pub(crate) async fn offsets_at(&self, caller: &Caller, micros: i64) -> Result<Position, CallError> {
        let catalog = Arc::clone(&self.catalog);
        let plan = Box::pin(async move { Ok(catalog.offsets_at(micros).await?.into()) });
        let answer = self.queries.run(Purpose::Query, caller, Uuid::new_v4(), OFFSETS_AT, plan).await?;
        let mut position = Position::default();
        let mut batches = answer.batches;
        while let Some(batch) = batches.try_next().await? {
            let partitions = batch.column(0).as_primitive::<Int32Type>().values();
            let offsets = batch.column(1).as_primitive::<Int64Type>().values();
            for (partition, offset) in partitions.iter().zip(offsets) {
                position.set(*partition, *offset);
            }
        }
        Ok(position)
    }

    /// Reads a history for another service of the pipeline, within the limits of a query.
    pub(crate) async fn history(&self, caller: &Caller, history: History) -> Result<Answer, CallError> {
        let catalog = Arc::clone(&self.catalog);
        let text = format!("history of {:?}", history.symbol);
        let plan = Box::pin(async move { Ok(catalog.history(&history).await?.into()) });
        self.queries.run(Purpose::History, caller, Uuid::new_v4(), &text, plan).await
    }
}
