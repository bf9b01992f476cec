//! The lakes' schemas: configured, discovered and external tables over files.

use datafusion::execution::SessionState;

use crate::config::LakeTable;
use crate::error::{Error, Result};
use crate::registry::{CreateMode, Kind, ObjectName, exists};
use crate::tables::Opened;
use crate::{Catalog, MAIN};

impl Catalog {
    pub(crate) async fn lake_table_names(&self, schema: &str) -> Result<Vec<String>> {
        match self.lakes.get(schema) {
            Some(lake) => Ok(lake.config.tables.iter().map(|table| table.name.clone()).collect()),
            None => {
                let schemas = self.schemas();
                Err(Error::not_found("schema", schema, schemas.iter().map(String::as_str)))
            }
        }
    }

    pub(crate) async fn has_lake_table(&self, name: &ObjectName) -> Result<bool> {
        if name.schema == MAIN || !self.lakes.contains_key(&name.schema) {
            return Ok(false);
        }
        Ok(self.lake_table_names(&name.schema).await?.contains(&name.name))
    }

    /// Whether a lake's own table has the name already: `Some(false)` when it shall stay.
    pub(crate) async fn check_lake_table(
        &self,
        name: &ObjectName,
        mode: CreateMode,
    ) -> Result<Option<bool>> {
        if !self.has_lake_table(name).await? {
            return Ok(None);
        }
        match mode {
            CreateMode::IfNotExists => Ok(Some(false)),
            CreateMode::New => Err(exists(name, Kind::Table)),
            CreateMode::Replace => Ok(None),
        }
    }

    pub(crate) async fn open_lake_table(
        &self,
        _name: &ObjectName,
        _version: Option<u64>,
        _state: &SessionState,
    ) -> Result<Option<Opened>> {
        Ok(None)
    }

    pub(crate) async fn open_external(
        &self,
        name: &ObjectName,
        _table: &LakeTable,
        _version: Option<u64>,
        _state: &SessionState,
    ) -> Result<Opened> {
        Err(Error::invalid(format!("{name} cannot be opened")))
    }
}
