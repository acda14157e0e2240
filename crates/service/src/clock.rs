//! The wall clock. Only the edges of the program read it. All other code takes `now` as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the current time in microseconds since the epoch, UTC.
pub fn now_micros() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the edge")]
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

/// Returns the current time in seconds since the epoch, UTC, as Prometheus expects it.
pub fn now_seconds() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit")]
    let micros = now_micros() as f64;
    micros / 1e6
}
