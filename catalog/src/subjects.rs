//! Subjects: which columns hold the ids of persons, and how the ids of one person are linked.
//!
//! A subject is one document in the warehouse, changed by compare-and-swap. Its keys are columns of
//! tables; its crosswalk, where it has one, is a table that says of each record whose it is. What
//! holds of single persons (restricted, held, erased) is beside, in [`crate::subject_marks`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::registry::change::{Step, TRIES};
use crate::registry::{CreateMode, Head, Kind, ObjectName, Spec};
use crate::subject_copies::CopiedKey;

/// The place of subjects in their registry; no SQL name reaches it.
const SUBJECT: &str = "subject";
/// Columns of one subject: each request reads all of them.
pub const KEYS_MAX: usize = 200;

/// A column that holds ids of persons.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubjectKey {
    /// The table.
    pub table: ObjectName,
    /// The column.
    pub column: String,
}

impl fmt::Display for SubjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.table, self.column)
    }
}

/// The table that says whose each record is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crosswalk {
    /// The table.
    pub table: ObjectName,
    /// Its column of the ids that the keys hold.
    pub record: String,
    /// Its column of persons.
    pub entity: String,
}

/// A kind of person: where its ids are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// The columns with ids, in the order written; at least one.
    pub keys: Vec<SubjectKey>,
    /// How several ids are one person's. Without it all keys hold ids of one kind: the same value
    /// is the same person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Crosswalk>,
    /// Who created it.
    pub owner: String,
    /// When, in Unix milliseconds.
    pub created_ms: i64,
}

impl Subject {
    /// The key columns of a table.
    pub fn columns_of<'a>(&'a self, table: &'a ObjectName) -> impl Iterator<Item = &'a str> {
        let keys = self.keys.iter().filter(move |key| key.table == *table);
        keys.map(|key| key.column.as_str())
    }

    /// The columns of records: those of the keys, then the crosswalk's.
    pub fn record_keys(&self) -> impl Iterator<Item = SubjectKey> {
        let via = self.via.iter();
        let via =
            via.map(|via| SubjectKey { table: via.table.clone(), column: via.record.clone() });
        self.keys.iter().cloned().chain(via)
    }

    /// Whether a column is one of records.
    pub fn is_record(&self, key: &SubjectKey) -> bool {
        self.record_keys().any(|known| known == *key)
    }

    /// Whether a copy holds ids of this subject: those of a key that was dropped do not any more.
    pub fn counts(&self, copy: &CopiedKey) -> bool {
        let is_known = copy.of_model || self.is_record(&copy.root) || self.is_entity(&copy.root);
        copy.subject == self.name && is_known
    }

    /// Whether a column is the crosswalk's column of persons.
    pub fn is_entity(&self, key: &SubjectKey) -> bool {
        self.via.as_ref().is_some_and(|via| via.table == key.table && via.entity == key.column)
    }

    /// Every table with rows of persons, each once: those of the keys, then the crosswalk.
    pub fn tables(&self) -> Vec<&ObjectName> {
        let mut tables: Vec<&ObjectName> = Vec::new();
        let via = self.via.iter().map(|via| &via.table);
        for table in self.keys.iter().map(|key| &key.table).chain(via) {
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        tables
    }

    fn check(&self) -> Result<()> {
        if self.keys.is_empty() {
            return Err(Error::invalid_hint(
                format!("subject {} would have no key", self.name),
                "name the columns that hold ids: KEY (table.column, …)",
            ));
        }
        if self.keys.len() > KEYS_MAX {
            return Err(Error::invalid(format!("a subject has at most {KEYS_MAX} keys")));
        }
        let mut sorted: Vec<&SubjectKey> = self.keys.iter().collect();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair.first() == pair.last()) {
            Some([key, ..]) => Err(Error::invalid(format!("{key} is named twice"))),
            _ => Ok(()),
        }
    }
}

impl Catalog {
    /// Every subject by name, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn subjects(&self) -> Result<Vec<Subject>> {
        let found = self.subjects.definitions().await?;
        Ok(found.values().filter_map(|found| record(found.spec.clone())).collect())
    }

    /// Every subject by name, at most a second old, when every document of subjects can be read.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or a document that may be a subject cannot be read.
    pub async fn sound_subjects(&self) -> Result<Vec<Subject>> {
        let found = self.subjects.sound_definitions().await?;
        Ok(found.values().filter_map(|found| record(found.spec.clone())).collect())
    }

    /// The subject of that name, at most a second old.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name; when the warehouse cannot be reached, or the document
    /// cannot be read.
    pub async fn subject(&self, name: &str) -> Result<Subject> {
        let place = ObjectName::new(SUBJECT, name);
        if place.check().is_ok()
            && let Some(found) = self.subjects.find(&place).await?
            && let Some(subject) = record(found.spec)
        {
            return Ok(subject);
        }
        let known = self.subjects().await?;
        Err(Error::not_found("subject", name, known.iter().map(|known| known.name.as_str())))
    }

    /// The crosswalks that link the ids in a column to those of the same persons, at most a second
    /// old. They are of the subjects of which the column is a key, or the crosswalk's own column of
    /// records.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or a document that may be a subject cannot be read.
    pub async fn crosswalks_of(&self, key: &SubjectKey) -> Result<Vec<Crosswalk>> {
        let found = self.subjects.sound_definitions().await?;
        let mut crosswalks: Vec<Crosswalk> = Vec::new();
        for definition in found.values() {
            let Spec::Subject(subject) = &definition.spec else { continue };
            let Some(via) = &subject.via else { continue };
            let is_record = via.table == key.table && via.record == key.column;
            if (is_record || subject.keys.contains(key)) && !crosswalks.contains(via) {
                crosswalks.push(via.clone());
            }
        }
        Ok(crosswalks)
    }

    /// Creates a subject; `false` when the name exists and `mode` is `IfNotExists`.
    ///
    /// # Errors
    /// `AlreadyExists`; `Invalid` when a column is named twice; `Conflict` when somebody else was
    /// first.
    pub async fn create_subject(&self, subject: Subject, mode: CreateMode) -> Result<bool> {
        subject.check()?;
        self.writable().await?;
        let (name, owner) = (subject.name.clone(), subject.owner.clone());
        let place = ObjectName::new(SUBJECT, &name);
        let made = self.subjects.create(&place, Spec::Subject(subject), &owner, mode).await;
        made.map_err(|error| match error {
            Error::AlreadyExists { kind, .. } => Error::AlreadyExists { kind, name },
            other => other,
        })
    }

    /// Changes a subject; gives what `change` gives. Nothing is written when it stays as it is.
    ///
    /// # Errors
    /// Those of `change`; `NotFound`; when the warehouse cannot be written, or others change the
    /// same subject again and again.
    pub async fn change_subject<T>(
        &self,
        name: &str,
        mut change: impl FnMut(&mut Subject) -> Result<T>,
    ) -> Result<T> {
        self.writable().await?;
        let place = ObjectName::new(SUBJECT, name);
        let step = |head: Option<&Head>| {
            let Some((before, owner)) = present(head)? else {
                return Ok::<_, Error>(Step::Stays(None));
            };
            let mut subject = before.clone();
            let outcome = Some(change(&mut subject)?);
            if subject == before {
                return Ok(Step::Stays(outcome));
            }
            subject.check()?;
            Ok(Step::writes(Some(Spec::Subject(subject)), owner, outcome))
        };
        match self.subjects.change(&place, TRIES, || format!("subject {name}"), step).await? {
            Some(outcome) => Ok(outcome),
            None => self.subject(name).await.and(Err(Error::Conflict { name: name.into() })),
        }
    }

    /// Removes a subject; `false` when there was none. What holds of single persons stays, so that
    /// a subject of the same name made later does not bring back who was erased.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or somebody else changed it at the same time.
    pub async fn drop_subject(&self, name: &str) -> Result<bool> {
        self.writable().await?;
        self.subjects.drop_object(&ObjectName::new(SUBJECT, name), Kind::Subject).await
    }
}

fn record(spec: Spec) -> Option<Subject> {
    match spec {
        Spec::Subject(subject) => Some(subject),
        _ => None,
    }
}

fn present(head: Option<&Head>) -> Result<Option<(Subject, String)>> {
    let Some(head) = head else { return Ok(None) };
    let document = head.document.clone()?;
    let subject = document.spec.clone().and_then(record);
    Ok(subject.map(|subject| (subject, document.owner.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Shared;

    fn key(table: &str, column: &str) -> SubjectKey {
        SubjectKey { table: ObjectName::new("main", table), column: column.into() }
    }

    fn subject(keys: Vec<SubjectKey>) -> Subject {
        Subject { name: "person".into(), keys, via: None, owner: "dpo".into(), created_ms: 0 }
    }

    #[tokio::test]
    async fn servers_share_a_subject_and_no_key_is_there_twice() {
        let shared = Shared::new();
        let (one, other) = (shared.open().await, shared.open().await);
        let made = subject(vec![key("crm", "id"), key("clicks", "id"), key("crm", "partner")]);
        assert!(one.create_subject(made.clone(), CreateMode::New).await.unwrap());
        assert_eq!(other.subject("person").await.unwrap(), made);
        assert!(!other.create_subject(made.clone(), CreateMode::IfNotExists).await.unwrap());
        let again = other.create_subject(made.clone(), CreateMode::New).await.unwrap_err();
        assert_eq!(again.code(), "ATT-4002");
        let crm = ObjectName::new("main", "crm");
        assert_eq!(made.columns_of(&crm).collect::<Vec<_>>(), ["id", "partner"]);
        assert_eq!(made.tables().len(), 2);
        let twice = other.change_subject("person", |subject| {
            subject.keys.push(key("crm", "id"));
            Ok(())
        });
        assert!(twice.await.unwrap_err().to_string().contains("main.crm.id is named twice"));
        let none = one.change_subject("person", |subject| {
            subject.keys.clear();
            Ok(())
        });
        assert_eq!(none.await.unwrap_err().code(), "ATT-4004");
        assert!(one.crosswalks_of(&key("crm", "id")).await.unwrap().is_empty());
        let via = Crosswalk {
            table: ObjectName::new("main", "ids"),
            record: "record_id".into(),
            entity: "entity_id".into(),
        };
        let link = |subject: &mut Subject| {
            subject.via = Some(via.clone());
            Ok(())
        };
        one.change_subject("person", link).await.unwrap();
        for known in [key("crm", "partner"), key("ids", "record_id")] {
            assert_eq!(one.crosswalks_of(&known).await.unwrap(), std::slice::from_ref(&via));
        }
        for other in [key("crm", "name"), key("ids", "entity_id"), key("orders", "id")] {
            assert!(one.crosswalks_of(&other).await.unwrap().is_empty());
        }
        assert!(one.drop_subject("person").await.unwrap());
        assert!(!one.drop_subject("person").await.unwrap());
        assert_eq!(one.subject("person").await.unwrap_err().code(), "ATT-4001");
    }
}
