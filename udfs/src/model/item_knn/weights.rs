//! From interactions v to the weights w whose products are similarities.
//!
//! With N items, nᵤ the items of user u, sᵢ the sum of item i's values and s̄ its mean over items:
//!
//! ```text
//! idfᵤ    = ln N − ln(1 + nᵤ)
//! cosine  w = v / |column i|
//! tf-idf  w = t / |column i of t|,  t = √v · idfᵤ
//! bm25    w = v·(K1 + 1) / (K1·(1 − B + B·sᵢ/s̄) + v) · idfᵤ
//! rp3beta w = (v / √(tᵤ·v̄))^α,  v̄ the mean of all values
//! ```
//!
//! RP3beta multiplies the sum over users by (sᵢ/v̄)^−α·(sⱼ/v̄)^−β, from item i to item j: a walk
//! goes from i to its user u with probability v/sᵢ and from u to j with v/tᵤ, tᵤ being the sum of
//! u's values.
//!
//! Users stand where a search engine has words, items where it has documents. All but the cosine
//! weigh evidence for an item, so cells of 0 or less count as absent there; the cosine takes them
//! as they are. A column of length 0 stays 0. Computed in `f64`, kept in `f32`.

use super::super::sparse::Csr;
use super::{ItemKnnOptions, Weighting};

/// Weighted interactions; column `p` of the result is item `codes[p]`.
pub(super) fn weighted(interactions: &Csr, options: &ItemKnnOptions, codes: &[u32]) -> Csr {
    let mut position = vec![0_u32; codes.len()];
    for (place, &code) in codes.iter().enumerate() {
        position[code as usize] = place as u32;
    }
    let statistics = Statistics::new(interactions, options);
    let mut offsets = vec![0];
    let mut columns = Vec::with_capacity(interactions.cells());
    let mut values = Vec::with_capacity(interactions.cells());
    for user in 0..interactions.rows() {
        for (item, weight) in statistics.row(interactions, user) {
            let norm = statistics.norms[item as usize];
            columns.push(position[item as usize]);
            values.push(if norm > 0.0 { (weight / norm) as f32 } else { 0.0 });
        }
        offsets.push(columns.len());
    }
    Csr::from_unsorted(offsets, columns, values, interactions.columns())
}

struct Statistics<'a> {
    options: &'a ItemKnnOptions,
    /// ln N − ln(1 + nᵤ) of each user.
    idf: Vec<f64>,
    /// K1·(1 − B + B·sᵢ/s̄) of each item.
    saturation: Vec<f64>,
    /// tᵤ of each user.
    totals: Vec<f64>,
    /// v̄.
    mean: f64,
    /// Length of each item's column; 1 for BM25 and RP3beta.
    norms: Vec<f64>,
}

impl<'a> Statistics<'a> {
    fn new(interactions: &Csr, options: &'a ItemKnnOptions) -> Self {
        let (users, items) = (interactions.rows(), interactions.columns());
        let mut sums = vec![0.0_f64; items];
        let (mut idf, mut totals) = (Vec::with_capacity(users), Vec::with_capacity(users));
        for user in 0..users {
            let (mut count, mut total) = (0.0, 0.0);
            for (item, value) in kept(interactions, user, options.weighting) {
                sums[item as usize] += value;
                count += 1.0;
                total += value;
            }
            totals.push(total);
            idf.push((items as f64).ln() - f64::ln_1p(count));
        }
        let mean = sums.iter().sum::<f64>() / items as f64;
        let mean_value = mean_of(interactions, options);
        let (k1, b) = (options.bm25_k1, options.bm25_b);
        let saturation = sums.iter().map(|sum| k1 * (1.0 - b + b * sum / mean)).collect();
        let mut statistics =
            Self { options, idf, saturation, totals, mean: mean_value, norms: vec![1.0; items] };
        if matches!(options.weighting, Weighting::Cosine | Weighting::TfIdf) {
            let mut squares = vec![0.0_f64; items];
            for user in 0..users {
                for (item, weight) in statistics.row(interactions, user) {
                    squares[item as usize] += weight * weight;
                }
            }
            statistics.norms = squares.into_iter().map(f64::sqrt).collect();
        }
        statistics
    }

    /// A user's items with their weights, not yet divided by the norms.
    fn row<'b>(
        &'b self,
        interactions: &'b Csr,
        user: usize,
    ) -> impl Iterator<Item = (u32, f64)> + 'b {
        let (idf, total) = (self.idf[user], self.totals[user]);
        let cells = kept(interactions, user, self.options.weighting);
        cells.map(move |(item, value)| {
            let weight = match self.options.weighting {
                Weighting::Cosine => value,
                Weighting::TfIdf => value.sqrt() * idf,
                Weighting::Bm25 => {
                    let saturation = self.saturation[item as usize];
                    value * (self.options.bm25_k1 + 1.0) / (saturation + value) * idf
                }
                // Parts of the mean: what a probability is does not depend on the unit.
                Weighting::Rp3Beta => {
                    (value / (total * self.mean).sqrt()).powf(self.options.rp3_alpha)
                }
            };
            (item, weight)
        })
    }
}

/// What RP3beta multiplies sums by.
pub(super) struct Scales {
    /// sᵢ^−α at each position.
    from: Vec<f64>,
    /// sⱼ^−β at each position.
    to: Vec<f64>,
}

impl Scales {
    pub(super) fn new(interactions: &Csr, options: &ItemKnnOptions, codes: &[u32]) -> Self {
        let mut sums = vec![0.0_f64; codes.len()];
        for user in 0..interactions.rows() {
            for (item, value) in kept(interactions, user, options.weighting) {
                sums[item as usize] += value;
            }
        }
        let mean = mean_of(interactions, options);
        let powers = |power: f64| -> Vec<f64> {
            codes.iter().map(|&code| (sums[code as usize] / mean).powf(power)).collect()
        };
        Self { from: powers(-options.rp3_alpha), to: powers(-options.rp3_beta) }
    }

    /// The similarity that a sum is, between two positions.
    pub(super) fn scaled(&self, from: usize, to: usize, sum: f32) -> f32 {
        (f64::from(sum) * self.from[from] * self.to[to]) as f32
    }
}

/// The mean of all values that count.
fn mean_of(interactions: &Csr, options: &ItemKnnOptions) -> f64 {
    let (mut sum, mut count) = (0.0, 0_usize);
    for user in 0..interactions.rows() {
        for (_, value) in kept(interactions, user, options.weighting) {
            sum += value;
            count += 1;
        }
    }
    sum / count.max(1) as f64
}

/// The cells of a user that count.
fn kept(
    interactions: &Csr,
    user: usize,
    weighting: Weighting,
) -> impl Iterator<Item = (u32, f64)> + '_ {
    let (items, values) = interactions.row(user);
    let cells = items.iter().zip(values).map(|(&item, &value)| (item, f64::from(value)));
    cells.filter(move |&(_, value)| weighting == Weighting::Cosine || value > 0.0)
}
