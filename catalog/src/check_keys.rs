//! The different values of columns in each file of a table, as keys under a secret: what checks of
//! uniqueness keep, so that they read new files alone.
//!
//! Keys of one file lie in one object of the warehouse, behind a checksum. They are a fact about a
//! file that does not change, so they need no agreement: an object that is gone or damaged is one
//! whose file is read again. The secret is one for the warehouse: what was kept under another is
//! of no use. Objects go with their table, and with their file once the table is checked again.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::registry::ObjectName;
use crate::registry::head::key;
use crate::store::Place;
use crate::warehouse::remove_all;

/// What an object begins with; another number is another form.
const MAGIC: &[u8; 8] = b"ATCHKKY2";
/// Bytes of a checksum.
const DIGEST_BYTES: usize = 32;
/// Objects that are read or written at a time.
const AT_ONCE: usize = 8;

impl Catalog {
    /// The secret under which keys are made, which is made when there is none.
    ///
    /// # Errors
    /// When the warehouse cannot be reached or, to make it, not written.
    pub async fn check_secret(&self) -> Result<[u8; 16]> {
        let place = self.warehouse.place().child("_attune/check_secret");
        let content = match place.read_if_exists().await? {
            Some(content) => content,
            None => {
                self.writable().await?;
                let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
                let random = random.map(uuid::Uuid::into_bytes).concat();
                if !place.create(Bytes::from(random)).await? {
                    tracing::debug!("another server made the secret of checks");
                }
                place.read().await?
            }
        };
        let digest = Sha256::digest(&content);
        match digest.as_slice().first_chunk::<16>() {
            Some(secret) if content.len() == 32 => Ok(*secret),
            _ => Err(Error::Corrupt {
                what: place.url.to_string(),
                reason: "it is no secret of checks".into(),
            }),
        }
    }

    /// The keys of these names that are kept for a table and can be read.
    pub async fn check_keys(
        &self,
        table: &ObjectName,
        names: Vec<String>,
    ) -> HashMap<String, Bytes> {
        let folder = self.keys_of(table);
        let places = names.into_iter().map(|name| (folder.child(&name), name));
        let places: Vec<(Place, String)> = places.collect();
        let found = futures::stream::iter(places.into_iter().map(found)).buffer_unordered(AT_ONCE);
        found.filter_map(std::future::ready).collect().await
    }

    /// Keeps keys under their names.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn keep_check_keys(
        &self,
        table: &ObjectName,
        made: Vec<(String, Bytes)>,
    ) -> Result<()> {
        self.writable().await?;
        let folder = self.keys_of(table);
        let made = made.into_iter().map(|(name, keys)| (folder.child(&name), keys));
        let made: Vec<(Place, Bytes)> = made.collect();
        let puts = futures::stream::iter(made.into_iter().map(put)).buffer_unordered(AT_ONCE);
        puts.try_collect::<()>().await
    }

    /// Removes the keys of a table that have other names than these.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn keep_only_check_keys(
        &self,
        table: &ObjectName,
        names: &BTreeSet<String>,
    ) -> Result<()> {
        let folder = self.keys_of(table);
        let wrong = |error: object_store::Error| Error::store(folder.url.as_str(), &error);
        let listed: Vec<_> = folder.store.list(Some(&folder.path)).collect().await;
        for object in listed {
            let object = match object {
                Ok(object) => object,
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(wrong(error)),
            };
            if object.location.filename().is_some_and(|name| names.contains(name)) {
                continue;
            }
            match folder.store.delete(&object.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(wrong(error)),
            }
        }
        Ok(())
    }

    /// Forgets the keys of a table that goes.
    pub(crate) async fn forget_check_keys(&self, table: &ObjectName) -> Result<()> {
        remove_all(&self.keys_of(table)).await
    }

    fn keys_of(&self, table: &ObjectName) -> Place {
        let name = format!("_attune/check_keys/{}", key(&table.schema, &table.name));
        self.warehouse.place().child(&name)
    }
}

/// What is kept at a place, with its name.
async fn found((place, name): (Place, String)) -> Option<(String, Bytes)> {
    match place.read_if_exists().await {
        Ok(Some(content)) => match sound(&content) {
            Some(keys) => Some((name, keys)),
            None => {
                tracing::warn!(url = %place.url, "keys of a file cannot be read");
                None
            }
        },
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%error, "keys of a file were not read");
            None
        }
    }
}

/// The keys in an object; `None` when it holds other bytes.
fn sound(content: &Bytes) -> Option<Bytes> {
    let (digest, keys) = content.strip_prefix(MAGIC)?.split_at_checked(DIGEST_BYTES)?;
    let is_sound = Sha256::digest(keys).as_slice() == digest;
    is_sound.then(|| content.slice(MAGIC.len() + DIGEST_BYTES..))
}

async fn put((place, keys): (Place, Bytes)) -> Result<()> {
    let digest = Sha256::digest(&keys);
    let head = Bytes::from([MAGIC.as_slice(), digest.as_slice()].concat());
    let put = place.store.put(&place.path, PutPayload::from_iter([head, keys])).await;
    put.map(|_| ()).map_err(|error| Error::store(place.url.as_str(), &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Shared;

    #[tokio::test]
    async fn keys_are_kept_by_table_and_name() {
        let shared = Shared::new();
        let (one, other) = (shared.open().await, shared.open().await);
        let (table, beside) = (ObjectName::new("main", "t"), ObjectName::new("main", "t2"));
        let names = ["a", "b", "c"].map(str::to_owned);
        let made = [("a", "first"), ("b", "second")];
        let made = made.map(|(name, keys)| (name.to_owned(), Bytes::from(keys)));
        one.keep_check_keys(&table, made.to_vec()).await.unwrap();
        one.keep_check_keys(&beside, made.to_vec()).await.unwrap();
        let found = other.check_keys(&table, names.to_vec()).await;
        assert_eq!(found, HashMap::from(made.clone()));
        other.keep_only_check_keys(&table, &BTreeSet::from(["b".to_owned()])).await.unwrap();
        let found = one.check_keys(&table, names.to_vec()).await;
        assert_eq!(found, HashMap::from([made[1].clone()]));
        one.forget_check_keys(&table).await.unwrap();
        assert!(one.check_keys(&table, names.to_vec()).await.is_empty());
        assert_eq!(one.check_keys(&beside, names.to_vec()).await.len(), 2);
    }

    #[tokio::test]
    async fn damaged_keys_are_not_read() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let table = ObjectName::new("main", "t");
        let place = catalog.keys_of(&table).child("a");
        put((place.clone(), Bytes::from("keys"))).await.unwrap();
        let content = place.read().await.unwrap();
        assert_eq!(sound(&content), Some(Bytes::from("keys")));
        for at in [0, 8, 40, content.len() - 1] {
            let mut damaged = content.to_vec();
            damaged[at] ^= 1;
            assert_eq!(sound(&Bytes::from(damaged)), None, "{at}");
            assert_eq!(sound(&content.slice(..at)), None, "{at}");
        }
    }

    #[tokio::test]
    async fn servers_over_a_warehouse_have_one_secret() {
        let shared = Shared::new();
        let (one, other) = (shared.open().await, shared.open().await);
        let secret = one.check_secret().await.unwrap();
        assert_eq!(other.check_secret().await.unwrap(), secret);
        assert_ne!(Shared::new().open().await.check_secret().await.unwrap(), secret);
        let place = one.warehouse.place().child("_attune/check_secret");
        place.store.put(&place.path, Bytes::from("short").into()).await.unwrap();
        assert!(one.check_secret().await.is_err());
    }
}
