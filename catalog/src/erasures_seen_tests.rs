//! Tests of writes that meet an erasure.

use super::*;
use crate::CreateMode;
use crate::erasures::{ErasureJob, ErasureOf, Step, StepReport};
use crate::table_erasure::TableErasure;
use crate::tables::Written;
use crate::testing::{Shared, main, person, plan, session};

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
    catalog.create_table_as(&main("t"), "ann", CreateMode::New, rows, state, &[]).await
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

#[tokio::test]
async fn a_table_that_an_erasure_did_not_find_is_not_made_of_rows_read_before() {
    let catalog = Shared::new().open().await;
    let before = seen(&catalog, &["s"]).await;
    let steps = vec![Step::Rewrite { table: main("t") }, Step::Clear];
    let job = catalog.begin_erasure(of(), "dpo", steps).await.unwrap();
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
