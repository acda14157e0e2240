//! The caller of a request, and its session.

use access::Caller;
use tonic::Request;

use crate::login;
use crate::sql::session::Session;

/// Caller of a request, and its session.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    pub(crate) caller: Caller,
    pub(crate) session: Session,
}

impl RequestContext {
    /// Returns the caller and the session of a request.
    pub(crate) fn of<T>(request: &Request<T>) -> RequestContext {
        RequestContext {
            caller: login::caller(request.extensions()),
            session: Session::of(request.metadata()),
        }
    }
}
