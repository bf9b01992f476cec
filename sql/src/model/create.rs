//! CREATE MODEL and RETRAIN: a plan node fed by the training query, and its operator.
//!
//! The operator reads its input, trains, and publishes a version: a version number is claimed
//! first, the files are written, the manifest is last, and a model that was dropped meanwhile
//! stays dropped.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::models::Publication;
use catalog::{CreateMode, Kind, ObjectName, Spec};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, Partitioning, PlanProperties,
};
use futures::StreamExt;

use crate::error::{Error, Result};
use crate::model::fit::fit;
use crate::model::node::compared_by_key;
use crate::model::options::TrainingOptions;
use crate::model::train::{TrainingColumns, read};
use crate::parse::{CreateModel, parse_query};
use crate::session::run::{Done, Run};
use crate::session::{Progress, Session, StatementContext};
use crate::table;

/// What is to be trained.
#[derive(Debug)]
pub struct Training {
    name: ObjectName,
    mode: CreateMode,
    options: TrainingOptions,
    query: String,
    columns: TrainingColumns,
    session: Session,
}

/// Plans CREATE MODEL.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    create: &CreateModel,
) -> Result<(SessionState, LogicalPlan)> {
    let options = TrainingOptions::read(&create.options)?;
    let parts: Vec<String> = create.name.split('.').map(str::to_owned).collect();
    let name = context.target(&parts)?;
    context.rights().may_create(&name)?;
    let mode = table::mode(create.replace, create.if_not_exists)?;
    check_free(context, &name, mode).await?;
    let (state, input) = context.plan_query(create.query.clone()).await?;
    node(context, state, input, name, mode, options, create.query.to_string()).await
}

/// Plans RETRAIN MODEL: the stored query and options, as the next version.
pub(crate) async fn plan_retrain(
    context: &Arc<StatementContext>,
    written: &str,
) -> Result<(SessionState, LogicalPlan)> {
    let name = crate::model::existing(context, written).await?;
    context.may_change(&name).await?;
    let definition = context.engine().catalog().definition(&name).await?;
    let Some(Spec::Model(head)) = definition.map(|definition| definition.spec) else {
        return Err(catalog::Error::not_found("model", &name.to_string(), []).into());
    };
    let options = TrainingOptions::from_given(head.options)?;
    let (state, input) = context.plan_query(parse_query(&head.query)?).await?;
    node(context, state, input, name, CreateMode::Replace, options, head.query).await
}

/// Plans EXPLAIN CREATE MODEL.
pub(crate) async fn plan_explain(
    context: &Arc<StatementContext>,
    create: &CreateModel,
) -> Result<(SessionState, LogicalPlan)> {
    let (state, plan) = plan(context, create).await?;
    Ok((state, LogicalPlanBuilder::from(plan).explain(false, false)?.build()?))
}

async fn check_free(
    context: &Arc<StatementContext>,
    name: &ObjectName,
    mode: CreateMode,
) -> Result<()> {
    match context.engine().catalog().kind(name).await? {
        None => Ok(()),
        Some(Kind::Model) if mode != CreateMode::New => Ok(()),
        Some(kind) => {
            Err(catalog::Error::AlreadyExists { kind: kind.name(), name: name.to_string() }.into())
        }
    }
}

async fn node(
    context: &Arc<StatementContext>,
    state: SessionState,
    input: LogicalPlan,
    name: ObjectName,
    mode: CreateMode,
    options: TrainingOptions,
    query: String,
) -> Result<(SessionState, LogicalPlan)> {
    let schema: SchemaRef = Arc::new(input.schema().as_arrow().clone());
    let columns = TrainingColumns::find(&schema, &options)?;
    if let Some(table) = &options.item_table {
        crate::model::items::check(context, table, &columns.item.1).await?;
    }
    let session = context.session().clone();
    let training = Arc::new(Training { name, mode, options, query, columns, session });
    let schema = Arc::new(DFSchema::try_from(result_schema().as_ref().clone())?);
    let node = Arc::new(CreateModelNode { training, input, schema });
    Ok((state, LogicalPlan::Extension(Extension { node })))
}

/// Runs the plan and tells what was made.
pub(crate) async fn run(run: &Run, plan: &LogicalPlan) -> Result<Done> {
    let LogicalPlan::Extension(extension) = plan else {
        return Err(Error::Internal("CREATE MODEL was planned as something else".into()));
    };
    if let Some(node) = extension.node.as_any().downcast_ref::<CreateModelNode>()
        && node.training.mode == CreateMode::IfNotExists
        && run.session.engine().catalog().kind(&node.training.name).await?.is_some()
    {
        let message = format!("{} exists already, nothing was changed", node.training.name);
        return Ok(Done::new(0, message));
    }
    let mut rows = run.start(plan).await?;
    let mut message = String::new();
    while let Some(batch) = rows.next().await {
        use arrow::array::AsArray;
        let batch = batch?;
        if batch.num_rows() > 0 {
            message = batch.column(5).as_string::<i32>().value(0).to_owned();
        }
    }
    Ok(Done::new(1, message))
}

/// The plan node: its input is the training query.
#[derive(Debug, Clone)]
pub struct CreateModelNode {
    training: Arc<Training>,
    input: LogicalPlan,
    schema: DFSchemaRef,
}

fn result_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("model", DataType::Utf8, false),
        Field::new("version", DataType::UInt32, false),
        Field::new("users", DataType::Int64, false),
        Field::new("items", DataType::Int64, false),
        Field::new("interactions", DataType::Int64, false),
        Field::new("message", DataType::Utf8, false),
    ]))
}

impl CreateModelNode {
    fn key(&self) -> (&ObjectName, &LogicalPlan) {
        (&self.training.name, &self.input)
    }
}

compared_by_key!(CreateModelNode);

impl UserDefinedLogicalNodeCore for CreateModelNode {
    fn name(&self) -> &str {
        "CreateModel"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    // The node reads its columns by position, so none may be pruned below it.
    fn necessary_children_exprs(&self, _output: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CreateModel: {}", self.training)
    }

    fn with_exprs_and_inputs(
        &self,
        _expressions: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        let Some(input) = inputs.pop() else {
            return Err(DataFusionError::Internal("CREATE MODEL has one input".into()));
        };
        let (training, schema) = (Arc::clone(&self.training), Arc::clone(&self.schema));
        Ok(Self { training, input, schema })
    }
}

impl fmt::Display for Training {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, item) = (&self.columns.user.1, &self.columns.item.1);
        let learner = &self.options.learner;
        write!(formatter, "{}, {learner}, columns={user}, {item}", self.name)?;
        match &self.columns.rating {
            Some((_, rating)) => write!(formatter, ", {rating}"),
            None => Ok(()),
        }
    }
}

/// The operator.
#[derive(Debug)]
pub struct CreateModelExec {
    training: Arc<Training>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl CreateModelExec {
    /// The operator of a node.
    pub fn new(node: &CreateModelNode, input: &Arc<dyn ExecutionPlan>) -> Self {
        Self::build(&node.training, input)
    }

    fn build(training: &Arc<Training>, input: &Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(result_schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            training: Arc::clone(training),
            input: Arc::clone(input),
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for CreateModelExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CreateModelExec: {}", self.training)
    }
}

impl ExecutionPlan for CreateModelExec {
    fn name(&self) -> &str {
        "CreateModelExec"
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
            [input] => Ok(Arc::new(Self::build(&self.training, input))),
            _ => Err(DataFusionError::Internal("CREATE MODEL has one input".into())),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, Arc::clone(&context))?;
        let training = Arc::clone(&self.training);
        let result = futures::stream::once(async move {
            training.run(rows, &context).await.map_err(DataFusionError::from)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(result_schema(), result)))
    }
}

impl Training {
    async fn run(
        &self,
        rows: SendableRecordBatchStream,
        context: &TaskContext,
    ) -> Result<RecordBatch> {
        let engine = self.session.engine();
        let catalog = engine.catalog();
        let owner = self.session.principal().name.as_str();
        let progress = Run::reporter(context, &self.session);
        let claim = catalog.claim_version(&self.name, owner, self.mode).await?;
        let consumer = MemoryConsumer::new(format!("CREATE MODEL {}", self.name));
        let memory = consumer.register(context.memory_pool());
        let interactions = read(rows, &self.columns, &memory, &progress).await?;
        let options = self.options.clone();
        let trained = fit(engine, interactions, options, &memory, progress.clone()).await?;
        progress.report(Progress { phase: "publishing".into(), ..Progress::default() });
        let metrics = trained.metrics.iter().map(|metric| metric.stored()).collect();
        let iterations = trained.iterations.iter().map(|now| now.stored()).collect();
        let publication = Publication {
            model_type: self.options.learner.model_type().into(),
            options: self.options.given.clone(),
            query: self.query.clone(),
            user_col: self.columns.user.1.clone(),
            item_col: self.columns.item.1.clone(),
            rating_col: self.columns.rating.as_ref().map(|(_, name)| name.clone()),
            metrics,
            iterations,
            segments: trained.segments,
            top_k: self.options.top_k,
        };
        let model = trained.model;
        let known =
            model.recommender().map(|found| (found.user_ids().len(), found.item_ids().len()));
        let (users, items) = known.unwrap_or_default();
        let version = catalog.publish(claim, Arc::new(model), publication).await?;
        let mut message = format!(
            "CREATE MODEL {}@{version}: {users} users, {items} items, {} interactions",
            self.name, trained.interactions
        );
        if trained.merged > 0 {
            let how = if self.options.learner.is_explicit() { "averaged" } else { "summed" };
            message.push_str(&format!(" ({} rows of the same pair were {how})", trained.merged));
        }
        result(&self.name, version, [users, items, trained.interactions], message)
    }
}

fn result(
    name: &ObjectName,
    version: u32,
    counts: [usize; 3],
    message: String,
) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![name.to_string()])),
        Arc::new(UInt32Array::from(vec![version])),
    ];
    columns.extend(counts.map(|count| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        Arc::new(Int64Array::from(vec![count])) as ArrayRef
    }));
    columns.push(Arc::new(StringArray::from(vec![message])));
    Ok(RecordBatch::try_new(result_schema(), columns)?)
}
