//! Calls of a Flight server: connect, read, follow, put, progress and report.

use std::time::Duration;

use access::Identity;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, FlightData, Ticket};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use position::OffsetRange;
use schema::RangedBatch;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use proto::metadata::{BatchMetadata, Progress};
use proto::v1::ProgressRequest;
use proto::{DecodeError, Encoding, Message as _, PROGRESS_ACTION, REPORT_ACTION};

use crate::FRAME_BYTES_MAX;

/// Largest Flight message that is accepted, in bytes: 32 times the largest of our server, so that a wide row of another server fits.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest time for a connection, including the TLS handshake.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Interval of the keep-alive pings on a quiet connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection to a Flight server. Clones share it.
pub type Client = FlightServiceClient<InterceptedService<Channel, Login>>;

/// Adds a password or a token to each call.
#[derive(Clone, Debug)]
pub struct Login(Option<MetadataValue<Ascii>>);

impl Interceptor for Login {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.0 {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

/// The reason why a call to the Flight server failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not a URL such as `grpc://127.0.0.1:50051`.
    #[error("parse the Flight address {address:?}")]
    Address {
        /// The address.
        address: String,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// This client's login or certificate cannot be used.
    #[error(transparent)]
    Access(#[from] access::Error),
    /// The server cannot be reached.
    #[error("connect to the Flight server at {address}")]
    Connect {
        /// The address.
        address: String,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// The server answered with an error.
    #[error("{action}: {}{}", status.message(), hint(status))]
    Status {
        /// The call.
        action: &'static str,
        /// The answer.
        status: Box<Status>,
    },
    /// The stream is not the Arrow data that the ticket promises.
    #[error("decode the Flight stream")]
    Stream(#[source] FlightError),
    /// The server ended a put that had not ended.
    #[error("the Flight server ended the put")]
    Ended,
    /// The metadata of a message cannot be read.
    #[error("read the range of a batch")]
    Metadata(#[from] DecodeError),
}

impl ClientError {
    /// Returns true if the same call can succeed later: the server is starting, stopping or overloaded.
    pub fn is_transient(&self) -> bool {
        let transient = |status: &Status| {
            use tonic::Code::{
                Aborted, Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable, Unknown,
            };
            matches!(
                status.code(),
                Aborted | Cancelled | DeadlineExceeded | ResourceExhausted | Unavailable | Unknown
            )
        };
        match self {
            ClientError::Connect { .. } | ClientError::Ended => true,
            ClientError::Status { status, .. } => transient(status),
            ClientError::Stream(FlightError::Tonic(status)) => transient(status),
            ClientError::Address { .. }
            | ClientError::Access(_)
            | ClientError::Stream(_)
            | ClientError::Metadata(_) => false,
        }
    }

    fn status(action: &'static str) -> impl FnOnce(Status) -> ClientError {
        move |status| ClientError::Status { action, status: Box::new(status) }
    }
}

/// Returns advice for the error that a server with TLS causes in a client without TLS. Returns an empty text for other errors.
pub fn hint(status: &Status) -> &'static str {
    let is_tls = status.code() == Code::Internal && status.message().contains("h2 protocol error");
    if is_tls { " (if the server has TLS, its address is grpc+tls://…)" } else { "" }
}

/// Connects, as `identity`, to a Flight server at `grpc://host:port`, or over TLS at `grpc+tls://host:port`.
///
/// # Errors
///
/// [`ClientError::Address`] when the address does not parse, [`ClientError::Access`] when a certificate cannot be read,
/// [`ClientError::Connect`] (transient) when no server answers, or its certificate is not trusted.
pub async fn connect(address: &str, identity: &Identity) -> Result<Client, ClientError> {
    let (url, is_tls) = url(address);
    let bad_address = |source| ClientError::Address { address: address.to_owned(), source };
    let mut endpoint = Endpoint::from_shared(url)
        .map_err(bad_address)?
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .max_frame_size(FRAME_BYTES_MAX);
    if is_tls {
        access::install_provider();
        let mut tls = match identity.authorities()? {
            Some(authorities) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = identity.identity()? {
            tls = tls.identity(tonic::transport::Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(tls).map_err(bad_address)?;
    }
    let channel = endpoint
        .connect()
        .await
        .map_err(|source| ClientError::Connect { address: address.to_owned(), source })?;
    let login = identity.authorization().and_then(|header| MetadataValue::try_from(header.as_bytes()).ok());
    Ok(FlightServiceClient::with_interceptor(channel, Login(login))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

/// Returns the address with HTTP's scheme, and true if the connection uses TLS.
fn url(address: &str) -> (String, bool) {
    for (scheme, http, is_tls) in
        [("grpc+tls://", "https://", true), ("grpc+tcp://", "http://", false), ("grpc://", "http://", false)]
    {
        if let Some(rest) = address.strip_prefix(scheme) {
            return (format!("{http}{rest}"), is_tls);
        }
    }
    (address.to_owned(), address.starts_with("https://"))
}

/// Returns bronze's position, and the topic and the table that the position belongs to.
///
/// # Errors
///
/// [`ClientError`]; see [`ClientError::is_transient`].
pub async fn progress(client: &mut Client) -> Result<Progress, ClientError> {
    let action = "read the progress of bronze";
    let body = prost::Message::encode_to_vec(&ProgressRequest { version: proto::VERSION }).into();
    let request = Action { r#type: PROGRESS_ACTION.to_owned(), body };
    let mut results = client.do_action(request).await.map_err(ClientError::status(action))?.into_inner();
    let result = results.message().await.map_err(ClientError::status(action))?;
    Ok(Progress::decode(&result.map(|result| result.body).unwrap_or_default())?)
}

/// Sends a process's report to the server, and returns the reports of all processes.
///
/// # Errors
///
/// [`ClientError`]; see [`ClientError::is_transient`].
pub async fn report(client: &mut Client, report: Bytes) -> Result<Vec<Bytes>, ClientError> {
    let action = "report the status";
    let request = Action { r#type: REPORT_ACTION.to_owned(), body: report };
    let results = client.do_action(request).await.map_err(ClientError::status(action))?.into_inner();
    results.map_ok(|result| result.body).try_collect().await.map_err(ClientError::status(action))
}

/// Reads a table: batches with their ranges, in the order of the ticket. Empty batches with empty ranges are left out.
///
/// # Errors
///
/// [`ClientError`], of the call or as an item of the stream; see [`ClientError::is_transient`].
pub async fn read(
    client: &mut Client,
    ticket: &proto::ticket::Ticket,
) -> Result<impl Stream<Item = Result<RangedBatch, ClientError>> + Send + use<>, ClientError> {
    let batches = follow(client, ticket).await?;
    Ok(batches.try_filter(|batch| std::future::ready(!batch.is_empty())))
}

/// Reads a table like [`read`], and leaves nothing out. The start of each partition comes first, and keep-alives come later. The ends of
/// all ranges are the position from which to continue.
///
/// # Errors
///
/// [`ClientError`], of the call or as an item of the stream; see [`ClientError::is_transient`].
pub async fn follow(
    client: &mut Client,
    ticket: &proto::ticket::Ticket,
) -> Result<impl Stream<Item = Result<RangedBatch, ClientError>> + Send + use<>, ClientError> {
    let messages = client
        .do_get(Ticket::new(ticket.encode(Encoding::Protobuf)))
        .await
        .map_err(ClientError::status("read a table"))?
        .into_inner();
    let messages = messages.map_err(|status| FlightError::Tonic(Box::new(status)));
    Ok(FlightDataDecoder::new(messages).filter_map(async |decoded| {
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return Some(Err(ClientError::Stream(error))),
        };
        let DecodedPayload::RecordBatch(rows) = decoded.payload else { return None };
        Some(range_of(&decoded.inner).map(|range| RangedBatch { range, rows }))
    }))
}

/// Puts `messages`, the first of which holds the descriptor. Returns once the server has accepted the call. The stream of answers ends
/// with the put.
///
/// # Errors
///
/// [`ClientError`], of the call or as an item of the stream; see [`ClientError::is_transient`].
pub async fn put(
    client: &mut Client,
    messages: impl Stream<Item = FlightData> + Send + 'static,
) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
    let failed = |status| ClientError::Status { action: "put a table", status: Box::new(status) };
    let answers = client.do_put(messages).await.map_err(failed)?.into_inner();
    Ok(answers.map_ok(|answer| answer.app_metadata).map_err(failed).boxed())
}

fn range_of(message: &FlightData) -> Result<OffsetRange, ClientError> {
    Ok(BatchMetadata::decode(&message.app_metadata)?.range)
}
