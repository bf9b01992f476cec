//! Differential privacy: `SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (…) …` and privacy policies.
//!
//! The way of the clause, one module a step:
//!
//! 1. `clause.rs`: the parser reads it, behind a list of expressions that it knows.
//! 2. `rewrite.rs` with `aggregates.rs` and `options.rs`: two ordinary SELECTs around a private
//!    aggregation.
//! 3. `relations.rs` with `lineage.rs` and `guard.rs`: the aggregation is planned over an input
//!    that keeps persons apart; only below it a table under a policy gives its rows, with the
//!    persons that a subject's crosswalk tells (`linked.rs`).
//! 4. `exec.rs` with `ledger.rs`, `gather.rs` and `release.rs`: the budget pays, each person's rows
//!    are bounded, noise is drawn, rare groups are left out.
//!
//! `total.rs` keeps out what could fail on a row, once types are known.
//!
//! `syntax.rs` and `policies.rs` are the statements about policies. The mechanisms are those of
//! `udfs::privacy::noise`, the accounts those of `catalog::budget`.

mod aggregates;
pub(crate) mod clause;
mod exec;
mod gather;
mod guard;
mod ledger;
mod lineage;
mod linked;
mod node;
mod options;
mod policies;
mod relations;
mod release;
mod rewrite;
pub(crate) mod syntax;
mod total;

use std::sync::Arc;

use catalog::ObjectName;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::Statement;

pub(crate) use self::exec::PrivateExec;
pub(crate) use self::guard::check;
pub(crate) use self::ledger::holders;
pub(crate) use self::node::PrivateNode;
pub(crate) use self::policies::{Change, plan};
pub use self::syntax::PrivacyStatement;

use self::guard::Protected;
use self::options::Spec;
use self::relations::PrivateRelations;
use self::rewrite::Kind;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::policy::since;
use crate::session::StatementContext;
use crate::session::plan::analyzed;

/// Rewrites the private SELECTs of a statement; gives what they compute.
///
/// # Errors
/// When one asks for something that is not private.
pub(crate) fn rewritten(engine: &Engine, tree: &mut Statement) -> Result<Vec<Spec>> {
    let (aggregates, scalars) =
        (engine.base().aggregate_functions(), engine.base().scalar_functions());
    rewrite::rewrite(tree, &|name| {
        if aggregates.contains_key(name) {
            Kind::Aggregate
        } else if scalars.contains_key(name) {
            Kind::Scalar
        } else {
            Kind::Unknown
        }
    })
}

/// Makes a statement's private SELECTs known to its planner.
///
/// # Errors
/// When DataFusion refuses the planner.
pub(crate) fn register(
    state: &mut SessionState,
    context: &Arc<StatementContext>,
    specs: Vec<Spec>,
) -> Result<()> {
    if !specs.is_empty() {
        state.register_relation_planner(Arc::new(PrivateRelations::new(context, specs)))?;
    }
    Ok(())
}

/// Checks, with their types, that what a statement computes below answers which are paid for cannot
/// fail on a row: that it failed would tell of the row, however little was paid.
///
/// # Errors
/// When it could.
pub(crate) fn checked(state: &SessionState, plan: &LogicalPlan) -> Result<()> {
    if !is_charged(plan)? {
        return Ok(());
    }
    // What writes rows is coerced when it runs.
    let plans = match plan {
        LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) => plan.inputs(),
        plan => vec![plan],
    };
    for plan in plans {
        analyzed(state, plan.clone())?.apply_with_subqueries(|node| {
            if let LogicalPlan::Extension(extension) = node
                && let Some(private) = extension.node.as_any().downcast_ref::<PrivateNode>()
                && private.is_charged()
            {
                for input in extension.node.inputs() {
                    total::check(input)?;
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(())
}

/// Whether somebody's budget pays for an answer in a plan.
fn is_charged(plan: &LogicalPlan) -> Result<bool> {
    let mut charged = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Extension(extension) = node {
            let node = extension.node.as_any().downcast_ref::<PrivateNode>();
            charged |= node.is_some_and(PrivateNode::is_charged);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(charged)
}

/// A table as a statement sees it: one under a privacy policy gives its rows to private
/// aggregations only.
/// One that a statement adds rows to has its own columns alone.
///
/// # Errors
/// When policies cannot be read, or nobody can tell which ids are one person's: then nobody reads
/// the table.
pub(crate) async fn guarded(
    context: &Arc<StatementContext>,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
    is_target: bool,
) -> Result<Arc<dyn TableProvider>> {
    let Some(policy) = context.engine().catalog().privacy_policy(name).await? else {
        return Ok(table);
    };
    context.used().policies.insert(format!("privacy policy {} on {name}", policy.name));
    since::note_privacy(context, name, &policy)?;
    let rows = linked::rows(context, name, &policy, Arc::clone(&table), is_target).await?;
    let principal = context.rights().name();
    Ok(Arc::new(Protected::new(name, policy, principal, table, rows)?))
}

/// Refuses a view whose name is under a privacy policy, as that of a table that was there before.
///
/// # Errors
/// When it is, or policies cannot be read.
pub(crate) async fn no_privacy_policy_on_view(
    context: &StatementContext,
    name: &ObjectName,
) -> Result<()> {
    match context.engine().catalog().privacy_policy(name).await? {
        None => Ok(()),
        Some(policy) => Err(Error::unsupported(
            format!("{name} is a view under the privacy policy {}", policy.name),
            "privacy policies are of tables: a policy_admin can drop it, and make it for the \
             tables that the view reads",
        )),
    }
}

/// Refuses a change of rows by a condition where a table is under a privacy policy: how many rows
/// it changed would tell an exact number.
///
/// # Errors
/// When it is, or policies cannot be read.
pub(crate) async fn no_changes(context: &StatementContext, name: &ObjectName) -> Result<()> {
    let Some(policy) = context.engine().catalog().privacy_policy(name).await? else {
        return Ok(());
    };
    Err(Error::Denied {
        principal: context.rights().name().to_owned(),
        action: format!(
            "change rows of {name}, which is under the privacy policy {}: how many they were would \
             be told",
            policy.name
        ),
        hint: Some("INSERT adds rows; a policy_admin can drop the policy for the change".into()),
    })
}

/// Refuses checks of a table that is under a privacy policy: what they find are exact numbers.
///
/// # Errors
/// When it is, or policies cannot be read.
pub(crate) async fn no_checks(context: &StatementContext, name: &ObjectName) -> Result<()> {
    let Some(policy) = context.engine().catalog().privacy_policy(name).await? else {
        return Ok(());
    };
    Err(Error::Denied {
        principal: context.rights().name().to_owned(),
        action: format!(
            "check {name}, which is under the privacy policy {}: what checks find is exact",
            policy.name
        ),
        hint: Some("expectations of severity 'error' still hold for rows that are added".into()),
    })
}

/// What is to be said of a query besides its rows: that its private answers cost nobody anything.
pub(crate) fn notice(plan: &LogicalPlan) -> Option<String> {
    let (mut private, mut charged) = (false, false);
    // The visitor never fails.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Extension(extension) = node
            && let Some(node) = extension.node.as_any().downcast_ref::<PrivateNode>()
        {
            private = true;
            charged |= node.is_charged();
        }
        Ok(TreeNodeRecursion::Continue)
    });
    (private && !charged).then(|| {
        "no privacy budget was charged: none of the tables is under a privacy policy".to_owned()
    })
}
