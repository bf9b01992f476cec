//! What the record promises: nothing acknowledged is lost, and every change of it is named.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use super::chain::to_hex;
use super::sign::Signer;
use super::writer::Writer;
use super::{Anchor, AuditConfig, AuditEntry, AuditStats, Event, Expected, FOLDER, Level, read};
use crate::store::{Place, Secret};
use crate::testing::Shared;
use crate::warehouse::Warehouse;
use crate::{Catalog, Error};

const HOUR_MS: i64 = 3_600_000;

async fn open(shared: &Shared) -> Arc<Catalog> {
    open_with(shared, |_| {}).await
}

async fn open_with(shared: &Shared, change: impl FnOnce(&mut AuditConfig)) -> Arc<Catalog> {
    let open = shared.open_with(|config| {
        config.audit.level = Level::All;
        config.audit.delay = Duration::from_millis(1);
        change(&mut config.audit);
    });
    open.await
}

fn entry(principal: &str) -> AuditEntry {
    AuditEntry { principal: principal.into(), kind: "select".into(), ..AuditEntry::default() }
}

/// Records an entry that is acknowledged once it is kept.
async fn keep(catalog: &Catalog, principal: &str) -> Result<(), Error> {
    let receipt = catalog.audit().record(entry(principal), true)?.unwrap();
    catalog.audit().kept(receipt).await
}

/// Appends to the record without a queue before it.
async fn writer(shared: &Shared) -> Writer {
    let warehouse = Arc::new(Warehouse::open(shared.place.clone(), None).await);
    Writer::new(warehouse, shared.clock.clock(), None, None)
}

async fn entries(catalog: &Catalog) -> Vec<AuditEntry> {
    let segments: Vec<Vec<AuditEntry>> = catalog.audit_entries().try_collect().await.unwrap();
    segments.concat()
}

async fn principals(catalog: &Catalog) -> Vec<String> {
    entries(catalog).await.into_iter().map(|entry| entry.principal).collect()
}

/// What is wrong with the record: the segment, the entry, and a sentence.
async fn faults(catalog: &Catalog) -> Vec<(u64, Option<u64>, String)> {
    let found = catalog.verify_audit(&Expected::default()).await.unwrap();
    let told = |fault: &super::Fault| (fault.segment, fault.sequence, fault.what.clone());
    found.faults.iter().map(told).collect()
}

fn folder(shared: &Shared) -> Place {
    shared.place.child(FOLDER)
}

async fn content(place: &Place) -> Bytes {
    place.read().await.unwrap()
}

async fn put(place: &Place, content: impl Into<Bytes>) {
    let content: Bytes = content.into();
    place.store.put(&place.path, content.into()).await.unwrap();
}

/// A record of so many segments with an entry each, and a checkpoint at its end.
async fn record(shared: &Shared, segments: u64) -> Arc<Catalog> {
    let catalog = open(shared).await;
    for number in 1..=segments {
        keep(&catalog, &format!("user{number}")).await.unwrap();
    }
    catalog.audit().flush().await.unwrap();
    assert_eq!(faults(&catalog).await, []);
    catalog
}

#[tokio::test]
async fn nothing_is_written_before_something_is_recorded() {
    let shared = Shared::new();
    let catalog = open(&shared).await;
    catalog.audit().flush().await.unwrap();
    assert!(shared.paths(FOLDER).await.is_empty());
    assert!(catalog.verify_audit(&Expected::default()).await.unwrap().is_absent());
    assert_eq!(catalog.audit().stats(), AuditStats::default());
    let off = open_with(&shared, |audit| audit.level = Level::Off).await;
    assert_eq!(off.audit().record(entry("ann"), true).unwrap(), None);
    keep(&catalog, "ann").await.unwrap();
    assert!(!catalog.verify_audit(&Expected::default()).await.unwrap().is_absent());
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_over_one_warehouse_write_one_chain_and_lose_nothing() {
    let shared = Shared::new();
    let (one, two) = (open(&shared).await, open(&shared).await);
    let writes = |catalog: Arc<Catalog>, name: &'static str| async move {
        for number in 0..40 {
            keep(&catalog, &format!("{name}{number}")).await.unwrap();
        }
    };
    tokio::join!(writes(Arc::clone(&one), "a"), writes(Arc::clone(&two), "b"));
    let kept = entries(&one).await;
    let sequences: Vec<u64> = kept.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, (1..=80).collect::<Vec<u64>>());
    let mut names: Vec<String> = kept.into_iter().map(|entry| entry.principal).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 80);
    assert_eq!(faults(&two).await, []);
    // Both sign with the secret that the first of them made.
    let found = two.verify_audit(&Expected::default()).await.unwrap();
    assert_eq!((found.keys.len(), found.entries, found.first), (1, 80, 1));
}

#[tokio::test]
async fn a_server_goes_on_where_another_was_killed() {
    let shared = Shared::new();
    let first = open(&shared).await;
    keep(&first, "ann").await.unwrap();
    // As after `kill -9`: no flush, no checkpoint.
    drop(first);
    let second = open(&shared).await;
    keep(&second, "bob").await.unwrap();
    assert_eq!(principals(&second).await, ["ann", "bob"]);
    assert_eq!(faults(&second).await, []);
}

#[tokio::test]
async fn a_server_that_is_killed_at_any_write_has_lost_nothing_that_it_acknowledged() {
    for writes in 0.. {
        let shared = Shared::new();
        let mut first = writer(&shared).await;
        shared.store.kill_after(writes);
        let mut acknowledged = Vec::new();
        for name in ["ann", "bob", "eve"] {
            match first.commit(&mut [entry(name)]).await {
                Ok(()) => acknowledged.push(name),
                Err(_) => break,
            }
        }
        drop(first);
        let was_killed = shared.store.revive();
        writer(&shared).await.commit(&mut [entry("after")]).await.unwrap();
        let catalog = open(&shared).await;
        acknowledged.push("after");
        assert_eq!(principals(&catalog).await, acknowledged, "{writes}");
        assert_eq!(faults(&catalog).await, [], "{writes}");
        if !was_killed {
            // A secret, its key and three segments.
            assert!(writes >= 5 && acknowledged.len() == 4, "{writes}");
            break;
        }
    }
}

#[tokio::test]
async fn a_removed_segment_is_named() {
    let shared = Shared::new();
    let catalog = record(&shared, 5).await;
    read::segment(&folder(&shared), 3).remove().await.unwrap();
    let told = faults(&catalog).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].0, told[0].1, told[0].2.as_str()), (3, Some(3), "it is missing"));
    for number in [1, 2] {
        read::segment(&folder(&shared), number).remove().await.unwrap();
    }
    let told = faults(&catalog).await;
    assert_eq!((told[0].0, told[0].1), (1, Some(1)));
    assert!(told[0].2.contains("up to segment 3 are missing"), "{told:?}");
}

#[tokio::test]
async fn a_changed_or_exchanged_segment_is_named() {
    let shared = Shared::new();
    let catalog = record(&shared, 5).await;
    let (two, four) = (read::segment(&folder(&shared), 2), read::segment(&folder(&shared), 4));
    let (kept_two, kept_four) = (content(&two).await, content(&four).await);
    let text = String::from_utf8(kept_two.to_vec()).unwrap();
    put(&two, text.replace("user2", "user7")).await;
    let told = faults(&catalog).await;
    assert_eq!((told[0].0, told[0].1), (2, Some(2)));
    assert!(told[0].2.contains("changed"), "{told:?}");
    put(&two, kept_four.clone()).await;
    put(&four, kept_two.clone()).await;
    let told = faults(&catalog).await;
    let segments: Vec<u64> = told.iter().map(|fault| fault.0).collect();
    assert_eq!(segments, [2, 4], "{told:?}");
    put(&two, kept_two).await;
    put(&four, kept_four).await;
    assert_eq!(faults(&catalog).await, []);
}

#[tokio::test]
async fn a_record_that_is_cut_short_of_its_checkpoint_is_found_out() {
    let shared = Shared::new();
    let catalog = record(&shared, 5).await;
    let found = catalog.verify_audit(&Expected::default()).await.unwrap();
    assert_eq!(found.checkpoint, 5);
    for number in [4, 5] {
        read::segment(&folder(&shared), number).remove().await.unwrap();
    }
    let told = faults(&catalog).await;
    assert_eq!((told[0].0, told[0].1), (5, Some(5)));
    assert!(told[0].2.contains("ends with segment 3"), "{told:?}");
    // Without the checkpoint only what was kept elsewhere tells.
    read::checkpoint(&folder(&shared), 5).remove().await.unwrap();
    assert_eq!(faults(&catalog).await, []);
    let expected = Expected { anchors: vec![found.last.unwrap()], ..Expected::default() };
    let told = catalog.verify_audit(&expected).await.unwrap().faults;
    assert_eq!((told.len(), told[0].sequence), (1, Some(5)));
}

#[tokio::test]
async fn a_chain_that_somebody_else_wrote_anew_is_found_out() {
    let (shared, forged) = (Shared::new(), Shared::new());
    let catalog = record(&shared, 3).await;
    let found = catalog.verify_audit(&Expected::default()).await.unwrap();
    let stranger = Secret::new("x".repeat(32));
    let forger = open_with(&forged, |audit| audit.secret = Some(stranger)).await;
    for name in ["user1", "nobody", "user3"] {
        keep(&forger, name).await.unwrap();
    }
    for number in 1..=3 {
        let (from, to) = (folder(&forged), folder(&shared));
        put(&read::segment(&to, number), content(&read::segment(&from, number)).await).await;
    }
    let told = faults(&catalog).await;
    assert!(told[0].2.contains("not believed"), "{told:?}");
    // With its key among the warehouse's own, the checkpoint and what is kept elsewhere tell.
    let signer = Signer::new(&Secret::new("x".repeat(32))).unwrap();
    let key = folder(&shared).child("keys").child(&format!("{}.json", signer.id()));
    put(&key, format!("{{\"format\":1,\"public\":\"{}\"}}", signer.public())).await;
    let told = faults(&catalog).await;
    assert_eq!((told.len(), told[0].0), (1, 3), "{told:?}");
    assert!(told[0].2.contains("written anew"), "{told:?}");
    let pinned = Expected { keys: found.keys, anchors: vec![found.last.unwrap()] };
    let told = catalog.verify_audit(&pinned).await.unwrap().faults;
    assert!(told.iter().any(|fault| fault.what.contains("not believed")), "{told:?}");
    assert!(told.iter().any(|fault| fault.what.contains("anchor")), "{told:?}");
}

#[tokio::test]
async fn a_checkpoint_that_vanished_is_missed() {
    let shared = Shared::new();
    let catalog = record(&shared, 2).await;
    keep(&catalog, "later").await.unwrap();
    read::checkpoint(&folder(&shared), 2).remove().await.unwrap();
    let told = faults(&catalog).await;
    assert_eq!((told.len(), told[0].0), (1, 2), "{told:?}");
    assert!(told[0].2.contains("checkpoint is missing"), "{told:?}");
}

#[tokio::test]
async fn recording_goes_on_after_damage_which_stays_visible() {
    let shared = Shared::new();
    drop(record(&shared, 2).await);
    put(&read::segment(&folder(&shared), 2), "nonsense").await;
    let catalog = open(&shared).await;
    keep(&catalog, "after").await.unwrap();
    let told = faults(&catalog).await;
    assert_eq!(told[0].0, 2, "{told:?}");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(matches!(
        catalog.audit_entries().try_collect::<Vec<_>>().await,
        Err(Error::Corrupt { .. })
    ));
}

#[tokio::test]
async fn a_warehouse_that_fails_is_told_and_tried_again() {
    let shared = Shared::new();
    let catalog = open(&shared).await;
    keep(&catalog, "before").await.unwrap();
    shared.store.refuse(FOLDER);
    assert!(keep(&catalog, "during").await.is_err());
    assert!(catalog.audit().failing().is_some());
    shared.store.heal();
    catalog.audit().flush().await.unwrap();
    assert!(catalog.audit().failing().is_none());
    assert_eq!(principals(&catalog).await, ["before", "during"]);
    let stats = catalog.audit().stats();
    assert_eq!((stats.kept, stats.waiting, stats.lost), (2, 0, 0));
    assert!(stats.failures > 0);
}

#[tokio::test]
async fn what_the_queue_cannot_hold_leaves_a_gap_in_the_record() {
    let shared = Shared::new();
    let catalog = open_with(&shared, |audit| audit.queue_max = 1).await;
    keep(&catalog, "first").await.unwrap();
    shared.store.refuse(FOLDER);
    // One is tried, one waits; what comes then is lost.
    let mut lost = 0;
    let _ = keep(&catalog, "tried").await;
    for _ in 0..5 {
        lost += u64::from(catalog.audit().record(entry("many"), false).is_err());
    }
    assert!(lost > 0);
    shared.store.heal();
    catalog.audit().flush().await.unwrap();
    let kept = entries(&catalog).await;
    let gaps: Vec<Option<u64>> =
        kept.iter().filter(|entry| entry.event == Event::Gap).map(|entry| entry.rows).collect();
    assert_eq!(gaps, [Some(lost)]);
    assert_eq!(catalog.audit().stats().lost, lost);
    assert_eq!(faults(&catalog).await, []);
}

#[tokio::test]
async fn the_retention_removes_the_oldest_and_leaves_a_chain_that_holds() {
    let shared = Shared::new();
    let keeps = |audit: &mut AuditConfig| audit.retention = Some(Duration::from_secs(7_200));
    let catalog = open_with(&shared, keeps).await;
    keep(&catalog, "old").await.unwrap();
    keep(&catalog, "old").await.unwrap();
    shared.clock.advance(3 * HOUR_MS);
    keep(&catalog, "new").await.unwrap();
    catalog.audit().flush().await.unwrap();
    let kept = entries(&catalog).await;
    assert_eq!(kept.iter().filter(|entry| entry.principal == "old").count(), 0);
    let removal = kept.iter().find(|entry| entry.event == Event::Removal).unwrap();
    assert_eq!(removal.rows, Some(2));
    let found = catalog.verify_audit(&Expected::default()).await.unwrap();
    assert_eq!(found.faults, []);
    assert_eq!((found.removed, found.first), (2, 3));
    // Who removes more than that is found out.
    read::segment(&folder(&shared), 3).remove().await.unwrap();
    let told = faults(&catalog).await;
    assert_eq!((told[0].0, told[0].1), (3, Some(3)));
    // A note that nobody signed removes nothing.
    let note = read::removal(&folder(&shared), 2);
    let text = String::from_utf8(content(&note).await.to_vec()).unwrap();
    put(&note, text.replace("\"sequence\":2", "\"sequence\":9")).await;
    assert!(faults(&catalog).await[0].2.contains("not valid"));
}

#[test]
fn an_anchor_is_read_as_it_is_shown() {
    let anchor = Anchor { sequence: 7, hash: to_hex(&[0xab; 32]) };
    assert_eq!(anchor.to_string().parse::<Anchor>().unwrap(), anchor);
    for wrong in ["", "7", "7:ab", "x:00", "-1:00"] {
        assert!(wrong.parse::<Anchor>().is_err(), "{wrong}");
    }
    assert_eq!("all".parse::<Level>().unwrap(), Level::All);
    assert!("everything".parse::<Level>().is_err());
}

#[tokio::test]
async fn a_segment_that_nothing_can_follow_is_told_and_may_be_removed() {
    let shared = Shared::new();
    let place = read::segment(&folder(&shared), u64::MAX);
    put(&place, "x").await;
    let catalog = open(&shared).await;
    let error = keep(&catalog, "ann").await.unwrap_err();
    assert!(error.to_string().contains("can follow it"), "{error}");
    place.remove().await.unwrap();
    catalog.audit().flush().await.unwrap();
    assert_eq!(principals(&catalog).await, ["ann"]);
}
