//! Errors of the program.
//!
//! An error has three readers, and each gets its own part. *A person* reads a sentence that names
//! the thing (file, table, address) and a hint that says what to do next. *A program* reads the
//! code (`ATT-6101`), which never changes, and the exit code or gRPC status, which follow from the
//! error's class and from nothing else. *An operator* reads the log, where the same code stands.
//!
//! Each crate has one error type and converts what it receives once, at its own boundary. What
//! comes from `sql` (1000 to 3999) and `catalog` (4000 to 5999) passes through here unchanged. This
//! crate's codes: 60xx called wrongly, 61xx configuration, 62xx files and output, 63xx listening,
//! 64xx a remote server, 65xx login, 66xx interrupted, 67xx Arrow conversions,
//! 68xx the record.
//!
//! Secrets never enter an error. A configuration error shows the line it is about, so a line that
//! holds a secret is shown up to its equals sign only.

use catalog::Class;
use thiserror::Error as ThisError;

use crate::auth::Refusal;
use crate::auth::passwords::PasswordError;
use crate::config::Fault;

/// What can go wrong in the program.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The program was called with arguments that do not fit together.
    #[error("{what}")]
    Usage {
        /// A sentence.
        what: String,
        /// What to type instead.
        hint: Option<String>,
    },
    /// The configuration holds errors; all that were found.
    #[error("the configuration has {} error{}", .0.len(), if .0.len() == 1 { "" } else { "s" })]
    Config(Vec<Fault>),
    /// A local file or folder.
    #[error("cannot {action} {path}: {reason}")]
    File {
        /// read, write, create …
        action: &'static str,
        /// Which file.
        path: String,
        /// What the operating system said.
        reason: String,
    },
    /// Standard output or the output file.
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
    /// The server cannot start.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        reason: String,
    },
    /// A server that cannot be reached or that answered with an error.
    #[error("{reason}")]
    Remote {
        /// The server's own sentence, or the transport's.
        reason: String,
        /// The gRPC status.
        status: tonic::Code,
    },
    /// A user name or password that is wrong; which of them is not said.
    #[error("the user name or the password is wrong")]
    Login,
    /// The warehouse has users and nobody logged in.
    #[error("this warehouse has users: log in")]
    LoginRequired,
    /// A password that cannot be hashed or checked.
    #[error("{0}")]
    Password(String),
    /// The record of who did what was changed, or lost a part.
    #[error("the record does not hold; faults: {faults}")]
    Record {
        /// What is wrong with it.
        faults: usize,
    },
    /// A warehouse in which nobody has ever recorded anything, or that is not there.
    #[error("there is no record here: {warehouse}")]
    NoRecord {
        /// Where it was looked for.
        warehouse: String,
    },
    /// Ctrl-C.
    #[error("cancelled")]
    Interrupted,
    /// A batch that cannot be written in the format asked for.
    #[error("cannot write the result as {format}: {reason}")]
    Format {
        /// csv, json …
        format: &'static str,
        /// Arrow's message.
        reason: String,
    },
    /// From the catalog.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// From the SQL engine.
    #[error(transparent)]
    Sql(#[from] sql::Error),
}

/// The program's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Login
            | Refusal::Changed
            | Refusal::Closed
            | Refusal::Token
            | Refusal::Certificate => Self::Login,
            refusal @ (Refusal::Wait { .. } | Refusal::Random(_)) => {
                Self::Password(refusal.to_string())
            }
            Refusal::Catalog(error) => Self::Catalog(error),
            Refusal::Password(error) => Self::from(error),
        }
    }
}

impl From<PasswordError> for Error {
    fn from(error: PasswordError) -> Self {
        Self::Password(error.to_string())
    }
}

impl Error {
    /// Called wrongly, and what to type instead.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), hint: Some(hint.into()) }
    }

    /// A local file that cannot be used.
    pub fn file(
        action: &'static str,
        path: impl AsRef<std::path::Path>,
        reason: &dyn std::error::Error,
    ) -> Self {
        Self::File { action, path: path.as_ref().display().to_string(), reason: reason.to_string() }
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "ATT-6001",
            Self::Config(_) => "ATT-6101",
            Self::File { .. } => "ATT-6201",
            Self::Output(_) => "ATT-6202",
            Self::Listen { .. } => "ATT-6301",
            Self::Remote { .. } => "ATT-6401",
            Self::Login => "ATT-6501",
            Self::LoginRequired => "ATT-6502",
            Self::Password(_) => "ATT-6503",
            Self::Interrupted => "ATT-6601",
            Self::Record { .. } => "ATT-6801",
            Self::NoRecord { .. } => "ATT-6802",
            Self::Format { .. } => "ATT-6701",
            Self::Catalog(error) => error.code(),
            Self::Sql(error) => error.code(),
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => hint.clone(),
            Self::Listen { .. } => Some("choose another address with --flight or --http".into()),
            Self::Remote { status: tonic::Code::Unavailable, .. } => {
                Some("check the address, that the server runs, and grpc:// or grpc+tls://".into())
            }
            Self::Remote { status: tonic::Code::Unauthenticated, .. } => {
                Some("give --user NAME and the password in ATTUNE_PASSWORD".into())
            }
            Self::Login | Self::LoginRequired => {
                Some("give --user NAME and the password in ATTUNE_PASSWORD".into())
            }
            Self::Record { .. } => {
                Some("keep the warehouse as it is, and find out who could write it".into())
            }
            Self::NoRecord { .. } => Some(
                "name the warehouse with --warehouse or --config; a server writes the first entry \
                 when somebody asks it for something, and a record that was there is gone"
                    .into(),
            ),
            Self::Format { format: "csv", .. } => {
                Some("use --format json for nested columns".into())
            }
            Self::Catalog(error) => error.hint(),
            Self::Sql(error) => error.hint(),
            _ => None,
        }
    }

    /// The process's exit code: 2 when it was called wrongly, 1 when the work failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::Config(_) => 2,
            _ => 1,
        }
    }

    /// Whether the reader of our output went away, which is how `attune sql … | head` ends.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// The error as lines for a person: code and sentence, the lines of a configuration file that
    /// are wrong, the hint.
    pub fn render(&self, colour: bool) -> String {
        let (red, bold, plain) =
            if colour { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        if let Self::Config(faults) = self {
            let lines: Vec<String> =
                faults.iter().map(|fault| fault.render(self.code(), colour)).collect();
            return lines.join("\n");
        }
        let sentence = self.to_string();
        let prefix = format!("[{}] ", self.code());
        let sentence = sentence.strip_prefix(&prefix).unwrap_or(&sentence);
        // A remote server's sentence carries the server's own code.
        let head = match remote_code(self, sentence) {
            Some(_) => format!("{red}error{plain}"),
            None => format!("{red}error[{}]{plain}", self.code()),
        };
        let mut text = format!("{head}: {bold}{sentence}{plain}");
        if let Some(hint) = self.hint() {
            text.push_str("\n  hint: ");
            text.push_str(&hint);
        }
        text
    }
}

fn remote_code<'a>(error: &Error, sentence: &'a str) -> Option<&'a str> {
    matches!(error, Error::Remote { .. }).then_some(())?;
    let start = sentence.find("ATT-")?;
    sentence.get(start..start + 8)
}

/// The gRPC status of an error's class.
pub fn grpc_code(class: Class) -> tonic::Code {
    match class {
        Class::Syntax | Class::Invalid => tonic::Code::InvalidArgument,
        Class::NotFound => tonic::Code::NotFound,
        Class::AlreadyExists => tonic::Code::AlreadyExists,
        Class::Denied => tonic::Code::PermissionDenied,
        Class::Unsupported => tonic::Code::Unimplemented,
        Class::Unavailable => tonic::Code::Unavailable,
        Class::Exhausted => tonic::Code::ResourceExhausted,
        Class::Cancelled => tonic::Code::Cancelled,
        Class::TimedOut => tonic::Code::DeadlineExceeded,
        Class::Conflict => tonic::Code::Aborted,
        Class::Corrupt => tonic::Code::DataLoss,
        Class::Internal => tonic::Code::Internal,
    }
}

/// The existing name nearest to a mistyped one, when it is near enough to be a slip.
pub fn did_you_mean<'a>(
    name: &str,
    existing: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    existing
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_call_and_a_failed_query_differ_in_the_exit_code() {
        assert_eq!(Error::usage("a", "b").exit_code(), 2);
        assert_eq!(Error::Config(Vec::new()).exit_code(), 2);
        assert_eq!(Error::Login.exit_code(), 1);
    }

    #[test]
    fn the_rendered_error_has_code_sentence_and_hint() {
        let text = Error::usage("no SQL was given", "attune sql -c 'SELECT 1'").render(false);
        assert_eq!(text, "error[ATT-6001]: no SQL was given\n  hint: attune sql -c 'SELECT 1'");
        assert!(Error::Login.render(true).starts_with("\x1b[1;31merror[ATT-6501]"));
    }

    #[test]
    fn a_remote_error_keeps_the_servers_code() {
        let error = Error::Remote {
            reason: "[ATT-4001] table ordrs does not exist".into(),
            status: tonic::Code::NotFound,
        };
        assert_eq!(error.render(false), "error: [ATT-4001] table ordrs does not exist");
    }

    #[test]
    fn only_a_broken_pipe_is_a_broken_pipe() {
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(Error::Output(pipe).is_broken_pipe());
        assert!(!Error::Login.is_broken_pipe());
    }

    #[test]
    fn a_slip_is_corrected_and_nonsense_is_not() {
        assert_eq!(did_you_mean("discovr", ["url", "discover"]), Some("discover"));
        assert_eq!(did_you_mean("zzz", ["url", "discover"]), None);
    }
}
