//! Delta tables over our own stores.
//!
//! Delta's log store is built from the store that the configuration names, so its tables have the
//! same credentials, retries and limits as everything else, and no second way to a bucket exists.
//! A query reads one version: the provider holds a snapshot.

mod layout;
pub(crate) mod log_files;
mod plain;
pub mod provider;
pub(crate) mod stats;
pub mod types;
pub mod write;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use deltalake::kernel::transaction::TransactionError;
use deltalake::logstore::{StorageConfig, default_logstore};
use deltalake::operations::create::CreateBuilder;
use deltalake::{DeltaTable, DeltaTableError};
use futures::TryStreamExt;
use object_store::prefix::PrefixStore;
use parking_lot::Mutex;

pub(crate) use self::plain::PlainFiles;
use self::plain::PlainTable;
pub use self::provider::ReadOnlyTable;

use crate::error::{Error, Result, root_cause};
use crate::lake::scan::FileStatistics;
use crate::store::Place;

/// The name under which a table says from which version on it has a past: versions before that were
/// purged by an erasure. It is an application's transaction, which every writer of the table keeps
/// and which conflicts with nobody's.
pub(crate) const PURGED: &str = "attune.erasure";

/// How many tables' newest snapshots stay in memory.
const TABLES_KEPT: usize = 256;

/// The tables that were opened, with their newest known snapshot.
#[derive(Default)]
pub struct Tables {
    // Snapshots by URL; `u64` counts uses, the least recently used goes first.
    known: Mutex<(u64, Snapshots)>,
}

/// The newest known snapshot by URL.
type Snapshots = HashMap<String, Known>;

struct Known {
    /// When it was used last, in uses.
    used: u64,
    table: DeltaTable,
    /// What is remembered of its files from version to version.
    files: Arc<FileStatistics>,
    /// Its files at that version, once a query has asked for them.
    plain: Option<Arc<PlainFiles>>,
}

impl Tables {
    /// The table at its newest version.
    ///
    /// # Errors
    /// When there is no Delta table, or its log cannot be read.
    pub async fn newest(&self, name: &str, place: &Place) -> Result<DeltaTable> {
        let known = self.get(place);
        let is_known = known.is_some();
        let mut table = known.unwrap_or_else(|| unopened(place));
        let mut read = table.update_state().await;
        // An erasure may have removed a checkpoint that is remembered.
        if is_known && read.as_ref().is_err_and(|error| !is_out_of_reach(error)) {
            self.forget(place);
            table = unopened(place);
            read = table.update_state().await;
        }
        read.map_err(|error| delta_error("read", name, error))?;
        self.put(place, &table);
        Ok(table)
    }

    /// The table at its newest version as its log says now, whatever is remembered of it.
    ///
    /// # Errors
    /// As [`Tables::newest`].
    pub async fn newest_anew(&self, name: &str, place: &Place) -> Result<DeltaTable> {
        self.forget(place);
        self.newest(name, place).await
    }

    /// The table at a version.
    ///
    /// # Errors
    /// When there is no such version (any more).
    pub async fn at(&self, name: &str, place: &Place, version: u64) -> Result<DeltaTable> {
        let newest = self.newest(name, place).await?;
        let last = newest.version().unwrap_or_default();
        if version == last {
            return Ok(newest);
        }
        let missing = |reason: String| Error::Invalid {
            what: format!("table {name} has no version {version}: {reason}"),
            hint: Some(format!("its newest version is {last}")),
        };
        if version > last {
            return Err(missing("it is not written yet".into()));
        }
        let first = match purged_before(name, &newest).await {
            // What is remembered of the log may have been purged itself.
            Err(_) => purged_before(name, &self.newest_anew(name, place).await?).await?,
            found => found?,
        };
        if let Some(first) = first
            && version < first
        {
            return Err(Error::invalid_hint(
                format!("version {version} of table {name} was purged by erasure"),
                format!("its versions begin with {first}"),
            ));
        }
        let mut table = unopened(place);
        match table.load_version(version).await {
            Ok(()) => Ok(table),
            Err(DeltaTableError::ObjectStore { source }) => {
                Err(Error::store(place.url.as_str(), &source))
            }
            Err(error) => Err(missing(root_cause(&error))),
        }
    }

    fn get(&self, place: &Place) -> Option<DeltaTable> {
        let mut known = self.known.lock();
        let (clock, tables) = &mut *known;
        *clock += 1;
        let known = tables.get_mut(place.url.as_str())?;
        known.used = *clock;
        Some(known.table.clone())
    }

    /// Remembers a snapshot, unless a newer one is known.
    pub fn put(&self, place: &Place, table: &DeltaTable) {
        let mut known = self.known.lock();
        let (clock, tables) = &mut *known;
        *clock += 1;
        let url = place.url.to_string();
        let before = tables.get(&url);
        if before.is_some_and(|before| before.table.version() >= table.version()) {
            return;
        }
        let files = before.map(|before| Arc::clone(&before.files)).unwrap_or_default();
        tables.insert(url, Known { used: *clock, table: table.clone(), files, plain: None });
        if tables.len() > TABLES_KEPT {
            let oldest = tables.iter().min_by_key(|(_, known)| known.used);
            if let Some(url) = oldest.map(|(url, _)| url.clone()) {
                tables.remove(&url);
            }
        }
    }

    /// A provider of a warehouse table's rows at the version of `table`.
    ///
    /// # Errors
    /// When the table needs a reader feature that is not supported.
    pub fn provider(
        &self,
        name: &str,
        place: &Place,
        table: &DeltaTable,
        cluster_by: &[String],
        state: &SessionState,
    ) -> Result<Arc<dyn TableProvider>> {
        let Some(files) = self.plain(name, place, table, state)? else {
            return provider(name, table, state);
        };
        Ok(Arc::new(ReadOnlyTable::new(name, Arc::new(PlainTable::new(files, cluster_by)))))
    }

    /// The Parquet files of a warehouse table at the version of `table`; `None` when reading them
    /// takes more than reading Parquet.
    ///
    /// # Errors
    /// When the log is damaged.
    pub(crate) fn plain(
        &self,
        name: &str,
        place: &Place,
        table: &DeltaTable,
        state: &SessionState,
    ) -> Result<Option<Arc<PlainFiles>>> {
        let known = || {
            let known = self.known.lock();
            let known = known.1.get(place.url.as_str())?;
            let is_newest = known.table.version() == table.version();
            Some((Arc::clone(&known.files), known.plain.clone().filter(|_| is_newest), is_newest))
        };
        let (statistics, plain, is_newest) = known().unwrap_or_default();
        if plain.is_some() {
            return Ok(plain);
        }
        let Some(files) = PlainFiles::of(name, place, table, views(state), statistics)? else {
            return Ok(None);
        };
        let files = Arc::new(files);
        if is_newest
            && let Some(known) = self.known.lock().1.get_mut(place.url.as_str())
            && known.table.version() == table.version()
        {
            known.plain = Some(Arc::clone(&files));
        }
        Ok(Some(files))
    }

    /// Forgets a table.
    pub fn forget(&self, place: &Place) {
        self.known.lock().1.remove(place.url.as_str());
    }
}

/// Whether a store did not answer, so that it is not asked again at once.
fn is_out_of_reach(error: &DeltaTableError) -> bool {
    match error {
        DeltaTableError::ObjectStore { source } => {
            !matches!(source, object_store::Error::NotFound { .. })
        }
        _ => false,
    }
}

/// A table that has no snapshot yet.
pub fn unopened(place: &Place) -> DeltaTable {
    let root = Arc::clone(&place.store);
    let inside = PrefixStore::new(Arc::clone(&place.store), place.path.clone());
    let url = place.clone().folder().url;
    DeltaTable::new(default_logstore(Arc::new(inside), root, &url, &StorageConfig::default()))
}

/// The first version that an erasure of a lake's table has left, if there was one.
///
/// # Errors
/// When the log cannot be read.
pub(crate) async fn purged_before(name: &str, table: &DeltaTable) -> Result<Option<u64>> {
    let wrong = |error| delta_error("read", name, error);
    let snapshot = table.snapshot().map_err(wrong)?.snapshot();
    let log = table.log_store();
    let first = snapshot.transaction_version(log.as_ref(), PURGED).await.map_err(wrong)?;
    Ok(first.and_then(|first| u64::try_from(first).ok()))
}

/// Whether a folder holds a Delta table.
///
/// # Errors
/// When the store cannot be reached.
pub async fn is_delta(place: &Place) -> Result<bool> {
    let log = place.child("_delta_log");
    let mut files = place.store.list(Some(&log.path));
    match files.try_next().await {
        Ok(found) => Ok(found.is_some()),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(Error::store(log.url.as_str(), &error)),
    }
}

/// A provider that reads the table's snapshot and refuses changes.
///
/// # Errors
/// When the table needs a reader feature that is not supported.
pub fn provider(
    name: &str,
    table: &DeltaTable,
    state: &SessionState,
) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(ReadOnlyTable::new(name, Arc::new(scan(name, table, views(state))?))))
}

/// Whether text is read as views.
pub(crate) fn views(state: &SessionState) -> bool {
    state.config_options().execution.parquet.schema_force_view_types
}

/// The schema with plain types, in which rows are written.
///
/// # Errors
/// When the table needs a reader feature that is not supported.
pub fn plain_schema(name: &str, table: &DeltaTable) -> Result<arrow::datatypes::SchemaRef> {
    Ok(scan(name, table, false)?.schema())
}

/// Checks that a version of a table of a lake has no column that the newest one has not: nobody can
/// say of such a column who may see it.
///
/// # Errors
/// When it has; when the table needs a reader feature that is not supported.
pub fn check_columns(name: &str, table: &DeltaTable, newest: &DeltaTable) -> Result<()> {
    let (shown, known) = (plain_schema(name, table)?, plain_schema(name, newest)?);
    match shown.fields().iter().all(|field| known.field_with_name(field.name()).is_ok()) {
        true => Ok(()),
        false => Err(Error::invalid_hint(
            format!(
                "version {} of {name} is closed: it has columns that the table has lost since",
                table.version().unwrap_or_default()
            ),
            "read the newest version, or one that has no other columns",
        )),
    }
}

fn scan(name: &str, table: &DeltaTable, views: bool) -> Result<DeltaScanNext> {
    let snapshot = table.snapshot().map_err(|error| delta_error("read", name, error))?;
    let mut config = DeltaScanConfig::new().with_wrap_partition_values(false);
    config.schema_force_view_types = views;
    Ok(DeltaScanNext::new(snapshot.snapshot().clone(), config)?)
}

/// Writes the first commit of a table without rows.
///
/// # Errors
/// When the store cannot be written.
pub async fn create_empty(
    name: &str,
    place: &Place,
    schema: &arrow::datatypes::Schema,
) -> Result<DeltaTable> {
    use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
    let schema: deltalake::kernel::StructType =
        schema.try_into_kernel().map_err(|error: arrow::error::ArrowError| {
            Error::invalid(format!("the columns cannot be stored: {error}"))
        })?;
    let created = CreateBuilder::new()
        .with_log_store(unopened(place).log_store())
        .with_table_name(name)
        .with_columns(schema.fields().cloned())
        .await;
    created.map_err(|error| delta_error("create", name, error))
}

/// The columns that the names of a table's folders tell.
///
/// # Errors
/// When the log is damaged.
pub fn partition_columns(name: &str, table: &DeltaTable) -> Result<Vec<String>> {
    let snapshot = table.snapshot().map_err(|error| delta_error("read", name, error))?;
    Ok(snapshot.snapshot().metadata().partition_columns().to_vec())
}

/// Delta's error as ours: a lost race is a conflict, a store's error names the store.
pub fn delta_error(action: &'static str, name: &str, error: DeltaTableError) -> Error {
    match error {
        DeltaTableError::VersionAlreadyExists(_)
        | DeltaTableError::Transaction {
            source:
                TransactionError::VersionAlreadyExists(_)
                | TransactionError::CommitConflict(_)
                | TransactionError::MaxCommitAttempts(_),
        } => Error::Conflict { name: name.into() },
        DeltaTableError::NotATable(reason) => {
            Error::Corrupt { what: format!("table {name}"), reason }
        }
        DeltaTableError::ObjectStore { source } => {
            Error::store(format!("the files of table {name}"), &source)
        }
        other => Error::Delta { action, name: name.into(), reason: root_cause(&other) },
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::testing::Shared;

    #[tokio::test]
    async fn a_version_shows_no_column_that_was_dropped() {
        let shared = Shared::new();
        let mut tables = Vec::new();
        for (at, columns) in
            [("one", &["id"][..]), ("two", &["mail", "id"][..]), ("three", &["n"][..])]
        {
            let fields = columns.iter().map(|name| Field::new(*name, DataType::Int64, true));
            let schema = Schema::new(fields.collect::<Vec<_>>());
            tables.push(create_empty(at, &shared.place.child(at).folder(), &schema).await.unwrap());
        }
        let check = |of: usize, newest: usize| check_columns("t", &tables[of], &tables[newest]);
        check(0, 0).unwrap();
        check(0, 1).unwrap();
        for (of, newest) in [(1, 0), (2, 0), (0, 2)] {
            let error = check(of, newest).unwrap_err();
            assert!(error.to_string().contains("version 0 of t is closed"), "{error}");
        }
    }
}
