//! Retention where identifiers are kept apart. A table that shows them has a row as long as one
//! with the identifiers is there in the table that keeps them apart, and has no column that tells
//! how old that is. A copy of its rows would outlive them, so it is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::policy::Rule;
use catalog::{ObjectName, Pii};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{LogicalPlan, TableScan};

use super::lineage::Lineage;
use crate::error::{Error, Result};
use crate::session::StatementContext;

/// Identifiers that are there for a time.
pub(super) struct Kept {
    /// The table that shows them.
    apart: ObjectName,
    /// The one that keeps them apart.
    of: ObjectName,
    /// The retention policy of that one.
    policy: String,
}

/// Checks that no copy of a plan's rows keeps identifiers longer than they are there.
///
/// # Errors
/// When one would; when policies cannot be read.
pub(super) async fn check_copy(context: &Arc<StatementContext>, plan: &LogicalPlan) -> Result<()> {
    let Some(Kept { apart, of, policy }) = shown(context, plan).await? else { return Ok(()) };
    if context.policies().is_declassified() {
        tracing::warn!(
            target: "attune",
            principal = context.rights().name(),
            tables = %apart,
            "declassified"
        );
        return Ok(());
    }
    Err(Error::unsupported(
        format!(
            "policy {policy} of {of} keeps the identifiers in {apart} for a time, and a copy of \
             them has no column that tells it"
        ),
        "copy the table with their pseudonyms and its times, and join the identifiers to it when \
         they are read, or ask who administers policies to DECLASSIFY the copy",
    ))
}

/// Identifiers that are there for a time, of which a plan shows single ones.
///
/// # Errors
/// When policies cannot be read, or the plan cannot be walked.
pub(super) async fn shown(
    context: &Arc<StatementContext>,
    plan: &LogicalPlan,
) -> Result<Option<Kept>> {
    for (apart, (of, pii)) in context.identifiers() {
        let Some(opened) = context.opened(&apart) else { continue };
        let rules = context.engine().catalog().table_rules(&of).await?;
        let mut policies = rules.own.policies.iter();
        let aged = policies.find(|(_, policy)| matches!(policy.rule, Rule::Retention { .. }));
        let Some((policy, _)) = aged else { continue };
        let lineage = Lineage(|scan: &TableScan| {
            let read = source_as_provider(&scan.source).ok()?;
            Arc::ptr_eq(&opened, &read).then(|| apart.clone())
        });
        // Conditions show nothing.
        let sources = lineage.of(plan)?;
        let are_shown = sources.iter().any(|source| !source.of.is_empty());
        if are_shown && lineage.shows_rows(plan, &apart, &BTreeSet::new(), &columns(&pii))? {
            return Ok(Some(Kept { policy: policy.clone(), apart, of }));
        }
    }
    Ok(None)
}

/// The columns of a table that shows identifiers.
fn columns(pii: &Pii) -> BTreeSet<String> {
    let columns = pii.columns.iter();
    columns.flat_map(|column| [column.clone(), Pii::pseudonym_of(column)]).collect()
}
