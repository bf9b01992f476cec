//! Changes of a table's rows by who does not see all of it.
//!
//! They reach the rows that its policies leave, as PostgreSQL's row security has it: rows that a
//! row access policy hides stay as they are, and new ones have to be such that it would not hide
//! them. The table is divided in two by the same condition; what a statement computes stands above
//! a barrier that lets the rows of one part through, so that nothing is computed of the other. A
//! masked column is its mask there, and its own value, under a name that nobody can guess, is what
//! is written back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use catalog::ObjectName;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, DFSchemaRef, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableType};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;

use super::lineage::Lineage;
use super::{applied, planning};
use crate::error::{Error, Result};
use crate::session::StatementContext;
use crate::session::screen::{Screen, ScreenExec, untold};

/// A table that is going to be written anew, as policies divide it.
pub(crate) struct Parts {
    /// The rows that a change may reach. Their columns are the table's, and after them the own
    /// values of masked ones.
    pub(crate) rows: Arc<dyn TableProvider>,
    /// By masked column, what `rows` calls its own values.
    pub(crate) own: BTreeMap<String, String>,
    /// By column that a mask of another column is computed of, that other column. To set it could
    /// unmask what the row has there.
    pub(crate) deciding: BTreeMap<String, String>,
    /// The rows that row access policies hide, as they are.
    pub(crate) hidden: Option<Arc<dyn TableProvider>>,
}

/// A table that is going to be written anew, as policies divide it for the statement's principal.
///
/// # Errors
/// When the principal sees rows in groups alone: how many were changed would count smaller ones.
/// When policies cannot be read or applied.
pub(crate) async fn parts(
    context: &Arc<StatementContext>,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
) -> Result<Parts> {
    let Some(bound) = applied(context, name).await? else {
        let (own, deciding) = (BTreeMap::new(), BTreeMap::new());
        return Ok(Parts { rows: table, own, deciding, hidden: None });
    };
    if bound.sees_groups() {
        return Err(Error::Denied {
            principal: context.rights().name().to_owned(),
            action: format!(
                "change rows of {name}, which an aggregation policy shows in groups alone ({}): \
                 how many were changed would tell of each",
                bound.listed()
            ),
            hint: Some("it needs a role that these policies except".into()),
        });
    }
    planning(context, name, bound.parts(context, name, table)).await
}

/// Which of a plan's columns is computed of the mask of a column of a table, and of which; `own`
/// has the masked columns.
///
/// # Errors
/// When the plan cannot be walked.
pub(crate) fn computed_of_mask(
    context: &StatementContext,
    name: &ObjectName,
    plan: &LogicalPlan,
    own: &BTreeMap<String, String>,
) -> Result<Option<(usize, String)>> {
    let Some(table) = context.opened(name).filter(|_| !own.is_empty()) else { return Ok(None) };
    let reads = |scan: &TableScan| {
        let read = source_as_provider(&scan.source).ok()?;
        Arc::ptr_eq(&table, &read).then(|| name.clone())
    };
    for (at, source) in Lineage(reads).of(plan)?.into_iter().enumerate() {
        let masked = source.of.into_iter().find(|(_, column)| own.contains_key(column));
        if let Some((_, column)) = masked {
            return Ok(Some((at, column)));
        }
    }
    Ok(None)
}

/// What new rows of a table have to be for who does not see all rows: such that row access policies
/// would not hide them.
#[derive(Debug)]
pub(crate) struct RowCheck {
    passes: Expr,
    /// The table's columns, which `passes` is over.
    schema: DFSchemaRef,
    refusal: Error,
}

impl RowCheck {
    /// What new rows of a table with these columns have to be; `None` where no row access policy
    /// binds the principal.
    ///
    /// # Errors
    /// When policies cannot be read or applied.
    pub(crate) async fn of(
        context: &Arc<StatementContext>,
        name: &ObjectName,
        columns: &Schema,
    ) -> Result<Option<Arc<Self>>> {
        let Some(bound) = applied(context, name).await? else { return Ok(None) };
        let fields = columns.fields().iter().map(|field| field.as_ref().clone());
        let fields: Vec<_> = fields.map(|field| field.with_nullable(true)).collect();
        let at = TableReference::bare(name.name.clone());
        let schema = DFSchema::try_from_qualified_schema(at, &Schema::new(fields))?;
        let schema: DFSchemaRef = Arc::new(schema);
        let condition = planning(context, name, bound.row_condition(context, &schema)).await?;
        let Some(passes) = condition else { return Ok(None) };
        let refusal = Error::Denied {
            principal: context.rights().name().to_owned(),
            action: format!(
                "write rows into {name} that its row access policies ({}) would hide",
                bound.row_policies().join(", ")
            ),
            hint: Some(
                "give new rows values with which you would see them; nothing was written".into(),
            ),
        };
        Ok(Some(Arc::new(Self { passes, schema, refusal })))
    }

    /// The rows that an operator makes as a plan, which fails where one of them would be hidden.
    /// `is_marked`: a last column after the table's tells which rows are new.
    ///
    /// # Errors
    /// When the condition cannot be planned.
    pub(crate) fn over(
        &self,
        state: &SessionState,
        input: Arc<dyn ExecutionPlan>,
        is_marked: bool,
    ) -> Result<LogicalPlan> {
        let started = state.execution_props().query_execution_start_time;
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(&self.schema))
            .with_config_options(Arc::clone(state.config_options()))
            .with_query_execution_start_time(started)
            .build();
        let passes = ExprSimplifier::new(context).simplify(self.passes.clone())?;
        let passes = state.create_physical_expr(passes, &self.schema)?;
        let mark = is_marked.then_some(self.schema.fields().len());
        let test = Test { passes, mark, refusal: self.refusal.clone() };
        let table: Arc<dyn TableProvider> = Arc::new(Tested { input, test });
        Ok(LogicalPlanBuilder::scan("rows", provider_as_source(table), None)?.build()?)
    }
}

/// The condition that new rows meet.
#[derive(Debug, Clone)]
struct Test {
    passes: Arc<dyn PhysicalExpr>,
    /// The column that tells which rows are new; `None`: all are.
    mark: Option<usize>,
    refusal: Error,
}

/// The rows of an operator, of which new ones are tested.
#[derive(Debug)]
struct Tested {
    input: Arc<dyn ExecutionPlan>,
    test: Test,
}

#[async_trait]
impl TableProvider for Tested {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = self.input.schema();
        let output = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let schema = Arc::new(schema.project(&output)?);
        let new = NewRows { test: self.test.clone(), output };
        // What is written keeps the order and the parts that it comes in.
        Ok(ScreenExec::in_place(Arc::clone(&self.input), Arc::new(new), schema))
    }
}

/// Lets rows through as long as the new ones among them meet their condition.
struct NewRows {
    test: Test,
    /// The columns that go on, in their order.
    output: Vec<usize>,
}

impl fmt::Display for NewRows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("new rows")
    }
}

impl Screen for NewRows {
    const NAME: &'static str = "RowCheckExec";
    const IS_GUARD: bool = false;

    fn rows(&self, batch: &RecordBatch, schema: &SchemaRef) -> DataFusionResult<RecordBatch> {
        self.test.check(batch)?;
        let columns = self.output.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        let count = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &count)?)
    }

    fn told(&self, error: DataFusionError) -> DataFusionError {
        // What is below is the statement's own, over rows that its principal sees.
        error
    }
}

impl Test {
    fn check(&self, batch: &RecordBatch) -> DataFusionResult<()> {
        let new = match self.mark {
            Some(at) => filter_record_batch(batch, batch.column(at).as_boolean())?,
            None => batch.clone(),
        };
        let rows = new.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let passes = self.passes.evaluate(&new).and_then(|passes| passes.into_array(rows));
        // Why it cannot be computed may quote a column that is not seen.
        let passes = passes.map_err(|error| {
            untold(
                error,
                "a row access policy of this table cannot be computed on a new row",
                "tell who administers policies: its condition has to take any row",
            )
        })?;
        match passes.as_boolean_opt().map_or(0, BooleanArray::true_count) == rows {
            true => Ok(()),
            false => Err(self.refusal.clone().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field};
    use datafusion::logical_expr::{col, lit};
    use datafusion::prelude::SessionContext;

    use super::*;

    fn check(condition: Expr, mark: Option<usize>, rows: &[(Option<i64>, bool)]) -> Option<String> {
        let fields = vec![Field::new("a", DataType::Int64, true)];
        let schema = DFSchema::try_from(Schema::new(fields.clone())).unwrap();
        let state = SessionContext::new().state();
        let passes = state.create_physical_expr(condition, &schema).unwrap();
        let refusal = Error::invalid("refused");
        let values: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0)));
        let marks: ArrayRef = Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.1))));
        let fields = [fields, vec![Field::new("new", DataType::Boolean, false)]].concat();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![values, marks]);
        let checked = Test { passes, mark, refusal }.check(&batch.unwrap());
        checked.err().map(|error| Error::from(error).to_string())
    }

    #[test]
    fn new_rows_are_tested_and_old_ones_are_not() {
        let small = || col("a").lt(lit(5_i64));
        let refused = || Some("refused".to_owned());
        assert_eq!(check(small(), None, &[(Some(1), true), (Some(2), false)]), None);
        assert_eq!(check(small(), None, &[(Some(1), true), (Some(7), false)]), refused());
        assert_eq!(check(small(), Some(1), &[(Some(1), true), (Some(7), false)]), None);
        assert_eq!(check(small(), Some(1), &[(Some(7), true), (Some(1), false)]), refused());
        // A condition that is NULL is not met.
        assert_eq!(check(small(), Some(1), &[(None, true)]), refused());
        assert_eq!(check(small(), Some(1), &[(None, false)]), None);
        assert_eq!(check(lit(false), None, &[]), None);
        assert_eq!(check(lit(true), None, &[(None, true)]), None);
    }

    #[test]
    fn a_condition_that_fails_quotes_no_value() {
        let fails = (lit(1_i64) / col("a")).gt(lit(0_i64));
        assert_eq!(check(fails.clone(), Some(1), &[(Some(0), false), (Some(1), true)]), None);
        let told = check(fails, Some(1), &[(Some(0), true)]).unwrap();
        assert!(told.contains("cannot be computed on a new row"), "{told}");
    }
}
