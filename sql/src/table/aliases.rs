//! What holds for a table holds for its files. Whoever defines another table over them would read
//! past policies, consents and budgets, and see again who was erased; so that is for those who keep
//! the policies.

use std::collections::BTreeSet;

use catalog::lake::LakeTable;
use catalog::policy::{Attached, Role};
use catalog::{Catalog, ObjectName};

use crate::error::{Error, Result};
use crate::session::run::Run;

/// Checks that a new external table reads no files of a table of which something is kept back.
///
/// # Errors
/// When it does and who asks does not hold `policy_admin`; when what is kept back is not known.
pub(super) async fn check(run: &Run, name: &ObjectName, table: &LakeTable) -> Result<()> {
    let rights = run.session.rights().await?;
    if rights.has(Role::PolicyAdmin) {
        return Ok(());
    }
    rights.purposes().check_known()?;
    let catalog = run.session.engine().catalog();
    let mut kept: BTreeSet<ObjectName> = BTreeSet::new();
    for (on, _) in catalog.all_rules().await? {
        if let Attached::Table(table) = on {
            kept.insert(table);
        }
    }
    kept.extend(catalog.purposes().await?.policies().map(|policy| policy.table.clone()));
    let private = catalog.all_privacy_policies().await?;
    kept.extend(private.into_iter().map(|(table, _)| table));
    kept.extend(catalog.separated_tables().await?);
    for subject in catalog.subjects().await? {
        for table in subject.tables() {
            if !catalog.marked_columns(table).await?.is_empty() {
                kept.insert(table.clone());
            }
        }
    }
    match catalog.over_files_of(name, table, kept).await? {
        None => Ok(()),
        Some(other) => Err(Error::Denied {
            principal: rights.name().to_owned(),
            action: format!("define {name} over files of {other}, of which a part is kept back"),
            hint: Some(format!(
                "read {other}; a policy_admin can define {name}, and give it the same policies"
            )),
        }),
    }
}

/// What whoever puts a policy on a table is to know: which other tables read its files already.
pub(crate) async fn told(catalog: &Catalog, table: &ObjectName) -> String {
    match catalog.others_over_files_of(table).await {
        Ok(others) if others.is_empty() => String::new(),
        Ok(others) => {
            let others: Vec<String> = others.iter().map(ObjectName::to_string).collect();
            format!(
                "; its files are read by {} too, which has to have it as well",
                others.join(", ")
            )
        }
        Err(error) => format!("; whether other tables read its files is not known: {error}"),
    }
}
