//! Which columns of a plan may hold ids of persons, and whether its rows are of single persons.
//!
//! Ids are followed through renaming, casts between text and integers, CASE, COALESCE, MIN, MAX and
//! joins on them; what a function makes of ids that stays an id of the same person (`lower`,
//! `pseudonymize`, …) is remembered as what was done. What is made of ids in another way holds
//! them still (a list of ids, a ciphertext), which is remembered too, or none of them (a length).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use catalog::ObjectName;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, Extension, Filter, Join, LogicalPlan, Operator,
    TableScan,
};

use super::ids::{CASTING, CHOOSING, Held, Ids, called, cast_to, gathered};
use crate::anonymize::AnonymizeNode;
use crate::model::evaluate::EvaluateNode;
use crate::model::recommend::RecommendNode;
use crate::policy::barrier::barrier_of;
use crate::private::PrivateNode;

/// What the rows of a plan are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) columns: Vec<Held>,
    /// The tables with keys of which each row is one row, or of one person.
    pub(super) persons: BTreeSet<ObjectName>,
}

/// A table with ids, as the statement reads it.
pub(super) struct Keyed {
    pub(super) name: ObjectName,
    /// What stands for it in plans.
    pub(super) providers: Vec<Arc<dyn TableProvider>>,
    /// Its columns that hold ids.
    pub(super) columns: Vec<(String, Ids)>,
}

/// Follows ids through plans.
#[derive(Clone, Copy)]
pub(super) struct Lineage<'a> {
    tables: &'a [Keyed],
    /// Every subject: of each, a model's users may be persons.
    subjects: &'a [String],
    /// The ids of keys' first generations.
    keys: &'a BTreeMap<String, String>,
    /// The table that is read below its policies, where a plan is of these.
    inside: Option<&'a Keyed>,
}

impl<'a> Lineage<'a> {
    pub(super) fn new(
        tables: &'a [Keyed],
        subjects: &'a [String],
        keys: &'a BTreeMap<String, String>,
    ) -> Self {
        Self { tables, subjects, keys, inside: None }
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
            LogicalPlan::Window(node) => {
                let mut rows = self.of(&node.input)?;
                let from = rows.columns.clone();
                for expr in &node.window_expr {
                    let schema = node.input.schema();
                    let made = self.made(expr, schema, &from, &mut rows.persons)?;
                    rows.columns.push(made);
                }
                rows
            }
            LogicalPlan::Distinct(Distinct::On(on)) => {
                self.projected(&on.input, &on.select_expr)?
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

    fn scanned(&self, scan: &TableScan) -> Result<Rows> {
        let Some(table) = self.read(scan) else { return Ok(Rows::default()) };
        let fields = scan.projected_schema.fields();
        // What policies leave of the table is a plan of its own.
        let inside = Lineage { inside: Some(table), ..*self };
        let below = barrier_of(&scan.source, |barrier| {
            let plan = barrier.plan();
            let names = plan.schema().fields().iter().map(|field| field.name().clone());
            inside.of(plan).map(|rows| (names.collect::<Vec<_>>(), rows))
        });
        if let Some(below) = below {
            let (names, rows) = below?;
            let column = |name: &String| {
                let at = names.iter().position(|known| known == name);
                at.and_then(|at| rows.columns.get(at)).cloned().unwrap_or_default()
            };
            let columns = fields.iter().map(|field| column(field.name())).collect();
            return Ok(Rows { columns, persons: rows.persons });
        }
        let columns = fields.iter().map(|field| {
            let ids = table.columns.iter().filter(|(column, _)| column == field.name());
            Held {
                ids: ids.map(|(_, ids)| ids.clone()).collect(),
                tables: BTreeSet::from([table.name.clone()]),
            }
        });
        let persons = BTreeSet::from([table.name.clone()]);
        Ok(Rows { columns: columns.collect(), persons })
    }

    /// The table with ids that a scan reads.
    fn read(&self, scan: &TableScan) -> Option<&'a Keyed> {
        let provider = source_as_provider(&scan.source).ok()?;
        let found = self
            .tables
            .iter()
            .find(|table| table.providers.iter().any(|known| Arc::ptr_eq(known, &provider)));
        found.or(self.inside)
    }

    fn projected(&self, input: &LogicalPlan, exprs: &[Expr]) -> Result<Rows> {
        let Rows { columns: from, mut persons } = self.of(input)?;
        let mut columns = Vec::with_capacity(exprs.len());
        for expr in exprs {
            columns.push(self.made(expr, input.schema(), &from, &mut persons)?);
        }
        Ok(Rows { columns, persons })
    }

    fn filtered(&self, node: &Filter) -> Result<Rows> {
        let mut rows = self.of(&node.input)?;
        equal(&node.predicate, node.input.schema(), &mut rows.columns);
        Ok(rows)
    }

    fn united<'b>(&self, inputs: impl Iterator<Item = &'b LogicalPlan>) -> Result<Rows> {
        let mut all = Rows::default();
        for input in inputs {
            let rows = self.of(input)?;
            let width = all.columns.len().max(rows.columns.len());
            all.columns.resize(width, Held::default());
            all.columns.iter_mut().zip(rows.columns).for_each(|(held, other)| held.add(other));
            all.persons.extend(rows.persons);
        }
        Ok(all)
    }

    /// A group is one person's where it is made by an id.
    fn aggregated(&self, node: &Aggregate, width: usize) -> Result<Rows> {
        let Rows { columns: from, mut persons } = self.of(&node.input)?;
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
        let subjects: BTreeSet<&str> =
            columns.iter().flat_map(|held| &held.ids).map(|ids| ids.subject.as_str()).collect();
        let gathered = persons.clone();
        persons.retain(|table| self.has_ids_of(table, &subjects));
        let mut unused = BTreeSet::new();
        for expr in &node.aggr_expr {
            let mut held = self.made(expr, schema, &from, &mut unused)?;
            // That there are rows, and how many, comes of them as well.
            held.tables.extend(gathered.iter().cloned());
            columns.push(held);
        }
        Ok(Rows { columns, persons })
    }

    fn has_ids_of(&self, table: &ObjectName, subjects: &BTreeSet<&str>) -> bool {
        let of_table = self.tables.iter().filter(|keyed| keyed.name == *table);
        let mut ids = of_table.flat_map(|keyed| &keyed.columns).map(|(_, ids)| ids);
        ids.any(|ids| subjects.contains(ids.subject.as_str()))
    }

    fn joined(&self, node: &Join) -> Result<Rows> {
        let (left, right) = (self.of(&node.left)?, self.of(&node.right)?);
        let width = left.columns.len();
        let mut both: Vec<Held> = left.columns.into_iter().chain(right.columns).collect();
        // What is equal to an id is one.
        if let Ok(schema) = node.left.schema().join(node.right.schema()) {
            for (one, other) in &node.on {
                alike(one, other, &schema, &mut both);
            }
            if let Some(filter) = &node.filter {
                equal(filter, &schema, &mut both);
            }
        }
        let of_right = both.split_off(width.min(both.len()));
        Ok(match node.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => {
                Rows { columns: both, persons: left.persons }
            }
            JoinType::RightSemi | JoinType::RightAnti => {
                Rows { columns: of_right, persons: right.persons }
            }
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
                let persons = left.persons.union(&right.persons).cloned().collect();
                Rows { columns: both, persons }
            }
        })
    }

    /// Our own nodes: private and anonymized rows are nobody's; recommendations are their users'.
    fn extended(&self, plan: &LogicalPlan, node: &Extension) -> Result<Rows> {
        let mut rows = self.named_alike(plan)?;
        let any = node.node.as_any();
        if let Some(recommend) = any.downcast_ref::<RecommendNode>() {
            let users = match plan.inputs().first() {
                Some(users) => self.of(users)?,
                None => Rows::default(),
            };
            let mut user = users.columns.into_iter().next().unwrap_or_default();
            if user.ids.is_empty() {
                let key = recommend.users();
                user.ids =
                    self.subjects.iter().map(|subject| Ids::of_users(subject, &key)).collect();
            }
            rows.persons = users.persons;
            if let Some(column) = rows.columns.first_mut() {
                *column = user;
            }
        }
        if any.downcast_ref::<AnonymizeNode>().is_some()
            || any.downcast_ref::<EvaluateNode>().is_some()
            || any.downcast_ref::<PrivateNode>().is_some()
        {
            rows.persons.clear();
        }
        Ok(rows)
    }

    /// A node of which is not known what it computes: a column may be any of its name below, and
    /// comes of everything.
    fn named_alike(&self, plan: &LogicalPlan) -> Result<Rows> {
        let fields = plan.schema().fields();
        let mut rows = Rows { columns: vec![Held::default(); fields.len()], ..Rows::default() };
        let mut tables = BTreeSet::new();
        for input in plan.inputs() {
            let below = self.of(input)?;
            for (held, field) in rows.columns.iter_mut().zip(fields) {
                let same = input.schema().fields().iter().zip(&below.columns);
                let same = same.filter(|(of, _)| of.name() == field.name());
                same.for_each(|(_, other)| held.add(other.clone()));
            }
            tables.extend(below.columns.into_iter().flat_map(|column| column.tables));
            rows.persons.extend(below.persons);
        }
        rows.columns.iter_mut().for_each(|held| held.tables.extend(tables.iter().cloned()));
        Ok(rows)
    }

    /// What an expression comes of; sub-queries that give values add to `persons`.
    fn made(
        &self,
        expr: &Expr,
        schema: &DFSchema,
        from: &[Held],
        persons: &mut BTreeSet<ObjectName>,
    ) -> Result<Held> {
        let all = |parts: &[&Expr], persons: &mut BTreeSet<ObjectName>| {
            let mut held = Held::default();
            for part in parts {
                held.add(self.made(part, schema, from, persons)?);
            }
            Ok::<_, datafusion::error::DataFusionError>(held)
        };
        match expr {
            Expr::Alias(alias) => self.made(&alias.expr, schema, from, persons),
            Expr::Column(column) => Ok(named(column, schema, from)),
            Expr::Cast(cast) => {
                let held = self.made(&cast.expr, schema, from, persons)?;
                Ok(cast_to(held, &cast.expr, schema, cast.field.data_type()))
            }
            Expr::TryCast(cast) => {
                let held = self.made(&cast.expr, schema, from, persons)?;
                Ok(cast_to(held, &cast.expr, schema, cast.field.data_type()))
            }
            Expr::Case(case) => {
                let values = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
                let values: Vec<&Expr> = values.chain(case.else_expr.as_deref()).collect();
                all(&values, persons)
            }
            Expr::ScalarFunction(call) => {
                let args: Vec<&Expr> = call.args.iter().collect();
                match call.func.name() {
                    name if CHOOSING.contains(&name) => all(&args, persons),
                    name if CASTING.contains(&name) => {
                        let Some(value) = call.args.first() else { return Ok(Held::default()) };
                        let held = self.made(value, schema, from, persons)?;
                        let to = expr.get_type(schema).unwrap_or(DataType::Null);
                        Ok(cast_to(held, value, schema, &to))
                    }
                    name => Ok(called(name, &call.args, all(&args, persons)?, self.keys)),
                }
            }
            Expr::AggregateFunction(call) => {
                let args: Vec<&Expr> = call.params.args.iter().collect();
                Ok(gathered(call.func.name(), all(&args, persons)?))
            }
            Expr::WindowFunction(call) => {
                let args: Vec<&Expr> = call.params.args.iter().collect();
                Ok(gathered(call.fun.name(), all(&args, persons)?))
            }
            Expr::ScalarSubquery(sub) => {
                let rows = self.of(&sub.subquery)?;
                persons.extend(rows.persons);
                let mut held = rows.columns.into_iter().next().unwrap_or_default();
                for outer in &sub.outer_ref_columns {
                    if let Expr::OuterReferenceColumn(_, column) = outer {
                        held.tables.extend(named(column, schema, from).tables);
                    }
                }
                Ok(held)
            }
            Expr::Unnest(unnest) => self.made(&unnest.expr, schema, from, persons),
            other => self.mixed(other, schema, from, persons),
        }
    }

    /// What is computed in another way: no id is left, and what it comes of is.
    fn mixed(
        &self,
        expr: &Expr,
        schema: &DFSchema,
        from: &[Held],
        persons: &mut BTreeSet<ObjectName>,
    ) -> Result<Held> {
        let mut held = Held::default();
        expr.apply(|part| {
            match part {
                Expr::Column(column) => held.add(named(column, schema, from)),
                // Which column of a query around it is, is not looked for: all may be.
                Expr::OuterReferenceColumn(..) => {
                    from.iter().cloned().for_each(|outer| held.add(outer));
                }
                Expr::ScalarSubquery(sub) => {
                    let rows = self.of(&sub.subquery)?;
                    persons.extend(rows.persons);
                    rows.columns.into_iter().for_each(|inner| held.add(inner));
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(held.without_ids())
    }
}

/// What a named column comes of. Where the name says no more it may be anything, of which no ids
/// can be looked for.
fn named(column: &Column, schema: &DFSchema, from: &[Held]) -> Held {
    let found = schema.maybe_index_of_column(column).and_then(|at| from.get(at));
    found.cloned().unwrap_or_else(|| {
        let mut all = Held::default();
        from.iter().cloned().for_each(|held| all.add(held));
        all.each(Ids::hidden)
    })
}

/// What a condition says to be equal holds the same ids.
fn equal(condition: &Expr, schema: &DFSchema, columns: &mut [Held]) {
    for part in split_conjunction(condition) {
        if let Expr::BinaryExpr(binary) = part
            && binary.op == Operator::Eq
        {
            alike(&binary.left, &binary.right, schema, columns);
        }
    }
}

fn alike(one: &Expr, other: &Expr, schema: &DFSchema, columns: &mut [Held]) {
    let place = |expr: &Expr| schema.maybe_index_of_column(column_of(expr)?);
    let (Some(one), Some(other)) = (place(one), place(other)) else { return };
    let ids = |at: usize| columns.get(at).map(|held| held.ids.clone()).unwrap_or_default();
    let mut both = ids(one);
    both.extend(ids(other));
    for at in [one, other] {
        if let Some(held) = columns.get_mut(at) {
            held.ids.clone_from(&both);
        }
    }
}

fn column_of(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => column_of(&alias.expr),
        Expr::Cast(cast) => column_of(&cast.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use catalog::subject_copies::Transformation;
    use catalog::subjects::SubjectKey;
    use datafusion::datasource::{MemTable, provider_as_source};
    use datafusion::functions::expr_fn::{btrim, char_length, concat, lower, sha256};
    use datafusion::functions_aggregate::expr_fn::{array_agg, count, max};
    use datafusion::logical_expr::{LogicalPlanBuilder, cast, col, lit, when};

    use super::*;

    /// `crm (id, name, n)` with the key `id`, and `orders (customer, item)` without.
    struct Tables(Vec<Keyed>, Arc<dyn TableProvider>);

    fn provider(columns: &[(&str, DataType)]) -> Arc<dyn TableProvider> {
        let field = |(name, of): &(&str, DataType)| Field::new(*name, of.clone(), true);
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        Arc::new(MemTable::try_new(Arc::new(schema), vec![vec![]]).unwrap())
    }

    impl Tables {
        fn new() -> Self {
            let text = DataType::Utf8;
            let crm =
                provider(&[("id", text.clone()), ("name", text.clone()), ("n", DataType::Int64)]);
            let name = ObjectName::new("main", "crm");
            let key = SubjectKey { table: name.clone(), column: "id".into() };
            let columns = vec![("id".to_owned(), Ids::of("person", &key))];
            let orders = provider(&[("customer", text.clone()), ("item", text)]);
            Self(vec![Keyed { name, providers: vec![crm], columns }], orders)
        }

        fn crm(&self) -> LogicalPlanBuilder {
            let table = Arc::clone(&self.0[0].providers[0]);
            LogicalPlanBuilder::scan("crm", provider_as_source(table), None).unwrap()
        }

        fn orders(&self) -> LogicalPlanBuilder {
            let table = provider_as_source(Arc::clone(&self.1));
            LogicalPlanBuilder::scan("orders", table, None).unwrap()
        }

        fn rows(&self, plan: LogicalPlanBuilder) -> Rows {
            let (subjects, keys) = (["person".to_owned()], BTreeMap::new());
            Lineage::new(&self.0, &subjects, &keys).of(&plan.build().unwrap()).unwrap()
        }

        /// What was done to the ids in each column of rows of `crm`, which are its persons' or not.
        fn made(&self, exprs: Vec<Expr>) -> Vec<Option<Option<Vec<Transformation>>>> {
            let rows = self.rows(self.crm().project(exprs).unwrap());
            assert_eq!(rows.persons.len(), 1);
            by(&rows)
        }
    }

    fn by(rows: &Rows) -> Vec<Option<Option<Vec<Transformation>>>> {
        let first = |held: &Held| held.ids.first().map(|ids| ids.by.clone());
        rows.columns.iter().map(first).collect()
    }

    fn text(text: &str) -> Option<Option<Vec<Transformation>>> {
        Some(Some(vec![Transformation::Expression(text.into())]))
    }

    const PLAIN: Option<Option<Vec<Transformation>>> = Some(Some(vec![]));

    #[test]
    fn what_was_done_to_ids_is_told_as_one_expression() {
        let tables = Tables::new();
        let chosen = when(col("n").gt(lit(1)), col("id")).otherwise(lit("nobody")).unwrap();
        let made = tables.made(vec![
            col("id").alias("renamed"),
            chosen,
            lower(btrim(vec![col("id")])),
            concat(vec![lit("it's "), lower(col("id"))]),
            cast(col("id"), DataType::Int64),
            cast(cast(col("id"), DataType::Int64), DataType::Utf8),
        ]);
        assert_eq!(
            made,
            [
                PLAIN,
                PLAIN,
                text("lower(btrim(id))"),
                text("concat('it''s ', lower(id))"),
                text("arrow_try_cast(id, 'Int64')"),
                text("arrow_try_cast(id, 'Int64')"),
            ]
        );
        let made = tables.made(vec![
            col("name"),
            char_length(col("id")),
            lower(col("name")),
            concat(vec![col("id"), col("name")]),
            sha256(lower(col("id"))),
        ]);
        assert_eq!(made, [None, None, None, Some(None), text("sha256(lower(id))")]);
    }

    #[test]
    fn groups_are_of_single_persons_where_an_id_makes_them() {
        let tables = Tables::new();
        let grouped = |by: Vec<Expr>, of: Expr| tables.crm().aggregate(by, vec![of]).unwrap();
        let cities = tables.rows(grouped(vec![col("name")], count(col("id"))));
        assert_eq!((by(&cities), cities.persons.len()), (vec![None, None], 0));
        let each = tables.rows(grouped(vec![lower(col("id"))], max(col("n"))));
        assert_eq!((by(&each), each.persons.len()), (vec![text("lower(id)"), None], 1));
        let largest = tables.rows(grouped(vec![col("name")], max(col("id"))));
        assert_eq!((by(&largest), largest.persons.len()), (vec![None, PLAIN], 0));
        let lists = tables.rows(grouped(vec![], array_agg(col("id"))));
        assert_eq!((by(&lists), lists.persons.len()), (vec![Some(None)], 0));
    }

    #[test]
    fn what_is_equal_to_an_id_or_united_with_one_is_one() {
        let tables = Tables::new();
        let on = vec![col("orders.customer").eq(col("crm.id"))];
        let joined = tables.orders().join_on(tables.crm().build().unwrap(), JoinType::Left, on);
        let rows = tables.rows(joined.unwrap());
        assert_eq!(by(&rows), [PLAIN, None, PLAIN, None, None]);
        assert_eq!(rows.persons.len(), 1);
        let ids = tables.crm().project(vec![col("id")]).unwrap().build().unwrap();
        let items = tables.orders().project(vec![col("item")]).unwrap();
        let rows = tables.rows(items.union(ids).unwrap());
        assert_eq!((by(&rows), rows.persons.len()), (vec![PLAIN], 1));
        let alone = tables.orders().project(vec![col("customer")]).unwrap();
        assert_eq!(tables.rows(alone), Rows { columns: vec![Held::default()], ..Rows::default() });
    }
}
