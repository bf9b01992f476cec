//! Tests of the finished recommender.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, Int64Array};

use super::super::als::{Scaling, Solver, train};
use super::super::evaluation::rankings;
use super::super::sparse::{Duplicates, Triplets};
use super::super::split::holdout;
use super::*;

fn ids(column: &str, count: i64) -> IdIndex {
    let values: ArrayRef = Arc::new((100..100 + count).collect::<Int64Array>());
    IdIndex::from_values(column, values).unwrap()
}

/// Two groups of users that like two groups of items; the last user has nothing.
fn interactions() -> Csr {
    let mut triplets = Triplets::default();
    for user in 0..40_u32 {
        for step in 0..6_u32 {
            let item = (user % 2) * 12 + (user * 5 + step * (1 + user % 3)) % 12;
            triplets.push(user, item, 1.0 + (step % 3) as f32, "w").unwrap();
        }
    }
    triplets.build(41, 25, Duplicates::Sum).0
}

fn model(feedback: Feedback) -> AlsModel {
    trained(feedback, 6)
}

fn trained(feedback: Feedback, max_iterations: usize) -> AlsModel {
    let seen = interactions();
    let options = AlsOptions {
        feedback,
        num_factors: 6,
        max_iterations,
        seed: 3,
        solver: Solver::Cholesky,
        l2_reg: Some(0.5),
        wals_alpha: Some(5.0),
        regularization_scaling: Some(Scaling::Constant),
        ..AlsOptions::default()
    };
    let factors = train(&seen, &options, &mut |_| {}, &AtomicBool::new(false)).unwrap();
    let (users, items) = (ids("user_id", 41), ids("item_id", 25));
    AlsModel::from_parts(ModelParts { users, items, factors, seen, options }).unwrap()
}

const REQUEST: RecommendRequest<'static> =
    RecommendRequest { top_k: 5, exclude_seen: true, include: None, exclude: None };

#[test]
fn recommendations_score_like_single_pairs_and_leave_out_what_was_seen() {
    for feedback in [Feedback::Implicit, Feedback::Explicit] {
        let model = model(feedback);
        let users: Vec<Option<u32>> = (0..40).map(Some).collect();
        let choices = model.recommend(&users, &REQUEST);
        for (user, choice) in (0..40_u32).zip(&choices) {
            assert_eq!((choice.source, choice.items.len()), (Source::Als, 5));
            for (&item, &score) in choice.items.iter().zip(&choice.scores) {
                assert!(!model.seen().contains(user as usize, item));
                assert_eq!(model.score(user, item), Some(score));
            }
            assert!(choice.scores.is_sorted_by(|a, b| a >= b));
            assert_eq!(&model.recommend(&[Some(user)], &REQUEST)[0], choice);
        }
    }
}

#[test]
fn implicit_lists_stay_within_the_users_group() {
    let model = model(Feedback::Implicit);
    let within = RecommendRequest { exclude_seen: false, top_k: 6, ..REQUEST };
    for user in 0..40 {
        let items = &model.recommend(&[Some(user)], &within)[0].items;
        assert!(items.iter().all(|item| item / 12 == user % 2), "{user} {items:?}");
    }
}

#[test]
fn a_user_without_factors_gets_the_most_popular_items() {
    let model = model(Feedback::Implicit);
    let popular = model.popularity().top(5, |_| true).0;
    for choice in model.recommend(&[None, Some(40), Some(999)], &REQUEST) {
        assert_eq!((choice.source, &choice.items), (Source::Popularity, &popular));
    }
}

#[test]
fn lists_of_items_restrict_both_sources() {
    let model = model(Feedback::Implicit);
    let request = RecommendRequest {
        include: Some(&[0, 1, 2, 13, 99]),
        exclude: Some(&[2]),
        exclude_seen: false,
        top_k: 9,
    };
    for choice in model.recommend(&[Some(0), None], &request) {
        let mut items = choice.items.clone();
        items.sort_unstable();
        assert_eq!(items, [0, 1, 13]);
    }
    let none = RecommendRequest { include: Some(&[]), ..request };
    assert!(model.recommend(&[Some(0)], &none)[0].items.is_empty());
    let zero = RecommendRequest { top_k: 0, ..REQUEST };
    assert!(model.recommend(&[Some(0), None], &zero).iter().all(|c| c.items.is_empty()));
}

#[test]
fn folding_a_user_in_again_gives_what_training_would() {
    for feedback in [Feedback::Implicit, Feedback::Explicit] {
        // Training solves the items once more after the users: let it settle.
        let model = trained(feedback, 300);
        let (items, weights) = model.seen().row(4);
        let folded = model.fold_in(items, weights).unwrap();
        let learned = &model.user_factors()[24..30];
        let close = folded.factors.iter().zip(learned).all(|(a, b)| (a - b).abs() < 0.01);
        assert!(close, "{folded:?} {learned:?}");
        let basket = Basket { user: Some(4), items: items.to_vec(), weights: weights.to_vec() };
        let baskets = [basket, Basket::default()];
        let request = RecommendRequest { top_k: 5, exclude_seen: true, ..REQUEST };
        let lists = model.recommend_baskets(&baskets, &request).unwrap();
        let learned = model.recommend(&[Some(4)], &request);
        assert_eq!((lists[0].source, learned[0].source), (Source::FoldIn, Source::Als));
        assert_eq!(lists[0].items[0], learned[0].items[0]);
        assert!(lists[0].items.iter().all(|item| !items.contains(item)));
        assert_eq!(lists[1], model.recommend(&[None], &request)[0]);
        let halves = [items, items].concat();
        let half: Vec<f32> = weights.iter().chain(weights).map(|w| w / 2.0).collect();
        let again = match feedback {
            Feedback::Implicit => model.fold_in(&halves, &half).unwrap(),
            Feedback::Explicit => model.fold_in(&halves, &[weights, weights].concat()).unwrap(),
        };
        assert_eq!(again, model.fold_in(items, weights).unwrap());
    }
    let model = model(Feedback::Implicit);
    assert!(model.fold_in(&[1], &[f32::NAN]).is_err());
    assert_eq!(model.fold_in(&[], &[]).unwrap().factors, [0.0; 6]);
    assert_eq!(model.fold_in(&[999], &[1.0]).unwrap().factors, [0.0; 6]);
}

/// The model as it would be had its last items never been met, and what users have had of these.
fn without_last_items(whole: &AlsModel, kept: usize) -> (AlsModel, Csr) {
    let (users, items) = (whole.seen().rows(), whole.seen().columns());
    let (mut seen, mut last) = (Triplets::default(), Triplets::default());
    for user in 0..users {
        let (columns, values) = whole.seen().row(user);
        for (&item, &value) in columns.iter().zip(values) {
            match (item as usize).checked_sub(kept) {
                None => seen.push(user as u32, item, value, "w").unwrap(),
                Some(at) => last.push(at as u32, user as u32, value, "w").unwrap(),
            }
        }
    }
    let mut factors = whole.factors().clone();
    factors.item_factors.truncate(kept * whole.num_factors());
    factors.item_bias.truncate(kept);
    let model = AlsModel::from_parts(ModelParts {
        users: whole.user_ids().clone(),
        items: ids("item_id", kept as i64),
        factors,
        seen: seen.build(users, kept, Duplicates::Sum).0,
        options: whole.options().clone(),
    });
    (model.unwrap(), last.build(items - kept, users, Duplicates::Sum).0)
}

#[test]
fn items_that_training_did_not_know_are_solved_as_it_would_have() {
    for feedback in [Feedback::Implicit, Feedback::Explicit] {
        // Training solved the items last, against the users that it gave.
        let whole = model(feedback);
        let (part, cells) = without_last_items(&whole, 21);
        let new: ArrayRef = Arc::new((121..125_i64).collect::<Int64Array>());
        let wider = part.with_items(&new, &cells).unwrap();
        assert_eq!(wider.seen(), whole.seen());
        assert_eq!(&wider.item_ids().values(), &whole.item_ids().values());
        assert_eq!(wider.popularity(), whole.popularity());
        let close = |a: &[f32], b: &[f32]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-3)
        };
        assert!(close(wider.item_factors(), whole.item_factors()), "{feedback:?}");
        assert!(close(wider.item_bias(), whole.item_bias()), "{feedback:?}");
        // And a user is folded into all of them.
        let (items, weights) = whole.seen().row(5);
        assert!(items.iter().any(|&item| item >= 21));
        let [found, expected] =
            [&wider, &whole].map(|model| model.fold_in(items, weights).unwrap());
        assert!(close(&found.factors, &expected.factors), "{found:?} {expected:?}");
        let basket = Basket { user: Some(5), items: items.to_vec(), weights: weights.to_vec() };
        let request = RecommendRequest { top_k: 9, include: Some(&[21, 22, 23, 24]), ..REQUEST };
        let list = &wider.recommend_baskets(&[basket], &request).unwrap()[0];
        assert_eq!(list.source, Source::FoldIn);
        assert!(list.items.iter().all(|item| (21..25).contains(item) && !items.contains(item)));
        assert!(!list.items.is_empty());
    }
}

#[test]
fn new_items_that_do_not_fit_are_refused() {
    let (part, cells) = without_last_items(&model(Feedback::Implicit), 21);
    let of = |ids: &[i64], cells: &Csr| {
        let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
        part.with_items(&ids, cells).map(|_| ())
    };
    assert!(of(&[7, 300, 121, -4], &cells).is_ok());
    // Known, repeated, too few, and of other users.
    assert!(of(&[7, 300, 120, -4], &cells).is_err());
    assert!(of(&[7, 300, 7, -4], &cells).is_err());
    assert!(of(&[7, 300], &cells).is_err());
    assert!(of(&[7, 300, 121, -4], &Csr::empty(4, 3)).is_err());
    assert!(part.has_learned_of(0) && !part.has_learned_of(40) && !part.has_learned_of(999));
}

#[test]
fn similar_items_are_of_the_same_group_and_never_the_item_itself() {
    let model = model(Feedback::Implicit);
    for item in 0..24_u32 {
        let best = &model.similar_items(&[item], 4)[0];
        assert!(best.codes.iter().all(|&other| other != item && other / 12 == item / 12));
        assert!(best.scores.iter().all(|&score| score <= 1.0 + 1e-5));
    }
    assert!(model.similar_items(&[24, 999], 3).iter().all(|best| best.codes.is_empty()));
    let users = &model.similar_users(&[7], 3)[0].codes;
    assert!(users.iter().all(|user| user % 2 == 1 && *user != 7));
}

#[test]
fn metrics_beat_popularity_on_separated_groups() {
    let all = interactions();
    let (training, test) = holdout(&all, 0.3, 5);
    let mut model = model(Feedback::Implicit);
    let options = model.options().clone();
    let factors = train(&training, &options, &mut |_| {}, &AtomicBool::new(false)).unwrap();
    model = AlsModel::from_parts(ModelParts {
        users: ids("user_id", 41),
        items: ids("item_id", 25),
        factors,
        seen: all,
        options,
    })
    .unwrap();
    let sides = rankings(&model, &test, 6, &AtomicBool::new(false)).unwrap();
    let [recall, popular] = sides.map(|side| side.values()[0].clone());
    assert_eq!(recall.0, "recall@6");
    assert!(recall.1 > popular.1, "{recall:?} {popular:?}");
}

#[test]
fn rating_metrics_stand_beside_the_item_means() {
    let model = model(Feedback::Explicit);
    let [errors, baseline] = model.rating_evaluation(&interactions());
    let values = errors.per_user().values();
    assert_eq!((values[0].0.as_str(), values[1].0.as_str()), ("rmse", "mae"));
    assert!(values[0].1 < baseline.per_user().values()[0].1, "{values:?}");
    // The last user has no interactions.
    assert_eq!(errors.per_user().counts(), [40, 40]);
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let parts = |change: &dyn Fn(&mut ModelParts)| {
        let good = model(Feedback::Explicit);
        let mut parts = good.parts;
        change(&mut parts);
        AlsModel::from_parts(parts).map(|_| ())
    };
    assert!(parts(&|_| {}).is_ok());
    assert!(parts(&|p| p.factors.user_factors.truncate(3)).is_err());
    assert!(parts(&|p| p.factors.item_factors[0] = f32::NAN).is_err());
    assert!(parts(&|p| p.factors.item_bias.clear()).is_err());
    assert!(parts(&|p| p.seen = Csr::empty(1, 1)).is_err());
    assert!(parts(&|p| p.options.num_factors = 0).is_err());
}
