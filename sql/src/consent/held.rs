//! The purposes that somebody holds, and the tables that are read for a purpose alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::{ConsentPolicy, ObjectName, Purposes};

use crate::error::{Error, Result};

/// What one principal may read for, as part of its rights.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HeldPurposes {
    held: BTreeSet<String>,
    default: Option<String>,
    governed: BTreeMap<ObjectName, Vec<Arc<ConsentPolicy>>>,
    fault: Option<String>,
}

impl HeldPurposes {
    /// Those of the existing purposes that are held, and the user's default one.
    pub(crate) fn new(
        purposes: &Purposes,
        default: Option<&str>,
        holds: impl Fn(&str) -> bool,
    ) -> Self {
        let names = purposes.all().map(|purpose| purpose.name.as_str());
        let held: BTreeSet<String> = names.filter(|name| holds(name)).map(str::to_owned).collect();
        Self {
            default: default.filter(|name| held.contains(*name)).map(str::to_owned),
            held,
            governed: purposes.by_table(),
            fault: purposes.fault().map(ToString::to_string),
        }
    }

    /// Whether a purpose exists and is held.
    pub(crate) fn holds(&self, purpose: &str) -> bool {
        self.held.contains(purpose)
    }

    /// The purpose of sessions that state none; one that is held.
    pub(crate) fn default_purpose(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// The policies of a table.
    pub(crate) fn policies_of(&self, table: &ObjectName) -> &[Arc<ConsentPolicy>] {
        self.governed.get(table).map_or(&[], Vec::as_slice)
    }

    /// Every policy.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Arc<ConsentPolicy>> {
        self.governed.values().flatten()
    }

    /// Checks that what governs a table is known.
    ///
    /// # Errors
    /// When a document that may be a policy cannot be read.
    pub(crate) fn check_known(&self) -> Result<()> {
        match &self.fault {
            None => Ok(()),
            Some(fault) => Err(Error::Execution {
                what: format!("no table is read while a consent policy is not known: {fault}"),
                hint: Some(
                    "a policy_admin restores the document, or drops what it defines by name".into(),
                ),
            }),
        }
    }

    /// Checks that somebody may read for a purpose. One that does not exist is one that is not
    /// held, so that the error tells nothing.
    ///
    /// # Errors
    /// When it is not held.
    pub(crate) fn check(&self, principal: &str, purpose: &str) -> Result<()> {
        if self.holds(purpose) {
            return Ok(());
        }
        Err(Error::Denied {
            principal: principal.to_owned(),
            action: format!("read for the purpose {purpose}"),
            hint: Some(self.listed()),
        })
    }

    /// `you hold the purposes a, b`, for a hint.
    pub(crate) fn listed(&self) -> String {
        let held: Vec<&str> = self.held.iter().map(String::as_str).collect();
        match held.as_slice() {
            [] => "you hold no purpose: ask a policy_admin for GRANT PURPOSE".into(),
            [one] => format!("you hold the purpose {one}"),
            more => format!("you hold the purposes {}", more.join(", ")),
        }
    }
}

/// The purpose that a session's readings serve: the stated one, else the user's default. An empty
/// text states that there is none.
pub(crate) fn effective(stated: Option<String>, held: &HeldPurposes) -> Option<String> {
    match stated {
        None => held.default_purpose().map(str::to_owned),
        Some(purpose) => Some(purpose).filter(|purpose| !purpose.is_empty()),
    }
}
