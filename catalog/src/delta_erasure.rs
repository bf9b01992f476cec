//! Rows that go from Delta tables of lakes that Attune may write (`access = "rewrite"`).
//!
//! Such a table lies where its owner has put it, and others write it too. So its files are not
//! replaced: those with rows of the person are written anew under other names, and one ordinary
//! commit takes the old ones out of the table and the new ones in. It is made for one version and
//! for no other: when others have committed meanwhile, it is made again for theirs, as long as the
//! files that it takes out are still there. Then the past is purged (`delta_purge.rs`).
//!
//! What the writer of such tables does not honour is not written: the table is left to its owner,
//! who is told why.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::MemoryPool;
use deltalake::DeltaTable;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, PROTOCOL, TableReference};
use deltalake::kernel::{Action, Add, EagerSnapshot, LogicalFileView, Transaction};
use deltalake::protocol::DeltaOperation;
use object_store::ObjectStoreExt;
use object_store::path::{Path, PathPart};

use crate::Catalog;
use crate::delta::stats::FileStats;
use crate::delta::{self, PURGED, PlainFiles, delta_error};
use crate::delta_purge::is_linked;
use crate::error::{Error, Result};
use crate::lake::Format;
use crate::lake::described::writer_of;
use crate::lake::files::{FILE, TableFiles};
use crate::lake::format::Settings;
use crate::lake::rewrite::{FILE_BYTES_MAX, TOO_LARGE};
use crate::lake_erasure::{LakeFile, READ_ONLY, REFUSED, Untouched, object};
use crate::personal_columns::PersonalColumns;
use crate::registry::ObjectName;
use crate::store::Place;

/// How often a commit is tried while others commit.
pub(crate) const TRIES: usize = 16;
/// How long a file that no version names may be somebody's who is about to commit it, where the
/// table does not say so: a week, as for all writers of such tables.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What a writer has to know of a table that is written here, beside the format itself. Rows that
/// stay keep what a check, an invariant or an expression has made sure of.
const HONOURED: [&str; 6] = [
    "appendOnly",
    "invariants",
    "checkConstraints",
    "generatedColumns",
    "changeDataFeed",
    "timestampNtz",
];

const SPELT: &str = "its name is written in a way that not all writers of the table agree on";

/// A Delta table from which rows are to go, at one version.
pub struct DeltaErasure<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) table: DeltaTable,
    pub(crate) plain: Arc<PlainFiles>,
    pub(crate) settings: Settings,
    files: TableFiles,
    partitions: Vec<String>,
    pub(crate) personal: PersonalColumns,
    /// The files whose names are written in the log as they are.
    spelt: BTreeSet<String>,
}

/// A file that goes, and what takes its place.
pub struct Replaced {
    path: String,
    by: Option<New>,
}

/// A file that no version names yet.
struct New {
    path: String,
    bytes: u64,
    stats: FileStats,
}

impl Catalog {
    /// A Delta table of a lake that Attune may write, at its newest version; why not, where rows
    /// cannot be taken out of it; `None` when it is no such table.
    ///
    /// # Errors
    /// When it may not be read, or its store or log cannot be.
    pub async fn begin_delta_erasure(
        &self,
        name: &ObjectName,
        state: &SessionState,
    ) -> Result<Option<Result<DeltaErasure<'_>, String>>> {
        let Some(table) = self.external_table(name).await? else { return Ok(None) };
        let located = self.stores.locate(&table.location, Some(self.base_of(&name.schema)));
        let lake = located.ok().and_then(|place| self.stores.rewritable_lake(&place));
        let (Format::Delta, Some(lake)) = (table.format, lake) else { return Ok(None) };
        let text = name.to_string();
        let (place, opened) = self.open_lake_delta(name, &table, None).await?;
        if let Some(reason) = refusal(&text, &opened)? {
            return Ok(Some(Err(reason)));
        }
        if let Some(writer) = described(&lake, &place).await? {
            return Ok(Some(Err(writer.to_owned())));
        }
        let views = delta::views(state);
        let plain = PlainFiles::stored(&text, &place, &opened, views, Arc::default())?;
        let Some(plain) = plain.map(Arc::new) else {
            return Ok(Some(Err("reading it takes more than reading its files".into())));
        };
        let Some(files) = TableFiles::of_delta(place.url.to_string(), Arc::clone(&plain)) else {
            return Ok(Some(Err(format!("a column of it is called {FILE}"))));
        };
        Ok(Some(Ok(DeltaErasure {
            catalog: self,
            settings: Settings::parse(Format::Parquet, &BTreeMap::new())?,
            partitions: delta::partition_columns(&text, &opened)?,
            personal: self.personal_columns(name).await?,
            spelt: spelt_once(&text, &opened)?,
            name: text,
            place,
            table: opened,
            plain,
            files,
        })))
    }
}

impl DeltaErasure<'_> {
    /// The files, with the columns that are in them.
    pub fn files(&self) -> &TableFiles {
        &self.files
    }

    /// The columns that are not in the files.
    pub fn partition_columns(&self) -> &[String] {
        &self.partitions
    }

    /// Looks at a file, by its number, before it is asked which of its rows are to go.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn begin(&self, number: usize) -> Result<Result<LakeFile, Untouched>> {
        let Some(meta) = self.plain.files().get(number) else {
            return Ok(Err(Untouched::Changed));
        };
        let place = object(&self.place, &meta.location);
        if self.catalog.stores.rewritable_lake(&place).is_none() {
            return Ok(Err(Untouched::Left(READ_ONLY)));
        }
        if !self.relative(&meta.location).is_some_and(|path| self.spelt.contains(&path)) {
            return Ok(Err(Untouched::Left(SPELT)));
        }
        let meta = match place.store.head(&place.path).await {
            Ok(meta) => meta,
            Err(object_store::Error::NotFound { .. }) => return Ok(Err(Untouched::Changed)),
            Err(error) => return Err(Error::store(place.url.as_str(), &error)),
        };
        if meta.size > FILE_BYTES_MAX {
            return Ok(Err(Untouched::Left(TOO_LARGE)));
        }
        let file = LakeFile::new(self.place.clone(), place.clone(), meta, self.settings.clone());
        match file.is_link().await || is_linked(&self.place, &place).await {
            true => Ok(Err(Untouched::Left("it is a link to another file"))),
            false => Ok(Ok(file)),
        }
    }

    /// Writes what stays of a file, of which a bit for each row says whether it goes, beside it. No
    /// version names that yet.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn write(
        &self,
        number: usize,
        file: &LakeFile,
        gone: BooleanBuffer,
        pool: &Arc<dyn MemoryPool>,
    ) -> Result<Result<Replaced, Untouched>> {
        let path = self.plain.files().get(number).and_then(|meta| self.relative(&meta.location));
        let kept = gone.len() - gone.count_set_bits();
        let Some(path) = path.filter(|_| kept < gone.len()) else {
            return Ok(Err(Untouched::Changed));
        };
        if kept == 0 {
            return Ok(Ok(Replaced { path, by: None }));
        }
        let content = match file.without(gone, &self.personal, pool).await? {
            Ok((content, _)) => content,
            Err(untouched) => return Ok(Err(untouched)),
        };
        let folder = path.rsplit_once('/').map(|(folder, _)| format!("{folder}/"));
        let folder = folder.unwrap_or_default();
        let by = format!("{folder}part-{}.parquet", uuid::Uuid::new_v4());
        let stats = FileStats::of(&content, kept);
        let new = New { path: by, bytes: content.len() as u64, stats };
        match self.place.child(&new.path).create(content).await {
            Ok(_) => Ok(Ok(Replaced { path, by: Some(new) })),
            Err(Error::Store { denied: true, .. }) => Ok(Err(Untouched::Left(REFUSED))),
            Err(error) => Err(error),
        }
    }

    /// Takes files out of the table and what was written of them in, in one commit; `false` when
    /// the table has become another one meanwhile, and is to be looked at again.
    ///
    /// # Errors
    /// When the store cannot be written: then it is not known whether it was done.
    pub async fn commit(&self, replaced: &[Replaced]) -> Result<bool> {
        for _ in 0..TRIES {
            let now = self.catalog.tables.newest_anew(&self.name, &self.place).await?;
            let (then, snapshot) = (self.snapshot(&self.table)?, self.snapshot(&now)?);
            let active = active(snapshot);
            // The answer to a try may have been lost.
            if replaced.iter().any(|file| file.is_in(&active)) {
                return Ok(true);
            }
            let is_same =
                snapshot.metadata() == then.metadata() && snapshot.protocol() == then.protocol();
            if !is_same || !replaced.iter().all(|file| active.contains_key(&file.path)) {
                break;
            }
            let actions = self.actions(replaced, &active);
            let operation = DeltaOperation::Delete { predicate: None };
            // What was before this commit is what is purged then.
            let first = snapshot.version().saturating_add(1);
            if self.committed(&now, actions, operation, first).await? {
                self.catalog.tables.forget(&self.place);
                return Ok(true);
            }
        }
        self.discard(replaced).await
    }

    fn actions(
        &self,
        replaced: &[Replaced],
        active: &BTreeMap<String, LogicalFileView>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        for file in replaced {
            let Some(old) = active.get(&file.path) else { continue };
            actions.push(Action::Remove(old.remove_action(true)));
            let Some(new) = &file.by else { continue };
            let mut partition_values = old.partition_values_map();
            for column in &self.partitions {
                partition_values.entry(column.clone()).or_insert(None);
            }
            actions.push(Action::Add(Add {
                path: new.path.clone(),
                partition_values,
                size: i64::try_from(new.bytes).unwrap_or(i64::MAX),
                modification_time: self.catalog.now_ms(),
                data_change: true,
                stats: Some(new.stats.told(old.stats().as_deref())),
                ..Add::default()
            }));
        }
        actions
    }

    /// Commits the version after the one of `table`, which says that those before `first` are
    /// purged; `false` when somebody else has committed it.
    pub(crate) async fn committed(
        &self,
        table: &DeltaTable,
        actions: Vec<Action>,
        operation: DeltaOperation,
        first: u64,
    ) -> Result<bool> {
        let purged = Transaction::new(PURGED, i64::try_from(first).unwrap_or(i64::MAX));
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false))
            .with_application_transaction(purged);
        let read: &dyn TableReference = self.snapshot(table)?;
        let commit = CommitBuilder::from(properties).with_actions(actions);
        match commit.build(Some(read), table.log_store(), operation).await {
            Ok(_) => Ok(true),
            Err(error) => match delta_error("write", &self.name, error) {
                error if error.is_lost_race() => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Whether there is another version by now: what cannot be read of this one may be gone.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn is_outdated(&self) -> Result<bool> {
        let now = self.catalog.tables.newest_anew(&self.name, &self.place).await?;
        Ok(self.snapshot(&now)?.version() != self.snapshot(&self.table)?.version())
    }

    /// Removes what was written and is not of the table; whether it is of the table nevertheless,
    /// because the answer to the last try was lost.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn discard(&self, replaced: &[Replaced]) -> Result<bool> {
        let now = self.catalog.tables.newest_anew(&self.name, &self.place).await?;
        let active = active(self.snapshot(&now)?);
        if replaced.iter().any(|file| file.is_in(&active)) {
            return Ok(true);
        }
        for new in replaced.iter().filter_map(|file| file.by.as_ref()) {
            self.place.child(&new.path).remove().await?;
        }
        Ok(false)
    }

    pub(crate) fn snapshot<'t>(&self, table: &'t DeltaTable) -> Result<&'t EagerSnapshot> {
        let state = table.snapshot().map_err(|error| delta_error("read", &self.name, error))?;
        Ok(state.snapshot())
    }

    /// An object's path relative to the table.
    pub(crate) fn relative(&self, location: &Path) -> Option<String> {
        let parts = location.prefix_match(&self.place.path)?;
        Some(parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
    }

    /// How long a file that no version names may be somebody's who is about to commit it.
    pub(crate) fn retention(&self) -> Result<Duration> {
        let properties = self.snapshot(&self.table)?.table_properties();
        Ok(properties.deleted_file_retention_duration.unwrap_or(RETENTION))
    }
}

impl Replaced {
    /// Whether what takes the file's place is of the table.
    fn is_in(&self, active: &BTreeMap<String, LogicalFileView>) -> bool {
        self.by.as_ref().is_some_and(|new| active.contains_key(&new.path))
    }
}

/// The files of a version, by their paths relative to the table.
pub(crate) fn active(snapshot: &EagerSnapshot) -> BTreeMap<String, LogicalFileView> {
    let files = snapshot.log_data();
    files.iter().map(|file| (file.object_store_path().to_string(), file)).collect()
}

/// The files whose paths the log has in the one way in which they can be written, so that what is
/// taken out of the table is what was put in: readers tell files apart by the text.
fn spelt_once(name: &str, table: &DeltaTable) -> Result<BTreeSet<String>> {
    let wrong = |error| delta_error("read", name, error);
    let state = table.snapshot().map_err(wrong)?;
    let mut spelt = BTreeSet::new();
    for batch in state.add_actions_batches(false).map_err(wrong)? {
        let Some(paths) = batch.column_by_name("path") else { continue };
        let paths = cast(paths, &DataType::Utf8).map_err(DataFusionError::from)?;
        let paths = paths.as_string::<i32>().iter().flatten();
        spelt.extend(paths.filter(|path| is_spelt_once(path)).map(str::to_owned));
    }
    Ok(spelt)
}

fn is_spelt_once(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-.=".contains(&byte))
}

/// Why a table is not written here.
fn refusal(name: &str, table: &DeltaTable) -> Result<Option<String>> {
    let state = table.snapshot().map_err(|error| delta_error("read", name, error))?;
    let snapshot = state.snapshot();
    let properties = snapshot.table_properties();
    if properties.append_only == Some(true) {
        return Ok(Some("rows are only added to it (delta.appendOnly)".into()));
    }
    if properties.enable_change_data_feed == Some(true) {
        return Ok(Some("its changes are kept (delta.enableChangeDataFeed)".into()));
    }
    let features = snapshot.protocol().writer_features().unwrap_or_default();
    let unknown = features.iter().find(|feature| !HONOURED.contains(&feature.as_ref()));
    if let Some(feature) = unknown {
        return Ok(Some(format!("it needs the feature {feature}")));
    }
    let read: &dyn TableReference = snapshot;
    match PROTOCOL.can_write_to(read) {
        Ok(()) => Ok(None),
        Err(_) => Ok(Some("it needs a later version of the format".into())),
    }
}

/// What else describes the files of a table, or of a folder around it in its lake.
async fn described(lake: &Place, table: &Place) -> Result<Option<&'static str>> {
    let parts: Vec<PathPart<'_>> = table.path.parts().collect();
    for depth in (lake.path.parts().count()..=parts.len()).rev() {
        let folder: Path = parts.iter().take(depth).cloned().collect();
        let found = writer_of(table, &folder, depth == parts.len()).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
