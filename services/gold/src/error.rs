//! Why gold or its verification ends.

use datafusion::error::DataFusionError;
use position::OffsetRange;
use proto::client::ClientError;

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
    /// The table has rows of another frame.
    #[error(
        "the rows of gold are of --frame {}, and --frame {} was given: give --frame {} as before, or write to an empty database and lake",
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
    /// PostgreSQL does not let us in.
    #[error("PostgreSQL refuses us; check user, password, database and sslmode in --postgres")]
    PostgresRefused(#[source] tokio_postgres::Error),
    /// PostgreSQL refused, or could not be reached.
    #[error("PostgreSQL: {action}")]
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
            Error::PostgresTimeout { .. } | Error::Moved => true,
            Error::Schema { .. }
            | Error::Gap { .. }
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
        // 28: invalid authorisation. What rustls finds wrong is invalid data to tokio.
        if source.code().is_some_and(|state| state.code().starts_with("28")) {
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

/// Tells whether the same transaction may succeed later: no answer at all, or one of the classes of SQLSTATE that say so.
fn postgres_is_transient(error: &tokio_postgres::Error) -> bool {
    let Some(state) = error.code() else {
        // Without a state the server has not answered: connection refused, reset or closed. What we could not encode or decode has
        // no cause of that kind.
        let cause = std::error::Error::source(error);
        return error.is_closed() || cause.is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
    };
    // 08 connection, 40 serialisation failure or deadlock, 53 out of resources, 57P01..3 the server stops or starts, 55P03 lock.
    let state = state.code();
    matches!(&state[..2], "08" | "40" | "53") || matches!(state, "57P01" | "57P02" | "57P03" | "55P03")
}
