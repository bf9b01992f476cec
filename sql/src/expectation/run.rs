//! CHECK TABLE: all checks of a table, and what each of them gave.
//!
//! Of a table that is a list of files those checks that merge read the files that are new
//! ([`Partial`]); all others are one query over the whole table. Where both read all files, these
//! are read once for both ([`Shared`]). What a check looks up elsewhere is read as its owner
//! ([`Owners`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use catalog::check_states::CheckStates;
use catalog::checks::{CHECK, CheckResult, CheckRun, CheckStatus, Expectation, FilesRead};
use catalog::{Catalog, ErasuresSeen, ObjectName, TableFiles};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use udfs::quality::value_keys::KeySecret;

use super::keys::{self, Crowded, Keying};
use super::owners::{OWNER_LEARNS, Owners, looks_up};
use super::partial::{Known, Partial, Sides, Unknown};
use super::query::{self, Item, Outcome};
use super::shared::{AllRows, Shared};
use crate::dml::sent::quoted;
use crate::error::{CatalogError, Class, Error, Result};
use crate::session::StatementContext;
use crate::session::run::Run;

/// The planned checks of a table.
#[derive(Debug)]
pub(crate) struct CheckTable {
    table: ObjectName,
    items: Vec<Item>,
    /// The table's files, where it is made of files.
    files: Option<Arc<TableFiles>>,
    /// What keys of values are made under, where they are kept.
    secret: Option<Arc<KeySecret>>,
    /// Whether repeated values are found by keys.
    repeats: bool,
    /// All of `items`; none without items, or when they cannot stand in one query.
    parts: Option<Parts>,
    /// The names of those that look up values elsewhere.
    looking: BTreeSet<String>,
    /// Those that cannot be planned: a column that is gone, say.
    broken: Vec<(String, Expectation, Error)>,
}

impl CheckTable {
    /// Plans the checks that can be planned.
    pub(crate) async fn plan(context: &Arc<StatementContext>, table: &ObjectName) -> Result<Self> {
        Self::plan_but(context, table, BTreeMap::new()).await
    }

    /// The same without those of which it is known why they cannot be computed.
    pub(super) async fn plan_but(
        context: &Arc<StatementContext>,
        table: &ObjectName,
        mut wrong: BTreeMap<String, Error>,
    ) -> Result<Self> {
        let (written, mut broken) = items(context, table).await?;
        let files = files(context, table).await;
        let looking = written.iter().filter(|item| looks_up(item));
        let looking = looking.map(|item| item.name.clone()).collect();
        let mut owners = Owners::new(context, table);
        // As they are written, and over what they look up.
        let (mut items, mut read) = (Vec::new(), Vec::new());
        for item in written {
            if let Some(error) = wrong.remove(&item.name) {
                broken.push((item.name, item.expectation, error));
                continue;
            }
            let mut one = item.clone();
            match owners.read(&mut one).await {
                Ok(()) => {
                    items.push(item);
                    read.push(one);
                }
                Err(error) if is_of_all(&error) => return Err(error),
                Err(error) => broken.push((item.name, item.expectation, error)),
            }
        }
        let (mut secret, mut states) = (None, CheckStates::default());
        let mut repeats = false;
        if files.is_some() {
            repeats = keys::repeats(context, table, &items).await;
            secret = keys::secret(context, &items, repeats).await;
        }
        if secret.is_some() {
            states = context.engine().catalog().check_states(table).await;
        }
        let keying = Keying { secret: secret.as_ref(), repeats, states: &states };
        let parts = match Parts::plan(context, table, files.as_ref(), &read, keying).await {
            Ok(parts) => parts,
            Err(error) if is_of_all(&error) => return Err(error),
            Err(_) => {
                let (mut sound, mut sound_read) = (Vec::new(), Vec::new());
                for (item, one) in items.into_iter().zip(read) {
                    match whole(context, table, std::slice::from_ref(&one)).await {
                        Ok(_) => {
                            sound.push(item);
                            sound_read.push(one);
                        }
                        Err(error) => broken.push((item.name, item.expectation, error)),
                    }
                }
                items = sound;
                match Parts::plan(context, table, files.as_ref(), &sound_read, keying).await {
                    Err(error) if is_of_all(&error) => return Err(error),
                    planned => planned.unwrap_or_default(),
                }
            }
        };
        Ok(Self { table: table.clone(), items, files, secret, repeats, parts, looking, broken })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.broken.is_empty()
    }

    pub(super) fn has_sound(&self) -> bool {
        !self.items.is_empty()
    }

    /// Those that cannot be computed, with what CHECK TABLE says of them.
    pub(super) fn broken(&self) -> impl Iterator<Item = (&str, Option<String>)> {
        self.broken.iter().map(|(name, expectation, error)| {
            (name.as_str(), query::failed(name, expectation, error).message)
        })
    }

    pub(super) fn parts(&self) -> Option<&Parts> {
        self.parts.as_ref()
    }

    /// The plan that reads the table.
    pub(crate) fn plans(&self) -> Vec<&LogicalPlan> {
        self.parts.iter().flat_map(Parts::plans).collect()
    }

    /// Checks, keeps the results and answers them.
    pub(crate) async fn run(&self, run: &Run) -> Result<RecordBatch> {
        let catalog = run.session.engine().catalog();
        let mut known = Known::default();
        if self.files.is_some() {
            known.states = catalog.check_states(&self.table).await;
        }
        let before = known.states.clone();
        let mut outcome = match &self.parts {
            None => self.one_by_one(run, &mut known).await?,
            Some(parts) => match parts.outcome(run, &mut known).await {
                Ok(outcome) => outcome,
                Err(error) if is_of_all(&error) => return Err(error),
                // One of them cannot be computed, or all of them not at once: each alone tells.
                Err(_) => self.one_by_one(run, &mut known).await?,
            },
        };
        let broken = self.broken.iter();
        let broken =
            broken.map(|(name, expectation, error)| query::failed(name, expectation, error));
        outcome.results.extend(broken);
        outcome.results.sort_by(|one, other| one.name.cmp(&other.name));
        record(run, &self.table, &self.kept(&outcome), CHECK).await?;
        // What is not kept is found out again.
        if let Err(error) = self.keep(catalog, known, &before, &ErasuresSeen::of(&run.state)).await
        {
            tracing::warn!(%error, table = %self.table, "what files gave was not kept");
        }
        self.answer(&outcome.results)
    }

    /// What is kept of a run for all who read the table: why a check that looks up what others may
    /// read cannot be computed is for its owner alone.
    fn kept(&self, outcome: &Outcome) -> Outcome {
        let mut kept = outcome.clone();
        for result in &mut kept.results {
            if result.status == CheckStatus::Error && self.looking.contains(&result.name) {
                result.message = Some(OWNER_LEARNS.into());
            }
        }
        kept
    }

    /// Keeps what files gave, when that is another than before.
    async fn keep(
        &self,
        catalog: &Catalog,
        known: Known,
        before: &CheckStates,
        seen: &ErasuresSeen,
    ) -> Result<(), CatalogError> {
        let Some(files) = &self.files else { return Ok(()) };
        let keys: Vec<&str> = known.keys.iter().map(String::as_str).collect();
        let mut ids = files.ids().to_vec();
        ids.extend(known.files.iter().cloned());
        let kept = known.states.only(&ids, &keys);
        if kept == *before && !known.sets.has_fresh() {
            return Ok(());
        }
        catalog.keep_check_states(&self.table, &kept, seen).await?;
        known.sets.keep(catalog, &self.table).await?;
        // An erasure that was at the table meanwhile may have removed keys before these were kept.
        if let Err(error) = catalog.check_erasures(&self.table, seen).await {
            catalog.forget_checked_files(&self.table).await?;
            return Err(error);
        }
        Ok(())
    }

    async fn one_by_one(&self, run: &Run, known: &mut Known) -> Result<Outcome> {
        let context = StatementContext::load(&run.session).await?;
        let mut owners = Owners::new(&context, &self.table);
        let mut all = Outcome::default();
        for item in &self.items {
            let mut read = item.clone();
            let found = match owners.read(&mut read).await {
                Ok(()) => self.alone(&context, run, known, &read).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(outcome) => {
                    all.results.extend(outcome.results);
                    all.baselines.extend(outcome.baselines);
                }
                Err(error) if is_of_all(&error) => return Err(error),
                Err(error) => {
                    let error = owners.computed(item, error);
                    all.results.push(query::failed(&item.name, &item.expectation, &error));
                }
            }
        }
        Ok(all)
    }

    /// One check; what keys do not tell, because they are too many or take too much memory, the
    /// table's rows do.
    async fn alone(
        &self,
        context: &Arc<StatementContext>,
        run: &Run,
        known: &mut Known,
        item: &Item,
    ) -> Result<Outcome> {
        let secret = self.secret.as_ref();
        match self.with(secret, context, run, known, item).await {
            Err(Error::Exhausted { .. }) if secret.is_some() && is_keyed(item) => {
                known.sets.release();
                self.with(None, context, run, known, item).await
            }
            found => found,
        }
    }

    async fn with(
        &self,
        secret: Option<&Arc<KeySecret>>,
        context: &Arc<StatementContext>,
        run: &Run,
        known: &mut Known,
        item: &Item,
    ) -> Result<Outcome> {
        let keying = Keying { secret, repeats: self.repeats, states: &known.states };
        let (files, one) = (self.files.as_ref(), std::slice::from_ref(item));
        let parts = Parts::plan(context, &self.table, files, one, keying).await?;
        let parts = parts.ok_or_else(|| Error::Internal("no check was planned".into()))?;
        parts.outcome(run, known).await
    }

    fn answer(&self, results: &[CheckResult]) -> Result<RecordBatch> {
        let texts = |text: &dyn Fn(&CheckResult) -> Option<String>| {
            Arc::new(results.iter().map(text).collect::<StringArray>()) as ArrayRef
        };
        let counts = |count: fn(&CheckResult) -> Option<u64>| {
            let counts = results.iter().map(count);
            let counts = counts.map(|count| count.map(|n| i64::try_from(n).unwrap_or(i64::MAX)));
            Arc::new(counts.collect::<Int64Array>()) as ArrayRef
        };
        let sample = |result: &CheckResult| {
            let failed = matches!(result.status, CheckStatus::Warn | CheckStatus::Fail);
            let item = self.items.iter().find(|item| item.name == result.name);
            item.filter(|_| failed).and_then(|item| query::sample(&self.table, item))
        };
        let columns = vec![
            texts(&|result| Some(result.name.clone())),
            texts(&|result| (!result.columns.is_empty()).then(|| result.columns.join(", "))),
            texts(&|result| Some(result.kind.clone())),
            texts(&|result| Some(result.severity.name().to_owned())),
            texts(&|result| Some(result.status.name().to_owned())),
            texts(&|result| result.observed.clone()),
            texts(&|result| Some(result.expected.clone())),
            counts(|result| result.failing),
            counts(|result| result.rows),
            counts(|result| result.files.map(|files| files.read)),
            counts(|result| result.files.map(|files| files.total)),
            texts(&sample),
            texts(&|result| result.message.clone()),
        ];
        Ok(RecordBatch::try_new(answer_schema(), columns)?)
    }
}

/// Checks that are computed together.
#[derive(Debug)]
pub(super) struct Parts {
    /// Those that read new files alone.
    pub(super) partial: Option<Partial>,
    /// Those that read the whole table, in one query.
    pub(super) whole: Option<(Vec<Item>, LogicalPlan)>,
    /// Those of the latter that have too many different values to keep keys of.
    pub(super) crowded: Vec<Crowded>,
    /// How many files the table is made of.
    pub(super) files: Option<u64>,
    /// The rows of all files, over which both are planned.
    rows: Option<AllRows>,
    /// In how many parts rows are read.
    partitions: usize,
}

/// The queries of a run.
pub(super) struct Queries {
    /// Those of files that are not known, whose plans are the first.
    unknown: Vec<Unknown>,
    /// All of them; that of the whole table is the last.
    pub(super) plans: Vec<LogicalPlan>,
    /// What several of them read together.
    pub(super) shared: Option<Arc<Shared>>,
}

impl Parts {
    async fn plan(
        context: &Arc<StatementContext>,
        table: &ObjectName,
        files: Option<&Arc<TableFiles>>,
        items: &[Item],
        keying: Keying<'_>,
    ) -> Result<Option<Self>> {
        if items.is_empty() {
            return Ok(None);
        }
        let rows = files.map(|files| AllRows::new(context, files));
        let sides = match files.zip(rows.as_ref()) {
            Some((files, rows)) => {
                Partial::plan(context, table, files, rows, items, keying).await?
            }
            None => Sides::whole(items),
        };
        let Sides { partial, rest, crowded } = sides;
        let whole = match (rest.is_empty(), &rows) {
            (true, _) => None,
            (false, Some(rows)) if partial.is_some() => {
                let plan = rows.planned(context, table, &rest).await?;
                Some((rest, plan))
            }
            (false, _) => {
                let plan = whole(context, table, &rest).await?;
                Some((rest, plan))
            }
        };
        let files = files.map(|files| files.ids().len() as u64);
        let partitions = context.engine().limits().target_partitions;
        Ok(Some(Self { partial, whole, crowded, files, rows, partitions }))
    }

    /// What is to be asked when so much is known.
    pub(super) fn queries(&self, states: &CheckStates) -> Result<Queries> {
        let unknown = match &self.partial {
            Some(partial) => partial.queries(states)?,
            None => vec![],
        };
        let mut plans: Vec<LogicalPlan> =
            unknown.iter().map(|unknown| unknown.plan.clone()).collect();
        plans.extend(self.whole.iter().map(|(_, plan)| plan.clone()));
        let shared = match &self.rows {
            Some(rows) => rows.shared(&mut plans, self.partitions)?,
            None => None,
        };
        Ok(Queries { unknown, plans, shared })
    }

    fn plans(&self) -> impl Iterator<Item = &LogicalPlan> {
        let partial = self.partial.iter().map(Partial::input);
        partial.chain(self.whole.iter().map(|(_, plan)| plan))
    }

    async fn outcome(&self, run: &Run, known: &mut Known) -> Result<Outcome> {
        for crowded in &self.crowded {
            known.keys.extend(crowded.keys.iter().cloned());
            known.files.extend(crowded.files.iter().cloned());
        }
        if let Some(partial) = &self.partial {
            partial.load(run, known).await?;
        }
        let Queries { unknown, plans, shared } = self.queries(&known.states)?;
        let mut answers = match shared {
            Some(shared) => shared.answers(run, &plans).await?,
            None => {
                let mut answers = Vec::with_capacity(plans.len());
                for plan in &plans {
                    answers.push(one_row(run, plan).await?);
                }
                answers
            }
        };
        let whole = answers.split_off(unknown.len());
        let mut all = match &self.partial {
            Some(partial) => {
                let found = unknown.into_iter().zip(answers).collect();
                partial.outcome(run, found, known).await?
            }
            None => Outcome::default(),
        };
        if let Some(((items, _), answer)) = self.whole.as_ref().zip(whole.first()) {
            let mut outcome = query::outcome(items, answer)?;
            let read = self.files.map(|total| FilesRead { read: total, total });
            outcome.results.iter_mut().for_each(|result| result.files = read);
            all.results.extend(outcome.results);
            all.baselines.extend(outcome.baselines);
        }
        Ok(all)
    }
}

/// Checks as one query over the whole table.
pub(super) async fn whole(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    items: &[Item],
) -> Result<LogicalPlan> {
    let text = query::text(items, &query::from(table), &quoted(&table.name), None);
    query::planned(context, &text).await
}

/// Whether keys of values are kept for a check, where they can be.
fn is_keyed(item: &Item) -> bool {
    keys::is_unique(item) || item.check.is_reference()
}

/// The table's files, which the whole statement reads at one version where there are versions.
pub(super) async fn files(
    context: &Arc<StatementContext>,
    table: &ObjectName,
) -> Option<Arc<TableFiles>> {
    // Files hold rows of people who do not consent to what this reading serves or whose rows nobody
    // reads, and what policies keep from who reads.
    if !super::tells_all(context, table).await {
        return None;
    }
    let engine = context.engine();
    let catalog = engine.catalog();
    if let Ok(version) = catalog.table_version(table).await {
        context.pin(table, version);
    }
    match catalog.table_files(table, context.version_of(table), engine.base()).await {
        Ok(files) => files.map(Arc::new),
        Err(error) => {
            // The checks are planned over the table, which says the same.
            tracing::debug!(%error, %table, "the table's files were not listed");
            None
        }
    }
}

/// The columns of CHECK TABLE's answer.
pub(crate) fn answer_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let count = |name: &str| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![
        text("name"),
        text("columns"),
        text("kind"),
        text("severity"),
        text("status"),
        text("observed"),
        text("expected"),
        count("rows_failing"),
        count("rows_checked"),
        count("files_read"),
        count("files_total"),
        text("sample"),
        text("message"),
    ]))
}

async fn items(
    context: &Arc<StatementContext>,
    table: &ObjectName,
) -> Result<(Vec<Item>, Vec<(String, Expectation, Error)>)> {
    let catalog = context.engine().catalog();
    let held = catalog.expectations(table).await?;
    let history = catalog.check_history(table).await?;
    Ok(super::items(context, held, &history.baselines))
}

/// Whether an error is the statement's and not that of one check.
pub(super) fn is_of_all(error: &Error) -> bool {
    matches!(error.class(), Class::Cancelled | Class::TimedOut | Class::Unavailable)
}

/// Runs a query of few rows.
pub(super) async fn one_row(run: &Run, plan: &LogicalPlan) -> Result<RecordBatch> {
    row(run.start(plan).await?).await
}

/// The rows of a query as one batch.
pub(super) async fn row(mut rows: SendableRecordBatchStream) -> Result<RecordBatch> {
    let schema = rows.schema();
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await {
        batches.push(batch?);
    }
    Ok(concat_batches(&schema, &batches)?)
}

/// Keeps what a run gave, and tells it to metrics.
pub(super) async fn record(
    run: &Run,
    table: &ObjectName,
    outcome: &Outcome,
    origin: &str,
) -> Result<()> {
    if outcome.results.is_empty() {
        return Ok(());
    }
    let engine = run.session.engine();
    engine.checks().add(&outcome.results, origin);
    let kept = CheckRun {
        at_ms: engine.catalog().now_ms(),
        by: run.session.principal().name.clone(),
        origin: origin.to_owned(),
        results: outcome.results.clone(),
    };
    let seen = ErasuresSeen::of(&run.state);
    Ok(engine.catalog().record_checks(table, &kept, &outcome.baselines, &seen).await?)
}
