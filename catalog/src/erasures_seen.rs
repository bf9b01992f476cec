//! Writes that meet an erasure: rows that were read before a person was erased are not committed
//! after the person's rows are gone.
//!
//! An erasure says that it is there before it does anything, and that it is done after its
//! certificate is written: objects `_attune/erasing/<id>.open` and `<id>.done`, which are listed in
//! one request however many erasures there ever were. Before a table gets its new folder, a note
//! under the erasure's id names the table.
//!
//! A statement that writes rows lists them twice:
//!
//! 1. Before it opens anything that it reads. What it reads afterwards is without the persons of
//!    all erasures that were done by then, and what an open one had rewritten by then is without
//!    its person.
//! 2. Once it has found out which folder its table has, and before it commits. When an erasure that
//!    was not done at first has been at the table by now, the statement fails and nothing is
//!    written, unless all that it reads had been cleaned by that erasure already.
//!
//! Nothing slips in between. When the erasure puts the table into another folder after the second
//! look, the commit lies in the old folder, which is nobody's, and is refused as a lost race. When
//! it did so before, the note is older than the folder, so the look finds it. A table that an
//! erasure has not been at yet takes the rows, for the erasure reads them there later. A table that
//! became a copy meanwhile was announced as one before the second look, and an erasure looks for
//! copies in its last step.
//!
//! What is new, a table or a version of a model, is there once a definition names it, which is put
//! over exactly the one that was seen before the second look. So an erasure puts that definition
//! anew as it is, or that there is none, before it says what it has found
//! ([`Catalog::end_creations`], [`Catalog::end_publications`]): who has looked too early loses the
//! race. A training then looks again and publishes where it may. Nothing is published and taken
//! back, so nobody sees it in between, and whoever is killed has published nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use datafusion::execution::SessionState;

use crate::Catalog;
use crate::erasures::{CERTIFICATE, STEP, SignedCertificate, read, step_file};
use crate::error::{Error, Result};
use crate::registry::ObjectName;
use crate::store::Place;
use crate::table_erasure::{NOTE, Rewriting};

/// The folder of what tells that an erasure is there, and that it is done.
const FOLDER: &str = "_attune/erasing";
const OPEN: &str = ".open";
const DONE: &str = ".done";
/// How long it is told that an erasure is done: longer than any statement runs.
const TOLD_DAYS: i64 = 30;

/// What a statement that writes rows knew of erasures before it opened what it reads. It goes with
/// the statement's session state; a write without one knows of none.
#[derive(Debug, Default)]
pub struct ErasuresSeen {
    /// Those that were done.
    done: BTreeSet<String>,
    /// Those that were not, each with the numbers of the steps that were done.
    open: BTreeMap<String, BTreeSet<usize>>,
    /// What the statement reads, once that is known.
    reads: OnceLock<Reads>,
    /// Whether a write was refused for what this does not know.
    is_outdated: AtomicBool,
}

/// What a statement reads.
#[derive(Debug, Default)]
struct Reads {
    tables: BTreeSet<ObjectName>,
    /// Versions of models, as `schema.name@version`.
    models: BTreeSet<String>,
}

impl ErasuresSeen {
    /// What the statement knew that runs in this state.
    pub fn of(state: &SessionState) -> Arc<Self> {
        state.config().get_extension::<Self>().unwrap_or_default()
    }

    /// Says what the statement reads, which counts once.
    pub fn set_reads(&self, tables: BTreeSet<ObjectName>, models: BTreeSet<String>) {
        let _ = self.reads.set(Reads { tables, models });
    }

    /// Whether a write was refused, so that the statement has to be planned anew.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated.load(Ordering::Relaxed)
    }
}

/// An erasure that was not done when a statement began, as it is now.
struct Met {
    id: String,
    subject: String,
    /// The tables of the subject's keys and crosswalk, where they are known.
    tables: BTreeSet<ObjectName>,
    /// What its steps are about, in order; nothing where the journal cannot be read.
    objects: Vec<String>,
    files: BTreeSet<String>,
    is_done: bool,
}

impl Met {
    fn step(&self, object: &str) -> Option<usize> {
        self.objects.iter().position(|known| known == object)
    }

    /// Whether it looks for copies and models that came meanwhile, or has done so.
    fn is_at_its_end(&self) -> bool {
        let done = self.files.iter().filter(|file| file.starts_with(STEP)).count();
        self.is_done || (!self.objects.is_empty() && done + 1 >= self.objects.len())
    }
}

impl Catalog {
    /// What is known of erasures now: for a statement that is going to write rows, before it opens
    /// what it reads.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn see_erasures(&self) -> Result<ErasuresSeen> {
        let mut seen = ErasuresSeen::default();
        for (id, is_done) in self.lately_erased().await? {
            if is_done {
                seen.done.insert(id);
                continue;
            }
            let files = self.files_of_erasure(&id).await?;
            let number = |file: &String| {
                let number = file.strip_prefix(STEP)?.strip_suffix(".json")?;
                number.parse::<usize>().ok()
            };
            let steps = files.iter().filter_map(number).collect();
            seen.open.insert(id, steps);
        }
        Ok(seen)
    }

    /// Checks that rows may come into a table whose folder is known by now, or what a check found
    /// out to what is kept of its values.
    ///
    /// # Errors
    /// `Erased` when an erasure has been at the table that may not have been at all that the rows
    /// come of; when the warehouse cannot be read.
    pub async fn check_erasures(&self, table: &ObjectName, seen: &ErasuresSeen) -> Result<()> {
        for met in self.met(seen).await? {
            let may_bring = self.has_been_at(&met, table).await?
                && (!seen.open.contains_key(&met.id) || self.reads_somebody(&met, seen).await?);
            if may_bring {
                return Err(refused(table.to_string(), &met, seen));
            }
        }
        Ok(())
    }

    /// Checks that a version of a model may be put over a head that is known by now.
    ///
    /// # Errors
    /// `Erased` when an erasure may look for models no more that may have missed this one; when the
    /// warehouse cannot be read.
    pub(crate) async fn check_publication(
        &self,
        model: &ObjectName,
        version: u32,
        seen: &ErasuresSeen,
    ) -> Result<()> {
        for met in self.met(seen).await? {
            if met.is_at_its_end() && self.reads_somebody(&met, seen).await? {
                return Err(refused(format!("{model}@{version}"), &met, seen));
            }
        }
        Ok(())
    }

    /// Says that an erasure is there, before it does anything.
    pub(crate) async fn tell_erasure(&self, id: &str) -> Result<()> {
        self.told(id, OPEN).create(id.to_owned().into_bytes()).await.map(|_| ())
    }

    /// Says no more of an erasure that has done nothing.
    pub(crate) async fn untell_erasure(&self, id: &str) -> Result<()> {
        self.told(id, OPEN).remove().await
    }

    /// Says that an erasure is done, and no more of those that were so long ago.
    pub(crate) async fn tell_erasure_done(&self, id: &str) -> Result<()> {
        self.told(id, DONE).create(id.to_owned().into_bytes()).await?;
        let told = self.objects_in(FOLDER).await?;
        // The store's own clock tells what is old.
        let Some(newest) = told.iter().map(|object| object.last_modified).max() else {
            return Ok(());
        };
        for object in &told {
            let old = newest.signed_duration_since(object.last_modified).num_days() > TOLD_DAYS;
            let id = object.location.filename().and_then(|file| file.strip_suffix(DONE));
            if let (true, Some(id)) = (old, id) {
                // In this order: an erasure that is told as open is none that was done.
                self.told(id, OPEN).remove().await?;
                self.told(id, DONE).remove().await?;
            }
        }
        Ok(())
    }

    fn told(&self, id: &str, what: &str) -> Place {
        self.warehouse.place().child(FOLDER).child(&format!("{id}{what}"))
    }

    /// The erasures that are told of, and whether each is done.
    async fn lately_erased(&self) -> Result<BTreeMap<String, bool>> {
        let mut found = BTreeMap::new();
        for object in self.objects_in(FOLDER).await? {
            let Some(file) = object.location.filename() else { continue };
            if let Some(id) = file.strip_suffix(DONE) {
                found.insert(id.to_owned(), true);
            } else if let Some(id) = file.strip_suffix(OPEN) {
                found.entry(id.to_owned()).or_insert(false);
            }
        }
        Ok(found)
    }

    async fn files_of_erasure(&self, id: &str) -> Result<BTreeSet<String>> {
        let objects = self.objects_in(&format!("_attune/erasures/{id}")).await?;
        let names = objects.iter().filter_map(|object| object.location.filename());
        Ok(names.map(str::to_owned).collect())
    }

    /// The erasures that were not done when a statement began.
    async fn met(&self, seen: &ErasuresSeen) -> Result<Vec<Met>> {
        let mut found = Vec::new();
        for id in self.lately_erased().await?.into_keys() {
            if !seen.done.contains(&id) {
                found.extend(self.erasure_now(id).await?);
            }
        }
        Ok(found)
    }

    /// An erasure as it is now; `None` when it was given up before it did anything.
    async fn erasure_now(&self, id: String) -> Result<Option<Met>> {
        let files = self.files_of_erasure(&id).await?;
        if !files.contains(CERTIFICATE) {
            match self.job(&id).await {
                Ok(Some(job)) => {
                    let subject = job.subject.name.clone();
                    let tables = job.subject.tables().into_iter().cloned().collect();
                    let objects = job.steps.iter().map(|step| step.object()).collect();
                    let is_done = false;
                    return Ok(Some(Met { id, subject, tables, objects, files, is_done }));
                }
                // It has ended since its files were listed, or was given up.
                Ok(None) => {}
                // It does not go on, and its notes say where it has been.
                Err(Error::Corrupt { .. }) => {
                    let (subject, tables) = (String::new(), BTreeSet::new());
                    let (objects, is_done) = (vec![], false);
                    return Ok(Some(Met { id, subject, tables, objects, files, is_done }));
                }
                Err(error) => return Err(error),
            }
        }
        let place = self.erasure(&id).child(CERTIFICATE);
        let signed: Option<SignedCertificate> = read(&place).await?;
        Ok(signed.map(|SignedCertificate { certificate, .. }| Met {
            id,
            subject: certificate.subject,
            tables: BTreeSet::new(),
            objects: certificate.steps.into_iter().map(|step| step.object).collect(),
            files,
            is_done: true,
        }))
    }

    /// Whether an erasure does not come to a table any more that it may have had to rewrite.
    async fn has_been_at(&self, met: &Met, table: &ObjectName) -> Result<bool> {
        let step = met.step(&told_table(table));
        let is_reported = step.is_some_and(|step| met.files.contains(&step_file(step)));
        if is_reported || (met.is_done && step.is_some()) {
            return Ok(true);
        }
        for file in met.files.iter().filter(|file| file.starts_with(NOTE)) {
            match read::<Rewriting>(&self.erasure(&met.id).child(file)).await {
                Ok(Some(note)) if note.table != *table => {}
                // Notes go when an erasure is done.
                Ok(_) => return Ok(true),
                // One that was cut short was followed by nothing.
                Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(met.is_at_its_end() && self.holds_copies(table, &met.subject).await?)
    }

    /// Whether a statement reads what may have had the person of an erasure when it began.
    async fn reads_somebody(&self, met: &Met, seen: &ErasuresSeen) -> Result<bool> {
        let Some(reads) = seen.reads.get() else { return Ok(true) };
        let done = seen.open.get(&met.id);
        let was_cleaned = |object: &str| {
            met.step(object).is_some_and(|step| done.is_some_and(|done| done.contains(&step)))
        };
        if reads.models.iter().any(|model| !was_cleaned(&format!("model {model}"))) {
            return Ok(true);
        }
        for table in &reads.tables {
            let object = told_table(table);
            if was_cleaned(&object) {
                continue;
            }
            if met.step(&object).is_some()
                || met.tables.contains(table)
                || self.holds_copies(table, &met.subject).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a table holds copies of a subject's ids.
    async fn holds_copies(&self, table: &ObjectName, subject: &str) -> Result<bool> {
        let copies = self.copies_in_now(table).await?;
        Ok(copies.iter().any(|copy| copy.of_model || copy.subject == subject))
    }
}

/// What a step calls a table.
fn told_table(table: &ObjectName) -> String {
    format!("table {table}")
}

fn refused(into: String, met: &Met, seen: &ErasuresSeen) -> Error {
    seen.is_outdated.store(true, Ordering::Relaxed);
    Error::Erased { into, erasure: met.id.clone(), is_done: met.is_done }
}

#[cfg(test)]
#[path = "erasures_seen_tests.rs"]
mod tests;
