//! The files of a table, of which some can be read alone.
//!
//! A file that was read once need not be read again while it is the same: by the file's id what it
//! gave can be known later. Each row comes with the number of its file in the column [`FILE`], so
//! that one scan gives something for each of many files.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::{TableSchema, TableSchemaBuilder};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;

use super::listing::Found;
use super::provider::{Opened, Provider};
use super::scan::{Wanted, scan};
use super::source::Reading;
use crate::delta::PlainFiles;
use crate::error::Result;

/// The column with the number of a row's file: its place in [`TableFiles::ids`].
pub const FILE: &str = "__file";

/// A table's files as they were listed.
#[derive(Debug)]
pub struct TableFiles {
    definition: String,
    ids: Vec<String>,
    paths: Vec<String>,
    source: Arc<Source>,
}

impl TableFiles {
    /// The files of a Delta table at one version, in its folder; `None` when a column is called
    /// [`FILE`].
    pub(crate) fn of_delta(folder: String, files: Arc<PlainFiles>) -> Option<Self> {
        if files.schema().column_with_name(FILE).is_some() {
            return None;
        }
        let ids = files.files().iter().map(id).collect();
        let paths = files.files().iter().map(path).collect();
        Some(Self { definition: folder, ids, paths, source: Arc::new(Source::Delta(files)) })
    }

    /// The files of a lake's table that there are now; `None` when there are none, or a column is
    /// called [`FILE`].
    ///
    /// # Errors
    /// When the store cannot be reached, or files cannot be read or clash.
    pub(crate) async fn of_lake(
        definition: String,
        opened: Arc<Opened>,
        session: &dyn Session,
    ) -> Result<Option<Self>> {
        let provider = opened.seen(session).await?;
        if provider.schema().column_with_name(FILE).is_some() {
            return Ok(None);
        }
        let found = provider.listed(session).await?;
        if found.is_empty() {
            return Ok(None);
        }
        let ids = found.iter().map(|file| id(&file.meta)).collect();
        let paths = found.iter().map(|file| path(&file.meta)).collect();
        // What a folder's name gives depends on the names of the others.
        let definition = format!("{definition} {:?}", provider.columns().1);
        Ok(Some(Self {
            definition,
            ids,
            paths,
            source: Arc::new(Source::Lake { provider, found }),
        }))
    }

    /// What a file's rows depend on beside the file and the table's columns.
    pub fn definition(&self) -> &str {
        &self.definition
    }

    /// What each file is known by: another content has another id.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Where a file lies in its store, by its number.
    pub fn path(&self, number: usize) -> Option<&str> {
        self.paths.get(number).map(String::as_str)
    }

    /// A file of a lake's table, by its number: how it is read, and its state in the listing.
    pub(crate) fn lake_file(&self, number: usize) -> Option<(Reading, &ObjectMeta)> {
        match self.source.as_ref() {
            Source::Lake { provider, found } => {
                Some((provider.reading(), &found.get(number)?.meta))
            }
            Source::Delta(_) => None,
        }
    }

    /// The states of the files of a lake's table in the listing.
    pub(crate) fn lake_metas(&self) -> impl Iterator<Item = &ObjectMeta> {
        let found = match self.source.as_ref() {
            Source::Lake { found, .. } => found.as_slice(),
            Source::Delta(_) => &[],
        };
        found.iter().map(|file| &file.meta)
    }

    /// The rows of some of the files, by their numbers.
    pub fn rows(&self, chosen: &[usize]) -> Arc<dyn TableProvider> {
        Arc::new(Rows::new(Arc::clone(&self.source), chosen.to_vec()))
    }
}

/// A file's path and state, which tell it from any other content at the same path.
fn id(meta: &ObjectMeta) -> String {
    let modified_us = meta.last_modified.timestamp_micros();
    format!("{:?}", (meta.location.as_ref(), meta.size, modified_us, &meta.e_tag, &meta.version))
}

fn path(meta: &ObjectMeta) -> String {
    meta.location.to_string()
}

/// Where files come from.
enum Source {
    Delta(Arc<PlainFiles>),
    Lake { provider: Provider, found: Vec<Found> },
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delta(_) => formatter.write_str("Delta"),
            Self::Lake { provider, .. } => fmt::Debug::fmt(provider, formatter),
        }
    }
}

impl Source {
    /// The columns in the files, then those of folders and the file's number.
    fn schema(&self) -> TableSchema {
        let (columns, mut folders) = match self {
            Self::Delta(files) => (files.schema(), vec![]),
            Self::Lake { provider, .. } => {
                let (columns, folders) = provider.columns();
                let field = |name: &String, kind: &DataType| Field::new(name, kind.clone(), true);
                let fields = folders.iter().map(|c| Arc::new(field(&c.name, &c.data_type)));
                (columns, fields.collect::<Vec<FieldRef>>())
            }
        };
        folders.push(Arc::new(Field::new(FILE, DataType::Int64, false)));
        TableSchemaBuilder::from(columns).with_table_partition_cols(folders).build()
    }

    async fn files(
        &self,
        session: &dyn Session,
        chosen: &[usize],
    ) -> Result<(Reading, Vec<PartitionedFile>)> {
        match self {
            Self::Delta(of) => {
                let metas = chosen.iter().filter_map(|number| of.files().get(*number));
                let files = metas.map(|meta| PartitionedFile::new_from_meta(meta.clone()));
                Ok((of.reading(false), files.collect()))
            }
            Self::Lake { provider, found } => {
                let chosen = chosen.iter().filter_map(|number| found.get(*number)).cloned();
                let files = provider.chosen(session, chosen.collect()).await?;
                Ok((provider.reading(), files))
            }
        }
    }
}

/// The rows of some files.
#[derive(Debug)]
struct Rows {
    source: Arc<Source>,
    chosen: Vec<usize>,
    schema: TableSchema,
}

impl Rows {
    fn new(source: Arc<Source>, chosen: Vec<usize>) -> Self {
        let schema = source.schema();
        Self { source, chosen, schema }
    }
}

#[async_trait]
impl TableProvider for Rows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let (mut reading, mut files) = self.source.files(session, &self.chosen).await?;
        for (file, number) in files.iter_mut().zip(&self.chosen) {
            let number = i64::try_from(*number).unwrap_or(i64::MAX);
            file.partition_values.push(ScalarValue::Int64(Some(number)));
        }
        reading.partitions.push(FILE.to_owned());
        let wanted = Wanted { files, with_statistics: false, projection, limit };
        scan(session, &self.schema, reading, wanted).await
    }
}
