//! Head documents: one small document a name, changed only by somebody who has seen its
//! present revision.
//!
//! On an object store a head is one object, created with If-None-Match and replaced with If-Match
//! on its etag. A local disk has no compare-and-swap, so there a head is a folder of numbered
//! files, each created once, and the highest number is the head. Either way a lost race is told,
//! never a lost write.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::store::Place;

/// How many numbered files of a head stay on a local disk. A writer that was asleep for so many
/// changes finds out that its number was pruned, see [`Heads::write`].
const NUMBERED_FILES_KEPT: u64 = 8;

/// The longest file name a key makes, well below the 255 bytes of common file systems.
const KEY_BYTES_MAX: usize = 180;

/// Which state of a head somebody has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// The number of the newest file on a local disk.
    Number(u64),
    /// An object's etag and version.
    Object {
        /// The etag.
        e_tag: Option<String>,
        /// The store's version of the object, where it has versions.
        version: Option<String>,
    },
}

/// What a listing tells of a head: equal stamps mean an unchanged document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stamp {
    /// The number of the newest file on a local disk.
    Number(u64),
    /// An object's etag, or `None` where the listing has none, with its time and size.
    Object(Option<String>, i64, u64),
}

impl Stamp {
    /// Whether a document read under `self` may have changed by the time of `later`.
    pub fn may_differ(&self, later: &Self) -> bool {
        // A listing without etags cannot tell two writes within one second apart.
        self != later || matches!(later, Self::Object(None, ..))
    }
}

/// A folder of head documents.
#[derive(Debug, Clone)]
pub struct Heads {
    folder: Place,
}

impl Heads {
    /// Heads below `folder`.
    pub fn new(folder: Place) -> Self {
        Self { folder }
    }

    /// Every head with its stamp, by key.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn list(&self) -> Result<BTreeMap<String, Stamp>> {
        let mut found = BTreeMap::new();
        let mut objects = self.folder.store.list(Some(&self.folder.path));
        let wrong = |error| Error::store(self.folder.url.as_str(), &error);
        while let Some(object) = objects.try_next().await.map_err(wrong)? {
            if let Some((key, stamp)) = self.stamp(&object) {
                let newest = found.entry(key).or_insert_with(|| stamp.clone());
                if let (Stamp::Number(old), Stamp::Number(new)) = (&*newest, &stamp)
                    && new > old
                {
                    *newest = stamp;
                }
            }
        }
        Ok(found)
    }

    fn stamp(&self, object: &ObjectMeta) -> Option<(String, Stamp)> {
        let mut parts = object.location.prefix_match(&self.folder.path)?;
        let first = parts.next()?;
        let second = parts.next();
        if self.folder.is_local() {
            let number = number(second?.as_ref())?;
            return Some((first.as_ref().to_owned(), Stamp::Number(number)));
        }
        let key = first.as_ref().strip_suffix(".json")?.to_owned();
        let modified = object.last_modified.timestamp_millis();
        Some((key, Stamp::Object(object.e_tag.clone(), modified, object.size)))
    }

    /// The document and its revision, or `None` when it was never written.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn read(&self, key: &str) -> Result<Option<(Bytes, Revision)>> {
        if self.folder.is_local() {
            return self.read_numbered(key).await;
        }
        let place = self.object(key);
        let wrong = |error| Error::store(place.url.as_str(), &error);
        let found = match place.store.get(&place.path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(wrong(error)),
        };
        let revision = Revision::Object {
            e_tag: found.meta.e_tag.clone(),
            version: found.meta.version.clone(),
        };
        Ok(Some((found.bytes().await.map_err(wrong)?, revision)))
    }

    /// The revision alone, or `None` when the head was never written.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn revision(&self, key: &str) -> Result<Option<Revision>> {
        if self.folder.is_local() {
            let newest = self.numbers(key).await?.into_iter().max();
            return Ok(newest.map(Revision::Number));
        }
        let place = self.object(key);
        match place.store.head(&place.path).await {
            Ok(meta) => Ok(Some(Revision::Object { e_tag: meta.e_tag, version: meta.version })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::store(place.url.as_str(), &error)),
        }
    }

    async fn read_numbered(&self, key: &str) -> Result<Option<(Bytes, Revision)>> {
        // The file may be pruned or emptied between listing and reading; then there are newer ones.
        let mut empty = None;
        for _ in 0..NUMBERED_FILES_KEPT {
            let Some(newest) = self.numbers(key).await?.into_iter().max() else {
                return Ok(None);
            };
            if let Some(content) = self.numbered(key, newest).read_if_exists().await? {
                if !content.is_empty() || empty == Some(newest) {
                    return Ok(Some((content, Revision::Number(newest))));
                }
                empty = Some(newest);
            }
        }
        Err(Error::Conflict { name: key.into() })
    }

    /// Writes the document if its present revision is `expected` (`None`: it was never written).
    ///
    /// Gives `None` when somebody else was first.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn write(
        &self,
        key: &str,
        content: Bytes,
        expected: Option<&Revision>,
    ) -> Result<Option<Revision>> {
        match expected {
            Some(Revision::Number(number)) => self.write_numbered(key, content, *number).await,
            None if self.folder.is_local() => self.write_numbered(key, content, 0).await,
            None => self.put(key, content, PutMode::Create).await,
            Some(Revision::Object { e_tag, version }) => {
                let seen = UpdateVersion { e_tag: e_tag.clone(), version: version.clone() };
                self.put(key, content, PutMode::Update(seen)).await
            }
        }
    }

    async fn put(&self, key: &str, content: Bytes, mode: PutMode) -> Result<Option<Revision>> {
        let place = self.object(key);
        let options = PutOptions { mode, ..PutOptions::default() };
        match place.store.put_opts(&place.path, content.clone().into(), options).await {
            Ok(put) => Ok(Some(Revision::Object { e_tag: put.e_tag, version: put.version })),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. }
                | object_store::Error::NotFound { .. },
            ) => {
                // A request that was sent again after its answer got lost finds its own work:
                // every document carries an id of its own, so equal bytes are ours.
                let present = self.read(key).await?;
                Ok(present.and_then(|(bytes, revision)| (bytes == content).then_some(revision)))
            }
            Err(error) => Err(Error::store(place.url.as_str(), &error)),
        }
    }

    async fn write_numbered(
        &self,
        key: &str,
        content: Bytes,
        seen: u64,
    ) -> Result<Option<Revision>> {
        let mine = seen.saturating_add(1);
        let place = self.numbered(key, mine);
        if !place.create(content).await? {
            return Ok(None);
        }
        let numbers = self.numbers(key).await?;
        let newest = numbers.iter().copied().max().unwrap_or(mine);
        // A number far below the newest may be one that was used before and pruned.
        if newest >= mine.saturating_add(NUMBERED_FILES_KEPT) {
            place.remove().await?;
            return Ok(None);
        }
        for old in numbers {
            if old.saturating_add(NUMBERED_FILES_KEPT) <= newest {
                let pruned = self.numbered(key, old).remove().await;
                pruned.unwrap_or_else(|error| tracing::debug!(%error, "old head not pruned"));
            }
        }
        Ok(Some(Revision::Number(mine)))
    }

    /// Empties the numbered files of a head that are not its newest; an object has none.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn blank(&self, key: &str) -> Result<()> {
        if !self.folder.is_local() {
            return Ok(());
        }
        let files = self.numbered_files(key).await?;
        let newest = files.iter().map(|(number, _)| *number).max().unwrap_or_default();
        for (old, bytes) in files {
            if old != newest && bytes > 0 {
                self.empty(key, old).await?;
            }
        }
        Ok(())
    }

    /// Empties the numbered files of all heads that are not the newest and have one of the texts.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn blank_naming(&self, texts: &BTreeSet<String>) -> Result<()> {
        if !self.folder.is_local() {
            return Ok(());
        }
        let objects = self.folder.store.list(Some(&self.folder.path));
        let objects: Result<Vec<ObjectMeta>, _> = objects.try_collect().await;
        let objects = objects.map_err(|error| Error::store(self.folder.url.as_str(), &error))?;
        let mut kept: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for object in &objects {
            let mut parts = object.location.prefix_match(&self.folder.path).into_iter().flatten();
            let (Some(key), Some(file)) = (parts.next(), parts.next()) else { continue };
            if let Some(number) = number(file.as_ref()) {
                kept.entry(key.as_ref().to_owned()).or_default().push(number);
            }
        }
        for (key, mut numbers) in kept {
            numbers.sort_unstable();
            numbers.pop();
            for old in numbers {
                let content = self.numbered(&key, old).read_if_exists().await?;
                let content = content.unwrap_or_default();
                let content = String::from_utf8_lossy(&content);
                if texts.iter().any(|text| content.contains(text.as_str())) {
                    self.empty(&key, old).await?;
                }
            }
        }
        Ok(())
    }

    async fn empty(&self, key: &str, number: u64) -> Result<()> {
        let place = self.numbered(key, number);
        let put = place.store.put(&place.path, Bytes::new().into()).await;
        put.map(|_| ()).map_err(|error| Error::store(place.url.as_str(), &error))
    }

    async fn numbers(&self, key: &str) -> Result<Vec<u64>> {
        let files = self.numbered_files(key).await?;
        Ok(files.into_iter().map(|(number, _)| number).collect())
    }

    /// The numbers of a head's files, each with the file's bytes.
    async fn numbered_files(&self, key: &str) -> Result<Vec<(u64, u64)>> {
        let folder = self.folder.child(key);
        let wrong = |error| Error::store(folder.url.as_str(), &error);
        let objects = folder.store.list(Some(&folder.path));
        let objects: Vec<ObjectMeta> = objects.try_collect().await.map_err(wrong)?;
        let numbered = objects.iter().filter_map(|object| {
            let number = number(object.location.filename()?)?;
            Some((number, object.size))
        });
        Ok(numbered.collect())
    }

    fn object(&self, key: &str) -> Place {
        self.folder.child(&format!("{key}.json"))
    }

    fn numbered(&self, key: &str, number: u64) -> Place {
        self.folder.child(key).child(&format!("{number:08}.json"))
    }

    /// Where the head `key` is, for messages.
    pub fn url(&self, key: &str) -> String {
        self.folder.child(key).url.to_string()
    }
}

fn number(file: &str) -> Option<u64> {
    file.strip_suffix(".json")?.parse().ok()
}

/// The file name of an object's head: unique for any pair of Unicode names, also where file names
/// ignore case.
pub fn key(schema: &str, name: &str) -> String {
    let plain = format!("{}.{}", encode(schema), encode(name));
    if plain.len() <= KEY_BYTES_MAX {
        return plain;
    }
    let hash = Sha256::digest(plain.as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let start: String = plain.chars().take(KEY_BYTES_MAX - 66).collect();
    format!("{start}=_{hash}")
}

/// Keeps a-z, 0-9, `_` and `-`; every other byte becomes `=` and two hexadecimal digits.
pub fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("={byte:02x}"));
        }
    }
    encoded
}
