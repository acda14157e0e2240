//! Sessions: options that a client sets for all its queries. The server keeps no session: the cookie holds the options.

use std::collections::HashMap;

use arrow_flight::Action;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use serde::{Deserialize, Serialize};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::catalog::schemas::{CATALOG, PUBLIC};
use crate::error::CallError;
use crate::system;

/// Name of the cookie, as the protocol recommends it.
const COOKIE: &str = "arrow_flight_session_id";

/// Options that a client has set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Schema of tables that a query names without a schema.
    pub(crate) schema: String,
}

/// Value of an option, as the protocol defines it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    value: Option<Value>,
}

/// Kinds of option values.
#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Truth(bool),
    #[prost(sfixed64, tag = "3")]
    Whole(i64),
    #[prost(double, tag = "4")]
    Number(f64),
    #[prost(message, tag = "5")]
    Texts(Texts),
}

#[derive(Clone, PartialEq, Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

/// Options by name: the request of `SetSessionOptions`, and the result of `GetSessionOptions`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Options {
    #[prost(map = "string, message", tag = "1")]
    options: HashMap<String, OptionValue>,
}

/// Result of `SetSessionOptions`: the options that could not be set.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SetResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, Message)]
struct OptionError {
    #[prost(enumeration = "ErrorKind", tag = "1")]
    kind: i32,
}

/// Reason why an option could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum ErrorKind {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
}

/// Result of `CloseSession`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CloseResult {
    #[prost(enumeration = "CloseStatus", tag = "1")]
    status: i32,
}

/// State of a session after `CloseSession`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum CloseStatus {
    Unspecified = 0,
    Closed = 1,
}

impl Default for Session {
    fn default() -> Self {
        Session { schema: PUBLIC.to_owned() }
    }
}

impl Session {
    /// Reads the session from a call's cookies. Returns a new session if there is no valid cookie.
    pub(crate) fn of(metadata: &MetadataMap) -> Session {
        let cookies = metadata.get_all("cookie").iter().filter_map(|cookies| cookies.to_str().ok());
        let mut cookies =
            cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
        let session = cookies.find(|(name, _)| *name == COOKIE).and_then(|(_, value)| Session::decode(value));
        session.unwrap_or_default()
    }

    /// Answers `SetSessionOptions` with the new session and the options that could not be set.
    pub(crate) fn set(mut self, action: &Action) -> Result<(Session, SetResult), CallError> {
        let request =
            Options::decode(action.body.clone()).map_err(|error| CallError::BadRequest(error.to_string()))?;
        let mut errors = HashMap::new();
        for (name, OptionValue { value }) in request.options {
            let error = match (name.as_str(), value) {
                ("schema", None) => {
                    PUBLIC.clone_into(&mut self.schema);
                    None
                }
                ("schema", Some(Value::Text(schema))) if [PUBLIC, system::SCHEMA].contains(&&*schema) => {
                    self.schema = schema;
                    None
                }
                ("catalog", None) => None,
                ("catalog", Some(Value::Text(catalog))) if catalog == CATALOG => None,
                ("schema" | "catalog", _) => Some(ErrorKind::InvalidValue),
                _ => Some(ErrorKind::InvalidName),
            };
            if let Some(kind) = error {
                errors.insert(name, OptionError { kind: kind.into() });
            }
        }
        Ok((self, SetResult { errors }))
    }

    /// Answers `GetSessionOptions`.
    pub(crate) fn options(&self) -> Options {
        let text = |text: &str| OptionValue { value: Some(Value::Text(text.to_owned())) };
        Options {
            options: [("catalog".to_owned(), text(CATALOG)), ("schema".to_owned(), text(&self.schema))]
                .into(),
        }
    }

    /// Answers `CloseSession`.
    pub(crate) fn closed() -> CloseResult {
        CloseResult { status: CloseStatus::Closed.into() }
    }

    /// Returns the `set-cookie` header that keeps the session.
    pub(crate) fn cookie(&self) -> AsciiMetadataValue {
        let value = URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a session is text"));
        format!("{COOKIE}={value}").try_into().expect("base64 is ASCII")
    }

    /// Returns the `set-cookie` header that ends any session.
    pub(crate) fn no_cookie() -> AsciiMetadataValue {
        format!("{COOKIE}=; Max-Age=0").try_into().expect("it is ASCII")
    }

    fn decode(value: &str) -> Option<Session> {
        let session: Session = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
        [PUBLIC, system::SCHEMA].contains(&session.schema.as_str()).then_some(session)
    }
}
