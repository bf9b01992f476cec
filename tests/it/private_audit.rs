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

#[path = "../../udfs/src/privacy/noise/tests/epsilon.rs"]
mod epsilon;

use epsilon::epsilon_at_least;

/// What is claimed of every answer.
const EPSILON: f64 = 1.0;
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
