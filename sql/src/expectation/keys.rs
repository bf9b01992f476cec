//! Keys of a table's files, by which repeated values are found, and those that another table has
//! not ([`super::references`]), without reading a file twice.
//!
//! The different values of a file are kept as keys under the warehouse's secret
//! ([`udfs::quality::value_keys`]), an object for each file and aggregate; how many there are is
//! the aggregate's state. A table with more rows than [`KEYS_MAX`], where its files tell, and one
//! with more keys, all files counted, keeps none for that check and is read as a whole: of a column
//! of many values the keys are more than the column. Values that are looked up elsewhere are often
//! few beside the rows, so for those only the number of keys counts.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use catalog::check_states::CheckStates;
use catalog::{Catalog, ObjectName};
use datafusion::common::ScalarValue;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use sha2::{Digest, Sha256};
use udfs::quality::key_sets;
use udfs::quality::value_keys::{ENTRY_BYTES, KeySecret};

use super::check::Shape;
use super::query::{Item, from};
use crate::error::{CatalogError, Error, Result};
use crate::parse::parse_query;
use crate::session::StatementContext;
use crate::session::bindings::Bindings;
use crate::session::run::Run;

/// Keys that are kept of a table for one check: 64 MiB.
pub(super) const KEYS_MAX: u32 = 4 * 1_024 * 1_024;
/// The state of a file that was read when there were too many keys.
const TOO_MANY: u64 = u64::MAX;

/// What decides whether repeated values are found by keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keying<'a> {
    /// What keys are made under; without it none are.
    pub(super) secret: Option<&'a Arc<KeySecret>>,
    /// Whether repeated values are found by them.
    pub(super) repeats: bool,
    /// What is known of the table's files.
    pub(super) states: &'a CheckStates,
}

/// An expectation of a table that has too many different values.
#[derive(Debug)]
pub(super) struct Crowded {
    pub(super) name: String,
    /// The keys of the states that say so.
    pub(super) keys: Vec<String>,
    /// The files of another table that have such states.
    pub(super) files: Vec<String>,
}

/// Whether an expectation looks for repeated values.
pub(super) fn is_unique(item: &Item) -> bool {
    matches!(item.check.shape, Shape::Table { unique: Some(_), .. })
}

/// Whether repeated values are found by keys. Those of a table that is known to have more rows are
/// not: keys cost more than another reading of a column.
pub(super) async fn repeats(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    items: &[Item],
) -> bool {
    if !items.iter().any(is_unique) {
        return false;
    }
    let Ok(query) = parse_query(&format!("SELECT 1 FROM {}", from(table))) else { return false };
    let Ok((_, plan)) = context.plan_query(query).await else { return false };
    rows(context, &plan).await.is_none_or(|rows| rows <= KEYS_MAX as usize)
}

/// What keys are made under, where one of the items needs them and they can be kept.
pub(super) async fn secret(
    context: &Arc<StatementContext>,
    items: &[Item],
    repeats: bool,
) -> Option<Arc<KeySecret>> {
    if !repeats && !items.iter().any(|item| item.check.is_reference()) {
        return None;
    }
    let secret = context.engine().catalog().check_secret().await.map_err(Error::from);
    match secret.and_then(|secret| Ok(KeySecret::new(&secret)?)) {
        Ok(secret) => Some(Arc::new(secret)),
        Err(error) => {
            tracing::debug!(%error, "tables are read for repeated values: no keys can be kept");
            None
        }
    }
}

/// How many rows a query has at most, where its files tell.
pub(super) async fn rows(context: &Arc<StatementContext>, plan: &LogicalPlan) -> Option<usize> {
    let state = context.state(&Bindings::default()).ok()?;
    let plan = state.create_physical_plan(plan).await.ok()?;
    let statistics = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::default());
    statistics.ok()?.num_rows.get_value().copied()
}

/// How many keys a state tells of.
pub(super) fn count(state: &ScalarValue) -> Option<u64> {
    match state {
        ScalarValue::UInt64(count) => *count,
        _ => None,
    }
}

/// The name of a file's keys for an aggregate, by the file's id and the key of the state.
pub(super) fn name(file: &str, key: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(key);
    digest.update(file);
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys of files that a run has, by name.
#[derive(Debug, Default)]
pub(super) struct Sets {
    by_name: HashMap<String, Bytes>,
    /// Those to keep.
    wanted: BTreeSet<String>,
    /// Those that were not kept before.
    fresh: BTreeSet<String>,
    memory: Option<MemoryReservation>,
}

impl Sets {
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether one of those to keep was not kept before.
    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_disjoint(&self.wanted)
    }

    /// These are to be kept.
    pub(super) fn want(&mut self, name: String) {
        self.wanted.insert(name);
    }

    /// These are not to be kept.
    pub(super) fn drop_wanted(&mut self, name: &str) {
        self.wanted.remove(name);
    }

    /// Gives back the memory of those that are here: where they were not kept before, their files
    /// are read again.
    pub(super) fn release(&mut self) {
        self.by_name.clear();
        self.fresh.clear();
        self.memory = None;
    }

    /// Fetches those of these names that are kept, so many keys in all.
    ///
    /// # Errors
    /// When the statement may not have so much memory.
    pub(super) async fn load(
        &mut self,
        run: &Run,
        table: &ObjectName,
        names: Vec<String>,
        count: u64,
    ) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let bytes = count.saturating_mul(ENTRY_BYTES as u64);
        self.reserve(run, usize::try_from(bytes).unwrap_or(usize::MAX))?;
        let found = run.session.engine().catalog().check_keys(table, names).await;
        self.by_name.extend(found);
        Ok(())
    }

    /// Notes what the aggregate gave for a file; the state of it.
    ///
    /// # Errors
    /// When the statement may not have so much memory, or these are no keys.
    pub(super) fn note(
        &mut self,
        run: &Run,
        name: String,
        found: ScalarValue,
    ) -> Result<ScalarValue> {
        let content = match found {
            ScalarValue::LargeBinary(Some(content)) => content,
            ScalarValue::LargeBinary(None) => return Ok(ScalarValue::UInt64(Some(TOO_MANY))),
            other => return Err(Error::Internal(format!("{other} holds no keys"))),
        };
        let Some(different) = key_sets::different(&content) else {
            return Err(Error::Internal("a file's keys cannot be read".into()));
        };
        self.reserve(run, content.len())?;
        self.fresh.insert(name.clone());
        self.by_name.insert(name, Bytes::from(content));
        Ok(ScalarValue::UInt64(Some(different)))
    }

    /// How many rows of files repeat what another row has, by the names of their keys.
    ///
    /// # Errors
    /// When keys are missing: there were too many.
    pub(super) async fn repeated(&self, names: &[String]) -> Result<ScalarValue> {
        let sets = self.of(names)?;
        counted(move || key_sets::repeated(&sets)).await
    }

    /// How many rows of files have a value that is none of others, by the names of both's keys.
    ///
    /// # Errors
    /// When keys are missing: there were too many.
    pub(super) async fn missing(&self, names: &[String], among: &[String]) -> Result<ScalarValue> {
        let (sets, among) = (self.of(names)?, self.of(among)?);
        counted(move || key_sets::missing(&sets, &among)).await
    }

    fn of(&self, names: &[String]) -> Result<Vec<Bytes>> {
        let sets = names.iter().map(|name| self.by_name.get(name).cloned());
        sets.collect::<Option<_>>().ok_or_else(|| Error::Exhausted {
            what: format!("there are more than {KEYS_MAX} different values"),
        })
    }

    /// Keeps those that are wanted and removes all others of the table.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub(super) async fn keep(
        mut self,
        catalog: &Catalog,
        table: &ObjectName,
    ) -> Result<(), CatalogError> {
        let fresh = std::mem::take(&mut self.fresh).into_iter();
        let made = fresh.filter(|name| self.wanted.contains(name)).filter_map(|name| {
            let keys = self.by_name.get(&name)?.clone();
            Some((name, keys))
        });
        let made: Vec<(String, Bytes)> = made.collect();
        if !made.is_empty() {
            catalog.keep_check_keys(table, made).await?;
        }
        catalog.keep_only_check_keys(table, &self.wanted).await
    }

    fn reserve(&mut self, run: &Run, bytes: usize) -> Result<()> {
        let memory = match self.memory.take() {
            Some(memory) => memory,
            None => MemoryConsumer::new("keys of checks").register(run.task()?.memory_pool()),
        };
        let grown = memory.try_grow(bytes);
        self.memory = Some(memory);
        Ok(grown?)
    }
}

/// Counts on a thread of its own.
async fn counted(count: impl FnOnce() -> Option<u64> + Send + 'static) -> Result<ScalarValue> {
    let counted = SpawnedTask::spawn_blocking(count).join().await;
    let counted = counted.map_err(|_| Error::Internal("counting keys failed".into()))?;
    let counted = counted.ok_or_else(|| Error::Internal("kept keys are no keys".into()))?;
    Ok(ScalarValue::Int64(Some(i64::try_from(counted).unwrap_or(i64::MAX))))
}

#[cfg(test)]
mod tests {
    use udfs::quality::value_keys::KEY_BYTES;

    use super::*;

    #[tokio::test]
    async fn without_the_keys_of_a_file_nothing_is_counted() {
        let keys = |rows: u64, keys: &[u8]| {
            let keys = keys.iter().flat_map(|key| [*key; KEY_BYTES]);
            let count = (keys.clone().count() / KEY_BYTES) as u64;
            let head = [rows.to_be_bytes(), count.to_be_bytes()].concat();
            let counts = (0..count).flat_map(|_| 1_u64.to_be_bytes());
            Bytes::from(head.into_iter().chain(keys).chain(counts).collect::<Vec<u8>>())
        };
        let mut sets = Sets::default();
        let names = [name("a", "k"), name("b", "k")];
        assert_ne!(names[0], names[1]);
        sets.by_name.insert(names[0].clone(), keys(3, &[1, 7]));
        assert!(sets.repeated(&names).await.is_err());
        sets.by_name.insert(names[1].clone(), keys(2, &[7, 9]));
        let counted = sets.repeated(&names).await.unwrap();
        assert_eq!(counted, ScalarValue::Int64(Some(2)));
        assert_eq!(sets.repeated(&[]).await.unwrap(), ScalarValue::Int64(Some(0)));
        let missing = sets.missing(&names[..1], &names[1..]).await.unwrap();
        assert_eq!(missing, ScalarValue::Int64(Some(1)));
        assert!(sets.missing(&names, &[name("c", "k")]).await.is_err());
    }
}
