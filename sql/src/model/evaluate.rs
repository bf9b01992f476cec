//! Evaluation: metrics of a model beside those of recommending the most popular items.
//!
//! Implicit feedback: recall, precision, NDCG, MAP, hit rate and MRR at k, and coverage, as the
//! published tables define them (hits / |test items|; ideal DCG over min(|test items|, k); items
//! seen in training, other than the tested ones, left out; means over users with test items).
//! Explicit feedback: RMSE and MAE over pairs that the model knows; the baseline predicts the
//! item's mean rating.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::models::{LoadedModel, StoredMetric};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue};
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore, lit};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, Partitioning, PlanProperties,
};
use udfs::model::als::Feedback;
use udfs::model::{Csr, Model};

use crate::error::{Error, Result};
use crate::model::learners::{Learner, PopularityOptions};
use crate::model::node::compared_by_key;
use crate::model::options::TrainingOptions;
use crate::model::recommender;
use crate::model::splitting::SplitOptions;
use crate::model::table_functions::whole_number;
use crate::model::train::{TrainingColumns, duplicates, read_known};

/// A metric of the model, and of the popularity baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name, such as `recall@20`.
    pub name: String,
    /// The model's.
    pub value: f64,
    /// The baseline's.
    pub baseline: f64,
}

impl Metric {
    /// The form that a model's manifest keeps.
    pub fn stored(&self) -> StoredMetric {
        StoredMetric { name: self.name.clone(), value: self.value, baseline: self.baseline }
    }
}

/// Evaluates a model on interactions in the model's own codes; a model that is no recommender has
/// no metrics.
pub fn evaluate(model: &Model, test: &Csr, top_k: usize) -> Vec<Metric> {
    let metrics = match (model.als(), model.recommender()) {
        (Some(als), _) if is_explicit(model) => als.rating_metrics(test),
        (_, Some(recommender)) => recommender.ranking_metrics(test, top_k),
        (_, None) => vec![],
    };
    metrics
        .into_iter()
        .map(|metric| Metric { name: metric.name, value: metric.value, baseline: metric.baseline })
        .collect()
}

/// Whether the model predicts ratings.
fn is_explicit(model: &Model) -> bool {
    model.als().is_some_and(|als| als.feedback() == Feedback::Explicit)
}

fn result_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("metric", DataType::Utf8, false),
        Field::new("value", DataType::Float64, true),
        Field::new("popularity", DataType::Float64, true),
    ]))
}

fn result(metrics: &[StoredMetric]) -> Result<RecordBatch> {
    let finite = |value: f64| value.is_finite().then_some(value);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(metrics.iter().map(|metric| &metric.name))),
        Arc::new(metrics.iter().map(|metric| finite(metric.value)).collect::<Float64Array>()),
        Arc::new(metrics.iter().map(|metric| finite(metric.baseline)).collect::<Float64Array>()),
    ];
    Ok(RecordBatch::try_new(result_schema(), columns)?)
}

/// The metrics that training measured on the rows it kept aside.
///
/// # Errors
/// When training kept no rows aside.
pub fn stored_evaluation(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    if model.manifest.metrics.is_empty() {
        return Err(Error::invalid_hint(
            format!("{model} was trained on all rows and has no evaluation"),
            "give rows: ML.EVALUATE(MODEL m, (SELECT …)), or train with data_split_method = \
             'auto_split'",
        ));
    }
    let batch = result(&model.manifest.metrics)?;
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
}

/// The plan node of an evaluation on a query's rows.
#[derive(Debug, Clone)]
pub struct EvaluateNode {
    model: LoadedModel,
    top_k: Expr,
    input: LogicalPlan,
    schema: DFSchemaRef,
}

impl EvaluateNode {
    /// A node over rows with the model's columns.
    ///
    /// # Errors
    /// When a column is missing.
    pub fn new(model: &LoadedModel, top_k: Option<Expr>, input: LogicalPlan) -> Result<Self> {
        let top_k = top_k.unwrap_or_else(|| lit(ScalarValue::from(model.manifest.top_k as u64)));
        columns(model, &Arc::new(input.schema().as_arrow().clone()))?;
        let schema = Arc::new(DFSchema::try_from(result_schema().as_ref().clone())?);
        Ok(Self { model: model.clone(), top_k, input, schema })
    }

    fn key(&self) -> (String, &Expr, &LogicalPlan) {
        (self.model.to_string(), &self.top_k, &self.input)
    }
}

/// The model's columns among a query's.
fn columns(model: &LoadedModel, schema: &SchemaRef) -> Result<TrainingColumns> {
    let manifest = &model.manifest;
    let mut options = TrainingOptions::from_given(manifest.options.clone())?;
    recommender(model)?;
    options.user_col = Some(manifest.user_col.clone());
    options.item_col = Some(manifest.item_col.clone());
    let given = manifest.rating_col.as_ref().filter(|name| schema.field_with_name(name).is_ok());
    options.rating_col = match options.learner.is_explicit() {
        false => given.cloned(),
        true => manifest.rating_col.clone(),
    };
    options.split = SplitOptions::nothing();
    if let Learner::Popularity(popularity) = &mut options.learner {
        *popularity = PopularityOptions::default();
    }
    TrainingColumns::find(schema, &options)
}

compared_by_key!(EvaluateNode);

impl UserDefinedLogicalNodeCore for EvaluateNode {
    fn name(&self) -> &str {
        "Evaluate"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.top_k.clone()]
    }

    // The node reads its columns by position, so none may be pruned below it.
    fn necessary_children_exprs(&self, _output: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Evaluate: model={}, top_k={}", self.model, self.top_k)
    }

    fn with_exprs_and_inputs(
        &self,
        mut expressions: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        let (Some(top_k), Some(input)) = (expressions.pop(), inputs.pop()) else {
            return Err(DataFusionError::Internal("ML.EVALUATE has one input".into()));
        };
        let model = self.model.clone();
        Ok(Self { model, top_k, input, schema: Arc::clone(&self.schema) })
    }
}

/// The operator.
#[derive(Debug)]
pub struct EvaluateExec {
    model: LoadedModel,
    top_k: usize,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl EvaluateExec {
    /// The operator of a node.
    ///
    /// # Errors
    /// When top_k has no usable value.
    pub fn new(node: &EvaluateNode, input: &Arc<dyn ExecutionPlan>) -> Result<Self> {
        let top_k = whole_number("top_k", &node.top_k, 1..=1_000)?;
        Ok(Self::build(&node.model, top_k, input))
    }

    fn build(model: &LoadedModel, top_k: usize, input: &Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(result_schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            model: model.clone(),
            top_k,
            input: Arc::clone(input),
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for EvaluateExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EvaluateExec: model={}, top_k={}", self.model, self.top_k)
    }
}

impl ExecutionPlan for EvaluateExec {
    fn name(&self) -> &str {
        "EvaluateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
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
        match children.as_slice() {
            [input] => Ok(Arc::new(Self::build(&self.model, self.top_k, input))),
            _ => Err(DataFusionError::Internal("ML.EVALUATE has one input".into())),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, Arc::clone(&context))?;
        let (model, top_k) = (self.model.clone(), self.top_k);
        let answer = futures::stream::once(async move {
            answer(&model, top_k, rows, &context).await.map_err(DataFusionError::from)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(result_schema(), answer)))
    }
}

async fn answer(
    model: &LoadedModel,
    top_k: usize,
    rows: SendableRecordBatchStream,
    context: &TaskContext,
) -> Result<RecordBatch> {
    let columns = columns(model, &rows.schema())?;
    let memory = MemoryConsumer::new("ML.EVALUATE").register(context.memory_pool());
    let duplicates = duplicates(is_explicit(&model.model));
    let recommender = recommender(model)?;
    let test = read_known(rows, &columns, recommender, duplicates, &memory).await?;
    if test.cells() == 0 {
        return Err(Error::Model {
            what: format!("none of the rows has a user and an item that {model} knows"),
            hint: Some("evaluate on rows of users and items that were trained on".into()),
        });
    }
    let held = Arc::clone(&model.model);
    let metrics = crate::model::learn(move || evaluate(&held, &test, top_k)).await?;
    result(&metrics.iter().map(Metric::stored).collect::<Vec<_>>())
}
