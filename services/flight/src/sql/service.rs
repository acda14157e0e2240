//! The Flight SQL service: maps each command of the protocol to a query, to metadata, or to an error.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::FlightSqlService;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, ActionCreatePreparedSubstraitPlanRequest, CommandGetCatalogs,
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandStatementQuery, CommandStatementSubstraitPlan, SqlInfo,
    SubstraitPlan, TicketStatementQuery,
};
use arrow_flight::{Action, FlightDescriptor, FlightInfo, Ticket};
use futures::TryStreamExt;
use tonic::{Request, Response, Status};

use super::prepared::{Prepared, Query};
use super::ticket::QueryTicket;
use super::{Sql, info, metadata};
use crate::answers::Messages;
use crate::error::CallError;
use crate::request::RequestContext;
use crate::status::status;

fn substrait(plan: Option<SubstraitPlan>) -> Result<Query, CallError> {
    let plan = plan.ok_or_else(|| CallError::BadRequest("the command holds no plan".to_owned()))?;
    Ok(Query::Substrait(plan.plan))
}

/// Describes the answer to a command whose ticket is the command itself.
fn info_of(schema: &Schema, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
    let descriptor = request.into_inner();
    info(schema, Ticket::new(descriptor.cmd.clone()), descriptor).map_err(refused)
}

fn answer(batch: RecordBatch) -> Response<Messages> {
    let schema = batch.schema();
    let batches = futures::stream::iter([Ok(batch)]);
    let messages = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    Response::new(Box::pin(messages.map_err(Status::from)))
}

fn refused(error: impl Into<CallError>) -> Status {
    status(&error.into())
}

/// Answer to a DoGet.
type SqlStream = Response<<Sql as FlightService>::DoGetStream>;

#[tonic::async_trait]
impl FlightSqlService for Sql {
    type FlightService = Sql;

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.describe(Query::Sql(query.query).into(), request).await.map_err(refused)
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        let ticket = QueryTicket::decode(&ticket.statement_handle).map_err(refused)?;
        self.execute(&RequestContext::of(&request), ticket).await.map(Response::new).map_err(refused)
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        self.prepare(&RequestContext::of(&request), Query::Sql(query.query)).await.map_err(refused)
    }

    async fn get_flight_info_substrait_plan(
        &self,
        query: CommandStatementSubstraitPlan,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.describe(substrait(query.plan).map_err(refused)?.into(), request).await.map_err(refused)
    }

    async fn do_action_create_prepared_substrait_plan(
        &self,
        query: ActionCreatePreparedSubstraitPlanRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let query = substrait(query.plan).map_err(refused)?;
        self.prepare(&RequestContext::of(&request), query).await.map_err(refused)
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        // The server keeps no state of a prepared statement.
        Ok(())
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let prepared = Prepared::decode(&query.prepared_statement_handle).map_err(refused)?;
        self.describe(prepared, request).await.map_err(refused)
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<SqlStream, Status> {
        let prepared = Prepared::decode(&query.prepared_statement_handle).map_err(refused)?;
        let ticket = QueryTicket::new(prepared);
        self.execute(&RequestContext::of(&request), ticket).await.map(Response::new).map_err(refused)
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
