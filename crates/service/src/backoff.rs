//! Retries: the decision on a further attempt, and the pause before that attempt. Pauses grow exponentially, with jitter and bounds.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// First pause. It is short, because most causes (a restart, a rebalance) are over at once.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause: the service should continue soon after a person has fixed the cause.
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

    /// Waits for the next pause. Returns false if `shutdown` is cancelled first.
    pub async fn pause(&mut self, shutdown: &CancellationToken) -> bool {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures += 1;
        let pause = doubled.mul_f64(rand::random_range(0.5..=1.0));
        shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }

    /// Reports a failed attempt and pauses, so that the caller's loop makes the next attempt.
    ///
    /// # Errors
    ///
    /// [`GaveUp`] if `is_retried` returns false, and then nothing is reported, or if `shutdown` is cancelled first.
    pub async fn after<E>(
        &mut self,
        error: E,
        is_retried: impl FnOnce(&E) -> bool,
        report: impl FnOnce(&E),
        shutdown: &CancellationToken,
    ) -> Result<(), GaveUp<E>> {
        if !is_retried(&error) {
            return Err(GaveUp::Failed(error));
        }
        report(&error);
        if self.pause(shutdown).await { Ok(()) } else { Err(GaveUp::Stopped(error)) }
    }
}

/// The end of a loop of attempts, with the error of the last attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaveUp<E> {
    /// The error is not retried.
    Failed(E),
    /// The service is shutting down.
    Stopped(E),
}

impl<E> GaveUp<E> {
    /// Returns the error of the last attempt, also after a shutdown.
    pub fn into_error(self) -> E {
        match self {
            GaveUp::Failed(error) | GaveUp::Stopped(error) => error,
        }
    }

    /// Returns `Ok` after a shutdown.
    ///
    /// # Errors
    ///
    /// The error that is not retried.
    pub fn unless_stopped(self) -> Result<(), E> {
        match self {
            GaveUp::Failed(error) => Err(error),
            GaveUp::Stopped(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::{Backoff, GaveUp};

    #[tokio::test]
    async fn a_loop_ends_at_shutdown_and_at_an_error_that_is_not_retried() {
        let running = CancellationToken::new();
        let stopped = CancellationToken::new();
        stopped.cancel();
        let mut backoff = Backoff::default();
        let mut reported = Vec::new();
        assert_eq!(backoff.after("busy", |_| true, |error| reported.push(*error), &running).await, Ok(()));
        let gone = backoff.after("gone", |_| false, |error| reported.push(*error), &running).await;
        assert_eq!(gone, Err(GaveUp::Failed("gone")));
        let busy = backoff.after("busy", |_| true, |error| reported.push(*error), &stopped).await;
        assert_eq!(busy, Err(GaveUp::Stopped("busy")));
        assert_eq!(reported, ["busy", "busy"]);
    }
}
