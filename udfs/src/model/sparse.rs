//! Compressed sparse rows of `f32` and their builder from unsorted triplets.
//!
//! A row is a user, a column an item, a value a weight or rating. Columns are ascending and
//! distinct within a row. Values are finite: the builder's caller checks them
//! ([`Triplets::push`] refuses others). Building takes time linear in rows, columns and triplets
//! (two stable counting sorts, [`super::scatter`]); it runs on the current rayon pool.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::cancel;
use super::error::ModelError;
use super::scatter::{counts, each, offsets, ranges, scatter, split};

/// A sparse matrix by rows: row `r` owns `offsets[r]..offsets[r + 1]` of `columns` and `values`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Csr {
    offsets: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
    column_count: usize,
}

/// What becomes of several triplets of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// Weights add up: implicit feedback.
    Sum,
    /// Ratings are averaged: explicit feedback.
    Mean,
}

impl Csr {
    /// Builds a matrix from its parts.
    ///
    /// # Errors
    /// When offsets do not ascend from 0 to the number of cells, or a column is out of range or
    /// not ascending within its row.
    pub fn new(
        offsets: Vec<usize>,
        columns: Vec<u32>,
        values: Vec<f32>,
        column_count: usize,
    ) -> Result<Self, ModelError> {
        let fail = |why: &str| Err(ModelError::Inconsistent(format!("sparse rows: {why}")));
        if offsets.first() != Some(&0) || offsets.last() != Some(&columns.len()) {
            return fail("offsets do not span the cells");
        }
        if values.len() != columns.len() {
            return fail("columns and values differ in length");
        }
        if !offsets.is_sorted() {
            return fail("offsets do not ascend");
        }
        for pair in offsets.windows(2) {
            let row = &columns[pair[0]..pair[1]];
            if !row.is_sorted_by(|a, b| a < b) {
                return fail("columns do not ascend within a row");
            }
            if row.last().is_some_and(|&last| last as usize >= column_count) {
                return fail("a column is out of range");
            }
        }
        Ok(Self { offsets, columns, values, column_count })
    }

    /// A matrix whose columns may be in any order within a row; the caller keeps them in range.
    pub(super) fn from_unsorted(
        offsets: Vec<usize>,
        columns: Vec<u32>,
        values: Vec<f32>,
        column_count: usize,
    ) -> Self {
        Self { offsets, columns, values, column_count }
    }

    /// A matrix of rows of given lengths, which `fill` writes: their columns, which may be in any
    /// order and which the caller keeps in range, and their values. Runs on the current rayon pool.
    pub(super) fn from_rows(
        lengths: impl Iterator<Item = usize>,
        column_count: usize,
        fill: impl Fn(usize, &mut [u32], &mut [f32]) + Sync,
    ) -> Self {
        let mut offsets = vec![0];
        let mut cells = 0;
        offsets.extend(lengths.map(|length| {
            cells += length;
            cells
        }));
        let (mut columns, mut values) = (vec![0; cells], vec![0.0; cells]);
        fill_rows(0, &offsets, (&mut columns[..], &mut values[..]), &fill);
        Self { offsets, columns, values, column_count }
    }

    /// A matrix without any cell.
    pub fn empty(rows: usize, columns: usize) -> Self {
        Self { offsets: vec![0; rows + 1], columns: vec![], values: vec![], column_count: columns }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.column_count
    }

    /// Number of stored cells.
    pub fn cells(&self) -> usize {
        self.columns.len()
    }

    /// Row boundaries: `rows() + 1` ascending positions.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Column of every cell, row after row.
    pub fn column_indices(&self) -> &[u32] {
        &self.columns
    }

    /// Value of every cell, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Columns and values of a row; both empty when there is no such row.
    #[inline]
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        match (self.offsets.get(row), self.offsets.get(row + 1)) {
            (Some(&start), Some(&end)) => (&self.columns[start..end], &self.values[start..end]),
            _ => (&[], &[]),
        }
    }

    /// Whether the row has a cell in the column.
    pub fn contains(&self, row: usize, column: u32) -> bool {
        self.row(row).0.binary_search(&column).is_ok()
    }

    /// Checks that some cell speaks for its item, as learners of evidence need.
    ///
    /// # Errors
    /// [`ModelError::NoEvidence`] when no value is above 0.
    pub fn check_evidence(&self) -> Result<(), ModelError> {
        match self.values.iter().any(|&value| value > 0.0) {
            true => Ok(()),
            false => Err(ModelError::NoEvidence),
        }
    }

    /// Cells per column.
    pub fn column_counts(&self) -> Vec<u32> {
        counts(&self.columns, self.column_count)
    }

    /// The matrix with rows and columns exchanged.
    pub fn transpose(&self) -> Self {
        self.transpose_unless(&AtomicBool::new(false))
    }

    /// [`Csr::transpose`], which leaves cells out once the flag is set: the caller looks at it.
    pub(super) fn transpose_unless(&self, cancel: &AtomicBool) -> Self {
        let offsets = offsets(&self.column_counts());
        let (columns, values) = scatter(&offsets, |part| {
            for row in 0..self.rows() {
                if cancel::is_set(cancel) {
                    return;
                }
                let (row_columns, row_values) = self.row(row);
                part.take(row_columns, row_values, |_| row as u32);
            }
        });
        Self { offsets, columns, values, column_count: self.rows() }
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        csr_bytes(self.rows(), self.cells())
    }
}

/// Bytes of a matrix of `rows` rows and `cells` cells.
pub fn csr_bytes(rows: usize, cells: usize) -> usize {
    (rows + 1) * size_of::<usize>() + cells * (size_of::<u32>() + size_of::<f32>())
}

/// Cells in any order, with dense codes: 12 bytes each.
#[derive(Debug, Clone, Default)]
pub struct Triplets {
    rows: Vec<u32>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl Triplets {
    /// Adds one cell.
    ///
    /// # Errors
    /// When the value is NaN or infinite; `column` names its column in the message.
    pub fn push(
        &mut self,
        row: u32,
        item: u32,
        value: f32,
        column: &str,
    ) -> Result<(), ModelError> {
        if !value.is_finite() {
            return Err(ModelError::NotFinite { column: column.to_owned(), value });
        }
        self.rows.push(row);
        self.columns.push(item);
        self.values.push(value);
        Ok(())
    }

    /// Adds cells with as many values, or with 1 each without them.
    ///
    /// # Errors
    /// As [`Triplets::push`]; then none is added.
    pub fn extend(
        &mut self,
        rows: &[u32],
        items: &[u32],
        values: Option<&[f32]>,
        column: &str,
    ) -> Result<(), ModelError> {
        if rows.len() != items.len() || values.is_some_and(|values| values.len() != rows.len()) {
            return Err(ModelError::Inconsistent(
                "cells: codes and values differ in number".into(),
            ));
        }
        if let Some(&value) = values.unwrap_or_default().iter().find(|value| !value.is_finite()) {
            return Err(ModelError::NotFinite { column: column.to_owned(), value });
        }
        self.rows.extend_from_slice(rows);
        self.columns.extend_from_slice(items);
        match values {
            Some(values) => self.values.extend_from_slice(values),
            None => self.values.resize(self.rows.len(), 1.0),
        }
        Ok(())
    }

    /// Number of cells, duplicates included.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no cell.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.rows.capacity() * 12
    }

    /// Multiplies the value of each cell by a finite factor, given the cell's position.
    pub fn scale(&mut self, factor: impl Fn(usize) -> f32) {
        for (position, value) in self.values.iter_mut().enumerate() {
            *value *= factor(position);
        }
    }

    /// Exchanges every code: row `r` becomes `rows[r]`, column `c` becomes `columns[c]`.
    pub fn recode(&mut self, rows: &[u32], columns: &[u32]) {
        for (codes, new) in [(&mut self.rows, rows), (&mut self.columns, columns)] {
            codes.par_chunks_mut(TASK_CELLS).for_each(|codes| {
                codes.iter_mut().for_each(|code| *code = new[*code as usize]);
            });
        }
    }

    /// Row and column of each cell.
    pub fn codes(&self) -> (&[u32], &[u32]) {
        (&self.rows, &self.columns)
    }

    /// Builds the matrix and says how many cells were merged into another.
    pub fn build(self, rows: usize, columns: usize, duplicates: Duplicates) -> (Csr, usize) {
        let by_column = offsets(&counts(&self.columns, columns));
        let (codes, values) = scatter(&by_column, |part| {
            part.take(&self.columns, &self.values, |at| self.rows[at]);
        });
        drop(self);
        let by_column = Csr { offsets: by_column, columns: codes, values, column_count: rows };
        let by_row = by_column.transpose();
        drop(by_column);
        merge(by_row, columns, duplicates)
    }
}

/// Cells that one task writes.
const TASK_CELLS: usize = 1 << 14;

/// Writes rows, the first of which has the number `first`; `offsets` has their boundaries, and the
/// cells are theirs alone.
fn fill_rows(
    first: usize,
    offsets: &[usize],
    (columns, values): (&mut [u32], &mut [f32]),
    fill: &(impl Fn(usize, &mut [u32], &mut [f32]) + Sync),
) {
    let rows = offsets.len() - 1;
    let start = offsets[0];
    if rows > 1 && columns.len() > TASK_CELLS {
        let middle = rows / 2;
        let (left, right) = columns.split_at_mut(offsets[middle] - start);
        let (left_values, right_values) = values.split_at_mut(offsets[middle] - start);
        rayon::join(
            || fill_rows(first, &offsets[..=middle], (left, left_values), fill),
            || fill_rows(first + middle, &offsets[middle..], (right, right_values), fill),
        );
        return;
    }
    for (row, pair) in (first..).zip(offsets.windows(2)) {
        let cells = pair[0] - start..pair[1] - start;
        fill(row, &mut columns[cells.clone()], &mut values[cells]);
    }
}

/// Merges equal neighbouring columns in place: rows are sorted, so duplicates are adjacent.
fn merge(mut csr: Csr, columns: usize, duplicates: Duplicates) -> (Csr, usize) {
    let before = csr.cells();
    let old = std::mem::take(&mut csr.offsets);
    let ranges = ranges(&old);
    let codes = split(&mut csr.columns, &old, &ranges);
    let cells = codes.into_iter().zip(split(&mut csr.values, &old, &ranges));
    let parts: Vec<_> = ranges.iter().zip(cells).collect();
    let lengths = each(parts, |(rows, (columns, values))| {
        merge_rows(&old[rows.start..=rows.end], columns, values, duplicates)
    });
    // What was merged left gaps between the ranges.
    let mut write = 0;
    csr.offsets = Vec::with_capacity(old.len());
    csr.offsets.push(write);
    for (rows, lengths) in ranges.iter().zip(&lengths) {
        let (start, front) = (old[rows.start], write);
        for length in lengths {
            write += length;
            csr.offsets.push(write);
        }
        if front < start {
            let cells = start..start + write - front;
            csr.columns.copy_within(cells.clone(), front);
            csr.values.copy_within(cells, front);
        }
    }
    csr.columns.truncate(write);
    csr.values.truncate(write);
    csr.column_count = columns;
    (csr, before - write)
}

/// Merges rows towards the front of their cells; `offsets` has their boundaries. Returns their
/// lengths from then on.
fn merge_rows(
    offsets: &[usize],
    columns: &mut [u32],
    values: &mut [f32],
    duplicates: Duplicates,
) -> Vec<usize> {
    let start = offsets[0];
    let mut write = 0;
    let mut lengths = Vec::with_capacity(offsets.len() - 1);
    for pair in offsets.windows(2) {
        let (mut read, end, front) = (pair[0] - start, pair[1] - start, write);
        while read < end {
            let column = columns[read];
            let mut sum = 0.0_f64;
            let first = read;
            while read < end && columns[read] == column {
                sum += f64::from(values[read]);
                read += 1;
            }
            if duplicates == Duplicates::Mean {
                sum /= (read - first) as f64;
            }
            columns[write] = column;
            values[write] = (sum as f32).clamp(f32::MIN, f32::MAX);
            write += 1;
        }
        lengths.push(write - front);
    }
    lengths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::random::mix;

    fn triplets(cells: &[(u32, u32, f32)]) -> Triplets {
        let mut triplets = Triplets::default();
        for &(row, column, value) in cells {
            triplets.push(row, column, value, "w").unwrap();
        }
        triplets
    }

    #[test]
    fn duplicates_are_summed_and_counted_or_averaged() {
        let cells = [(1, 2, 1.0), (0, 0, 5.0), (1, 2, 2.0), (1, 0, 7.0)];
        let (csr, merged) = triplets(&cells).build(3, 3, Duplicates::Sum);
        assert_eq!(merged, 1);
        assert_eq!(csr.row(1), (&[0_u32, 2][..], &[7.0_f32, 3.0][..]));
        assert_eq!(csr.row(2).0.len(), 0);
        let (csr, _) = triplets(&cells).build(3, 3, Duplicates::Mean);
        assert_eq!(csr.row(1).1, &[7.0, 1.5]);
        assert!(csr.contains(1, 2) && !csr.contains(0, 2) && !csr.contains(9, 0));
    }

    #[test]
    fn a_weight_that_is_no_number_is_refused_by_name() {
        let error = Triplets::default().push(0, 0, f32::NAN, "stars").unwrap_err();
        assert!(error.to_string().contains("\"stars\" holds NaN"), "{error}");
        let mut cells = Triplets::default();
        let together = cells.extend(&[0], &[0], Some(&[f32::NAN]), "stars").unwrap_err();
        assert_eq!(together.to_string(), error.to_string());
        assert!(cells.extend(&[0], &[], None, "stars").is_err() && cells.is_empty());
    }

    #[test]
    fn cells_added_together_are_those_added_one_by_one() {
        let mut together = Triplets::default();
        together.extend(&[1, 0], &[2, 0], Some(&[4.0, 5.0]), "w").unwrap();
        together.extend(&[1], &[2], None, "w").unwrap();
        let one_by_one = triplets(&[(1, 2, 4.0), (0, 0, 5.0), (1, 2, 1.0)]);
        assert_eq!(together.build(2, 3, Duplicates::Sum), one_by_one.build(2, 3, Duplicates::Sum));
    }

    #[test]
    fn the_matrix_is_the_same_whatever_the_number_of_threads() {
        let mut cells = Triplets::default();
        for at in 0..150_000_u64 {
            let (row, column) = (mix(at) % 3_000, mix(at + 1) % 40);
            cells.push(row as u32, column as u32, 0.1 * (at % 13) as f32, "w").unwrap();
        }
        let of = |threads: usize, duplicates: Duplicates| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut cells = cells.clone();
                let new: Vec<u32> = (0..3_000).rev().collect();
                cells.recode(&new, &new[2_960..]);
                let (csr, merged) = cells.build(3_000, 40, duplicates);
                (csr.transpose(), csr, merged)
            })
        };
        for duplicates in [Duplicates::Sum, Duplicates::Mean] {
            let (transposed, csr, merged) = of(1, duplicates);
            assert!(merged > 30_000 && csr.cells() + merged == 150_000);
            assert_eq!(of(4, duplicates), (transposed.clone(), csr.clone(), merged));
            let again = Csr::new(csr.offsets, csr.columns, csr.values, 40).unwrap();
            assert_eq!(transposed.transpose(), again);
        }
    }

    #[test]
    fn rows_are_written_where_they_belong() {
        let rows = 5_000;
        let csr = Csr::from_rows((0..rows).map(|row| row % 17), 17, |row, columns, values| {
            columns.iter_mut().zip(0..).for_each(|(column, at)| *column = at);
            values.fill(row as f32);
        });
        assert!(csr.cells() > 2 * TASK_CELLS);
        for row in 0..rows {
            let expected: Vec<u32> = (0..row as u32 % 17).collect();
            assert_eq!(csr.row(row).0, expected);
            assert!(csr.row(row).1.iter().all(|&value| value == row as f32));
        }
        assert_eq!(Csr::from_rows([].into_iter(), 3, |_, _, _| ()), Csr::empty(0, 3));
    }

    #[test]
    fn inconsistent_parts_are_refused() {
        assert!(Csr::new(vec![0, 1], vec![3], vec![1.0], 3).is_err());
        assert!(Csr::new(vec![0, 2], vec![1, 1], vec![1.0; 2], 3).is_err());
        assert!(Csr::new(vec![0, 2, 1, 2], vec![0, 1], vec![1.0; 2], 3).is_err());
        assert!(Csr::new(vec![], vec![], vec![], 3).is_err());
        assert!(Csr::new(vec![0, 1], vec![2], vec![1.0], 3).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn the_matrix_equals_a_map_of_sums(
            cells in prop::collection::vec((0_u32..7, 0_u32..5, -4_i8..5), 0..60)
        ) {
            let cells: Vec<_> = cells.iter().map(|&(r, c, v)| (r, c, f32::from(v))).collect();
            let mut expected: BTreeMap<(u32, u32), f32> = BTreeMap::new();
            for &(row, column, value) in &cells {
                *expected.entry((row, column)).or_default() += value;
            }
            let (csr, merged) = triplets(&cells).build(7, 5, Duplicates::Sum);
            prop_assert_eq!(merged, cells.len() - expected.len());
            let mut found = BTreeMap::new();
            for row in 0..csr.rows() {
                for (&column, &value) in csr.row(row).0.iter().zip(csr.row(row).1) {
                    found.insert((row as u32, column), value);
                }
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(csr.transpose().transpose(), csr);
        }
    }
}
