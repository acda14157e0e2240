//! Mapping from a [`Refusal`] to a gRPC status. The status shows a client whether to correct the call, retry it or give up.

use std::error::Error;

use access::Denied;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use lake::LakeError;
use tonic::{Code, Status};

use crate::error::Refusal;

/// Maps a refusal to its status. Details for operators, such as a store's address and its response, go to the log. The caller receives a
/// general sentence instead.
pub(crate) fn status(refusal: &Refusal) -> Status {
    let (code, told) = match refusal {
        Refusal::Broken(status) => return status.clone(),
        Refusal::Stopping | Refusal::Ahead { .. } => (Code::Unavailable, None),
        Refusal::Denied(Denied::TooMany { .. }) => (Code::ResourceExhausted, None),
        Refusal::Denied(_) => (Code::Unauthenticated, None),
        Refusal::Forbidden { .. } => (Code::PermissionDenied, None),
        Refusal::Busy(_) | Refusal::TooLarge { .. } | Refusal::NoMemory(_) => (Code::ResourceExhausted, None),
        Refusal::TooLong { .. } | Refusal::Untaken { .. } => (Code::DeadlineExceeded, None),
        Refusal::Cancelled => (Code::Cancelled, None),
        Refusal::Gap(_) | Refusal::OtherTopic(_) | Refusal::OtherTable { .. } => {
            (Code::FailedPrecondition, None)
        }
        Refusal::BadBatch(_) | Refusal::BadRequest(_) | Refusal::TooLongText { .. } => {
            (Code::InvalidArgument, None)
        }
        Refusal::Query(error) => of_query(error),
        Refusal::Lake(error) => of_lake(error),
        Refusal::Encode(_) | Refusal::Panicked => (Code::Internal, None),
        Refusal::Unsupported(_) => (Code::Unimplemented, None),
    };
    let Some(told) = told else { return Status::new(code, sentence(refusal)) };
    match code {
        Code::Unavailable => {
            tracing::warn!(error = refusal as &dyn Error, "a call failed; a retry may succeed");
        }
        _ => tracing::error!(error = refusal as &dyn Error, "a call failed"),
    }
    Status::new(code, told)
}

/// Status code, and a sentence that replaces the error's own text if that is not for the caller.
type Answer = (Code, Option<&'static str>);

const CANNOT_NOW: &str = "the lake cannot be read at the moment: try again (the server's log has the cause)";
const CANNOT: &str = "the lake cannot be read: the server's log has the cause";

fn of_query(error: &DataFusionError) -> Answer {
    if let Some(error) = lake_error(error) {
        return of_lake(error);
    }
    match error.find_root() {
        DataFusionError::External(_) | DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => {
            (Code::Unavailable, Some(CANNOT_NOW))
        }
        // A file could not be fetched.
        DataFusionError::ParquetError(error) if matches!(**error, ParquetError::External(_)) => {
            (Code::Unavailable, Some(CANNOT_NOW))
        }
        DataFusionError::ParquetError(_) => (Code::Internal, Some(CANNOT)),
        DataFusionError::Internal(_) => (Code::Internal, None),
        // All other errors are about the query: its text, its types, or a value that does not fit.
        _ => (Code::InvalidArgument, None),
    }
}

fn of_lake(error: &LakeError) -> Answer {
    match error {
        error if error.is_transient() => (Code::Unavailable, Some(CANNOT_NOW)),
        LakeError::Expired { .. } => {
            (Code::Unavailable, Some("files of this read were replaced and removed: run it again"))
        }
        LakeError::Version { .. } => (Code::InvalidArgument, None),
        LakeError::Schema { .. } | LakeError::Protocol { .. } => (Code::FailedPrecondition, Some(CANNOT)),
        _ => (Code::Internal, Some(CANNOT)),
    }
}

/// Finds the lake's error among the causes of the engine's error.
fn lake_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a LakeError> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref())
}

/// Returns the error and its causes as one sentence.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
