//! The gold table, which another service writes.

use std::time::Duration;

use lake::{Lake, LakeError, Snapshot, Table};
use tokio::sync::{Mutex, OnceCell};
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
    seen: OnceCell<Mutex<(Table, Instant)>>,
}

impl Gold {
    pub(crate) fn new(lake: Lake, topic: String) -> Self {
        Gold { lake, topic, seen: OnceCell::new() }
    }

    /// Returns the present version, give or take [`AGE_MAX`]; creates the table when absent.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, LakeError> {
        let open = async || {
            let table = Table::open(&self.lake, lake::gold(&self.topic)).await?;
            Ok::<_, LakeError>(Mutex::new((table, Instant::now())))
        };
        // Held across the refresh on purpose: those who come together share one.
        let mut gold = self.seen.get_or_try_init(open).await?.lock().await;
        if gold.1.elapsed() < AGE_MAX {
            return Ok(gold.0.snapshot());
        }
        let snapshot = gold.0.refresh().await?;
        gold.1 = Instant::now();
        Ok(snapshot)
    }
}
