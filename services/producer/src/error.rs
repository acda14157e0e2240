//! What stops a producer. Single lines never do: they are counted and reported.

use std::io;
use std::path::PathBuf;

use rdkafka::error::KafkaError;

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
    /// The first line does not name all columns.
    #[error(
        "{path:?} has no column {column:?}: its first line is {header:?}, but Timestamp,Open,High,Low,Close,Volume are needed"
    )]
    Column {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        column: &'static str,
        /// What the first line says.
        header: String,
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
