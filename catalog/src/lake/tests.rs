//! Lake tables over real files in a temporary folder: what a person who queries them sees.

mod damage;
mod evolution;
mod folders;
mod formats;
mod lakes;
mod requests;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::provider_as_source;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

use super::{Format, LakeTable, Tables};
use crate::error::{Error, Result};
use crate::store::{Place, StoreConfig, Stores};

/// A lake in a temporary folder and a session over it.
struct Fixture {
    folder: TempDir,
    stores: Arc<Stores>,
    tables: Tables,
    place: Place,
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stores = Arc::new(Stores::default());
        let url = folder.path().display().to_string();
        let place = stores.open(&StoreConfig { url, ..StoreConfig::default() }).unwrap();
        let runtime = RuntimeEnvBuilder::new()
            .with_object_store_registry(Arc::clone(&stores) as _)
            .build_arc()
            .unwrap();
        let mut config = SessionConfig::new().with_target_partitions(3);
        config.options_mut().execution.parquet.pushdown_filters = true;
        // Nothing is believed for longer than a moment, so that tests see each change at once.
        let tables = Tables::with_fresh(Arc::clone(&stores), Duration::ZERO);
        Self { folder, stores, tables, place, config, runtime }
    }

    fn session(&self) -> SessionContext {
        SessionContext::new_with_config_rt(self.config.clone(), Arc::clone(&self.runtime))
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn parquet(&self, name: &str, columns: Vec<(&str, ArrayRef)>) {
        let batch = batch(columns);
        let file = fs::File::create(self.path(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    async fn context(&self, table: &LakeTable) -> Result<SessionContext> {
        let session = self.session();
        let provider = self.tables.open(Some(&self.place), table, &session.state()).await?;
        session.register_table("t", provider)?;
        Ok(session)
    }

    /// The rows of a query over the table `t`, one text a row.
    async fn query(&self, table: &LakeTable, sql: &str) -> Result<Vec<String>> {
        let session = self.context(table).await?;
        let plan = session.state().create_logical_plan(sql).await?;
        let batches = session.execute_logical_plan(plan).await?.collect().await?;
        let text = pretty_format_batches(&batches).unwrap().to_string();
        let lines = text.lines().filter(|line| line.starts_with('|')).skip(1);
        let row = |line: &str| {
            line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(",")
        };
        Ok(lines.map(row).collect())
    }

    /// The physical plan of a query, which lists the files that it reads.
    async fn plan(&self, table: &LakeTable, sql: &str) -> String {
        let session = self.context(table).await.unwrap();
        let plan = session.state().create_logical_plan(sql).await.unwrap();
        let physical = session.state().create_physical_plan(&plan).await.unwrap();
        displayable(physical.as_ref()).indent(true).to_string()
    }

    /// The columns of a table, as `name type`.
    async fn columns(&self, table: &LakeTable) -> Result<Vec<String>> {
        let session = self.context(table).await?;
        let provider = session.table_provider("t").await?;
        let schema = provider_as_source(provider).schema();
        Ok(schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect())
    }

    async fn error(&self, table: &LakeTable, sql: &str) -> Error {
        match self.query(table, sql).await {
            Ok(rows) => panic!("no error but {rows:?}"),
            Err(error) => error,
        }
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(arrow::array::Int64Array::from(values.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(arrow::array::StringArray::from(values.to_vec()))
}

fn table(location: &str, format: Format) -> LakeTable {
    LakeTable::new(location, format)
}
