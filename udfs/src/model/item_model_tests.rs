//! Tests of the recommender over item-item weights, sparse and dense.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, Int64Array};

use super::super::evaluation::rankings;
use super::super::sparse::{Duplicates, Triplets};
use super::super::split::holdout;
use super::super::{ease, item_knn};
use super::*;
use crate::model::random::mix;

const USERS: usize = 200;
const ITEMS: usize = 70;

fn ids(column: &str, count: usize) -> IdIndex {
    let values: ArrayRef = Arc::new((0..count as i64).map(|id| id * 7).collect::<Int64Array>());
    IdIndex::from_values(column, values).unwrap()
}

/// Two groups of users that like two groups of items; the last user has nothing.
fn interactions() -> Csr {
    let mut triplets = Triplets::default();
    for user in 0..USERS as u32 - 1 {
        for step in 0..8_u32 {
            let draw = mix(u64::from(user * 100 + step));
            let item = (user % 2) * 30 + (draw as u32 % 30).min((draw >> 32) as u32 % 30);
            triplets.push(user, item, 1.0 + (draw >> 62) as f32, "w").unwrap();
        }
    }
    triplets.build(USERS, ITEMS, Duplicates::Sum).0
}

fn parts(similarity: Similarity, seen: Csr) -> ItemParts {
    ItemParts { users: ids("user_id", USERS), items: ids("item_id", ITEMS), seen, similarity }
}

fn learned(training: &Csr, seen: Csr) -> [ItemModel; 2] {
    let go_on = AtomicBool::new(false);
    let options = item_knn::ItemKnnOptions { num_neighbors: 12, ..Default::default() };
    let knn = item_knn::train(training, &options, &mut |_| {}, &go_on).unwrap();
    let options = ease::EaseOptions { l2_reg: 5.0, ..Default::default() };
    let dense = ease::train(training, &options, &mut |_| {}, &go_on).unwrap();
    [Similarity::Sparse(knn), Similarity::Dense(dense)]
        .map(|similarity| ItemModel::from_parts(parts(similarity, seen.clone())).unwrap())
}

fn models() -> [ItemModel; 2] {
    learned(&interactions(), interactions())
}

const REQUEST: RecommendRequest<'static> =
    RecommendRequest { top_k: 5, exclude_seen: true, include: None, exclude: None };

#[test]
fn lists_equal_a_full_sort_of_single_scores() {
    for (model, source) in models().iter().zip([Source::ItemKnn, Source::Ease]) {
        let users: Vec<Option<u32>> = (0..USERS as u32 - 1).map(Some).collect();
        let choices = model.recommend(&users, &REQUEST);
        for (user, choice) in (0..).zip(&choices) {
            let candidates =
                (0..ITEMS as u32).filter(|&i| !model.seen().contains(user as usize, i));
            let scored = candidates.map(|item| (model.score(user, item).unwrap(), item));
            let mut all: Vec<(f32, u32)> =
                scored.filter(|&(score, _)| source == Source::Ease || score != 0.0).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            all.truncate(5);
            let (scores, items): (Vec<f32>, Vec<u32>) = all.into_iter().unzip();
            assert_eq!((&choice.items, &choice.scores), (&items, &scores), "{user}");
            assert_eq!(choice.source, source);
            assert_eq!(&model.recommend(&[Some(user)], &REQUEST)[0], choice);
        }
    }
}

#[test]
fn lists_stay_within_the_users_group_and_do_not_depend_on_threads() {
    let four = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    for model in models() {
        let users: Vec<Option<u32>> = (0..USERS as u32 - 1).map(Some).collect();
        let choices = model.recommend(&users, &REQUEST);
        for (user, choice) in (0..).zip(&choices) {
            assert!(choice.items.iter().all(|item| item / 30 == user % 2), "{user} {choice:?}");
        }
        assert_eq!(four.install(|| model.recommend(&users, &REQUEST)), choices);
    }
}

#[test]
fn who_is_unknown_or_has_nothing_gets_the_most_popular_items() {
    for model in models() {
        let popular = model.popularity().top(5, |_| true).0;
        for choice in model.recommend(&[None, Some(USERS as u32 - 1), Some(9999)], &REQUEST) {
            assert_eq!((choice.source, &choice.items), (Source::Popularity, &popular));
        }
        assert_eq!(model.score(9999, 0), None);
        assert_eq!(model.score(0, 9999), None);
        assert_eq!(model.score(USERS as u32 - 1, 0), Some(0.0));
        let none = RecommendRequest { top_k: 0, ..REQUEST };
        assert!(model.recommend(&[Some(0), None], &none).iter().all(|c| c.items.is_empty()));
    }
}

#[test]
fn lists_of_items_restrict_all_sources() {
    let request = RecommendRequest {
        include: Some(&[0, 1, 2, 3, 9999]),
        exclude: Some(&[2]),
        exclude_seen: false,
        top_k: 9,
    };
    for model in models() {
        for choice in model.recommend(&[Some(0), None], &request) {
            let mut items = choice.items.clone();
            items.sort_unstable();
            assert_eq!(items, [0, 1, 3]);
        }
    }
}

#[test]
fn shares_of_an_explanation_add_up_to_the_score() {
    for model in models() {
        for user in 0..50 {
            for &item in &model.recommend(&[Some(user)], &REQUEST)[0].items {
                let why = model.explain(user, item).unwrap();
                let sum: f64 = why.contributions.iter().map(|&part| f64::from(part)).sum();
                let score = f64::from(model.score(user, item).unwrap());
                assert!((sum - score).abs() < 1e-5, "{sum} {score}");
                assert!(why.contributions.is_sorted_by(|a, b| a >= b));
                assert!(why.items.iter().all(|&own| model.seen().contains(user as usize, own)));
            }
        }
        assert_eq!(model.explain(0, 9999), None);
        assert_eq!(model.explain(USERS as u32 - 1, 0), Some(Explanation::default()));
    }
}

#[test]
fn own_items_give_the_users_list_and_repeated_items_add_up() {
    for model in models() {
        let list = |items: &[u32], weights: &[f32]| {
            let basket = Basket { user: None, items: items.to_vec(), weights: weights.to_vec() };
            model.recommend_baskets(&[basket], &REQUEST).map(|mut lists| lists.remove(0))
        };
        for user in 0..20_usize {
            let (items, weights) = model.seen().row(user);
            let expected = &model.recommend(&[Some(user as u32)], &REQUEST)[0];
            assert_eq!(&list(items, weights).unwrap(), expected);
            let twice = [items, items, &[9999]].concat();
            let halves: Vec<f32> = weights.iter().chain(weights).map(|w| w / 2.0).collect();
            let halves = [halves, vec![1.0]].concat();
            assert_eq!(&list(&twice, &halves).unwrap(), expected);
        }
        assert_eq!(list(&[], &[]).unwrap().source, Source::Popularity);
        assert!(list(&[1], &[f32::NAN]).is_err());
    }
}

#[test]
fn similar_items_are_of_the_same_group_and_never_the_item_itself() {
    for model in models() {
        for item in 0..60_u32 {
            let best = &model.similar_items(&[item], 4)[0];
            assert!(best.codes.iter().all(|&other| other != item && other / 30 == item / 30));
            assert!(best.scores.is_sorted_by(|a, b| a >= b));
        }
        assert!(model.similar_items(&[65, 9999], 3).iter().all(|best| best.codes.is_empty()));
    }
}

#[test]
fn held_out_items_are_not_used_to_find_themselves() {
    let all = interactions();
    let (training, test) = holdout(&all, 0.3, 5);
    let whole = learned(&training, all);
    let apart = learned(&training, training.clone());
    for (whole, apart) in whole.iter().zip(&apart) {
        let recalls = [whole, apart].map(|model| {
            let sides = rankings(model, &test, 6, &AtomicBool::new(false)).unwrap();
            sides.map(|side| side.values()[0].clone())
        });
        let [recall, popular] = &recalls[0];
        assert_eq!(recalls[0], recalls[1]);
        assert_eq!(recall.0, "recall@6");
        assert!(recall.1 > popular.1, "{recalls:?}");
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let dense = |values: usize| Similarity::Dense(vec![0.0; values]);
    let build = |similarity, seen| ItemModel::from_parts(parts(similarity, seen)).map(|_| ());
    assert!(build(dense(ITEMS * ITEMS), interactions()).is_ok());
    assert!(build(dense(ITEMS), interactions()).is_err());
    assert!(build(dense(ITEMS * ITEMS), Csr::empty(1, 1)).is_err());
    assert!(build(Similarity::Sparse(Csr::empty(ITEMS, 1)), interactions()).is_err());
    assert!(build(Similarity::Dense(vec![f32::NAN; ITEMS * ITEMS]), interactions()).is_err());
}
