//! Flight SQL on the catalog: read-only queries, plain and prepared, and what clients ask before they send one. Stateless: tickets and
//! handles hold all that is needed, so they survive a restart.

mod metadata;
mod prepared;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::FlightSqlService;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, Any, Command, CommandGetCatalogs, CommandGetCrossReference,
    CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys,
    CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandStatementQuery, DoPutPreparedStatementResult, ProstMessageExt,
    SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket,
};
use datafusion::dataframe::DataFrame;
use datafusion::scalar::ScalarValue;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Request, Response, Status};

use self::prepared::Prepared;
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

    /// Answers a DoPut by command: parameters for a prepared statement; nothing else can be put to a server that only reads.
    pub(crate) async fn put(
        &self,
        command: &[u8],
        messages: impl Stream<Item = Result<FlightData, FlightError>> + Send + 'static,
    ) -> Result<DoPutPreparedStatementResult, Refusal> {
        let command = Any::decode(command).ok().and_then(|command| Command::try_from(command).ok());
        let Some(Command::CommandPreparedStatementQuery(query)) = command else {
            return Err(Refusal::Unsupported("an update (tables are read-only to SQL)".to_owned()));
        };
        let prepared = Prepared::decode(&query.prepared_statement_handle)?;
        let mut decoder = FlightDataDecoder::new(messages);
        let mut batches = Vec::new();
        while let Some(message) = decoder.next().await {
            let message = message.map_err(|error| Refusal::BadRequest(error.to_string()))?;
            if let DecodedPayload::RecordBatch(batch) = message.payload {
                batches.push(batch);
            }
        }
        let Some(first) = batches.first() else {
            return Err(Refusal::BadRequest("no parameters were bound".to_owned()));
        };
        let bound = prepared.bind(concat_batches(first.schema_ref(), &batches)?)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(bound.encode()?) })
    }

    /// Plans a prepared query, once for each row of its parameters, all on one snapshot.
    async fn plans(&self, prepared: &Prepared) -> Result<Vec<DataFrame>, Refusal> {
        let plan = self.catalog.plan(&prepared.query).await?;
        let bind = |parameters: Vec<ScalarValue>| {
            let plan = plan.clone();
            Ok(if parameters.is_empty() { plan } else { plan.with_param_values(parameters)? })
        };
        prepared.executions()?.into_iter().map(bind).collect()
    }

    async fn execute(&self, prepared: &Prepared) -> Result<Messages, Refusal> {
        self.metrics.queries.inc();
        let plans = self.plans(prepared).await?;
        let schema = schema_of_first(&plans);
        let mut executions = futures::stream::iter(plans).then(DataFrame::execute_stream).boxed();
        // The first begins before the answer, so that its error is the call's.
        let first = executions.next().await.transpose()?;
        let batches = futures::stream::iter(first.map(Ok)).chain(executions).try_flatten();
        // A cast that fails halfway is the query's fault like one that fails at once.
        let batches =
            batches.map_err(|error| FlightError::Tonic(Box::new(server::status(&Refusal::from(error)))));
        let messages = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
        Ok(Box::pin(messages.map_err(Status::from)))
    }

    async fn prepare(&self, query: &str) -> Result<ActionCreatePreparedStatementResult, Refusal> {
        let prepared = Prepared::new(query)?;
        let plan = self.catalog.plan(&prepared.query).await?;
        let parameters = prepared::parameter_schema(&plan.logical_plan().get_parameter_fields()?);
        // What the result looks like with parameters of these types.
        let nulls = parameters.fields().iter().map(|field| ScalarValue::try_from(field.data_type()));
        let nulls = nulls.collect::<Result<Vec<_>, _>>()?;
        let plan = if nulls.is_empty() { plan } else { plan.with_param_values(nulls)? };
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: prepared.encode()?,
            dataset_schema: ipc(plan.schema().inner())?.0,
            parameter_schema: ipc(&parameters)?.0,
        })
    }
}

/// Returns the schema that all executions have; there is at least one.
fn schema_of_first(plans: &[DataFrame]) -> SchemaRef {
    plans.first().map_or_else(|| Arc::new(Schema::empty()), |plan| Arc::clone(plan.schema().inner()))
}

fn ipc(schema: &Schema) -> Result<IpcMessage, ArrowError> {
    SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into()
}

/// Describes a result: no location, since it is here, whatever name the client knows this server by.
fn info(
    schema: &Schema,
    ticket: Ticket,
    descriptor: FlightDescriptor,
) -> Result<Response<FlightInfo>, Status> {
    let info = FlightInfo::new().try_with_schema(schema).map_err(refused)?;
    Ok(Response::new(
        info.with_endpoint(FlightEndpoint::new().with_ticket(ticket))
            .with_descriptor(descriptor)
            .with_total_records(-1)
            .with_total_bytes(-1),
    ))
}

/// Describes the answer to a command that is its own ticket.
fn info_of(schema: &Schema, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
    let descriptor = request.into_inner();
    info(schema, Ticket::new(descriptor.cmd.clone()), descriptor)
}

fn answer(batch: RecordBatch) -> Response<Messages> {
    let schema = batch.schema();
    let batches = futures::stream::iter([Ok(batch)]);
    let messages = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    Response::new(Box::pin(messages.map_err(Status::from)))
}

fn refused(error: impl Into<Refusal>) -> Status {
    server::status(&error.into())
}

/// The answer to a DoGet.
type SqlStream = Response<<Sql as FlightService>::DoGetStream>;

#[tonic::async_trait]
impl FlightSqlService for Sql {
    type FlightService = Sql;

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let plan = self.catalog.plan(&query.query).await.map_err(refused)?;
        info(plan.schema().as_arrow(), Self::ticket(&query.query), request.into_inner())
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        let query = std::str::from_utf8(&ticket.statement_handle)
            .map_err(|error| refused(Refusal::BadRequest(format!("the query is not UTF-8: {error}"))))?;
        let prepared = Prepared { query: query.to_owned(), parameters: None };
        self.execute(&prepared).await.map(Response::new).map_err(refused)
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        self.prepare(&query.query).await.map_err(refused)
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        // Nothing is kept of it.
        Ok(())
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let prepared = Prepared::decode(&query.prepared_statement_handle).map_err(refused)?;
        info_of(&schema_of_first(&self.plans(&prepared).await.map_err(refused)?), request)
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        let prepared = Prepared::decode(&query.prepared_statement_handle).map_err(refused)?;
        self.execute(&prepared).await.map(Response::new).map_err(refused)
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query.into_builder().schema(), request)
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        _: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        Ok(answer(metadata::catalogs(query)?))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query.into_builder().schema(), request)
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        _: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        Ok(answer(metadata::schemas(query)?))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query.into_builder().schema(), request)
    }

    async fn do_get_tables(&self, query: CommandGetTables, _: Request<Ticket>) -> Result<SqlStream, Status> {
        Ok(answer(metadata::tables(query)?))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query.into_builder().schema(), request)
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        _: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        Ok(answer(metadata::table_types(query)?))
    }

    async fn get_flight_info_sql_info(
        &self,
        _query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&metadata::SQL_INFO.schema(), request)
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        Ok(answer(query.into_builder(&metadata::SQL_INFO).build()?))
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        _query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&metadata::TYPES.schema(), request)
    }

    async fn do_get_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        _: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        Ok(answer(query.into_builder(&metadata::TYPES).build()?))
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&metadata::primary_keys(&query.table).map_err(refused)?.schema(), request)
    }

    async fn do_get_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        _: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        Ok(answer(metadata::primary_keys(&query.table).map_err(refused)?))
    }

    async fn get_flight_info_exported_keys(
        &self,
        _query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&metadata::foreign_keys().schema(), request)
    }

    async fn do_get_exported_keys(
        &self,
        _: CommandGetExportedKeys,
        _: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        Ok(answer(metadata::foreign_keys()))
    }

    async fn get_flight_info_imported_keys(
        &self,
        _query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&metadata::foreign_keys().schema(), request)
    }

    async fn do_get_imported_keys(
        &self,
        _: CommandGetImportedKeys,
        _: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        Ok(answer(metadata::foreign_keys()))
    }

    async fn get_flight_info_cross_reference(
        &self,
        _query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&metadata::foreign_keys().schema(), request)
    }

    async fn do_get_cross_reference(
        &self,
        _: CommandGetCrossReference,
        _: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        Ok(answer(metadata::foreign_keys()))
    }

    async fn register_sql_info(&self, _id: i32, _info: &SqlInfo) {}
}
