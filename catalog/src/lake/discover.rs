//! The tables of a lake: those that are declared and those that its folders are.
//!
//! With discovery, each folder directly below the lake's place is a table, and so is each data file
//! directly in it (`orders.parquet` is the table `orders`). Names fold to lower case, and
//! characters that need quotes become `_`; of two folders that fold to one name the later is
//! `name_2`. Folders that begin with `_` or `.` are hidden. A folder that holds `_delta_log` is a
//! Delta table; the format of another is that of its first data file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;

use super::format::{Format, stem};
use super::listing::{FRESH, lifetime, object_url, unreachable};
use super::table::LakeTable;
use crate::error::Result;
use crate::store::Place;

/// Objects of a folder that are looked at to tell its format.
const OBJECTS_PER_FOLDER: usize = 1_000;

/// Folders that are looked at at the same time.
const FOLDERS_AT_ONCE: usize = 16;

/// How long a folder's format is believed.
const FORMAT_FRESH: Duration = Duration::from_secs(60);

/// A table and its name.
type Named = (String, LakeTable);

/// A lake: a place with tables.
pub struct Lake {
    name: String,
    place: Place,
    discovers: bool,
    declared: BTreeMap<String, LakeTable>,
    fresh: Duration,
    found: tokio::sync::Mutex<Option<Found>>,
    formats: Mutex<HashMap<Path, (Instant, Format)>>,
}

#[derive(Clone)]
struct Found {
    at: Instant,
    took: Duration,
    tables: Arc<BTreeMap<String, LakeTable>>,
}

impl Lake {
    /// A lake with the tables that its configuration declares and, if `discovers`, its folders.
    pub fn new(
        name: impl Into<String>,
        place: Place,
        discovers: bool,
        declared: BTreeMap<String, LakeTable>,
    ) -> Self {
        Self {
            name: name.into(),
            place: place.folder(),
            discovers,
            declared,
            fresh: FRESH,
            found: tokio::sync::Mutex::default(),
            formats: Mutex::default(),
        }
    }

    /// The lake's name, which is its schema's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the lake is; relative locations of its tables begin there.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The names of all tables, sorted; at most [`FRESH`] old.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses.
    pub async fn table_names(&self) -> Result<Vec<String>> {
        let found = self.discovered(false).await?;
        let mut names: Vec<String> = self.declared.keys().chain(found.keys()).cloned().collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// A table's definition; a declared one goes before a discovered one of the same name.
    ///
    /// An unknown name is looked for once more in the store before it is missing.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses.
    pub async fn table(&self, name: &str) -> Result<Option<LakeTable>> {
        if let Some(table) = self.declared.get(name) {
            return Ok(Some(table.clone()));
        }
        if let Some(table) = self.discovered(false).await?.get(name) {
            return Ok(Some(table.clone()));
        }
        Ok(self.discovered(true).await?.get(name).cloned())
    }

    /// The tables and their locations: those that are declared, and those that are discovered
    /// unless `near` is elsewhere.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses.
    pub(crate) async fn locations(&self, near: &Place) -> Result<BTreeMap<String, String>> {
        let mut locations = BTreeMap::new();
        let mut add = |tables: &BTreeMap<String, LakeTable>| {
            let tables = tables.iter();
            locations.extend(tables.map(|(name, table)| (name.clone(), table.location.clone())));
        };
        if self.place.meets(near) {
            add(self.discovered(false).await?.as_ref());
        }
        // A declared one goes before a discovered one of the same name.
        add(&self.declared);
        Ok(locations)
    }

    async fn discovered(&self, missed: bool) -> Result<Arc<BTreeMap<String, LakeTable>>> {
        if !self.discovers {
            return Ok(Arc::default());
        }
        let mut found = self.found.lock().await;
        if let Some(known) = found.as_ref() {
            let age = known.at.elapsed();
            // Misspelt names must not become one listing each.
            let enough = if missed { self.fresh / 10 } else { lifetime(self.fresh, known.took) };
            if age < enough {
                return Ok(Arc::clone(&known.tables));
            }
        }
        let at = Instant::now();
        let tables = Arc::new(look(&self.place, &self.formats).await?.into_iter().collect());
        *found = Some(Found { at, took: at.elapsed(), tables: Arc::clone(&tables) });
        Ok(tables)
    }
}

/// The tables that a place's folders and files are, by their names.
///
/// # Errors
/// When the store cannot be reached or refuses.
pub async fn discover(place: &Place) -> Result<Vec<(String, LakeTable)>> {
    look(&place.clone().folder(), &Mutex::default()).await
}

async fn look(
    place: &Place,
    formats: &Mutex<HashMap<Path, (Instant, Format)>>,
) -> Result<Vec<Named>> {
    let prefix = Some(&place.path).filter(|path| !path.as_ref().is_empty());
    let listed = match place.store.list_with_delimiter(prefix).await {
        Ok(listed) => listed,
        // A local lake is made when it is first written to.
        Err(object_store::Error::NotFound { .. }) if place.is_local() => return Ok(Vec::new()),
        Err(error) => return Err(unreachable(place.url.to_string(), &error)),
    };
    let folders = listed.common_prefixes.into_iter().filter(|folder| {
        folder.filename().is_some_and(|name| !name.starts_with(['_', '.']) && !name.contains('='))
    });
    let looks = folders.map(|folder| {
        async move {
            let format = format_of(place, &folder, formats).await?;
            let url = format!("{}/", object_url(place, &folder));
            let name = folder.filename().unwrap_or_default().to_owned();
            Ok(format.map(|format| (name, LakeTable::new(url, format))))
        }
        .boxed()
    });
    let looks: Vec<BoxFuture<'_, Result<Option<Named>>>> = looks.collect();
    let found: Vec<Option<Named>> =
        futures::stream::iter(looks).buffered(FOLDERS_AT_ONCE).try_collect().await?;
    let mut tables: Vec<Named> = found.into_iter().flatten().collect();
    for file in listed.objects.iter().filter(|file| file.size > 0) {
        let name = file.location.filename().unwrap_or_default();
        if let Some(format) = Format::from_file_name(name).filter(|_| !is_hidden(name)) {
            let url = object_url(place, &file.location);
            tables.push((stem(name).to_owned(), LakeTable::new(url, format)));
        }
    }
    Ok(with_distinct_names(tables))
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['_', '.'])
}

async fn format_of(
    place: &Place,
    folder: &Path,
    formats: &Mutex<HashMap<Path, (Instant, Format)>>,
) -> Result<Option<Format>> {
    if let Some((at, format)) = formats.lock().get(folder)
        && at.elapsed() < FORMAT_FRESH
    {
        return Ok(Some(*format));
    }
    let found = first_format(place, folder).await?;
    if let Some(format) = found {
        formats.lock().insert(folder.clone(), (Instant::now(), format));
    }
    Ok(found)
}

async fn first_format(place: &Place, folder: &Path) -> Result<Option<Format>> {
    let wrong = |error: object_store::Error| unreachable(object_url(place, folder), &error);
    let log = folder.clone().join("_delta_log");
    if place.store.list(Some(&log)).next().await.transpose().map_err(wrong)?.is_some() {
        return Ok(Some(Format::Delta));
    }
    let mut objects = place.store.list(Some(folder)).take(OBJECTS_PER_FOLDER);
    while let Some(object) = objects.try_next().await.map_err(wrong)? {
        let below: Vec<String> = object
            .location
            .prefix_match(folder)
            .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect())
            .unwrap_or_default();
        if object.size == 0 || below.iter().any(|part| is_hidden(part)) {
            continue;
        }
        if let Some(format) = below.last().and_then(|name| Format::from_file_name(name)) {
            return Ok(Some(format));
        }
    }
    Ok(None)
}

/// A name that needs no quotes: lower case, letters, digits and `_`.
fn fold(name: &str) -> String {
    let lower = name.to_lowercase();
    let mut folded: String =
        lower.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if !folded.starts_with(|first: char| first.is_alphabetic() || first == '_') {
        folded.insert(0, '_');
    }
    folded
}

fn with_distinct_names(tables: Vec<Named>) -> Vec<Named> {
    // Names that are their own folded form come first, so that they keep it.
    let (exact, folded): (Vec<_>, Vec<_>) =
        tables.into_iter().partition(|(name, _)| fold(name) == *name);
    let mut taken = HashSet::new();
    let mut named = Vec::with_capacity(exact.len() + folded.len());
    for (name, table) in exact.into_iter().chain(folded) {
        let base = fold(&name);
        let mut free = base.clone();
        let mut number = 2_usize;
        while !taken.insert(free.clone()) {
            free = format!("{base}_{number}");
            number += 1;
        }
        named.push((free, table));
    }
    named.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fold_and_stay_distinct() {
        assert_eq!(fold("Web Clicks-2024"), "web_clicks_2024");
        assert_eq!(fold("2024"), "_2024");
        assert_eq!(fold("Größe"), "größe");
        assert_eq!(fold(""), "_");
        let table = |url: &str| LakeTable::new(url, Format::Csv);
        let tables = vec![
            ("Orders".to_owned(), table("1")),
            ("orders".to_owned(), table("2")),
            ("ORDERS".to_owned(), table("3")),
        ];
        let named: Vec<_> =
            with_distinct_names(tables).into_iter().map(|(n, t)| (n, t.location)).collect();
        let expected = [("orders", "2"), ("orders_2", "1"), ("orders_3", "3")]
            .map(|(a, b)| (a.into(), b.into()));
        assert_eq!(named, expected);
    }
}
