//! A query cut into parts that are read in parallel, on any server over the same warehouse.
//!
//! Cut is only what is cut for certain: rows of warehouse tables, filtered and projected row by
//! row. Such a plan's partitions are groups of the files of one table version, so they are disjoint
//! and together they are the result. A part is planned again where it is read, for whoever reads
//! it, at the same table versions; its plan must say word for word what the first one said, files
//! and ranges included. If it does not (another policy, another version of the server), the part is
//! refused and nothing is read: never a row twice, never one too few.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use catalog::{ObjectName, Spec};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Volatility};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, displayable};
use sha2::{Digest, Sha256};

use crate::audit;
use crate::error::{Error, Result};
use crate::parse::{self, Statement};
use crate::session::planned::{Action, Planned, plan_in};
use crate::session::{Prepared, Session, Settings, StatementContext};

/// A result of fewer rows is not worth cutting.
const ROWS_MIN: usize = 100_000;

/// A query that can be read in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Its text.
    pub text: String,
    /// The settings it was planned with, by name.
    pub settings: BTreeMap<String, String>,
    /// The version of each table that it reads, by schema and name.
    pub versions: Vec<(String, String, u64)>,
    /// How many parts there are.
    pub parts: usize,
    /// How many parts were asked for: the plan depends on it.
    pub asked: usize,
    /// What the plan says, hashed.
    pub fingerprint: String,
}

/// The settings that a plan depends on.
const SETTINGS: [&str; 4] = ["schema", "time_zone", "purpose", "channel"];

/// A plan and what it stands on.
struct Cut {
    statement: Statement,
    planned: Planned,
    physical: Arc<dyn ExecutionPlan>,
    versions: Vec<(String, String, u64)>,
    fingerprint: String,
}

impl Cut {
    /// A plan that reads one part, with the columns that the whole was announced with.
    fn part(&self, partition: usize) -> Result<LogicalPlan> {
        let Action::Query(plan) = &self.planned.action else {
            return Err(Error::Internal("only a query has parts".into()));
        };
        let schema: SchemaRef = Arc::new(plan.schema().as_arrow().clone());
        let physical = Arc::clone(&self.physical);
        let part = Part { physical, schema: Arc::clone(&schema), partition };
        let table = StreamingTable::try_new(schema, vec![Arc::new(part)])?;
        let source = provider_as_source(Arc::new(table));
        Ok(LogicalPlanBuilder::scan("part", source, None)?.build()?)
    }
}

impl Session {
    /// Cuts a query into about `asked` parts; `None` when it cannot be cut for certain or has too
    /// few rows.
    ///
    /// # Errors
    /// When the text cannot be planned.
    pub async fn split(&self, text: &str, asked: usize) -> Result<Option<Split>> {
        let own = self.settings();
        let limits = self.engine().limits();
        if own.rows_max.or(limits.rows_max).is_some() {
            // A part does not know how many rows the others have.
            return Ok(None);
        }
        let value = |name: &str| Some((name.to_owned(), own.get(name, limits)?));
        let chosen: BTreeMap<_, _> = SETTINGS.into_iter().filter_map(value).collect();
        let settings = self.with_settings(&chosen).await?;
        // The first plan tells the tables, the second reads them at the versions they have now.
        let first = Box::pin(self.cut(text, &settings, asked, &[])).await?;
        let Some(first) = first else { return Ok(None) };
        let versions = first.versions;
        let cut = Box::pin(self.cut(text, &settings, asked, &versions)).await?;
        let Some(cut) = cut else {
            return Ok(None);
        };
        let parts = cut.physical.output_partitioning().partition_count();
        let enough = estimated_rows(&cut.physical)? >= ROWS_MIN;
        // Two columns of one name have no place in the plan of a part.
        let whole = cut.part(0).is_ok();
        if parts < 2 || !enough || !whole || cut.versions != versions {
            return Ok(None);
        }
        Ok(Some(Split {
            text: text.to_owned(),
            settings: chosen,
            versions,
            parts,
            asked,
            fingerprint: cut.fingerprint,
        }))
    }

    /// One part, planned under this session's rights, to be run once.
    ///
    /// # Errors
    /// When the query would not be cut in the same way now.
    pub async fn part(&self, split: &Split, part: usize) -> Result<Prepared> {
        let settings = self.with_settings(&split.settings).await?;
        let cut = self.cut(&split.text, &settings, split.asked, &split.versions);
        let cut = Box::pin(cut).await?;
        let same = cut
            .filter(|cut| cut.versions == split.versions && cut.fingerprint == split.fingerprint);
        let Some(cut) = same else { return Err(changed()) };
        let action = Action::Query(cut.part(part)?);
        let planned = cut.planned.doing(action);
        let tokens = audit::value_tokens(self, &planned).await;
        Prepared::ready((split.text.as_str(), tokens), cut.statement, settings, planned, true)
    }

    /// The session's settings with those of a cut in place of its own.
    async fn with_settings(&self, chosen: &BTreeMap<String, String>) -> Result<Settings> {
        let mut settings = self.settings();
        let schemas = self.schemas().await?;
        let rights = self.rights().await?;
        let limits = self.engine().limits();
        for (name, value) in chosen {
            settings.set(name, value, &schemas, &rights, limits)?;
        }
        Ok(settings)
    }

    async fn cut(
        &self,
        text: &str,
        settings: &Settings,
        asked: usize,
        versions: &[(String, String, u64)],
    ) -> Result<Option<Cut>> {
        let statement = parse::parse(text, self.engine().limits().sql_bytes_max)?;
        if !matches!(statement, Statement::DataFusion(_)) {
            return Ok(None);
        }
        let context = StatementContext::with_settings(self, settings.clone()).await?;
        for (schema, name, version) in versions {
            context.pin(&ObjectName::new(schema, name), *version);
        }
        let mut planned = plan_in(Arc::clone(&context), &statement).await?;
        let Action::Query(plan) = &planned.action else { return Ok(None) };
        if !row_by_row(plan)? || !plan.get_parameter_types()?.is_empty() {
            return Ok(None);
        }
        let Some(versions) = warehouse_versions(&context).await? else { return Ok(None) };
        let physical = physical(&mut planned.state, plan, asked).await?;
        if !each_partition_by_itself(&physical) {
            return Ok(None);
        }
        let shown = displayable(physical.as_ref()).indent(true).to_string();
        let fingerprint = Sha256::digest(shown.as_bytes());
        let fingerprint = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Cut { statement, planned, physical, versions, fingerprint }))
    }
}

fn changed() -> Error {
    Error::invalid_hint(
        "the query can no longer be read in these parts",
        "ask for it again: its tables or your rights have changed",
    )
}

/// How many rows a plan gives, as far as the tables' statistics tell.
fn estimated_rows(plan: &Arc<dyn ExecutionPlan>) -> Result<usize> {
    let statistics = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::default())?;
    Ok(match statistics.num_rows {
        Precision::Exact(rows) | Precision::Inexact(rows) => rows,
        Precision::Absent => 0,
    })
}

async fn physical(
    state: &mut SessionState,
    plan: &LogicalPlan,
    asked: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let options = state.config_mut().options_mut();
    options.execution.target_partitions = asked;
    // A partition that is done would read its siblings' files, and alone it would read them all.
    options.execution.enable_file_stream_work_stealing = false;
    // Rows would move between partitions from here on.
    options.optimizer.enable_round_robin_repartition = false;
    Ok(state.create_physical_plan(plan).await?)
}

/// Whether the plan filters and projects rows and does nothing else, the same at any time.
fn row_by_row(plan: &LogicalPlan) -> Result<bool> {
    let mut simple = true;
    plan.apply_with_subqueries(|node| {
        simple &= matches!(
            node,
            LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::TableScan(_)
        );
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                simple &= match part {
                    Expr::ScalarFunction(call) => {
                        call.func.signature().volatility == Volatility::Immutable
                    }
                    Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => false,
                    _ => true,
                };
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(simple)
}

/// Whether each output partition comes from files of its own.
fn each_partition_by_itself(plan: &Arc<dyn ExecutionPlan>) -> bool {
    const OPERATORS: [&str; 7] = [
        "DataSourceExec",
        "DeltaScanExec",
        "FilterExec",
        "ProjectionExec",
        "CoalesceBatchesExec",
        "CooperativeExec",
        "ColumnMappingExec",
    ];
    let children = plan.children();
    OPERATORS.contains(&plan.name())
        && children.len() <= 1
        && children.iter().all(|child| {
            let count =
                |plan: &Arc<dyn ExecutionPlan>| plan.output_partitioning().partition_count();
            count(child) == count(plan) && each_partition_by_itself(child)
        })
}

/// The version of each table that was opened; `None` when one has no versions of its own.
async fn warehouse_versions(
    context: &Arc<StatementContext>,
) -> Result<Option<Vec<(String, String, u64)>>> {
    let catalog = context.engine().catalog();
    let mut versions = Vec::new();
    for name in context.opened_names() {
        let definition = catalog.definition(&name).await?;
        match definition.map(|definition| definition.spec) {
            Some(Spec::Managed(_)) => {
                let version = match context.version_of(&name) {
                    Some(version) => version,
                    None => catalog.table_version(&name).await?,
                };
                versions.push((name.schema, name.name, version));
            }
            // What a view reads was opened too.
            Some(Spec::View { .. }) => {}
            _ => return Ok(None),
        }
    }
    versions.sort();
    Ok((!versions.is_empty()).then_some(versions))
}

#[derive(Debug)]
struct Part {
    physical: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    partition: usize,
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.physical.execute(self.partition, context).unwrap_or_else(|error| {
            let failed = futures::stream::iter([Err(error)]);
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), failed))
        })
    }
}
