//! DoAction: all requests except reads and writes of data.

use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus,
    RenewFlightEndpointRequest,
};
use bytes::Bytes;
use prost::Message;
use tonic::metadata::AsciiMetadataValue;

use crate::error::CallError;
use crate::request::RequestContext;
use crate::sql::Sql;
use crate::sql::session::Session;

/// Actions of the protocol and of this server, with their descriptions.
const ACTIONS: [(&str, &str); 10] = [
    (
        proto::PROGRESS_ACTION,
        "Returns the position of bronze: {\"received\": position, \"durable\": position} as JSON",
    ),
    (
        proto::REPORT_ACTION,
        "Records the report of one process and returns the reports of all, as JSON; for writers",
    ),
    ("CreatePreparedStatement", "Defined by Flight SQL"),
    ("CreatePreparedSubstraitPlan", "Defined by Flight SQL"),
    ("ClosePreparedStatement", "Defined by Flight SQL"),
    ("CancelFlightInfo", "Cancels the running queries that a FlightInfo describes"),
    ("RenewFlightEndpoint", "Returns the endpoint unchanged: tickets do not expire"),
    (
        "SetSessionOptions",
        "Sets `schema`, the default schema of table names; `catalog` is always candleflight",
    ),
    ("GetSessionOptions", "Returns `catalog` and `schema`"),
    ("CloseSession", "Resets all session options"),
];

/// Answer to an action: its result, and a cookie for the client.
pub(crate) struct Done {
    pub(crate) body: Bytes,
    pub(crate) cookie: Option<AsciiMetadataValue>,
}

/// Returns all actions.
pub(crate) fn list() -> impl Iterator<Item = ActionType> {
    ACTIONS.iter().map(|(name, description)| ActionType {
        r#type: (*name).to_owned(),
        description: (*description).to_owned(),
    })
}

/// Runs the protocol's actions that are not part of Flight SQL. Returns `None` for any other action.
pub(crate) fn run(sql: &Sql, context: RequestContext, action: &Action) -> Result<Option<Done>, CallError> {
    Ok(Some(match action.r#type.as_str() {
        "CancelFlightInfo" => {
            let CancelFlightInfoRequest { info } = decode(action)?;
            let info =
                info.ok_or_else(|| CallError::BadRequest("the request holds no FlightInfo".to_owned()))?;
            let status = if sql.cancel(&context.caller, &info)? {
                CancelStatus::Cancelled
            } else {
                CancelStatus::NotCancellable
            };
            done(&CancelFlightInfoResult { status: status.into() }, None)
        }
        "RenewFlightEndpoint" => {
            let RenewFlightEndpointRequest { endpoint } = decode(action)?;
            done(
                &endpoint.ok_or_else(|| CallError::BadRequest("the request holds no endpoint".to_owned()))?,
                None,
            )
        }
        "SetSessionOptions" => {
            let (session, result) = context.session.set(action)?;
            done(&result, Some(session.cookie()))
        }
        "GetSessionOptions" => done(&context.session.options(), None),
        "CloseSession" => done(&Session::closed(), Some(Session::no_cookie())),
        _ => return Ok(None),
    }))
}

fn decode<T: Message + Default>(action: &Action) -> Result<T, CallError> {
    T::decode(action.body.clone())
        .map_err(|error| CallError::BadRequest(format!("decode the request of {}: {error}", action.r#type)))
}

fn done(result: &impl Message, cookie: Option<AsciiMetadataValue>) -> Done {
    Done { body: result.encode_to_vec().into(), cookie }
}
