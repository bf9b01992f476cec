//! The registry of definitions: documents in the warehouse and a snapshot of them in memory.
//!
//! The snapshot is at most a second old, and names that are missing from it are looked for in the
//! store at once, so that what one server creates another one finds. A document that cannot be
//! read stands in nobody's way: its name gives an error, every other name works.

pub(crate) mod change;
mod claim;
pub mod definition;
mod entity_pairs;
mod entity_parts;
#[cfg(test)]
mod entity_tests;
mod feature_parts;
pub mod head;
mod manifest;
pub mod model;
mod model_cache;
mod model_erasure;
#[cfg(test)]
mod model_erasure_tests;
mod model_files;
#[cfg(test)]
mod model_owner_tests;
mod model_parts;
#[cfg(test)]
mod model_tests;
mod model_writing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use parking_lot::RwLock;

pub use self::definition::{
    CreateMode, Definition, Kind, ManagedTable, ModelHead, ModelVersion, ObjectName, Retired, Spec,
};
pub use self::head::Revision;
pub use self::model_cache::ModelCache;

use self::definition::Document;
use self::head::{Heads, Stamp, encode, key};
use crate::config::Clock;
use crate::error::{Error, Result};
use crate::pii::belongs;
use crate::store::Place;

/// How old the snapshot may be.
const SNAPSHOT_AGE_MS: i64 = 1_000;

/// How many documents are fetched at a time.
const FETCHES: usize = 16;

/// Readable definitions by schema and name.
pub type Definitions = BTreeMap<(String, String), Definition>;

/// The documents of one folder.
pub struct Registry {
    heads: Heads,
    clock: Clock,
    snapshot: RwLock<Snapshot>,
    // Held while the snapshot is re-read and while a document is written, so that a listing made
    // before an own write cannot replace what the write put into the snapshot.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Snapshot {
    read_ms: Option<i64>,
    changes: u64,
    entries: BTreeMap<String, Entry>,
    definitions: Arc<Definitions>,
}

#[derive(Clone)]
struct Entry {
    stamp: Option<Stamp>,
    head: Head,
}

/// A document as it stands, readable or not.
#[derive(Clone)]
pub struct Head {
    /// The document, or why it cannot be read.
    pub document: Result<Arc<Document>>,
    /// Its revision.
    pub revision: Revision,
}

impl Head {
    /// Whether both are what the same write left; each write has an id of its own.
    fn is_same(&self, other: &Self) -> bool {
        self.revision == other.revision
            && match (&self.document, &other.document) {
                (Ok(one), Ok(other)) => one.write_id == other.write_id,
                (Err(_), Err(_)) => true,
                _ => false,
            }
    }

    fn definition(&self) -> Option<Definition> {
        let document = self.document.as_ref().ok()?;
        Some(Definition {
            spec: document.spec.clone()?,
            owner: document.owner.clone(),
            created_ms: document.created_ms,
            revision: self.revision.clone(),
        })
    }
}

impl Registry {
    /// The registry over `folder`; nothing is read yet.
    pub fn new(folder: Place, clock: Clock) -> Self {
        Self {
            heads: Heads::new(folder),
            clock,
            snapshot: RwLock::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Every readable definition, at most a second old.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn definitions(&self) -> Result<Arc<Definitions>> {
        self.refresh().await?;
        Ok(Arc::clone(&self.snapshot.read().definitions))
    }

    /// Every readable definition, at most a second old, and why one of the others is not.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn definitions_and_fault(&self) -> Result<(Arc<Definitions>, Option<Error>)> {
        self.refresh().await?;
        let snapshot = self.snapshot.read();
        let mut documents = snapshot.entries.values().map(|entry| &entry.head.document);
        let fault = documents.find_map(|document| document.as_ref().err().cloned());
        Ok((Arc::clone(&snapshot.definitions), fault))
    }

    /// The same, when every document can be read.
    ///
    /// # Errors
    /// When the store cannot be reached, or one of the documents cannot be read.
    pub async fn sound_definitions(&self) -> Result<Arc<Definitions>> {
        self.refresh().await?;
        let snapshot = self.snapshot.read();
        let mut documents = snapshot.entries.values().map(|entry| &entry.head.document);
        if let Some(Err(error)) = documents.find(|document| document.is_err()) {
            return Err(error.clone());
        }
        Ok(Arc::clone(&snapshot.definitions))
    }

    /// The same as the store has them now.
    ///
    /// # Errors
    /// As [`Registry::sound_definitions`].
    pub async fn sound_definitions_now(&self) -> Result<Arc<Definitions>> {
        self.renew().await;
        self.sound_definitions().await
    }

    /// Makes the next look at the definitions one at the store, however young the snapshot is.
    pub async fn renew(&self) {
        // A listing that is under way may have begun before now.
        let _turn = self.turn.lock().await;
        self.snapshot.write().read_ms = None;
    }

    /// Every folder that a document has retired.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn retired(&self) -> Result<Vec<Retired>> {
        self.refresh().await?;
        let snapshot = self.snapshot.read();
        let documents =
            snapshot.entries.values().filter_map(|entry| entry.head.document.as_ref().ok());
        Ok(documents.flat_map(|document| document.retired.clone()).collect())
    }

    /// Whether a schema holds anything, readable or not.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn holds(&self, schema: &str) -> Result<bool> {
        self.refresh().await?;
        let start = format!("{}.", encode(schema));
        Ok(self.snapshot.read().entries.iter().any(|(key, entry)| {
            let dropped = matches!(&entry.head.document, Ok(document) if document.spec.is_none());
            key.starts_with(&start) && !dropped
        }))
    }

    /// The definition, at most a second old; a missing one is looked for in the store.
    ///
    /// # Errors
    /// When the store cannot be reached, or the name's document cannot be read.
    pub async fn find(&self, name: &ObjectName) -> Result<Option<Definition>> {
        match self.known(name).await? {
            Some(definition) => Ok(Some(definition)),
            None => self.read(name).await,
        }
    }

    /// The definition, at most a second old; a missing one is not looked for.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn known(&self, name: &ObjectName) -> Result<Option<Definition>> {
        self.refresh().await?;
        let snapshot = self.snapshot.read();
        let entry = snapshot.entries.get(&key(&name.schema, &name.name));
        Ok(entry.and_then(|entry| entry.head.definition()))
    }

    /// The definition, at most a second old; a missing one is not looked for, and a damaged one is
    /// an error.
    ///
    /// # Errors
    /// When the store cannot be reached, or the name's document cannot be read.
    pub async fn sound(&self, name: &ObjectName) -> Result<Option<Definition>> {
        self.refresh().await?;
        let snapshot = self.snapshot.read();
        let Some(entry) = snapshot.entries.get(&key(&name.schema, &name.name)) else {
            return Ok(None);
        };
        entry.head.document.clone()?;
        Ok(entry.head.definition())
    }

    /// The definition as the store has it now.
    ///
    /// # Errors
    /// When the store cannot be reached, or the name's document cannot be read.
    pub async fn read(&self, name: &ObjectName) -> Result<Option<Definition>> {
        match self.head(name).await? {
            Some(head) => {
                head.document.clone()?;
                Ok(head.definition())
            }
            None => Ok(None),
        }
    }

    /// The head as the store has it now, readable or not.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn head(&self, name: &ObjectName) -> Result<Option<Head>> {
        let key = key(&name.schema, &name.name);
        let changes = self.snapshot.read().changes;
        let read = self.heads.read(&key).await?;
        let head = read.map(|(content, revision)| self.parse(&key, &content, revision));
        let mut snapshot = self.snapshot.write();
        // What was read may be older than what was written or listed meanwhile.
        let same = match (snapshot.entries.get(&key), &head) {
            (Some(known), Some(head)) => known.head.is_same(head),
            (None, None) => true,
            _ => false,
        };
        if snapshot.changes == changes && !same {
            match &head {
                Some(head) => {
                    // The stamp of an older listing makes the next one fetch the document again.
                    let stamp = snapshot.entries.get(&key).and_then(|entry| entry.stamp.clone());
                    snapshot.entries.insert(key, Entry { stamp, head: head.clone() });
                }
                None => {
                    snapshot.entries.remove(&key);
                }
            }
            snapshot.rebuild();
        }
        Ok(head)
    }

    /// Creates a definition.
    ///
    /// Gives `false` when the name exists and `mode` is `IfNotExists`.
    ///
    /// # Errors
    /// `AlreadyExists`; `Conflict` when somebody else was first; `Invalid` when a thing of another
    /// kind has the name.
    pub async fn create(
        &self,
        name: &ObjectName,
        spec: Spec,
        owner: &str,
        mode: CreateMode,
    ) -> Result<bool> {
        name.check()?;
        let head = self.head(name).await?;
        self.create_over(name, spec, owner, mode, head.as_ref()).await
    }

    /// Creates a definition over exactly the head that was seen, as [`Registry::create`] does.
    ///
    /// # Errors
    /// As there.
    pub async fn create_over(
        &self,
        name: &ObjectName,
        spec: Spec,
        owner: &str,
        mode: CreateMode,
        seen: Option<&Head>,
    ) -> Result<bool> {
        if !may_create(name, seen, spec.kind(), mode)? {
            return Ok(false);
        }
        match self.put(name, Some(spec), owner, seen).await {
            Err(Error::Conflict { .. }) if mode != CreateMode::Replace => {
                let now = self.read(name).await?;
                match (now, mode) {
                    (Some(_), CreateMode::IfNotExists) => Ok(false),
                    (Some(now), _) => Err(exists(name, now.spec.kind())),
                    (None, _) => Err(Error::Conflict { name: name.to_string() }),
                }
            }
            other => other.map(|_| true),
        }
    }

    /// Drops a definition; `false` when there is none.
    ///
    /// # Errors
    /// `Invalid` when the name is a thing of another kind; `Conflict` when somebody else changed it
    /// at the same time.
    pub async fn drop_object(&self, name: &ObjectName, kind: Kind) -> Result<bool> {
        let head = self.head(name).await?;
        self.drop_over(name, kind, head.as_ref()).await
    }

    /// Drops exactly the definition that was seen, as [`Registry::drop_object`] does.
    ///
    /// # Errors
    /// As there.
    pub async fn drop_over(
        &self,
        name: &ObjectName,
        kind: Kind,
        seen: Option<&Head>,
    ) -> Result<bool> {
        let Some(head) = seen else { return Ok(false) };
        // A document that cannot be read can still be dropped: nothing else repairs it.
        if let Ok(document) = &head.document {
            let Some(spec) = &document.spec else { return Ok(false) };
            check_kind(name, spec.kind(), kind)?;
        }
        self.put(name, None, "", Some(head)).await?;
        Ok(true)
    }

    /// Empties the earlier states of a document that a local disk keeps; their numbers stay, by
    /// which a late writer finds out that it is late.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn blank(&self, name: &ObjectName) -> Result<()> {
        self.heads.blank(&key(&name.schema, &name.name)).await
    }

    /// The same of every document's earlier states that have one of the texts.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn blank_naming(&self, texts: &BTreeSet<String>) -> Result<()> {
        self.heads.blank_naming(texts).await
    }

    /// Writes a definition (`None`: a tombstone) over exactly the head that was seen.
    ///
    /// # Errors
    /// `Conflict` when the head has changed since.
    pub async fn put(
        &self,
        name: &ObjectName,
        spec: Option<Spec>,
        owner: &str,
        seen: Option<&Head>,
    ) -> Result<Revision> {
        name.check()?;
        let mut document = Document::new(name, owner, (self.clock)(), spec);
        if let Some(Ok(old)) = seen.map(|head| &head.document) {
            document.follow(old);
        }
        let key = key(&name.schema, &name.name);
        let _turn = self.turn.lock().await;
        let content = document.to_bytes()?;
        let expected = seen.map(|head| &head.revision);
        let written = self.heads.write(&key, content, expected).await?;
        let revision = written.ok_or_else(|| Error::Conflict { name: name.to_string() })?;
        let stamp = match &revision {
            Revision::Number(number) => Some(Stamp::Number(*number)),
            Revision::Object { .. } => None,
        };
        let head = Head { document: Ok(Arc::new(document)), revision: revision.clone() };
        let mut snapshot = self.snapshot.write();
        snapshot.entries.insert(key, Entry { stamp, head });
        snapshot.rebuild();
        Ok(revision)
    }

    fn parse(&self, key: &str, content: &Bytes, revision: Revision) -> Head {
        Head { document: Document::parse(&self.heads.url(key), content).map(Arc::new), revision }
    }

    async fn refresh(&self) -> Result<()> {
        if self.snapshot.read().is_fresh((self.clock)()) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let now_ms = (self.clock)();
        if self.snapshot.read().is_fresh(now_ms) {
            return Ok(());
        }
        let listed = self.heads.list().await?;
        let known = self.snapshot.read().entries.clone();
        let mut fetches = Vec::with_capacity(listed.len());
        for (key, stamp) in listed {
            let known = known.get(&key).cloned();
            fetches.push(self.fetch(key, stamp, known));
        }
        let entries: Vec<Option<(String, Entry)>> =
            futures::stream::iter(fetches).buffer_unordered(FETCHES).try_collect().await?;
        let entries: BTreeMap<String, Entry> = entries.into_iter().flatten().collect();
        let mut snapshot = self.snapshot.write();
        let changed = !same(&entries, &snapshot.entries);
        snapshot.entries = entries;
        snapshot.read_ms = Some(now_ms);
        // What nobody changed keeps its identity, by which readers see that nothing changed.
        if changed {
            snapshot.rebuild();
        }
        Ok(())
    }

    async fn fetch(
        &self,
        key: String,
        stamp: Stamp,
        known: Option<Entry>,
    ) -> Result<Option<(String, Entry)>> {
        if let Some(known) = known
            && let Some(old) = &known.stamp
            && !old.may_differ(&stamp)
        {
            return Ok(Some((key, known)));
        }
        let Some((content, revision)) = self.heads.read(&key).await? else { return Ok(None) };
        let head = self.parse(&key, &content, revision);
        Ok(Some((key, Entry { stamp: Some(stamp), head })))
    }
}

/// Whether two snapshots hold the same documents in the same state.
fn same(new: &BTreeMap<String, Entry>, old: &BTreeMap<String, Entry>) -> bool {
    let mut pairs = new.iter().zip(old);
    new.len() == old.len()
        && pairs.all(|(new, old)| new.0 == old.0 && new.1.head.is_same(&old.1.head))
}

impl Snapshot {
    fn is_fresh(&self, now_ms: i64) -> bool {
        // A clock that was set back must not make an old snapshot fresh.
        self.read_ms.is_some_and(|read| (read..read + SNAPSHOT_AGE_MS).contains(&now_ms))
    }

    fn rebuild(&mut self) {
        self.changes += 1;
        let documents = self.entries.values().filter_map(|entry| {
            let definition = entry.head.definition()?;
            let document = entry.head.document.as_ref().ok()?;
            Some(((document.schema.clone(), document.name.clone()), definition))
        });
        self.definitions = Arc::new(documents.collect());
    }
}

/// Whether a thing of `kind` may be created over `head`; `false`: it exists and shall stay.
///
/// # Errors
/// `AlreadyExists`, or `Invalid` when the existing thing is of another kind, or belongs to another.
pub fn may_create(
    name: &ObjectName,
    head: Option<&Head>,
    kind: Kind,
    mode: CreateMode,
) -> Result<bool> {
    let Some(head) = head else { return Ok(true) };
    let document = match (&head.document, mode) {
        (Ok(document), _) => document,
        (Err(_), CreateMode::Replace) => return Ok(true),
        (Err(error), _) => return Err(error.clone()),
    };
    let Some(spec) = &document.spec else { return Ok(true) };
    match mode {
        CreateMode::New => Err(exists(name, spec.kind())),
        CreateMode::IfNotExists if spec.kind() == kind => Ok(false),
        CreateMode::IfNotExists => Err(exists(name, spec.kind())),
        CreateMode::Replace => match spec {
            Spec::Identifiers { of } => Err(belongs(name, of)),
            _ => check_kind(name, spec.kind(), kind).map(|()| true),
        },
    }
}

/// The error for a name that is taken.
pub fn exists(name: &ObjectName, kind: Kind) -> Error {
    Error::AlreadyExists { kind: kind.name(), name: name.to_string() }
}

/// Checks that a name is a thing of the wanted kind.
///
/// # Errors
/// `Invalid` when it is not, saying what it is.
pub fn check_kind(name: &ObjectName, found: Kind, wanted: Kind) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::invalid_hint(
        format!("{name} is a {found}, not a {wanted}"),
        format!("use DROP {} {name}", found.name().to_uppercase()),
    ))
}
