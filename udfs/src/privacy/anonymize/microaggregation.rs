//! Microaggregation: rows of few who are alike, each shown as their centre (MDAV, Domingo-Ferrer
//! and Torra 2005).
//!
//! The row farthest from the centre of the rows that are left takes its nearest k - 1, and so does
//! the row farthest from it, until fewer than 3k are left. Numbers and times count by their place
//! within the column's width, squared; texts by whether they are equal. The centre is the mean of
//! numbers and times and the most frequent text, the first of equally frequent ones. Classes whose
//! sensitive values are not what they must be are joined with the nearest class until they are
//! (Soria-Comas et al. 2015).
//!
//! Time is in proportion to the square of the rows over k.

use std::cmp::Ordering;

use datafusion_common::{Result, exec_err};

use super::Input;
use super::column::{CodedColumn, Kind};
use super::criteria::Checker;
use super::mondrian::holds;
use crate::fuzzy::stop::{Pace, Stop};

/// More rows than these would take hours.
const ROWS_MAX: usize = 1 << 18;

/// The rows of each class; `None` where not even all rows together are what a class must be.
///
/// # Errors
/// When there are too many rows, or nobody waits any more.
pub(super) fn partition(
    input: &Input,
    checker: &Checker,
    stop: &Stop,
) -> Result<Option<Vec<Vec<u32>>>> {
    let rows = input.rows();
    if rows > ROWS_MAX {
        return exec_err!(
            "microaggregation compares rows with each other, and {rows} are more than {ROWS_MAX}. \
             Hint: use method => 'mondrian', or anonymize parts of them"
        );
    }
    // In an order that depends on the rows alone, so that the classes do.
    let mut left: Vec<u32> = (0..rows as u32).collect();
    left.sort_by(|left, right| compare(input, *left as usize, *right as usize));
    if !holds(input, checker, &left) {
        return Ok(None);
    }
    let mut groups = Groups::new(input, stop.pace());
    let size = checker.rows_min().max(1) as usize;
    let mut classes = vec![];
    let mut centre = groups.centre_of(&left);
    while left.len() >= size.saturating_mul(3) {
        let far = groups.farthest(&left, &centre.place(&groups))?;
        let opposite = groups.farthest(&left, &groups.place(far))?;
        for start in [far, opposite] {
            // The first class may have taken the second's start: it takes another.
            let start = if left.contains(&start) {
                start
            } else {
                groups.farthest(&left, &groups.place(far))?
            };
            let class = groups.nearest(&mut left, start, size)?;
            centre.remove(&groups, &class);
            classes.push(class);
        }
    }
    if left.len() >= size.saturating_mul(2) {
        let far = groups.farthest(&left, &centre.place(&groups))?;
        classes.push(groups.nearest(&mut left, far, size)?);
    }
    classes.push(left);
    if !checker.reads_values() {
        return Ok(Some(classes));
    }
    joined(input, checker, &mut groups, classes).map(Some)
}

/// Joins classes that are not what they must be with the nearest.
fn joined(
    input: &Input,
    checker: &Checker,
    groups: &mut Groups<'_>,
    classes: Vec<Vec<u32>>,
) -> Result<Vec<Vec<u32>>> {
    let places: Vec<Place> =
        classes.iter().map(|class| groups.centre_of(class).place(groups)).collect();
    let mut open: Vec<(Vec<u32>, Place)> = classes.into_iter().zip(places).collect();
    let mut done: Vec<(Vec<u32>, Place)> = vec![];
    while let Some((class, place)) = open.pop() {
        if holds(input, checker, &class) {
            done.push((class, place));
            continue;
        }
        let (of_open, of_done) = (groups.closest(&open, &place)?, groups.closest(&done, &place)?);
        let mut other = match (of_open, of_done) {
            (Some((at, near)), Some((_, far))) if near <= far => open.swap_remove(at).0,
            (_, Some((at, _))) => done.swap_remove(at).0,
            (Some((at, _)), None) => open.swap_remove(at).0,
            // All rows are together, and they hold.
            (None, None) => {
                done.push((class, place));
                continue;
            }
        };
        other.extend(class);
        let place = groups.centre_of(&other).place(groups);
        open.push((other, place));
    }
    Ok(done.into_iter().map(|(class, _)| class).collect())
}

/// The order of rows by their quasi-identifiers, then their sensitive values.
pub(super) fn compare(input: &Input, left: usize, right: usize) -> Ordering {
    let quasi = input.quasi.iter().map(|quasi| &quasi.column);
    let sensitive = input.sensitive.iter().map(|sensitive| &sensitive.column);
    quasi
        .chain(sensitive)
        .map(|column| column.codes[left].cmp(&column.codes[right]))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Where something lies: a share of the width of each measured column, a value of each other one.
type Place = Vec<f64>;

/// The columns as distances are measured in them.
struct Groups<'a> {
    columns: Vec<Measured<'a>>,
    pace: Pace<'a>,
    /// How much a centre holds.
    centre_values: usize,
}

struct Measured<'a> {
    column: &'a CodedColumn,
    /// The place of each value; of texts the value itself.
    places: Vec<f64>,
    is_measured: bool,
}

impl Measured<'_> {
    fn distance(&self, left: f64, right: f64) -> f64 {
        match self.is_measured {
            true => (left - right).powi(2),
            false => f64::from(u8::from(left != right)),
        }
    }
}

/// The centre of rows, from which rows can be taken away.
struct Centre {
    rows: usize,
    /// By column, the sum of places; of texts the count of each value.
    sums: Vec<Vec<f64>>,
}

impl Centre {
    fn change(&mut self, groups: &Groups<'_>, rows: &[u32], by: f64) {
        for (measured, sums) in groups.columns.iter().zip(&mut self.sums) {
            for row in rows {
                let code = measured.column.codes[*row as usize] as usize;
                match measured.is_measured {
                    true => sums[0] += by * measured.places[code],
                    false => sums[code] += by,
                }
            }
        }
    }

    fn remove(&mut self, groups: &Groups<'_>, rows: &[u32]) {
        self.change(groups, rows, -1.0);
        self.rows -= rows.len();
    }

    fn place(&self, groups: &Groups<'_>) -> Place {
        let columns = groups.columns.iter().zip(&self.sums);
        columns
            .map(|(measured, sums)| match measured.is_measured {
                true => sums[0] / self.rows.max(1) as f64,
                false => most_frequent(sums) as f64,
            })
            .collect()
    }
}

/// The first of the values with the greatest count.
fn most_frequent(counts: &[f64]) -> usize {
    let mut best = 0;
    for (value, count) in counts.iter().enumerate() {
        if *count > counts[best] {
            best = value;
        }
    }
    best
}

impl<'a> Groups<'a> {
    fn new(input: &'a Input, pace: Pace<'a>) -> Self {
        let columns: Vec<Measured<'a>> = input
            .quasi
            .iter()
            .map(|quasi| {
                let column = &quasi.column;
                let is_measured = column.kind != Kind::Text;
                let place = |code: u32| match is_measured {
                    true => column.spread(0, code),
                    false => f64::from(code),
                };
                let places = (0..column.cardinality() as u32).map(place).collect();
                Measured { column, places, is_measured }
            })
            .collect();
        let centre_values = columns.iter().map(|measured| measured.places.len()).sum();
        Self { columns, pace, centre_values }
    }

    fn centre_of(&self, rows: &[u32]) -> Centre {
        let sums = self.columns.iter().map(|measured| match measured.is_measured {
            true => vec![0.0],
            false => vec![0.0; measured.column.cardinality()],
        });
        let mut centre = Centre { rows: rows.len(), sums: sums.collect() };
        centre.change(self, rows, 1.0);
        centre
    }

    fn place(&self, row: u32) -> Place {
        let place =
            |measured: &Measured<'_>| measured.places[measured.column.codes[row as usize] as usize];
        self.columns.iter().map(place).collect()
    }

    fn distance(&self, row: u32, from: &[f64]) -> f64 {
        let columns = self.columns.iter().zip(from);
        columns
            .map(|(measured, from)| {
                let code = measured.column.codes[row as usize] as usize;
                measured.distance(measured.places[code], *from)
            })
            .sum()
    }

    /// The row farthest from a place, the first of equally far ones.
    fn farthest(&mut self, rows: &[u32], from: &[f64]) -> Result<u32> {
        self.pace.spend(rows.len() * (self.columns.len() + 1) * 2 + self.centre_values)?;
        let mut best = (f64::NEG_INFINITY, 0);
        for row in rows {
            let distance = self.distance(*row, from);
            if distance > best.0 {
                best = (distance, *row);
            }
        }
        Ok(best.1)
    }

    /// Takes the `count` rows nearest to a row, itself among them, out of rows.
    fn nearest(&mut self, rows: &mut Vec<u32>, to: u32, count: usize) -> Result<Vec<u32>> {
        self.pace.spend(rows.len() * (self.columns.len() + 4) * 2)?;
        let place = self.place(to);
        // The row itself is nearest even to rows that are equal.
        let mut near: Vec<(f64, usize)> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| (if *row == to { -1.0 } else { self.distance(*row, &place) }, at))
            .collect();
        let order = |left: &(f64, usize), right: &(f64, usize)| {
            left.0.total_cmp(&right.0).then(left.1.cmp(&right.1))
        };
        if count < near.len() {
            near.select_nth_unstable_by(count, order);
            near.truncate(count);
        }
        let mut taken: Vec<usize> = near.into_iter().map(|(_, at)| at).collect();
        taken.sort_unstable();
        let class = taken.iter().map(|at| rows[*at]).collect();
        let (mut next, mut at) = (0, 0);
        rows.retain(|_| {
            let is_taken = taken.get(next) == Some(&at);
            next += usize::from(is_taken);
            at += 1;
            !is_taken
        });
        Ok(class)
    }

    /// Which class is closest to a place, and how far it is.
    fn closest(
        &mut self,
        classes: &[(Vec<u32>, Place)],
        to: &[f64],
    ) -> Result<Option<(usize, f64)>> {
        self.pace.spend(classes.len() * (self.columns.len() + 1) * 2)?;
        let distance = |place: &[f64]| -> f64 {
            let pairs = self.columns.iter().zip(place.iter().zip(to));
            pairs.map(|(measured, (left, right))| measured.distance(*left, *right)).sum()
        };
        let all = classes.iter().enumerate().map(|(at, (_, place))| (at, distance(place)));
        Ok(all.min_by(|left, right| left.1.total_cmp(&right.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::tests::{integers, texts};
    use super::super::criteria::{Criteria, Diversity};
    use super::super::{Quasi, Sensitive};
    use super::*;

    fn input(ages: &[i64], values: &[&str]) -> Input {
        let quasi = vec![Quasi { column: integers("age", ages), scheme: None }];
        let sensitive = vec![Sensitive { column: texts("s", values), scheme: None }];
        Input { quasi, sensitive, released: None }
    }

    fn classes(input: &Input, k: u32, diversity: Option<Diversity>) -> Vec<Vec<u32>> {
        let criteria = Criteria { k, diversity, closeness: None, presence: None };
        let checker = Checker::new(input, criteria).unwrap();
        let mut classes = partition(input, &checker, &Stop::never()).unwrap().unwrap();
        for class in &mut classes {
            class.sort_unstable();
        }
        classes.sort();
        classes
    }

    #[test]
    fn neighbours_are_together() {
        let input = input(&[1, 50, 2, 98, 51, 99, 3], &["x", "y", "x", "x", "x", "x", "x"]);
        assert_eq!(classes(&input, 2, None), [vec![0, 2], vec![1, 4, 6], vec![3, 5]]);
        let diverse = classes(&input, 2, Some(Diversity::Distinct(2)));
        assert_eq!(diverse, [vec![0, 1, 2, 3, 4, 5, 6]]);
    }

    #[test]
    fn classes_have_from_k_to_less_than_2k_rows() {
        let ages: Vec<i64> = (0..97).map(|n| (n * 37) % 89).collect();
        let input = input(&ages, &["x"; 97]);
        for k in [2, 3, 10, 97] {
            let found = classes(&input, k, None);
            assert!(found.iter().all(|class| (k as usize..2 * k as usize).contains(&class.len())));
            assert_eq!(found.iter().map(Vec::len).sum::<usize>(), 97);
        }
    }
}
