//! What a column of a plan holds of the rows of a governed table ([`super::beside`]).

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::{Column, DFSchema};

use super::ties::{Origin, Ties};

/// What a column holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    /// The readings of whose rows it may hold values.
    pub(super) rows: BTreeSet<usize>,
    /// Those of whose rows it tells something together, and by which columns these are in groups:
    /// none for a key that is no column of a governed table.
    pub(super) told: BTreeMap<usize, BTreeSet<Option<Origin>>>,
    /// The readings of whose rows only some are there, as LIMIT leaves them: a sum of these may be
    /// the value of one.
    pub(super) cut: BTreeSet<usize>,
    /// The readings of which it is a single value, as `max` without groups gives it: a sum of such
    /// ones is that value again.
    pub(super) one: BTreeSet<usize>,
    /// The readings among whose rows it tells the place of one, as `row_number` does.
    pub(super) places: BTreeSet<usize>,
    /// Of a table that is not governed: the readings whose rows find the row that it is of, and by
    /// which columns: none for what is no such column.
    pub(super) via: BTreeMap<usize, BTreeSet<Option<Origin>>>,
    /// Whether the values may be of other rows of a reading than the one whose row it is.
    pub(super) is_of_others: bool,
    /// The reading of whose rows it is what the policy decides by.
    pub(super) key: Option<usize>,
    /// Whether rows that agree in it are governed alike.
    pub(super) decides: bool,
    /// The readings that it is made of, of whichever tables.
    pub(super) near: BTreeSet<usize>,
    /// The column of a governed table that it is.
    pub(super) column: Option<Origin>,
    /// The column of a governed table that it is equal to, and is not.
    pub(super) equal: Option<Origin>,
    /// The column of a table that is not governed that it is, until a condition leaves some rows.
    pub(super) free: Option<Origin>,
    /// What a column of a governed table looks up in such a table.
    pub(super) looked: Option<Origin>,
}

impl Held {
    /// Adds what something else is computed of as well.
    pub(super) fn add(&mut self, other: &Self) {
        self.rows.extend(&other.rows);
        for (reading, by) in &other.told {
            self.told.entry(*reading).or_default().extend(by.iter().cloned());
        }
        for (reading, by) in &other.via {
            self.via.entry(*reading).or_default().extend(by.iter().cloned());
        }
        self.cut.extend(&other.cut);
        self.one.extend(&other.one);
        self.places.extend(&other.places);
        self.near.extend(&other.near);
        self.is_of_others |= other.is_of_others;
        self.forget_column();
        self.lose_key();
    }

    /// It is another value than that of the column.
    pub(super) fn forget_column(&mut self) {
        self.column = None;
        self.equal = None;
        self.free = None;
        self.looked = None;
    }

    pub(super) fn lose_key(&mut self) {
        self.key = None;
        self.decides = false;
    }

    pub(super) fn rename(&mut self, from: usize, to: usize) {
        for readings in [&mut self.rows, &mut self.cut, &mut self.one, &mut self.places] {
            if readings.remove(&from) {
                readings.insert(to);
            }
        }
        for readings in [&mut self.told, &mut self.via] {
            if let Some(by) = readings.remove(&from) {
                readings.entry(to).or_default().extend(by);
            }
        }
        if self.key == Some(from) {
            self.key = Some(to);
        }
    }

    /// It stands in one row: it is a single value, where it is not told of all rows together.
    pub(super) fn be_one(&mut self) {
        let divided = self.told.iter().filter(|(_, by)| !by.is_empty());
        self.one.extend(self.rows.iter().copied().chain(divided.map(|(reading, _)| *reading)));
    }

    /// What is told together is told of the groups that these keys make.
    pub(super) fn divide(&mut self, keys: &[Self]) {
        let keys = keys.iter().filter(|key| !key.near.is_empty());
        let by: BTreeSet<Option<Origin>> =
            keys.map(|key| key.column.clone().or_else(|| key.looked.clone())).collect();
        self.told.values_mut().for_each(|told| told.extend(by.iter().cloned()));
    }

    /// Whether it is made of a governed table.
    pub(super) fn is_governed(&self) -> bool {
        let is_found = !self.via.is_empty();
        self.key.is_some() || !self.rows.is_empty() || !self.told.is_empty() || is_found
    }
}

/// The rows of a query around another.
pub(super) struct Around<'a> {
    pub(super) schema: &'a DFSchema,
    pub(super) columns: &'a [Held],
    pub(super) beyond: Option<&'a Around<'a>>,
}

impl Around<'_> {
    /// What a column holds; all that there is, where none is called so.
    pub(super) fn held(&self, column: &Column) -> Held {
        let (mut all, mut around) = (Held::default(), Some(self));
        while let Some(rows) = around {
            if let Some(at) = rows.schema.maybe_index_of_column(column) {
                return rows.columns.get(at).cloned().unwrap_or_default();
            }
            rows.columns.iter().for_each(|held| all.add(held));
            around = rows.beyond;
        }
        all
    }
}

/// The readings of whose rows columns hold values.
pub(super) fn rows(columns: &[Held]) -> BTreeSet<usize> {
    columns.iter().flat_map(|held| &held.rows).copied().collect()
}

/// Of the rows that columns hold values of, or tell of together, only some are left.
pub(super) fn cut(mut columns: Vec<Held>) -> Vec<Held> {
    for held in &mut columns {
        held.cut.extend(held.rows.iter().chain(held.told.keys()));
        held.free = None;
    }
    columns
}

/// The only reading.
pub(super) fn sole(rows: &BTreeSet<usize>) -> Option<usize> {
    rows.first().copied().filter(|_| rows.len() == 1)
}

/// Columns of which those that tell of rows together hold values of these, where a row beside them
/// picks them, is not in all of the groups, or where only some of them are left: then they may be
/// one row. Without a row beside them they are nobody's. Values of a table that is not governed are
/// of the rows that find them, unless these do so by a value which the own row has too. Rows are
/// beside them of the readings of which there are values, and of these ones, of which a column says
/// whose a row is.
pub(super) fn settled(mut columns: Vec<Held>, mut own: BTreeSet<usize>, ties: &Ties) -> Vec<Held> {
    own.extend(rows(&columns));
    let mut from = own.clone();
    let plain = columns.iter().filter(|held| !held.rows.is_empty() || held.key.is_some());
    from.extend(plain.filter_map(|held| held.column.as_ref().map(|column| column.reading)));
    let is_in = |by: &Option<Origin>| {
        let is_in = |of: &Origin| from.contains(&of.reading) || ties.is_shared(of, &from);
        by.as_ref().is_some_and(is_in)
    };
    let is_value = |(reading, by): (&usize, &BTreeSet<Option<Origin>>)| {
        let is_told = own.is_empty() || own.contains(reading);
        let is_alone =
            !by.iter().all(is_in) || ties.is_picked(*reading, &from) || ties.is_few(*reading);
        (!is_told && is_alone).then_some(*reading)
    };
    let is_own = |by: &Option<Origin>| by.as_ref().is_some_and(|of| ties.is_shared(of, &own));
    let is_found = |(reading, by): (&usize, &BTreeSet<Option<Origin>>)| {
        (!own.contains(reading) && !by.iter().all(is_own)).then_some(*reading)
    };
    for held in &mut columns {
        held.rows.extend(held.told.iter().filter_map(is_value));
        held.rows.extend(held.via.iter().filter_map(is_found));
    }
    columns
}

/// What decides about rows is not there in all of them, where their side of a join may be not met
/// and the other side has values of theirs.
pub(super) fn lose_keys(columns: &mut [Held], beside: &[Held]) {
    let has =
        |key: usize| beside.iter().any(|held| held.rows.contains(&key) || held.key == Some(key));
    for held in columns.iter_mut().filter(|held| held.key.is_some_and(has)) {
        held.lose_key();
    }
}

/// A column that is always equal to what decides does so as well.
pub(super) fn learn(at: Option<usize>, key: usize, columns: &mut [Held]) {
    if let Some(held) = at.and_then(|at| columns.get_mut(at)) {
        held.key = Some(key);
        held.decides = true;
    }
}

/// What a named column holds; all that there is, where the name says no more.
pub(super) fn named(column: &Column, schema: &DFSchema, from: &[Held]) -> Held {
    let found = schema.maybe_index_of_column(column).and_then(|at| from.get(at));
    found.cloned().unwrap_or_else(|| {
        let mut all = Held::default();
        from.iter().for_each(|held| all.add(held));
        all
    })
}
