//! Buckets and folders as people configure them. With `CANDLEFLIGHT_TEST_S3_ENDPOINT` a real MinIO takes part, with the root's keys in
//! `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.

mod answers;
mod bucket;
mod credentials;
mod folder;
mod server;

use std::time::Duration;

use super::variables::Variables;
use super::{Lake, LakeError};

/// How long something may take that takes a moment.
const DEADLINE: Duration = Duration::from_secs(30);

/// Returns variables with these values; they have a home of their own, without a profile, unless they name one.
fn variables(values: &[(&str, &str)]) -> Variables {
    let home = [("HOME", "/nonexistent"), ("AWS_EC2_METADATA_DISABLED", "true")];
    home.iter().chain(values).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// MinIO: where it is, and its keys.
struct Minio {
    endpoint: String,
    key: String,
    secret: String,
}

impl Minio {
    /// Returns it, or says that the test is skipped; in CI nothing may be skipped.
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

    /// Returns variables that lead to it, by its root's keys, and these.
    fn variables(&self, more: &[(&str, &str)]) -> Variables {
        let keys = [("AWS_ACCESS_KEY_ID", self.key.as_str()), ("AWS_SECRET_ACCESS_KEY", &self.secret)];
        variables(&[&keys, more].concat())
    }
}

/// Opens a lake below a prefix of its own, proves that it can be written, and returns it.
async fn use_lake(variables: &Variables) -> Result<Lake, LakeError> {
    let lake = Lake::open_with(&format!("s3://lake-store-test/{}", uuid::Uuid::new_v4()), variables).await?;
    lake.probe().await?;
    Ok(lake)
}

/// Probes the lake until it succeeds, or fails for a reason that passes and holds `reason`.
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
