//! Puts and gets of a lake's Parquet files. They measure only the cost of the object store.

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore as _, ObjectStoreExt as _};
use tokio::time::Instant;

/// Maximum number of concurrent requests: high enough that no request waits for the latency of another.
const REQUESTS_MAX: usize = 16;

/// Data files of a lake.
#[derive(Debug)]
pub struct Files {
    store: AmazonS3,
    files: Vec<ObjectMeta>,
}

impl Files {
    /// Lists the data files below `lake`, `s3://bucket/prefix`.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn list(lake: &str) -> anyhow::Result<Files> {
        let place = lake.trim_start_matches("s3://").split_once('/');
        let (bucket, prefix) = place.context("the lake is a prefix in a bucket")?;
        let store = AmazonS3Builder::from_env().with_bucket_name(bucket).with_allow_http(true).build()?;
        let mut files: Vec<ObjectMeta> = store.list(Some(&Path::from(prefix))).try_collect().await?;
        files.retain(|file| {
            file.location.extension() == Some("parquet") && !file.location.as_ref().contains("_delta_log")
        });
        Ok(Files { store, files })
    }

    /// Returns the number of files.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Fetches all files. Returns their content and the seconds.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn get(&self) -> anyhow::Result<(Vec<Bytes>, f64)> {
        let started = Instant::now();
        let fetched = self.files.iter().map(|file| {
            let (store, path) = (self.store.clone(), file.location.clone());
            async move { store.get(&path).await?.bytes().await }
        });
        let fetched = futures::stream::iter(fetched.collect::<Vec<_>>()).buffered(REQUESTS_MAX);
        let fetched: Vec<Bytes> = fetched.try_collect().await?;
        Ok((fetched, started.elapsed().as_secs_f64()))
    }

    /// Puts the same number of objects with the same sizes below `prefix`. Returns the seconds.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub async fn put_like(&self, prefix: &str) -> anyhow::Result<f64> {
        let started = Instant::now();
        let puts = self.files.iter().enumerate().map(|(index, file)| {
            let (store, path) = (self.store.clone(), Path::from(format!("{prefix}/{index}")));
            let size = usize::try_from(file.size).expect("a file fits into memory");
            async move { store.put(&path, vec![0; size].into()).await }
        });
        let puts = futures::stream::iter(puts.collect::<Vec<_>>()).buffer_unordered(REQUESTS_MAX);
        puts.try_for_each(|_| std::future::ready(Ok(()))).await?;
        Ok(started.elapsed().as_secs_f64())
    }
}
