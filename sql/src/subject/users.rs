//! What the ids in a column of users were made of: of the ids of a policy's persons, so that their
//! withdrawals are followed, and of subjects' keys, so that requests of a person reach a model. And
//! which columns beside that of a policy's persons hold ids of others of them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use catalog::ConsentPolicy;
use catalog::subject_copies::{CopiedKey, Transformation};
use catalog::subjects::SubjectKey;
use datafusion::logical_expr::LogicalPlan;
use udfs::privacy::KeyUse;

use super::copies::{first_generations, keyed};
use super::define::is_id;
use super::ids::{Held, Ids};
use super::lineage::{Keyed, Lineage, Rows};
use super::of_models::OfModels;
use super::whose::Persons;
use crate::consent::personal;
use crate::error::Result;
use crate::session::StatementContext;

/// What can be done to ids, in order, each way that they came by.
pub(crate) type Ways = BTreeSet<Vec<Transformation>>;

/// What a column holds of persons' ids.
pub(crate) enum Followed {
    /// Nothing of rows of single persons.
    Nothing,
    /// The ids, as they are or made other ones; a step under a key names its generation.
    Ids(Ways),
    /// Something of which ids cannot be told.
    Lost,
}

/// What a column of a plan holds of a policy's persons.
///
/// # Errors
/// When the plan cannot be walked, or it is not known which keys there are.
pub(crate) async fn of_policy(
    context: &StatementContext,
    plan: &LogicalPlan,
    column: usize,
    policy: &ConsentPolicy,
) -> Result<Followed> {
    let personal = personal(context, &policy.table).await?;
    let rows = rows_of(context, plan, policy, &first_generations(context).await?, personal)?;
    let held = column_held(plan, rows.columns, column);
    if is_lost(&held, &rows.persons) {
        return Ok(Followed::Lost);
    }
    let ways = held.ids.into_iter().filter_map(|ids| Some((ids.before, ids.by?)));
    let ways: BTreeSet<(Vec<Transformation>, Vec<Transformation>)> = ways.collect();
    if ways.is_empty() {
        return Ok(Followed::Nothing);
    }
    Ok(with_generations(context, ways).map_or(Followed::Lost, Followed::Ids))
}

/// The columns of a plan that may hold, one by one or in lists, ids of a policy's persons who are
/// others than the person of the row, who is in `column`.
///
/// # Errors
/// When the plan cannot be walked.
pub(crate) fn others_beside(
    context: &StatementContext,
    plan: &LogicalPlan,
    column: usize,
    policy: &ConsentPolicy,
) -> Result<Vec<usize>> {
    // What keys have made of ids is not looked at, nor what groups are made by.
    let personal = BTreeSet::new();
    let Rows { columns, persons } = rows_of(context, plan, policy, &BTreeMap::new(), personal)?;
    let Some(person) = columns.get(column) else { return Ok(vec![]) };
    let is_told = |ids: &Ids| person.ids.iter().any(|by| persons.are_told(ids.reading, by));
    let is_other = |held: &Held| held.ids.iter().any(|ids| held.is_of_others || !is_told(ids));
    let others = columns.iter().enumerate().filter(|(at, held)| *at != column && is_other(held));
    Ok(others.map(|(at, _)| at).collect())
}

/// What the rows of a plan are of a policy's persons.
fn rows_of(
    context: &StatementContext,
    plan: &LogicalPlan,
    policy: &ConsentPolicy,
    keys: &BTreeMap<String, String>,
    personal: BTreeSet<String>,
) -> Result<Rows> {
    let (name, column) = (policy.table.clone(), policy.subject.clone());
    let key = SubjectKey { table: name.clone(), column: column.clone() };
    let providers = context.standing_for(&name);
    let (ids, asked) = (Ids::of(&policy.name, &key), context.opening().asked());
    let columns = vec![(column, ids.clone())];
    let tables = [Keyed { name, providers, columns, personal }];
    let models = OfModels { subjects: &[], copies: &[], policy: Some(&ids), asked: &asked };
    Ok(Lineage::new(&tables, models, keys, &Cell::default()).of(plan)?)
}

/// The ids of subjects' keys in a column of users or records.
#[derive(Debug, Clone, Default)]
pub(crate) struct SubjectIds {
    /// Those that are not what they were, or a person's own in the crosswalk. Where nothing is left
    /// of them that can be looked for, they are of no known making.
    pub(crate) changed: BTreeSet<CopiedKey>,
    /// Those of records, as they are in tables, or in models that learned from these.
    pub(crate) plain: BTreeSet<CopiedKey>,
}

/// The ids of subjects' keys in a column of users or records.
///
/// # Errors
/// When what is known of subjects or keys cannot be read, or the plan cannot be walked.
pub(crate) async fn of_subjects(
    context: &StatementContext,
    plan: &LogicalPlan,
    column: usize,
) -> Result<SubjectIds> {
    let catalog = context.engine().catalog();
    let subjects = catalog.sound_subjects().await?;
    if subjects.is_empty() {
        return Ok(SubjectIds::default());
    }
    let copies = catalog.copies().await?;
    let tables = keyed(context, &subjects, &copies).await?;
    let (keys, asked) = (first_generations(context).await?, context.opening().asked());
    let models = OfModels { subjects: &subjects, copies: &copies, policy: None, asked: &asked };
    let rows = Lineage::new(&tables, models, &keys, &Cell::default()).of(plan)?;
    let mut beside = rows.columns.clone();
    if let Some(held) = beside.get_mut(column) {
        *held = Held::default();
    }
    let held = column_held(plan, rows.columns, column);
    let is_entity = |root: &SubjectKey| subjects.iter().any(|subject| subject.is_entity(root));
    let untold = untold(&tables, &held, &rows.persons, &beside);
    let ids = held.ids.iter().chain(&held.lost).chain(&untold);
    let ids = ids.chain(beside.iter().flat_map(|held| &held.others));
    let found = ids.map(|ids| ids.copied_to(None));
    let is_as_it_was = |copy: &CopiedKey| copy.is_plain() && !is_entity(&copy.root);
    let (plain, changed): (BTreeSet<_>, BTreeSet<_>) = found.partition(is_as_it_was);
    Ok(SubjectIds { changed, plain })
}

/// The ids of tables whose rows are single persons' and have in a column values of theirs, or of no
/// table, or in others beside it values of theirs, without an id of the person in it.
fn untold(tables: &[Keyed], held: &Held, persons: &Persons, beside: &[Held]) -> BTreeSet<Ids> {
    let mut untold = BTreeSet::new();
    for (reading, name) in &persons.readings {
        let is_beside = beside.iter().any(|other| other.readings.contains(reading));
        if !is_beside && !held.may_stand_for(*reading) {
            continue;
        }
        let is_told = |of: &Ids| {
            let mut left = held.ids.iter().filter(|left| left.subject == of.subject);
            left.any(|left| persons.are_told(*reading, left))
        };
        let columns = tables.iter().filter(|table| table.name == *name);
        let ids = columns.flat_map(|table| &table.columns).map(|(_, ids)| ids);
        let ids = ids.filter(|ids| ids.by.is_some() && !is_told(ids));
        untold.extend(ids.cloned().map(Ids::hidden));
    }
    untold
}

/// What a column comes of; ids in a type that is no id's cannot be looked for.
fn column_held(plan: &LogicalPlan, columns: Vec<Held>, column: usize) -> Held {
    let held = columns.into_iter().nth(column).unwrap_or_default();
    match plan.schema().fields().get(column) {
        Some(field) if is_id(field.data_type()) => held,
        _ => held.each(Ids::hidden),
    }
}

/// Whether a column may hold something of persons by which they are not found: what was made of
/// their ids and cannot be made again, or, where their rows are not of groups, other values of
/// these or such as the query writes beside them.
fn is_lost(held: &Held, persons: &Persons) -> bool {
    let is_untold = |reading: usize| {
        held.may_stand_for(reading) && !held.ids.iter().any(|ids| persons.are_told(reading, ids))
    };
    !held.lost.is_empty()
        || held.ids.iter().any(|ids| ids.by.is_none())
        || persons.readings.iter().any(|(reading, _)| is_untold(*reading))
}

/// What had been done to ids before the statement, and what it does under the generations of keys
/// that it uses; `None` where it uses none.
fn with_generations(
    context: &StatementContext,
    ways: BTreeSet<(Vec<Transformation>, Vec<Transformation>)>,
) -> Option<Ways> {
    let used = context.used_keys();
    let generations = |key: &str, key_use: KeyUse| -> Vec<String> {
        let of_key = used.iter().filter(|used| used.name == key && used.key_use == key_use);
        of_key.map(|used| used.id.clone()).collect()
    };
    let under_each = |step: &Transformation| -> Vec<Transformation> {
        match step {
            Transformation::Expression(_) => vec![step.clone()],
            Transformation::Pseudonym { key, .. } => generations(key, KeyUse::Pseudonymize)
                .into_iter()
                .map(|id| Transformation::Pseudonym { key: key.clone(), id })
                .collect(),
            Transformation::Ciphertext { key, .. } => generations(key, KeyUse::Encrypt)
                .into_iter()
                .map(|id| Transformation::Ciphertext { key: key.clone(), id })
                .collect(),
        }
    };
    let mut all = Ways::new();
    for (before, way) in ways {
        let mut made: Vec<Vec<Transformation>> = vec![before];
        for step in &way {
            let steps = under_each(step);
            let mut longer = Vec::with_capacity(made.len() * steps.len());
            for before in &made {
                for step in &steps {
                    longer.push(before.iter().chain([step]).cloned().collect());
                }
            }
            made = longer;
        }
        if made.is_empty() {
            return None;
        }
        all.extend(made);
    }
    Some(all)
}
