//! Errors of a statement: from its text to its last row.
//!
//! Codes: 1000 syntax, 2000 meaning (names, types, arguments, rights), 3000 execution and limits;
//! codes of the catalog (4000, 5000) pass through unchanged. A sentence names what is wrong, a
//! hint says what to do.

use std::sync::Arc;
use std::time::Duration;

use arrow::error::ArrowError;
use catalog::error::{nearest, root_cause};
pub use catalog::{Class, Error as CatalogError};
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use thiserror::Error;
use udfs::fuzzy::stop::Stopped;

use crate::{join::not_in, same_names, subqueries};

/// The error of a statement.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// The text is no SQL.
    #[error("{message}{excerpt}")]
    Syntax {
        /// What was found and what was expected.
        message: String,
        /// The line and a caret below the place, starting with a line break; may be empty.
        excerpt: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// A name, type or argument that does not fit.
    #[error("{what}")]
    Invalid {
        /// A sentence.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Something that Attune does not do.
    #[error("{what}")]
    Unsupported {
        /// A sentence.
        what: String,
        /// What to do instead.
        hint: Option<String>,
    },
    /// A right that the principal lacks.
    #[error("{principal} may not {action}")]
    Denied {
        /// Who.
        principal: String,
        /// What.
        action: String,
        /// Who may.
        hint: Option<String>,
    },
    /// A limit ended the statement.
    #[error("{what}")]
    Exhausted {
        /// Which limit, with its size.
        what: String,
    },
    /// The time limit ended the statement.
    #[error("the statement took longer than {}", duration(*limit))]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The reader of the rows stayed away for too long.
    #[error("the rows were not read for {}", duration(*limit))]
    Idle {
        /// The limit.
        limit: Duration,
    },
    /// No slot to run in; a later try may find one.
    #[error("{what}")]
    Busy {
        /// A sentence.
        what: String,
    },
    /// The caller ended the statement.
    #[error("the statement was cancelled")]
    Cancelled,
    /// A row could not be computed.
    #[error("{what}")]
    Execution {
        /// A sentence.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Rows that are not what is expected of their table.
    #[error("{what}")]
    Unmet {
        /// A sentence that names the expectations.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A learner refused or failed.
    #[error("{what}")]
    Model {
        /// A sentence.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The catalog's error.
    #[error(transparent)]
    Catalog(CatalogError),
    /// A defect in Attune.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The statement's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The stable code, for programs and for a search in the documentation.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "ATT-1001",
            Self::Invalid { .. } => "ATT-2001",
            Self::Unsupported { .. } => "ATT-2002",
            Self::Denied { .. } => "ATT-2003",
            Self::Model { .. } => "ATT-2101",
            Self::Execution { .. } => "ATT-3001",
            Self::Exhausted { .. } => "ATT-3002",
            Self::TimedOut { .. } => "ATT-3003",
            Self::Cancelled => "ATT-3004",
            Self::Busy { .. } => "ATT-3005",
            Self::Idle { .. } => "ATT-3006",
            Self::Unmet { .. } => "ATT-3007",
            Self::Catalog(error) => error.code(),
            Self::Internal(_) => "ATT-9001",
        }
    }

    /// What kind of error it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Syntax { .. } => Class::Syntax,
            Self::Invalid { .. }
            | Self::Model { .. }
            | Self::Execution { .. }
            | Self::Unmet { .. } => Class::Invalid,
            Self::Unsupported { .. } => Class::Unsupported,
            Self::Denied { .. } => Class::Denied,
            Self::Exhausted { .. } => Class::Exhausted,
            Self::TimedOut { .. } | Self::Idle { .. } => Class::TimedOut,
            Self::Busy { .. } => Class::Unavailable,
            Self::Cancelled => Class::Cancelled,
            Self::Catalog(error) => error.class(),
            Self::Internal(_) => Class::Internal,
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Syntax { hint, .. }
            | Self::Invalid { hint, .. }
            | Self::Unsupported { hint, .. }
            | Self::Denied { hint, .. }
            | Self::Execution { hint, .. }
            | Self::Unmet { hint, .. }
            | Self::Model { hint, .. } => hint.clone(),
            Self::Exhausted { .. } => {
                Some("ask for fewer rows or columns, or raise the limit in [limits]".into())
            }
            Self::TimedOut { .. } => Some(
                "narrow the query, or raise statement_timeout or [limits] query_timeout".into(),
            ),
            Self::Idle { .. } => {
                Some("read the result as it comes, or raise [limits] reader_idle".into())
            }
            Self::Busy { .. } => {
                Some("try again in a moment, or raise [limits] statements_max".into())
            }
            Self::Cancelled => None,
            Self::Catalog(error) => error.hint(),
            Self::Internal(_) => Some("please report the statement that led here".into()),
        }
    }

    /// What a log may hold of it: the sentence, and the code alone where it may quote a person's
    /// row or a statement's text.
    pub fn for_log(&self) -> String {
        let quotes = match self.class() {
            Class::Syntax | Class::Invalid | Class::Unsupported | Class::Internal => true,
            _ => matches!(self, Self::Catalog(CatalogError::File { .. })),
        };
        if quotes { self.code().to_owned() } else { self.to_string() }
    }

    /// A name, type or argument that does not fit.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), hint: None }
    }

    /// The same, with what to do.
    pub fn invalid_hint(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), hint: Some(hint.into()) }
    }

    /// Something that Attune does not do.
    pub fn unsupported(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), hint: Some(hint.into()) }
    }

    /// An option or name that is not among the known ones.
    pub fn unknown<'a>(
        kind: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Self {
        let hint = match nearest(name, known.clone()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        Self::invalid_hint(format!("{kind} {name} does not exist"), hint)
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
                Self::from(*inner)
            }
            DataFusionError::Shared(inner) => from_reference(&inner),
            DataFusionError::Collection(errors) => match errors.into_iter().next() {
                Some(first) => Self::from(first),
                None => Self::Internal("an empty collection of errors".into()),
            },
            DataFusionError::External(inner) => from_external(inner.as_ref()),
            DataFusionError::ArrowError(inner, _) => from_arrow(&inner),
            DataFusionError::ParquetError(inner) => from_parquet(&inner.to_string()),
            DataFusionError::ObjectStore(inner) => {
                Self::Catalog(CatalogError::store("the store", &inner))
            }
            DataFusionError::SQL(inner, _) => {
                Self::Syntax { message: inner.to_string(), excerpt: String::new(), hint: None }
            }
            DataFusionError::SchemaError(inner, _) => from_schema(&inner),
            DataFusionError::NotImplemented(what) => not_implemented(&what),
            DataFusionError::Plan(what) => from_plan(&what),
            // In the condition of a join they come as such.
            DataFusionError::Internal(what) => wrong_arguments(&what)
                .or_else(|| wrong_range(&what))
                .or_else(|| wrong_size(&what))
                .unwrap_or_else(|| Self::Internal(first_line(&format!("Internal error: {what}")))),
            DataFusionError::Configuration(what) => Self::invalid(first_line(&what)),
            DataFusionError::ResourcesExhausted(what) => {
                spill_limit(&what).unwrap_or_else(|| Self::Exhausted { what: first_line(&what) })
            }
            DataFusionError::Execution(what) => {
                let (what, hint) = split_hint(&what);
                Self::Execution { what, hint }
            }
            other => Self::Internal(first_line(&other.to_string())),
        }
    }
}

impl From<CatalogError> for Error {
    fn from(error: CatalogError) -> Self {
        match &error {
            // A query that the catalog ran for us failed with an error of ours.
            CatalogError::DataFusion(inner) => from_reference(inner),
            _ => Self::Catalog(error),
        }
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        match error {
            Error::Catalog(error) => Self::External(Box::new(error)),
            other => Self::External(Box::new(other)),
        }
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        from_arrow(&error)
    }
}

fn from_reference(error: &Arc<DataFusionError>) -> Error {
    let mut current: &DataFusionError = error;
    loop {
        match current {
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
                current = inner;
            }
            DataFusionError::Shared(inner) => current = inner,
            DataFusionError::External(inner) => return from_external(inner.as_ref()),
            DataFusionError::ArrowError(inner, _) => return from_arrow(inner),
            DataFusionError::ParquetError(inner) => return from_parquet(&inner.to_string()),
            DataFusionError::NotImplemented(what) => return not_implemented(what),
            DataFusionError::ResourcesExhausted(what) => {
                let exhausted = || Error::Exhausted { what: first_line(what) };
                return spill_limit(what).unwrap_or_else(exhausted);
            }
            DataFusionError::Execution(what) => {
                let (what, hint) = split_hint(what);
                return Error::Execution { what, hint };
            }
            other => {
                return Error::Execution { what: first_line(&other.to_string()), hint: None };
            }
        }
    }
}

fn from_external(inner: &(dyn std::error::Error + Send + Sync + 'static)) -> Error {
    if let Some(ours) = inner.downcast_ref::<Error>() {
        return ours.clone();
    }
    if let Some(catalog) = inner.downcast_ref::<CatalogError>() {
        return Error::from(catalog.clone());
    }
    if inner.is::<Stopped>() {
        return Error::Cancelled;
    }
    if let Some(shared) = inner.downcast_ref::<DataFusionError>() {
        return match shared {
            DataFusionError::External(deeper) => from_external(deeper.as_ref()),
            DataFusionError::Shared(deeper) => from_reference(deeper),
            DataFusionError::ArrowError(deeper, _) => from_arrow(deeper),
            DataFusionError::ParquetError(deeper) => from_parquet(&deeper.to_string()),
            DataFusionError::NotImplemented(what) => not_implemented(what),
            other => Error::Execution { what: first_line(&other.to_string()), hint: None },
        };
    }
    crate::patterns::told(root_cause(inner))
}

fn from_arrow(error: &ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => from_external(inner.as_ref()),
        ArrowError::DivideByZero => Error::Execution {
            what: "division by zero".into(),
            hint: Some("guard the divisor with nullif(divisor, 0)".into()),
        },
        ArrowError::CastError(what) => Error::Execution {
            what: first_line(what),
            hint: Some("try_cast gives NULL instead of an error".into()),
        },
        other => {
            let text = other.to_string();
            let known = spill_limit(&text).or_else(|| in_condition(&text));
            known.unwrap_or_else(|| Error::Execution { what: first_line(&text), hint: None })
        }
    }
}

fn from_parquet(text: &str) -> Error {
    let unreadable =
        || Error::Execution { what: format!("cannot read a Parquet file: {text}"), hint: None };
    in_condition(text).unwrap_or_else(unreadable)
}

/// What failed while the reader of a file computed a condition for us, which comes as a text of the
/// error's inner parts: not the file is to blame.
fn in_condition(text: &str) -> Option<Error> {
    let (_, parts) = text.split_once("Error evaluating filter predicate: ")?;
    if parts.contains("DivideByZero") {
        return Some(from_arrow(&ArrowError::DivideByZero));
    }
    let said = |part: &str| {
        let (_, rest) = parts.split_once(&format!("{part}(\""))?;
        Some(rest.split_once("\")").map_or(rest, |(said, _)| said).replace("\\\"", "\""))
    };
    if let Some(what) = said("CastError") {
        return Some(from_arrow(&ArrowError::CastError(what)));
    }
    let what = said("Execution").or_else(|| said("Error")).unwrap_or_else(|| parts.to_owned());
    let (what, hint) = split_hint(&what);
    Some(Error::Execution { what, hint })
}

/// The limit on spilled rows, which comes as a text inside an I/O error.
pub(crate) fn spill_limit(text: &str) -> Option<Error> {
    let (_, rest) = text.split_once("used disk space during the spilling process has exceeded")?;
    let limit = rest.split_once("limit of ").and_then(|(_, rest)| rest.split_once(". "));
    let limit = limit.map(|(size, _)| format!(" of {size}")).unwrap_or_default();
    let what = format!("rows that do not fit in memory pass the limit{limit} on disk");
    Some(Error::Exhausted { what })
}

fn from_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(|column| column.name()).collect();
            let hint = match nearest(field.name(), names.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None if names.is_empty() => "there are no columns here".into(),
                None => format!("columns here: {}", listed(&names)),
            };
            Error::invalid_hint(format!("column {} does not exist", field.flat_name()), hint)
        }
        other => same_names::of_schema(other).unwrap_or_else(|| {
            let (what, hint) = split_hint(&other.to_string());
            Error::Invalid { what, hint }
        }),
    }
}

fn not_implemented(what: &str) -> Error {
    let unsupported = || Error::Unsupported { what: first_line(what), hint: None };
    subqueries::unplanned(what).unwrap_or_else(unsupported)
}

fn from_plan(what: &str) -> Error {
    if let Some(error) = wrong_arguments(what)
        .or_else(|| same_names::of_plan(what))
        .or_else(|| not_in::of_plan(what))
    {
        return error;
    }
    let (what, hint) = split_hint(what);
    Error::Invalid { what, hint }
}

/// A window in the order of something that has no distances, over the frame that it has unless
/// another is named.
fn wrong_range(text: &str) -> Option<Error> {
    let (_, of) = text.split_once("Cannot run range queries on datatype: ")?;
    Some(Error::unsupported(
        format!("a window cannot be ordered by {} over a range of values", first_line(of)),
        "name its rows, ROWS UNBOUNDED PRECEDING",
    ))
}

fn wrong_size(text: &str) -> Option<Error> {
    let (function, _) = text.split_once(": failed to convert size to usize")?;
    Some(Error::Execution { what: format!("{function} takes a size from 0 on"), hint: None })
}

/// DataFusion lists what each form of a function's call wants, as internal errors.
fn wrong_arguments(text: &str) -> Option<Error> {
    let (function, forms) = text.split_once("' failed to match any signature")?;
    let (_, function) = function.rsplit_once('\'')?;
    let forms = || forms.split("Error during planning: ");
    let types = forms().filter_map(|form| {
        let (wanted, given) = form.split_once(" requires ")?.1.split_once(", but received ")?;
        Some((wanted, given.split([' ', '.', ',']).next()?))
    });
    let mut types: Vec<(&str, &str)> = types.collect();
    types.dedup();
    let counts = forms().filter_map(|form| {
        let (wanted, given) = form.split_once(" arguments but received ")?;
        let (_, wanted) = wanted.rsplit_once(' ')?;
        Some((wanted, given.split(['.', ',']).next()?))
    });
    let counts: Vec<(&str, &str)> = counts.collect();
    let wanted: Vec<&str> = counts.iter().map(|(wanted, _)| *wanted).collect();
    let what = match (types.first(), counts.first()) {
        (Some((_, given)), _) => {
            let wanted: Vec<&str> = types.iter().map(|(wanted, _)| *wanted).collect();
            format!("{function} takes the type {}, not {given}", wanted.join(" or "))
        }
        (None, Some((_, given))) => {
            format!("{function} takes {} arguments, not {given}", wanted.join(" or "))
        }
        (None, None) => format!("{function} does not take arguments of these types"),
    };
    Some(Error::invalid_hint(what, format!("SHOW FUNCTIONS LIKE '{function}' shows what it takes")))
}

/// A time as people write it: `250 ms`, `30 s`.
pub(crate) fn duration(time: Duration) -> String {
    let ms = time.as_millis();
    if ms.is_multiple_of(1_000) { format!("{} s", ms / 1_000) } else { format!("{ms} ms") }
}

/// At most twelve names, so that a wide table does not fill the screen.
fn listed(names: &[&str]) -> String {
    let more = names.len().saturating_sub(12);
    let mut text = names.iter().take(12).copied().collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Separates a sentence from the hint that DataFusion or a function puts behind it.
fn split_hint(text: &str) -> (String, Option<String>) {
    let text = text.trim();
    for mark in ["Hint: ", "hint: "] {
        if let Some((what, hint)) = text.split_once(mark) {
            return (tidy(what), Some(tidy(hint)));
        }
    }
    if let Some((what, rest)) = text.split_once("Did you mean ") {
        return (tidy(what), Some(format!("did you mean {}", tidy(rest))));
    }
    (first_line(text), None)
}

fn tidy(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_end_matches(['.', ';', ',', ' ']).to_owned()
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_errors_survive_the_way_through_datafusion() {
        let ours = Error::Denied { principal: "ann".into(), action: "drop t".into(), hint: None };
        let wrapped = DataFusionError::from(ours).context("while planning");
        let shared = DataFusionError::Shared(Arc::new(wrapped));
        assert_eq!(Error::from(shared).code(), "ATT-2003");
    }

    #[test]
    fn a_log_holds_no_value() {
        let cast = ArrowError::CastError("Cannot cast string 'ann' to Int64".into());
        let error = from_arrow(&cast);
        assert_eq!(error.for_log(), error.code());
        assert_eq!(Error::Busy { what: "no slot".into() }.for_log(), "no slot");
    }

    #[test]
    fn what_ends_with_its_statement_was_cancelled() {
        let ended = || DataFusionError::from(Stopped);
        assert_eq!(Error::from(ended()).code(), Error::Cancelled.code());
        let shared = DataFusionError::Shared(Arc::new(ended()));
        assert_eq!(Error::from(shared).code(), Error::Cancelled.code());
    }

    #[test]
    fn the_limit_on_disk_is_a_limit() {
        let text = "Io error: The used disk space during the spilling process has exceeded the \
                    allowable limit of 1024.0 KB. Please try increasing the config";
        let error = from_arrow(&ArrowError::ComputeError(text.into()));
        assert_eq!(error.code(), "ATT-3002");
        assert!(error.to_string().ends_with("limit of 1024.0 KB on disk"), "{error}");
    }

    #[test]
    fn a_condition_that_fails_in_a_reader_does_not_blame_the_file() {
        let inner = DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None);
        let cast = ArrowError::CastError("Cannot cast string 'x' to value of Int64 type".into());
        let cast = DataFusionError::ArrowError(Box::new(cast), None);
        let own = DataFusionError::Execution("k is \"0\". Hint: use 1".into());
        for (inner, what) in [
            (inner, "division by zero"),
            (cast, "Cannot cast string 'x' to value of Int64 type"),
            (own, "k is \"0\""),
        ] {
            let text =
                format!("External: Compute error: Error evaluating filter predicate: {inner:?}");
            let error = from_parquet(&text);
            assert_eq!((error.code(), error.to_string().as_str()), ("ATT-3001", what));
            assert!(error.hint().is_some());
        }
        assert!(from_parquet("EOF: file too small").to_string().contains("cannot read a Parquet"));
    }

    #[test]
    fn what_datafusion_says_of_a_call_or_a_name_is_said_again() {
        let shown = |text: &str| {
            let error = Error::from(DataFusionError::Plan(text.into()));
            format!("{error}; {}", error.hint().unwrap_or_default())
        };
        let call = "Internal error: Function 'f' failed to match any signature, errors: Error \
                    during planning: Function 'f' expects 2 arguments but received 1,Error during \
                    planning: The function 'f' expected 3 arguments but received 1.";
        assert!(shown(call).starts_with("f takes 2 or 3 arguments, not 1; SHOW FUNCTIONS LIKE"));
        let call = "Internal error: Function 'f' failed to match any signature, errors: Error \
                    during planning: no such types";
        assert!(shown(call).starts_with("f does not take arguments of these types"));
        let call = "Internal error: Function 'f' failed to match any signature, errors: Error \
                    during planning: Function 'f' requires String, but received Int64 (DataType: \
                    Int64).,Error during planning: Function 'f' expects 3 arguments but received 2.";
        assert!(shown(call).starts_with("f takes the type String, not Int64; SHOW"));
        let names = "Projections require unique expression names but the expression \"t.x AS a\" \
                     at position 0 and \"Int64(2) AS a\" at position 1 have the same name.";
        assert!(shown(names).starts_with("two columns of one SELECT have the same name, a; give"));
    }

    #[test]
    fn a_hint_is_taken_apart() {
        let error = Error::from(DataFusionError::Plan("k is 0. Hint: use k >= 1.".into()));
        assert_eq!((error.to_string(), error.hint()), ("k is 0".into(), Some("use k >= 1".into())));
    }
}
