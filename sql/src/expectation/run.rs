//! CHECK TABLE: all checks of a table in one scan, and what each of them gave.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use catalog::ObjectName;
use catalog::checks::{CHECK, CheckResult, CheckRun, CheckStatus, Expectation};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;

use super::query::{self, Item, Outcome};
use crate::dml::sent::quoted;
use crate::error::{Class, Error, Result};
use crate::parse::parse_query;
use crate::session::StatementContext;
use crate::session::run::Run;

/// The planned checks of a table.
#[derive(Debug)]
pub(crate) struct CheckTable {
    table: ObjectName,
    items: Vec<Item>,
    /// All of `items` in one query; none without items, or when they cannot stand in one.
    plan: Option<LogicalPlan>,
    /// Those that cannot be planned: a column that is gone, say.
    broken: Vec<(String, Expectation, Error)>,
}

impl CheckTable {
    /// Plans the checks that can be planned.
    pub(crate) async fn plan(context: &Arc<StatementContext>, table: &ObjectName) -> Result<Self> {
        let (mut items, mut broken) = items(context, table).await?;
        let planned = Self::planned(context, table, &items).await;
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) if is_of_all(&error) => return Err(error),
            Err(_) => {
                let mut sound = Vec::new();
                for item in items {
                    match Self::planned(context, table, std::slice::from_ref(&item)).await {
                        Ok(_) => sound.push(item),
                        Err(error) => broken.push((item.name, item.expectation, error)),
                    }
                }
                items = sound;
                match Self::planned(context, table, &items).await {
                    Err(error) if is_of_all(&error) => return Err(error),
                    planned => planned.unwrap_or_default(),
                }
            }
        };
        Ok(Self { table: table.clone(), items, plan, broken })
    }

    async fn planned(
        context: &Arc<StatementContext>,
        table: &ObjectName,
        items: &[Item],
    ) -> Result<Option<LogicalPlan>> {
        if items.is_empty() {
            return Ok(None);
        }
        let text = query::text(items, &query::from(table), &quoted(&table.name), None);
        let (_, plan) = context.plan_query(parse_query(&text)?).await?;
        Ok(Some(plan))
    }

    /// The one query, as text; `None` when nothing is expected of the table.
    pub(crate) async fn query(
        context: &Arc<StatementContext>,
        table: &ObjectName,
    ) -> Result<Option<String>> {
        let (items, _) = items(context, table).await?;
        let text = query::text(&items, &query::from(table), &quoted(&table.name), None);
        Ok((!items.is_empty()).then_some(text))
    }

    /// The plan that reads the table.
    pub(crate) fn plans(&self) -> Vec<&LogicalPlan> {
        self.plan.iter().collect()
    }

    /// Checks, keeps the results and answers them.
    pub(crate) async fn run(&self, run: &Run) -> Result<RecordBatch> {
        let mut outcome = match &self.plan {
            None => self.one_by_one(run).await?,
            Some(plan) => match one_row(run, plan).await {
                Ok(row) => query::outcome(&self.items, &row)?,
                Err(error) if is_of_all(&error) => return Err(error),
                // One of them cannot be computed: each alone tells which.
                Err(_) => self.one_by_one(run).await?,
            },
        };
        let broken = self.broken.iter();
        let broken =
            broken.map(|(name, expectation, error)| query::failed(name, expectation, error));
        outcome.results.extend(broken);
        outcome.results.sort_by(|one, other| one.name.cmp(&other.name));
        record(run, &self.table, &outcome, CHECK).await?;
        self.answer(&outcome.results)
    }

    async fn one_by_one(&self, run: &Run) -> Result<Outcome> {
        let context = StatementContext::load(&run.session).await?;
        let mut all = Outcome::default();
        for item in &self.items {
            let one = std::slice::from_ref(item);
            let found = async {
                let plan = Self::planned(&context, &self.table, one).await?;
                let plan = plan.ok_or_else(|| Error::Internal("no check was planned".into()))?;
                query::outcome(one, &one_row(run, &plan).await?)
            };
            match found.await {
                Ok(outcome) => {
                    all.results.extend(outcome.results);
                    all.baselines.extend(outcome.baselines);
                }
                Err(error) if is_of_all(&error) => return Err(error),
                Err(error) => {
                    all.results.push(query::failed(&item.name, &item.expectation, &error));
                }
            }
        }
        Ok(all)
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
            texts(&sample),
            texts(&|result| result.message.clone()),
        ];
        Ok(RecordBatch::try_new(answer_schema(), columns)?)
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
fn is_of_all(error: &Error) -> bool {
    matches!(
        error.class(),
        Class::Cancelled | Class::TimedOut | Class::Exhausted | Class::Unavailable
    )
}

/// Runs a query of one row.
async fn one_row(run: &Run, plan: &LogicalPlan) -> Result<RecordBatch> {
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
    engine.checks().add(table, &outcome.results, origin);
    let kept = CheckRun {
        at_ms: engine.catalog().now_ms(),
        by: run.session.principal().name.clone(),
        origin: origin.to_owned(),
        results: outcome.results.clone(),
    };
    Ok(engine.catalog().record_checks(table, &kept, &outcome.baselines).await?)
}
