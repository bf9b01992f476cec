//! Persons whom nobody may see, as a model knows them that was trained before: restricted ones, and
//! erased ones that it has not unlearned.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use udfs::privacy::Token;

use crate::Catalog;
use crate::error::Result;
use crate::registry::model::Publication;
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

    /// Whom a model must not show, by subject: persons of those who may be among its users or
    /// records ([`Publication::may_hold`]). A mark of one column holds where the model's ids came
    /// of ids of its table, or the table was read, or nobody knows; and one of a model's users in
    /// that model.
    ///
    /// # Errors
    /// When a mark is no token.
    pub fn hidden_from(
        &self,
        model: &ObjectName,
        trained: &Publication,
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
            let copies = copies.get_or_insert_with(|| all(&self.copies)).iter();
            let copies: Vec<_> = copies.filter(|(_, copy)| subject.counts(copy)).collect();
            let of_copies = copies.iter().map(|(table, _)| table);
            let of_subject = subject.tables().into_iter().chain(of_copies);
            if !trained.may_hold(|ids| subject.counts(ids), of_subject) {
                continue;
            }
            let is_unknown = trained.records_of.is_none();
            let is_read =
                |table: &ObjectName| is_unknown || trained.may_have_read(&table.to_string());
            let mut tables = BTreeSet::from([model.to_string()]);
            let of_subject = subject.tables().into_iter().filter(|table| is_read(table));
            tables.extend(of_subject.map(ToString::to_string));
            // Ids that are what they were are known by the marks of their key as well.
            for (table, copy) in copies.into_iter().filter(|(table, _)| is_read(table)) {
                tables.extend([table.to_string(), copy.root.table.to_string()]);
            }
            let ids = trained.records_of.iter().flatten().chain(&trained.users_of);
            let ids = ids.filter(|ids| subject.counts(ids));
            tables.extend(ids.map(|ids| ids.root.table.to_string()));
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
    use crate::subject_copies::CopiedKey;
    use crate::subject_marks::{Mark, MarkNote, SubjectMarks};
    use crate::testing::{Shared, key, person};

    /// A version that has read these tables, whose users' ids are those of these tables' `id` as
    /// they are; none where that was not kept.
    fn trained(read_from: &[&str], records_of: Option<&[&str]>) -> Publication {
        let plain = |table: &&str| CopiedKey {
            subject: "person".into(),
            column: None,
            from: key(table),
            root: key(table),
            of_model: false,
            by: Some(vec![]),
            is_whole: false,
        };
        let least = serde_json::json!({
            "model_type": "item_knn", "options": {}, "query": "", "user_col": "user",
            "item_col": "item", "rating_col": null, "metrics": [], "iterations": [], "top_k": 1,
        });
        let least: Publication = serde_json::from_value(least).unwrap();
        Publication {
            read_from: read_from.iter().map(ToString::to_string).collect(),
            records_of: records_of.map(|tables| tables.iter().map(plain).collect()),
            ..least
        }
    }

    #[tokio::test]
    async fn a_mark_of_one_column_holds_where_its_table_was_read() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let subject = person(&["crm", "clicks"]);
        catalog.create_subject(subject, CreateMode::New).await.unwrap();
        let model = ObjectName::new("main", "m");
        let before = catalog.known_persons().await.unwrap();
        assert!(before.is_same(&catalog.known_persons().await.unwrap()));
        let of_any = trained(&[], Some(&[]));
        assert!(before.hidden_from(&model, &of_any).unwrap().is_empty());
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
        let hidden_from = |trained: &Publication| {
            let hidden = after.hidden_from(&model, trained).unwrap();
            hidden.into_iter().next().map(|(_, tokens)| tokens)
        };
        let hidden = |read_from: &[&str]| hidden_from(&trained(read_from, Some(&[])));
        // What the users of this very model were made of an id.
        let own = tokens.token("person", "main.m.user");
        let both = HashSet::from([seven, eight, own]);
        assert_eq!(hidden(&["main.crm"]), Some(both.clone()));
        assert_eq!(hidden(&["main.clicks", "main.t"]), Some(HashSet::from([seven, own])));
        assert_eq!(hidden(&[]), Some(both.clone()));
        assert_eq!(hidden(&["main.t"]), None);
        // Its users came of a copy that is gone, or of one of a key that is one no more, or nobody
        // knows.
        let of_key = |key: &str| hidden_from(&trained(&["main.t"], Some(&[key])));
        assert_eq!(of_key("crm"), Some(both.clone()));
        assert_eq!(of_key("clicks"), Some(HashSet::from([seven, own])));
        assert_eq!(of_key("dropped"), None);
        assert_eq!(hidden_from(&trained(&["main.t"], None)), Some(both));
    }
}
