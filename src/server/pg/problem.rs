//! What a PostgreSQL client is told when something does not work.
//!
//! PostgreSQL's five-letter state follows from the error's class, because drivers decide by it;
//! Attune's own code is the detail, and the hint is the hint.

use catalog::Class;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};

use super::input::Fault;
use crate::auth::Refusal;

/// Characters of a message: what it quotes may be long.
const CHARS_MAX: usize = 8_000;

/// An error for a client.
#[derive(Debug, Clone)]
pub struct Problem {
    /// PostgreSQL's state.
    pub state: &'static str,
    code: Option<String>,
    message: String,
    hint: Option<String>,
    /// Whether the connection ends with it.
    pub fatal: bool,
}

/// Why the work for a message stopped.
#[derive(Debug)]
pub enum Stop {
    /// An error to tell.
    Problem(Box<Problem>),
    /// Nobody is there to be told.
    Gone,
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl From<sql::Error> for Stop {
    fn from(error: sql::Error) -> Self {
        Problem::from(&error).into()
    }
}

impl From<datafusion::error::DataFusionError> for Stop {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        sql::Error::from(error).into()
    }
}

impl From<arrow::error::ArrowError> for Stop {
    fn from(error: arrow::error::ArrowError) -> Self {
        sql::Error::from(error).into()
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Gone => Self::Gone,
            Fault::TooLong { bytes, bytes_max } => {
                let what = format!("a message has {bytes} bytes, the limit is {bytes_max}");
                Problem::new("08P01", what).fatal().into()
            }
            Fault::Malformed(what) => Problem::new("08P01", what).fatal().into(),
        }
    }
}

impl From<std::io::Error> for Stop {
    fn from(_error: std::io::Error) -> Self {
        Self::Gone
    }
}

impl Problem {
    /// An error with a state of PostgreSQL.
    pub fn new(state: &'static str, message: impl Into<String>) -> Self {
        Self { state, code: None, message: message.into(), hint: None, fatal: false }
    }

    /// The same with what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, after which the connection ends.
    pub fn fatal(mut self) -> Self {
        self.fatal = true;
        self
    }

    /// A login that failed.
    pub fn refused(refusal: &Refusal, user: &str) -> Self {
        match refusal {
            Refusal::Login => {
                Self::new("28P01", format!("password authentication failed for user \"{user}\""))
            }
            Refusal::Changed | Refusal::Token => {
                Self::new("57P01", refusal.to_string()).hint("connect again")
            }
            Refusal::Wait { seconds } => {
                Self::new("28000", refusal.to_string()).hint(format!("try again in {seconds} s"))
            }
            Refusal::Closed => {
                Self::new("57P01", refusal.to_string()).hint("connect as one of them")
            }
            Refusal::Certificate => Self::new("28000", refusal.to_string()),
            other => Self::new("58000", other.to_string()),
        }
        .fatal()
    }

    /// A defect, whose cause is in the log.
    pub fn internal(what: &dyn std::fmt::Display) -> Self {
        tracing::error!(%what, "a defect");
        Self::new("XX000", "an operator failed unexpectedly").hint("the server's log has more")
    }

    /// As a message.
    pub fn response(&self) -> PgWireBackendMessage {
        let severity = if self.fatal { "FATAL" } else { "ERROR" };
        PgWireBackendMessage::ErrorResponse(ErrorResponse::new(self.fields(severity)))
    }

    /// As a warning.
    pub fn warning(&self) -> PgWireBackendMessage {
        PgWireBackendMessage::NoticeResponse(NoticeResponse::new(self.fields("WARNING")))
    }

    fn fields(&self, severity: &str) -> Vec<(u8, String)> {
        // A zero byte ends a field.
        let clean = |text: &str| text.replace('\0', "").chars().take(CHARS_MAX).collect();
        let mut fields = vec![
            (b'S', severity.to_owned()),
            (b'V', severity.to_owned()),
            (b'C', self.state.to_owned()),
            (b'M', clean(&self.message)),
        ];
        fields.extend(self.code.iter().map(|code| (b'D', code.clone())));
        fields.extend(self.hint.iter().map(|hint| (b'H', clean(hint))));
        fields
    }
}

impl From<&sql::Error> for Problem {
    fn from(error: &sql::Error) -> Self {
        let text = error.to_string();
        let prefix = format!("[{}] ", error.code());
        Self {
            state: state(error, &text),
            code: Some(error.code().to_owned()),
            message: text.strip_prefix(&prefix).unwrap_or(&text).to_owned(),
            hint: error.hint(),
            fatal: false,
        }
    }
}

/// The state that PostgreSQL has for an error of this class.
fn state(error: &sql::Error, text: &str) -> &'static str {
    match error.class() {
        Class::Syntax => "42601",
        Class::NotFound => object(text, "42P01", "3F000", "42704"),
        Class::AlreadyExists => object(text, "42P07", "42P06", "42710"),
        Class::Invalid => invalid(error, text),
        Class::Denied => "42501",
        Class::Unsupported => "0A000",
        Class::Unavailable if matches!(error, sql::Error::Busy { .. }) => "53000",
        Class::Unavailable => "58030",
        Class::Exhausted => "53000",
        Class::Cancelled | Class::TimedOut => "57014",
        Class::Conflict => "40001",
        Class::Corrupt => "XX001",
        Class::Internal => "XX000",
    }
}

fn object(
    text: &str,
    table: &'static str,
    schema: &'static str,
    other: &'static str,
) -> &'static str {
    match () {
        () if text.contains("table ") || text.contains("view ") => table,
        () if text.contains("schema ") => schema,
        () => other,
    }
}

fn invalid(error: &sql::Error, text: &str) -> &'static str {
    if matches!(error, sql::Error::Execution { .. }) {
        return match () {
            () if text.contains("division by zero") || text.contains("Divide by zero") => "22012",
            () if text.contains("verflow") => "22003",
            () if text.contains("ast") => "22P02",
            () => "22000",
        };
    }
    match () {
        () if text.starts_with("column ") => "42703",
        () if text.contains("nvalid function") => "42883",
        () if text.starts_with("parameter ") || text.starts_with("setting ") => {
            if text.contains("does not exist") { "42704" } else { "22023" }
        }
        () => "42000",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_code_and_hint() {
        let error = sql::Error::unsupported("COPY is not supported", "use SELECT");
        let problem = Problem::from(&error);
        let fields = problem.fields("ERROR");
        for field in [(b'C', "0A000"), (b'D', "ATT-2002"), (b'H', "use SELECT")] {
            assert!(fields.iter().any(|(key, text)| (*key, text.as_str()) == field), "{fields:?}");
        }
    }

    #[test]
    fn a_zero_byte_does_not_end_a_field() {
        let fields = Problem::new("42601", "a\0b").fields("ERROR");
        assert!(fields.iter().any(|(_, text)| text == "ab"));
    }
}
