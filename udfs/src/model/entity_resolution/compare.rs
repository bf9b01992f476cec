//! Comparing two records, column by column: a level each, from no evidence to equal.
//!
//! Level 0: one of the two has no value. 1: the values differ. The last: they are equal. Between
//! them lie the degrees of likeness of the column's kind, of which the highest that holds counts.
//! Two columns of names that are swapped in one of the records (first name and surname) are as
//! close as with one slip of the pen.

use std::collections::HashMap;

use super::column::{Column, NONE};
use super::kind::Kind;
use super::records::Records;
use crate::fuzzy::kernel::{Pattern, Scratch};
use crate::privacy::bloom::dice;

/// The levels of a kind, from `else` up, each with the share of true matches that it may be
/// expected to have: where learning starts, and what it falls back to without evidence.
pub fn levels(kind: Kind) -> &'static [(&'static str, f64)] {
    match kind {
        Kind::Exact => &[("else", 0.08), ("exact", 0.92)],
        Kind::Name => &[
            ("else", 0.06),
            ("jaro_winkler >= 0.7", 0.03),
            ("jaro_winkler >= 0.85", 0.04),
            ("jaro_winkler >= 0.92 or one edit", 0.12),
            ("exact", 0.75),
        ],
        Kind::Text => &[
            ("else", 0.04),
            ("similarity >= 0.4", 0.05),
            ("similarity >= 0.6", 0.07),
            ("similarity >= 0.8", 0.14),
            ("exact", 0.7),
        ],
        Kind::Number => &[
            ("else", 0.06),
            ("within 0.5 deviations", 0.04),
            ("within 0.1 deviations", 0.05),
            ("exact", 0.85),
        ],
        Kind::Date => &[
            ("else", 0.05),
            ("two parts equal or two edits", 0.06),
            ("one edit or swapped", 0.09),
            ("exact", 0.8),
        ],
        Kind::Email => &[("else", 0.15), ("same name or one edit", 0.1), ("exact", 0.75)],
        Kind::Bloom => {
            &[("else", 0.06), ("dice >= 0.65", 0.05), ("dice >= 0.8", 0.1), ("exact", 0.79)]
        }
        Kind::Array => {
            &[("else", 0.15), ("a shared member", 0.1), ("jaccard >= 0.5", 0.15), ("exact", 0.6)]
        }
        Kind::Address => &[
            ("else", 0.08),
            ("same street", 0.06),
            ("same number, street alike", 0.08),
            ("same house", 0.13),
            ("exact", 0.65),
        ],
        Kind::Phone | Kind::Code => {
            &[("else", 0.08), ("two edits", 0.04), ("one edit", 0.08), ("exact", 0.8)]
        }
    }
}

/// How often others than matches have the levels of a kind, usually: what u is before there are
/// pairs to learn it from.
pub fn coincidences(kind: Kind) -> &'static [f64] {
    match kind {
        Kind::Exact => &[0.7, 0.3],
        Kind::Name => &[0.957, 0.02, 0.006, 0.012, 0.005],
        Kind::Text => &[0.974, 0.015, 0.005, 0.004, 0.002],
        Kind::Number => &[0.65, 0.2, 0.1, 0.05],
        Kind::Date => &[0.975, 0.02, 0.004, 0.001],
        Kind::Email => &[0.9989, 0.001, 0.0001],
        Kind::Phone => &[0.998, 0.0015, 0.0004, 0.0001],
        Kind::Code => &[0.96, 0.02, 0.015, 0.005],
        Kind::Bloom => &[0.965, 0.02, 0.01, 0.005],
        Kind::Array => &[0.95, 0.035, 0.01, 0.005],
        Kind::Address => &[0.983, 0.012, 0.002, 0.002, 0.001],
    }
}

/// Compares one record with others: what is prepared of its values is kept.
#[derive(Debug)]
pub struct Comparer<'a> {
    records: &'a Records,
    prepared: Vec<Prepared>,
    scratch: Scratch,
}

#[derive(Debug)]
struct Prepared {
    code: u32,
    pattern: Pattern,
}

impl<'a> Comparer<'a> {
    /// A comparer of records.
    pub fn new(records: &'a Records) -> Self {
        let none = |_: &Column| Prepared { code: NONE, pattern: Pattern::default() };
        let prepared = records.columns.iter().map(none).collect();
        Self { records, prepared, scratch: Scratch::default() }
    }

    /// The levels of two records, four bits a column, the first lowest.
    pub fn levels(&mut self, left: u32, right: u32) -> u64 {
        let columns = 0..self.records.columns.len();
        let levels = columns.fold(0, |all, at| all | self.level(at, left, right) << (4 * at));
        if self.records.may_be_swapped(left, right) {
            self.unswapped(levels, left, right)
        } else {
            levels
        }
    }

    /// The levels, with those of first name and surname raised where they are swapped.
    pub fn unswapped(&mut self, levels: u64, left: u32, right: u32) -> u64 {
        let Some(Swap { first: a, last: b, .. }) = self.records.swap else { return levels };
        if !is_low(levels, a) || !is_low(levels, b) {
            return levels;
        }
        let columns = &self.records.columns;
        let value = |column: usize, record: u32| {
            columns[column].values.get(columns[column].codes[record as usize])
        };
        let mut is_close = |one: &str, other: &str| {
            one == other || Pattern::new(one).osa(other, 1, &mut self.scratch).is_some()
        };
        let (x, y) = (value(a, left), value(b, left));
        if !is_close(x, value(b, right)) || !is_close(y, value(a, right)) {
            return levels;
        }
        let cleared = levels & !(15 << (4 * a)) & !(15 << (4 * b));
        cleared | CLOSE << (4 * a) | CLOSE << (4 * b)
    }

    /// The level of one column by itself.
    #[inline]
    pub fn level(&mut self, at: usize, left: u32, right: u32) -> u64 {
        let (a, b) = (self.records.row(left)[at], self.records.row(right)[at]);
        match () {
            () if a == NONE || b == NONE => 0,
            () if a == b => levels(self.records.columns[at].kind).len() as u64,
            () => self.unequal(at, a, b),
        }
    }

    /// The level of two different values.
    pub fn unequal(&mut self, at: usize, a: u32, b: u32) -> u64 {
        match self.records.columns[at].kind {
            Kind::Exact => 1,
            Kind::Bloom => {
                let bits = &self.records.columns[at].bits;
                let alike = dice(&bits[a as usize], &bits[b as usize]);
                1 + u64::from(alike >= 0.65) + u64::from(alike >= 0.8)
            }
            Kind::Number => number(&self.records.columns[at], a, b),
            Kind::Array => {
                let alike = self.records.columns[at].tokens.similarity(a, b);
                1 + u64::from(alike > 0.0) + u64::from(alike >= 0.5)
            }
            _ => self.text_level(at, a, b),
        }
    }

    fn text_level(&mut self, at: usize, a: u32, b: u32) -> u64 {
        let column = &self.records.columns[at];
        let prepared = &mut self.prepared[at];
        if prepared.code != a {
            prepared.pattern.reset(column.values.get(a));
            prepared.code = a;
        }
        let (pattern, scratch) = (&prepared.pattern, &mut self.scratch);
        let (left, right) = (column.values.get(a), column.values.get(b));
        match column.kind {
            Kind::Name => name(pattern, left, right, scratch),
            Kind::Address => {
                let alike = alike(column, (a, b), pattern, scratch);
                column.addresses[a as usize].level(column.addresses[b as usize], alike)
            }
            Kind::Text => {
                let alike = alike(column, (a, b), pattern, scratch);
                1 + u64::from(alike >= 0.4) + u64::from(alike >= 0.6) + u64::from(alike >= 0.8)
            }
            Kind::Date => date(pattern, left, right, scratch),
            Kind::Email => email(pattern, left, right, scratch),
            _ => match pattern.osa(right, 2, scratch) {
                Some(edits) if edits <= 1 => 3,
                Some(_) if left.len() > 4 => 2,
                _ => 1,
            },
        }
    }
}

/// How alike two texts are, by words or letters.
fn alike(column: &Column, (a, b): (u32, u32), pattern: &Pattern, scratch: &mut Scratch) -> f64 {
    // Letters decide where words do not: their comparison costs more.
    match column.tokens.similarity(a, b) {
        words if words < 0.1 => words,
        words if words >= 0.8 => words,
        words => words.max(pattern.ratio(column.values.get(b), scratch) * 1.5 - 0.5),
    }
}

fn name(pattern: &Pattern, left: &str, right: &str, scratch: &mut Scratch) -> u64 {
    let alike = pattern.jaro_winkler(right, scratch);
    let is_long = left.len().min(right.len()) > 3;
    match alike {
        alike if alike >= 0.92 => 4,
        alike if alike >= 0.7 && is_long && pattern.osa(right, 1, scratch).is_some() => 4,
        alike if alike >= 0.85 => 3,
        alike if alike >= 0.7 => 2,
        _ => 1,
    }
}

fn email(pattern: &Pattern, left: &str, right: &str, scratch: &mut Scratch) -> u64 {
    let local = |text: &str| text.split_once('@').map_or(text.len(), |(local, _)| local.len());
    let (a, b) = (local(left), local(right));
    match () {
        () if a > 3 && left[..a] == right[..b] => 2,
        () if pattern.osa(right, 1, scratch).is_some() => 2,
        // Addresses are made of names: what is like beyond that says no more than they do.
        () => 1,
    }
}

fn date(pattern: &Pattern, left: &str, right: &str, scratch: &mut Scratch) -> u64 {
    if let (Some(a), Some(b)) = (parts(left), parts(right)) {
        if a[0] == b[0] && a[1] == b[2] && a[2] == b[1] {
            return 3;
        }
        if pattern.osa(right, 1, scratch).is_some() {
            return 3;
        }
        if a.iter().zip(b).filter(|(x, y)| **x == *y).count() == 2 {
            return 2;
        }
    }
    match pattern.osa(right, 2, scratch) {
        Some(edits) => 4 - edits.max(1) as u64,
        None => 1,
    }
}

/// Year, month and day of `yyyymmdd`.
fn parts(text: &str) -> Option<[&str; 3]> {
    let is_date = text.len() == 8 && text.is_ascii();
    is_date.then(|| [&text[..4], &text[4..6], &text[6..]])
}

fn number(column: &Column, a: u32, b: u32) -> u64 {
    let apart = (column.numbers[a as usize] - column.numbers[b as usize]).abs();
    match () {
        () if apart <= 0.1 * column.deviation => 3,
        () if apart <= 0.5 * column.deviation => 2,
        () => 1,
    }
}

/// The level of names with one slip of the pen.
const CLOSE: u64 = 4;

/// Whether names differ by more than that.
#[inline]
fn is_low(levels: u64, column: usize) -> bool {
    (1..CLOSE as usize).contains(&level_of(levels, column))
}

/// Columns whose values may be swapped.
#[derive(Debug, Clone)]
pub struct Swap {
    /// The first name.
    pub first: usize,
    /// The surname.
    pub last: usize,
    /// The code among first names of each surname, [`NONE`] where none is so called.
    pub as_first: Vec<u32>,
}

impl Swap {
    /// A first name and a surname, when columns are called so.
    pub fn of(columns: &[Column]) -> Option<Self> {
        let find = |words: &[&str]| {
            let says = |column: &Column| is_called(column, words);
            columns.iter().position(|column| column.kind == Kind::Name && says(column))
        };
        let (first, last) = (find(&FIRST_NAMES)?, find(&LAST_NAMES)?);
        if first == last {
            return None;
        }
        let names: HashMap<&str, u32> = columns[first].values.iter().zip(0..).collect();
        let as_first = columns[last].values.iter();
        let as_first = as_first.map(|name| names.get(name).copied().unwrap_or(NONE)).collect();
        Some(Self { first, last, as_first })
    }
}

/// What columns of first names are called.
pub const FIRST_NAMES: [&str; 7] =
    ["firstname", "givenname", "forename", "vorname", "fname", "first", "given"];

/// What columns of surnames are called.
const LAST_NAMES: [&str; 7] =
    ["lastname", "surname", "familyname", "nachname", "lname", "last", "family"];

/// Whether a column is called so, whatever the case and the signs between words.
pub fn is_called(column: &Column, words: &[&str]) -> bool {
    let letters = column.name.chars().filter(|letter| letter.is_alphanumeric());
    let name: String = letters.flat_map(char::to_lowercase).collect();
    words.iter().any(|word| name == *word || (word.len() > 6 && name.contains(word)))
}

/// The level of a column in packed levels.
#[inline]
pub fn level_of(levels: u64, column: usize) -> usize {
    (levels >> (4 * column) & 15) as usize
}

#[cfg(test)]
mod tests {
    use super::super::column::Gatherer;
    use super::super::kind::Declared;
    use super::*;

    fn level(kind: Kind, left: &str, right: &str) -> u64 {
        let mut gatherer = Gatherer::default();
        gatherer.push(Some(left));
        gatherer.push(Some(right));
        let column = gatherer.finish("c", Declared::Text, Some(kind), &[0, 1], &[]);
        let records = Records::new(vec![column], vec![], 2);
        let mut comparer = Comparer::new(&records);
        assert_eq!(comparer.levels(0, 1), comparer.levels(1, 0));
        comparer.levels(0, 1)
    }

    #[test]
    fn levels_rise_with_likeness_and_no_value_is_no_evidence() {
        assert_eq!(level(Kind::Name, "Smith", "SMITH "), 5);
        assert_eq!(level(Kind::Name, "smith", "smiht"), 4);
        assert_eq!(level(Kind::Name, "smith", "n/a"), 0);
        assert_eq!(level(Kind::Name, "smith", "wu"), 1);
        assert_eq!(level(Kind::Date, "1990-03-04", "1990-04-03"), 3);
        assert_eq!(level(Kind::Date, "1990-03-04", "1991-03-04"), 3);
        assert_eq!(level(Kind::Date, "1990-03-04", "1987-03-04"), 2);
        assert_eq!(level(Kind::Date, "1990-03-04", "1967-11-28"), 1);
        assert_eq!(level(Kind::Email, "jane.doe@a.com", "jane.doe@b.org"), 2);
        assert_eq!(level(Kind::Code, "12345", "12354"), 3);
        assert_eq!(level(Kind::Phone, "+44 161 496 0000", "0161 4960000"), 4);
        assert_eq!(level(Kind::Phone, "0161 4960000", "0161 4960001"), 3);
        assert_eq!(level(Kind::Phone, "0161 4960012", "(0161) 496-0021"), 3);
        assert_eq!(level(Kind::Phone, "0161 4960000", "0161 4961001"), 2);
        assert_eq!(level(Kind::Phone, "0161 4960000", "0171 5550123"), 1);
        assert_eq!(level(Kind::Phone, "0161 4960000", "0161"), 0);
        assert_eq!(level(Kind::Number, "1.50", "1.5"), 4);
        assert_eq!(level(Kind::Number, "1.5", "-1.5"), 1);
        assert_eq!(level(Kind::Number, "1.5", "NaN"), 0);
        assert_eq!(level(Kind::Exact, "a", "b"), 1);
        assert_eq!(level(Kind::Text, "one two three", "three two one"), 4);
        assert_eq!(level(Kind::Array, "a\u{1f}b", "B \u{1f}a\u{1f}n/a"), 4);
        assert_eq!(level(Kind::Array, "a\u{1f}b\u{1f}c", "b\u{1f}a"), 3);
        assert_eq!(level(Kind::Array, "a\u{1f}b\u{1f}c", "d\u{1f}c\u{1f}e"), 2);
        assert_eq!(level(Kind::Array, "1.5\u{1f}a b", "15\u{1f}a\u{1f}b"), 1);
        assert_eq!(level(Kind::Array, "a", "\u{1f}N/A"), 0);
        assert_eq!(level(Kind::Address, "12 Main St.", "12 main street"), 5);
        assert_eq!(level(Kind::Address, "12 Main St., Apt. 4", "12 main street"), 4);
        assert_eq!(level(Kind::Address, "12 Main St. 10115", "12 main street 10117"), 3);
        assert_eq!(level(Kind::Address, "12 Main St.", "14 Main St."), 2);
        assert_eq!(level(Kind::Address, "12 Main St.", "14 Oak Ln."), 1);
    }

    #[test]
    fn numbers_are_as_close_as_their_column_is_wide() {
        // Half are -10 and half are 10: the deviation is 10, with the last four hardly more.
        let usual = (0..1000).map(|row| if row % 2 == 0 { "-10" } else { "10" });
        let values: Vec<&str> = usual.chain(["10.9", "14.9", "15.2", "x"]).collect();
        let mut gatherer = Gatherer::default();
        values.iter().for_each(|value| gatherer.push(Some(value)));
        let order: Vec<u32> = (0..1004).collect();
        let column = gatherer.finish("c", Declared::Real, Some(Kind::Number), &order, &[]);
        assert!((column.deviation - 10.0).abs() < 0.02, "{}", column.deviation);
        let records = Records::new(vec![column], vec![], values.len());
        let mut comparer = Comparer::new(&records);
        let found = [3, 1000, 1001, 1002, 0, 1003].map(|right| comparer.level(0, 1, right));
        assert_eq!(found, [4, 3, 2, 1, 1, 0]);
    }

    #[test]
    fn swapped_names_are_close() {
        let mut columns = [("first_name", ["anna", "mueler"]), ("last_name", ["mueller", "anna"])]
            .map(|(name, values)| {
                let mut gatherer = Gatherer::default();
                values.iter().for_each(|value| gatherer.push(Some(value)));
                gatherer.finish(name, Declared::Text, Some(Kind::Name), &[0, 1], &[])
            });
        let levels = |columns: &[Column; 2]| {
            Comparer::new(&Records::new(columns.to_vec(), vec![], 2)).levels(0, 1)
        };
        assert_eq!(levels(&columns), 0x44);
        columns[0].name = "town".into();
        assert_eq!(levels(&columns), 0x11);
    }

    #[test]
    fn every_kind_has_shares_that_sum_to_one() {
        let kinds = [Kind::Exact, Kind::Name, Kind::Text, Kind::Number, Kind::Date, Kind::Email];
        let more = [Kind::Phone, Kind::Code, Kind::Bloom, Kind::Array, Kind::Address];
        for kind in kinds.into_iter().chain(more) {
            let sum: f64 = levels(kind).iter().map(|level| level.1).sum();
            let usual: f64 = coincidences(kind).iter().sum();
            assert!((sum - 1.0).abs() < 1e-9 && (usual - 1.0).abs() < 1e-9, "{kind:?}");
            assert_eq!(levels(kind).len(), coincidences(kind).len());
        }
    }
}
