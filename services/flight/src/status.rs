//! Mapping from a [`CallError`] to a gRPC status. The status shows a client whether to correct the call, retry it or give up.

use std::error::Error;

use access::Denied;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use lake::LakeError;
use service::error::sentence;
use tonic::{Code, Status};

use crate::error::CallError;

/// Maps an error to its status. Details for operators, such as a store's address and its response, go to the log. The caller receives a
/// general sentence instead.
pub(crate) fn status(error: &CallError) -> Status {
    let (code, text) = match error {
        CallError::Broken(status) => return status.clone(),
        CallError::Stopping | CallError::Ahead { .. } => (Code::Unavailable, None),
        CallError::Denied(Denied::TooMany { .. }) => (Code::ResourceExhausted, None),
        CallError::Denied(_) => (Code::Unauthenticated, None),
        CallError::Forbidden { .. } => (Code::PermissionDenied, None),
        CallError::Busy(_) | CallError::TooLarge { .. } | CallError::NoMemory(_) => {
            (Code::ResourceExhausted, None)
        }
        CallError::TooLong { .. } | CallError::Untaken { .. } => (Code::DeadlineExceeded, None),
        CallError::Cancelled => (Code::Cancelled, None),
        CallError::Gap(_) | CallError::OtherTopic(_) | CallError::OtherTable { .. } => {
            (Code::FailedPrecondition, None)
        }
        CallError::BadBatch(_) | CallError::BadRequest(_) | CallError::TooLongText { .. } => {
            (Code::InvalidArgument, None)
        }
        CallError::Query(error) => of_query(error),
        CallError::Lake(error) => of_lake(error),
        CallError::Encode(_) | CallError::Panicked => (Code::Internal, None),
        CallError::Unsupported(_) => (Code::Unimplemented, None),
    };
    let Some(text) = text else { return Status::new(code, sentence(error)) };
    match code {
        Code::Unavailable => {
            tracing::warn!(error = error as &dyn Error, "a call failed; a retry may succeed");
        }
        _ => tracing::error!(error = error as &dyn Error, "a call failed"),
    }
    Status::new(code, text)
}

/// Status code, and a sentence that replaces the error's own text if the caller must not see that text.
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

#[cfg(test)]
mod tests;
