//! Checks that are made of what each file of a table gives, so that a file is read once.
//!
//! The query of the checks is planned as ever, over the rows of the table's files. Above its one
//! aggregation stand the conditions, which are computed anew in each run: `now()`, a tolerance or a
//! kept profile change none of what is known. Below it stand aggregates. Those that merge exactly
//! out of one value a file (counts, extremes, `bool_and` and the like), those that merge out of
//! their state (sums, averages, deviations) and profiles of distributions are computed by file for
//! the files of which they are not known, and merged by their own accumulators. An expectation all
//! of whose aggregates do is checked this way. Any other reads the whole table: uniqueness,
//! references, and whatever depends on more than the rows: functions that are not immutable, know
//! the session, or are bound to models or keys.
//!
//! A state's key is a hash of the expectation's text, the aggregate over the table's own columns,
//! the types of these, the table's definition and the session's time zone. So another definition,
//! another type, another reading of the same files find no state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema};
use catalog::check_states::CheckStates;
use catalog::checks::FilesRead;
use catalog::{FILE, ObjectName, TableFiles};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    Accumulator, Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder,
    Projection, TableScan, Volatility, lit,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Literal;
use sha2::{Digest, Sha256};

use super::query::{self, Item, Outcome};
use super::run::one_row;
use super::shared::AllRows;
use super::state::StateOf;
use crate::error::{Error, Result};
use crate::functions::{SESSION_FUNCTIONS, unbound};
use crate::session::StatementContext;
use crate::session::run::Run;

/// The form of keys and states; another one forgets all states.
const FORM: &str = "1";
/// Aggregates whose value over a file is their state, and merges without loss.
const MERGING: [&str; 8] =
    ["count", "min", "max", "bool_and", "bool_or", "bit_and", "bit_or", "bit_xor"];
/// Aggregates whose state over a file is kept; merged in the order of files, they differ from one
/// reading of all rows in the last digits, as two such readings do.
const STATES: [&str; 6] = ["sum", "avg", "stddev", "stddev_pop", "var", "var_pop"];
/// The profile of a distribution, which merges as it is made: exactly while it holds every value.
const PROFILE: &str = "distribution_sketch";

/// Checks of a table whose files are read one by one.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) items: Vec<Item>,
    files: Arc<TableFiles>,
    parts: Vec<Part>,
    /// The parts that each item is made of.
    uses: Vec<BTreeSet<usize>>,
    /// The rows that are aggregated.
    input: LogicalPlan,
    /// The conditions over the aggregates.
    answer: Vec<Expr>,
}

/// Parts that are not known of the same files.
pub(super) struct Unknown {
    /// The files, by number.
    files: Vec<usize>,
    /// The parts, by number.
    parts: Vec<usize>,
    /// Their values, a row a file.
    pub(super) plan: LogicalPlan,
}

/// One aggregate of the query.
#[derive(Debug)]
struct Part {
    /// Its name among the query's aggregates.
    name: String,
    /// What is computed by file: the aggregate, or its state.
    call: Expr,
    /// The aggregate itself.
    of: Arc<AggregateUDF>,
    /// Under which its states are kept, one for each expectation that it stands in.
    keys: Vec<String>,
}

/// States of a table's files, and the keys that a run has asked for.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) states: CheckStates,
    pub(super) keys: BTreeSet<String>,
}

impl Partial {
    /// Plans those of the items that can be checked by file, and gives the others back; `None`
    /// when there is none that can.
    ///
    /// # Errors
    /// When the query cannot be taken apart, which is a defect.
    pub(super) async fn plan(
        context: &Arc<StatementContext>,
        table: &ObjectName,
        files: &Arc<TableFiles>,
        rows: &AllRows,
        items: &[Item],
    ) -> Result<Option<(Self, Vec<Item>)>> {
        // A column that the table has not is no column of a check.
        if items.iter().any(|item| item.check.columns.iter().any(|column| column == FILE)) {
            return Ok(None);
        }
        // Keys of another table are joined to the rows, which then are no file's alone.
        let (references, items): (Vec<Item>, Vec<Item>) =
            items.iter().cloned().partition(|item| item.check.is_reference());
        if items.is_empty() {
            return Ok(None);
        }
        // What cannot be planned over the files says why over the table.
        let Ok(plan) = rows.planned(context, table, &items).await else { return Ok(None) };
        let Some(query) = Query::of(&plan) else { return Ok(None) };
        let by_file = query.by_file(items.len())?;
        let (mut chosen, mut rest) = (Vec::new(), references);
        for (item, by_file) in items.into_iter().zip(&by_file) {
            let side = if *by_file { &mut chosen } else { &mut rest };
            side.push(item);
        }
        if chosen.is_empty() {
            return Ok(None);
        }
        let plan = match by_file.iter().all(|by_file| *by_file) {
            true => plan,
            false => rows.planned(context, table, &chosen).await?,
        };
        let partial = Self::over(context, files, chosen, &plan)?;
        Ok(partial.map(|partial| (partial, rest)))
    }

    /// The items that a query checks; `None` when it is no aggregation.
    fn over(
        context: &StatementContext,
        files: &Arc<TableFiles>,
        items: Vec<Item>,
        plan: &LogicalPlan,
    ) -> Result<Option<Self>> {
        let Some(query) = Query::of(plan) else { return Ok(None) };
        let uses = query.uses(items.len());
        let parts = parts(context, files, &query, &items, &uses)?;
        let input = query.aggregate.input.as_ref().clone();
        let answer = query.projection.expr.clone();
        Ok(Some(Self { items, files: Arc::clone(files), parts, uses, input, answer }))
    }

    /// What is read of the table's files.
    pub(super) fn input(&self) -> &LogicalPlan {
        &self.input
    }

    /// The keys of all states.
    fn keys(&self) -> impl Iterator<Item = &String> {
        self.parts.iter().flat_map(|part| &part.keys)
    }

    /// How many files would be read, of how many.
    pub(super) fn to_read(&self, states: &CheckStates) -> FilesRead {
        self.read_for(&(0..self.parts.len()).collect(), states)
    }

    fn read_for(&self, parts: &BTreeSet<usize>, states: &CheckStates) -> FilesRead {
        let unknown: BTreeSet<usize> =
            parts.iter().flat_map(|part| self.unknown(&self.parts[*part], states)).collect();
        FilesRead { read: unknown.len() as u64, total: self.files.ids().len() as u64 }
    }

    /// The files, by number, over which a part's value is not known.
    fn unknown(&self, part: &Part, states: &CheckStates) -> Vec<usize> {
        let ids = self.files.ids().iter().enumerate();
        ids.filter(|(_, id)| part.state(id, states).is_none()).map(|(number, _)| number).collect()
    }

    /// The queries that find out what is not known.
    pub(super) fn queries(&self, states: &CheckStates) -> Result<Vec<Unknown>> {
        let mut by_files: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for (number, part) in self.parts.iter().enumerate() {
            by_files.entry(self.unknown(part, states)).or_default().push(number);
        }
        let unknown = by_files.into_iter().filter(|(files, _)| !files.is_empty());
        let planned = unknown.map(|(files, parts)| {
            let plan = self.by_file(&files, &parts)?;
            Ok(Unknown { files, parts, plan })
        });
        planned.collect()
    }

    /// Some parts over each of some files; those of one file are not grouped, which costs less.
    fn by_file(&self, files: &[usize], parts: &[usize]) -> Result<LogicalPlan> {
        let some = (files.len() < self.files.ids().len()).then(|| self.files.rows(files));
        let source = some.map(provider_as_source);
        let input = self.input.clone().transform_up(|node| match (node, &source) {
            (LogicalPlan::TableScan(scan), Some(source)) => {
                let scan = TableScan { source: Arc::clone(source), ..scan };
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            (node, _) => Ok(Transformed::no(node)),
        })?;
        let columns = input.data.schema().iter();
        let file = columns.map(Column::from).find(|column| column.name == FILE);
        let file = file.ok_or_else(|| Error::Internal("rows do not name their file".into()))?;
        let groups = (files.len() > 1).then_some(Expr::Column(file));
        let calls = parts.iter().map(|part| self.parts[*part].call.clone());
        Ok(LogicalPlanBuilder::from(input.data).aggregate(groups, calls)?.build()?)
    }

    /// Notes what the queries gave, and answers the checks.
    ///
    /// # Errors
    /// When the answer cannot be computed.
    pub(super) async fn outcome(
        &self,
        run: &Run,
        found: Vec<(Unknown, RecordBatch)>,
        known: &mut Known,
    ) -> Result<Outcome> {
        known.keys.extend(self.keys().cloned());
        let states = &mut known.states;
        let read: Vec<FilesRead> =
            self.uses.iter().map(|parts| self.read_for(parts, states)).collect();
        for (unknown, found) in found {
            self.note(&unknown, &found, states)?;
        }
        let merged = self.parts.iter().map(|part| {
            let value = self.merged(part, states)?;
            Ok(lit(value).alias(part.name.clone()))
        });
        let row = LogicalPlanBuilder::empty(true).project(merged.collect::<Result<Vec<_>>>()?)?;
        let plan = row.project(self.answer.clone())?.build()?;
        let mut outcome = query::outcome(&self.items, &one_row(run, &plan).await?)?;
        for (result, read) in outcome.results.iter_mut().zip(read) {
            result.files = Some(read);
        }
        Ok(outcome)
    }

    fn note(&self, unknown: &Unknown, found: &RecordBatch, states: &mut CheckStates) -> Result<()> {
        let Unknown { files, parts, .. } = unknown;
        let rows = rows_of(found, files)?;
        // Before the parts stands the file's number, where rows are grouped by it.
        let first = found.num_columns().saturating_sub(parts.len());
        for file in files {
            for (column, part) in parts.iter().map(|part| &self.parts[*part]).enumerate() {
                let value = match rows.get(file) {
                    Some(row) => ScalarValue::try_from_array(found.column(first + column), *row)?,
                    // A file without rows gives what no rows give.
                    None => part.accumulator(None, self.input.schema())?.evaluate()?,
                };
                for key in &part.keys {
                    states.put(&self.files.ids()[*file], key, value.clone());
                }
            }
        }
        Ok(())
    }

    /// A part's value over the whole table.
    fn merged(&self, part: &Part, states: &CheckStates) -> Result<ScalarValue> {
        let mut accumulator = part.accumulator(Some(&part.of), self.input.schema())?;
        let values: Option<Vec<ScalarValue>> =
            self.files.ids().iter().map(|id| part.state(id, states).cloned()).collect();
        let values = values.ok_or_else(|| Error::Internal("a file was not read".into()))?;
        if !values.is_empty() {
            let states = ScalarValue::iter_to_array(values)?;
            match (part.is_state(), states.as_struct_opt()) {
                (true, Some(states)) => accumulator.merge_batch(states.columns())?,
                _ => accumulator.merge_batch(&[states])?,
            }
        }
        Ok(one_nan(accumulator.evaluate()?))
    }
}

/// NaN without a sign: with one it is less than every number, and which one files give depends on
/// their order.
fn one_nan(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float64(Some(number)) if number.is_nan() => {
            ScalarValue::Float64(Some(f64::NAN))
        }
        ScalarValue::Float32(Some(number)) if number.is_nan() => {
            ScalarValue::Float32(Some(f32::NAN))
        }
        other => other,
    }
}

impl Part {
    fn state<'a>(&self, file: &str, states: &'a CheckStates) -> Option<&'a ScalarValue> {
        self.keys.iter().find_map(|key| states.get(file, key))
    }

    /// Whether what is known of a file is the aggregate's state and not its value.
    fn is_state(&self) -> bool {
        call(&self.call).is_some_and(|call| !Arc::ptr_eq(&call.func, &self.of))
    }

    /// What accumulates the part, or merges its states as another function of the same arguments;
    /// only their types matter to it.
    fn accumulator(
        &self,
        of: Option<&Arc<AggregateUDF>>,
        input: &DFSchema,
    ) -> Result<Box<dyn Accumulator>> {
        let Some(call) = call(&self.call) else {
            return Err(Error::Internal(format!("{} is no aggregate", self.name)));
        };
        let function = of.unwrap_or(&call.func);
        let arguments = call.params.args.iter().map(|argument| {
            let kind = argument.get_type(input)?;
            Ok(Arc::new(Field::new("argument", kind, true)))
        });
        let arguments = arguments.collect::<DataFusionResult<Vec<FieldRef>>>()?;
        let arguments = fields_with_udf(&arguments, function.as_ref())?;
        let arguments = arguments.iter().map(|argument| {
            let null = ScalarValue::try_from(argument.data_type())?;
            Ok(Arc::new(Literal::new(null)) as Arc<dyn PhysicalExpr>)
        });
        let arguments = arguments.collect::<DataFusionResult<Vec<_>>>()?;
        let aggregate = AggregateExprBuilder::new(Arc::clone(function), arguments)
            .schema(Arc::new(input.as_arrow().clone()))
            .alias(self.name.clone())
            .build()?;
        Ok(aggregate.create_accumulator()?)
    }
}

/// The row of each file in what [`Partial::by_file`] gives.
fn rows_of(found: &RecordBatch, files: &[usize]) -> Result<HashMap<usize, usize>> {
    if let [only] = files {
        return Ok(HashMap::from([(*only, 0)]));
    }
    let numbers = found.column(0).as_primitive_opt::<Int64Type>();
    let numbers = numbers.ok_or_else(|| Error::Internal("files are not numbered".into()))?;
    let rows = numbers.values().iter().enumerate();
    let rows = rows.filter_map(|(row, number)| Some((usize::try_from(*number).ok()?, row)));
    Ok(rows.collect())
}

/// The aggregates of a query, each with the keys of its states.
fn parts(
    context: &StatementContext,
    files: &TableFiles,
    query: &Query<'_>,
    items: &[Item],
    uses: &[BTreeSet<usize>],
) -> Result<Vec<Part>> {
    let schema = files.rows(&[]).schema();
    let settings = context.settings();
    let session = format!("{:?} {}", settings.time_zone, context.speaks_postgres());
    let aggregates = query.aggregate.aggr_expr.iter().enumerate();
    let parts = aggregates.map(|(number, call)| {
        let resolved = resolved(call, &query.aggregate.input)?;
        let value = query.aggregate.schema.field(number);
        let about = [
            FORM.to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
            session.clone(),
            files.definition().to_owned(),
            types(&resolved, &schema),
            resolved.to_string(),
            value.data_type().to_string(),
        ];
        let users = items.iter().zip(uses).filter(|(_, uses)| uses.contains(&number));
        let mut keys: Vec<String> =
            users.map(|(item, _)| key(&about, &item.expectation.check)).collect();
        if keys.is_empty() {
            keys.push(key(&about, ""));
        }
        let Some(of) = self::call(call).map(|call| Arc::clone(&call.func)) else {
            return Err(Error::Internal(format!("{call} is no aggregate")));
        };
        let call = match STATES.contains(&of.name()) && !value.data_type().is_integer() {
            true => by_state(call),
            false => call.clone(),
        };
        Ok(Part { name: value.name().clone(), call, of, keys })
    });
    parts.collect()
}

/// The columns of an expression, with their types.
fn types(expr: &Expr, schema: &Schema) -> String {
    let names: BTreeSet<&str> = expr.column_refs().iter().map(|c| c.name.as_str()).collect();
    let fields = names.into_iter().map(|name| (name, schema.field_with_name(name).ok()));
    format!("{:?}", fields.map(|(name, f)| (name, f.map(|f| f.data_type()))).collect::<Vec<_>>())
}

fn key(about: &[String], check: &str) -> String {
    let mut digest = Sha256::new();
    for text in about.iter().map(String::as_str).chain([check]) {
        digest.update(text.len().to_string());
        digest.update(":");
        digest.update(text);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The query of the checks: conditions over one aggregation.
struct Query<'a> {
    projection: &'a Projection,
    aggregate: &'a Aggregate,
}

impl<'a> Query<'a> {
    fn of(plan: &'a LogicalPlan) -> Option<Self> {
        let LogicalPlan::Projection(projection) = plan else { return None };
        let LogicalPlan::Aggregate(aggregate) = projection.input.as_ref() else { return None };
        aggregate.group_expr.is_empty().then_some(Self { projection, aggregate })
    }

    /// The aggregates that each of so many items looks at: its columns are a letter and its number.
    fn uses(&self, items: usize) -> Vec<BTreeSet<usize>> {
        let mut uses = vec![BTreeSet::new(); items];
        for (expr, field) in self.projection.expr.iter().zip(self.projection.schema.fields()) {
            let number = field.name().get(1..).and_then(|number| number.parse::<usize>().ok());
            let Some(uses) = number.and_then(|number| uses.get_mut(number)) else { continue };
            let columns = expr.column_refs();
            let schema = &self.aggregate.schema;
            uses.extend(columns.iter().filter_map(|column| schema.maybe_index_of_column(column)));
        }
        uses
    }

    /// Which of so many items can be checked by file.
    fn by_file(&self, items: usize) -> Result<Vec<bool>> {
        let bound = unbound();
        let bound: BTreeSet<&str> = bound.iter().map(|function| function.name()).collect();
        let calls = self.aggregate.aggr_expr.iter().zip(self.aggregate.schema.fields());
        let merges = calls.map(|(expr, value)| {
            call(expr).is_some_and(|call| merges(call, value.data_type()))
                && resolved(expr, &self.aggregate.input).is_ok_and(|expr| lasting(&expr, &bound))
        });
        let merges: Vec<bool> = merges.collect();
        let by_file = |uses: BTreeSet<usize>| uses.into_iter().all(|number| merges[number]);
        Ok(self.uses(items).into_iter().map(by_file).collect())
    }
}

fn call(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::Alias(alias) => call(&alias.expr),
        Expr::AggregateFunction(call) => Some(call),
        _ => None,
    }
}

/// The same call, of the aggregate's state.
fn by_state(call: &Expr) -> Expr {
    match call {
        Expr::Alias(alias) => by_state(&alias.expr).alias(alias.name.clone()),
        Expr::AggregateFunction(AggregateFunction { func, params }) => {
            let func = Arc::new(AggregateUDF::from(StateOf::new(Arc::clone(func))));
            Expr::AggregateFunction(AggregateFunction { func, params: params.clone() })
        }
        other => other.clone(),
    }
}

/// Whether an aggregate's values or states over parts of the rows make its value over all of them.
fn merges(call: &AggregateFunction, value: &DataType) -> bool {
    let (name, params) = (call.func.name(), &call.params);
    let plain = !params.distinct && params.order_by.is_empty() && params.null_treatment.is_none();
    // Whether NaN is an extreme depends on how rows are grouped.
    let merging = MERGING.contains(&name) && !value.is_floating();
    plain && (merging || name == PROFILE || STATES.contains(&name))
}

/// An expression over the table's own columns in place of those that stand on them.
///
/// # Errors
/// When they stand on more than the table's rows.
fn resolved(expr: &Expr, below: &LogicalPlan) -> DataFusionResult<Expr> {
    let resolved = expr.clone().transform_up(|part| match &part {
        Expr::Column(column) => Ok(Transformed::yes(origin(column, below)?)),
        _ => Ok(Transformed::no(part)),
    })?;
    Ok(resolved.data)
}

fn origin(column: &Column, plan: &LogicalPlan) -> DataFusionResult<Expr> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.index_of_column(column)?;
            resolved(&projection.expr[index].clone().unalias_nested().data, &projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let index = alias.schema.index_of_column(column)?;
            let below = Column::from(alias.input.schema().qualified_field(index));
            origin(&below, &alias.input)
        }
        LogicalPlan::TableScan(_) => Ok(Expr::Column(Column::from_name(&column.name))),
        other => datafusion::common::plan_err!("{} is more than rows", other.display()),
    }
}

/// Whether an expression gives the same for the same rows, whoever asks and whenever.
fn lasting(expr: &Expr, bound: &BTreeSet<&str>) -> bool {
    let mut lasting = true;
    let walked = expr.apply(|part| {
        lasting &= match part {
            Expr::ScalarFunction(call) => {
                let name = call.name();
                call.func.signature().volatility == Volatility::Immutable
                    && !SESSION_FUNCTIONS.contains(&name)
                    && !bound.contains(name)
            }
            Expr::Alias(_)
            | Expr::Column(_)
            | Expr::Literal(..)
            | Expr::BinaryExpr(_)
            | Expr::Like(_)
            | Expr::SimilarTo(_)
            | Expr::Not(_)
            | Expr::IsNotNull(_)
            | Expr::IsNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Negative(_)
            | Expr::Between(_)
            | Expr::Case(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::InList(_)
            | Expr::AggregateFunction(_) => true,
            _ => false,
        };
        Ok(TreeNodeRecursion::Continue)
    });
    walked.is_ok() && lasting
}
