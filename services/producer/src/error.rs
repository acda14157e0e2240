//! Errors that stop a producer. A line that cannot be used is not one of them: it is counted and logged.

use std::io;
use std::path::PathBuf;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Reason why the producer stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input does not exist.
    #[error(
        "{path:?} does not exist: download the Kaggle set from https://www.kaggle.com/datasets/mczielinski/bitcoin-historical-data \
         (as data/bitcoin_data.csv, or give the .zip by --input), or create a synthetic file with `candleflight sample`"
    )]
    Missing {
        /// Path of the missing file.
        path: PathBuf,
    },
    /// The input cannot be opened or read.
    #[error("read {path:?}, line {line}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Number of the line. 0 before the first line.
        line: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The zip archive cannot be read.
    #[error("read the zip archive {path:?}")]
    Zip {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: zip::result::ZipError,
    },
    /// The zip archive contains no CSV file that can be unpacked.
    #[error("{path:?} contains no .csv file that is stored or deflated")]
    NoCsv {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a CSV file, or its first line does not name all columns.
    #[error("{path:?} {problem}")]
    Layout {
        /// The file.
        path: PathBuf,
        /// The problem, and what to do.
        problem: String,
    },
    /// No line of the file contains a usable candle.
    #[error("none of the {count} lines of {path:?} contains a usable candle; line {line}, {text:?}: {hint}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Number of lines, without the header and empty lines.
        count: u64,
        /// Number of the first such line.
        line: u64,
        /// Beginning of that line.
        text: String,
        /// Probable cause.
        hint: String,
    },
    /// The candle that the topic holds for this file name and line differs from the candle in the file.
    #[error(
        "{path:?} is another file than the one of this name that was sent to {topic}: line {line} differs from the line that was sent; \
         rename the file to send it from its first line"
    )]
    AnotherFile {
        /// The file.
        path: PathBuf,
        /// The topic.
        topic: String,
        /// Number of the last line that was sent.
        line: u64,
    },
    /// The topic has no record of an input, but has lost its oldest records. So the input may have been sent before.
    #[error(
        "{topic} has no record of {path:?} as {symbol}, but retention has removed its oldest records, so the file may have been sent \
         before; --start-over (CANDLEFLIGHT_START_OVER=true) sends it from its first line"
    )]
    Expired {
        /// The file.
        path: PathBuf,
        /// Symbol of the input.
        symbol: String,
        /// The topic.
        topic: String,
    },
    /// Two inputs have the same file name and symbol, so that their records cannot be distinguished.
    #[error(
        "two inputs have the file name {name:?} and the symbol {symbol}: their records cannot be distinguished, so rename a file"
    )]
    SameInput {
        /// File name of both.
        name: String,
        /// Symbol of both.
        symbol: String,
    },
    /// The sample cannot be written.
    #[error("write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A request to Kafka failed.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A record failed permanently. Later records may be missing, too.
    #[error("deliver {record} to {topic}; start again with --resume")]
    Delivery {
        /// The topic.
        topic: String,
        /// Value of the record.
        record: String,
        /// The cause.
        #[source]
        source: KafkaError,
    },
    /// The drain ended before Kafka had acknowledged all records.
    #[error("{count} records to {topic} were not acknowledged within {seconds} s; start again with --resume")]
    Unacknowledged {
        /// The topic.
        topic: String,
        /// Number of unacknowledged records.
        count: i32,
        /// Length of the wait.
        seconds: u64,
    },
}

impl Error {
    /// Returns true if one input is the cause. The other inputs and the pipeline can continue without this input.
    pub fn is_input(&self) -> bool {
        match self {
            Error::Missing { .. }
            | Error::Read { .. }
            | Error::Zip { .. }
            | Error::NoCsv { .. }
            | Error::Layout { .. }
            | Error::Unusable { .. }
            | Error::AnotherFile { .. }
            | Error::Expired { .. } => true,
            Error::SameInput { .. }
            | Error::Write { .. }
            | Error::Kafka(_)
            | Error::Delivery { .. }
            | Error::Unacknowledged { .. } => false,
        }
    }

    /// Returns true if a new client that continues after the last record in the topic may succeed.
    ///
    /// The old client cannot be used after it has given up a record, because it could not keep the order.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Error::Kafka(error) => error.is_transient(),
            Error::Delivery { source, .. } => {
                !kafka::is_fatal(source) || source.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
            }
            _ => false,
        }
    }
}
