//! The optimum and local recoding on the Adult data set, against exhaustive searches that reproduce
//! ARX's own tests, and against a reference of Mondrian.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::super::adult_tests::{Adult, QUASI};
use super::report::{Line, report};
use super::*;

const SENSITIVE: &str = "occupation";

fn coded(name: &str, array: &ArrayRef) -> CodedColumn {
    let mut column = ColumnEncoder::new(name, array.data_type()).unwrap();
    column.add(array).unwrap();
    column.finish()
}

/// ARX's eight quasi-identifiers, with or without their hierarchies, and the occupation.
fn input(adult: &Adult, names: &[&str], with_hierarchies: bool) -> Input {
    let scheme = |name: &str| Scheme::Table(Arc::clone(adult.hierarchies.get(name).unwrap()));
    let quasi = names.iter().map(|name| {
        let array = match (*name, with_hierarchies) {
            ("age", false) => arrow::compute::cast(&adult.columns["age"], &DataType::Int64),
            (name, _) => Ok(Arc::clone(&adult.columns[name])),
        };
        let column = coded(name, &array.unwrap());
        Quasi { column, scheme: with_hierarchies.then(|| scheme(name)) }
    });
    let column = coded(SENSITIVE, &adult.columns[SENSITIVE]);
    let sensitive = vec![Sensitive { column, scheme: Some(scheme(SENSITIVE)) }];
    Input { quasi: quasi.collect(), sensitive, released: None }
}

fn options(method: Method, k: u32) -> Options {
    let criteria = Criteria { k, diversity: None, closeness: None, presence: None };
    Options { method, criteria, suppression_limit: 0.0 }
}

fn levels(outcome: &Outcome) -> Vec<usize> {
    outcome.levels.iter().flatten().map(|(level, _)| *level).collect()
}

fn figures(input: &Input, options: &Options, outcome: &Outcome) -> HashMap<String, Line> {
    let lines = report(input, options, outcome).unwrap();
    lines.into_iter().map(|line| (line.metric.clone(), line)).collect()
}

#[test]
fn k_anonymity_costs_least_as_in_an_exhaustive_search() {
    let adult = Adult::read();
    let input = input(&adult, &QUASI, true);
    let cases = [
        (2, 0.0, 49_216_658, [1, 1, 1, 2, 2, 2, 2, 1], 0),
        (5, 0.0, 55_170_356, [1, 1, 1, 1, 3, 2, 2, 1], 0),
        (5, 0.02, 3_729_686, [0, 0, 1, 1, 2, 2, 2, 1], 473),
        (5, 0.04, 2_689_984, [0, 0, 1, 1, 1, 2, 2, 1], 813),
        (10, 0.1, 2_689_984, [0, 0, 1, 1, 1, 2, 2, 1], 1978),
        (100, 0.0, 162_312_130, [1, 4, 1, 1, 1, 2, 2, 1], 0),
        (100, 0.04, 19_937_246, [1, 0, 1, 2, 3, 2, 2, 1], 618),
        (100, 1.0, 485_542, [0; 8], 29_579),
    ];
    for (k, suppression_limit, cost, node, suppressed) in cases {
        let options = Options { suppression_limit, ..options(Method::Optimal, k) };
        let outcome = anonymize(&input, &options, &Stop::never()).unwrap();
        assert_eq!(outcome.cost(), cost, "{k} {suppression_limit}");
        assert_eq!(levels(&outcome), node, "{k} {suppression_limit}");
        assert_eq!(outcome.suppressed, suppressed, "{k} {suppression_limit}");
        assert!(outcome.sizes.iter().all(|size| *size >= k));
    }
}

#[test]
fn sensitive_values_cost_least_as_in_an_exhaustive_search() {
    let adult = Adult::read();
    let input = input(&adult, &QUASI, true);
    let close = |t, distance| (5, None, Some(Closeness { t, distance }));
    let diverse = |diversity| (1, Some(diversity), None);
    let cases = [
        (close(0.2, Distance::Equal), 456_853_172, [1, 4, 1, 1, 3, 2, 2, 1]),
        (close(0.1, Distance::Equal), 909_746_244, [1, 4, 1, 2, 3, 2, 2, 1]),
        (close(0.2, Distance::Ordered), 55_170_356, [1, 1, 1, 1, 3, 2, 2, 1]),
        (close(0.1, Distance::Ordered), 97_868_020, [1, 1, 1, 2, 3, 2, 2, 1]),
        (close(0.05, Distance::Ordered), 290_180_796, [0, 4, 1, 1, 3, 2, 2, 1]),
        (close(0.2, Distance::Hierarchical), 290_180_796, [0, 4, 1, 1, 3, 2, 2, 1]),
        (diverse(Diversity::Distinct(5)), 55_170_356, [1, 1, 1, 1, 3, 2, 2, 1]),
        (diverse(Diversity::Entropy(5.0)), 55_170_356, [1, 1, 1, 1, 3, 2, 2, 1]),
        (diverse(Diversity::Recursive { c: 4.0, l: 5 }), 55_170_356, [1, 1, 1, 1, 3, 2, 2, 1]),
    ];
    for ((k, diversity, closeness), cost, node) in cases {
        let mut options = options(Method::Optimal, k);
        (options.criteria.diversity, options.criteria.closeness) = (diversity, closeness);
        let outcome = anonymize(&input, &options, &Stop::never()).unwrap();
        assert_eq!(outcome.cost(), cost, "{diversity:?} {closeness:?}");
        assert_eq!(levels(&outcome), node, "{diversity:?} {closeness:?}");
    }
}

#[test]
fn reports_are_arx_s() {
    let adult = Adult::read();
    let eight = input(&adult, &QUASI, true);
    let asked = options(Method::Optimal, 5);
    let outcome = anonymize(&eight, &asked, &Stop::never()).unwrap();
    let found = figures(&eight, &asked, &outcome);
    let value = |name: &str| found[name].value.unwrap();
    assert!((value("non_uniform_entropy") - 324_620.526_991_869_2).abs() < 1e-5);
    assert_eq!((value("k"), value("l of occupation"), value("classes")), (16.0, 7.0, 30.0));
    assert!((value("entropy l of occupation") - 5.655_067_739_099_506).abs() < 1e-9);
    assert!((value("t of occupation") - 0.431_656_554_605_132_25).abs() < 1e-12);
    assert_eq!(value("prosecutor_risk"), 1.0 / 16.0);
    assert_eq!(found["discernibility_star"].before, Some(485_542.0));
    assert_eq!(found["classes"].before, Some(12_458.0));

    // Nothing generalized, small classes suppressed.
    let all = Options { suppression_limit: 1.0, ..asked };
    let outcome = anonymize(&eight, &all, &Stop::never()).unwrap();
    let found = figures(&eight, &all, &outcome);
    assert_eq!(found["discernibility"].value, Some(463_536_157.0));
    assert!((found["average_class_size"].value.unwrap() - 29.113_899_613_899_616).abs() < 1e-12);

    let nine: Vec<&str> = QUASI.into_iter().chain([SENSITIVE]).collect();
    let nine = input(&adult, &nine, true);
    let outcome = anonymize(&nine, &all, &Stop::never()).unwrap();
    let found = figures(&nine, &all, &outcome);
    let average = found["prosecutor_risk_average"].before.unwrap();
    assert!((average - 0.646_575_160_798_355_5).abs() < 1e-15);
    let unique = found["unique_rows"].before.unwrap();
    assert!((unique - 15_512.0 / 30_162.0).abs() < 1e-15);
}

#[test]
fn mondrian_cuts_as_the_reference_does() {
    let adult = Adult::read();
    let input = input(&adult, &QUASI, false);
    let l5 = Some(Diversity::Distinct(5));
    let t2 = Some(Closeness { t: 0.2, distance: Distance::Equal });
    let cases = [
        (2, None, None, 2_431, 3_299_348, 0.350_226_842_497_238_34),
        (5, None, None, 1_362, 3_323_154, 0.367_854_058_025_777_2),
        (100, None, None, 177, 6_011_730, 0.490_448_727_227_272_96),
        (5, l5, None, 928, 3_409_870, 0.389_942_067_780_771_1),
        (5, None, t2, 56, 64_989_506, 0.681_954_296_589_134_3),
    ];
    for (k, diversity, closeness, classes, cost, loss) in cases {
        let mut options = options(Method::Mondrian, k);
        (options.criteria.diversity, options.criteria.closeness) = (diversity, closeness);
        let outcome = anonymize(&input, &options, &Stop::never()).unwrap();
        assert_eq!((outcome.classes(), outcome.cost()), (classes, cost), "{k}");
        let found = figures(&input, &options, &outcome)["information_loss"].value.unwrap();
        assert!((found - loss).abs() < 1e-9, "{k}: {found}");
    }
}

/// What the design promises of one core; of three runs the best, as others use the machine.
#[cfg(not(debug_assertions))]
#[test]
fn the_optimum_is_found_within_half_a_second() {
    use std::time::{Duration, Instant};
    let input = input(&Adult::read(), &QUASI, true);
    let close = Some(Closeness { t: 0.2, distance: Distance::Equal });
    for (k, suppression_limit, diversity, closeness) in [
        (5, 0.0, None, None),
        (5, 0.04, None, None),
        (5, 0.0, None, close),
        (1, 0.0, Some(Diversity::Entropy(5.0)), None),
    ] {
        let criteria = Criteria { k, diversity, closeness, presence: None };
        let options = Options { method: Method::Optimal, criteria, suppression_limit };
        let runs = (0..3).map(|_| {
            let began = Instant::now();
            anonymize(&input, &options, &Stop::never()).unwrap();
            began.elapsed()
        });
        let best = runs.min().unwrap();
        assert!(best < Duration::from_millis(500), "{criteria:?}: {best:?}");
    }
}
