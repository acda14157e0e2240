//! References for DoGet: a server as a user of arrow-flight writes it, and a plain TCP stream.

use anyhow::ensure;
use arrow::array::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightClient, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// Bytes of one write and of one read of the raw stream.
const TCP_BYTES: usize = 256 * 1024;

/// Running server. Dropping it ends the server.
pub(super) struct Loopback {
    address: String,
    _server: JoinSet<Result<(), tonic::transport::Error>>,
}

/// Starts a server that holds `batches`.
pub(super) async fn start(batches: Vec<RecordBatch>) -> anyhow::Result<Loopback> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = format!("http://{}", listener.local_addr()?);
    let serving = Server::builder()
        .add_service(FlightServiceServer::new(Memory { batches }))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let mut server = JoinSet::new();
    server.spawn(serving);
    Ok(Loopback { address, _server: server })
}

impl Loopback {
    /// Reads all rows. Returns the seconds.
    pub(super) async fn get(&self, rows: usize) -> anyhow::Result<f64> {
        let channel = Endpoint::from_shared(self.address.clone())?.connect().await?;
        let mut client = FlightClient::new(channel);
        let started = Instant::now();
        let mut stream = client.do_get(Ticket::new("")).await?;
        let mut count = 0;
        while let Some(batch) = stream.try_next().await? {
            count += batch.num_rows();
        }
        ensure!(count == rows, "{count} of {rows} rows came");
        Ok(started.elapsed().as_secs_f64())
    }
}

/// Sends `gigabytes` over a plain connection. Returns the seconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few gigabytes")]
pub(super) async fn raw_stream(gigabytes: f64) -> anyhow::Result<f64> {
    let writes = (gigabytes * 1e9) as usize / TCP_BYTES;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let started = Instant::now();
    let mut sender = JoinSet::new();
    sender.spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let bytes = vec![7; TCP_BYTES];
        for _ in 0..writes {
            stream.write_all(&bytes).await?;
        }
        Ok::<_, std::io::Error>(())
    });
    let mut stream = TcpStream::connect(address).await?;
    let (mut bytes, mut count) = (vec![0; TCP_BYTES], 0);
    loop {
        match stream.read(&mut bytes).await? {
            0 => break,
            read => count += read,
        }
    }
    ensure!(count == writes * TCP_BYTES, "{count} bytes came from {writes} writes");
    Ok(started.elapsed().as_secs_f64())
}

/// Service with batches in memory.
struct Memory {
    batches: Vec<RecordBatch>,
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for Memory {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let batches = futures::stream::iter(self.batches.clone().into_iter().map(Ok));
        let encoded = FlightDataEncoderBuilder::new().build(batches).map_err(Status::from);
        Ok(Response::new(encoded.boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(Status::unimplemented("DoGet only"))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(Status::unimplemented("DoGet only"))
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        Err(Status::unimplemented("DoGet only"))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented("DoGet only"))
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        Err(Status::unimplemented("DoGet only"))
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        Err(Status::unimplemented("DoGet only"))
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        Err(Status::unimplemented("DoGet only"))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(Status::unimplemented("DoGet only"))
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("DoGet only"))
    }
}
