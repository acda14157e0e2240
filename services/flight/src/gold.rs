//! The gold table, which another service writes.

use std::time::Duration;

use lake::{Lake, LakeError, Snapshot, Table};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How old the known version may be: gold commits every few seconds, a look costs a list request.
const AGE_MAX: Duration = Duration::from_millis(250);

/// The gold table of a topic. It is opened when it is first asked for: to read its log takes as long as bronze's, and a restarted server
/// takes rows meanwhile.
#[derive(Debug)]
pub(crate) struct Gold {
    lake: Lake,
    topic: String,
    /// The table, and when it was last looked at.
    seen: Mutex<Option<(Table, Instant)>>,
}

impl Gold {
    pub(crate) fn new(lake: Lake, topic: String) -> Self {
        Gold { lake, topic, seen: Mutex::default() }
    }

    /// Returns the present version, give or take [`AGE_MAX`]; creates the table when absent.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, LakeError> {
        // Held across the look on purpose: those who come together share one.
        let mut seen = self.seen.lock().await;
        let snapshot = match seen.as_mut() {
            Some((table, at)) if at.elapsed() < AGE_MAX => return Ok(table.snapshot()),
            Some((table, at)) => {
                let snapshot = table.refresh().await?;
                *at = Instant::now();
                snapshot
            }
            None => {
                let table = Table::open(&self.lake, lake::gold(&self.topic)).await?;
                seen.insert((table, Instant::now())).0.snapshot()
            }
        };
        Ok(snapshot)
    }
}
