//! What stops a producer. Single lines never do: they are counted and reported.

use std::io;
use std::path::PathBuf;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Why the producer stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input does not exist.
    #[error(
        "there is no {path:?}: get the Kaggle set at https://www.kaggle.com/datasets/mczielinski/bitcoin-historical-data \
         (as data/bitcoin_data.csv, or the .zip by --input), or let `candleflight sample` write a synthetic one"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The input cannot be opened or read.
    #[error("read {path:?}, line {line}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The line, 0 before the first.
        line: u64,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The zip archive cannot be read.
    #[error("read the zip archive {path:?}")]
    Zip {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: zip::result::ZipError,
    },
    /// The zip archive holds no CSV file that can be unpacked.
    #[error("{path:?} holds no .csv file that is stored or deflated")]
    NoCsv {
        /// Which file.
        path: PathBuf,
    },
    /// The file is no CSV file, or its first line does not name all columns.
    #[error("{path:?} {problem}")]
    Layout {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// No line of the file holds a candle that can be used.
    #[error("none of the {count} lines of {path:?} holds a usable candle; line {line}, {text:?}: {hint}")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// How many lines it has, the header and empty ones apart.
        count: u64,
        /// The first of them.
        line: u64,
        /// How it begins.
        text: String,
        /// What is probably wrong with it.
        hint: String,
    },
    /// The topic holds another candle under the file's name and line than the file.
    #[error(
        "{path:?} is another file than the one of this name that was sent to {topic}: its line {line} is not what was sent as line \
         {line}; give it another name to send it from its first line"
    )]
    AnotherFile {
        /// Which file.
        path: PathBuf,
        /// The topic.
        topic: String,
        /// The last line that was sent.
        line: u64,
    },
    /// The topic holds no record of an input and has lost its oldest records, so the input may have been sent before.
    #[error(
        "{topic} holds no record of {path:?} as {symbol}, but its oldest records are gone (retention), so whether the file was sent is \
         not known; --start-over (CANDLEFLIGHT_START_OVER=true) sends it from its first line"
    )]
    Expired {
        /// Which file.
        path: PathBuf,
        /// Its symbol.
        symbol: String,
        /// The topic.
        topic: String,
    },
    /// Two inputs cannot be told apart in the topic.
    #[error("two inputs are named {name:?} for {symbol}: where each stopped could not be told")]
    SameInput {
        /// File name of both.
        name: String,
        /// Symbol of both.
        symbol: String,
    },
    /// The sample cannot be written.
    #[error("write {path:?}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Kafka cannot be asked or told something.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A record was not acknowledged and never will be; records after it may be missing too.
    #[error("deliver {record} to {topic}; start again with --resume")]
    Delivery {
        /// The topic.
        topic: String,
        /// The record's value.
        record: String,
        /// Why not.
        #[source]
        source: KafkaError,
    },
    /// The drain ended before Kafka had acknowledged everything.
    #[error("{count} records to {topic} were not acknowledged within {seconds} s; start again with --resume")]
    Unacknowledged {
        /// The topic.
        topic: String,
        /// How many.
        count: i32,
        /// How long was waited.
        seconds: u64,
    },
}

impl Error {
    /// Returns true if one input is the cause: the others, and the pipeline, can go on without it.
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

    /// Returns true if a producer that is opened again, and goes on after the last record in the topic, may succeed. A client that has
    /// given up a record is of no more use itself: it could not keep the order.
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
