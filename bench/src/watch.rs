//! Waits for a metric of a process.

use std::time::Duration;

use anyhow::ensure;
use integration_tests::process::Process;
use service::metrics::names::Description;
use tokio::time::Instant;

/// Time between two checks: a hundredth of the shortest time that is measured with it.
const CHECK_PAUSE: Duration = Duration::from_millis(10);
/// Longest time that a metric may stand still.
const STALL_MAX: Duration = Duration::from_mins(2);

/// Waits until a metric is at least `bound`. Returns the time, and the value at that time.
///
/// # Errors
///
/// The metric stands still for minutes, or the process is gone.
pub async fn reaches(
    process: &Process,
    metric: Description,
    labels: &[&str],
    bound: f64,
) -> anyhow::Result<(Instant, f64)> {
    let (mut last, mut moved) = (f64::NAN, Instant::now());
    loop {
        let value = process.metric(metric, labels).await.unwrap_or(f64::NAN);
        if value >= bound {
            return Ok((Instant::now(), value));
        }
        if value != last && !(value.is_nan() && last.is_nan()) {
            (last, moved) = (value, Instant::now());
        }
        ensure!(moved.elapsed() < STALL_MAX, "{} stands still at {last}, short of {bound}", metric.name);
        tokio::time::sleep(CHECK_PAUSE).await;
    }
}
