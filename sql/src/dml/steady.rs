//! Conditions that come out the same each time that they are computed.
//!
//! A change of rows computes its condition more than once: DELETE for the rows that stay and for
//! how many go, UPDATE and MERGE for each kind of row and for each column as well. One that came
//! out otherwise each time would lose rows and write others twice. `now()` is the same in a whole
//! statement, and a value that is set is computed once: it may be anything. The source of MERGE is
//! read twice, for what is written and for how many changes each row would have, so that it is of
//! the same rows each time as well.

use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use crate::error::{Error, Result};
use crate::private::PrivateNode;

/// Checks that the condition at the top of a plan, and that of a join right below it, come out the
/// same each time. Where values are written, rows of which a sub-query, or the source on the right
/// of that join, takes some are as well no others the next time.
///
/// # Errors
/// When a condition may come out otherwise.
pub(super) fn check(plan: &LogicalPlan, writes_values: bool) -> Result<()> {
    let mut found = None;
    for node in conditions(plan) {
        if found.is_none() {
            found = varying(node, false)?;
        }
        if found.is_none() {
            found = reads_drawn(node)?;
        }
        node.apply_subqueries(|subquery| {
            subquery.apply_with_subqueries(|node| {
                if found.is_none() {
                    found = varying(node, writes_values)?;
                }
                Ok(going_on(found.is_none()))
            })
        })?;
        if let (LogicalPlan::Join(join), true) = (node, writes_values) {
            join.right.apply_with_subqueries(|node| {
                if found.is_none() {
                    found = some_of(node).map(|how| format!("meets a source that {how}"));
                }
                Ok(going_on(found.is_none()))
            })?;
        }
    }
    match found {
        None => Ok(()),
        Some(what) => Err(Error::unsupported(
            format!(
                "the condition {what}, and it is computed more than once: rows would be lost or \
                 written twice"
            ),
            "save the rows to change first, by CREATE TABLE … AS SELECT, and change those whose id \
             is IN (SELECT … FROM that table)",
        )),
    }
}

/// Why a query may give something else when it is read again, in words.
///
/// # Errors
/// When a plan cannot be walked.
pub(crate) fn varies(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        if found.is_none() {
            found = varying(node, false)?;
        }
        Ok(going_on(found.is_none()))
    })?;
    Ok(found)
}

/// The filter at the top of a plan, and the join right below it.
fn conditions(mut plan: &LogicalPlan) -> Vec<&LogicalPlan> {
    loop {
        match plan {
            LogicalPlan::Filter(filter) => {
                let input = filter.input.as_ref();
                return match input {
                    LogicalPlan::Join(_) => vec![plan, input],
                    _ => vec![plan],
                };
            }
            other => match other.inputs().as_slice() {
                [input] => plan = *input,
                _ => return vec![],
            },
        }
    }
}

/// Why a node may give something else the next time, in words.
fn varying(node: &LogicalPlan, takes_some: bool) -> DataFusionResult<Option<String>> {
    if let (Some(how), true) = (some_of(node), takes_some) {
        return Ok(Some(how.to_owned()));
    }
    match node {
        LogicalPlan::Extension(extension) if extension.node.as_any().is::<PrivateNode>() => {
            Ok(Some("reads an answer with differential privacy".into()))
        }
        _ => {
            let mut found = None;
            node.apply_expressions(|expr| {
                let called = volatile(expr)?;
                found = called.map(|name| format!("calls {name}, another value each time"));
                Ok(going_on(found.is_none()))
            })?;
            Ok(found)
        }
    }
}

/// How a node takes some of its rows, others perhaps the next time.
fn some_of(node: &LogicalPlan) -> Option<&'static str> {
    match node {
        LogicalPlan::Limit(_) => Some("takes some rows by LIMIT"),
        LogicalPlan::Distinct(Distinct::On(_)) => Some("takes some rows by DISTINCT ON"),
        _ => None,
    }
}

/// Why the columns that a condition reads may hold something else the next time, in words.
fn reads_drawn(node: &LogicalPlan) -> DataFusionResult<Option<String>> {
    for expr in node.expressions() {
        for column in expr.column_refs() {
            for input in node.inputs() {
                let Some(at) = input.schema().maybe_index_of_column(column) else { continue };
                if let Some(name) = drawn(input, at)? {
                    let column = &column.name;
                    return Ok(Some(format!("reads {column}, another value of {name} each time")));
                }
            }
        }
    }
    Ok(None)
}

/// A function of which a plan's column holds another value each time.
fn drawn(plan: &LogicalPlan, at: usize) -> DataFusionResult<Option<String>> {
    match plan {
        LogicalPlan::Projection(node) => {
            let Some(expr) = node.expr.get(at) else { return Ok(None) };
            if let Some(name) = volatile(expr)? {
                return Ok(Some(name));
            }
            for column in expr.column_refs() {
                let Some(below) = node.input.schema().maybe_index_of_column(column) else {
                    continue;
                };
                if let Some(name) = drawn(&node.input, below)? {
                    return Ok(Some(name));
                }
            }
            Ok(None)
        }
        LogicalPlan::Join(join) if shows_both(join.join_type) => {
            match at.checked_sub(join.left.schema().fields().len()) {
                Some(at) => drawn(&join.right, at),
                None => drawn(&join.left, at),
            }
        }
        LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Distinct(Distinct::All(_)) => match plan.inputs().as_slice() {
            [input] => drawn(input, at),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Whether a join's columns are those of its left side and then those of its right one.
fn shows_both(join: JoinType) -> bool {
    matches!(join, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
}

/// A function in an expression that gives another value each time.
fn volatile(expr: &Expr) -> DataFusionResult<Option<String>> {
    let mut called = None;
    expr.apply(|part| {
        if let Expr::ScalarFunction(call) = part
            && part.is_volatile_node()
        {
            called = Some(call.func.name().to_owned());
        }
        Ok(going_on(called.is_none()))
    })?;
    Ok(called)
}

fn going_on(goes_on: bool) -> TreeNodeRecursion {
    if goes_on { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop }
}
