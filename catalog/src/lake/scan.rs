//! From files, and what is known of them, to a scan.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{Statistics, internal_err, project_schema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::CachedParquetMetaData;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion_datasource::compute_all_files_statistics;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use object_store::path::Path;
use parking_lot::Mutex;

use super::format::Format;
use super::listing::REQUESTS_MAX;
use super::pinned::Pins;
use super::reason::Subject;
use super::source::{LakeSource, Reading};
use crate::error::Error;

/// Files of one scan whose statistics are read; beyond that planning would cost more than it saves.
const FILES_MAX: usize = 1_000;

/// Statistics that are kept for one table.
const KEPT: usize = 10_000;

/// Parquet files' statistics over the table's columns in the files, remembered between queries.
#[derive(Default)]
pub(crate) struct FileStatistics(Mutex<HashMap<Path, Known>>);

/// The statistics of a file in a certain state, as of a schema.
struct Known {
    meta: ObjectMeta,
    schema: SchemaRef,
    statistics: Arc<Statistics>,
}

impl FileStatistics {
    /// What the files' footers say, in order; `None` where the format or the session has none, or
    /// where there are too many files.
    ///
    /// # Errors
    /// When a footer cannot be read.
    pub async fn of(
        &self,
        session: &dyn Session,
        reading: &Reading,
        files: &[&ObjectMeta],
    ) -> Result<Option<Vec<Arc<Statistics>>>, Error> {
        let has_statistics = session.config().collect_statistics()
            && reading.settings.format == Format::Parquet
            && files.len() <= FILES_MAX;
        if !has_statistics {
            return Ok(None);
        }
        let wanted: Vec<BoxFuture<'_, _>> =
            files.iter().map(|meta| self.of_file(session, reading, meta).boxed()).collect();
        stream::iter(wanted).buffered(REQUESTS_MAX).try_collect().await.map(Some)
    }

    async fn of_file(
        &self,
        session: &dyn Session,
        reading: &Reading,
        meta: &ObjectMeta,
    ) -> Result<Arc<Statistics>, Error> {
        let schema = &reading.schema;
        if let Some(known) = self.0.lock().get(&meta.location)
            && known.meta == *meta
            && known.schema == *schema
        {
            return Ok(Arc::clone(&known.statistics));
        }
        let place = &reading.place;
        let found = reading
            .settings
            .file_format(meta.location.filename().unwrap_or_default())
            .infer_stats(session, &place.store, Arc::clone(schema), meta)
            .await
            .map_err(|error| Subject::new(place, &meta.location, 0).explain(&error))?;
        let statistics = Arc::new(of_types(found, schema));
        let (meta, schema) = (meta.clone(), Arc::clone(schema));
        let known = Known { meta, schema, statistics: Arc::clone(&statistics) };
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(known.meta.location.clone(), known);
        Ok(statistics)
    }
}

/// A file's statistics in the types of the table, whose files need not have one type each. Extremes
/// of floating-point numbers are bounds only: footers leave NaN out. Those of a column without
/// statistics come as a NULL that bounds nothing, and would look smaller than any value.
fn of_types(mut statistics: Statistics, schema: &Schema) -> Statistics {
    for (column, field) in statistics.column_statistics.iter_mut().zip(schema.fields()) {
        for extreme in [&mut column.min_value, &mut column.max_value] {
            let typed = extreme.cast_to(field.data_type()).unwrap_or_default();
            *extreme = match typed {
                Precision::Inexact(value) if value.is_null() => Precision::Absent,
                typed if field.data_type().is_floating() => typed.to_inexact(),
                typed => typed,
            };
        }
    }
    statistics
}

/// What a query wants of a table's files.
pub(crate) struct Wanted<'a> {
    /// The files, with partition values, and with statistics where they are known.
    pub files: Vec<PartitionedFile>,
    /// Whether all files have statistics.
    pub with_statistics: bool,
    /// The columns, by index; all without it.
    pub projection: Option<&'a Vec<usize>>,
    /// So many rows are enough.
    pub limit: Option<usize>,
}

/// Plans the scan of a table's files in as many partitions as the session has and the files have
/// parts for, or in one where the files are read whole.
///
/// # Errors
/// When the columns or the store's URL cannot be planned, which is a defect.
pub(crate) async fn scan(
    session: &dyn Session,
    table: &TableSchema,
    mut reading: Reading,
    wanted: Wanted<'_>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = table.table_schema();
    if wanted.files.is_empty() {
        let schema = project_schema(schema, wanted.projection)?;
        return Ok(Arc::new(EmptyExec::new(schema)));
    }
    let pins = reading.pins.as_ref().map(|changed| Pins::of(&wanted.files, changed));
    let partitions = if reading.whole { 1 } else { session.config().target_partitions() };
    let groups = FileGroup::new(wanted.files).split_files(partitions);
    reading.whole |= reading.settings.format == Format::Parquet && is_cut(session, &groups);
    let (groups, statistics) =
        compute_all_files_statistics(groups, Arc::clone(schema), wanted.with_statistics, false)?;
    let store = ObjectStoreUrl::parse(&reading.place.url[..url::Position::BeforePath])?;
    let format = reading.settings.file_format("");
    let mut config = FileScanConfigBuilder::new(store, format.file_source(table.clone()))
        .with_file_groups(groups)
        .with_statistics(statistics)
        .with_projection_indices(wanted.projection.cloned())?
        .with_limit(wanted.limit)
        .with_expr_adapter(Some(Arc::clone(&reading.adapter) as _))
        .build();
    if reading.settings.format == Format::Parquet {
        // Parquet's format puts its reader with the cache of footers into the plan.
        let plan = format.create_physical_plan(session, config).await?;
        let scan = plan.downcast_ref::<DataSourceExec>();
        let found = scan.and_then(|s| s.data_source().downcast_ref::<FileScanConfig>());
        let Some(found) = found else {
            return internal_err!("the Parquet format planned no file scan");
        };
        config = found.clone();
        if let Some(pins) = &pins {
            config = pinned(session, config, pins)?;
        }
    }
    // Our way of opening files goes around DataFusion's source.
    let inner = Arc::clone(&config.file_source);
    let source = Arc::new(LakeSource::new(inner, Arc::new(reading), pins));
    let config = FileScanConfigBuilder::from(config).with_source(source).build();
    Ok(DataSourceExec::from_data_source(config))
}

/// The scan of Parquet files that are read only as they were listed.
fn pinned(
    session: &dyn Session,
    config: FileScanConfig,
    pins: &Arc<Pins>,
) -> Result<FileScanConfig> {
    let Some(source) = config.file_source.downcast_ref::<ParquetSource>().cloned() else {
        return internal_err!("the Parquet format planned another source");
    };
    let store = session.runtime_env().object_store(config.object_store_url.clone())?;
    let footers = session.runtime_env().cache_manager.get_file_metadata_cache();
    let readers = CachedParquetFileReaderFactory::new(pins.over(store), footers);
    let source = source.with_parquet_file_reader_factory(Arc::new(readers));
    Ok(FileScanConfigBuilder::from(config).with_source(Arc::new(source)).build())
}

/// Whether every row group has a partition of its own already. Files are cut anywhere, and a row
/// group is read where it begins, so that another partition would open a file for nothing.
fn is_cut(session: &dyn Session, groups: &[FileGroup]) -> bool {
    let footers = session.runtime_env().cache_manager.get_file_metadata_cache();
    let mut pieces = 0;
    for file in groups.iter().flat_map(FileGroup::iter) {
        let Some(row_groups) = row_groups(footers.as_ref(), &file.object_meta) else {
            return false;
        };
        pieces += row_groups;
        if pieces > groups.len() {
            return false;
        }
    }
    true
}

/// How many row groups a file has; `None` where its footer is not at hand.
fn row_groups(footers: &FileMetadataCache, meta: &ObjectMeta) -> Option<usize> {
    let known = footers.get(&meta.location).filter(|known| known.is_valid_for(meta))?;
    let footer = known.file_metadata.as_any().downcast_ref::<CachedParquetMetaData>()?;
    Some(footer.parquet_metadata().num_row_groups())
}
