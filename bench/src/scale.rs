//! Sizes of the measurements.

/// Sizes of the measurements. They all grow with `rows`.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Candles of the large measurements.
    pub rows: usize,
    /// Number of runs. The median counts.
    pub runs: usize,
    /// Duration of a measurement at a steady rate, in seconds.
    pub seconds: u64,
    /// Table rows at which growth is measured, ascending.
    pub growth_rows: Vec<usize>,
    /// Versions of the bronze table at which growth is measured after that, ascending.
    pub growth_versions: Vec<u32>,
}

impl Scale {
    /// Returns the scale of published figures.
    pub fn full() -> Scale {
        Scale {
            rows: 7_000_000,
            runs: 3,
            seconds: 20,
            growth_rows: vec![0, 7_000_000, 50_000_000],
            growth_versions: vec![10_000],
        }
    }

    /// Returns the scale that only shows that everything runs. Its figures have no meaning.
    pub fn quick() -> Scale {
        Scale { rows: 20_000, runs: 1, seconds: 3, growth_rows: vec![0, 20_000], growth_versions: vec![50] }
    }
}
