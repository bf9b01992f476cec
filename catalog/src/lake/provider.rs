//! A lake table as DataFusion sees it: its columns, and a scan of the files that a query needs.
//!
//! The columns are those of one look at the files; the files are listed when the query is planned,
//! so that a new file is part of the next query. The provider only reads.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics, internal_err, project_schema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::{TableSchema, TableSchemaBuilder};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion_datasource::compute_all_files_statistics;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use parking_lot::Mutex;

use super::adapt::Adapter;
use super::format::{Format, Settings};
use super::listing::{Found, Listing, REQUESTS_MAX, lifetime};
use super::partition::{Keys, MakeUrl, Pruner, columns, decides, tuple};
use super::reason::Subject;
use super::schema::{FILES_PER_LOOK, FileInfo, Infos, merge};
use super::source::{LakeSource, Reading};
use super::table::{Column, LakeTable};
use crate::error::{Error, Result};
use crate::store::Place;

/// Files of one scan whose statistics are read; beyond that planning would cost more than it saves.
const STATISTICS_FILES_MAX: usize = 1_000;

/// What one look at a table's files found.
struct Look {
    /// The columns in the files.
    schema: SchemaRef,
    /// The columns in the folders' names.
    partitions: Vec<Column>,
    at: Instant,
    took: Duration,
}

impl Look {
    /// A look lists the whole table, so it may take at most a twentieth of the time.
    fn lifetime(&self, fresh: Duration) -> Duration {
        lifetime(fresh, self.took * 4)
    }
}

/// The statistics of a file in a certain state.
struct Known {
    meta: ObjectMeta,
    schema: SchemaRef,
    statistics: Arc<Statistics>,
}

/// Statistics that are kept for one table.
const STATISTICS_KEPT: usize = 10_000;

/// A table's files and all that is remembered of them between queries.
pub(crate) struct Opened {
    table: LakeTable,
    settings: Settings,
    listing: Listing,
    infos: Infos,
    /// Parquet files' statistics over the table's columns, as of a schema and a file's state.
    statistics: Mutex<HashMap<Path, Known>>,
    fresh: Duration,
    last_look: Mutex<Option<Arc<Look>>>,
    /// Held by the one that looks.
    looking: tokio::sync::Mutex<()>,
}

impl Opened {
    /// A table of which nothing is known yet.
    ///
    /// # Errors
    /// When the definition is wrong in itself.
    pub fn new(place: Place, table: LakeTable, fresh: Duration) -> Result<Self> {
        table.check()?;
        if table.format == Format::Delta {
            return Err(Error::invalid(format!("{} is a Delta table", place.url)));
        }
        let settings = Settings::parse(table.format, &table.options)?;
        let listing = Listing::new(place, settings.clone(), fresh);
        Ok(Self {
            table,
            settings,
            listing,
            infos: Infos::default(),
            statistics: Mutex::default(),
            fresh,
            last_look: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        })
    }

    /// The table as it is now, or was a moment ago.
    ///
    /// # Errors
    /// When the store cannot be reached, no file is there, or files cannot be read or clash.
    pub async fn provider(
        self: &Arc<Self>,
        session: &dyn Session,
    ) -> Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(Provider::new(Arc::clone(self), self.recent_look(session).await?)))
    }

    async fn recent_look(&self, session: &dyn Session) -> Result<Arc<Look>> {
        let last = || self.last_look.lock().clone();
        let is_recent = |look: &Arc<Look>| look.at.elapsed() < look.lifetime(self.fresh);
        let before = last();
        if let Some(look) = before.as_ref().filter(|look| is_recent(look)) {
            return Ok(Arc::clone(look));
        }
        let _turn = match (self.looking.try_lock(), before) {
            (Ok(turn), _) => turn,
            // Somebody looks already. The rows do not depend on it, only new columns do.
            (Err(_), Some(look)) => return Ok(look),
            (Err(_), None) => self.looking.lock().await,
        };
        if let Some(look) = last().filter(|look| is_recent(look)) {
            return Ok(look);
        }
        let look = Arc::new(self.look(session).await?);
        *self.last_look.lock() = Some(Arc::clone(&look));
        Ok(look)
    }

    async fn look(&self, session: &dyn Session) -> Result<Look> {
        let at = Instant::now();
        let files = self.listing.all().await?;
        if files.is_empty() {
            return Err(self.empty());
        }
        let partitions = self.partitions(&files)?;
        let schema = match self.table.given_schema() {
            Some(given) => given,
            None => self.infer(session, &files, &partitions).await?,
        };
        self.infos.retain(&files);
        Ok(Look { schema, partitions, at, took: at.elapsed() })
    }

    fn partitions(&self, files: &[Found]) -> Result<Vec<Column>> {
        // The files of one folder share their keys.
        let mut seen = HashSet::new();
        let distinct: Vec<&Found> =
            files.iter().filter(|file| seen.insert(Arc::as_ptr(&file.keys))).collect();
        let urls: Vec<_> =
            distinct.iter().map(|file| || self.listing.url(&file.meta.location)).collect();
        let folders: Vec<(MakeUrl<'_>, &Keys)> = urls
            .iter()
            .zip(&distinct)
            .map(|(url, file)| (url as MakeUrl<'_>, file.keys.as_ref()))
            .collect();
        columns(&folders, &self.table.partitions)
    }

    async fn infer(
        &self,
        session: &dyn Session,
        files: &[Found],
        partitions: &[Column],
    ) -> Result<SchemaRef> {
        let place = self.listing.place();
        self.infos.look(session, place, &self.settings, files, FILES_PER_LOOK).await?;
        let known: Vec<(&Path, Arc<FileInfo>)> = files
            .iter()
            .filter_map(|file| Some((&file.meta.location, self.infos.get(&file.meta)?)))
            .collect();
        merge(place, &self.settings, &known, partitions)
    }

    /// A Parquet file's statistics over the table's columns in the files.
    async fn statistics(
        &self,
        session: &dyn Session,
        meta: &ObjectMeta,
        schema: &SchemaRef,
    ) -> Result<Arc<Statistics>> {
        if let Some(known) = self.statistics.lock().get(&meta.location)
            && known.meta == *meta
            && known.schema == *schema
        {
            return Ok(Arc::clone(&known.statistics));
        }
        let place = self.listing.place();
        let found = self
            .settings
            .file_format(meta.location.filename().unwrap_or_default())
            .infer_stats(session, &place.store, Arc::clone(schema), meta)
            .await
            .map_err(|error| Subject::new(place, &meta.location, 0).explain(&error))?;
        let statistics = Arc::new(found);
        let (meta, schema) = (meta.clone(), Arc::clone(schema));
        let known = Known { meta, schema, statistics: Arc::clone(&statistics) };
        let mut kept = self.statistics.lock();
        if kept.len() >= STATISTICS_KEPT {
            kept.clear();
        }
        kept.insert(known.meta.location.clone(), known);
        Ok(statistics)
    }

    fn empty(&self) -> Error {
        Error::Empty { url: self.listing.place().url.to_string(), format: self.settings.wanted() }
    }
}

/// One look at a lake table.
struct Provider {
    opened: Arc<Opened>,
    look: Arc<Look>,
    table_schema: TableSchema,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LakeTable").field("url", &self.opened.listing.place().url.as_str()).finish()
    }
}

impl Provider {
    fn new(opened: Arc<Opened>, look: Arc<Look>) -> Self {
        let folders = look.partitions.iter();
        let fields: Vec<Arc<Field>> =
            folders.map(|c| Arc::new(Field::new(&c.name, c.data_type.clone(), true))).collect();
        let table_schema =
            TableSchemaBuilder::from(&look.schema).with_table_partition_cols(fields).build();
        Self { opened, look, table_schema }
    }

    /// The files of a scan with their partition values, what is known of them, and statistics.
    async fn files(
        &self,
        session: &dyn Session,
        filters: &[Expr],
    ) -> Result<(Vec<PartitionedFile>, bool)> {
        let opened = &self.opened;
        let pruner = Pruner::try_new(session, &self.look.partitions, filters)?;
        let found = opened.listing.pruned(&self.look.partitions, &pruner).await?;
        if found.is_empty() && filters.is_empty() {
            return Err(opened.empty());
        }
        if matches!(opened.settings.format, Format::Csv | Format::Arrow | Format::Avro) {
            // These are decoded by the file's own columns, so they must be known.
            let place = opened.listing.place();
            opened.infos.look(session, place, &opened.settings, &found, usize::MAX).await?;
        }
        let with_statistics = session.config().collect_statistics()
            && opened.settings.format == Format::Parquet
            && found.len() <= STATISTICS_FILES_MAX;
        let statistics: Vec<Arc<Statistics>> = if with_statistics {
            let schema = &self.look.schema;
            let wanted: Vec<BoxFuture<'_, _>> =
                found.iter().map(|f| opened.statistics(session, &f.meta, schema).boxed()).collect();
            futures::stream::iter(wanted).buffered(REQUESTS_MAX).try_collect().await?
        } else {
            Vec::new()
        };
        Ok((self.partitioned(found, statistics)?, with_statistics))
    }

    /// The files as DataFusion takes them, each with what is known of it.
    fn partitioned(
        &self,
        found: Vec<Found>,
        statistics: Vec<Arc<Statistics>>,
    ) -> Result<Vec<PartitionedFile>> {
        let mut statistics = statistics.into_iter();
        let mut checked = HashSet::new();
        let mut tuples: HashMap<*const Keys, Vec<ScalarValue>> = HashMap::new();
        let mut files = Vec::with_capacity(found.len());
        for file in &found {
            let url = || self.opened.listing.url(&file.meta.location);
            let values = match tuples.entry(Arc::as_ptr(&file.keys)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(tuple(&url, &file.keys, &self.look.partitions)?),
            };
            let mut partitioned = PartitionedFile::new_from_meta(file.meta.clone())
                .with_partition_values(values.clone());
            partitioned.statistics = statistics.next().map(|known| with_folders(known, values));
            if let Some(info) = self.opened.infos.get(&file.meta) {
                if checked.insert(Arc::as_ptr(&info)) {
                    self.check(&url, &info)?;
                }
                partitioned = partitioned.with_extension(info);
            }
            files.push(partitioned);
        }
        Ok(files)
    }

    /// A file that is newer than the look may clash with it.
    fn check(&self, url: MakeUrl<'_>, info: &FileInfo) -> Result<()> {
        let adapter = self.adapter();
        if !adapter.is_inferred {
            return Ok(());
        }
        for field in self.look.schema.fields() {
            let Some((_, found)) = info.schema.column_with_name(field.name()) else { continue };
            adapter.check(field.name(), found.data_type(), field.data_type()).map_err(|error| {
                match error {
                    Error::Clash { column, found, expected, other, .. } => {
                        Error::Clash { url: url(), column, found, expected, other }
                    }
                    other => other,
                }
            })?;
        }
        Ok(())
    }

    fn adapter(&self) -> Adapter {
        Adapter {
            table: self.opened.listing.place().url.to_string(),
            format: self.opened.settings.format,
            is_inferred: self.opened.table.columns.is_empty(),
        }
    }

    fn reading(&self) -> Reading {
        let opened = &self.opened;
        Reading {
            place: opened.listing.place().clone(),
            settings: opened.settings.clone(),
            schema: Arc::clone(&self.look.schema),
            partitions: self.look.partitions.iter().map(|column| column.name.clone()).collect(),
            adapter: Arc::new(self.adapter()),
        }
    }

    /// Puts our way of opening files around DataFusion's source.
    async fn plan(
        &self,
        session: &dyn Session,
        mut config: FileScanConfig,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if self.opened.settings.format == Format::Parquet {
            // Parquet's format puts its reader with the cache of footers into the plan.
            let format = self.opened.settings.file_format("");
            let plan = format.create_physical_plan(session, config).await?;
            let scan = plan.downcast_ref::<DataSourceExec>();
            let found = scan.and_then(|s| s.data_source().downcast_ref::<FileScanConfig>());
            let Some(found) = found else {
                return internal_err!("the Parquet format planned no file scan");
            };
            config = found.clone();
        }
        let inner = Arc::clone(&config.file_source);
        let source = Arc::new(LakeSource::new(inner, Arc::new(self.reading())));
        let config = FileScanConfigBuilder::from(config).with_source(source).build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

#[async_trait]
impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.table_schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match decides(filter, &self.look.partitions) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let of_folders: Vec<Expr> =
            filters.iter().filter(|f| decides(f, &self.look.partitions)).cloned().collect();
        let (files, with_statistics) = self.files(session, &of_folders).await?;
        if files.is_empty() {
            let schema = project_schema(&self.schema(), projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let groups = FileGroup::new(files).split_files(session.config().target_partitions());
        let (groups, statistics) =
            compute_all_files_statistics(groups, self.schema(), with_statistics, false)?;
        let place = self.opened.listing.place();
        let store = ObjectStoreUrl::parse(&place.url[..url::Position::BeforePath])?;
        let source = self.opened.settings.file_format("").file_source(self.table_schema.clone());
        let config = FileScanConfigBuilder::new(store, source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(self.adapter())))
            .build();
        self.plan(session, config).await
    }
}

/// A file's statistics over the table's columns, the folders' columns last.
fn with_folders(of_file: Arc<Statistics>, values: &[ScalarValue]) -> Arc<Statistics> {
    if values.is_empty() {
        return of_file;
    }
    let mut statistics = Arc::unwrap_or_clone(of_file);
    for value in values {
        let unknown = ColumnStatistics::new_unknown();
        statistics.column_statistics.push(match value.is_null() {
            true => ColumnStatistics { null_count: statistics.num_rows, ..unknown },
            false => ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: Precision::Exact(value.clone()),
                max_value: Precision::Exact(value.clone()),
                ..unknown
            },
        });
    }
    Arc::new(statistics)
}
