//! What holds of every result, on small tables: against searches by force, and whatever the order
//! of the rows.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::column::tests::{integers, texts};
use super::*;

/// Rows of a postcode, an age and a diagnosis.
type Rows = Vec<(i64, i64, i64)>;

fn input(rows: &Rows) -> Input {
    let zips: Vec<String> = rows.iter().map(|row| format!("{:02}", row.0)).collect();
    let zips: Vec<&str> = zips.iter().map(String::as_str).collect();
    let ages: Vec<i64> = rows.iter().map(|row| row.1).collect();
    let sick: Vec<String> = rows.iter().map(|row| row.2.to_string()).collect();
    let sick: Vec<&str> = sick.iter().map(String::as_str).collect();
    let scheme = |text: &str| Scheme::built_in(text).unwrap();
    Input {
        quasi: vec![
            Quasi { column: texts("zip", &zips), scheme: scheme("prefix:1") },
            Quasi { column: integers("age", &ages), scheme: scheme("interval:2,4") },
        ],
        sensitive: vec![Sensitive { column: texts("sick", &sick), scheme: None }],
        released: None,
    }
}

fn options(method: Method, k: u32, l: u32, t: f64, suppression_limit: f64) -> Options {
    let diversity = (l > 0).then_some(Diversity::Distinct(l));
    let closeness = (t < 1.0).then_some(Closeness { t, distance: Distance::Equal });
    let criteria = Criteria { k, diversity, closeness, presence: None };
    Options { method, criteria, suppression_limit }
}

fn labels(shown: &Shown, class: u32) -> String {
    match shown {
        Shown::Labels(labels) => format!("{:?}", labels[class as usize]),
        Shown::Numbers(numbers) => format!("{:?}", numbers[class as usize]),
    }
}

/// The rows of the result, in an order of their own.
fn shown(rows: &Rows, outcome: &Outcome) -> Vec<(Vec<String>, i64)> {
    let mut shown: Vec<_> = rows
        .iter()
        .zip(&outcome.class_of)
        .filter(|(_, class)| **class != NO_CLASS)
        .map(|(row, class)| {
            (outcome.shown.iter().map(|column| labels(column, *class)).collect(), row.2)
        })
        .collect();
    shown.sort();
    shown
}

/// How many rows are of classes that fail.
fn failing(classes: &BTreeMap<Vec<String>, Vec<i64>>, all: &Rows, options: &Options) -> usize {
    let share = |values: &[i64], value: i64| {
        values.iter().filter(|known| **known == value).count() as f64 / values.len() as f64
    };
    let whole: Vec<i64> = all.iter().map(|row| row.2).collect();
    let kinds: BTreeSet<i64> = whole.iter().copied().collect();
    let fails = |class: &Vec<i64>| {
        let distinct = class.iter().collect::<BTreeSet<_>>().len();
        let l = match options.criteria.diversity {
            Some(Diversity::Distinct(l)) => l as usize,
            _ => 0,
        };
        let gaps = kinds.iter().map(|kind| (share(class, *kind) - share(&whole, *kind)).abs());
        let distance = gaps.sum::<f64>() / 2.0;
        let t = options.criteria.closeness.map_or(1.0, |closeness| closeness.t);
        class.len() < options.criteria.k as usize || distinct < l || distance > t + 1e-9
    };
    classes.values().filter(|class| fails(class)).map(Vec::len).sum()
}

/// DM* of the best of all nodes.
fn by_force(rows: &Rows, options: &Options) -> Option<u64> {
    let at = |row: &(i64, i64, i64), zip: usize, age: usize| {
        let digits = format!("{:02}", row.0);
        let zip = [digits.clone(), digits[..1].to_owned(), String::new()][zip].clone();
        let age = [row.1, row.1.div_euclid(2), row.1.div_euclid(4), 0][age].to_string();
        vec![zip, age]
    };
    let rows_max = (options.suppression_limit * rows.len() as f64).floor() as usize;
    let mut best = None;
    for (zip, age) in (0..3).flat_map(|zip| (0..4).map(move |age| (zip, age))) {
        let mut classes: BTreeMap<Vec<String>, Vec<i64>> = BTreeMap::new();
        for row in rows {
            classes.entry(at(row, zip, age)).or_default().push(row.2);
        }
        if failing(&classes, rows, options) <= rows_max {
            let cost = classes.values().map(|class| (class.len() as u64).pow(2)).sum::<u64>();
            best = Some(best.map_or(cost, |best: u64| best.min(cost)));
        }
    }
    best
}

fn rows() -> impl Strategy<Value = Rows> {
    prop::collection::vec((0_i64..40, 0_i64..12, 0_i64..4), 1..40)
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![Just(Method::Optimal), Just(Method::Mondrian), Just(Method::Microaggregation)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_optimum_is_that_of_all_nodes(
        rows in rows(),
        k in 1_u32..6,
        l in 0_u32..4,
        t in prop_oneof![Just(1.0), 0.1..0.9_f64],
        limit in prop_oneof![Just(0.0), 0.0..0.6_f64],
    ) {
        let options = options(Method::Optimal, k, l, t, limit);
        let found = anonymize(&input(&rows), &options, &Stop::never());
        prop_assert_eq!(found.ok().map(|outcome| outcome.cost()), by_force(&rows, &options));
    }

    #[test]
    fn every_class_is_what_was_asked_for(
        rows in rows(),
        method in method(),
        k in 1_u32..6,
        l in 0_u32..4,
        limit in 0.0..0.6_f64,
    ) {
        let limit = if method == Method::Optimal { limit } else { 0.0 };
        let options = options(method, k, l, 1.0, limit);
        if let Ok(outcome) = anonymize(&input(&rows), &options, &Stop::never()) {
            let mut classes: BTreeMap<Vec<String>, Vec<i64>> = BTreeMap::new();
            let kept = shown(&rows, &outcome);
            prop_assert_eq!(kept.len() + outcome.suppressed, rows.len());
            prop_assert!(outcome.suppressed as f64 <= limit * rows.len() as f64);
            for (labels, value) in kept {
                classes.entry(labels).or_default().push(value);
            }
            prop_assert_eq!(failing(&classes, &rows, &options), 0);
            let lines = report::report(&input(&rows), &options, &outcome).unwrap();
            prop_assert!(lines.iter().all(|line| line.value.is_none_or(f64::is_finite)));
        }
    }

    #[test]
    fn the_order_of_rows_does_not_matter(
        rows in rows(),
        method in method(),
        turn in 0_usize..40,
        k in 1_u32..5,
    ) {
        let options = options(method, k, 0, 1.0, 0.0);
        let mut turned = rows.clone();
        turned.rotate_left(turn % rows.len());
        let one = anonymize(&input(&rows), &options, &Stop::never());
        let other = anonymize(&input(&turned), &options, &Stop::never());
        match (one, other) {
            (Ok(one), Ok(other)) => {
                prop_assert_eq!(shown(&rows, &one), shown(&turned, &other));
            }
            (one, other) => prop_assert!(one.is_err() && other.is_err()),
        }
    }
}

#[test]
fn a_subset_hides_who_of_the_population_is_in_it() {
    // Of each age two of four are released, of age 9 both.
    let mut population: Rows = (0..16).map(|n| (11, n % 4 * 2, n % 3)).collect();
    population.extend([(11, 9, 0), (11, 9, 1)]);
    let mut table = input(&population);
    let is_released = |(at, row): (usize, &(i64, i64, i64))| at < 8 || row.1 == 9;
    table.released = Some(population.iter().enumerate().map(is_released).collect());
    let asked = |presence| Options {
        criteria: Criteria { k: 2, diversity: None, closeness: None, presence },
        ..options(Method::Optimal, 2, 0, 1.0, 0.0)
    };
    let free = anonymize(&table, &asked(None), &Stop::never()).unwrap();
    assert_eq!((free.classes(), free.suppressed), (5, 0));
    let hidden = anonymize(&table, &asked(Some((0.0, 0.6))), &Stop::never()).unwrap();
    assert_eq!(hidden.classes(), 1);
    let lines = report::report(&table, &asked(Some((0.0, 0.6))), &hidden).unwrap();
    let value = |name: &str| lines.iter().find(|line| line.metric == name).unwrap().value;
    assert_eq!(value("rows"), Some(10.0));
    assert_eq!(value("journalist_risk"), Some(1.0 / 18.0));
    assert_eq!(value("delta_max"), Some(10.0 / 18.0));
    let cut = Options { method: Method::Mondrian, ..asked(Some((0.0, 0.6))) };
    assert!(anonymize(&table, &cut, &Stop::never()).is_ok());
}

#[test]
fn what_cannot_be_is_an_error_that_says_why() {
    let rows: Rows = vec![(1, 1, 0), (2, 2, 0), (3, 3, 1)];
    let table = input(&rows);
    let error =
        |options: Options| anonymize(&table, &options, &Stop::never()).unwrap_err().to_string();
    let asked = options(Method::Optimal, 2, 0, 1.0, 0.0);
    for (options, part) in [
        (Options { suppression_limit: 1.5, ..asked }, "suppression_limit is 1.5"),
        (Options { suppression_limit: f64::NAN, ..asked }, "suppression_limit is NaN"),
        (options(Method::Mondrian, 2, 0, 1.0, 0.1), "of method 'optimal'"),
        (options(Method::Optimal, 0, 0, 1.0, 0.0), "k is 0"),
        (options(Method::Optimal, 4, 0, 1.0, 0.0), "no generalization of these 3 rows"),
        (options(Method::Mondrian, 2, 3, 1.0, 0.0), "no generalization"),
        (options(Method::Microaggregation, 4, 0, 1.0, 0.0), "no generalization"),
    ] {
        let found = error(options);
        assert!(found.contains(part), "{found}");
    }
    let presence = Some((0.1, 0.5));
    let criteria = Criteria { presence, ..asked.criteria };
    assert!(error(Options { criteria, ..asked }).contains("subset"));
    let stopped = anonymize(&table, &asked, &Stop::when(|| true)).unwrap_err().to_string();
    assert!(stopped.contains("nobody waits"), "{stopped}");
}

#[test]
fn no_rows_give_no_classes() {
    let none = Rows::new();
    for method in [Method::Optimal, Method::Mondrian, Method::Microaggregation] {
        let asked = options(method, 5, 0, 1.0, 0.0);
        let outcome = anonymize(&input(&none), &asked, &Stop::never()).unwrap();
        assert_eq!((outcome.classes(), outcome.suppressed), (0, 0));
        let lines = report::report(&input(&none), &asked, &outcome).unwrap();
        assert!(lines.iter().all(|line| line.value.is_none_or(f64::is_finite)));
    }
}
