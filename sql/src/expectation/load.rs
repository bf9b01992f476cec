//! Checks at load: rows on their way into a table meet what is expected of it with severity
//! `error`, or are not committed.
//!
//! The rows that a statement writes pass through [`Passing`], which hands each batch on and a copy
//! of it to the query of all checks, which runs beside. When the last row has passed, the last
//! partition waits for what that query says; when an expectation is not met, it ends with an error
//! instead of the end of the rows, and the writer commits nothing. So rows are computed and read
//! once, and a batch is held by both sides for as long as both need it.
//!
//! Conditions on rows look at the new rows, and at those that UPDATE and MERGE have changed.
//! Conditions on the table look at it as it would be: at the rows of one version and the new ones,
//! or at all rows that a changed table is written with; the commit fails when the table has moved
//! on since.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use catalog::checks::{CheckStatus, LOAD, Severity};
use catalog::{ObjectName, Opened};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Column;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc::{Sender, channel};

use super::check::Shape;
use super::owners::{Owners, is_shown};
use super::query::{self, Item, Outcome};
use super::run::{is_of_all, record, row};
use crate::dml::sent::{Sent, free, name_rows, quoted};
use crate::error::{Error, Result};
use crate::rights::Columns;
use crate::session::StatementContext;
use crate::session::run::Run;

/// Batches that wait for the checks.
const AHEAD: usize = 2;
/// Expectations that an error names.
const NAMED_MAX: usize = 3;

/// How the rows meet those that the table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// They are added.
    Added,
    /// They take their place.
    Replaced,
    /// They take their place, and their last column, which is not written, tells which of them are
    /// new or changed.
    Changed,
    /// They are those of them that stay.
    Left,
}

/// The rows of a statement under the checks of their table.
pub(crate) struct Guard {
    table: ObjectName,
    plan: LogicalPlan,
    version: Option<u64>,
    shared: Option<Arc<Shared>>,
}

impl Guard {
    /// Puts the checks of a table into the way of rows that are to be written into it.
    ///
    /// # Errors
    /// When the rows or the checks cannot be planned.
    pub(crate) async fn new(
        run: &Run,
        table: &ObjectName,
        plan: LogicalPlan,
        rows: Rows,
    ) -> Result<Self> {
        let context = StatementContext::load(&run.session).await?.deeper();
        let mut items = items(&context, table).await?;
        let whole = |item: &Item| matches!(item.check.shape, Shape::Table { .. });
        if rows == Rows::Left {
            items.retain(whole);
        }
        if items.is_empty() {
            let plan = if rows == Rows::Changed { unmarked(plan)? } else { plan };
            return Ok(Self::open(table, plan));
        }
        let mut owners = Owners::new(&context, table);
        for item in &mut items {
            owners.read(item).await.map_err(|error| cannot_be_checked(table, &error))?;
        }
        let physical = run.physical(&plan).await?;
        let schema = physical.schema();
        let (sender, receiver) = channel(AHEAD);
        let sent = Sent::received(Arc::clone(&schema), receiver, || {
            Error::unsupported(
                "a check at load cannot compare a table with itself",
                "give the expectation SEVERITY 'warn', and run CHECK TABLE after loading",
            )
        });
        let sent = StreamingTable::try_new(Arc::clone(&schema), vec![Arc::new(sent)])?;
        let new = name_rows(&context, Arc::new(sent));
        let alias = quoted(&table.name);
        let (version, from, loaded) = match rows {
            Rows::Added if items.iter().any(whole) => {
                let (version, old) = stored(&context, table).await?;
                // What tells new rows from those that the table has.
                let loaded = free("__loaded", |name| schema.field_with_name(name).is_ok());
                let both = format!(
                    "(SELECT *, TRUE AS {loaded} FROM {new} \
                     UNION ALL SELECT *, FALSE FROM {old}) AS {alias}"
                );
                (Some(version), both, Some(loaded))
            }
            Rows::Changed => {
                let mark = schema.fields().last().map(|field| quoted(field.name()));
                (None, format!("{new} AS {alias}"), mark)
            }
            _ => (None, format!("{new} AS {alias}"), None),
        };
        let text = query::text(&items, &from, &alias, loaded.as_deref());
        let checks = query::planned(&context, &text)
            .await
            .map_err(|error| cannot_be_checked(table, &error))?;
        let reads = context.access(table).await.select == Columns::All
            && super::tells_all(&context, table).await;
        // Why a check cannot be computed may hold a value of what it looks up.
        let told = reads && items.iter().all(|item| is_shown(&context, item));
        let started = run.start(&checks).await;
        let answer = started.map_err(|error| not_computed(table, error, told))?;
        let name = table.clone();
        let judged = async move {
            let answer = row(answer).await.map_err(|error| not_computed(&name, error, told))?;
            let outcome = query::outcome(&items, &answer)?;
            Ok((verdict(&name, &outcome, reads), outcome))
        };
        let shared = Arc::new(Shared {
            waiting: AtomicUsize::new(physical.output_partitioning().partition_count()),
            judge: tokio::sync::Mutex::new(Some(SpawnedTask::spawn(judged))),
            outcome: Mutex::new(None),
        });
        let written = schema.fields().len() - usize::from(rows == Rows::Changed);
        let plan = passing(&physical, &run.task()?, &sender, &shared, written)?;
        Ok(Self { table: table.clone(), plan, version, shared: Some(shared) })
    }

    /// Rows of which nothing is expected.
    pub(crate) fn open(table: &ObjectName, plan: LogicalPlan) -> Self {
        Self { table: table.clone(), plan, version: None, shared: None }
    }

    /// Reads the rows and writes none: for a table that begins without any.
    ///
    /// # Errors
    /// When that is not what is expected of it.
    pub(crate) async fn read(&self, run: &Run) -> Result<()> {
        if self.shared.is_none() {
            return Ok(());
        }
        let mut rows = run.start(&self.plan).await?;
        while let Some(batch) = rows.next().await {
            batch?;
        }
        Ok(())
    }

    /// The rows; their stream fails when they are not what is expected.
    pub(crate) fn plan(&self) -> LogicalPlan {
        self.plan.clone()
    }

    /// The version that the table must still have when the rows are committed.
    pub(crate) fn version(&self) -> Option<u64> {
        self.version
    }

    /// Keeps what the checks gave, once the rows were written or refused.
    ///
    /// # Errors
    /// That of writing.
    pub(crate) async fn finish<T>(self, run: &Run, written: Result<T>) -> Result<T> {
        let outcome = match &self.shared {
            Some(shared) => shared.outcome.lock().take(),
            None => None,
        };
        let told = matches!(written, Ok(_) | Err(Error::Unmet { .. }));
        if told && let Some(outcome) = outcome {
            // The rows are there, or were refused; that this is not noted changes neither.
            if let Err(error) = record(run, &self.table, &outcome, LOAD).await {
                let why = error.for_log();
                tracing::warn!(why, table = %self.table, "check results were not kept");
            }
        }
        written
    }
}

/// The expectations of severity `error`, taken apart.
async fn items(context: &Arc<StatementContext>, table: &ObjectName) -> Result<Vec<Item>> {
    let catalog = context.engine().catalog();
    let mut held = catalog.expectations(table).await?;
    held.by_name.retain(|_, expectation| expectation.severity == Severity::Error);
    if held.by_name.is_empty() {
        return Ok(vec![]);
    }
    let history = catalog.check_history(table).await?;
    let (items, broken) = super::items(context, held, &history.baselines);
    match broken.into_iter().next() {
        Some((_, _, error)) => Err(cannot_be_checked(table, &error)),
        None => Ok(items),
    }
}

/// The rows that the table has at its newest version, whoever asks: an expectation holds for all.
async fn stored(context: &Arc<StatementContext>, table: &ObjectName) -> Result<(u64, String)> {
    let engine = context.engine();
    let version = engine.catalog().table_version(table).await?;
    match engine.catalog().open_table(table, Some(version), engine.base()).await? {
        Some(Opened::Table(rows)) => {
            let rows = crate::policy::retention::readable(context, table, rows).await?;
            Ok((version, name_rows(context, rows)))
        }
        _ => Err(Error::Internal(format!("{table} is no table any more"))),
    }
}

fn cannot_be_checked(table: &ObjectName, error: &Error) -> Error {
    Error::Unmet {
        what: format!("what is expected of {table} cannot be checked on these rows: {error}"),
        hint: Some(format!(
            "CHECK TABLE {table} tells which check it is; drop or replace that expectation"
        )),
    }
}

/// A check that cannot be computed on the rows; the reason may hold one of their values.
fn not_computed(table: &ObjectName, error: Error, told: bool) -> Error {
    match error {
        Error::Execution { .. } if told => cannot_be_checked(table, &error),
        Error::Execution { .. } | Error::Catalog(_) | Error::Internal(_)
            if !told && !is_of_all(&error) =>
        {
            Error::Unmet {
                what: format!("what is expected of {table} cannot be computed on these rows"),
                hint: Some(
                    "who may read the table learns from CHECK TABLE which check it is".into(),
                ),
            }
        }
        other => other,
    }
}

/// An error when rows must not be loaded. Who may not read the table learns no value of it.
fn verdict(table: &ObjectName, outcome: &Outcome, reads: bool) -> Result<()> {
    let failed: Vec<_> =
        outcome.results.iter().filter(|result| result.status == CheckStatus::Fail).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let told = failed.iter().take(NAMED_MAX).map(|result| {
        let found = match (result.failing, &result.observed) {
            _ if !reads => String::new(),
            (Some(failing), _) => {
                format!(", {failing} of {} rows fail", result.rows.unwrap_or_default())
            }
            (None, Some(observed)) => format!(", found {observed}"),
            (None, None) => String::new(),
        };
        format!("{} ({}{found})", result.name, result.expected)
    });
    let told = told.collect::<Vec<_>>().join("; ");
    let more = match failed.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(Error::Unmet {
        what: format!("rows for {table} do not meet {told}{more}; nothing was written"),
        hint: Some(
            "mend or leave out these rows; ALTER EXPECTATION … SET (severity = 'warn') lets them in"
                .into(),
        ),
    })
}

/// The rows without their last column.
fn unmarked(plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns = plan.schema().iter().map(|field| Expr::Column(Column::from(field)));
    let written = plan.schema().fields().len().saturating_sub(1);
    let columns: Vec<Expr> = columns.take(written).collect();
    Ok(LogicalPlanBuilder::from(plan).project(columns)?.build()?)
}

type Judge = SpawnedTask<Result<(Result<()>, Outcome)>>;

/// What the partitions of the rows share.
struct Shared {
    /// Partitions that have not ended.
    waiting: AtomicUsize,
    judge: tokio::sync::Mutex<Option<Judge>>,
    outcome: Mutex<Option<Outcome>>,
}

impl Shared {
    /// One partition has ended; the last one waits for what the checks say.
    async fn ended(&self) -> Result<()> {
        match self.waiting.fetch_sub(1, Ordering::AcqRel) {
            1 => self.judged().await,
            _ => Ok(()),
        }
    }

    async fn judged(&self) -> Result<()> {
        let Some(judge) = self.judge.lock().await.take() else { return Ok(()) };
        match judge.join().await {
            Ok(Ok((verdict, outcome))) => {
                *self.outcome.lock() = Some(outcome);
                verdict
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Internal("the checks failed unexpectedly".into())),
        }
    }
}

/// One partition of the rows, which the checks see pass.
struct Passing {
    physical: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    partition: usize,
    /// The columns that are handed on: the first.
    schema: SchemaRef,
    sender: Mutex<Option<Sender<RecordBatch>>>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Passing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Passing")
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

/// The rows of a plan, which the checks see pass, as a plan; of their columns the first `written`.
fn passing(
    physical: &Arc<dyn ExecutionPlan>,
    task: &Arc<TaskContext>,
    sender: &Sender<RecordBatch>,
    shared: &Arc<Shared>,
    written: usize,
) -> Result<LogicalPlan> {
    let columns: Vec<usize> = (0..written).collect();
    let schema = Arc::new(physical.schema().project(&columns)?);
    let count = physical.output_partitioning().partition_count();
    let partitions = (0..count).map(|partition| {
        Arc::new(Passing {
            physical: Arc::clone(physical),
            task: Arc::clone(task),
            partition,
            schema: Arc::clone(&schema),
            sender: Mutex::new(Some(sender.clone())),
            shared: Arc::clone(shared),
        }) as Arc<dyn PartitionStream>
    });
    let table = StreamingTable::try_new(Arc::clone(&schema), partitions.collect())?;
    let table: Arc<dyn TableProvider> = Arc::new(table);
    Ok(LogicalPlanBuilder::scan("rows", provider_as_source(table), None)?.build()?)
}

impl PartitionStream for Passing {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let rows = match self.physical.execute(self.partition, Arc::clone(&self.task)) {
            Ok(rows) => rows,
            Err(error) => {
                let error = futures::stream::iter([Err(error)]);
                return Box::pin(RecordBatchStreamAdapter::new(schema, error));
            }
        };
        let state = (rows, self.sender.lock().take(), Arc::clone(&self.shared));
        let rows = futures::stream::try_unfold(state, |(mut rows, sender, shared)| async move {
            match rows.next().await {
                Some(batch) => {
                    let batch = batch?;
                    if let Some(sender) = &sender
                        && sender.send(batch.clone()).await.is_err()
                    {
                        // The checks ended before the rows did: they failed.
                        shared.judged().await?;
                    }
                    Ok::<_, DataFusionError>(Some((batch, (rows, sender, shared))))
                }
                None => {
                    // Without a sender the checks know that these were all.
                    drop(sender);
                    shared.ended().await?;
                    Ok(None)
                }
            }
        });
        let columns: Vec<usize> = (0..schema.fields().len()).collect();
        let rows = rows.map(move |batch| Ok(batch?.project(&columns)?));
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

#[cfg(test)]
mod tests {
    use catalog::checks::CheckResult;

    use super::*;

    #[test]
    fn who_may_not_read_learns_no_value() {
        let result = |name: &str, status| CheckResult {
            name: name.into(),
            kind: "aggregate".into(),
            columns: vec![],
            severity: Severity::Error,
            status,
            observed: Some("4711".into()),
            expected: "< 100".into(),
            failing: None,
            rows: Some(9),
            files: None,
            message: None,
        };
        let table = ObjectName::new("main", "t");
        let mut outcome = Outcome::default();
        outcome.results.push(result("sound", CheckStatus::Pass));
        assert!(verdict(&table, &outcome, true).is_ok());
        outcome.results.extend(["a", "b", "c", "d"].map(|name| result(name, CheckStatus::Fail)));
        let told = verdict(&table, &outcome, true).unwrap_err().to_string();
        assert!(told.contains("a (< 100, found 4711)") && told.contains("and 1 more"), "{told}");
        let kept = verdict(&table, &outcome, false).unwrap_err().to_string();
        assert!(!kept.contains("4711") && kept.contains("main.t"), "{kept}");
    }
}
