//! Tests of k-means against a naive Lloyd and on groups that are known.

use proptest::prelude::*;

use super::*;
use crate::model::random::mix;

fn draw(seed: u64) -> f64 {
    (mix(mix(seed)) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
}

/// Groups of `per_group` rows around corners that are far apart.
fn groups(groups: usize, per_group: usize, features: usize, noise: f64) -> Vec<f64> {
    (0..groups * per_group * features)
        .map(|at| {
            let (row, feature) = (at / features, at % features);
            let corner = (mix((row % groups * 31 + feature) as u64) % 17) as f64;
            10.0 * corner + noise * draw(at as u64)
        })
        .collect()
}

fn learn(rows: &[f64], features: usize, options: &KMeansOptions) -> KMeansModel {
    train(rows, features, options, &mut |_| {}, &AtomicBool::new(false)).unwrap()
}

const EXACT: KMeansOptions = KMeansOptions {
    num_clusters: 5,
    init: Init::Parallel,
    distance: Distance::Euclidean,
    standardize_features: false,
    max_iterations: 200,
    min_rel_progress: 0.0,
    seed: 1,
    oversampling: 2.0,
    init_rounds: 3,
};

/// Inertia and labels of rows against centroids, by three loops.
fn naive(rows: &[f64], centroids: &[f64], features: usize) -> (f64, Vec<usize>) {
    let mut inertia = 0.0;
    let labels = rows.chunks(features).map(|row| {
        let square = |c: &[f64]| row.iter().zip(c).map(|(x, c)| (x - c).powi(2)).sum::<f64>();
        let all = centroids.chunks(features).map(square).enumerate();
        let (label, least) = all.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        inertia += least;
        label
    });
    let labels = labels.collect();
    (inertia, labels)
}

/// Lloyd's iterations from given centroids until nothing changes.
fn naive_lloyd(rows: &[f64], mut centroids: Vec<f64>, features: usize) -> f64 {
    let mut last = f64::INFINITY;
    loop {
        let (inertia, labels) = naive(rows, &centroids, features);
        if inertia >= last {
            return last;
        }
        last = inertia;
        let k = centroids.len() / features;
        let mut sums = vec![0.0; centroids.len()];
        let mut counts = vec![0.0_f64; k];
        for (row, &label) in rows.chunks(features).zip(&labels) {
            counts[label] += 1.0;
            row.iter().enumerate().for_each(|(f, x)| sums[label * features + f] += x);
        }
        for (at, c) in centroids.iter_mut().enumerate() {
            if counts[at / features] > 0.0 {
                *c = sums[at] / counts[at / features];
            }
        }
    }
}

#[test]
fn known_groups_are_found_from_every_careful_start() {
    let rows = groups(5, 200, 3, 1.0);
    for init in [Init::Parallel, Init::PlusPlus] {
        let model = learn(&rows, 3, &KMeansOptions { init, ..EXACT });
        assert_eq!(model.counts, [200; 5], "{init:?}");
        let (labels, distances) = model.assign(&rows).unwrap();
        assert!((0..1000).all(|row| labels[row] == labels[row % 5]));
        assert!(distances.iter().all(|&distance| distance < 1.0));
        assert!(model.davies_bouldin < 0.2, "{}", model.davies_bouldin);
    }
}

#[test]
fn the_inertia_is_a_local_optimum_and_equals_the_naive_sum() {
    let rows: Vec<f64> = (0..600 * 4).map(|at| 3.0 * draw(at)).collect();
    for init in [Init::Parallel, Init::PlusPlus, Init::Random] {
        let model = learn(&rows, 4, &KMeansOptions { init, ..EXACT });
        let (inertia, labels) = naive(&rows, &model.centroids, 4);
        let last = *model.losses.last().unwrap();
        assert!((last - inertia).abs() < 1e-5 * inertia, "{last} {inertia}");
        assert!(model.losses.is_sorted_by(|a, b| a >= b), "{:?}", model.losses);
        let settled = naive_lloyd(&rows, model.centroids.clone(), 4);
        assert!((settled - inertia).abs() < 1e-5 * inertia, "{settled} {inertia}");
        let found = model.assign(&rows).unwrap().0;
        let differing = (0..600).filter(|&row| labels[row] != found[row] as usize).count();
        assert!(differing <= 1, "{differing}");
    }
}

#[test]
fn threads_and_batches_do_not_change_the_result() {
    let rows: Vec<f64> = (0..9000 * 3).map(draw).collect();
    let four = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for init in [Init::Parallel, Init::PlusPlus] {
        let options = KMeansOptions { init, max_iterations: 6, num_clusters: 9, ..EXACT };
        let model = alone.install(|| learn(&rows, 3, &options));
        assert_eq!(four.install(|| learn(&rows, 3, &options)), model);
        let whole = model.assign(&rows).unwrap();
        let mut parts = (vec![], vec![]);
        for batch in rows.chunks(3 * 701) {
            let (labels, distances) = model.assign(batch).unwrap();
            parts.0.extend(labels);
            parts.1.extend(distances);
        }
        assert_eq!(parts, whole);
    }
}

#[test]
fn a_flag_set_meanwhile_ends_training() {
    let rows: Vec<f64> = (0..9000 * 3).map(draw).collect();
    for init in [Init::Parallel, Init::PlusPlus, Init::Random] {
        let options = KMeansOptions { init, max_iterations: 6, num_clusters: 9, ..EXACT };
        let stop = AtomicBool::new(false);
        let mut seen = 0;
        let mut set = |now: Progress| {
            seen = now.done;
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        };
        let stopped = train(&rows, 3, &options, &mut set, &stop);
        assert_eq!((stopped, seen), (Err(ModelError::Cancelled), 1), "{init:?}");
    }
}

#[test]
fn standardized_features_do_not_depend_on_their_units() {
    let rows = groups(4, 50, 2, 1.0);
    let other: Vec<f64> =
        rows.chunks(2).flat_map(|row| [row[0] * 1e6 + 5.0, row[1] * 1e-6 - 3.0]).collect();
    let options = KMeansOptions { standardize_features: true, num_clusters: 4, ..EXACT };
    let (a, b) = (learn(&rows, 2, &options), learn(&other, 2, &options));
    assert_eq!(a.counts, b.counts);
    for (a, b) in a.centroids.chunks(2).zip(b.centroids.chunks(2)) {
        assert!((a[0] * 1e6 + 5.0 - b[0]).abs() < 1.0 && (a[1] * 1e-6 - 3.0 - b[1]).abs() < 1e-6);
    }
    assert!((a.losses[0] - b.losses[0]).abs() < 1e-3 * (1.0 + a.losses[0]));
}

#[test]
fn the_cosine_groups_by_direction() {
    let rows: Vec<f64> = (0..90)
        .flat_map(|row| {
            let angle = f64::from(row % 3) * 2.0 + 0.05 * draw(row as u64);
            let length = 1.0 + f64::from(row);
            [length * angle.cos(), length * angle.sin()]
        })
        .chain([0.0, 0.0])
        .collect();
    let options = KMeansOptions { distance: Distance::Cosine, num_clusters: 3, ..EXACT };
    let model = learn(&rows, 2, &options);
    let (labels, distances) = model.assign(&rows).unwrap();
    assert!((0..90).all(|row| labels[row] == labels[row % 3]), "{labels:?}");
    assert!(distances[..90].iter().all(|&distance| distance < 1e-3));
    assert_eq!(distances[90], 1.0);
    let sum: f64 = distances.iter().sum();
    assert!((model.losses.last().unwrap() - sum).abs() < 1e-4, "{} {sum}", model.losses[0]);
}

#[test]
fn empty_clusters_restart_and_too_few_distinct_rows_leave_some_empty() {
    // Random points of a huge group and a far single one: a cluster is easily lost.
    let mut rows: Vec<f64> = vec![0.0; 50];
    rows.extend([100.0, 101.0, 200.0]);
    for seed in 0..20 {
        let options = KMeansOptions { init: Init::Random, num_clusters: 4, seed, ..EXACT };
        let model = learn(&rows, 1, &options);
        assert!(model.counts.iter().all(|&count| count > 0), "{:?}", model.counts);
        assert_eq!(*model.losses.last().unwrap(), 0.0);
    }
    let model = learn(&[1.0, 1.0, 1.0, 2.0], 1, &KMeansOptions { num_clusters: 3, ..EXACT });
    assert_eq!(model.counts.iter().sum::<u64>(), 4);
    assert_eq!(*model.losses.last().unwrap(), 0.0);
    assert!(learn(&[1.0, 3.0], 1, &KMeansOptions { num_clusters: 1, ..EXACT }).centroids == [2.0]);
}

#[test]
fn what_cannot_be_clustered_is_refused() {
    let fails = |rows: &[f64], features, options: KMeansOptions| {
        train(rows, features, &options, &mut |_| {}, &AtomicBool::new(false)).unwrap_err()
    };
    assert_eq!(fails(&[], 2, EXACT), ModelError::Empty);
    assert_eq!(fails(&[1.0; 4], 2, EXACT).code(), "model_option");
    assert_eq!(fails(&[1.0; 4], 3, EXACT).code(), "model_inconsistent");
    let nan = fails(&[1.0, f64::NAN], 2, KMeansOptions { num_clusters: 1, ..EXACT });
    assert!(nan.to_string().contains("feature 1"), "{nan}");
    for bad in [
        KMeansOptions { num_clusters: 0, ..EXACT },
        KMeansOptions { max_iterations: 0, ..EXACT },
        KMeansOptions { min_rel_progress: f64::NAN, ..EXACT },
        KMeansOptions { oversampling: 0.0, ..EXACT },
        KMeansOptions { init_rounds: 0, ..EXACT },
    ] {
        assert!(bad.validate().is_err(), "{bad:?}");
    }
    let stopped = train(&[1.0; 50], 1, &EXACT, &mut |_| {}, &AtomicBool::new(true));
    assert_eq!(stopped, Err(ModelError::Cancelled));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn any_data_settles_where_the_naive_iterations_do(
        count in 1_usize..120, features in 1_usize..7, k in 1_usize..9, seed in 0_u64..1000,
        offset in -1e4_f64..1e4,
    ) {
        let rows: Vec<f64> =
            (0..count * features).map(|at| offset + draw(mix(seed) ^ at as u64)).collect();
        let options = KMeansOptions { num_clusters: k.min(count), seed, ..EXACT };
        let model = learn(&rows, features, &options);
        let inertia = naive(&rows, &model.centroids, features).0;
        let settled = naive_lloyd(&rows, model.centroids.clone(), features);
        prop_assert!((settled - inertia).abs() <= 1e-4 * inertia + 1e-9, "{settled} {inertia}");
        let last = *model.losses.last().unwrap();
        prop_assert!((last - inertia).abs() <= 1e-4 * inertia + 1e-9, "{last} {inertia}");
        prop_assert_eq!(model.counts.iter().sum::<u64>(), count as u64);
    }
}
