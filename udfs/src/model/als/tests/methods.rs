//! Optimality of each way to solve a row, short or long.

use super::super::super::foldin::ItemSide;
use super::super::trainer::Trainer;
use super::*;

/// Each solver and constraint with each feedback, with and without biases.
fn every_method() -> Vec<AlsOptions> {
    let mut all = vec![];
    for feedback in [Feedback::Implicit, Feedback::Explicit] {
        for biases in [true, false] {
            for (solver, non_negative, block_size) in [
                (Solver::Cholesky, false, None),
                (Solver::ConjugateGradient, false, None),
                (Solver::Subspace, false, Some(16)),
                (Solver::Subspace, false, None),
                (Solver::Auto, true, None),
            ] {
                all.push(AlsOptions {
                    feedback,
                    biases,
                    solver,
                    non_negative,
                    block_size,
                    num_factors: 40,
                    max_iterations: 4,
                    l2_reg: Some(0.3),
                    wals_alpha: Some(4.0),
                    regularization_scaling: Some(Scaling::Frequency),
                    frequency_exponent: 0.5,
                    ..AlsOptions::default()
                });
            }
        }
    }
    all
}

/// Features of a few values, none for every seventh row.
pub(super) fn features(rows: usize, count: usize, seed: u64) -> Csr {
    let mut triplets = Triplets::default();
    for row in (0..rows as u32).filter(|row| row % 7 > 0) {
        for feature in 0..count as u32 {
            let draw = mix(seed ^ mix(u64::from(row * 64 + feature)));
            if draw.is_multiple_of(3) {
                triplets.push(row, feature, (draw >> 40) as f32 / 1e7 - 0.5, "f").unwrap();
            }
        }
    }
    triplets.build(rows, count, Duplicates::Sum).0
}

#[test]
fn a_fixed_side_copied_in_16_bits_gives_the_same_losses_and_scores() {
    let csr = sample(200, 90, 17);
    for options in every_method() {
        let run = |wide_values| {
            let training = Training::new(&csr, &options);
            let mut trainer = Trainer::new(&training, options.resolve(&csr), &NEVER).unwrap();
            trainer.wide_values = wide_values;
            trainer.run(None, &mut |_| {}).unwrap().factors
        };
        let (wide, narrow) = (run(usize::MAX), run(0));
        let is_implicit = options.feedback == Feedback::Implicit;
        if !is_implicit || options.solver != Solver::ConjugateGradient {
            assert_eq!(wide, narrow, "{options:?}");
            continue;
        }
        assert_eq!(wide, quiet(&csr, &options));
        assert_ne!(wide, narrow);
        for (wide, narrow) in wide.losses.iter().zip(&narrow.losses) {
            assert!((wide / narrow - 1.0).abs() < 1e-4, "{wide} {narrow}");
        }
        let of = |factors| scores(&csr, factors, options.num_factors);
        for (wide, narrow) in of(&wide).iter().zip(&of(&narrow)) {
            assert!((wide - narrow).abs() < 2e-3, "{wide} {narrow}");
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(narrow, pool.install(|| run(0)));
    }
}

#[test]
fn the_objective_never_rises_by_a_half_step() {
    let csr = sample(150, 70, 13);
    let (of_users, of_items) = (features(150, 5, 1), features(70, 4, 2));
    for options in every_method() {
        for (known, wide_values) in [(false, usize::MAX), (true, usize::MAX), (false, 0), (true, 0)]
        {
            let training = Training {
                user_features: known.then_some(&of_users),
                item_features: known.then_some(&of_items),
                ..Training::new(&csr, &options)
            };
            let mut trainer = Trainer::new(&training, options.resolve(&csr), &NEVER).unwrap();
            trainer.wide_values = wide_values;
            // Half steps read the factors rounded to 16 bits or as they are.
            let rounding = if wide_values == 0 { 1e-4 } else { 1e-5 };
            let (mut users, mut items) = (trainer.half_step(true).unwrap().penalty, 0.0);
            let mut last = f64::INFINITY;
            for half in 0..8 {
                let solves_users = half % 2 == 1;
                let step = trainer.half_step(solves_users).unwrap();
                *(if solves_users { &mut users } else { &mut items }) = step.penalty;
                let now = step.rest + users + items;
                let case = (half, known, wide_values);
                assert!(now <= last * (1.0 + rounding), "{last} {now} {case:?} {options:?}");
                last = now;
            }
        }
    }
}

#[test]
fn exact_rows_solve_their_normal_equations() {
    let csr = sample(60, 45, 9);
    for options in every_method().iter().filter(|o| o.solver == Solver::Cholesky) {
        let size = options.num_factors;
        let factors = quiet(&csr, options);
        // Items were solved last, against the users that are returned.
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let options = &AlsOptions { l2_reg: Some(0.3), ..options.clone() };
        let solved = oracle_side(
            &csr.transpose(),
            options,
            &wide(&factors.user_factors),
            &wide(&factors.user_bias),
            f64::from(factors.global_mean),
        );
        let (expected, bias) = split(&solved, size + usize::from(options.has_biases()), size);
        for (found, expected) in factors.item_factors.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-3, "{found} {expected}");
        }
        for (found, expected) in factors.item_bias.iter().zip(&bias) {
            assert!((f64::from(*found) - expected).abs() < 1e-3, "{found} {expected}");
        }
    }
}

/// Non-negative least squares by trying every set of positive coordinates.
fn naive_nnls(a: &[f64], b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut best = (0.0, vec![0.0; n]);
    for set in 1..1_usize << n {
        let inside: Vec<usize> = (0..n).filter(|i| set >> i & 1 == 1).collect();
        let sub = inside.iter().flat_map(|&i| inside.iter().map(move |&j| a[i * n + j])).collect();
        let solution = gauss(sub, inside.iter().map(|&i| b[i]).collect());
        if solution.iter().any(|&x| x < 0.0) {
            continue;
        }
        let objective: f64 = -inside.iter().zip(&solution).map(|(&i, x)| b[i] * x).sum::<f64>();
        if objective < best.0 {
            let mut x = vec![0.0; n];
            inside.iter().zip(&solution).for_each(|(&i, &value)| x[i] = value);
            best = (objective, x);
        }
    }
    best.1
}

#[test]
fn non_negative_rows_equal_a_naive_solution() {
    let csr = sample(50, 30, 6);
    for feedback in [Feedback::Implicit, Feedback::Explicit] {
        let options = AlsOptions {
            feedback,
            non_negative: true,
            biases: false,
            num_factors: 6,
            max_iterations: 3,
            l2_reg: Some(0.5),
            wals_alpha: Some(2.0),
            regularization_scaling: Some(Scaling::Constant),
            ..AlsOptions::default()
        };
        let factors = quiet(&csr, &options);
        let users = &factors.user_factors;
        let transposed = csr.transpose();
        assert!(users.iter().chain(&factors.item_factors).all(|&x| x >= 0.0));
        assert!(factors.item_factors.iter().filter(|&&x| x == 0.0).count() > 10);
        for item in 0..30 {
            let (columns, values) = transposed.row(item);
            if columns.is_empty() {
                continue;
            }
            let (mut a, mut b) = (vec![0.0; 36], vec![0.0; 6]);
            for user in 0..50 {
                let cell = columns.iter().position(|&c| c == user as u32).map(|i| values[i]);
                let (weight, target) = match (feedback, cell.map(f64::from)) {
                    (Feedback::Implicit, None) => (1.0, 0.0),
                    (Feedback::Implicit, Some(value)) => {
                        let confidence = 1.0 + 2.0 * value.abs();
                        (confidence, if value > 0.0 { confidence } else { 0.0 })
                    }
                    (Feedback::Explicit, None) => (0.0, 0.0),
                    (Feedback::Explicit, Some(value)) => (1.0, value),
                };
                let x: Vec<f64> = users[user * 6..user * 6 + 6].iter().map(|&x| x.into()).collect();
                for i in 0..6 {
                    b[i] += target * x[i];
                    (0..6).for_each(|j| a[i * 6 + j] += weight * x[i] * x[j]);
                }
            }
            (0..6).for_each(|i| a[i * 7] += 0.5);
            let expected = naive_nnls(&a, &b);
            for (found, expected) in factors.item_factors[item * 6..].iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() < 2e-3, "{found} {expected}");
            }
        }
    }
}

#[test]
fn folding_in_gives_the_solver_s_own_row() {
    let csr = sample(60, 40, 12);
    for options in every_method() {
        if !options.non_negative && options.solver != Solver::Cholesky {
            continue;
        }
        let options = AlsOptions { num_factors: 6, ..options };
        let factors = quiet(&csr, &options);
        let mut gram = vec![0.0; 36];
        for x in factors.user_factors.chunks(6) {
            for (at, cell) in gram.iter_mut().enumerate() {
                *cell += f64::from(x[at / 6]) * f64::from(x[at % 6]);
            }
        }
        // Items were solved last, against the users: fold an item into the users.
        let side = ItemSide {
            factors: &factors.user_factors,
            bias: &factors.user_bias,
            gram: &gram,
            others: 60,
            size: 6,
            mean: factors.global_mean,
            feedback: options.feedback,
            resolved: &options.resolve(&csr),
            non_negative: options.non_negative,
        };
        let transposed = csr.transpose();
        for item in 0..40 {
            let (users, values) = transposed.row(item);
            let folded = side.fold_in(users, values, None);
            let own = &factors.item_factors[item * 6..item * 6 + 6];
            for (a, b) in folded.factors.iter().zip(own) {
                assert!((a - b).abs() < 2e-3, "{a} {b} {options:?}");
            }
            let bias = factors.item_bias.get(item).copied().unwrap_or(0.0);
            assert!((folded.bias - bias).abs() < 2e-3, "{options:?}");
        }
    }
}

#[test]
fn a_negative_weight_is_confident_evidence_against() {
    // Both users like item 0; the first also refused item 1, which the third likes with item 0.
    let mut triplets = Triplets::default();
    for (user, item, weight) in
        [(0, 0, 1.0), (0, 1, -4.0), (1, 0, 1.0), (2, 0, 1.0), (2, 1, 1.0), (3, 1, 1.0)]
    {
        triplets.push(user, item, weight, "w").unwrap();
    }
    let csr = triplets.build(4, 2, Duplicates::Sum).0;
    let options = AlsOptions {
        feedback: Feedback::Implicit,
        num_factors: 2,
        max_iterations: 20,
        wals_alpha: Some(5.0),
        l2_reg: Some(0.1),
        regularization_scaling: Some(Scaling::Constant),
        solver: Solver::Cholesky,
        ..AlsOptions::default()
    };
    for options in
        [options.clone(), AlsOptions { non_negative: true, solver: Solver::Auto, ..options }]
    {
        let factors = quiet(&csr, &options);
        let found = scores(&csr, &factors, 2);
        assert!(found[1] < 0.05 && found[1] < found[3], "{found:?}");
        assert!(found[0] > 0.7 && found[2] > 0.7 && found[5] > 0.7, "{found:?}");
        let loss = objective(&csr, &options, &factors);
        assert!((factors.losses.last().unwrap() / loss - 1.0).abs() < 1e-3);
    }
}

/// A user of 9,000 interactions beside 40 shorter ones.
pub(super) fn with_a_long_row() -> Csr {
    let mut triplets = Triplets::default();
    for item in 0..9000 {
        triplets.push(0, item, 1.0 + (item % 3) as f32, "w").unwrap();
        triplets.push(1 + item % 40, item * 7 % 9000, 2.0, "w").unwrap();
    }
    triplets.build(41, 9000, Duplicates::Sum).0
}

#[test]
fn a_long_row_is_solved_like_a_short_one_on_any_number_of_threads() {
    let csr = with_a_long_row();
    for options in every_method().into_iter().filter(|options| options.biases) {
        let few = AlsOptions { num_factors: 8, max_iterations: 2, cg_steps: 12, ..options };
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| quiet(&csr, &few))
        };
        let one = on(1);
        assert_eq!(one, on(2), "{few:?}");
        assert_eq!(one, on(5), "{few:?}");
        let loss = objective(&csr, &few, &one);
        assert!((one.losses[1] / loss - 1.0).abs() < 1e-3, "{} {loss} {few:?}", one.losses[1]);
        if !few.non_negative {
            let exact = quiet(&csr, &AlsOptions { solver: Solver::Cholesky, ..few.clone() });
            assert!((loss / exact.losses[1] - 1.0).abs() < 1e-3, "{few:?}");
        }
    }
}

#[test]
fn rows_of_large_systems_are_solved_exactly() {
    // Users of more and of fewer items than there are factors, too many for a batch.
    let mut triplets = Triplets::default();
    for (user, count) in [(0, 130), (1, 125), (2, 119), (3, 110), (4, 1)] {
        for item in 0..count {
            let value = 1.0 + (mix(u64::from(item * 8 + user)) % 5) as f32;
            triplets.push(user, item, value, "r").unwrap();
        }
    }
    let csr = triplets.build(5, 130, Duplicates::Mean).0;
    for feedback in [Feedback::Implicit, Feedback::Explicit] {
        let options = AlsOptions {
            feedback,
            num_factors: 118,
            max_iterations: 1,
            wals_alpha: Some(2.0),
            l2_reg: Some(0.5),
            ..AlsOptions::default()
        };
        let with = |solver| {
            let options = AlsOptions { solver, cg_steps: 200, ..options.clone() };
            quiet(&csr, &options)
        };
        let (exact, gradient) = (with(Solver::Cholesky), with(Solver::ConjugateGradient));
        let (found, expected) = (scores(&csr, &exact, 118), scores(&csr, &gradient, 118));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 2e-3, "{found} {expected} {feedback:?}");
        }
        assert!((exact.losses[0] / gradient.losses[0] - 1.0).abs() < 1e-3);
    }
}

#[test]
fn subspaces_come_close_to_exact() {
    let csr = sample(200, 90, 11);
    for options in every_method().iter().filter(|o| o.solver == Solver::Subspace) {
        let longer = AlsOptions { max_iterations: 8, ..options.clone() };
        let found = *quiet(&csr, &longer).losses.last().unwrap();
        let exact = AlsOptions { solver: Solver::Cholesky, ..longer };
        let expected = *quiet(&csr, &exact).losses.last().unwrap();
        assert!((found / expected - 1.0).abs() < 0.02, "{found} {expected} {options:?}");
    }
}

#[test]
fn a_flag_set_during_training_ends_it() {
    let csr = with_a_long_row();
    for options in every_method().into_iter().filter(|options| options.biases) {
        let cancel = AtomicBool::new(false);
        let mut seen = 0;
        let mut stop = |progress: Progress| {
            seen = progress.done;
            cancel.store(progress.done == 2, std::sync::atomic::Ordering::Relaxed);
        };
        let few = AlsOptions { num_factors: 4, ..options };
        assert_eq!(train(&csr, &few, &mut stop, &cancel), Err(ModelError::Cancelled));
        assert_eq!(seen, 2);
    }
}
