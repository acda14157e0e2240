//! Number of rows between two points at which a query can be stopped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::error::Result;
use tokio::time::Instant;

use super::Watch;

/// Rows of the first slice. Later slices double while they are quick.
const ROWS_MIN: usize = 1;
/// Longest time of a slice. After a longer one, the next slices are smaller.
const SLICE_TIME: Duration = Duration::from_millis(20);

/// Rows of the next slice, derived from the time of the last slices.
#[derive(Debug)]
pub(super) struct Pace(AtomicUsize);

impl Default for Pace {
    fn default() -> Self {
        Pace(AtomicUsize::new(ROWS_MIN))
    }
}

impl Pace {
    /// Computes `rows` rows slice by slice. `compute` takes the index of a slice's first row, and the number of its rows.
    ///
    /// # Errors
    ///
    /// An error of `compute`, or the query must stop.
    pub(super) fn slices<T>(
        &self,
        rows: usize,
        watch: Option<&Watch>,
        mut compute: impl FnMut(usize, usize) -> Result<T>,
    ) -> Result<Vec<T>> {
        let (mut slices, mut done) = (Vec::new(), 0);
        while done < rows {
            watch.map_or(Ok(()), Watch::check)?;
            let count = self.0.load(Ordering::Relaxed).min(rows - done);
            let begun = Instant::now();
            slices.push(compute(done, count)?);
            let took = begun.elapsed();
            if took > SLICE_TIME {
                self.0.store((count / 2).max(1), Ordering::Relaxed);
            } else if took < SLICE_TIME / 4 {
                // A short slice, such as the last of a batch, does not predict the time of a longer one.
                self.0.fetch_max(2 * count, Ordering::Relaxed);
            }
            done += count;
        }
        Ok(slices)
    }
}
