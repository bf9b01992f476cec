//! Cosines between rows of interactions: who did alike, or what was done alike.
//!
//! The cosine of rows a and b is Σ over shared columns of rₐ·r_b, divided by both lengths. Sums run
//! in `f64` in order of columns. A row without cells is similar to nothing.

use std::borrow::Cow;

use rayon::prelude::*;

use super::sparse::Csr;
use super::topk::{Best, Heap};

/// Rows with their lengths.
#[derive(Debug, Clone)]
pub struct RowCosines<'a> {
    rows: Cow<'a, Csr>,
    lengths: Vec<f64>,
}

impl<'a> RowCosines<'a> {
    /// Cosines between the rows of a matrix.
    pub fn new(rows: Cow<'a, Csr>) -> Self {
        let length = |row| {
            let values = rows.row(row).1.iter();
            values.map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
        };
        let lengths = (0..rows.rows()).map(length).collect();
        Self { rows, lengths }
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.lengths.len() * size_of::<f64>()
    }

    /// The cosine of two rows, −1 to 1; 0 when one is empty or out of range.
    pub fn pair(&self, a: u32, b: u32) -> f32 {
        let (a, b) = (a as usize, b as usize);
        // The shorter row is looked up in the longer one.
        let (short, long) =
            if self.rows.row(a).0.len() <= self.rows.row(b).0.len() { (a, b) } else { (b, a) };
        let (columns, values) = self.rows.row(short);
        let (mut others, mut other_values) = self.rows.row(long);
        let mut sum = 0.0;
        for (column, &value) in columns.iter().zip(values) {
            let from = others.partition_point(|other| other < column);
            (others, other_values) = (&others[from..], &other_values[from..]);
            if others.first() == Some(column) {
                sum += f64::from(value) * f64::from(other_values[0]);
            }
        }
        self.scaled(sum, a, b)
    }

    fn scaled(&self, sum: f64, a: usize, b: usize) -> f32 {
        let length = self.lengths.get(a).zip(self.lengths.get(b)).map_or(0.0, |(a, b)| a * b);
        if length > 0.0 { (sum / length) as f32 } else { 0.0 }
    }

    /// The `top_k` rows of the greatest positive cosine with each given row, without itself, best
    /// first, ties by code. Runs on the current rayon pool.
    pub fn nearest(&self, rows: &[u32], top_k: usize) -> Vec<Best> {
        let count = self.rows.rows();
        let k = top_k.min(count);
        if k == 0 {
            return vec![Best::default(); rows.len()];
        }
        let by_column = self.rows.transpose();
        let nearest = |(sums, touched): &mut (Vec<f64>, Vec<u32>), &asked: &u32| {
            let (columns, values) = self.rows.row(asked as usize);
            for (&column, &value) in columns.iter().zip(values) {
                let (others, other_values) = by_column.row(column as usize);
                for (&other, &weight) in others.iter().zip(other_values) {
                    let sum = &mut sums[other as usize];
                    if *sum == 0.0 {
                        touched.push(other);
                    }
                    *sum += f64::from(value) * f64::from(weight);
                }
            }
            let mut heap = Heap::new(k, &[]);
            for other in touched.drain(..) {
                let sum = std::mem::take(&mut sums[other as usize]);
                let cosine = self.scaled(sum, asked as usize, other as usize);
                if other != asked && cosine > 0.0 {
                    heap.offer(cosine, other);
                }
            }
            heap.into_best()
        };
        rows.par_iter().map_init(|| (vec![0.0; count], vec![]), nearest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_and_the_nearest_rows_agree() {
        let csr =
            Csr::new(vec![0, 2, 4, 5, 5], vec![0, 1, 0, 2, 1], vec![3.0, 4.0, 1.0, 1.0, 2.0], 3);
        let cosines = RowCosines::new(Cow::Owned(csr.unwrap()));
        let first = 3.0 / (5.0 * 2.0_f32.sqrt());
        assert!((cosines.pair(0, 1) - first).abs() < 1e-6);
        assert_eq!(cosines.pair(0, 2), 0.8);
        assert_eq!((cosines.pair(1, 2), cosines.pair(0, 3), cosines.pair(0, 9)), (0.0, 0.0, 0.0));
        let best = cosines.nearest(&[0, 1, 3], 5);
        assert_eq!(best[0].codes, [2, 1]);
        assert_eq!(best[0].scores, [0.8, cosines.pair(0, 1)]);
        assert_eq!(best[1].codes, [0]);
        assert_eq!((best[2].codes.len(), cosines.nearest(&[0], 0)[0].codes.len()), (0, 0));
    }
}
