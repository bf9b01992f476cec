//! Protobuf messages of Flight and Flight SQL that arrow-flight 59 does not generate.
//!
//! Source: `format/Flight.proto` (session options) and `format/FlightSql.proto` (`is_update`) of
//! Apache Arrow. The session messages travel bare in an action's body; some clients wrap them in
//! `Any` as Flight SQL's own actions are, so both are read.

use std::collections::HashMap;

use arrow_flight::sql::Any;
use bytes::Bytes;
use prost::Message;

use super::status;

/// The value of a session option; None unsets it.
#[derive(Clone, PartialEq, Message)]
pub struct SessionOptionValue {
    /// Text, a truth value, a number or a list.
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub option_value: Option<OptionValue>,
}

/// What a session option can hold.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OptionValue {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// A truth value.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// A whole number.
    #[prost(sfixed64, tag = "3")]
    Int64(i64),
    /// A number.
    #[prost(double, tag = "4")]
    Double(f64),
    /// A list of texts.
    #[prost(message, tag = "5")]
    TextList(TextList),
}

/// A list of texts.
#[derive(Clone, PartialEq, Message)]
pub struct TextList {
    /// The texts.
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

/// Options to set.
#[derive(Clone, PartialEq, Message)]
pub struct SetSessionOptionsRequest {
    /// Values by name.
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

/// The options that were not set, and why.
#[derive(Clone, PartialEq, Message)]
pub struct SetSessionOptionsResult {
    /// Errors by name.
    #[prost(map = "string, message", tag = "1")]
    pub errors: HashMap<String, OptionError>,
}

/// Why an option was not set.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct OptionError {
    /// The reason.
    #[prost(enumeration = "OptionErrorValue", tag = "1")]
    pub value: i32,
}

/// The reasons for which an option is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum OptionErrorValue {
    /// Not used.
    Unspecified = 0,
    /// There is no such option.
    InvalidName = 1,
    /// The value or its type is wrong.
    InvalidValue = 2,
    /// The option cannot be set, for instance for lack of a right.
    Error = 3,
}

/// The current options.
#[derive(Clone, PartialEq, Message)]
pub struct GetSessionOptionsResult {
    /// Values by name.
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

/// What became of a session that was closed.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct CloseSessionResult {
    /// 1 closed, 2 closing, 3 not closeable.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// [`CloseSessionResult::status`] of a session that is gone.
pub const SESSION_CLOSED: i32 = 1;

/// `ActionCreatePreparedStatementResult` with the field that says whether it is an update.
#[derive(Clone, PartialEq, Message)]
pub struct PreparedStatementResult {
    /// The handle.
    #[prost(bytes = "bytes", tag = "1")]
    pub prepared_statement_handle: Bytes,
    /// The result's schema as an IPC message; no bytes for an update.
    #[prost(bytes = "bytes", tag = "2")]
    pub dataset_schema: Bytes,
    /// The parameters' schema as an IPC message; no bytes without parameters.
    #[prost(bytes = "bytes", tag = "3")]
    pub parameter_schema: Bytes,
    /// Whether the statement is to be sent by DoPut.
    #[prost(bool, optional, tag = "4")]
    pub is_update: Option<bool>,
}

impl PreparedStatementResult {
    /// The body of the action's result.
    pub fn into_body(self) -> Bytes {
        let any = Any {
            type_url: format!("{SQL_PACKAGE}ActionCreatePreparedStatementResult"),
            value: self.encode_to_vec().into(),
        };
        any.encode_to_vec().into()
    }
}

const SQL_PACKAGE: &str = "type.googleapis.com/arrow.flight.protocol.sql.";
const FLIGHT_PACKAGE: &str = "type.googleapis.com/arrow.flight.protocol.";

/// Reads a message of Flight itself from an action's body, bare or wrapped in `Any`.
pub fn decode_bare<M: Message + Default>(body: &Bytes, name: &str) -> Result<M, tonic::Status> {
    let wrapped = Any::decode(body.clone())
        .ok()
        .filter(|any| any.type_url.strip_prefix(FLIGHT_PACKAGE).is_some_and(|found| found == name));
    let bytes = wrapped.map_or_else(|| body.clone(), |any| any.value);
    M::decode(bytes).map_err(|_| status::malformed(&format!("the body is no {name}")))
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::ActionCreatePreparedStatementResult;

    use super::*;

    fn set_purpose() -> SetSessionOptionsRequest {
        let value = OptionValue::Text("personalization".into());
        let value = SessionOptionValue { option_value: Some(value) };
        SetSessionOptionsRequest { session_options: HashMap::from([("purpose".into(), value)]) }
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let expected = b"\n\x1c\n\x07purpose\x12\x11\n\x0fpersonalization";
        assert_eq!(set_purpose().encode_to_vec(), expected);
    }

    #[test]
    fn bare_and_wrapped_messages_are_read() {
        let bare = set_purpose().encode_to_vec();
        let any = Any {
            type_url: format!("{FLIGHT_PACKAGE}SetSessionOptionsRequest"),
            value: bare.clone().into(),
        };
        for body in [bare, any.encode_to_vec()] {
            let read: SetSessionOptionsRequest =
                decode_bare(&body.into(), "SetSessionOptionsRequest").unwrap();
            assert_eq!(read, set_purpose());
        }
        let nonsense = Bytes::from_static(b"\xff\xff\xff");
        assert!(decode_bare::<SetSessionOptionsRequest>(&nonsense, "X").is_err());
    }

    #[test]
    fn older_clients_read_the_prepared_statement() {
        let result = PreparedStatementResult {
            prepared_statement_handle: Bytes::from_static(b"handle"),
            dataset_schema: Bytes::from_static(b"d"),
            parameter_schema: Bytes::from_static(b"p"),
            is_update: Some(true),
        };
        let any = Any::decode(result.into_body()).unwrap();
        let old: ActionCreatePreparedStatementResult = any.unpack().unwrap().unwrap();
        assert_eq!(old.prepared_statement_handle, Bytes::from_static(b"handle"));
        assert_eq!(old.parameter_schema, Bytes::from_static(b"p"));
    }
}
