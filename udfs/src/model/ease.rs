//! EASE^R: a linear model from all of a user's items to every item, in closed form.
//!
//! With X the users × items matrix, it minimizes |X − X·B|² + λ|B|² subject to diag(B) = 0:
//!
//! ```text
//! P = (XᵀX + λI)⁻¹        Bᵢⱼ = −Pᵢⱼ / Pⱼⱼ for i ≠ j,  Bᵢᵢ = 0
//! ```
//!
//! Source: Steck, *Embarrassingly Shallow Autoencoders for Sparse Data*, WWW 2019. Everything up
//! to B is computed in `f64`; B is kept in `f32`. Time grows with items³ and memory with items²,
//! so the memory is counted first and refused with its figure. Values of X are taken as they are:
//! give 1 for each interaction unless their weights are meant.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::als::Progress;
use super::cancel;
use super::dense::{inverse_bytes, inverse_steps, negated_inverse, stride};
use super::error::ModelError;
use super::sparse::{Csr, csr_bytes};

/// Users of an item between two looks at the cancel flag.
const USERS_PER_LOOK: usize = 1024;

/// Options of EASE.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EaseOptions {
    /// λ, above 0: about the number of interactions that a pair of items needs to be believed.
    pub l2_reg: f64,
    /// Bytes that training may take.
    pub memory_limit_bytes: usize,
}

impl Default for EaseOptions {
    fn default() -> Self {
        Self { l2_reg: 250.0, memory_limit_bytes: usize::MAX }
    }
}

/// Peak bytes of training on `cells` interactions, the weights themselves included.
pub fn memory_bytes(users: usize, items: usize, cells: usize) -> usize {
    let gram = items.saturating_mul(stride(items)).saturating_mul(size_of::<f64>());
    let weights = items.saturating_mul(items).saturating_mul(size_of::<f32>());
    // The panels of the inverse are gone when the weights are written.
    let work = gram.saturating_add(weights.max(inverse_bytes(items)));
    work.saturating_add(csr_bytes(users, cells) + csr_bytes(items, cells))
}

/// Learns B from `interactions` (users × items) on the current rayon pool: items² weights,
/// row-major; row i is what an interaction with item i adds to the score of every item.
///
/// # Errors
/// Invalid options, an empty matrix, a value that is not finite, more memory than allowed
/// ([`ModelError::Memory`]), or cancellation.
pub fn train(
    interactions: &Csr,
    options: &EaseOptions,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<Vec<f32>, ModelError> {
    let items = interactions.columns();
    check(interactions, options)?;
    let total = inverse_steps(items) + 1;
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(Progress { iteration: done, done, total, loss: None, metric: None });
    };
    let mut matrix = gram(interactions, options.l2_reg, cancel)?;
    step();
    negated_inverse(&mut matrix, items, &mut step, cancel)?;
    let weights = weights(&matrix, items, cancel);
    if cancel::is_set(cancel) { Err(ModelError::Cancelled) } else { Ok(weights) }
}

fn check(interactions: &Csr, options: &EaseOptions) -> Result<(), ModelError> {
    let l2_reg = options.l2_reg;
    if !(l2_reg > 0.0 && l2_reg.is_finite()) {
        let hint = "Give a number above 0; 100 to 1000 are usual";
        return Err(ModelError::Option { option: "l2_reg", value: l2_reg.to_string(), hint });
    }
    if interactions.cells() == 0 {
        return Err(ModelError::Empty);
    }
    if let Some(&value) = interactions.values().iter().find(|value| !value.is_finite()) {
        return Err(ModelError::NotFinite { column: "rating".to_owned(), value });
    }
    interactions.check_evidence()?;
    let items = interactions.columns();
    let needed_bytes = memory_bytes(interactions.rows(), items, interactions.cells());
    if needed_bytes > options.memory_limit_bytes {
        return Err(ModelError::Memory {
            what: format!("ease over {items} items"),
            needed_bytes,
            limit_bytes: options.memory_limit_bytes,
        });
    }
    Ok(())
}

/// The lower triangle of XᵀX + λI in padded rows.
fn gram(interactions: &Csr, l2_reg: f64, cancel: &AtomicBool) -> Result<Vec<f64>, ModelError> {
    let items = interactions.columns();
    let by_item = interactions.transpose_unless(cancel);
    let wide = stride(items);
    let mut gram = vec![0.0_f64; items * wide];
    gram.par_chunks_mut(wide).enumerate().for_each(|(item, line)| {
        let line = &mut line[..=item];
        let (users, values) = by_item.row(item);
        for (at, (&user, &value)) in users.iter().zip(values).enumerate() {
            if at.is_multiple_of(USERS_PER_LOOK) && cancel::is_set(cancel) {
                return;
            }
            let (columns, others) = interactions.row(user as usize);
            let lower = columns.partition_point(|&column| column as usize <= item);
            for (&column, &other) in columns[..lower].iter().zip(others) {
                line[column as usize] += f64::from(value) * f64::from(other);
            }
        }
        line[item] += l2_reg;
    });
    if cancel::is_set(cancel) { Err(ModelError::Cancelled) } else { Ok(gram) }
}

/// B from the lower triangle of −P; a part of it once the flag is set.
fn weights(negated: &[f64], items: usize, cancel: &AtomicBool) -> Vec<f32> {
    const TILE: usize = 64;
    let wide = stride(items);
    let scales: Vec<f64> = (0..items).map(|item| -1.0 / negated[item * wide + item]).collect();
    let mut weights = vec![0.0_f32; items * items];
    weights.par_chunks_mut(TILE * items).enumerate().for_each(|(index, lines)| {
        let first = index * TILE;
        for start in (0..items).step_by(TILE) {
            if cancel::is_set(cancel) {
                return;
            }
            let columns = start..items.min(start + TILE);
            for (row, line) in (first..).zip(lines.chunks_exact_mut(items)) {
                for column in columns.clone().filter(|&column| column != row) {
                    let (low, high) = (row.min(column), row.max(column));
                    line[column] = (negated[high * wide + low] * scales[column]) as f32;
                }
            }
        }
    });
    weights
}

#[cfg(test)]
mod tests {
    use super::super::sparse::{Duplicates, Triplets};
    use super::*;
    use crate::model::random::mix;

    fn interactions(users: u32, items: u32, per_user: u32) -> Csr {
        let mut triplets = Triplets::default();
        for user in 0..users {
            for step in 0..per_user {
                let draw = mix(u64::from(user * 1000 + step));
                // Low codes are popular.
                let item = (draw as u32 % items).min((draw >> 32) as u32 % items);
                triplets.push(user, item, 1.0 + (draw >> 60) as f32 / 8.0, "w").unwrap();
            }
        }
        triplets.build(users as usize, items as usize, Duplicates::Sum).0
    }

    /// Gauss-Jordan elimination with pivoting.
    fn naive_inverse(mut a: Vec<f64>, n: usize) -> Vec<f64> {
        let mut inverse = vec![0.0; n * n];
        (0..n).for_each(|i| inverse[i * n + i] = 1.0);
        for pivot in 0..n {
            let best = (pivot..n)
                .max_by(|&x, &y| a[x * n + pivot].abs().total_cmp(&a[y * n + pivot].abs()));
            let best = best.unwrap();
            for k in 0..n {
                a.swap(pivot * n + k, best * n + k);
                inverse.swap(pivot * n + k, best * n + k);
            }
            let scale = a[pivot * n + pivot];
            for k in 0..n {
                a[pivot * n + k] /= scale;
                inverse[pivot * n + k] /= scale;
            }
            for row in (0..n).filter(|&row| row != pivot) {
                let factor = a[row * n + pivot];
                for k in 0..n {
                    a[row * n + k] -= factor * a[pivot * n + k];
                    inverse[row * n + k] -= factor * inverse[pivot * n + k];
                }
            }
        }
        inverse
    }

    fn learn(x: &Csr, l2_reg: f64) -> Vec<f32> {
        let options = EaseOptions { l2_reg, ..EaseOptions::default() };
        train(x, &options, &mut |_| {}, &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn weights_equal_the_formula_with_a_naive_inverse() {
        for (users, items, l2_reg) in [(60, 7, 3.0), (200, 130, 0.5), (50, 300, 20.0)] {
            let x = interactions(users, items, 12);
            let n = items as usize;
            let mut a = vec![0.0; n * n];
            for user in 0..users as usize {
                let (columns, values) = x.row(user);
                for (&i, &v) in columns.iter().zip(values) {
                    for (&j, &w) in columns.iter().zip(values) {
                        a[i as usize * n + j as usize] += f64::from(v) * f64::from(w);
                    }
                }
            }
            (0..n).for_each(|i| a[i * n + i] += l2_reg);
            let p = naive_inverse(a, n);
            let b = learn(&x, l2_reg);
            for i in 0..n {
                for j in 0..n {
                    let expected = if i == j { 0.0 } else { -p[i * n + j] / p[j * n + j] };
                    let found = f64::from(b[i * n + j]);
                    assert!((found - expected).abs() < 1e-5, "{i} {j} {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        let x = interactions(300, 260, 20);
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let four = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        assert_eq!(alone.install(|| learn(&x, 9.0)), four.install(|| learn(&x, 9.0)));
    }

    #[test]
    fn too_many_items_are_refused_with_the_figure() {
        let x = interactions(20, 30, 4);
        let options = EaseOptions { memory_limit_bytes: 1000, ..EaseOptions::default() };
        let error = train(&x, &options, &mut |_| {}, &AtomicBool::new(false)).unwrap_err();
        let figure = memory_bytes(20, 30, x.cells()).to_string();
        let text = error.to_string();
        assert!(text.contains(&figure) && text.contains("30 items"), "{text}");
        // 100,000 items: 80 GB for the inverse and 40 GB for the weights.
        assert!(memory_bytes(1, 100_000, 0) > 120_000_000_000);
        assert_eq!(memory_bytes(1, 1 << 40, 0), usize::MAX);
    }

    #[test]
    fn progress_ends_at_the_total_and_cancellation_stops() {
        let x = interactions(50, 300, 5);
        let mut last = (0, 1);
        let options = EaseOptions::default();
        let mut report = |now: Progress| last = (now.done, now.total);
        train(&x, &options, &mut report, &AtomicBool::new(false)).unwrap();
        assert_eq!(last.0, last.1);
        let stopped = train(&x, &options, &mut |_| {}, &AtomicBool::new(true));
        assert_eq!(stopped, Err(ModelError::Cancelled));
        let options = EaseOptions { l2_reg: 0.0, ..options };
        assert!(train(&x, &options, &mut |_| {}, &AtomicBool::new(false)).is_err());
        let empty = Csr::empty(3, 3);
        let nothing = train(&empty, &EaseOptions::default(), &mut |_| {}, &AtomicBool::new(false));
        assert_eq!(nothing, Err(ModelError::Empty));
    }
}
