use std::sync::Arc;
use std::time::Duration;

use access::Denied;
use datafusion::error::DataFusionError;
use lake::LakeError;
use tonic::Code;

use super::status;
use crate::error::CallError;

/// Parts of a store's error text that no caller may receive.
const SECRETS: [&str; 3] = ["10.0.0.7:9000", "secret-bucket", "<Error><Code>"];

fn store() -> LakeError {
    let answer = "http://10.0.0.7:9000/secret-bucket/key: <Error><Code>SlowDown</Code></Error>";
    let source = object_store::Error::Generic { store: "S3", source: answer.into() };
    LakeError::Store { doing: "read the file streaming_raw/date=2024-01-01/1.parquet".to_owned(), source }
}

fn external(error: LakeError) -> CallError {
    DataFusionError::External(Box::new(error)).into()
}

fn version() -> LakeError {
    LakeError::Version { table: "gold", requested: 9, first: 2, last: 5 }
}

fn protocol() -> LakeError {
    LakeError::Protocol { table: "bronze", reader: 3, writer: 7 }
}

#[track_caller]
fn check(error: CallError, code: Code) {
    let status = status(&error);
    assert_eq!(status.code(), code, "{status}");
    for secret in SECRETS {
        assert!(!status.message().contains(secret), "{status}");
    }
}

#[test]
fn a_code_says_whether_the_same_call_may_succeed_later() {
    let expired = || LakeError::Expired { path: "1.parquet".to_owned() };
    check(store().into(), Code::Unavailable);
    check(external(store()), Code::Unavailable);
    check(
        DataFusionError::Shared(Arc::new(DataFusionError::External(store().into()))).into(),
        Code::Unavailable,
    );
    check(DataFusionError::External(store().into()).context("scan bronze").into(), Code::Unavailable);
    check(expired().into(), Code::Unavailable);
    check(external(expired()), Code::Unavailable);
    check(external(protocol()), Code::FailedPrecondition);
    check(protocol().into(), Code::FailedPrecondition);
    check(version().into(), Code::InvalidArgument);
    check(DataFusionError::Plan("no such column".to_owned()).into(), Code::InvalidArgument);
    check(CallError::Denied(Denied::Wrong), Code::Unauthenticated);
    check(CallError::Denied(Denied::TooMany { pause: Duration::from_secs(2) }), Code::ResourceExhausted);
    check(CallError::Broken(tonic::Status::out_of_range("too large")), Code::OutOfRange);
}

#[test]
fn a_caller_reads_what_concerns_the_call() {
    let message = |error: CallError| status(&error).message().to_owned();
    assert_eq!(
        message(version().into()),
        "read the lake: the gold table has no version 9: there are versions 2 to 5"
    );
    assert_eq!(
        message(DataFusionError::Plan("no such column".to_owned()).into()),
        "Error during planning: no such column"
    );
}
