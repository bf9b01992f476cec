//! An audit of private statistics through SQL: answers over a table and over one without a single
//! person are told apart no better than epsilon allows, with groups chosen privately, persons who
//! are found by a foreign key, bounds that are found, and a budget that is charged. The same audit
//! finds out a claim that does not hold.
//!
//! The lower bound on epsilon is the one of the mechanisms' own tests (`udfs/src/privacy/noise`):
//! an event is chosen by the first half of the answers, and the second half bounds its probability
//! on both sides, so that the bound is too high with a probability of 10⁻⁵ at most.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use catalog::policy::Principal;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use sql::{Prepared, Session};

use crate::rights::outcome;

/// What is claimed of every answer.
const EPSILON: f64 = 1.0;
/// How surely a lower bound holds.
const MISS: f64 = 1e-5;
/// Answers over each of the two tables. Of so many the bound tells an epsilon of 2 from one of 1.
const ANSWERS: usize = 1_500;
/// The same where each of them is charged to two accounts.
const CHARGED_ANSWERS: usize = 500;
/// Who is not there: nobody, and the first person, who pays what nobody else does.
const ABSENT: [i64; 2] = [-1, 0];
/// What somebody sees where there is no number: no such group, no value, no answer.
const NOT_SHOWN: f64 = -1e12;
const NULL: f64 = -2e12;
const FAILED: f64 = -3e12;

/// Persons with two orders of an item each; the first thirty are in a ward of their own.
const TABLES: [&str; 2] = [
    "CREATE TABLE orders AS SELECT value AS id, value / 2 AS person \
     FROM generate_series(0, 399) AS s (value)",
    "CREATE TABLE items AS SELECT value AS order_id, \
     CASE WHEN value < 60 THEN 'a' ELSE 'b' END AS ward, \
     CASE WHEN value < 2 THEN 5000 ELSE value % 10 + 1 END AS cost \
     FROM generate_series(0, 399) AS s (value)",
];
const POLICIES: [&str; 2] = [
    "CREATE PRIVACY POLICY p ON orders (person) BUDGET (epsilon = 1000000) PER USER",
    "CREATE PRIVACY POLICY p ON items (order_id REFERENCES orders (id)) \
     BUDGET (epsilon = 1000000) PER USER",
];

/// A statement that is audited.
struct Audit {
    name: &'static str,
    policies: &'static [&'static str],
    text: String,
    answers: usize,
    /// Between what the lower bound has to lie.
    within: (f64, f64),
}

/// A private SELECT of orders with their items.
fn asked(unit: &str, select: &str, on: &str, group: &str) -> String {
    // Which groups there are is told with a delta that no event of the audit is as rare as.
    let delta = if group.is_empty() { "" } else { "delta = 1e-6, " };
    format!(
        "SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = {EPSILON}, {delta}\
         privacy_unit_column = {unit}) {select} FROM orders AS o JOIN items AS i \
         ON o.id = i.order_id{on} WHERE o.person <> ?{group}"
    )
}

fn audits() -> Vec<Audit> {
    let count = "COUNT(*, contribution_bounds_per_group => (0, 2))";
    let per_order = "COUNT(*, contribution_bounds_per_group => (0, 1))";
    let groups = asked("o.person", &format!("i.ward, {count} AS n"), "", " GROUP BY i.ward");
    let of_ward = |ward: &str| format!("SELECT n FROM ({groups}) AS g WHERE ward = '{ward}'");
    let audit =
        |name, text| Audit { name, policies: &[], text, answers: ANSWERS, within: (0.0, EPSILON) };
    vec![
        Audit {
            // It is not far below: the bound would find twice too little noise.
            within: (0.25 * EPSILON, EPSILON),
            ..audit("a count", asked("o.person", count, "", ""))
        },
        audit("a group that is shown sometimes", of_ward("a")),
        audit("a sum with bounds that are found", asked("o.person", "SUM(i.cost)", "", "")),
        Audit {
            policies: &POLICIES,
            answers: CHARGED_ANSWERS,
            ..audit(
                "a count under policies",
                asked("o.person", count, " AND o.person = i.person", ""),
            )
        },
        Audit {
            // An order is no person: who has two of them contributes twice what is claimed.
            within: (1.05 * EPSILON, f64::INFINITY),
            ..audit("a claim that does not hold", asked("o.id", per_order, "", ""))
        },
    ]
}

/// What somebody sees of an answer.
async fn observed(session: &Session, prepared: &Prepared, absent: i64) -> f64 {
    let bound = [ScalarValue::Int64(Some(absent))];
    let Ok(answer) = session.run(prepared, &bound).await else { return FAILED };
    let Ok(rows) = answer.rows.try_collect::<Vec<RecordBatch>>().await else { return FAILED };
    let Some(row) = rows.iter().find(|batch| batch.num_rows() > 0) else { return NOT_SHOWN };
    let number = cast(row.column(0), &DataType::Float64).unwrap();
    if number.is_null(0) { NULL } else { number.as_primitive::<Float64Type>().value(0) }
}

/// A lower bound, at 99.999 %, on the epsilon of a statement over the two tables.
async fn found(session: Session, audit: &Audit) -> f64 {
    let prepared = session.prepare(&audit.text).await;
    let prepared = prepared.unwrap_or_else(|error| panic!("{}: {error}", audit.text));
    let mut sides = Vec::new();
    for absent in ABSENT {
        let mut answers = Vec::with_capacity(audit.answers);
        for _ in 0..audit.answers {
            answers.push(observed(&session, &prepared, absent).await);
        }
        let failed = answers.iter().filter(|answer| **answer == FAILED).count();
        assert!(failed * 2 < audit.answers, "{}: {failed} failed: {}", audit.name, audit.text);
        sides.push(answers);
    }
    epsilon_at_least(&sides[0], &sides[1])
}

/// The Kullback-Leibler divergence of two coins.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |p: f64, q: f64| if p == 0.0 { 0.0 } else { p * (p / q).ln() };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

/// Bounds on a probability from a share of answers, by Chernoff: each fails with a probability
/// below half of [`MISS`].
fn probability(hits: usize, answers: usize) -> (f64, f64) {
    let share = hits as f64 / answers as f64;
    let limit = (2.0 / MISS).ln() / answers as f64;
    let search = |mut inside: f64, mut outside: f64| {
        for _ in 0..60 {
            let middle = 0.5 * (inside + outside);
            if divergence(share, middle) <= limit { inside = middle } else { outside = middle }
        }
        outside
    };
    (search(share, 0.0), search(share, 1.0))
}

/// An event: an answer is at most some number, or above it.
#[derive(Clone, Copy)]
struct Event {
    at: f64,
    is_above: bool,
}

impl Event {
    fn hits(self, answers: &[f64]) -> usize {
        answers.iter().filter(|answer| (**answer > self.at) == self.is_above).count()
    }
}

/// The bound of answers over two tables: the event, and the side on which it is likelier, are
/// chosen by the first halves, and judged by the second ones.
fn epsilon_at_least(left: &[f64], right: &[f64]) -> f64 {
    let half = left.len() / 2;
    let mut thresholds = [&left[..half], &right[..half]].concat();
    thresholds.sort_by(f64::total_cmp);
    let mut best = None;
    let mut score_max = 0.0;
    for part in 1..40 {
        let at = thresholds[part * thresholds.len() / 40];
        for is_above in [false, true] {
            let event = Event { at, is_above };
            for (likely, other) in [(left, right), (right, left)] {
                let [p, q] = [likely, other].map(|side| event.hits(&side[..half]) as f64);
                // Rare events are known too badly to show much.
                let (least, most) = ((p - 4.0 * p.sqrt()).max(1.0), q + 4.0 * q.sqrt() + 1.0);
                let score = (least / most).ln();
                if score > score_max {
                    score_max = score;
                    best = Some((event, likely, other));
                }
            }
        }
    }
    let Some((event, likely, other)) = best else { return 0.0 };
    let [p, q] = [likely, other].map(|side| event.hits(&side[half..]));
    let rest = left.len() - half;
    (probability(p, rest).0 / probability(q, rest).1).ln().max(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_through_sql_tell_no_more_of_a_person_than_their_epsilon() {
    let folder = tempfile::tempdir().unwrap();
    let mut engines = Vec::new();
    let mut asking = tokio::task::JoinSet::new();
    for (at, audit) in audits().into_iter().enumerate() {
        // Each has noise of its own: in which order they come to run changes nothing.
        let place = folder.path().join(at.to_string());
        std::fs::create_dir(&place).unwrap();
        let engine = crate::slt::engine(&place).await;
        let session = engine.session(Principal::embedded());
        engines.push(engine);
        for text in TABLES.iter().chain(audit.policies) {
            assert_eq!(outcome(&session, text).await, Ok(0), "{text}");
        }
        asking.spawn(async move {
            let found = found(session, &audit).await;
            (audit, found)
        });
    }
    let mut wrong = Vec::new();
    for (audit, found) in asking.join_all().await {
        let (least, most) = audit.within;
        println!("{}: epsilon is {found} at least", audit.name);
        if !(least..=most).contains(&found) {
            wrong.push(format!("{}: {found}, not in {least}..{most}: {}", audit.name, audit.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Of answers that tell nothing nothing is found, and of those that tell all a lot.
#[test]
fn the_audit_finds_what_there_is() {
    let same: Vec<f64> = (0..1_000).map(|number| f64::from(number * 7 % 100)).collect();
    assert_eq!(epsilon_at_least(&same, &same), 0.0);
    let other: Vec<f64> = same.iter().map(|number| number + 1_000.0).collect();
    assert!(epsilon_at_least(&same, &other) > 3.0);
}
