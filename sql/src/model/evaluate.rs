//! ML.EVALUATE: the metrics of [`udfs::model::evaluation`] on a query's rows, or as training stored
//! them.
//!
//! Each metric stands with its interval beside the same metric of recommending what is popular and
//! of the version before. On a query's rows both versions are measured on those rows whose user
//! and item they know; without rows each has what its own training measured on the rows that it
//! kept aside.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use catalog::models::LoadedModel;
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
use udfs::model::Evaluation;

use crate::error::{Error, Result};
use crate::model::arguments::{literal, shown, whole_number};
use crate::model::entities::evaluate::TruthColumns;
use crate::model::fit::CancelOnDrop;
use crate::model::learners::{Learner, PopularityOptions};
use crate::model::measure::{self, Judged, Previous, read_known};
use crate::model::node::compared_by_key;
use crate::model::options::TrainingOptions;
use crate::model::splitting::SplitOptions;
use crate::model::train::{TrainingColumns, find};
use crate::model::{entities, features, recommender};

/// The metrics that training measured on the rows it kept aside.
///
/// # Errors
/// When training kept no rows aside.
pub fn stored_evaluation(
    model: &LoadedModel,
    previous: Option<&Previous>,
) -> Result<Arc<dyn TableProvider>> {
    if has_columns(model) && !model.manifest.metrics.is_empty() {
        let batch = features::evaluate::stored(model)?;
        return Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?));
    }
    if model.manifest.metrics.is_empty() {
        let options = TrainingOptions::from_given(model.manifest.options.clone())?;
        let (why, hint) = options.split.why_none_measured();
        return Err(Error::invalid_hint(
            format!("{model} has no evaluation: it was trained {why}"),
            format!("give rows: ML.EVALUATE(MODEL m, (SELECT …)), or {hint}"),
        ));
    }
    let before = previous.map_or(&[][..], |previous| &previous.metrics);
    let batch = measure::batch(&measure::stored(&model.manifest.metrics, before), false)?;
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
}

/// Whether a model's evaluation has a column a metric.
fn has_columns(model: &LoadedModel) -> bool {
    model.model.preparation().is_some() || model.model.entities().is_some()
}

/// What is measured, and how.
#[derive(Debug, Clone)]
struct Asked {
    model: LoadedModel,
    previous: Option<LoadedModel>,
    segment_col: Option<String>,
    /// From which probability records are one entity; that of training unless it is given.
    threshold: Option<f64>,
}

/// What plans compare of it.
type AskedKey<'a> = (String, Option<String>, Option<&'a str>, Option<u64>);

impl Asked {
    /// As plans compare it.
    fn key(&self) -> AskedKey<'_> {
        let previous = self.previous.as_ref().map(LoadedModel::to_string);
        let threshold = self.threshold.map(f64::to_bits);
        (self.model.to_string(), previous, self.segment_col.as_deref(), threshold)
    }

    fn schema(&self) -> SchemaRef {
        if has_columns(&self.model) {
            return features::evaluate::schema(&self.model);
        }
        measure::schema(self.segment_col.is_some())
    }

    /// Refuses a query without the model's columns.
    fn check(&self, schema: &SchemaRef) -> Result<()> {
        if self.model.model.entities().is_some() {
            return TruthColumns::find(&self.model, schema).map(|_| ());
        }
        match self.model.model.preparation() {
            Some(_) => features::columns::Positions::to_measure(&self.model, schema).map(|_| ()),
            None => self.columns(schema).map(|_| ()),
        }
    }

    /// The model's columns among a query's.
    fn columns(&self, schema: &SchemaRef) -> Result<TrainingColumns> {
        let mut columns = columns(&self.model, schema)?;
        if let Some(name) = &self.segment_col {
            columns.segment = Some(find(schema, "segment_col", Some(name), &[])?);
        }
        Ok(columns)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "model={}", self.model)?;
        if let Some(previous) = &self.previous {
            write!(formatter, ", previous={previous}")?;
        }
        if let Some(threshold) = self.threshold {
            write!(formatter, ", threshold={threshold}")?;
        }
        match &self.segment_col {
            Some(name) => write!(formatter, ", segment_col={name}"),
            None => Ok(()),
        }
    }
}

/// The options of an evaluation on a query's rows.
#[derive(Debug, Default)]
pub struct EvaluateOptions {
    /// The length of the lists; none: as in training.
    pub top_k: Option<Expr>,
    /// The column with a row's segment.
    pub segment_col: Option<Expr>,
    /// From which probability records are one entity; none: as in training.
    pub threshold: Option<f64>,
}

/// The plan node of an evaluation on a query's rows.
#[derive(Debug, Clone)]
pub struct EvaluateNode {
    asked: Asked,
    top_k: Expr,
    input: LogicalPlan,
    schema: DFSchemaRef,
}

impl EvaluateNode {
    /// A node over rows with the model's columns.
    ///
    /// # Errors
    /// When a column is missing.
    pub fn new(
        model: &LoadedModel,
        previous: Option<&Previous>,
        options: EvaluateOptions,
        input: LogicalPlan,
    ) -> Result<Self> {
        let usual = || lit(ScalarValue::from(model.manifest.top_k as u64));
        let top_k = options.top_k.unwrap_or_else(usual);
        // The columns of the answer depend on it, so it must be known while planning.
        let segment_col = match options.segment_col {
            None => None,
            Some(value) => match literal(&value) {
                Some(ScalarValue::Utf8(Some(name))) => Some(name.clone()),
                _ => {
                    return Err(Error::invalid_hint(
                        format!("segment_col is {}", shown(&value)),
                        "it takes the name of a column of the query in quotes: 'country'",
                    ));
                }
            },
        };
        let previous = previous.and_then(|previous| previous.model.clone());
        let threshold = options.threshold;
        let asked = Asked { model: model.clone(), previous, segment_col, threshold };
        asked.check(&Arc::new(input.schema().as_arrow().clone()))?;
        let schema = Arc::new(DFSchema::try_from(asked.schema().as_ref().clone())?);
        Ok(Self { asked, top_k, input, schema })
    }

    fn key(&self) -> (AskedKey<'_>, &Expr, &LogicalPlan) {
        (self.asked.key(), &self.top_k, &self.input)
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
        write!(formatter, "Evaluate: {}, top_k={}", self.asked, self.top_k)
    }

    fn with_exprs_and_inputs(
        &self,
        mut expressions: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        let (Some(top_k), Some(input)) = (expressions.pop(), inputs.pop()) else {
            return Err(DataFusionError::Internal("ML.EVALUATE has one input".into()));
        };
        let asked = self.asked.clone();
        Ok(Self { asked, top_k, input, schema: Arc::clone(&self.schema) })
    }
}

/// The operator.
#[derive(Debug)]
pub struct EvaluateExec {
    asked: Asked,
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
        Ok(Self::build(&node.asked, top_k, input))
    }

    fn build(asked: &Asked, top_k: usize, input: &Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(asked.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            asked: asked.clone(),
            top_k,
            input: Arc::clone(input),
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for EvaluateExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EvaluateExec: {}, top_k={}", self.asked, self.top_k)
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
            [input] => Ok(Arc::new(Self::build(&self.asked, self.top_k, input))),
            _ => Err(DataFusionError::Internal("ML.EVALUATE has one input".into())),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, Arc::clone(&context))?;
        let (asked, top_k) = (self.asked.clone(), self.top_k);
        let schema = asked.schema();
        let answer = futures::stream::once(async move {
            answer(&asked, top_k, rows, &context).await.map_err(DataFusionError::from)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, answer)))
    }
}

async fn answer(
    asked: &Asked,
    top_k: usize,
    rows: SendableRecordBatchStream,
    context: &TaskContext,
) -> Result<RecordBatch> {
    let model = &asked.model;
    let memory = MemoryConsumer::new("ML.EVALUATE").register(context.memory_pool());
    if model.model.entities().is_some() {
        let disk = Arc::clone(&context.runtime_env().disk_manager);
        return entities::evaluate::on_rows(model, asked.threshold, rows, &memory, &disk).await;
    }
    if model.model.preparation().is_some() {
        return features::evaluate::on_rows(model, rows, &memory).await;
    }
    let columns = asked.columns(&rows.schema())?;
    // A version that recommends nothing has nothing to compare.
    let previous = asked.previous.as_ref().map(|previous| Arc::clone(&previous.model));
    let previous = previous.filter(|previous| previous.recommender().is_some());
    let models: Vec<_> = std::iter::once(&model.model).chain(&previous).map(Arc::as_ref).collect();
    let mut known = read_known(rows, &columns, &models, &memory).await?.into_iter();
    let Some(test) = known.next().filter(|known| known.cells.cells() > 0) else {
        return Err(Error::Model {
            what: format!("none of the rows has a user and an item that {model} knows"),
            hint: Some("evaluate on rows of users and items that were trained on".into()),
        });
    };
    let users = test.cells.rows().min(test.cells.cells());
    let all = recommender(model)?;
    let size = [all.user_ids().len(), all.item_ids().len(), all.seen().cells()];
    memory.try_grow(Evaluation::memory_bytes(size, users, top_k))?;
    let cancel = CancelOnDrop::default();
    let flag = Arc::clone(&cancel.0);
    let held = Arc::clone(&model.model);
    let before = previous.zip(known.next());
    let with_segment = asked.segment_col.is_some();
    let lines = crate::model::learn(move || {
        let now = Judged::new(&held, test, top_k, &flag)?;
        let before = match before {
            Some((model, known)) => Some(Judged::new(&model, known, top_k, &flag)?),
            None => None,
        };
        now.lines(before.as_ref(), &flag)
    });
    measure::batch(&lines.await??, with_segment)
}
