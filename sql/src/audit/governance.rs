//! The one place where the record and its reports ask what governs a table.
//!
//! Policies, purposes and retention rules belong to other parts of the engine; what they know of a
//! table comes through here, so that the record need not know them. Where none exists, nothing
//! governs, and the reports say so. What was applied to one statement is noted while it is planned,
//! in [`super::Used`].

use catalog::ObjectName;

use crate::session::StatementContext;

/// What governs a table or view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Governed {
    /// The purposes for which it may be read.
    pub(crate) purposes: Vec<String>,
    /// The policies on it, each with its kind.
    pub(crate) policies: Vec<String>,
    /// How long its rows are kept, in words.
    pub(crate) retention: Option<String>,
    /// The columns that hold personal data, each with its tag.
    pub(crate) personal: Vec<String>,
}

/// What governs `name`.
pub(crate) fn of(_context: &StatementContext, _name: &ObjectName) -> Governed {
    Governed::default()
}
