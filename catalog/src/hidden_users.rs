//! Persons whom nobody may see, as a model knows them that was trained before: restricted ones, and
//! erased ones that it has not unlearned.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use udfs::privacy::Token;

use crate::Catalog;
use crate::error::Result;
use crate::registry::{Definitions, ObjectName, Spec};
use crate::subject_copies::all;
use crate::subject_marks::MARKS;

/// What is known of persons at one moment.
#[derive(Clone)]
pub struct KnownPersons {
    subjects: Arc<Definitions>,
    copies: Arc<Definitions>,
}

impl KnownPersons {
    /// Whether nothing has changed between the two.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.subjects, &other.subjects) && Arc::ptr_eq(&self.copies, &other.copies)
    }

    /// Whom a model must not show that has read these tables, by subject; whatever it has read,
    /// where none is named. A mark of one column holds where a table with its ids was read, and one
    /// of a model's users in that model.
    ///
    /// # Errors
    /// When a mark is no token.
    pub fn hidden_from(
        &self,
        model: &ObjectName,
        read_from: &[String],
    ) -> Result<Vec<(String, HashSet<Token>)>> {
        let mut hidden = Vec::new();
        let mut copies = None;
        for definition in self.subjects.values() {
            let Spec::Subject(subject) = &definition.spec else { continue };
            let place = (MARKS.to_owned(), subject.name.clone());
            let Some(Spec::SubjectMarks(marks)) =
                self.subjects.get(&place).map(|found| &found.spec)
            else {
                continue;
            };
            let mut tables = BTreeSet::new();
            for table in subject.tables() {
                if is_read(read_from, table) {
                    tables.insert(table.to_string());
                }
            }
            for (table, copy) in copies.get_or_insert_with(|| all(&self.copies)).iter() {
                if copy.subject == subject.name && is_read(read_from, table) {
                    // Ids that are what they were are known by the marks of their key as well.
                    tables.extend([table.to_string(), copy.root.table.to_string()]);
                }
            }
            if tables.is_empty() {
                continue;
            }
            tables.insert(model.to_string());
            let tokens = marks.hidden(|column| {
                let is_in = |table: &String| {
                    column.strip_prefix(table.as_str()).is_some_and(|rest| rest.starts_with('.'))
                };
                tables.iter().any(is_in)
            })?;
            if !tokens.is_empty() {
                hidden.push((subject.name.clone(), tokens));
            }
        }
        Ok(hidden)
    }
}

fn is_read(read_from: &[String], table: &ObjectName) -> bool {
    read_from.is_empty() || read_from.contains(&table.to_string())
}

impl Catalog {
    /// What is known of persons, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or a document of subjects or copies cannot be read:
    /// then nothing is known of anybody.
    pub async fn known_persons(&self) -> Result<KnownPersons> {
        Ok(KnownPersons {
            subjects: self.subjects.sound_definitions().await?,
            copies: self.subject_copies.sound_definitions().await?,
        })
    }
}

#[cfg(test)]
mod tests {
    use udfs::privacy::subject_token::hexadecimal;

    use super::*;
    use crate::CreateMode;
    use crate::subject_marks::{Mark, MarkNote, SubjectMarks};
    use crate::testing::{Shared, person};

    #[tokio::test]
    async fn a_mark_of_one_column_holds_where_its_table_was_read() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let subject = person(&["crm", "clicks"]);
        catalog.create_subject(subject, CreateMode::New).await.unwrap();
        let model = ObjectName::new("main", "m");
        let before = catalog.known_persons().await.unwrap();
        assert!(before.is_same(&catalog.known_persons().await.unwrap()));
        assert!(before.hidden_from(&model, &[]).unwrap().is_empty());
        let tokens = catalog.subject_tokens().await.unwrap();
        let (seven, eight) = (tokens.token("person", "7"), tokens.token("person", "8"));
        let set = |marks: &mut SubjectMarks| {
            let note = MarkNote { by: "dpo".into(), at_ms: 1 };
            marks.set(Mark::Restricted, hexadecimal(&seven), note.clone());
            let in_crm = format!("{} main.crm.id", hexadecimal(&eight));
            marks.set(Mark::Erased, in_crm, note.clone());
            for of in ["main.m.user", "main.other.user"] {
                marks.set(
                    Mark::Restricted,
                    format!("{} {of}", hexadecimal(&tokens.token("person", of))),
                    note.clone(),
                );
            }
            Ok(())
        };
        catalog.change_subject_marks("person", set).await.unwrap();
        let after = catalog.known_persons().await.unwrap();
        assert!(!before.is_same(&after));
        let hidden = |read_from: &[&str]| {
            let read_from: Vec<String> = read_from.iter().map(ToString::to_string).collect();
            let hidden = after.hidden_from(&model, &read_from).unwrap();
            hidden.into_iter().next().map(|(_, tokens)| tokens)
        };
        // What the users of this very model were made of an id.
        let own = tokens.token("person", "main.m.user");
        let both = HashSet::from([seven, eight, own]);
        assert_eq!(hidden(&["main.crm"]), Some(both.clone()));
        assert_eq!(hidden(&["main.clicks", "main.t"]), Some(HashSet::from([seven, own])));
        assert_eq!(hidden(&[]), Some(both));
        assert_eq!(hidden(&["main.t"]), None);
    }
}
