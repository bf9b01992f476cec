//! What holds of single persons: restricted (kept, not processed), held (not to be erased), erased
//! (never to be read again where files cannot be rewritten).
//!
//! One document a subject, changed by compare-and-swap. It names persons by keyed tokens
//! ([`udfs::privacy::SubjectTokens`]), so that it says nothing about anybody to whoever does not
//! hold the warehouse, and somebody who was erased is in no document. Reads are refused when the
//! documents cannot be read: nobody shall come back because a file was damaged.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use udfs::privacy::subject_token::parse_token;
use udfs::privacy::{SubjectTokens, Token};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::registry::change::{Step, TRIES, held};
use crate::registry::{Head, ObjectName, Spec};
use crate::subject_copies::CopiedKey;
use crate::subjects::Subject;

/// The place of marks in the registry of subjects; no SQL name reaches it.
pub(crate) const MARKS: &str = "marks";
/// Persons of one subject that can be marked: all are in one document.
pub const MARKS_MAX: usize = 200_000;

/// What may hold of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Kept, and absent from every read but EXPORT (GDPR art. 18).
    Restricted,
    /// Not to be erased, such as for a legal claim (GDPR art. 17(3)).
    Held,
    /// Erased: absent from tables whose files Attune may not write.
    Erased,
}

impl Mark {
    /// The mark's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Restricted => "restricted",
            Self::Held => "held",
            Self::Erased => "erased",
        }
    }
}

/// Who set a mark, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkNote {
    /// Who.
    pub by: String,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
}

/// The marks of a subject's persons. Each is known by its token, and where the id is one key's
/// alone, or what a copy has made of it, by that column behind it: `token` or
/// `token schema.table.column`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SubjectMarks {
    /// Of each mark, who has it.
    pub by_mark: BTreeMap<Mark, BTreeMap<String, MarkNote>>,
}

impl SubjectMarks {
    /// Sets a mark; whether it was not there.
    pub fn set(&mut self, mark: Mark, person: String, note: MarkNote) -> bool {
        let marked = self.by_mark.entry(mark).or_default();
        let is_new = !marked.contains_key(&person);
        marked.entry(person).or_insert(note);
        is_new
    }

    /// Takes a mark; whether it was there.
    pub fn take(&mut self, mark: Mark, person: &str) -> bool {
        let marked = self.by_mark.get_mut(&mark);
        let was_there = marked.is_some_and(|marked| marked.remove(person).is_some());
        self.by_mark.retain(|_, marked| !marked.is_empty());
        was_there
    }

    /// Whether a person has a mark.
    pub fn has(&self, mark: Mark, person: &str) -> bool {
        self.by_mark.get(&mark).is_some_and(|marked| marked.contains_key(person))
    }

    /// How many have a mark.
    pub fn count(&self, mark: Mark) -> usize {
        self.by_mark.get(&mark).map_or(0, BTreeMap::len)
    }

    /// The columns that marks are bound to.
    pub fn columns(&self) -> BTreeSet<String> {
        let persons = self.by_mark.values().flat_map(BTreeMap::keys);
        persons.filter_map(|person| Some(person.split_once(' ')?.1.to_owned())).collect()
    }

    /// Forgets the marks that are bound to one of these columns.
    pub fn forget_columns(&mut self, columns: &BTreeSet<String>) {
        for marked in self.by_mark.values_mut() {
            marked.retain(|person, _| {
                person.split_once(' ').is_none_or(|(_, of)| !columns.contains(of))
            });
        }
        self.by_mark.retain(|_, marked| !marked.is_empty());
    }

    /// Everybody with a mark, whichever column the id is of.
    fn everybody(&self, mark: Mark) -> Result<HashSet<Token>> {
        let persons = self.by_mark.get(&mark).into_iter().flat_map(BTreeMap::keys);
        let digits =
            persons.map(|person| person.split_once(' ').map_or(person.as_str(), |it| it.0));
        digits.map(|digits| parse_token(digits).ok_or_else(no_token)).collect()
    }

    /// Those of whom nothing is read: everywhere, or where `holds` says that a column's marks do.
    pub(crate) fn hidden(&self, holds: impl Fn(&str) -> bool) -> Result<HashSet<Token>> {
        let mut tokens = HashSet::new();
        for mark in [Mark::Restricted, Mark::Erased] {
            for person in self.by_mark.get(&mark).into_iter().flat_map(BTreeMap::keys) {
                let (digits, is_meant) = match person.split_once(' ') {
                    Some((digits, column)) => (digits, holds(column)),
                    None => (person.as_str(), true),
                };
                if is_meant {
                    tokens.insert(parse_token(digits).ok_or_else(no_token)?);
                }
            }
        }
        Ok(tokens)
    }

    /// The tokens with a mark that hold in a column: those bound to one of its names, and, where
    /// its ids are plain, those that hold everywhere. A hold holds an id wherever it is: rather too
    /// many are kept than too few.
    fn tokens(&self, mark: Mark, of: &IdColumn) -> Result<HashSet<Token>> {
        let mut tokens = HashSet::new();
        for person in self.by_mark.get(&mark).into_iter().flat_map(BTreeMap::keys) {
            let (digits, holds) = match person.split_once(' ') {
                Some((digits, only)) => (digits, of.names.iter().any(|name| name == only)),
                None => (person.as_str(), of.is_plain),
            };
            if mark != Mark::Held && !holds {
                continue;
            }
            let token = parse_token(digits).ok_or_else(no_token)?;
            tokens.insert(token);
        }
        Ok(tokens)
    }
}

fn no_token() -> Error {
    Error::Corrupt { what: "the marks of persons".into(), reason: "one of them is no token".into() }
}

/// Whom the ids in a column of a table must not show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedColumn {
    /// The subject, which tokens depend on.
    pub subject: String,
    /// The column.
    pub column: String,
    /// Those who are kept and not processed.
    pub restricted: HashSet<Token>,
    /// Those who were erased.
    pub erased: HashSet<Token>,
}

/// A column of a table that holds ids of a subject.
struct IdColumn {
    column: String,
    /// What marks call it that are bound to a column.
    names: Vec<String>,
    /// Whether ids are there as they are in records: then marks without a column hold as well.
    is_plain: bool,
    /// Whether it is a key, and no copy of one.
    is_key: bool,
}

/// The columns of a table that hold ids of a subject: its keys, and copies. Nobody is found in a
/// copy of which is not known how it was made.
fn id_columns<'a>(
    subject: &Subject,
    table: &ObjectName,
    copies: impl Iterator<Item = &'a CopiedKey>,
) -> Vec<IdColumn> {
    let keys = subject.record_keys().filter(|key| key.table == *table);
    let keys = keys.map(|key| IdColumn {
        names: vec![key.to_string()],
        column: key.column,
        is_plain: true,
        is_key: true,
    });
    let copies = copies.filter(|copy| subject.counts(copy)).filter_map(|copy| {
        let column = copy.column.clone().filter(|_| copy.by.is_some())?;
        // Ids that are what they were are known by the marks of their key as well.
        let is_plain = copy.is_plain() && subject.is_record(&copy.root);
        let mut names = vec![format!("{table}.{column}")];
        names.extend(is_plain.then(|| copy.root.to_string()));
        Some(IdColumn { column, names, is_plain, is_key: false })
    });
    keys.chain(copies).collect()
}

impl Catalog {
    /// The key of tokens, which is made when there is none.
    ///
    /// # Errors
    /// When the warehouse cannot be reached or, to make it, not written.
    pub async fn subject_tokens(&self) -> Result<SubjectTokens> {
        self.subject_tokens.get_or_try_init(|| self.read_subject_tokens()).await.cloned()
    }

    async fn read_subject_tokens(&self) -> Result<SubjectTokens> {
        let place = self.warehouse.place().child("_attune/subject_secret");
        let mut found = place.read_if_exists().await?;
        let is_known = found.is_none() && self.marks_anybody().await?;
        if is_known {
            // It may be there by now, made by another server with the first mark.
            found = place.read_if_exists().await?;
        }
        let content = match found {
            Some(content) => content,
            // Another secret would make nobody of them known, and all of them seen again.
            None if is_known => {
                return Err(Error::Corrupt {
                    what: place.url.to_string(),
                    reason: "it is gone, and restricted, held and erased persons are known by it: \
                             restore it from a copy of the warehouse"
                        .into(),
                });
            }
            None => {
                self.writable().await?;
                let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
                let random = random.map(uuid::Uuid::into_bytes).concat();
                if !place.create(Bytes::from(random)).await? {
                    tracing::debug!("another server made the secret of subjects");
                }
                place.read().await?
            }
        };
        let wrong = |reason: String| Error::Corrupt { what: place.url.to_string(), reason };
        if content.len() != 32 {
            return Err(wrong("it is no secret of subjects".into()));
        }
        SubjectTokens::new(&content).map_err(|error| wrong(error.message().into_owned()))
    }

    async fn marks_anybody(&self) -> Result<bool> {
        let found = self.subjects.sound_definitions().await?;
        Ok(found.values().any(|found| matches!(found.spec, Spec::SubjectMarks(_))))
    }

    /// The marks of a subject's persons as the store has them now.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or the document cannot be read.
    pub async fn subject_marks_now(&self, subject: &str) -> Result<SubjectMarks> {
        let found = self.subjects.read(&ObjectName::new(MARKS, subject)).await?;
        Ok(found.and_then(|found| marks(found.spec)).unwrap_or_default())
    }

    /// The marks of a subject's persons, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or the document cannot be read.
    pub async fn subject_marks(&self, subject: &str) -> Result<SubjectMarks> {
        let found = self.subjects.sound(&ObjectName::new(MARKS, subject)).await?;
        Ok(found.and_then(|found| marks(found.spec)).unwrap_or_default())
    }

    /// Changes the marks of a subject's persons; gives what `change` gives. Nothing is written when
    /// they stay as they are.
    ///
    /// # Errors
    /// Those of `change`; when the warehouse cannot be written, others change the same marks again
    /// and again, or they would become too many.
    pub async fn change_subject_marks<T>(
        &self,
        subject: &str,
        mut change: impl FnMut(&mut SubjectMarks) -> Result<T>,
    ) -> Result<T> {
        self.writable().await?;
        let place = ObjectName::new(MARKS, subject);
        let step = |head: Option<&Head>| {
            let before = held(head)?.and_then(marks).unwrap_or_default();
            let mut held = before.clone();
            let outcome = change(&mut held)?;
            if held == before {
                return Ok(Step::Stays(outcome));
            }
            if held.by_mark.values().any(|marked| marked.len() > MARKS_MAX) {
                return Err(Error::invalid_hint(
                    format!("at most {MARKS_MAX} ids of a subject can be marked"),
                    "rewrite the files of erased persons where they lie, and drop the old ones",
                ));
            }
            let spec = (!held.by_mark.is_empty()).then_some(Spec::SubjectMarks(held));
            Ok(Step::writes(spec, String::new(), outcome))
        };
        self.subjects.change(&place, TRIES, || format!("the marks of {subject}"), step).await
    }

    /// Whom a table's columns must not show, at most a second old; nothing for most tables.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or a document of subjects cannot be read: then nothing
    /// is known of anybody.
    pub async fn marked_columns(&self, table: &ObjectName) -> Result<Vec<MarkedColumn>> {
        let found = self.subjects.sound_definitions().await?;
        let mut copies = None;
        let mut columns = Vec::new();
        for definition in found.values() {
            let Spec::Subject(subject) = &definition.spec else { continue };
            let place = (MARKS.to_owned(), subject.name.clone());
            let Some(Spec::SubjectMarks(held)) = found.get(&place).map(|found| &found.spec) else {
                continue;
            };
            if copies.is_none() {
                copies = Some(self.copies_in(table).await?);
            }
            for of in id_columns(subject, table, copies.iter().flatten()) {
                let restricted = held.tokens(Mark::Restricted, &of)?;
                let erased = match of.is_key {
                    true => held.tokens(Mark::Erased, &of)?,
                    false => HashSet::new(),
                };
                if !restricted.is_empty() || !erased.is_empty() {
                    let (subject, column) = (subject.name.clone(), of.column);
                    columns.push(MarkedColumn { subject, column, restricted, erased });
                }
            }
        }
        Ok(columns)
    }

    /// Each subject with those of its persons who are restricted or erased, whichever column their
    /// ids are of, as the store has it now.
    ///
    /// # Errors
    /// As [`Self::marked_columns`].
    pub async fn hidden_persons(&self) -> Result<Vec<(Subject, HashSet<Token>)>> {
        let found = self.subjects.sound_definitions_now().await?;
        let mut hidden = Vec::new();
        for definition in found.values() {
            let Spec::Subject(subject) = &definition.spec else { continue };
            let place = (MARKS.to_owned(), subject.name.clone());
            let mut tokens = HashSet::new();
            if let Some(Spec::SubjectMarks(held)) = found.get(&place).map(|found| &found.spec) {
                tokens.extend(held.everybody(Mark::Restricted)?);
                tokens.extend(held.everybody(Mark::Erased)?);
            }
            hidden.push((subject.clone(), tokens));
        }
        Ok(hidden)
    }

    /// Whose rows of a table are kept however old they are: persons who are held count here as
    /// restricted ones do, as the store has it now.
    ///
    /// # Errors
    /// As [`Self::marked_columns`].
    pub async fn kept_columns(&self, table: &ObjectName) -> Result<Vec<MarkedColumn>> {
        let mut columns = Vec::new();
        let found = self.subjects.sound_definitions_now().await?;
        let copies = self.copies_in_now(table).await?;
        for definition in found.values() {
            let Spec::Subject(subject) = &definition.spec else { continue };
            let of_subject = id_columns(subject, table, copies.iter());
            if of_subject.is_empty() {
                continue;
            }
            let held = self.subject_marks_now(&subject.name).await?;
            for of in of_subject {
                let mut restricted = held.tokens(Mark::Held, &of)?;
                restricted.extend(held.tokens(Mark::Restricted, &of)?);
                if !restricted.is_empty() {
                    let (subject, column) = (subject.name.clone(), of.column);
                    let erased = HashSet::new();
                    columns.push(MarkedColumn { subject, column, restricted, erased });
                }
            }
        }
        Ok(columns)
    }
}

fn marks(spec: Spec) -> Option<SubjectMarks> {
    match spec {
        Spec::SubjectMarks(held) => Some(held),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use udfs::privacy::subject_token::hexadecimal;

    use super::*;
    use crate::CreateMode;
    use crate::subject_copies::{CopiedKey, Transformation};
    use crate::testing::{Shared, key, person};

    #[tokio::test]
    async fn marks_hold_where_they_were_set_and_on_every_server() {
        let shared = Shared::new();
        let (one, other) = (shared.open().await, shared.open().await);
        let subject = person(&["crm", "clicks"]);
        one.create_subject(subject, CreateMode::New).await.unwrap();
        let tokens = one.subject_tokens().await.unwrap();
        assert_eq!(
            other.subject_tokens().await.unwrap().token("person", "7"),
            tokens.token("person", "7")
        );
        let of = |id: &str| hexadecimal(&tokens.token("person", id));
        let note = MarkNote { by: "dpo".into(), at_ms: 1 };
        let everywhere = of("7");
        let in_crm = format!("{} main.crm.id", of("8"));
        for person in [&everywhere, &in_crm] {
            let set = |marks: &mut SubjectMarks| {
                Ok(marks.set(Mark::Restricted, person.clone(), note.clone()))
            };
            assert!(one.change_subject_marks("person", set).await.unwrap());
            assert!(!one.change_subject_marks("person", set).await.unwrap());
        }
        let crm = other.marked_columns(&ObjectName::new("main", "crm")).await.unwrap();
        assert_eq!(crm.first().map(|column| column.restricted.len()), Some(2));
        let clicks = other.marked_columns(&ObjectName::new("main", "clicks")).await.unwrap();
        assert_eq!(clicks.first().map(|column| column.restricted.len()), Some(1));
        assert!(other.marked_columns(&ObjectName::new("main", "t")).await.unwrap().is_empty());
        let take = |marks: &mut SubjectMarks| Ok(marks.take(Mark::Restricted, &everywhere));
        assert!(one.change_subject_marks("person", take).await.unwrap());
        assert!(!one.subject_marks("person").await.unwrap().has(Mark::Restricted, &everywhere));
    }

    #[tokio::test]
    async fn who_is_marked_is_not_shown_by_copies() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let subject = person(&["crm"]);
        catalog.create_subject(subject, CreateMode::New).await.unwrap();
        let table = ObjectName::new("main", "vip");
        let copy = |column: &str, by: Vec<Transformation>| CopiedKey {
            subject: "person".into(),
            column: Some(column.into()),
            from: key("crm"),
            root: key("crm"),
            of_model: false,
            by: Some(by),
            is_whole: true,
        };
        let lower = vec![Transformation::Expression("lower(id)".into())];
        let unknown = CopiedKey { by: None, ..copy("sealed", vec![]) };
        let copies = [copy("id", vec![]), copy("low", lower), unknown].into();
        catalog.announce_copies(&table, &copies).await.unwrap();
        assert!(catalog.marked_columns(&table).await.unwrap().is_empty());
        let tokens = catalog.subject_tokens().await.unwrap();
        let token = |id: &str| hexadecimal(&tokens.token("person", id));
        let note = MarkNote { by: "dpo".into(), at_ms: 1 };
        // The id everywhere, another one of the key alone, and what the copy has made of it.
        let marks = [
            token("A"),
            format!("{} main.crm.id", token("B")),
            format!("{} main.vip.low", token("a")),
            format!("{} main.gone.id", token("C")),
        ];
        let set = |held: &mut SubjectMarks| {
            for mark in &marks {
                held.set(Mark::Restricted, mark.clone(), note.clone());
            }
            Ok(())
        };
        catalog.change_subject_marks("person", set).await.unwrap();
        let shown = async || {
            let marked = catalog.marked_columns(&table).await.unwrap();
            let counts = marked.into_iter().map(|of| (of.column, of.restricted.len()));
            counts.collect::<Vec<_>>()
        };
        assert_eq!(shown().await, [("id".to_owned(), 2), ("low".to_owned(), 1)]);
        let hidden = catalog.hidden_persons().await.unwrap().into_iter();
        let hidden: Vec<_> = hidden.map(|(subject, tokens)| (subject.name, tokens)).collect();
        let all = ["A", "B", "a", "C"].map(|id| tokens.token("person", id));
        assert_eq!(hidden, [("person".to_owned(), HashSet::from(all))]);
        let gone = |held: &mut SubjectMarks| {
            let bound = ["main.crm.id", "main.gone.id", "main.vip.low"].map(str::to_owned);
            assert_eq!(held.columns(), BTreeSet::from(bound));
            held.forget_columns(&["main.gone.id".to_owned(), "main.vip".to_owned()].into());
            Ok(held.count(Mark::Restricted))
        };
        assert_eq!(catalog.change_subject_marks("person", gone).await.unwrap(), 3);
        assert_eq!(shown().await.len(), 2);
    }

    #[tokio::test]
    async fn who_is_held_is_kept_at_once_also_by_copies_and_on_every_server() {
        let shared = Shared::new();
        let (one, other) = (shared.open().await, shared.open().await);
        let (crm, vip) = (ObjectName::new("main", "crm"), ObjectName::new("main", "vip"));
        for table in [&crm, &vip] {
            assert!(other.kept_columns(table).await.unwrap().is_empty());
        }
        let subject = person(&["crm"]);
        one.create_subject(subject, CreateMode::New).await.unwrap();
        let copy = |column: &str, by: Option<Vec<Transformation>>| CopiedKey {
            subject: "person".into(),
            column: Some(column.into()),
            from: key("crm"),
            root: key("crm"),
            of_model: false,
            by,
            is_whole: true,
        };
        let copies = [copy("id", Some(vec![])), copy("sealed", None)].into();
        one.announce_copies(&vip, &copies).await.unwrap();
        let token = hexadecimal(&one.subject_tokens().await.unwrap().token("person", "7"));
        let note = MarkNote { by: "dpo".into(), at_ms: 1 };
        let set = |marks: &mut SubjectMarks| Ok(marks.set(Mark::Held, token.clone(), note.clone()));
        assert!(one.change_subject_marks("person", set).await.unwrap());
        // No time has passed since the other server looked.
        for table in [&crm, &vip] {
            let kept = other.kept_columns(table).await.unwrap();
            let kept: Vec<_> =
                kept.iter().map(|of| (of.column.as_str(), of.restricted.len())).collect();
            assert_eq!(kept, [("id", 1)], "{table}");
        }
    }

    #[tokio::test]
    async fn without_the_secret_nobody_who_is_marked_is_seen_again() {
        let shared = Shared::new();
        let one = shared.open().await;
        let token = one.subject_tokens().await.unwrap().token("person", "7");
        let note = MarkNote { by: "dpo".into(), at_ms: 1 };
        let set = |marks: &mut SubjectMarks| {
            Ok(marks.set(Mark::Erased, hexadecimal(&token), note.clone()))
        };
        assert!(one.change_subject_marks("person", set).await.unwrap());
        let secret = shared.place.child("_attune/subject_secret");
        let content = secret.read().await.unwrap();
        secret.remove().await.unwrap();
        let other = shared.open().await;
        let error = other.subject_tokens().await.unwrap_err();
        assert!(error.to_string().contains("it is gone"), "{error}");
        assert!(secret.create(content).await.unwrap());
        assert_eq!(other.subject_tokens().await.unwrap().token("person", "7"), token);
        assert_eq!(other.subject_marks_now("person").await.unwrap().count(Mark::Erased), 1);
    }
}
