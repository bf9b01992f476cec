//! Tests of the learner, first against a plain dense one in f64.

use proptest::prelude::*;

use super::super::random::mix;
use super::super::sparse::{Duplicates, Triplets};
use super::objective::objective;
use super::side::draw;
use super::*;

mod cancel;
mod features;
mod gradient;
mod life;
mod methods;

static NEVER: AtomicBool = AtomicBool::new(false);

fn quiet(interactions: &Csr, options: &AlsOptions) -> AlsFactors {
    train(interactions, options, &mut |_| {}, &NEVER).unwrap()
}

/// Interactions with power-law rows, a few negative or zero, one empty row and column.
fn sample(users: usize, items: usize, seed: u64) -> Csr {
    let mut state = seed;
    let mut draw = |limit: usize| {
        state = mix(state);
        (state >> 33) as usize % limit
    };
    let mut triplets = Triplets::default();
    for user in 1..users {
        let count = 1 + draw(items - 1) * draw(items) / items;
        for _ in 0..count {
            let value = [1.0, 2.0, 0.5, 3.0, -1.0, 0.0, 4.0, 1.5][draw(8)];
            let item = draw(items - 1) * draw(items) / items;
            triplets.push(user as u32, item as u32, value, "w").unwrap();
        }
    }
    triplets.build(users, items, Duplicates::Sum).0
}

/// Solves one side densely in `f64`: the definition, with no trick.
fn oracle_side(
    csr: &Csr,
    o: &AlsOptions,
    fixed: &[f64],
    fixed_bias: &[f64],
    mean: f64,
) -> Vec<f64> {
    let size = o.num_factors;
    let wide = size + usize::from(o.has_biases());
    let resolved = o.resolve(csr);
    let others = csr.column_counts().iter().filter(|&&count| count > 0).count();
    let mut solved = vec![];
    for row in 0..csr.rows() {
        let (columns, values) = csr.row(row);
        let mut a = vec![0.0; wide * wide];
        let mut b = vec![0.0; wide];
        let mut add = |y: &[f64], weight: f64, target: f64| {
            for i in 0..wide {
                b[i] += target * y[i];
                for j in 0..wide {
                    a[i * wide + j] += weight * y[i] * y[j];
                }
            }
        };
        let design = |item: usize| {
            let mut y = fixed[item * size..(item + 1) * size].to_vec();
            y.resize(wide, 1.0);
            y
        };
        if o.feedback == Feedback::Implicit {
            for item in 0..csr.columns() {
                add(&design(item), 1.0, 0.0);
            }
        }
        for (&item, &value) in columns.iter().zip(values) {
            let (item, value) = (item as usize, f64::from(value));
            match o.feedback {
                Feedback::Implicit => {
                    let extra = resolved.alpha * value.abs();
                    let target = if value > 0.0 { 1.0 + extra } else { 0.0 };
                    add(&design(item), extra, target);
                }
                Feedback::Explicit => {
                    let bias = fixed_bias.get(item).copied().unwrap_or(0.0);
                    add(&design(item), 1.0, value - mean - bias);
                }
            }
        }
        let lambda = resolved.regularization(columns.len(), others);
        for i in 0..wide {
            a[i * wide + i] += lambda;
        }
        if columns.is_empty() {
            b.fill(0.0);
        }
        solved.extend(gauss(a, b));
    }
    solved
}

fn gauss(mut a: Vec<f64>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for pivot in 0..n {
        for row in 0..n {
            if row != pivot {
                let factor = a[row * n + pivot] / a[pivot * n + pivot];
                for column in pivot..n {
                    a[row * n + column] -= factor * a[pivot * n + column];
                }
                b[row] -= factor * b[pivot];
            }
        }
    }
    (0..n).map(|i| b[i] / a[i * n + i]).collect()
}

fn split(solved: &[f64], wide: usize, size: usize) -> (Vec<f64>, Vec<f64>) {
    let factors = solved.chunks(wide).flat_map(|row| row[..size].to_vec()).collect();
    let bias = solved.chunks(wide).filter_map(|row| row.get(size).copied()).collect();
    (factors, bias)
}

/// The same initial factors, alternated densely: predicted scores of every cell.
fn oracle_scores(csr: &Csr, options: &AlsOptions) -> Vec<f64> {
    let size = options.num_factors;
    let wide = size + usize::from(options.has_biases());
    let center = if options.has_biases() { mean(csr.values()) } else { 0.0 };
    let transposed = csr.transpose();
    // α by default depends on the matrix only through its mean weight and shape.
    let options = &AlsOptions {
        wals_alpha: Some(options.resolve(csr).alpha),
        l2_reg: Some(options.resolve(csr).l2_reg),
        ..options.clone()
    };
    let mut items = vec![];
    for item in 0..csr.columns() {
        let mut row = vec![0.0_f32; size];
        if !transposed.row(item).0.is_empty() {
            draw(options, item as u32, &mut row);
        }
        items.extend(row.iter().map(|&y| f64::from(y)));
    }
    let mut item_bias = vec![0.0; csr.columns()];
    let (mut users, mut user_bias) = (vec![], vec![]);
    for _ in 0..options.max_iterations {
        let solved = oracle_side(csr, options, &items, &item_bias, center);
        (users, user_bias) = split(&solved, wide, size);
        let solved = oracle_side(&transposed, options, &users, &user_bias, center);
        (items, item_bias) = split(&solved, wide, size);
    }
    let bias = |all: &[f64], at: usize| all.get(at).copied().unwrap_or(0.0);
    let mut scores = vec![];
    for user in 0..csr.rows() {
        for item in 0..csr.columns() {
            let x = &users[user * size..(user + 1) * size];
            let y = &items[item * size..(item + 1) * size];
            let product: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
            scores.push(center + bias(&user_bias, user) + bias(&item_bias, item) + product);
        }
    }
    scores
}

fn scores(csr: &Csr, factors: &AlsFactors, size: usize) -> Vec<f64> {
    let bias = |all: &[f32], at: usize| all.get(at).map_or(0.0, |&b| f64::from(b));
    let mut scores = vec![];
    for user in 0..csr.rows() {
        for item in 0..csr.columns() {
            let x = &factors.user_factors[user * size..(user + 1) * size];
            let y = &factors.item_factors[item * size..(item + 1) * size];
            let product: f64 = x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            let biases = bias(&factors.user_bias, user) + bias(&factors.item_bias, item);
            scores.push(f64::from(factors.global_mean) + biases + product);
        }
    }
    scores
}

fn every_configuration() -> Vec<AlsOptions> {
    let mut all = vec![];
    for feedback in [Feedback::Implicit, Feedback::Explicit] {
        for scaling in [Scaling::Constant, Scaling::Count, Scaling::Frequency] {
            for biases in [true, false] {
                for num_factors in [1, 5, 20] {
                    all.push(AlsOptions {
                        feedback,
                        num_factors,
                        biases,
                        max_iterations: 3,
                        l2_reg: Some(0.3),
                        wals_alpha: Some(2.0),
                        regularization_scaling: Some(scaling),
                        frequency_exponent: 0.5,
                        solver: Solver::Cholesky,
                        seed: 7,
                        ..AlsOptions::default()
                    });
                }
            }
        }
    }
    all
}

#[test]
fn exact_training_equals_the_dense_definition() {
    let csr = sample(30, 24, 3);
    for options in every_configuration() {
        let found = scores(&csr, &quiet(&csr, &options), options.num_factors);
        let expected = oracle_scores(&csr, &options);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 2e-3, "{found} {expected} {options:?}");
        }
    }
}

#[test]
fn the_reported_loss_is_the_objective() {
    let csr = sample(40, 30, 5);
    for solver in [Solver::Cholesky, Solver::ConjugateGradient] {
        for options in every_configuration() {
            let options = AlsOptions { solver, ..options };
            let factors = quiet(&csr, &options);
            let expected = objective(&csr, &options, &factors);
            let reported = factors.losses[options.max_iterations - 1];
            assert!((reported - expected).abs() < 1e-3 * expected, "{options:?}");
        }
    }
}

#[test]
fn loss_never_rises_and_gradients_come_close_to_exact() {
    let csr = sample(200, 80, 11);
    for options in every_configuration() {
        let run = |solver, cg_steps| {
            let iterations = AlsOptions { max_iterations: 8, ..options.clone() };
            quiet(&csr, &AlsOptions { solver, cg_steps, ..iterations }).losses
        };
        let exact = run(Solver::Cholesky, 1);
        let gradient = run(Solver::ConjugateGradient, 3);
        for losses in [&exact, &gradient] {
            let falls = losses.windows(2).all(|pair| pair[1] <= pair[0] * (1.0 + 1e-5));
            assert!(falls, "{losses:?} {options:?}");
        }
        let (exact, gradient) = (exact[7], gradient[7]);
        assert!((gradient / exact - 1.0).abs() < 0.03, "{exact} {gradient} {options:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_factors_on_any_number_of_threads() {
    let csr = sample(300, 90, 17);
    for feedback in [Feedback::Implicit, Feedback::Explicit] {
        let options = AlsOptions { feedback, num_factors: 12, seed: 5, ..AlsOptions::default() };
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| quiet(&csr, &options))
        };
        let one = on(1);
        assert_eq!(one, on(2));
        assert_eq!(one, on(3));
        let other = quiet(&csr, &AlsOptions { seed: 6, ..options.clone() });
        assert_ne!(one.user_factors, other.user_factors);
    }
}

#[test]
fn a_row_beyond_the_heavy_limit_is_solved_like_any_other() {
    let mut triplets = Triplets::default();
    for item in 0..9000 {
        triplets.push(0, item, 1.0 + (item % 3) as f32, "w").unwrap();
        triplets.push(1 + item % 40, item * 7 % 9000, 2.0, "w").unwrap();
    }
    let csr = triplets.build(41, 9000, Duplicates::Sum).0;
    for feedback in [Feedback::Implicit, Feedback::Explicit] {
        for num_factors in [3, 6] {
            let options = AlsOptions {
                feedback,
                num_factors,
                max_iterations: 2,
                wals_alpha: Some(3.0),
                solver: Solver::Cholesky,
                ..AlsOptions::default()
            };
            let factors = quiet(&csr, &options);
            let found = scores(&csr, &factors, num_factors);
            let expected = oracle_scores(&csr, &options);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 5e-3, "{found} {expected}");
            }
            let loss = objective(&csr, &options, &factors);
            assert!((factors.losses[1] / loss - 1.0).abs() < 1e-3);
        }
    }
}

#[test]
fn edge_cases_train_or_are_refused_with_a_reason() {
    let one = Csr::new(vec![0, 1], vec![0], vec![1.0], 1).unwrap();
    let implicit = AlsOptions { feedback: Feedback::Implicit, ..AlsOptions::default() };
    for options in [implicit.clone(), AlsOptions::default()] {
        let factors = quiet(&one, &options);
        assert!(factors.user_factors.iter().all(|x| x.is_finite()));
    }
    let zero = AlsOptions { l2_reg: Some(0.0), ..implicit.clone() };
    let factors = quiet(&sample(20, 10, 2), &zero);
    assert!(factors.item_factors.iter().chain(&factors.user_factors).all(|x| x.is_finite()));
    let run = |csr: &Csr, cancel: bool| {
        train(csr, &implicit, &mut |_| {}, &AtomicBool::new(cancel)).map(|_| ())
    };
    assert_eq!(run(&Csr::empty(3, 3), false), Err(ModelError::Empty));
    assert_eq!(run(&one, true), Err(ModelError::Cancelled));
    let nan = Csr::new(vec![0, 1], vec![0], vec![f32::NAN], 1).unwrap();
    assert!(matches!(run(&nan, false), Err(ModelError::NotFinite { .. })));
    for weights in [vec![0.0, 0.0], vec![-1.0, 0.0]] {
        let silent = Csr::new(vec![0, 2], vec![0, 1], weights, 2).unwrap();
        assert_eq!(run(&silent, false), Err(ModelError::NoEvidence));
    }
    let heavy = Csr::new(vec![0, 2], vec![0, 1], vec![1.0, 1e30], 2).unwrap();
    for options in [implicit, AlsOptions::default()] {
        let refused = train(&heavy, &options, &mut |_| {}, &AtomicBool::new(false));
        assert!(refused.unwrap_err().to_string().contains("1.00e30 is too large"));
    }
}

#[test]
fn rows_without_interactions_have_zero_factors() {
    let csr = sample(12, 9, 4);
    let factors = quiet(&csr, &AlsOptions { num_factors: 3, ..AlsOptions::default() });
    assert_eq!(factors.user_factors[..3], [0.0; 3]);
    assert_eq!(factors.user_bias[0], 0.0);
}

#[test]
fn progress_counts_half_iterations_and_early_stop_ends_them() {
    let csr = sample(60, 30, 4);
    let mut seen = vec![];
    let options = AlsOptions { max_iterations: 3, num_factors: 4, ..AlsOptions::default() };
    train(&csr, &options, &mut |progress| seen.push(progress), &NEVER).unwrap();
    assert_eq!(seen.iter().map(|p| p.done).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert!(seen.iter().all(|p| p.total == 6 && p.loss.is_some() == (p.done % 2 == 0)));
    let patient = AlsOptions { max_iterations: 50, min_rel_progress: Some(0.5), ..options };
    assert!(quiet(&csr, &patient).losses.len() < 50);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn any_finite_weights_give_finite_factors(
        cells in prop::collection::vec((0_u32..6, 0_u32..5, prop::num::f32::NORMAL), 1..40),
        explicit in any::<bool>(),
    ) {
        let mut triplets = Triplets::default();
        for (user, item, value) in cells {
            triplets.push(user, item, value.clamp(-1e6, 1e6), "w").unwrap();
        }
        let csr = triplets.build(6, 5, Duplicates::Sum).0;
        let feedback = if explicit { Feedback::Explicit } else { Feedback::Implicit };
        let options =
            AlsOptions { feedback, num_factors: 4, max_iterations: 4, ..AlsOptions::default() };
        let factors = match train(&csr, &options, &mut |_| {}, &NEVER) {
            Err(ModelError::NoEvidence) if !explicit => return Ok(()),
            learned => learned.unwrap(),
        };
        let mut all = factors.user_factors.iter().chain(&factors.item_factors);
        prop_assert!(all.all(|x| x.is_finite()));
    }
}
