//! DoAction: what a client can ask for besides data.

use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus,
    RenewFlightEndpointRequest,
};
use bytes::Bytes;
use prost::Message;
use tonic::metadata::AsciiMetadataValue;

use crate::error::Refusal;
use crate::sql::session::Session;
use crate::sql::{Asker, Sql};

/// The actions, by the protocol's names and ours, and what each is for.
const ACTIONS: [(&str, &str); 10] = [
    (proto::PROGRESS_ACTION, "How far bronze is: {\"received\": position, \"durable\": position} as JSON"),
    (
        proto::REPORT_ACTION,
        "Takes a process's report of itself and returns those of all, as JSON; for writers",
    ),
    ("CreatePreparedStatement", "Flight SQL's"),
    ("CreatePreparedSubstraitPlan", "Flight SQL's"),
    ("ClosePreparedStatement", "Flight SQL's"),
    ("CancelFlightInfo", "Ends the queries that a FlightInfo describes, if they run"),
    ("RenewFlightEndpoint", "Returns the endpoint as it is: tickets do not expire"),
    ("SetSessionOptions", "Sets `schema`, where tables are looked for; `catalog` is candleflight"),
    ("GetSessionOptions", "Returns `catalog` and `schema`"),
    ("CloseSession", "Forgets what was set"),
];

/// The answer to an action: its results, and a cookie to keep.
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

/// Does what the protocol defines besides SQL; `None` where the action is another.
pub(crate) fn run(sql: &Sql, asker: Asker, action: &Action) -> Result<Option<Done>, Refusal> {
    Ok(Some(match action.r#type.as_str() {
        "CancelFlightInfo" => {
            let CancelFlightInfoRequest { info } = decode(action)?;
            let info =
                info.ok_or_else(|| Refusal::BadRequest("the request names no FlightInfo".to_owned()))?;
            let status = if sql.cancel(&asker.caller, &info)? {
                CancelStatus::Cancelled
            } else {
                CancelStatus::NotCancellable
            };
            done(&CancelFlightInfoResult { status: status.into() }, None)
        }
        "RenewFlightEndpoint" => {
            let RenewFlightEndpointRequest { endpoint } = decode(action)?;
            done(
                &endpoint.ok_or_else(|| Refusal::BadRequest("the request names no endpoint".to_owned()))?,
                None,
            )
        }
        "SetSessionOptions" => {
            let (session, result) = asker.session.set(action)?;
            done(&result, Some(session.cookie()))
        }
        "GetSessionOptions" => done(&asker.session.options(), None),
        "CloseSession" => done(&Session::closed(), Some(Session::no_cookie())),
        _ => return Ok(None),
    }))
}

fn decode<T: Message + Default>(action: &Action) -> Result<T, Refusal> {
    T::decode(action.body.clone())
        .map_err(|error| Refusal::BadRequest(format!("{} takes another message: {error}", action.r#type)))
}

fn done(result: &impl Message, cookie: Option<AsciiMetadataValue>) -> Done {
    Done { body: result.encode_to_vec().into(), cookie }
}
