//! Tests of blends: the sum that they are, their lists, their reasons, and learned weights.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, Int64Array};

use super::super::als::{AlsOptions, train};
use super::super::explain::Term;
use super::super::item_knn::{self, ItemKnnOptions};
use super::super::judge::{Judge, Objective};
use super::super::{ItemParts, ModelParts, PopularityParts, Similarity, holdout};
use super::*;
use crate::model::random::mix;

const USERS: u32 = 60;
const ITEMS: u32 = 30;

static GO: AtomicBool = AtomicBool::new(false);

fn ids(column: &str, count: u32) -> IdIndex {
    let values: ArrayRef = Arc::new((0..i64::from(count)).collect::<Int64Array>());
    IdIndex::from_values(column, values).unwrap()
}

/// Users of two kinds, each with items of its own kind; the last has none.
fn seen() -> Csr {
    let (mut offsets, mut columns) = (vec![0], vec![]);
    for user in 0..USERS {
        let takes = |&item: &u32| {
            let draw = mix(u64::from(user) << 32 | u64::from(item)) % 100;
            user + 1 < USERS && (item % 2 == user % 2 && draw < 45 || draw < 4)
        };
        columns.extend((0..ITEMS).filter(takes));
        offsets.push(columns.len());
    }
    let values = vec![1.0; columns.len()];
    Csr::new(offsets, columns, values, ITEMS as usize).unwrap()
}

fn als(seen: &Csr) -> Base {
    let feedback = Feedback::Implicit;
    let options = AlsOptions { feedback, num_factors: 4, seed: 2, ..AlsOptions::default() };
    let factors = train(seen, &options, &mut |_| {}, &GO).unwrap();
    let (users, items) = (ids("user_id", USERS), ids("item_id", ITEMS));
    let parts = ModelParts { users, items, factors, seen: seen.clone(), options };
    Base::Als(Box::new(AlsModel::from_parts(parts).unwrap()))
}

fn knn(seen: &Csr) -> Base {
    let cells = item_knn::train(seen, &ItemKnnOptions::default(), &mut |_| {}, &GO).unwrap();
    let similarity = Similarity::Sparse(cells);
    let (users, items) = (ids("user_id", USERS), ids("item_id", ITEMS));
    Base::Item(
        ItemModel::from_parts(ItemParts { users, items, seen: seen.clone(), similarity }).unwrap(),
    )
}

fn popular(seen: &Csr, weights: Vec<f32>) -> Base {
    let (users, items) = (ids("user_id", USERS), ids("item_id", ITEMS));
    let parts = PopularityParts { users, items, seen: seen.clone(), weights, segments: None };
    Base::Popularity(PopularityModel::from_parts(parts).unwrap())
}

fn counts(seen: &Csr) -> Vec<f32> {
    seen.column_counts().iter().map(|&count| (count as f32).ln_1p()).collect()
}

fn blend(seen: &Csr, shares: [f32; 3]) -> Result<HybridModel, ModelError> {
    let bases = [als(seen), knn(seen), popular(seen, counts(seen))];
    let member = |(base, share)| Member { base, weight: Weight { share, scale: 0.5 } };
    HybridModel::from_members(bases.into_iter().zip(shares).map(member).collect())
}

const REQUEST: RecommendRequest<'static> =
    RecommendRequest { top_k: 5, exclude_seen: true, include: None, exclude: None };

#[test]
fn a_pair_a_user_and_everyone_score_alike_and_lists_are_the_best_of_all() {
    let seen = seen();
    let model = blend(&seen, [0.5, 0.3, 0.2]).unwrap();
    let everyone: Vec<Option<u32>> = (0..USERS).map(Some).collect();
    let lists = model.recommend(&everyone, &REQUEST);
    for (user, list) in (0..USERS - 1).zip(&lists) {
        assert_eq!(list.source, Source::Hybrid);
        let mut all: Vec<(f32, u32)> = (0..ITEMS)
            .filter(|&item| !seen.contains(user as usize, item))
            .map(|item| (model.score(user, item).unwrap(), item))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all.truncate(5);
        let (scores, items): (Vec<f32>, Vec<u32>) = all.into_iter().unzip();
        assert_eq!((&list.items, &list.scores), (&items, &scores), "{user}");
        assert_eq!(&model.recommend(&[Some(user)], &REQUEST)[0], list);
    }
    let [unknown, nobody] = [Some(USERS - 1), None].map(|who| model.recommend(&[who], &REQUEST));
    assert_eq!(unknown[0].source, Source::Popularity);
    assert_eq!((&unknown[0].items, model.score(USERS, 0)), (&nobody[0].items, None));
}

#[test]
fn a_basket_is_a_user_who_has_had_the_same() {
    let seen = seen();
    // Item weights and popularity fold in exactly.
    let model = blend(&seen, [0.0, 0.6, 0.4]).unwrap();
    let basket = |user: u32| {
        let (items, weights) = seen.row(user as usize);
        Basket { user: None, items: items.to_vec(), weights: weights.to_vec() }
    };
    let baskets: Vec<Basket> = (0..USERS).map(basket).collect();
    let everyone: Vec<Option<u32>> = (0..USERS).map(Some).collect();
    let lists = model.recommend_baskets(&baskets, &REQUEST).unwrap();
    assert_eq!(lists, model.recommend(&everyone, &REQUEST));
    let wrong = Basket { weights: vec![f32::NAN; 9], ..basket(0) };
    assert!(model.recommend_baskets(&[wrong], &REQUEST).is_err());
}

#[test]
fn what_explains_the_members_explains_the_blend() {
    let seen = seen();
    let wrapped = Model::from(blend(&seen, [0.0, 0.6, 0.4]).unwrap());
    let score = wrapped.recommender().unwrap().score(3, 5).unwrap();
    let reasons = wrapped.explain(3, 5).unwrap();
    assert!((reasons.score() - f64::from(score)).abs() < 1e-5);
    assert!(reasons.parts.iter().any(|part| part.term.name() == "popularity"));
    // With factors the parts of an interaction are one.
    let reasons = Model::from(blend(&seen, [0.5, 0.3, 0.2]).unwrap()).explain(3, 5).unwrap();
    let mut terms: Vec<String> =
        reasons.parts.iter().map(|part| format!("{:?}", part.term)).collect();
    terms.sort();
    assert!(terms.windows(2).all(|two| two[0] != two[1]), "{terms:?}");
    assert!((reasons.shares().unwrap().iter().sum::<f64>() - 1.0).abs() < 1e-9);
}

/// Of a member that knows what comes next and one that knows nothing, the former is all.
#[test]
fn weights_are_those_of_the_best_lists() {
    let (known, held) = holdout(&seen(), 0.3, 4);
    let chance = || (0..ITEMS).map(|item| mix(u64::from(item)) as f32).collect::<Vec<f32>>();
    let judge = Judge::new(Objective::Ndcg, 5, &known, &held);
    let bases = [als(&known), knn(&known), popular(&known, chance())];
    let recommenders: Vec<&dyn Recommender> = bases.iter().map(Base::recommender).collect();
    let (found, metric) = weights(&recommenders, &judge, &GO).unwrap();
    assert!((found.iter().map(|weight| weight.share).sum::<f32>() - 1.0).abs() < 1e-6);
    assert!(found.iter().all(Weight::is_valid), "{found:?}");
    assert!(found[2].share < 0.25, "{found:?}");
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(
        one.install(|| weights(&recommenders, &judge, &GO)).unwrap(),
        (found.clone(), metric)
    );
    let worth = |shares: [f32; 3]| {
        let weights = found.iter().zip(shares);
        let weights = weights.map(|(of, share)| Weight { share, ..*of });
        let bases = [als(&known), knn(&known), popular(&known, chance())];
        let members = bases.into_iter().zip(weights);
        let members = members.map(|(base, weight)| Member { base, weight }).collect();
        judge.model(&HybridModel::from_members(members).unwrap(), None)
    };
    let learned = worth([found[0].share, found[1].share, 0.0]);
    let whole = worth([found[0].share, found[1].share, found[2].share]);
    assert!((metric - whole).abs() < 1e-3, "{metric} {whole}");
    for single in [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]] {
        assert!(learned >= worth(single) - 0.01, "{learned} {found:?}");
    }
    // A member that says the same of every item has no say, wherever it stands.
    let flat = popular(&known, vec![3.0; ITEMS as usize]);
    let with_flat = [flat.recommender(), recommenders[1]];
    let (shares, _) = weights(&with_flat, &judge, &GO).unwrap();
    assert_eq!([shares[0].share, shares[1].share], [0.0, 1.0]);
    assert_eq!(weights(&with_flat[..1], &judge, &GO), Err(ModelError::Flat));
    let stopped = weights(&recommenders, &judge, &AtomicBool::new(true));
    assert!(matches!(stopped, Err(ModelError::Cancelled)));
}

#[test]
fn a_signal_counts_for_everybody_alike_and_is_named() {
    let seen = seen();
    let values: Vec<f32> = (0..ITEMS).map(|item| item as f32 - 14.5).collect();
    let Base::Popularity(scores) = popular(&seen, values.clone()) else { panic!() };
    let signal = Base::Signal(Signal::new("margin".into(), scores));
    assert_eq!((signal.type_name(), signal.is_personal()), ("signal", false));
    let members = [(knn(&seen), 0.5), (signal, 0.5)];
    let member = |(base, share)| Member { base, weight: Weight { share, scale: 2.0 } };
    let model = HybridModel::from_members(members.into_iter().map(member).collect()).unwrap();
    let signals: Vec<&[f32]> =
        model.members().filter_map(|member| member.base.signal()).map(Signal::values).collect();
    assert_eq!(signals, [values.as_slice()]);
    let score = model.score(3, 5).unwrap();
    let wrapped = Model::from(model);
    let reasons = wrapped.explain(3, 5).unwrap();
    assert!((reasons.score() - f64::from(score)).abs() < 1e-5);
    let of_signal = reasons.parts.iter().find(|part| part.term == Term::Signal(1)).unwrap();
    assert_eq!((of_signal.weight, of_signal.contribution), (-9.5, -9.5 / 4.0));
    assert_eq!(wrapped.term_name(of_signal.term), "signal margin");
}

#[test]
fn where_popularity_alone_counts_lists_have_the_blends_scores() {
    let seen = seen();
    let model = blend(&seen, [0.0, 0.0, 1.0]).unwrap();
    let lists = model.recommend(&[Some(3), Some(USERS - 1), None], &REQUEST);
    let sources: Vec<Source> = lists.iter().map(|list| list.source).collect();
    assert_eq!(sources, [Source::Hybrid, Source::Popularity, Source::Popularity]);
    assert_eq!(model.score(3, lists[0].items[0]), Some(lists[0].scores[0]));
}

#[test]
fn members_that_do_not_fit_are_refused() {
    let seen = seen();
    assert!(blend(&seen, [0.2, 0.8, 0.0]).is_ok());
    for shares in [[0.0; 3], [-0.5, 1.0, 0.5], [f32::NAN, 0.5, 0.5], [2.0, 0.0, 0.0]] {
        assert!(blend(&seen, shares).is_err(), "{shares:?}");
    }
    assert!(HybridModel::from_members(vec![]).is_err());
    let weight = Weight { share: 1.0, scale: 0.0 };
    let flat = Member { base: knn(&seen), weight };
    assert!(HybridModel::from_members(vec![flat]).is_err());
    let nested = Model::from(blend(&seen, [1.0, 0.0, 0.0]).unwrap());
    assert!(Base::try_from(nested).is_err());
}
