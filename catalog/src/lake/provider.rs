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
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::{TableSchema, TableSchemaBuilder};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;
use object_store::path::Path;
use parking_lot::Mutex;

use super::adapt::Adapter;
use super::format::{Format, Settings};
use super::listing::{Found, Listing, lifetime};
use super::partition::{Keys, MakeUrl, Pruner, columns, decides, tuple};
use super::scan::{FileStatistics, Wanted, scan};
use super::schema::{FILES_PER_LOOK, FileInfo, Infos, merge};
use super::source::Reading;
use super::table::{Column, LakeTable};
use crate::error::{Error, Result};
use crate::store::Place;

/// What one look at a table's files found.
pub(super) struct Look {
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

/// A table's files and all that is remembered of them between queries.
pub(crate) struct Opened {
    table: LakeTable,
    settings: Settings,
    listing: Listing,
    infos: Infos,
    statistics: FileStatistics,
    fresh: Duration,
    /// Whether files are read only as they were listed.
    is_pinned: bool,
    last_look: Mutex<Option<Arc<Look>>>,
    /// What was seen of other files that were there before.
    before: Option<Arc<Look>>,
    /// Held by the one that looks.
    looking: tokio::sync::Mutex<()>,
}

impl Opened {
    /// A table of which nothing is known yet; where Attune may put others in the place of its
    /// files, these are read only as they were listed (`is_pinned`).
    ///
    /// # Errors
    /// When the definition is wrong in itself.
    pub fn new(place: Place, table: LakeTable, fresh: Duration, is_pinned: bool) -> Result<Self> {
        table.check()?;
        if table.format == Format::Delta {
            return Err(Error::invalid(format!("{} is a Delta table", place.url)));
        }
        let settings = Settings::parse(table.format, &table.options)?;
        let listing = Listing::new(place, settings.clone(), fresh);
        Ok(Self {
            infos: Infos::of(&table),
            table,
            settings,
            listing,
            statistics: FileStatistics::default(),
            fresh,
            is_pinned,
            last_look: Mutex::default(),
            before: None,
            looking: tokio::sync::Mutex::default(),
        })
    }

    /// The same table, of whose files nothing is known; `before` tells its columns while it has
    /// none.
    pub(super) fn anew(&self, fresh: Duration, before: Option<Arc<Look>>) -> Self {
        Self {
            table: self.table.clone(),
            settings: self.settings.clone(),
            listing: Listing::new(self.place().clone(), self.settings.clone(), fresh),
            infos: Infos::of(&self.table),
            statistics: FileStatistics::default(),
            fresh,
            is_pinned: self.is_pinned,
            last_look: Mutex::default(),
            before,
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// What was seen last of the table's files, or of those before.
    pub(super) fn known(&self) -> Option<Arc<Look>> {
        let last = self.last_look.lock().clone();
        last.or_else(|| self.before.clone())
    }

    /// Checks that there are files now, or were a moment ago.
    ///
    /// # Errors
    /// [`Error::Empty`] when there are none; when the store cannot be reached.
    pub async fn must_have_files(&self) -> Result<()> {
        match self.listing.all().await?.is_empty() {
            true => Err(self.empty()),
            false => Ok(()),
        }
    }

    /// The table as it is now, or was a moment ago. Where no file is left it has the columns that
    /// it had, and no rows.
    ///
    /// # Errors
    /// When the store cannot be reached, no file is there or was seen, or files cannot be read or
    /// clash.
    pub async fn provider(
        self: &Arc<Self>,
        session: &dyn Session,
    ) -> Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(self.seen(session).await?))
    }

    /// The same as itself.
    ///
    /// # Errors
    /// As [`Self::provider`].
    pub async fn seen(self: &Arc<Self>, session: &dyn Session) -> Result<Provider> {
        Ok(Provider::new(Arc::clone(self), self.recent_look(session).await?))
    }

    /// Where the table is.
    pub fn place(&self) -> &Place {
        self.listing.place()
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
            let Some(known) = self.known() else { return Err(self.empty()) };
            self.infos.retain(&files);
            let (schema, partitions) = (Arc::clone(&known.schema), known.partitions.clone());
            return Ok(Look { schema, partitions, at, took: at.elapsed() });
        }
        let partitions = self.partitions(&files)?;
        if let Some(pii) = &self.table.pii {
            let names = partitions.iter().map(|column| column.name.as_str());
            pii.check_partitions(self.listing.place().url.as_str(), names)?;
        }
        let schema = match self.table.given_schema(&partitions) {
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
        columns(&folders, &self.table)
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

    fn empty(&self) -> Error {
        Error::Empty { url: self.listing.place().url.to_string(), format: self.settings.wanted() }
    }
}

/// One look at a lake table.
pub(crate) struct Provider {
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
        self.know(session, &found).await?;
        let metas: Vec<&ObjectMeta> = found.iter().map(|file| &file.meta).collect();
        let reading = self.reading();
        let known = opened.statistics.of(session, &reading, &metas).await?;
        let with_statistics = known.is_some();
        let statistics = known.unwrap_or_default();
        Ok((self.partitioned(found, statistics)?, with_statistics))
    }

    /// Every file that there is now.
    ///
    /// # Errors
    /// When the store cannot be reached, or a folder is partitioned otherwise than the table.
    pub async fn listed(&self, session: &dyn Session) -> Result<Vec<Found>> {
        let folders = &self.look.partitions;
        self.opened.listing.pruned(folders, &Pruner::try_new(session, folders, &[])?).await
    }

    /// Some of the files, with their partition values.
    ///
    /// # Errors
    /// When a file cannot be read or clashes with the table.
    pub async fn chosen(
        &self,
        session: &dyn Session,
        found: Vec<Found>,
    ) -> Result<Vec<PartitionedFile>> {
        self.know(session, &found).await?;
        self.partitioned(found, vec![])
    }

    /// The columns in the files, and those in the folders' names.
    pub fn columns(&self) -> (&SchemaRef, &[Column]) {
        (&self.look.schema, &self.look.partitions)
    }

    /// Looks at files that are decoded by their own columns, which must be known.
    async fn know(&self, session: &dyn Session, found: &[Found]) -> Result<()> {
        let opened = &self.opened;
        if matches!(opened.settings.format, Format::Csv | Format::Arrow | Format::Avro) {
            let place = opened.listing.place();
            opened.infos.look(session, place, &opened.settings, found, usize::MAX).await?;
        }
        Ok(())
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

    /// How the files are read.
    pub fn reading(&self) -> Reading {
        let opened = &self.opened;
        Reading {
            place: opened.listing.place().clone(),
            settings: opened.settings.clone(),
            schema: Arc::clone(&self.look.schema),
            partitions: self.look.partitions.iter().map(|column| column.name.clone()).collect(),
            adapter: Arc::new(self.adapter()),
            whole: false,
            pins: opened.is_pinned.then(|| Arc::clone(opened.listing.changed())),
        }
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
        let wanted = Wanted { files, with_statistics, projection, limit };
        scan(session, &self.table_schema, self.reading(), wanted).await
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
