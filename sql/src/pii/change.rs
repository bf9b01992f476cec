//! That a table keeps identifiers apart: who says so, what goes with it, and who ends it.

use std::collections::BTreeSet;

use catalog::lake::LakeTable;
use catalog::policy::{Attached, RuleSet};
use catalog::{Catalog, ConsentPolicy, ObjectName, Pii, Seen};
use udfs::privacy::KeyUse;

use crate::error::{Error, Result};
use crate::key::bind::{self, NamedKeys};
use crate::policy::propose::tag_of_name;
use crate::session::StatementContext;
use crate::session::run::Run;

/// The tag of identifiers of which the column's name does not tell the kind.
const TAG: &str = "pii.identifier";

/// Why a name whose definition cannot be read is not free for everybody.
const DAMAGED: &str = "its definition cannot be read, and may keep personal identifiers apart";

/// Checks that a principal may have pseudonyms made under the key of a table: whoever reads it
/// needs no right of its own then.
///
/// # Errors
/// When it holds no PSEUDONYMIZE on the key.
pub(crate) fn may_use(context: &StatementContext, pii: &Pii) -> Result<()> {
    let uses = BTreeSet::from([KeyUse::Pseudonymize]);
    bind::check(context, &NamedKeys::from([(pii.key.clone(), uses)]))
}

/// The same table, with the generation that its key has now: pseudonyms stay what they are when the
/// key rotates, and with them copies, joins, and who is restricted, was erased or has consented.
///
/// # Errors
/// When keys cannot be read, or the key is written as none.
pub(crate) async fn pinned(catalog: &Catalog, table: &LakeTable) -> Result<LakeTable> {
    let Some(pii) = &table.pii else { return Ok(table.clone()) };
    let (name, number) = bind::parts(&pii.key)?;
    let key = catalog.keys().await?.into_iter().find(|key| key.name == name);
    let generations = key.map(|key| key.generations).unwrap_or_default();
    let is_rotated = generations.len() > 1;
    // The newest one comes first.
    let mut wanted = generations.into_iter().filter(|one| number.is_none_or(|n| n == one.number()));
    // What is missing is told where the key is opened.
    let Some(generation) = wanted.next() else { return Ok(table.clone()) };
    let key = match number {
        // That of a key of the configuration with one secret is known by its id.
        None if is_rotated || generation.stored.is_some() => {
            format!("{name}@{}", generation.number())
        }
        _ => pii.key.clone(),
    };
    let pii = Pii { key, key_id: Some(generation.id), ..pii.clone() };
    Ok(LakeTable { pii: Some(pii), ..table.clone() })
}

/// Checks that what a name is may be dropped, or replaced by a table of the warehouse: where
/// identifiers are kept apart, that is for those who keep the policies.
///
/// # Errors
/// When it may not.
pub(crate) async fn may_end(run: &Run, name: &ObjectName) -> Result<()> {
    match run.session.engine().catalog().seen(name).await?.separated() {
        Ok(None) => Ok(()),
        Ok(Some(_)) => may_show(run, name, "it keeps personal identifiers apart").await,
        Err(_) => may_show(run, name, DAMAGED).await,
    }
}

async fn may_show(run: &Run, name: &ObjectName, why: &str) -> Result<()> {
    run.session
        .rights()
        .await?
        .may_set_policy(format!("drop {name}, or replace it by what shows more: {why}"))
}

/// Checks that what a name is, or nothing, may become a table over files: where identifiers are
/// kept apart, and would not be any more, that is for those who keep the policies.
///
/// # Errors
/// When it may not; when persons are known by ids in a column that would be others.
pub(crate) async fn may_become(
    run: &Run,
    name: &ObjectName,
    seen: &Seen,
    after: &LakeTable,
) -> Result<()> {
    let catalog = run.session.engine().catalog();
    let Ok(before) = seen.separated() else {
        may_show(run, name, DAMAGED).await?;
        // Which ids it showed is not known.
        nobody_is_marked(catalog, name, |_| true).await?;
        return nobody_consents(catalog, name, |_| true).await;
    };
    if before.is_none() && after.pii.is_none() {
        return Ok(());
    }
    let shows_more = before.is_some_and(|before| !keeps(before, after));
    if shows_more {
        may_show(run, name, "it keeps personal identifiers apart").await?;
    }
    let was = |column: &str| has(before, column);
    let is_new = |column: &str| has(Some(after), column) && !was(column);
    nobody_is_marked(catalog, name, |column| is_new(column) || shows_more && was(column)).await?;
    let others = before.is_some_and(|before| !has_key_of(before, after));
    let changes = |column: &str| was(column) != has(Some(after), column) || others && was(column);
    nobody_consents(catalog, name, changes).await
}

/// Whether a table keeps a column apart.
fn has(table: Option<&LakeTable>, column: &str) -> bool {
    table.and_then(|table| table.pii.as_ref()).is_some_and(|pii| pii.has(column))
}

/// Who is restricted or erased is known by ids, and would be seen again under others.
async fn nobody_is_marked(
    catalog: &Catalog,
    name: &ObjectName,
    changes: impl Fn(&str) -> bool,
) -> Result<()> {
    let marked = catalog.marked_columns(name).await?;
    match marked.iter().find(|column| changes(&column.column)) {
        None => Ok(()),
        Some(column) => Err(Error::invalid_hint(
            format!(
                "persons of subject {} in {name}.{} must not be seen, and under other ids they \
                 would be",
                column.subject, column.column
            ),
            "keep the files, the key and the columns; RELEASE SUBJECT … FROM RESTRICTION ends a \
             restriction, and ALTER SUBJECT … DROP KEY says that the column has no ids of it",
        )),
    }
}

/// Consents are told under ids, and would be nobody's under others.
async fn nobody_consents(
    catalog: &Catalog,
    name: &ObjectName,
    changes: impl Fn(&str) -> bool,
) -> Result<()> {
    let purposes = catalog.purposes().await?;
    if let Some(fault) = purposes.fault() {
        return Err(fault.clone().into());
    }
    let told_by = |policy: &ConsentPolicy| {
        let consents = &policy.consents;
        let both = [(&policy.table, &policy.subject), (&consents.table, &consents.subject)];
        both.into_iter().any(|(table, column)| table == name && changes(column))
    };
    match purposes.policies().find(|policy| told_by(policy)) {
        None => Ok(()),
        Some(policy) => Err(Error::invalid_hint(
            format!(
                "consent policy {} knows persons by ids in {name}, which would be others",
                policy.name
            ),
            format!(
                "DROP CONSENT POLICY {}, and CREATE it over consents that have the same ids",
                policy.name
            ),
        )),
    }
}

/// Forgets what checks have told of values that are identifiers from now on.
///
/// # Errors
/// When the warehouse cannot be written.
pub(crate) async fn forget(
    catalog: &Catalog,
    name: &ObjectName,
    seen: &Seen,
    pii: &Pii,
) -> Result<()> {
    let before = seen.separated().ok().flatten();
    if pii.columns.iter().any(|column| !has(before, column)) {
        catalog.forget_checked_values(name).await?;
    }
    Ok(())
}

/// Whether a definition shows no more than the one before: the same files read in the same way,
/// under the same key, and no column fewer is kept apart.
fn keeps(before: &LakeTable, after: &LakeTable) -> bool {
    let rows = |table: &LakeTable| LakeTable { pii: None, ..table.clone() };
    let covered = match (&before.pii, &after.pii) {
        (Some(before), Some(after)) => after.covers(before),
        (before, _) => before.is_none(),
    };
    covered && has_key_of(before, after) && rows(before) == rows(after)
}

/// Whether the pseudonyms of two tables are made under the same generation of the same key.
fn has_key_of(before: &LakeTable, after: &LakeTable) -> bool {
    match (&before.pii, &after.pii) {
        (Some(before), Some(after)) => {
            after.key == before.key && (before.key_id.is_none() || after.key_id == before.key_id)
        }
        (before, _) => before.is_none(),
    }
}

/// Tags the columns of identifiers, in both tables, so that policies of tags are about them.
///
/// # Errors
/// When something else has the restricted table's name; when the warehouse cannot be written.
pub(crate) async fn tag(catalog: &Catalog, name: &ObjectName, pii: &Pii) -> Result<()> {
    let apart = ObjectName::new(&name.schema, &pii.table);
    catalog.check_identifiers(&apart, name).await?;
    for table in [name.clone(), apart] {
        let add = |rules: &mut RuleSet| {
            for column in &pii.columns {
                let tag = tag_of_name(column).unwrap_or(TAG);
                rules.tags.entry(column.clone()).or_default().insert(tag.to_owned());
            }
            Ok::<_, Error>(())
        };
        catalog.change_rules(&Attached::Table(table), add).await?;
    }
    Ok(())
}

/// What whoever keeps identifiers apart is to know: where they are, who gives them, and which other
/// tables over the files nobody reads any more.
pub(crate) async fn told(catalog: &Catalog, name: &ObjectName, pii: &Pii) -> String {
    let apart = ObjectName::new(&name.schema, &pii.table);
    let mut told = format!(
        "; {apart} shows the identifiers to whom a policy_admin says GRANT SELECT ON {apart} TO …"
    );
    match catalog.others_over_files_of(name).await {
        Ok(others) if others.is_empty() => {}
        Ok(others) => {
            let others: Vec<String> = others.iter().map(ObjectName::to_string).collect();
            told.push_str(&format!("; its files are read by {} too", others.join(", ")));
            told.push_str(", which is closed where it does not keep the same columns apart");
        }
        Err(error) => {
            told.push_str(&format!("; whether other tables read its files is not known: {error}"));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use catalog::lake::Format;

    use super::*;

    fn table(columns: &[&str]) -> LakeTable {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        let pii = Pii { columns, key: "web".into(), key_id: None, table: "who".into() };
        LakeTable { pii: Some(pii), ..LakeTable::new("clicks/", Format::Csv) }
    }

    #[test]
    fn what_shows_no_more_may_take_the_place() {
        let before = table(&["email"]);
        assert!(keeps(&before, &before) && keeps(&before, &table(&["phone", "email"])));
        let pii = |key: &str, id: Option<&str>| {
            let (columns, key_id) = (vec!["email".into()], id.map(str::to_owned));
            let pii = Pii { columns, key: key.into(), key_id, table: "them".into() };
            LakeTable { pii: Some(pii), ..before.clone() }
        };
        assert!(keeps(&before, &pii("web", None)) && keeps(&before, &pii("web", Some("ab-1"))));
        let known = pii("web", Some("ab-1"));
        assert!(keeps(&known, &known) && !keeps(&known, &pii("web", Some("cd-1"))));
        for after in [
            pii("other", None),
            table(&["phone"]),
            LakeTable { pii: None, ..before.clone() },
            LakeTable { location: "orders/".into(), ..before.clone() },
            before.clone().with_option("header", "false"),
        ] {
            assert!(!keeps(&before, &after), "{after:?}");
        }
    }
}
