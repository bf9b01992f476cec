//! Lake tables: files in an object store become tables.
//!
//! [`LakeTable`] says where files are and how to read them; [`Tables`] opens it as a table provider
//! and remembers listings and columns between queries; [`Lake`] knows the tables of a place. What
//! is a file of a table, how types are told and when files clash is in `docs/lake.md`.

pub(crate) mod adapt;
pub(crate) mod described;
mod discover;
pub(crate) mod files;
pub(crate) mod format;
mod listing;
pub(crate) mod partition;
mod pinned;
mod provider;
mod reason;
pub(crate) mod rewrite;
pub(crate) mod scan;
mod schema;
pub(crate) mod source;
mod table;
mod widen;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::catalog::{Session, TableProvider};
use parking_lot::Mutex;

pub use discover::{Lake, discover};
pub use format::Format;
pub use listing::FRESH;
pub use table::{Column, LakeTable};
pub use widen::widen;

use crate::error::{Error, Result};
use crate::store::{Place, Stores};
use provider::Opened;

/// Tables that are remembered; the one that was not used for the longest time is forgotten.
const TABLES_MAX: usize = 1_000;

/// Opens lake tables and remembers what it has read of their files.
pub struct Tables {
    stores: Arc<Stores>,
    fresh: Duration,
    opened: Mutex<HashMap<String, (Instant, Arc<Opened>)>>,
}

impl Tables {
    /// Tables in the configured stores; new files are seen after [`FRESH`].
    pub fn new(stores: Arc<Stores>) -> Self {
        Self::with_fresh(stores, FRESH)
    }

    /// The same with another time for which a listing is used.
    pub fn with_fresh(stores: Arc<Stores>, fresh: Duration) -> Self {
        Self { stores, fresh, opened: Mutex::default() }
    }

    /// Opens a table; a relative location lies below `base`.
    ///
    /// The provider has the columns that the files have now, and each of its scans reads the files
    /// that exist then, so open it anew for each statement: that costs nothing while what is known
    /// is fresh.
    ///
    /// # Errors
    /// When the location is outside the configured places, the store cannot be reached, no file is
    /// there or was seen before, a file cannot be read, or files clash. Each error names the URL.
    pub async fn open(
        &self,
        base: Option<&Place>,
        table: &LakeTable,
        session: &dyn Session,
    ) -> Result<Arc<dyn TableProvider>> {
        let place = self.stores.locate(&table.location, base)?;
        self.opened(place, table)?.provider(session).await
    }

    /// A table's files as they are listed now; `None` when there are none, or a column has the
    /// name [`files::FILE`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn files(
        &self,
        base: Option<&Place>,
        table: &LakeTable,
        session: &dyn Session,
    ) -> Result<Option<files::TableFiles>> {
        let place = self.stores.locate(&table.location, base)?;
        let definition = definition(&place, table)?;
        files::TableFiles::of_lake(definition, self.opened(place, table)?, session).await
    }

    /// Checks that a table has files now.
    ///
    /// # Errors
    /// [`Error::Empty`] when it has none; when its location is outside the configured places, or
    /// the store cannot be reached.
    pub(crate) async fn must_have_files(
        &self,
        base: Option<&Place>,
        table: &LakeTable,
    ) -> Result<()> {
        let place = self.stores.locate(&table.location, base)?;
        self.opened(place, table)?.must_have_files().await
    }

    /// Forgets what is known of the files at a place: they are others now. Should none be left, the
    /// tables keep the columns that were seen here or by `others`.
    pub(crate) fn forget(&self, place: &Place, others: &Self) {
        let theirs: Vec<(String, Arc<Opened>)> = {
            let opened = others.opened.lock();
            let met = opened.iter().filter(|(_, (_, table))| table.place().meets(place));
            met.map(|(key, (_, table))| (key.clone(), Arc::clone(table))).collect()
        };
        let mut opened = self.opened.lock();
        for (key, table) in &theirs {
            if opened.len() < TABLES_MAX && !opened.contains_key(key) {
                opened.insert(key.clone(), (Instant::now(), Arc::clone(table)));
            }
        }
        let met = opened.iter_mut().filter(|(_, (_, table))| table.place().meets(place));
        for (key, (_, table)) in met {
            let seen = || theirs.iter().find(|(known, _)| known == key)?.1.known();
            let before = table.known().or_else(seen);
            *table = Arc::new(table.anew(self.fresh, before));
        }
    }

    fn opened(&self, place: Place, table: &LakeTable) -> Result<Arc<Opened>> {
        let key = definition(&place, table)?;
        let mut opened = self.opened.lock();
        if let Some((used, known)) = opened.get_mut(&key) {
            *used = Instant::now();
            return Ok(Arc::clone(known));
        }
        if opened.len() >= TABLES_MAX {
            let oldest = opened.iter().min_by_key(|(_, (used, _))| *used).map(|(k, _)| k.clone());
            oldest.and_then(|key| opened.remove(&key));
        }
        let is_pinned = self.stores.rewrites_at(&place);
        let new = Arc::new(Opened::new(place, table.clone(), self.fresh, is_pinned)?);
        opened.insert(key, (Instant::now(), Arc::clone(&new)));
        Ok(new)
    }
}

/// Where a table is and how it is read, as text.
fn definition(place: &Place, table: &LakeTable) -> Result<String> {
    let definition = serde_json::to_string(table)
        .map_err(|error| Error::invalid(format!("a table's definition: {error}")))?;
    Ok(format!("{} {definition}", place.url))
}

/// Opens a table once, without remembering anything.
///
/// # Errors
/// As [`Tables::open`].
pub async fn open(
    stores: &Stores,
    base: Option<&Place>,
    table: &LakeTable,
    session: &dyn Session,
) -> Result<Arc<dyn TableProvider>> {
    let place = stores.locate(&table.location, base)?;
    let is_pinned = stores.rewrites_at(&place);
    Arc::new(Opened::new(place, table.clone(), FRESH, is_pinned)?).provider(session).await
}
