//! Which columns of a plan may hold ids of persons, and whether its rows are of single persons.
//!
//! Ids are followed through renaming, casts between text and integers, CASE, COALESCE, MIN, MAX and
//! joins on them; what a function makes of ids that stays an id of the same person (`lower`,
//! `pseudonymize`, …) is remembered as what was done. What is made of ids in another way holds
//! them still (a list of ids, a ciphertext), which is remembered too, or none of them (a length).
//!
//! A statement may read a table several times. Of ids is known of which reading they are, so that
//! each part of a UNION and each side of a join has to keep ids of its own.

mod gathers;
mod made;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::ObjectName;
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, Extension, Filter, Join, LogicalPlan, Operator,
    TableScan, Values,
};

use super::ids::{Held, Ids, are_same_ids};
use super::of_models::OfModels;
use super::whose::Persons;
use crate::anonymize::AnonymizeNode;
use crate::join::NearestNode;
use crate::model::answers::Answers;
use crate::model::evaluate::EvaluateNode;
use crate::model::recommend::RecommendNode;
use crate::policy::barrier::barrier_of;
use crate::private::PrivateNode;

/// What the rows of a plan are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) columns: Vec<Held>,
    pub(super) persons: Persons,
}

/// A table with ids, as the statement reads it.
pub(super) struct Keyed {
    pub(super) name: ObjectName,
    /// What stands for it in plans.
    pub(super) providers: Vec<Arc<dyn TableProvider>>,
    /// Its columns that hold ids.
    pub(super) columns: Vec<(String, Ids)>,
    /// Its columns that hold personal data, as their tags say.
    pub(super) personal: BTreeSet<String>,
}

impl Keyed {
    /// What a column holds in a reading.
    fn held(&self, column: &str, reading: usize) -> Held {
        let ids = self.columns.iter().filter(|(known, _)| known == column);
        let personal = self.personal.get(column);
        Held {
            ids: ids.map(|(_, ids)| ids.clone().read_in(reading)).collect(),
            readings: BTreeSet::from([reading]),
            personal: personal.map(|column| (reading, column.clone())).into_iter().collect(),
            ..Held::default()
        }
    }
}

/// Follows ids through plans.
#[derive(Clone, Copy)]
pub(super) struct Lineage<'a> {
    tables: &'a [Keyed],
    /// Whose the users of models are.
    models: OfModels<'a>,
    /// The ids of keys' first generations.
    keys: &'a BTreeMap<String, String>,
    /// How often tables were read so far.
    readings: &'a Cell<usize>,
    /// The table that is read below its policies, and which reading that is, where a plan is of
    /// these.
    inside: Option<(&'a Keyed, usize)>,
}

impl<'a> Lineage<'a> {
    pub(super) fn new(
        tables: &'a [Keyed],
        models: OfModels<'a>,
        keys: &'a BTreeMap<String, String>,
        readings: &'a Cell<usize>,
    ) -> Self {
        Self { tables, models, keys, readings, inside: None }
    }

    /// What the rows of a plan are.
    ///
    /// # Errors
    /// When a plan cannot be walked.
    pub(super) fn of(&self, plan: &LogicalPlan) -> Result<Rows> {
        let width = plan.schema().fields().len();
        let mut rows = match plan {
            LogicalPlan::TableScan(scan) => self.scanned(scan)?,
            LogicalPlan::Projection(node) => self.projected(&node.input, &node.expr)?,
            LogicalPlan::Aggregate(node) => self.aggregated(node, width)?,
            LogicalPlan::Join(node) => self.joined(node)?,
            LogicalPlan::Filter(node) => self.filtered(node)?,
            LogicalPlan::Values(node) => self.listed(node)?,
            LogicalPlan::Window(node) => {
                let mut rows = self.asked(&node.input, &node.window_expr)?;
                let from = rows.columns.clone();
                for expr in &node.window_expr {
                    let schema = node.input.schema();
                    let mut made = self.made(expr, schema, &from, &mut rows.persons)?;
                    made.is_of_others |=
                        !made.ids.is_empty() && !is_of_one(expr, &made, schema, &from);
                    self.set_apart(expr, &mut made, schema, &from, &mut rows.persons)?;
                    rows.columns.push(made);
                }
                rows
            }
            LogicalPlan::Distinct(Distinct::On(on)) => {
                self.projected(&on.input, &on.select_expr)?
            }
            LogicalPlan::Unnest(node) => {
                let Rows { columns: from, persons } = self.of(&node.input)?;
                let lists = node.dependency_indices.iter();
                let columns = lists.map(|at| from.get(*at).cloned().unwrap_or_default());
                Rows { columns: columns.collect(), persons }
            }
            LogicalPlan::Union(node) => {
                self.united(node.inputs.iter().map(|input| input.as_ref()))?
            }
            LogicalPlan::RecursiveQuery(node) => {
                self.united([node.static_term.as_ref(), node.recursive_term.as_ref()].into_iter())?
            }
            LogicalPlan::Distinct(Distinct::All(_))
            | LogicalPlan::Sort(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Repartition(_) => match plan.inputs().as_slice() {
                [input] => self.of(input)?,
                _ => Rows::default(),
            },
            LogicalPlan::Extension(node) => self.extended(plan, node)?,
            other => self.named_alike(other)?,
        };
        rows.columns.resize(width, Held::default());
        Ok(rows)
    }

    /// The rows of a plan that expressions over them may ask a model of.
    fn asked<'b, E>(&self, plan: &LogicalPlan, exprs: E) -> Result<Rows>
    where
        E: IntoIterator<Item = &'b Expr>,
    {
        let mut rows = self.of(plan)?;
        self.models.told_of(exprs, plan.schema(), &mut rows, &|| self.next_reading())?;
        Ok(rows)
    }

    fn scanned(&self, scan: &TableScan) -> Result<Rows> {
        let provider = source_as_provider(&scan.source).ok();
        if let Some(answers) = provider.as_ref().and_then(|found| found.downcast_ref::<Answers>()) {
            return Ok(self.models.rows(scan, answers, self.next_reading()).unwrap_or_default());
        }
        let Some(table) = self.read(scan) else { return Ok(Rows::default()) };
        let fields = scan.projected_schema.fields();
        // What policies leave of the table is a plan of its own.
        let reading = self.inside.map_or_else(|| self.next_reading(), |(_, reading)| reading);
        let inside = Lineage { inside: Some((table, reading)), ..*self };
        let below = barrier_of(&scan.source, |barrier| {
            let plan = barrier.plan();
            let names = plan.schema().fields().iter().map(|field| field.name().clone());
            let ids = || table.columns.iter().map(|(column, _)| column.clone());
            let masked: BTreeSet<String> = ids().filter(|column| barrier.masks(column)).collect();
            let apart: BTreeSet<String> =
                ids().filter(|column| barrier.stands_in(column)).collect();
            inside.of(plan).map(|rows| (names.collect::<Vec<_>>(), [masked, apart], rows))
        });
        if let Some(below) = below {
            let (names, [masked, apart], rows) = below?;
            let column = |name: &String| {
                // The ids of a table that keeps identifiers apart are the pseudonyms.
                if apart.contains(name) {
                    return table.held(name, reading);
                }
                let at = names.iter().position(|known| known == name);
                let held = at.and_then(|at| rows.columns.get(at)).cloned();
                let mut held = held.unwrap_or_default();
                // What stands in the place of ids may be computed of something else.
                if masked.contains(name) && !held.ids.iter().any(|ids| ids.reading == reading) {
                    held.lost.extend(table.held(name, reading).ids.into_iter().map(Ids::hidden));
                }
                held
            };
            let columns = fields.iter().map(|field| column(field.name())).collect();
            return Ok(Rows { columns, persons: rows.persons });
        }
        let columns = fields.iter().map(|field| table.held(field.name(), reading));
        let readings = BTreeSet::from([(reading, table.name.clone())]);
        let persons = Persons { readings, ..Persons::default() };
        Ok(Rows { columns: columns.collect(), persons })
    }

    fn next_reading(&self) -> usize {
        let reading = self.readings.get() + 1;
        self.readings.set(reading);
        reading
    }

    /// The table with ids that a scan reads.
    fn read(&self, scan: &TableScan) -> Option<&'a Keyed> {
        let provider = source_as_provider(&scan.source).ok()?;
        let found = self
            .tables
            .iter()
            .find(|table| table.providers.iter().any(|known| Arc::ptr_eq(known, &provider)));
        found.or(self.inside.map(|(table, _)| table))
    }

    fn projected(&self, input: &LogicalPlan, exprs: &[Expr]) -> Result<Rows> {
        let Rows { columns: from, mut persons } = self.asked(input, exprs)?;
        let mut columns = Vec::with_capacity(exprs.len());
        for expr in exprs {
            columns.push(self.made(expr, input.schema(), &from, &mut persons)?);
        }
        Ok(Rows { columns, persons })
    }

    fn filtered(&self, node: &Filter) -> Result<Rows> {
        let mut rows = self.asked(&node.input, [&node.predicate])?;
        let Rows { columns, persons } = &mut rows;
        self.equal(&node.predicate, node.input.schema(), columns, persons, &|_| true);
        Ok(rows)
    }

    /// Rows that the query writes, of whose values some may be of sub-queries.
    fn listed(&self, node: &Values) -> Result<Rows> {
        let mut persons = Persons::default();
        let mut columns = vec![Held::default(); node.schema.fields().len()];
        for row in &node.values {
            for (held, value) in columns.iter_mut().zip(row) {
                held.add(self.made(value, &node.schema, &[], &mut persons)?);
            }
        }
        Ok(Rows { columns, persons })
    }

    fn united<'b>(&self, inputs: impl Iterator<Item = &'b LogicalPlan>) -> Result<Rows> {
        let mut all = Rows::default();
        for input in inputs {
            let rows = self.of(input)?;
            let width = all.columns.len().max(rows.columns.len());
            all.columns.resize(width, Held::default());
            all.columns.iter_mut().zip(rows.columns).for_each(|(held, other)| held.add(other));
            all.persons.add(rows.persons);
        }
        Ok(all)
    }

    /// A group is one person's where it is made by an id. Groups without any aggregate are the
    /// rows, each of them once; those by personal data are persons', as an address is its owner's.
    fn aggregated(&self, node: &Aggregate, width: usize) -> Result<Rows> {
        let exprs = node.group_expr.iter().chain(&node.aggr_expr);
        let Rows { columns: from, mut persons } = self.asked(&node.input, exprs)?;
        let schema = node.input.schema();
        let mut columns = Vec::with_capacity(width);
        for key in &node.group_expr {
            let parts = match key {
                Expr::GroupingSet(set) => set.distinct_expr(),
                plain => vec![plain],
            };
            for part in parts {
                columns.push(self.made(part, schema, &from, &mut persons)?);
            }
        }
        let groups = width.saturating_sub(node.aggr_expr.len());
        columns.resize(groups, Held::default());
        let gathered = persons.readings.clone();
        persons.group(&columns);
        let nobodys: BTreeSet<(usize, ObjectName)> =
            gathered.difference(&persons.readings).cloned().collect();
        match node.aggr_expr.is_empty() {
            true => persons.readings.extend(gathered.iter().cloned()),
            false => persons.divide(&columns, &nobodys),
        }
        let mut unused = Persons::default();
        for expr in &node.aggr_expr {
            let mut held = self.made(expr, schema, &from, &mut unused)?;
            self.add_others(expr, &mut held, schema, &nobodys);
            // That there are rows, and how many, comes of them as well.
            held.readings.extend(gathered.iter().map(|(reading, _)| *reading));
            columns.push(held);
        }
        Ok(Rows { columns, persons })
    }

    fn joined(&self, node: &Join) -> Result<Rows> {
        let (mut left, mut right) = (self.of(&node.left)?, self.of(&node.right)?);
        right.persons.bind(node.left.schema(), &left.columns);
        let mut met = Persons::default();
        let width = left.columns.len();
        let mut both: Vec<Held> = left.columns.into_iter().chain(right.columns).collect();
        // In an outer join rows of one side may have met none: the other side's ids are NULL.
        let meets = |column: usize| match node.join_type {
            JoinType::Left => column >= width,
            JoinType::Right => column < width,
            JoinType::Full => false,
            _ => true,
        };
        // What is equal to an id is one.
        if let Ok(schema) = node.left.schema().join(node.right.schema()) {
            for (one, other) in &node.on {
                self.alike(one, other, &schema, &mut both, &mut met, &meets);
            }
            if let Some(filter) = &node.filter {
                self.equal(filter, &schema, &mut both, &mut met, &meets);
            }
        }
        left.persons.add(met.clone());
        right.persons.add(met);
        let of_right = both.split_off(width.min(both.len()));
        Ok(match node.join_type {
            // Whoever is met by a value that is there has it too.
            JoinType::LeftSemi => {
                left.persons.add(right.persons);
                Rows { columns: both, persons: left.persons }
            }
            JoinType::RightSemi => {
                right.persons.add(left.persons);
                Rows { columns: of_right, persons: right.persons }
            }
            JoinType::LeftAnti => Rows { columns: both, persons: left.persons },
            JoinType::RightAnti => Rows { columns: of_right, persons: right.persons },
            JoinType::LeftMark => {
                both.push(Held::default());
                Rows { columns: both, persons: left.persons }
            }
            JoinType::RightMark => {
                let columns = of_right.into_iter().chain([Held::default()]).collect();
                Rows { columns, persons: right.persons }
            }
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                both.extend(of_right);
                left.persons.add(right.persons);
                Rows { columns: both, persons: left.persons }
            }
        })
    }

    /// Our own nodes: private and anonymized rows are nobody's; recommendations are their users'.
    fn extended(&self, plan: &LogicalPlan, node: &Extension) -> Result<Rows> {
        let any = node.node.as_any();
        if any.downcast_ref::<NearestNode>().is_some() {
            return self.side_by_side(plan);
        }
        let mut rows = self.named_alike(plan)?;
        if let Some(recommend) = any.downcast_ref::<RecommendNode>() {
            let users = match plan.inputs().first() {
                Some(users) => self.of(users)?,
                None => Rows::default(),
            };
            let mut user = users.columns.into_iter().next().unwrap_or_default();
            let mut persons = users.persons;
            let model = recommend.model();
            let reading = self.next_reading();
            let ids = self.models.ids(model, &model.manifest.user_col, reading);
            if user.ids.is_empty()
                && let Some(origin) = ids.first().map(Ids::origin)
            {
                let readings = persons.readings.iter();
                persons.told_by.extend(readings.map(|(reading, _)| (*reading, origin.clone())));
                persons.readings.insert((reading, model.name.clone()));
                user.readings.insert(reading);
                user.ids = ids;
            }
            for held in &mut rows.columns {
                held.readings.extend(persons.readings.iter().map(|(reading, _)| *reading));
            }
            rows.persons = persons;
            if let Some(column) = rows.columns.first_mut() {
                *column = user;
            }
        }
        if any.downcast_ref::<AnonymizeNode>().is_some()
            || any.downcast_ref::<EvaluateNode>().is_some()
            || any.downcast_ref::<PrivateNode>().is_some()
        {
            rows.persons.readings.clear();
            rows.columns.iter_mut().for_each(|held| held.others.clear());
        }
        Ok(rows)
    }

    /// The columns of all inputs by their places, whatever they are called, and columns behind them
    /// that are computed of everything.
    fn side_by_side(&self, plan: &LogicalPlan) -> Result<Rows> {
        let mut rows = Rows::default();
        for input in plan.inputs() {
            let below = self.of(input)?;
            rows.columns.extend(below.columns);
            rows.persons.add(below.persons);
        }
        let readings = rows.columns.iter().flat_map(|held| &held.readings).copied().collect();
        let computed = Held { readings, ..Held::default() };
        rows.columns.resize(plan.schema().fields().len(), computed);
        Ok(rows)
    }

    /// A node of which is not known what it computes: a column may be any of its name below, and
    /// comes of everything.
    fn named_alike(&self, plan: &LogicalPlan) -> Result<Rows> {
        let fields = plan.schema().fields();
        let mut rows = Rows { columns: vec![Held::default(); fields.len()], ..Rows::default() };
        let mut readings = BTreeSet::new();
        for input in plan.inputs() {
            let below = self.of(input)?;
            for (held, field) in rows.columns.iter_mut().zip(fields) {
                let same = input.schema().fields().iter().zip(&below.columns);
                let same = same.filter(|(of, _)| of.name() == field.name());
                same.for_each(|(_, other)| held.add(other.clone()));
            }
            readings.extend(below.columns.into_iter().flat_map(|column| column.readings));
            rows.persons.add(below.persons);
        }
        rows.columns.iter_mut().for_each(|held| held.readings.extend(&readings));
        Ok(rows)
    }

    /// What a condition says to be equal holds the same ids, and values of the same rows. `meets`
    /// tells whether rows of the table that a column is of are there only where the condition
    /// holds.
    fn equal(
        &self,
        condition: &Expr,
        schema: &DFSchema,
        columns: &mut [Held],
        persons: &mut Persons,
        meets: &dyn Fn(usize) -> bool,
    ) {
        for part in split_conjunction(condition) {
            if let Expr::BinaryExpr(binary) = part
                && binary.op == Operator::Eq
            {
                self.alike(&binary.left, &binary.right, schema, columns, persons, meets);
            }
        }
    }

    fn alike(
        &self,
        one: &Expr,
        other: &Expr,
        schema: &DFSchema,
        columns: &mut [Held],
        persons: &mut Persons,
        meets: &dyn Fn(usize) -> bool,
    ) {
        let place = |expr: &Expr| schema.maybe_index_of_column(column_of(expr)?);
        let held = |at: usize| columns.get(at).cloned().unwrap_or_default();
        let kept = |held: &Held| -> BTreeSet<Ids> {
            let ids = held.ids.iter().filter(|ids| !held.is_replaced(ids) && !ids.is_partial);
            ids.cloned().collect()
        };
        let is_same = are_compared_as_ids(one, other, schema);
        let (one, other) = match (place(one), place(other)) {
            (Some(one), Some(other)) => (one, other),
            (Some(inner), None) if meets(inner) && is_same => {
                return persons.are_outer(&kept(&held(inner)), other);
            }
            (None, Some(inner)) if meets(inner) && is_same => {
                return persons.are_outer(&kept(&held(inner)), one);
            }
            _ => return,
        };
        let (of_one, of_other) = (held(one), held(other));
        // Of ids that are compared as another type several may be equal to one.
        let (lefts, rights) = match is_same {
            true => (kept(&of_one), kept(&of_other)),
            false => (BTreeSet::new(), BTreeSet::new()),
        };
        let (one_meets, other_meets) = (meets(one), meets(other));
        for left in &lefts {
            for right in rights.iter().filter(|right| right.subject == left.subject) {
                if other_meets {
                    let by_left = self.origins(left).into_iter();
                    persons.told_by.extend(by_left.map(|origin| (right.reading, origin)));
                }
                if one_meets {
                    let by_right = self.origins(right).into_iter();
                    persons.told_by.extend(by_right.map(|origin| (left.reading, origin)));
                }
            }
        }
        for (at, equal, meet) in [(one, of_other, other_meets), (other, of_one, one_meets)] {
            if let Some(held) = columns.get_mut(at).filter(|_| meet) {
                let ids = equal.ids.into_iter();
                match is_same {
                    true => held.ids.extend(ids),
                    // Whose an id is that the column has is known; by another one nobody is found.
                    false if held.ids.is_empty() => held.ids.extend(ids.map(Ids::hidden)),
                    false => {}
                }
                held.replaced.extend(equal.replaced);
                held.personal.extend(equal.personal);
                // A value that is of a person's row anyway is that person's.
                if one_meets && other_meets && held.readings.is_empty() {
                    held.readings = equal.readings;
                }
            }
        }
    }

    /// Where ids of the same person come of: where these do and, in a crosswalk or a copy of one,
    /// the other columns.
    fn origins(&self, ids: &Ids) -> Vec<(usize, String)> {
        let tables = self.tables.iter().filter(|table| table.name == ids.from.table);
        let beside: Vec<&(String, Ids)> = tables
            .flat_map(|table| &table.columns)
            .filter(|(_, known)| known.subject == ids.subject && !known.is_partial)
            .collect();
        let subjects = self.models.subjects.iter();
        let mut subjects = subjects.filter(|subject| subject.name == ids.subject);
        let is_crosswalk =
            subjects.any(|subject| beside.iter().any(|(_, known)| subject.is_entity(&known.root)));
        let mut origins = vec![ids.origin()];
        if is_crosswalk {
            origins.extend(beside.iter().map(|(column, _)| (ids.reading, column.clone())));
        }
        origins
    }
}

/// Whether a window is over rows of one person: it is divided by the ids that it gives.
fn is_of_one(window: &Expr, given: &Held, schema: &DFSchema, from: &[Held]) -> bool {
    let call = match window {
        Expr::Alias(alias) => return is_of_one(&alias.expr, given, schema, from),
        Expr::WindowFunction(call) => call,
        _ => return false,
    };
    let place = |by: &Expr| schema.maybe_index_of_column(column_of(by)?);
    let by = call.params.partition_by.iter().filter(|by| tells_apart(by, schema));
    let mut divided = by.filter_map(|by| from.get(place(by)?));
    divided.any(|held| {
        let tells = |by: &Ids, ids: &Ids| by.reading == ids.reading && !by.is_partial;
        let is_told = |ids: &Ids| held.ids.iter().any(|by| tells(by, ids));
        !held.is_of_others && given.ids.iter().all(is_told)
    })
}

/// Whether two sides that are equal are the same id: none is compared as a type in which several
/// ids are one, as `'7'` and `'007'` are one number.
fn are_compared_as_ids(one: &Expr, other: &Expr, schema: &DFSchema) -> bool {
    let (Ok(of_one), Ok(of_other)) = (one.get_type(schema), other.get_type(schema)) else {
        return false;
    };
    are_same_ids(&of_one, &of_other)
        && are_same_ids(&of_other, &of_one)
        && tells_apart(one, schema)
        && tells_apart(other, schema)
}

/// Whether a column, however it is cast, tells its ids apart.
fn tells_apart(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Alias(alias) => tells_apart(&alias.expr, schema),
        Expr::Cast(cast) => {
            let from = cast.expr.get_type(schema);
            from.is_ok_and(|from| are_same_ids(&from, cast.field.data_type()))
                && tells_apart(&cast.expr, schema)
        }
        _ => true,
    }
}

pub(super) fn column_of(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => column_of(&alias.expr),
        Expr::Cast(cast) => column_of(&cast.expr),
        _ => None,
    }
}

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod tests;
