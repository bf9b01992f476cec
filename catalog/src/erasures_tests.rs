//! Tests of erasures: journals, steps and certificates.

use super::*;
use crate::testing::{Shared, person};

fn of() -> ErasureOf {
    ErasureOf {
        subject: person(&["crm"]),
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
    let [done]: [Erasure; 1] = one.erasures().await.unwrap().try_into().unwrap();
    assert_eq!(done.signed, Some((signed.clone(), Some(true))));
    assert_eq!(shared.paths("_attune/erasures").await.len(), 1);
    let place = one.erasure(&job.id).child(CERTIFICATE);
    let mut forged = signed;
    forged.certificate.by = "somebody".into();
    put(&place, &to_bytes(&place, &forged).unwrap()).await;
    let [found]: [Erasure; 1] = one.erasures().await.unwrap().try_into().unwrap();
    assert_eq!(found.signed.map(|(_, is_sound)| is_sound), Some(Some(false)));
}

async fn put(place: &Place, content: &[u8]) {
    place.remove().await.unwrap();
    assert!(place.create(content.to_vec()).await.unwrap());
}

#[tokio::test]
async fn whoever_has_the_public_key_checks_a_certificate_without_the_warehouse() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let job = catalog.begin_erasure(of(), "dpo", vec![Step::Clear]).await.unwrap();
    catalog.end_step(&job.id, 0, &report()).await.unwrap();
    let signed = catalog.end_erasure(&job, vec![]).await.unwrap();
    // What they are given: the certificate as JSON, and the key that `audit verify` shows.
    let given: serde_json::Value =
        serde_json::from_str(&serde_json::to_string(&signed).unwrap()).unwrap();
    let verified = catalog.verify_audit(&crate::audit::Expected::default()).await.unwrap();
    let [public]: [String; 1] = verified.keys.try_into().unwrap();
    let written = serde_json::to_string(&signed.certificate).unwrap();
    let message = format!("attune erasure certificate 1\n{written}");
    let mut believed = PublicKeys::default();
    believed.add(&public).unwrap();
    let (key, signature) = (given["key"].as_str().unwrap(), given["signature"].as_str().unwrap());
    assert_eq!(believed.holds(key, message.as_bytes(), signature), Ok(()));
    let other = message.replace("dpo", "ceo");
    assert!(believed.holds(key, other.as_bytes(), signature).is_err());
    assert!(PublicKeys::default().holds(key, message.as_bytes(), signature).is_err());
}

#[tokio::test]
async fn a_certificate_of_an_earlier_version_is_read_and_says_nothing_of_its_signature() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let job = catalog.begin_erasure(of(), "dpo", vec![Step::Clear]).await.unwrap();
    catalog.end_step(&job.id, 0, &report()).await.unwrap();
    let signed = catalog.end_erasure(&job, vec![]).await.unwrap();
    let mut earlier = serde_json::to_value(&signed).unwrap();
    earlier.as_object_mut().unwrap().remove("key").unwrap();
    let place = catalog.erasure(&job.id).child(CERTIFICATE);
    put(&place, &serde_json::to_vec(&earlier).unwrap()).await;
    let [found]: [Erasure; 1] = catalog.erasures().await.unwrap().try_into().unwrap();
    let (read, is_sound) = found.signed.unwrap();
    assert_eq!((read.certificate, read.key, is_sound), (signed.certificate, None, None));
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
async fn whether_an_erasure_goes_on_is_decided_once() {
    let shared = Shared::new();
    let (one, other) = (shared.open().await, shared.open().await);
    let job = one.begin_erasure(of(), "dpo", vec![Step::Clear]).await.unwrap();
    assert_eq!(other.erasure_decision(&job).await.unwrap(), None);
    assert!(one.decide_erasure(&job.id, true).await.unwrap());
    assert!(other.decide_erasure(&job.id, false).await.unwrap());
    assert_eq!(other.erasure_decision(&job).await.unwrap(), Some(true));
    one.end_step(&job.id, 0, &report()).await.unwrap();
    one.end_erasure(&job, vec![]).await.unwrap();
    // The certificate alone stays.
    assert_eq!(shared.paths("_attune/erasures").await.len(), 1);

    let given_up = one.begin_erasure(of(), "dpo", vec![Step::Clear]).await.unwrap();
    assert!(!other.decide_erasure(&given_up.id, false).await.unwrap());
    assert!(!one.decide_erasure(&given_up.id, true).await.unwrap());
    one.abandon_erasure(&given_up.id).await.unwrap();
    // Whoever has read the journal before does not begin.
    let late = other.decide_erasure(&given_up.id, true).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
    assert_eq!(shared.paths("_attune/erasures").await.len(), 1);
}

#[tokio::test]
async fn a_journal_of_an_earlier_version_goes_on_where_a_step_is_done() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let job = catalog.begin_erasure(of(), "dpo", vec![Step::Clear, Step::Clear]).await.unwrap();
    assert_eq!(catalog.erasure_decision(&job).await.unwrap(), None);
    catalog.end_step(&job.id, 0, &report()).await.unwrap();
    assert_eq!(catalog.erasure_decision(&job).await.unwrap(), Some(true));
}

#[tokio::test]
async fn a_store_that_keeps_versions_is_found_out_by_what_is_written_now() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    assert_eq!(catalog.versioning().await.unwrap(), Versioning::Off);
    catalog.begin_erasure(of(), "dpo", vec![Step::Clear]).await.unwrap();
    assert_eq!(catalog.versioning().await.unwrap(), Versioning::Off);
    shared.store.keep_versions();
    assert_eq!(catalog.versioning().await.unwrap(), Versioning::Enabled);
    // Who comes later knows it from the beginning.
    let shared = Shared::new();
    shared.store.keep_versions();
    let later = shared.open().await;
    assert_eq!(later.versioning().await.unwrap(), Versioning::Enabled);
}
