//! The past of a Delta table of a lake, from which a person was taken out.
//!
//! Earlier versions name files with the person's rows, and the log has statistics of them. So the
//! files that are no longer of the table are removed, the log says no values of them any more
//! (`delta/log_files.rs`), a checkpoint of the version that stays takes the place of earlier ones,
//! and the table notes that versions before are purged. What others write meanwhile is left alone:
//! their commits are later ones, and a file that no version names yet is theirs until the table's
//! own retention says otherwise.
//!
//! Each step can be done again, and what is to be done is told by what is there: whoever was killed
//! in the middle is followed by the next one. Who began to sum the past up before it was purged may
//! end after it: such checkpoints are looked for once more when all else of an erasure is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltalake::DeltaTable;
use deltalake::checkpoints::create_checkpoint;
use deltalake::protocol::DeltaOperation;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::delta::log_files::{LogFile, Said};
use crate::delta::{PlainFiles, delta_error, purged_before};
use crate::delta_erasure::{DeltaErasure, TRIES, active};
use crate::error::{Error, Result};
use crate::lake::files::TableFiles;
use crate::lake::partition::decode;
use crate::lake_erasure::{LakeFile, READ_ONLY, REFUSED, Untouched, object, path_without};
use crate::store::{Place, is_version};

const LOG: &str = "_delta_log";
/// Where changes were kept while the table did so.
const CHANGES: &str = "_change_data";
/// How commits are called before they have their version.
const UNMADE: &str = ".tmp";
/// Where checkpoints of the second kind have their parts.
const SIDECARS: &str = "_sidecars/";
const NAMED: &str = "its name names the person";
const UNNAMED: &str = "no version names it yet";
const OTHERS: &str = "no version names it, and its folder is none of the table's";
const LINKED: &str = "a link leads to it";
const FOLDERS: &str = "they are named by personal data, and so the log names it too";
const SECOND: &str = "it is of a checkpoint of the second kind";
/// A file that no version names may be somebody's for so long, however short the table's own time
/// is: whoever set that says when to clean up, and an erasure comes at any time.
const UNNAMED_AT_LEAST: Duration = Duration::from_secs(24 * 3_600);

/// What became of a table's past.
#[derive(Default)]
pub struct Purged {
    /// The version with which the past begins, where it was purged now or before.
    pub begins: Option<u64>,
    /// Objects that are gone.
    pub objects: u64,
    /// What is left to its owner, and why.
    pub left: Vec<(String, &'static str)>,
    /// Whether the store was seen to keep what is replaced or removed.
    pub keeps_versions: bool,
    /// Files that no version names, which may hold the person nevertheless.
    pub strays: Option<Strays>,
}

/// Files in a table's folder that no version names.
pub struct Strays {
    folder: String,
    plain: PlainFiles,
    files: TableFiles,
}

impl Strays {
    fn of(folder: &str, plain: PlainFiles) -> Option<Self> {
        let all = Arc::new(plain.with_files(plain.files().to_vec()));
        let files = TableFiles::of_delta(folder.to_owned(), all)?;
        Some(Self { folder: folder.to_owned(), plain, files })
    }

    /// The files, read as the table's are.
    pub fn files(&self) -> &TableFiles {
        &self.files
    }

    /// One of them.
    pub fn one(&self, number: usize) -> Option<TableFiles> {
        let meta = self.plain.files().get(number)?;
        let one = self.plain.with_files(vec![meta.clone()]);
        TableFiles::of_delta(self.folder.clone(), Arc::new(one))
    }
}

/// Objects by name or path.
type Objects = Vec<(String, ObjectMeta)>;

/// What there is of a table's past.
#[derive(Default)]
struct Past {
    /// The files of the table, as it was looked at and as it is now.
    present: BTreeSet<String>,
    /// Commits that say too much.
    commits: Vec<LakeFile>,
    /// Sums of files that are replaced, which would be wrong after that.
    sums: Vec<ObjectMeta>,
    /// Data files that earlier versions name.
    dead: Vec<ObjectMeta>,
    /// Checkpoints of earlier versions, and what else sums up the log.
    stale: Vec<ObjectMeta>,
    strays: Vec<ObjectMeta>,
    /// Parts of checkpoints that the table has made when it needed more than it does now.
    sidecars: Vec<String>,
    /// Names that stay in the log and tell of the person.
    telling: Vec<String>,
    keeps_versions: bool,
}

impl Past {
    fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.dead.is_empty() && self.stale.is_empty()
    }
}

/// What the commits of a log say together.
struct Log {
    /// The first of them.
    first: u64,
    /// The last one that takes files out of the table.
    last_removal: u64,
    /// Every file that one of them names.
    named: BTreeSet<String>,
    /// The names of the commits that say too much.
    changed: BTreeSet<String>,
}

impl DeltaErasure<'_> {
    /// Purges all that was before this version, which the person is no longer in; `None` when
    /// somebody else has written the log's past meanwhile, has brought some of it back or made
    /// another table in its place, and it is to be looked at again.
    ///
    /// # Errors
    /// When the store cannot be reached, or the log is damaged.
    pub async fn purge(&self, names: &BTreeSet<String>) -> Result<Option<Purged>> {
        let Some(past) = self.past(names).await? else { return Ok(None) };
        let mut purged = Purged {
            begins: purged_before(&self.name, &self.table).await?,
            keeps_versions: past.keeps_versions,
            left: past.telling.iter().map(|path| (path.clone(), NAMED)).collect(),
            ..Purged::default()
        };
        let told = self.partition_columns().iter().filter(|column| self.personal.has(column));
        purged.left.extend(told.map(|column| (format!("folders {column}=…"), FOLDERS)));
        purged.left.extend(past.sidecars.iter().map(|path| (path.clone(), SECOND)));
        if !past.is_empty() {
            purged.begins = Some(self.note_first().await?);
            self.remove(&past.sums, &mut purged).await?;
            let says_less = self.say_less(past.commits, names, &past.present, &mut purged).await?;
            if !says_less || !self.is_past(&past.dead).await? {
                return Ok(None);
            }
            let checkpoint = create_checkpoint(&self.table, None).await;
            checkpoint.map_err(|error| delta_error("write", &self.name, error))?;
            // Both took their time.
            if !self.is_past(&past.dead).await? {
                return Ok(None);
            }
            self.remove(&past.dead, &mut purged).await?;
            self.remove(&past.stale, &mut purged).await?;
            self.catalog.tables.forget(&self.place);
        }
        if !past.strays.is_empty() {
            let plain = self.plain.with_files(past.strays);
            purged.strays = Strays::of(self.place.url.as_str(), plain);
        }
        Ok(Some(purged))
    }

    /// Removes a file that no version names and the person is in, unless somebody may be about to
    /// commit it.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn remove_stray(
        &self,
        strays: &Strays,
        number: usize,
        purged: &mut Purged,
    ) -> Result<()> {
        let Some(meta) = strays.plain.files().get(number) else { return Ok(()) };
        let Some(path) = self.relative(&meta.location) else { return Ok(()) };
        if !is_in_folders(&path, self.partition_columns()) {
            purged.left.push((meta.location.to_string(), OTHERS));
            return Ok(());
        }
        let stray = std::slice::from_ref(meta);
        if self.is_old(meta)? && self.is_past(stray).await? {
            return self.remove(stray, purged).await;
        }
        purged.left.push((meta.location.to_string(), UNNAMED));
        Ok(())
    }

    /// Removes what others have summed up of the table's past since that was purged, up to the
    /// version before the one that the past begins with. That one has a checkpoint, so that nobody
    /// needs theirs.
    ///
    /// # Errors
    /// When the store cannot be reached, or the log is damaged.
    pub async fn remove_late(&self, purged: &mut Purged) -> Result<()> {
        let Some(begins) = purged_before(&self.name, &self.table).await? else { return Ok(()) };
        let log = self.place.child(LOG);
        let objects: object_store::Result<Vec<ObjectMeta>> =
            log.store.list(Some(&log.path)).try_collect().await;
        let mut late = objects.map_err(|error| Error::store(log.url.as_str(), &error))?;
        let first = Some(LogFile::Checkpoint(begins));
        if !late.iter().any(|meta| LogFile::of(name_of(meta)) == first) {
            return Ok(());
        }
        late.retain(|meta| is_of_past(name_of(meta), begins));
        if !late.is_empty() {
            self.remove(&late, purged).await?;
            self.catalog.tables.forget(&self.place);
        }
        Ok(())
    }

    /// Whether nobody is about to commit an object that no version names.
    fn is_old(&self, meta: &ObjectMeta) -> Result<bool> {
        let age_ms = self.catalog.now_ms().saturating_sub(meta.last_modified.timestamp_millis());
        let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or_default());
        Ok(age > self.retention()?.max(UNNAMED_AT_LEAST))
    }

    /// Whether the newest version is one of this table, and names none of what is to be removed: a
    /// `RESTORE` brings files back. Nor may another erasure have begun after this version, which
    /// holds whom that one has taken out.
    async fn is_past(&self, dead: &[ObjectMeta]) -> Result<bool> {
        let now = self.catalog.tables.newest_anew(&self.name, &self.place).await?;
        let (version, noted) = (self.version()?, purged_before(&self.name, &now).await?);
        if noted.is_some_and(|noted| noted > version) {
            return Ok(false);
        }
        let active = active(self.snapshot(&now)?);
        let is_back = |meta: &ObjectMeta| {
            self.relative(&meta.location).is_some_and(|path| active.contains_key(&path))
        };
        Ok(self.is_later(&now)? && !dead.iter().any(is_back))
    }

    /// Whether a version is one of this table, and not of another one in its place.
    fn is_later(&self, now: &DeltaTable) -> Result<bool> {
        let (then, now) = (self.snapshot(&self.table)?, self.snapshot(now)?);
        Ok(now.version() >= then.version() && now.metadata() == then.metadata())
    }

    fn version(&self) -> Result<u64> {
        Ok(self.snapshot(&self.table)?.version())
    }

    /// Notes in the table that it has no past before this version.
    async fn note_first(&self) -> Result<u64> {
        let first = self.version()?;
        for _ in 0..TRIES {
            let now = self.catalog.tables.newest_anew(&self.name, &self.place).await?;
            if purged_before(&self.name, &now).await?.is_some_and(|noted| noted >= first) {
                return Ok(first);
            }
            let operation = DeltaOperation::VacuumEnd { status: "COMPLETED".to_owned() };
            if self.committed(&now, vec![], operation, first).await? {
                return Ok(first);
            }
        }
        Err(Error::Conflict { name: self.name.clone() })
    }

    /// What there is of the past, and of files that nobody names; `None` when somebody writes it.
    async fn past(&self, names: &BTreeSet<String>) -> Result<Option<Past>> {
        // Listed first: what is committed meanwhile is known to the version that is read then.
        let (log, data) = self.listed().await?;
        let now = self.catalog.tables.newest_anew(&self.name, &self.place).await?;
        if !self.is_later(&now)? {
            return Ok(None);
        }
        let mut present: BTreeSet<String> =
            active(self.snapshot(&self.table)?).into_keys().collect();
        present.extend(active(self.snapshot(&now)?).into_keys());
        let mut past = Past { present, ..Past::default() };
        let Some(said) = self.said(&log, names, &mut past).await? else { return Ok(None) };
        self.sort_log(log, &said, &mut past).await?;
        let paths = past.present.union(&said.named);
        let telling = paths.filter(|path| path_without(path, names).1).cloned().collect();
        past.telling = telling;
        sort_data(data, &said.named, &mut past);
        Ok(Some(past))
    }

    /// The objects of the log by name, and the others by their paths relative to the table.
    async fn listed(&self) -> Result<(Objects, Objects)> {
        let (mut log, mut data) = (Vec::new(), Vec::new());
        let mut objects = self.place.store.list(Some(&self.place.path));
        let wrong = |error| Error::store(self.place.url.as_str(), &error);
        while let Some(meta) = objects.try_next().await.map_err(wrong)? {
            let Some(path) = self.relative(&meta.location) else { continue };
            match path.split_once('/') {
                Some((LOG, name)) => log.push((name.to_owned(), meta)),
                _ => data.push((path, meta)),
            }
        }
        Ok((log, data))
    }

    /// Reads the commits up to this version; `None` when one of them is written meanwhile.
    async fn said(
        &self,
        log: &[(String, ObjectMeta)],
        names: &BTreeSet<String>,
        past: &mut Past,
    ) -> Result<Option<Log>> {
        let version = self.version()?;
        let (named, changed) = (BTreeSet::new(), BTreeSet::new());
        let mut all = Log { first: version, last_removal: 0, named, changed };
        for (name, meta) in log {
            let Some(LogFile::Commit(at)) = LogFile::of(name) else { continue };
            if at > version {
                continue;
            }
            let place = object(&self.place, &meta.location);
            let state = match place.store.head(&place.path).await {
                Ok(state) => state,
                // Whoever cleans the log up removes the oldest.
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(Error::store(place.url.as_str(), &error)),
            };
            past.keeps_versions |= is_version(state.version.as_deref());
            let file = LakeFile::new(self.place.clone(), place, state, self.settings.clone());
            let Some((content, _)) = file.read().await? else { return Ok(None) };
            let said = read_commit(&file, &content, names, &past.present)?;
            all.first = all.first.min(at);
            if said.removes {
                all.last_removal = all.last_removal.max(at);
            }
            all.named.extend(said.paths.iter().map(|path| relative(path)));
            if said.less.is_some() {
                past.commits.push(file);
                all.changed.insert(name.clone());
            }
        }
        Ok(Some(all))
    }

    /// Finds what sums up versions in which there were files that are gone.
    async fn sort_log(&self, log: Objects, said: &Log, past: &mut Past) -> Result<()> {
        let version = self.version()?;
        let first_kept = purged_before(&self.name, &self.table).await?.unwrap_or_default();
        let begins = first_kept.max(said.last_removal);
        // Of what is before the first commit nobody knows what was removed.
        let is_stale = |at: u64| at < begins || at.saturating_add(1) < said.first;
        let mut changed = said.changed.clone();
        changed.insert("_last_checkpoint".to_owned());
        changed.insert(format!("{version:020}.checkpoint.parquet"));
        let mut sums = Vec::new();
        for (name, meta) in log {
            let is_past = match LogFile::of(&name) {
                Some(LogFile::Checkpoint(at)) => at < version && is_stale(at),
                Some(LogFile::Checksum(at)) => at <= version && is_stale(at),
                Some(LogFile::Compacted(last)) => last <= version && begins > 0,
                Some(LogFile::Commit(_)) => false,
                None if name.starts_with(SIDECARS) => {
                    past.sidecars.push(meta.location.to_string());
                    continue;
                }
                // A commit that was never made.
                None if name.ends_with(UNMADE) => {
                    if self.is_old(&meta)? {
                        past.stale.push(meta);
                    }
                    continue;
                }
                None => {
                    sums.push((name, meta));
                    continue;
                }
            };
            if is_past {
                changed.insert(name);
                past.stale.push(meta);
            }
        }
        let summed = |name: &str| {
            let of = name.strip_prefix('.').and_then(|name| name.strip_suffix(".crc"));
            of.is_some_and(|of| changed.contains(of))
        };
        past.sums =
            sums.into_iter().filter(|(name, _)| summed(name)).map(|(_, meta)| meta).collect();
        Ok(())
    }

    /// Replaces commits by what they say then; `false` when somebody else has written one. Each is
    /// read again, because a log may be larger than memory.
    async fn say_less(
        &self,
        commits: Vec<LakeFile>,
        names: &BTreeSet<String>,
        present: &BTreeSet<String>,
        purged: &mut Purged,
    ) -> Result<bool> {
        for file in commits {
            let Some((content, attributes)) = file.read().await? else { return Ok(false) };
            let Some(less) = read_commit(&file, &content, names, present)?.less else { continue };
            match file.replace(Bytes::from(less), attributes).await? {
                Ok(erased) => purged.keeps_versions |= erased.keeps_versions,
                Err(Untouched::Changed) => return Ok(false),
                Err(Untouched::Left(reason)) => purged.left.push((file.path(), reason)),
            }
        }
        Ok(true)
    }

    /// Removes objects.
    async fn remove(&self, metas: &[ObjectMeta], purged: &mut Purged) -> Result<()> {
        for meta in metas {
            let place = object(&self.place, &meta.location);
            if self.catalog.stores.rewritable_lake(&place).is_none() {
                purged.left.push((meta.location.to_string(), READ_ONLY));
                continue;
            }
            if is_linked(&self.place, &place).await {
                purged.left.push((meta.location.to_string(), LINKED));
                continue;
            }
            match place.remove().await {
                Ok(()) => purged.objects += 1,
                Err(Error::Store { denied: true, .. }) => {
                    purged.left.push((meta.location.to_string(), REFUSED));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn name_of(meta: &ObjectMeta) -> &str {
    meta.location.filename().unwrap_or_default()
}

/// Whether an object of a log sums up versions before the one that the past begins with, or is the
/// sum of one that does.
fn is_of_past(name: &str, begins: u64) -> bool {
    match LogFile::of(name) {
        Some(LogFile::Checkpoint(at) | LogFile::Checksum(at)) => at < begins,
        Some(LogFile::Compacted(last)) => last <= begins,
        Some(LogFile::Commit(_)) => false,
        None => summed(name).is_some_and(|of| is_of_past(&of, begins)),
    }
}

/// Whether a link leads from a table's folder to what is at a place in it: that may be another
/// table's, and it would stay where it is.
pub(crate) async fn is_linked(table: &Place, object: &Place) -> bool {
    if !object.is_local() {
        return false;
    }
    let (Ok(folder), Ok(path)) = (table.url.to_file_path(), object.url.to_file_path()) else {
        return false;
    };
    let real = (tokio::fs::canonicalize(&folder).await, tokio::fs::canonicalize(&path).await);
    let (Ok(real_folder), Ok(real)) = real else { return false };
    path.strip_prefix(&folder).is_ok_and(|below| real != real_folder.join(below))
}

/// Whether a file lies where the table's files do: in its folder, or in those of its partitions.
fn is_in_folders(path: &str, partitions: &[String]) -> bool {
    let folders = path.rsplit_once('/').map(|(folders, _)| folders);
    let is_of_table = |folder: &str| {
        let column = folder.split_once('=').map(|(column, _)| decode(column));
        folder == CHANGES || column.is_some_and(|column| partitions.contains(&column))
    };
    folders.is_none_or(|folders| folders.split('/').all(is_of_table))
}

/// Reads a commit.
fn read_commit(
    file: &LakeFile,
    content: &Bytes,
    names: &BTreeSet<String>,
    present: &BTreeSet<String>,
) -> Result<Said> {
    let corrupt = |reason: String| Error::Corrupt { what: file.path(), reason };
    let text = std::str::from_utf8(content).map_err(|error| corrupt(error.to_string()))?;
    let said = Said::of(text, names, |path| present.contains(&relative(path)));
    said.map_err(|error| corrupt(error.to_string()))
}

/// Finds the data files that are no longer of the table, and those that no version names.
fn sort_data(data: Objects, named: &BTreeSet<String>, past: &mut Past) {
    // Another table within this one has files of its own.
    let inner: BTreeSet<String> = data
        .iter()
        .filter_map(|(path, _)| path.split_once(&format!("/{LOG}/")))
        .map(|(folder, _)| format!("{folder}/"))
        .collect();
    let Past { present, dead, strays, .. } = past;
    let is_dead = |path: &str| named.contains(path) && !present.contains(path);
    for (path, meta) in data {
        if present.contains(&path) || inner.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        if is_dead(&path) || summed(&path).is_some_and(|of| is_dead(&of)) {
            dead.push(meta);
        } else if is_data(&path) {
            strays.push(meta);
        }
    }
}

/// The file beside that a hidden one has the sum of: `a/.b.parquet.crc` that of `a/b.parquet`.
fn summed(path: &str) -> Option<String> {
    let (folder, name) = match path.rsplit_once('/') {
        Some((folder, name)) => (format!("{folder}/"), name),
        None => (String::new(), path),
    };
    let of = name.strip_prefix('.')?.strip_suffix(".crc")?;
    Some(format!("{folder}{of}"))
}

/// Whether a file may have rows of the table, by its name: none that is hidden has.
fn is_data(path: &str) -> bool {
    let is_hidden = |part: &str| part.starts_with(['_', '.']) && !part.contains('=');
    path.ends_with(".parquet") && !path.split('/').any(|part| is_hidden(part) && part != CHANGES)
}

/// The path of a file as stores have it, of one as a log has it.
fn relative(path: &str) -> String {
    Path::parse(path).unwrap_or_else(|_| Path::from(path)).to_string()
}

#[cfg(test)]
#[path = "delta_purge_tests.rs"]
mod tests;
