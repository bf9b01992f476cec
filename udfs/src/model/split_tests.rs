//! Tests of the evaluation splits.

use proptest::prelude::*;

use super::super::sparse::{Duplicates, Triplets};
use super::*;

fn matrix(cells: &[(u32, u32)]) -> Csr {
    let mut triplets = Triplets::default();
    for &(row, column) in cells {
        triplets.push(row, column, 1.0, "w").unwrap();
    }
    triplets.build(100, 40, Duplicates::Sum).0
}

fn full() -> Csr {
    matrix(&(0..4000_u32).map(|cell| (cell / 40, cell % 40)).collect::<Vec<_>>())
}

fn disjoint(all: &Csr, training: &Csr, held: &Csr) -> bool {
    training.cells() + held.cells() == all.cells()
        && (0..all.rows()).all(|row| {
            let apart = |&column: &u32| !training.contains(row, column);
            held.row(row).0.iter().all(apart)
        })
}

#[test]
fn a_random_split_is_seeded_complete_and_of_the_asked_size() {
    let all = full();
    let (training, held) = holdout(&all, 0.25, 9);
    assert!(disjoint(&all, &training, &held));
    assert!((held.cells() as f64 / 4000.0 - 0.25).abs() < 0.03, "{}", held.cells());
    assert_eq!(holdout(&all, 0.25, 9).1, held);
    assert_eq!(split(&all, Split::Random { fraction: 0.25, seed: 9 }, None).unwrap().1, held);
    assert_ne!(holdout(&all, 0.25, 10).1, held);
    assert_eq!(holdout(&all, 0.0, 9).0, all);
    assert_eq!(holdout(&all, f64::NAN, 9).1.cells(), 0);
    assert_eq!(holdout(&all, 1.0, 9).0.cells(), 0);
    assert_eq!(split(&all, Split::Nothing, None).unwrap().0, all);
}

#[test]
fn by_ids_an_interaction_stays_on_its_side_when_others_come() {
    let all = full();
    let users: Vec<u64> = (0..100).map(|user| user * 31 + 5).collect();
    let items: Vec<u64> = (0..40).map(|item| item * 77 + 1).collect();
    let how = Split::Random { fraction: 0.25, seed: 9 };
    let ids = Ids { users: &users, items: &items };
    let held = split(&all, how, Some(ids)).unwrap().1;
    // Without the first user and the first two items, whose codes the others take.
    let fewer =
        matrix(&(0..3960_u32).map(|c| (c / 40, c % 40)).filter(|c| c.1 > 1).collect::<Vec<_>>());
    let fewer = Csr::new(
        fewer.offsets().to_vec(),
        fewer.column_indices().iter().map(|&item| item - 2).collect(),
        fewer.values().to_vec(),
        38,
    )
    .unwrap();
    let users: Vec<u64> = users[1..].iter().copied().chain([1]).collect();
    let ids = Ids { users: &users, items: &items[2..] };
    let later = split(&fewer, how, Some(ids)).unwrap().1;
    for user in 0..99 {
        let expected: Vec<u32> = held.row(user + 1).0.iter().copied().filter(|&i| i > 1).collect();
        let found: Vec<u32> = later.row(user).0.iter().map(|&item| item + 2).collect();
        assert_eq!(found, expected, "{user}");
    }
    assert!(split(&all, how, Some(Ids { users: &users, items: &items[2..] })).is_err());
}

#[test]
fn each_user_gives_the_same_fraction_and_keeps_one() {
    let cells: Vec<(u32, u32)> = (0..40).flat_map(|row| (0..=row).map(move |c| (row, c))).collect();
    let all = matrix(&cells);
    for fraction in [0.2, 0.5, 1.0] {
        let (training, held) =
            split(&all, Split::PerUser { fraction, seed: 3, times: None }, None).unwrap();
        assert!(disjoint(&all, &training, &held));
        for row in 0..40 {
            let cells = row + 1;
            let expected = ((cells as f64 * fraction).round() as usize).min(cells - 1);
            assert_eq!(held.row(row).0.len(), expected, "{row} {fraction}");
        }
    }
    let of =
        |seed| split(&all, Split::PerUser { fraction: 0.5, seed, times: None }, None).unwrap().1;
    assert_eq!(of(3), of(3));
    assert_ne!(of(3), of(4));
}

#[test]
fn the_latest_of_each_user_are_held_out() {
    let all = matrix(&[(0, 1), (0, 5), (0, 7), (0, 9), (1, 0), (1, 2)]);
    let times = [40, 10, 30, 20, 5, 6];
    let how = Split::PerUser { fraction: 0.5, seed: 1, times: Some(&times) };
    let (_, held) = split(&all, how, None).unwrap();
    assert_eq!((held.row(0).0, held.row(1).0), (&[1, 7][..], &[2][..]));
    let how = Split::LeaveOneOut { seed: 1, times: Some(&times) };
    let (_, held) = split(&all, how, None).unwrap();
    assert_eq!((held.row(0).0, held.row(1).0), (&[1][..], &[2][..]));
}

#[test]
fn leave_one_out_takes_one_of_each_user_who_has_two() {
    let all = matrix(&[(0, 1), (1, 1), (1, 2), (2, 3), (2, 4), (2, 5)]);
    let (training, held) = split(&all, Split::LeaveOneOut { seed: 7, times: None }, None).unwrap();
    assert!(disjoint(&all, &training, &held));
    assert_eq!([0, 1, 2, 3].map(|row| held.row(row).0.len()), [0, 1, 1, 0]);
    // Over many users every place is held out about equally often.
    let all = matrix(&(0..400).map(|cell| (cell / 4, cell % 4)).collect::<Vec<_>>());
    let held = split(&all, Split::LeaveOneOut { seed: 7, times: None }, None).unwrap().1;
    let counts = held.column_counts();
    assert_eq!(held.cells(), 100);
    assert!(counts[..4].iter().all(|count| (12..=40).contains(count)), "{counts:?}");
}

#[test]
fn the_latest_fraction_of_all_is_held_out() {
    let all = full();
    let times: Vec<i64> = (0..4000).map(|cell| (cell * 7919) % 4000).collect();
    let (training, held) =
        split(&all, Split::Latest { fraction: 0.1, seed: 1, times: &times }, None).unwrap();
    assert!(disjoint(&all, &training, &held));
    assert_eq!(held.cells(), 400);
    let time = |row: usize, column: u32| times[row * 40 + column as usize];
    for row in 0..100 {
        assert!(held.row(row).0.iter().all(|&column| time(row, column) >= 3600));
        assert!(training.row(row).0.iter().all(|&column| time(row, column) < 3600));
    }
    // Equal times are ordered by the hash: still the exact fraction.
    let equal = vec![5; 4000];
    let held =
        split(&all, Split::Latest { fraction: 0.1, seed: 1, times: &equal }, None).unwrap().1;
    assert_eq!(held.cells(), 400);
    let everything =
        split(&all, Split::Latest { fraction: 1.0, seed: 1, times: &equal }, None).unwrap();
    assert_eq!(everything.1, all);
    let nothing =
        split(&all, Split::Latest { fraction: 0.0, seed: 1, times: &equal }, None).unwrap();
    assert_eq!(nothing.0, all);
}

#[test]
fn chosen_cells_are_held_out() {
    let all = matrix(&[(0, 1), (0, 5), (1, 0)]);
    let (training, held) = split(&all, Split::Chosen(&[false, true, true]), None).unwrap();
    assert_eq!((held.row(0).0, held.row(1).0), (&[5][..], &[0][..]));
    assert_eq!(training.row(0).0, &[1]);
}

#[test]
fn a_cell_has_its_latest_time() {
    let all = matrix(&[(2, 5), (2, 1), (0, 3), (2, 5)]);
    let (rows, columns) = ([2, 2, 0, 2, 9], [5, 1, 3, 5, 9]);
    let latest = cell_latest(&all, &rows, &columns, &[10, 20, 30, 15, 99]).unwrap();
    assert_eq!(latest, [30, 20, 15]);
    assert!(cell_latest(&all, &rows, &columns, &[1]).is_err());
}

#[test]
fn numbers_keep_their_order_as_keys() {
    let numbers = [f64::NAN, f64::NEG_INFINITY, -2.5, -1e-300, 0.0, 1e-300, 2.5, f64::INFINITY];
    assert!(numbers.map(order_key).is_sorted_by(|a, b| a < b));
    assert_eq!(order_key(-0.0), order_key(0.0));
}

#[test]
fn what_does_not_fit_is_refused() {
    let all = full();
    for fraction in [-0.1, 1.1, f64::NAN] {
        let error = split(&all, Split::Random { fraction, seed: 1 }, None).unwrap_err();
        assert_eq!(error.code(), "model_option");
    }
    let short = Split::LeaveOneOut { seed: 1, times: Some(&[1]) };
    assert!(
        split(&all, short, None).is_err() && split(&all, Split::Chosen(&[true]), None).is_err()
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn the_order_of_rows_changes_nothing(
        cells in prop::collection::vec((0_u32..9, 0_u32..9, -3_i64..4), 1..80),
        seed in 0_u64..5,
        turn in 0_usize..80,
    ) {
        let of = |cells: &[(u32, u32, i64)]| {
            let all = matrix(&cells.iter().map(|cell| (cell.0, cell.1)).collect::<Vec<_>>());
            let rows: Vec<u32> = cells.iter().map(|cell| cell.0).collect();
            let columns: Vec<u32> = cells.iter().map(|cell| cell.1).collect();
            let keys: Vec<i64> = cells.iter().map(|cell| cell.2).collect();
            let times = cell_latest(&all, &rows, &columns, &keys).unwrap();
            [
                Split::Random { fraction: 0.3, seed },
                Split::PerUser { fraction: 0.3, seed, times: None },
                Split::PerUser { fraction: 0.3, seed, times: Some(&times) },
                Split::Latest { fraction: 0.3, seed, times: &times },
                Split::LeaveOneOut { seed, times: None },
                Split::LeaveOneOut { seed, times: Some(&times) },
            ]
            .map(|how| split(&all, how, None).unwrap().1.column_indices().to_vec())
        };
        let mut turned = cells.clone();
        turned.rotate_left(turn % cells.len());
        turned.reverse();
        prop_assert_eq!(of(&cells), of(&turned));
    }
}
