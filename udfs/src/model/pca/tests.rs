//! Tests of principal components against Jacobi's method and on data that is known.

use proptest::prelude::*;

use super::*;
use crate::model::random::mix;

fn draw(seed: u64) -> f64 {
    (mix(mix(seed)) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
}

/// Rows whose features are mixtures of `hidden` draws of falling size, and a little noise.
fn rows(count: usize, features: usize, hidden: usize) -> Vec<f64> {
    let mut rows = vec![0.0; count * features];
    for (row, line) in rows.chunks_mut(features).enumerate() {
        for h in 0..hidden {
            let size = 10.0 / (1 + h) as f64 * draw((row * 1000 + h) as u64);
            for (f, x) in line.iter_mut().enumerate() {
                *x += size * draw((7_000_000 + h * 10_000 + f) as u64);
            }
        }
        for (f, x) in line.iter_mut().enumerate() {
            *x += 5.0 + 0.01 * draw((9_000_000 + row * features + f) as u64);
        }
    }
    rows
}

fn learn(rows: &[f64], features: usize, options: &PcaOptions) -> PcaModel {
    train(rows, features, options, &mut |_| {}, &AtomicBool::new(false)).unwrap()
}

/// Eigenvalues and vectors of the covariance or correlation matrix by cyclic Jacobi rotations.
fn jacobi(rows: &[f64], n: usize, scale_features: bool) -> Vec<(f64, Vec<f64>)> {
    let count = (rows.len() / n) as f64;
    let mean: Vec<f64> =
        (0..n).map(|f| rows.iter().skip(f).step_by(n).sum::<f64>() / count).collect();
    let cov = |i: usize, j: usize| {
        let products = rows.chunks(n).map(|x| (x[i] - mean[i]) * (x[j] - mean[j]));
        products.sum::<f64>() / (count - 1.0)
    };
    let mut a: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| cov(i, j)).collect()).collect();
    if scale_features {
        let deviation: Vec<f64> = (0..n).map(|i| a[i][i].sqrt()).collect();
        for i in 0..n {
            for j in 0..n {
                a[i][j] /= deviation[i] * deviation[j];
            }
        }
    }
    let mut v: Vec<Vec<f64>> =
        (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for _ in 0..60 {
        for p in 0..n {
            for q in p + 1..n {
                let angle = 0.5 * (2.0 * a[p][q]).atan2(a[q][q] - a[p][p]);
                let (s, c) = angle.sin_cos();
                for row in &mut a {
                    let (x, y) = (row[p], row[q]);
                    (row[p], row[q]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..n {
                    let (x, y) = (a[p][k], a[q][k]);
                    (a[p][k], a[q][k]) = (c * x - s * y, s * x + c * y);
                    let (x, y) = (v[p][k], v[q][k]);
                    (v[p][k], v[q][k]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
    }
    let mut found: Vec<(f64, Vec<f64>)> = (0..n).map(|i| (a[i][i], v[i].clone())).collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found
}

#[test]
fn components_equal_jacobis() {
    let (count, features) = (400, 8);
    let data = rows(count, features, 6);
    for scale_features in [false, true] {
        let options = PcaOptions {
            components: Components::Count(5),
            scale_features,
            ..PcaOptions::default()
        };
        let model = learn(&data, features, &options);
        let expected = jacobi(&data, features, scale_features);
        let whole: f64 = expected.iter().map(|(value, _)| value).sum();
        for (at, (value, vector)) in expected.iter().take(5).enumerate() {
            assert!((model.explained_variance[at] - value).abs() < 1e-9 * expected[0].0);
            assert!((model.explained_variance_ratio[at] - value / whole).abs() < 1e-9);
            let found = &model.components[at * features..(at + 1) * features];
            let product: f64 = found.iter().zip(vector).map(|(a, b)| a * b).sum();
            assert!((product.abs() - 1.0).abs() < 1e-8, "{at} {product}");
            let largest = found.iter().fold(0.0_f64, |m, &x| if x.abs() > m.abs() { x } else { m });
            assert!(largest > 0.0);
        }
    }
}

#[test]
fn a_share_of_variance_keeps_the_fewest_components() {
    let data = rows(300, 10, 5);
    let with = |ratio| {
        let components = Components::VarianceRatio(ratio);
        learn(&data, 10, &PcaOptions { components, ..PcaOptions::default() })
    };
    let model = with(0.9);
    let sum = |count: usize| model.explained_variance_ratio[..count].iter().sum::<f64>();
    let count = model.num_components();
    assert!(sum(count) >= 0.9 && sum(count - 1) < 0.9, "{model:?}");
    assert_eq!(with(1.0).num_components(), 10);
    assert_eq!(with(1e-9).num_components(), 1);
}

#[test]
fn transformed_rows_have_the_explained_variances_and_no_correlation() {
    let data = rows(500, 6, 6);
    for scale_features in [false, true] {
        let components = Components::Count(4);
        let model =
            learn(&data, 6, &PcaOptions { components, scale_features, ..PcaOptions::default() });
        let out = model.transform(&data).unwrap();
        let mut moments = Moments::new(4);
        moments.add(&out, &AtomicBool::new(false)).unwrap();
        for i in 0..4 {
            assert!(moments.mean()[i].abs() < 1e-10);
            for j in 0..4 {
                let expected = if i == j { model.explained_variance[i] } else { 0.0 };
                let found = moments.scatter(i, j) / 499.0;
                assert!((found - expected).abs() < 1e-9 * model.explained_variance[0]);
            }
        }
        assert_eq!(model.transform(&data[6..12]).unwrap(), out[4..8]);
        assert!(model.transform(&data[..5]).is_err());
    }
}

#[test]
fn many_features_find_the_same_leading_components() {
    let features = ALL_FEATURES + 50;
    let data = rows(80, features, 8);
    let components = Components::Count(4);
    let options = PcaOptions { components, scale_features: false, seed: 5 };
    let model = learn(&data, features, &options);
    // Eigenvectors have no residual: C·v = λ·v, with C·v from the rows.
    for (vector, &value) in model.components.chunks(features).zip(&model.explained_variance) {
        let along = |row: &[f64]| -> f64 {
            row.iter().zip(&model.mean).zip(vector).map(|((x, m), v)| (x - m) * v).sum()
        };
        let mut product = vec![0.0; features];
        for row in data.chunks(features) {
            let share = along(row) / 79.0;
            for ((p, x), m) in product.iter_mut().zip(row).zip(&model.mean) {
                *p += share * (x - m);
            }
        }
        let residual: f64 =
            product.iter().zip(vector).map(|(p, v)| (p - value * v).powi(2)).sum::<f64>().sqrt();
        assert!(residual < 1e-5 * model.explained_variance[0], "{residual} {value}");
    }
    let ratio = Components::VarianceRatio(0.9);
    let by_ratio = learn(&data, features, &PcaOptions { components: ratio, ..options });
    let count = by_ratio.num_components().min(4);
    for at in 0..count {
        let (a, b) = (by_ratio.explained_variance[at], model.explained_variance[at]);
        assert!((a - b).abs() < 1e-9 * b, "{a} {b}");
    }
}

#[test]
fn threads_and_batches_do_not_change_the_components() {
    let data = rows(3000, 9, 9);
    let go_on = AtomicBool::new(false);
    let options = PcaOptions { components: Components::Count(3), ..PcaOptions::default() };
    let build = |threads, batch: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut moments = Moments::new(9);
            data.chunks(9 * batch).for_each(|rows| moments.add(rows, &go_on).unwrap());
            fit(&moments, &options, &mut |_| {}, &go_on).unwrap()
        })
    };
    let model = build(1, 3000);
    assert_eq!(build(4, 3000), model);
    for (a, b) in build(3, 17).components.iter().zip(&model.components) {
        assert!((a - b).abs() < 1e-9);
    }
}

#[test]
fn constant_features_single_rows_and_bad_options_are_handled() {
    let data: Vec<f64> = (0..50).flat_map(|row| [0.1, draw(row), 1e9]).collect();
    let model = learn(&data, 3, &PcaOptions::default());
    assert_eq!((model.num_components(), model.components.as_slice()), (1, &[0.0, 1.0, 0.0][..]));
    let one = learn(&[1.0, 2.0], 2, &PcaOptions::default());
    assert!(one.explained_variance_ratio.iter().all(|&ratio| ratio == 0.0));
    let fails = |rows: &[f64], components| {
        let options = PcaOptions { components, ..PcaOptions::default() };
        train(rows, 2, &options, &mut |_| {}, &AtomicBool::new(false)).unwrap_err().code()
    };
    assert_eq!(fails(&[], Components::Count(1)), "model_empty");
    assert_eq!(fails(&[1.0; 4], Components::Count(3)), "model_option");
    assert_eq!(fails(&[1.0; 4], Components::Count(0)), "model_option");
    assert_eq!(fails(&[1.0; 4], Components::VarianceRatio(1.1)), "model_option");
    assert_eq!(fails(&[1.0; 3], Components::Count(1)), "model_inconsistent");
    assert_eq!(fails(&[1e200, 1.0, -1e200, 1.0], Components::Count(1)), "model_not_finite");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn all_components_explain_everything_and_are_orthonormal(
        count in 2_usize..40, features in 1_usize..9, seed in 0_u64..999, scale_features: bool,
    ) {
        let data: Vec<f64> = (0..count * features).map(|at| draw(mix(seed) ^ at as u64)).collect();
        let components = Components::Count(features);
        let model =
            learn(&data, features, &PcaOptions { components, scale_features, seed });
        let sum: f64 = model.explained_variance_ratio.iter().sum();
        prop_assert!((sum - 1.0).abs() < 1e-9);
        prop_assert!(model.explained_variance.is_sorted_by(|a, b| a >= b));
        for (i, a) in model.components.chunks(features).enumerate() {
            for (j, b) in model.components.chunks(features).enumerate() {
                let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                prop_assert!((product - f64::from(u8::from(i == j))).abs() < 1e-9);
            }
        }
    }
}
