//! Match weights: log2 of how much likelier two records match than before they were compared.
//!
//! A pair's weight is log2 of the odds of a match among all pairs, plus log2(m/u) of each column's
//! level; columns without evidence add 0. Equal values weigh by their own frequency: log2(m/f),
//! with f the share of records that have the value without the matches to be expected among them.
//! Where relatives were found, the weight is less by log2(1 + η/(1 − λ − η) · Π h/u): what they
//! share is no evidence. The probability is 1/(1 + 2^−weight).

use std::sync::atomic::AtomicBool;

use super::blocking::Blocks;
use super::column::NONE;
use super::compare::{Comparer, coincidences, level_of};
use super::dependence::{Dependence, told};
use super::em::TINY;
use super::kind::Kind;
use super::learn::Linkage;
use super::pairs::{Pairs, Spill, Writer, Written};
use super::records::{Records, Which};
use super::sorted::{Sorter, by_place};
use crate::model::ModelError;

/// Records that what is usual of a value counts for.
const USUAL_RECORDS: f64 = 20.0;

/// A scored pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge {
    /// The record with the smaller position.
    pub left: u32,
    /// The other.
    pub right: u32,
    /// The match weight, in bits.
    pub weight: f32,
    /// The levels of the columns, as [`Comparer::levels`] packs them.
    pub levels: u64,
}

impl Edge {
    /// The probability of a match.
    pub fn probability(&self) -> f64 {
        probability(f64::from(self.weight))
    }
}

/// The probability of a weight.
pub fn probability(weight: f64) -> f64 {
    1.0 / (1.0 + (-weight).exp2())
}

/// The weight of a probability.
pub fn weight(probability: f64) -> f64 {
    (probability / (1.0 - probability)).log2()
}

/// Weights of levels and values.
#[derive(Debug)]
pub struct Scorer<'a> {
    records: &'a Records,
    prior: f64,
    /// The odds of relatives before anything is compared; none where there are none.
    relatives: Option<f64>,
    /// Of each column and level, from 0.
    levels: Vec<Vec<f64>>,
    /// How much less likely relatives have each level than matches, likewise.
    less: Vec<Vec<f64>>,
    /// Whether a column is a person's own.
    own: Vec<bool>,
    dependences: Vec<Dependence>,
    /// The largest weight of a level below equality, by column.
    unequal_max: Vec<f64>,
    /// The columns, those first that tell most where values differ.
    order: Vec<usize>,
    /// Of each column and value, where equal values weigh by it.
    values: Vec<Vec<f32>>,
}

impl<'a> Scorer<'a> {
    /// The weights of what was learned, for records.
    pub fn new(records: &'a Records, linkage: &Linkage) -> Self {
        let lambda = linkage.lambda;
        let of = |m: &f64, u: &f64| m.max(TINY).log2() - u.max(TINY).log2();
        let weights = linkage.comparisons.iter().map(|comparison| {
            let shares = comparison.m.iter().zip(&comparison.u).map(|(m, u)| of(m, u));
            std::iter::once(0.0).chain(shares).collect()
        });
        let less = linkage.comparisons.iter().map(|comparison| {
            let shares = comparison.m.iter().zip(&comparison.h).map(|(m, h)| of(m, h));
            std::iter::once(0.0).chain(shares).collect()
        });
        let others = (1.0 - lambda - linkage.eta).max(TINY);
        // The partners that a record is expected to have.
        let partners = 2.0 * lambda * records.pairs() / records.len.max(1) as f64;
        let columns = records.columns.iter().zip(&linkage.comparisons);
        let values = columns.map(|(column, comparison)| {
            if column.kind == Kind::Number {
                return Vec::new();
            }
            let known: f64 = column.counts.iter().map(|&count| f64::from(count)).sum();
            let m = comparison.m.last().copied().unwrap_or(1.0);
            let usual = coincidences(column.kind).last().copied().unwrap_or(0.0);
            let by = |&count: &u32| {
                let count = (f64::from(count) - partners).max(1.0) + USUAL_RECORDS * usual;
                let share = count / (known + USUAL_RECORDS).max(1.0);
                of(&m, &share) as f32
            };
            column.counts.iter().map(by).collect()
        });
        let levels: Vec<Vec<f64>> = weights.collect();
        let largest = |levels: &Vec<f64>| {
            levels[1..levels.len() - 1].iter().copied().fold(f64::NEG_INFINITY, f64::max)
        };
        let unequal_max: Vec<f64> = levels.iter().map(largest).collect();
        let mut order: Vec<usize> = (0..levels.len()).collect();
        let told = |at: usize| unequal_max[at] - levels[at][1];
        order.sort_by(|&a, &b| told(b).total_cmp(&told(a)).then(a.cmp(&b)));
        Self {
            records,
            unequal_max,
            order,
            prior: (lambda / others).log2(),
            relatives: (linkage.eta > 0.0).then(|| (linkage.eta / others).log2()),
            levels,
            less: less.collect(),
            dependences: linkage.dependences.clone(),
            own: linkage.comparisons.iter().map(|comparison| comparison.is_own).collect(),
            values: values.collect(),
        }
    }

    /// The records.
    pub fn records(&self) -> &'a Records {
        self.records
    }

    /// The weight of one column of a pair with these levels.
    pub fn column(&self, at: usize, left: u32, levels_of: u64) -> f64 {
        let level = level_of(levels_of, at);
        let column = &self.records.columns[at];
        let code = column.codes[left as usize];
        if level + 1 == self.levels[at].len()
            && code != NONE
            && let Some(&weight) = self.values[at].get(code as usize)
        {
            return f64::from(weight);
        }
        self.levels[at][level]
    }

    /// The odds of a match before anything is compared, in bits.
    pub fn prior(&self) -> f64 {
        self.prior
    }

    /// What is taken off a pair's weight since its records may be relatives, 0 or less.
    pub fn relatives(&self, left: u32, levels: u64) -> f64 {
        let Some(prior) = self.relatives else { return 0.0 };
        let shared = (0..self.own.len()).filter(|&at| !self.own[at]);
        let log: f64 = shared
            .map(|at| self.column(at, left, levels) - self.less[at][level_of(levels, at)])
            .sum();
        let log = prior + log;
        // log2(1 + 2^log), without overflow.
        -(log.max(0.0) + (-log.abs()).exp2().ln_1p() / std::f64::consts::LN_2)
    }

    /// The weight of a record beside its own copy: what it says at most.
    pub fn itself(&self, record: u32) -> f64 {
        let known = self.records.row(record).iter().enumerate().filter(|(_, code)| **code != NONE);
        let equal =
            known.fold(0, |all, (at, _)| all | (self.levels[at].len() as u64 - 1) << (4 * at));
        f64::from(self.weighed(record, record, told(&self.dependences, equal)).weight)
    }

    /// Scores a pair.
    pub fn edge(&self, comparer: &mut Comparer<'_>, left: u32, right: u32) -> Edge {
        let (left, right) = (left.min(right), left.max(right));
        let levels = told(&self.dependences, comparer.levels(left, right));
        self.weighed(left, right, levels)
    }

    /// The pair with these levels.
    fn weighed(&self, left: u32, right: u32, levels: u64) -> Edge {
        let columns = 0..self.levels.len();
        let weight = self.prior + columns.map(|at| self.column(at, left, levels)).sum::<f64>();
        let weight = weight + self.relatives(left, levels);
        Edge { left, right, weight: weight as f32, levels }
    }

    /// Scores a pair, unless its weight is below `least`: columns that differ are compared one by
    /// one, for as long as the others could still make up for it.
    fn edge_from(
        &self,
        comparer: &mut Comparer<'_>,
        left: u32,
        right: u32,
        least: f64,
    ) -> Option<Edge> {
        if self.records.may_be_swapped(left, right) {
            let edge = self.edge(comparer, left, right);
            return (f64::from(edge.weight) >= least).then_some(edge);
        }
        let (a, b) = (self.records.row(left), self.records.row(right));
        let mut equal = 0_u64;
        let mut differ = 0_u32;
        for (at, (a, b)) in a.iter().zip(b).enumerate() {
            if *a != NONE && *b != NONE {
                match a == b {
                    true => equal |= (self.levels[at].len() as u64 - 1) << (4 * at),
                    false => differ |= 1 << at,
                }
            }
        }
        let mut known = told(&self.dependences, equal);
        for dependence in &self.dependences {
            if level_of(equal, dependence.on) >= dependence.level {
                differ &= !(1 << dependence.column);
            }
        }
        let mut bound = self.prior;
        for (at, most) in self.unequal_max.iter().enumerate() {
            match differ >> at & 1 == 1 {
                true => bound += most,
                false => bound += self.column(at, left, known),
            }
        }
        for &at in &self.order {
            // What float sums differ by must not decide.
            if bound < least - 0.001 {
                return None;
            }
            if differ >> at & 1 == 1 {
                let level = comparer.unequal(at, a[at], b[at]);
                bound += self.levels[at][level as usize] - self.unequal_max[at];
                known |= level << (4 * at);
            }
        }
        let edge = self.weighed(left, right, known);
        (f64::from(edge.weight) >= least).then_some(edge)
    }

    /// The pairs of blocks with at least this weight, by left and right, where `takes` says that
    /// one of the two is to be compared.
    ///
    /// # Errors
    /// When `cancel` is set, and when the disk is full, or fails.
    pub fn edges(
        &self,
        blocks: &[Blocks],
        least: f64,
        takes: impl Fn(u32, u32) -> bool + Sync,
        spill: &Spill,
        cancel: &AtomicBool,
    ) -> Result<Pairs, ModelError> {
        let writer = Writer::new(spill, 0);
        let found = self.records.walk(
            blocks,
            |_| Some(Which::Later),
            cancel,
            || Found { of: Vec::new(), writer: writer.beside() },
            |found: &mut Found, comparer, left, right, _| {
                if takes(left, right)
                    && let Some(edge) = self.edge_from(comparer, left, right, least)
                {
                    found.add(edge);
                }
            },
            Found::finish,
        )?;
        Ok(Pairs::joined(spill, 0, found))
    }

    /// The pairs of blocks with at least this weight, and a record of those that `is_one` says,
    /// by left and right. It takes about as long as these have partners.
    ///
    /// # Errors
    /// When `cancel` is set, and when the disk is full, or fails.
    pub fn edges_of(
        &self,
        blocks: &[Blocks],
        least: f64,
        is_one: impl Fn(u32) -> bool + Sync,
        spill: &Spill,
        cancel: &AtomicBool,
    ) -> Result<Pairs, ModelError> {
        let writer = Writer::new(spill, 0);
        let found = self.records.walk(
            blocks,
            |record| is_one(record).then_some(Which::All),
            cancel,
            || writer.beside(),
            |found: &mut Writer, comparer, record, other, _| {
                // Of two of them the first has the pair.
                let is_first = record < other || !is_one(other);
                let (left, right) = (record.min(other), record.max(other));
                if is_first && let Some(edge) = self.edge_from(comparer, left, right, least) {
                    found.add(&edge, &[]);
                }
            },
            Writer::finish,
        )?;
        let found = Pairs::joined(spill, 0, found);
        let mut sorter = Sorter::new(spill, by_place);
        for edge in found.cursor() {
            sorter.add(edge?)?;
        }
        sorter.finish()
    }
}

/// The pairs of a piece of the records, which come record by record.
struct Found {
    /// Those of the record at hand.
    of: Vec<Edge>,
    writer: Writer,
}

impl Found {
    fn add(&mut self, edge: Edge) {
        if self.of.first().is_some_and(|first| first.left != edge.left) {
            self.settle();
        }
        self.of.push(edge);
    }

    /// Writes the record's pairs in order.
    fn settle(&mut self) {
        self.of.sort_unstable_by_key(|edge| edge.right);
        for edge in self.of.drain(..) {
            self.writer.add(&edge, &[]);
        }
    }

    fn finish(mut self) -> Result<Written, ModelError> {
        self.settle();
        self.writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::Gatherer;
    use super::super::compare::levels;
    use super::super::kind::Declared;
    use super::super::learn::Comparison;
    use super::*;

    /// Records of one column, scored by what is usual of its kind.
    fn with_scorer(kind: Kind, values: &[&str], test: impl FnOnce(&Scorer<'_>)) {
        let mut gatherer = Gatherer::default();
        values.iter().for_each(|value| gatherer.push(Some(value)));
        let order: Vec<u32> = (0..values.len() as u32).collect();
        let column = gatherer.finish("c", Declared::Text, Some(kind), &order, &[]);
        let records = Records::new(vec![column], vec![], values.len());
        let m: Vec<f64> = levels(kind).iter().map(|level| level.1).collect();
        let comparison = Comparison {
            column: "c".into(),
            kind,
            h: m.clone(),
            m,
            u: coincidences(kind).to_vec(),
            is_own: false,
            placeholders: vec![],
        };
        let linkage = Linkage {
            comparisons: vec![comparison],
            lambda: 1e-9,
            eta: 0.0,
            dependences: vec![],
            rules: vec![],
            objective: vec![],
            block_max: 100,
        };
        test(&Scorer::new(&records, &linkage));
    }

    /// What fifty have in common tells less than what two have.
    #[test]
    fn equal_values_weigh_by_how_rare_they_are() {
        let values: Vec<&str> = (0..60)
            .map(|row| match row {
                0..50 => "smith",
                50..52 => "wolkenstein",
                _ => "jones",
            })
            .collect();
        with_scorer(Kind::Name, &values, |scorer| {
            let exact = levels(Kind::Name).len() as u64;
            let [common, rare] = [0, 50].map(|record| scorer.column(0, record, exact));
            // log2(m/f) of both: the shares f and what is usual beside them are all that differs.
            let usual = USUAL_RECORDS * coincidences(Kind::Name)[exact as usize - 1];
            let expected = ((50.0 + usual) / (2.0 + usual)).log2();
            assert!((rare - common - expected).abs() < 1e-3, "{rare} {common} {expected}");
            // Values that are alike weigh the same, whichever they are.
            let alike = [0, 50].map(|record| scorer.column(0, record, exact - 1));
            assert_eq!(alike[0], alike[1]);
        });
    }

    #[test]
    fn equal_numbers_weigh_the_same() {
        let values = ["5", "5", "5", "5", "7", "9"];
        with_scorer(Kind::Number, &values, |scorer| {
            let exact = levels(Kind::Number).len() as u64;
            assert_eq!(scorer.column(0, 0, exact), scorer.column(0, 4, exact));
        });
    }
}
