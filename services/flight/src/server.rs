//! The Flight service: dispatches each call to the module that answers it.

use std::pin::Pin;
use std::sync::Arc;

use access::{Caller, Role};
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::{Stream, StreamExt, TryStreamExt};
use position::{OffsetRange, Position, Topic};
use prost::Message as _;
use proto::metadata::{BatchMetadata, Progress};
use proto::put::Put;
use proto::ticket::History;
use proto::{Encoding, Message as _};
use schema::RangedBatch;
use service::status::Report;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use transport::stream::{encode_batch, encode_schema};

use crate::actions::{self, Done};
use crate::answers::{Answers, Messages};
use crate::bronze;
use crate::bronze::buffer::HotBuffer;
use crate::bronze::follow::BronzeFeed;
use crate::catalog::Catalog;
use crate::catalog::schemas::PUBLIC;
use crate::error::CallError;
use crate::follow::untaken::Watched;
use crate::follow::{follow, start};
use crate::gold;
use crate::gold::changes::ChangeBuffer;
use crate::gold::follow::GoldFeed;
use crate::login::{self, NewToken, require};
use crate::metrics::Metrics;
use crate::queries::UNTAKEN_MAX;
use crate::request::RequestContext;
use crate::sql::Sql;
use crate::status::status;

/// The Flight service.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) hot: Arc<HotBuffer>,
    pub(crate) hot_bytes_max: usize,
    pub(crate) changes: Arc<ChangeBuffer>,
    pub(crate) sql: Sql,
    pub(crate) metrics: Metrics,
    pub(crate) known: service::status::Status,
    pub(crate) shutdown: CancellationToken,
}

impl Server {
    async fn read(&self, request: &Request<Ticket>) -> Result<Messages, CallError> {
        let encoding = Encoding::of(&request.get_ref().ticket);
        let ticket = proto::ticket::Ticket::decode(&request.get_ref().ticket)
            .map_err(|error| CallError::BadRequest(error.to_string()))?;
        let messages = match ticket {
            proto::ticket::Ticket::Bronze(ticket) => {
                let caller = login::caller(request.extensions());
                let place = self.sql.queries.follow(&caller)?;
                let request = start::bronze(ticket, &caller, &self.hot, &self.sql).await?;
                let feed = BronzeFeed::new(Arc::clone(&self.hot));
                with_place(place, follow(feed, request, self.shutdown.clone()))
            }
            proto::ticket::Ticket::Gold(ticket) => {
                let caller = login::caller(request.extensions());
                let place = self.sql.queries.follow(&caller)?;
                let request = start::gold(ticket, &caller, &self.hot, &self.changes, &self.sql).await?;
                let feed = GoldFeed::new(Arc::clone(&self.changes), Arc::clone(self.sql.catalog.gold()));
                with_place(place, follow(feed, request, self.shutdown.clone()))
            }
            proto::ticket::Ticket::History(ticket) => {
                require(request.extensions(), Role::Writer)?;
                self.history(&login::caller(request.extensions()), ticket).await?
            }
        };
        Ok(match encoding {
            Encoding::Json => Box::pin(messages.map_ok(in_json)),
            Encoding::Protobuf => messages,
        })
    }

    /// Records a process's report and returns the reports of all processes.
    fn report(&self, body: &[u8]) -> Result<Vec<arrow_flight::Result>, CallError> {
        let report = Report::decode(body).map_err(|error| CallError::BadRequest(error.to_string()))?;
        self.known.record(report);
        let encode = |report: &Report| report.encode(Encoding::of(body));
        let results = self.known.reports();
        Ok(results.iter().map(|report| arrow_flight::Result { body: encode(report) }).collect())
    }

    async fn history(&self, caller: &Caller, ticket: History) -> Result<Messages, CallError> {
        start::check_table(ticket.table.as_ref(), &self.hot)?;
        self.received(&ticket.below).await?;
        // The rows come from several partitions, so the range belongs to none of them.
        let range = OffsetRange { partition: 0, first: 0, next: 0 };
        let batches = self.sql.history(caller, ticket).await?.batches;
        let schema = futures::stream::once(async { Ok(encode_schema(&schema::bronze::schema())) });
        let messages = batches.map(move |batch| {
            let messages = encode_batch(&RangedBatch { range, rows: batch? }).map_err(CallError::from)?;
            Ok::<_, CallError>(futures::stream::iter(messages.into_iter().map(Ok)))
        });
        Ok(Box::pin(schema.chain(messages.map_err(|error| status(&error)).try_flatten())))
    }

    /// Waits until bronze has received all offsets below `below`.
    async fn received(&self, below: &Position) -> Result<(), CallError> {
        let mut changes = self.hot.changes();
        while !self.hot.progress().received.has_reached(below) {
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(CallError::Stopping),
                _ = changes.changed() => {}
            }
        }
        Ok(())
    }

    fn table_info(table: &str) -> Result<FlightInfo, CallError> {
        let schema = Catalog::schema(table).ok_or_else(|| {
            CallError::BadRequest(format!("there is no table {table:?}: the tables are bronze and gold"))
        })?;
        // The ticket describes a query, so its stream ends. A client that follows a table creates a ticket of its own.
        let ticket = Sql::ticket(&format!("SELECT * FROM {PUBLIC}.{table}"));
        let info = FlightInfo::new().try_with_schema(&schema)?;
        Ok(info
            .with_descriptor(FlightDescriptor::new_path(vec![table.to_owned()]))
            .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
            .with_total_records(-1)
            .with_total_bytes(-1))
    }
}

/// Checks that a Flight SQL command is complete, if it names its type. The library would report an incomplete command as an error of the
/// server.
fn check_command(command: &[u8]) -> Result<(), Status> {
    let Some(Err(error)) = Any::decode(command).ok().map(Command::try_from) else { return Ok(()) };
    Err(status(&CallError::BadRequest(error.to_string())))
}

/// Streams the messages of a follower. Its place is free again when the stream is dropped, or when its client takes nothing for too long.
fn with_place(
    place: impl Send + 'static,
    messages: impl Stream<Item = Result<FlightData, CallError>> + Send + 'static,
) -> Messages {
    let messages = messages.inspect(move |_| {
        let _held = &place;
    });
    Box::pin(Watched::new(messages, UNTAKEN_MAX).map_err(|error| status(&error)))
}

/// Checks that a put is for bronze's topic, if its descriptor names a topic.
fn check_topic(topic: Option<Topic>, hot: &HotBuffer) -> Result<(), CallError> {
    match topic {
        Some(topic) => Ok(hot.admit(&topic)?),
        None => Ok(()),
    }
}

/// Encodes the metadata of a batch as JSON, for a client whose ticket is JSON.
fn in_json(message: FlightData) -> FlightData {
    if message.app_metadata.is_empty() {
        return message;
    }
    let metadata = BatchMetadata::decode(&message.app_metadata).expect("the metadata is ours");
    FlightData { app_metadata: metadata.encode(Encoding::Json), ..message }
}

/// Returns the table that a path descriptor names, or `None` for a command.
fn table_of(descriptor: &FlightDescriptor) -> Option<String> {
    (descriptor.r#type() == DescriptorType::Path).then(|| descriptor.path.join("."))
}

#[tonic::async_trait]
impl FlightService for Server {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Messages;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Messages;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        // The login layer has already authenticated the call and put the token into the response header. The payload repeats it. JDBC also
        // starts a handshake with a token, and then there may be no new one.
        let token = request.extensions().get::<NewToken>().map(|NewToken(token)| token.clone());
        let answer = HandshakeResponse { protocol_version: 0, payload: token.unwrap_or_default().into() };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(answer)]))))
    }

    async fn list_flights(
        &self,
        _request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        let infos = proto::TABLES.map(|table| Self::table_info(table).map_err(|error| status(&error)));
        Ok(Response::new(Box::pin(futures::stream::iter(infos))))
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        match table_of(request.get_ref()) {
            Some(table) => Self::table_info(&table).map(Response::new).map_err(|error| status(&error)),
            None => {
                check_command(&request.get_ref().cmd)?;
                self.sql.get_flight_info(request).await
            }
        }
    }

    async fn poll_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        // Planning is quick, so every query is ready at the first poll.
        let info = self.get_flight_info(request).await?.into_inner();
        Ok(Response::new(PollInfo::new().with_info(info)))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let info = self.get_flight_info(request).await?.into_inner();
        Ok(Response::new(SchemaResult { schema: info.schema }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        if proto::ticket::Ticket::is_ours(&request.get_ref().ticket) {
            return self.read(&request).await.map(Response::new).map_err(|error| status(&error));
        }
        check_command(&request.get_ref().ticket)?;
        self.sql.do_get(request).await
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let extensions = request.extensions().clone();
        let mut messages = request.into_inner().peekable();
        let descriptor = match Pin::new(&mut messages).peek().await {
            Some(Ok(first)) => first.flight_descriptor.clone().unwrap_or_default(),
            Some(Err(broken)) => return Err(broken.clone()),
            None => {
                let missing = "the put ended before its first message, which holds the descriptor";
                return Err(status(&CallError::BadRequest(missing.to_owned())));
            }
        };
        let opened = transport::descriptor::put_of(&descriptor);
        let encoding = match opened.map_err(|reason| status(&CallError::BadRequest(reason)))? {
            Some((Put::Bronze { topic }, encoding)) => {
                require(&extensions, Role::Writer).map_err(|error| status(&error))?;
                check_topic(topic, &self.hot).map_err(|error| status(&error))?;
                encoding
            }
            Some((Put::Gold {}, _)) => {
                require(&extensions, Role::Writer).map_err(|error| status(&error))?;
                let (hot, changes) = (Arc::clone(&self.hot), Arc::clone(&self.changes));
                let taken = gold::put::put(hot, changes, messages, self.shutdown.clone());
                // The server acknowledges nothing. The answers end with the put, or with its error.
                let answers = futures::stream::once(taken).filter_map(async |taken| taken.err());
                return Ok(Response::new(Box::pin(answers.map(|error| Err(status(&error))))));
            }
            None => {
                if let Some(table) = table_of(&descriptor) {
                    return Err(status(&CallError::Unsupported(format!("a put to {table:?}"))));
                }
                let bound = self.sql.put(&descriptor.cmd, messages).await.map_err(|error| status(&error))?;
                let result = PutResult { app_metadata: bound.encode_to_vec().into() };
                return Ok(Response::new(Box::pin(futures::stream::iter([Ok(result)]))));
            }
        };
        let answers = bronze::put::put(
            Arc::clone(&self.hot),
            self.hot_bytes_max,
            messages,
            self.metrics.clone(),
            self.shutdown.clone(),
        );
        let result = move |progress: Progress| PutResult { app_metadata: progress.encode(encoding) };
        Ok(Response::new(Box::pin(answers.map_ok(result).map_err(|error| status(&error)))))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        if request.get_ref().r#type == proto::PROGRESS_ACTION {
            let progress = Progress { origin: Some(self.hot.origin()), ..self.hot.progress() };
            let result =
                arrow_flight::Result { body: progress.encode(Encoding::of(&request.get_ref().body)) };
            return Ok(Response::new(Box::pin(futures::stream::iter([Ok(result)]))));
        }
        if request.get_ref().r#type == proto::REPORT_ACTION {
            require(request.extensions(), Role::Writer).map_err(|error| status(&error))?;
            let results = self.report(&request.get_ref().body).map_err(|error| status(&error))?;
            return Ok(Response::new(Box::pin(futures::stream::iter(results.into_iter().map(Ok)))));
        }
        let done = actions::run(&self.sql, RequestContext::of(&request), request.get_ref());
        let Some(Done { body, cookie }) = done.map_err(|error| status(&error))? else {
            check_command(&request.get_ref().body)?;
            return self.sql.do_action(request).await;
        };
        let result = Ok(arrow_flight::Result { body });
        let mut response: Response<Self::DoActionStream> =
            Response::new(Box::pin(futures::stream::iter([result])));
        if let Some(cookie) = cookie {
            response.metadata_mut().insert("set-cookie", cookie);
        }
        Ok(response)
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        Ok(Response::new(Box::pin(futures::stream::iter(actions::list().map(Ok)))))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        let what = "DoExchange (DoPut takes bronze, DoGet answers queries)".to_owned();
        Err(status(&CallError::Unsupported(what)))
    }
}
