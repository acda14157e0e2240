//! Tests that each answer of an S3 server passes or ends, through the whole client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{Answer, serve};
use super::{Lake, LakeError, use_lake, variables};

const XML: &str = "content-type: application/xml\r\n";

fn error(status: &'static str, code: &str, more: &str) -> Answer {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>so it is</Message>{more}</Error>");
    (status, XML.to_owned(), body)
}

/// Opens a lake on a server that sends this answer to every request.
async fn opened(answer: Answer, more: &[(&str, &str)]) -> LakeError {
    let endpoint = serve(move |_| answer.clone());
    let keys = [
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", &endpoint),
    ];
    use_lake(&variables(&[&keys, more].concat())).await.unwrap_err()
}

#[tokio::test]
async fn a_refusal_passes_or_ends_and_says_what_to_do() {
    let cases = [
        (error("403 Forbidden", "InvalidAccessKeyId", ""), true, "does not accept the access key"),
        (error("403 Forbidden", "SignatureDoesNotMatch", ""), true, "does not accept the access key"),
        (error("403 Forbidden", "AccessDenied", ""), true, "allow these credentials s3:ListBucket"),
        (error("401 Unauthorized", "", ""), true, "allow these credentials"),
        (error("400 Bad Request", "ExpiredToken", ""), true, "renew them"),
        (error("403 Forbidden", "ExpiredToken", ""), true, "renew them"),
        (error("400 Bad Request", "InvalidToken", ""), true, "renew them"),
        (error("403 Forbidden", "RequestTimeTooSkewed", ""), true, "synchronize"),
        (error("507 Insufficient Storage", "XMinioStorageFull", ""), true, "free some space"),
        (error("400 Bad Request", "RequestTimeout", ""), true, ""),
        (error("409 Conflict", "OperationAborted", ""), true, ""),
        (error("409 Conflict", "ConditionalRequestConflict", ""), true, ""),
        (
            error("301 Moved Permanently", "PermanentRedirect", "<Region>eu-west-1</Region>"),
            false,
            "AWS_REGION=eu-west-1",
        ),
        (
            error("400 Bad Request", "AuthorizationHeaderMalformed", "<Region>x-1</Region>"),
            false,
            "AWS_REGION=x-1",
        ),
        (
            ("301 Moved Permanently", "x-amz-bucket-region: eu-west-3\r\n".into(), String::new()),
            false,
            "AWS_REGION=eu-west-3",
        ),
        (
            ("400 Bad Request", "x-amz-bucket-region: eu-west-3\r\n".into(), String::new()),
            false,
            "AWS_REGION=eu-west-3",
        ),
        (error("400 Bad Request", "InvalidBucketName", ""), false, "bucket's name"),
        (error("400 Bad Request", "Whatever", ""), false, "AWS_ENDPOINT_URL"),
        (error("501 Not Implemented", "NotImplemented", ""), false, "conditional puts"),
        (error("405 Method Not Allowed", "MethodNotAllowed", ""), false, "conditional puts"),
        (("200 OK", "content-type: text/html\r\n".into(), "<html>".into()), false, "not an S3 server"),
        (
            ("404 Not Found", "content-type: text/html; charset=utf-8\r\n".into(), "<html>".into()),
            false,
            "not an S3 server",
        ),
        (
            ("400 Bad Request", String::new(), "Client sent an HTTP request to an HTTPS server.\n".into()),
            false,
            "begin with https://",
        ),
    ];
    for (answer, passes, advice) in cases {
        let case = format!("{} {}", answer.0, answer.2);
        let error = opened(answer, &[]).await;
        assert_eq!(error.is_transient(), passes, "{case}: {error:?}");
        assert!(error.to_string().contains(advice), "{case}: {error}");
    }
}

#[tokio::test]
async fn an_overloaded_server_is_asked_again() {
    for status in ["503 Slow Down", "500 Internal Server Error", "429 Too Many Requests"] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let endpoint = serve(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => error(status, "SlowDown", ""),
            _ => error("403 Forbidden", "AccessDenied", ""),
        });
        let keys = [
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_ENDPOINT_URL", &endpoint),
        ];
        let error = use_lake(&variables(&keys)).await.unwrap_err();
        assert!(error.to_string().contains("access is denied"), "{status}: {error:?}");
        assert_eq!(count.load(Ordering::SeqCst), 3, "{status}");
    }
}

#[tokio::test]
async fn nothing_outside_the_lakes_prefix_is_asked_for() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let endpoint = serve(move |request| {
        seen.lock().unwrap().push(request.path);
        error("403 Forbidden", "AccessDenied", "")
    });
    let keys =
        [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_ENDPOINT_URL", &endpoint)];
    Lake::open_with("s3://bucket/team/lake/", &variables(&keys)).await.unwrap_err();
    let asked = asked.lock().unwrap();
    assert!(
        !asked.is_empty() && asked.iter().all(|path| path.contains("prefix=team%2Flake%2F")),
        "{asked:?}"
    );
}
