//! Projection policies: a column may be used, and not shown.
//!
//! A statement's plan is followed from its scans up. What is computed of such a column is as little
//! shown as the column; only counting it makes something else of it. Conditions, keys of joins and
//! of groups may use it as long as they cannot fail on a row: an error would quote the value. An
//! order by it would show how its values lie to each other.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, Join, LogicalPlan, Subquery};

use super::barrier::barrier_of;
use super::harmless::is_harmless;
use crate::error::{Error, Result};

/// Aggregates that tell how many there are, and nothing of what they are.
const COUNTS: [&str; 2] = ["count", "approx_distinct"];
const HINT: &str = "count it, join or group by it without showing it, or ask who administers \
                    policies for a role that the policy excepts";

/// Checks that a statement shows no column that a projection policy keeps.
///
/// # Errors
/// When it does, or could tell of its values by failing.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    let shown = kept_in(plan, None)?;
    match shown.into_iter().position(|kept| kept) {
        None => Ok(()),
        Some(at) => {
            let name =
                plan.schema().fields().get(at).map_or("a column", |field| field.name().as_str());
            Err(refusal(&format!("{name} shows a column that a projection policy keeps")))
        }
    }
}

fn refusal(what: &str) -> Error {
    Error::Unsupported { what: what.to_owned(), hint: Some(HINT.into()) }
}

fn refused<T>(what: &str) -> DataFusionResult<T> {
    Err(DataFusionError::from(refusal(what)))
}

/// The columns that an expression may name, which of them are kept, and those of the query around.
struct Scope<'a> {
    schema: &'a DFSchema,
    kept: &'a [bool],
    around: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn holds(&self, column: &Column) -> bool {
        let mut found = false;
        for ((relation, field), kept) in self.schema.iter().zip(self.kept) {
            let names = *field.name() == column.name
                && (column.relation.is_none() || column.relation.as_ref() == relation);
            if names && *kept {
                return true;
            }
            found |= names;
        }
        // A name that is not found may mean any of them.
        !found && self.kept.contains(&true)
    }

    /// Whether a column of a query around this one is kept.
    fn holds_around(&self, column: &Column) -> bool {
        let mut scope = self.around;
        while let Some(around) = scope {
            if around.schema.maybe_index_of_column(column).is_some() {
                return around.holds(column);
            }
            scope = around.around;
        }
        // Of a query that is not known here.
        true
    }

    /// Whether an expression's value comes of a kept column.
    fn comes_of(&self, expr: &Expr) -> DataFusionResult<bool> {
        let mut kept = false;
        expr.apply(|part| {
            kept |= match part {
                Expr::Column(column) => self.holds(column),
                Expr::OuterReferenceColumn(_, column) => self.holds_around(column),
                Expr::AggregateFunction(call) if COUNTS.contains(&call.func.name()) => {
                    self.used(part)?;
                    return Ok(TreeNodeRecursion::Jump);
                }
                Expr::ScalarSubquery(sub) => self.inside(sub)?,
                Expr::Exists(exists) => self.tested(&exists.subquery)?,
                Expr::InSubquery(sub) => self.tested(&sub.subquery)?,
                Expr::SetComparison(sub) => self.tested(&sub.subquery)?,
                _ => false,
            };
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(kept)
    }

    /// The same of a value that is computed, whether or not it is shown: what is left out, counted
    /// or compared further up is computed all the same, and must not fail on a row.
    fn computed(&self, expr: &Expr) -> DataFusionResult<bool> {
        let kept = self.comes_of(expr)?;
        if kept {
            self.cannot_fail(expr)?;
        }
        Ok(kept)
    }

    fn cannot_fail(&self, expr: &Expr) -> DataFusionResult<()> {
        for part in parts(expr) {
            if !is_harmless(part, self.schema)? {
                return refused(
                    "a column that a projection policy keeps is compared only: what is computed \
                     of it here could fail on a row and tell of its value",
                );
            }
        }
        Ok(())
    }

    /// Whether a sub-query shows a kept column.
    fn inside(&self, sub: &Subquery) -> DataFusionResult<bool> {
        Ok(kept_in(&sub.subquery, Some(self))?.contains(&true))
    }

    /// Whether whether a sub-query has rows may come of a kept column.
    fn tested(&self, sub: &Subquery) -> DataFusionResult<bool> {
        let shown = self.inside(sub)?;
        let mut reads = false;
        sub.subquery.apply_with_subqueries(|node| {
            reads |= scan_keeps(node).is_some_and(|kept| kept.contains(&true));
            Ok(TreeNodeRecursion::Continue)
        })?;
        let around = sub.outer_ref_columns.iter().any(|expr| match expr {
            Expr::OuterReferenceColumn(_, column) => {
                self.holds(column) || self.holds_around(column)
            }
            _ => true,
        });
        Ok(shown || reads || (around && self.kept.contains(&true)))
    }

    /// Checks a condition or key, of which only how it comes out is used.
    fn used(&self, expr: &Expr) -> DataFusionResult<()> {
        match self.names(expr, |sub| self.inside(sub))? {
            true => self.cannot_fail(expr),
            false => Ok(()),
        }
    }

    /// Whether an expression names a kept column anywhere, or has a sub-query that shows one, or of
    /// which `tells` says that it tells of one where it is only asked about.
    fn names(
        &self,
        expr: &Expr,
        tells: impl Fn(&Subquery) -> DataFusionResult<bool>,
    ) -> DataFusionResult<bool> {
        let mut names = false;
        expr.apply(|part| {
            names |= match part {
                Expr::Column(column) => self.holds(column),
                Expr::OuterReferenceColumn(_, column) => self.holds_around(column),
                Expr::ScalarSubquery(sub) => self.inside(sub)?,
                Expr::Exists(exists) => tells(&exists.subquery)?,
                Expr::InSubquery(sub) => tells(&sub.subquery)?,
                Expr::SetComparison(sub) => tells(&sub.subquery)?,
                _ => false,
            };
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(names)
    }
}

/// What is computed of each row: of an aggregate and a window function what they are called with.
fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Alias(alias) => parts(&alias.expr),
        Expr::AggregateFunction(call) => {
            let sorted = call.params.order_by.iter().map(|key| &key.expr);
            call.params.args.iter().chain(call.params.filter.as_deref()).chain(sorted).collect()
        }
        Expr::WindowFunction(call) => {
            let params = &call.params;
            let sorted = params.order_by.iter().map(|key| &key.expr);
            let given = params.args.iter().chain(params.filter.as_deref());
            given.chain(&params.partition_by).chain(sorted).collect()
        }
        plain => vec![plain],
    }
}

/// Which columns of a scan are kept; `None` for any other node.
fn scan_keeps(plan: &LogicalPlan) -> Option<Vec<bool>> {
    let LogicalPlan::TableScan(scan) = plan else { return None };
    let fields = scan.projected_schema.fields();
    let kept = barrier_of(&scan.source, |barrier| {
        fields.iter().map(|field| barrier.kept().contains(field.name())).collect()
    });
    Some(kept.unwrap_or_else(|| vec![false; fields.len()]))
}

/// Which of a plan's columns come of a kept one.
fn kept_in(plan: &LogicalPlan, around: Option<&Scope<'_>>) -> DataFusionResult<Vec<bool>> {
    if let Some(kept) = scan_keeps(plan) {
        return Ok(kept);
    }
    let width = plan.schema().fields().len();
    match plan {
        LogicalPlan::Projection(node) => {
            let kept = kept_in(&node.input, around)?;
            let scope = Scope { schema: node.input.schema(), kept: &kept, around };
            node.expr.iter().map(|expr| scope.computed(expr)).collect()
        }
        LogicalPlan::Filter(node) => {
            let kept = kept_in(&node.input, around)?;
            let scope = Scope { schema: node.input.schema(), kept: &kept, around };
            scope.used(&node.predicate)?;
            Ok(kept)
        }
        LogicalPlan::Sort(node) => {
            let kept = kept_in(&node.input, around)?;
            let scope = Scope { schema: node.input.schema(), kept: &kept, around };
            for key in &node.expr {
                if scope.comes_of(&key.expr)? {
                    return refused("rows are ordered by a column that a projection policy keeps");
                }
            }
            Ok(kept)
        }
        LogicalPlan::Aggregate(node) => aggregated(node, around),
        LogicalPlan::Join(node) => joined(node, around),
        LogicalPlan::Window(node) => {
            let mut kept = kept_in(&node.input, around)?;
            let scope = Scope { schema: node.input.schema(), kept: &kept, around };
            let made: DataFusionResult<Vec<bool>> =
                node.window_expr.iter().map(|expr| scope.window(expr)).collect();
            let made = made?;
            kept.extend(made);
            Ok(kept)
        }
        LogicalPlan::Distinct(Distinct::On(node)) => {
            let kept = kept_in(&node.input, around)?;
            let scope = Scope { schema: node.input.schema(), kept: &kept, around };
            let sorted = node.sort_expr.iter().flatten().map(|key| &key.expr);
            for key in node.on_expr.iter().chain(sorted) {
                if scope.comes_of(key)? {
                    return refused("rows are chosen by a column that a projection policy keeps");
                }
            }
            node.select_expr.iter().map(|expr| scope.computed(expr)).collect()
        }
        LogicalPlan::Union(node) => {
            let mut kept = vec![false; width];
            for input in &node.inputs {
                let of_input = kept_in(input, around)?;
                kept.iter_mut().zip(of_input).for_each(|(all, one)| *all |= one);
            }
            Ok(kept)
        }
        LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Distinct(Distinct::All(_))
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Repartition(_) => match plan.inputs().as_slice() {
            [input] => kept_in(input, around),
            _ => Ok(vec![true; width]),
        },
        other => whole(other, width, around),
    }
}

impl Scope<'_> {
    /// Whether a window function's value comes of a kept column, by whatever way.
    fn window(&self, expr: &Expr) -> DataFusionResult<bool> {
        let kept = self.names(expr, |sub| self.tested(sub))?;
        if kept {
            self.cannot_fail(expr)?;
        }
        Ok(kept)
    }
}

fn aggregated(node: &Aggregate, around: Option<&Scope<'_>>) -> DataFusionResult<Vec<bool>> {
    let kept = kept_in(&node.input, around)?;
    let scope = Scope { schema: node.input.schema(), kept: &kept, around };
    let mut keys = Vec::with_capacity(node.group_expr.len());
    for key in &node.group_expr {
        scope.used(key)?;
        keys.push(scope.comes_of(key)?);
    }
    let width = node.schema.fields().len().saturating_sub(node.aggr_expr.len());
    if keys.len() != width {
        // Grouping sets: one expression for several columns.
        keys = vec![keys.contains(&true); width];
    }
    for expr in &node.aggr_expr {
        keys.push(scope.computed(expr)?);
    }
    Ok(keys)
}

fn joined(node: &Join, around: Option<&Scope<'_>>) -> DataFusionResult<Vec<bool>> {
    let left = kept_in(&node.left, around)?;
    // A lateral right side knows the columns of the left one.
    let beside = Scope { schema: node.left.schema(), kept: &left, around };
    let right = kept_in(&node.right, Some(&beside))?;
    let both: Vec<bool> = left.iter().chain(&right).copied().collect();
    let schema = node.left.schema().join(node.right.schema())?;
    let scope = Scope { schema: &schema, kept: &both, around };
    let mut compared = false;
    for expr in node.on.iter().flat_map(|(left, right)| [left, right]).chain(&node.filter) {
        scope.used(expr)?;
        compared |= scope.comes_of(expr)?;
    }
    Ok(match node.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti => left,
        JoinType::RightSemi | JoinType::RightAnti => right,
        // The mark says how the comparison came out.
        JoinType::LeftMark => left.into_iter().chain([compared]).collect(),
        JoinType::RightMark => right.into_iter().chain([compared]).collect(),
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => both,
    })
}

/// A node that is taken as a whole: what comes out of it comes of everything that goes in.
fn whole(
    plan: &LogicalPlan,
    width: usize,
    around: Option<&Scope<'_>>,
) -> DataFusionResult<Vec<bool>> {
    let mut kept = false;
    for input in plan.inputs() {
        kept |= kept_in(input, around)?.contains(&true);
    }
    let empty = DFSchema::empty();
    let scope = Scope { schema: &empty, kept: &[], around };
    plan.apply_expressions(|expr| {
        kept |= scope.window(expr)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    // What explains, defines or writes shows what goes in, though it may have no columns.
    let ends = matches!(
        plan,
        LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Extension(_)
    );
    match kept && (ends || width == 0) {
        true => refused("a column that a projection policy keeps would leave its table"),
        false => Ok(vec![kept; width]),
    }
}
