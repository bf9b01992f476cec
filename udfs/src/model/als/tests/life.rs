//! Warm start, early stopping, and that threads do not matter to either.

use super::*;

fn rows(count: usize) -> Vec<Option<u32>> {
    (0..count as u32).map(Some).collect()
}

fn run(training: Training<'_>) -> Trained {
    training.run(&mut |_| {}, &NEVER).unwrap()
}

fn configurations() -> Vec<AlsOptions> {
    let implicit = AlsOptions {
        feedback: Feedback::Implicit,
        num_factors: 6,
        max_iterations: 6,
        wals_alpha: Some(3.0),
        l2_reg: Some(0.2),
        ..AlsOptions::default()
    };
    let explicit = AlsOptions { feedback: Feedback::Explicit, ..implicit.clone() };
    let non_negative = AlsOptions { non_negative: true, ..implicit.clone() };
    let subspace = AlsOptions { solver: Solver::Subspace, ..implicit.clone() };
    vec![implicit, explicit, non_negative, subspace]
}

#[test]
fn a_warm_start_goes_on_where_the_last_version_ended() {
    let csr = sample(80, 50, 21);
    for options in configurations() {
        let last = run(Training::new(&csr, &options)).factors;
        let (users, items) = (rows(80), rows(50));
        let once = AlsOptions { max_iterations: 1, ..options.clone() };
        let warm = |users: &[Option<u32>], items: &[Option<u32>]| {
            let warm_start = Some(WarmStart { factors: &last, users, items });
            run(Training { warm_start, ..Training::new(&csr, &once) }).factors.losses[0]
        };
        let continued = warm(&users, &items);
        assert!(continued <= last.losses[5] * (1.0 + 1e-5), "{continued} {:?}", last.losses);
        let cold = run(Training::new(&csr, &once)).factors.losses[0];
        let nothing = warm(&vec![None; 80], &vec![None; 50]);
        assert_eq!(nothing, cold, "{options:?}");
        // A few rows that the last version did not have.
        let known: Vec<Option<u32>> =
            rows(50).into_iter().map(|row| row.filter(|r| r % 9 > 0)).collect();
        let partly = warm(&users, &known);
        assert!(partly < (cold + continued) / 2.0, "{cold} {partly} {continued}");
    }
}

#[test]
fn a_last_version_of_another_shape_is_refused() {
    let csr = sample(20, 12, 2);
    let options = AlsOptions { num_factors: 4, ..AlsOptions::default() };
    let last = quiet(&csr, &options);
    let (users, items) = (rows(20), rows(12));
    let try_with = |factors: &AlsFactors, options: &AlsOptions, users: &[Option<u32>]| {
        let warm_start = Some(WarmStart { factors, users, items: &items });
        let training = Training { warm_start, ..Training::new(&csr, options) };
        training.run(&mut |_| {}, &NEVER).map(|_| ())
    };
    assert_eq!(try_with(&last, &options, &users), Ok(()));
    let wider = AlsOptions { num_factors: 5, ..options.clone() };
    assert!(matches!(try_with(&last, &wider, &users), Err(ModelError::Option { .. })));
    assert!(try_with(&last, &options, &users[1..]).is_err());
    let mut beyond = users.clone();
    beyond[3] = Some(20);
    assert!(try_with(&last, &options, &beyond).is_err());
}

#[test]
fn the_best_iteration_is_returned_and_patience_ends_the_run() {
    let csr = sample(60, 40, 8);
    for options in configurations() {
        let longer = AlsOptions { max_iterations: 20, ..options.clone() };
        let with = |script: &[f64], patience: usize, min_rel_improvement: f64| {
            let mut metric = |view: &FactorView<'_>, iteration: usize| {
                assert_eq!((view.users(), view.items(), view.num_factors()), (60, 40, 6));
                let finite = |row: &[f32]| row.len() == 6 && row.iter().all(|x| x.is_finite());
                assert!(finite(view.user(59)) && finite(view.item(0)) && view.user(60).is_empty());
                match script.get(iteration - 1) {
                    Some(&value) => ControlFlow::Continue(value),
                    None => ControlFlow::Break(0.0),
                }
            };
            let validation = Validation { metric: &mut metric, patience, min_rel_improvement };
            run(Training { validation: Some(validation), ..Training::new(&csr, &longer) })
        };
        let stopped = with(&[1.0, 3.0, 2.0, 2.9, 9.0], 2, 0.0);
        assert_eq!((stopped.best_iteration, stopped.metrics.len()), (2, 4));
        assert_eq!(stopped.factors.losses.len(), 4);
        let twice = quiet(&csr, &AlsOptions { max_iterations: 2, ..options.clone() });
        assert_eq!(stopped.factors.user_factors, twice.user_factors);
        assert_eq!(stopped.factors.item_factors, twice.item_factors);
        assert_eq!(stopped.factors.item_bias, twice.item_bias);
        // Small improvements do not renew the patience, but the best of them is returned.
        let slow = with(&[1.0, 1.001, 1.002, 1.003, 9.0], 3, 0.01);
        assert_eq!((slow.best_iteration, slow.metrics.len()), (4, 4));
        let broken = with(&[1.0, 2.0], 0, 0.0);
        assert_eq!((broken.best_iteration, broken.metrics.len()), (2, 3));
        let unknown = with(&[f64::NAN, f64::NAN, 0.5, f64::NAN], 0, 0.0);
        assert_eq!(unknown.best_iteration, 3);
        let nothing = with(&[f64::NAN, f64::NAN], 2, 0.0);
        assert_eq!(nothing.best_iteration, 2);
    }
}

#[test]
fn threads_do_not_change_any_solver_nor_the_life_cycle() {
    let csr = sample(300, 90, 17);
    for options in configurations() {
        let options = AlsOptions { num_factors: 20, max_iterations: 3, ..options };
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let last = quiet(&csr, &options);
                let (users, items) = (rows(300), rows(90));
                let warm = WarmStart { factors: &last, users: &users, items: &items };
                run(Training { warm_start: Some(warm), ..Training::new(&csr, &options) })
            })
        };
        let one = on(1);
        assert_eq!(one, on(2), "{options:?}");
        assert_eq!(one, on(5), "{options:?}");
    }
}
