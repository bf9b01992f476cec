//! What conditions of a plan compare, and which columns its sub-queries name.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::logical_expr::utils::find_out_reference_exprs;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Operator, Subquery};

use crate::subqueries::subquery;

/// Expressions that a condition compares with each other.
pub(super) type Compared<'a> = Vec<&'a Expr>;

/// Marks columns of a schema as made of persons; says whether any was not.
pub(super) fn mark<'c>(
    named: impl IntoIterator<Item = &'c Column>,
    schema: &DFSchema,
    columns: &mut [bool],
) -> bool {
    let mut is_more = false;
    for at in named.into_iter().filter_map(|column| schema.maybe_index_of_column(column)) {
        if let Some(is_made) = columns.get_mut(at) {
            is_more |= !*is_made;
            *is_made = true;
        }
    }
    is_more
}

/// Whether the right side of a join may name columns of the left one.
pub(super) fn is_lateral(node: &Join) -> bool {
    !node.right.all_out_ref_exprs().is_empty()
}

/// Whether a join gives the columns of both sides.
pub(super) fn shows_both(node: &Join) -> bool {
    matches!(node.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
}

/// What a join compares.
pub(super) fn conditions<'e>(node: &'e Join, found: &mut Vec<Compared<'e>>) {
    found.extend(node.on.iter().map(|(left, right)| vec![left, right]));
    if let Some(filter) = &node.filter {
        comparisons(filter, found);
    }
}

/// What joins and conditions beneath a plan compare, which give the columns that they have on: what
/// is equal there is, whichever of the two is compared with persons above.
pub(super) fn beneath<'e>(plan: &'e LogicalPlan, found: &mut Vec<Compared<'e>>) {
    match plan {
        LogicalPlan::Filter(node) => {
            comparisons(&node.predicate, found);
            beneath(&node.input, found);
        }
        LogicalPlan::Join(node) if shows_both(node) => {
            conditions(node, found);
            beneath(&node.left, found);
            beneath(&node.right, found);
        }
        _ => {}
    }
}

/// The comparisons of a condition, each by itself.
pub(super) fn comparisons<'e>(condition: &'e Expr, found: &mut Vec<Compared<'e>>) {
    match condition {
        Expr::BinaryExpr(binary) if matches!(binary.op, Operator::And | Operator::Or) => {
            comparisons(&binary.left, found);
            comparisons(&binary.right, found);
        }
        Expr::Not(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner) => comparisons(inner, found),
        other => found.push(vec![other]),
    }
}

/// The columns of queries around that an expression itself names.
pub(super) fn outer_columns(expr: &Expr) -> Vec<Column> {
    let outer = find_out_reference_exprs(expr).into_iter();
    let named = outer.filter_map(|outer| match outer {
        Expr::OuterReferenceColumn(_, column) => Some(column),
        _ => None,
    });
    named.collect()
}

/// The columns of queries around a sub-query that it names.
pub(super) fn reached(sub: &Subquery) -> Vec<Column> {
    sub.outer_ref_columns.iter().flat_map(outer_columns).collect()
}

/// The sub-queries of an expression.
pub(super) fn subqueries(expr: &Expr) -> Vec<&Subquery> {
    let mut found = Vec::new();
    let walked = expr.apply(|part| {
        found.extend(subquery(part));
        Ok(TreeNodeRecursion::Continue)
    });
    match walked {
        Ok(_) => found,
        Err(_) => Vec::new(),
    }
}
