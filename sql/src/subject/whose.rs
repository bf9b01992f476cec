//! Whose the rows of a plan are.

use std::collections::BTreeSet;

use catalog::ObjectName;
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::Expr;

use super::ids::{Held, Ids};

/// Whose the rows of a plan are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Persons {
    /// The readings of tables with keys of which each row is one row, or of one person.
    pub(super) readings: BTreeSet<(usize, ObjectName)>,
    /// Readings that ids of another one tell the persons of, and the column of these ids: they are
    /// equal.
    pub(super) told_by: BTreeSet<(usize, (usize, String))>,
    /// Readings with ids that are equal to a column of a query around.
    pub(super) outer: BTreeSet<(usize, Column)>,
    /// Readings of what windows gather, which no row of their table stands for.
    pub(super) apart: BTreeSet<usize>,
    /// The columns with personal data by which alone groups of a reading are persons'.
    pub(super) divided: BTreeSet<(usize, String)>,
}

impl Persons {
    /// Whether ids tell whose the rows of a reading are.
    pub(super) fn are_told(&self, reading: usize, by: &Ids) -> bool {
        (by.reading == reading && !by.is_partial) || self.told_by.contains(&(reading, by.origin()))
    }

    pub(super) fn add(&mut self, other: Self) {
        self.readings.extend(other.readings);
        self.told_by.extend(other.told_by);
        self.outer.extend(other.outer);
        self.apart.extend(other.apart);
        self.divided.extend(other.divided);
    }

    /// The query around is this one.
    pub(super) fn bind(&mut self, schema: &DFSchema, from: &[Held]) {
        for (reading, column) in std::mem::take(&mut self.outer) {
            match schema.maybe_index_of_column(&column).and_then(|at| from.get(at)) {
                Some(held) => {
                    self.told_by.extend(held.ids.iter().map(|ids| (reading, ids.origin())));
                }
                None => {
                    self.outer.insert((reading, column));
                }
            }
        }
    }

    /// Ids are equal to what may be a column of a query around.
    pub(super) fn are_outer(&mut self, ids: &BTreeSet<Ids>, expr: &Expr) {
        if let Some(column) = outer_of(expr) {
            self.outer.extend(ids.iter().map(|ids| (ids.reading, column.clone())));
        }
    }

    /// Of groups: they are a person's where an id makes them.
    pub(super) fn group(&mut self, keys: &[Held]) {
        let readings = std::mem::take(&mut self.readings).into_iter();
        let is_told = |reading: usize| {
            keys.iter().flat_map(|held| &held.ids).any(|ids| self.are_told(reading, ids))
        };
        self.readings = readings.filter(|(reading, _)| is_told(*reading)).collect();
    }

    /// Groups that no id makes are persons' all the same where personal data makes them.
    pub(super) fn divide(&mut self, keys: &[Held], groups: &BTreeSet<(usize, ObjectName)>) {
        for (reading, column) in keys.iter().flat_map(|held| &held.personal) {
            if let Some(group) = groups.iter().find(|(group, _)| group == reading) {
                self.readings.insert(group.clone());
                self.divided.insert((*reading, column.clone()));
            }
        }
    }
}

fn outer_of(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::OuterReferenceColumn(_, column) => Some(column),
        Expr::Alias(alias) => outer_of(&alias.expr),
        Expr::Cast(cast) => outer_of(&cast.expr),
        _ => None,
    }
}
