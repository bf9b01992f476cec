//! Copies inherit: a table that is made of one with a key of a subject holds ids as well, and is
//! known to, so that every request of a person reaches it.
//!
//! Which columns hold ids is found in the plan ([`super::lineage`]) and written down before the
//! rows are seen. Rows of single persons do not come without an id by which to find them: that is
//! refused, unless they are aggregated, or whoever administers policies says DECLASSIFY.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::subject_copies::CopiedKey;
use catalog::subjects::{Subject, SubjectKey};
use catalog::{Catalog, Class, ObjectName, Pii};
use datafusion::logical_expr::LogicalPlan;

use super::define::is_id;
use super::ids::{Held, Ids};
use super::kept::{Coming, missing, tell_partial};
use super::lineage::{Keyed, Lineage};
use super::of_models::OfModels;
use super::whose::Persons;
use crate::consent::personal;
use crate::error::{Error, Result};
use crate::session::StatementContext;

/// Where rows go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    /// Into a table that is made of them.
    Made(&'a ObjectName),
    /// Into a table that is there, whose own rows stay what they are.
    Changed(&'a ObjectName),
    /// Into a table that is there, as rows that say themselves whose they are.
    Told(&'a ObjectName),
}

impl<'a> Target<'a> {
    fn name(self) -> &'a ObjectName {
        match self {
            Self::Made(name) | Self::Changed(name) | Self::Told(name) => name,
        }
    }

    /// Whether it is known whose rows come of a table, whichever columns come with them.
    fn knows(self, table: &ObjectName) -> bool {
        match self {
            Self::Made(_) => false,
            Self::Changed(name) => name == table,
            Self::Told(_) => true,
        }
    }
}

/// The ids of persons that come into a table, and of which columns they are copies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Copies(pub(crate) BTreeSet<CopiedKey>);

impl Copies {
    /// What a table of the rows of `plan` holds of persons' ids; its columns are called `columns`.
    ///
    /// # Errors
    /// When rows of single persons would come without their ids; when what is known of subjects
    /// cannot be read.
    pub(crate) async fn of(
        context: &Arc<StatementContext>,
        plan: &LogicalPlan,
        columns: &[String],
        target: Target<'_>,
    ) -> Result<Self> {
        let catalog = context.engine().catalog();
        let subjects = catalog.sound_subjects().await?;
        if subjects.is_empty() {
            return Ok(Self::default());
        }
        let known = catalog.copies().await?;
        let tables = keyed(context, &subjects, &known).await?;
        let keys = first_generations(context).await?;
        let asked = context.opening().asked();
        let models = OfModels { subjects: &subjects, copies: &known, policy: None, asked: &asked };
        let mut rows = Lineage::new(&tables, models, &keys, &Cell::default()).of(plan)?;
        for (held, field) in rows.columns.iter_mut().zip(plan.schema().fields()) {
            if !is_id(field.data_type()) {
                held.ids = std::mem::take(&mut held.ids).into_iter().map(Ids::hidden).collect();
            }
        }
        let outputs: Vec<(&String, &Held)> = columns.iter().zip(&rows.columns).collect();
        let mut made = Vec::new();
        for (column, held) in &outputs {
            let is_made = matches!(target, Target::Made(_));
            let others = held.others.iter().map(|ids| ids.copied_to(Some(column.as_str())));
            made.extend(others.map(|copy| (copy, is_made)));
            let place = SubjectKey { table: target.name().clone(), column: (*column).clone() };
            for ids in &held.ids {
                if is_key(&subjects, &place, ids) {
                    continue;
                }
                // What stays in its column of a copy is a copy of what it was.
                let stays = known.iter().find(|(table, copy)| {
                    *table == place.table
                        && ids.from == place
                        && copy.column.as_ref() == Some(*column)
                        && (&copy.subject, &copy.root, &copy.by)
                            == (&ids.subject, &ids.root, &ids.by)
                });
                let copy = match stays {
                    Some((_, copy)) => copy.clone(),
                    None => ids.copied_to(Some(column.as_str())),
                };
                made.push((copy, ids.by.is_some() || !ids.is_partial));
            }
        }
        let coming = coming(target, &subjects, &known, &tables, &rows.persons, &outputs);
        let mut made = coming.marked(made);
        let apart = &rows.persons.apart;
        let read = rows.persons.readings.iter();
        let is_apart =
            |reading: &usize| matches!(target, Target::Changed(_)) && apart.contains(reading);
        let read = read.filter(|(reading, name)| is_apart(reading) || !target.knows(name));
        let read = read.filter_map(|(reading, name)| {
            let table = tables.iter().find(|table| table.name == *name)?;
            Some((*reading, table))
        });
        for (reading, table) in read {
            for ids in lost(table, reading, &rows.persons, &outputs) {
                if !context.policies().is_declassified() {
                    let mut divided = rows.persons.divided.iter();
                    let by = divided.find(|(of, _)| *of == reading).map(|(_, column)| column);
                    return Err(nobodys(target.name(), ids, by));
                }
                tracing::warn!(
                    target: "attune",
                    principal = context.rights().name(),
                    table = %table.name,
                    into = %target.name(),
                    "declassified"
                );
                made.insert(ids.clone().hidden().copied_to(None));
            }
        }
        Ok(Self(made))
    }
}

/// The tables with ids that a statement reads, and what stands for them in its plan.
///
/// # Errors
/// When it cannot be read which of their columns hold personal data.
pub(super) async fn keyed(
    context: &StatementContext,
    subjects: &[Subject],
    known: &[(ObjectName, CopiedKey)],
) -> Result<Vec<Keyed>> {
    let mut columns: BTreeMap<ObjectName, Vec<(String, Ids)>> = BTreeMap::new();
    for subject in subjects {
        let entity = subject.via.iter();
        let entity =
            entity.map(|via| SubjectKey { table: via.table.clone(), column: via.entity.clone() });
        for key in subject.record_keys().chain(entity) {
            let ids = Ids::of(&subject.name, &key);
            columns.entry(key.table).or_default().push((key.column, ids));
        }
    }
    let known =
        known.iter().filter(|(_, copy)| subjects.iter().any(|subject| subject.counts(copy)));
    let of_keys = columns.clone();
    for (table, copy) in known {
        let Some(column) = &copy.column else { continue };
        let from = SubjectKey { table: table.clone(), column: column.clone() };
        let mut keys = of_keys.get(table).into_iter().flatten();
        // In the table of a key, the key has all ids.
        let is_keyed = keys.any(|(_, ids)| ids.subject == copy.subject);
        let is_partial = is_keyed || !copy.is_whole;
        let ids = Ids { is_partial, ..Ids::of_copy(copy, from) };
        columns.entry(table.clone()).or_default().push((column.clone(), ids));
    }
    columns.values_mut().for_each(|columns| tell_partial(columns));
    for (apart, (of, pii)) in context.identifiers() {
        let Some(kept) = columns.get(&of).cloned() else { continue };
        let own = columns.entry(apart.clone()).or_default();
        let keyed: BTreeSet<String> = own.iter().map(|(_, ids)| ids.subject.clone()).collect();
        let kept = kept.into_iter().filter(|(_, ids)| !keyed.contains(&ids.subject));
        own.extend(kept.map(|(column, ids)| shown_of(&apart, &pii, &column, ids)));
    }
    let mut tables = Vec::new();
    for (name, columns) in columns {
        let providers = context.standing_for(&name);
        if !providers.is_empty() {
            let personal = personal(context, &name).await?;
            tables.push(Keyed { name, providers, columns, personal });
        }
    }
    Ok(tables)
}

/// What a table that shows identifiers has of the ids in a column of the table that keeps them
/// apart: of one of its own, as pseudonyms, the same ids, and of another one none, though its rows
/// are of the same persons.
fn shown_of(apart: &ObjectName, pii: &Pii, column: &str, ids: Ids) -> (String, Ids) {
    if !pii.has(column) {
        // None of its columns is called so.
        return (ids.from.to_string(), ids);
    }
    let column = Pii::pseudonym_of(column);
    let from = SubjectKey { table: apart.clone(), column: column.clone() };
    (column, Ids { from, ..ids })
}

/// The id of the first generation of each key that a statement may call.
pub(super) async fn first_generations(
    context: &StatementContext,
) -> Result<BTreeMap<String, String>> {
    let keys = context.engine().catalog().keys().await?;
    let first = keys.into_iter().filter_map(|key| {
        let first = key.generations.into_iter().next_back()?;
        Some((key.name, first.id))
    });
    Ok(first.collect())
}

/// Whether ids are in a column that is known as a key of theirs anyway.
fn is_key(subjects: &[Subject], place: &SubjectKey, ids: &Ids) -> bool {
    let is_plain = ids.by.as_ref().is_some_and(Vec::is_empty);
    let subject = subjects.iter().find(|subject| subject.name == ids.subject);
    is_plain
        && subject.is_some_and(|subject| match subject.is_entity(&ids.root) {
            true => subject.is_entity(place),
            false => subject.is_record(place),
        })
}

/// Ids of one reading of a table of which nothing is left in the rows of its persons: one of each
/// subject.
fn lost<'a>(
    table: &'a Keyed,
    reading: usize,
    persons: &Persons,
    outputs: &[(&String, &Held)],
) -> Vec<&'a Ids> {
    if !outputs.iter().any(|(_, held)| held.readings.contains(&reading)) {
        return vec![];
    }
    let subjects: BTreeSet<&str> =
        table.columns.iter().map(|(_, ids)| ids.subject.as_str()).collect();
    let columns: Vec<&Held> = outputs.iter().map(|(_, held)| *held).collect();
    let lost = subjects.into_iter();
    lost.filter_map(|subject| missing(table, reading, subject, persons, &columns)).collect()
}

/// What comes into a table, beside what is known of it.
fn coming<'a>(
    target: Target<'a>,
    subjects: &'a [Subject],
    known: &'a [(ObjectName, CopiedKey)],
    tables: &'a [Keyed],
    persons: &'a Persons,
    outputs: &'a [(&'a String, &'a Held)],
) -> Coming<'a> {
    let into = match target {
        Target::Made(_) => None,
        Target::Changed(name) | Target::Told(name) => Some(name),
    };
    let is_into = |table: &ObjectName| into == Some(table);
    let held = known.iter().filter(|(table, copy)| is_into(table) && copy.column.is_some());
    let held = held.map(|(_, copy)| copy);
    let counts = |copy: &&CopiedKey| subjects.iter().any(|subject| subject.counts(copy));
    let keyed = subjects.iter().filter(|subject| subject.tables().into_iter().any(is_into));
    let keyed = keyed.map(|subject| subject.name.as_str()).collect();
    Coming { tables, persons, outputs, into, held: held.filter(counts).collect(), keyed }
}

/// The refusal of rows of single persons that say nothing of whose they are; `by`: the column with
/// personal data that makes them persons'.
fn nobodys(target: &ObjectName, ids: &Ids, by: Option<&String>) -> Error {
    let way_out = "keep that column, aggregate the rows, divide windows by it, use anonymize or \
                   differential privacy, or ask who administers policies to DECLASSIFY the copy";
    let hint = match by {
        None => way_out.to_owned(),
        Some(by) => format!(
            "{by} holds personal data, which tells persons apart as {key} does: keep {key}, or \
             count the values of {by} and group by other columns",
            key = ids.from.column
        ),
    };
    Error::Unsupported {
        what: format!(
            "{target} would hold rows of persons of {} without its column {}, by which a {} who \
             asks for them is found",
            ids.from.table, ids.from.column, ids.subject
        ),
        hint: Some(hint),
    }
}

/// The making of a table, of which is said what it holds before anybody sees it.
#[derive(Debug)]
pub(crate) struct Making {
    table: ObjectName,
    copies: BTreeSet<CopiedKey>,
    /// What was not known of a table of this name.
    added: BTreeSet<CopiedKey>,
}

impl Making {
    /// Says what a table is going to hold.
    ///
    /// # Errors
    /// When the warehouse cannot be read or written.
    pub(crate) async fn begin(
        catalog: &Catalog,
        table: &ObjectName,
        copies: &Copies,
    ) -> Result<Self> {
        let Copies(copies) = copies;
        let added = catalog.announce_copies(table, copies).await?;
        Ok(Self { table: table.clone(), copies: copies.clone(), added })
    }

    /// The table is there.
    pub(crate) async fn made(self, catalog: &Catalog) {
        if let Err(error) = catalog.settle_copies(&self.table, &self.copies).await {
            // What was announced holds still, and what a table of the name held before.
            tracing::warn!(table = %self.table, %error, "what a table held before stays known");
        }
    }

    /// The table was not made, for this reason or because it was there.
    pub(crate) async fn failed(self, catalog: &Catalog, error: Option<&Error>) {
        // A table that may be there after all stays known for what it may hold.
        if error.is_some_and(|error| error.class() == Class::Unavailable) {
            return;
        }
        if let Err(error) = catalog.withdraw_copies(&self.table, &self.added).await {
            tracing::warn!(table = %self.table, %error, "copies that did not come stay known");
        }
    }
}
