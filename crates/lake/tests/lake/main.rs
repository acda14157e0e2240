//! Tests of the lake's guarantees on a folder. If `CANDLEFLIGHT_TEST_S3_ENDPOINT` is set, the tests also run on S3. They then need the same
//! value in `AWS_ENDPOINT_URL`, and the keys in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "a test may panic, and its numbers are small"
)]

mod append;
mod history;
mod identity;
mod interop;
mod maintain;
mod provider;
mod read;
mod rows;
mod upsert;

use lake::Lake;
use tempfile::TempDir;

/// Beginning of a folder's name, with characters that URLs escape.
const ODD: &str = "a %41 \\ é,#?&+ ";

/// A lake that is removed with the test. On S3 its objects stay, under a unique prefix.
struct TestLake {
    lake: Lake,
    folder: Option<TempDir>,
}

/// Returns an empty lake on each available kind of store.
async fn lakes() -> Vec<TestLake> {
    let folder = tempfile::Builder::new().prefix(ODD).tempdir().unwrap();
    let mut urls = vec![(folder.path().to_str().unwrap().to_owned(), Some(folder))];
    if let Ok(endpoint) = std::env::var("CANDLEFLIGHT_TEST_S3_ENDPOINT") {
        assert_eq!(
            std::env::var("AWS_ENDPOINT_URL").as_deref(),
            Ok(endpoint.as_str()),
            "set both to the same"
        );
        let unique = tempfile::tempdir()
            .unwrap()
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_start_matches('.')
            .to_owned();
        urls.push((format!("s3://lake-test/{unique}"), None));
    }
    let mut lakes = Vec::new();
    for (url, folder) in urls {
        lakes.push(TestLake { lake: Lake::open(&url).await.unwrap(), folder });
    }
    lakes
}

#[tokio::test]
async fn a_store_that_refuses_to_overwrite_passes_the_probe() {
    for test in lakes().await {
        test.lake.probe().await.unwrap();
    }
}

#[tokio::test]
async fn an_address_that_is_neither_folder_nor_bucket_is_refused() {
    let error = Lake::open("gs://somewhere").await.unwrap_err();
    assert!(!error.is_transient());
    assert_eq!(
        error.to_string(),
        r#"open the lake at "gs://somewhere": write a folder, file:///folder or s3://bucket"#
    );
}
