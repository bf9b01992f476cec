//! Tests of trainings that meet an erasure: nothing is published that it would miss.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::model::Standing;
use super::model_tests::{model, publication};
use crate::erasures::{ErasureOf, Step, StepReport};
use crate::testing::{Shared, main, person};
use crate::{Catalog, CreateMode, Result};

/// Forgets somebody of whom no model is known.
async fn forget(catalog: &Catalog) {
    let of = ErasureOf {
        subject: person(&["s"]),
        ids: BTreeSet::from(["gone".to_owned()]),
        only: None,
        entity: None,
        tokens: vec!["00".into()],
    };
    let steps = vec![Step::Rewrite { table: main("s") }, Step::Clear];
    let job = catalog.begin_erasure(of, "dpo", steps).await.unwrap();
    for (number, step) in job.steps.iter().enumerate() {
        if *step == Step::Clear {
            catalog.end_publications().await.unwrap();
        }
        let report = StepReport::new(step.object(), "done");
        catalog.end_step(&job.id, number, &report).await.unwrap();
    }
    catalog.end_erasure(&job, vec![]).await.unwrap();
}

/// What comes of a training that has begun before somebody was forgotten on another server.
async fn trained(shared: &Shared, reads: &str, mode: CreateMode) -> Result<u32> {
    let (catalog, other) = (shared.open().await, shared.open().await);
    let seen = catalog.see_erasures().await.unwrap();
    seen.set_reads(BTreeSet::from([main(reads)]), BTreeSet::new());
    let mut claim = catalog.claim_version(&main("m"), "ann", mode).await.unwrap();
    claim.knows(Arc::new(seen));
    forget(&other).await;
    catalog.publish(claim, model(1.0), publication(), Standing::default()).await
}

#[tokio::test]
async fn a_training_of_a_table_with_the_person_publishes_nothing_and_others_do() {
    let shared = Shared::new();
    let refused = trained(&shared, "s", CreateMode::New).await.unwrap_err();
    assert_eq!(refused.code(), "ATT-4005");
    let catalog = shared.open().await;
    assert!(catalog.model_versions().await.unwrap().is_empty());
    // Its model's head, or that there was none, was put anew meanwhile.
    let version = trained(&shared, "other", CreateMode::New).await.unwrap();
    let next = trained(&shared, "other", CreateMode::Replace).await.unwrap();
    assert!(version < next);
    let refused = trained(&shared, "s", CreateMode::Replace).await.unwrap_err();
    assert_eq!(refused.code(), "ATT-4005");
    let catalog = shared.open().await;
    assert_eq!(catalog.model_versions().await.unwrap(), [(main("m"), vec![version, next])]);
    catalog.load_model(&main("m"), Some(version)).await.unwrap();
}

#[tokio::test]
async fn a_training_is_not_taken_for_another_one_s() {
    let shared = Shared::new();
    let (one, other) = (shared.open().await, shared.open().await);
    let claim = one.claim_version(&main("m"), "ann", CreateMode::New).await.unwrap();
    let theirs = other.claim_version(&main("m"), "bob", CreateMode::New).await.unwrap();
    other.publish(theirs, model(2.0), publication(), Standing::default()).await.unwrap();
    other.end_publications().await.unwrap();
    let late = one.publish(claim, model(1.0), publication(), Standing::default()).await;
    assert!(late.unwrap_err().is_lost_race());
}

#[tokio::test]
async fn what_a_training_has_left_that_stopped_before_it_was_published_is_removed() {
    let shared = Shared::new();
    let (stopped, other) = (shared.open().await, shared.open().await);
    let claim = stopped.claim_version(&main("m"), "ann", CreateMode::New).await.unwrap();
    for file in ["manifest.json", "users.parquet"] {
        let place = shared.place.child("models/main.m/1").child(file);
        assert!(place.create("cut").await.unwrap());
    }
    // It may still be running.
    other.end_publications().await.unwrap();
    assert_eq!(shared.paths("models").await.len(), 3);
    shared.clock.advance(61_000);
    other.end_publications().await.unwrap();
    assert_eq!(shared.paths("models").await, Vec::<String>::new());
    let late = stopped.publish(claim, model(1.0), publication(), Standing::default()).await;
    assert!(late.unwrap_err().is_lost_race());
    assert!(other.model_versions().await.unwrap().is_empty());
    // A version that is published stays, also where its claim was left behind.
    let claim = other.claim_version(&main("m"), "ann", CreateMode::New).await.unwrap();
    let version = claim.version();
    let left = shared.place.child(&format!("models/main.m/{version}/claim.json"));
    let content = left.read().await.unwrap();
    other.publish(claim, model(1.0), publication(), Standing::default()).await.unwrap();
    assert!(left.create(content).await.unwrap());
    shared.clock.advance(61_000);
    other.end_publications().await.unwrap();
    shared.open().await.load_model(&main("m"), Some(version)).await.unwrap();
    assert!(left.read_if_exists().await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_training_has_left_is_removed_also_where_that_was_cut_short() {
    for writes in 0.. {
        let shared = Shared::new();
        let (stopped, other) = (shared.open().await, shared.open().await);
        let claim = stopped.claim_version(&main("m"), "ann", CreateMode::New).await.unwrap();
        for file in ["items.parquet", "manifest.json", "users.parquet"] {
            let place = shared.place.child("models/main.m/1").child(file);
            assert!(place.create("cut").await.unwrap());
        }
        shared.clock.advance(61_000);
        shared.store.kill_after(writes);
        let ended = other.end_publications().await;
        let was_killed = shared.store.revive();
        assert!(ended.is_ok() || was_killed, "after {writes} writes");
        shared.open().await.end_publications().await.unwrap();
        assert_eq!(shared.paths("models").await, Vec::<String>::new(), "after {writes} writes");
        drop(claim);
        if !was_killed {
            assert!(writes > 4, "a removal of {writes} writes");
            break;
        }
    }
}

#[tokio::test]
async fn what_a_training_writes_after_its_claim_was_taken_goes_with_it() {
    let shared = Shared::new();
    let (stopped, other) = (shared.open().await, shared.open().await);
    let claim = stopped.claim_version(&main("m"), "ann", CreateMode::New).await.unwrap();
    shared.clock.advance(61_000);
    other.end_publications().await.unwrap();
    let late = stopped.publish(claim, model(1.0), publication(), Standing::default()).await;
    assert!(late.unwrap_err().is_lost_race());
    for _ in 0..1_000 {
        if shared.paths("models").await.is_empty() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{:?} stay", shared.paths("models").await);
}
