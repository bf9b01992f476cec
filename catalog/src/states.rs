//! What a table's content is known by, asked of its store now.
//!
//! Whether somebody consents must not come from a listing that is used again for a while. So
//! tables of consents are looked at, and read, past those listings.

use datafusion::execution::SessionState;
use sha2::{Digest, Sha256};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::lake::{Format, LakeTable};
use crate::lakes::Named;
use crate::pii::Pii;
use crate::registry::{ObjectName, Spec};
use crate::tables::Opened;

/// Hexadecimal digits of a list of files that are shown.
const DIGITS_SHOWN: usize = 12;

/// What a table's content is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableState {
    /// Another content has another text.
    pub id: String,
    /// The same for people: `main.consents@12`.
    pub shown: String,
}

impl Catalog {
    /// What a table's or view's content is known by at this moment; `None` when only reading it
    /// tells. A view is known by its text: what it reads has states of its own.
    ///
    /// # Errors
    /// When there is no such table, or its store cannot be reached.
    pub async fn table_state(
        &self,
        name: &ObjectName,
        state: &SessionState,
    ) -> Result<Option<TableState>> {
        let spec = match self.resolve(name).await? {
            Some(Named::Defined(definition)) => definition.spec,
            Some(Named::Lake(table)) => Spec::External(table),
            None => return Err(Error::not_found("table", &name.to_string(), [])),
        };
        match spec {
            // No version tells under which key pseudonyms are, nor does a key's name.
            Spec::External(LakeTable { pii: Some(_), format: Format::Delta, .. })
            | Spec::External(LakeTable { pii: Some(Pii { key_id: None, .. }), .. })
            | Spec::Identifiers { .. } => Ok(None),
            Spec::Managed(table) => {
                let place = self.warehouse.place().child(&table.folder).folder();
                let opened = self.tables.newest(&name.to_string(), &place).await?;
                Ok(Some(versioned(name, &table.folder, opened.version())))
            }
            Spec::External(table) if table.format == Format::Delta => {
                let base = self.base_of(&name.schema);
                let place = self.stores.locate(&table.location, Some(base))?.folder();
                let opened = self.tables.newest(&name.to_string(), &place).await?;
                Ok(Some(versioned(name, place.url.as_str(), opened.version())))
            }
            Spec::External(table) => {
                let base = self.base_of(&name.schema);
                let files = self.files_now.files(Some(base), &table, state).await?;
                Ok(files.map(|files| {
                    let mut hash = Sha256::new();
                    hash.update(files.definition());
                    for id in files.ids() {
                        hash.update(id);
                        hash.update([0]);
                    }
                    let digits = hash.finalize();
                    let id: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
                    let shown: String = id.chars().take(DIGITS_SHOWN).collect();
                    TableState { id: format!("{name} {id}"), shown: format!("{name}#{shown}") }
                }))
            }
            Spec::View { sql, .. } => {
                Ok(Some(TableState { id: format!("{name} {sql}"), shown: name.to_string() }))
            }
            other => Err(Error::invalid(format!("{name} is a {}, not a table", other.kind()))),
        }
    }

    /// Opens a table or view as [`Catalog::open_table`] does, with the files that there are at this
    /// moment.
    ///
    /// # Errors
    /// As there.
    pub async fn open_table_now(
        &self,
        name: &ObjectName,
        version: Option<u64>,
        state: &SessionState,
    ) -> Result<Option<Opened>> {
        match self.resolve(name).await? {
            Some(Named::Defined(definition)) => match definition.spec {
                Spec::External(table) => {
                    let files = &self.files_now;
                    let rows = self.open_external_of(files, name, &table, version, state).await?;
                    Ok(Some(Opened::of(rows, table.pii)))
                }
                Spec::Identifiers { of } => {
                    let files = &self.files_now;
                    Ok(Some(self.open_identifiers(files, name, of, version, state).await?))
                }
                _ => self.open_table(name, version, state).await,
            },
            Some(Named::Lake(table)) => {
                let files = &self.files_now;
                let rows = self.open_external_of(files, name, &table, version, state).await?;
                Ok(Some(Opened::Table(rows)))
            }
            None => Ok(None),
        }
    }
}

fn versioned(name: &ObjectName, place: &str, version: Option<u64>) -> TableState {
    let version = version.unwrap_or_default();
    TableState { id: format!("{name} {place} {version}"), shown: format!("{name}@{version}") }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::registry::CreateMode;
    use crate::testing::Shared;

    #[tokio::test]
    async fn another_content_is_another_state() {
        let catalog = Shared::new().open().await;
        let state = SessionContext::new().state();
        let table = ObjectName::new("main", "consents");
        assert!(catalog.table_state(&table, &state).await.is_err());
        let columns = [arrow::datatypes::Field::new("a", arrow::datatypes::DataType::Int64, true)];
        let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(columns.to_vec()));
        let create = |mode| {
            catalog.create_empty_table(&table, "ann", mode, std::sync::Arc::clone(&schema), &[])
        };
        assert!(create(CreateMode::New).await.unwrap());
        let first = catalog.table_state(&table, &state).await.unwrap().unwrap();
        assert_eq!(first.shown, "main.consents@0");
        assert_eq!(catalog.table_state(&table, &state).await.unwrap().unwrap(), first);
        assert!(create(CreateMode::Replace).await.unwrap());
        let second = catalog.table_state(&table, &state).await.unwrap().unwrap();
        assert_ne!(second.id, first.id);
        assert!(catalog.open_table_now(&table, None, &state).await.unwrap().is_some());
        let view = ObjectName::new("main", "v");
        let spec = |sql: &str| Spec::View { sql: sql.into(), columns: vec![] };
        catalog.create(&view, spec("SELECT 1"), "ann", CreateMode::New).await.unwrap();
        let before = catalog.table_state(&view, &state).await.unwrap();
        catalog.create(&view, spec("SELECT 2"), "ann", CreateMode::Replace).await.unwrap();
        assert_ne!(catalog.table_state(&view, &state).await.unwrap(), before);
    }
}
