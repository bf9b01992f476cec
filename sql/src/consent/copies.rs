//! Copies inherit: a table that is made of a governed one is governed by a policy like its own.
//!
//! The policy goes with the column of persons under its new name. A copy without that column would
//! hold rows of single persons of whom nobody knows whose they are, so that no withdrawal could
//! reach them: it is refused, unless the rows are aggregated. Rows are added to another table only
//! where that is under the same consents.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::{Catalog, ConsentPolicy, CreateMode, ObjectName};
use datafusion::logical_expr::LogicalPlan;

use super::lineage::policies_of;
use crate::error::{Error, Result};
use crate::session::StatementContext;

/// The policies that a table of the rows of `plan` inherits.
///
/// # Errors
/// When rows of single persons would be there without the column that says whose they are.
pub(crate) fn inherited(
    context: &StatementContext,
    name: &ObjectName,
    plan: &LogicalPlan,
) -> Result<Vec<ConsentPolicy>> {
    let mut copies = Vec::new();
    for policy in used(context) {
        let Some(subject) = person(plan, &policy.name) else {
            if is_aggregated(plan) {
                continue;
            }
            return Err(Error::invalid_hint(
                format!(
                    "{name} would hold rows of people of {} without the column {}, by which the \
                     consent policy {} knows whose they are",
                    policy.table, policy.subject, policy.name
                ),
                "keep that column, or aggregate the rows",
            ));
        };
        // A table that is replaced by its own rows stays under its own policy.
        if policy.table == *name && policy.subject == subject {
            continue;
        }
        let mut copy = policy.as_ref().clone();
        copy.name = format!("{}.{name}", policy.name);
        copy.table = name.clone();
        copy.subject = subject;
        copy.is_inherited = true;
        copy.follows = Some(policy.key());
        copy.created_ms = context.engine().catalog().now_ms();
        copies.push(copy);
    }
    Ok(copies)
}

/// Checks that rows of a plan may be added to a table: it is under the same consents as the tables
/// that they come from, and by the same crosswalks.
///
/// # Errors
/// When it is not, and the rows are not aggregated.
pub(crate) async fn may_add(
    context: &StatementContext,
    target: &ObjectName,
    plan: &LogicalPlan,
) -> Result<()> {
    let there = context.rights().purposes().policies_of(target);
    for policy in used(context).into_iter().filter(|policy| policy.table != *target) {
        if is_aggregated(plan) {
            continue;
        }
        let mut is_same = false;
        for other in there {
            is_same |= other.consents == policy.consents
                && other.purposes == policy.purposes
                && other.default_allow == policy.default_allow
                && is_linked_alike(context, &policy, other).await?;
        }
        if is_same {
            continue;
        }
        return Err(Error::invalid_hint(
            format!(
                "rows of {} are under the consent policy {}, and {target} is under none like it: \
                 a withdrawal would not reach them there",
                policy.table, policy.name
            ),
            "CREATE TABLE … AS SELECT makes a table under the same policy; or aggregate the rows",
        ));
    }
    Ok(())
}

/// Whether whatever links the ids of one policy's persons links those of another's.
async fn is_linked_alike(
    context: &StatementContext,
    policy: &ConsentPolicy,
    other: &ConsentPolicy,
) -> Result<bool> {
    let catalog = context.engine().catalog();
    let links = catalog.crosswalks_of(&policy.key()).await?;
    let others = catalog.crosswalks_of(&other.key()).await?;
    Ok(links.iter().all(|link| others.contains(link)))
}

/// The policies by which rows of the statement are chosen.
fn used(context: &StatementContext) -> Vec<Arc<ConsentPolicy>> {
    let names: BTreeSet<String> = context.opening().used().versions().into_keys().collect();
    let policies = context.rights().purposes().policies();
    policies.filter(|policy| names.contains(&policy.name)).map(Arc::clone).collect()
}

/// The column of a plan that holds the persons of a policy.
fn person(plan: &LogicalPlan, policy: &str) -> Option<String> {
    let fields = plan.schema().fields();
    let at = (0..fields.len()).find(|at| policies_of(plan, *at).contains(policy))?;
    fields.get(at).map(|field| field.name().clone())
}

/// Whether all rows of a plan are of groups.
fn is_aggregated(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) | LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => true,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Union(_) => plan.inputs().into_iter().all(is_aggregated),
        _ => false,
    }
}

/// Puts policies on a table that is about to be; gives the names of those that were not there.
///
/// # Errors
/// When the warehouse cannot be written.
pub(crate) async fn attach(catalog: &Catalog, copies: &[ConsentPolicy]) -> Result<Vec<String>> {
    let known = catalog.purposes().await?;
    let mut made = Vec::new();
    for copy in copies {
        if known.policy(&copy.name).is_none() {
            made.push(copy.name.clone());
        }
        catalog.create_consent(copy.clone(), CreateMode::Replace).await?;
    }
    Ok(made)
}

/// Takes the policies from a table that did not come to be.
pub(crate) async fn detach(catalog: &Catalog, made: &[String]) {
    for name in made {
        if let Err(error) = catalog.drop_consent(name).await {
            tracing::warn!(policy = name.as_str(), %error, "the policy of no table stays");
        }
    }
}
