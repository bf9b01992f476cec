//! Tests of re-ranking.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

fn items_of(list: &[(u32, f32)]) -> Vec<u32> {
    list.iter().map(|(item, _)| *item).collect()
}

/// Like when the codes agree modulo 3.
fn alike(a: u32, b: u32) -> f32 {
    f32::from(u8::from(a % 3 == b % 3))
}

#[test]
fn without_rules_the_best_come_first_and_ties_as_given() {
    let list = Rerank::new(3).apply(&[7, 8, 9, 6], &[0.5, 0.9, 0.5, 0.5]);
    assert_eq!(list, [(8, 0.9), (7, 0.5), (9, 0.5)]);
    assert_eq!(Rerank::new(9).apply(&[1, 2], &[1.0]), [(1, 1.0)]);
    assert!(Rerank::new(0).apply(&[1], &[1.0]).is_empty());
    let list = Rerank::new(3).apply(&[1, 2, 3], &[f32::NAN, 1.0, 2.0]);
    assert_eq!(items_of(&list), [3, 2, 1]);
    assert_eq!(items_of(&Rerank::new(3).apply(&[1, 1, 2], &[1.0, 2.0, 0.0])), [1, 2]);
}

#[test]
fn changed_scores_stay_within_what_f32_holds() {
    let (boost, popularity) = (|_: u32| f32::MAX, |_: u32| 1_000_u32);
    let rules = Rerank::new(2).boost(&boost).popularity(-1e30, &popularity).unwrap();
    assert_eq!(rules.apply(&[1, 2], &[f32::MAX, f32::MIN])[0], (1, f32::MAX));
}

#[test]
fn marginal_relevance_is_computed_step_by_step() {
    // Relevance 1, .75, .5, 0 of items 0, 3, 1, 2; 0 and 3 are alike.
    let (items, scores) = ([0, 3, 1, 2], [9.0, 8.0, 7.0, 5.0]);
    let of = |lambda| {
        items_of(&Rerank::new(4).diversity(lambda, &alike).unwrap().apply(&items, &scores))
    };
    assert_eq!(of(1.0), [0, 3, 1, 2]);
    // Second: 3 has .5 · .75 − .5, 1 has .5 · .5, 2 has 0; third: 3 has −.125, 2 has 0.
    assert_eq!(of(0.5), [0, 1, 2, 3]);
    // Second: 3 has .9 · .75 − .1 = .575, 1 has .45; then 1, then 2.
    assert_eq!(of(0.9), [0, 3, 1, 2]);
    assert_eq!(of(0.0), [0, 1, 2, 3]);
}

#[test]
fn the_scale_of_scores_does_not_matter_to_diversity() {
    let (items, scores) = ([0, 3, 1, 2], [9.0_f32, 8.0, 7.0, 5.0]);
    let scaled: Vec<f32> = scores.iter().map(|score| score * 1000.0 - 77.0).collect();
    for lambda in [0.2, 0.5, 0.8] {
        let rules = Rerank::new(4).diversity(lambda, &alike).unwrap();
        assert_eq!(
            items_of(&rules.apply(&items, &scores)),
            items_of(&rules.apply(&items, &scaled))
        );
    }
    let rules = Rerank::new(3).diversity(0.5, &alike).unwrap();
    assert_eq!(items_of(&rules.apply(&[0, 3, 1], &[2.0; 3])), [0, 1, 3]);
    let nothing = |_: u32, _: u32| f32::NAN;
    let rules = Rerank::new(3).diversity(0.5, &nothing).unwrap();
    assert_eq!(items_of(&rules.apply(&[0, 3, 1], &[3.0, 2.0, 1.0])), [0, 3, 1]);
}

#[test]
fn quotas_leave_room_for_others_and_none_for_none() {
    let category = |item: u32| (item < 90).then_some(item / 10);
    let rules = Rerank::new(4).max_per(1, &category).unwrap();
    let items = [11, 12, 13, 91, 92, 21];
    let list = rules.apply(&items, &[9.0, 8.0, 7.0, 6.0, 5.0, 4.0]);
    assert_eq!(items_of(&list), [11, 91, 92, 21]);
    assert_eq!(items_of(&rules.apply(&[11, 12, 13], &[3.0, 2.0, 1.0])), [11]);
}

#[test]
fn promoted_items_get_their_share_of_every_prefix() {
    let promoted = |item: u32| item >= 50;
    let items = [1, 2, 3, 4, 50, 51, 52];
    let scores = [9.0, 8.0, 7.0, 6.0, 3.0, 2.0, 1.0];
    let of =
        |share| items_of(&Rerank::new(6).promote(share, &promoted).unwrap().apply(&items, &scores));
    assert_eq!(of(0.0), [1, 2, 3, 4, 50, 51]);
    assert_eq!(of(0.5), [1, 50, 2, 51, 3, 52]);
    assert_eq!(of(0.34), [1, 2, 50, 3, 4, 51]);
    assert_eq!(of(1.0), [50, 51, 52, 1, 2, 3]);
    // Promoted items that are good anyway count towards the share.
    let list = Rerank::new(4).promote(0.5, &promoted).unwrap();
    assert_eq!(items_of(&list.apply(&[50, 51, 1, 2], &[9.0, 8.0, 7.0, 6.0])), [50, 51, 1, 2]);
}

#[test]
fn boosts_and_popularity_change_the_score() {
    let popularity = |item: u32| if item == 1 { 1000 } else { 0 };
    let boost = |item: u32| if item == 3 { 0.5 } else { 0.0 };
    let rules = Rerank::new(3).popularity(0.1, &popularity).unwrap().boost(&boost);
    let list = rules.apply(&[1, 2, 3], &[1.0, 0.9, 0.5]);
    assert_eq!(items_of(&list), [3, 2, 1]);
    assert!((list[2].1 - (1.0 - 0.1 * 1000_f32.ln())).abs() < 1e-6);
    assert!((list[0].1 - 1.0).abs() < 1e-6);
    let neutral = Rerank::new(3).popularity(0.0, &popularity).unwrap();
    assert_eq!(items_of(&neutral.apply(&[1, 2, 3], &[1.0, 0.9, 0.5])), [1, 2, 3]);
}

#[test]
fn values_outside_their_range_are_refused() {
    let none = |_: u32| None;
    let no = |_: u32| false;
    let zero = |_: u32| 0;
    assert!(Rerank::new(1).max_per(0, &none).is_err());
    assert!(Rerank::new(1).promote(1.5, &no).is_err());
    assert!(Rerank::new(1).popularity(f32::NAN, &zero).is_err());
    let error = Rerank::new(1).diversity(-0.1, &alike).err().unwrap();
    assert_eq!(error.to_string(), "diversity = -0.1 is not valid. Use a number from 0 to 1");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn rules_hold_together(
        scores in prop::collection::vec(-8_i8..8, 0..40),
        k in 0_usize..25,
        most in 1_usize..4,
        share in 0.0_f64..=1.0,
        lambda in 0.0_f32..=1.0,
    ) {
        let items: Vec<u32> = (0..).map(|n| (n * 37) % 101).take(scores.len()).collect();
        let scores: Vec<f32> = scores.iter().map(|score| f32::from(*score)).collect();
        let category = |item: u32| (!item.is_multiple_of(5)).then_some(item % 5);
        let promoted = |item: u32| item.is_multiple_of(4);
        let rules = Rerank::new(k)
            .max_per(most, &category)
            .unwrap()
            .promote(share, &promoted)
            .unwrap()
            .diversity(lambda, &alike)
            .unwrap();
        let list = items_of(&rules.apply(&items, &scores));
        prop_assert!(list.len() <= k);
        prop_assert!(list.iter().all(|item| items.contains(item)));
        prop_assert_eq!(list.iter().collect::<HashSet<_>>().len(), list.len());
        let mut counts = HashMap::new();
        for of in list.iter().filter_map(|&item| category(item)) {
            *counts.entry(of).or_insert(0) += 1;
        }
        prop_assert!(counts.values().all(|count| *count <= most), "{:?}", counts);
        // A list that is short has used up what the quota allows.
        let full = |of: u32| counts.get(&of).is_some_and(|count| *count >= most);
        let allowed = |item: &u32| !category(*item).is_some_and(full);
        let unlisted = items.iter().filter(|item| !list.contains(item));
        let left: Vec<&u32> = unlisted.filter(|item| allowed(item)).collect();
        prop_assert!(list.len() == k || left.is_empty(), "{:?}", left);
        // Every prefix has its promoted share unless no promoted candidate was left that might.
        if !left.iter().any(|item| promoted(**item)) {
            return Ok(());
        }
        for end in 1..=list.len() {
            let found = list[..end].iter().filter(|item| promoted(**item)).count();
            prop_assert!(found >= (end as f64 * share).floor() as usize, "{:?} {}", list, end);
        }
    }

    #[test]
    fn relevance_alone_keeps_the_order(
        scores in prop::collection::vec(-8_i8..8, 0..40),
        k in 0_usize..50,
    ) {
        let mut scores: Vec<f32> = scores.iter().map(|score| f32::from(*score)).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        let items: Vec<u32> = (100..).take(scores.len()).collect();
        let list = Rerank::new(k).diversity(1.0, &alike).unwrap().apply(&items, &scores);
        let expected: Vec<(u32, f32)> = items.iter().copied().zip(scores).take(k).collect();
        prop_assert_eq!(list, expected);
    }

    #[test]
    fn marginal_relevance_equals_its_definition(
        scores in prop::collection::vec(0_u8..9, 1..15),
        lambda in 0.0_f32..1.0,
    ) {
        let scores: Vec<f32> = scores.iter().map(|score| f32::from(*score)).collect();
        let items: Vec<u32> = (0..).take(scores.len()).collect();
        let similarity = |a: u32, b: u32| 1.0 / (1.0 + a.abs_diff(b) as f32);
        let list = Rerank::new(9).diversity(lambda, &similarity).unwrap().apply(&items, &scores);
        let least = scores.iter().copied().fold(f32::INFINITY, f32::min);
        let range = scores.iter().copied().fold(0.0, f32::max) - least;
        let relevance = |item: u32| {
            if range > 0.0 { (scores[item as usize] - least) / range } else { 1.0 }
        };
        for (place, (picked, _)) in list.iter().enumerate() {
            let before = &list[..place];
            let value = |item: u32| {
                let relevance = relevance(item);
                let similarities = before.iter().map(|(other, _)| similarity(item, *other));
                similarities
                    .reduce(f32::max)
                    .map_or(relevance, |most| lambda * relevance - (1.0 - lambda) * most)
            };
            for other in &items {
                if !before.iter().any(|(item, _)| item == other) {
                    prop_assert!(value(*picked) >= value(*other), "{:?} {} {}", list, place, other);
                }
            }
        }
    }
}
