//! How much is measured.

/// Sizes of the measurements, all of which grow with `rows`.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Candles of the large measurements.
    pub rows: usize,
    /// Runs, of which the median counts.
    pub runs: usize,
    /// Seconds that a measurement at a steady rate lasts.
    pub seconds: u64,
}

impl Scale {
    /// What documents are written from.
    pub const FULL: Scale = Scale { rows: 7_000_000, runs: 3, seconds: 60 };
    /// Shows that everything runs; its figures say nothing.
    pub const QUICK: Scale = Scale { rows: 20_000, runs: 1, seconds: 3 };
}
