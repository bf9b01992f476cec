//! ML.RECOMMEND: the plan node over a column of users, and its operator.
//!
//! The operator answers batch by batch: a batch of users is one tiled product on the learners'
//! threads (a single user is computed in place), with seen items left out while the product runs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float32Array, Int32Array, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::models::LoadedModel;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore, lit};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};
use udfs::model::{Choice, RecommendRequest};

use crate::error::{Error, Result};
use crate::model::node::compared_by_key;
use crate::model::options::model_error;
use crate::model::table_functions::{known_options, literal, shown, whole_number};

/// Lists longer than this are refused; a whole catalog is better read from ML.WEIGHTS.
const TOP_K_MAX: i64 = 10_000;
/// Rows that one output batch holds at most, whatever top_k is.
const ROWS_PER_BATCH: usize = 8_192;

/// The options of a recommendation; parameters may stand in for the values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Hash)]
pub struct RecommendOptions {
    /// Items a user.
    pub top_k: Expr,
    /// Whether items that the user has had are left out.
    pub exclude_seen: Expr,
    /// Only these items: a list, or NULL for all.
    pub include_items: Expr,
    /// Never these items: a list, or NULL for none.
    pub exclude_items: Expr,
    /// Scores below this are left out; NULL for none.
    pub min_score: Expr,
}

impl RecommendOptions {
    /// Takes the options out of the named arguments.
    ///
    /// # Errors
    /// When an option is unknown or not supported.
    pub fn read(named: &mut BTreeMap<String, Expr>) -> Result<Self> {
        for later in ["item_filter", "max_per", "diversity"] {
            if named.contains_key(later) {
                return Err(Error::unsupported(
                    format!("option {later} is not supported yet"),
                    "filter the answer with WHERE, or use include_items",
                ));
            }
        }
        let null = || lit(ScalarValue::Null);
        let mut take = |name: &str, default: Expr| named.remove(name).unwrap_or(default);
        let options = Self {
            top_k: take("top_k", lit(10_i64)),
            exclude_seen: take("exclude_seen", lit(true)),
            include_items: take("include_items", null()),
            exclude_items: take("exclude_items", null()),
            min_score: take("min_score", null()),
        };
        known_options(
            named,
            &["top_k", "exclude_seen", "include_items", "exclude_items", "min_score"],
        )?;
        // What is a literal already is checked now, so that a wrong one fails while planning.
        if matches!(options.top_k, Expr::Literal(..)) {
            whole_number("top_k", &options.top_k, 1..=TOP_K_MAX)?;
        }
        Ok(options)
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![
            self.top_k.clone(),
            self.exclude_seen.clone(),
            self.include_items.clone(),
            self.exclude_items.clone(),
            self.min_score.clone(),
        ]
    }

    fn from_expressions(expressions: Vec<Expr>) -> DataFusionResult<Self> {
        let [top_k, exclude_seen, include_items, exclude_items, min_score]: [Expr; 5] = expressions
            .try_into()
            .map_err(|_| DataFusionError::Internal("ML.RECOMMEND has five options".into()))?;
        Ok(Self { top_k, exclude_seen, include_items, exclude_items, min_score })
    }

    fn bind(&self, model: &LoadedModel) -> Result<BoundOptions> {
        let Some(ScalarValue::Boolean(Some(exclude_seen))) = literal(&self.exclude_seen) else {
            return Err(Error::invalid_hint(
                format!("exclude_seen is {}", shown(&self.exclude_seen)),
                "it takes TRUE or FALSE",
            ));
        };
        let wrong =
            || Error::invalid(format!("min_score is {}, no number", shown(&self.min_score)));
        let min_score = match literal(&self.min_score) {
            Some(value) if value.is_null() => None,
            Some(value) => match value.cast_to(&DataType::Float32) {
                Ok(ScalarValue::Float32(Some(score))) if !score.is_nan() => Some(score),
                _ => return Err(wrong()),
            },
            None => return Err(wrong()),
        };
        Ok(BoundOptions {
            top_k: whole_number("top_k", &self.top_k, 1..=TOP_K_MAX)?,
            exclude_seen: *exclude_seen,
            include: items("include_items", &self.include_items, model)?,
            exclude: items("exclude_items", &self.exclude_items, model)?,
            min_score,
        })
    }
}

/// The codes of a list of items; items that the model does not know are left out.
fn items(name: &str, value: &Expr, model: &LoadedModel) -> Result<Option<Arc<[u32]>>> {
    let wrong = || {
        Error::invalid_hint(
            format!("{name} is {}", shown(value)),
            "it takes a list of items: ['a', 'b']",
        )
    };
    let Some(value) = literal(value) else { return Err(wrong()) };
    if value.is_null() {
        return Ok(None);
    }
    let ScalarValue::List(list) = value else { return Err(wrong()) };
    let codes = model.model.item_ids().lookup(&list.value(0)).map_err(model_error)?;
    Ok(Some(codes.into_iter().flatten().collect()))
}

/// The options once every parameter has a value.
#[derive(Debug, Clone)]
struct BoundOptions {
    top_k: usize,
    exclude_seen: bool,
    include: Option<Arc<[u32]>>,
    exclude: Option<Arc<[u32]>>,
    min_score: Option<f32>,
}

/// Recommendations for the users of `input`, one column.
#[derive(Debug, Clone)]
pub struct RecommendNode {
    model: LoadedModel,
    options: RecommendOptions,
    input: LogicalPlan,
    schema: DFSchemaRef,
}

impl RecommendNode {
    /// A node over a plan of one column of users.
    ///
    /// # Errors
    /// When the model's column names clash.
    pub fn new(model: &LoadedModel, options: RecommendOptions, input: LogicalPlan) -> Result<Self> {
        let schema = output_schema(model, input.schema().field(0).data_type());
        let schema = Arc::new(DFSchema::try_from(schema.as_ref().clone())?);
        Ok(Self { model: model.clone(), options, input, schema })
    }

    fn key(&self) -> (String, &RecommendOptions, &LogicalPlan) {
        (self.model.to_string(), &self.options, &self.input)
    }
}

/// user, item, score, rank, source; the users keep the query's type, a parameter takes the
/// model's.
fn output_schema(model: &LoadedModel, user_type: &DataType) -> SchemaRef {
    let user_type = match user_type {
        DataType::Null => model.model.user_ids().data_type(),
        other => other,
    };
    let item_type = model.model.item_ids().data_type().clone();
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
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.options.expressions()
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Recommend: model={}, top_k={}", self.model, self.options.top_k)
    }

    fn with_exprs_and_inputs(
        &self,
        expressions: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        let Some(input) = inputs.pop() else {
            return Err(DataFusionError::Internal("ML.RECOMMEND has one input".into()));
        };
        let options = RecommendOptions::from_expressions(expressions)?;
        let model = self.model.clone();
        let schema = Arc::clone(&self.schema);
        Ok(Self { model, options, input, schema })
    }
}

/// The operator.
#[derive(Debug)]
pub struct RecommendExec {
    model: LoadedModel,
    options: BoundOptions,
    input: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl RecommendExec {
    /// The operator of a node.
    ///
    /// # Errors
    /// When an option has no usable value.
    pub fn new(node: &RecommendNode, input: &Arc<dyn ExecutionPlan>) -> Result<Self> {
        let options = node.options.bind(&node.model)?;
        let schema = Arc::new(node.schema.as_arrow().clone());
        Ok(Self::build(&node.model, options, input, schema))
    }

    fn build(
        model: &LoadedModel,
        options: BoundOptions,
        input: &Arc<dyn ExecutionPlan>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self {
            model: model.clone(),
            options,
            input: Arc::clone(input),
            schema,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for RecommendExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RecommendExec: model={}, top_k={}", self.model, self.options.top_k)
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
        vec![&self.input]
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
        let [input] = children.as_slice() else {
            return Err(DataFusionError::Internal("ML.RECOMMEND has one input".into()));
        };
        let options = self.options.clone();
        let schema = Arc::clone(&self.schema);
        Ok(Arc::new(Self::build(&self.model, options, input, schema)))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let job = Arc::new(Job {
            model: self.model.clone(),
            options: self.options.clone(),
            schema: Arc::clone(&self.schema),
        });
        let per_batch = (ROWS_PER_BATCH / self.options.top_k).max(1);
        let rows = input
            .map_ok(move |batch| futures::stream::iter(slices(&batch, per_batch)).map(Ok))
            .try_flatten()
            .and_then(move |users| {
                let job = Arc::clone(&job);
                async move { job.run(users).await.map_err(DataFusionError::from) }
            });
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

struct Job {
    model: LoadedModel,
    options: BoundOptions,
    schema: SchemaRef,
}

impl Job {
    async fn run(self: Arc<Self>, users: ArrayRef) -> Result<RecordBatch> {
        if users.len() <= 1 {
            return self.answer(&users);
        }
        crate::model::learn(move || self.answer(&users)).await?
    }

    fn answer(&self, users: &ArrayRef) -> Result<RecordBatch> {
        let model = &self.model.model;
        let codes = model.user_ids().lookup(users).map_err(model_error)?;
        let request = RecommendRequest {
            top_k: self.options.top_k,
            exclude_seen: self.options.exclude_seen,
            include: self.options.include.as_deref(),
            exclude: self.options.exclude.as_deref(),
        };
        let choices: Vec<Choice> = model.recommend(&codes, &request);
        let mut rows = Vec::new();
        let mut items = Vec::new();
        let mut scores = Vec::new();
        let mut ranks = Vec::new();
        let mut sources = Vec::new();
        for (row, choice) in choices.iter().enumerate() {
            if users.is_null(row) {
                continue;
            }
            let source = choice.source.name();
            let kept =
                choice.items.iter().zip(&choice.scores).filter(|(_, score)| {
                    self.options.min_score.is_none_or(|least| **score >= least)
                });
            for ((item, score), rank) in kept.zip(1..) {
                rows.push(u32::try_from(row).unwrap_or(u32::MAX));
                items.push(*item);
                scores.push(*score);
                ranks.push(rank);
                sources.push(source);
            }
        }
        let users = take(users, &UInt32Array::from(rows), None)?;
        let users = arrow::compute::cast(&users, self.schema.field(0).data_type())?;
        let columns: Vec<ArrayRef> = vec![
            users,
            take(model.item_ids().values().as_ref(), &UInt32Array::from(items), None)?,
            Arc::new(Float32Array::from(scores)),
            Arc::new(Int32Array::from(ranks)),
            Arc::new(StringArray::from(sources)),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
