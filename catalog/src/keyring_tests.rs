//! Keys of the warehouse: their life, what stays of them, and who can read them.

use std::path::Path;

use super::*;
use crate::testing::TestClock;
use crate::{CatalogConfig, KeyConfig, StoreConfig};

const MASTER: &str = "m0123456789abcdef0123456789abcdef";

async fn open(folder: &Path, clock: &TestClock, masters: &[&str]) -> Arc<Catalog> {
    let store = StoreConfig { url: folder.display().to_string(), ..StoreConfig::default() };
    let mut config = CatalogConfig::new(store, clock.clock());
    config.master_keys = masters.iter().map(|master| Secret::new(*master)).collect();
    config.keys = vec![KeyConfig::new("configured", None, Secret::new("0123456789abcdef"))];
    Catalog::open(config).await.unwrap()
}

async fn ids(catalog: &Catalog, name: &str) -> Vec<String> {
    let ring = catalog.key_ring(name, None).await.unwrap();
    ring.generations().map(|key| key.id().to_owned()).collect()
}

fn secrets(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("_attune/key_secrets")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_key_rotates_retires_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let catalog = open(folder.path(), &clock, &[MASTER]).await;
    assert!(catalog.create_key("emails", "dpo", false).await.unwrap());
    assert!(!catalog.create_key("emails", "dpo", true).await.unwrap());
    let again = catalog.create_key("emails", "dpo", false).await.unwrap_err();
    assert_eq!(again.to_string(), "key emails already exists");
    let first = ids(&catalog, "emails").await;
    assert!(first.len() == 1 && first[0].ends_with("-1"), "{first:?}");
    assert_eq!(catalog.rotate_key("emails", "dpo").await.unwrap(), 2);
    let both = ids(&catalog, "emails").await;
    assert!(both.len() == 2 && both[0].ends_with("-2") && both[1] == first[0], "{both:?}");
    let pinned = catalog.key_ring("emails", Some(1)).await.unwrap();
    assert_eq!(pinned.newest().id(), first[0]);
    // Another server reads the same, once it has looked.
    let other = open(folder.path(), &clock, &[MASTER]).await;
    assert_eq!(ids(&other, "emails").await, both);
    assert!(catalog.retire_generation("emails", 2).await.is_err());
    catalog.retire_generation("emails", 1).await.unwrap();
    catalog.retire_generation("emails", 1).await.unwrap();
    assert_eq!(secrets(folder.path()), 1);
    assert_eq!(ids(&catalog, "emails").await, both[..1]);
    assert!(catalog.key_ring("emails", Some(1)).await.is_err());
    clock.advance(1_000);
    assert_eq!(ids(&other, "emails").await, both[..1]);
    assert!(other.drop_key("emails").await.unwrap() && !other.drop_key("emails").await.unwrap());
    assert_eq!(secrets(folder.path()), 0);
    clock.advance(1_000);
    assert!(matches!(catalog.key_ring("emails", None).await, Err(Error::NotFound { .. })));
    // A key of an old name is another key.
    catalog.create_key("emails", "dpo", false).await.unwrap();
    assert_ne!(ids(&catalog, "emails").await, first);
}

#[tokio::test]
async fn without_its_master_key_a_key_is_not_made_and_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let none = open(folder.path(), &clock, &[]).await;
    let error = none.create_key("emails", "dpo", false).await.unwrap_err();
    assert!(error.hint().unwrap().contains("master_key_file"), "{error}");
    assert_eq!(secrets(folder.path()), 0);
    let with = open(folder.path(), &clock, &[MASTER]).await;
    with.create_key("emails", "dpo", false).await.unwrap();
    let made = ids(&with, "emails").await;
    clock.advance(1_000);
    let other = "another master key of enough bytes";
    for (masters, reads) in [(vec![], false), (vec![other], false), (vec![other, MASTER], true)] {
        let catalog = open(folder.path(), &clock, &masters).await;
        match catalog.key_ring("emails", None).await {
            Ok(ring) => assert!(reads && ring.newest().id() == made[0]),
            Err(error) => {
                assert!(!reads && error.to_string().contains("is not configured"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn the_warehouse_alone_tells_no_secret_and_a_copied_one_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let catalog = open(folder.path(), &clock, &[MASTER]).await;
    catalog.create_key("mine", "eve", false).await.unwrap();
    catalog.create_key("theirs", "dpo", false).await.unwrap();
    let stored = catalog.stored_keys().await.unwrap();
    let file = |name: &str| {
        let secret = &stored[name].generations[0].secret;
        folder.path().join(format!("_attune/key_secrets/{secret}.json"))
    };
    let content = std::fs::read_to_string(file("theirs")).unwrap();
    assert!(!content.contains(MASTER) && content.contains("wrapped"), "{content}");
    std::fs::copy(file("theirs"), file("mine")).unwrap();
    let error = catalog.key_ring("mine", None).await.unwrap_err();
    assert!(error.to_string().contains("copied from another key"), "{error}");
    assert!(catalog.key_ring("theirs", None).await.is_ok());
}

#[tokio::test]
async fn keys_of_the_configuration_are_not_changed_and_not_shadowed() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let catalog = open(folder.path(), &clock, &[MASTER]).await;
    assert!(!catalog.create_key("configured", "dpo", true).await.unwrap());
    assert!(catalog.create_key("configured", "dpo", false).await.is_err());
    assert!(catalog.rotate_key("configured", "dpo").await.is_err());
    assert!(catalog.drop_key("configured").await.is_err());
    assert!(catalog.key_ring("configured", Some(1)).await.is_ok());
    assert!(catalog.key_ring("configured", Some(2)).await.is_err());
    for name in ["", "a@1", "a b", "é", &"k".repeat(65)] {
        assert!(catalog.create_key(name, "dpo", false).await.is_err(), "{name}");
    }
    // A name that the configuration takes later is neither's.
    catalog.create_key("later", "dpo", false).await.unwrap();
    let store = StoreConfig { url: folder.path().display().to_string(), ..StoreConfig::default() };
    let mut config = CatalogConfig::new(store, clock.clock());
    config.master_keys = vec![Secret::new(MASTER)];
    let secret = Secret::new("0123456789abcdef");
    config.keys = vec![KeyConfig::new("later", None, secret)];
    let error = Catalog::open(config).await.unwrap().key_ring("later", None).await.unwrap_err();
    assert!(error.to_string().contains("both"), "{error}");
}

#[tokio::test]
async fn two_rotations_at_once_are_two_generations_or_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let one = open(folder.path(), &clock, &[MASTER]).await;
    let two = open(folder.path(), &clock, &[MASTER]).await;
    one.create_key("k", "dpo", false).await.unwrap();
    let (a, b) = tokio::join!(one.rotate_key("k", "dpo"), two.rotate_key("k", "dpo"));
    let done = usize::from(a.is_ok()) + usize::from(b.is_ok());
    for failed in [a, b].into_iter().filter_map(Result::err) {
        assert!(matches!(failed, Error::Conflict { .. }), "{failed}");
    }
    clock.advance(1_000);
    let found = ids(&one, "k").await;
    assert!(done >= 1 && found.len() == 1 + done && secrets(folder.path()) == 1 + done);
}

#[tokio::test]
async fn a_key_goes_over_to_another_master_key() {
    const NEXT: &str = "n0123456789abcdef0123456789abcdef";
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let old = open(folder.path(), &clock, &[MASTER]).await;
    old.create_key("emails", "dpo", false).await.unwrap();
    old.rotate_key("emails", "dpo").await.unwrap();
    old.rotate_key("emails", "dpo").await.unwrap();
    old.retire_generation("emails", 1).await.unwrap();
    let made = ids(&old, "emails").await;
    assert_eq!(old.rewrap_key("emails").await.unwrap(), 0);
    clock.advance(1_000);
    // Without the old master key nothing is wrapped anew, and nothing is left behind.
    let early = open(folder.path(), &clock, &[NEXT]).await;
    let error = early.rewrap_key("emails").await.unwrap_err();
    assert!(error.hint().unwrap().contains("master_key_file"), "{error}");
    assert_eq!(secrets(folder.path()), 2);
    let both = open(folder.path(), &clock, &[NEXT, MASTER]).await;
    // Another server has read the document, and not yet the secrets.
    let late = open(folder.path(), &clock, &[NEXT, MASTER]).await;
    assert!(late.has_stored_key("emails").await.unwrap());
    assert_eq!(both.rewrap_key("emails").await.unwrap(), 2);
    assert_eq!(both.rewrap_key("emails").await.unwrap(), 0);
    assert_eq!(secrets(folder.path()), 2);
    assert_eq!(ids(&late, "emails").await, made);
    clock.advance(1_000);
    let new = open(folder.path(), &clock, &[NEXT]).await;
    assert_eq!(ids(&new, "emails").await, made);
    let before = old.key_ring("emails", Some(3)).await.unwrap();
    let after = new.key_ring("emails", Some(3)).await.unwrap();
    assert_eq!(before.newest().id(), after.newest().id());
    assert!(matches!(new.rewrap_key("phones").await, Err(Error::NotFound { .. })));
    assert!(new.rewrap_key("configured").await.is_err());
}
