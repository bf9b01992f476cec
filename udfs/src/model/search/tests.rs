//! Searches on known functions and on spaces that leave nothing to choose.

use super::*;

fn float(low: f64, high: f64) -> Dimension {
    Dimension::Float { low, high, log: false }
}

fn space(dimensions: Vec<(&str, Dimension)>) -> Space {
    Space::new(dimensions.into_iter().map(|(name, d)| (name.to_owned(), d)).collect()).unwrap()
}

fn numbers(trial: &Trial) -> Vec<f64> {
    let number = |(_, value): &(String, Value)| match value {
        Value::Float(value) => *value,
        Value::Int(value) => *value as f64,
        Value::Text(text) => text.len() as f64,
    };
    trial.values.iter().map(number).collect()
}

/// Branin's function; its minimum is .397887.
fn branin(x: f64, y: f64) -> f64 {
    use std::f64::consts::PI;
    let a = y - 5.1 / (4.0 * PI * PI) * x * x + 5.0 / PI * x - 6.0;
    a * a + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x.cos() + 10.0
}

fn best_of_branin(algorithm: Algorithm, seed: u64) -> f64 {
    let space = space(vec![("x", float(-5.0, 10.0)), ("y", float(0.0, 15.0))]);
    let mut search = Search::new(space, algorithm, 25, seed).unwrap();
    while let Some(trial) = search.next() {
        let at = numbers(&trial);
        search.tell(trial.id, -branin(at[0], at[1]));
    }
    assert_eq!(search.trials().count(), 25);
    -search.best().unwrap().1
}

#[test]
fn the_optimum_of_branin_is_found_and_sooner_than_at_random() {
    let mean = |algorithm| (0..6).map(|seed| best_of_branin(algorithm, seed)).sum::<f64>() / 6.0;
    let (bayesian, random) = (mean(Algorithm::Bayesian), mean(Algorithm::Random));
    assert!(bayesian < 0.55 && bayesian < random - 0.2, "{bayesian} {random}");
}

#[test]
fn the_same_calls_give_the_same_trials() {
    for algorithm in [Algorithm::Random, Algorithm::Bayesian] {
        let run = |seed| {
            let space = space(vec![
                ("reg", Dimension::Float { low: 1e-4, high: 1.0, log: true }),
                ("k", Dimension::Int { low: 8, high: 256, log: true }),
                (
                    "solver",
                    Dimension::Candidates(vec![
                        Value::Text("cg".into()),
                        Value::Text("cholesky".into()),
                    ]),
                ),
            ]);
            let mut search = Search::new(space, algorithm, 12, seed).unwrap();
            let mut all = vec![];
            // Two under way at a time, told in another order.
            while let Some(one) = search.next() {
                let other = search.next();
                for trial in other.iter().chain([&one]) {
                    search.tell(trial.id, numbers(trial).iter().sum());
                }
                all.extend([Some(one), other]);
            }
            all
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }
}

#[test]
fn values_stay_in_their_ranges_and_no_setting_comes_twice() {
    for algorithm in [Algorithm::Random, Algorithm::Grid, Algorithm::Bayesian] {
        let space = space(vec![
            ("reg", Dimension::Float { low: 1e-3, high: 10.0, log: true }),
            ("k", Dimension::Int { low: 3, high: 5, log: false }),
            ("alpha", Dimension::Candidates(vec![Value::Int(40), Value::Float(0.5)])),
        ]);
        let mut search = Search::new(space, algorithm, 30, 1).unwrap();
        let mut seen: Vec<Trial> = vec![];
        while let Some(trial) = search.next() {
            let at = numbers(&trial);
            assert!((1e-3..=10.0).contains(&at[0]) && (3.0..=5.0).contains(&at[1]));
            assert!(at[2] == 40.0 || at[2] == 0.5);
            assert!(seen.iter().all(|other| other.values != trial.values), "{trial:?}");
            search.tell(trial.id, -at[0]);
            seen.push(trial);
        }
        assert!(seen.len() >= 24, "{algorithm:?} {}", seen.len());
        let whole: std::collections::BTreeSet<i64> =
            seen.iter().map(|trial| numbers(trial)[1] as i64).collect();
        assert_eq!(whole.len(), 3, "{algorithm:?}");
    }
}

#[test]
fn a_finite_space_is_searched_once() {
    let small = || {
        space(vec![
            ("k", Dimension::Int { low: 1, high: 4, log: true }),
            ("s", Dimension::Candidates(vec![Value::Text("a".into()), Value::Text("b".into())])),
            ("fixed", float(2.0, 2.0)),
        ])
    };
    for algorithm in [Algorithm::Random, Algorithm::Grid, Algorithm::Bayesian] {
        let mut search = Search::new(small(), algorithm, 100, 5).unwrap();
        let mut seen: Vec<Vec<(String, Value)>> = vec![];
        while let Some(trial) = search.next() {
            assert!(!seen.contains(&trial.values));
            search.tell(trial.id, numbers(&trial)[0]);
            seen.push(trial.values);
        }
        assert_eq!(seen.len(), 8, "{algorithm:?}");
    }
    let one = space(vec![("only", Dimension::Candidates(vec![Value::Int(7)]))]);
    let mut search = Search::new(one, Algorithm::Bayesian, 5, 0).unwrap();
    assert_eq!(search.next().unwrap().values[0].1, Value::Int(7));
    assert_eq!(search.next(), None);
}

#[test]
fn a_grid_covers_its_ends_and_keeps_to_its_limit() {
    let square = space(vec![("x", float(0.0, 1.0)), ("y", float(-1.0, 1.0))]);
    let mut search = Search::new(square, Algorithm::Grid, 10, 0).unwrap();
    let all: Vec<Vec<f64>> =
        std::iter::from_fn(|| search.next()).map(|trial| numbers(&trial)).collect();
    assert_eq!(all.len(), 9);
    for corner in [[0.0, -1.0], [1.0, -1.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.0]] {
        assert!(all.contains(&corner.to_vec()), "{corner:?} {all:?}");
    }
    let many: Vec<Value> = (0..50).map(Value::Int).collect();
    let large = space(vec![("x", Dimension::Candidates(many)), ("y", float(0.0, 1.0))]);
    let mut search = Search::new(large, Algorithm::Grid, 7, 0).unwrap();
    assert_eq!(std::iter::from_fn(|| search.next()).count(), 7);
}

#[test]
fn values_that_say_nothing_do_not_stop_a_search() {
    let values: [fn(usize) -> f64; 4] = [
        |_| f64::NAN,
        |_| 1.5,
        |n| if n % 2 == 0 { f64::NAN } else { n as f64 },
        |_| f64::INFINITY,
    ];
    for value in values {
        let square = space(vec![("x", float(0.0, 1.0)), ("y", float(0.0, 1.0))]);
        let mut search = Search::new(square, Algorithm::Bayesian, 15, 2).unwrap();
        let mut points = vec![];
        while let Some(trial) = search.next() {
            search.tell(trial.id, value(trial.id));
            points.push(numbers(&trial));
        }
        assert_eq!(points.len(), 15);
        let far = points
            .iter()
            .enumerate()
            .all(|(at, a)| points[..at].iter().all(|b| (a[0] - b[0]).hypot(a[1] - b[1]) > 1e-6));
        assert!(far, "{points:?}");
    }
    let one = space(vec![("x", float(0.0, 1.0))]);
    let mut search = Search::new(one, Algorithm::Bayesian, 4, 0).unwrap();
    assert!(search.best().is_none());
    search.tell(99, 1.0);
    let first = search.next().unwrap();
    search.tell(first.id, f64::NAN);
    assert!(search.best().is_none());
    search.tell(first.id, 2.0);
    assert_eq!(search.best().unwrap().1, 2.0);
}

#[test]
fn spaces_without_sense_are_refused_by_name() {
    let bad = [
        float(1.0, 0.0),
        float(0.0, f64::INFINITY),
        float(f64::NAN, 1.0),
        Dimension::Float { low: 0.0, high: 1.0, log: true },
        Dimension::Int { low: 0, high: 4, log: true },
        Dimension::Int { low: i64::MIN, high: i64::MAX, log: false },
        Dimension::Candidates(vec![]),
        Dimension::Candidates(vec![Value::Int(1), Value::Int(1)]),
        Dimension::Candidates(vec![Value::Float(f64::NAN)]),
    ];
    for dimension in bad {
        let error = Space::new(vec![("l2_reg".into(), dimension.clone())]).unwrap_err();
        assert!(error.to_string().contains("l2_reg"), "{dimension:?}");
    }
    assert!(Space::new(vec![]).is_err());
    let twice = vec![("x".to_owned(), float(0.0, 1.0)), ("x".to_owned(), float(0.0, 1.0))];
    assert!(Space::new(twice).is_err());
    let unit = space(vec![("x", float(0.0, 1.0))]);
    assert!(Search::new(unit, Algorithm::Random, 0, 0).is_err());
}
