//! A forgotten person's rows in Delta tables of lakes that Attune may write.
//!
//! Each file with such rows is written anew without them, and one commit puts the new files in the
//! place of the old ones, for a version that nobody else has changed meanwhile. Then the table is
//! searched once more, so that rows that somebody added are found too, and when there are none its
//! past is purged. Files that no version names are searched like those that one does. When all else
//! of an erasure is done, checkpoints are removed that others had begun before and ended since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use catalog::delta_erasure::{DeltaErasure, Replaced};
use catalog::delta_purge::Purged;
use catalog::erasures::StepReport;
use catalog::lake_erasure::{Untouched, path_without};
use catalog::{ObjectName, TableFiles};
use datafusion::execution::memory_pool::MemoryPool;

use super::lake::{AGAIN, Held, TRIES, gone, is_closed, name};
use super::person::Person;
use super::remains::some_of;
use crate::error::{CatalogError, Error, Result};
use crate::session::StatementContext;
use crate::session::run::Run;

/// While a file stays, so does the past, in which it is no news.
const STAYING: &str = "they stay while a file of the newest one does";
const FOLDERS: &str = "its folders are named by ids";
const UNREAD: &str = "no version names it, and it cannot be read as the table's files are";

/// Takes the person out of a Delta table and purges its past.
pub(super) async fn rewrite(
    run: &Run,
    context: &Arc<StatementContext>,
    person: &Person,
    table: &ObjectName,
) -> Result<StepReport> {
    let engine = context.engine();
    let pool = Arc::clone(&run.writing_state()?.runtime_env().memory_pool);
    let (done, failed) = (Done::default(), None);
    let mut work = Work { run, context, person, table, pool, done, failed };
    for _ in 0..TRIES {
        // What it needs now is perhaps more than it needed when that was asked first.
        let erasure = match engine.catalog().begin_delta_erasure(table, engine.base()).await {
            Ok(Some(Ok(erasure))) if work.is_in_folders(&erasure) => Err(FOLDERS.to_owned()),
            Ok(Some(erasure)) => erasure,
            Ok(None) => Err(AGAIN.to_owned()),
            Err(error) if is_closed(&error) => Err(AGAIN.to_owned()),
            Err(error) => return Err(error.into()),
        };
        let erasure = match erasure {
            Ok(erasure) => erasure,
            Err(reason) => {
                return Box::pin(name(run, context, person, table, Some(&reason))).await;
            }
        };
        if Box::pin(work.round(&erasure)).await? {
            return Ok(work.report());
        }
    }
    match work.failed.take() {
        Some(error) => Err(error),
        None => {
            work.done.left.insert(format!("table {table}"), AGAIN);
            Ok(work.report())
        }
    }
}

/// Removes what others have summed up of the past of the person's tables since it was purged.
pub(super) async fn purge_late(context: &StatementContext, person: &Person) -> Result<Purged> {
    let engine = context.engine();
    let mut purged = Purged::default();
    for table in person.tables() {
        match engine.catalog().begin_delta_erasure(&table, engine.base()).await {
            Ok(Some(Ok(erasure))) => erasure.remove_late(&mut purged).await?,
            Ok(Some(Err(_)) | None) => {}
            Err(error) if is_closed(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(purged)
}

/// The rewriting of one table.
struct Work<'a> {
    run: &'a Run,
    context: &'a Arc<StatementContext>,
    person: &'a Person,
    table: &'a ObjectName,
    pool: Arc<dyn MemoryPool>,
    done: Done,
    /// Why a version that was the newest could not be read, when it is no longer.
    failed: Option<Error>,
}

/// What became of the table.
#[derive(Default)]
struct Done {
    rewritten: Vec<String>,
    /// What stays, by its path, and why.
    left: BTreeMap<String, &'static str>,
    rows: u64,
    rows_left: u64,
    objects: u64,
    keeps_versions: bool,
    /// The version that the past begins with.
    begins: Option<u64>,
}

impl Work<'_> {
    /// Whether ids of persons name the table's folders: then its log and its folders tell of them,
    /// whatever is in the files.
    fn is_in_folders(&self, erasure: &DeltaErasure<'_>) -> bool {
        let stored = erasure.files().rows(&[]).schema();
        let folder =
            |name: &String| -> FieldRef { Arc::new(Field::new(name, DataType::Utf8, true)) };
        let folders = erasure.partition_columns().iter().map(folder);
        let fields: Fields = stored.fields().iter().cloned().chain(folders).collect();
        let all = Arc::new(Schema::new(fields));
        self.person.rows_of(self.table, &all) != self.person.rows_of(self.table, &stored)
    }

    /// Looks at the table once; whether there is nothing left to do.
    async fn round(&mut self, erasure: &DeltaErasure<'_>) -> Result<bool> {
        self.failed = None;
        let held = self.held(erasure.files()).await;
        let Some(held) = self.unless_outdated(erasure, held).await? else { return Ok(false) };
        // The past may have had columns that the newest version has not.
        let Some(held) = held else { return Box::pin(self.purge(erasure)).await };
        self.done.rows_left = held.rows;
        let path = |number: &usize| erasure.files().path(*number).unwrap_or_default().to_owned();
        let is_left = |number: &usize| self.done.left.contains_key(&path(number));
        let todo: Vec<usize> = held.numbers.into_iter().filter(|at| !is_left(at)).collect();
        if todo.is_empty() {
            if self.done.left.is_empty() {
                return Box::pin(self.purge(erasure)).await;
            }
            self.done.left.insert("earlier versions".to_owned(), STAYING);
            return Ok(true);
        }
        let (mut replaced, mut paths, mut rows) = (Vec::new(), Vec::new(), 0);
        for number in todo {
            let path = path(&number);
            let written = Box::pin(self.file(erasure, number, &held.condition)).await;
            let Some(written) = self.unless_outdated(erasure, written).await? else {
                erasure.discard(&replaced).await?;
                return Ok(false);
            };
            match written {
                Ok((file, gone)) => {
                    replaced.push(file);
                    paths.push(path);
                    rows += gone;
                }
                Err(Untouched::Changed) => {}
                Err(Untouched::Left(reason)) => {
                    self.done.left.insert(path, reason);
                }
            }
        }
        if !replaced.is_empty() && erasure.commit(&replaced).await? {
            let names = self.person.names();
            let shown = paths.iter().map(|path| path_without(path, &names).0);
            self.done.rewritten.extend(shown);
            self.done.rows += rows;
            self.done.rows_left = self.done.rows_left.saturating_sub(rows);
        }
        Ok(false)
    }

    /// What was read of a version; `None` when it could not be read and another one is the newest
    /// by now, which is to be looked at then: somebody else may have removed its files.
    async fn unless_outdated<T>(
        &mut self,
        erasure: &DeltaErasure<'_>,
        read: Result<T>,
    ) -> Result<Option<T>> {
        let error = match read {
            Ok(read) => return Ok(Some(read)),
            Err(error) => error,
        };
        if !erasure.is_outdated().await? {
            return Err(error);
        }
        self.failed = Some(error);
        Ok(None)
    }

    /// Writes a file without the person's rows beside it, and tells how many these are.
    async fn file(
        &self,
        erasure: &DeltaErasure<'_>,
        number: usize,
        condition: &str,
    ) -> Result<Result<(Replaced, u64), Untouched>> {
        let file = match erasure.begin(number).await? {
            Ok(file) => file,
            Err(untouched) => return Ok(Err(untouched)),
        };
        let gone = gone(self.run, self.context, erasure.files(), number, condition).await?;
        let rows = gone.count_set_bits() as u64;
        let written = erasure.write(number, &file, gone, &self.pool).await?;
        Ok(written.map(|file| (file, rows)))
    }

    /// Purges the table's past; `false` when it is to be looked at again.
    async fn purge(&mut self, erasure: &DeltaErasure<'_>) -> Result<bool> {
        let Some(mut purged) = erasure.purge(&self.person.names()).await? else {
            return Ok(false);
        };
        Box::pin(self.search_strays(erasure, &mut purged)).await?;
        let done = &mut self.done;
        done.objects += purged.objects;
        done.keeps_versions |= purged.keeps_versions;
        done.begins = purged.begins;
        done.left.extend(purged.left);
        Ok(true)
    }

    /// Removes files that no version names where the person is in them, or names them.
    async fn search_strays(&self, erasure: &DeltaErasure<'_>, purged: &mut Purged) -> Result<()> {
        let Some(strays) = purged.strays.take() else { return Ok(()) };
        let mut found = Vec::new();
        match self.held(strays.files()).await {
            Ok(held) => found.extend(held.into_iter().flat_map(|held| held.numbers)),
            // One of them is no file of the table, or somebody is writing it.
            Err(error) if is_of_file(&error) => {
                for number in 0..strays.files().ids().len() {
                    let Some(one) = strays.one(number) else { continue };
                    match self.held(&one).await {
                        Ok(Some(held)) if held.rows > 0 => found.push(number),
                        Ok(_) => {}
                        Err(error) if is_of_file(&error) => {
                            let path = one.path(0).unwrap_or_default().to_owned();
                            purged.left.push((path, UNREAD));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        for number in found {
            erasure.remove_stray(&strays, number, purged).await?;
        }
        Ok(())
    }

    async fn held(&self, files: &TableFiles) -> Result<Option<Held>> {
        Box::pin(Held::of(self.run, self.context, self.person, self.table, files)).await
    }

    fn report(self) -> StepReport {
        let Self { person, table, done, .. } = self;
        let names: BTreeSet<String> = person.names();
        let mut outcome = match done.rewritten.as_slice() {
            [] => "hidden from every read".to_owned(),
            files => format!("hidden from every read, and taken out of {}", some_of(files)),
        };
        if let Some(version) = done.begins {
            outcome.push_str(&format!("; versions before {version} are purged"));
        }
        match (done.left.len(), done.rewritten.len()) {
            (0, 0) => outcome.push_str("; no file of the newest version held the person"),
            (0, _) => {}
            (files, _) => outcome.push_str(&format!("; left to their owner: {files} of the files")),
        }
        let shown = |(path, reason): (&String, &&str)| {
            format!("{} ({reason})", path_without(path, &names).0)
        };
        StepReport {
            rows: done.rows + done.rows_left,
            objects: done.objects,
            exact: done.left.is_empty(),
            files: done.left.iter().map(shown).collect(),
            rewritten: done.rewritten,
            keeps_versions: done.keeps_versions,
            ..StepReport::new(format!("table {table}"), outcome)
        }
    }
}

/// Whether one file is why rows cannot be read.
fn is_of_file(error: &Error) -> bool {
    matches!(error, Error::Catalog(CatalogError::File { .. } | CatalogError::Clash { .. }))
}
