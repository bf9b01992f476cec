//! The objective of a factorization, computed plainly in `f64`.
//!
//! This is the definition that training minimizes (see [`super::options::AlsOptions`]); training
//! itself gets the value as a by-product. Cells that are not observed enter through the Gram
//! matrices, so that the cost is cells × k + (users + items) × k².

use super::super::sparse::Csr;
use super::options::{AlsOptions, Feedback, Resolved};
use super::{AlsFactors, mean};

/// The objective of `factors` on `interactions` under `options`.
pub fn objective(interactions: &Csr, options: &AlsOptions, factors: &AlsFactors) -> f64 {
    let resolved = options.resolve(interactions);
    let size = options.num_factors;
    let mut total = penalties(interactions, &resolved, size, factors);
    if options.feedback == Feedback::Implicit {
        let (left, right) = (gram(&factors.user_factors, size), gram(&factors.item_factors, size));
        total += left.iter().zip(&right).map(|(a, b)| a * b).sum::<f64>();
    }
    let center = if options.has_biases() { mean(interactions.values()) } else { 0.0 };
    for user in 0..interactions.rows() {
        let (columns, values) = interactions.row(user);
        for (&item, &value) in columns.iter().zip(values) {
            let item = item as usize;
            let score = product(&factors.user_factors, user, &factors.item_factors, item, size);
            let value = f64::from(value);
            total += match options.feedback {
                Feedback::Explicit => {
                    let bias = |all: &[f32], at: usize| {
                        all.get(at).map_or(0.0, |&bias| f64::from(bias))
                    };
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

fn penalties(csr: &Csr, resolved: &Resolved, size: usize, factors: &AlsFactors) -> f64 {
    let side = |counts: &[usize], values: &[f32], bias: &[f32], others: usize| -> f64 {
        let rows = counts.iter().zip(values.chunks_exact(size)).enumerate();
        rows.map(|(row, (&count, x))| {
            let bias = bias.get(row).map_or(0.0, |&bias| f64::from(bias));
            let norm: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            resolved.regularization(count, others) * (norm + bias * bias)
        })
        .sum()
    };
    let user_counts: Vec<usize> = csr.offsets().windows(2).map(|pair| pair[1] - pair[0]).collect();
    let item_counts: Vec<usize> = csr.column_counts().iter().map(|&n| n as usize).collect();
    side(&user_counts, &factors.user_factors, &factors.user_bias, csr.columns())
        + side(&item_counts, &factors.item_factors, &factors.item_bias, csr.rows())
}

fn gram(factors: &[f32], size: usize) -> Vec<f64> {
    let mut gram = vec![0.0; size * size];
    for row in factors.chunks_exact(size) {
        for (line, &a) in gram.chunks_exact_mut(size).zip(row) {
            for (cell, &b) in line.iter_mut().zip(row) {
                *cell += f64::from(a) * f64::from(b);
            }
        }
    }
    gram
}

fn product(users: &[f32], user: usize, items: &[f32], item: usize, size: usize) -> f64 {
    let x = &users[user * size..(user + 1) * size];
    let y = &items[item * size..(item + 1) * size];
    x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}
