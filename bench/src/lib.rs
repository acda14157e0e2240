//! What the pipeline does in a second, beside the limits of the machine and the alternatives.
//!
//! Each measurement makes its own [`integration_tests::pipeline::Pipeline`] on real servers, runs ours and theirs in turn, and returns
//! [`figure::Figure`]s.

pub mod engines;
pub mod figure;
pub mod kernel;
pub mod report;
pub mod scale;
pub mod sql;

use futures::future::BoxFuture;
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
pub type Measure = for<'a> fn(&'a Setting) -> BoxFuture<'a, anyhow::Result<Vec<Figure>>>;

/// All measurements, in the order of the table.
pub const MEASUREMENTS: &[(&str, Measure)] = &[("kernel", kernel::measure), ("sql", sql::measure)];
