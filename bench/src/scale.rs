//! How much is measured.

/// Sizes of the measurements, all of which grow with `rows`.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Candles of the large measurements.
    pub rows: usize,
    /// Runs, of which the median counts.
    pub runs: usize,
    /// Seconds that a measurement at a steady rate lasts.
    pub seconds: u64,
    /// Rows of the tables at which growth is measured, ascending.
    pub growth_rows: Vec<usize>,
    /// Versions of the bronze table at which growth is measured after that, ascending.
    pub growth_versions: Vec<u32>,
}

impl Scale {
    /// What documents are written from.
    pub fn full() -> Scale {
        Scale {
            rows: 7_000_000,
            runs: 3,
            seconds: 20,
            growth_rows: vec![0, 7_000_000, 50_000_000],
            growth_versions: vec![10_000],
        }
    }

    /// Shows that everything runs; its figures say nothing.
    pub fn quick() -> Scale {
        Scale { rows: 20_000, runs: 1, seconds: 3, growth_rows: vec![0, 20_000], growth_versions: vec![50] }
    }
}
