//! Tables to which rows are only added.
//!
//! The definition says so, and it binds whoever changes rows or definitions through the catalog,
//! whatever their rights. Three things still leave fewer rows: an erasure of a person, who may
//! demand it, retention policies, which limit how long anything is stored, and taking the property
//! back.

use crate::Catalog;
use crate::error::{Error, Result};
use crate::registry::change::{Step, TRIES};
use crate::registry::{Head, ManagedTable, ObjectName, Spec};
use crate::tables::not_writable;

impl Catalog {
    /// Says whether rows are only added to a warehouse table from now on; `false` when that was so
    /// already. Other servers know it within a second.
    ///
    /// # Errors
    /// When it is no warehouse table; `Conflict` when others change its definition again and again;
    /// when the warehouse cannot be written.
    pub async fn set_append_only(&self, name: &ObjectName, append_only: bool) -> Result<bool> {
        self.writable().await?;
        let change = self.objects.change(
            name,
            TRIES,
            || name.to_string(),
            |head| {
                let Some(head) = head else { return Err(not_writable(name)) };
                let document = head.document.clone()?;
                match &document.spec {
                    Some(Spec::Managed(table)) if table.append_only == append_only => {
                        Ok(Step::Stays(false))
                    }
                    Some(Spec::Managed(table)) => {
                        let table = ManagedTable { append_only, ..table.clone() };
                        let spec = Some(Spec::Managed(table));
                        Ok(Step::writes(spec, document.owner.clone(), true))
                    }
                    _ => Err(not_writable(name)),
                }
            },
        );
        change.await
    }

    /// Checks that rows of a table may be changed or removed, and the table replaced or dropped, as
    /// its definition is now.
    ///
    /// # Errors
    /// When rows are only added to it; when the warehouse cannot be read.
    pub async fn check_append_only(&self, name: &ObjectName) -> Result<()> {
        check_head(name, self.objects.head(name).await?.as_ref())
    }
}

/// The same, of a definition that was read. One that cannot be read says nothing.
///
/// # Errors
/// When rows are only added to the table.
pub(crate) fn check_head(name: &ObjectName, head: Option<&Head>) -> Result<()> {
    if let Some(Ok(document)) = head.map(|head| &head.document)
        && let Some(Spec::Managed(table)) = &document.spec
        && table.append_only
    {
        return Err(Error::invalid_hint(
            format!("table {name} is append-only: what is in it is neither changed nor removed"),
            format!(
                "INSERT a row that corrects what an earlier one says; a policy_admin takes the \
                 property back by ALTER TABLE {name} SET (append_only = false)"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{TestClock, main, number, open_folder, plan, session};
    use crate::{Catalog, CreateMode, Kind, NewTable};

    async fn overwrite(catalog: &Catalog) -> crate::Result<crate::Written> {
        let none = plan(catalog, "SELECT 1 AS id WHERE false", &[]).await;
        catalog.insert(&main("log"), none, session(catalog), None, true).await
    }

    async fn make(catalog: &Catalog, mode: CreateMode) -> crate::Result<Option<crate::Written>> {
        let rows = plan(catalog, "SELECT 1 AS id", &[]).await;
        catalog
            .create_table_as(
                &main("log"),
                "ann",
                mode,
                rows,
                session(catalog),
                &NewTable::default(),
            )
            .await
    }

    #[tokio::test]
    async fn rows_are_added_and_stay_until_it_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = open_folder(folder.path(), &TestClock::default()).await;
        let log = main("log");
        assert!(catalog.set_append_only(&log, true).await.is_err());
        make(&catalog, CreateMode::New).await.unwrap();
        assert!(catalog.set_append_only(&log, true).await.unwrap());
        assert!(!catalog.set_append_only(&log, true).await.unwrap());
        let more = plan(&catalog, "SELECT 2 AS id", &[]).await;
        catalog.insert(&log, more.clone(), session(&catalog), None, false).await.unwrap();
        assert!(make(&catalog, CreateMode::IfNotExists).await.unwrap().is_none());
        let refusals = [
            overwrite(&catalog).await.unwrap_err(),
            make(&catalog, CreateMode::Replace).await.unwrap_err(),
            catalog.drop_object(&log, Kind::Table).await.unwrap_err(),
        ];
        for refusal in refusals {
            assert!(refusal.to_string().contains("append-only"), "{refusal}");
        }
        assert_eq!(number(&catalog, "SELECT count(*) FROM log", &["log"]).await, 2);
        // A person who is forgotten is: what was said of the table stays said.
        catalog.begin_table_erasure(&log, "e1").await.unwrap();
        let version = catalog.table_version(&log).await.unwrap();
        let state = session(&catalog);
        catalog.finish_table_erasure(&log, "e1", version, more, &state).await.unwrap();
        assert!(overwrite(&catalog).await.is_err());
        assert!(catalog.set_append_only(&log, false).await.unwrap());
        overwrite(&catalog).await.unwrap();
        assert!(catalog.drop_object(&log, Kind::Table).await.unwrap());
    }
}
