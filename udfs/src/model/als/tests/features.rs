//! Side features: the objective they add to, and what they know of rows without interactions.

use super::super::objective::objective_with_features;
use super::*;

#[test]
fn the_reported_loss_is_the_objective_with_features() {
    let csr = sample(60, 40, 5);
    let (of_users, of_items) = (methods::features(60, 5, 3), methods::features(40, 4, 4));
    for options in every_configuration() {
        for non_negative in [false, true] {
            let solver = if non_negative { Solver::Auto } else { Solver::Cholesky };
            let options = AlsOptions { non_negative, solver, ..options.clone() };
            for (users, items) in [
                (Some(&of_users), None),
                (None, Some(&of_items)),
                (Some(&of_users), Some(&of_items)),
            ] {
                let training = Training {
                    user_features: users,
                    item_features: items,
                    ..Training::new(&csr, &options)
                };
                let trained = training.run(&mut |_| {}, &NEVER).unwrap();
                let expected = objective_with_features(
                    &csr,
                    &options,
                    &trained.factors,
                    users.zip(trained.user_map.as_ref()),
                    items.zip(trained.item_map.as_ref()),
                );
                let reported = *trained.factors.losses.last().unwrap();
                assert!(
                    (reported / expected - 1.0).abs() < 2e-3,
                    "{reported} {expected} {options:?}"
                );
            }
        }
    }
}

/// Users of two tastes each, items of one genre each; items and users from `warm` on have no
/// interactions in training. Returns training, the truth, and both sides' features.
fn by_taste(warm: (u32, u32)) -> (Csr, Csr, Csr, Csr) {
    let (users, items, genres) = (160_u32, 120_u32, 6_u32);
    let mut draws = 77;
    let mut draw = |limit: u64| {
        draws = mix(draws);
        (draws >> 20) % limit
    };
    let (mut training, mut truth) = (Triplets::default(), Triplets::default());
    let (mut of_users, mut of_items) = (Triplets::default(), Triplets::default());
    for item in 0..items {
        of_items.push(item, item % genres, 1.0, "f").unwrap();
    }
    for user in 0..users {
        let likes = [user % genres, (user / genres + 2 + user) % genres];
        for genre in likes {
            of_users.push(user, genre, 1.0, "f").unwrap();
        }
        for item in 0..items {
            let chance = if likes.contains(&(item % genres)) { 45 } else { 3 };
            if draw(100) < chance {
                let is_known = user < warm.0 && item < warm.1;
                let to = if is_known { &mut training } else { &mut truth };
                to.push(user, item, 1.0, "w").unwrap();
            }
        }
    }
    let build = |cells: Triplets, rows: u32, columns: u32| {
        cells.build(rows as usize, columns as usize, Duplicates::Sum).0
    };
    (
        build(training, users, items),
        build(truth, users, items),
        build(of_users, users, genres),
        build(of_items, items, genres),
    )
}

/// Share of pairs of a liked and another item, both from `items`, that scores order rightly,
/// averaged over `users`.
fn auc(
    truth: &Csr,
    users: std::ops::Range<usize>,
    items: std::ops::Range<u32>,
    score: impl Fn(usize, u32) -> f64,
) -> f64 {
    let (mut right, mut pairs) = (0.0, 0.0);
    for user in users {
        for liked in items.clone().filter(|&item| truth.contains(user, item)) {
            for other in items.clone().filter(|&item| !truth.contains(user, item)) {
                let (a, b) = (score(user, liked), score(user, other));
                right += if a > b { 1.0 } else { 0.5 * f64::from(u8::from(a == b)) };
                pairs += 1.0;
            }
        }
    }
    right / pairs
}

#[test]
fn items_and_users_without_interactions_are_ranked_better_than_by_popularity() {
    let (training, truth, of_users, of_items) = by_taste((140, 100));
    for (feedback, non_negative) in
        [(Feedback::Implicit, false), (Feedback::Implicit, true), (Feedback::Explicit, false)]
    {
        let options = AlsOptions {
            feedback,
            non_negative,
            num_factors: 8,
            biases: feedback == Feedback::Explicit,
            seed: 3,
            ..AlsOptions::default()
        };
        // An explicit model of one value learns nothing: give it stars of 5 and, for the rest, 1.
        let stars = {
            let mut cells = Triplets::default();
            for user in 0..140_u32 {
                for item in 0..100_u32 {
                    let liked = training.contains(user as usize, item);
                    if liked || mix(u64::from(user * 120 + item)).is_multiple_of(3) {
                        cells.push(user, item, if liked { 5.0 } else { 1.0 }, "w").unwrap();
                    }
                }
            }
            cells.build(160, 120, Duplicates::Mean).0
        };
        let csr = if feedback == Feedback::Implicit { &training } else { &stars };
        let run = |known: bool| {
            let training = Training {
                user_features: known.then_some(&of_users),
                item_features: known.then_some(&of_items),
                ..Training::new(csr, &options)
            };
            training.run(&mut |_| {}, &NEVER).unwrap()
        };
        let trained = run(true);
        let found = scores(csr, &trained.factors, 8);
        let model = |user: usize, item: u32| found[user * 120 + item as usize];
        let counts = training.column_counts();
        let popularity = |_: usize, item: u32| f64::from(counts[item as usize]);
        let (cold_items, cold_users) = (100..120, 140..160);
        let of_model = auc(&truth, 0..140, cold_items.clone(), model);
        let of_popularity = auc(&truth, 0..140, cold_items, popularity);
        assert!(of_model > 0.8 && of_popularity < 0.6, "{of_model} {of_popularity} {options:?}");
        let of_model = auc(&truth, cold_users.clone(), 0..100, model);
        let of_popularity = auc(&truth, cold_users, 0..100, popularity);
        assert!(of_model > 0.75 && of_popularity < 0.65, "{of_model} {of_popularity} {options:?}");
        // The map gives a later item what training would have given it.
        let map = trained.item_map.as_ref().unwrap();
        let told = map.vector(of_items.row(110).0, of_items.row(110).1);
        let kept = &trained.factors.item_factors[110 * 8..111 * 8];
        let near = told.factors.iter().zip(kept).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near && map.features() == 6, "{told:?} {kept:?}");
        let plain = run(false);
        assert!(plain.item_map.is_none());
        assert!(plain.factors.item_factors[110 * 8..111 * 8].iter().all(|&x| x == 0.0));
    }
}

#[test]
fn features_of_another_shape_are_refused_and_threads_do_not_matter() {
    let csr = sample(40, 30, 4);
    let options =
        AlsOptions { feedback: Feedback::Implicit, num_factors: 5, ..AlsOptions::default() };
    let short = methods::features(39, 3, 1);
    let wrong = Training { user_features: Some(&short), ..Training::new(&csr, &options) };
    let error = wrong.run(&mut |_| {}, &NEVER).unwrap_err();
    assert!(error.to_string().contains("user_features = 39 rows"), "{error}");
    let infinite =
        Csr::new(vec![0; 30].into_iter().chain([1]).collect(), vec![0], vec![f32::INFINITY], 1);
    let infinite = infinite.unwrap();
    let wrong = Training { item_features: Some(&infinite), ..Training::new(&csr, &options) };
    assert!(matches!(wrong.run(&mut |_| {}, &NEVER), Err(ModelError::NotFinite { .. })));
    let known = methods::features(40, 300, 1);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let training = Training { user_features: Some(&known), ..Training::new(&csr, &options) };
        pool.install(|| training.run(&mut |_| {}, &NEVER).unwrap())
    };
    let one = on(1);
    assert_eq!(one, on(2));
    assert_eq!(one, on(5));
}
