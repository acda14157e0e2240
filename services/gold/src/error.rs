//! Errors of gold and of verify.

use datafusion::error::DataFusionError;
use position::{OffsetRange, Origin};
use tokio_postgres::error::SqlState;
use transport::client::ClientError;

use crate::sqlstate::{self, Verdict};

use kernel::Frame;

/// Error that ends gold or verify.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading bronze from the Flight server fails.
    #[error("read bronze from the Flight server")]
    Flight(#[from] ClientError),
    /// A batch does not have the bronze schema: the server and gold have different versions.
    #[error(
        "the batch {range} from the Flight server does not have the bronze schema; run the same version of all services"
    )]
    Schema {
        /// Offsets of the batch.
        range: OffsetRange,
    },
    /// A batch from the Flight server does not begin at the end of the previous batch.
    #[error("the Flight server sent {range} where offset {expected} was expected")]
    Gap {
        /// The next offset of the partition.
        expected: i64,
        /// Offsets of the batch that arrived.
        range: OffsetRange,
    },
    /// The Flight server has all the requested bronze rows, but does not send them.
    #[error(
        "the Flight server has the bronze rows but sent none for {patience:?}: read its log, and try again"
    )]
    BronzeSilent {
        /// Length of the silence.
        patience: std::time::Duration,
    },
    /// The Flight server does not report the id of its bronze table, since it is version 0.1.
    #[error(
        "the Flight server does not report the id of its bronze table: upgrade the server, then gold continues"
    )]
    ServerOutdated,
    /// The Flight server's bronze, or the rows in the database, come from a different topic.
    #[error(
        "the topic is {found} here, not {expected}: give all services the same --topic, or use another server or database"
    )]
    OtherTopic {
        /// Topic of the server or of the database.
        found: String,
        /// Requested topic.
        expected: String,
    },
    /// The rows of a sink were computed from a bronze table other than that of the Flight server.
    #[error(
        "the gold rows in {sink} were computed from bronze table {found}, but the Flight server's bronze is table {} of topic {}: \
         connect gold to the server of that bronze table, or run `candleflight gold --rebuild`, which empties gold and computes it again \
         from this bronze", server.table, server.topic
    )]
    OtherBronze {
        /// The sink.
        sink: &'static str,
        /// Id of the bronze table that its rows were computed from.
        found: String,
        /// Topic and bronze table of the Flight server.
        server: Origin,
    },
    /// The table has rows of a different frame.
    #[error(
        "the gold rows have --frame {}, but --frame {} was given: give --frame {} as before, or run `candleflight gold --rebuild`, which computes gold again",
        recorded.name(), given.name(), recorded.name()
    )]
    Frame {
        /// Frame of the rows.
        recorded: Frame,
        /// Frame that was given.
        given: Frame,
    },
    /// The PostgreSQL URL does not parse. The cause is left out, since it may contain the password.
    #[error(
        "--postgres is not a URL such as postgres://user:password@host:5432/database?sslmode=require; give certificates \
         by --postgres-ca, --postgres-cert and --postgres-key, not in the URL"
    )]
    PostgresUrl,
    /// A certificate file cannot be used.
    #[error(transparent)]
    Access(#[from] access::Error),
    /// The TLS handshake with PostgreSQL fails: one side does not trust the other.
    #[error(
        "PostgreSQL: connect by TLS; check --postgres-ca (the authority of its certificate), the host in --postgres (it must match the certificate) and \
         --postgres-cert"
    )]
    PostgresTls(#[source] tokio_postgres::Error),
    /// PostgreSQL rejects the connection: the log-in is wrong, or the role may not connect to the database.
    #[error("PostgreSQL rejects the connection; check user, password, database and sslmode in --postgres")]
    PostgresRefused(#[source] tokio_postgres::Error),
    /// PostgreSQL returned an error or is unreachable.
    #[error("PostgreSQL: {action}{}", advice(source))]
    Postgres {
        /// Action that failed.
        action: &'static str,
        /// Cause.
        #[source]
        source: tokio_postgres::Error,
    },
    /// PostgreSQL did not answer in time.
    #[error("PostgreSQL: {action}: no answer in time")]
    PostgresTimeout {
        /// Action that failed.
        action: &'static str,
    },
    /// The database has a table with one of gold's names that gold did not create, such as a table of another pipeline.
    #[error(
        "the database already has a table with the name of a gold table: rename or drop it, or use another database"
    )]
    PostgresTaken(#[source] tokio_postgres::Error),
    /// The schema in PostgreSQL is newer than this program.
    #[error(
        "the tables in PostgreSQL have version {found}, but this program supports versions up to {known}: run a newer program"
    )]
    PostgresVersion {
        /// Version of the tables.
        found: i32,
        /// Newest version that this program supports.
        known: i32,
    },
    /// The encoding of the database cannot represent every character.
    #[error(
        "the encoding of the database is {encoding}, which cannot represent every symbol: create a database with \
         CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and give it in --postgres"
    )]
    PostgresEncoding {
        /// The encoding.
        encoding: String,
    },
    /// The position in PostgreSQL changed since this process wrote it: another gold instance wrote it, or a backup was restored.
    #[error("the position in PostgreSQL was moved by another gold instance, or a backup was restored")]
    Moved,
    /// The gold Delta table could not be read or written.
    #[error("{action} the gold Delta table")]
    Lake {
        /// Action that failed.
        action: &'static str,
        /// Cause.
        #[source]
        source: lake::LakeError,
    },
    /// A query on the gold Delta table failed.
    #[error("query the gold Delta table")]
    Query(#[from] DataFusionError),
    /// Reading the dead-letter topic fails.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A task panicked, which is a bug.
    #[error("a gold task panicked")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    /// Returns true if gold may restart its session from the positions of its sinks.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Flight(source) => source.is_transient(),
            Error::Postgres { source, .. } => postgres_is_transient(source),
            Error::Lake { source, .. } => source.is_transient(),
            Error::Query(source) => query_is_transient(source),
            Error::Kafka(source) => source.is_transient(),
            // The fault may be in the server's configuration, and an operator may correct it there.
            Error::PostgresTls(_) | Error::PostgresRefused(_) => true,
            Error::PostgresTimeout { .. }
            | Error::Moved
            | Error::ServerOutdated
            | Error::BronzeSilent { .. } => true,
            Error::Schema { .. }
            | Error::Gap { .. }
            | Error::OtherTopic { .. }
            | Error::OtherBronze { .. }
            | Error::Frame { .. }
            | Error::PostgresEncoding { .. }
            | Error::PostgresUrl
            | Error::Access(_)
            | Error::PostgresTaken(_)
            | Error::PostgresVersion { .. }
            | Error::Task(_) => false,
        }
    }

    /// Classifies an error that occurred while connecting.
    pub(crate) fn connect(source: tokio_postgres::Error) -> Error {
        // 28: invalid authorization; 42501: no privilege to connect. A rustls error reaches tokio as invalid data.
        let state = source.code().map_or("", SqlState::code);
        if state.starts_with("28") || state == "42501" {
            return Error::PostgresRefused(source);
        }
        let cause = std::error::Error::source(&source).and_then(<dyn std::error::Error>::downcast_ref);
        match cause.map(std::io::Error::kind) {
            Some(std::io::ErrorKind::InvalidData) => Error::PostgresTls(source),
            _ => Error::Postgres { action: "connect", source },
        }
    }

    pub(crate) fn postgres(action: &'static str) -> impl Fn(tokio_postgres::Error) -> Error {
        move |source| Error::Postgres { action, source }
    }

    pub(crate) fn lake(action: &'static str) -> impl Fn(lake::LakeError) -> Error {
        move |source| Error::Lake { action, source }
    }
}

/// Returns true if the same query may succeed later: all errors except those of planning come from the store.
fn query_is_transient(error: &DataFusionError) -> bool {
    use DataFusionError::{Configuration, Internal, NotImplemented, Plan, SQL, SchemaError};
    !matches!(
        error.find_root(),
        Configuration(_) | Internal(_) | NotImplemented(_) | Plan(_) | SQL(..) | SchemaError(..)
    )
}

/// Returns true if the same transaction may succeed later, because the server did not answer or returned a transient error.
fn postgres_is_transient(error: &tokio_postgres::Error) -> bool {
    if let Some(answer) = error.as_db_error() {
        return sqlstate::verdict(answer) == Verdict::Passes;
    }
    // The server has not answered: the connection was refused, reset or closed. Encoding and decoding errors do not have an I/O error as
    // cause.
    let cause = std::error::Error::source(error);
    error.is_closed() || cause.is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// Returns advice for an error that is not transient, as a suffix of the message.
fn advice(error: &tokio_postgres::Error) -> String {
    match error.as_db_error().map(sqlstate::verdict) {
        Some(Verdict::Ends(advice)) => format!("; {advice}"),
        Some(Verdict::Passes) | None => String::new(),
    }
}
