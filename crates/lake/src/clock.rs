//! The clock of the Delta format.

/// Returns the time in milliseconds since 1970, for the time stamps of log entries, files and tombstones. Only maintenance and the renewal
/// of credentials base decisions on it.
#[expect(clippy::disallowed_methods, reason = "the lake does I/O")]
pub(crate) fn now_millis() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
