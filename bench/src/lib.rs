//! What the pipeline does in a second, beside the limits of the machine and the alternatives.
//!
//! Each measurement makes its own [`integration_tests::pipeline::Pipeline`] on real servers, runs ours and theirs in turn, and returns
//! [`figure::Figure`]s.

pub mod backfill;
pub mod consumer;
pub mod engines;
pub mod figure;
pub mod freshness;
pub mod get;
pub mod growth;
pub mod ingest;
pub mod input;
pub mod json;
pub mod kernel;
pub mod memory;
pub mod objects;
pub mod report;
pub mod scale;
pub mod sql;
pub mod start;
pub mod watch;

use futures::future::LocalBoxFuture;
use integration_tests::environment::Environment;

use crate::figure::Figure;
use crate::scale::Scale;

/// Where to measure, and how much.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The servers.
    pub environment: Environment,
    /// The sizes.
    pub scale: Scale,
}

/// A measurement: makes figures.
pub type Measure = for<'a> fn(&'a Setting) -> LocalBoxFuture<'a, anyhow::Result<Vec<Figure>>>;

/// All measurements, in the order of the table.
pub const MEASUREMENTS: &[(&str, Measure)] = &[
    ("json", json::measure),
    ("ingest", ingest::measure),
    ("kernel", kernel::measure),
    ("backfill", backfill::measure),
    ("freshness", freshness::measure),
    ("get", get::measure),
    ("sql", sql::measure),
    ("memory", memory::measure),
    ("start", start::measure),
    ("growth", growth::measure),
];
