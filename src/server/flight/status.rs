//! What a client is told when something does not work.
//!
//! A status has the gRPC code of the error's class and one text: `CODE: sentence Hint: hint`. The
//! text travels in an HTTP header, which clients limit, so it is cut at a few kilobytes.
//!
//! Codes of this folder: 1501 login, 1502 session or token, 1503 too many logins or sessions, 1801
//! handle, 1802 message, 1803 not supported, 1804 too many, 1805 parameters, 1806 defect, 1807
//! cancelled.

use tonic::{Code, Status};

use crate::auth::Refusal;
use crate::auth::passwords::PasswordError;
use crate::error::grpc_code;

/// A header of 8 KiB is safe with every HTTP/2 stack; a character may take 9 bytes in it.
const MESSAGE_BYTES_MAX: usize = 4096;

fn status(code: Code, id: &str, sentence: &str, hint: Option<&str>) -> Status {
    let prefix = format!("[{id}] ");
    let sentence = sentence.strip_prefix(&prefix).unwrap_or(sentence);
    let mut text = format!("{id}: {sentence}");
    if text.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    if let Some(hint) = hint {
        text.push_str(" Hint: ");
        text.push_str(hint);
    }
    Status::new(code, text)
}

/// The header and trailer that hold a statement's id.
pub const QUERY_ID: &str = "attune-query-id";

/// The same error with the id of the statement that it ended.
pub fn of_query(mut error: Status, query_id: &str) -> Status {
    if let Ok(value) = query_id.parse() {
        error.metadata_mut().insert(QUERY_ID, value);
    }
    error
}

/// An error of the engine.
pub fn from_sql(error: &sql::Error) -> Status {
    let hint = error.hint();
    status(grpc_code(error.class()), error.code(), &error.to_string(), hint.as_deref())
}

/// An error that a running statement's stream carries.
pub fn from_stream(error: datafusion::error::DataFusionError) -> Status {
    from_sql(&sql::Error::from(error))
}

/// A login that failed or a session whose user changed.
pub fn from_refusal(refusal: &Refusal) -> Status {
    let sentence = refusal.to_string();
    let denied = |id, hint| status(Code::Unauthenticated, id, &sentence, Some(hint));
    match refusal {
        Refusal::Login => denied("ATT-1501", LOG_IN),
        Refusal::Wait { seconds } => {
            let hint = format!("try again in {seconds} s");
            status(Code::ResourceExhausted, "ATT-1503", &sentence, Some(&hint))
        }
        Refusal::Token => denied("ATT-1502", "log in again, or ask for a new token"),
        Refusal::Certificate => denied("ATT-1501", "ask for a certificate that names a user"),
        Refusal::Changed => denied("ATT-1502", "log in again"),
        Refusal::Closed => denied("ATT-1501", LOG_IN),
        Refusal::Catalog(error) => status(
            grpc_code(error.class()),
            error.code(),
            &error.to_string(),
            error.hint().as_deref(),
        ),
        Refusal::Password(PasswordError::Busy) => {
            status(Code::Unavailable, "ATT-1503", &sentence, Some("try again in a moment"))
        }
        Refusal::Password(_) | Refusal::Random(_) => internal(&sentence),
    }
}

const LOG_IN: &str = "give a user name and password; the Handshake call answers with a token";

/// A call without credentials.
pub fn not_logged_in() -> Status {
    status(Code::Unauthenticated, "ATT-1501", "this server has users: log in", Some(LOG_IN))
}

/// A token that is unknown, has expired or was closed.
pub fn unknown_token() -> Status {
    let sentence = "the session is unknown or has expired";
    status(Code::Unauthenticated, "ATT-1502", sentence, Some("log in again"))
}

/// Whether a call was refused because what it shows leads to no session any more.
pub fn is_ended(status: &Status) -> bool {
    status.code() == Code::Unauthenticated && status.message().starts_with("ATT-1502")
}

/// A server that holds as many sessions as it may.
pub fn too_many_sessions(held_max: usize) -> Status {
    let sentence = format!("the server has {held_max} sessions, which is the limit");
    let hint = "close sessions that are not used, or raise sessions_max in [auth]";
    status(Code::ResourceExhausted, "ATT-1503", &sentence, Some(hint))
}

/// An action that changes a session, on a call that has none.
pub fn no_session() -> Status {
    let sentence = "a call with a password in its header has no session to change";
    let hint = "use the token that the Handshake call answers with";
    status(Code::FailedPrecondition, "ATT-1502", sentence, Some(hint))
}

/// A handle or ticket that this principal does not hold.
pub fn unknown_handle(what: &str) -> Status {
    let sentence = format!("the {what} is unknown, was used already or has expired");
    status(Code::NotFound, "ATT-1801", &sentence, Some("ask for a new one and use it once"))
}

/// Bytes that are no Flight SQL message, or one in the wrong place.
pub fn malformed(sentence: &str) -> Status {
    status(Code::InvalidArgument, "ATT-1802", sentence, None)
}

/// A part of Flight SQL that Attune does not have.
pub fn unsupported(sentence: &str, hint: &str) -> Status {
    status(Code::Unimplemented, "ATT-1803", sentence, Some(hint))
}

/// A principal that holds as many handles as it may.
pub fn too_many(held_max: usize) -> Status {
    let sentence = format!("you hold {held_max} statements, which is the limit");
    let hint = "close prepared statements and fetch or cancel results that were asked for";
    status(Code::ResourceExhausted, "ATT-1804", &sentence, Some(hint))
}

/// Parameters that do not fit the statement.
pub fn parameters(sentence: &str, hint: &str) -> Status {
    status(Code::InvalidArgument, "ATT-1805", sentence, Some(hint))
}

/// A defect of the server. The sentence must not carry data.
pub fn internal(sentence: &str) -> Status {
    let hint = "this is a defect: the server's log says more";
    status(Code::Internal, "ATT-1806", sentence, Some(hint))
}

/// A statement that its client or the end of the server cancelled.
pub fn cancelled() -> Status {
    status(Code::Cancelled, "ATT-1807", "the statement was cancelled", None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_code_sentence_hint() {
        let status =
            status(Code::NotFound, "ATT-1", "[ATT-1] no such table", Some("did you mean t"));
        assert_eq!(status.message(), "ATT-1: no such table Hint: did you mean t");
    }

    #[test]
    fn a_long_text_is_cut_inside_no_character() {
        let status = status(Code::Internal, "ATT-1", &"é".repeat(10_000), Some("the hint stays"));
        assert!(status.message().len() < MESSAGE_BYTES_MAX + 100);
        assert!(status.message().ends_with("… Hint: the hint stays"));
    }

    #[test]
    fn an_error_has_the_id_of_its_statement() {
        let error = of_query(cancelled(), "q-1");
        assert_eq!(error.metadata().get(QUERY_ID).unwrap(), "q-1");
        assert_eq!(error.code(), Code::Cancelled);
    }

    #[test]
    fn a_wrong_password_does_not_say_which_part_is_wrong() {
        let status = from_refusal(&Refusal::Login);
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains("the user name or the password is wrong"));
    }
}
