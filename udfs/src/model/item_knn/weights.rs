//! From interactions v to the weights w whose products are similarities.
//!
//! With N items, nᵤ the items of user u, sᵢ the sum of item i's values and s̄ its mean over items:
//!
//! ```text
//! idfᵤ    = ln N − ln(1 + nᵤ)
//! cosine  w = v / |column i|
//! tf-idf  w = t / |column i of t|,  t = √v · idfᵤ
//! bm25    w = v·(K1 + 1) / (K1·(1 − B + B·sᵢ/s̄) + v) · idfᵤ
//! ```
//!
//! Users stand where a search engine has words, items where it has documents. TF-IDF and BM25
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
    /// Length of each item's column; 1 for BM25.
    norms: Vec<f64>,
}

impl<'a> Statistics<'a> {
    fn new(interactions: &Csr, options: &'a ItemKnnOptions) -> Self {
        let (users, items) = (interactions.rows(), interactions.columns());
        let mut sums = vec![0.0_f64; items];
        let mut idf = Vec::with_capacity(users);
        for user in 0..users {
            let mut count = 0.0;
            for (item, value) in kept(interactions, user, options.weighting) {
                sums[item as usize] += value;
                count += 1.0;
            }
            idf.push((items as f64).ln() - f64::ln_1p(count));
        }
        let mean = sums.iter().sum::<f64>() / items as f64;
        let (k1, b) = (options.bm25_k1, options.bm25_b);
        let saturation = sums.iter().map(|sum| k1 * (1.0 - b + b * sum / mean)).collect();
        let mut statistics = Self { options, idf, saturation, norms: vec![1.0; items] };
        if options.weighting != Weighting::Bm25 {
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
        let idf = self.idf[user];
        let cells = kept(interactions, user, self.options.weighting);
        cells.map(move |(item, value)| {
            let weight = match self.options.weighting {
                Weighting::Cosine => value,
                Weighting::TfIdf => value.sqrt() * idf,
                Weighting::Bm25 => {
                    let saturation = self.saturation[item as usize];
                    value * (self.options.bm25_k1 + 1.0) / (saturation + value) * idf
                }
            };
            (item, weight)
        })
    }
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
