//! Waits for a condition with a deadline, never for a fixed time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Pause between two checks of a condition.
const CHECK_PAUSE: Duration = Duration::from_millis(20);

/// Checks repeatedly until `condition` holds, and returns its value.
///
/// # Panics
///
/// The condition does not hold within `deadline`. `what` describes it in the message.
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
        sleep(CHECK_PAUSE).await;
    }
}
