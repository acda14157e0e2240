//! The answers of an S3 server that rejects a request. The store's own errors keep only a text of the answer.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

use crate::outcome::Verdict;

/// Maximum number of bytes to read from the body of an error response. S3's error bodies are a few hundred bytes long.
const BODY_BYTES_MAX: usize = 16_384;
/// Maximum number of characters that are shown of a body that is not S3's.
const EXCERPT_CHARS_MAX: usize = 120;

/// An answer of an S3 server that rejects a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store answered {status} {code}: {message}")]
pub(crate) struct Refusal {
    status: StatusCode,
    /// S3's error code. Empty if the answer has none.
    pub(crate) code: String,
    message: String,
    /// The region of the bucket, if the server names it.
    pub(crate) region: Option<String>,
    /// True if the answer is a web page or something similar.
    foreign: bool,
}

impl Refusal {
    /// Reads the code, the message and the region from S3's XML, which is flat.
    fn read(status: StatusCode, headers: &HeaderMap, body: &str) -> Refusal {
        let element = |name: &str| {
            let (_, rest) = body.split_once(&format!("<{name}>"))?;
            let (text, _) = rest.split_once(&format!("</{name}>"))?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let header = headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
        let code = element("Code").unwrap_or_default();
        let excerpt = || body.trim().chars().take(EXCERPT_CHARS_MAX).collect();
        let message = element("Message").unwrap_or_else(excerpt);
        let region = element("Region").or_else(|| header.map(str::to_owned));
        Refusal { status, code, message, region, foreign: is_page(headers) }
    }

    /// Maps S3's error code to a verdict. [`crate::verdict`] explains the verdicts.
    pub(crate) fn verdict(&self) -> Verdict {
        match self.code.as_str() {
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidSecurity" => Verdict::waits(
                "the store does not accept the access key or its secret: check the credentials in use",
            ),
            "ExpiredToken"
            | "ExpiredTokenException"
            | "TokenRefreshRequired"
            | "InvalidToken"
            | "InvalidTokenId" => Verdict::waits(
                "the session's credentials have expired: renew them; a service with credentials in AWS_… variables needs a restart",
            ),
            "RequestTimeTooSkewed" => {
                Verdict::waits("the clocks of this machine and of the store differ: synchronize them (NTP)")
            }
            "NoSuchBucket" => Verdict::ends("there is no such bucket: check the name, or create the bucket"),
            "InvalidBucketName" => {
                Verdict::ends("this cannot be a bucket's name: write --lake s3://bucket[/prefix]")
            }
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException"
            | "IncorrectEndpoint"
            | "InvalidRegion" => self.other_region(),
            "XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded" => {
                Verdict::waits("the store is full: free some space or raise the quota")
            }
            // The request was damaged on the way, or it met another request.
            "RequestTimeout"
            | "IncompleteBody"
            | "BadDigest"
            | "XAmzContentSHA256Mismatch"
            | "OperationAborted"
            | "ConditionalRequestConflict" => Verdict::passes(),
            _ => self.by_status(),
        }
    }

    fn by_status(&self) -> Verdict {
        if self.message.contains("HTTP request to an HTTPS server") {
            return Verdict::ends("the store requires TLS: AWS_ENDPOINT_URL must begin with https://");
        }
        match self.status.as_u16() {
            401 | 403 => Verdict::waits(
                "access is denied: allow these credentials s3:ListBucket, s3:GetObject, s3:PutObject and \
                 s3:DeleteObject on the bucket, and s3:CreateBucket if it does not exist",
            ),
            301 => self.other_region(),
            407 => Verdict::ends(
                "the proxy requires a log-in: write user:password@ into the address in HTTPS_PROXY",
            ),
            400 if self.region.is_some() => self.other_region(),
            307 | 408 | 409 | 425 | 429 => Verdict::passes(),
            405 | 501 => Verdict::ends(
                "the store does not support this S3 operation: a lake needs conditional puts (If-None-Match), lists and deletes",
            ),
            507 => Verdict::waits("the store is full: free some space or raise the quota"),
            500.. => Verdict::passes(),
            _ if self.foreign => Verdict::ends(
                "the server that answers is not an S3 server: check AWS_ENDPOINT_URL and its port",
            ),
            _ => Verdict::ends(
                "the store rejects the request: check AWS_ENDPOINT_URL, AWS_REGION and the bucket",
            ),
        }
    }

    fn other_region(&self) -> Verdict {
        Verdict::ends(match &self.region {
            Some(region) => format!("the bucket is in another region: set AWS_REGION={region}"),
            None => {
                "the bucket is in another region, or AWS_ENDPOINT_URL names another region: set AWS_REGION"
                    .to_owned()
            }
        })
    }
}

/// A connector whose clients keep the answer of an S3 server that rejects a request.
#[derive(Debug)]
pub(crate) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Client(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Client(HttpClient);

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // Unsigned requests go to the origins of credentials.
        let is_signed = request.headers().contains_key(AUTHORIZATION)
            || request.uri().query().is_some_and(|query| query.contains("X-Amz-Signature"));
        let answer = self.0.execute(request).await?;
        let status = answer.status();
        let is_read_by_the_store = match status {
            StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED => true,
            _ => status.is_success() && !is_page(answer.headers()),
        };
        if !is_signed || is_read_by_the_store {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let body = excerpt(body.bytes_stream()).await?;
        let refusal = Refusal::read(status, &parts.headers, &String::from_utf8_lossy(&body));
        let is_of_an_object = match status {
            StatusCode::NOT_FOUND => refusal.code != "NoSuchBucket" && !refusal.foreign,
            StatusCode::CONFLICT => {
                refusal.code != "ConditionalRequestConflict" && refusal.code != "OperationAborted"
            }
            StatusCode::RANGE_NOT_SATISFIABLE => true,
            _ => false,
        };
        if is_of_an_object {
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        // The store retries errors of the kind `Request` within the call.
        let again = status.is_server_error() && refusal.verdict() == Verdict::passes()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        let kind = if again { HttpErrorKind::Request } else { HttpErrorKind::Unknown };
        Err(HttpError::new(kind, refusal))
    }
}

/// Reads the beginning of a body.
async fn excerpt(
    mut body: impl futures::Stream<Item = Result<Bytes, HttpError>> + Unpin,
) -> Result<Bytes, HttpError> {
    let mut read = BytesMut::new();
    while let Some(part) = body.try_next().await? {
        read.extend_from_slice(&part);
        if read.len() >= BODY_BYTES_MAX {
            read.truncate(BODY_BYTES_MAX);
            break;
        }
    }
    Ok(read.freeze())
}

/// Returns true for a web page. Web sites and consoles answer with one, but no S3 server does.
fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html"))
}
