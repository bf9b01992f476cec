//! That a table keeps identifiers apart: who says so, what goes with it, and who ends it.

use std::collections::BTreeSet;

use catalog::lake::LakeTable;
use catalog::policy::{Attached, RuleSet};
use catalog::{Catalog, CreateMode, ObjectName, Pii};
use udfs::privacy::KeyUse;

use crate::error::{Error, Result};
use crate::key::bind::{self, NamedKeys};
use crate::policy::propose::tag_of_name;
use crate::session::StatementContext;
use crate::session::run::Run;

/// The tag of identifiers of which the column's name does not tell the kind.
const TAG: &str = "pii.identifier";

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
    let newest = match bind::parts(&pii.key)? {
        (_, Some(_)) => None,
        (name, None) => {
            let keys = catalog.keys().await?;
            let key = keys.into_iter().find(|key| key.name == name);
            key.and_then(|key| key.generations.into_iter().next())
        }
    };
    // A key of the configuration has one.
    let key = match newest.filter(|generation| generation.stored.is_some()) {
        Some(generation) => format!("{}@{}", pii.key, generation.number()),
        None => pii.key.clone(),
    };
    Ok(LakeTable { pii: Some(Pii { key, ..pii.clone() }), ..table.clone() })
}

/// Checks that what a name is may be dropped, or replaced by `after`: where identifiers are kept
/// apart, and would not be any more, that is for those who keep the policies.
///
/// # Errors
/// When it may not; when ids of persons who must not be seen would be others.
pub(crate) async fn may_end(run: &Run, name: &ObjectName, after: Option<&LakeTable>) -> Result<()> {
    let catalog = run.session.engine().catalog();
    let Some(before) = catalog.separated_now(name).await? else { return Ok(()) };
    if after.is_some_and(|after| keeps(&before, after)) {
        return Ok(());
    }
    run.session.rights().await?.may_set_policy(format!(
        "drop {name}, or replace it by what shows more: it keeps personal identifiers apart"
    ))?;
    match after {
        Some(_) => nobody_is_marked(catalog, name, &before).await,
        None => Ok(()),
    }
}

/// Who is restricted or erased is known by pseudonyms, and would be seen again under others.
async fn nobody_is_marked(catalog: &Catalog, name: &ObjectName, before: &LakeTable) -> Result<()> {
    let marked = catalog.marked_columns(name).await?;
    let is_marked = marked.iter().find(|column| {
        let marks = !column.restricted.is_empty() || !column.erased.is_empty();
        marks && before.pii.as_ref().is_some_and(|pii| pii.has(&column.column))
    });
    match is_marked {
        None => Ok(()),
        Some(column) => Err(Error::invalid_hint(
            format!(
                "persons of subject {} in {name}.{} must not be seen, and under another key they \
                 would be",
                column.subject, column.column
            ),
            "keep the files, the key and the columns; RELEASE SUBJECT … FROM RESTRICTION ends a \
             restriction",
        )),
    }
}

/// Whether a definition shows no more than the one before: the same files read in the same way,
/// under the same key, and no column fewer is kept apart.
fn keeps(before: &LakeTable, after: &LakeTable) -> bool {
    let rows = |table: &LakeTable| LakeTable { pii: None, ..table.clone() };
    let covered = match (&before.pii, &after.pii) {
        (Some(before), Some(after)) => after.covers(before) && after.key == before.key,
        (before, _) => before.is_none(),
    };
    covered && rows(before) == rows(after)
}

/// Tags the columns of identifiers, in both tables, so that policies of tags are about them.
///
/// # Errors
/// When something else has the restricted table's name; when the warehouse cannot be written.
pub(crate) async fn tag(
    catalog: &Catalog,
    name: &ObjectName,
    mode: CreateMode,
    pii: &Pii,
) -> Result<()> {
    // A table that is there stays as it is, or is an error.
    if mode != CreateMode::Replace && catalog.object(name).await?.is_some() {
        return Ok(());
    }
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
        let pii = Pii { columns, key: "web".into(), table: "who".into() };
        LakeTable { pii: Some(pii), ..LakeTable::new("clicks/", Format::Csv) }
    }

    #[test]
    fn what_shows_no_more_may_take_the_place() {
        let before = table(&["email"]);
        assert!(keeps(&before, &before) && keeps(&before, &table(&["phone", "email"])));
        let pii = |key: &str| {
            let columns = vec!["email".into()];
            LakeTable {
                pii: Some(Pii { columns, key: key.into(), table: "them".into() }),
                ..before.clone()
            }
        };
        assert!(keeps(&before, &pii("web")));
        for after in [
            pii("other"),
            table(&["phone"]),
            LakeTable { pii: None, ..before.clone() },
            LakeTable { location: "orders/".into(), ..before.clone() },
            before.clone().with_option("header", "false"),
        ] {
            assert!(!keeps(&before, &after), "{after:?}");
        }
    }
}
