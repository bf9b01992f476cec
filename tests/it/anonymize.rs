//! Anonymization reads with the rights of whoever asks, ends when its time is over, and gives the
//! same rows whatever the partitions.

use std::time::{Duration, Instant};

use catalog::policy::{Principal, Role};
use futures::TryStreamExt;

use crate::rights::{outcome, somebody};

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_hierarchies_by_name_are_read_with_the_rights_of_whoever_asks() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let ann = engine.session(somebody("ann", Role::Analyst));
    let bob = engine.session(somebody("bob", Role::Analyst));
    for text in [
        "CREATE TABLE ann.t AS SELECT * FROM (VALUES ('a', 1), ('b', 1)) AS v (x, y)",
        "CREATE TABLE ann.h AS SELECT * FROM (VALUES ('a', '*'), ('b', '*')) AS v (x, y)",
    ] {
        assert_eq!(outcome(&ann, text).await, Ok(0), "{text}");
    }
    let made = "CREATE TABLE bob.t AS SELECT * FROM (VALUES ('a', 1), ('b', 1)) AS v (x, y)";
    assert_eq!(outcome(&bob, made).await, Ok(0));
    let by_name = "SELECT * FROM anonymize('ann.t', quasi_identifiers => 'x', k => 2)";
    let report = "SELECT * FROM anonymize_report('ann.t', quasi_identifiers => 'x', k => 2)";
    let hierarchy = "SELECT * FROM anonymize('t', quasi_identifiers => 'x', k => 2, \
                     hierarchies => STRUCT('ann.h' AS x))";
    assert_eq!(outcome(&ann, by_name).await, Ok(2));
    assert_eq!(outcome(&ann, hierarchy).await, Ok(2));
    for text in [by_name, report, hierarchy] {
        assert_eq!(outcome(&bob, text).await, Err("ATT-4001"), "{text}");
    }
    let own = "SELECT * FROM anonymize('t', quasi_identifiers => 'x', k => 2)";
    assert_eq!(outcome(&bob, own).await, Ok(2));
}

/// Microaggregation of so many rows takes minutes.
#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    session.query("SET statement_timeout = '300 ms'").await.unwrap();
    let text = "SELECT * FROM anonymize((SELECT value AS x, value * 7919 % 10007 AS y \
                FROM generate_series(1, 200000) AS s(value)), quasi_identifiers => ['x', 'y'], \
                k => 2, method => 'microaggregation')";
    let start = Instant::now();
    assert_eq!(outcome(&session, text).await, Err("ATT-3003"));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_do_not_depend_on_how_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    for method in ["optimal", "mondrian", "microaggregation"] {
        let hierarchies = match method {
            "microaggregation" => "",
            _ => ", hierarchies => STRUCT('interval:10,50' AS x, 'interval:5' AS y)",
        };
        let mut answers = vec![];
        for order in ["value", "-value", "value * 7919 % 10007"] {
            let text = format!(
                "SELECT x, y, z FROM anonymize((SELECT value % 97 AS x, value % 13 AS y, value % 5 \
                 AS z FROM generate_series(1, 2000) AS s(value) ORDER BY {order}), \
                 quasi_identifiers => ['x', 'y'], sensitive => 'z', k => 5, l => 2, \
                 method => '{method}'{hierarchies}) ORDER BY x, y, z"
            );
            let answer = session.query(&text).await.unwrap();
            let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
            let schema = rows[0].schema();
            answers.push(arrow::compute::concat_batches(&schema, &rows).unwrap());
        }
        assert_eq!(answers[0].num_rows(), 2000, "{method}");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{method}");
    }
}
