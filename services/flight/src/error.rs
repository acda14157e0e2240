//! Errors that stop the Flight server, and errors of single calls.

use std::net::SocketAddr;
use std::time::Duration;

use access::{Denied, Role};
use datafusion::error::DataFusionError;
use lake::LakeError;
use position::OffsetRange;

use crate::queries::watch::Stopped;

/// Error that stops the Flight server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot listen on the address.
    #[error("listen for Flight clients on {address} (--listen)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Cause of the failure.
        #[source]
        source: std::io::Error,
    },
    /// The lake failed permanently: another writer has fenced it, its schema is different, or its store does not support put-if-absent.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The address is reachable from other machines, but callers need no authentication.
    #[error("--listen")]
    Access(#[from] access::Error),
    /// The query engine did not start.
    #[error("start the query engine")]
    Engine(#[source] DataFusionError),
    /// The gRPC server failed.
    #[error("serve Flight clients")]
    Serve(#[from] tonic::transport::Error),
}

/// Error of one call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the server is stopping: connect again and continue from your last range")]
    Stopping,
    #[error(transparent)]
    Denied(Denied),
    #[error("user {user:?} has role {role}; this call needs role {needed}")]
    Forbidden { user: String, role: Role, needed: Role },
    #[error("{0} are running, and none ended in time: try again, or cancel one (system.queries lists them)")]
    Busy(String),
    #[error("the query ran for longer than {limit:?} (--query-time-max): narrow it, for example by date")]
    TooLong { limit: Duration },
    #[error(
        "the query's text has {bytes} bytes; at most {limit} are allowed (--query-text-max): bind long lists as parameters"
    )]
    TooLongText { bytes: usize, limit: usize },
    #[error(
        "the result is larger than {limit} bytes (--result-bytes-max): narrow the query, or follow the table by a ticket"
    )]
    TooLarge { limit: usize },
    #[error(
        "the client read no message for {limit:?}: run the query again, or continue from your last range"
    )]
    Untaken { limit: Duration },
    #[error(
        "the query needs more memory (--query-memory-max) or more disk space (--query-disk-max) than it may use"
    )]
    NoMemory(#[source] Box<DataFusionError>),
    #[error("the query was cancelled")]
    Cancelled,
    #[error("the query failed because of a bug in the query engine; other queries continue")]
    Panicked,
    #[error("put bronze: {0}")]
    Gap(#[from] crate::bronze::buffer::Gap),
    #[error("put bronze: {0}")]
    OtherTopic(#[from] crate::bronze::buffer::OtherTopic),
    #[error(
        "the ticket's positions belong to bronze table {theirs}; this server's bronze is table {ours}: \
         start again without a position, or use the server of that table"
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
    #[error("{0} is not supported")]
    Unsupported(String),
    #[error("encode a batch")]
    Encode(#[from] arrow::error::ArrowError),
}

impl From<DataFusionError> for CallError {
    fn from(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => CallError::NoMemory(Box::new(error)),
            DataFusionError::External(cause) if cause.is::<Stopped>() => CallError::Cancelled,
            _ => CallError::Query(Box::new(error)),
        }
    }
}
