//! The objective of a factorization, computed plainly in `f64`.
//!
//! This is the definition that training minimizes (see [`super::options::AlsOptions`]); training
//! itself gets the value as a by-product. Cells that are not observed enter through the Gram
//! matrices, so that the cost is cells × k + (users + items) × k².

use super::super::sparse::Csr;
use super::features::FeatureMap;
use super::options::{AlsOptions, Feedback, Resolved};
use super::{AlsFactors, mean};

/// Features of the rows of one side, and the map learned from them.
pub type Known<'a> = Option<(&'a Csr, &'a FeatureMap)>;

/// The objective of `factors` on `interactions` under `options`.
pub fn objective(interactions: &Csr, options: &AlsOptions, factors: &AlsFactors) -> f64 {
    objective_with_features(interactions, options, factors, None, None)
}

/// The objective with features of users, of items, or of both. Rows without interactions, whose
/// factors come from their features alone, take no part.
pub fn objective_with_features(
    interactions: &Csr,
    options: &AlsOptions,
    factors: &AlsFactors,
    users: Known<'_>,
    items: Known<'_>,
) -> f64 {
    let resolved = options.resolve(interactions);
    let size = options.num_factors;
    let user_counts: Vec<usize> =
        interactions.offsets().windows(2).map(|pair| pair[1] - pair[0]).collect();
    let item_counts: Vec<usize> =
        interactions.column_counts().iter().map(|&count| count as usize).collect();
    let user_side = Rows {
        counts: &user_counts,
        factors: &factors.user_factors,
        bias: &factors.user_bias,
        size,
    };
    let item_side = Rows {
        counts: &item_counts,
        factors: &factors.item_factors,
        bias: &factors.item_bias,
        size,
    };
    let live = |counts: &[usize]| counts.iter().filter(|&&count| count > 0).count();
    let mut total = user_side.penalty(&resolved, live(&item_counts), users, options)
        + item_side.penalty(&resolved, live(&user_counts), items, options);
    if options.feedback == Feedback::Implicit {
        let (left, right) = (user_side.gram(), item_side.gram());
        total += left.iter().zip(&right).map(|(a, b)| a * b).sum::<f64>();
    }
    total + observed(interactions, options, &resolved, factors)
}

/// The observed cells' terms, beyond what they would have unobserved.
fn observed(
    interactions: &Csr,
    options: &AlsOptions,
    resolved: &Resolved,
    factors: &AlsFactors,
) -> f64 {
    let size = options.num_factors;
    let center = if options.has_biases() { mean(interactions.values()) } else { 0.0 };
    let mut total = 0.0;
    for user in 0..interactions.rows() {
        let (columns, values) = interactions.row(user);
        for (&item, &value) in columns.iter().zip(values) {
            let item = item as usize;
            let score = product(&factors.user_factors, user, &factors.item_factors, item, size);
            let value = f64::from(value);
            total += match options.feedback {
                Feedback::Explicit => {
                    let bias =
                        |all: &[f32], at: usize| all.get(at).map_or(0.0, |&bias| f64::from(bias));
                    let user_bias = bias(&factors.user_bias, user);
                    let item_bias = bias(&factors.item_bias, item);
                    (value - center - user_bias - item_bias - score).powi(2)
                }
                Feedback::Implicit => {
                    let confidence = 1.0 + resolved.alpha * value.abs();
                    let preference = if value > 0.0 { 1.0 } else { 0.0 };
                    confidence * (preference - score).powi(2) - score * score
                }
            };
        }
    }
    total
}

/// One side of the factors.
struct Rows<'a> {
    counts: &'a [usize],
    factors: &'a [f32],
    bias: &'a [f32],
    size: usize,
}

impl Rows<'_> {
    fn penalty(
        &self,
        resolved: &Resolved,
        others: usize,
        known: Known<'_>,
        options: &AlsOptions,
    ) -> f64 {
        let lambda = |row: usize| resolved.regularization(self.counts[row], others);
        let live: Vec<usize> = (0..self.counts.len()).filter(|&row| self.counts[row] > 0).collect();
        let mut total = 0.0;
        for &row in &live {
            let told = known.map(|(csr, map)| map.prior_mean(csr.row(row).0, csr.row(row).1));
            let mean = |at: usize| told.as_ref().map_or(0.0, |told| f64::from(told.factors[at]));
            let x = &self.factors[row * self.size..(row + 1) * self.size];
            let far = x.iter().enumerate().map(|(at, &x)| (f64::from(x) - mean(at)).powi(2));
            let bias = self.bias.get(row).map_or(0.0, |&bias| {
                f64::from(bias) - told.as_ref().map_or(0.0, |told| f64::from(told.bias))
            });
            total += lambda(row) * (far.sum::<f64>() + bias * bias);
        }
        if let Some((_, map)) = known {
            let mean = live.iter().map(|&row| lambda(row)).sum::<f64>() / live.len().max(1) as f64;
            let weights = map.weights.iter().chain(&map.bias);
            let norm = weights.map(|&weight| f64::from(weight).powi(2)).sum::<f64>();
            total += options.feature_reg.max(1e-6) * mean * norm;
        }
        total
    }

    fn gram(&self) -> Vec<f64> {
        let size = self.size;
        let mut gram = vec![0.0; size * size];
        let rows = self.factors.chunks_exact(size).zip(self.counts);
        for (row, _) in rows.filter(|&(_, &count)| count > 0) {
            for (line, &a) in gram.chunks_exact_mut(size).zip(row) {
                for (cell, &b) in line.iter_mut().zip(row) {
                    *cell += f64::from(a) * f64::from(b);
                }
            }
        }
        gram
    }
}

fn product(users: &[f32], user: usize, items: &[f32], item: usize, size: usize) -> f64 {
    let x = &users[user * size..(user + 1) * size];
    let y = &items[item * size..(item + 1) * size];
    x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}
