//! Checks that are made of what each file of a table gives, so that a file is read once.
//!
//! The query of the checks is planned as ever, over the rows of the table's files. Above its one
//! aggregation stand the conditions, which are computed anew in each run: `now()`, a tolerance or a
//! kept profile change none of what is known. Below it stand aggregates. Those that merge exactly
//! out of one value a file (counts, extremes, `bool_and` and the like), those that merge out of
//! their state (sums, averages, deviations) and profiles of distributions are computed by file for
//! the files of which they are not known, and merged by their own accumulators. Of repeated values
//! each file's [`keys`] are kept, and counted together. An expectation all of whose aggregates can
//! be had so is checked this way. Values that are looked up elsewhere are kept as keys too
//! ([`references`](super::references)). Any other expectation reads the whole table: one that
//! depends on more than the rows, by functions that are not immutable, know the session, or are
//! bound to models or keys.
//!
//! A state's key is a hash of the expectation's text, the aggregate over the table's own columns,
//! the types of these, the table's definition and the session's time zone. So another definition,
//! another type, another reading of the same files find no state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use catalog::check_states::CheckStates;
use catalog::checks::FilesRead;
use catalog::{FILE, ObjectName, TableFiles};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, lit};

use super::aggregation::{Kept, Query};
use super::keys::{self, Crowded, KEYS_MAX, Keying, Sets};
use super::part::{Part, parts};
use super::query::{self, Item, Outcome};
use super::references::Referenced;
use super::run::one_row;
use super::shared::AllRows;
use crate::error::{Error, Result};
use crate::session::StatementContext;
use crate::session::run::Run;

/// Checks of a table whose files are read one by one.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) items: Vec<Item>,
    table: ObjectName,
    files: Arc<TableFiles>,
    parts: Vec<Part>,
    /// The parts that each item is made of.
    uses: Vec<BTreeSet<usize>>,
    /// The items whose values are looked up elsewhere, by number, with their place in the answer.
    references: Vec<(usize, usize)>,
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

/// States of a table's files, the keys that a run has asked for, and the keys of values.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) states: CheckStates,
    pub(super) keys: BTreeSet<String>,
    /// The files of other tables that are looked up.
    pub(super) files: BTreeSet<String>,
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
        // What is joined to the rows is no file's alone.
        let (mut items, mut joined) = (Vec::new(), Vec::new());
        for item in all {
            let mut item = item.clone();
            if let Some(secret) = keying.secret {
                let referenced = Referenced::of(context, table, files, &item, secret).await?;
                item.referenced = referenced.map(Arc::new);
            }
            let is_joined = item.check.is_reference() && item.referenced.is_none();
            let side = if is_joined { &mut joined } else { &mut items };
            side.push(item);
        }
        if items.is_empty() {
            return Ok(Sides::whole(all));
        }
        // What cannot be planned over the files says why over the table.
        let planned = rows.planned(context, table, &items).await;
        let Ok(plan) = planned else { return Ok(Sides::whole(all)) };
        let Some(query) = Query::of(&plan) else { return Ok(Sides::whole(all)) };
        let by_file = query.by_file(items.len(), keying.secret.is_some())?;
        let (mut chosen, mut rest, count) = (Vec::new(), joined, items.len());
        for (item, by_file) in items.into_iter().zip(by_file) {
            match by_file && (keying.repeats || !keys::is_unique(&item)) {
                true => chosen.push(item),
                false => rest.push(Item { referenced: None, ..item }),
            }
        }
        let mut crowded = vec![];
        let mut plan = (chosen.len() == count).then_some(plan);
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
            rest.extend(more.into_iter().map(|item| Item { referenced: None, ..item }));
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
        let places = query.projection.schema.fields().iter().enumerate();
        let references = places.filter_map(|(place, field)| {
            let at = field.name().strip_prefix('f')?.parse::<usize>().ok()?;
            items.get(at)?.referenced.is_some().then_some((at, place))
        });
        let references = references.collect();
        let (table, files) = (table.clone(), Arc::clone(files));
        Ok(Some(Self { items, table, files, parts, uses, references, input, answer }))
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

    /// The items whose values are looked up elsewhere, and in what.
    pub(super) fn looking_up(&self) -> impl Iterator<Item = (&Item, &Referenced)> {
        let items = self.items.iter();
        items.filter_map(|item| Some((item, item.referenced.as_deref()?)))
    }

    /// Whether rows that repeat a value are counted by a part.
    fn is_repeats(&self, number: usize) -> bool {
        let users = self.items.iter().zip(&self.uses);
        let mut users = users.filter(|(_, uses)| uses.contains(&number));
        users.any(|(item, _)| item.referenced.is_none())
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
            let mut crowded =
                Crowded { name: item.name.clone(), keys: keys.collect(), files: vec![] };
            let is_over =
                |referenced: &&Arc<Referenced>| referenced.key_count(states) > u64::from(KEYS_MAX);
            if let Some(referenced) = item.referenced.as_ref().filter(is_over) {
                crowded.keys.push(referenced.key().clone());
                crowded.files.extend_from_slice(referenced.files());
            }
            crowded
        });
        crowded.filter(|crowded| !crowded.keys.is_empty()).collect()
    }

    /// Fetches the keys of values that are kept of the files, and of those that are looked up; a
    /// file whose keys are gone counts as unknown.
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
        for (name, kept) in
            self.looking_up().flat_map(|(_, referenced)| referenced.kept(&known.states))
        {
            known.sets.want(name.clone());
            if !known.sets.has(&name) {
                count = count.saturating_add(kept);
                names.push(name);
            }
        }
        known.sets.load(run, &self.table, names, count).await?;
        for (_, referenced) in self.looking_up() {
            known.keys.insert(referenced.key().clone());
            known.files.extend(referenced.files().iter().cloned());
            referenced.forget_gone(known);
        }
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
        let answer = self.looked_up(run, known).await?;
        let mut merged = Vec::with_capacity(self.parts.len());
        for (number, part) in self.parts.iter().enumerate() {
            let value = match part.kept {
                Kept::Keys if !self.is_repeats(number) => ScalarValue::Int64(None),
                Kept::Keys => {
                    let names = self.files.ids().iter().map(|id| part.keys_name(id));
                    known.sets.repeated(&names.collect::<Vec<String>>()).await?
                }
                Kept::Value | Kept::State => self.merged(part, &known.states)?,
            };
            merged.push(lit(value).alias(part.name.clone()));
        }
        let row = LogicalPlanBuilder::empty(true).project(merged)?;
        let plan = row.project(answer)?.build()?;
        let mut outcome = query::outcome(&self.items, &one_row(run, &plan).await?)?;
        for (result, read) in outcome.results.iter_mut().zip(read) {
            result.files = Some(read);
        }
        Ok(outcome)
    }

    /// The conditions, with the number of rows whose values are not where they are looked up.
    async fn looked_up(&self, run: &Run, known: &mut Known) -> Result<Vec<Expr>> {
        let mut answer = self.answer.clone();
        for (at, place) in &self.references {
            let item = &self.items[*at];
            let (Some(referenced), Some(part)) = (&item.referenced, self.uses[*at].first()) else {
                return Err(Error::Internal(format!("{} looks nothing up", item.name)));
            };
            let part = &self.parts[*part];
            let names: Vec<String> = self.files.ids().iter().map(|id| part.keys_name(id)).collect();
            let among = referenced.read(run, known).await?;
            let missing = known.sets.missing(&names, &among).await?;
            answer[*place] = lit(missing).alias(format!("f{at}"));
        }
        Ok(answer)
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
        Ok(accumulator.evaluate()?)
    }
}

/// The row of each file in what was read by file.
pub(super) fn rows_of(found: &RecordBatch, files: &[usize]) -> Result<HashMap<usize, usize>> {
    if let [only] = files {
        return Ok(HashMap::from([(*only, 0)]));
    }
    let numbers = found.column(0).as_primitive_opt::<Int64Type>();
    let numbers = numbers.ok_or_else(|| Error::Internal("files are not numbered".into()))?;
    let rows = numbers.values().iter().enumerate();
    let rows = rows.filter_map(|(row, number)| Some((usize::try_from(*number).ok()?, row)));
    Ok(rows.collect())
}
