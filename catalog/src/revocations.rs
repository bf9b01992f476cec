//! Sessions whose tokens end before their time, told to every server over the warehouse.
//!
//! A revocation is an empty object `_attune/revoked/<ten minutes>/<until>-<id>`: its name says
//! everything, so that one listing of the last minutes tells a server what is new. It is removed
//! when the token would have ended by itself.

use std::collections::HashMap;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use parking_lot::Mutex;

use crate::Catalog;
use crate::error::{Error, Result};
use crate::store::Place;

/// How old the known revocations may be.
const FRESH_MS: i64 = 1_000;
/// A folder holds the revocations of so long.
const FOLDER_MS: i64 = 600_000;
/// How often everything is listed, and what has ended is removed.
const WHOLE_MS: i64 = 6 * 3_600_000;

/// What is known of revoked sessions.
pub struct Revocations {
    folder: Place,
    known: Mutex<Known>,
    // Held while the store is listed, so that many callers wait for one listing.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    read_ms: Option<i64>,
    whole_ms: Option<i64>,
    /// The session's id, and when its token ends by itself.
    revoked: HashMap<String, i64>,
}

impl Revocations {
    /// The revocations below `folder`; nothing is read yet.
    pub fn new(folder: Place) -> Self {
        Self { folder, known: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    async fn add(&self, id: &str, until_ms: i64, now_ms: i64) -> Result<()> {
        let folder = self.folder.child(&folder_name(now_ms));
        // An object that exists says the same.
        folder.child(&format!("{until_ms}-{id}")).create(Bytes::new()).await?;
        self.known.lock().revoked.insert(id.to_owned(), until_ms);
        Ok(())
    }

    async fn holds(&self, id: &str, now_ms: i64) -> Result<bool> {
        if self.known.lock().revoked.contains_key(id) {
            return Ok(true);
        }
        self.refresh(now_ms, FRESH_MS).await?;
        Ok(self.known.lock().revoked.contains_key(id))
    }

    /// Lists what is new, unless that was done less than `age_ms` ago.
    async fn refresh(&self, now_ms: i64, age_ms: i64) -> Result<()> {
        if self.known.lock().is_fresh(now_ms, age_ms) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let whole = {
            let known = self.known.lock();
            if known.is_fresh(now_ms, age_ms) {
                return Ok(());
            }
            known.whole_ms.is_none_or(|read| now_ms >= read + WHOLE_MS)
        };
        let objects = if whole { self.list(None).await? } else { self.latest(now_ms).await? };
        let mut ended = Vec::new();
        {
            let mut known = self.known.lock();
            for object in objects {
                let Some((id, until_ms)) = revocation(&object) else { continue };
                if until_ms > now_ms {
                    known.revoked.insert(id, until_ms);
                } else {
                    ended.push(object);
                }
            }
            known.read_ms = Some(now_ms);
            if whole {
                known.whole_ms = Some(now_ms);
                known.revoked.retain(|_, until_ms| *until_ms > now_ms);
            }
        }
        self.remove(ended).await;
        Ok(())
    }

    /// What was revoked in the last minutes, as far as servers' clocks may differ.
    async fn latest(&self, now_ms: i64) -> Result<Vec<ObjectMeta>> {
        let (now, before) = (folder_name(now_ms), folder_name(now_ms - FOLDER_MS));
        if self.folder.is_local() {
            // A disk would be walked from its beginning to find an offset.
            let mut objects = self.list(Some(&before)).await?;
            objects.extend(self.list(Some(&now)).await?);
            return Ok(objects);
        }
        let offset = self.folder.child(&before).path;
        let listed = self.folder.store.list_with_offset(Some(&self.folder.path), &offset);
        listed.try_collect().await.map_err(|error| Error::store(self.folder.url.as_str(), &error))
    }

    async fn list(&self, below: Option<&str>) -> Result<Vec<ObjectMeta>> {
        let folder = match below {
            Some(name) => self.folder.child(name),
            None => self.folder.clone(),
        };
        let listed = folder.store.list(Some(&folder.path));
        listed.try_collect().await.map_err(|error| Error::store(folder.url.as_str(), &error))
    }

    /// Removes what has ended; another server may do the same.
    async fn remove(&self, ended: Vec<ObjectMeta>) {
        for object in ended {
            if let Err(error) = self.folder.store.delete(&object.location).await {
                tracing::debug!(%error, "an ended revocation was not removed");
            }
        }
    }
}

impl Known {
    fn is_fresh(&self, now_ms: i64, age_ms: i64) -> bool {
        // A clock that was set back must not make old knowledge fresh.
        self.read_ms.is_some_and(|read| (read..read + age_ms).contains(&now_ms))
    }
}

fn folder_name(at_ms: i64) -> String {
    format!("{:010}", at_ms.max(0) / FOLDER_MS)
}

fn revocation(object: &ObjectMeta) -> Option<(String, i64)> {
    let (until_ms, id) = object.location.filename()?.split_once('-')?;
    Some((id.to_owned(), until_ms.parse().ok()?))
}

impl Catalog {
    /// Makes the tokens of a session worthless at every server, for as long as they could last.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn revoke_session(&self, id: &str, until_ms: i64) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
            return Err(Error::invalid("this is no session's id"));
        }
        let now_ms = self.now_ms();
        if until_ms <= now_ms {
            return Ok(());
        }
        self.writable().await?;
        self.revocations.add(id, until_ms, now_ms).await
    }

    /// Learns of new revocations ahead of time, so that no call has to wait for the warehouse: to
    /// be called about twice a second while there are sessions.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn refresh_revocations(&self) -> Result<()> {
        self.revocations.refresh(self.now_ms(), FRESH_MS / 2).await
    }

    /// Whether a session was revoked, by any server more than a second ago.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn is_session_revoked(&self, id: &str) -> Result<bool> {
        self.revocations.holds(id, self.now_ms()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreConfig, Stores};

    fn two(folder: &std::path::Path) -> (Revocations, Revocations) {
        let config = StoreConfig { url: folder.display().to_string(), ..StoreConfig::default() };
        let place = Stores::default().open(&config).unwrap().child("revoked");
        (Revocations::new(place.clone()), Revocations::new(place))
    }

    #[tokio::test]
    async fn another_server_knows_within_a_second_and_forgets_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = two(folder.path());
        let now = 1_700_000_000_000;
        assert!(!other.holds("a-1", now).await.unwrap());
        one.add("a-1", now + 60_000, now).await.unwrap();
        assert!(one.holds("a-1", now).await.unwrap());
        assert!(other.holds("a-1", now + FRESH_MS).await.unwrap());
        assert!(!other.holds("a-2", now + FRESH_MS).await.unwrap());
        let (late, _) = two(folder.path());
        assert!(late.holds("a-1", now + 30_000).await.unwrap());
        let (later, _) = two(folder.path());
        assert!(!later.holds("a-1", now + 60_000).await.unwrap());
        assert!(later.list(None).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_clock_that_is_minutes_off_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (behind, ahead) = two(folder.path());
        let now = 1_700_000_000_000;
        assert!(!ahead.holds("x", now).await.unwrap());
        behind.add("x", now + WHOLE_MS, now - FOLDER_MS + 1_000).await.unwrap();
        assert!(ahead.holds("x", now + FRESH_MS).await.unwrap());
    }
}
