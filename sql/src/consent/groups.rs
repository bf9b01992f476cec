//! Whether rows of groups are nobody's: whether nothing of a policy's persons is left in them.
//!
//! Groups are persons' where a key is made of the column of persons, whatever else is a key and
//! whether the key is shown: `GROUP BY listener, song` gives single rows again. They are as well
//! where an aggregate gives a value of a row of theirs that is made of that column: of one row,
//! `max(listener)` is that row's. Counts, sums and means tell of all rows of a group together.
//! Groups without any aggregate are the rows, each of them once, as those of DISTINCT are
//! ([`super::listed`]).
//!
//! Columns of the governed table that hold personal data, as their tags say, tell persons apart as
//! that column does: groups by an address are its owner's.
//!
//! A column is made of persons through renaming, expressions, sub-queries and groups, and where a
//! condition compares it with one that is, also one of a sub-query or of a lateral query. Of
//! models, their users and records are persons.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Extension, Join, LogicalPlan, Subquery, TableScan,
};

use super::compared::{
    Compared, beneath, comparisons, conditions, is_lateral, mark, outer_columns, reached,
    shows_both, subqueries,
};
use super::lineage::consented;
use crate::anonymize::AnonymizeNode;
use crate::model::answers::Answers;
use crate::model::evaluate::EvaluateNode;
use crate::model::recommend::RecommendNode;
use crate::policy::barrier::barrier_of;
use crate::private::PrivateNode;
use crate::subject::{LISTING_USERS, OF_USERS};
use crate::subqueries::subquery;

/// Aggregates that tell of all rows of a group together. Those that are not here may give a value
/// of a single one.
const TOGETHER: [&str; 28] = [
    "approx_distinct",
    "avg",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "duplicate_count",
    "grouping",
    "k_anonymity",
    "l_diversity",
    "l_diversity_entropy",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "sum",
    "t_closeness",
    "var",
    "var_pop",
];

/// The column of a model of entities that says which records are of one person.
const ENTITY: &str = "entity_id";

/// How many queries deep is looked; what lies deeper is taken for persons.
const DEPTH_MAX: usize = 6;

/// Whether an aggregate tells of all rows of a group together, and gives the value of none.
pub(crate) fn tells_together(aggregate: &str) -> bool {
    TOGETHER.contains(&aggregate)
}

/// Which columns with personal data count as the column of persons does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Personal<'a> {
    All,
    Only(&'a str),
    No,
}

/// Looks in plans for what is made of the persons of a policy.
#[derive(Clone, Copy)]
pub(super) struct Groups<'a> {
    policy: &'a str,
    personal: Personal<'a>,
    /// Of a plan within a query: the rows of that.
    around: Option<&'a Around<'a>>,
}

/// The rows of a query around another.
struct Around<'a> {
    schema: &'a DFSchema,
    /// Which of its columns are made of persons.
    made: &'a [bool],
    beyond: Option<&'a Around<'a>>,
    /// How many queries are around these.
    depth: usize,
}

impl<'a> Groups<'a> {
    pub(super) fn of(policy: &'a str) -> Self {
        Self::counting(policy, Personal::All)
    }

    /// The same, where not all columns with personal data count.
    pub(super) fn counting(policy: &'a str, personal: Personal<'a>) -> Self {
        Self { policy, personal, around: None }
    }

    /// The policy whose persons are looked for.
    pub(super) fn policy(&self) -> &'a str {
        self.policy
    }

    /// Whether all rows of a plan are of groups, and these are nobody's.
    pub(super) fn are_all(&self, plan: &LogicalPlan) -> bool {
        self.are_grouped(plan) && !self.are_listed(plan)
    }

    fn are_grouped(&self, plan: &LogicalPlan) -> bool {
        match plan {
            LogicalPlan::Aggregate(node) => {
                let (keys, values) = self.grouped(node);
                let are_rows = node.aggr_expr.is_empty() && !self.are_all(&node.input);
                let is_made = keys.contains(&true) || values.contains(&true);
                !are_rows && !is_made && !self.are_of_answers(node)
            }
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => true,
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Union(_) => {
                plan.inputs().into_iter().all(|input| self.are_grouped(input))
            }
            _ => false,
        }
    }

    /// Whether a column of a plan is made of persons.
    pub(super) fn are_in(&self, plan: &LogicalPlan, column: usize) -> bool {
        self.columns(plan).get(column) == Some(&true)
    }

    /// Which columns of a plan are made of persons.
    pub(super) fn columns(&self, plan: &LogicalPlan) -> Vec<bool> {
        let width = plan.schema().fields().len();
        match plan {
            LogicalPlan::TableScan(scan) => self.scanned(scan),
            LogicalPlan::Projection(node) => self.projected(&node.input, &node.expr),
            LogicalPlan::Distinct(Distinct::On(on)) => self.projected(&on.input, &on.select_expr),
            LogicalPlan::Aggregate(node) => {
                let (keys, values) = self.grouped(node);
                let shown = width.saturating_sub(values.len());
                // Sets of keys have columns of their own.
                let keys = match keys.len() == shown {
                    true => keys,
                    false => vec![keys.contains(&true); shown],
                };
                [keys, values].concat()
            }
            LogicalPlan::Window(node) => {
                let from = self.asked(&node.input, &node.window_expr);
                let made = self.each(&node.window_expr, node.input.schema(), &from);
                [from, made].concat()
            }
            LogicalPlan::Filter(node) => {
                let mut columns = self.columns(&node.input);
                let mut compared = Vec::new();
                comparisons(&node.predicate, &mut compared);
                beneath(&node.input, &mut compared);
                self.meet(&compared, node.input.schema(), &mut columns);
                columns
            }
            LogicalPlan::Join(node) => self.joined(node),
            LogicalPlan::Union(node) => {
                let parts: Vec<_> = node.inputs.iter().map(|input| self.columns(input)).collect();
                let is_made = |at: usize| parts.iter().any(|part| part.get(at) == Some(&true));
                (0..width).map(is_made).collect()
            }
            LogicalPlan::Values(node) => {
                let is_made = |at: usize| {
                    let mut values = node.values.iter().filter_map(|row| row.get(at));
                    values.any(|value| self.makes(value, &node.schema, &[]))
                };
                (0..width).map(is_made).collect()
            }
            LogicalPlan::Unnest(node) => {
                let from = self.columns(&node.input);
                let of = node.dependency_indices.iter();
                of.map(|at| from.get(*at) == Some(&true)).collect()
            }
            LogicalPlan::Extension(node) => self.extended(plan, node),
            LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Distinct(Distinct::All(_)) => match plan.inputs().as_slice() {
                [input] => self.columns(input),
                _ => vec![true; width],
            },
            _ => vec![self.is_below(plan); width],
        }
    }

    /// Whether anything below a plan is made of persons.
    fn is_below(&self, plan: &LogicalPlan) -> bool {
        plan.inputs().into_iter().any(|input| self.columns(input).contains(&true))
    }

    /// Which columns of a plan within a query are made of persons.
    fn within(&self, plan: &LogicalPlan, schema: &DFSchema, made: &[bool]) -> Vec<bool> {
        let around = self.around(schema, made);
        match around.depth < DEPTH_MAX {
            true => self.under(&around).columns(plan),
            false => vec![true; plan.schema().fields().len()],
        }
    }

    /// The same for a query within one of such rows.
    fn under<'b>(&self, around: &'b Around<'b>) -> Groups<'b>
    where
        'a: 'b,
    {
        Groups { policy: self.policy, personal: self.personal, around: Some(around) }
    }

    fn around<'b>(&'b self, schema: &'b DFSchema, made: &'b [bool]) -> Around<'b> {
        let depth = self.around.map_or(0, |around| around.depth + 1);
        Around { schema, made, beyond: self.around, depth }
    }

    /// The columns of queries around that a plan within one of them ties to persons.
    fn tied_within(&self, plan: &LogicalPlan, schema: &DFSchema, made: &[bool]) -> Vec<Column> {
        let around = self.around(schema, made);
        if around.depth >= DEPTH_MAX {
            return plan.all_out_ref_exprs().iter().flat_map(outer_columns).collect();
        }
        let mut found = Vec::new();
        self.under(&around).add_tied(plan, &mut found);
        found
    }

    /// Adds the columns of queries around that a plan compares with persons. Where it names them
    /// otherwise than in a condition they are not followed: beside persons they count as compared.
    fn add_tied(&self, plan: &LogicalPlan, found: &mut Vec<Column>) {
        match plan {
            LogicalPlan::Filter(node) => {
                let mut compared = Vec::new();
                comparisons(&node.predicate, &mut compared);
                self.add_compared(&compared, plan, node.input.schema(), found);
                self.add_tied(&node.input, found);
            }
            LogicalPlan::Join(node) => {
                let mut compared = Vec::new();
                conditions(node, &mut compared);
                self.add_compared(&compared, plan, plan.schema(), found);
                self.add_tied(&node.left, found);
                match is_lateral(node) {
                    true => {
                        let left = self.columns(&node.left);
                        found.extend(self.tied_within(&node.right, node.left.schema(), &left));
                    }
                    false => self.add_tied(&node.right, found),
                }
            }
            other => {
                let inputs = other.inputs();
                let is_own = |column: &Column| {
                    let mut schemas = inputs.iter().map(|input| input.schema());
                    schemas.any(|schema| schema.maybe_index_of_column(column).is_some())
                };
                let mut outer = Vec::new();
                for expr in other.expressions() {
                    outer.extend(outer_columns(&expr));
                    let nested = subqueries(&expr).into_iter().flat_map(reached);
                    outer.extend(nested.filter(|column| !is_own(column)));
                }
                if !outer.is_empty() && self.reads(other) {
                    found.extend(outer);
                }
                inputs.into_iter().for_each(|input| self.add_tied(input, found));
            }
        }
    }

    /// Adds the columns of queries around that conditions of a plan, over rows of a schema, compare
    /// with persons.
    fn add_compared(
        &self,
        compared: &[Compared<'_>],
        plan: &LogicalPlan,
        schema: &DFSchema,
        found: &mut Vec<Column>,
    ) {
        let all = || compared.iter().flatten();
        if all().all(|expr| outer_columns(expr).is_empty() && subqueries(expr).is_empty()) {
            return;
        }
        let columns = self.columns(plan);
        for exprs in compared {
            if exprs.iter().any(|expr| self.makes(expr, schema, &columns)) {
                found.extend(exprs.iter().flat_map(|expr| outer_columns(expr)));
            }
        }
        let nested = all().flat_map(|expr| self.tied_by(expr, schema, &columns));
        found.extend(nested.filter(|column| schema.maybe_index_of_column(column).is_none()));
    }

    /// The columns that sub-queries of an expression tie to persons.
    fn tied_by(&self, expr: &Expr, schema: &DFSchema, made: &[bool]) -> Vec<Column> {
        let subs = subqueries(expr).into_iter();
        subs.flat_map(|sub| self.tied_within(&sub.subquery, schema, made)).collect()
    }

    /// Whether a sub-query beside rows of a plan compares persons with them.
    pub(super) fn ties(&self, sub: &Subquery, rows: &LogicalPlan) -> bool {
        let made = self.columns(rows);
        !self.tied_within(&sub.subquery, rows.schema(), &made).is_empty()
    }

    fn scanned(&self, scan: &TableScan) -> Vec<bool> {
        let fields = scan.projected_schema.fields();
        let Ok(provider) = source_as_provider(&scan.source) else {
            return vec![false; fields.len()];
        };
        let below = barrier_of(&scan.source, |barrier| {
            let plan = barrier.plan();
            let columns = Groups::counting(self.policy, self.personal).columns(plan);
            let made = plan.schema().fields().iter().zip(columns).filter(|(_, is_made)| *is_made);
            made.map(|(field, _)| field.name().clone()).collect::<BTreeSet<String>>()
        });
        let below = below.unwrap_or_default();
        let table = consented(&provider);
        let answers = provider.downcast_ref::<Answers>();
        let answers = answers.filter(|answers| {
            let mut consents = answers.model().manifest.consents.iter();
            consents.any(|consent| consent.policy == self.policy)
        });
        let is_made = |column: &String| {
            below.contains(column)
                || table.is_some_and(|table| {
                    let is_personal = self.counts(column) && table.personal().contains(column);
                    let mut policies = table.policies().filter(|one| one.name == self.policy);
                    policies.any(|policy| is_personal || policy.subject == *column)
                })
                || answers.is_some_and(|answers| {
                    let has_entities = answers.model().model.entities().is_some();
                    answers.has_persons_in(column)
                        || answers.tells_apart(column)
                        || (has_entities && column == ENTITY)
                })
        };
        fields.iter().map(|field| is_made(field.name())).collect()
    }

    /// Whether a column counts where it holds personal data.
    fn counts(&self, column: &str) -> bool {
        match self.personal {
            Personal::All => true,
            Personal::Only(only) => only == column,
            Personal::No => false,
        }
    }

    fn projected(&self, input: &LogicalPlan, exprs: &[Expr]) -> Vec<bool> {
        let from = self.asked(input, exprs);
        self.each(exprs, input.schema(), &from)
    }

    /// Which keys and which values of groups are made of persons.
    fn grouped(&self, node: &Aggregate) -> (Vec<bool>, Vec<bool>) {
        let from = self.asked(&node.input, node.group_expr.iter().chain(&node.aggr_expr));
        let schema = node.input.schema();
        let keys = self.each(&node.group_expr, schema, &from);
        (keys, self.each(&node.aggr_expr, schema, &from))
    }

    fn joined(&self, node: &Join) -> Vec<bool> {
        let mut columns = self.columns(&node.left);
        let width = columns.len();
        let right = match is_lateral(node) {
            true => {
                let schema = node.left.schema();
                let tied = self.tied_within(&node.right, schema, &columns);
                mark(&tied, schema, &mut columns);
                self.within(&node.right, schema, &columns)
            }
            false => self.columns(&node.right),
        };
        columns.extend(right);
        let mut compared = Vec::new();
        conditions(node, &mut compared);
        if shows_both(node) {
            beneath(&node.left, &mut compared);
            beneath(&node.right, &mut compared);
        }
        match node.left.schema().join(node.right.schema()) {
            Ok(schema) => self.meet(&compared, &schema, &mut columns),
            Err(_) => columns = vec![columns.contains(&true); columns.len()],
        }
        let has_any = columns.contains(&true);
        let right = columns.split_off(width);
        match node.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => columns,
            JoinType::RightSemi | JoinType::RightAnti => right,
            JoinType::LeftMark => [columns, vec![has_any]].concat(),
            JoinType::RightMark => [right, vec![has_any]].concat(),
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                [columns, right].concat()
            }
        }
    }

    /// Our own nodes: private rows and metrics are nobody's; recommendations are their users'.
    fn extended(&self, plan: &LogicalPlan, node: &Extension) -> Vec<bool> {
        let fields = plan.schema().fields();
        let any = node.node.as_any();
        if any.downcast_ref::<PrivateNode>().is_some()
            || any.downcast_ref::<EvaluateNode>().is_some()
        {
            return vec![false; fields.len()];
        }
        let inputs = plan.inputs();
        if let Some(recommend) = any.downcast_ref::<RecommendNode>() {
            let users = inputs.first();
            let mut consents = recommend.model().manifest.consents.iter();
            let is_made = users.is_some_and(|users| self.columns(users).contains(&true))
                || consents.any(|consent| consent.policy == self.policy);
            return (0..fields.len()).map(|at| at == 0 && is_made).collect();
        }
        if any.downcast_ref::<AnonymizeNode>().is_none() {
            return vec![self.is_below(plan); fields.len()];
        }
        let below = inputs.into_iter().flat_map(|input| {
            input.schema().fields().iter().map(|field| field.name()).zip(self.columns(input))
        });
        let made: BTreeSet<&String> =
            below.filter_map(|(name, is_made)| is_made.then_some(name)).collect();
        fields.iter().map(|field| made.contains(field.name())).collect()
    }

    /// The columns of a plan, of which those by which expressions ask what a model knows of a user
    /// are persons, whoever names them.
    fn asked<'e>(
        &self,
        input: &LogicalPlan,
        exprs: impl IntoIterator<Item = &'e Expr>,
    ) -> Vec<bool> {
        let mut columns = self.columns(input);
        for expr in exprs {
            let mut users: Vec<&Expr> = Vec::new();
            let walked = expr.apply(|part| {
                if let Expr::ScalarFunction(call) = part
                    && OF_USERS.contains(&call.func.name())
                {
                    users.extend(call.args.get(1));
                }
                Ok(TreeNodeRecursion::Continue)
            });
            if walked.is_err() {
                return vec![true; columns.len()];
            }
            for user in users {
                mark(user.column_refs(), input.schema(), &mut columns);
                let reached: Vec<Column> = subqueries(user).into_iter().flat_map(reached).collect();
                mark(&reached, input.schema(), &mut columns);
            }
            let tied = self.tied_by(expr, input.schema(), &columns);
            mark(&tied, input.schema(), &mut columns);
        }
        columns
    }

    fn each(&self, exprs: &[Expr], schema: &DFSchema, from: &[bool]) -> Vec<bool> {
        exprs.iter().map(|expr| self.makes(expr, schema, from)).collect()
    }

    /// Whether an expression makes something of persons.
    pub(super) fn makes(&self, expr: &Expr, schema: &DFSchema, from: &[bool]) -> bool {
        let mut is_made = false;
        let walked = expr.apply(|part| {
            let of: Vec<&Expr> = match part {
                Expr::AggregateFunction(call) if tells_together(call.func.name()) => vec![],
                Expr::AggregateFunction(call) => call.params.args.iter().collect(),
                Expr::WindowFunction(call) => {
                    // A rank by persons is a name for each of them, and so is a count up to them.
                    let order = call.params.order_by.iter().map(|sort| &sort.expr);
                    let together = tells_together(call.fun.name());
                    let args = call.params.args.iter().filter(|_| !together);
                    args.chain(order).collect()
                }
                Expr::ScalarFunction(call) if OF_USERS.contains(&call.func.name()) => {
                    let user = call.args.get(1);
                    // What a model tells of one user, whom the statement names, is that user's.
                    is_made |= LISTING_USERS.contains(&call.func.name())
                        || user.is_none_or(|user| user.column_refs().is_empty());
                    vec![]
                }
                other => {
                    is_made |= self.is_person(other, schema, from);
                    return Ok(TreeNodeRecursion::Continue);
                }
            };
            is_made |= of.into_iter().any(|expr| self.makes(expr, schema, from));
            Ok(TreeNodeRecursion::Jump)
        });
        is_made || walked.is_err()
    }

    /// Whether a part of an expression is of persons itself: a column, or the rows of a sub-query.
    fn is_person(&self, part: &Expr, schema: &DFSchema, from: &[bool]) -> bool {
        match part {
            Expr::Column(column) => match schema.maybe_index_of_column(column) {
                Some(at) => from.get(at) == Some(&true),
                None => from.contains(&true),
            },
            Expr::OuterReferenceColumn(_, column) => self.is_around(column),
            // It gives nothing of its rows; whom it is about are those that it compares with.
            Expr::Exists(_) => false,
            other => subquery(other)
                .is_some_and(|sub| self.within(&sub.subquery, schema, from).contains(&true)),
        }
    }

    /// Whether a column of a query around is made of persons.
    fn is_around(&self, column: &Column) -> bool {
        let mut around = self.around;
        while let Some(rows) = around {
            if let Some(at) = rows.schema.maybe_index_of_column(column) {
                return rows.made.get(at) == Some(&true);
            }
            around = rows.beyond;
        }
        true
    }

    /// Whether a plan reads a table with the column of persons, wherever.
    fn reads(&self, plan: &LogicalPlan) -> bool {
        let mut reads = false;
        let walked = plan.apply_with_subqueries(|part| {
            if let LogicalPlan::TableScan(scan) = part {
                reads |= self.scanned(scan).contains(&true);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        reads || walked.is_err()
    }

    /// What a condition compares with persons tells of them.
    fn meet(&self, compared: &[Compared<'_>], schema: &DFSchema, columns: &mut [bool]) {
        let mut is_more = true;
        while is_more {
            is_more = false;
            for exprs in compared {
                if exprs.iter().any(|expr| self.makes(expr, schema, columns)) {
                    let named = exprs.iter().flat_map(|expr| expr.column_refs());
                    is_more |= mark(named, schema, columns);
                }
                for expr in exprs {
                    let tied = self.tied_by(expr, schema, columns);
                    is_more |= mark(&tied, schema, columns);
                }
            }
        }
    }
}
