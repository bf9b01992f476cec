//! Groups that are a list of rows, or of one: what GROUP BY leaves of them tells no more than the
//! rows themselves.
//!
//! Where no aggregate of a group is shown, its keys are the row's values, each of them once. Only a
//! condition makes more of it that keeps groups of two and more: `HAVING count(*) > 1`. One that
//! holds for every group, `count(*) > 0`, makes nothing of it. Of what a model shows of rows that
//! it learned from, a condition by what tells these apart leaves single ones to a sum.

use std::collections::BTreeSet;

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan, Operator};

use super::compared::subqueries;
use super::groups::Groups;
use super::lineage::shown_by_models;

impl Groups<'_> {
    /// Whether rows of a plan are those of groups of which no aggregate is shown.
    pub(super) fn are_listed(&self, plan: &LogicalPlan) -> bool {
        self.lists(plan, &(0..plan.schema().fields().len()).collect(), false)
    }

    /// The same where some of its columns are shown. `are_large`: only groups of several rows are.
    fn lists(&self, plan: &LogicalPlan, shown: &BTreeSet<usize>, are_large: bool) -> bool {
        match plan {
            LogicalPlan::Aggregate(node) if node.aggr_expr.is_empty() => {
                let keys = shown.iter().filter_map(|at| node.group_expr.get(*at));
                self.lists(&node.input, &named(keys, &node.input), are_large)
            }
            LogicalPlan::Aggregate(node) => {
                let width = plan.schema().fields().len();
                let keys = width.saturating_sub(node.aggr_expr.len());
                let shows_keys = !shown.is_empty() && shown.iter().all(|at| *at < keys);
                shows_keys && !are_large && !self.are_all(&node.input)
            }
            LogicalPlan::Projection(node) => {
                let exprs = shown.iter().filter_map(|at| node.expr.get(*at));
                let exprs: Vec<&Expr> = exprs.collect();
                // What a sub-query tells of the group is shown of it.
                let tells = |expr: &&Expr| {
                    let subs = subqueries(expr);
                    subs.iter().any(|sub| !sub.outer_ref_columns.is_empty())
                };
                if exprs.iter().any(tells) {
                    return false;
                }
                self.lists(&node.input, &named(exprs, &node.input), are_large)
            }
            LogicalPlan::Window(node) => {
                let width = node.input.schema().fields().len();
                let made =
                    shown.iter().filter_map(|at| node.window_expr.get(at.checked_sub(width)?));
                let mut below = named(made, &node.input);
                below.extend(shown.iter().filter(|at| **at < width));
                self.lists(&node.input, &below, are_large)
            }
            LogicalPlan::Filter(node) => {
                let mut parts = split_conjunction(&node.predicate).into_iter();
                let is_large = parts.any(|part| needs_several(part, &node.input));
                self.lists(&node.input, shown, are_large || is_large)
            }
            LogicalPlan::SubqueryAlias(node) => self.lists(&node.input, shown, are_large),
            LogicalPlan::Sort(node) => self.lists(&node.input, shown, are_large),
            LogicalPlan::Limit(node) => self.lists(&node.input, shown, are_large),
            LogicalPlan::Distinct(Distinct::All(input)) => self.lists(input, shown, are_large),
            LogicalPlan::Distinct(Distinct::On(on)) => {
                let exprs = shown.iter().filter_map(|at| on.select_expr.get(*at));
                self.lists(&on.input, &named(exprs, &on.input), are_large)
            }
            LogicalPlan::Union(node) => {
                node.inputs.iter().any(|input| self.lists(input, shown, are_large))
            }
            _ => false,
        }
    }

    /// Whether groups are of what a model shows of rows that it learned from, and a condition by
    /// what tells these apart leaves some of them.
    pub(super) fn are_of_answers(&self, node: &Aggregate) -> bool {
        let shown = shown_by_models(&node.input);
        if shown.is_ok_and(|policies| !policies.contains(self.policy())) {
            return false;
        }
        let (schema, from) = (node.input.schema(), self.columns(&node.input));
        let mut chooses = false;
        let walked = node.aggr_expr.iter().try_for_each(|expr| {
            let walked = expr.apply(|part| {
                if let Expr::AggregateFunction(call) = part {
                    let filter = call.params.filter.as_deref().into_iter();
                    // A CASE among the arguments chooses as a condition does.
                    let args = call.params.args.iter().filter(|arg| !is_column(arg));
                    let mut choosing = filter.chain(args);
                    chooses |= choosing.any(|expr| self.makes(expr, schema, &from));
                }
                Ok(TreeNodeRecursion::Continue)
            });
            walked.map(|_| ())
        });
        chooses || walked.is_err() || self.leaves_some(&node.input)
    }

    /// Whether a condition by what is made of persons, or LIMIT, leaves some rows of a plan.
    fn leaves_some(&self, plan: &LogicalPlan) -> bool {
        let is_some = match plan {
            LogicalPlan::Filter(node) => {
                self.makes(&node.predicate, node.input.schema(), &self.columns(&node.input))
            }
            LogicalPlan::Limit(_) | LogicalPlan::Distinct(Distinct::On(_)) => true,
            _ => false,
        };
        is_some || plan.inputs().into_iter().any(|input| self.leaves_some(input))
    }
}

fn is_column(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_column(&alias.expr),
        Expr::Cast(cast) => is_column(&cast.expr),
        other => matches!(other, Expr::Column(_)),
    }
}

/// The columns of a plan that expressions name.
fn named<'e>(exprs: impl IntoIterator<Item = &'e Expr>, plan: &LogicalPlan) -> BTreeSet<usize> {
    let columns = exprs.into_iter().flat_map(Expr::column_refs);
    columns.filter_map(|column| plan.schema().maybe_index_of_column(column)).collect()
}

/// Whether a condition holds for groups of two rows and more alone.
fn needs_several(condition: &Expr, plan: &LogicalPlan) -> bool {
    let Expr::BinaryExpr(binary) = condition else { return false };
    let (op, count, than) = match (number(&binary.left), number(&binary.right)) {
        (None, Some(than)) => (Some(binary.op), &binary.left, than),
        (Some(than), None) => (binary.op.swap(), &binary.right, than),
        _ => return false,
    };
    let is_several = match op {
        Some(Operator::Gt) => than >= 1,
        Some(Operator::GtEq | Operator::Eq) => than >= 2,
        _ => false,
    };
    is_several && counts(count, plan)
}

fn number(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Cast(cast) => number(&cast.expr),
        Expr::Literal(ScalarValue::Int8(Some(value)), _) => Some(i128::from(*value)),
        Expr::Literal(ScalarValue::Int16(Some(value)), _) => Some(i128::from(*value)),
        Expr::Literal(ScalarValue::Int32(Some(value)), _) => Some(i128::from(*value)),
        Expr::Literal(ScalarValue::Int64(Some(value)), _) => Some(i128::from(*value)),
        Expr::Literal(ScalarValue::UInt64(Some(value)), _) => Some(i128::from(*value)),
        _ => None,
    }
}

/// Whether an expression over rows of a plan is how many rows a group has.
fn counts(expr: &Expr, plan: &LogicalPlan) -> bool {
    match expr {
        Expr::Alias(alias) => counts(&alias.expr, plan),
        Expr::Cast(cast) => counts(&cast.expr, plan),
        Expr::AggregateFunction(call) => call.func.name() == "count",
        Expr::Column(column) => {
            let at = plan.schema().maybe_index_of_column(column);
            at.is_some_and(|at| is_count(plan, at))
        }
        _ => false,
    }
}

fn is_count(plan: &LogicalPlan, at: usize) -> bool {
    match plan {
        LogicalPlan::Aggregate(node) => {
            let keys = plan.schema().fields().len().saturating_sub(node.aggr_expr.len());
            let value = at.checked_sub(keys).and_then(|at| node.aggr_expr.get(at));
            value.is_some_and(|value| counts(value, &node.input))
        }
        LogicalPlan::Projection(node) => {
            node.expr.get(at).is_some_and(|expr| counts(expr, &node.input))
        }
        LogicalPlan::SubqueryAlias(node) => is_count(&node.input, at),
        LogicalPlan::Filter(node) => is_count(&node.input, at),
        LogicalPlan::Sort(node) => is_count(&node.input, at),
        LogicalPlan::Limit(node) => is_count(&node.input, at),
        _ => false,
    }
}
