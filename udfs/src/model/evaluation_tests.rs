//! Tests of the evaluation against the published definitions.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};

use super::super::als::{AlsFactors, AlsOptions};
use super::super::metrics::beyond_accuracy::diversity;
use super::super::{AlsModel, Duplicates, IdIndex, ModelParts, Recommender, Source, Triplets};
use super::*;

static RUN: AtomicBool = AtomicBool::new(false);
const USERS: u32 = 40;
const ITEMS: u32 = 30;
const FACTORS: u32 = 5;

fn draw(a: u32, b: u32) -> u32 {
    (a * 26_544 + b * 40_503 + a * b * 7_919) % 1_009
}

fn csr(keep: impl Fn(u32, u32) -> bool) -> Csr {
    let mut cells = Triplets::default();
    for user in 0..USERS {
        for item in (0..ITEMS).filter(|&item| keep(user, item)) {
            cells.push(user, item, 1.0, "w").unwrap();
        }
    }
    cells.build(USERS as usize, ITEMS as usize, Duplicates::Sum).0
}

fn is_seen(user: u32, item: u32) -> bool {
    draw(user + 3, item + 7) % 10 < 3
}

fn is_test(user: u32, item: u32) -> bool {
    is_seen(user, item) && draw(item + 11, user + 5).is_multiple_of(4)
}

fn test_cells() -> Csr {
    csr(is_test)
}

fn model(seen: Csr) -> Model {
    let rows = |rows: u32, first: u32, second: u32| -> Vec<f32> {
        let value = |row: u32, factor: u32| {
            (f64::from(draw(row + first, factor + second)) / 1_009.0 - 0.5) as f32
        };
        (0..rows).flat_map(|row| (0..FACTORS).map(move |factor| value(row, factor))).collect()
    };
    let factors = AlsFactors {
        user_factors: rows(USERS, 1, 1),
        item_factors: rows(ITEMS, 101, 51),
        ..AlsFactors::default()
    };
    let ids = |column: &str, count: u32| {
        let values: ArrayRef = Arc::new((0..i64::from(count)).collect::<Int64Array>());
        IdIndex::from_values(column, values).unwrap()
    };
    let options = AlsOptions {
        feedback: Feedback::Implicit,
        num_factors: FACTORS as usize,
        ..AlsOptions::default()
    };
    let (users, items) = (ids("user_id", USERS), ids("item_id", ITEMS));
    AlsModel::from_parts(ModelParts { users, items, factors, seen, options }).unwrap().into()
}

/// Metric, the model's value and the popularity ranking's, by the published definitions:
/// `benches/peers/metrics.py` computes them with NumPy and scikit-learn.
const PUBLISHED: [(&str, f64, f64); 11] = [
    ("recall@6", 0.242_792_792_793, 0.204_954_954_955),
    ("ndcg@6", 0.183_036_038_209, 0.132_284_690_474),
    ("hit_rate@6", 0.513_513_513_514, 0.432_432_432_432),
    ("precision@6", 0.117_117_117_117, 0.085_585_585_586),
    ("map@6", 0.113_626_126_126, 0.073_723_723_724),
    ("mrr@6", 0.247_297_297_297, 0.158_558_558_559),
    ("coverage@6", 0.966_666_666_667, 0.366_666_666_667),
    ("gini@6", 0.290_390_390_390, 0.719_219_219_219),
    ("novelty@6", 2.512_154_340_744, 1.958_817_601_204),
    ("diversity@6", 0.759_137_928_486, 0.688_600_718_975),
    ("auc", 0.446_990_988_804, 0.478_497_967_993),
];

fn everyone(_: u32) -> bool {
    true
}

#[test]
fn metrics_equal_the_published_definitions() {
    let evaluation = Evaluation::of(&model(csr(is_seen)), &test_cells(), 6, &RUN).unwrap();
    let measured = evaluation.measure(&everyone, &RUN).unwrap();
    assert_eq!(measured.len(), PUBLISHED.len() + 1);
    for (name, value, baseline) in PUBLISHED {
        let found = measured.iter().find(|found| found.name == name).unwrap();
        assert!((found.value - value).abs() < 1e-6, "{name} {value} {found:?}");
        assert!((found.baseline - baseline).abs() < 1e-6, "{name} {baseline} {found:?}");
        assert!(found.low <= found.value && found.value <= found.high, "{found:?}");
        assert_eq!(found.users, 37, "{found:?}");
    }
    let loss = measured.iter().find(|found| found.name == "log_loss").unwrap();
    // These factors know nothing. The fit is to pairs, the mean over users.
    assert!((loss.value - 2_f64.ln()).abs() < 0.01, "{loss:?}");
    assert_eq!(evaluation.values(&everyone)[0], ("recall@6".to_owned(), measured[0].value));
}

#[test]
fn test_interactions_tell_the_model_nothing() {
    let test = test_cells();
    let training = csr(|user, item| is_seen(user, item) && !is_test(user, item));
    let of = |seen: Csr| {
        let evaluation = Evaluation::of(&model(seen), &test, 6, &RUN).unwrap();
        let measured = evaluation.measure(&everyone, &RUN).unwrap();
        // How alike items are is no part of being right.
        measured.into_iter().filter(|found| found.name != "diversity@6").collect::<Vec<_>>()
    };
    assert_eq!(of(csr(is_seen)), of(training));
}

#[test]
fn popularity_that_stands_in_does_not_count_test_interactions() {
    // Nobody has factors: every list is the fallback's. Item 1 is the test item of users 1 to 3.
    let seen = Csr::new(vec![0, 2, 3, 4, 5], vec![0, 2, 1, 1, 1], vec![1.0; 5], 3).unwrap();
    let test = Csr::new(vec![0, 0, 1, 2, 3], vec![1; 3], vec![1.0; 3], 3).unwrap();
    let Model::Als(shape) = model(csr(is_seen)) else { panic!("no factorization") };
    let ids = |column: &str, count: i64| {
        let values: ArrayRef = Arc::new((0..count).collect::<Int64Array>());
        IdIndex::from_values(column, values).unwrap()
    };
    let factors = AlsFactors {
        user_factors: vec![0.0; 4 * FACTORS as usize],
        item_factors: vec![0.0; 3 * FACTORS as usize],
        ..AlsFactors::default()
    };
    let options = shape.options().clone();
    let (users, items) = (ids("user_id", 4), ids("item_id", 3));
    let parts = ModelParts { users, items, factors, seen, options };
    let model = AlsModel::from_parts(parts).unwrap();
    let held_out = HeldOut::new(model.seen(), &test);
    let lists = model.recommend_held_out(&[1, 2, 3], &held_out, 1);
    assert!(lists.iter().all(|list| list.source == Source::Popularity && list.items == [0]));
    let sides = rankings(&model, &test, 1, &RUN).unwrap();
    assert!(sides.iter().all(|side| side.values()[0] == ("recall@1".to_owned(), 0.0)));
    // In every metric: what is no number is none on both sides.
    let [ours, baseline] = sides.map(|side| format!("{:?}", side.values()));
    assert_eq!(ours, baseline);
}

/// As when all interactions of a user are kept aside.
#[test]
fn a_user_without_factors_is_measured_as_popularity_in_every_metric() {
    let test = test_cells();
    let stranger = (0..USERS).find(|&user| !test.row(user as usize).0.is_empty()).unwrap();
    let known = model(csr(is_seen));
    let Model::Als(shape) = &known else { panic!("no factorization") };
    let mut factors = shape.factors().clone();
    let width = FACTORS as usize;
    factors.user_factors[stranger as usize * width..][..width].fill(0.0);
    let (users, items) = (shape.user_ids().clone(), shape.item_ids().clone());
    let parts =
        ModelParts { users, items, factors, seen: csr(is_seen), options: shape.options().clone() };
    let without: Model = AlsModel::from_parts(parts).unwrap().into();
    let [with, without] =
        [&known, &without].map(|model| Evaluation::of(model, &test, 6, &RUN).unwrap());
    for found in without.measure(&|user| user == stranger, &RUN).unwrap() {
        // The probabilities of the baseline are fitted to everybody's counts.
        if found.name != "log_loss" {
            assert_eq!(found.value, found.baseline, "{found:?}");
        }
        assert!(found.value.is_finite(), "{found:?}");
    }
    let others = |user: u32| user != stranger;
    for (with, without) in with.values(&others).iter().zip(without.values(&others)) {
        if with.0 != "log_loss" {
            assert_eq!(*with, without);
        }
    }
}

#[test]
fn a_segment_is_measured_as_if_it_were_alone() {
    let (test, model) = (test_cells(), model(csr(is_seen)));
    let all = Evaluation::of(&model, &test, 6, &RUN).unwrap();
    let of_segment = csr(|user, item| user < 20 && is_test(user, item));
    let alone = Evaluation::of(&model, &of_segment, 6, &RUN).unwrap();
    let part = all.measure(&|user| user < 20, &RUN).unwrap();
    let values = alone.values(&everyone);
    for name in ["recall@6", "ndcg@6", "auc", "diversity@6", "coverage@6", "gini@6"] {
        let found = part.iter().find(|found| found.name == name).unwrap();
        let (_, value) = values.iter().find(|(known, _)| known == name).unwrap();
        assert!((found.value - value).abs() < 1e-12, "{name} {value} {found:?}");
    }
    let nobody = all.measure(&|_| false, &RUN).unwrap();
    assert!(nobody[0].value.is_nan() && nobody[0].users == 0);
}

#[test]
fn diversity_of_many_pairs_at_once_is_that_of_each_pair() {
    let seen = csr(is_seen);
    let likeness = Likeness::new(&seen, 40);
    let vectors: Vec<Vec<f32>> = (0..ITEMS)
        .map(|item| {
            (0..USERS).map(|user| f32::from(u8::from(seen.contains(user as usize, item)))).collect()
        })
        .collect();
    let mut sums = vec![];
    for list in [&[0, 1][..], &[3, 9, 14, 2, 28], &[5], &[]] {
        let pair_by_pair = diversity(list, |item| vectors.get(item as usize).map(Vec::as_slice));
        let at_once = likeness.diversity(0, list, &mut sums);
        assert_eq!(at_once.is_some(), pair_by_pair.is_some());
        let (at_once, pair_by_pair) = (at_once.unwrap_or(0.0), pair_by_pair.unwrap_or(0.0));
        assert!((at_once - pair_by_pair).abs() < 1e-6, "{list:?} {at_once} {pair_by_pair}");
        assert!(sums.iter().all(|sum| *sum == 0.0));
    }
}

#[test]
fn items_are_drawn_once_each_and_from_the_whole_catalog() {
    assert_eq!(drawn(3, 9), [0, 1, 2]);
    let items = drawn(100_000, 4);
    assert!(items.len() == DRAWN_ITEMS && items.is_sorted_by(|a, b| a < b));
    assert!(items[0] < 1_000 && items[DRAWN_ITEMS - 1] > 99_000);
    assert_ne!(items, drawn(100_000, 5));
}

#[test]
fn an_evaluation_stops_when_it_is_told_to() {
    let (test, model) = (test_cells(), model(csr(is_seen)));
    let stop = AtomicBool::new(true);
    assert!(matches!(Evaluation::of(&model, &test, 6, &stop), Err(ModelError::Cancelled)));
}
