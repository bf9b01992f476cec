//! The barrier: what a principal under policies sees of a table, and that nothing else is learnt.
//!
//! A user's condition that runs before a policy's can tell of rows that the policy hides, by an
//! error, by time or by counts. So below the barrier goes only what can do none of that: a
//! comparison between an unmasked column as it is and a literal or parameter. The operator shows
//! the planner neither statistics nor what it stands on, and takes no dynamic filter, limit, sort
//! or projection. A condition on a masked column is asked of the masked value, above the mask.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Operator, TableProviderFilterPushDown, TableSource,
    TableType,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};

use super::groups::GroupSize;
use crate::session::Narrowed;
use crate::session::screen::{self, Screen, ScreenExec, untold};

/// Whether a condition may be asked below a barrier: exactly `= < <= > >= IN IS [NOT] NULL
/// LIKE 'prefix%'` between an unmasked, uncast column and a literal or parameter.
pub(crate) fn may_pass(filter: &Expr, masked: impl Fn(&str) -> bool) -> bool {
    let plain = |expr: &Expr| matches!(expr, Expr::Column(column) if !masked(&column.name));
    match filter {
        Expr::BinaryExpr(binary) => {
            let compares = matches!(
                binary.op,
                Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
            );
            let (left, right) = (binary.left.as_ref(), binary.right.as_ref());
            compares && ((plain(left) && is_value(right)) || (is_value(left) && plain(right)))
        }
        Expr::InList(list) => !list.negated && plain(&list.expr) && list.list.iter().all(is_value),
        Expr::IsNull(expr) | Expr::IsNotNull(expr) => plain(expr),
        Expr::Like(like) => {
            !like.negated
                && !like.case_insensitive
                && like.escape_char.is_none()
                && plain(&like.expr)
                && is_prefix(&like.pattern)
        }
        _ => false,
    }
}

fn is_value(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(..) | Expr::Placeholder(_))
}

/// Whether a pattern is literal text with one `%` at its end.
fn is_prefix(pattern: &Expr) -> bool {
    let Expr::Literal(
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)),
        _,
    ) = pattern
    else {
        return false;
    };
    text.strip_suffix('%').is_some_and(|prefix| !prefix.contains(['%', '_', '\\']))
}

/// A table as policies leave it to a principal: a plan over the raw table that nothing above it
/// can be mixed with.
pub(crate) struct Barrier {
    plan: LogicalPlan,
    masked: BTreeSet<String>,
    /// Those of them that tell the same apart as the table's own values.
    stand_ins: BTreeSet<String>,
    kept: BTreeSet<String>,
    groups: Vec<GroupSize>,
    policies: Arc<[String]>,
    schema: SchemaRef,
    is_written: bool,
}

impl Barrier {
    /// What `plan` answers; its columns have the table's names in the table's order, those in
    /// `masked` are not the table's own values. `policies` are the names that EXPLAIN shows. A
    /// barrier over another one takes over what that one demands.
    pub(crate) fn new(
        plan: LogicalPlan,
        mut masked: BTreeSet<String>,
        policies: impl IntoIterator<Item = String>,
    ) -> Result<Self> {
        let mut names: BTreeSet<String> = policies.into_iter().collect();
        let (mut kept, mut groups) = (BTreeSet::new(), Vec::new());
        let (mut stand_ins, mut others) = (BTreeSet::new(), masked.clone());
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                barrier_of(&scan.source, |below| {
                    names.extend(below.policies.iter().cloned());
                    masked.extend(below.masked.iter().cloned());
                    stand_ins.extend(below.stand_ins.iter().cloned());
                    others.extend(below.masked.difference(&below.stand_ins).cloned());
                    kept.extend(below.kept.iter().cloned());
                    groups.extend(below.groups.iter().cloned());
                });
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        // Of a name that several scans have, nobody knows here which of them it is of.
        stand_ins.retain(|name| !others.contains(name));
        // A mask may be NULL, whatever it is now: statements keep their columns when it changes.
        let fields =
            plan.schema().fields().iter().map(|field| match masked.contains(field.name()) {
                true => Arc::new(field.as_ref().clone().with_nullable(true)),
                false => Arc::clone(field),
            });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()));
        let policies = names.into_iter().collect();
        Ok(Self { plan, masked, stand_ins, kept, groups, policies, schema, is_written: false })
    }

    /// The same, of whose masked columns these have one value for each of the table's own.
    pub(crate) fn with_stand_ins(mut self, columns: BTreeSet<String>) -> Self {
        self.stand_ins.extend(columns);
        self
    }

    /// The same, of which a statement may not show the columns in `kept` either, and rows only in
    /// groups of these sizes.
    pub(crate) fn with_uses(mut self, kept: BTreeSet<String>, groups: Vec<GroupSize>) -> Self {
        self.kept.extend(kept);
        self.groups.extend(groups);
        self
    }

    /// The same, whose conditions and masks somebody has written.
    pub(crate) fn with_written(mut self) -> Self {
        self.is_written = true;
        self
    }

    /// Whether somebody has written its conditions and masks, which may fail on a row.
    pub(crate) fn is_written(&self) -> bool {
        self.is_written
    }

    /// What is below: nothing of it is for plans above.
    pub(crate) fn plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// Whether a column shows other values than the table's own, by which its rows are not told
    /// apart as by those.
    pub(crate) fn masks(&self, column: &str) -> bool {
        self.masked.contains(column) && !self.stand_ins.contains(column)
    }

    /// Whether a column shows other values than the table's own, by which its rows are told apart
    /// as by those.
    pub(crate) fn stands_in(&self, column: &str) -> bool {
        self.stand_ins.contains(column)
    }

    /// The columns that may be used and not shown.
    pub(crate) fn kept(&self) -> &BTreeSet<String> {
        &self.kept
    }

    /// How large the groups have to be in which its rows are seen; empty: they are seen one by one.
    pub(crate) fn groups(&self) -> &[GroupSize] {
        &self.groups
    }

    /// Whether a statement's plan has to be looked at: a column is kept, or rows come in groups.
    pub(crate) fn bounds_plans(&self) -> bool {
        !self.kept.is_empty() || !self.groups.is_empty()
    }

    /// The plan's own name of a column.
    fn own(&self, name: &str) -> Option<Column> {
        let schema = self.plan.schema();
        let at = schema.fields().iter().position(|field| field.name() == name)?;
        Some(Column::from(schema.qualified_field(at)))
    }
}

/// What `read` gives of the barrier that a scan reads; `None` where it reads none.
pub(crate) fn barrier_of<R>(
    source: &Arc<dyn TableSource>,
    read: impl FnOnce(&Barrier) -> R,
) -> Option<R> {
    let mut provider = source_as_provider(source).ok()?;
    if let Some(narrowed) = provider.downcast_ref::<Narrowed>() {
        provider = Arc::clone(narrowed.table());
    }
    provider.downcast_ref::<Barrier>().map(read)
}

impl fmt::Debug for Barrier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Barrier({})", self.policies.join(", "))
    }
}

#[async_trait]
impl TableProvider for Barrier {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let passes = |filter: &&Expr| match may_pass(filter, |name| self.masked.contains(name)) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(passes).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        // A limit above conditions that stayed there would be wrong, and one below tells nothing.
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut plan = LogicalPlanBuilder::from(self.plan.clone());
        for filter in filters {
            let own = filter.clone().transform(|part| {
                Ok(match &part {
                    Expr::Column(column) => match self.own(&column.name) {
                        Some(own) => Transformed::yes(Expr::Column(own)),
                        None => Transformed::no(part),
                    },
                    _ => Transformed::no(part),
                })
            })?;
            plan = plan.filter(own.data)?;
        }
        if let Some(wanted) = projection {
            let schema = self.plan.schema();
            let column = |at: &usize| Expr::Column(Column::from(schema.qualified_field(*at)));
            plan = plan.project(wanted.iter().map(column).collect::<Vec<_>>())?;
        }
        let schema = match projection {
            Some(wanted) => Arc::new(self.schema.project(wanted)?),
            None => Arc::clone(&self.schema),
        };
        let config = state.config_options();
        let passed = Arc::new(Passed(Arc::clone(&self.policies)));
        let plan = plan.build()?;
        // Conditions are asked of partitions' values while a plan is made.
        let planned = match filters {
            [] => planned(state, &plan).await,
            _ => state.create_physical_plan(&plan).await,
        };
        let input = asked(planned.map_err(|error| passed.told(error))?, config)?;
        ScreenExec::over(input, passed, schema, config)
    }
}

/// The plan of what policies leave of a whole table. A reader of files that asks conditions itself
/// reads the columns that they are of, and then of each other column what is left, run by run.
/// Where that is most of the rows, as the columns' statistics tell, all are read at once and asked
/// after.
async fn planned(state: &dyn Session, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(reading_all) = reading_all(state)
        && plan.exists(|node| Ok(matches!(node, LogicalPlan::Filter(_))))?
    {
        let planned = reading_all.create_physical_plan(plan).await?;
        if keeps_most(&planned)? {
            return Ok(planned);
        }
    }
    state.create_physical_plan(plan).await
}

/// The session as one that asks conditions of what readers of files have read.
fn reading_all(state: &dyn Session) -> Option<SessionState> {
    let mut state = state.as_any().downcast_ref::<SessionState>()?.clone();
    state.config_mut().options_mut().execution.parquet.pushdown_filters = false;
    Some(state)
}

/// Whether the last condition of a plan lets at least a half of its rows through.
fn keeps_most(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    if let Some(masks) = plan.downcast_ref::<ProjectionExec>() {
        return keeps_most(masks.input());
    }
    let Some(filter) = plan.downcast_ref::<FilterExec>() else { return Ok(false) };
    let rows = |plan: &dyn ExecutionPlan| -> Result<Option<usize>> {
        let known = StatisticsContext::new().compute(plan, &StatisticsArgs::default())?;
        Ok(known.num_rows.get_value().copied())
    };
    let (kept, all) = (rows(filter)?, rows(filter.input().as_ref())?);
    Ok(kept.zip(all).is_some_and(|(kept, all)| kept >= all / 2))
}

/// A plan whose condition, if that is the last that it does to rows, is asked by a screen: a policy
/// mostly leaves out rows here and there, and DataFusion's filter copies the others twice.
fn asked(plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(filter) = plan.downcast_ref::<FilterExec>()
        && filter.fetch().is_none()
    {
        let columns = match filter.projection() {
            Some(projection) => projection.to_vec(),
            None => (0..filter.input().schema().fields().len()).collect(),
        };
        let asked = Asked { condition: Arc::clone(filter.predicate()), columns };
        let input = Arc::clone(filter.input());
        return ScreenExec::over(input, Arc::new(asked), filter.schema(), config);
    }
    if let Some(masks) = plan.downcast_ref::<ProjectionExec>() {
        let input = asked(Arc::clone(masks.input()), config)?;
        return replace_children_if_necessary(plan, vec![input]);
    }
    Ok(plan)
}

/// The condition of row policies, and of the statement where it may be asked with them.
struct Asked {
    condition: Arc<dyn PhysicalExpr>,
    /// The input's columns that go on, in their order.
    columns: Vec<usize>,
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.condition)
    }
}

impl Screen for Asked {
    const NAME: &'static str = "ConditionExec";

    fn rows(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let asked = self.condition.evaluate(batch)?.into_array(batch.num_rows())?;
        screen::kept(batch, as_boolean_array(&asked)?, &self.columns, schema)
    }
}

/// What passes a barrier: every row that is left, and the policies' names.
struct Passed(Arc<[String]>);

impl fmt::Display for Passed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "policies=[{}]", self.0.join(", "))
    }
}

impl Screen for Passed {
    const NAME: &'static str = "BarrierExec";

    fn rows(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        screen::with_rows(batch.columns().to_vec(), batch.num_rows(), schema)
    }

    fn told(&self, error: DataFusionError) -> DataFusionError {
        let what = match &*self.0 {
            [only] => format!("policy {only} of this table cannot be computed on one of its rows"),
            all => format!(
                "one of the policies {} of this table cannot be computed on one of its rows",
                all.join(", ")
            ),
        };
        untold(
            error,
            &what,
            "tell who administers policies: its expression has to take any row, as with try_cast \
             and nullif",
        )
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use datafusion::datasource::{MemTable, provider_as_source};
    use datafusion::logical_expr::{cast, col, lit, placeholder};

    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn over(table: Arc<dyn TableProvider>, at: &str) -> LogicalPlanBuilder {
        LogicalPlanBuilder::scan(at, provider_as_source(table), None).unwrap()
    }

    /// A table of mails and names whose barrier masks these columns, of which some are stand-ins.
    fn masking(masked: &[&str], stand_ins: &[&str]) -> Arc<dyn TableProvider> {
        let fields = ["mail", "name"].map(|name| Field::new(name, DataType::Utf8, true));
        let rows = MemTable::try_new(Arc::new(Schema::new(fields.to_vec())), vec![vec![]]).unwrap();
        let plan = over(Arc::new(rows), "rows").build().unwrap();
        let barrier = Barrier::new(plan, names(masked), []).unwrap();
        Arc::new(barrier.with_stand_ins(names(stand_ins)))
    }

    #[test]
    fn a_name_that_any_scan_masks_is_no_stand_in() {
        let apart = || masking(&["mail", "name"], &["mail", "name"]);
        let above = |plan: LogicalPlanBuilder| {
            Barrier::new(plan.build().unwrap(), BTreeSet::new(), []).unwrap()
        };
        let alone = above(over(apart(), "a"));
        assert!(!alone.masks("mail") && !alone.masks("name"));
        let masked = || masking(&["mail"], &[]);
        for (first, second) in [(masked(), apart()), (apart(), masked())] {
            let other = over(second, "b").build().unwrap();
            let both = above(over(first, "a").cross_join(other).unwrap());
            assert!(both.masks("mail") && !both.masks("name"));
        }
        // Nor is one that the barrier itself masks.
        let own = Barrier::new(over(apart(), "a").build().unwrap(), names(&["mail"]), []).unwrap();
        assert!(own.masks("mail") && !own.masks("name"));
    }

    fn passes(filter: Expr) -> bool {
        may_pass(&filter, |name| name == "secret")
    }

    #[test]
    fn comparisons_with_values_pass() {
        for filter in [
            col("a").eq(lit(1)),
            lit(1).lt(col("a")),
            col("t.a").gt_eq(placeholder("$1")),
            col("a").in_list(vec![lit(1), placeholder("$1")], false),
            col("a").is_null(),
            col("a").is_not_null(),
            col("a").like(lit("pre%")),
        ] {
            assert!(passes(filter.clone()), "{filter}");
        }
    }

    #[test]
    fn what_could_tell_of_hidden_rows_stays_above() {
        for filter in [
            col("secret").eq(lit(1)),
            col("t.secret").is_null(),
            col("a").eq(col("b")),
            col("a").not_eq(lit(1)),
            cast(col("a"), DataType::Int64).eq(lit(1)),
            (lit(1) / col("a")).eq(lit(1)),
            col("a").eq(lit(1)).and(col("b").eq(lit(1))),
            col("a").eq(lit(1)).or(col("b").eq(lit(1))),
            col("a").in_list(vec![lit(1)], true),
            col("a").in_list(vec![col("b")], false),
            col("a").like(lit("%fix")),
            col("a").like(lit("p_x%")),
            col("a").like(lit("p\\%")),
            col("a").like(placeholder("$1")),
            col("a").not_like(lit("pre%")),
            col("a").ilike(lit("pre%")),
            lit(true),
        ] {
            assert!(!passes(filter.clone()), "{filter}");
        }
    }
}
