//! Rows that go from the files of lakes that Attune may write (`access = "rewrite"`).
//!
//! A file takes the place of another one under the same name, at once: a listing shows either, and
//! whoever reads one reads it to its end or is told that it changed (`lake/pinned.rs`). So each is
//! a step of its own that can be done again, and one that was interrupted has happened or not.
//!
//! What is replaced is the state of the file that was looked at, and no other: on an object store
//! by a conditional write (If-Match), on a disk by a rename right after a look. A file that holds
//! nothing else is removed, right after a look in either. Files that something else describes by
//! their size or content (logs of Delta tables, metadata of Iceberg and Hudi, `_metadata` of
//! Parquet) are left to whoever writes that, and so is whatever cannot be written back without a
//! loss. Tables that are Delta tables themselves have a way of their own (`delta_erasure.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path as DiskPath;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use bytes::Bytes;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use object_store::path::{Path, PathPart};
use object_store::{
    Attributes, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    UpdateVersion,
};

use crate::Catalog;
use crate::bucket::Versioning;
use crate::config::LakeAccess;
use crate::error::{Error, Result};
use crate::lake::LakeTable;
use crate::lake::described::writer_of;
use crate::lake::files::TableFiles;
use crate::lake::format::Settings;
use crate::lake::partition::decode;
use crate::lake::rewrite::{Content, FILE_BYTES_MAX, TIMES_IN_MEMORY, TOO_LARGE, refused, without};
use crate::lakes::Named;
use crate::personal_columns::PersonalColumns;
use crate::registry::{ObjectName, Spec};
use crate::store::{Place, is_version, probe, store_key};

/// A shorter id is in other names by chance.
const ID_CHARS: usize = 4;

pub(crate) const READ_ONLY: &str = "its lake is only read";
pub(crate) const REFUSED: &str = "its store refuses the write";
const NO_STATES: &str = "its store does not tell its state (ETag), or takes no conditional writes";

/// What became of a file that is not the one it was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untouched {
    /// Somebody else has written it since it was listed: it is to be looked at again.
    Changed,
    /// It is somebody else's to write, and why.
    Left(&'static str),
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// Whether it is gone, because it held nothing else.
    pub is_removed: bool,
    /// Whether its store was seen to keep what it was.
    pub keeps_versions: bool,
}

/// Whether a file was written.
pub(crate) type Ended = Result<Result<Erased, Untouched>>;

/// The files of a table from which rows are to go.
pub struct LakeErasure<'a> {
    catalog: &'a Catalog,
    place: Place,
    files: TableFiles,
    personal: PersonalColumns,
    /// What else describes the files of folders that were looked at.
    described: BTreeMap<Path, Option<&'static str>>,
}

/// A file as it was when it was looked at.
pub struct LakeFile {
    table: Place,
    place: Place,
    meta: ObjectMeta,
    settings: Settings,
}

impl Catalog {
    /// Whether rows can be erased from the files of a table: it is made of files of a lake with
    /// that access, in a format that is written back without a loss, or it is a Delta table that
    /// needs no more than is known of such tables.
    ///
    /// # Errors
    /// When a store cannot be reached, or the table's document or log cannot be read.
    pub async fn rewrites_files_of(&self, name: &ObjectName, state: &SessionState) -> Result<bool> {
        if let Some(delta) = self.begin_delta_erasure(name, state).await? {
            return Ok(delta.is_ok());
        }
        let Some(table) = self.table_of_files(name).await? else { return Ok(false) };
        let place = self.stores.locate(&table.location, Some(self.base_of(&name.schema)));
        let is_rewritable = place.is_ok_and(|place| self.stores.rewrites_at(&place));
        Ok(is_rewritable && refused(table.format).is_none())
    }

    /// The files of such a table as they are now; `None` when it is no such table, or they cannot
    /// be told apart.
    ///
    /// # Errors
    /// As [`Catalog::table_files`]; [`Error::Empty`] when there is no file.
    pub async fn begin_lake_erasure(
        &self,
        name: &ObjectName,
        state: &SessionState,
    ) -> Result<Option<LakeErasure<'_>>> {
        let Some(table) = self.table_of_files(name).await? else { return Ok(None) };
        let base = self.base_of(&name.schema);
        self.check_location(&table.location, base)?;
        self.check_separation(name, &table).await?;
        let place = self.stores.locate(&table.location, Some(base))?;
        let Some(files) = self.files_now.files(Some(base), &table, state).await? else {
            self.files_now.must_have_files(Some(base), &table).await?;
            return Ok(None);
        };
        let personal = self.personal_columns(name).await?;
        Ok(Some(LakeErasure { catalog: self, place, files, personal, described: BTreeMap::new() }))
    }

    /// What Attune may do with a lake's files; `None` when there is no such lake.
    pub fn lake_access(&self, lake: &str) -> Option<LakeAccess> {
        self.lakes.get(lake).map(|lake| lake.access().1)
    }

    /// Writes and removes an object in a lake, to find out whether its store takes that. A lake
    /// that is only read is left alone.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check_lake_access(&self, lake: &str) -> Result<()> {
        let Some((place, LakeAccess::Rewrite)) = self.lakes.get(lake).map(|lake| lake.access())
        else {
            return Ok(());
        };
        let folder = place.is_local().then(|| place.url.to_file_path()).and_then(Result::ok);
        let tried = match &folder {
            Some(folder) if !folder.is_dir() => {
                let reason = "there is no such folder".into();
                Err(Error::Location { url: place.url.to_string(), reason })
            }
            _ => probe(place).await,
        };
        for left in ["_attune/probe", "_attune"] {
            if let Some(folder) = &folder
                && let Err(error) = tokio::fs::remove_dir(folder.join(left)).await
            {
                tracing::debug!(%error, left, "not removed");
            }
        }
        tried.map(|_| ()).map_err(|error| {
            Error::invalid_hint(
                format!("lake {lake} has access = \"rewrite\" and takes no write: {error}"),
                "let its credentials write and remove objects, or set access = \"read\"",
            )
        })
    }

    /// What the buckets of tables over files say of earlier versions of objects: a sentence for
    /// each that may keep some. Beside a table stands whether versions of its files were seen. The
    /// warehouse's own bucket is [`Catalog::versioning`]'s matter.
    ///
    /// # Errors
    /// When the warehouse cannot be reached. A lake that cannot be is one of which it is not known.
    pub async fn told_of_buckets(
        &self,
        tables: &BTreeMap<ObjectName, bool>,
    ) -> Result<Vec<String>> {
        let mut buckets: BTreeMap<String, (Place, bool)> = BTreeMap::new();
        for (table, is_seen) in tables {
            let Some(place) = self.place_of_files(table).await? else { continue };
            let (_, seen) = buckets.entry(store_key(&place.url)).or_insert((place, false));
            *seen |= *is_seen;
        }
        let mut told = Vec::new();
        for (place, is_seen) in buckets.into_values() {
            told.extend(self.told_of_bucket(&place, is_seen).await);
        }
        Ok(told)
    }

    /// The same of the bucket of a lake that Attune may write; `None` of any other one.
    pub async fn told_of_lake(&self, lake: &str) -> Option<String> {
        let (place, LakeAccess::Rewrite) = self.lakes.get(lake)?.access() else { return None };
        self.told_of_bucket(place, false).await
    }

    async fn told_of_bucket(&self, place: &Place, is_seen: bool) -> Option<String> {
        let bucket = store_key(&place.url);
        if bucket == store_key(&self.warehouse.place().url) {
            return None;
        }
        let said = match self.stores.bucket_settings(place) {
            None => Versioning::Off,
            Some(settings) => match settings.versioning().await {
                Ok(said) => said,
                Err(error) => Versioning::Unknown(error.to_string()),
            },
        };
        said.or_seen(is_seen).told(&format!("bucket {bucket}"))
    }

    /// Where the files of a table are; `None` where its rows are not those of files.
    async fn place_of_files(&self, name: &ObjectName) -> Result<Option<Place>> {
        let lake = self.lakes.get(&name.schema).map(|lake| lake.access().0.clone());
        let mut name = name.clone();
        let mut found = self.resolve(&name).await;
        if let Ok(Some(Named::Defined(definition))) = &found
            && let Spec::Identifiers { of } = &definition.spec
        {
            name = of.clone();
            found = self.resolve(&name).await;
        }
        let table = match (found, lake) {
            (Ok(Some(Named::Lake(table))), _) => table,
            (Ok(Some(Named::Defined(definition))), _) => match definition.spec {
                Spec::External(table) => table,
                _ => return Ok(None),
            },
            // A table that a lake discovers goes with its last file.
            (_, Some(lake)) => return Ok(Some(lake)),
            (Ok(None), None) => return Ok(None),
            (Err(error), None) => return Err(error),
        };
        Ok(self.stores.locate(&table.location, Some(self.base_of(&name.schema))).ok())
    }

    /// A table whose rows are those of files, without any identifiers kept apart.
    async fn table_of_files(&self, name: &ObjectName) -> Result<Option<LakeTable>> {
        let table = self.external_table(name).await?;
        Ok(table.filter(|table| refused(table.format).is_none()))
    }

    /// A table of a lake or an external one, without any identifiers kept apart.
    pub(crate) async fn external_table(&self, name: &ObjectName) -> Result<Option<LakeTable>> {
        let table = match self.resolve(name).await? {
            Some(Named::Lake(table)) => table,
            Some(Named::Defined(definition)) => match definition.spec {
                Spec::External(table) => table,
                _ => return Ok(None),
            },
            None => return Ok(None),
        };
        Ok(Some(table).filter(|table| table.pii.is_none()))
    }
}

impl LakeErasure<'_> {
    /// The files.
    pub fn files(&self) -> &TableFiles {
        &self.files
    }

    /// Looks at a file, by its number, before it is asked which of its rows are to go.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn begin(&mut self, number: usize) -> Result<Result<LakeFile, Untouched>> {
        let Some((reading, listed)) = self.files.lake_file(number) else {
            return Ok(Err(Untouched::Changed));
        };
        let (settings, listed) = (reading.settings, listed.clone());
        let place = object(&self.place, &listed.location);
        let Some(lake) = self.catalog.stores.rewritable_lake(&place) else {
            return Ok(Err(Untouched::Left(READ_ONLY)));
        };
        if let Some(writer) = self.described(&lake, &place).await? {
            return Ok(Err(Untouched::Left(writer)));
        }
        let meta = match place.store.head(&place.path).await {
            Ok(meta) => meta,
            Err(object_store::Error::NotFound { .. }) => return Ok(Err(Untouched::Changed)),
            Err(error) => return Err(Error::store(place.url.as_str(), &error)),
        };
        let is_listed = listed.e_tag.is_none() || meta.e_tag == listed.e_tag;
        if !is_listed || meta.size != listed.size {
            return Ok(Err(Untouched::Changed));
        }
        if meta.e_tag.is_none() {
            return Ok(Err(Untouched::Left(NO_STATES)));
        }
        if meta.size > FILE_BYTES_MAX {
            return Ok(Err(Untouched::Left(TOO_LARGE)));
        }
        let file = LakeFile { table: self.place.clone(), place, meta, settings };
        // What takes its place would leave the file itself as it is.
        match file.is_link().await {
            true => Ok(Err(Untouched::Left("it is a link to another file"))),
            false => Ok(Ok(file)),
        }
    }

    /// Writes a file without the rows that go, a bit each in the order of the file, if it is still
    /// the one that was looked at before this was asked.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn end(
        &self,
        file: &LakeFile,
        gone: BooleanBuffer,
        pool: &Arc<dyn MemoryPool>,
    ) -> Ended {
        match gone.count_set_bits() {
            0 => return Ok(Err(Untouched::Changed)),
            all if all == gone.len() => return file.remove().await,
            _ => {}
        }
        match file.without(gone, &self.personal, pool).await? {
            Ok((kept, attributes)) => file.replace(kept, attributes).await,
            Err(untouched) => Ok(Err(untouched)),
        }
    }

    /// Forgets what was read of the files: the next statement lists them anew.
    pub fn forget(&self) {
        let Catalog { files, files_now, .. } = self.catalog;
        files.forget(&self.place, files_now);
        files_now.forget(&self.place, files);
    }

    /// Whether the store keeps what was written or removed, as the newest of the files tells.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn keeps_versions(&self) -> Result<bool> {
        let newest = self.files.lake_metas().max_by_key(|meta| meta.last_modified);
        let Some(newest) = newest else { return Ok(false) };
        match self.place.store.head(&newest.location).await {
            Ok(meta) => Ok(is_version(meta.version.as_deref())),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Error::store(self.place.url.as_str(), &error)),
        }
    }

    /// What else describes a file, from its folder up to its lake's.
    async fn described(&mut self, lake: &Place, file: &Place) -> Result<Option<&'static str>> {
        let parts: Vec<PathPart<'_>> = file.path.parts().collect();
        for depth in (lake.path.parts().count()..parts.len()).rev() {
            let folder: Path = parts.iter().take(depth).cloned().collect();
            let found = match self.described.get(&folder) {
                Some(known) => *known,
                None => {
                    let found = writer_of(file, &folder, false).await?;
                    self.described.insert(folder, found);
                    found
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

impl LakeFile {
    /// A file of a table in the state that its store tells.
    pub(crate) fn new(table: Place, place: Place, meta: ObjectMeta, settings: Settings) -> Self {
        Self { table, place, meta, settings }
    }

    /// Where it lies in its store.
    pub(crate) fn path(&self) -> String {
        self.place.path.to_string()
    }

    /// Its content without the rows that go, and what its store says of it.
    pub(crate) async fn without(
        &self,
        gone: BooleanBuffer,
        personal: &PersonalColumns,
        pool: &Arc<dyn MemoryPool>,
    ) -> Result<Result<(Bytes, Attributes), Untouched>> {
        let memory = MemoryConsumer::new("file of a lake").register(pool);
        let bytes = usize::try_from(self.meta.size).unwrap_or(usize::MAX);
        if memory.try_grow(bytes.saturating_mul(TIMES_IN_MEMORY)).is_err() {
            return Ok(Err(Untouched::Left(TOO_LARGE)));
        }
        let Some((bytes, attributes)) = self.read().await? else {
            return Ok(Err(Untouched::Changed));
        };
        let name = self.place.path.filename().unwrap_or_default().to_owned();
        let (settings, personal) = (self.settings.clone(), personal.clone());
        match without(Content { name, settings, bytes, personal }, gone).await? {
            Ok(kept) => Ok(Ok((kept, attributes))),
            Err(refusal) => Ok(Err(Untouched::Left(refusal))),
        }
    }

    /// Its content, and what its store says of it; `None` when it is another file by now.
    pub(crate) async fn read(&self) -> Result<Option<(Bytes, Attributes)>> {
        let options = GetOptions { if_match: self.meta.e_tag.clone(), ..GetOptions::default() };
        let found = match self.place.store.get_opts(&self.place.path, options).await {
            Ok(found) => found,
            Err(
                object_store::Error::NotFound { .. } | object_store::Error::Precondition { .. },
            ) => return Ok(None),
            Err(error) => return Err(Error::store(self.place.url.as_str(), &error)),
        };
        let attributes = found.attributes.clone();
        match found.bytes().await {
            Ok(bytes) => Ok(Some((bytes, attributes))),
            Err(error) => Err(Error::store(self.place.url.as_str(), &error)),
        }
    }

    /// Whether it is still the file that was looked at.
    async fn is_same(&self) -> Result<bool> {
        match self.place.store.head(&self.place.path).await {
            Ok(meta) => Ok(meta.e_tag == self.meta.e_tag && meta.size == self.meta.size),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Error::store(self.place.url.as_str(), &error)),
        }
    }

    pub(crate) async fn replace(&self, content: Bytes, attributes: Attributes) -> Ended {
        if self.place.is_local() {
            return self.replace_on_disk(content).await;
        }
        let (e_tag, version) = (self.meta.e_tag.clone(), self.meta.version.clone());
        let mode = PutMode::Update(UpdateVersion { e_tag, version });
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        match self.place.store.put_opts(&self.place.path, content.into(), options).await {
            Ok(written) => Ok(Ok(self.erased(false, written.version.as_deref()))),
            Err(
                object_store::Error::NotFound { .. } | object_store::Error::Precondition { .. },
            ) => Ok(Err(Untouched::Changed)),
            Err(object_store::Error::NotImplemented { .. }) => Ok(Err(Untouched::Left(NO_STATES))),
            Err(error) => self.refused(&error),
        }
    }

    async fn remove(&self) -> Ended {
        if !self.is_same().await? {
            return Ok(Err(Untouched::Changed));
        }
        match self.place.store.delete(&self.place.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return self.refused(&error),
        }
        self.remove_empty_folders().await;
        Ok(Ok(self.erased(true, None)))
    }

    fn erased(&self, is_removed: bool, written: Option<&str>) -> Erased {
        let keeps_versions = is_version(self.meta.version.as_deref()) || is_version(written);
        Erased { is_removed, keeps_versions }
    }

    /// A store that may not be written leaves the file to its owner.
    fn refused(&self, error: &object_store::Error) -> Ended {
        match Error::store(self.place.url.as_str(), error) {
            Error::Store { denied: true, .. } => Ok(Err(Untouched::Left(REFUSED))),
            other => Err(other),
        }
    }

    pub(crate) async fn is_link(&self) -> bool {
        let Some(path) = self.on_disk() else { return false };
        let found = tokio::fs::symlink_metadata(path).await;
        found.is_ok_and(|found| found.file_type().is_symlink())
    }

    fn on_disk(&self) -> Option<PathBuf> {
        self.place.is_local().then(|| self.place.url.to_file_path()).and_then(Result::ok)
    }

    /// A hidden file beside takes the place, with the permissions of the one that was there.
    async fn replace_on_disk(&self, content: Bytes) -> Ended {
        let Some(path) = self.on_disk() else { return Ok(Err(Untouched::Left(REFUSED))) };
        let beside = path.with_file_name(format!(".attune-{}", uuid::Uuid::new_v4()));
        let ended = self.put_in_place(&path, &beside, content).await;
        if !matches!(ended, Ok(Ok(_)))
            && let Err(error) = tokio::fs::remove_file(&beside).await
        {
            tracing::debug!(%error, path = %beside.display(), "not removed");
        }
        ended
    }

    async fn put_in_place(&self, path: &DiskPath, beside: &DiskPath, content: Bytes) -> Ended {
        let (from, to) = (path.to_owned(), beside.to_owned());
        let written = tokio::task::spawn_blocking(move || write_beside(&from, &to, &content));
        if let Err(error) = written.await.unwrap_or_else(|ended| Err(ended.into())) {
            return self.failed(&error);
        }
        if !self.is_same().await? {
            return Ok(Err(Untouched::Changed));
        }
        match tokio::fs::rename(beside, path).await {
            Ok(()) => Ok(Ok(self.erased(false, None))),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &std::io::Error) -> Ended {
        match error.kind() {
            std::io::ErrorKind::NotFound => Ok(Err(Untouched::Changed)),
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                Ok(Err(Untouched::Left(REFUSED)))
            }
            _ => {
                let (url, reason) = (self.place.url.to_string(), error.to_string());
                Err(Error::Store { url, reason, denied: false })
            }
        }
    }

    /// A disk keeps the folders of files that are gone, and a folder's name may tell whose they
    /// were.
    async fn remove_empty_folders(&self) {
        let root = self.table.url.to_file_path();
        let (Some(file), Ok(root)) = (self.on_disk(), root) else { return };
        let mut folder = file.parent();
        while let Some(below) = folder.filter(|at| *at != root && at.starts_with(&root)) {
            // One that holds something stays.
            if tokio::fs::remove_dir(below).await.is_err() {
                return;
            }
            folder = below.parent();
        }
    }
}

fn write_beside(path: &DiskPath, beside: &DiskPath, content: &[u8]) -> std::io::Result<()> {
    let permissions = std::fs::metadata(path)?.permissions();
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(beside)?;
    // Before there is anything that others could read.
    file.set_permissions(permissions)?;
    file.write_all(content)?;
    file.sync_all()
}

/// An object of the store of a table.
pub(crate) fn object(table: &Place, path: &Path) -> Place {
    let mut url = table.url.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(path.parts().map(|part| part.as_ref().to_owned()));
    }
    Place { url, store: Arc::clone(&table.store), path: path.clone() }
}

/// A path without the names of a person, and whether one was in it: folders `user_id=ann` and files
/// `ann.csv` tell of her.
pub fn path_without(path: &str, names: &BTreeSet<String>) -> (String, bool) {
    let tells = |text: &str| {
        names.iter().filter(|name| !name.is_empty()).any(|name| {
            let rest = text.strip_prefix(name.as_str());
            let is_long = name.chars().nth(ID_CHARS - 1).is_some();
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                || (is_long && text.contains(name.as_str()))
        })
    };
    let mut is_told = false;
    let mut shown = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or(("", part));
        let is_of_person = tells(part) || tells(value) || tells(&decode(value));
        is_told |= is_of_person;
        match (is_of_person, key) {
            (false, _) => part.to_owned(),
            (true, key) if key.is_empty() || tells(key) => "…".to_owned(),
            (true, key) => format!("{key}=…"),
        }
    };
    let parts: Vec<String> = path.split('/').map(&mut shown).collect();
    (parts.join("/"), is_told)
}

#[cfg(test)]
#[path = "lake_erasure_tests.rs"]
mod tests;
