//! What conditions do to rows: which they pick, of which they leave few, and which rows of tables
//! that are not governed they find.
//!
//! `v = (SELECT max(v) …)` and `row_number() … = 1` leave one row, so that a sum is its value. A
//! comparison with counts, sums and means of all rows does not, and neither does one with a value
//! of the same person. `d.song = b.song` makes all of `d` follow the person of `b`: which of its
//! rows is shown says what is in the row of `b`.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Operator};

use super::{Side, Walk};
use crate::policy::held::{Held, named};
use crate::policy::ties::{Origin, Ties};
use crate::subqueries::subquery;

/// What expressions name.
#[derive(Default)]
pub(super) struct Asked {
    /// The readings of which they say anything at all.
    pub(super) near: BTreeSet<usize>,
    /// The governed ones of whose rows they have values.
    values: BTreeSet<usize>,
    /// Those of which they have values of single rows, as these are.
    pub(super) rows: BTreeSet<usize>,
    /// What they name that is told of rows together: of which readings, in which groups.
    pub(super) told: Vec<BTreeMap<usize, BTreeSet<Option<Origin>>>>,
    /// How many columns and values of sub-queries they name.
    pub(super) named: usize,
    /// Those among whose rows they have places.
    pub(super) places: BTreeSet<usize>,
    /// Whether one of the values is a single one.
    is_single: bool,
    /// Whether one is of other rows of the same reading.
    is_of_others: bool,
    /// Whether one is of a row of a query around.
    is_outer: bool,
}

impl Asked {
    fn add(&mut self, held: &Held, ties: &Ties) {
        self.near.extend(&held.near);
        self.values.extend(values(held, ties));
        self.tell(held);
        self.places.extend(&held.places);
        self.is_single |= !held.one.is_empty();
        self.is_of_others |= held.is_of_others;
    }

    /// What may be a single value, for there is but one row of it, is as the value of a row.
    fn tell(&mut self, held: &Held) {
        for readings in [&held.rows, &held.cut, &held.one] {
            self.rows.extend(readings);
        }
        if !held.told.is_empty() {
            self.told.push(held.told.clone());
        }
        self.named += 1;
    }

    /// Adds what a sub-query gives. Of EXISTS it is nothing: what that compares says so itself.
    fn add_query(&mut self, asking: &Expr, inner: &[Held], ties: &Ties) {
        for held in inner {
            self.near.extend(&held.near);
            match asking {
                Expr::ScalarSubquery(_) => self.tell(held),
                _ => {
                    self.rows.extend(&held.near);
                    self.named += 1;
                }
            }
            let given = values(held, ties);
            let is_some = !held.one.is_empty()
                || !held.cut.is_empty()
                || given.iter().any(|reading| ties.is_few(*reading));
            let is_meant = match asking {
                Expr::Exists(_) => false,
                Expr::InSubquery(_) => is_some,
                _ => true,
            };
            if is_meant && !given.is_empty() {
                self.values.extend(given);
                self.is_single = true;
                self.is_of_others |= held.is_of_others;
            }
        }
    }
}

/// The readings of which something has values, or what may be one.
fn values(held: &Held, ties: &Ties) -> BTreeSet<usize> {
    let alone = held.told.iter();
    let alone = alone.filter(|(reading, by)| by.contains(&None) || ties.is_few(**reading));
    held.rows.iter().copied().chain(alone.map(|(reading, _)| *reading)).collect()
}

impl Walk<'_> {
    /// Rows are picked by what these expressions are made of together.
    pub(super) fn pick<'e>(
        &self,
        exprs: impl IntoIterator<Item = &'e Expr>,
        schema: &DFSchema,
        from: &[Held],
    ) -> Result<()> {
        self.ties.pick(&self.near(exprs, schema, from)?);
        Ok(())
    }

    /// The same for a condition of rows, which leaves those that it holds for.
    pub(super) fn choose(
        &self,
        exprs: &[&Expr],
        schema: &DFSchema,
        columns: &mut [Held],
        join: Option<(JoinType, usize)>,
    ) -> Result<()> {
        let mut asked = self.asked(exprs.iter().copied(), schema, columns)?;
        // Rows that meet none stay, with NULL beside them.
        asked.is_outer |= join.is_some_and(|(kind, _)| kind != JoinType::Inner);
        self.ties.pick(&asked.near);
        let is_span = match exprs {
            [expr] => join.is_none() && self.is_span(expr, schema, columns),
            _ => false,
        };
        if !is_span {
            self.leave(&asked, false);
        }
        self.find(exprs, schema, columns)
    }

    /// The readings of which conditions say anything, that may leave few rows.
    pub(super) fn weighed<'e>(
        &self,
        exprs: impl IntoIterator<Item = &'e Expr>,
        schema: &DFSchema,
        from: &[Held],
    ) -> Result<BTreeSet<usize>> {
        let mut near = BTreeSet::new();
        for expr in exprs {
            let asked = self.asked([expr], schema, from)?;
            if !self.is_span(expr, schema, from) {
                self.leave(&asked, self.is_equality(expr, schema, from));
            }
            near.extend(asked.near);
        }
        Ok(near)
    }

    fn is_equality(&self, expr: &Expr, schema: &DFSchema, from: &[Held]) -> bool {
        let Expr::BinaryExpr(binary) = expr else { return false };
        let is_side = |side: &Expr| self.side(side, schema, from).is_some();
        binary.op == Operator::Eq && is_side(&binary.left) && is_side(&binary.right)
    }

    /// Few rows may be left where these are compared with a place, with a single value of other
    /// rows, or, otherwise than by `=`, with rows of a query around: `NOT EXISTS (… q.v > t.v)`.
    pub(super) fn leave(&self, asked: &Asked, is_equality: bool) {
        self.ties.leave(&asked.places);
        let compares = asked.is_single || (asked.is_outer && !is_equality);
        if asked.is_of_others || (compares && asked.values.len() > 1) {
            self.ties.leave(&asked.values);
        }
    }

    /// The readings of which expressions say anything at all.
    pub(super) fn near<'e>(
        &self,
        exprs: impl IntoIterator<Item = &'e Expr>,
        schema: &DFSchema,
        from: &[Held],
    ) -> Result<BTreeSet<usize>> {
        Ok(self.asked(exprs, schema, from)?.near)
    }

    /// What expressions name.
    pub(super) fn asked<'e>(
        &self,
        exprs: impl IntoIterator<Item = &'e Expr>,
        schema: &DFSchema,
        from: &[Held],
    ) -> Result<Asked> {
        let mut asked = Asked::default();
        for expr in exprs {
            expr.apply(|part| {
                match part {
                    Expr::Column(column) => asked.add(&named(column, schema, from), self.ties),
                    Expr::OuterReferenceColumn(_, column) => {
                        // Of a sub-query it may be a column of these rows.
                        if schema.maybe_index_of_column(column).is_some() {
                            asked.near.extend(named(column, schema, from).near);
                        }
                        let outer = self.outer(column);
                        asked.is_outer |= !outer.rows.is_empty();
                        asked.add(&outer, self.ties);
                    }
                    other => {
                        if let Some(sub) = subquery(other) {
                            let inner = self.within(&sub.subquery, schema, from)?;
                            asked.add_query(other, &inner, self.ties);
                            let around = self.near(&sub.outer_ref_columns, schema, from)?;
                            asked.near.extend(around);
                        }
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(asked)
    }

    /// Two columns are equal: rows of a table that is not governed are found by those of one that
    /// is. Of two readings that are equal to the same column of it, each has the value of both.
    /// Says whether a governed one looks them up by nothing but this column.
    pub(super) fn equate(
        &self,
        one: &Side,
        other: &Side,
        columns: &mut [Held],
        join: Option<(JoinType, usize)>,
    ) -> bool {
        let mut looks_up = false;
        for (free, by) in [(one, other), (other, one)] {
            if let (Some(is), Some(of)) = (&free.held.equal, &by.held.column) {
                self.ties.share_columns(is, of);
            }
            if let (Some(is), Some(of)) = (&free.held.equal, &by.held.equal) {
                self.ties.share_columns(is, of);
            }
        }
        let [free, free_other] = [one, other].map(|side| free_readings(&side.held, columns));
        if !free.is_empty() && !free_other.is_empty() {
            self.ties.find_each_other(&(&free | &free_other));
        }
        for (free, by) in [(one, other), (other, one)] {
            let Some(at) = free.at else { continue };
            let found = finders(&by.held);
            let readings = free_readings(&free.held, columns);
            if found.is_empty() || readings.is_empty() {
                continue;
            }
            looks_up |= is_beside(at, join) && look_up(&free.held, &by.held, columns);
            found_by(&self.ties.found_with(&readings), &found, columns);
            let of = by.held.column.as_ref().or(by.held.equal.as_ref());
            if let (Some(held), Some(of)) = (columns.get_mut(at), of)
                && held.equal.is_none()
            {
                held.equal = Some(of.clone());
            }
        }
        looks_up
    }

    /// The same for what else is compared: by which columns rows are found, it does not say.
    fn find(&self, exprs: &[&Expr], schema: &DFSchema, columns: &mut [Held]) -> Result<()> {
        let (mut by, mut readings) = (BTreeSet::new(), BTreeSet::new());
        let from: &[Held] = columns;
        for expr in exprs {
            expr.apply(|part| {
                match part {
                    Expr::Column(column) => {
                        let held = named(column, schema, from);
                        readings.extend(free_readings(&held, from));
                        by.extend(finders(&held).into_keys());
                    }
                    Expr::OuterReferenceColumn(_, column) => {
                        by.extend(finders(&self.outer(column)).into_keys());
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        let found = by.into_iter().map(|reading| (reading, BTreeSet::from([None])));
        self.ties.find_each_other(&readings);
        found_by(&self.ties.found_with(&readings), &found.collect(), columns);
        Ok(())
    }
}

/// The readings whose rows find those that are compared with something, and by which columns.
fn finders(held: &Held) -> BTreeMap<usize, BTreeSet<Option<Origin>>> {
    let mut found = held.via.clone();
    for reading in &held.rows {
        found.entry(*reading).or_default().insert(held.column.clone());
    }
    found
}

/// The readings of tables that are not governed of which something is.
fn free_readings(held: &Held, columns: &[Held]) -> BTreeSet<usize> {
    if !is_free(held) {
        return BTreeSet::new();
    }
    let is_governed = |reading: &usize| {
        let mut all = columns.iter();
        all.any(|held| held.rows.contains(reading) || held.key == Some(*reading))
    };
    held.near.iter().copied().filter(|reading| !is_governed(reading)).collect()
}

fn is_free(held: &Held) -> bool {
    held.rows.is_empty() && held.told.is_empty()
}

/// Whether rows of a side of a join are there only beside those of the other one.
fn is_beside(at: usize, join: Option<(JoinType, usize)>) -> bool {
    match join {
        None | Some((JoinType::Inner, _)) => true,
        Some((JoinType::Left, width)) => at >= width,
        Some((JoinType::Right, width)) => at < width,
        Some(_) => false,
    }
}

/// Columns of a table that is not governed are what a column of a governed one looks up there,
/// where nothing has found them yet. Says whether they are.
fn look_up(free: &Held, by: &Held, columns: &mut [Held]) -> bool {
    let (Some(key), Some(of)) = (&free.free, &by.column) else { return false };
    let near = BTreeSet::from([key.reading]);
    if !is_new(free, &near) {
        return false;
    }
    for held in columns.iter_mut().filter(|held| is_new(held, &near)) {
        held.looked = held.free.as_ref().map(|own| Origin {
            reading: of.reading,
            table: of.table.clone(),
            column: format!(
                "lookup({:?}, {}, {}, {})",
                own.table, own.column, key.column, of.column
            ),
        });
    }
    true
}

/// Whether something is of this reading alone, and nothing has found it yet.
fn is_new(held: &Held, near: &BTreeSet<usize>) -> bool {
    held.via.is_empty() && held.near == *near
}

/// All columns of these readings are of rows that are found so.
fn found_by(
    readings: &BTreeSet<usize>,
    found: &BTreeMap<usize, BTreeSet<Option<Origin>>>,
    columns: &mut [Held],
) {
    let is_of = |held: &&mut Held| is_free(held) && !held.near.is_disjoint(readings);
    for held in columns.iter_mut().filter(is_of) {
        // Found by something else as well, it is more than the one column looks up.
        if !held.via.is_empty() && !found.is_empty() {
            held.looked = None;
        }
        for (reading, by) in found {
            held.via.entry(*reading).or_default().extend(by.iter().cloned());
        }
    }
}
