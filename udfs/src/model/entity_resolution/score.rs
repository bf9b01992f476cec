//! Match weights: log2 of how much likelier two records match than before they were compared.
//!
//! A pair's weight is log2 of the odds of a match among all pairs, plus log2(m/u) of each column's
//! level; columns without evidence add 0. Equal values weigh by their own frequency: log2(m/f),
//! with f the share of records that have the value without the matches to be expected among them.
//! The probability is 1/(1 + 2^−weight).

use std::sync::atomic::AtomicBool;

use super::blocking::Blocks;
use super::column::NONE;
use super::compare::{Comparer, level_of, levels};
use super::em::TINY;
use super::kind::Kind;
use super::learn::Linkage;
use super::records::Records;
use crate::model::ModelError;

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
    /// Of each column and level, from 0.
    levels: Vec<Vec<f64>>,
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
        // The partners that a record is expected to have.
        let partners = 2.0 * lambda * records.pairs() / records.len.max(1) as f64;
        let columns = records.columns.iter().zip(&linkage.comparisons);
        let values = columns.map(|(column, comparison)| {
            if column.kind == Kind::Number {
                return Vec::new();
            }
            let known: f64 = column.counts.iter().map(|&count| f64::from(count)).sum();
            let m = comparison.m.last().copied().unwrap_or(1.0);
            let by = |&count: &u32| {
                let share = (f64::from(count) - partners).max(1.0) / known.max(1.0);
                of(&m, &share) as f32
            };
            column.counts.iter().map(by).collect()
        });
        Self {
            records,
            prior: weight(lambda),
            levels: weights.collect(),
            values: values.collect(),
        }
    }

    /// The weight of one column of a pair with these levels.
    pub fn column(&self, at: usize, left: u32, levels_of: u64) -> f64 {
        let level = level_of(levels_of, at);
        let column = &self.records.columns[at];
        let code = column.codes[left as usize];
        if level == levels(column.kind).len() && code != NONE {
            if let Some(&weight) = self.values[at].get(code as usize) {
                return f64::from(weight);
            }
        }
        self.levels[at][level]
    }

    /// The odds of a match before anything is compared, in bits.
    pub fn prior(&self) -> f64 {
        self.prior
    }

    /// Scores a pair.
    pub fn edge(&self, comparer: &mut Comparer<'_>, left: u32, right: u32) -> Edge {
        let (left, right) = (left.min(right), left.max(right));
        let levels = comparer.levels(left, right);
        let columns = 0..self.levels.len();
        let weight = self.prior + columns.map(|at| self.column(at, left, levels)).sum::<f64>();
        Edge { left, right, weight: weight as f32, levels }
    }

    /// The pairs of blocks with at least this weight, by left and right, where `takes` says that
    /// one of the two is to be compared.
    ///
    /// # Errors
    /// When `cancel` is set.
    pub fn edges(
        &self,
        blocks: &[Blocks],
        least: f64,
        takes: impl Fn(u32, u32) -> bool + Sync,
        cancel: &AtomicBool,
    ) -> Result<Vec<Edge>, ModelError> {
        let all = |_| true;
        let found = self.records.walk(
            blocks,
            all,
            cancel,
            Vec::new,
            |edges: &mut Vec<Edge>, comparer, left, right, _| {
                if takes(left, right) {
                    let edge = self.edge(comparer, left, right);
                    if f64::from(edge.weight) >= least {
                        edges.push(edge);
                    }
                }
            },
        )?;
        let mut edges: Vec<Edge> = found.into_iter().flatten().collect();
        edges.sort_unstable_by_key(|edge| (edge.left, edge.right));
        Ok(edges)
    }
}
