//! Tests of writes that meet an erasure.

use std::fmt;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::ScalarValue;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::*;
use crate::check_states::CheckStates;
use crate::checks::{CHECK, CheckRun};
use crate::erasures::{ErasureJob, ErasureOf, Step, StepReport};
use crate::lake::{Format, LakeTable};
use crate::registry::Spec;
use crate::table_erasure::TableErasure;
use crate::tables::Written;
use crate::testing::{Shared, main, number, person, plan, session};
use crate::{CreateMode, NewTable};

fn of() -> ErasureOf {
    ErasureOf {
        subject: person(&["t"]),
        ids: BTreeSet::from(["gone".to_owned()]),
        only: None,
        entity: None,
        tokens: vec!["00".into()],
    }
}

fn state_with(catalog: &Catalog, seen: &Arc<ErasuresSeen>) -> SessionState {
    let mut state = session(catalog);
    state.config_mut().set_extension(Arc::clone(seen));
    state
}

async fn create(catalog: &Catalog, seen: &Arc<ErasuresSeen>) -> Result<Option<Written>> {
    let rows = plan(catalog, "SELECT 'gone' AS id", &[]).await;
    let state = state_with(catalog, seen);
    catalog
        .create_table_as(&main("t"), "ann", CreateMode::New, rows, state, &NewTable::default())
        .await
}

/// What comes of adding a row by a statement that knew this.
async fn insert(catalog: &Catalog, seen: &Arc<ErasuresSeen>) -> Result<(), &'static str> {
    let rows = plan(catalog, "SELECT 'gone' AS id", &[]).await;
    let state = state_with(catalog, seen);
    let written = catalog.insert(&main("t"), rows, state, None, false).await;
    written.map(|_| ()).map_err(|error| error.code())
}

async fn seen(catalog: &Catalog, reads: &[&str]) -> Arc<ErasuresSeen> {
    let seen = catalog.see_erasures().await.unwrap();
    seen.set_reads(reads.iter().map(|name| main(name)).collect(), BTreeSet::new());
    Arc::new(seen)
}

async fn end_step(catalog: &Catalog, job: &ErasureJob, step: usize) {
    let report = StepReport { rows: 1, ..StepReport::new(job.steps[step].object(), "done") };
    catalog.end_step(&job.id, step, &report).await.unwrap();
}

#[tokio::test]
async fn rows_that_were_read_before_do_not_come_into_a_table_that_was_rewritten() {
    let catalog = Shared::new().open().await;
    let before = seen(&catalog, &["s"]).await;
    create(&catalog, &before).await.unwrap();
    let steps =
        vec![Step::Rewrite { table: main("t") }, Step::Rewrite { table: main("s") }, Step::Clear];
    let job = catalog.begin_erasure(of(), "dpo", steps).await.unwrap();
    // What comes before the table is rewritten is read there.
    assert_eq!(insert(&catalog, &before).await, Ok(()));
    let begun = catalog.begin_table_erasure(&main("t"), &job.id).await.unwrap();
    assert_eq!(begun, TableErasure::Begun(1));
    let keep = plan(&catalog, "SELECT 'stays' AS id", &[]).await;
    let state = session(&catalog);
    catalog.finish_table_erasure(&main("t"), &job.id, 1, keep, &state).await.unwrap();
    assert!(!before.is_outdated());
    assert_eq!(insert(&catalog, &before).await, Err("ATT-4005"));
    assert!(before.is_outdated());
    // Who has begun since reads what the erasure has still to rewrite, or does not.
    let during = seen(&catalog, &["s"]).await;
    assert_eq!(insert(&catalog, &during).await, Err("ATT-4005"));
    assert_eq!(insert(&catalog, &seen(&catalog, &["t", "other"]).await).await, Err("ATT-4005"));
    assert_eq!(insert(&catalog, &seen(&catalog, &["other"]).await).await, Ok(()));
    let unknown = Arc::new(catalog.see_erasures().await.unwrap());
    assert_eq!(insert(&catalog, &unknown).await, Err("ATT-4005"));
    end_step(&catalog, &job, 0).await;
    end_step(&catalog, &job, 1).await;
    assert_eq!(insert(&catalog, &seen(&catalog, &["t", "s"]).await).await, Ok(()));
    let of_model = catalog.see_erasures().await.unwrap();
    of_model.set_reads(BTreeSet::new(), BTreeSet::from(["main.m@1".to_owned()]));
    assert_eq!(insert(&catalog, &Arc::new(of_model)).await, Err("ATT-4005"));
    end_step(&catalog, &job, 2).await;
    catalog.end_erasure(&job, vec![]).await.unwrap();
    assert_eq!(insert(&catalog, &before).await, Err("ATT-4005"));
    assert_eq!(insert(&catalog, &during).await, Err("ATT-4005"));
    assert_eq!(insert(&catalog, &seen(&catalog, &["t", "s"]).await).await, Ok(()));
}

/// Rewrites the table for an erasure and removes the folder that it had.
async fn rewrite(catalog: Arc<Catalog>) {
    let steps = vec![Step::Rewrite { table: main("t") }, Step::Clear];
    let job = catalog.begin_erasure(of(), "dpo", steps).await.unwrap();
    let begun = catalog.begin_table_erasure(&main("t"), &job.id).await.unwrap();
    assert_eq!(begun, TableErasure::Begun(0));
    let keep = plan(&catalog, "SELECT 'stays' AS id", &[]).await;
    let state = session(&catalog);
    catalog.finish_table_erasure(&main("t"), &job.id, 0, keep, &state).await.unwrap();
    assert!(catalog.purge_table_folders(&main("t"), i64::MAX).await.unwrap() > 0);
}

#[tokio::test]
async fn what_comes_into_a_folder_that_an_erasure_has_removed_is_removed_again() {
    let shared = Shared::new();
    let (catalog, other) = (shared.open().await, shared.open().await);
    let before = seen(&catalog, &["s"]).await;
    create(&catalog, &before).await.unwrap();
    let (rows, state) = (late(Box::pin(rewrite(other))), state_with(&catalog, &before));
    assert!(catalog.insert(&main("t"), rows, state, None, false).await.is_err());
    let paths = shared.paths("tables").await;
    let folders = paths.iter().map(|path| path.split('/').find(|part| part.starts_with("main.t-")));
    let folders: BTreeSet<Option<&str>> = folders.collect();
    assert_eq!(folders.len(), 1, "{paths:?}");
    let gone = "SELECT count(*) FROM t WHERE id = 'gone'";
    let reader = shared.open().await;
    assert_eq!(number(&reader, gone, &["t"]).await, 0);
}

#[tokio::test]
async fn a_table_that_an_erasure_did_not_find_is_not_made_of_rows_read_before() {
    let catalog = Shared::new().open().await;
    let before = seen(&catalog, &["s"]).await;
    let steps = vec![Step::Rewrite { table: main("t") }, Step::Clear];
    let job = catalog.begin_erasure(of(), "dpo", steps).await.unwrap();
    catalog.end_creations(&main("t"), &job.id).await.unwrap();
    let begun = catalog.begin_table_erasure(&main("t"), &job.id).await.unwrap();
    assert_eq!(begun, TableErasure::Gone);
    let refused = create(&catalog, &before).await.unwrap_err();
    assert_eq!(refused.code(), "ATT-4005");
    assert!(refused.hint().unwrap().contains("RESUME ERASURE"));
    assert!(catalog.object(&main("t")).await.unwrap().is_none());
    // One that was given up has forgotten nobody.
    catalog.abandon_erasure(&job.id).await.unwrap();
    assert!(create(&catalog, &before).await.unwrap().is_some());
}

/// A row of whoever is forgotten, which comes once something else is done.
struct Late(SchemaRef, Mutex<Option<BoxFuture<'static, ()>>>);

impl fmt::Debug for Late {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Late")
    }
}

impl PartitionStream for Late {
    fn schema(&self) -> &SchemaRef {
        &self.0
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, before) = (Arc::clone(&self.0), self.1.lock().take());
        let row = futures::stream::once(async move {
            if let Some(before) = before {
                before.await;
            }
            let ids: ArrayRef = Arc::new(StringArray::from(vec!["gone"]));
            Ok::<_, DataFusionError>(RecordBatch::try_new(schema, vec![ids])?)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.0), row))
    }
}

fn late(before: BoxFuture<'static, ()>) -> LogicalPlan {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, true)]));
    let rows: Vec<Arc<dyn PartitionStream>> =
        vec![Arc::new(Late(Arc::clone(&schema), Mutex::new(Some(before))))];
    let rows = Arc::new(StreamingTable::try_new(schema, rows).unwrap());
    let scan = LogicalPlanBuilder::scan("late", provider_as_source(rows), None).unwrap();
    scan.build().unwrap()
}

/// Forgets somebody who may have been in `t`, which is no warehouse table.
async fn forget(catalog: Arc<Catalog>) {
    let steps = vec![Step::Rewrite { table: main("t") }, Step::Clear];
    let job = catalog.begin_erasure(of(), "dpo", steps).await.unwrap();
    catalog.end_creations(&main("t"), &job.id).await.unwrap();
    for step in 0..job.steps.len() {
        end_step(&catalog, &job, step).await;
    }
    catalog.end_erasure(&job, vec![]).await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_made_while_an_erasure_comes_and_goes_never_is_one() {
    for is_external in [false, true] {
        let shared = Shared::new();
        let (catalog, other) = (shared.open().await, shared.open().await);
        if is_external {
            let spec = Spec::External(LakeTable::new("files/", Format::Csv));
            catalog.objects.create(&main("t"), spec, "ann", CreateMode::New).await.unwrap();
        }
        let before = seen(&catalog, &["s"]).await;
        let rows = late(Box::pin(forget(other)));
        let (mode, state) = (CreateMode::Replace, state_with(&catalog, &before));
        let made = catalog
            .create_table_as(&main("t"), "ann", mode, rows, state, &NewTable::default())
            .await;
        assert_eq!(made.unwrap_err().code(), "ATT-4005");
        assert!(before.is_outdated());
        for server in [catalog, shared.open().await] {
            let found = server.object(&main("t")).await.unwrap();
            assert_eq!(found.map(|found| found.external), is_external.then_some(true));
        }
    }
}

#[tokio::test]
async fn whoever_is_killed_in_making_a_table_that_an_erasure_would_miss_has_made_none() {
    for writes in 0.. {
        let shared = Shared::new();
        let (catalog, other) = (shared.open().await, shared.open().await);
        let store = Arc::clone(&shared.store);
        let before = seen(&catalog, &["s"]).await;
        let rows = late(Box::pin(async move {
            forget(other).await;
            store.kill_after(writes);
        }));
        let (mode, state) = (CreateMode::New, state_with(&catalog, &before));
        let made = catalog
            .create_table_as(&main("t"), "ann", mode, rows, state, &NewTable::default())
            .await;
        assert!(made.is_err(), "after {writes} writes");
        let was_killed = shared.store.revive();
        let found = shared.open().await.object(&main("t")).await.unwrap();
        assert!(found.is_none(), "after {writes} writes");
        if !was_killed {
            assert!(writes > 2, "a table of {writes} writes");
            break;
        }
    }
}

#[tokio::test]
async fn results_of_a_check_that_read_before_are_not_kept_once_those_of_its_table_are_removed() {
    let catalog = Shared::new().open().await;
    let before = seen(&catalog, &["t"]).await;
    create(&catalog, &before).await.unwrap();
    let (by, origin) = ("ann".to_owned(), CHECK.to_owned());
    let run = CheckRun { at_ms: 1, by, origin, results: vec![] };
    let record = async |seen: Arc<ErasuresSeen>| {
        let kept = catalog.record_checks(&main("t"), &run, &BTreeMap::new(), &seen).await;
        kept.map_err(|error| error.code())
    };
    assert_eq!(record(Arc::clone(&before)).await, Ok(()));
    forget(Arc::clone(&catalog)).await;
    catalog.forget_checked_values(&main("t")).await.unwrap();
    assert_eq!(record(before).await, Err("ATT-4005"));
    assert!(catalog.check_history(&main("t")).await.unwrap().runs.is_empty());
    assert_eq!(record(seen(&catalog, &["t"]).await).await, Ok(()));
}

#[tokio::test]
async fn states_of_files_that_were_read_before_are_not_kept_once_they_are_removed() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let before = seen(&catalog, &["t"]).await;
    create(&catalog, &before).await.unwrap();
    let mut states = CheckStates::default();
    states.put("part-0", "least", ScalarValue::from("gone"));
    let keep = async |seen: Arc<ErasuresSeen>| {
        let kept = catalog.keep_check_states(&main("t"), &states, &seen).await;
        kept.map_err(|error| error.code())
    };
    assert_eq!(keep(Arc::clone(&before)).await, Ok(()));
    assert_eq!(catalog.check_states(&main("t")).await, states);
    forget(Arc::clone(&catalog)).await;
    catalog.forget_checked_values(&main("t")).await.unwrap();
    // Whenever it is killed: it writes nothing that would have to be removed again.
    shared.store.kill_after(0);
    assert_eq!(keep(before).await, Err("ATT-4005"));
    assert!(!shared.store.revive());
    assert_eq!(shared.open().await.check_states(&main("t")).await, CheckStates::default());
    assert_eq!(keep(seen(&catalog, &["t"]).await).await, Ok(()));
}

#[tokio::test]
async fn an_erasure_that_was_done_before_is_told_in_one_list() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let job = catalog.begin_erasure(of(), "dpo", vec![Step::Clear]).await.unwrap();
    assert!(!catalog.lately_erased().await.unwrap()[&job.id]);
    end_step(&catalog, &job, 0).await;
    catalog.end_erasure(&job, vec![]).await.unwrap();
    assert!(catalog.lately_erased().await.unwrap()[&job.id]);
    assert_eq!(shared.paths("_attune/erasing").await.len(), 2);
    let seen = catalog.see_erasures().await.unwrap();
    assert_eq!(seen.done, BTreeSet::from([job.id]));
    assert!(catalog.met(&seen).await.unwrap().is_empty());
    assert_eq!(catalog.met(&ErasuresSeen::default()).await.unwrap().len(), 1);
}
