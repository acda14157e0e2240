//! An S3 bucket, reached as by the AWS SDKs and delta-rs: by the same variables, files and roles.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use http::Method;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::client::{HttpConnector, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::credentials::{NOT_FOUND, Origin};
use super::profile::{Profile, Settings};
use super::refusal::{Connector, Refusal};
use super::renewal::Provider;
use super::variables::Variables;
use crate::LakeError;
use crate::causes::cause;

/// Longest time for a connection to the store. A running store answers in milliseconds.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest time for one request: 64 MiB at 2 MiB/s.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Longest time for the retries of a request within one call. Longer outages become transient errors, which the services wait out.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Validity of the signed link that creates the bucket.
const SIGNED_MAX: Duration = Duration::from_mins(1);
/// The region if nothing names one. Servers that are not Amazon's expect it too.
const REGION: &str = "us-east-1";
/// A prefix in the lake that holds no objects. A list of it shows whether the bucket exists. Users who may list only the lake may list this
/// prefix.
const NOWHERE: &str = "_probe/none";

/// The settings that decide how the bucket is reached.
#[derive(Clone, Debug)]
struct Access {
    bucket: String,
    builder: AmazonS3Builder,
    client: ClientOptions,
    origin: Origin,
    region: String,
    /// True if the user has named the region.
    is_region_chosen: bool,
}

/// Opens the bucket of `url`, and creates it if it does not exist.
///
/// # Errors
///
/// [`LakeError::Location`] if the address or the configuration is wrong. [`LakeError::Store`] if the store does not answer or rejects a
/// request.
pub(super) async fn open(url: &Url, variables: &Variables) -> Result<AmazonS3, LakeError> {
    let wrong = |reason: String| LakeError::Location { url: url.to_string(), reason };
    let bucket = url.host_str().ok_or_else(|| wrong("write s3://bucket".to_owned()))?;
    let mut access = Access::read(bucket, variables).map_err(wrong)?;
    let mut store = access.connect().map_err(|error| wrong(error.to_string()))?;
    let doing = || format!("open the bucket {bucket}");
    if let Err(error) = store.credentials().get_credential().await {
        let endpoints = ["AWS_METADATA_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT"];
        let is_guess = matches!(access.origin, Origin::Instance)
            && endpoints.iter().all(|name| variables.get(name).is_none());
        return Err(if is_guess {
            wrong(format!("{NOT_FOUND} ({error})"))
        } else {
            LakeError::store(doing())(error)
        });
    }
    let nowhere = format!("{}/{NOWHERE}", url.path().trim_end_matches('/'));
    let nowhere = Path::from_url_path(nowhere).map_err(|error| wrong(error.to_string()))?;
    let mut answer = request(&store, &nowhere).await;
    let elsewhere = answer.as_ref().err().and_then(|error| cause::<Refusal>(error)?.region.clone());
    if let Some(region) = elsewhere.filter(|region| !access.is_region_chosen && *region != access.region) {
        tracing::info!(bucket, region, "using the bucket's own region, because AWS_REGION names none");
        access.region = region;
        store = access.connect().map_err(|error| wrong(error.to_string()))?;
        answer = request(&store, &nowhere).await;
    }
    match answer {
        Ok(()) => Ok(store),
        Err(error) if cause::<Refusal>(&error).is_some_and(|refusal| refusal.code == "NoSuchBucket") => {
            access.create(&store).await.map_err(LakeError::store(format!("create the bucket {bucket}")))?;
            Ok(store)
        }
        Err(error) => Err(LakeError::store(doing())(error)),
    }
}

/// Lists the empty prefix. This reveals any mistake in the address, the region, the credentials or the bucket.
async fn request(store: &AmazonS3, nowhere: &Path) -> object_store::Result<()> {
    store.list(Some(nowhere)).try_next().await.map(drop)
}

impl Access {
    /// Reads the variables and the profile. Variables take precedence.
    fn read(bucket: &str, variables: &Variables) -> Result<Access, String> {
        let profile = Profile::chosen(variables).read().ok().flatten().unwrap_or_default();
        let mut client = ClientOptions::new().with_connect_timeout(CONNECT_MAX).with_timeout(REQUEST_MAX);
        let mut builder = AmazonS3Builder::new();
        for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("AWS_")) {
            match name.to_ascii_lowercase().parse() {
                Ok(AmazonS3ConfigKey::Client(key)) => client = client.with_config(key, value),
                Ok(key) => builder = builder.with_config(key, value),
                Err(_) => (),
            }
        }
        if let Some(url) = variables.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") {
            builder = builder.with_metadata_endpoint(url.trim_end_matches('/'));
        }
        let named = variables.get("AWS_REGION").or_else(|| variables.get("AWS_DEFAULT_REGION"));
        let region = named.map(str::to_owned).or_else(|| profile.get("region").cloned());
        if let Some(endpoint) = endpoint(bucket, variables, &profile)? {
            let is_plain = endpoint.starts_with("http://");
            // A user who writes http:// wants plain HTTP.
            if is_plain && variables.get("AWS_ALLOW_HTTP").is_none() {
                client = client.with_config(ClientConfigKey::AllowHttp, "true");
            }
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: 10, retry_timeout: RETRY_MAX };
        let builder = builder
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_http_connector(Connector)
            .with_client_options(client.clone())
            .with_retry(retry);
        Ok(Access {
            bucket: bucket.to_owned(),
            builder,
            client,
            origin: Origin::find(variables)?,
            is_region_chosen: region.is_some(),
            region: region.unwrap_or_else(|| REGION.to_owned()),
        })
    }

    fn connect(&self) -> object_store::Result<AmazonS3> {
        let builder = self.builder.clone().with_region(&self.region);
        let own = Arc::clone(builder.clone().build()?.credentials());
        // Endpoints of containers use plain HTTP.
        let client = Connector.connect(&self.client.clone().with_allow_http(true))?;
        builder.with_credentials(Arc::new(Provider::new(self.origin.clone(), own, client))).build()
    }

    /// Creates the bucket. The store's own interface cannot do this, so this function signs the request itself.
    async fn create(&self, store: &AmazonS3) -> object_store::Result<()> {
        let body = match self.region.as_str() {
            REGION => String::new(),
            region => format!(
                "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
            ),
        };
        let url = store.signed_url(Method::PUT, &Path::default(), SIGNED_MAX).await?;
        let request = http::Request::put(url.as_str()).body(HttpRequestBody::from(body));
        let request = request.expect("a signed URL is a URI");
        let generic = |source| object_store::Error::Generic { store: "S3", source };
        let answer =
            Connector.connect(&self.client)?.execute(request).await.map_err(|error| generic(error.into()))?;
        // 409: another process has created the bucket in the meantime.
        match answer.status() {
            status if status.is_success() || status == http::StatusCode::CONFLICT => Ok(()),
            status => Err(generic(
                format!("the store answered {status} to the creation of the bucket {}", self.bucket).into(),
            )),
        }
    }
}

/// Returns the endpoint that the variables or the profile name. For virtual-hosted requests, the bucket's name precedes the host.
pub(super) fn endpoint(
    bucket: &str,
    variables: &Variables,
    profile: &Settings,
) -> Result<Option<String>, String> {
    let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let named = names.iter().find_map(|name| Some((*name, variables.get(name)?)));
    let profile = || Some(("endpoint_url of the profile", profile.get("endpoint_url")?.as_str()));
    let Some((name, text)) = named.or_else(profile) else { return Ok(None) };
    let wrong = || format!("{name} is {text:?}: write http://host:port or https://host");
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    let host =
        url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")).ok_or_else(wrong)?.to_owned();
    if url.scheme() == "http"
        && variables.get("AWS_ALLOW_HTTP").is_some()
        && !variables.is_true("AWS_ALLOW_HTTP")
    {
        return Err(format!("AWS_ALLOW_HTTP forbids the http:// of {name}: remove it, or write https://"));
    }
    let is_virtual = variables.is_true("AWS_VIRTUAL_HOSTED_STYLE_REQUEST");
    if is_virtual && !host.starts_with(&format!("{bucket}.")) {
        url.set_host(Some(&format!("{bucket}.{host}"))).map_err(|_| {
            format!("AWS_VIRTUAL_HOSTED_STYLE_REQUEST puts the bucket's name before a host name, but {text:?} has none")
        })?;
    }
    Ok(Some(url.as_str().trim_end_matches('/').to_owned()))
}
