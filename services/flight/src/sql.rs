//! Flight SQL on the catalog: read-only statement queries. Stateless: a ticket holds its query, so it survives a restart.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::FlightSqlService;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt, SqlInfo, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use futures::TryStreamExt;
use prost::Message;
use tonic::{Request, Response, Status};

use crate::catalog::Catalog;
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::server::{self, Messages};

/// Answers the Flight SQL commands.
#[derive(Clone, Debug)]
pub(crate) struct Sql {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) metrics: Metrics,
}

impl Sql {
    /// Returns the ticket that executes `query`.
    pub(crate) fn ticket(query: &str) -> Ticket {
        let ticket = TicketStatementQuery { statement_handle: query.to_owned().into() };
        Ticket::new(ticket.as_any().encode_to_vec())
    }

    async fn schema_of(&self, query: &str) -> Result<SchemaRef, Refusal> {
        let plan = self.catalog.plan(query).await?;
        Ok(Arc::clone(plan.schema().inner()))
    }

    async fn execute(&self, query: &str) -> Result<Messages, Refusal> {
        self.metrics.queries.inc();
        let batches = self.catalog.plan(query).await?.execute_stream().await?;
        let schema = batches.schema();
        // A cast that fails halfway is the query's fault like one that fails at once.
        let batches =
            batches.map_err(|error| FlightError::Tonic(Box::new(server::status(&Refusal::from(error)))));
        let messages = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
        Ok(Box::pin(messages.map_err(Status::from)))
    }
}

#[tonic::async_trait]
impl FlightSqlService for Sql {
    type FlightService = Sql;

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = self.schema_of(&query.query).await.map_err(|refusal| server::status(&refusal))?;
        let endpoint = FlightEndpoint::new().with_ticket(Self::ticket(&query.query));
        let info = FlightInfo::new()
            .try_with_schema(&schema)
            .map_err(|error| server::status(&Refusal::Encode(error)))?
            .with_endpoint(endpoint)
            .with_descriptor(request.into_inner())
            .with_total_records(-1)
            .with_total_bytes(-1);
        Ok(Response::new(info))
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let query = std::str::from_utf8(&ticket.statement_handle).map_err(|error| {
            server::status(&Refusal::BadRequest(format!("the query is not UTF-8: {error}")))
        })?;
        self.execute(query).await.map(Response::new).map_err(|refusal| server::status(&refusal))
    }

    async fn register_sql_info(&self, _id: i32, _info: &SqlInfo) {}
}
