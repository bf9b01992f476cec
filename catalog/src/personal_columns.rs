//! Which columns of a table hold personal data: its files carry no statistics of them.
//!
//! Statistics are copies of values. The least and the greatest of a file, of a row group and of a
//! page stand in the file's footer, and those of the file in the table's log as well, where no
//! policy hides them and where they stay for as long as the file or the log does. So columns with a
//! tag `pii`, keys and crosswalks of subjects and copies of them, the persons of consents and the
//! units of privacy policies are written without. What reads the files gets along without
//! statistics: it reads more. A copy of pseudonyms tells of nobody, and has them.

use std::collections::BTreeSet;

use crate::Catalog;
use crate::error::{Error, Result};
use crate::policy::{Attached, RuleSet};
use crate::registry::{ObjectName, Spec};

/// The tag of personal data, and what begins the tags of its kinds.
const TAG: &str = "pii";

/// The columns of a table that hold personal data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PersonalColumns {
    columns: BTreeSet<String>,
    /// Whether a document that may name others cannot be read: then each may be one.
    is_any: bool,
}

impl PersonalColumns {
    /// Whether a column is one of them.
    pub fn has(&self, column: &str) -> bool {
        self.is_any || self.columns.contains(column)
    }

    /// Adds what tags say.
    pub(crate) fn add_tagged(&mut self, rules: &RuleSet) {
        rules.personal().for_each(|column| self.add(column));
    }

    pub(crate) fn add(&mut self, column: &str) {
        self.columns.insert(column.to_owned());
    }

    /// What a document says; one that cannot be read may name any column.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    fn read<T: Default>(&mut self, document: Result<T>) -> Result<T> {
        match document {
            Err(Error::Corrupt { .. }) => {
                self.is_any = true;
                Ok(T::default())
            }
            other => other,
        }
    }
}

impl Catalog {
    /// The columns of a table that hold personal data, as of a second ago at most.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub(crate) async fn personal_columns(&self, table: &ObjectName) -> Result<PersonalColumns> {
        let mut personal = PersonalColumns::default();
        let rules = self.rules(&Attached::Table(table.clone())).await;
        let rules = personal.read(rules)?;
        personal.add_tagged(&rules);
        let policy = self.privacy_policy(table).await;
        if let Some(policy) = personal.read(policy)? {
            personal.add(policy.key_column());
        }
        let (documents, fault) = self.subjects.definitions_and_fault().await?;
        personal.is_any |= fault.is_some();
        let copies = self.copies_in(table).await;
        let copies = personal.read(copies)?;
        for document in documents.values() {
            let Spec::Subject(subject) = &document.spec else { continue };
            for copy in copies.iter().filter(|copy| subject.counts(copy) && !copy.is_pseudonym()) {
                if let Some(column) = &copy.column {
                    personal.add(column);
                }
            }
            for column in subject.columns_of(table) {
                personal.add(column);
            }
            if let Some(via) = subject.via.as_ref().filter(|via| via.table == *table) {
                personal.add(&via.record);
                personal.add(&via.entity);
            }
        }
        let purposes = self.purposes().await?;
        personal.is_any |= purposes.fault().is_some();
        for policy in purposes.policies() {
            if policy.table == *table {
                personal.add(&policy.subject);
            }
            if policy.consents.table == *table {
                personal.add(&policy.consents.subject);
            }
        }
        Ok(personal)
    }
}

impl RuleSet {
    /// The columns of which a tag says that they hold personal data.
    pub fn personal(&self) -> impl Iterator<Item = &str> {
        let tagged = self.tags.iter().filter(|(_, tags)| tags.iter().any(|tag| is_personal(tag)));
        tagged.map(|(column, _)| column.as_str())
    }
}

/// Whether a tag says that a column holds personal data: `pii`, `pii.email`.
fn is_personal(tag: &str) -> bool {
    let kind = tag.split('.').next().unwrap_or_default();
    kind.eq_ignore_ascii_case(TAG)
}

#[cfg(test)]
#[path = "personal_columns_tests.rs"]
mod tests;
