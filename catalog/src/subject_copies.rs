//! Copies of persons' ids: which columns of which tables were made of a subject's keys, and how.
//!
//! A table that was made of one with a key holds ids too. What its columns hold is one document a
//! table, changed by compare-and-swap. It is written before the table's rows are seen, so that no
//! request of a person misses a copy; a document without a table says nothing. Where an id was
//! changed on its way, the document says how, so that it can be done again with the id of whoever
//! asks.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::registry::change::{Step, TRIES, held};
use crate::registry::{Definitions, Head, ObjectName, Spec};
use crate::subjects::SubjectKey;

/// What the columns of one table can be copies of.
pub const COPIES_MAX: usize = 1_000;

/// One thing that was done to ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transformation {
    /// An SQL expression over `id`, such as `lower(id)`.
    Expression(String),
    /// A pseudonym under a key.
    Pseudonym {
        /// The key's name.
        key: String,
        /// The id of a generation: a key made later may have the same name. In a copy that of the
        /// first one, and any of them may have made it; in a model's users that which made them.
        id: String,
    },
    /// A deterministic ciphertext under a key.
    Ciphertext {
        /// The key's name.
        key: String,
        /// The id of a generation, as of a pseudonym.
        id: String,
    },
}

impl fmt::Display for Transformation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expression(text) => formatter.write_str(text),
            Self::Pseudonym { key, .. } => write!(formatter, "pseudonymize(id, '{key}')"),
            Self::Ciphertext { key, .. } => {
                write!(formatter, "encrypt_deterministic(id, '{key}')")
            }
        }
    }
}

/// What a table holds of a key's ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CopiedKey {
    /// The subject whose ids they are.
    pub subject: String,
    /// The table's column; none: its rows are of persons, and nothing in them says whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The column that it was copied from.
    pub from: SubjectKey,
    /// Where the ids came from at first: a key, a column of the crosswalk, or a model's users.
    pub root: SubjectKey,
    /// Whether that is a model, whose users may be the subject's persons.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_model: bool,
    /// What was done to the ids, in order: nothing, where they are what they were. None where it
    /// cannot be done again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Vec<Transformation>>,
    /// Whether every row of the table that is a person's has the id of that person there, so that
    /// what is copied of the table may leave its other ids out. Of copies that were recorded
    /// before this was kept it is not known, which counts as no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_whole: bool,
}

impl CopiedKey {
    /// Whether another one is of the same ids in the same column, in all rows or in some.
    fn is_of(&self, other: &Self) -> bool {
        *self == Self { is_whole: self.is_whole, ..other.clone() }
    }

    /// Whether the ids are what they were.
    pub fn is_plain(&self) -> bool {
        self.by.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether the column has pseudonyms of the ids, under a key.
    pub fn is_pseudonym(&self) -> bool {
        let made = |step: &Transformation| matches!(step, Transformation::Pseudonym { .. });
        self.by.as_ref().is_some_and(|by| by.iter().any(made))
    }

    /// What was done to the ids, in words; nothing, where they are what they were.
    pub fn transformation(&self) -> Option<String> {
        match &self.by {
            None => Some("unknown".to_owned()),
            Some(by) if by.is_empty() => None,
            Some(by) => {
                let steps = by.iter().map(ToString::to_string).collect::<Vec<_>>();
                Some(steps.join(", then "))
            }
        }
    }
}

/// What a table's columns are copies of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableCopies {
    /// Each of them once.
    pub keys: BTreeSet<CopiedKey>,
}

impl Catalog {
    /// What a table's columns are copies of, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or the table's document cannot be read.
    pub async fn copies_in(&self, table: &ObjectName) -> Result<BTreeSet<CopiedKey>> {
        let found = self.subject_copies.sound(table).await?;
        Ok(found.map(|found| keys(&found.spec)).unwrap_or_default())
    }

    /// The same as the store has it now.
    ///
    /// # Errors
    /// As [`Catalog::copies_in`].
    pub async fn copies_in_now(&self, table: &ObjectName) -> Result<BTreeSet<CopiedKey>> {
        let found = self.subject_copies.read(table).await?;
        Ok(found.map(|found| keys(&found.spec)).unwrap_or_default())
    }

    /// Every column that is a copy, with its table, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or a document cannot be read.
    pub async fn copies(&self) -> Result<Vec<(ObjectName, CopiedKey)>> {
        let found = self.subject_copies.sound_definitions().await?;
        Ok(all(&found))
    }

    /// The same as the store has them now.
    ///
    /// # Errors
    /// As [`Catalog::copies`].
    pub async fn copies_now(&self) -> Result<Vec<(ObjectName, CopiedKey)>> {
        let found = self.subject_copies.sound_definitions_now().await?;
        Ok(all(&found))
    }

    /// Says what a table is going to hold as well; gives what was not known of it. A column of ids
    /// that some rows are going to be without is not whole from then on, also where they do not
    /// come after all.
    ///
    /// # Errors
    /// When the warehouse cannot be written, others change the same document again and again, or
    /// it would become too long.
    pub async fn announce_copies(
        &self,
        table: &ObjectName,
        copies: &BTreeSet<CopiedKey>,
    ) -> Result<BTreeSet<CopiedKey>> {
        if copies.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.change_copies(table, |held| {
            let mut new = BTreeSet::new();
            for copy in copies {
                let known = held.iter().find(|known| known.is_of(copy)).cloned();
                match known {
                    None => {
                        held.insert(copy.clone());
                        new.insert(copy.clone());
                    }
                    Some(known) if known.is_whole && !copy.is_whole => {
                        held.remove(&known);
                        held.insert(copy.clone());
                    }
                    Some(_) => {}
                }
            }
            new
        })
        .await
    }

    /// Takes back what was announced of a table and did not come.
    ///
    /// # Errors
    /// As [`Catalog::announce_copies`].
    pub async fn withdraw_copies(
        &self,
        table: &ObjectName,
        copies: &BTreeSet<CopiedKey>,
    ) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        self.change_copies(table, |held| held.retain(|copy| !copies.contains(copy))).await
    }

    /// Says what a table holds that has just been made, and nothing else of it.
    ///
    /// # Errors
    /// As [`Catalog::announce_copies`].
    pub async fn settle_copies(
        &self,
        table: &ObjectName,
        copies: &BTreeSet<CopiedKey>,
    ) -> Result<()> {
        if copies.is_empty() && matches!(self.subject_copies.sound(table).await, Ok(None)) {
            return Ok(());
        }
        self.change_copies(table, |held| held.clone_from(copies)).await
    }

    /// Forgets what a table held that is gone, also where that cannot be read.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or others change the same document again and again.
    pub(crate) async fn forget_copies(&self, table: &ObjectName) -> Result<()> {
        if matches!(self.subject_copies.sound(table).await, Ok(None)) {
            return Ok(());
        }
        let step = |head: Option<&Head>| {
            let is_there = head.is_some_and(|head| match &head.document {
                Ok(document) => document.spec.is_some(),
                Err(_) => true,
            });
            Ok::<_, Error>(match is_there {
                true => Step::writes(None, String::new(), ()),
                false => Step::Stays(()),
            })
        };
        self.subject_copies.change(table, TRIES, || named(table), step).await
    }

    async fn change_copies<T>(
        &self,
        table: &ObjectName,
        mut change: impl FnMut(&mut BTreeSet<CopiedKey>) -> T,
    ) -> Result<T> {
        self.writable().await?;
        let step = |head: Option<&Head>| {
            let before = held(head)?.map(|spec| keys(&spec)).unwrap_or_default();
            let mut copies = before.clone();
            let outcome = change(&mut copies);
            if copies == before {
                return Ok(Step::Stays(outcome));
            }
            if copies.len() > COPIES_MAX {
                return Err(Error::invalid_hint(
                    format!("columns of {table} would be copies of more than {COPIES_MAX} others"),
                    "copy fewer columns of persons' ids into one table",
                ));
            }
            let spec =
                (!copies.is_empty()).then_some(Spec::SubjectCopies(TableCopies { keys: copies }));
            Ok::<_, Error>(Step::writes(spec, String::new(), outcome))
        };
        self.subject_copies.change(table, TRIES, || named(table), step).await
    }
}

fn named(table: &ObjectName) -> String {
    format!("the copies of ids in {table}")
}

fn keys(spec: &Spec) -> BTreeSet<CopiedKey> {
    match spec {
        Spec::SubjectCopies(copies) => copies.keys.clone(),
        _ => BTreeSet::new(),
    }
}

pub(crate) fn all(found: &Definitions) -> Vec<(ObjectName, CopiedKey)> {
    let tables = found.iter().map(|((schema, name), definition)| {
        (ObjectName::new(schema, name), keys(&definition.spec))
    });
    tables.flat_map(|(table, keys)| keys.into_iter().map(move |key| (table.clone(), key))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Shared;

    fn key(table: &str, column: &str) -> SubjectKey {
        SubjectKey { table: ObjectName::new("main", table), column: column.into() }
    }

    fn copy(column: &str, by: Option<Vec<Transformation>>) -> CopiedKey {
        let (from, root) = (key("crm", "id"), key("crm", "id"));
        let (subject, column) = ("person".to_owned(), Some(column.to_owned()));
        CopiedKey { subject, column, from, root, of_model: false, by, is_whole: true }
    }

    #[tokio::test]
    async fn what_a_copy_holds_is_known_to_every_server_until_it_is_gone() {
        let shared = Shared::new();
        let (one, other) = (shared.open().await, shared.open().await);
        let table = ObjectName::new("main", "vip");
        assert!(other.copies().await.unwrap().is_empty());
        let plain = copy("id", Some(vec![]));
        let lower = vec![Transformation::Expression("lower(id)".into())];
        let lower = copy("mail", Some(lower));
        let first = BTreeSet::from([plain.clone()]);
        let both = BTreeSet::from([plain.clone(), lower.clone()]);
        assert_eq!(one.announce_copies(&table, &first).await.unwrap(), first);
        // What was there is nobody's to take back.
        let new = one.announce_copies(&table, &both).await.unwrap();
        assert_eq!(new, BTreeSet::from([lower.clone()]));
        assert_eq!(other.copies_now().await.unwrap().len(), 2);
        one.withdraw_copies(&table, &new).await.unwrap();
        assert_eq!(one.copies_in(&table).await.unwrap(), first);
        one.settle_copies(&table, &BTreeSet::from([lower.clone()])).await.unwrap();
        assert_eq!(other.copies_now().await.unwrap(), [(table.clone(), lower)]);
        one.forget_copies(&table).await.unwrap();
        one.forget_copies(&table).await.unwrap();
        assert!(other.copies_now().await.unwrap().is_empty());
        one.settle_copies(&table, &BTreeSet::new()).await.unwrap();
        assert!(one.copies_in(&table).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_column_that_some_rows_are_without_ids_in_is_whole_no_more() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let table = ObjectName::new("main", "vip");
        let whole = BTreeSet::from([copy("id", Some(vec![]))]);
        let partial = CopiedKey { is_whole: false, ..copy("id", Some(vec![])) };
        let partial = BTreeSet::from([partial]);
        assert_eq!(catalog.announce_copies(&table, &whole).await.unwrap(), whole);
        assert!(catalog.announce_copies(&table, &partial).await.unwrap().is_empty());
        assert_eq!(catalog.copies_in_now(&table).await.unwrap(), partial);
        assert!(catalog.announce_copies(&table, &whole).await.unwrap().is_empty());
        assert_eq!(catalog.copies_in_now(&table).await.unwrap(), partial);
        // A table that is made anew has what it was made with.
        catalog.settle_copies(&table, &whole).await.unwrap();
        assert_eq!(catalog.copies_in_now(&table).await.unwrap(), whole);
        // Of what was recorded before this was kept it is not known.
        let mut before = serde_json::to_value(whole.first().unwrap()).unwrap();
        before.as_object_mut().unwrap().remove("is_whole");
        let before: CopiedKey = serde_json::from_value(before).unwrap();
        assert_eq!(Some(&before), partial.first());
    }

    #[test]
    fn how_ids_were_changed_is_told_in_order() {
        assert_eq!(copy("id", Some(vec![])).transformation(), None);
        assert_eq!(copy("id", None).transformation().as_deref(), Some("unknown"));
        let by = vec![
            Transformation::Expression("lower(id)".into()),
            Transformation::Pseudonym { key: "k".into(), id: "1f-1".into() },
        ];
        let sealed = Transformation::Ciphertext { key: "k".into(), id: "1f-1".into() };
        let sealed = copy("id", Some(vec![sealed]));
        let told = sealed.transformation();
        assert_eq!(told.as_deref(), Some("encrypt_deterministic(id, 'k')"));
        assert!(!sealed.is_plain() && !sealed.is_pseudonym());
        let copy = copy("id", Some(by));
        assert!(!copy.is_plain() && copy.is_pseudonym());
        assert_eq!(copy.transformation().as_deref(), Some("lower(id), then pseudonymize(id, 'k')"));
    }
}
