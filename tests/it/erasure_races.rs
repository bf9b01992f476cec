//! Statements that began before a person was forgotten and write afterwards: nobody comes back.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use catalog::policy::Principal;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use sql::{Engine, IfMissing, IfPresent, Ingest, Prepared, Session};
use tokio::sync::oneshot;

use crate::rights::{engine_at, outcome};

const FORGET: &str = "FORGET SUBJECT person 'ann-4711'";

/// Two tables of persons, of which one has somebody who is going to be forgotten.
async fn fill(engine: &Engine) -> Session {
    let session = engine.session(Principal::embedded());
    for text in [
        "CREATE TABLE crm AS SELECT * FROM (VALUES ('ann-4711', 1), ('bob', 2)) AS v (id, n)",
        "CREATE TABLE visits AS SELECT * FROM (VALUES ('bob', 1)) AS v (id, n)",
        "CREATE TABLE staged AS SELECT * FROM (VALUES ('bob', 4)) AS v (id, n)",
        "CREATE SUBJECT person KEY (crm.id, visits.id)",
    ] {
        assert_eq!(outcome(&session, text).await, Ok(0), "{text}");
    }
    session
}

async fn run(session: &Session, prepared: &Prepared) -> Result<(), &'static str> {
    let answer = session.run(prepared, &[]).await.map_err(|error| error.code())?;
    let rows: Result<Vec<_>, _> = answer.rows.try_collect().await;
    rows.map(|_| ()).map_err(|error| sql::Error::from(error).code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_was_planned_before_brings_nobody_back() {
    let folder = tempfile::tempdir().unwrap();
    // The clock stands still: a plan is never old.
    let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
    let engine = engine_at(folder.path(), &now_ms).await;
    let session = fill(&engine).await;
    let prepare = async |text: &str| session.prepare(text).await.unwrap();
    let select = prepare("INSERT INTO visits SELECT id, n FROM crm").await;
    let values = prepare("INSERT INTO visits VALUES ('ann-4711', 3)").await;
    let update =
        prepare("UPDATE visits SET n = n + 1 WHERE id IN (SELECT id FROM crm WHERE n > 1)").await;
    let merge = prepare(
        "MERGE INTO visits USING crm ON visits.id = crm.id \
         WHEN NOT MATCHED THEN INSERT (id, n) VALUES (crm.id, crm.n)",
    )
    .await;
    let copy = prepare("CREATE TABLE duplicate AS SELECT id, n FROM crm").await;
    let elsewhere = prepare("INSERT INTO staged SELECT 'bob', 5").await;
    assert_eq!(outcome(&session, FORGET).await, Ok(0));
    for prepared in [&select, &values, &copy] {
        assert_eq!(run(&session, prepared).await, Err("ATT-4005"), "{}", prepared.text());
    }
    // They read the target: either they are planned again, or their files are gone.
    for prepared in [&update, &merge] {
        let _ = run(&session, prepared).await;
        assert_eq!(outcome(&session, "SELECT * FROM visits WHERE id <> 'bob'").await, Ok(0));
    }
    assert_eq!(run(&session, &elsewhere).await, Ok(()));
    assert_eq!(outcome(&session, "SELECT * FROM duplicate").await, Err("ATT-4001"));
    // Run again, they are planned again.
    for prepared in [&select, &copy] {
        assert_eq!(run(&session, prepared).await, Ok(()), "{}", prepared.text());
    }
    assert_eq!(outcome(&session, "SELECT * FROM visits").await, Ok(2));
    assert_eq!(outcome(&session, "SELECT * FROM visits WHERE id <> 'bob'").await, Ok(0));
    assert_eq!(outcome(&session, "SELECT * FROM duplicate WHERE id <> 'bob'").await, Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_writes_meanwhile_brings_nobody_back() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = fill(&engine).await;
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["ann-4711"]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![9]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("n", numbers)]).unwrap();
    let schema = batch.schema();
    let (begin, begun) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel::<()>();
    // The first row comes when the person is forgotten, and not before somebody waits for it.
    let rows = futures::stream::once(async move {
        begin.send(()).unwrap();
        ended.await.unwrap();
        Ok(batch)
    });
    let rows = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
    let writer = engine.session(Principal::embedded());
    let writing = tokio::spawn(async move {
        let ingest = Ingest {
            catalog: None,
            schema: None,
            table: "visits".into(),
            if_missing: IfMissing::Fail,
            if_present: IfPresent::Append,
        };
        writer.ingest("held", &ingest, rows).await.map(|_| ()).map_err(|error| error.code())
    });
    begun.await.unwrap();
    assert_eq!(outcome(&session, FORGET).await, Ok(0));
    end.send(()).unwrap();
    assert!(writing.await.unwrap().is_err());
    assert_eq!(outcome(&session, "SELECT * FROM visits").await, Ok(1));
    assert_eq!(outcome(&session, "SELECT * FROM visits WHERE id <> 'bob'").await, Ok(0));
}
