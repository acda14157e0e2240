//! The gold table, which another service writes.

use std::sync::Arc;
use std::time::Duration;

use lake::{Lake, LakeError, Snapshot, Table};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How old what is known may be: gold commits every few seconds, a look costs a list request.
const AGE_MAX: Duration = Duration::from_millis(250);

/// The gold table of a topic. It is opened when it is first asked for: to read its log takes as long as bronze's, and a restarted server
/// takes rows meanwhile.
#[derive(Debug)]
pub(crate) struct Gold {
    lake: Lake,
    topic: String,
    seen: Mutex<Seen>,
}

/// What the last look found.
#[derive(Debug, Default)]
struct Seen {
    /// Absent until it was opened.
    table: Option<Table>,
    /// When the last look ended, and why it failed if it did.
    last: Option<(Instant, Result<(), Arc<LakeError>>)>,
}

impl Gold {
    pub(crate) fn new(lake: Lake, topic: String) -> Self {
        Gold { lake, topic, seen: Mutex::default() }
    }

    /// Returns the present version, give or take [`AGE_MAX`]; creates the table when absent.
    ///
    /// # Errors
    ///
    /// The lake cannot be read. All who waited for one look share its error.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, LakeError> {
        // Held across the look on purpose: those who come together share one.
        let mut seen = self.seen.lock().await;
        if let Some((ended, found)) = &seen.last
            && ended.elapsed() < AGE_MAX
        {
            found.clone().map_err(LakeError::Shared)?;
        } else {
            let found = self.look(&mut seen.table).await.map_err(Arc::new);
            seen.last = Some((Instant::now(), found.clone()));
            found.map_err(LakeError::Shared)?;
        }
        Ok(seen.table.as_ref().expect("a look that found no error found the table").snapshot())
    }

    async fn look(&self, table: &mut Option<Table>) -> Result<(), LakeError> {
        match table {
            Some(table) => _ = table.refresh().await?,
            None => *table = Some(Table::open(&self.lake, lake::gold(&self.topic)).await?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use futures::future::join_all;
    use lake::{Lake, LakeError};

    use super::Gold;

    #[tokio::test]
    async fn those_who_wait_for_a_look_share_its_failure() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
        let gold = Gold::new(lake, "candles".to_owned());
        gold.snapshot().await.unwrap();
        // The table's log is no folder any more.
        std::fs::remove_dir_all(folder.path()).unwrap();
        std::fs::write(folder.path(), "").unwrap();
        gold.seen.lock().await.last = None;
        let failures = join_all((0..50).map(|_| gold.snapshot())).await.into_iter().map(|snapshot| {
            let Err(LakeError::Shared(failure)) = snapshot else { panic!("{snapshot:?}") };
            failure
        });
        let failures: Vec<_> = failures.collect();
        let looks: HashSet<_> = failures.iter().map(Arc::as_ptr).collect();
        assert!(looks.len() < 5, "{} looks", looks.len());
    }
}
