//! What ties the readings of tables to each other: where a condition compares columns of two, it
//! picks rows of the one by rows of the other.
//!
//! Rows of a governed table that are joined `=` on the same column of it are no such pick: each row
//! is among those that it meets, as it is in its part of a window that is divided by that column.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::JoinType;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::held::Held;
use crate::operators::is_comparison;

/// How many steps a search for a way takes; after these there may be one.
const STEPS_MAX: usize = 1000;

/// A column of a table, as one reading gives it, or what is made of columns of the same row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    pub(super) reading: usize,
    pub(super) table: String,
    /// Its name in quotes, or how it is made: the same only of what is made alike.
    pub(super) column: String,
}

impl Origin {
    /// Whether two readings give the same column.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.table == other.table && self.column == other.column
    }
}

/// The readings of a plan, and what ties them.
#[derive(Default)]
pub(super) struct Ties {
    /// How often tables were read so far.
    readings: Cell<usize>,
    /// Whether what ties two readings picks rows.
    links: RefCell<BTreeMap<usize, BTreeMap<usize, bool>>>,
    /// The columns that are equal to the same ones of other readings, and these.
    shared: RefCell<BTreeMap<Origin, BTreeSet<usize>>>,
    /// The readings of whose rows a comparison with others leaves few, maybe one.
    few: RefCell<BTreeSet<usize>>,
    /// Of readings of tables that are not governed, those whose rows find theirs.
    free: RefCell<BTreeMap<usize, BTreeSet<usize>>>,
}

impl Ties {
    pub(super) fn next_reading(&self) -> usize {
        let reading = self.readings.get() + 1;
        self.readings.set(reading);
        reading
    }

    /// Rows that are of no table may pick others as those of a table do.
    pub(super) fn stand(&self, columns: &mut [Held]) {
        let reading = BTreeSet::from([self.next_reading()]);
        for held in columns {
            self.agree(&reading, &held.near);
            held.near.clone_from(&reading);
        }
    }

    /// Rows of one reading are those that rows of another one agree with.
    pub(super) fn agree(&self, one: &BTreeSet<usize>, other: &BTreeSet<usize>) {
        for (from, to) in one.iter().flat_map(|from| other.iter().map(move |to| (*from, *to))) {
            self.link(from, to, false);
        }
    }

    /// Rows of each of these readings are picked by rows of the others.
    pub(super) fn pick(&self, readings: &BTreeSet<usize>) {
        for (from, to) in readings.iter().flat_map(|from| readings.iter().map(move |to| (from, to)))
        {
            self.link(*from, *to, true);
        }
    }

    fn link(&self, one: usize, other: usize, picks: bool) {
        if one == other {
            return;
        }
        let mut links = self.links.borrow_mut();
        for (from, to) in [(one, other), (other, one)] {
            *links.entry(from).or_default().entry(to).or_default() |= picks;
        }
    }

    /// Two columns are equal: says whether they are the same one of two readings.
    pub(super) fn share(&self, one: &Held, other: &Held) -> bool {
        match (&one.column, &other.column) {
            (Some(one), Some(other)) => self.share_columns(one, other),
            _ => false,
        }
    }

    /// The same where the same columns look them up in the same table.
    pub(super) fn share_looked(&self, one: &Held, other: &Held) -> bool {
        match (&one.looked, &other.looked) {
            (Some(one), Some(other)) => self.share_columns(one, other),
            _ => false,
        }
    }

    /// The same of two columns of governed tables.
    pub(super) fn share_columns(&self, one: &Origin, other: &Origin) -> bool {
        if !one.is_same(other) || one.reading == other.reading {
            return false;
        }
        let mut shared = self.shared.borrow_mut();
        shared.entry(one.clone()).or_default().insert(other.reading);
        shared.entry(other.clone()).or_default().insert(one.reading);
        true
    }

    /// Rows of these readings, of tables that are not governed, find each other's.
    pub(super) fn find_each_other(&self, readings: &BTreeSet<usize>) {
        let mut free = self.free.borrow_mut();
        for reading in readings {
            free.entry(*reading).or_default().extend(readings);
        }
    }

    /// These readings of such tables, and all whose rows are found with theirs.
    pub(super) fn found_with(&self, readings: &BTreeSet<usize>) -> BTreeSet<usize> {
        let free = self.free.borrow();
        let (mut all, mut new) = (readings.clone(), readings.clone());
        while let Some(reading) = new.pop_first() {
            let found = free.get(&reading).into_iter().flatten().copied();
            new.extend(found.filter(|reading| all.insert(*reading)));
        }
        all
    }

    /// Of rows of these readings few may be left: those of a place, or that equal a single value.
    pub(super) fn leave(&self, readings: &BTreeSet<usize>) {
        self.few.borrow_mut().extend(readings);
    }

    /// Whether few rows of a reading may be left.
    pub(super) fn is_few(&self, reading: usize) -> bool {
        self.few.borrow().contains(&reading)
    }

    /// Whether a column is equal to the same one of one of these readings.
    pub(super) fn is_shared(&self, column: &Origin, with: &BTreeSet<usize>) -> bool {
        let shared = self.shared.borrow();
        shared.get(column).is_some_and(|readings| !readings.is_disjoint(with))
    }

    /// Whether rows of a reading may be picked by rows of one of others.
    pub(super) fn is_picked(&self, reading: usize, by: &BTreeSet<usize>) -> bool {
        let links = self.links.borrow();
        let mut search = Search { links: &links, goal: reading, steps: 0, passed: BTreeSet::new() };
        by.iter().any(|from| search.finds(*from, false))
    }
}

/// Whether two sides that a condition says to be equal are so in all rows, or NULL in some; `None`
/// where the condition does not hold for all rows that have both.
pub(super) fn is_always(
    one: Option<usize>,
    other: Option<usize>,
    join: Option<(JoinType, usize)>,
) -> Option<bool> {
    let Some((kind, width)) = join.filter(|(kind, _)| *kind != JoinType::Inner) else {
        return Some(true);
    };
    let (one_left, other_left) = (one? < width, other? < width);
    match (one_left == other_left, kind) {
        (false, _) => Some(false),
        // Where the side is not met, both are NULL.
        (true, JoinType::Left) => (!one_left).then_some(true),
        (true, JoinType::Right) => one_left.then_some(true),
        (true, _) => None,
    }
}

/// Whether rows of a plan are of its own making: they stand for a reading of their own.
pub(super) fn is_of_no_table(plan: &LogicalPlan) -> bool {
    matches!(
        plan,
        LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::RecursiveQuery(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::Values(_)
    )
}

/// Whether a part of an expression is a condition, which gives no value of the rows that it names.
pub(super) fn is_condition(part: &Expr) -> bool {
    match part {
        Expr::BinaryExpr(binary) => is_comparison(binary.op),
        Expr::Between(_)
        | Expr::Exists(_)
        | Expr::InList(_)
        | Expr::InSubquery(_)
        | Expr::IsNotNull(_)
        | Expr::IsNull(_)
        | Expr::Like(_)
        | Expr::SetComparison(_)
        | Expr::SimilarTo(_) => true,
        _ => false,
    }
}

/// A search for a way to a reading on which something picks rows.
struct Search<'a> {
    links: &'a BTreeMap<usize, BTreeMap<usize, bool>>,
    goal: usize,
    steps: usize,
    passed: BTreeSet<usize>,
}

impl Search<'_> {
    fn finds(&mut self, at: usize, is_picked: bool) -> bool {
        if at == self.goal {
            return is_picked;
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return true;
        }
        self.passed.insert(at);
        let links = self.links;
        let mut next = links.get(&at).into_iter().flatten();
        let is_found = next
            .any(|(to, picks)| !self.passed.contains(to) && self.finds(*to, is_picked || *picks));
        self.passed.remove(&at);
        is_found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_at_the_end_of_a_way_picks_nothing_and_one_in_the_middle_does() {
        let ties = Ties::default();
        let own = BTreeSet::from([1]);
        ties.agree(&own, &BTreeSet::from([2]));
        ties.pick(&BTreeSet::from([1, 3]));
        ties.pick(&BTreeSet::from([2, 4]));
        assert!(!ties.is_picked(2, &own));
        assert!(ties.is_picked(4, &own));
        ties.pick(&BTreeSet::from([3, 4]));
        assert!(ties.is_picked(2, &own));
        assert!(!ties.is_picked(5, &own));
    }
}
