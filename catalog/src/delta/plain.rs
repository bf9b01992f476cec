//! Warehouse tables read as the Parquet files that they are.
//!
//! A table that needs no reader feature (no deletion vectors, no renamed columns, no partitions) is
//! a list of files that the snapshot names. Delta's own scan replays the log's metadata and maps
//! every batch for each query; a look-up of one row has no time for that. The list and the files'
//! statistics are kept with the snapshot, files that cannot hold a row are left out when a query
//! is planned, and a look-up by the column that the table is clustered by reads its file in one
//! piece: its pages are a few, so that cutting the file for two cores would open it twice for
//! nothing. A personal column has no statistics: its look-ups read all files, on all cores.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Fields, Schema, SchemaRef};
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::{TableSchema, TableSchemaBuilder};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use deltalake::kernel::EagerSnapshot;
use deltalake::{DeltaTable, DeltaTableError};
use object_store::ObjectMeta;

use crate::delta::{delta_error, partition_columns, scan as delta_scan};
use crate::error::Result;
use crate::lake::Format;
use crate::lake::adapt::Adapter;
use crate::lake::format::Settings;
use crate::lake::scan::{FileStatistics, Wanted, scan};
use crate::lake::source::Reading;
use crate::store::Place;

/// A look-up in more files than this is spread over the cores.
const LOOKUP_FILES_MAX: usize = 4;
/// `IN` with more keys than this is no look-up.
const LOOKUP_KEYS_MAX: usize = 64;

/// The files of a table at one version.
pub(crate) struct PlainFiles {
    place: Place,
    schema: SchemaRef,
    table_schema: TableSchema,
    settings: Settings,
    files: Vec<ObjectMeta>,
    statistics: Arc<FileStatistics>,
}

impl PlainFiles {
    /// The files, or `None` when reading them takes more than reading Parquet.
    ///
    /// # Errors
    /// When the log is damaged.
    pub fn of(
        name: &str,
        place: &Place,
        table: &DeltaTable,
        views: bool,
        statistics: Arc<FileStatistics>,
    ) -> Result<Option<Self>> {
        match partition_columns(name, table)?.is_empty() {
            true => Self::stored(name, place, table, views, statistics),
            false => Ok(None),
        }
    }

    /// The same with the columns that are in the files: those that the names of folders tell are
    /// not among them.
    ///
    /// # Errors
    /// When the log is damaged.
    pub fn stored(
        name: &str,
        place: &Place,
        table: &DeltaTable,
        views: bool,
        statistics: Arc<FileStatistics>,
    ) -> Result<Option<Self>> {
        let snapshot = table.snapshot().map_err(|error| delta_error("read", name, error))?;
        let snapshot: &EagerSnapshot = snapshot.snapshot();
        let protocol = snapshot.protocol();
        let features = protocol.reader_features().unwrap_or_default();
        let is_plain = (protocol.min_reader_version() == 1 || protocol.min_reader_version() == 3)
            && features.iter().all(|feature| feature.as_ref() == "timestampNtz");
        if !is_plain {
            return Ok(None);
        }
        let schema = delta_scan(name, table, views)?.schema();
        let partitions = snapshot.metadata().partition_columns();
        let schema = match partitions.is_empty() {
            true => schema,
            false => {
                let fields = schema.fields().iter();
                let stored = fields.filter(|field| !partitions.contains(field.name())).cloned();
                Arc::new(Schema::new(stored.collect::<Fields>()))
            }
        };
        let mut files = Vec::new();
        for file in snapshot.log_data().iter() {
            if !lies_below(&file.path()) {
                return Ok(None);
            }
            files.push(meta(place, &file).map_err(|error| delta_error("read", name, error))?);
        }
        Ok(Some(Self {
            place: place.clone(),
            table_schema: TableSchemaBuilder::from(&schema).build(),
            schema,
            settings: Settings::parse(Format::Parquet, &Default::default())?,
            files,
            statistics,
        }))
    }

    /// Other files of the same table, such as those that only earlier versions name.
    pub fn with_files(&self, files: Vec<ObjectMeta>) -> Self {
        Self {
            place: self.place.clone(),
            schema: Arc::clone(&self.schema),
            table_schema: self.table_schema.clone(),
            settings: self.settings.clone(),
            files,
            statistics: Arc::clone(&self.statistics),
        }
    }

    /// The files.
    pub fn files(&self) -> &[ObjectMeta] {
        &self.files
    }

    /// The table's columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How the files are read; `whole` when each is read in one piece.
    pub fn reading(&self, whole: bool) -> Reading {
        let table = self.place.url.to_string();
        Reading {
            place: self.place.clone(),
            settings: self.settings.clone(),
            schema: Arc::clone(&self.schema),
            partitions: Vec::new(),
            adapter: Arc::new(Adapter { table, format: Format::Parquet, is_inferred: false }),
            whole,
            pins: None,
        }
    }
}

/// Whether a file's path is relative to the table: one of a table that was cloned lies elsewhere.
fn lies_below(path: &str) -> bool {
    let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let has_scheme =
        path.split_once(":/").is_some_and(|(scheme, _)| scheme.bytes().all(is_of_scheme));
    !has_scheme && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn meta(
    place: &Place,
    file: &deltalake::kernel::LogicalFileView,
) -> Result<ObjectMeta, DeltaTableError> {
    let mut location = place.path.clone();
    for part in file.object_store_path().parts() {
        location = location.join(part);
    }
    let wrong = |what: &str| DeltaTableError::MetadataError(format!("{location}: {what}"));
    let size = u64::try_from(file.size()).map_err(|_| wrong("its size is negative"))?;
    let modified = DateTime::from_timestamp_millis(file.modification_time())
        .ok_or_else(|| wrong("its time is out of range"))?;
    let (e_tag, version) = (None, None);
    Ok(ObjectMeta { location, last_modified: modified, size, e_tag, version })
}

/// A warehouse table at one version.
pub(crate) struct PlainTable {
    files: Arc<PlainFiles>,
    /// The first of the columns by which it is clustered.
    clustered_by: Option<String>,
}

impl fmt::Debug for PlainTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PlainTable").field("url", &self.files.place.url.as_str()).finish()
    }
}

impl PlainTable {
    /// A table over these files.
    pub fn new(files: Arc<PlainFiles>, cluster_by: &[String]) -> Self {
        Self { files, clustered_by: cluster_by.first().cloned() }
    }

    /// Whether a filter names the few keys that are wanted.
    fn is_lookup(&self, filters: &[Expr]) -> bool {
        let Some(key) = &self.clustered_by else { return false };
        let is_key =
            |expr: &Expr| matches!(expr, Expr::Column(column) if column.name.as_str() == key);
        let is_value = |expr: &Expr| matches!(expr, Expr::Literal(..));
        filters.iter().any(|filter| match filter {
            Expr::BinaryExpr(binary) if binary.op == Operator::Eq => {
                (is_key(&binary.left) && is_value(&binary.right))
                    || (is_value(&binary.left) && is_key(&binary.right))
            }
            Expr::InList(list) => {
                !list.negated
                    && is_key(&list.expr)
                    && list.list.len() <= LOOKUP_KEYS_MAX
                    && list.list.iter().all(is_value)
            }
            _ => false,
        })
    }

    /// Whether files tell which of their pages may hold a key; a personal column's do not.
    fn tells_keys(&self, statistics: &[Arc<Statistics>]) -> bool {
        let key = self.clustered_by.as_ref();
        let Some(index) = key.and_then(|key| self.files.schema.index_of(key).ok()) else {
            return false;
        };
        let tells = |known: &Arc<Statistics>| {
            let column = known.column_statistics.get(index);
            column.is_some_and(|column| column.min_value != Precision::Absent)
        };
        statistics.iter().all(tells)
    }

    /// Which files may hold a row that the filters let through.
    fn kept(
        &self,
        session: &dyn Session,
        filters: &[Expr],
        statistics: &[Arc<Statistics>],
    ) -> DataFusionResult<Option<Vec<bool>>> {
        let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(None) };
        let schema = &self.files.schema;
        let columns = DFSchema::try_from(Arc::clone(schema))?;
        let predicate = session.create_physical_expr(filter, &columns)?;
        let predicate = PruningPredicateBuilder::new()
            .with_file_schema(Arc::clone(schema))
            .try_build(predicate)?;
        if predicate.always_true() {
            return Ok(None);
        }
        let known = PrunableStatistics::new(statistics.to_vec(), Arc::clone(schema));
        predicate.prune(&known).map(Some)
    }
}

#[async_trait]
impl TableProvider for PlainTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.files.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let of = &self.files;
        let metas: Vec<&ObjectMeta> = of.files.iter().collect();
        let mut reading = of.reading(false);
        let statistics = of.statistics.of(session, &reading, &metas).await?;
        let kept = match &statistics {
            Some(known) if metas.len() > 1 => self.kept(session, filters, known)?,
            _ => None,
        };
        let files: Vec<PartitionedFile> = metas
            .into_iter()
            .enumerate()
            .filter(|(index, _)| kept.as_ref().is_none_or(|kept| kept[*index]))
            .map(|(index, meta)| {
                let mut file = PartitionedFile::new_from_meta(meta.clone());
                file.statistics = statistics.as_ref().map(|known| Arc::clone(&known[index]));
                file
            })
            .collect();
        reading.whole = files.len() <= LOOKUP_FILES_MAX
            && self.is_lookup(filters)
            && statistics.as_ref().is_none_or(|known| self.tells_keys(known));
        let with_statistics = statistics.is_some();
        scan(
            session,
            &of.table_schema,
            reading,
            Wanted { files, with_statistics, projection, limit },
        )
        .await
    }
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
