//! Statements that began before a person was forgotten and write afterwards: nobody comes back.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use catalog::policy::Principal;
use catalog::subject_copies::CopiedKey;
use catalog::subjects::SubjectKey;
use catalog::{CreateMode, NewTable, ObjectName};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::TryStreamExt;
use parking_lot::Mutex;
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

/// Rows that come when somebody lets them.
struct Held {
    rows: SendableRecordBatchStream,
    /// Says that somebody waits for the first.
    begun: oneshot::Receiver<()>,
    let_go: oneshot::Sender<()>,
}

/// Somebody's row, held.
fn held() -> Held {
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["ann-4711"]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![9]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("n", numbers)]).unwrap();
    let schema = batch.schema();
    let (begin, begun) = oneshot::channel::<()>();
    let (let_go, gone) = oneshot::channel::<()>();
    let rows = futures::stream::once(async move {
        begin.send(()).unwrap();
        gone.await.unwrap();
        Ok(batch)
    });
    Held { rows: Box::pin(RecordBatchStreamAdapter::new(schema, rows)), begun, let_go }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_writes_meanwhile_brings_nobody_back() {
    for (before, if_missing, if_present, code) in [
        (None, IfMissing::Fail, IfPresent::Append, None),
        (None, IfMissing::Create, IfPresent::Replace, Some("ATT-4005")),
        (Some("DROP TABLE visits"), IfMissing::Create, IfPresent::Fail, Some("ATT-4005")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let engine = crate::slt::engine(folder.path()).await;
        let session = fill(&engine).await;
        if let Some(before) = before {
            assert_eq!(outcome(&session, before).await, Ok(0));
        }
        let Held { rows, begun, let_go } = held();
        let writer = engine.session(Principal::embedded());
        let writing = tokio::spawn(async move {
            let (catalog, schema, table) = (None, None, "visits".to_owned());
            let ingest = Ingest { catalog, schema, table, if_missing, if_present };
            writer.ingest("held", &ingest, rows).await.map(|_| ()).map_err(|error| error.code())
        });
        begun.await.unwrap();
        assert_eq!(outcome(&session, FORGET).await, Ok(0));
        let_go.send(()).unwrap();
        let written = writing.await.unwrap().unwrap_err();
        assert!(code.is_none_or(|code| code == written), "{if_present:?}: {written}");
        let gone = before.is_some();
        for (query, rows) in
            [("SELECT * FROM visits", 1), ("SELECT * FROM visits WHERE id <> 'bob'", 0)]
        {
            let read = outcome(&session, query).await;
            assert_eq!(read, if gone { Err("ATT-4001") } else { Ok(rows) }, "{query}");
        }
    }
}

/// A plan that reads rows once.
#[derive(Debug)]
struct Once(SchemaRef, Mutex<OnceRows>);

struct OnceRows(Option<SendableRecordBatchStream>);

impl fmt::Debug for OnceRows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OnceRows")
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.0
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.1.lock().0.take().unwrap()
    }
}

fn once(rows: SendableRecordBatchStream) -> LogicalPlan {
    let schema = rows.schema();
    let rows = Mutex::new(OnceRows(Some(rows)));
    let rows: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(Once(Arc::clone(&schema), rows))];
    let rows = provider_as_source(Arc::new(StreamingTable::try_new(schema, rows).unwrap()));
    LogicalPlanBuilder::scan("held", rows, None).unwrap().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_announced_and_is_made_meanwhile_never_comes_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = fill(&engine).await;
    let catalog = Arc::clone(engine.catalog());
    let (crm, copy) = (ObjectName::new("main", "crm"), ObjectName::new("main", "duplicate"));
    // What CREATE TABLE duplicate AS SELECT … FROM crm does, up to its first row.
    let seen = catalog.see_erasures().await.unwrap();
    seen.set_reads(BTreeSet::from([crm.clone()]), BTreeSet::new());
    let mut state = SessionStateBuilder::new().with_default_features().build();
    state.config_mut().set_extension(Arc::new(seen));
    let key = SubjectKey { table: crm, column: "id".into() };
    let copied = CopiedKey {
        subject: "person".into(),
        column: Some("id".into()),
        from: key.clone(),
        root: key,
        of_model: false,
        by: Some(vec![]),
        is_whole: true,
    };
    catalog.announce_copies(&copy, &BTreeSet::from([copied])).await.unwrap();
    let Held { rows, begun, let_go } = held();
    let plan = once(rows);
    let making = tokio::spawn(async move {
        let made = catalog
            .create_table_as(&copy, "ann", CreateMode::New, plan, state, &NewTable::default())
            .await;
        made.map(|_| ()).map_err(|error| error.code())
    });
    begun.await.unwrap();
    assert_eq!(outcome(&session, FORGET).await, Ok(0));
    let_go.send(()).unwrap();
    assert_eq!(making.await.unwrap(), Err("ATT-4005"));
    assert_eq!(outcome(&session, "SELECT * FROM duplicate").await, Err("ATT-4001"));
}
