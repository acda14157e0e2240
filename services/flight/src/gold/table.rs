//! The gold table, which another service writes.

use std::sync::Arc;
use std::time::Duration;

use lake::{Lake, LakeError, Snapshot, Table};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Maximum age of the cached version. Gold commits every few seconds, and each check costs a list request.
const AGE_MAX: Duration = Duration::from_millis(250);

/// Gold table of a topic. The first request opens it: reading its log takes as long as reading bronze's. A restarted server already
/// receives rows during that time.
#[derive(Debug)]
pub(crate) struct GoldTable {
    lake: Lake,
    topic: String,
    checked: Mutex<Checked>,
}

/// Result of the last check of the table.
#[derive(Debug, Default)]
struct Checked {
    /// `None` until the table is opened.
    table: Option<Table>,
    /// End of the last check, and its error if it failed.
    last: Option<(Instant, Result<(), Arc<LakeError>>)>,
}

impl GoldTable {
    pub(crate) fn new(lake: Lake, topic: String) -> Self {
        GoldTable { lake, topic, checked: Mutex::default() }
    }

    /// Returns the present version, at most [`AGE_MAX`] old. Creates the table if it does not exist.
    ///
    /// # Errors
    ///
    /// The lake cannot be read. All callers that waited for the same check get its error.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, LakeError> {
        // The lock is held during the check on purpose: concurrent callers share one check.
        let mut checked = self.checked.lock().await;
        if let Some((ended, found)) = &checked.last
            && ended.elapsed() < AGE_MAX
        {
            found.clone().map_err(LakeError::Shared)?;
        } else {
            let found = self.check(&mut checked.table).await.map_err(Arc::new);
            checked.last = Some((Instant::now(), found.clone()));
            found.map_err(LakeError::Shared)?;
        }
        Ok(checked.table.as_ref().expect("a check without an error has opened the table").snapshot())
    }

    async fn check(&self, table: &mut Option<Table>) -> Result<(), LakeError> {
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

    use super::GoldTable;

    #[tokio::test]
    async fn callers_that_wait_for_one_check_share_its_failure() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap()).await.unwrap();
        let gold = GoldTable::new(lake, "candles".to_owned());
        gold.snapshot().await.unwrap();
        // The table's log is no longer a folder.
        std::fs::remove_dir_all(folder.path()).unwrap();
        std::fs::write(folder.path(), "").unwrap();
        gold.checked.lock().await.last = None;
        let failures = join_all((0..50).map(|_| gold.snapshot())).await.into_iter().map(|snapshot| {
            let Err(LakeError::Shared(failure)) = snapshot else { panic!("{snapshot:?}") };
            failure
        });
        let failures: Vec<_> = failures.collect();
        let checks: HashSet<_> = failures.iter().map(Arc::as_ptr).collect();
        assert!(checks.len() < 5, "{} checks", checks.len());
    }
}
