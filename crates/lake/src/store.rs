//! The underlying store, a folder or an S3 bucket, and the part of it that holds one table.

mod bucket;
mod credentials;
pub(crate) mod folder;
mod profile;
pub(crate) mod refusal;
pub(crate) mod renewal;
pub(crate) mod variables;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use futures::future::{BoxFuture, join};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, PutMode};
use url::Url;
use uuid::Uuid;

use self::folder::{Folder, remove_staged};
use self::variables::Variables;
use crate::LakeError;
use crate::verdict;

/// Minimum age of a staged file that no running put can own.
const STAGED_AGE_MIN: Duration = Duration::from_hours(1);

/// A folder or an S3 bucket that holds the tables. Clones share it.
#[derive(Clone, Debug)]
pub struct Lake {
    /// The store, with its root where the path of [`Self::base`] begins. The Delta log reader requires this.
    pub(crate) root: Arc<dyn ObjectStore>,
    /// The place of the tables in `root`, with a slash at the end. For a folder, it is `folder:///`, whatever characters the folder's name
    /// has.
    base: Url,
    /// The whole address, for messages.
    address: String,
    /// The folder, if the lake is one.
    folder: Option<PathBuf>,
}

impl Lake {
    /// Opens the lake at a folder path, `file://…` or `s3://bucket[/prefix]`. Creates the folder or the bucket if it does not exist.
    ///
    /// S3 is configured as for the AWS SDKs and delta-rs. Credentials come from `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, from a web
    /// identity, from `AWS_PROFILE`, or from the role of the container or the instance. `AWS_REGION` names the region (default: the
    /// bucket's). `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or `AWS_ENDPOINT` names a server that is not Amazon's. `HTTPS_PROXY`,
    /// `HTTP_PROXY` and `NO_PROXY` configure proxies.
    ///
    /// # Errors
    ///
    /// [`LakeError::Location`] if the address or the variables are wrong. [`LakeError::Store`] if the store does not answer.
    pub fn open(url: &str) -> BoxFuture<'_, Result<Lake, LakeError>> {
        Box::pin(async move { Lake::open_with(url, &Variables::of_process()).await })
    }

    async fn open_with(url: &str, variables: &Variables) -> Result<Lake, LakeError> {
        let wrong = |reason: String| LakeError::Location { url: url.to_owned(), reason };
        let parse = || Url::parse(url).map_err(|error| wrong(error.to_string()));
        match url.split_once("://") {
            None => Lake::open_folder(PathBuf::from(url), url),
            Some(("s3" | "s3a", _)) => {
                let mut url = parse()?;
                let store = bucket::open(&url, variables).await?;
                let path = format!("{}/", url.path().trim_end_matches('/'));
                url.set_path(&path);
                Ok(Lake { root: Arc::new(store), address: url.to_string(), base: url, folder: None })
            }
            Some(("file", _)) => {
                let path = parse()?.to_file_path();
                Lake::open_folder(path.map_err(|()| wrong("write file:///absolute/path".to_owned()))?, url)
            }
            Some(_) => Err(wrong("write a folder, file:///folder or s3://bucket".to_owned())),
        }
    }

    /// Checks that the store rejects the creation of an object that exists, even by two racing writers. Removes the objects that it wrote.
    ///
    /// # Errors
    ///
    /// [`LakeError::NoPutIfAbsent`] if the store creates an object twice. [`LakeError::Store`] if the store does not answer.
    pub fn probe(&self) -> BoxFuture<'_, Result<(), LakeError>> {
        Box::pin(async move {
            let table = self.table("_probe")?;
            let store = &table.objects;
            let (twice, raced) =
                (Path::from(Uuid::new_v4().to_string()), Path::from(Uuid::new_v4().to_string()));
            let mut outcomes = vec![create(store, &twice).await, create(store, &twice).await];
            outcomes.extend(<[_; 2]>::from(join(create(store, &raced), create(store, &raced)).await));
            let removed = table.delete(vec![twice, raced]).await;
            removed.map_err(LakeError::store(format!("remove the probe objects from {}", self.address)))?;
            let mut created = 0;
            for outcome in outcomes {
                match outcome {
                    Ok(()) => created += 1,
                    Err(object_store::Error::AlreadyExists { .. }) => (),
                    Err(source) => {
                        return Err(LakeError::store(format!("create a probe object in {}", self.address))(
                            source,
                        ));
                    }
                }
            }
            if created == 2 { Ok(()) } else { Err(LakeError::NoPutIfAbsent { url: self.address.clone() }) }
        })
    }

    fn open_folder(path: PathBuf, url: &str) -> Result<Lake, LakeError> {
        let wrong = |error: std::io::Error| {
            let reason =
                verdict::with_advice(object_store::Error::Generic { store: "folder", source: error.into() });
            LakeError::Location { url: url.to_owned(), reason }
        };
        std::fs::create_dir_all(&path).map_err(wrong)?;
        let folder = path.canonicalize().map_err(wrong)?;
        let root = Folder::open(folder.clone())
            .map_err(|source| LakeError::Location { url: url.to_owned(), reason: source.to_string() })?;
        let base = Url::parse("folder:///").expect("a URL");
        Ok(Lake { root: Arc::new(root), base, address: folder.display().to_string(), folder: Some(folder) })
    }

    /// Returns the part of the lake below `prefix`.
    pub(crate) fn table(&self, prefix: &str) -> Result<TableStore, LakeError> {
        let wrong = |reason: String| LakeError::Location { url: self.address.clone(), reason };
        let url = self.base.join(&format!("{prefix}/")).map_err(|error| wrong(error.to_string()))?;
        let path = Path::from_url_path(url.path()).map_err(|error| wrong(error.to_string()))?;
        let objects: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&self.root), path));
        let log =
            default_logstore(Arc::clone(&objects), Arc::clone(&self.root), &url, &StorageConfig::default());
        let folder = self.folder.as_ref().map(|folder| folder.join(prefix));
        let mut hasher = DefaultHasher::new();
        (&self.address, &url).hash(&mut hasher);
        let name = format!("lake://{:016x}", hasher.finish());
        Ok(TableStore { objects, log, name, folder })
    }
}

/// The part of the store that holds one table. Paths are relative to the table.
#[derive(Clone, Debug)]
pub(crate) struct TableStore {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) log: LogStoreRef,
    /// A unique URL, under which a query engine finds the objects.
    pub(crate) name: String,
    folder: Option<PathBuf>,
}

impl TableStore {
    /// Puts an object. On return, the object survives a power cut.
    pub(crate) async fn put(
        &self,
        path: &Path,
        bytes: Bytes,
        mode: PutMode,
    ) -> Result<(), object_store::Error> {
        self.objects.put_opts(path, bytes.into(), mode.into()).await.map(drop)
    }

    /// Removes files that killed puts have left in the table's folder, and returns their number. An object store keeps no such files.
    pub(crate) async fn remove_staged(&self, now: SystemTime) -> Result<usize, object_store::Error> {
        let Some(folder) = self.folder.clone() else { return Ok(0) };
        let removed =
            tokio::task::spawn_blocking(move || remove_staged(&folder, STAGED_AGE_MIN, now)).await?;
        removed.map_err(|source| object_store::Error::Generic { store: "folder", source: source.into() })
    }

    /// Lists the data files that exist, in the log or not, with the times of their last writes.
    pub(crate) async fn data_files(&self) -> Result<Vec<object_store::ObjectMeta>, object_store::Error> {
        let hidden = |path: &Path| path.parts().any(|part| part.as_ref().starts_with(['_', '.']));
        let is_data = |object: &object_store::ObjectMeta| {
            object.location.extension() == Some("parquet") && !hidden(&object.location)
        };
        self.objects.list(None).try_filter(|object| std::future::ready(is_data(object))).try_collect().await
    }

    /// Deletes objects and returns the number of deleted ones. Objects that do not exist are ignored.
    pub(crate) async fn delete(&self, paths: Vec<Path>) -> Result<usize, object_store::Error> {
        let mut deleted = 0;
        let mut outcomes =
            self.objects.delete_stream(futures::stream::iter(paths.into_iter().map(Ok)).boxed());
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(_) => deleted += 1,
                Err(object_store::Error::NotFound { .. }) => (),
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}

/// Puts the probe object `path`, which must not exist. This is not a closure, because the compiler could not prove that its futures are
/// `Send`.
async fn create(store: &Arc<dyn ObjectStore>, path: &Path) -> object_store::Result<()> {
    store.put_opts(path, Bytes::from_static(b"probe").into(), PutMode::Create.into()).await.map(drop)
}

#[cfg(test)]
mod tests;
