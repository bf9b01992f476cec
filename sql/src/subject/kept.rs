//! Which columns have the ids of all persons in a table's rows, and which of some alone.
//!
//! Rows of a person may leave ids out as long as one is left by which every one of them is found.
//! That is a key, or a column that was made of ids in all rows. What UPDATE, MERGE or INSERT bring
//! into another column of rows that are there is searched too, and tells of those rows alone: in
//! the others something else is there.

use std::collections::BTreeSet;

use catalog::ObjectName;
use catalog::subject_copies::CopiedKey;

use super::ids::{Held, Ids};
use super::lineage::Keyed;
use super::whose::Persons;

/// Tells of the columns with ids of one table which of them are partial. Where only one column has
/// ids, persons' rows are those that it tells of, whatever is known of it.
pub(super) fn tell_partial(columns: &mut [(String, Ids)]) {
    let is_copy = |ids: &Ids| ids.from != ids.root;
    let place = |column: &str, ids: &Ids| (ids.subject.clone(), column.to_owned());
    let partial: BTreeSet<(String, String)> = columns
        .iter()
        .filter(|(_, ids)| ids.is_partial)
        .map(|(column, ids)| place(column, ids))
        .collect();
    for (column, ids) in columns.iter_mut().filter(|(_, ids)| is_copy(ids)) {
        ids.is_partial = partial.contains(&place(column, ids));
    }
    let subjects: BTreeSet<String> = columns.iter().map(|(_, ids)| ids.subject.clone()).collect();
    for subject in subjects {
        let of_subject = columns.iter().filter(|(_, ids)| ids.subject == subject);
        let findable = of_subject.filter(|(_, ids)| ids.by.is_some());
        let names: BTreeSet<&String> = findable.map(|(column, _)| column).collect();
        let only = match names.len() {
            1 => names.first().map(|name| (*name).clone()),
            _ => None,
        };
        let Some(only) = only else { continue };
        let of_only =
            |(column, ids): &&mut (String, Ids)| *column == only && ids.subject == subject;
        columns.iter_mut().filter(of_only).for_each(|(_, ids)| ids.is_partial = false);
    }
}

/// The ids of a subject that columns lack to find each row of a reading of a table; none where
/// they find all. Where no column of the table has them all, each has to be there.
pub(super) fn missing<'a>(
    table: &'a Keyed,
    reading: usize,
    subject: &str,
    persons: &Persons,
    columns: &[&Held],
) -> Option<&'a Ids> {
    let left = columns.iter().flat_map(|held| held.left());
    let left: Vec<&Ids> = left.filter(|left| left.subject == subject).collect();
    if left.iter().any(|left| persons.are_told(reading, left)) {
        return None;
    }
    let of_subject = || {
        let ids = table.columns.iter().map(|(_, ids)| ids);
        ids.filter(move |ids| ids.subject == subject && ids.by.is_some())
    };
    let is_left = |ids: &Ids| {
        let mut left = left.iter().filter(|left| left.reading == reading);
        left.any(|left| left.from.column == ids.from.column)
    };
    let whole = of_subject().find(|ids| !ids.is_partial);
    whole.or_else(|| of_subject().find(|ids| !is_left(ids)))
}

/// What comes into a table, and what is known of it.
pub(super) struct Coming<'a> {
    pub(super) tables: &'a [Keyed],
    pub(super) persons: &'a Persons,
    /// The columns that are written.
    pub(super) outputs: &'a [(&'a String, &'a Held)],
    /// The table, where it is there and its own rows stay.
    pub(super) into: Option<&'a ObjectName>,
    /// What the table is known to hold.
    pub(super) held: Vec<&'a CopiedKey>,
    /// The subjects that have a key in it.
    pub(super) keyed: BTreeSet<&'a str>,
}

impl Coming<'_> {
    /// What a table holds as copies, each marked as whole or not, given whether it may be, and
    /// those of its columns that are whole no more.
    pub(super) fn marked(&self, made: Vec<(CopiedKey, bool)>) -> BTreeSet<CopiedKey> {
        let place = |copy: &CopiedKey| (copy.subject.clone(), copy.column.clone());
        let is_part = |copy: &CopiedKey, may_be_whole: bool| {
            !may_be_whole || !self.is_whole(&copy.subject, copy.column.as_deref(), copy)
        };
        let parts = made.iter().filter(|(copy, may_be_whole)| is_part(copy, *may_be_whole));
        let parts: BTreeSet<_> = parts.map(|(copy, _)| place(copy)).collect();
        let mut marked: BTreeSet<CopiedKey> = made
            .into_iter()
            .map(|(copy, _)| CopiedKey { is_whole: !parts.contains(&place(&copy)), ..copy })
            .collect();
        let whole = self.held.iter().filter(|copy| copy.is_whole);
        let ended = whole.filter(|copy| {
            let column = copy.column.as_deref();
            parts.contains(&place(copy)) || column.is_some_and(|of| !self.tells(&copy.subject, of))
        });
        for copy in ended {
            marked.remove(*copy);
            marked.insert(CopiedKey { is_whole: false, ..(*copy).clone() });
        }
        marked
    }

    fn is_whole(&self, subject: &str, column: Option<&str>, copy: &CopiedKey) -> bool {
        let Some(column) = column else { return false };
        if self.into.is_some() {
            let mut held = self.held.iter().filter(|held| held.subject == subject).peekable();
            let is_known = held.peek().is_some();
            let mut own = held.filter(|held| held.column.as_deref() == Some(column)).peekable();
            let stays = own.peek().is_some() && own.all(|held| held.is_whole);
            // Rows of before are persons' where ids were in the table.
            if self.keyed.contains(subject) || (is_known && !stays) {
                return false;
            }
        }
        // By what cannot be looked for nobody is found; the table is named for it.
        (self.into.is_none() && copy.by.is_none()) || self.tells(subject, column)
    }

    /// Whether a column tells whose each row is that comes.
    fn tells(&self, subject: &str, column: &str) -> bool {
        let mut outputs = self.outputs.iter();
        let Some((_, held)) = outputs.find(|(name, _)| *name == column) else { return true };
        let comes =
            |reading: &usize| self.outputs.iter().any(|(_, held)| held.readings.contains(reading));
        let mut read = self.persons.readings.iter().filter(|(reading, _)| comes(reading));
        read.all(|(reading, name)| {
            let table = self.tables.iter().find(|table| table.name == *name);
            table.is_none_or(|table| {
                missing(table, *reading, subject, self.persons, &[*held]).is_none()
            })
        })
    }
}
