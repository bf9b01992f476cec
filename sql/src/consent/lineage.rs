//! Which column of a plan holds the persons of a governed table, and whose values the others hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, JoinType, LogicalPlan, TableScan};

use super::groups::Groups;
use super::guard::Consented;
use crate::error::Result;
use crate::model::answers::Answers;
use crate::policy::barrier::barrier_of;
use crate::policy::beside::{Part, Values};
use crate::session::Narrowed;
use crate::subject::are_same_ids;

/// The names of the consent policies whose persons are in a column of a plan, as they are or cast
/// one to one, where it tells the persons of all rows: in each part of a UNION. Persons that are
/// computed of others are nobody's.
pub(super) fn policies_of_each(plan: &LogicalPlan, column: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    follow(plan, column, &mut found);
    found
}

fn follow(plan: &LogicalPlan, column: usize, found: &mut BTreeSet<String>) {
    match plan {
        LogicalPlan::Projection(node) => {
            expression(&node.input, node.expr.get(column), found);
        }
        LogicalPlan::Aggregate(node) => {
            let grouped = node.group_expr.get(column);
            let plain = grouped.filter(|expr| !matches!(expr, Expr::GroupingSet(_)));
            expression(&node.input, plain, found);
        }
        LogicalPlan::Window(node) if column < node.input.schema().fields().len() => {
            follow(&node.input, column, found);
        }
        LogicalPlan::SubqueryAlias(node) => follow(&node.input, column, found),
        LogicalPlan::Filter(node) => follow(&node.input, column, found),
        LogicalPlan::Sort(node) => follow(&node.input, column, found),
        LogicalPlan::Limit(node) => follow(&node.input, column, found),
        LogicalPlan::Repartition(node) => follow(&node.input, column, found),
        LogicalPlan::Distinct(Distinct::All(input)) => follow(input, column, found),
        LogicalPlan::Union(node) => {
            let parts = node.inputs.iter().map(|input| {
                let mut told = BTreeSet::new();
                follow(input, column, &mut told);
                (input, told)
            });
            let parts: Vec<_> = parts.collect();
            let told: BTreeSet<&String> = parts.iter().flat_map(|(_, told)| told).collect();
            let is_told = |policy: &str| {
                let lacks = |(input, told): &(&Arc<LogicalPlan>, BTreeSet<String>)| {
                    !told.contains(policy) && brings(input, policy)
                };
                !parts.iter().any(lacks)
            };
            found.extend(told.into_iter().filter(|policy| is_told(policy)).cloned());
        }
        LogicalPlan::Join(node) => {
            let left = node.left.schema().fields().len();
            match (node.join_type, column.checked_sub(left)) {
                (JoinType::RightSemi | JoinType::RightAnti, _) => {
                    follow(&node.right, column, found);
                }
                (_, None) => follow(&node.left, column, found),
                (
                    JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full,
                    Some(column),
                ) => follow(&node.right, column, found),
                // The column tells whether a row has met another.
                _ => {}
            }
        }
        LogicalPlan::TableScan(scan) => persons(scan, column, found),
        _ => {}
    }
}

/// Follows an expression that is a column, under another name or of another type.
fn expression(input: &LogicalPlan, expr: Option<&Expr>, found: &mut BTreeSet<String>) {
    match expr {
        Some(Expr::Alias(alias)) => expression(input, Some(alias.expr.as_ref()), found),
        Some(Expr::Cast(cast)) => {
            let from = cast.expr.get_type(input.schema());
            // What makes one of two persons tells of neither.
            if from.is_ok_and(|from| are_same_ids(&from, cast.field.data_type())) {
                expression(input, Some(cast.expr.as_ref()), found);
            }
        }
        Some(Expr::Column(column)) => {
            if let Some(column) = input.schema().maybe_index_of_column(column) {
                follow(input, column, found);
            }
        }
        _ => {}
    }
}

/// Whether rows, as those of a part of a UNION, are of single persons of a policy, or records of a
/// model of entities that may be.
pub(super) fn brings(plan: &LogicalPlan, policy: &str) -> bool {
    !Groups::of(policy).are_all(plan) && reads_rows(plan, policy)
}

/// Whether a plan reads rows of a table that a policy governs, or such records.
pub(super) fn reads_rows(plan: &LogicalPlan, policy: &str) -> bool {
    let mut is_found = false;
    let walked = plan.apply_with_subqueries(|part| {
        if let LogicalPlan::TableScan(scan) = part {
            let provider = source_as_provider(&scan.source).ok();
            let tells = provider.is_some_and(|provider| has_records(&provider, policy));
            is_found |= tells || reads(scan, policy);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    is_found || walked.is_err()
}

/// The policies that chose the rows which models learned from whose values a plan may show.
///
/// # Errors
/// When the plan cannot be walked.
pub(super) fn shown_by_models(plan: &LogicalPlan) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    plan.apply_with_subqueries(|part| {
        if let LogicalPlan::TableScan(scan) = part
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(answers) = provider.downcast_ref::<Answers>()
        {
            let consents = answers.model().manifest.consents.iter();
            let shown = consents.filter(|consent| answers.shows_rows_under(&consent.policy));
            found.extend(shown.map(|consent| consent.policy.clone()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Whether a scan reads a table that a policy governs, or what a model shows of rows of one.
fn reads(scan: &TableScan, policy: &str) -> bool {
    let provider = source_as_provider(&scan.source).ok();
    let answers = provider.as_ref().and_then(|found| found.downcast_ref::<Answers>());
    if answers.is_some_and(|answers| answers.shows_rows_under(policy)) {
        return true;
    }
    let table = provider.as_ref().and_then(consented);
    let below = || barrier_of(&scan.source, |barrier| brings(barrier.plan(), policy));
    table.is_some_and(|table| table.policies().any(|known| known.name == policy))
        || below().unwrap_or(false)
}

/// The columns with personal data of the tables that a plan reads under a policy.
pub(super) fn personal_columns(plan: &LogicalPlan, policy: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let walked = plan.apply_with_subqueries(|part| {
        let LogicalPlan::TableScan(scan) = part else { return Ok(TreeNodeRecursion::Continue) };
        let below = barrier_of(&scan.source, |barrier| personal_columns(barrier.plan(), policy));
        found.extend(below.into_iter().flatten());
        let provider = source_as_provider(&scan.source).ok();
        if let Some(table) = provider.as_ref().and_then(consented)
            && table.policies().any(|known| known.name == policy)
        {
            found.extend(table.personal().iter().cloned());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match walked {
        Ok(_) => found,
        Err(_) => BTreeSet::new(),
    }
}

/// What the columns of a plan hold of the rows of the table that a policy governs, which its
/// persons decide about. Persons of the policies `alike` are the same ones: what is equal to one of
/// theirs is under their policy as it is under this one.
///
/// # Errors
/// When the plan cannot be walked.
pub(super) fn values(plan: &LogicalPlan, policy: &str, alike: &BTreeSet<&str>) -> Result<Values> {
    let parts = |scan: &TableScan, column: &str| {
        let at = scan.projected_schema.as_arrow().index_of(column).ok()?;
        let mut found = BTreeSet::new();
        persons(scan, at, &mut found);
        let is_value = reads(scan, policy);
        let is_key = match is_value {
            true => found.contains(policy),
            false => found.iter().any(|found| alike.contains(found.as_str())),
        };
        (is_value || is_key).then_some(Part { is_value, is_key, decides: is_key })
    };
    Ok(Values::of(plan, &parts)?)
}

fn persons(scan: &TableScan, column: usize, found: &mut BTreeSet<String>) {
    let Ok(provider) = source_as_provider(&scan.source) else { return };
    let Some(field) = scan.projected_schema.fields().get(column) else { return };
    barrier_of(&scan.source, |barrier| {
        let below = barrier.plan();
        let fields = below.schema().fields();
        if let Some(column) = fields.iter().position(|below| below.name() == field.name()) {
            follow(below, column, found);
        }
    });
    if let Some(table) = consented(&provider) {
        let policies = table.policies_of_column(field.name());
        found.extend(policies.map(|policy| policy.name.clone()));
    }
}

/// Whether a provider tells of the records of a model of entities that learned under a policy.
fn has_records(provider: &Arc<dyn TableProvider>, policy: &str) -> bool {
    let answers = provider.downcast_ref::<Answers>();
    answers.map(Answers::model).is_some_and(|model| {
        model.model.entities().is_some()
            && model.manifest.consents.iter().any(|consent| consent.policy == policy)
    })
}

/// The governed table that a provider is, of which some columns may exist alone.
pub(super) fn consented(provider: &Arc<dyn TableProvider>) -> Option<&Consented> {
    match provider.downcast_ref::<Narrowed>() {
        Some(narrowed) => consented(narrowed.table()),
        None => provider.downcast_ref::<Consented>(),
    }
}
