//! The records that are to be told apart, in the order of their ids.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::blocking::{Blocks, Partners, Rule, pairs_of};
use super::column::{Column, NONE};
use super::compare::{Comparer, Swap};
use super::key::{Computed, Expression};
use crate::model::ModelError;

/// Records by column.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// The columns that are compared.
    pub columns: Vec<Column>,
    /// Of each record, the table it is of; empty when records of one table are compared too.
    pub sides: Vec<u32>,
    /// How many there are.
    pub len: usize,
    /// The columns whose values may be swapped.
    pub swap: Option<Swap>,
    /// What the query has computed for rules to block by.
    pub computed: Vec<Computed>,
    /// The codes of each record, one behind the other: a look at a record is a look at memory.
    rows: Vec<u32>,
}

/// Which partners of a record a walk comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those behind it, so that each pair comes once.
    Later,
    /// All of them.
    All,
}

/// Records of a piece of work.
const PIECE: usize = 512;

impl Records {
    /// Records of columns; `sides` is empty when records of one table are compared too.
    pub fn new(columns: Vec<Column>, sides: Vec<u32>, len: usize) -> Self {
        let width = columns.len().max(1);
        let mut rows = vec![NONE; len * width];
        for (at, column) in columns.iter().enumerate() {
            rows.iter_mut().skip(at).step_by(width).zip(&column.codes).for_each(|(cell, &code)| {
                *cell = code;
            });
        }
        let swap = Swap::of(&columns);
        Self { columns, sides, len, swap, computed: Vec::new(), rows }
    }

    /// The keys of an expression by record; none where it was not computed.
    pub fn keys_of(&self, expression: &Expression) -> &[u64] {
        let known = self.computed.iter().find(|known| known.expression == *expression);
        known.map(|known| known.keys.as_slice()).unwrap_or_default()
    }

    /// Whether all that a rule asks the query to compute was computed.
    pub fn has_keys_of(&self, rule: &Rule) -> bool {
        let known =
            |wanted: &Expression| self.computed.iter().any(|known| known.expression == *wanted);
        rule.expressions.iter().all(known)
    }

    /// The codes of a record by column.
    #[inline]
    pub fn row(&self, record: u32) -> &[u32] {
        let width = self.columns.len();
        &self.rows[record as usize * width..][..width]
    }

    /// Whether one of two names of a record stands in the other column of another.
    #[inline]
    pub fn may_be_swapped(&self, left: u32, right: u32) -> bool {
        let Some(swap) = &self.swap else { return false };
        let (left, right) = (self.row(left), self.row(right));
        let stands = |a: &[u32], b: &[u32]| {
            let surname = swap.as_first.get(a[swap.last] as usize);
            surname.is_some_and(|&code| code != NONE && code == b[swap.first])
        };
        stands(left, right) || stands(right, left)
    }

    /// All pairs that may match.
    pub fn pairs(&self) -> f64 {
        if self.sides.is_empty() {
            let len = self.len as f64;
            return len * (len - 1.0).max(0.0) / 2.0;
        }
        pairs_of(0..self.len, &self.sides) as f64
    }

    /// Whether two records may match.
    #[inline]
    pub fn may_match(&self, left: u32, right: u32) -> bool {
        left != right
            && (self.sides.is_empty() || self.sides[left as usize] != self.sides[right as usize])
    }

    /// How likely two records that may match have the same value of a column, when both have one.
    pub fn coincidence(&self, at: usize) -> f64 {
        let column = &self.columns[at];
        if self.sides.is_empty() {
            return column.coincidence();
        }
        let known = column.codes.iter().zip(&self.sides).filter(|(code, _)| **code != NONE);
        let mut cells: Vec<(u32, u32)> = known.map(|(&code, &side)| (code, side)).collect();
        cells.par_sort_unstable();
        let square = |count: usize| (count as f64) * (count as f64);
        let mut equal = 0.0;
        for value in cells.chunk_by(|a, b| a.0 == b.0) {
            let sides = value.chunk_by(|a, b| a.1 == b.1).map(|side| square(side.len()));
            equal += square(value.len()) - sides.sum::<f64>();
        }
        cells.par_sort_unstable_by_key(|&(_, side)| side);
        let same: f64 = cells.chunk_by(|a, b| a.1 == b.1).map(|side| square(side.len())).sum();
        let all = square(cells.len()) - same;
        if all > 0.0 { equal / all } else { 0.0 }
    }

    /// Walks over the pairs that rules find. Each piece of records gives what is made of it, in
    /// order: `make` makes its start, `work` adds a record with one of those of its partners that
    /// `takes` says and the pair's rules, record by record, and `finish` ends it.
    ///
    /// # Errors
    /// When `cancel` is set, and what `finish` says.
    pub fn walk<T, U: Send>(
        &self,
        blocks: &[Blocks],
        takes: impl Fn(u32) -> Option<Which> + Sync,
        cancel: &AtomicBool,
        make: impl Fn() -> T + Sync,
        work: impl Fn(&mut T, &mut Comparer<'_>, u32, u32, u32) + Sync,
        finish: impl Fn(T) -> Result<U, ModelError> + Sync,
    ) -> Result<Vec<U>, ModelError> {
        let pieces: Vec<usize> = (0..self.len).step_by(PIECE).collect();
        let walked = pieces.par_iter().with_min_len(8).map_init(
            || (Partners::new(blocks, &self.sides, self.len), Comparer::new(self)),
            |(partners, comparer), &from| {
                let mut made = make();
                for record in from as u32..(from + PIECE).min(self.len) as u32 {
                    if cancel.load(Ordering::Relaxed) {
                        return Err(ModelError::Cancelled);
                    }
                    if let Some(which) = takes(record) {
                        partners.each(record, which == Which::All, |other, rules| {
                            work(&mut made, comparer, record, other, rules);
                        });
                    }
                }
                finish(made)
            },
        );
        walked.collect()
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(Column::memory_bytes).sum();
        let computed: usize = self.computed.iter().map(|known| known.keys.len()).sum();
        columns + 4 * (self.sides.len() + self.rows.len()) + 8 * computed
    }
}
