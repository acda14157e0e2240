//! Credentials that are fetched, kept, and renewed before they expire. An error names the origin that provides none.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use http::Request;
use http::header::AUTHORIZATION;
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpRequestBody};
use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::credentials::Origin;
use super::profile::Profile;
use crate::clock::now_millis;

/// Time before their expiry at which credentials are renewed.
const RENEWED_BEFORE: Duration = Duration::from_mins(5);
/// Time for which credentials without an expiry are kept. A person or a tool may write new ones into the file.
const KEPT: Duration = Duration::from_secs(5);
/// Shortest time between two renewals, for credentials that are short-lived from the start.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// Longest time for the program that a profile names.
const PROCESS_MAX: Duration = Duration::from_mins(1);
/// No credentials are available for now.
#[derive(Debug, thiserror::Error)]
#[error("there are no AWS credentials from {origin}: {reason}")]
pub(crate) struct NoCredentials {
    origin: String,
    reason: String,
}

/// Credentials in the form that endpoints and programs print.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "Token")]
    session_token: Option<String>,
    expiration: Option<String>,
}

/// Credentials that are in use.
#[derive(Clone, Debug)]
struct Kept {
    credential: Arc<AwsCredential>,
    /// Time until which the credentials may be used. After it, the next ones are fetched.
    until: Instant,
}

/// A provider that fetches credentials from their origin.
#[derive(Debug)]
pub(crate) struct Provider {
    origin: Origin,
    /// The provider of the store's client. It supports four of the origins.
    own: AwsCredentialProvider,
    client: HttpClient,
    kept: Mutex<Option<Kept>>,
}

#[async_trait]
impl CredentialProvider for Provider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let got = match &self.origin {
            Origin::Variables | Origin::WebIdentity | Origin::Container | Origin::Instance => {
                self.own.get_credential().await.map_err(|error| error.to_string())
            }
            Origin::Profile(_) | Origin::Process { .. } | Origin::Endpoint { .. } => self.keep().await,
        };
        got.map_err(|reason| {
            let error = NoCredentials { origin: self.origin.to_string(), reason };
            object_store::Error::Generic { store: "S3", source: error.into() }
        })
    }
}

impl Provider {
    /// Returns a provider of credentials from `origin`. It uses `own` for the origins that `own` supports.
    pub(crate) fn new(origin: Origin, own: AwsCredentialProvider, client: HttpClient) -> Provider {
        Provider { origin, own, client, kept: Mutex::default() }
    }

    /// Returns the kept credentials, or fetches the next ones. Concurrent callers share one fetch.
    async fn keep(&self) -> Result<Arc<AwsCredential>, String> {
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return Ok(Arc::clone(&kept.credential));
        }
        let printed = match &self.origin {
            Origin::Process { command, .. } => Printed::parse(&run(command).await?)?,
            Origin::Endpoint { url, token } => Printed::parse(&self.fetch(url, token.as_deref()).await?)?,
            Origin::Profile(profile) => Printed::read(profile)?,
            _ => unreachable!("the store's client supports the other origins"),
        };
        let next = printed.keep()?;
        Ok(Arc::clone(&kept.insert(next).credential))
    }

    async fn fetch(&self, url: &str, token: Option<&str>) -> Result<Vec<u8>, String> {
        let mut request = Request::get(url);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(HttpRequestBody::empty()).map_err(|error| error.to_string())?;
        let answer = self.client.execute(request).await.map_err(|error| crate::causes::in_full(&error))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        Ok(answer.into_body().bytes().await.map_err(|error| error.to_string())?.to_vec())
    }
}

impl Printed {
    fn parse(json: &[u8]) -> Result<Printed, String> {
        // The text of serde's error may contain a secret.
        serde_json::from_slice(json).map_err(|error| format!("line {} has an unexpected form", error.line()))
    }

    fn read(profile: &Profile) -> Result<Printed, String> {
        let mut settings = profile.read().map_err(|error| error.to_string())?.unwrap_or_default();
        let mut take = |name: &str| settings.remove(name).filter(|value| !value.is_empty());
        Ok(Printed {
            access_key_id: take("aws_access_key_id").ok_or("it no longer has an aws_access_key_id")?,
            secret_access_key: take("aws_secret_access_key")
                .ok_or("it no longer has an aws_secret_access_key")?,
            session_token: take("aws_session_token"),
            expiration: None,
        })
    }

    fn keep(self) -> Result<Kept, String> {
        let lives = match self.expiration {
            None => KEPT,
            Some(text) => {
                let end = DateTime::parse_from_rfc3339(&text)
                    .map_err(|error| format!("Expiration {text}: {error}"))?;
                let left = u64::try_from(end.timestamp_millis() - now_millis()).unwrap_or_default();
                Duration::from_millis(left).saturating_sub(RENEWED_BEFORE).max(RENEWAL_PAUSE)
            }
        };
        let credential = AwsCredential {
            key_id: self.access_key_id,
            secret_key: self.secret_access_key,
            token: self.session_token.filter(|token| !token.is_empty()),
        };
        Ok(Kept { credential: Arc::new(credential), until: Instant::now() + lives })
    }
}

/// Runs the `credential_process` of a profile and returns its output.
async fn run(command: &str) -> Result<Vec<u8>, String> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PROCESS_MAX, shell.output()).await;
    let output = output.map_err(|_| format!("it takes longer than {} s", PROCESS_MAX.as_secs()))?;
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, stderr.trim()));
    }
    Ok(output.stdout)
}
