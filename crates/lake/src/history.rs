//! Earlier versions of a table.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use position::Position;

use crate::LakeError;
use crate::entry::read_entry;
use crate::file::DataFile;
use crate::log;
use crate::snapshot::{Snapshot, State};

/// Requests to the store that run at once.
const REQUESTS_AT_ONCE: usize = 8;

/// One version of a table, as recorded in its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The Delta version.
    pub version: u64,
    /// Time at which the version's entry was written, by the store's clock.
    pub committed_at: DateTime<Utc>,
    /// Number of rows, as far as the log records it.
    pub row_count: u64,
    /// The position that the rows reach.
    pub position: Position,
}

/// The versions that can still be read.
struct Readable {
    first: u64,
    /// Write time of each log entry that still exists.
    committed: BTreeMap<u64, DateTime<Utc>>,
}

impl Snapshot {
    /// Returns an earlier version of the table. Its position is always right, but its files may be gone: see [`Snapshot::check_files`].
    ///
    /// # Errors
    ///
    /// [`LakeError::Version`] if there is no such version up to this one, or if it was cleaned up. For other errors, see
    /// [`LakeError::is_transient`].
    pub fn at(&self, version: u64) -> BoxFuture<'_, Result<Snapshot, LakeError>> {
        Box::pin(async move {
            let State { spec, store, version: last, .. } = self.0.as_ref();
            if version == *last {
                return Ok(self.clone());
            }
            let first = self.readable().await?.first;
            if !(first..=*last).contains(&version) {
                return Err(LakeError::Version { table: spec.name, requested: version, first, last: *last });
            }
            log::load_version(spec, store, Some(version)).await
        })
    }

    /// Checks that the files that `latest` has replaced still exist. Vacuum deletes them after its retention.
    ///
    /// # Errors
    ///
    /// [`LakeError::Expired`] if a file is gone. For other errors, see [`LakeError::is_transient`].
    pub fn check_files<'a>(&'a self, latest: &'a Snapshot) -> BoxFuture<'a, Result<(), LakeError>> {
        Box::pin(async move {
            let paths = |snapshot: &Snapshot| {
                snapshot.0.files.iter().map(|file: &std::sync::Arc<DataFile>| file.path.clone()).collect()
            };
            let held: std::collections::HashSet<_> = paths(latest);
            let replaced: Vec<_> = paths(self).into_iter().filter(|path| !held.contains(path)).collect();
            let checks = replaced.into_iter().map(|path| async move {
                match self.0.store.objects.head(&path).await {
                    Ok(_) => Ok(()),
                    Err(object_store::Error::NotFound { path, .. }) => Err(LakeError::Expired { path }),
                    Err(error) => Err(LakeError::store(format!("look for the data file {path}"))(error)),
                }
            });
            futures::stream::iter(checks).buffer_unordered(REQUESTS_AT_ONCE).try_collect().await
        })
    }

    /// Lists the last versions up to this one, at most `count`, in ascending order.
    ///
    /// # Errors
    ///
    /// See [`LakeError::is_transient`].
    pub fn versions(&self, count: u64) -> BoxFuture<'_, Result<Vec<Version>, LakeError>> {
        Box::pin(async move {
            let State { spec, store, version: last, .. } = self.0.as_ref();
            let Readable { first, committed } = self.readable().await?;
            let first = first.max((last + 1).saturating_sub(count));
            let mut snapshot = self.at(first).await?;
            let mut versions = Vec::new();
            let entries = (first + 1..=*last).map(|version| read_entry(spec, store, version));
            let mut entries = futures::stream::iter(entries).buffered(REQUESTS_AT_ONCE);
            loop {
                let version = snapshot.version();
                if let Some(committed_at) = committed.get(&version).copied() {
                    let (row_count, position) = (snapshot.row_count(), snapshot.position().clone());
                    versions.push(Version { version, committed_at, row_count, position });
                }
                let Some(actions) = entries.try_next().await? else { return Ok(versions) };
                snapshot = log::apply(&snapshot, version + 1, &actions.unwrap_or_default())?;
            }
        })
    }

    async fn readable(&self) -> Result<Readable, LakeError> {
        let State { spec, store, version, .. } = self.0.as_ref();
        let doing = format!("list the log of the {} table", spec.name);
        let mut objects = store.objects.list(Some(store.log.log_path()));
        let (mut committed, mut checkpoint) = (BTreeMap::new(), *version);
        while let Some(object) = objects.try_next().await.map_err(LakeError::store(doing.as_str()))? {
            let Some((number, kind)) = object.location.filename().and_then(|name| name.split_once('.'))
            else {
                continue;
            };
            match (number.parse::<u64>(), kind) {
                (Ok(number), "json") => _ = committed.insert(number, object.last_modified),
                (Ok(number), "checkpoint.parquet") => checkpoint = checkpoint.min(number),
                _ => (),
            }
        }
        // All versions are readable while entry 0 exists. Otherwise they begin at the oldest checkpoint.
        let first = if committed.contains_key(&0) { 0 } else { checkpoint };
        Ok(Readable { first, committed })
    }
}
