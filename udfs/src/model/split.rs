//! The evaluation split: each interaction is held out on its own with a given probability.
//!
//! Whether a cell is held out depends on the seed and on its two codes alone, so the split is
//! reproducible and the same for every order of rows.

use super::als::mix;
use super::sparse::Csr;

/// Splits into training and held-out interactions of the same shape; a fraction of 0 or less
/// holds nothing out, one of 1 or more everything.
pub fn holdout(interactions: &Csr, fraction: f64, seed: u64) -> (Csr, Csr) {
    if fraction.is_nan() || fraction <= 0.0 {
        let nothing = Csr::empty(interactions.rows(), interactions.columns());
        return (interactions.clone(), nothing);
    }
    let mut sides = [Part::default(), Part::default()];
    for row in 0..interactions.rows() {
        let (columns, values) = interactions.row(row);
        for (&column, &value) in columns.iter().zip(values) {
            let draw = mix(mix(mix(seed) ^ row as u64) ^ u64::from(column));
            let uniform = (draw >> 11) as f64 / (1_u64 << 53) as f64;
            let side = &mut sides[usize::from(uniform < fraction)];
            side.columns.push(column);
            side.values.push(value);
        }
        for side in &mut sides {
            side.offsets.push(side.columns.len());
        }
    }
    let [training, held] = sides;
    (training.matrix(interactions.columns()), held.matrix(interactions.columns()))
}

struct Part {
    offsets: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl Default for Part {
    fn default() -> Self {
        Self { offsets: vec![0], columns: vec![], values: vec![] }
    }
}

impl Part {
    fn matrix(self, columns: usize) -> Csr {
        Csr::from_unsorted(self.offsets, self.columns, self.values, columns)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sparse::{Duplicates, Triplets};
    use super::*;

    #[test]
    fn a_split_is_seeded_complete_and_of_the_asked_size() {
        let mut triplets = Triplets::default();
        for cell in 0..4000_u32 {
            triplets.push(cell / 40, cell % 40, 1.0, "w").unwrap();
        }
        let all = triplets.build(100, 40, Duplicates::Sum).0;
        let (training, held) = holdout(&all, 0.25, 9);
        assert_eq!(training.cells() + held.cells(), all.cells());
        assert!((held.cells() as f64 / 4000.0 - 0.25).abs() < 0.03, "{}", held.cells());
        for row in 0..100 {
            assert!(held.row(row).0.iter().all(|&column| !training.contains(row, column)));
        }
        assert_eq!(holdout(&all, 0.25, 9).1, held);
        assert_ne!(holdout(&all, 0.25, 10).1, held);
        assert_eq!(holdout(&all, 0.0, 9).0, all);
        assert_eq!(holdout(&all, f64::NAN, 9).1.cells(), 0);
        assert_eq!(holdout(&all, 1.0, 9).0.cells(), 0);
    }
}
