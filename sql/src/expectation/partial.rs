//! Checks that are made of what each file of a table gives, so that a file is read once.
//!
//! The query of the checks is planned as ever, over the rows of the table's files. Above its one
//! aggregation stand the conditions, which are computed anew in each run: `now()`, a tolerance or a
//! kept profile change none of what is known. Below it stand aggregates. Those that merge exactly
//! out of one value a file (counts, extremes, `bool_and` and the like), those that merge out of
//! their state (sums, averages, deviations) and profiles of distributions are computed by file for
//! the files of which they are not known, and merged by their own accumulators. Of repeated values
//! each file's [`keys`] are kept, and counted together. An expectation all of whose aggregates can
//! be had so is checked this way. Any other reads the whole table: references, and whatever depends
//! on more than the rows: functions that are not immutable, know the session, or are bound to
//! models or keys.
//!
//! A state's key is a hash of the expectation's text, the aggregate over the table's own columns,
//! the types of these, the table's definition and the session's time zone. So another definition,
//! another type, another reading of the same files find no state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Field, FieldRef, Int64Type, Schema};
use catalog::check_states::CheckStates;
use catalog::checks::FilesRead;
use catalog::{FILE, ObjectName, TableFiles};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, TableScan, lit,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Literal;
use sha2::{Digest, Sha256};
use udfs::quality::value_keys::ValueKeys;

use super::aggregation::{Kept, Query, call, instead, resolved};
use super::keys::{self, Crowded, KEYS_MAX, Keying, Sets};
use super::query::{self, Item, Outcome};
use super::run::one_row;
use super::shared::AllRows;
use super::state::StateOf;
use crate::error::{Error, Result};
use crate::session::StatementContext;
use crate::session::run::Run;

/// The form of keys and states; another one forgets all states.
const FORM: &str = "1";

/// Checks of a table whose files are read one by one.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) items: Vec<Item>,
    table: ObjectName,
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
    /// What is computed by file: the aggregate, its state, or keys.
    call: Expr,
    kept: Kept,
    /// The aggregate itself.
    of: Arc<AggregateUDF>,
    /// Under which its states are kept, one for each expectation that it stands in.
    keys: Vec<String>,
}

/// States of a table's files, the keys that a run has asked for, and the keys of values.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) states: CheckStates,
    pub(super) keys: BTreeSet<String>,
    pub(super) sets: Sets,
}

/// The items of a table by how they are checked.
#[derive(Debug)]
pub(super) struct Sides {
    /// By file.
    pub(super) partial: Option<Partial>,
    /// Over the whole table.
    pub(super) rest: Vec<Item>,
    /// Those of the rest for which the table has too many different values.
    pub(super) crowded: Vec<Crowded>,
}

impl Sides {
    /// All of them over the whole table.
    pub(super) fn whole(items: &[Item]) -> Self {
        Self { partial: None, rest: items.to_vec(), crowded: vec![] }
    }
}

impl Partial {
    /// Plans those of the items that can be checked by file, and gives the others back.
    ///
    /// # Errors
    /// When the query cannot be taken apart, which is a defect.
    pub(super) async fn plan(
        context: &Arc<StatementContext>,
        table: &ObjectName,
        files: &Arc<TableFiles>,
        rows: &AllRows,
        all: &[Item],
        keying: Keying<'_>,
    ) -> Result<Sides> {
        // A column that the table has not is no column of a check.
        if all.iter().any(|item| item.check.columns.iter().any(|column| column == FILE)) {
            return Ok(Sides::whole(all));
        }
        // Keys of another table are joined to the rows, which then are no file's alone.
        let (references, items): (Vec<Item>, Vec<Item>) =
            all.iter().cloned().partition(|item| item.check.is_reference());
        if items.is_empty() {
            return Ok(Sides::whole(all));
        }
        // What cannot be planned over the files says why over the table.
        let planned = rows.planned(context, table, &items).await;
        let Ok(plan) = planned else { return Ok(Sides::whole(all)) };
        let Some(query) = Query::of(&plan) else { return Ok(Sides::whole(all)) };
        let by_file = query.by_file(items.len(), keying.secret.is_some())?;
        let (mut chosen, mut rest) = (Vec::new(), references);
        for (item, by_file) in items.into_iter().zip(&by_file) {
            let side = if *by_file { &mut chosen } else { &mut rest };
            side.push(item);
        }
        let mut crowded = vec![];
        let mut plan = by_file.iter().all(|by_file| *by_file).then_some(plan);
        while !chosen.is_empty() {
            let plan = match plan.take() {
                Some(plan) => plan,
                None => rows.planned(context, table, &chosen).await?,
            };
            let partial = Self::over(context, (table, files), chosen, &plan, keying)?;
            let Some(partial) = partial else { break };
            let over = partial.crowded(keying.states);
            if over.is_empty() {
                return Ok(Sides { partial: Some(partial), rest, crowded });
            }
            let is_over = |item: &Item| over.iter().any(|over| over.name == item.name);
            let (more, fewer): (Vec<Item>, Vec<Item>) =
                partial.items.into_iter().partition(is_over);
            chosen = fewer;
            rest.extend(more);
            crowded.extend(over);
        }
        Ok(Sides { crowded, ..Sides::whole(all) })
    }

    /// The items that a query checks; `None` when it is no aggregation.
    fn over(
        context: &StatementContext,
        (table, files): (&ObjectName, &Arc<TableFiles>),
        items: Vec<Item>,
        plan: &LogicalPlan,
        keying: Keying<'_>,
    ) -> Result<Option<Self>> {
        let Some(query) = Query::of(plan) else { return Ok(None) };
        let uses = query.uses(items.len());
        let parts = parts(context, files, &query, (&items, &uses), keying)?;
        let input = query.aggregate.input.as_ref().clone();
        let answer = query.projection.expr.clone();
        let (table, files) = (table.clone(), Arc::clone(files));
        Ok(Some(Self { items, table, files, parts, uses, input, answer }))
    }

    /// What is read of the table's files.
    pub(super) fn input(&self) -> &LogicalPlan {
        &self.input
    }

    /// The keys of all states.
    fn keys(&self) -> impl Iterator<Item = &String> {
        self.parts.iter().flat_map(|part| &part.keys)
    }

    /// The parts of which keys of values are kept.
    fn keyed(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.kept == Kept::Keys)
    }

    /// How many keys of values the files have for a part, as far as that is known.
    fn key_count(&self, part: &Part, states: &CheckStates) -> u64 {
        let states = self.files.ids().iter().filter_map(|id| part.state(id, states));
        states.filter_map(keys::count).fold(0, u64::saturating_add)
    }

    /// The items for which the files have too many different values.
    fn crowded(&self, states: &CheckStates) -> Vec<Crowded> {
        let is_over = |number: &&usize| {
            let part = &self.parts[**number];
            part.kept == Kept::Keys && self.key_count(part, states) > u64::from(KEYS_MAX)
        };
        let crowded = self.items.iter().zip(&self.uses).map(|(item, uses)| {
            let over = uses.iter().filter(is_over);
            let keys = over.flat_map(|number| self.parts[*number].keys.iter().cloned());
            Crowded { name: item.name.clone(), keys: keys.collect() }
        });
        crowded.filter(|crowded| !crowded.keys.is_empty()).collect()
    }

    /// Fetches the keys of values that are kept of the files; a file whose keys are gone counts as
    /// unknown.
    ///
    /// # Errors
    /// When the statement may not have so much memory.
    pub(super) async fn load(&self, run: &Run, known: &mut Known) -> Result<()> {
        known.keys.extend(self.keys().cloned());
        let (mut names, mut count) = (Vec::new(), 0_u64);
        for part in self.keyed() {
            for id in self.files.ids() {
                let name = part.keys_name(id);
                known.sets.want(name.clone());
                let kept = part.state(id, &known.states).and_then(keys::count);
                if let Some(kept) = kept.filter(|_| !known.sets.has(&name)) {
                    count = count.saturating_add(kept);
                    names.push(name);
                }
            }
        }
        known.sets.load(run, &self.table, names, count).await?;
        for part in self.keyed() {
            let gone = self.files.ids().iter().filter(|id| !known.sets.has(&part.keys_name(id)));
            for id in gone {
                part.keys.iter().for_each(|key| known.states.forget(id, key));
            }
        }
        Ok(())
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
        let read: Vec<FilesRead> =
            self.uses.iter().map(|parts| self.read_for(parts, &known.states)).collect();
        for (unknown, found) in found {
            self.note(run, &unknown, &found, known)?;
        }
        for part in self.keyed() {
            if self.key_count(part, &known.states) > u64::from(KEYS_MAX) {
                self.files.ids().iter().for_each(|id| known.sets.drop_wanted(&part.keys_name(id)));
            }
        }
        let mut merged = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let value = match part.kept {
                Kept::Keys => {
                    let names = self.files.ids().iter().map(|id| part.keys_name(id));
                    known.sets.repeated(&names.collect::<Vec<String>>()).await?
                }
                Kept::Value | Kept::State => self.merged(part, &known.states)?,
            };
            merged.push(lit(value).alias(part.name.clone()));
        }
        let row = LogicalPlanBuilder::empty(true).project(merged)?;
        let plan = row.project(self.answer.clone())?.build()?;
        let mut outcome = query::outcome(&self.items, &one_row(run, &plan).await?)?;
        for (result, read) in outcome.results.iter_mut().zip(read) {
            result.files = Some(read);
        }
        Ok(outcome)
    }

    fn note(
        &self,
        run: &Run,
        unknown: &Unknown,
        found: &RecordBatch,
        known: &mut Known,
    ) -> Result<()> {
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
                let id = &self.files.ids()[*file];
                let value = match part.kept {
                    Kept::Keys => known.sets.note(run, part.keys_name(id), value)?,
                    Kept::Value | Kept::State => value,
                };
                for key in &part.keys {
                    known.states.put(id, key, value.clone());
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
            match (part.kept, states.as_struct_opt()) {
                (Kept::State, Some(states)) => accumulator.merge_batch(states.columns())?,
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

    /// The name of a file's keys of values.
    fn keys_name(&self, file: &str) -> String {
        keys::name(file, self.keys.first().map_or("", String::as_str))
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
    (items, uses): (&[Item], &[BTreeSet<usize>]),
    keying: Keying<'_>,
) -> Result<Vec<Part>> {
    let schema = files.rows(&[]).schema();
    let settings = context.settings();
    let session = format!("{:?} {}", settings.time_zone, context.speaks_postgres());
    let aggregates = query.aggregate.aggr_expr.iter().enumerate();
    let parts = aggregates.map(|(number, aggregate)| {
        let resolved = resolved(aggregate, &query.aggregate.input)?;
        let value = query.aggregate.schema.field(number);
        let Some(of) = call(aggregate).map(|call| Arc::clone(&call.func)) else {
            return Err(Error::Internal(format!("{aggregate} is no aggregate")));
        };
        let kept = Kept::of(of.name(), value.data_type());
        let mut about = vec![
            FORM.to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
            session.clone(),
            files.definition().to_owned(),
            types(&resolved, &schema),
            resolved.to_string(),
            value.data_type().to_string(),
        ];
        let call = match kept {
            Kept::Value => aggregate.clone(),
            Kept::State => {
                let state = AggregateUDF::from(StateOf::new(Arc::clone(&of)));
                instead(aggregate, &Arc::new(state))
            }
            Kept::Keys => {
                let secret = keying.secret.map(Arc::clone);
                let secret = secret.ok_or_else(|| Error::Internal("keys have no secret".into()))?;
                about.push(secret.id().to_owned());
                // Until they come together each partition may hold all of them.
                let partitions = context.engine().limits().target_partitions.max(1);
                let room = (KEYS_MAX as usize).saturating_mul(partitions);
                let keys = AggregateUDF::from(ValueKeys::new(secret, room));
                instead(aggregate, &Arc::new(keys))
            }
        };
        let users = items.iter().zip(uses).filter(|(_, uses)| uses.contains(&number));
        let mut keys: Vec<String> =
            users.map(|(item, _)| key(&about, &item.expectation.check)).collect();
        if keys.is_empty() {
            keys.push(key(&about, ""));
        }
        Ok(Part { name: value.name().clone(), call, kept, of, keys })
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
