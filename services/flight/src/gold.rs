//! The gold table, which another service writes.

use std::time::Duration;

use lake::{Lake, LakeError, Snapshot, Table};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How old the known version may be: gold commits every few seconds, a look costs a list request.
const AGE_MAX: Duration = Duration::from_millis(250);

/// The gold table, and when it was last looked at.
#[derive(Debug)]
pub(crate) struct Gold(Mutex<(Table, Instant)>);

impl Gold {
    /// Opens the table of `topic`, creating it when absent.
    pub(crate) async fn open(lake: &Lake, topic: &str) -> Result<Self, LakeError> {
        Ok(Gold(Mutex::new((Table::open(lake, lake::gold(topic)).await?, Instant::now()))))
    }

    /// Returns the present version, give or take [`AGE_MAX`].
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, LakeError> {
        // Held across the refresh on purpose: those who come together share one.
        let mut gold = self.0.lock().await;
        if gold.1.elapsed() < AGE_MAX {
            return Ok(gold.0.snapshot());
        }
        let snapshot = gold.0.refresh().await?;
        gold.1 = Instant::now();
        Ok(snapshot)
    }
}
