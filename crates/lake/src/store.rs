//! The store underneath: a folder or an S3 bucket, and one table's part of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use futures::future::{BoxFuture, join};
use futures::{StreamExt, TryStreamExt};
use http::{Method, StatusCode};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::client::{HttpConnector, HttpRequestBody, ReqwestConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, PutMode, RetryConfig};
use url::Url;
use uuid::Uuid;

use crate::LakeError;

/// Longest time for a connection to the store: a store that is up answers in milliseconds.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest time for one request: 64 MiB at 2 MiB/s.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// How long a request is tried again inside one call; longer outages surface as transient errors, which the services wait out.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long the link is valid that asks for or creates the bucket.
const SIGNED_MAX: Duration = Duration::from_mins(1);
/// Where the AWS client finds credentials; without any it would wait for an EC2 host that is not there.
const CREDENTIALS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// A folder or an S3 bucket that holds the tables; clones share it.
#[derive(Clone, Debug)]
pub struct Lake {
    /// Rooted where the URL's path begins, as the Delta log reader wants it.
    pub(crate) root: Arc<dyn ObjectStore>,
    /// Ends with a slash.
    url: Url,
    /// The folder, when the lake is one: its files must be synced to survive a power cut.
    folder: Option<PathBuf>,
}

impl Lake {
    /// Opens the lake at a folder path, `file://…` or `s3://bucket[/prefix]`, creating the folder or the bucket when missing.
    ///
    /// S3 takes the usual variables: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL` for a server that is not
    /// Amazon's (plain `http://` allowed), `AWS_REGION` (default us-east-1).
    ///
    /// # Errors
    ///
    /// [`LakeError::Location`] when the address or the variables are wrong, [`LakeError::Store`] when the store does not answer.
    pub fn open(url: &str) -> BoxFuture<'_, Result<Lake, LakeError>> {
        Box::pin(async move {
            let wrong = |reason: String| LakeError::Location { url: url.to_owned(), reason };
            match url.split_once("://") {
                None => Lake::open_folder(PathBuf::from(url), url),
                Some(("s3", _)) => Lake::open_bucket(url).await,
                Some(("file", _)) => {
                    let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
                    let path = parsed
                        .to_file_path()
                        .map_err(|()| wrong("write file:///absolute/path".to_owned()))?;
                    Lake::open_folder(path, url)
                }
                Some(_) => Err(wrong("write a folder, file:///folder or s3://bucket".to_owned())),
            }
        })
    }

    /// Proves that the store refuses to create an object that exists, also to two racing writers; removes what it wrote.
    ///
    /// # Errors
    ///
    /// [`LakeError::NoPutIfAbsent`] when it does not, [`LakeError::Store`] when the store does not answer.
    pub fn probe(&self) -> BoxFuture<'_, Result<(), LakeError>> {
        Box::pin(async move {
            let table = self.table("_probe")?;
            let store = &table.objects;
            let (twice, raced) =
                (Path::from(Uuid::new_v4().to_string()), Path::from(Uuid::new_v4().to_string()));
            let mut outcomes = vec![create(store, &twice).await, create(store, &twice).await];
            outcomes.extend(<[_; 2]>::from(join(create(store, &raced), create(store, &raced)).await));
            let removed = table.delete(vec![twice, raced]).await;
            removed.map_err(LakeError::store(format!("remove the probe objects from {}", self.url)))?;
            let mut created = 0;
            for outcome in outcomes {
                match outcome {
                    Ok(()) => created += 1,
                    Err(object_store::Error::AlreadyExists { .. }) => (),
                    Err(source) => {
                        return Err(LakeError::store(format!("create a probe object in {}", self.url))(
                            source,
                        ));
                    }
                }
            }
            if created == 2 { Ok(()) } else { Err(LakeError::NoPutIfAbsent { url: self.url.to_string() }) }
        })
    }

    fn open_folder(path: PathBuf, url: &str) -> Result<Lake, LakeError> {
        let wrong =
            |error: std::io::Error| LakeError::Location { url: url.to_owned(), reason: error.to_string() };
        std::fs::create_dir_all(&path).map_err(wrong)?;
        let folder = path.canonicalize().map_err(wrong)?;
        let url = Url::from_directory_path(&folder).expect("a canonical path is absolute");
        Ok(Lake { root: Arc::new(LocalFileSystem::new()), url, folder: Some(folder) })
    }

    async fn open_bucket(url: &str) -> Result<Lake, LakeError> {
        let wrong = |reason: String| LakeError::Location { url: url.to_owned(), reason };
        let mut parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        let bucket = parsed.host_str().ok_or_else(|| wrong("write s3://bucket".to_owned()))?.to_owned();
        if !CREDENTIALS.iter().any(|name| std::env::var_os(name).is_some()) {
            return Err(wrong(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL unless it is Amazon's"
                    .to_owned(),
            ));
        }
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let region = variable("AWS_REGION")
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .unwrap_or_else(|| "us-east-1".to_owned());
        let plain = variable("AWS_ENDPOINT_URL").is_some_and(|endpoint| endpoint.starts_with("http://"));
        let client = ClientOptions::new()
            .with_allow_http(plain)
            .with_connect_timeout(CONNECT_MAX)
            .with_timeout(REQUEST_MAX);
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: 10, retry_timeout: RETRY_MAX };
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(&bucket)
            .with_region(&region)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_client_options(client.clone())
            .with_retry(retry)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        ensure_bucket(&store, &client, &bucket, &region).await?;
        let path = format!("{}/", parsed.path().trim_end_matches('/'));
        parsed.set_path(&path);
        Ok(Lake { root: Arc::new(store), url: parsed, folder: None })
    }

    /// Returns the part of the lake below `prefix`.
    pub(crate) fn table(&self, prefix: &str) -> Result<TableStore, LakeError> {
        let wrong = |reason: String| LakeError::Location { url: self.url.to_string(), reason };
        let url = self.url.join(&format!("{prefix}/")).map_err(|error| wrong(error.to_string()))?;
        let path = Path::from_url_path(url.path()).map_err(|error| wrong(error.to_string()))?;
        let objects: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&self.root), path));
        let log =
            default_logstore(Arc::clone(&objects), Arc::clone(&self.root), &url, &StorageConfig::default());
        let folder = self.folder.as_ref().map(|folder| folder.join(prefix));
        let mut hasher = DefaultHasher::new();
        url.hash(&mut hasher);
        let name = format!("lake://{:016x}", hasher.finish());
        Ok(TableStore { objects, log, name, folder })
    }
}

/// One table's part of the store; paths are relative to the table.
#[derive(Clone, Debug)]
pub(crate) struct TableStore {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) log: LogStoreRef,
    /// A URL of its own under which a query engine finds the objects.
    pub(crate) name: String,
    folder: Option<PathBuf>,
}

impl TableStore {
    /// Puts an object; on return it survives a power cut.
    pub(crate) async fn put(
        &self,
        path: &Path,
        bytes: Bytes,
        mode: PutMode,
    ) -> Result<(), object_store::Error> {
        self.objects.put_opts(path, bytes.into(), mode.into()).await?;
        self.sync(path).await
    }

    /// Writes a folder's file and the directories that name it through to the disk; an object store has done so already.
    pub(crate) async fn sync(&self, path: &Path) -> Result<(), object_store::Error> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let file = folder.join(path.as_ref());
        let synced = tokio::task::spawn_blocking(move || {
            let directories = file.ancestors().take_while(|path| path.starts_with(&folder));
            directories.into_iter().try_for_each(|path| std::fs::File::open(path)?.sync_all())
        });
        synced
            .await?
            .map_err(|source| object_store::Error::Generic { store: "folder", source: source.into() })
    }

    /// Lists the data files that are there, in the log or not, with the time they were last written.
    pub(crate) async fn data_files(&self) -> Result<Vec<object_store::ObjectMeta>, object_store::Error> {
        let hidden = |path: &Path| path.parts().any(|part| part.as_ref().starts_with(['_', '.']));
        let is_data = |object: &object_store::ObjectMeta| {
            object.location.extension() == Some("parquet") && !hidden(&object.location)
        };
        self.objects.list(None).try_filter(|object| std::future::ready(is_data(object))).try_collect().await
    }

    /// Deletes objects; those that are gone already do not matter. Returns how many were deleted.
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

/// Puts the probe object `path`, which must not exist. Not a closure: the compiler could not prove its futures `Send`.
async fn create(store: &Arc<dyn ObjectStore>, path: &Path) -> object_store::Result<()> {
    store.put_opts(path, Bytes::from_static(b"probe").into(), PutMode::Create.into()).await.map(drop)
}

/// Creates the bucket when it is missing. The store's own interface cannot, so this signs the two requests itself.
async fn ensure_bucket(
    store: &AmazonS3,
    client: &ClientOptions,
    bucket: &str,
    region: &str,
) -> Result<(), LakeError> {
    let doing = || format!("create the bucket {bucket}");
    let client = ReqwestConnector::default().connect(client).map_err(LakeError::store(doing()))?;
    let ask = async |method: Method, body: String| {
        let url = store.signed_url(method.clone(), &Path::default(), SIGNED_MAX).await?;
        let request =
            http::Request::builder().method(method).uri(url.as_str()).body(HttpRequestBody::from(body));
        let request = request.expect("a signed URL is a URI");
        let generic = |source| object_store::Error::Generic { store: "S3", source };
        client.execute(request).await.map(|response| response.status()).map_err(|error| generic(error.into()))
    };
    if ask(Method::HEAD, String::new()).await.map_err(LakeError::store(doing()))? != StatusCode::NOT_FOUND {
        // It exists, or we may not ask: then the first use of it gives the better error.
        return Ok(());
    }
    let body = match region {
        "us-east-1" => String::new(),
        _ => format!(
            "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        ),
    };
    let status = ask(Method::PUT, body).await.map_err(LakeError::store(doing()))?;
    // 409: someone else has created it in the meantime.
    if status.is_success() || status == StatusCode::CONFLICT {
        return Ok(());
    }
    let source =
        object_store::Error::Generic { store: "S3", source: format!("the server answered {status}").into() };
    Err(LakeError::store(doing())(source))
}
