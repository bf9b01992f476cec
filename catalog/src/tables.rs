//! Tables by name: what there is, opening it, and writing warehouse tables.
//!
//! The rows of a new table go to a fresh folder and its definition is put last, so that a failure,
//! a lost race or a cancelled statement leaves no table, and a replaced table is readable until
//! the new one is. Folders that nothing names any more stay for a while, for the queries that
//! started before.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use deltalake::DeltaTable;

use crate::delta::write::{Input, Mode};
use crate::delta::{self, types};
use crate::erasures_seen::ErasuresSeen;
use crate::error::{Error, Result};
use crate::lake::Format;
use crate::lake::files::TableFiles;
use crate::lakes::Named;
use crate::new_table::NewTable;
use crate::pii::{Pii, identifiers_of};
use crate::registry::head::key;
use crate::registry::{
    CreateMode, Definition, Kind, ManagedTable, ObjectName, Spec, check_kind, may_create,
};
use crate::retention::is_retention;
use crate::store::Place;
use crate::{Catalog, MAIN, append_only, warehouse};

/// How long a folder that nothing names any more stays.
const RETIRED_KEPT_MS: i64 = 10 * 60 * 1_000;
/// After how long it is removed once more, with what slow statements have written into it since.
const RETIRED_AGAIN_MS: i64 = 24 * 60 * 60 * 1_000;

/// An opened table.
#[derive(Debug)]
pub enum Opened {
    /// A table; for a Delta table pinned to one version.
    Table(Arc<dyn TableProvider>),
    /// A table of whose columns some hold personal identifiers, as its files have them: what of it
    /// is shown is computed by the caller.
    Identified {
        /// The rows of the files.
        rows: Arc<dyn TableProvider>,
        /// Which columns, and the key of their pseudonyms.
        pii: Pii,
        /// The table that the name shows the identifiers of; none where it shows pseudonyms in
        /// their place.
        identifiers_of: Option<ObjectName>,
    },
    /// A view's text, which the caller parses and guards.
    View {
        /// The query.
        sql: String,
    },
}

impl Opened {
    /// A table over files, with what is kept apart of it.
    pub(crate) fn of(rows: Arc<dyn TableProvider>, pii: Option<Pii>) -> Self {
        match pii {
            None => Self::Table(rows),
            Some(pii) => Self::Identified { rows, pii, identifiers_of: None },
        }
    }
}

/// What a name is, without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// A table, view or model.
    pub kind: Kind,
    /// Who defined it; nobody for a lake's own table.
    pub owner: Option<String>,
    /// Whether it is a table over files that others write.
    pub external: bool,
    /// What is kept apart of it.
    pub pii: Option<Pii>,
    /// The table whose identifiers it shows: then only an express grant gives it.
    pub identifiers_of: Option<ObjectName>,
}

impl Object {
    /// Whether only an express grant gives it.
    pub fn is_restricted(&self) -> bool {
        self.identifiers_of.is_some()
    }

    fn of(definition: &Definition) -> Self {
        Self {
            kind: definition.spec.kind(),
            owner: Some(definition.owner.clone()),
            external: matches!(definition.spec, Spec::External(_) | Spec::Identifiers { .. }),
            pii: match &definition.spec {
                Spec::External(table) => table.pii.clone(),
                _ => None,
            },
            identifiers_of: match &definition.spec {
                Spec::Identifiers { of } => Some(of.clone()),
                _ => None,
            },
        }
    }

    fn of_lake() -> Self {
        let (pii, identifiers_of) = (None, None);
        Self { kind: Kind::Table, owner: None, external: true, pii, identifiers_of }
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// How many rows.
    pub rows: u64,
    /// The table's version after the commit.
    pub version: u64,
}

impl Catalog {
    /// The tables, views and models of a schema, by name.
    ///
    /// # Errors
    /// When a store cannot be reached, or there is no such schema.
    pub async fn objects(&self, schema: &str) -> Result<BTreeMap<String, Object>> {
        let mut objects = BTreeMap::new();
        if self.lakes.contains_key(schema) {
            let names = self.lake_table_names(schema).await?;
            objects.extend(names.into_iter().map(|name| (name, Object::of_lake())));
        }
        for ((of, name), definition) in self.definitions().await?.iter() {
            if of == schema {
                objects.insert(name.clone(), Object::of(definition));
            }
        }
        Ok(objects)
    }

    /// What a name is and whose, also a lake's own table; `None` when it is nothing.
    ///
    /// # Errors
    /// When a store cannot be reached, or the document cannot be read.
    pub async fn object(&self, name: &ObjectName) -> Result<Option<Object>> {
        Ok(match self.resolve(name).await? {
            Some(Named::Defined(definition)) => Some(Object::of(&definition)),
            Some(Named::Lake(_)) => Some(Object::of_lake()),
            None => None,
        })
    }

    /// The names and kinds of [`Catalog::objects`].
    ///
    /// # Errors
    /// When a store cannot be reached, or there is no such schema.
    pub async fn table_names(&self, schema: &str) -> Result<Vec<(String, Kind)>> {
        let objects = self.objects(schema).await?;
        Ok(objects.into_iter().map(|(name, object)| (name, object.kind)).collect())
    }

    /// Opens a table or view; `None` when there is none of that name.
    ///
    /// A Delta table is opened at its newest version, or at `version`, and stays there.
    ///
    /// # Errors
    /// When the store or the table cannot be read; when the name is a model; when a version is
    /// asked of a thing that has none.
    pub async fn open_table(
        &self,
        name: &ObjectName,
        version: Option<u64>,
        state: &SessionState,
    ) -> Result<Option<Opened>> {
        let spec = match self.resolve(name).await? {
            Some(Named::Defined(definition)) => definition.spec,
            Some(Named::Lake(table)) => Spec::External(table),
            None => return Ok(None),
        };
        match spec {
            Spec::Managed(table) => {
                let place = self.warehouse.place().child(&table.folder).folder();
                let text = name.to_string();
                let opened = self.opened(name, &table, &place, version).await?;
                let cluster_by = &table.cluster_by;
                let provider = self.tables.provider(&text, &place, &opened, cluster_by, state)?;
                Ok(Some(Opened::Table(provider)))
            }
            Spec::View { sql, .. } => {
                no_version(name, version)?;
                Ok(Some(Opened::View { sql }))
            }
            Spec::External(table) => {
                let rows = self.open_external(name, &table, version, state).await?;
                Ok(Some(Opened::of(rows, table.pii)))
            }
            Spec::Identifiers { of } => {
                Ok(Some(self.open_identifiers(&self.files, name, of, version, state).await?))
            }
            Spec::Model(_)
            | Spec::User(_)
            | Spec::Role(_)
            | Spec::Token(_)
            | Spec::Expectations(_)
            | Spec::Checks(_)
            | Spec::Key(_)
            | Spec::Policies(_)
            | Spec::Purpose(_)
            | Spec::Consent(_)
            | Spec::Subject(_)
            | Spec::SubjectMarks(_)
            | Spec::SubjectCopies(_)
            | Spec::Privacy(_)
            | Spec::Budget(_)
            | Spec::Releases(_) => Err(Error::invalid_hint(
                format!("{name} is a model, not a table"),
                format!("use ML.RECOMMEND(MODEL {name}) or ML.PREDICT(MODEL {name}, …)"),
            )),
        }
    }

    /// What a restricted table is computed of.
    pub(crate) async fn open_identifiers(
        &self,
        files: &crate::lake::Tables,
        name: &ObjectName,
        of: ObjectName,
        version: Option<u64>,
        state: &SessionState,
    ) -> Result<Opened> {
        no_version(name, version)?;
        let table = self.identified(name, &of).await?;
        let rows = self.open_external_of(files, &of, &table, None, state).await?;
        Ok(match table.pii {
            Some(pii) => Opened::Identified { rows, pii, identifiers_of: Some(of) },
            None => return Err(Error::not_found("table", &name.to_string(), [])),
        })
    }

    /// The files of a table, of which some can be read alone; `None` when its rows are not those of
    /// a list of files: a view, a Delta table whose files are not all that there is to it, or a
    /// table whose identifiers are kept apart.
    ///
    /// A Delta table's files are those of `version`, without one those of its newest.
    ///
    /// # Errors
    /// When the store or the table cannot be read.
    pub async fn table_files(
        &self,
        name: &ObjectName,
        version: Option<u64>,
        state: &SessionState,
    ) -> Result<Option<TableFiles>> {
        let spec = match self.resolve(name).await? {
            Some(Named::Defined(definition)) => definition.spec,
            Some(Named::Lake(table)) => Spec::External(table),
            None => return Ok(None),
        };
        let text = name.to_string();
        match spec {
            Spec::Managed(table) => {
                let place = self.warehouse.place().child(&table.folder).folder();
                let opened = self.opened(name, &table, &place, version).await?;
                let plain = self.tables.plain(&text, &place, &opened, state)?;
                Ok(plain.and_then(|files| TableFiles::of_delta(table.folder, files)))
            }
            Spec::External(table) if table.pii.is_some() => Ok(None),
            Spec::External(table) if table.format == Format::Delta => {
                let (place, opened) = self.open_lake_delta(name, &table, version).await?;
                let plain = self.tables.plain(&text, &place, &opened, state)?;
                Ok(plain.and_then(|files| TableFiles::of_delta(place.url.to_string(), files)))
            }
            Spec::External(table) => {
                self.check_separation(name, &table).await?;
                self.files.files(Some(self.base_of(&name.schema)), &table, state).await
            }
            _ => Ok(None),
        }
    }

    /// Creates a warehouse table from a query's rows, in one commit; `None` when IF NOT EXISTS
    /// found one. Policies and tags that it brings along are written with its definition.
    ///
    /// # Errors
    /// As [`Catalog::create`]; the query's own error; a column that a table cannot store; `Erased`
    /// when a person was erased meanwhile whose rows may have come: then there is no new table.
    pub async fn create_table_as(
        &self,
        name: &ObjectName,
        owner: &str,
        mode: CreateMode,
        plan: LogicalPlan,
        state: SessionState,
        new: &NewTable,
    ) -> Result<Option<Written>> {
        let Some(start) = self.begin_create(name, mode, new).await? else { return Ok(None) };
        self.check_brought(name, new).await?;
        let seen = ErasuresSeen::of(&state);
        // Not before the definition is seen that this one is put over: a later erasure changes it.
        self.check_erasures(name, &seen).await?;
        let text = name.to_string();
        let mut personal = self.personal_columns(name).await?;
        new.add_personal(&mut personal);
        let input = Input::plan(plan, &state, None, &new.cluster_by, &personal).await?;
        let table = delta::unopened(&start.place);
        let (table, rows) = input.write(&text, table, &start.place, Mode::Create).await?;
        let version = table.version().unwrap_or_default();
        if let Err(error) = self.finish_create(name, owner, start).await {
            if error.is_lost_race() {
                // Where an erasure was first, the statement has to be planned anew.
                self.check_erasures(name, &seen).await?;
            }
            return Err(error);
        }
        Ok(Some(Written { rows, version }))
    }

    /// Creates a warehouse table without rows; `false` when IF NOT EXISTS found one.
    ///
    /// # Errors
    /// As [`Catalog::create`]; a column that a table cannot store.
    pub async fn create_empty_table(
        &self,
        name: &ObjectName,
        owner: &str,
        mode: CreateMode,
        schema: SchemaRef,
        cluster_by: &[String],
    ) -> Result<bool> {
        let schema = types::storable_schema(&schema, types::Nulls::AsDeclared)?;
        let new = NewTable::clustered(cluster_by);
        let Some(start) = self.begin_create(name, mode, &new).await? else { return Ok(false) };
        delta::create_empty(&name.to_string(), &start.place, &schema).await?;
        self.finish_create(name, owner, start).await?;
        Ok(true)
    }

    /// Writes a query's rows into a warehouse table, in one commit. The query's columns go to the
    /// table's columns in order.
    ///
    /// With `overwrite` the rows replace all present ones. With `expected_version`, or with
    /// `overwrite`, the commit fails when somebody else has committed meanwhile.
    ///
    /// # Errors
    /// `Conflict` as said; the query's own error; rows that do not fit the table's columns; with
    /// `overwrite`, when rows are only added to the table; `Erased` when a person was erased since
    /// the query was planned who may come back with the rows.
    pub async fn insert(
        &self,
        name: &ObjectName,
        plan: LogicalPlan,
        state: SessionState,
        expected_version: Option<u64>,
        overwrite: bool,
    ) -> Result<Written> {
        self.writable().await?;
        let text = name.to_string();
        let (place, managed) = self.managed(name).await?;
        check_erasure(name, &managed)?;
        // Not before the folder is known: an erasure that comes later changes it.
        self.check_erasures(name, &ErasuresSeen::of(&state)).await?;
        if overwrite {
            self.check_append_only(name).await?;
        }
        let table = self.tables.newest(&text, &place).await?;
        let found = table.version().map(|version| managed.shown(version));
        if expected_version.is_some() && expected_version != found {
            return Err(Error::Conflict { name: text });
        }
        let mode = match (overwrite, expected_version) {
            (true, _) => Mode::Overwrite,
            (false, Some(_)) => Mode::AppendExactly,
            (false, None) => Mode::Append,
        };
        let target = delta::plain_schema(&text, &table)?;
        let personal = self.personal_columns(name).await?;
        let cluster_by = &managed.cluster_by;
        let input = Input::plan(plan, &state, Some(target), cluster_by, &personal).await?;
        let written = input.write(&text, table, &place, mode).await;
        let is_there = self.check_place(name, &place).await;
        let (table, rows) = written?;
        is_there?;
        self.tables.put(&place, &table);
        Ok(Written { rows, version: managed.shown(table.version().unwrap_or_default()) })
    }

    /// The newest version of a warehouse table.
    ///
    /// # Errors
    /// When there is no such table, or its log cannot be read.
    pub async fn table_version(&self, name: &ObjectName) -> Result<u64> {
        let (place, managed) = self.managed(name).await?;
        let table = self.tables.newest(&name.to_string(), &place).await?;
        Ok(managed.shown(table.version().unwrap_or_default()))
    }

    /// A warehouse table at a version, or at its newest.
    async fn opened(
        &self,
        name: &ObjectName,
        table: &ManagedTable,
        place: &Place,
        version: Option<u64>,
    ) -> Result<DeltaTable> {
        let text = name.to_string();
        let Some(version) = version else { return self.tables.newest(&text, place).await };
        let stored = table.stored(name, version)?;
        if table.first_version > 0 {
            // Delta counts from the folder's first version, and so would its error.
            let newest = self.tables.newest(&text, place).await?;
            let newest = table.shown(newest.version().unwrap_or_default());
            if version > newest {
                return Err(Error::invalid_hint(
                    format!("table {name} has no version {version}: it is not written yet"),
                    format!("its newest version is {newest}"),
                ));
            }
        }
        self.tables.at(&text, place, stored).await
    }

    /// A warehouse table's folder, and what is said of it.
    pub(crate) async fn managed(&self, name: &ObjectName) -> Result<(Place, ManagedTable)> {
        let spec = match self.resolve(name).await? {
            Some(Named::Defined(definition)) => definition.spec,
            Some(Named::Lake(_)) => return Err(not_writable(name)),
            None => {
                let names = self.table_names(&name.schema).await.unwrap_or_default();
                let names = names.iter().map(|(name, _)| name.as_str());
                return Err(Error::not_found("table", &name.name, names));
            }
        };
        match spec {
            Spec::Managed(table) => {
                let place = self.warehouse.place().child(&table.folder).folder();
                Ok((place, table))
            }
            Spec::External(_) => Err(not_writable(name)),
            other => {
                check_kind(name, other.kind(), Kind::Table)?;
                Err(not_writable(name))
            }
        }
    }

    async fn begin_create(
        &self,
        name: &ObjectName,
        mode: CreateMode,
        new: &NewTable,
    ) -> Result<Option<Start>> {
        self.check_main(name, Kind::Table)?;
        let folder = format!("tables/{}-{}", key(&name.schema, &name.name), uuid::Uuid::new_v4());
        self.writable().await?;
        let seen = self.objects.head(name).await?;
        if !may_create(name, seen.as_ref(), Kind::Table, mode)? {
            return Ok(None);
        }
        append_only::check_head(name, seen.as_ref())?;
        if mode == CreateMode::Replace {
            // Policies stay with the name; those that come later are of a table that stays, too.
            self.settle_rules(name).await?;
        }
        let place = self.warehouse.place().child(&folder).folder();
        let orphan = Orphan(Some(place.clone()));
        Ok(Some(Start { table: new.in_folder(folder), orphan, place, seen, mode }))
    }

    async fn finish_create(&self, name: &ObjectName, owner: &str, mut start: Start) -> Result<()> {
        let table = start.table;
        let carries = table.carried.is_some();
        let spec = Spec::Managed(table.clone());
        // Also when the statement is cancelled in the middle, a folder that the definition may
        // name is not removed.
        let folder = start.orphan.0.take();
        match self.objects.put(name, Some(spec), owner, start.seen.as_ref()).await {
            Ok(_) => {}
            Err(error) if error.is_lost_race() => {
                let now = self.objects.read(name).await?;
                // Of a put whose answer got lost an erasure may have put the definition anew.
                let names = |spec: &Spec| match spec {
                    Spec::Managed(now) => now.folder == table.folder,
                    _ => false,
                };
                if !now.as_ref().is_some_and(|now| names(&now.spec)) {
                    start.orphan.0 = folder;
                    return Err(match now.filter(|_| start.mode != CreateMode::Replace) {
                        Some(now) => crate::registry::exists(name, now.spec.kind()),
                        None => error,
                    });
                }
            }
            // An answer that got lost is no failure.
            Err(error) => match self.objects.read(name).await {
                Ok(Some(now)) if now.spec == Spec::Managed(table) => {}
                Ok(_) => {
                    start.orphan.0 = folder;
                    return Err(error);
                }
                Err(_) => return Err(error),
            },
        }
        if let Some(Ok(before)) = start.seen.as_ref().map(|head| &head.document)
            && let Some(apart) = before.spec.as_ref().and_then(|spec| identifiers_of(name, spec))
        {
            self.drop_identifiers(&apart, name).await?;
        }
        if carries && let Err(error) = self.settle_rules(name).await {
            tracing::warn!(table = %name, %error, "policies are with their copy alone as yet");
        }
        self.sweep().await;
        Ok(())
    }

    /// Removes the folders that were retired long enough ago. What cannot be removed now is
    /// removed another time.
    pub async fn sweep(&self) {
        let retired = match self.objects.retired().await {
            Ok(retired) => retired,
            Err(error) => {
                tracing::debug!(%error, "retired folders not listed");
                return;
            }
        };
        let now_ms = self.now_ms();
        for folder in retired {
            let age_ms = now_ms.saturating_sub(folder.at_ms);
            let sweeping = (folder.folder.clone(), age_ms >= RETIRED_AGAIN_MS);
            if age_ms < RETIRED_KEPT_MS || !self.swept.lock().insert(sweeping.clone()) {
                continue;
            }
            if let Err(error) = self.warehouse.remove_folder(&folder.folder).await {
                tracing::debug!(%error, folder = folder.folder, "retired folder not removed");
                self.swept.lock().remove(&sweeping);
            }
        }
    }
}

/// A table on its way: its folder, and the head that its definition will be put over.
struct Start {
    table: ManagedTable,
    place: Place,
    orphan: Orphan,
    seen: Option<crate::registry::Head>,
    mode: CreateMode,
}

/// Removes a folder when it is dropped, unless the table came to be; also when the statement is
/// cancelled in the middle.
pub(crate) struct Orphan(pub(crate) Option<Place>);

impl Drop for Orphan {
    fn drop(&mut self) {
        let (Some(place), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = warehouse::remove_all(&place).await {
                tracing::debug!(%error, "the folder of a table that failed was not removed");
            }
        });
    }
}

/// Nobody writes what is being rewritten without a person, or without what is too old.
pub(crate) fn check_erasure(name: &ObjectName, table: &ManagedTable) -> Result<()> {
    match &table.erasing {
        None => Ok(()),
        Some(id) if is_retention(id) => Err(Error::invalid_hint(
            format!("table {name} is being rewritten without rows whose retention is over"),
            "try again in a moment; where its server has stopped, APPLY RETENTION POLICIES ON it \
             goes on after five minutes",
        )),
        Some(_) => Err(Error::invalid_hint(
            format!("table {name} is being rewritten by FORGET SUBJECT"),
            "try again in a moment; RESUME ERASURE ends an erasure whose server has stopped",
        )),
    }
}

pub(crate) fn not_writable(name: &ObjectName) -> Error {
    Error::invalid_hint(
        format!("{name} is read from files and cannot be changed"),
        format!("CREATE TABLE {MAIN}.{} AS SELECT … makes a table that can", name.name),
    )
}

pub(crate) fn no_version(name: &ObjectName, version: Option<u64>) -> Result<()> {
    match version {
        None => Ok(()),
        Some(_) => Err(Error::invalid_hint(
            format!("{name} has no versions"),
            "VERSION AS OF works on Delta tables",
        )),
    }
}
