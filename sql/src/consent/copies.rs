//! Copies inherit: a table that is made of a governed one is governed by a policy like its own.
//!
//! The policy goes with the column of persons under its new name. A copy without that column would
//! hold rows of single persons of whom nobody knows whose they are, so that no withdrawal could
//! reach them: it is refused, unless the rows are of groups that nothing of the persons is left in
//! ([`super::groups`]). So is one with ids of other persons beside those of the rows' own, alone or
//! in lists, or with other values of their rows ([`crate::policy::beside`]). Rows are added to
//! another table only where that is under the same consents.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Field;
use catalog::policy::free_name;
use catalog::registry::definition::NAME_CHARS_MAX;
use catalog::tokens::digest;
use catalog::{ConsentPolicy, ObjectName};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use udfs::recommend::model_argument;

use super::groups::{Groups, Personal};
use super::lineage::{personal_columns, policies_of_each, reads_rows, shown_by_models, values};
use crate::error::{Error, Result};
use crate::session::StatementContext;
use crate::subject::users::others_beside;

/// Digits of a digest in a name.
const DIGEST_CHARS: usize = 32;

/// The policies that a table of the rows of `plan` inherits.
///
/// # Errors
/// When rows of single persons would be there without the column that says whose they are.
pub(crate) fn inherited(
    context: &StatementContext,
    name: &ObjectName,
    plan: &LogicalPlan,
) -> Result<Vec<ConsentPolicy>> {
    let mut copies: Vec<ConsentPolicy> = Vec::new();
    for policy in used(context, plan)? {
        let Some((at, subject)) = person(plan, &policy.name) else {
            if is_of_groups(context, plan, Groups::of(&policy.name)) {
                continue;
            }
            if is_asked(context, &policy.name) {
                return Err(of_answers(name, &policy));
            }
            let otherwise = "keep that column, or aggregate the rows by counts, sums or means";
            return Err(Error::invalid_hint(
                format!(
                    "{name} would hold rows of people of {} without the column {}, by which the \
                     consent policy {} knows whose they are",
                    policy.table, policy.subject, policy.name
                ),
                way_out(context, plan, &policy, otherwise.to_owned()),
            ));
        };
        check_beside(context, name, plan, at, &policy, |_| true)?;
        if !values(plan, &policy.name, &BTreeSet::new())?.are_under(&[at]) {
            return Err(of_several(name, &policy));
        }
        // A table that is replaced by its own rows stays under the policy of its name.
        if policy.table == *name && policy.subject == subject && !policy.is_inherited {
            continue;
        }
        let mut copy = policy.as_ref().clone();
        // What the table has inherited goes with its definition, and comes again with the next one.
        if policy.table != *name || !policy.is_inherited {
            copy.name = name_of(&policy.name, name);
        }
        copy.table = name.clone();
        copy.subject = subject;
        copy.is_inherited = true;
        copy.follows = Some(policy.key());
        copy.created_ms = context.engine().catalog().now_ms();
        add(&mut copies, copy);
    }
    Ok(copies)
}

/// Adds a policy, unless one like it is among them: rows of a table and of its own copy are under
/// the same one.
fn add(copies: &mut Vec<ConsentPolicy>, mut copy: ConsentPolicy) {
    let is_same = |held: &ConsentPolicy| {
        held.subject == copy.subject
            && held.follows == copy.follows
            && held.owner == copy.owner
            && held.is_alike(&copy)
    };
    if copies.iter().any(is_same) {
        return;
    }
    copy.name = free_name(&copy.name, |name| copies.iter().any(|held| held.name == name));
    copies.push(copy);
}

/// Whether the statement asks a model that learned under a policy.
fn is_asked(context: &StatementContext, policy: &str) -> bool {
    let asked = context.opening().asked();
    asked.iter().any(|model| model.manifest.consents.iter().any(|told| told.policy == policy))
}

/// The refusal of a table of what a model tells: its columns of persons are the model's, whatever
/// they are called.
fn of_answers(name: &ObjectName, policy: &ConsentPolicy) -> Error {
    Error::invalid_hint(
        format!(
            "{name} would hold what a model tells of people of {}, where a later withdrawal under \
             the consent policy {} would not reach them",
            policy.table, policy.name
        ),
        "make a view of the query, which asks the model anew each time, or aggregate the rows",
    )
}

/// The refusal of rows in which values of several persons' rows stand.
fn of_several(name: &ObjectName, policy: &ConsentPolicy) -> Error {
    Error::unsupported(
        format!(
            "rows of {name} would hold values of other people of {} beside those of the person \
             whose row it is: under the consent policy {} a later withdrawal of theirs would not \
             reach them",
            policy.table, policy.name
        ),
        "take them from rows of the same person (PARTITION BY the person, or join on it), count or \
         average them, or make a view of the query, which reads them anew each time",
    )
}

/// Checks that none of the columns that are meant holds ids of a policy's persons who are others
/// than the one whose row it is.
fn check_beside(
    context: &StatementContext,
    name: &ObjectName,
    plan: &LogicalPlan,
    person: usize,
    policy: &ConsentPolicy,
    is_meant: impl Fn(&Field) -> bool,
) -> Result<()> {
    let fields = plan.schema().fields();
    let others = others_beside(context, plan, person, policy)?;
    let mut others = others.into_iter().filter_map(|at| fields.get(at));
    match others.find(|field| is_meant(field)) {
        None => Ok(()),
        Some(field) => Err(Error::invalid_hint(
            format!(
                "the column {} of {name} would hold people of {} beside the one whose row it is: \
                 under the consent policy {} a later withdrawal of theirs would not reach it",
                field.name(),
                policy.table,
                policy.name
            ),
            "give each person a row, count the others, or make a view of the query, which reads \
             them anew each time",
        )),
    }
}

/// The refusal of rows of a table's own persons that come back into it under other names, or none.
fn of_nobody(
    context: &StatementContext,
    target: &ObjectName,
    plan: &LogicalPlan,
    policy: &ConsentPolicy,
) -> Error {
    let otherwise = format!(
        "select {} into its column as it is, or count or average the values",
        policy.subject
    );
    Error::invalid_hint(
        format!(
            "values of people of {target} would come into rows of it without their own {}, by \
             which the consent policy {} knows whose they are: a withdrawal would not reach them",
            policy.subject, policy.name
        ),
        way_out(context, plan, policy, otherwise),
    )
}

/// Whether consents choose rows of the statement, or chose those of a model that it asks.
pub(crate) fn are_chosen(context: &StatementContext) -> bool {
    let asked = context.opening().asked();
    !context.opening().used().versions().is_empty()
        || asked.iter().any(|model| !model.manifest.consents.is_empty())
}

/// Checks that rows of a table may become those of a plan, which has all of its columns: the table
/// is under the same consents as those that values come from, and by the same crosswalks, and they
/// are of the person in the column by which its policy knows whose the row is. What was in a row of
/// the table may stay there, whoever is set as its person.
///
/// # Errors
/// When that is not so.
pub(crate) async fn may_change(
    context: &StatementContext,
    target: &ObjectName,
    plan: &LogicalPlan,
) -> Result<()> {
    may_come(context, target, plan, |_, _| true).await?;
    // Other columns may hold what they held: which ids are the row's own is not known of all.
    check_columns(context, target, plan, |_, _| true, |field| field.data_type().is_nested())?;
    let there = context.rights().purposes().policies_of(target);
    for policy in used(context, plan)? {
        let alike = there.iter().filter(|other| other.is_alike(&policy));
        let names: BTreeSet<&str> = alike.clone().map(|other| other.name.as_str()).collect();
        let persons: Vec<usize> = alike.filter_map(|other| place(plan, &other.subject)).collect();
        let held = values(plan, &policy.name, &names)?;
        let stay = policy.table == *target && held.are_of_one(&[]);
        if !stay && !held.are_under(&persons) {
            return Err(of_several(target, &policy));
        }
    }
    Ok(())
}

/// Checks that rows of a plan may be added to a table: it is under the same consents as the tables
/// that they come from, and by the same crosswalks, each person comes into the column by which its
/// policy knows whose rows they are, and all values of a row are that person's. Rows of groups that
/// are nobody's come into any table, into one of persons without values of single rows.
///
/// # Errors
/// When that is not so.
pub(crate) async fn may_insert(
    context: &StatementContext,
    target: &ObjectName,
    plan: &LogicalPlan,
) -> Result<()> {
    let comes = |policy: &str, subject: &str| {
        let at = place(plan, subject);
        at.is_some_and(|at| policies_of_each(plan, at).contains(policy))
    };
    may_come(context, target, plan, comes).await?;
    check_columns(context, target, plan, comes, |_| true)?;
    let there = context.rights().purposes().policies_of(target);
    for policy in used(context, plan)? {
        let alike = there
            .iter()
            .filter(|other| other.is_alike(&policy) && comes(&policy.name, &other.subject));
        let persons: Vec<usize> = alike.filter_map(|other| place(plan, &other.subject)).collect();
        let is_of_groups = is_of_groups(context, plan, Groups::of(&policy.name));
        // In a table of persons a row is somebody's: of groups, only what counts and sums may come.
        if (is_of_groups && there.is_empty())
            || values(plan, &policy.name, &BTreeSet::new())?.are_under(&persons)
        {
            continue;
        }
        if is_of_groups {
            return Err(of_several(target, &policy));
        }
        return Err(match persons.is_empty() {
            true => of_nobody(context, target, plan, &policy),
            false => of_several(target, &policy),
        });
    }
    Ok(())
}

fn place(plan: &LogicalPlan, column: &str) -> Option<usize> {
    plan.schema().fields().iter().position(|field| field.name() == column)
}

/// Checks that rows for a table hold, in columns that are meant, no ids of other persons than their
/// own, who come into the columns of the table's policies; other persons' columns are under these.
fn check_columns(
    context: &StatementContext,
    target: &ObjectName,
    plan: &LogicalPlan,
    comes: impl Fn(&str, &str) -> bool,
    is_meant: impl Fn(&Field) -> bool,
) -> Result<()> {
    let there = context.rights().purposes().policies_of(target);
    for policy in used(context, plan)? {
        let alike = there
            .iter()
            .filter(|other| other.is_alike(&policy) && comes(&policy.name, &other.subject));
        let governed: BTreeSet<&String> = alike.map(|other| &other.subject).collect();
        for subject in &governed {
            if let Some(at) = place(plan, subject) {
                let is_open = |field: &Field| !governed.contains(field.name()) && is_meant(field);
                check_beside(context, target, plan, at, &policy, is_open)?;
            }
        }
    }
    Ok(())
}

async fn may_come(
    context: &StatementContext,
    target: &ObjectName,
    plan: &LogicalPlan,
    comes: impl Fn(&str, &str) -> bool,
) -> Result<()> {
    let there = context.rights().purposes().policies_of(target);
    let used = used(context, plan)?.into_iter();
    for policy in used.filter(|policy| policy.table != *target) {
        if is_of_groups(context, plan, Groups::of(&policy.name)) {
            continue;
        }
        let mut is_same = false;
        for other in there {
            is_same |= other.is_alike(&policy)
                && comes(&policy.name, &other.subject)
                && is_linked_alike(context, &policy, other).await?;
        }
        if is_same {
            continue;
        }
        let otherwise =
            "CREATE TABLE … AS SELECT makes a table under the same policy; or aggregate the rows";
        return Err(Error::invalid_hint(
            format!(
                "rows of {} are under the consent policy {}, and {target} is under none like it: \
                 a withdrawal would not reach them there",
                policy.table, policy.name
            ),
            way_out(context, plan, &policy, otherwise.to_owned()),
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

/// What the policy of a copy is called. Copies of copies have ever longer names: what is too long
/// is told apart by a digest.
fn name_of(policy: &str, table: &ObjectName) -> String {
    let name = format!("{policy}.{table}");
    if name.chars().count() <= NAME_CHARS_MAX {
        return name;
    }
    let start = name.chars().take(NAME_CHARS_MAX - DIGEST_CHARS - 1);
    let digest = digest(&name);
    start.chain(['.']).chain(digest.chars().take(DIGEST_CHARS)).collect()
}

/// The policies by which rows of the statement are chosen, and were those of the models of entities
/// that it asks: whose their records are is not kept, so they may be any policy's persons. So may
/// be rows of which a model of features shows values in the plan.
fn used(context: &StatementContext, plan: &LogicalPlan) -> Result<Vec<Arc<ConsentPolicy>>> {
    let mut names: BTreeSet<String> = context.opening().used().versions().into_keys().collect();
    for model in context.opening().asked() {
        if model.model.entities().is_some() {
            names.extend(model.manifest.consents.iter().map(|consent| consent.policy.clone()));
        }
    }
    names.extend(shown_by_models(plan)?);
    let policies = context.rights().purposes().policies();
    Ok(policies.filter(|policy| names.contains(&policy.name)).map(Arc::clone).collect())
}

/// The column of a plan that holds the persons of a policy, in each part of a UNION.
fn person(plan: &LogicalPlan, policy: &str) -> Option<(usize, String)> {
    let mut fields = plan.schema().fields().iter().enumerate();
    let (at, field) = fields.find(|(at, _)| policies_of_each(plan, *at).contains(policy))?;
    Some((at, field.name().clone()))
}

/// What can be done about rows that are refused: the hint names the column with personal data where
/// it alone makes persons' of groups that were nobody's.
fn way_out(
    context: &StatementContext,
    plan: &LogicalPlan,
    policy: &ConsentPolicy,
    otherwise: String,
) -> String {
    let is_nobodys = |personal: Personal<'_>| {
        is_of_groups(context, plan, Groups::counting(&policy.name, personal))
    };
    if !is_nobodys(Personal::No) {
        return otherwise;
    }
    let columns = personal_columns(plan, &policy.name);
    match columns.iter().find(|column| !is_nobodys(Personal::Only(column))) {
        None => otherwise,
        Some(column) => format!(
            "{column} holds personal data, which tells persons apart as {} does: keep {}, or count \
             the values of {column} and group by other columns",
            policy.subject, policy.subject
        ),
    }
}

/// Whether all rows of a plan are of groups that are nobody's, and nothing of a policy's persons
/// stands beside them.
fn is_of_groups(context: &StatementContext, plan: &LogicalPlan, groups: Groups<'_>) -> bool {
    groups.are_all(plan) && !tells_beside(plan, groups, is_asked(context, groups.policy()))
}

/// Whether values beside the groups of a plan may be single persons' of a policy: what functions
/// give of models, where the statement asks one that learned under it, and what sub-queries do.
fn tells_beside(plan: &LogicalPlan, groups: Groups<'_>, asks: bool) -> bool {
    let gives_values = match plan {
        LogicalPlan::Aggregate(_) => return false,
        LogicalPlan::Projection(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Distinct(Distinct::On(_))
        | LogicalPlan::Values(_) => true,
        _ => false,
    };
    let mut tells = false;
    let mut tell = |part: &Expr| {
        tells |= match part {
            Expr::ScalarFunction(call) => asks && model_argument(call.func.name()).is_some(),
            Expr::ScalarSubquery(sub) => {
                let rows = sub.subquery.as_ref();
                (!groups.are_all(rows) && (asks || reads_rows(rows, groups.policy())))
                    || plan.inputs().into_iter().any(|beside| groups.ties(sub, beside))
                    || tells_beside(rows, groups, asks)
            }
            _ => false,
        };
        Ok(TreeNodeRecursion::Continue)
    };
    let walked = match gives_values {
        true => plan.apply_expressions(|expr| expr.apply(&mut tell)),
        false => Ok(TreeNodeRecursion::Continue),
    };
    walked.is_err()
        || tells
        || plan.inputs().into_iter().any(|input| tells_beside(input, groups, asks))
}

#[cfg(test)]
mod tests {
    use catalog::ConsentSource;

    use super::*;

    #[test]
    fn a_policy_that_comes_by_two_ways_comes_once() {
        let of = |purpose: &str| ConsentPolicy {
            name: "p.main.c".into(),
            table: ObjectName::new("main", "c"),
            subject: "person".into(),
            consents: ConsentSource {
                table: ObjectName::new("main", "consents"),
                subject: "subject".into(),
                purpose: "purpose".into(),
                granted: "granted".into(),
                valid_from: None,
                valid_to: None,
                channel: None,
            },
            purposes: [purpose.to_owned()].into(),
            channels: BTreeSet::new(),
            default_allow: false,
            owner: "dpo".into(),
            created_ms: 1,
            is_inherited: true,
            follows: None,
        };
        let mut copies = Vec::new();
        for purpose in ["ads", "news", "ads"] {
            add(&mut copies, of(purpose));
        }
        let names: Vec<&str> = copies.iter().map(|copy| copy.name.as_str()).collect();
        assert_eq!(names, ["p.main.c", "p.main.c_2"]);
    }

    #[test]
    fn copies_of_copies_have_names_of_their_own_however_many_there_are() {
        let mut name = "p".to_owned();
        let mut known = BTreeSet::new();
        for number in 0..50 {
            name = name_of(&name, &ObjectName::new("main", format!("copy_{number}")));
            assert!(name.chars().count() <= NAME_CHARS_MAX);
            assert!(known.insert(name.clone()), "{name}");
        }
        assert_ne!(
            name_of(&name, &ObjectName::new("main", "x")),
            name_of(&name, &ObjectName::new("main", "y"))
        );
    }
}
