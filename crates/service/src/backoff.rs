//! Pauses between retries: exponential, with jitter and bounds.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// First pause; short, because most causes (a restart, a rebalance) are over at once.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause: the service should go on soon after a person has fixed the cause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Counter of failures that sets the pause before the next retry. Each loop that retries has its own.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Resets to the shortest pause, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits for the next pause; returns false if `shutdown` was cancelled first.
    pub async fn pause(&mut self, shutdown: &CancellationToken) -> bool {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures += 1;
        let pause = doubled.mul_f64(rand::random_range(0.5..=1.0));
        shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }
}
