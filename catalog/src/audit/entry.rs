//! One entry of the record: who did what, when, for which purpose, with what outcome.
//!
//! An entry holds no person's data: a statement's text comes with keyed tokens in place of its
//! values, and whoever is a data subject is named by one too (see [`super::ValueTokens`]), so that
//! an erasure never has to touch the chain. Empty fields are left out of the stored form.

use serde::{Deserialize, Serialize};

/// Names in a list at most; the last one then says how many more there are.
const NAMES_MAX: usize = 200;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A statement.
    #[default]
    Statement,
    /// A login, successful or not.
    Login,
    /// Entries could not be kept; `rows` says how many.
    Gap,
    /// Segments older than the retention were removed; `rows` says how many.
    Removal,
}

impl Event {
    /// The word that `system.audit` shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Statement => "statement",
            Self::Login => "login",
            Self::Gap => "gap",
            Self::Removal => "removal",
        }
    }
}

/// Which end of a statement an entry tells of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is going to run: written before a change is made or a protected row is given.
    Begun,
    /// It has ended, with this outcome.
    #[default]
    Ended,
}

impl Phase {
    /// The word that `system.audit` shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Ended => "ended",
        }
    }
}

/// An entry of the record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its place in the chain, from 1; given when it is written.
    pub sequence: u64,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// What kind of thing happened.
    pub event: Event,
    /// Which end of a statement this is.
    #[serde(default)]
    pub phase: Phase,
    /// Who.
    pub principal: String,
    /// The roles that were active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The purpose that was stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The channel that was stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The client program, as it names itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The session's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The statement's id, as in `system.queries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_id: Option<String>,
    /// What was done: `select`, `insert`, `grant`, `password` …
    pub kind: String,
    /// The statement's text, values replaced by keyed tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Tables, views and models that it read or changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// The columns that it read, as `schema.table.column`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// The policies that were applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// The keys that were used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// The data subjects that it named, as keyed tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// Rows given or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// `finished`, `failed` or `cancelled`; nothing for what has only begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The code of its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// How long it ran, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_ms: Option<i64>,
}

impl AuditEntry {
    /// An entry of the record itself, which nobody asked for.
    pub(super) fn own(event: Event, at_ms: i64, kind: &str, rows: u64) -> Self {
        Self {
            at_ms,
            event,
            principal: "(record)".into(),
            kind: kind.into(),
            rows: Some(rows),
            outcome: Some("finished".into()),
            ..Self::default()
        }
    }
}

/// At most so many names that one entry stays small; what is left out is counted.
pub fn bounded(mut names: Vec<String>) -> Vec<String> {
    if names.len() > NAMES_MAX {
        let more = names.len() - NAMES_MAX;
        names.truncate(NAMES_MAX);
        names.push(format!("and {more} more"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_fields_are_not_stored_and_come_back_empty() {
        let entry = AuditEntry {
            sequence: 3,
            principal: "ann".into(),
            kind: "select".into(),
            ..AuditEntry::default()
        };
        let stored = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            stored,
            "{\"sequence\":3,\"at_ms\":0,\"event\":\"statement\",\"phase\":\"ended\",\
             \"principal\":\"ann\",\"kind\":\"select\"}"
        );
        assert_eq!(serde_json::from_str::<AuditEntry>(&stored).unwrap(), entry);
    }

    #[test]
    fn a_long_list_says_how_much_it_leaves_out() {
        let names = bounded((0..NAMES_MAX + 7).map(|index| index.to_string()).collect());
        assert_eq!(names.len(), NAMES_MAX + 1);
        assert_eq!(names.last().unwrap(), "and 7 more");
    }
}
