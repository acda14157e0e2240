//! Why the Flight server stops, and why it refuses.

use std::net::SocketAddr;
use std::time::Duration;

use access::{Denied, Role};
use datafusion::error::DataFusionError;
use lake::LakeError;
use position::OffsetRange;

use crate::queries::Stopped;

/// Why the Flight server stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listen for Flight clients on {address} (--listen)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The lake refuses: it is fenced, of another schema, or does not enforce put-if-absent.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The address can be reached from outside, and nothing is asked of callers.
    #[error("--listen")]
    Access(#[from] access::Error),
    /// The engine that runs queries does not start.
    #[error("start the query engine")]
    Engine(#[source] DataFusionError),
    /// The gRPC server failed.
    #[error("serve Flight clients")]
    Serve(#[from] tonic::transport::Error),
}

/// Why one call is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the server is stopping; connect again and go on from your last range")]
    Stopping,
    #[error(transparent)]
    Denied(Denied),
    #[error("user {user:?} is a {role}; this takes a {needed}")]
    Forbidden { user: String, role: Role, needed: Role },
    #[error(
        "{0} run already, and none has ended for a while: try again, or cancel one (system.queries lists them)"
    )]
    Busy(String),
    #[error("the query worked for longer than {limit:?} (--query-time-max): narrow it, by date for example")]
    TooLong { limit: Duration },
    #[error(
        "the query's text has {bytes} bytes, at most {limit} are planned (--query-text-max): bind long lists as parameters"
    )]
    TooLongText { bytes: usize, limit: usize },
    #[error(
        "the result is larger than {limit} bytes (--result-bytes-max): narrow the query, or follow the table by a ticket"
    )]
    TooLarge { limit: usize },
    #[error("no message was taken for {limit:?}: run the query again, or follow on from your last range")]
    Untaken { limit: Duration },
    #[error(
        "the query needs more memory than it may use (--query-memory-max), or disk for what of it can go there (--query-disk-max)"
    )]
    NoMemory(#[source] Box<DataFusionError>),
    #[error("the query was cancelled")]
    Cancelled,
    #[error("the query failed by a fault of the engine; other queries go on")]
    Panicked,
    #[error("put bronze: {0}")]
    Gap(#[from] crate::hot::Gap),
    #[error("put bronze: {0}")]
    OtherTopic(#[from] crate::hot::OtherTopic),
    #[error(
        "the ticket's positions count in bronze table {theirs}, this server's bronze is table {ours}: \
         start again without a position, or ask the server of that table"
    )]
    OtherTable { ours: String, theirs: String },
    #[error("put bronze: {0}")]
    BadBatch(String),
    #[error("read the request: {0}")]
    BadRequest(String),
    #[error("{}", .0.message())]
    Broken(tonic::Status),
    #[error("put gold of {found}: bronze has received that partition up to {received}; put it again later")]
    Ahead { found: OffsetRange, received: i64 },
    #[error("{0}")]
    Query(#[source] Box<DataFusionError>),
    #[error("read the lake")]
    Lake(#[from] LakeError),
    #[error("{0} is not served")]
    Unsupported(String),
    #[error("encode a batch")]
    Encode(#[from] arrow::error::ArrowError),
}

impl From<DataFusionError> for Refusal {
    fn from(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Refusal::NoMemory(Box::new(error)),
            DataFusionError::External(cause) if cause.is::<Stopped>() => Refusal::Cancelled,
            _ => Refusal::Query(Box::new(error)),
        }
    }
}
