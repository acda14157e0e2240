//! Tests of buckets and folders as people configure them. With `CANDLEFLIGHT_TEST_S3_ENDPOINT`, the tests also use a real MinIO, with the
//! root user's keys in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.

mod answers;
mod bucket;
mod credentials;
mod folder;
mod server;

use std::time::Duration;

use super::variables::Variables;
use super::{Lake, LakeError};

/// Longest wait for something that usually takes a moment.
const DEADLINE: Duration = Duration::from_secs(30);

/// Returns variables with these values. They have their own home without a profile, unless the values name one.
fn variables(values: &[(&str, &str)]) -> Variables {
    let home = [("HOME", "/nonexistent"), ("AWS_EC2_METADATA_DISABLED", "true")];
    home.iter().chain(values).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The address of MinIO, and its keys.
struct Minio {
    endpoint: String,
    key: String,
    secret: String,
}

impl Minio {
    /// Returns MinIO, or prints that the test is skipped. In CI, no test may be skipped.
    fn get() -> Option<Minio> {
        let variable = |name| std::env::var(name).ok();
        let minio = || {
            Some(Minio {
                endpoint: variable("CANDLEFLIGHT_TEST_S3_ENDPOINT")?,
                key: variable("AWS_ACCESS_KEY_ID")?,
                secret: variable("AWS_SECRET_ACCESS_KEY")?,
            })
        };
        let found = minio();
        if found.is_none() {
            assert_ne!(variable("CI").as_deref(), Some("true"), "no MinIO");
            eprintln!("SKIPPED: no MinIO");
        }
        found
    }

    /// Returns these variables, together with MinIO's address and keys.
    fn variables(&self, more: &[(&str, &str)]) -> Variables {
        let keys = [("AWS_ACCESS_KEY_ID", self.key.as_str()), ("AWS_SECRET_ACCESS_KEY", &self.secret)];
        variables(&[&keys, more].concat())
    }
}

/// Opens a lake below a new prefix, checks that it can be written, and returns it.
async fn use_lake(variables: &Variables) -> Result<Lake, LakeError> {
    let lake = Lake::open_with(&format!("s3://lake-store-test/{}", uuid::Uuid::new_v4()), variables).await?;
    lake.probe().await?;
    Ok(lake)
}

/// Probes the lake until the probe succeeds, or until it fails with a transient error that contains `reason`.
async fn until(lake: &Lake, reason: Option<&str>) {
    let due = tokio::time::Instant::now() + DEADLINE;
    loop {
        let probed = lake.probe().await;
        match (&probed, reason) {
            (Ok(()), None) => return,
            (Err(error), Some(reason)) if error.is_transient() && error.to_string().contains(reason) => {
                return;
            }
            _ => assert!(tokio::time::Instant::now() < due, "{probed:?} instead of {reason:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
