//! Measurements of the pipeline's speed, compared with the limits of the machine and with alternatives.
//!
//! Each measurement creates its own [`integration_tests::pipeline::Pipeline`] on real servers. It runs the pipeline and the alternatives in
//! turn, and returns [`figure::Figure`]s.

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

/// Environment and scale of the measurements.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Servers that the measurements use.
    pub environment: Environment,
    /// Sizes of the measurements.
    pub scale: Scale,
}

/// Function that measures something and returns figures.
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
