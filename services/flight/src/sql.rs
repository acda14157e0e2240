//! Flight SQL on the catalog: read-only queries, plain and prepared, and the metadata that clients request before a query. The server keeps
//! no state: tickets and handles hold everything that is needed, so they survive a restart.

pub(crate) mod depth;
mod metadata;
pub(crate) mod names;
mod own;
mod parameters;
pub(crate) mod prepared;
mod service;
pub(crate) mod session;
pub(crate) mod size;
mod ticket;

use std::sync::Arc;

use access::{Caller, Role};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{ActionCreatePreparedStatementResult, Any, Command, DoPutPreparedStatementResult};
use arrow_flight::{
    FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket,
};
use datafusion::dataframe::DataFrame;
use datafusion::scalar::ScalarValue;
use futures::{Stream, TryStreamExt};
use prost::Message;
use tonic::{Request, Response, Status};

use self::prepared::{Prepared, Query};
use self::ticket::QueryTicket;
use crate::answers::Messages;
use crate::catalog::Catalog;
use crate::error::CallError;
use crate::queries::{Plan, Planned, Purpose, Queries, bind};
use crate::request::RequestContext;
use crate::status::status;

/// Handler of the Flight SQL commands.
#[derive(Clone, Debug)]
pub(crate) struct Sql {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) queries: Queries,
}

impl Sql {
    /// Returns the ticket that executes `query`.
    pub(crate) fn ticket(query: &str) -> Ticket {
        QueryTicket::new(Query::Sql(query.to_owned()).into())
            .encode()
            .expect("a query of the server itself is short")
    }

    /// Answers a DoPut with a command: it binds parameters to a prepared statement. The server is read-only to SQL, so it rejects every
    /// other command.
    pub(crate) async fn put(
        &self,
        command: &[u8],
        messages: impl Stream<Item = Result<FlightData, Status>> + Send,
    ) -> Result<DoPutPreparedStatementResult, CallError> {
        let command = Any::decode(command).ok().and_then(|command| Command::try_from(command).ok());
        let Some(Command::CommandPreparedStatementQuery(query)) = command else {
            return Err(CallError::Unsupported("an update (tables are read-only to SQL)".to_owned()));
        };
        let prepared = Prepared::decode(&query.prepared_statement_handle)?;
        self.check_text(&prepared.query)?;
        let bound = prepared.bind(parameters::read(messages).await?)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(bound.encode()?) })
    }

    /// Plans a query on a query thread and returns `read(plan)`. The plan is also dropped there: a deeply nested plan needs the stack of a
    /// query thread.
    async fn plan<T: Send + 'static>(
        &self,
        context: &RequestContext,
        query: &Prepared,
        read: impl FnOnce(DataFrame) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let planning = self.planning(context, query);
        let plan = async move {
            let Planned { query, executions } = planning.await?;
            let first = executions.into_iter().next().expect("there is at least one execution");
            read(bind(query, first)?)
        };
        self.queries.plan(&context.caller, plan).await
    }

    /// Plans a query. All its executions read one snapshot.
    fn planning(&self, context: &RequestContext, prepared: &Prepared) -> Plan {
        let (catalog, context, prepared) = (Arc::clone(&self.catalog), context.clone(), prepared.clone());
        Box::pin(async move {
            let query = catalog.plan(&context, &prepared.query).await?;
            Ok(Planned { query, executions: prepared.executions()? })
        })
    }

    async fn execute(&self, context: &RequestContext, ticket: QueryTicket) -> Result<Messages, CallError> {
        let QueryTicket { id, prepared } = ticket;
        self.check_text(&prepared.query)?;
        let plan = self.planning(context, &prepared);
        let text = prepared.query.to_string();
        let answer = self.queries.run(Purpose::Query, &context.caller, id, &text, plan).await?;
        let (schema, batches) = answer.map_err(|error| FlightError::Tonic(Box::new(status(&error))));
        let messages = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
        Ok(Box::pin(messages.map_err(Status::from)))
    }

    /// Describes the result of a query, and gives this execution an id.
    async fn describe(
        &self,
        prepared: Prepared,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, CallError> {
        self.check_text(&prepared.query)?;
        let read = |plan: DataFrame| Ok(names::given(plan.schema().inner()));
        let schema = self.plan(&RequestContext::of(&request), &prepared, read).await?;
        Ok(info(&schema, QueryTicket::new(prepared).encode()?, request.into_inner())?)
    }

    async fn prepare(
        &self,
        context: &RequestContext,
        query: Query,
    ) -> Result<ActionCreatePreparedStatementResult, CallError> {
        self.check_text(&query)?;
        let (catalog, planned_for) = (Arc::clone(&self.catalog), context.clone());
        let prepare = async move {
            let prepared = match query {
                Query::Sql(text) => Prepared::new(&text)?,
                plan @ Query::Substrait(_) => plan.into(),
            };
            let plan = catalog.plan(&planned_for, &prepared.query).await?;
            let parameters = prepared::parameter_schema(plan.logical_plan())?;
            // The result's schema depends on the types of the parameters, so nulls of these types are bound.
            let nulls = parameters.fields().iter().map(|field| ScalarValue::try_from(field.data_type()));
            let nulls = nulls.collect::<Result<Vec<_>, _>>()?;
            let plan = bind(plan, nulls)?;
            Ok(ActionCreatePreparedStatementResult {
                prepared_statement_handle: prepared.encode()?,
                dataset_schema: ipc(&names::given(plan.schema().inner()))?.0,
                parameter_schema: ipc(&parameters)?.0,
            })
        };
        self.queries.plan(&context.caller, prepare).await
    }

    fn check_text(&self, query: &Query) -> Result<(), CallError> {
        self.queries.check_text(match query {
            Query::Sql(text) => text.len(),
            Query::Substrait(plan) => plan.len(),
        })
    }

    /// Cancels the running executions that `info` describes, if they are open to the caller. Returns true if any was running.
    pub(crate) fn cancel(&self, caller: &Caller, info: &FlightInfo) -> Result<bool, CallError> {
        let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
        let ids: Vec<_> = tickets.filter_map(|ticket| QueryTicket::read_id(&ticket.ticket)).collect();
        let mut found = false;
        for running in self.queries.running().iter().filter(|running| ids.contains(&running.id)) {
            if !running.is_open_to(caller) {
                return Err(CallError::Forbidden {
                    user: caller.user.to_string(),
                    role: caller.role,
                    needed: Role::Admin,
                });
            }
            running.cancel();
            found = true;
        }
        Ok(found)
    }
}

fn ipc(schema: &Schema) -> Result<IpcMessage, ArrowError> {
    SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into()
}

/// Describes a result without a location. The client then reads the result from this server, at the address of its current connection.
fn info(
    schema: &Schema,
    ticket: Ticket,
    descriptor: FlightDescriptor,
) -> Result<Response<FlightInfo>, ArrowError> {
    let info = FlightInfo::new().try_with_schema(schema)?;
    Ok(Response::new(
        info.with_endpoint(FlightEndpoint::new().with_ticket(ticket))
            .with_descriptor(descriptor)
            .with_total_records(-1)
            .with_total_bytes(-1),
    ))
}

#[cfg(test)]
mod tests;
