//! Tests of item neighbourhoods against figures and a dense reference.

use proptest::prelude::*;

use super::super::sparse::{Duplicates, Triplets};
use super::*;

const WEIGHTINGS: [Weighting; 4] =
    [Weighting::Cosine, Weighting::TfIdf, Weighting::Bm25, Weighting::Rp3Beta];

fn matrix(cells: &[(u32, u32, f32)], users: usize, items: usize) -> Csr {
    let mut triplets = Triplets::default();
    for &(user, item, value) in cells {
        triplets.push(user, item, value, "w").unwrap();
    }
    triplets.build(users, items, Duplicates::Sum).0
}

fn learn(x: &Csr, options: &ItemKnnOptions) -> Csr {
    train(x, options, &mut |_| {}, &AtomicBool::new(false)).unwrap()
}

/// All similarities by the formulas, dense and in `f64`.
fn reference(x: &Csr, options: &ItemKnnOptions) -> Vec<Vec<f64>> {
    let (users, items) = (x.rows(), x.columns());
    let mut dense = vec![vec![0.0_f64; items]; users];
    let mut has = vec![vec![false; items]; users];
    for user in 0..users {
        for (&item, &value) in x.row(user).0.iter().zip(x.row(user).1) {
            let counts = options.weighting == Weighting::Cosine || value > 0.0;
            has[user][item as usize] = counts;
            dense[user][item as usize] = if counts { value.into() } else { 0.0 };
        }
    }
    let sums: Vec<f64> = (0..items).map(|i| dense.iter().map(|row| row[i]).sum()).collect();
    let mean = sums.iter().sum::<f64>() / items as f64;
    let counted = has.iter().flatten().filter(|has| **has).count();
    let typical = sums.iter().sum::<f64>() / counted.max(1) as f64;
    for (row, has) in dense.iter_mut().zip(&has) {
        let count = has.iter().filter(|has| **has).count() as f64;
        let idf = (items as f64).ln() - (1.0 + count).ln();
        let total: f64 = row.iter().sum();
        for (value, sum) in row.iter_mut().zip(&sums).filter(|(value, _)| **value != 0.0) {
            let (k1, b) = (options.bm25_k1, options.bm25_b);
            let length = 1.0 - b + b * sum / mean;
            *value = match options.weighting {
                Weighting::Cosine => *value,
                Weighting::TfIdf => value.sqrt() * idf,
                Weighting::Bm25 => *value * (k1 + 1.0) / (k1 * length + *value) * idf,
                Weighting::Rp3Beta => (*value / (total * typical).sqrt()).powf(options.rp3_alpha),
            };
        }
    }
    let product = |i: usize, j: usize| dense.iter().map(|row| row[i] * row[j]).sum::<f64>();
    let similarity = |i: usize, j: usize| {
        let norm = match options.weighting {
            Weighting::Bm25 => 1.0,
            Weighting::Rp3Beta => {
                (sums[i] / typical).powf(options.rp3_alpha)
                    * (sums[j] / typical).powf(options.rp3_beta)
            }
            _ => (product(i, i) * product(j, j)).sqrt(),
        };
        let common = has.iter().filter(|has| has[i] && has[j]).count() as f64;
        let shrunk = if common > 0.0 { common / (common + options.shrinkage) } else { 0.0 };
        if norm > 0.0 { product(i, j) / norm * shrunk } else { 0.0 }
    };
    (0..items).map(|i| (0..items).map(|j| similarity(i, j)).collect()).collect()
}

#[test]
fn small_similarities_equal_figures_of_the_definitions() {
    // Users' items: {0, 1}, {0, 1, 2}, {2}; four items.
    let cells = [(0, 0, 1.0), (0, 1, 2.0), (1, 0, 1.0), (1, 1, 1.0), (1, 2, 4.0), (2, 2, 3.0)];
    let x = matrix(&cells, 3, 4);
    let cosine = learn(&x, &ItemKnnOptions::default());
    let expected = 3.0 / (2.0_f32.sqrt() * 5.0_f32.sqrt());
    assert!((cosine.row(0).1[1] - expected).abs() < 1e-6);
    assert_eq!(cosine.row(0).0, [0, 1, 2]);
    assert!(cosine.row(3).0.is_empty());
    // idf of the first user: ln 4 − ln 3; user 1's is ln 4 − ln 4 = 0.
    let options = ItemKnnOptions { weighting: Weighting::TfIdf, ..ItemKnnOptions::default() };
    assert!((learn(&x, &options).row(0).1[1] - 1.0).abs() < 1e-6);
    let options = ItemKnnOptions { weighting: Weighting::Bm25, ..options };
    let idf = (4.0_f64 / 3.0).ln();
    let weight = |value: f64, sum: f64| value * 2.2 / (1.2 * (0.25 + 0.75 * sum / 3.0) + value);
    let expected = weight(1.0, 2.0) * weight(2.0, 3.0) * idf * idf;
    assert!((f64::from(learn(&x, &options).row(0).1[1]) - expected).abs() < 1e-6);
}

#[test]
fn keys_order_scores_downwards_and_codes_upwards() {
    let scores = [f32::MAX, 2.0, 1e-30, -1e-30, -2.0, f32::MIN];
    let keys: Vec<u64> =
        scores.iter().flat_map(|&s| [0, 7, u32::MAX].map(|code| key(s, code))).collect();
    assert!(keys.is_sorted_by(|a, b| a < b));
    let back: Vec<(f32, u32)> = keys.iter().map(|&key| (score(key), key as u32)).collect();
    assert_eq!((back[4], back[17]), ((2.0, 7), (f32::MIN, u32::MAX)));
}

#[test]
fn equal_similarities_are_kept_by_code() {
    let cells: Vec<_> = (0..5).map(|item| (0, item, 1.0)).collect();
    let options = ItemKnnOptions { num_neighbors: 3, ..ItemKnnOptions::default() };
    let knn = learn(&matrix(&cells, 1, 5), &options);
    assert!((0..5).all(|item| knn.row(item).0 == [0, 1, 2]));
}

#[test]
fn options_outside_their_domain_empty_data_and_the_flag_are_refused() {
    let good = ItemKnnOptions::default();
    for bad in [
        ItemKnnOptions { num_neighbors: 0, ..good },
        ItemKnnOptions { shrinkage: -1.0, ..good },
        ItemKnnOptions { bm25_k1: f64::NAN, ..good },
        ItemKnnOptions { bm25_b: 1.5, ..good },
    ] {
        assert!(bad.validate().is_err(), "{bad:?}");
    }
    let go_on = AtomicBool::new(false);
    let nothing = train(&Csr::empty(2, 2), &good, &mut |_| {}, &go_on);
    assert_eq!(nothing, Err(ModelError::Empty));
    let silent = train(&matrix(&[(0, 0, 0.0), (0, 1, -1.0)], 1, 2), &good, &mut |_| {}, &go_on);
    assert_eq!(silent, Err(ModelError::NoEvidence));
    let x = matrix(&[(0, 0, 1.0), (0, 1, 1.0)], 1, 2);
    let stopped = train(&x, &good, &mut |_| {}, &AtomicBool::new(true));
    assert_eq!(stopped, Err(ModelError::Cancelled));
    let mut last = (0, 1);
    train(&x, &good, &mut |now| last = (now.done, now.total), &go_on).unwrap();
    assert_eq!(last.0, last.1);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn neighbours_equal_the_dense_reference(
        cells in prop::collection::vec((0_u32..12, 0_u32..150, -1_i8..6), 1..260),
        weighting in 0_usize..4, num_neighbors in 1_usize..40, shrinkage in 0_u8..3,
    ) {
        let mut cells: Vec<_> = cells.iter().map(|&(u, i, v)| (u, i, f32::from(v))).collect();
        cells.push((11, 149, 300.0));
        let x = matrix(&cells, 12, 150);
        let options = ItemKnnOptions {
            weighting: WEIGHTINGS[weighting],
            num_neighbors,
            shrinkage: f64::from(shrinkage) * 5.0,
            ..ItemKnnOptions::default()
        };
        let knn = learn(&x, &options);
        let expected = reference(&x, &options);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-5 * (1.0 + b.abs());
        for (item, expected) in expected.iter().enumerate() {
            let (codes, values) = knn.row(item);
            prop_assert!(codes.is_sorted_by(|a, b| a < b) && codes.len() <= num_neighbors);
            for (&code, &value) in codes.iter().zip(values) {
                let right = expected[code as usize];
                prop_assert!(close(value.into(), right), "{} {} {} {}", item, code, value, right);
            }
            // Whatever was left out is not better than what was kept.
            let least = values.iter().copied().fold(f32::INFINITY, f32::min);
            for (code, &left_out) in expected.iter().enumerate() {
                if !codes.contains(&(code as u32)) {
                    let worse = codes.len() == num_neighbors && left_out <= f64::from(least) + 1e-5;
                    prop_assert!(worse || left_out.abs() < 1e-5);
                }
            }
        }
        let four = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        prop_assert_eq!(four.install(|| learn(&x, &options)), knn);
    }
}
