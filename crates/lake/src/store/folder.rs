//! A folder as an object store whose puts survive a power cut: a file gets its name only once its bytes are on the disk.
//!
//! The underlying store for folders names a file first. After a power cut, a log entry could then exist and be empty.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use uuid::Uuid;

/// An error of one step with a file.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}", path.display())]
pub(crate) struct FileError {
    pub(crate) step: Step,
    path: PathBuf,
    #[source]
    source: io::Error,
}

#[cfg(test)]
impl FileError {
    pub(crate) fn new(step: Step, path: PathBuf, source: io::Error) -> FileError {
        FileError { step, path, source }
    }
}

/// The steps of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Creates the folders and writes the file under a temporary name.
    Write,
    /// Syncs the file, or a folder, to the disk.
    Sync,
    /// Gives the file its final name, unless another file has that name.
    Link,
    /// Gives the file its name, and replaces any other file with it.
    Rename,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Write => "write",
            Step::Sync => "sync",
            Step::Link => "link",
            Step::Rename => "rename",
        })
    }
}

/// The folder of a lake, used as a store. All paths are relative to this folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    files: LocalFileSystem,
    /// The lake's folder. It is never created here, because an unmounted disk must not look like an empty lake.
    top: PathBuf,
}

impl Folder {
    /// Returns the store of the folder `top`, a canonical path.
    ///
    /// # Errors
    ///
    /// An error if the folder does not exist.
    pub(crate) fn open(top: PathBuf) -> Result<Folder> {
        Ok(Folder { files: LocalFileSystem::new_with_prefix(&top)?, top })
    }

    fn put(&self, path: &FilePath, payload: &PutPayload, is_new: bool) -> Result<(), FileError> {
        let at = |step: Step, path: &FilePath| {
            let path = path.to_owned();
            move |source| FileError { step, path, source }
        };
        let parent = path.parent().expect("a path of an object has a folder");
        self.make(parent).map_err(at(Step::Write, parent))?;
        // Lists omit names that end in # and a number.
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!("#{}", Uuid::new_v4().as_u128()));
        let staged = Staged(PathBuf::from(staged));
        let mut file = File::create_new(&staged.0).map_err(at(Step::Write, path))?;
        payload.iter().try_for_each(|bytes| file.write_all(bytes)).map_err(at(Step::Write, path))?;
        file.sync_all().map_err(at(Step::Sync, path))?;
        // Some network file systems write only files that were closed.
        drop(file);
        let named = if is_new {
            std::fs::hard_link(&staged.0, path).map_err(at(Step::Link, path))
        } else {
            std::fs::rename(&staged.0, path).map_err(at(Step::Rename, path))
        };
        drop(staged);
        // This also runs if the name is taken: an earlier put may have failed between its link and its sync.
        self.sync_folders(parent)?;
        named
    }

    /// Creates the folders between the lake's folder and `folder`.
    fn make(&self, folder: &FilePath) -> io::Result<()> {
        if folder == self.top || !folder.starts_with(&self.top) {
            return std::fs::metadata(folder).map(drop);
        }
        let make = || match std::fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        match (make(), folder.parent()) {
            (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
                self.make(parent)?;
                make()
            }
            (made, _) => made,
        }
    }

    /// Syncs to the disk the names in `folder`, and the names of the folders above it.
    fn sync_folders(&self, folder: &FilePath) -> Result<(), FileError> {
        folder.ancestors().take_while(|folder| folder.starts_with(&self.top)).try_for_each(|folder| {
            let synced = File::open(folder).and_then(|file| file.sync_all());
            synced.map_err(|source| FileError { step: Step::Sync, path: folder.to_owned(), source })
        })
    }
}

/// Sorts a list by path. Object stores answer in this order, and the Delta log reader expects it.
fn sorted(list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let sort = async {
        let mut objects: Vec<ObjectMeta> = list.try_collect().await?;
        objects.sort_unstable_by(|one, other| one.location.cmp(&other.location));
        Ok(stream::iter(objects.into_iter().map(Ok)))
    };
    sort.try_flatten_stream().boxed()
}

/// Removes files below `folder` that killed puts have left and that are at least `age_min` old. A put takes only seconds. Returns the
/// number of files.
pub(crate) fn remove_staged(folder: &FilePath, age_min: Duration, now: SystemTime) -> io::Result<usize> {
    let is_old = |path: &FilePath| -> io::Result<bool> {
        let modified = std::fs::metadata(path)?.modified()?;
        Ok(now.duration_since(modified).is_ok_and(|age| age >= age_min))
    };
    let mut removed = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            removed += remove_staged(&path, age_min, now)?;
        } else if path.file_name().and_then(|name| name.to_str()).is_some_and(is_staged) {
            let remove = |is_old: bool| if is_old { std::fs::remove_file(&path).map(|()| 1) } else { Ok(0) };
            removed += match is_old(&path).and_then(remove) {
                // The put of this file has just ended.
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                removed => removed?,
            };
        }
    }
    Ok(removed)
}

fn is_staged(name: &str) -> bool {
    let number = name.rsplit_once('#').map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// A file that does not have its name yet. It is removed when the put ends.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        // A renamed file no longer exists here. If the removal fails, the next vacuum removes the file.
        let _removed = std::fs::remove_file(&self.0);
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder {}", self.top.display())
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_new = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(not_implemented("a conditional update", self)),
        };
        let path = self.files.path_to_filesystem(location)?;
        let folder = self.clone();
        let put = tokio::task::spawn_blocking(move || folder.put(&path, &payload, is_new)).await?;
        match put {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(error) if error.step == Step::Link && error.source.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: location.to_string(), source: error.into() })
            }
            Err(error) => Err(Error::Generic { store: "folder", source: error.into() }),
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(not_implemented("a put in parts", self))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        sorted(self.files.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        sorted(self.files.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.files.rename_opts(from, to, options).await
    }
}

fn not_implemented(operation: &str, implementer: &Folder) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: implementer.to_string() }
}
