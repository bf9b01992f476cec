//! A scan's files, each read by its own columns, each error named by its file.
//!
//! DataFusion's CSV and Arrow readers take a file's columns by position in the *table's* schema, so
//! a file with another order or number of columns would be read wrongly or not at all. Here each
//! file is opened with its own columns, and the table's columns are computed from them: cast where
//! the types differ, NULL where the column is missing. Parquet's reader does that itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    ArrowSource, AvroSource, CsvSource, FileOpenFuture, FileOpener, FileScanConfig,
    FileScanConfigBuilder, FileSource, JsonSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, Column, Literal};
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr};
use datafusion::physical_expr::{PhysicalSortExpr, ScalarFunctionExpr};
use datafusion::physical_expr_adapter::{
    PhysicalExprAdapterFactory, replace_columns_with_literals,
};
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStore;

use super::adapt::Adapter;
use super::format::{Format, Settings};
use super::pinned::{Changed, Pins};
use super::reason::Subject;
use super::schema::FileInfo;
use crate::error::Error;
use crate::store::Place;

/// What a scan of one table knows about its files.
#[derive(Debug)]
pub(crate) struct Reading {
    pub place: Place,
    pub settings: Settings,
    /// The table's columns that are in the files.
    pub schema: SchemaRef,
    /// The table's columns that are in the folders' names.
    pub partitions: Vec<String>,
    pub adapter: Arc<Adapter>,
    /// Whether files are read as they are rather than cut for all cores.
    pub whole: bool,
    /// Where files are read only as they were listed: what is told when one is another.
    pub pins: Option<Changed>,
}

/// DataFusion's source of a format, with our way of opening a file.
#[derive(Clone)]
pub(crate) struct LakeSource {
    inner: Arc<dyn FileSource>,
    reading: Arc<Reading>,
    pins: Option<Arc<Pins>>,
    batch_rows: usize,
}

impl LakeSource {
    /// Wraps the source of the table's format.
    pub fn new(inner: Arc<dyn FileSource>, reading: Arc<Reading>, pins: Option<Arc<Pins>>) -> Self {
        Self { inner, reading, pins, batch_rows: 8_192 }
    }

    fn around(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { inner, ..self.clone() })
    }

    fn is_parquet(&self) -> bool {
        self.reading.settings.format == Format::Parquet
    }
}

impl FileSource for LakeSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        base: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        if self.is_parquet() {
            return self.inner.create_file_opener(store, base, partition);
        }
        let store = match &self.pins {
            Some(pins) => pins.over(store),
            None => store,
        };
        Ok(Arc::new(FileReader {
            reading: Arc::clone(&self.reading),
            projection: self.inner.projection().cloned(),
            store,
            base: FileScanConfigBuilder::new(
                base.object_store_url.clone(),
                Arc::clone(&self.inner),
            ),
            batch_rows: self.batch_rows,
            partition,
        }))
    }

    fn create_morselizer(
        &self,
        store: Arc<dyn ObjectStore>,
        base: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let inner = if self.is_parquet() {
            self.inner.create_morselizer(store, base, partition)?
        } else {
            Box::new(OpenMorselizer(self.create_file_opener(store, base, partition)?)) as _
        };
        Ok(Box::new(NamedMorselizer { inner, place: self.reading.place.clone() }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        let inner = self.inner.with_batch_size(batch_size);
        Arc::new(Self { inner, batch_rows: batch_size, ..self.clone() })
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_extra(t, f)
    }

    fn supports_repartitioning(&self) -> bool {
        // An Arrow file is read as a whole: the ranged reader trusts a damaged footer.
        let format = self.reading.settings.format;
        !self.reading.whole
            && !matches!(format, Format::Arrow | Format::Avro)
            && self.inner.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        let is_compressed = |file: &PartitionedFile| {
            let name = file.path().filename().unwrap_or_default();
            self.reading.settings.compression_of(name) != CompressionTypeVariant::UNCOMPRESSED
        };
        let mut files = config.file_groups.iter().flat_map(|group| group.iter());
        if !self.supports_repartitioning() || files.any(is_compressed) {
            return Ok(None);
        }
        let minimum = repartition_file_min_size;
        self.inner.repartitioned(target_partitions, minimum, output_ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let pushed = self.inner.try_pushdown_filters(filters, config)?;
        let mut named = FilterPushdownPropagation::with_parent_pushdown_result(pushed.filters);
        if let Some(inner) = pushed.updated_node {
            named = named.with_updated_node(self.around(inner));
        }
        Ok(named)
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        eq_properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        let pushed = self.inner.try_pushdown_sort(order, eq_properties)?;
        Ok(pushed.map(|inner| self.around(inner)))
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.inner.reorder_files(files)
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        // An error of a computed expression would be taken for the file's.
        let takes_fields = self.is_parquet();
        if !projection.iter().all(|projected| cannot_fail(&projected.expr, takes_fields)) {
            return Ok(None);
        }
        let pushed = self.inner.try_pushdown_projection(projection)?;
        Ok(pushed.map(|inner| self.around(inner)))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }
}

/// Whether an expression is a column or, for a format that reads fields alone, a field of one.
fn cannot_fail(expr: &Arc<dyn PhysicalExpr>, takes_fields: bool) -> bool {
    let is_field = || {
        let function = expr.downcast_ref::<ScalarFunctionExpr>();
        takes_fields && function.is_some_and(|function| function.name() == "get_field")
    };
    expr.downcast_ref::<Column>().is_some()
        || (expr.downcast_ref::<Literal>().is_some() && takes_fields)
        || (is_field() && expr.children().into_iter().all(|c| cannot_fail(c, takes_fields)))
}

/// Opens each file with its own columns.
struct FileReader {
    reading: Arc<Reading>,
    /// The columns that the query wants, over the table's columns.
    projection: Option<ProjectionExprs>,
    store: Arc<dyn ObjectStore>,
    base: FileScanConfigBuilder,
    batch_rows: usize,
    partition: usize,
}

impl FileOpener for FileReader {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let name = file.path().filename().unwrap_or_default().to_owned();
        let info = file.extension::<Arc<FileInfo>>().cloned();
        let in_file = self.columns_in_file(info.as_deref())?;
        let projection = self.projection_over(&in_file, &file.partition_values)?;
        let is_stream = info.is_some_and(|info| info.is_stream);
        let mut source = self.source(&name, in_file, is_stream).with_batch_size(self.batch_rows);
        if let Some(projected) = source.try_pushdown_projection(&projection)? {
            source = projected;
        }
        let compression = self.reading.settings.compression_of(&name);
        let config = self
            .base
            .clone()
            .with_source(Arc::clone(&source))
            .with_file_compression_type(compression.into())
            .build();
        source.create_file_opener(Arc::clone(&self.store), &config, self.partition)?.open(file)
    }
}

impl FileReader {
    /// The columns of the file, with the types that the decoder shall give them.
    fn columns_in_file(&self, info: Option<&FileInfo>) -> Result<SchemaRef> {
        let table = &self.reading.schema;
        let settings = &self.reading.settings;
        match (settings.format, info) {
            // The JSON decoder finds columns by name and reads them as the type that is wanted.
            (Format::Json, _) | (_, None) => Ok(Arc::clone(table)),
            (Format::Csv, Some(info)) => {
                let found = csv_columns(table, &info.schema, settings.has_header())?;
                Ok(if settings.null_value.is_some() { as_text(&found) } else { found })
            }
            (_, Some(info)) => Ok(Arc::clone(&info.schema)),
        }
    }

    /// The wanted columns as expressions over the file's columns.
    fn projection_over(
        &self,
        in_file: &SchemaRef,
        partition_values: &[ScalarValue],
    ) -> Result<ProjectionExprs> {
        let names = self.reading.partitions.iter().map(String::as_str);
        let folders: HashMap<&str, &ScalarValue> = names.zip(partition_values).collect();
        let table = Arc::clone(&self.reading.schema);
        let adapter = self.reading.adapter.create(table, Arc::clone(in_file))?;
        let wanted = self.projection.iter().flat_map(ProjectionExprs::iter);
        let exprs = wanted.map(|wanted| {
            let expr = replace_columns_with_literals(Arc::clone(&wanted.expr), &folders)?;
            let mut expr = adapter.rewrite(expr)?;
            if let Some(null_value) = &self.reading.settings.null_value {
                expr = null_for(expr, null_value)?;
            }
            Ok(ProjectionExpr::new(expr, wanted.alias.clone()))
        });
        Ok(ProjectionExprs::new(exprs.collect::<Result<Vec<_>>>()?))
    }

    fn source(&self, name: &str, columns: SchemaRef, is_stream: bool) -> Arc<dyn FileSource> {
        let settings = &self.reading.settings;
        match settings.format {
            Format::Csv => {
                let options = settings.csv_options(name);
                Arc::new(CsvSource::new(columns).with_csv_options(options))
            }
            Format::Json => Arc::new(JsonSource::new(columns)),
            Format::Arrow if is_stream => Arc::new(ArrowSource::new_stream_file_source(columns)),
            Format::Arrow => Arc::new(ArrowSource::new_file_source(columns)),
            Format::Avro | Format::Parquet | Format::Delta => Arc::new(AvroSource::new(columns)),
        }
    }
}

/// A CSV file's columns under the table's names and types; text where the table has no such column.
///
/// With a header, columns are found by name: as written, else ignoring case and blanks. Without
/// one, by position.
fn csv_columns(table: &Schema, file: &Schema, has_header: bool) -> Result<SchemaRef> {
    let position = |index: usize, name: &str| {
        if !has_header {
            return (index < table.fields().len()).then_some(index);
        }
        table.index_of(name).ok().or_else(|| {
            let loose = |text: &str| text.trim().to_lowercase();
            table.fields().iter().position(|field| loose(field.name()) == loose(name))
        })
    };
    let mut matched = 0;
    let mut taken = vec![false; table.fields().len()];
    let mut fields = Vec::with_capacity(file.fields().len());
    for (index, field) in file.fields().iter().enumerate() {
        let known = position(index, field.name())
            .filter(|at| taken.get_mut(*at).is_some_and(|taken| !std::mem::replace(taken, true)));
        fields.push(match known {
            Some(at) => {
                matched += 1;
                table.field(at).clone()
            }
            // A name that no column of the table has, so that nothing is read from it.
            None => Field::new(format!("\u{0}{index}"), DataType::Utf8View, true),
        });
    }
    if matched == 0 && !table.fields().is_empty() {
        let names: Vec<&str> = table.fields().iter().map(|field| field.name().as_str()).collect();
        let reason = format!("its header has none of the columns {}", names.join(", "));
        return Err(Error::File { url: String::new(), reason }.into());
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn as_text(schema: &Schema) -> SchemaRef {
    let text = |field: &Arc<Field>| field.as_ref().clone().with_data_type(DataType::Utf8View);
    Arc::new(Schema::new(schema.fields().iter().map(text).collect::<Vec<_>>()))
}

/// Puts `CASE WHEN column = null_value THEN NULL ELSE column END` for each text column.
fn null_for(expr: Arc<dyn PhysicalExpr>, null_value: &str) -> Result<Arc<dyn PhysicalExpr>> {
    let replaced = expr.transform_down(|node| {
        if node.downcast_ref::<Column>().is_none() {
            return Ok(Transformed::no(node));
        }
        let text = Literal::new(ScalarValue::Utf8View(Some(null_value.to_owned())));
        let is_null = BinaryExpr::new(Arc::clone(&node), Operator::Eq, Arc::new(text));
        let null = Literal::new(ScalarValue::Utf8View(None));
        let branch = (Arc::new(is_null) as Arc<dyn PhysicalExpr>, Arc::new(null) as _);
        let case = CaseExpr::try_new(None, vec![branch], Some(node))?;
        Ok(Transformed::new(Arc::new(case), true, TreeNodeRecursion::Jump))
    })?;
    Ok(replaced.data)
}

/// Adapts a file opener to DataFusion's morsels: one file, one morsel.
struct OpenMorselizer(Arc<dyn FileOpener>);

impl fmt::Debug for OpenMorselizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenMorselizer")
    }
}

impl Morselizer for OpenMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        Ok(Box::new(Opening::Closed(Arc::clone(&self.0), Box::new(file))))
    }
}

enum Opening {
    Closed(Arc<dyn FileOpener>, Box<PartitionedFile>),
    Open(BoxStream<'static, Result<RecordBatch>>),
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(..) => "Opening::Closed",
            Self::Open(_) => "Opening::Open",
        })
    }
}

impl MorselPlanner for Opening {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        match *self {
            Self::Closed(opener, file) => {
                let opened = async move {
                    let stream = opener.open(*file)?.await?;
                    Ok(Box::new(Self::Open(stream)) as Box<dyn MorselPlanner>)
                };
                Ok(Some(MorselPlan::new().with_pending_planner(opened)))
            }
            opened @ Self::Open(_) => {
                Ok(Some(MorselPlan::new().with_morsels(vec![Box::new(opened)])))
            }
        }
    }
}

impl Morsel for Opening {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        match *self {
            Self::Open(stream) => stream,
            Self::Closed(..) => futures::stream::empty().boxed(),
        }
    }
}

/// Names the file in every error that reading it raises.
#[derive(Debug)]
struct NamedMorselizer {
    inner: Box<dyn Morselizer>,
    place: Place,
}

impl Morselizer for NamedMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        let subject = Arc::new(Subject::new(&self.place, file.path(), file.range().0));
        let inner = self.inner.plan_file(file).map_err(|error| subject.name(error))?;
        Ok(Box::new(Named { inner, subject }))
    }
}

#[derive(Debug)]
struct Named<T: ?Sized> {
    subject: Arc<Subject>,
    inner: Box<T>,
}

impl MorselPlanner for Named<dyn MorselPlanner> {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let Self { inner, subject } = *self;
        let Some(mut plan) = inner.plan().map_err(|error| subject.name(error))? else {
            return Ok(None);
        };
        let morsels = plan.take_morsels().into_iter().map(|inner| {
            Box::new(Named { subject: Arc::clone(&subject), inner }) as Box<dyn Morsel>
        });
        let planners = plan.take_ready_planners().into_iter().map(|inner| {
            Box::new(Named { subject: Arc::clone(&subject), inner }) as Box<dyn MorselPlanner>
        });
        let mut named =
            MorselPlan::new().with_morsels(morsels.collect()).with_planners(planners.collect());
        if let Some(pending) = plan.take_pending_planner() {
            named.set_pending_planner(async move {
                let inner = pending.await.map_err(|error| subject.name(error))?;
                Ok(Box::new(Named { subject, inner }) as Box<dyn MorselPlanner>)
            });
        }
        Ok(Some(named))
    }
}

impl Morsel for Named<dyn Morsel> {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let Self { inner, subject } = *self;
        let named = move |batch: Result<RecordBatch>| batch.map_err(|error| subject.name(error));
        inner.into_stream().map(named).boxed()
    }
}
