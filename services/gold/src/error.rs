//! Why gold or its verification ends.

use datafusion::error::DataFusionError;
use position::{OffsetRange, Origin};
use tokio_postgres::error::SqlState;
use transport::client::ClientError;

use crate::sqlstate::{self, Verdict};

use crate::kernel::Frame;

/// Why gold or its verification ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bronze cannot be read from the Flight server.
    #[error("read bronze from the Flight server")]
    Flight(#[from] ClientError),
    /// A bronze batch does not have the schema of bronze: server and gold are of different versions.
    #[error(
        "the batch {range} from the Flight server does not have the schema of bronze; run one version of all services"
    )]
    Schema {
        /// The batch.
        range: OffsetRange,
    },
    /// A batch from the Flight server does not begin where the one before ended.
    #[error("the Flight server sent {range} where offset {expected} was expected")]
    Gap {
        /// The next offset of the partition.
        expected: i64,
        /// What came.
        range: OffsetRange,
    },
    /// The Flight server has all of bronze that was asked for, and does not send it.
    #[error(
        "the Flight server sent nothing of bronze for {patience:?}, which it has: read its log, and try again"
    )]
    BronzeSilent {
        /// How long it was silent.
        patience: std::time::Duration,
    },
    /// The Flight server does not name its bronze: it is of version 0.1.
    #[error("the Flight server does not name its bronze table: upgrade the server, then gold goes on")]
    ServerOutdated,
    /// The Flight server's bronze is of another topic than gold is to be computed from.
    #[error(
        "{found} is the topic here, not {wanted}: name the same --topic to all services, or use another server or database"
    )]
    OtherTopic {
        /// The topic that the server or the database has.
        found: String,
        /// The topic that was asked for.
        wanted: String,
    },
    /// A sink's rows are computed from another bronze table than the Flight server has.
    #[error(
        "the gold rows in {sink} are computed from bronze table {found}, but the Flight server's bronze is table {} of topic {}: \
         connect gold to the server of its own bronze, or run `candleflight gold --rebuild`, which empties gold and computes it again \
         from this bronze", server.table, server.topic
    )]
    OtherBronze {
        /// The sink.
        sink: &'static str,
        /// The id of the bronze table that its rows are computed from.
        found: String,
        /// What the Flight server has.
        server: Origin,
    },
    /// The table has rows of another frame.
    #[error(
        "the rows of gold are of --frame {}, and --frame {} was given: give --frame {} as before, or run `candleflight gold --rebuild`, which computes gold again",
        recorded.name(), given.name(), recorded.name()
    )]
    Frame {
        /// The frame of the rows.
        recorded: Frame,
        /// The frame that was given.
        given: Frame,
    },
    /// The PostgreSQL URL does not parse. The cause is left out: it could hold the password.
    #[error(
        "--postgres is not a URL such as postgres://user:password@host:5432/database?sslmode=require; certificates are not named in it \
         but by --postgres-ca, --postgres-cert and --postgres-key"
    )]
    PostgresUrl,
    /// A file of certificates cannot be used.
    #[error(transparent)]
    Access(#[from] access::Error),
    /// There is no TLS between PostgreSQL and us that both trust.
    #[error(
        "PostgreSQL: connect by TLS; check --postgres-ca (its authority), the host in --postgres (as its certificate has it) and \
         --postgres-cert"
    )]
    PostgresTls(#[source] tokio_postgres::Error),
    /// PostgreSQL does not let us in: a wrong log-in, or a role that may not connect to the database.
    #[error("PostgreSQL refuses us; check user, password, database and sslmode in --postgres")]
    PostgresRefused(#[source] tokio_postgres::Error),
    /// PostgreSQL refused, or could not be reached.
    #[error("PostgreSQL: {action}{}", advice(source))]
    Postgres {
        /// What was being done.
        action: &'static str,
        /// Why not.
        #[source]
        source: tokio_postgres::Error,
    },
    /// PostgreSQL did not answer in time.
    #[error("PostgreSQL: {action}: no answer in time")]
    PostgresTimeout {
        /// What was being done.
        action: &'static str,
    },
    /// The database has a table by one of our names that we did not make, such as that of the pipeline this one replaces.
    #[error(
        "the database has a table by the name of one of ours: rename or drop it, or use another database"
    )]
    PostgresTaken(#[source] tokio_postgres::Error),
    /// The schema in PostgreSQL is newer than this program.
    #[error("the tables in PostgreSQL have version {found}, this program knows {known}: run a newer one")]
    PostgresVersion {
        /// The version of the tables.
        found: i32,
        /// The newest that this program knows.
        known: i32,
    },
    /// The database does not hold every character.
    #[error(
        "the encoding of the database is {encoding}, in which some symbols cannot be written: make one with \
         CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it in --postgres"
    )]
    PostgresEncoding {
        /// The encoding.
        encoding: String,
    },
    /// The position in PostgreSQL is not where this process left it: another gold instance, or a restored backup.
    #[error("the position in PostgreSQL was moved by another gold instance, or a backup was restored")]
    Moved,
    /// The gold Delta table could not be read or written.
    #[error("{action} the gold Delta table")]
    Lake {
        /// What was being done.
        action: &'static str,
        /// Why not.
        #[source]
        source: lake::LakeError,
    },
    /// A query on the gold Delta table failed.
    #[error("query the gold Delta table")]
    Query(#[from] DataFusionError),
    /// The dead-letter topic cannot be read.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A task panicked: a bug.
    #[error("a task of gold ended abnormally")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    /// Tells whether gold may start its session again from the positions of its sinks.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Flight(source) => source.is_transient(),
            Error::Postgres { source, .. } => postgres_is_transient(source),
            Error::Lake { source, .. } => source.is_transient(),
            Error::Query(source) => query_is_transient(source),
            Error::Kafka(source) => source.is_transient(),
            // It may be the server that is wrong, and is put right.
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

    /// Says why there is no connection.
    pub(crate) fn connect(source: tokio_postgres::Error) -> Error {
        // 28: invalid authorization, 42501: no right to connect. What rustls finds wrong is invalid data to tokio.
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

    /// Returns the error with all its causes, in one line.
    pub(crate) fn in_full(&self) -> String {
        let causes = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    pub(crate) fn postgres(action: &'static str) -> impl Fn(tokio_postgres::Error) -> Error {
        move |source| Error::Postgres { action, source }
    }

    pub(crate) fn lake(action: &'static str) -> impl Fn(lake::LakeError) -> Error {
        move |source| Error::Lake { action, source }
    }
}

/// Tells whether the same query may succeed later: not when it could not be planned; what else fails is the store beneath it.
fn query_is_transient(error: &DataFusionError) -> bool {
    use DataFusionError::{Configuration, Internal, NotImplemented, Plan, SQL, SchemaError};
    !matches!(
        error.find_root(),
        Configuration(_) | Internal(_) | NotImplemented(_) | Plan(_) | SQL(..) | SchemaError(..)
    )
}

/// Returns true if the same transaction may succeed later: there was no answer at all, or one that passes by itself.
fn postgres_is_transient(error: &tokio_postgres::Error) -> bool {
    if let Some(answer) = error.as_db_error() {
        return sqlstate::verdict(answer) == Verdict::Passes;
    }
    // The server has not answered: connection refused, reset or closed. What we could not encode or decode has no cause of that kind.
    let cause = std::error::Error::source(error);
    error.is_closed() || cause.is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// Returns what a person can do about an error that does not pass by itself, to be put behind the message.
fn advice(error: &tokio_postgres::Error) -> String {
    match error.as_db_error().map(sqlstate::verdict) {
        Some(Verdict::Ends(advice)) => format!("; {advice}"),
        Some(Verdict::Passes) | None => String::new(),
    }
}
