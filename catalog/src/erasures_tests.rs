//! Tests of erasures: journals, steps and certificates.

use super::*;
use crate::testing::Shared;

fn of() -> ErasureOf {
    let table = ObjectName::new("main", "crm");
    ErasureOf {
        subject: Subject {
            name: "person".into(),
            keys: vec![SubjectKey { table, column: "id".into() }],
            via: None,
            owner: "dpo".into(),
            created_ms: 0,
        },
        ids: BTreeSet::from(["u-1".to_owned()]),
        only: None,
        entity: None,
        tokens: vec!["00".into()],
    }
}

fn report() -> StepReport {
    StepReport { rows: 1, objects: 2, ..StepReport::new("table main.crm", "rewritten") }
}

#[tokio::test]
async fn an_erasure_is_ended_by_another_server_and_then_knows_nobody() {
    let shared = Shared::new();
    let (one, other) = (shared.open().await, shared.open().await);
    let table = ObjectName::new("main", "crm");
    let steps = vec![Step::Rewrite { table }, Step::Clear];
    let job = one.begin_erasure(of(), "dpo", steps).await.unwrap();
    assert!(!format!("{job:?}").contains("u-1"));
    one.end_step(&job.id, 0, &report()).await.unwrap();
    assert!(one.end_erasure(&job, vec![]).await.is_err());
    let (left, fault) = other.open_erasures().await.unwrap();
    assert!(fault.is_none());
    let [left]: [ErasureJob; 1] = left.try_into().unwrap();
    assert_eq!(left, job);
    assert_eq!(other.step_report(&job.id, 0).await.unwrap(), Some(report()));
    assert_eq!(other.step_report(&job.id, 1).await.unwrap(), None);
    let [running]: [Erasure; 1] = other.erasures().await.unwrap().try_into().unwrap();
    assert_eq!((running.steps, running.signed), ([2, 1], None));
    other.end_step(&job.id, 1, &report()).await.unwrap();
    let signed = other.end_erasure(&job, vec!["a view".into()]).await.unwrap();
    // Ended twice, it is the same.
    assert_eq!(one.end_erasure(&job, vec![]).await.unwrap(), signed);
    assert!(one.open_erasures().await.unwrap().0.is_empty());
    assert_eq!(one.ended_erasures().await.unwrap(), BTreeSet::from([job.id.clone()]));
    let [done]: [Erasure; 1] = one.erasures().await.unwrap().try_into().unwrap();
    assert_eq!(done.signed, Some((signed.clone(), true)));
    assert_eq!(shared.paths("_attune/erasures").await.len(), 1);
    let place = one.erasure(&job.id).child(CERTIFICATE);
    let mut forged = signed;
    forged.certificate.by = "somebody".into();
    place.remove().await.unwrap();
    place.create(to_bytes(&place, &forged).unwrap()).await.unwrap();
    let [found]: [Erasure; 1] = one.erasures().await.unwrap().try_into().unwrap();
    assert_eq!(found.signed.map(|(_, is_sound)| is_sound), Some(false));
}

#[tokio::test]
async fn who_copies_rows_learns_of_an_erasure_that_may_have_missed_them() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let subjects = BTreeSet::from(["person"]);
    let before = catalog.ended_erasures().await.unwrap();
    let table = ObjectName::new("main", "crm");
    let steps = vec![Step::Rewrite { table }, Step::Clear];
    let job = catalog.begin_erasure(of(), "dpo", steps).await.unwrap();
    let since =
        async |subjects: &BTreeSet<&str>| catalog.erasure_since(&before, subjects).await.unwrap();
    // It looks for copies in its last step.
    assert_eq!(since(&subjects).await, None);
    catalog.end_step(&job.id, 0, &report()).await.unwrap();
    assert_eq!(since(&subjects).await.as_ref(), Some(&job.id));
    assert_eq!(since(&BTreeSet::from(["other"])).await, None);
    catalog.end_step(&job.id, 1, &report()).await.unwrap();
    catalog.end_erasure(&job, vec![]).await.unwrap();
    assert_eq!(since(&subjects).await.as_ref(), Some(&job.id));
    let now = catalog.ended_erasures().await.unwrap();
    assert_eq!(catalog.erasure_since(&now, &subjects).await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_journal_keeps_no_other_erasure_from_its_end() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let damaged = catalog.begin_erasure(of(), "dpo", vec![Step::Clear]).await.unwrap();
    let job = catalog.begin_erasure(of(), "dpo", vec![Step::Clear]).await.unwrap();
    let place = catalog.erasure(&damaged.id).child(JOB);
    place.remove().await.unwrap();
    place.create("{").await.unwrap();
    let (left, fault) = catalog.open_erasures().await.unwrap();
    assert_eq!(left, std::slice::from_ref(&job));
    assert!(matches!(fault, Some(Error::Corrupt { .. })), "{fault:?}");
    catalog.abandon_erasure(&job.id).await.unwrap();
    assert!(catalog.open_erasures().await.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_store_that_keeps_versions_is_found_out_by_what_is_written_now() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    assert!(!catalog.keeps_object_versions().await.unwrap());
    catalog.begin_erasure(of(), "dpo", vec![Step::Clear]).await.unwrap();
    assert!(!catalog.keeps_object_versions().await.unwrap());
    shared.store.keep_versions();
    assert!(catalog.keeps_object_versions().await.unwrap());
    // Who comes later knows it from the beginning.
    let shared = Shared::new();
    shared.store.keep_versions();
    assert!(shared.open().await.keeps_object_versions().await.unwrap());
}
