//! Expectations of tables, and what checking them gave: two documents a table in the warehouse, so
//! that every server over it knows the same.
//!
//! A table's expectations lie in one document, which is changed by compare-and-swap. Results lie in
//! another one, which is written after each check: the last runs, and the profile of each column
//! that later runs are compared with. Both go when the table goes, and so does what is known of
//! each of its files ([`crate::check_states`], [`crate::check_keys`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Catalog;
use crate::erasures_seen::ErasuresSeen;
use crate::error::{Error, Result};
use crate::registry::change::{Step, TRIES, held};
use crate::registry::{Head, Kind, ObjectName, Registry, Spec};

/// Runs of a table's checks that are kept.
const RUNS_KEPT: usize = 20;
/// Expectations of one table: all of them are columns of one query.
pub const EXPECTATIONS_MAX: usize = 500;

/// The origin of a run of CHECK TABLE.
pub const CHECK: &str = "check";
/// The origin of a run over rows on their way into the table, which may have been refused.
pub const LOAD: &str = "load";

/// The kinds of checks.
pub const KINDS: [&str; 11] = [
    "completeness",
    "uniqueness",
    "range",
    "pattern",
    "accepted_values",
    "referential",
    "freshness",
    "volume",
    "drift",
    "aggregate",
    "condition",
];

/// What follows from an expectation that is not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It is told.
    Warn,
    /// It fails a check, and rows that do not meet it are not loaded.
    Error,
}

impl Severity {
    /// The severity's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What a check gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// The expectation is met.
    Pass,
    /// It is not, and its severity is `warn`.
    Warn,
    /// It is not, and its severity is `error`.
    Fail,
    /// It could not be computed.
    Error,
}

impl CheckStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Warn, Self::Fail, Self::Error];

    /// The status's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Error => "error",
        }
    }
}

/// What somebody expects of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// What is checked, as it was written.
    pub check: String,
    /// The kind of check: `completeness`, `uniqueness`, `range`, …
    pub kind: String,
    /// The columns that it looks at.
    pub columns: Vec<String>,
    /// What follows when it is not met.
    pub severity: Severity,
    /// The share of rows that may fail.
    pub tolerance: f64,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who created it.
    pub owner: String,
    /// When, in Unix milliseconds.
    pub created_ms: i64,
}

/// The expectations of one table, by name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TableExpectations {
    /// Each with its definition.
    pub by_name: BTreeMap<String, Expectation>,
}

/// What one check of one run gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The expectation.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// Its severity at that time.
    pub severity: Severity,
    /// How it ended.
    pub status: CheckStatus,
    /// What was found, as text.
    pub observed: Option<String>,
    /// What was expected.
    pub expected: String,
    /// Rows that do not meet it, where rows can be counted.
    pub failing: Option<u64>,
    /// Rows that it holds for, or does not.
    pub rows: Option<u64>,
    /// The table's files, where it is made of files, and those of them that were read for this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesRead>,
    /// Why it could not be computed, or what else there is to say.
    pub message: Option<String>,
}

/// How many of a table's files were read; what the others give was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesRead {
    /// Those that were read.
    pub read: u64,
    /// All of them.
    pub total: u64,
}

/// A run of a table's checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRun {
    /// When it ended, in Unix milliseconds.
    pub at_ms: i64,
    /// Who ran it.
    pub by: String,
    /// [`CHECK`] or [`LOAD`].
    pub origin: String,
    /// What each check gave.
    pub results: Vec<CheckResult>,
}

/// What CHECK TABLE last gave for an expectation that there is.
#[derive(Debug, Clone, PartialEq)]
pub struct LastCheck {
    /// The table.
    pub table: ObjectName,
    /// The expectation.
    pub name: String,
    /// Its severity today.
    pub severity: Severity,
    /// How the check ended.
    pub status: CheckStatus,
    /// What was found, where that is a number: of checks of rows the share that fails.
    pub value: Option<f64>,
}

/// The last runs of a table's checks, oldest first, and the profiles to compare with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CheckHistory {
    /// The runs.
    pub runs: Vec<CheckRun>,
    /// Of each expectation that compares with an earlier result, that result's profile in
    /// hexadecimal digits.
    #[serde(default)]
    pub baselines: BTreeMap<String, String>,
}

impl CheckHistory {
    /// Adds a run, and profiles that nothing was compared with before.
    fn add(&mut self, run: &CheckRun, baselines: &BTreeMap<String, String>) {
        self.runs.push(run.clone());
        while self.runs.len() > RUNS_KEPT {
            // What CHECK TABLE last gave stays, however many loads follow.
            let checked = self.runs.iter().rposition(|run| run.origin == CHECK);
            self.runs.remove(usize::from(checked == Some(0)));
        }
        for (name, profile) in baselines {
            self.baselines.entry(name.clone()).or_insert_with(|| profile.clone());
        }
    }

    /// What CHECK TABLE last gave for an expectation, with its run: loads tell of other rows.
    pub fn last(&self, name: &str) -> Option<(&CheckRun, &CheckResult)> {
        self.runs.iter().rev().filter(|run| run.origin == CHECK).find_map(|run| {
            let result = run.results.iter().find(|result| result.name == name)?;
            Some((run, result))
        })
    }
}

impl Catalog {
    /// The expectations of a table, at most a second old; none for a table without.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or the document cannot be read.
    pub async fn expectations(&self, table: &ObjectName) -> Result<TableExpectations> {
        let found = self.expectations.sound(table).await?;
        Ok(found.and_then(|found| expectations(found.spec)).unwrap_or_default())
    }

    /// Every table with expectations, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn all_expectations(&self) -> Result<Vec<(ObjectName, TableExpectations)>> {
        let found = self.expectations.definitions().await?;
        let listed = found.iter().filter_map(|((schema, name), definition)| {
            let held = expectations(definition.spec.clone())?;
            Some((ObjectName::new(schema, name), held))
        });
        Ok(listed.collect())
    }

    /// Changes the expectations of a table; gives what `change` gives. Nothing is written when
    /// they stay as they are.
    ///
    /// # Errors
    /// Those of `change`; when the warehouse cannot be written, or others change the same table
    /// again and again.
    pub async fn change_expectations<T, E: From<Error>>(
        &self,
        table: &ObjectName,
        mut change: impl FnMut(&mut TableExpectations) -> Result<T, E>,
    ) -> Result<T, E> {
        self.writable().await?;
        let what = || format!("the expectations of {table}");
        let step = |head: Option<&Head>| {
            let before = held(head)?.and_then(expectations).unwrap_or_default();
            let mut held = before.clone();
            let outcome = change(&mut held)?;
            if held == before {
                return Ok(Step::Stays(outcome));
            }
            let spec = (!held.by_name.is_empty()).then_some(Spec::Expectations(held));
            Ok(Step::writes(spec, String::new(), outcome))
        };
        self.expectations.change(table, TRIES, what, step).await
    }

    /// The last runs of a table's checks, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or the document cannot be read.
    pub async fn check_history(&self, table: &ObjectName) -> Result<CheckHistory> {
        let found = self.checks.sound(table).await?;
        Ok(found.and_then(|found| history(found.spec)).unwrap_or_default())
    }

    /// The last runs of every table's checks, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn all_check_history(&self) -> Result<Vec<(ObjectName, CheckHistory)>> {
        let found = self.checks.definitions().await?;
        let listed = found.iter().filter_map(|((schema, name), definition)| {
            Some((ObjectName::new(schema, name), history(definition.spec.clone())?))
        });
        Ok(listed.collect())
    }

    /// What CHECK TABLE last gave for each expectation that has been checked since it was made, on
    /// whichever server, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn last_checks(&self) -> Result<Vec<LastCheck>> {
        let expected = self.expectations.definitions().await?;
        let checked = self.checks.definitions().await?;
        let mut last = Vec::new();
        for (key, definition) in expected.iter() {
            let Spec::Expectations(held) = &definition.spec else { continue };
            let Some(Spec::Checks(history)) = checked.get(key).map(|found| &found.spec) else {
                continue;
            };
            for (name, expectation) in &held.by_name {
                let given = history.last(name);
                // What an expectation of the same name gave before is not this one's.
                let given = given.filter(|(run, _)| run.at_ms >= expectation.created_ms);
                last.extend(given.map(|(_, result)| LastCheck {
                    table: ObjectName::new(&key.0, &key.1),
                    name: name.clone(),
                    severity: expectation.severity,
                    status: result.status,
                    value: result.observed.as_deref().and_then(number),
                }));
            }
        }
        Ok(last)
    }

    /// Keeps a run of a table's checks, and profiles that nothing was compared with before.
    ///
    /// # Errors
    /// `Erased` when an erasure has been at the table since the run began, which may have removed
    /// results already; when the warehouse cannot be written, or others write the same again and
    /// again.
    pub async fn record_checks(
        &self,
        table: &ObjectName,
        run: &CheckRun,
        baselines: &BTreeMap<String, String>,
        seen: &ErasuresSeen,
    ) -> Result<()> {
        self.writable().await?;
        for _ in 0..TRIES {
            let head = self.checks.head(table).await?;
            // Not before the results are seen that these join: a later erasure changes them.
            self.check_erasures(table, seen).await?;
            let mut kept = held(head.as_ref())?.and_then(history).unwrap_or_default();
            kept.add(run, baselines);
            match self.checks.put(table, Some(Spec::Checks(kept)), "", head.as_ref()).await {
                Err(error) if error.is_lost_race() => {}
                other => return other.map(|_| ()),
            }
        }
        Err(Error::Conflict { name: results_of(table) })
    }

    /// Forgets what an expectation compares with: the next run gives a new profile.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or others write the same again and again.
    pub async fn forget_baseline(&self, table: &ObjectName, name: &str) -> Result<()> {
        self.writable().await?;
        let step = |head: Option<&Head>| {
            let mut kept = held(head)?.and_then(history).unwrap_or_default();
            Ok(match kept.baselines.remove(name) {
                None => Step::Stays(()),
                Some(_) => Step::writes(Some(Spec::Checks(kept)), String::new(), ()),
            })
        };
        self.checks.change(table, TRIES, || results_of(table), step).await
    }

    /// Forgets the results of a table's checks, with whatever values they told. Also where there
    /// are none that is put anew: whoever is adding some has seen what was there before.
    pub(crate) async fn forget_check_results(&self, table: &ObjectName) -> Result<()> {
        let gone = |_: Option<&Head>| Ok::<_, Error>(Step::writes(None, String::new(), ()));
        self.checks.change(table, TRIES, || results_of(table), gone).await?;
        self.checks.blank(table).await
    }

    /// Forgets the expectations of a table that goes, and their results: a later table of that
    /// name starts without.
    pub(crate) async fn forget_expectations(&self, table: &ObjectName) -> Result<()> {
        for registry in [&self.expectations, &self.checks] {
            forget(registry, table).await?;
        }
        self.end_check_states(table).await?;
        self.forget_check_keys(table).await
    }
}

fn results_of(table: &ObjectName) -> String {
    format!("the check results of {table}")
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

async fn forget(registry: &Registry, table: &ObjectName) -> Result<()> {
    let mut last = Ok(());
    for _ in 0..TRIES {
        last = registry.drop_object(table, Kind::Expectations).await.map(|_| ());
        match &last {
            Err(error) if error.is_lost_race() => {}
            _ => break,
        }
    }
    last
}

fn expectations(spec: Spec) -> Option<TableExpectations> {
    match spec {
        Spec::Expectations(held) => Some(held),
        _ => None,
    }
}

fn history(spec: Spec) -> Option<CheckHistory> {
    match spec {
        Spec::Checks(kept) => Some(kept),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::TestClock;
    use crate::{CatalogConfig, StoreConfig};

    async fn catalog(folder: &std::path::Path, clock: &TestClock) -> Arc<Catalog> {
        let store = StoreConfig { url: folder.display().to_string(), ..Default::default() };
        Catalog::open(CatalogConfig::new(store, clock.clock())).await.unwrap()
    }

    fn expectation() -> Expectation {
        Expectation {
            check: "price > 0".into(),
            kind: "range".into(),
            columns: vec!["price".into()],
            severity: Severity::Error,
            tolerance: 0.0,
            description: None,
            owner: "ann".into(),
            created_ms: 0,
        }
    }

    fn run(at_ms: i64) -> CheckRun {
        let result = CheckResult {
            name: "e".into(),
            kind: "range".into(),
            columns: vec![],
            severity: Severity::Warn,
            status: CheckStatus::Warn,
            observed: Some("0.5".into()),
            expected: "price > 0".into(),
            failing: Some(1),
            rows: Some(2),
            files: None,
            message: None,
        };
        CheckRun { at_ms, by: "ann".into(), origin: "check".into(), results: vec![result] }
    }

    #[tokio::test]
    async fn two_servers_see_the_same_and_the_last_goes_with_the_document() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        clock.advance(1_700_000_000_000);
        let one = catalog(folder.path(), &clock).await;
        let other = catalog(folder.path(), &clock).await;
        let table = ObjectName::new("main", "t");
        for (catalog, name) in [(&one, "a"), (&other, "b")] {
            let add = |held: &mut TableExpectations| {
                held.by_name.insert(name.into(), expectation());
                Ok::<_, Error>(())
            };
            catalog.change_expectations(&table, add).await.unwrap();
        }
        clock.advance(1_000);
        assert_eq!(one.expectations(&table).await.unwrap().by_name.len(), 2);
        one.forget_expectations(&table).await.unwrap();
        clock.advance(1_000);
        assert!(other.all_expectations().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_last_runs_are_kept_and_the_first_profile() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        clock.advance(1_700_000_000_000);
        let catalog = catalog(folder.path(), &clock).await;
        let table = ObjectName::new("lake", "t");
        let seen = ErasuresSeen::default();
        for number in 0..25_i64 {
            let profile = BTreeMap::from([("e".to_owned(), number.to_string())]);
            catalog.record_checks(&table, &run(number), &profile, &seen).await.unwrap();
        }
        let history = catalog.check_history(&table).await.unwrap();
        assert_eq!(history.runs.len(), RUNS_KEPT);
        assert_eq!(history.last("e").map(|(run, _)| run.at_ms), Some(24));
        assert!(history.last("other").is_none());
        assert_eq!(history.baselines["e"], "0");
        catalog.forget_baseline(&table, "e").await.unwrap();
        clock.advance(1_000);
        assert!(catalog.check_history(&table).await.unwrap().baselines.is_empty());
    }

    #[tokio::test]
    async fn what_a_check_last_gave_stays_however_many_loads_follow() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        clock.advance(1_700_000_000_000);
        let catalog = catalog(folder.path(), &clock).await;
        let table = ObjectName::new("main", "t");
        let with = async |name: &str, created_ms: i64| {
            let add = |held: &mut TableExpectations| {
                held.by_name.insert(name.into(), Expectation { created_ms, ..expectation() });
                Ok::<_, Error>(())
            };
            catalog.change_expectations(&table, add).await.unwrap();
        };
        with("e", 0).await;
        with("unchecked", 0).await;
        let seen = ErasuresSeen::default();
        catalog.record_checks(&table, &run(1), &BTreeMap::new(), &seen).await.unwrap();
        for at_ms in 2..=30 {
            let load = CheckRun { origin: LOAD.into(), ..run(at_ms) };
            catalog.record_checks(&table, &load, &BTreeMap::new(), &seen).await.unwrap();
        }
        let history = catalog.check_history(&table).await.unwrap();
        assert_eq!(history.runs.len(), RUNS_KEPT);
        assert_eq!(history.last("e").map(|(run, _)| run.at_ms), Some(1));
        let last = catalog.last_checks().await.unwrap();
        let expected = LastCheck {
            table: table.clone(),
            name: "e".into(),
            severity: Severity::Error,
            status: CheckStatus::Warn,
            value: Some(0.5),
        };
        assert_eq!(last, [expected]);
        // One that has taken its place has not been checked.
        with("e", 2).await;
        assert!(catalog.last_checks().await.unwrap().is_empty());
    }
}
