//! The lakes' schemas: configured, discovered and external tables over files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use deltalake::DeltaTable;
use futures::TryStreamExt;
use parking_lot::Mutex;

use crate::config::{LakeAccess, LakeConfig, LakeTable as ConfiguredTable};
use crate::delta::{self, ReadOnlyTable};
use crate::error::{Error, Result};
use crate::lake::{Column, Format, Lake, LakeTable};
use crate::registry::{CreateMode, Definition, Kind, ObjectName, Spec, exists};
use crate::store::{Place, Stores};
use crate::tables::no_version;
use crate::{Catalog, MAIN};

/// Objects that are looked at to tell the format of a configured table that names none.
const OBJECTS_LOOKED_AT: usize = 1_000;

/// The folders of a warehouse that Attune writes: users, keys and definitions, tables, models.
const OWN_FOLDERS: [&str; 3] = ["_attune", "tables", "models"];

/// What a name means.
pub(crate) enum Named {
    /// Something that was defined.
    Defined(Box<Definition>),
    /// A lake's own table, configured or discovered.
    Lake(LakeTable),
}

/// A lake and those of its configured tables whose format only their files tell.
pub struct LakeSchema {
    lake: Lake,
    access: LakeAccess,
    untold: BTreeMap<String, ConfiguredTable>,
    told: Mutex<BTreeMap<String, LakeTable>>,
}

impl LakeSchema {
    /// Opens a lake; its store is not asked anything yet.
    ///
    /// # Errors
    /// When its location, or a table's format or options, are wrong.
    pub fn open(stores: &Stores, config: LakeConfig) -> Result<Self> {
        let place = stores.open(&config.store)?;
        stores.note_lake(&place, config.access);
        let mut declared = BTreeMap::new();
        let mut untold = BTreeMap::new();
        for table in config.tables {
            let told = match &table.format {
                Some(format) => Some(format.parse::<Format>()?),
                None => Format::from_file_name(&table.location),
            };
            let name = table.name.clone();
            match told {
                Some(format) => {
                    let table = with_format(&table, format);
                    table.check()?;
                    declared.insert(name, table);
                }
                None => {
                    untold.insert(name, table);
                }
            }
        }
        let lake = Lake::new(config.name, place, config.discover, declared);
        Ok(Self { lake, access: config.access, untold, told: Mutex::default() })
    }

    /// Where its files are, and what Attune may do with them.
    pub fn access(&self) -> (&Place, LakeAccess) {
        (self.lake.place(), self.access)
    }

    async fn names(&self) -> Result<Vec<String>> {
        let mut names = self.lake.table_names().await?;
        names.extend(self.untold.keys().cloned());
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The tables and their locations: those that are configured, and where a place may lie in the
    /// lake those that it discovers.
    async fn locations(&self, near: &Place) -> Result<BTreeMap<String, String>> {
        let mut locations = self.lake.locations(near).await?;
        let untold = self.untold.iter();
        locations.extend(untold.map(|(name, table)| (name.clone(), table.location.clone())));
        Ok(locations)
    }

    async fn table(&self, name: &str, stores: &Stores) -> Result<Option<LakeTable>> {
        let Some(configured) = self.untold.get(name) else {
            return self.lake.table(name).await;
        };
        if let Some(known) = self.told.lock().get(name) {
            return Ok(Some(known.clone()));
        }
        let place = stores.locate(&configured.location, Some(self.lake.place()))?;
        let table = with_format(configured, format_of(&place).await?);
        table.check()?;
        self.told.lock().insert(name.to_owned(), table.clone());
        Ok(Some(table))
    }
}

/// A configured table as the lake reads it. Partition columns have the types their folders tell.
fn with_format(configured: &ConfiguredTable, format: Format) -> LakeTable {
    let partitions = configured.partitions.iter();
    let mut table = LakeTable::new(&configured.location, format)
        .with_partitions(partitions.map(|name| Column::new(name, DataType::Null)).collect());
    table.options = configured.options.clone();
    table
}

async fn format_of(place: &Place) -> Result<Format> {
    if delta::is_delta(place).await? {
        return Ok(Format::Delta);
    }
    let mut objects = place.store.list(Some(&place.path));
    let wrong = |error| Error::store(place.url.as_str(), &error);
    for _ in 0..OBJECTS_LOOKED_AT {
        let Some(object) = objects.try_next().await.map_err(wrong)? else { break };
        let name = object.location.filename().unwrap_or_default();
        let hidden = name.starts_with('.') || name.starts_with('_');
        if let (false, Some(format)) = (hidden, Format::from_file_name(name)) {
            return Ok(format);
        }
    }
    Err(Error::Empty { url: place.url.to_string(), format: "data".into() })
}

impl Catalog {
    pub(crate) async fn lake_table_names(&self, schema: &str) -> Result<Vec<String>> {
        match self.lakes.get(schema) {
            Some(lake) => lake.names().await,
            None => {
                let schemas = self.schemas();
                Err(Error::not_found("schema", schema, schemas.iter().map(String::as_str)))
            }
        }
    }

    pub(crate) async fn lake_table(&self, name: &ObjectName) -> Result<Option<LakeTable>> {
        match self.lakes.get(&name.schema) {
            Some(lake) if name.schema != MAIN => lake.table(&name.name, &self.stores).await,
            _ => Ok(None),
        }
    }

    /// What a name means. A lake's own table needs no look into the warehouse beyond the snapshot,
    /// so that queries of lake tables do not wait for a second store.
    pub(crate) async fn resolve(&self, name: &ObjectName) -> Result<Option<Named>> {
        if name.check().is_err() {
            return Ok(None);
        }
        if let Some(definition) = self.objects.known(name).await? {
            return Ok(Some(Named::Defined(Box::new(definition))));
        }
        if let Some(table) = self.lake_table(name).await? {
            // A definition that cannot be read may keep something of the same files apart.
            self.objects.sound(name).await?;
            return Ok(Some(Named::Lake(table)));
        }
        let defined = self.objects.read(name).await?;
        Ok(defined.map(|definition| Named::Defined(Box::new(definition))))
    }

    /// Whether a lake's own table has the name already: `Some(false)` when it shall stay.
    pub(crate) async fn check_lake_table(
        &self,
        name: &ObjectName,
        mode: CreateMode,
    ) -> Result<Option<bool>> {
        if mode == CreateMode::Replace || self.lake_table(name).await?.is_none() {
            return Ok(None);
        }
        match mode {
            CreateMode::IfNotExists => Ok(Some(false)),
            _ => Err(exists(name, Kind::Table)),
        }
    }

    /// Opens a table over files that need not be defined, so that a wrong location or clashing
    /// files are an error before it is.
    ///
    /// # Errors
    /// When the table cannot be opened; the error names the URL.
    pub async fn try_lake_table(
        &self,
        name: &ObjectName,
        table: &LakeTable,
        state: &SessionState,
    ) -> Result<Arc<dyn TableProvider>> {
        self.open_external(name, table, None, state).await
    }

    /// Where relative locations of a schema's external tables begin: its lake; for the warehouse's
    /// schemas the one lake, or the lake called `lake`.
    pub(crate) fn base_of(&self, schema: &str) -> &Place {
        let mut lakes = self.lakes.values();
        let only = lakes.next().filter(|_| lakes.next().is_none());
        let lake = self.lakes.get(schema).or(only).or_else(|| self.lakes.get("lake"));
        lake.map_or_else(|| self.warehouse.place(), |lake| lake.lake.place())
    }

    /// The first of `others` that reads files which a table that is to be defined as `name` would
    /// read too.
    ///
    /// # Errors
    /// When a store cannot be reached, or the document of one of the others cannot be read.
    pub async fn over_files_of(
        &self,
        name: &ObjectName,
        table: &LakeTable,
        others: BTreeSet<ObjectName>,
    ) -> Result<Option<ObjectName>> {
        let place = self.stores.locate(&table.location, Some(self.base_of(&name.schema)))?;
        for other in others.into_iter().filter(|other| other != name) {
            let held = match self.resolve(&other).await? {
                Some(Named::Lake(held)) => held,
                Some(Named::Defined(definition)) => match definition.spec {
                    Spec::External(held) => held,
                    _ => continue,
                },
                None => continue,
            };
            // What no lake reaches any more, no table reads.
            let base = self.base_of(&other.schema);
            let Ok(held) = self.stores.locate(&held.location, Some(base)) else { continue };
            if place.meets(&held) {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    /// The external tables that read files of a table which is read from files itself.
    ///
    /// # Errors
    /// When a store cannot be reached, or the table's document cannot be read.
    pub async fn others_over_files_of(&self, name: &ObjectName) -> Result<Vec<ObjectName>> {
        let table = match self.resolve(name).await? {
            Some(Named::Lake(table)) => table,
            Some(Named::Defined(definition)) => match definition.spec {
                Spec::External(table) => table,
                _ => return Ok(vec![]),
            },
            None => return Ok(vec![]),
        };
        let place = self.stores.locate(&table.location, Some(self.base_of(&name.schema)))?;
        let mut others = Vec::new();
        for ((schema, other), definition) in self.definitions().await?.iter() {
            let Spec::External(held) = &definition.spec else { continue };
            let other = ObjectName::new(schema, other);
            let held = self.stores.locate(&held.location, Some(self.base_of(schema)));
            if other != *name && held.is_ok_and(|held| held.meets(&place)) {
                others.push(other);
            }
        }
        Ok(others)
    }

    /// The tables, those of lakes among them, that read files of a table which is read from files
    /// itself and keeps no identifiers apart.
    ///
    /// # Errors
    /// As [`Catalog::others_over_files_of`].
    pub async fn readers_of_files_of(&self, name: &ObjectName) -> Result<Vec<ObjectName>> {
        let Some(table) = self.external_table(name).await? else { return Ok(vec![]) };
        let place = self.stores.locate(&table.location, Some(self.base_of(&name.schema)))?;
        let mut readers = self.others_over_files_of(name).await?;
        for (schema, lake) in &self.lakes {
            // Another lake of this name has no tables.
            if schema == MAIN {
                continue;
            }
            for (reader, location) in lake.locations(&place).await? {
                let reader = ObjectName::new(schema, &reader);
                let held = self.stores.locate(&location, Some(self.base_of(schema)));
                if reader != *name && held.is_ok_and(|held| held.meets(&place)) {
                    readers.push(reader);
                }
            }
        }
        Ok(readers)
    }

    /// Whether a table is made of files, and there is none.
    ///
    /// # Errors
    /// When its store cannot be reached, or its document cannot be read.
    pub async fn has_no_files(&self, name: &ObjectName) -> Result<bool> {
        let table = match self.external_table(name).await {
            Ok(Some(table)) if table.format != Format::Delta => table,
            Ok(_) => return Ok(false),
            // Nor does any file tell its format.
            Err(Error::Empty { .. }) => return Ok(true),
            Err(error) => return Err(error),
        };
        let base = self.base_of(&name.schema);
        match self.files_now.must_have_files(Some(base), &table).await {
            Ok(()) => Ok(false),
            Err(Error::Empty { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What the warehouse keeps for itself is no table's: whoever defines one would read password
    /// hashes, the key that signs tokens, and tables that were not granted.
    pub(crate) fn check_location(&self, location: &str, base: &Place) -> Result<()> {
        let place = self.stores.locate(location, Some(base))?;
        let warehouse = self.warehouse.place();
        if OWN_FOLDERS.iter().any(|folder| place.meets(&warehouse.child(folder))) {
            return Err(Error::Location {
                url: location.into(),
                reason: "it holds the warehouse's own files".into(),
            });
        }
        Ok(())
    }

    pub(crate) async fn open_external(
        &self,
        name: &ObjectName,
        table: &LakeTable,
        version: Option<u64>,
        state: &SessionState,
    ) -> Result<Arc<dyn TableProvider>> {
        self.open_external_of(&self.files, name, table, version, state).await
    }

    /// The same with the files that `files` lists.
    pub(crate) async fn open_external_of(
        &self,
        files: &crate::lake::Tables,
        name: &ObjectName,
        table: &LakeTable,
        version: Option<u64>,
        state: &SessionState,
    ) -> Result<Arc<dyn TableProvider>> {
        let text = name.to_string();
        if table.format == Format::Delta {
            let (_, opened) = self.open_lake_delta(name, table, version).await?;
            if let Some(pii) = &table.pii {
                let partitions = delta::partition_columns(&text, &opened)?;
                pii.check_partitions(&text, partitions.iter().map(String::as_str))?;
            }
            return delta::provider(&text, &opened, state);
        }
        let base = self.base_of(&name.schema);
        self.check_location(&table.location, base)?;
        self.check_separation(name, table).await?;
        no_version(name, version)?;
        let opened = files.open(Some(base), table, state).await?;
        Ok(Arc::new(ReadOnlyTable::new(text, opened)))
    }

    /// A lake's Delta table at a version, without one at its newest, and where it is.
    ///
    /// # Errors
    /// When it may not be read, there is no such version, or its log cannot be read.
    pub(crate) async fn open_lake_delta(
        &self,
        name: &ObjectName,
        table: &LakeTable,
        version: Option<u64>,
    ) -> Result<(Place, DeltaTable)> {
        let base = self.base_of(&name.schema);
        self.check_location(&table.location, base)?;
        self.check_separation(name, table).await?;
        let text = name.to_string();
        let place = self.stores.locate(&table.location, Some(base))?.folder();
        let opened = match version {
            Some(version) => self.tables.at(&text, &place, version).await,
            None => self.tables.newest(&text, &place).await,
        };
        let opened = match opened {
            Err(Error::Corrupt { .. }) if !delta::is_delta(&place).await? => {
                let url = place.url.to_string();
                return Err(Error::Empty { url, format: "Delta log".into() });
            }
            other => other?,
        };
        if version.is_some() {
            let newest = self.tables.newest(&text, &place).await?;
            delta::check_columns(&text, &opened, &newest)?;
        }
        Ok((place, opened))
    }
}
