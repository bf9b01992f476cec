//! ML.RECOMMEND: the plan node over a column of users, and its operator.
//!
//! Beside the users the node may have up to six inputs: the sub-queries of `include_items`,
//! `exclude_items` and `promote`, rows of the model's item table, with `fold_in` what the users
//! have had by now, and with `fold_in_items` what everybody has. The operator reads those first and
//! once, whatever its partitions; where they have new items a wider model answers. Users it
//! answers batch by batch: a batch is one tiled product on the learners' threads (a single user is
//! computed in place), with seen items left out while the product runs.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::models::LoadedModel;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    PlanProperties,
};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;
use udfs::model::Recommender;

use crate::error::Result;
use crate::model::history::Reading;
use crate::model::items::ItemQuery;
use crate::model::node::compared_by_key;
use crate::model::ranking::{Job, Prepared, SideRows};
use crate::model::recommend_options::{BoundOptions, RecommendOptions};
use crate::model::recommender;

/// Rows that one output batch holds at most, whatever top_k is.
const ROWS_PER_BATCH: usize = 8_192;

/// Which inputs there are beside the users, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Hash)]
struct Layout {
    include: bool,
    exclude: bool,
    promote: bool,
    items: bool,
    history: bool,
    new_items: bool,
    /// What the rows of the item table were asked for.
    asked: ItemQuery,
}

/// The inputs beside the users.
#[derive(Debug, Default)]
pub struct Sides {
    /// The sub-query of include_items, one column.
    pub include: Option<LogicalPlan>,
    /// The sub-query of exclude_items, one column.
    pub exclude: Option<LogicalPlan>,
    /// The sub-query of promote, one column.
    pub promote: Option<LogicalPlan>,
    /// Rows of the item table: item, the category and the boost where they are asked for.
    pub items: Option<LogicalPlan>,
    /// What the users have had by now: user, item and, where there is one, rating.
    pub history: Option<LogicalPlan>,
    /// What everybody has had by now, where items that the model does not know are asked for.
    pub new_items: Option<LogicalPlan>,
    /// How the rows of these two are read.
    pub(super) reading: Option<Reading>,
    /// What these rows were asked for.
    pub asked: ItemQuery,
}

/// Recommendations for the users of the first input, one column.
#[derive(Debug, Clone)]
pub struct RecommendNode {
    model: LoadedModel,
    options: RecommendOptions,
    inputs: Vec<LogicalPlan>,
    layout: Layout,
    reading: Option<Reading>,
    schema: DFSchemaRef,
}

impl RecommendNode {
    /// A node over a plan of one column of users.
    ///
    /// # Errors
    /// When the model's column names clash.
    pub fn new(
        model: &LoadedModel,
        options: RecommendOptions,
        input: LogicalPlan,
        sides: Sides,
    ) -> Result<Self> {
        let schema = output_schema(model, recommender(model)?, input.schema().field(0).data_type());
        let schema = Arc::new(DFSchema::try_from(schema.as_ref().clone())?);
        let layout = Layout {
            include: sides.include.is_some(),
            exclude: sides.exclude.is_some(),
            promote: sides.promote.is_some(),
            items: sides.items.is_some(),
            history: sides.history.is_some(),
            new_items: sides.new_items.is_some(),
            asked: sides.asked,
        };
        let lists = [sides.include, sides.exclude, sides.promote];
        let also = lists.into_iter().chain([sides.items, sides.history, sides.new_items]);
        let inputs = std::iter::once(input).chain(also.flatten()).collect();
        Ok(Self { model: model.clone(), options, inputs, layout, reading: sides.reading, schema })
    }

    /// The model.
    pub(crate) fn model(&self) -> &LoadedModel {
        &self.model
    }

    fn key(&self) -> (String, &RecommendOptions, &[LogicalPlan], &Layout) {
        (self.model.to_string(), &self.options, &self.inputs, &self.layout)
    }
}

/// user, item, score, rank, source; the users keep the query's type, a parameter takes the
/// model's.
fn output_schema(
    model: &LoadedModel,
    recommender: &dyn Recommender,
    user_type: &DataType,
) -> SchemaRef {
    let user_type = match user_type {
        DataType::Null => recommender.user_ids().data_type(),
        other => other,
    };
    let item_type = recommender.item_ids().data_type().clone();
    Arc::new(Schema::new(vec![
        Field::new(&model.manifest.user_col, user_type.clone(), true),
        Field::new(&model.manifest.item_col, item_type, true),
        Field::new("score", DataType::Float32, true),
        Field::new("rank", DataType::Int32, false),
        Field::new("source", DataType::Utf8, false),
    ]))
}

compared_by_key!(RecommendNode);

impl UserDefinedLogicalNodeCore for RecommendNode {
    fn name(&self) -> &str {
        "Recommend"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.options.expressions()
    }

    // The node reads its columns by position, so none may be pruned below it.
    fn necessary_children_exprs(&self, _output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let columns = |input: &LogicalPlan| (0..input.schema().fields().len()).collect();
        Some(self.inputs.iter().map(columns).collect())
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Recommend: model={}, top_k={}", self.model, self.options.top_k)?;
        formatter.write_str(&screened(&self.model))
    }

    fn with_exprs_and_inputs(
        &self,
        expressions: Vec<Expr>,
        inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        if inputs.len() != self.inputs.len() {
            return Err(DataFusionError::Internal("ML.RECOMMEND keeps its inputs".into()));
        }
        let options = self.options.with_expressions(expressions)?;
        let (model, reading) = (self.model.clone(), self.reading.clone());
        let schema = Arc::clone(&self.schema);
        Ok(Self { model, options, inputs, layout: self.layout.clone(), reading, schema })
    }
}

/// The operator.
pub struct RecommendExec {
    model: LoadedModel,
    options: BoundOptions,
    /// The same with ids for codes, for a model of other codes.
    written: RecommendOptions,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    layout: Layout,
    reading: Option<Reading>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    prepared: Arc<OnceCell<Arc<Prepared>>>,
}

impl fmt::Debug for RecommendExec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RecommendExec({}, {:?})", self.model, self.options)
    }
}

impl RecommendExec {
    /// The operator of a node.
    ///
    /// # Errors
    /// When an option has no usable value.
    pub fn new(node: &RecommendNode, inputs: &[Arc<dyn ExecutionPlan>]) -> Result<Self> {
        let options = (node.options.bind(&node.model)?, node.options.clone());
        let schema = Arc::new(node.schema.as_arrow().clone());
        let reading = node.reading.clone();
        Ok(Self::build(&node.model, options, inputs, node.layout.clone(), reading, schema)?)
    }

    fn build(
        model: &LoadedModel,
        (options, written): (BoundOptions, RecommendOptions),
        inputs: &[Arc<dyn ExecutionPlan>],
        layout: Layout,
        reading: Option<Reading>,
        schema: SchemaRef,
    ) -> DataFusionResult<Self> {
        let Some(users) = inputs.first() else {
            return Err(DataFusionError::Internal("ML.RECOMMEND has an input of users".into()));
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            users.output_partitioning().clone(),
            users.pipeline_behavior(),
            users.boundedness(),
        );
        Ok(Self {
            model: model.clone(),
            options,
            written,
            inputs: inputs.to_vec(),
            layout,
            reading,
            schema,
            properties: Arc::new(properties),
            prepared: Arc::default(),
        })
    }
}

/// By which consent policies users are left out, and as persons of which subjects, for plans;
/// nothing where by none.
fn screened(model: &LoadedModel) -> String {
    let mut told = String::new();
    if !model.screened_by.is_empty() {
        let purpose = model.manifest.purpose.as_deref().unwrap_or_default();
        told = format!(", policies=[{}], purpose={purpose}", model.screened_by.join(", "));
    }
    if !model.hidden_of.is_empty() {
        told.push_str(&format!(", subjects=[{}]", model.hidden_of.join(", ")));
    }
    told
}

/// All inputs, of which the first has the users.
struct Sources {
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    layout: Layout,
    reading: Option<Reading>,
}

impl Sources {
    /// Starts the inputs beside the users.
    fn start(&self, context: &Arc<TaskContext>) -> DataFusionResult<SideRows> {
        let mut sides = self.inputs.iter().skip(1);
        let mut next = |is_there: bool| match is_there.then(|| sides.next()).flatten() {
            Some(side) => side.execute(0, Arc::clone(context)).map(Some),
            None => Ok(None),
        };
        let Layout { include, exclude, promote, items, history, new_items, asked } = &self.layout;
        let read = |rows: Option<SendableRecordBatchStream>| {
            rows.zip(self.reading.clone()).map(|(rows, reading)| {
                let memory = MemoryConsumer::new("ML.RECOMMEND").register(context.memory_pool());
                (rows, reading, memory)
            })
        };
        Ok(SideRows {
            include: next(*include)?,
            exclude: next(*exclude)?,
            promote: next(*promote)?,
            items: next(*items)?,
            history: read(next(*history)?),
            new_items: read(next(*new_items)?),
            asked: asked.clone(),
        })
    }
}

impl DisplayAs for RecommendExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RecommendExec: model={}, top_k={}", self.model, self.options.top_k)?;
        formatter.write_str(&screened(&self.model))
    }
}

impl ExecutionPlan for RecommendExec {
    fn name(&self) -> &str {
        "RecommendExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        let sides = self.inputs.iter().skip(1).map(|_| Distribution::SinglePartition);
        std::iter::once(Distribution::UnspecifiedDistribution).chain(sides).collect()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let options = (self.options.clone(), self.written.clone());
        let schema = Arc::clone(&self.schema);
        let (layout, reading) = (self.layout.clone(), self.reading.clone());
        Ok(Arc::new(Self::build(&self.model, options, &children, layout, reading, schema)?))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let Some(users) = self.inputs.first() else {
            return Err(DataFusionError::Internal("ML.RECOMMEND has an input of users".into()));
        };
        let users = users.execute(partition, Arc::clone(&context))?;
        let (model, options) = (self.model.clone(), self.options.clone());
        let written = self.written.clone();
        let (schema, cell) = (Arc::clone(&self.schema), Arc::clone(&self.prepared));
        let (inputs, reading) = (self.inputs.clone(), self.reading.clone());
        let sides = Sources { inputs, layout: self.layout.clone(), reading };
        let per_batch = (ROWS_PER_BATCH / self.options.top_k).max(1);
        let rows = futures::stream::once(async move {
            let prepare = || async {
                let rows = sides.start(&context)?;
                Prepared::read(&model, &options, &written, rows).await.map(Arc::new)
            };
            let prepared = Arc::clone(cell.get_or_try_init(prepare).await?);
            let job = Arc::new(Job { prepared, schema });
            let answers = users
                .map_ok(move |batch| futures::stream::iter(slices(&batch, per_batch)).map(Ok))
                .try_flatten()
                .and_then(move |users| {
                    let job = Arc::clone(&job);
                    async move { job.run(users).await.map_err(DataFusionError::from) }
                });
            Ok::<_, DataFusionError>(answers)
        });
        let rows = rows.try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }
}

/// The first column of a batch, cut so that the answers stay small.
fn slices(batch: &RecordBatch, rows: usize) -> Vec<ArrayRef> {
    let users = batch.column(0);
    (0..users.len())
        .step_by(rows)
        .map(|start| users.slice(start, rows.min(users.len() - start)))
        .collect()
}
