//! A statement that compares texts of megabytes ends when it is cancelled or its time is over, and
//! the comparison with it: each of these would take minutes.

use std::time::{Duration, Instant};

use catalog::policy::Principal;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use sql::{Engine, Error, Result, Session};

/// Within which a statement ends once nobody wants it.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// The statements' own time.
const TIMEOUT: Duration = Duration::from_millis(300);

/// Comparisons, with the values of their parameters: of constants and parameters, which are
/// computed while a statement is planned, and of columns.
fn statements() -> Vec<(String, Vec<ScalarValue>)> {
    let pair = "repeat('ab', 2000000), repeat('ba', 2000001)";
    let columns = "SELECT repeat('ab', 700000 + n) AS a, repeat('béa', 700000) AS b \
                   FROM generate_series(1, 3) AS t (n)";
    let mut statements: Vec<(String, Vec<ScalarValue>)> = [
        format!("SELECT levenshtein({pair})"),
        format!("SELECT levenshtein({pair}, 3000000)"),
        format!("SELECT damerau_levenshtein({pair})"),
        format!("SELECT token_set_ratio({pair})"),
        format!("SELECT max(osa_distance(a, b)) FROM ({columns}) AS texts"),
        format!("SELECT max(damerau_levenshtein(b, a)) FROM ({columns}) AS texts"),
        format!("SELECT count(*) FROM ({columns}) AS texts WHERE token_sort_ratio(a, b) > 3"),
    ]
    .map(|text| (text, vec![]))
    .into();
    let with_parameter = [
        "SELECT osa_distance(repeat('ab', CAST($1 AS BIGINT)), repeat('ba', 2000001))".to_owned(),
        format!("SELECT osa_distance({pair}) WHERE CAST($1 AS BIGINT) = 2000000"),
    ];
    let value = || vec![ScalarValue::from(2_000_000_i64)];
    statements.extend(with_parameter.map(|text| (text, value())));
    statements
}

/// Runs a statement to its end.
async fn run(session: Session, id: String, text: String, values: Vec<ScalarValue>) -> Result<()> {
    let prepared = session.prepare(&text).await?;
    let answer = session.run_as(&id, &prepared, &values).await?;
    answer.rows.try_collect::<Vec<_>>().await.map(drop).map_err(Error::from)
}

/// Waits for what holds soon. A statement is charged for its long texts while they are compared.
async fn soon(what: &str, within: Duration, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn engine(folder: &std::path::Path) -> (Engine, Session) {
    let engine = crate::slt::engine(folder).await;
    let session = engine.session(Principal::embedded());
    (engine, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_ends_when_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, session) = engine(folder.path()).await;
    let timeout = format!("SET statement_timeout = '{} ms'", TIMEOUT.as_millis());
    session.query(&timeout).await.unwrap();
    for (text, values) in statements() {
        let started = Instant::now();
        let id = engine.new_query_id();
        let error = run(session.clone(), id, text.clone(), values).await.unwrap_err();
        assert_eq!(error.code(), "ATT-3003", "{text}: {error}");
        let took = started.elapsed();
        assert!(took < TIMEOUT + ENDS_WITHIN, "{text} took {took:?}");
        soon(&text, ENDS_WITHIN, || engine.usage().memory_bytes == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_ends_when_it_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, session) = engine(folder.path()).await;
    for (text, values) in statements() {
        let id = engine.new_query_id();
        let running = tokio::spawn(run(session.clone(), id.clone(), text.clone(), values));
        soon(&text, Duration::from_secs(20), || engine.usage().memory_bytes > 0).await;
        let started = Instant::now();
        assert!(engine.queries().cancel(&id, |_| true), "{text}");
        let error = running.await.unwrap().unwrap_err();
        assert_eq!(error.code(), "ATT-3004", "{text}: {error}");
        let took = started.elapsed();
        assert!(took < ENDS_WITHIN, "{text} took {took:?}");
        soon(&text, ENDS_WITHIN, || engine.usage().memory_bytes == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_ends_when_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, session) = engine(folder.path()).await;
    for (text, values) in statements() {
        let id = engine.new_query_id();
        let running = tokio::spawn(run(session.clone(), id, text.clone(), values));
        soon(&text, Duration::from_secs(20), || engine.usage().memory_bytes > 0).await;
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled(), "{text}");
        soon(&text, ENDS_WITHIN, || engine.usage().memory_bytes == 0).await;
    }
}
