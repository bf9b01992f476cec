//! Tests of definitions: races, restarts, damage; on a disk and on a store in memory.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStoreExt;

use super::head::{Heads, encode, key};
use super::*;
use crate::lake::{Format, LakeTable};
use crate::testing::{Shared, TestClock, main};
use crate::{Pii, StoreConfig, Stores};

fn view(sql: &str) -> Spec {
    Spec::View { sql: sql.into(), columns: vec![] }
}

fn on_disk(folder: &std::path::Path) -> Place {
    let config = StoreConfig { url: folder.display().to_string(), ..StoreConfig::default() };
    Stores::default().open(&config).unwrap()
}

/// Runs a test on both kinds of stores.
async fn everywhere<F: AsyncFn(Place, TestClock)>(test: F) {
    let shared = Shared::new();
    test(shared.place.clone(), shared.clock.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    test(on_disk(folder.path()), TestClock::default()).await;
}

#[tokio::test]
async fn what_one_creates_another_finds_at_once() {
    everywhere(async |place, clock| {
        let one = Registry::new(place.clone(), clock.clock());
        let two = Registry::new(place.clone(), clock.clock());
        assert!(two.definitions().await.unwrap().is_empty());
        assert!(one.create(&main("v"), view("1"), "ann", CreateMode::New).await.unwrap());
        let found = two.find(&main("v")).await.unwrap().unwrap();
        assert_eq!((found.spec, found.owner.as_str()), (view("1"), "ann"));
        let restarted = Registry::new(place, clock.clock());
        assert_eq!(restarted.definitions().await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_change_is_seen_after_a_second_at_most() {
    everywhere(async |place, clock| {
        let one = Registry::new(place.clone(), clock.clock());
        let two = Registry::new(place, clock.clock());
        one.create(&main("v"), view("1"), "ann", CreateMode::New).await.unwrap();
        two.definitions().await.unwrap();
        one.create(&main("v"), view("2"), "bob", CreateMode::Replace).await.unwrap();
        clock.advance(1_000);
        let seen = two.find(&main("v")).await.unwrap().unwrap();
        assert_eq!((seen.spec, seen.owner.as_str()), (view("2"), "bob"));
        one.drop_object(&main("v"), Kind::View).await.unwrap();
        clock.advance(1_000);
        assert!(two.find(&main("v")).await.unwrap().is_none());
        assert!(two.definitions().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn of_two_who_saw_the_same_head_one_loses() {
    everywhere(async |place, clock| {
        let one = Registry::new(place.clone(), clock.clock());
        let two = Registry::new(place, clock.clock());
        for round in 0..3 {
            let name = main("v");
            let seen_one = one.head(&name).await.unwrap();
            let seen_two = two.head(&name).await.unwrap();
            let spec = view(&round.to_string());
            one.put(&name, Some(spec.clone()), "one", seen_one.as_ref()).await.unwrap();
            let lost = two.put(&name, Some(view("lost")), "two", seen_two.as_ref()).await;
            assert!(matches!(lost, Err(Error::Conflict { .. })), "{lost:?}");
            assert_eq!(two.read(&name).await.unwrap().unwrap().spec, spec);
        }
    })
    .await;
}

#[tokio::test]
async fn many_creates_of_one_name_make_it_once() {
    everywhere(async |place, clock| {
        let tries = (0..8).map(|index| {
            let registry = Registry::new(place.clone(), clock.clock());
            async move {
                let spec = view(&index.to_string());
                registry.create(&main("v"), spec, "x", CreateMode::New).await
            }
        });
        let results = futures::future::join_all(tries).await;
        let made = results.iter().filter(|result| matches!(result, Ok(true))).count();
        let taken = |result: &&Result<bool>| matches!(result, Err(Error::AlreadyExists { .. }));
        assert_eq!((made, results.iter().filter(taken).count()), (1, 7), "{results:?}");
    })
    .await;
}

#[tokio::test]
async fn a_dropped_name_can_be_used_again_and_kinds_are_told_apart() {
    everywhere(async |place, clock| {
        let registry = Registry::new(place, clock.clock());
        let name = main("x");
        for round in 0..20 {
            let spec = view(&round.to_string());
            assert!(registry.create(&name, spec, "ann", CreateMode::New).await.unwrap());
            let wrong = registry.drop_object(&name, Kind::Table).await.unwrap_err();
            assert!(wrong.to_string().contains("is a view"), "{wrong}");
            assert!(registry.drop_object(&name, Kind::View).await.unwrap());
            assert!(!registry.drop_object(&name, Kind::View).await.unwrap());
        }
        assert!(registry.find(&name).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn if_not_exists_leaves_what_is_there() {
    everywhere(async |place, clock| {
        let registry = Registry::new(place, clock.clock());
        let mode = CreateMode::IfNotExists;
        assert!(registry.create(&main("v"), view("1"), "ann", mode).await.unwrap());
        assert!(!registry.create(&main("v"), view("2"), "bob", mode).await.unwrap());
        assert_eq!(registry.find(&main("v")).await.unwrap().unwrap().spec, view("1"));
        let table = Spec::Managed(ManagedTable::new("tables/x", vec![]));
        assert!(registry.create(&main("v"), table, "bob", mode).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_damaged_or_newer_document_stands_alone() {
    everywhere(async |place, clock| {
        let registry = Registry::new(place.clone(), clock.clock());
        for name in ["good", "bad", "newer"] {
            registry.create(&main(name), view("1"), "ann", CreateMode::New).await.unwrap();
        }
        let heads = Heads::new(place.clone());
        for (name, content) in [("bad", "{\"format\":1,"), ("newer", "{\"format\": 99}")] {
            let key = key("main", name);
            let (_, revision) = heads.read(&key).await.unwrap().unwrap();
            let content = Bytes::from_static(content.as_bytes());
            heads.write(&key, content, Some(&revision)).await.unwrap().unwrap();
        }
        let restarted = Registry::new(place, clock.clock());
        assert_eq!(restarted.definitions().await.unwrap().len(), 1);
        assert!(restarted.find(&main("good")).await.unwrap().is_some());
        for (name, part) in [("bad", "main.bad"), ("newer", "format 99")] {
            let error = restarted.find(&main(name)).await.unwrap_err();
            assert!(matches!(&error, Error::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(part), "{error}");
            assert!(restarted.drop_object(&main(name), Kind::View).await.unwrap());
            assert!(restarted.create(&main(name), view("2"), "a", CreateMode::New).await.unwrap());
        }
    })
    .await;
}

#[tokio::test]
async fn a_writer_that_slept_through_many_changes_loses() {
    let folder = tempfile::tempdir().unwrap();
    let heads = Heads::new(on_disk(folder.path()));
    let mut seen = None;
    for number in 0..30_u8 {
        let slept = seen.clone();
        let written = heads.write("main.x", Bytes::from(vec![number]), seen.as_ref()).await;
        seen = Some(written.unwrap().unwrap());
        // Nobody who saw any older state can write, also when its next number was pruned.
        let lost = heads.write("main.x", Bytes::from_static(b"lost"), slept.as_ref()).await;
        assert_eq!(lost.unwrap(), None);
        let first = heads.write("main.x", Bytes::from_static(b"lost"), None).await;
        assert_eq!(first.unwrap(), None);
    }
    let (content, _) = heads.read("main.x").await.unwrap().unwrap();
    assert_eq!(content.as_ref(), [29]);
    let kept = std::fs::read_dir(folder.path().join("main.x")).unwrap().count();
    assert!(kept <= 8, "{kept}");
}

#[tokio::test]
async fn a_failed_write_is_an_error_and_changes_nothing() {
    let shared = Shared::new();
    let registry = Registry::new(shared.place.clone(), shared.clock.clock());
    registry.create(&main("v"), view("1"), "ann", CreateMode::New).await.unwrap();
    shared.store.refuse("main.v");
    let replaced = registry.create(&main("v"), view("2"), "ann", CreateMode::Replace).await;
    assert!(matches!(replaced, Err(Error::Store { .. })), "{replaced:?}");
    shared.store.heal();
    assert_eq!(registry.read(&main("v")).await.unwrap().unwrap().spec, view("1"));
}

#[tokio::test]
async fn unchanged_documents_are_not_read_again() {
    let shared = Shared::new();
    let registry = Registry::new(shared.place.clone(), shared.clock.clock());
    registry.create(&main("v"), view("1"), "ann", CreateMode::New).await.unwrap();
    shared.clock.advance(2_000);
    registry.definitions().await.unwrap();
    let before = registry.snapshot.read().entries.clone();
    shared.clock.advance(2_000);
    registry.definitions().await.unwrap();
    let after = registry.snapshot.read().entries.clone();
    let document = |entries: &BTreeMap<String, Entry>| {
        Arc::as_ptr(&entries[&key("main", "v")].head.document.clone().unwrap())
    };
    assert_eq!(document(&before), document(&after));
}

#[test]
fn keys_are_unique_and_short() {
    assert_eq!(encode("Ab.c/é"), "=41b=2ec=2f=c3=a9");
    let long = "名".repeat(255);
    let other = format!("{}x", "名".repeat(254));
    assert_ne!(key("main", &long), key("main", &other));
    assert!(key("main", &long).len() <= 180);
    assert_ne!(key("a.b", "c"), key("a", "b.c"));
    assert_ne!(key("A", "b"), key("a", "b"));
}

#[tokio::test]
async fn names_of_any_script_are_kept_apart_on_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(on_disk(folder.path()), TestClock::default().clock());
    let names = ["t", "T", "../x", "名前", "a b", "%41", ".", "é", "e\u{301}"];
    for name in names {
        registry.create(&main(name), view(name), "ann", CreateMode::New).await.unwrap();
    }
    let restarted = Registry::new(on_disk(folder.path()), TestClock::default().clock());
    for name in names {
        assert_eq!(restarted.find(&main(name)).await.unwrap().unwrap().spec, view(name));
    }
    let outside = on_disk(folder.path());
    assert!(outside.store.head(&outside.path.clone().join("x")).await.is_err());
}

#[tokio::test]
async fn the_past_of_a_definition_that_names_somebody_is_emptied() {
    everywhere(async |place, clock| {
        let registry = Registry::new(place.clone(), clock.clock());
        let named = view("SELECT * FROM t WHERE id <> 'ann-4711'");
        for (name, states) in [("v", vec![named.clone(), view("1")]), ("w", vec![view("2")])] {
            for state in states {
                registry.create(&main(name), state, "ann", CreateMode::Replace).await.unwrap();
            }
        }
        registry.create(&main("x"), named.clone(), "ann", CreateMode::New).await.unwrap();
        registry.drop_object(&main("x"), Kind::View).await.unwrap();
        registry.create(&main("y"), named.clone(), "ann", CreateMode::New).await.unwrap();
        registry.blank_naming(&BTreeSet::from(["ann-4711".to_owned()])).await.unwrap();
        let mut holding = Vec::new();
        let objects: Vec<_> = place.store.list(Some(&place.path)).try_collect().await.unwrap();
        for object in objects {
            let content = place.store.get(&object.location).await.unwrap().bytes().await.unwrap();
            if String::from_utf8_lossy(&content).contains("ann-4711") {
                holding.push(object.location.to_string());
            }
        }
        // What holds now stays as it is.
        assert!(holding.len() == 1 && holding[0].contains("main.y"), "{holding:?}");
        let restarted = Registry::new(place, clock.clock());
        for (name, spec) in [("v", Some(view("1"))), ("x", None), ("y", Some(named))] {
            let found = restarted.read(&main(name)).await.unwrap();
            assert_eq!(found.map(|found| found.spec), spec, "{name}");
        }
        assert!(restarted.create(&main("x"), view("3"), "bob", CreateMode::New).await.unwrap());
    })
    .await;
}

#[test]
fn what_an_older_version_would_overlook_it_refuses() {
    let table = LakeTable::new("clicks/", Format::Csv);
    let pii = Pii {
        columns: vec!["email".into()],
        key: "web".into(),
        key_id: Some("ab-1".into()),
        table: "who".into(),
    };
    let format_of = |table: LakeTable| {
        let document = Document::new(&main("clicks"), "eve", 0, Some(Spec::External(table)));
        let bytes = document.to_bytes().unwrap();
        assert_eq!(Document::parse("it", &bytes).unwrap(), document);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        value["format"].as_u64()
    };
    assert_eq!(format_of(table.clone()), Some(1));
    assert_eq!(format_of(LakeTable { pii: Some(pii), ..table }), Some(2));
}
