//! Rewriting a warehouse table without some rows, so that nothing of them is left.
//!
//! A Delta table remembers: earlier versions name files with the rows, and the log has statistics
//! of them. So the rows that stay are written into a new folder with a log of its own, the table's
//! definition is put over to it, and the old folder is removed with everything in it. Versions are
//! counted on; those before answer that they were purged. While that happens the definition says
//! so, and whoever commits meanwhile is told, so that no committed row is lost.

use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::Catalog;
use crate::delta;
use crate::delta::write::{Input, Mode};
use crate::error::{Error, Result};
use crate::registry::head::key;
use crate::registry::{Head, ManagedTable, ObjectName, Spec};
use crate::retention::is_retention;
use crate::store::Place;
use crate::tables::{Orphan, Written};
use crate::warehouse::remove_all;

/// How often a change of a definition is tried when others change it at the same time.
const TRIES: usize = 8;
/// Characters of the id behind a folder's name.
const ID_CHARS: usize = 36;

/// How the names of notes begin that say where an erasure writes.
pub(crate) const NOTE: &str = "folder-";

/// Where an erasure writes a table.
#[derive(Serialize, Deserialize)]
pub(crate) struct Rewriting {
    pub(crate) table: ObjectName,
    folder: String,
}

/// How far a table's erasure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableErasure {
    /// The rows that stay are to be written; the table is at this version and remains there.
    Begun(u64),
    /// They are written.
    Rewritten,
    /// There is no such table any more.
    Gone,
}

impl Catalog {
    /// Makes sure that no table of this name comes to be of rows that were read before: the erasure
    /// `id` notes that it is there, and puts the definition anew over which a table can be created.
    ///
    /// A creation sees the definition that its own is going to be put over, then it looks for
    /// erasures. So one that has looked before the note has seen a definition that is another one
    /// by now, and loses the race; one that looks later finds the note. Either way there never is
    /// such a table, whatever becomes of its server.
    ///
    /// # Errors
    /// `Conflict` when others change the definition again and again; when the warehouse cannot be
    /// read or written.
    pub async fn end_creations(&self, name: &ObjectName, id: &str) -> Result<()> {
        self.writable().await?;
        // A lake takes no table.
        if self.lakes.contains_key(&name.schema) {
            return Ok(());
        }
        self.note_rewriting(id, name, &new_folder(name)).await?;
        match self.put_anew(name, is_put_over).await {
            // Of one that cannot be read the erasure tells, or hides the person in its files.
            Ok(_) | Err(Error::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        // What there is by now is found by whoever looks next.
        self.objects.renew().await;
        Ok(())
    }

    /// Puts a definition, or that there is none, in its own place where `is_meant`: whoever has
    /// seen it before puts nothing over it any more. Gives what it is.
    pub(crate) async fn put_anew(
        &self,
        name: &ObjectName,
        is_meant: fn(Option<&Spec>) -> bool,
    ) -> Result<Option<Spec>> {
        for _ in 0..TRIES {
            let head = self.objects.head(name).await?;
            let document = head.as_ref().map(|head| head.document.clone()).transpose()?;
            let spec = document.as_ref().and_then(|document| document.spec.clone());
            if !is_meant(spec.as_ref()) {
                return Ok(spec);
            }
            let owner = document.as_ref().map_or("", |document| document.owner.as_str());
            match self.objects.put(name, spec.clone(), owner, head.as_ref()).await {
                Err(error) if error.is_lost_race() => {}
                other => return other.map(|_| spec),
            }
        }
        Err(Error::Conflict { name: name.to_string() })
    }

    /// Begins to rewrite a table for the erasure `id`: from now on nobody else's rows are
    /// committed. [`Catalog::end_creations`] comes before.
    ///
    /// # Errors
    /// `Invalid` when it is no warehouse table; `Conflict` when others change its definition again
    /// and again; when the warehouse cannot be read or written.
    pub async fn begin_table_erasure(&self, name: &ObjectName, id: &str) -> Result<TableErasure> {
        self.writable().await?;
        for _ in 0..TRIES {
            let Some((head, mut table, owner)) = self.managed_head(name).await? else {
                return Ok(TableErasure::Gone);
            };
            if table.erased_by.as_deref() == Some(id) && table.erasing.is_none() {
                return Ok(TableErasure::Rewritten);
            }
            if table.erasing.as_deref() != Some(id) {
                table.erasing = Some(id.to_owned());
                let spec = Some(Spec::Managed(table.clone()));
                match self.objects.put(name, spec, &owner, Some(&head)).await {
                    Err(error) if error.is_lost_race() => continue,
                    other => other?,
                };
            }
            let place = self.warehouse.place().child(&table.folder).folder();
            let newest = self.tables.newest(&name.to_string(), &place).await?;
            let version = newest.version().unwrap_or_default();
            return Ok(TableErasure::Begun(table.shown(version)));
        }
        Err(Error::Conflict { name: name.to_string() })
    }

    /// Writes the rows of a plan into a new folder and puts the table over to it, in place of all
    /// that the table had at `version`.
    ///
    /// # Errors
    /// `Conflict` when the table has moved on, was replaced, or another erasure took it over: then
    /// it is as it was. The plan's own error.
    pub async fn finish_table_erasure(
        &self,
        name: &ObjectName,
        id: &str,
        version: u64,
        plan: LogicalPlan,
        state: &SessionState,
    ) -> Result<Written> {
        let conflict = || Error::Conflict { name: name.to_string() };
        let (_, before, _) = self.managed_head(name).await?.ok_or_else(conflict)?;
        if before.erasing.as_deref() != Some(id) {
            return Err(conflict());
        }
        let text = name.to_string();
        let old = self.warehouse.place().child(&before.folder).folder();
        let table = self.tables.newest(&text, &old).await?;
        if table.version().map(|stored| before.shown(stored)) != Some(version) {
            return Err(conflict());
        }
        let target = delta::plain_schema(&text, &table)?;
        let folder = new_folder(name);
        self.note_rewriting(id, name, &folder).await?;
        let place = self.warehouse.place().child(&folder).folder();
        let mut orphan = Orphan(Some(place.clone()));
        let empty = delta::create_empty(&text, &place, &target).await?;
        let personal = self.personal_columns(name).await?;
        let cluster_by = &before.cluster_by;
        let input = Input::plan(plan, state, Some(target), cluster_by, &personal).await?;
        let (table, rows) = input.write(&text, empty, &place, Mode::Overwrite).await?;
        // Who applies retention notes in the definition that it is still there.
        let (head, now, owner) = self.managed_head(name).await?.ok_or_else(conflict)?;
        let is_same = now.folder == before.folder && now.cluster_by == before.cluster_by;
        if now.erasing.as_deref() != Some(id) || !is_same {
            return Err(conflict());
        }
        let after = ManagedTable {
            folder,
            cluster_by: before.cluster_by,
            retained_ms: now.retained_ms,
            // The new folder's first version has no rows yet, and is nobody's.
            first_version: version.saturating_add(1),
            erasing: None,
            erased_by: Some(id.to_owned()),
            append_only: now.append_only,
            carried: now.carried,
            consents: now.consents,
        };
        let version = after.shown(table.version().unwrap_or_default());
        // What the definition may name by now stays, also where its answer gets lost.
        let left = orphan.0.take();
        let put = self.objects.put(name, Some(Spec::Managed(after)), &owner, Some(&head)).await;
        if put.as_ref().is_err_and(Error::is_lost_race) {
            orphan.0 = left;
        }
        put?;
        self.tables.forget(&old);
        self.tables.put(&place, &table);
        Ok(Written { rows, version })
    }

    /// Whether rows that were written into a folder are the table's. Another server may have
    /// replaced it since its definition was read here; nobody reads the folder then. An erasure
    /// that began meanwhile may have read the table before the rows came. One that is over may have
    /// removed the folder before this came into it: rows, or a checkpoint that tells of all rows
    /// that there were. That is removed, too.
    pub(crate) async fn check_place(&self, name: &ObjectName, place: &Place) -> Result<()> {
        let conflict = || Error::Conflict { name: name.to_string() };
        let spec = self.objects.read(name).await?.map(|definition| definition.spec);
        let Some(Spec::Managed(table)) = spec else { return Err(conflict()) };
        let present = self.warehouse.place().child(&table.folder).folder();
        if present.path == place.path {
            return if table.erasing.is_none() { Ok(()) } else { Err(conflict()) };
        }
        // Who applies retention leaves the folder for a while to the statements that read it.
        if table.erased_by.as_deref().is_some_and(|id| !is_retention(id)) {
            remove_all(place).await?;
            self.tables.forget(place);
        }
        Err(conflict())
    }

    /// Removes every folder that a table of this name had before, of this or an earlier creation,
    /// and whatever was left behind in writing one before `before_ms`; how many objects there were.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn purge_table_folders(&self, name: &ObjectName, before_ms: i64) -> Result<u64> {
        let head = self.objects.head(name).await?;
        let document = head.as_ref().map(|head| head.document.clone()).transpose()?;
        let mut retired: Vec<String> = Vec::new();
        let mut current = None;
        if let Some(document) = &document {
            retired = document.retired.iter().map(|retired| retired.folder.clone()).collect();
            if let Some(Spec::Managed(table)) = &document.spec {
                current = Some(table.folder.clone());
            }
        }
        let mut removed = 0;
        for folder in self.folders_named(name).await? {
            if current.as_ref() == Some(&folder) {
                continue;
            }
            let objects = self.objects_in(&folder).await?;
            // A folder that somebody writes now is named by no definition yet.
            let is_old =
                objects.iter().all(|object| object.last_modified.timestamp_millis() < before_ms);
            if is_old || retired.contains(&folder) {
                self.warehouse.remove_folder(&folder).await?;
                let place = self.warehouse.place().child(&folder).folder();
                self.tables.forget(&place);
                removed += objects.len() as u64;
            }
        }
        Ok(removed)
    }

    /// Notes where an erasure is going to write a table: a server that is killed leaves a folder
    /// that nothing else names.
    async fn note_rewriting(&self, id: &str, table: &ObjectName, folder: &str) -> Result<()> {
        let file = format!("{NOTE}{}.json", uuid::Uuid::new_v4());
        let place = self.erasure(id).child(&file);
        let note = Rewriting { table: table.clone(), folder: folder.to_owned() };
        let content = serde_json::to_vec(&note).map_err(|error| Error::Corrupt {
            what: place.url.to_string(),
            reason: error.to_string(),
        })?;
        place.create(content).await.map(|_| ())
    }

    /// Removes what an erasure, or an application of retention policies, began to write and did not
    /// put in a table's place. By now nobody else does: the table is another one than it was when
    /// that was begun, or somebody else rewrites it.
    ///
    /// # Errors
    /// When the warehouse cannot be read or written.
    pub async fn sweep_rewritings(&self, id: &str) -> Result<()> {
        for object in self.objects_in(&format!("_attune/erasures/{id}")).await? {
            let file = object.location.filename().filter(|file| file.starts_with(NOTE));
            let Some(file) = file else { continue };
            let place = self.erasure(id).child(file);
            let Some(content) = place.read_if_exists().await? else { continue };
            // A note that was cut short was followed by nothing.
            if let Ok(note) = serde_json::from_slice::<Rewriting>(&content) {
                let current = match self.objects.head(&note.table).await? {
                    None => None,
                    Some(head) => match &head.document {
                        Ok(document) => document.spec.clone(),
                        // What it names is not known.
                        Err(_) => continue,
                    },
                };
                let is_current = matches!(
                    &current,
                    Some(Spec::Managed(table)) if table.folder == note.folder
                );
                if !is_current {
                    self.warehouse.remove_folder(&note.folder).await?;
                    self.tables.forget(&self.warehouse.place().child(&note.folder).folder());
                }
            }
            place.remove().await?;
        }
        Ok(())
    }

    /// Forgets what checks have kept of a table's values, and the results of checks.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn forget_checked_values(&self, name: &ObjectName) -> Result<()> {
        self.forget_checked_files(name).await?;
        self.forget_check_results(name).await
    }

    /// A warehouse table's head, what it says, and whose it is; `None` when there is none.
    pub(crate) async fn managed_head(
        &self,
        name: &ObjectName,
    ) -> Result<Option<(Head, ManagedTable, String)>> {
        let Some(head) = self.objects.head(name).await? else { return Ok(None) };
        let document = head.document.clone()?;
        match &document.spec {
            None => Ok(None),
            Some(Spec::Managed(table)) => Ok(Some((head, table.clone(), document.owner.clone()))),
            Some(other) => {
                Err(Error::invalid(format!("{name} is a {} that is not rewritten", other.kind())))
            }
        }
    }

    /// The folders that tables of this name have or had.
    async fn folders_named(&self, name: &ObjectName) -> Result<Vec<String>> {
        let tables = self.warehouse.place().child("tables");
        let start = format!("{}-", key(&name.schema, &name.name));
        let listed = match tables.store.list_with_delimiter(Some(&tables.path)).await {
            Ok(listed) => listed,
            Err(object_store::Error::NotFound { .. }) => return Ok(vec![]),
            Err(error) => return Err(Error::store(tables.url.as_str(), &error)),
        };
        let folders = listed.common_prefixes.iter().filter_map(|folder| {
            let folder = folder.filename()?;
            let id = folder.strip_prefix(&start)?;
            (id.len() == ID_CHARS).then(|| format!("tables/{folder}"))
        });
        Ok(folders.collect())
    }

    /// The objects below a folder of the warehouse.
    pub(crate) async fn objects_in(&self, folder: &str) -> Result<Vec<ObjectMeta>> {
        let place = self.warehouse.place().child(folder);
        match place.store.list(Some(&place.path)).try_collect().await {
            Ok(objects) => Ok(objects),
            Err(object_store::Error::NotFound { .. }) => Ok(vec![]),
            Err(error) => Err(Error::store(place.url.as_str(), &error)),
        }
    }
}

/// Whether a table can be created over a definition that an erasure leaves as it is: rewriting one
/// of the warehouse changes it anyway, and views and models are in the way of a table.
fn is_put_over(spec: Option<&Spec>) -> bool {
    matches!(spec, None | Some(Spec::External(_)))
}

/// A folder for a table, which no other has.
fn new_folder(name: &ObjectName) -> String {
    format!("tables/{}-{}", key(&name.schema, &name.name), uuid::Uuid::new_v4())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use datafusion::catalog::streaming::StreamingTable;
    use datafusion::datasource::provider_as_source;
    use datafusion::error::DataFusionError;
    use datafusion::execution::{SendableRecordBatchStream, TaskContext};
    use datafusion::logical_expr::LogicalPlanBuilder;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use datafusion::physical_plan::streaming::PartitionStream;

    use super::*;
    use crate::testing::{TestClock, main, open_folder, plan, session};
    use crate::{CreateMode, NewTable};

    /// A row that comes once it was said that rows are only added to the table.
    #[derive(Debug)]
    struct Said(Arc<Catalog>, SchemaRef);

    impl PartitionStream for Said {
        fn schema(&self) -> &SchemaRef {
            &self.1
        }

        fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
            let (catalog, schema) = (Arc::clone(&self.0), Arc::clone(&self.1));
            let rows = futures::stream::once(async move {
                let said = catalog.set_append_only(&main("t"), true).await;
                said.map_err(|error| DataFusionError::External(Box::new(error)))?;
                let ids: ArrayRef = Arc::new(StringArray::from(vec!["stays"]));
                Ok::<_, DataFusionError>(RecordBatch::try_new(schema, vec![ids])?)
            });
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.1), rows))
        }
    }

    /// A catalog with a table `t` of one row.
    async fn with_table(folder: &std::path::Path, clock: &TestClock) -> Arc<Catalog> {
        let catalog = open_folder(folder, clock).await;
        let (state, mode) = (session(&catalog), CreateMode::New);
        let rows = plan(&catalog, "SELECT 'stays' AS id", &[]).await;
        let made = catalog
            .create_table_as(&main("t"), "ann", mode, rows, state, &NewTable::default())
            .await;
        assert!(made.unwrap().is_some());
        catalog
    }

    #[tokio::test]
    async fn what_is_said_of_a_table_while_it_is_rewritten_holds() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = with_table(folder.path(), &TestClock::default()).await;
        let name = main("t");
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, true)]));
        let said = Said(Arc::clone(&catalog), Arc::clone(&schema));
        let said: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(said)];
        let said = Arc::new(StreamingTable::try_new(schema, said).unwrap());
        let keep = LogicalPlanBuilder::scan("said", provider_as_source(said), None).unwrap();
        let (keep, state) = (keep.build().unwrap(), session(&catalog));
        catalog.begin_table_erasure(&name, "e1").await.unwrap();
        let done = catalog.finish_table_erasure(&name, "e1", 0, keep, &state).await.unwrap();
        assert_eq!(done.rows, 1);
        assert!(catalog.check_append_only(&name).await.is_err());
    }

    #[tokio::test]
    async fn what_a_killed_application_of_retention_left_is_removed_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        clock.advance(1_700_000_000_000);
        let catalog = with_table(folder.path(), &clock).await;
        let name = main("t");
        for is_claimed in [false, true] {
            let (id, _) = catalog.begin_retention(&name).await.unwrap().unwrap();
            let left = format!("tables/{}-{}", key("main", "t"), uuid::Uuid::new_v4());
            catalog.note_rewriting(&id, &name, &left).await.unwrap();
            let file = catalog.warehouse.place().child(&left).child("part.parquet");
            assert!(file.create("cut").await.unwrap());
            clock.advance(10 * 60 * 1_000);
            if is_claimed {
                assert!(catalog.claim_retention(&name, i64::MAX).await.unwrap());
            }
            let (next, _) = catalog.begin_retention(&name).await.unwrap().unwrap();
            assert!(file.read_if_exists().await.unwrap().is_none());
            assert!(catalog.objects_in("_attune/erasures").await.unwrap().is_empty());
            assert!(catalog.stop_retention(&name, Some(&next)).await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_rewritten_table_counts_on_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        let catalog = open_folder(folder.path(), &clock).await;
        let name = ObjectName::new("main", "t");
        let state = session(&catalog);
        let text = "SELECT * FROM (VALUES ('gone'), ('stays')) AS t (id)";
        let rows = plan(&catalog, text, &[]).await;
        let mode = CreateMode::New;
        let made = catalog
            .create_table_as(&name, "ann", mode, rows, state.clone(), &NewTable::default())
            .await;
        assert_eq!(made.unwrap().unwrap().version, 0);
        let begun = catalog.begin_table_erasure(&name, "e1").await.unwrap();
        assert_eq!(begun, TableErasure::Begun(0));
        let more = plan(&catalog, "SELECT 'late' AS id", &[]).await;
        let refused = catalog.insert(&name, more.clone(), state.clone(), None, false).await;
        assert!(refused.unwrap_err().to_string().contains("FORGET SUBJECT"));
        // A server that was killed in the middle has left this.
        let left = format!("tables/{}-{}", key("main", "t"), uuid::Uuid::new_v4());
        catalog.note_rewriting("e1", &name, &left).await.unwrap();
        let file = catalog.warehouse.place().child(&left).child("part.parquet");
        assert!(file.create("cut").await.unwrap());
        let keep = plan(&catalog, "SELECT 'stays' AS id", &[]).await;
        let done = catalog.finish_table_erasure(&name, "e1", 0, keep, &state).await.unwrap();
        assert_eq!(done, Written { rows: 1, version: 2 });
        let again = catalog.begin_table_erasure(&name, "e1").await.unwrap();
        assert_eq!(again, TableErasure::Rewritten);
        catalog.sweep_rewritings("e1").await.unwrap();
        assert!(file.read_if_exists().await.unwrap().is_none());
        assert!(catalog.objects_in("_attune/erasures/e1").await.unwrap().is_empty());
        assert!(catalog.purge_table_folders(&name, i64::MAX).await.unwrap() > 0);
        assert_eq!(catalog.purge_table_folders(&name, i64::MAX).await.unwrap(), 0);
        for version in [0, 1] {
            let purged = catalog.open_table(&name, Some(version), &state).await.unwrap_err();
            assert!(purged.to_string().contains("purged by erasure"), "{purged}");
        }
        assert!(catalog.open_table(&name, Some(2), &state).await.unwrap().is_some());
        let written = catalog.insert(&name, more, state.clone(), Some(2), false).await.unwrap();
        assert_eq!(written, Written { rows: 1, version: 3 });
        let held = folder.path().join("tables");
        let folders: Vec<_> = std::fs::read_dir(held).unwrap().flatten().collect();
        assert_eq!(folders.len(), 1);
        assert_eq!(
            catalog.begin_table_erasure(&ObjectName::new("main", "x"), "e1").await.unwrap(),
            TableErasure::Gone
        );
    }
}
