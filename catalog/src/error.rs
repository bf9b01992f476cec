//! Errors of the catalog: what went wrong with a store, a table, a definition or a model.
//!
//! Every error has a stable code, a class (which the program maps to an exit code and a gRPC
//! status), a sentence that names the URL or the object, and where possible a hint. Codes of this
//! crate: 4000 definitions and tables, 4500 models and keys, 5000 stores and files.

use std::sync::Arc;

use thiserror::Error;

/// What kind of thing went wrong; the program maps a class to an exit code and a gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The text is no SQL.
    Syntax,
    /// A name that does not exist, or that the caller may not see.
    NotFound,
    /// A name that exists already.
    AlreadyExists,
    /// A value, type or option that is not allowed.
    Invalid,
    /// The caller lacks the right.
    Denied,
    /// A thing that Attune does not do.
    Unsupported,
    /// A store or service that cannot be reached; trying again may help.
    Unavailable,
    /// A limit on memory, rows, text or slots.
    Exhausted,
    /// Cancelled by the caller.
    Cancelled,
    /// The time limit passed.
    TimedOut,
    /// Somebody else changed the same thing first.
    Conflict,
    /// A file or document that cannot be read.
    Corrupt,
    /// A defect in Attune.
    Internal,
}

/// The catalog's error.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// A store that cannot be reached or that refuses the credentials.
    #[error("cannot reach {url}: {reason}")]
    Store {
        /// Where.
        url: String,
        /// What the store said.
        reason: String,
        /// Whether the store refused the credentials.
        denied: bool,
    },
    /// A URL that names no store we know.
    #[error("{url} is not a usable location: {reason}")]
    Location {
        /// The location as written.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The store ignores conditional writes, so it is used read-only.
    #[error("{url} is read-only: {reason}")]
    ReadOnly {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// A location without a data file.
    #[error("there is no {format} file in {url}")]
    Empty {
        /// Where.
        url: String,
        /// Which files were looked for.
        format: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {url}: {reason}")]
    File {
        /// Which file.
        url: String,
        /// Why.
        reason: String,
    },
    /// Two files of a table disagree on a column's type.
    #[error("column {column} is {found} in {url} but {expected} in {other}")]
    Clash {
        /// The file that disagrees.
        url: String,
        /// The column.
        column: String,
        /// Its type there.
        found: String,
        /// The type elsewhere.
        expected: String,
        /// A file with that type.
        other: String,
    },
    /// A name that does not exist.
    #[error("{kind} {name} does not exist")]
    NotFound {
        /// table, view, model, schema, key, user …
        kind: &'static str,
        /// The name.
        name: String,
        /// The nearest existing name.
        suggestion: Option<String>,
    },
    /// A name that exists.
    #[error("{kind} {name} already exists")]
    AlreadyExists {
        /// What it is.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Somebody changed the same definition between our read and our write.
    #[error("{name} was changed by somebody else at the same time")]
    Conflict {
        /// The name.
        name: String,
    },
    /// A person was erased while a statement ran that read rows before.
    #[error(
        "a person was erased while this statement ran, and could come back with what it writes: {into} was not written (erasure {erasure})"
    )]
    Erased {
        /// The table, or the version of a model.
        into: String,
        /// The erasure's id.
        erasure: String,
        /// Whether it is done.
        is_done: bool,
    },
    /// A value that is not allowed.
    #[error("{what}")]
    Invalid {
        /// A sentence.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A document or model that cannot be read.
    #[error("{what} cannot be read: {reason}")]
    Corrupt {
        /// What.
        what: String,
        /// Why.
        reason: String,
    },
    /// A Delta operation failed.
    #[error("cannot {action} table {name}: {reason}")]
    Delta {
        /// write, read …
        action: &'static str,
        /// The table.
        name: String,
        /// What Delta said.
        reason: String,
    },
    /// DataFusion refused.
    #[error("{0}")]
    DataFusion(Arc<datafusion::error::DataFusionError>),
}

/// The catalog's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The stable code, for programs and for a search in the documentation.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "ATT-4001",
            Self::AlreadyExists { .. } => "ATT-4002",
            Self::Conflict { .. } => "ATT-4003",
            Self::Invalid { .. } => "ATT-4004",
            Self::Erased { .. } => "ATT-4005",
            Self::Corrupt { .. } => "ATT-4501",
            Self::Store { denied: false, .. } => "ATT-5001",
            Self::Store { denied: true, .. } => "ATT-5002",
            Self::Location { .. } => "ATT-5003",
            Self::ReadOnly { .. } => "ATT-5004",
            Self::Empty { .. } => "ATT-5005",
            Self::File { .. } => "ATT-5006",
            Self::Clash { .. } => "ATT-5007",
            Self::Delta { .. } => "ATT-5008",
            Self::DataFusion(_) => "ATT-5009",
        }
    }

    /// What kind of error it is.
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } | Self::Empty { .. } => Class::NotFound,
            Self::AlreadyExists { .. } => Class::AlreadyExists,
            Self::Conflict { .. } | Self::Erased { .. } => Class::Conflict,
            Self::Invalid { .. } | Self::Location { .. } | Self::Clash { .. } => Class::Invalid,
            Self::Corrupt { .. } | Self::File { .. } => Class::Corrupt,
            Self::Store { .. } => Class::Unavailable,
            Self::ReadOnly { .. } => Class::Unsupported,
            Self::Delta { .. } | Self::DataFusion(_) => Class::Internal,
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store { denied: true, .. } => Some(
                "check the store's access_key_id and secret_access_key, and that they may list and \
                 read this bucket"
                    .into(),
            ),
            Self::Store { denied: false, .. } => {
                Some("check the endpoint, allow_http and path_style of this store".into())
            }
            Self::Location { .. } => Some(
                "locations are s3://bucket/path or a local path below a configured lake or \
                 warehouse"
                    .into(),
            ),
            Self::ReadOnly { .. } => Some("choose another warehouse URL".into()),
            Self::Empty { .. } => {
                Some("check the location and the format, or wait for the first file".into())
            }
            Self::File { .. } => Some("rewrite or remove the file; other tables still work".into()),
            Self::Clash { .. } => Some(
                "rewrite one of the files, or give the columns in CREATE EXTERNAL TABLE".into(),
            ),
            Self::NotFound { suggestion: Some(name), .. } => Some(format!("did you mean {name}?")),
            Self::NotFound {
                kind: kind @ ("table" | "model" | "schema" | "subject" | "role"), ..
            } => {
                Some(format!("SHOW {}S lists them", kind.to_uppercase()))
            }
            Self::NotFound { kind: "view", .. } => Some("SHOW TABLES lists them".into()),
            Self::NotFound { kind: "key", .. } => {
                Some("SHOW KEYS lists those that you may know of".into())
            }
            Self::NotFound { .. } => None,
            Self::AlreadyExists { kind: "key", .. } => {
                Some("use IF NOT EXISTS, ALTER KEY … ROTATE, or another name".into())
            }
            Self::AlreadyExists { .. } => Some("use OR REPLACE, or IF NOT EXISTS, or DROP it".into()),
            Self::Conflict { .. } | Self::Erased { is_done: true, .. } => {
                Some("run the statement again".into())
            }
            Self::Erased { is_done: false, .. } => Some(
                "run the statement again once system.erasures says that the erasure is done; \
                 RESUME ERASURE ends one whose server has stopped"
                    .into(),
            ),
            Self::Invalid { hint, .. } => hint.clone(),
            Self::Corrupt { what, .. } if what.starts_with("the record") => {
                Some("attune audit verify tells what is wrong with it".into())
            }
            Self::Corrupt { .. } => Some("restore it, or drop and create it again".into()),
            Self::Delta { .. } => Some("run the statement again; nothing was half-written".into()),
            Self::DataFusion(_) => None,
        }
    }

    /// Whether somebody else was first, so that our own write has certainly not happened.
    pub fn is_lost_race(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::AlreadyExists { .. })
    }

    /// A value that is not allowed, without a hint.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), hint: None }
    }

    /// A value that is not allowed, and what to do.
    pub fn invalid_hint(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), hint: Some(hint.into()) }
    }

    /// A missing name, with the nearest of the existing ones.
    pub fn not_found<'a>(
        kind: &'static str,
        name: &str,
        existing: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self::NotFound { kind, name: name.into(), suggestion: nearest(name, existing) }
    }

    /// An object store's error, with the URL that was asked for.
    pub fn store(url: impl Into<String>, error: &object_store::Error) -> Self {
        let url = url.into();
        let reason = root_cause(error);
        match error {
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                Self::Store { url, reason, denied: true }
            }
            object_store::Error::NotFound { .. } => Self::File { url, reason },
            // A refused listing comes as a plain HTTP answer.
            _ if reason.contains("403 Forbidden") || reason.contains("401 Unauthorized") => {
                Self::Store { url, reason, denied: true }
            }
            _ => Self::Store { url, reason, denied: false },
        }
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        // Operators between the scan and the caller wrap what they pass on.
        let mut link: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(current) = link {
            if let Some(ours) = current.downcast_ref::<Self>() {
                return ours.clone();
            }
            link = current.source();
        }
        Self::DataFusion(Arc::new(error))
    }
}

impl From<Error> for datafusion::error::DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

/// The nearest of `existing` to `name`, when it is near enough to be a slip.
pub fn nearest<'a>(name: &str, existing: impl IntoIterator<Item = &'a str>) -> Option<String> {
    existing
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

/// The innermost message of an error, on one line.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    let line = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    line.chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_name_and_nonsense_does_not() {
        assert_eq!(nearest("ordrs", ["orders", "clicks"]), Some("orders".into()));
        assert_eq!(nearest("xyz", ["orders", "clicks"]), None);
    }
}
