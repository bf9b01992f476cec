//! What holds of every result, on small tables: against searches by force, and whatever the order
//! of the rows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::column::tests::{integers, texts};
use super::*;

/// Rows of a postcode, an age and a diagnosis.
type Rows = Vec<(i64, i64, i64)>;

/// The diagnoses, two of each kind.
const SICK: [&str; 4] = ["a1", "a2", "b1", "b2"];
/// What sums of shares may differ by.
const NEAR: f64 = 1e-9;

fn input(rows: &Rows) -> Input {
    let zips: Vec<String> = rows.iter().map(|row| format!("{:02}", row.0)).collect();
    let zips: Vec<&str> = zips.iter().map(String::as_str).collect();
    let ages: Vec<i64> = rows.iter().map(|row| row.1).collect();
    let sick: Vec<&str> = rows.iter().map(|row| SICK[row.2 as usize]).collect();
    let scheme = |text: &str| Scheme::built_in(text).unwrap();
    Input {
        quasi: vec![
            Quasi { column: texts("zip", &zips), scheme: scheme("prefix:1") },
            Quasi { column: integers("age", &ages), scheme: scheme("interval:2,4") },
        ],
        sensitive: vec![Sensitive { column: texts("sick", &sick), scheme: scheme("prefix:1") }],
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

/// The diagnoses of each class that can be told apart.
fn classes(rows: &Rows, outcome: &Outcome) -> BTreeMap<Vec<String>, Vec<i64>> {
    let mut classes: BTreeMap<Vec<String>, Vec<i64>> = BTreeMap::new();
    for (labels, value) in shown(rows, outcome) {
        classes.entry(labels).or_default().push(value);
    }
    classes
}

/// Whether values are diverse, by definition.
fn is_diverse(class: &[i64], diversity: Diversity) -> bool {
    let mut by_value: BTreeMap<i64, usize> = BTreeMap::new();
    for value in class {
        *by_value.entry(*value).or_default() += 1;
    }
    let mut counts: Vec<usize> = by_value.into_values().collect();
    counts.sort_unstable_by_key(|count| Reverse(*count));
    match diversity {
        Diversity::Distinct(l) => counts.len() >= l as usize,
        Diversity::Entropy(l) => {
            let shares = counts.iter().map(|count| *count as f64 / class.len() as f64);
            shares.map(|share| -share * share.ln()).sum::<f64>().exp() >= l - NEAR
        }
        Diversity::Recursive { c, l } => {
            let rest: usize = counts.iter().skip(l as usize - 1).sum();
            (counts[0] as f64) < c * rest as f64
        }
    }
}

/// The earth mover's distance of values to the whole, by definition: half of what is too much
/// where all are equally far; what crosses each gap between neighbours; or what leaves and enters
/// each subtree, by edges of half a level.
fn distance(class: &[i64], whole: &[i64], between: Distance) -> f64 {
    let share = |values: &[i64], is_in: &dyn Fn(i64) -> bool| {
        values.iter().filter(|value| is_in(**value)).count() as f64 / values.len() as f64
    };
    let gap = |is_in: &dyn Fn(i64) -> bool| (share(class, is_in) - share(whole, is_in)).abs();
    let kinds: BTreeSet<i64> = whole.iter().copied().collect();
    let values: f64 = kinds.iter().map(|kind| gap(&|value: i64| value == *kind)).sum();
    match between {
        Distance::Equal => values / 2.0,
        Distance::Ordered => {
            let below: f64 = kinds.iter().map(|kind| gap(&|value: i64| value <= *kind)).sum();
            below / (kinds.len() - 1).max(1) as f64
        }
        Distance::Hierarchical => {
            let pairs: f64 = [0, 1].iter().map(|pair| gap(&|value: i64| value / 2 == *pair)).sum();
            (values + pairs) / 4.0
        }
    }
}

/// How many rows are of classes that fail.
fn failing(classes: &BTreeMap<Vec<String>, Vec<i64>>, all: &Rows, criteria: Criteria) -> usize {
    let whole: Vec<i64> = all.iter().map(|row| row.2).collect();
    let holds = |class: &Vec<i64>| {
        class.len() >= criteria.k as usize
            && criteria.diversity.is_none_or(|diversity| is_diverse(class, diversity))
            && criteria.closeness.is_none_or(|closeness| {
                distance(class, &whole, closeness.distance) <= closeness.t + NEAR
            })
    };
    classes.values().filter(|class| !holds(class)).map(Vec::len).sum()
}

/// What a row shows of its postcode and its age at levels.
fn at(row: &(i64, i64, i64), zip: usize, age: usize) -> Vec<String> {
    let digits = format!("{:02}", row.0);
    let zip = [digits.clone(), digits[..1].to_owned(), String::new()][zip].clone();
    let age = [row.1, row.1.div_euclid(2), row.1.div_euclid(4), 0][age].to_string();
    vec![zip, age]
}

/// DM* of the best of all nodes.
fn by_force(rows: &Rows, options: &Options) -> Option<u64> {
    let rows_max = (options.suppression_limit * rows.len() as f64).floor() as usize;
    let mut best = None;
    for (zip, age) in (0..3).flat_map(|zip| (0..4).map(move |age| (zip, age))) {
        let mut classes: BTreeMap<Vec<String>, Vec<i64>> = BTreeMap::new();
        for row in rows {
            classes.entry(at(row, zip, age)).or_default().push(row.2);
        }
        if failing(&classes, rows, options.criteria) <= rows_max {
            let cost = classes.values().map(|class| (class.len() as u64).pow(2)).sum::<u64>();
            best = Some(best.map_or(cost, |best: u64| best.min(cost)));
        }
    }
    best
}

fn rows() -> impl Strategy<Value = Rows> {
    prop::collection::vec((0_i64..40, 0_i64..12, 0_i64..4), 1..40)
}

const METHODS: [Method; 3] = [Method::Optimal, Method::Mondrian, Method::Microaggregation];
const DISTANCES: [Distance; 3] = [Distance::Equal, Distance::Ordered, Distance::Hierarchical];

fn method() -> impl Strategy<Value = Method> {
    prop::sample::select(METHODS.to_vec())
}

fn diversity() -> impl Strategy<Value = Option<Diversity>> {
    prop_oneof![
        Just(None::<Diversity>),
        (1_u32..4).prop_map(|l| Some(Diversity::Distinct(l))),
        (1.0..4.0_f64).prop_map(|l| Some(Diversity::Entropy(l))),
        (0.2..4.0_f64, 1_u32..4).prop_map(|(c, l)| Some(Diversity::Recursive { c, l })),
    ]
}

fn closeness() -> impl Strategy<Value = Option<Closeness>> {
    let some = (0.02..0.9_f64, prop::sample::select(DISTANCES.to_vec()))
        .prop_map(|(t, distance)| Some(Closeness { t, distance }));
    prop_oneof![Just(None::<Closeness>), some]
}

fn criteria() -> impl Strategy<Value = Criteria> {
    (1_u32..6, diversity(), closeness()).prop_map(|(k, diversity, closeness)| Criteria {
        k,
        diversity,
        closeness,
        presence: None,
    })
}

/// Whether a label of a class of method 'mondrian' stands for a number, too.
fn covers(label: &str, number: i64) -> bool {
    let is_it = |text: &str| text.parse::<i64>() == Ok(number);
    if let Some(set) = label.strip_prefix('{').and_then(|label| label.strip_suffix('}')) {
        return set.split(", ").any(is_it);
    }
    let Some(range) = label.strip_prefix('[').and_then(|label| label.strip_suffix(']')) else {
        return is_it(label);
    };
    let (least, most) = range.split_once(" … ").or_else(|| range.split_once(", ")).unwrap();
    let bound = |text: &str| text.parse::<i64>().unwrap();
    (bound(least)..=bound(most)).contains(&number)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_optimum_is_that_of_all_nodes(
        rows in rows(),
        criteria in criteria(),
        limit in prop_oneof![Just(0.0), 0.0..0.6_f64],
    ) {
        let options = Options { method: Method::Optimal, criteria, suppression_limit: limit };
        let found = anonymize(&input(&rows), &options, &Stop::never());
        prop_assert_eq!(found.ok().map(|outcome| outcome.cost()), by_force(&rows, &options));
    }

    #[test]
    fn every_class_is_what_was_asked_for(
        rows in rows(),
        method in method(),
        criteria in criteria(),
        limit in 0.0..0.6_f64,
    ) {
        let limit = if method == Method::Optimal { limit } else { 0.0 };
        let options = Options { method, criteria, suppression_limit: limit };
        let found = anonymize(&input(&rows), &options, &Stop::never());
        // All rows as one class are a result, where they are what is asked for.
        let one = BTreeMap::from([(vec![], rows.iter().map(|row| row.2).collect())]);
        prop_assert!(found.is_ok() || failing(&one, &rows, criteria) > 0);
        if let Ok(outcome) = found {
            let classes = classes(&rows, &outcome);
            let kept: usize = classes.values().map(Vec::len).sum();
            prop_assert_eq!(kept + outcome.suppressed, rows.len());
            prop_assert!(outcome.suppressed as f64 <= limit * rows.len() as f64);
            prop_assert_eq!(failing(&classes, &rows, criteria), 0);
            let lines = report::report(&input(&rows), &options, &outcome).unwrap();
            prop_assert!(lines.iter().all(|line| line.value.is_none_or(f64::is_finite)));
        }
    }

    #[test]
    fn labels_tell_little_of_who_of_the_population_is_in_the_result(
        rows in prop::collection::vec(((0_i64..40, 0_i64..12, 0_i64..4), any::<bool>()), 1..40),
        is_local in any::<bool>(),
        k in 1_u32..4,
        (one, other) in (0.0..1.0_f64, 0.0..1.0_f64),
    ) {
        let (least, most) = (one.min(other), one.max(other));
        let (rows, released): (Rows, Vec<bool>) = rows.into_iter().unzip();
        let mut table = input(&rows);
        table.released = Some(released.clone());
        if is_local {
            table.quasi.iter_mut().for_each(|quasi| quasi.scheme = None);
        }
        let method = if is_local { Method::Mondrian } else { Method::Optimal };
        let presence = Some((least, most));
        let criteria = Criteria { k, diversity: None, closeness: None, presence };
        let options = Options { method, criteria, suppression_limit: 0.0 };
        let Ok(outcome) = anonymize(&table, &options, &Stop::never()) else { return Ok(()) };
        // By class, whom of the population its labels stand for.
        let mut covered = vec![];
        for class in 0..outcome.classes() {
            let in_it = outcome.class_of.iter().position(|of| *of == class as u32).unwrap();
            let stands_for = |row: &(i64, i64, i64)| match (&outcome.levels, &outcome.shown[..]) {
                (Some(levels), _) => {
                    let (zip, age) = (levels[0].0, levels[1].0);
                    at(row, zip, age) == at(&rows[in_it], zip, age)
                }
                (None, [Shown::Labels(zips), Shown::Labels(ages)]) => {
                    covers(zips[class].as_deref().unwrap(), row.0)
                        && covers(ages[class].as_deref().unwrap(), row.1)
                }
                _ => false,
            };
            let all: Vec<usize> = (0..rows.len()).filter(|row| stands_for(&rows[*row])).collect();
            let inside = all.iter().filter(|row| released[**row]).count();
            let share = inside as f64 / all.len() as f64;
            prop_assert!(inside >= k as usize);
            prop_assert!(least - NEAR <= share && share <= most + NEAR, "{share}");
            covered.extend(all);
        }
        // Whom no class stands for is known not to be in the result.
        covered.sort_unstable();
        if least > 0.0 && outcome.classes() > 0 {
            prop_assert_eq!(covered, (0..rows.len()).collect::<Vec<_>>());
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

/// Four postcodes, each of eight rows with each diagnosis twice.
fn even() -> Rows {
    [10, 11, 20, 21].into_iter().flat_map(|zip| (0..8).map(move |n| (zip, 5, n % 4))).collect()
}

/// Criteria of eight rows and one thing more.
fn eight(diversity: Option<Diversity>, closeness: Option<Closeness>) -> Criteria {
    Criteria { k: 8, diversity, closeness, presence: None }
}

#[test]
fn every_method_takes_every_criterion() {
    let near = |distance| eight(None, Some(Closeness { t: 0.05, distance }));
    let diverse = |diversity| eight(Some(diversity), None);
    // That of even rows holds for each postcode, and the greater one not for all together.
    let cases = [
        (diverse(Diversity::Distinct(4)), Some(diverse(Diversity::Distinct(5)))),
        (diverse(Diversity::Entropy(3.9)), Some(diverse(Diversity::Entropy(4.1)))),
        (
            diverse(Diversity::Recursive { c: 0.4, l: 2 }),
            Some(diverse(Diversity::Recursive { c: 0.3, l: 2 })),
        ),
        (near(Distance::Equal), None),
        (near(Distance::Ordered), None),
        (near(Distance::Hierarchical), None),
    ];
    // One postcode where all have the same.
    let mut skewed = even();
    skewed.iter_mut().filter(|row| row.0 == 21).for_each(|row| row.2 = 0);
    for method in METHODS {
        for (criteria, too_much) in cases {
            let found = |rows: &Rows, criteria| {
                let options = Options { method, criteria, suppression_limit: 0.0 };
                anonymize(&input(rows), &options, &Stop::never())
            };
            let outcome = found(&even(), criteria).unwrap();
            assert_eq!(outcome.classes(), 4, "{method:?} {criteria:?}");
            assert_eq!(failing(&classes(&even(), &outcome), &even(), criteria), 0);
            if let Some(too_much) = too_much {
                let error = found(&even(), too_much).unwrap_err().to_string();
                assert!(error.contains("no generalization"), "{method:?} {error}");
            }
            // The postcode of one diagnosis is no class by itself any more.
            match found(&skewed, criteria) {
                Ok(outcome) => {
                    assert!(outcome.classes() < 4, "{method:?} {criteria:?}");
                    assert_eq!(failing(&classes(&skewed, &outcome), &skewed, criteria), 0);
                }
                Err(_) => {
                    let all = skewed.iter().map(|row| row.2).collect();
                    let one = BTreeMap::from([(vec![], all)]);
                    assert!(failing(&one, &skewed, criteria) > 0, "{method:?} {criteria:?}");
                }
            }
        }
    }
}

#[test]
fn what_a_method_cannot_take_is_refused() {
    let rows = even();
    let mut no_tree = input(&rows);
    no_tree.sensitive[0].scheme = None;
    let mut subset = input(&rows);
    subset.released = Some((0..rows.len()).map(|row| row % 2 == 0).collect());
    let closeness = Some(Closeness { t: 0.5, distance: Distance::Hierarchical });
    let presence = Criteria { k: 4, presence: Some((0.4, 0.6)), ..eight(None, None) };
    for method in METHODS {
        let found = |table: &Input, criteria| {
            let options = Options { method, criteria, suppression_limit: 0.0 };
            anonymize(table, &options, &Stop::never()).map_err(|error| error.to_string())
        };
        let error = found(&no_tree, eight(None, closeness)).unwrap_err();
        assert!(error.contains("column sick need a hierarchy of it"), "{error}");
        let error = found(&input(&rows), presence).unwrap_err();
        assert!(error.contains("add subset => 'column'"), "{error}");
        match (method, found(&subset, presence)) {
            (Method::Microaggregation, Err(error)) => {
                assert!(error.contains("microaggregation takes no subset"), "{error}");
            }
            (_, outcome) => assert_eq!(outcome.unwrap().classes(), 4, "{method:?}"),
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
fn means_of_finite_numbers_are_finite() {
    assert_eq!(mean(&[1.0, 2.0, 6.0]), 3.0);
    assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
    assert_eq!(mean(&[f64::MIN; 4]), f64::MIN);
    assert_eq!(mean(&[f64::MAX, f64::MAX, f64::MIN, f64::MIN]), 0.0);
    assert_eq!(mean(&[f64::INFINITY, 1.0]), f64::INFINITY);
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
