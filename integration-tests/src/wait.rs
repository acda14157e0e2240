//! Waiting for a condition with a deadline, never for a time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Pause between two looks at a condition.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Looks until `condition` holds and returns what it gives.
///
/// # Panics
///
/// When it does not hold within `deadline`; `what` says what was waited for.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        sleep(LOOK_PAUSE).await;
    }
}
