//! The claim of a model version: who is training it, and whether he still is.
//!
//! A claim is a file that only one can create. A task touches it every ten seconds; one that
//! was not touched for a minute is stale, and the next training sweeps it away with whatever its
//! owner has written. Dropping a claim withdraws it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::PathPart;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::Head;
use super::definition::{CreateMode, ObjectName};
use super::model_files::StoredFile;
use crate::config::Clock;
use crate::erasures_seen::ErasuresSeen;
use crate::error::{Error, Result};
use crate::store::Place;

/// How often a claim is touched.
const BEAT: Duration = Duration::from_secs(10);

/// After how long without a touch a claim is stale.
const STALE_MS: i64 = 60_000;

/// How many claims a training tries when others claim at the same time.
const TRIES: u32 = 100;

const CLAIM: &str = "claim.json";
/// The manifest's file name in a version's folder.
pub(super) const MANIFEST: &str = "manifest.json";

/// The right to publish one version of a model.
pub struct Claim {
    pub(super) name: ObjectName,
    pub(super) version: u32,
    pub(super) id: String,
    pub(super) owner: String,
    pub(super) mode: CreateMode,
    pub(super) folder: Place,
    pub(super) seen: Option<Head>,
    /// Files of the version that are written already.
    pub(super) files: BTreeMap<String, StoredFile>,
    /// Whether the model is the claimer's from now on, whoever had it.
    pub(super) takes_over: bool,
    /// What the training knew of erasures before it opened what it reads.
    pub(super) erasures: Arc<ErasuresSeen>,
    kept: bool,
    pulse: Pulse,
    beat: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Claim({}@{})", self.name, self.version)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Document {
    id: String,
    owner: String,
    beat_ms: i64,
    /// The model; an earlier version did not say.
    #[serde(default)]
    model: Option<ObjectName>,
}

impl Document {
    fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).map(Bytes::from).unwrap_or_default()
    }
}

impl Claim {
    /// Claims the next version after `last` in `versions`, the folder of a model's versions.
    pub(super) async fn make(
        name: &ObjectName,
        owner: &str,
        mode: CreateMode,
        seen: Option<Head>,
        versions: &Place,
        last: u32,
        clock: &Clock,
    ) -> Result<Self> {
        let taken = sweep(versions, clock()).await?;
        let mut version = taken.max(last).saturating_add(1);
        let id = uuid::Uuid::new_v4().to_string();
        let (owner_name, model) = (owner.to_owned(), Some(name.clone()));
        let document = Document { id: id.clone(), owner: owner_name, beat_ms: clock(), model };
        for _ in 0..TRIES {
            let folder = versions.child(&version.to_string()).folder();
            if folder.child(CLAIM).create(document.to_bytes()).await? {
                let pulse = Pulse {
                    claim: folder.child(CLAIM),
                    document,
                    clock: Arc::clone(clock),
                    lost: Arc::default(),
                };
                return Ok(Self {
                    name: name.clone(),
                    version,
                    id,
                    owner: owner.into(),
                    mode,
                    folder,
                    seen,
                    files: BTreeMap::new(),
                    takes_over: false,
                    erasures: Arc::default(),
                    kept: false,
                    beat: tokio::spawn(pulse.clone().beat()),
                    pulse,
                });
            }
            version = version.saturating_add(1);
        }
        Err(Error::Conflict { name: name.to_string() })
    }

    /// The version that is claimed.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Makes the claimer the model's owner: a schedule trains it anew with its owner's rights, and
    /// what is trained is what the claimer has written.
    pub fn take_over(&mut self) {
        self.takes_over = true;
    }

    /// Says what the training knew of erasures before it opened what it reads; without, it knew of
    /// none.
    pub fn knows(&mut self, erasures: Arc<ErasuresSeen>) {
        self.erasures = erasures;
    }

    /// The name of a file of the version. The claim's id is in it, so that a training that was
    /// swept away but writes on does not write into the files of the one that has taken its number.
    pub(super) fn file(&self, piece: &str) -> String {
        format!("{piece}-{}.parquet", self.id)
    }

    #[cfg(test)]
    pub(super) async fn touch(&self) -> bool {
        self.pulse.touch().await
    }

    /// Checks that nobody has swept the claim away.
    pub(super) async fn check(&self) -> Result<()> {
        let held = read(&self.folder.child(CLAIM)).await?.is_some_and(|found| found.id == self.id);
        if held && !self.pulse.lost.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::Conflict { name: self.name.to_string() })
    }

    /// From now on the head may name the version, so its files must stay.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// The head does not name the version: its files go with the claim.
    pub(super) fn withdraw(&mut self) {
        self.kept = false;
    }

    /// The version is published.
    pub(super) async fn release(mut self) {
        self.kept = true;
        self.beat.abort();
        let removed = self.folder.child(CLAIM).remove().await;
        removed.unwrap_or_else(|error| tracing::debug!(%error, "claim of a model left behind"));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.beat.abort();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.kept {
            return;
        }
        let (folder, id) = (self.folder.clone(), self.id.clone());
        runtime.spawn(async move {
            if let Err(error) = withdraw(&folder, &id).await {
                tracing::debug!(%error, "the files of a training that failed were not removed");
            }
        });
    }
}

async fn withdraw(folder: &Place, id: &str) -> Result<()> {
    match read(&folder.child(CLAIM)).await? {
        Some(found) if found.id == id => remove(folder).await,
        // Somebody has swept the claim, and may have taken the version: what was written since is
        // known by its name.
        _ => remove_files(folder, |file| file.ends_with(&format!("-{id}.parquet"))).await,
    }
}

/// Removes a version's folder, and the claim last: whatever is left is found by it, whoever is
/// killed on the way. From then on somebody else may claim the version: of a disk's folder nothing
/// is removed any more but the folder itself, if it is empty.
async fn remove(folder: &Place) -> Result<()> {
    remove_files(folder, |file| file != CLAIM).await?;
    let disk = folder.is_local().then(|| folder.url.to_file_path().ok()).flatten();
    if let Some(path) = &disk {
        remove_begun(path).await;
    }
    folder.child(CLAIM).remove().await?;
    if let Some(path) = disk
        && let Err(error) = tokio::fs::remove_dir(path).await
    {
        tracing::debug!(%error, "folder of a training left behind");
    }
    Ok(())
}

/// Removes files of a version's folder on a disk that were begun and never put in place, which no
/// list shows. Those of claims may be somebody else's.
async fn remove_begun(folder: &Path) {
    let Ok(mut files) = tokio::fs::read_dir(folder).await else { return };
    while let Ok(Some(file)) = files.next_entry().await {
        if !file.file_name().to_string_lossy().starts_with(CLAIM)
            && let Err(error) = tokio::fs::remove_file(file.path()).await
        {
            tracing::debug!(%error, "a file that was begun is left behind");
        }
    }
}

/// Removes the files in a version's folder whose names are meant.
async fn remove_files(folder: &Place, is_meant: impl Fn(&str) -> bool) -> Result<()> {
    let wrong = |error| Error::store(folder.url.as_str(), &error);
    let objects: Vec<ObjectMeta> = match folder.store.list(Some(&folder.path)).try_collect().await {
        Ok(objects) => objects,
        Err(object_store::Error::NotFound { .. }) => vec![],
        Err(error) => return Err(wrong(error)),
    };
    for object in objects {
        if !is_meant(object.location.filename().unwrap_or_default()) {
            continue;
        }
        match folder.store.delete(&object.location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(wrong(error)),
        }
    }
    Ok(())
}

async fn read(claim: &Place) -> Result<Option<Document>> {
    let content = claim.read_if_exists().await?;
    Ok(content.and_then(|content| serde_json::from_slice(&content).ok()))
}

/// A training that has a claim: its version is not published, or has just been.
pub(super) struct Training {
    pub(super) model: ObjectName,
    pub(super) version: u32,
    pub(super) is_stale: bool,
    folder: Place,
}

impl Training {
    /// The training whose claim an object in the folder of all models is; `None` of other objects.
    pub(super) async fn of(
        models: &Place,
        object: &ObjectMeta,
        now_ms: i64,
    ) -> Result<Option<Self>> {
        let parts = object.location.prefix_match(&models.path).into_iter().flatten();
        let parts: Vec<PathPart<'_>> = parts.collect();
        let [model, version, file] = parts.as_slice() else { return Ok(None) };
        let Ok(version) = version.as_ref().parse::<u32>() else { return Ok(None) };
        if file.as_ref() != CLAIM {
            return Ok(None);
        }
        let folder = models.child(model.as_ref()).child(&version.to_string()).folder();
        let found = read(&folder.child(CLAIM)).await?;
        let Some(Document { model: Some(model), beat_ms, .. }) = found else { return Ok(None) };
        let is_stale = now_ms.saturating_sub(beat_ms) > STALE_MS;
        Ok(Some(Self { model, version, folder, is_stale }))
    }

    /// Makes the claim nobody's: should the training go on after all, it finds out before it
    /// publishes. The claim itself stays, so that what is left is found, whoever is killed.
    pub(super) async fn end(&self) -> Result<()> {
        let id = uuid::Uuid::new_v4().to_string();
        let (owner, model) = (String::new(), Some(self.model.clone()));
        let document = Document { id, owner, beat_ms: 0, model };
        let claim = self.folder.child(CLAIM);
        let put = claim.store.put(&claim.path, document.to_bytes().into()).await;
        put.map(|_| ()).map_err(|error| Error::store(claim.url.as_str(), &error))
    }

    /// Takes the claim away, of a version that is published.
    pub(super) async fn release(&self) -> Result<()> {
        self.folder.child(CLAIM).remove().await
    }

    /// Removes what the training has left.
    pub(super) async fn remove(&self) -> Result<()> {
        remove(&self.folder).await
    }
}

/// What a claim's task needs to touch it.
#[derive(Clone)]
struct Pulse {
    claim: Place,
    document: Document,
    clock: Clock,
    lost: Arc<AtomicBool>,
}

impl Pulse {
    async fn beat(self) {
        let mut ticks = tokio::time::interval(BEAT);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if !self.touch().await {
                return;
            }
        }
    }

    /// Touches the claim; `false` when it is another's or gone.
    async fn touch(&self) -> bool {
        match read(&self.claim).await {
            Ok(Some(found)) if found.id == self.document.id => {}
            Ok(_) => {
                self.lost.store(true, Ordering::Relaxed);
                return false;
            }
            Err(error) => {
                tracing::debug!(%error, "claim of a model not read");
                return true;
            }
        }
        let document = Document { beat_ms: (self.clock)(), ..self.document.clone() };
        let put = self.claim.store.put(&self.claim.path, document.to_bytes().into()).await;
        if let Err(error) = put {
            tracing::debug!(%error, "claim of a model not touched");
        }
        true
    }
}

/// Removes the remains of trainings that stopped without a word; gives the highest version that
/// has a folder.
async fn sweep(versions: &Place, now_ms: i64) -> Result<u32> {
    let wrong = |error| Error::store(versions.url.as_str(), &error);
    let objects = versions.store.list(Some(&versions.path));
    let objects: Vec<_> = match objects.try_collect().await {
        Ok(objects) => objects,
        Err(object_store::Error::NotFound { .. }) => vec![],
        Err(error) => return Err(wrong(error)),
    };
    let mut folders = BTreeMap::<u32, bool>::new();
    for object in &objects {
        let Some(mut parts) = object.location.prefix_match(&versions.path) else { continue };
        let version = parts.next().and_then(|part| part.as_ref().parse().ok());
        let Some(version) = version else { continue };
        let whole = parts.next().is_some_and(|part| part.as_ref() == MANIFEST);
        *folders.entry(version).or_default() |= whole;
    }
    let mut highest = 0;
    for (version, whole) in folders {
        let folder = versions.child(&version.to_string()).folder();
        if !whole && is_stale(&folder, now_ms).await? {
            tracing::info!(folder = folder.url.as_str(), "removing a training that has stopped");
            remove(&folder).await?;
            continue;
        }
        highest = version;
    }
    Ok(highest)
}

async fn is_stale(folder: &Place, now_ms: i64) -> Result<bool> {
    // A folder without a claim is one that somebody is just removing.
    let claim = read(&folder.child(CLAIM)).await?;
    Ok(claim.is_some_and(|claim| now_ms.saturating_sub(claim.beat_ms) > STALE_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreConfig, Stores};

    #[tokio::test]
    async fn who_claims_a_version_that_another_gives_up_loses_nothing() {
        let disk = tempfile::tempdir().unwrap();
        let url = disk.path().display().to_string();
        let stores = Arc::new(Stores::default());
        let place = stores.open(&StoreConfig { url, ..StoreConfig::default() }).unwrap();
        let (version, on_disk) = (place.child("1").folder(), disk.path().join("1"));
        for name in [CLAIM, "users.parquet"] {
            assert!(version.child(name).create("{}").await.unwrap());
        }
        let begun = ["users.parquet#1", "claim.json#1"].map(|name| on_disk.join(name));
        begun.iter().for_each(|path| std::fs::write(path, "").unwrap());
        remove(&version).await.unwrap();
        let left = std::fs::read_dir(&on_disk).unwrap().map(|file| file.unwrap().path());
        assert_eq!(left.collect::<Vec<_>>(), [on_disk.join("claim.json#1")]);
        std::fs::remove_file(&begun[1]).unwrap();
        remove(&version).await.unwrap();
        assert!(!on_disk.exists());
    }
}
