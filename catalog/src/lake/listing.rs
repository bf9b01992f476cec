//! The files of a table, listed folder by folder, each folder at most once in its lifetime.
//!
//! A query that needs some partitions lists only their folders. A folder's listing is used for
//! [`FRESH`] (so that a new file is seen by the next query after that), longer for a folder whose
//! listing itself takes long: five times as long as it took, one minute at most. Queries that need
//! the same folder at the same time share one request.
//!
//! What counts as a file of the table: a name with an extension of the format (or the option
//! `file_extension`), of at least one byte, not beginning with `_` or `.`, in a folder whose name
//! does not begin with these either. Folders without a `=` in their name are read too and add no
//! column.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use datafusion::common::ScalarValue;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;

use super::format::Settings;
use super::partition::{Keys, Pruner, check_keys, parse_folder, tuple};
use super::pinned::Changed;
use super::table::Column;
use crate::error::{Error, Result};
use crate::store::Place;

/// How long a listing is used before the store is asked again.
pub const FRESH: Duration = Duration::from_secs(2);

/// The longest use of a listing, for folders whose listing takes long.
const FRESH_MAX: Duration = Duration::from_secs(60);

/// Requests in flight at once for one table.
pub(crate) const REQUESTS_MAX: usize = 32;

/// A file of the table and the folders it lies in.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub meta: ObjectMeta,
    pub keys: Arc<Keys>,
}

struct Folder {
    listed: Instant,
    took: Duration,
    files: Vec<ObjectMeta>,
    folders: Vec<Path>,
}

impl Folder {
    fn is_fresh(&self, fresh: Duration) -> bool {
        self.listed.elapsed() < lifetime(fresh, self.took)
    }
}

/// How long something that took `took` to find out is used.
pub(crate) fn lifetime(fresh: Duration, took: Duration) -> Duration {
    if fresh.is_zero() {
        return fresh;
    }
    fresh.max((took * 5).min(FRESH_MAX))
}

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Folder>>>>;

/// A folder's content and the keys of the folder.
type Listed = (Arc<Folder>, Arc<Keys>);

/// The listing of one table's location.
pub(crate) struct Listing {
    place: Place,
    settings: Settings,
    fresh: Duration,
    folders: Mutex<HashMap<Path, Slot>>,
    changed: Changed,
}

/// A folder still to be listed.
struct Pending {
    path: Path,
    keys: Arc<Keys>,
}

impl Listing {
    /// A listing that has asked for nothing yet.
    pub fn new(place: Place, settings: Settings, fresh: Duration) -> Self {
        Self { place, settings, fresh, folders: Mutex::default(), changed: Changed::default() }
    }

    /// Where whoever reads a file tells that it is not the one that was listed.
    pub fn changed(&self) -> &Changed {
        &self.changed
    }

    /// Where the table is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The URL of an object in the table's store.
    pub fn url(&self, path: &Path) -> String {
        object_url(&self.place, path)
    }

    /// All files, in the order of their paths.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses; the error names the folder.
    pub async fn all(&self) -> Result<Vec<Found>> {
        let mut visited = HashSet::new();
        let found = self.walk(None, &mut visited).await?;
        self.folders.lock().retain(|path, _| visited.contains(path));
        Ok(found)
    }

    /// The files whose partition values may satisfy the pruner's filters.
    ///
    /// # Errors
    /// As [`Self::all`], and when a folder is partitioned otherwise than the table.
    pub async fn pruned(&self, columns: &[Column], pruner: &Pruner) -> Result<Vec<Found>> {
        self.walk(Some((columns, pruner)), &mut HashSet::new()).await
    }

    async fn walk(
        &self,
        pruning: Option<(&[Column], &Pruner)>,
        visited: &mut HashSet<Path>,
    ) -> Result<Vec<Found>> {
        if self.changed.swap(false, Ordering::Relaxed) {
            self.folders.lock().clear();
        }
        let none = Arc::new(Keys::new());
        let mut found = Vec::new();
        let mut level = vec![Pending { path: self.place.path.clone(), keys: none }];
        // One turn lists all folders of one depth; a path has an end, so the turns have one.
        while !level.is_empty() {
            visited.extend(level.iter().map(|pending| pending.path.clone()));
            let requests = level.into_iter().map(|pending| {
                async move { Ok((self.folder(&pending.path).await?, pending.keys)) }.boxed()
            });
            let requests: Vec<BoxFuture<'_, Result<Listed>>> = requests.collect();
            let listed: Vec<_> =
                futures::stream::iter(requests).buffered(REQUESTS_MAX).try_collect().await?;
            let mut next = Vec::new();
            for (folder, keys) in listed {
                let files = folder.files.iter();
                found.extend(
                    files.map(|meta| Found { meta: meta.clone(), keys: Arc::clone(&keys) }),
                );
                next.extend(folder.folders.iter().map(|path| below(path, &keys)));
            }
            level = match pruning {
                Some((columns, pruner)) => self.prune(next, columns, pruner)?,
                None => next,
            };
        }
        if let Some((columns, pruner)) = pruning {
            found = self.prune_files(found, columns, pruner)?;
        }
        found.sort_unstable_by(|a, b| a.meta.location.cmp(&b.meta.location));
        Ok(found)
    }

    fn prune(
        &self,
        folders: Vec<Pending>,
        columns: &[Column],
        pruner: &Pruner,
    ) -> Result<Vec<Pending>> {
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        // Folders of one depth may still know different numbers of values, when some are plain.
        let mut by_depth: HashMap<usize, (Vec<Pending>, Vec<Vec<ScalarValue>>)> = HashMap::new();
        for folder in folders {
            let url = || self.url(&folder.path);
            check_keys(&url, &folder.keys, &names)?;
            let values = tuple(&url, &folder.keys, columns)?;
            let (pending, tuples) = by_depth.entry(folder.keys.len()).or_default();
            pending.push(folder);
            tuples.push(values);
        }
        let mut kept = Vec::new();
        for (depth, (pending, tuples)) in by_depth {
            let keep = pruner.keep(depth, &tuples)?;
            kept.extend(pending.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(p, _)| p));
        }
        Ok(kept)
    }

    /// Files above their partitions' folders have NULL there, which the filters may refuse.
    fn prune_files(
        &self,
        found: Vec<Found>,
        columns: &[Column],
        pruner: &Pruner,
    ) -> Result<Vec<Found>> {
        // The files of one folder share their keys.
        let mut distinct: HashMap<*const Keys, usize> = HashMap::new();
        let mut tuples = Vec::new();
        for file in &found {
            if let Entry::Vacant(new) = distinct.entry(Arc::as_ptr(&file.keys)) {
                new.insert(tuples.len());
                tuples.push(tuple(&|| self.url(&file.meta.location), &file.keys, columns)?);
            }
        }
        let keep = pruner.keep(columns.len(), &tuples)?;
        if keep.iter().all(|keep| *keep) {
            return Ok(found);
        }
        let kept = |file: &Found| {
            let row = distinct.get(&Arc::as_ptr(&file.keys));
            row.and_then(|row| keep.get(*row)).copied().unwrap_or(true)
        };
        Ok(found.into_iter().filter(kept).collect())
    }

    async fn folder(&self, path: &Path) -> Result<Arc<Folder>> {
        let slot = Arc::clone(self.folders.lock().entry(path.clone()).or_default());
        let mut known = slot.lock().await;
        if let Some(folder) = known.as_ref()
            && folder.is_fresh(self.fresh)
        {
            return Ok(Arc::clone(folder));
        }
        let listed = Instant::now();
        let (files, folders) = self.ask(path).await?;
        let folder = Arc::new(Folder { listed, took: listed.elapsed(), files, folders });
        *known = Some(Arc::clone(&folder));
        Ok(folder)
    }

    async fn ask(&self, path: &Path) -> Result<(Vec<ObjectMeta>, Vec<Path>)> {
        let is_root = *path == self.place.path;
        if is_root && !self.place.url.path().ends_with('/') {
            // The location may be one file, whatever its extension.
            match self.place.store.head(path).await {
                Ok(meta) => return Ok((vec![meta], Vec::new())),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) if self.place.is_local() => {
                    // The local disk does not say "not found" of a folder.
                    tracing::debug!(%path, %error, "not a file");
                }
                Err(error) => return Err(Error::store(self.url(path), &error)),
            }
        }
        let prefix = Some(path).filter(|path| !path.as_ref().is_empty());
        let result = match self.place.store.list_with_delimiter(prefix).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) if self.place.is_local() => {
                return Ok((Vec::new(), Vec::new()));
            }
            Err(error) => return Err(unreachable(self.url(path), &error)),
        };
        let files = result.objects.into_iter().filter(|meta| {
            meta.size > 0
                && meta.location.filename().is_some_and(|name| self.settings.accepts(name))
        });
        let folders = result.common_prefixes.into_iter().filter(|folder| {
            folder.filename().is_some_and(|name| !name.starts_with(['_', '.']) && *folder != *path)
        });
        Ok((files.collect(), folders.collect()))
    }
}

/// A listing that answers "not found" has no bucket, so it is the store that is wrong.
pub(crate) fn unreachable(url: String, error: &object_store::Error) -> Error {
    match Error::store(url, error) {
        Error::File { url, reason } => Error::Store { url, reason, denied: false },
        other => other,
    }
}

fn below(path: &Path, keys: &Arc<Keys>) -> Pending {
    let keys = match path.filename().and_then(parse_folder) {
        Some(pair) => {
            let mut longer = keys.as_ref().clone();
            longer.push(pair);
            Arc::new(longer)
        }
        None => Arc::clone(keys),
    };
    Pending { path: path.clone(), keys }
}

/// The URL of an object in a place's store.
pub(crate) fn object_url(place: &Place, path: &Path) -> String {
    let mut url = place.url.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(path.parts().map(|part| part.as_ref().to_owned()));
    }
    url.to_string()
}
