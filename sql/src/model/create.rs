//! CREATE MODEL and RETRAIN: a plan node fed by the training query, and its operator.
//!
//! The operator reads its input, trains, and publishes a version: a version number is claimed
//! first, the files are written, the manifest is last, and a model that was dropped meanwhile
//! stays dropped.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use catalog::models::{Manifest, Publication, Standing, StoredStart, StoredTuning};
use catalog::{CreateMode, ErasuresSeen, Kind, ObjectName, Spec};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
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
use sqlparser::ast::{Expr as SqlExpr, Query};

use crate::consent::models::{PersonColumn, remember, training_context};
use crate::error::{Error, Result};
use crate::model::created::{began, best_trial, result, result_schema, search_stays, whole};
use crate::model::entities::fit::Versions;
use crate::model::entities::{self, EntityColumns};
use crate::model::features::{self, FeatureColumns};
use crate::model::fit::{Iteration, Trained, fit};
use crate::model::learners::Learner;
use crate::model::leavers::Next;
use crate::model::lifecycle::{Previous, Retrain, nothing_to_fold_into, standing};
use crate::model::measure::Metric;
use crate::model::node::compared_by_key;
use crate::model::options::TrainingOptions;
use crate::model::side::{self, Beside};
use crate::model::train::{TrainingColumns, read};
use crate::model::versions;
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
    columns: Columns,
    retrained: Option<Retrained>,
    session: Session,
    next: Next,
}

/// The training query's columns.
#[derive(Debug)]
enum Columns {
    /// Of interactions of users and items.
    Interactions(TrainingColumns),
    /// Of rows of features.
    Features(FeatureColumns),
    /// Of records.
    Entities(EntityColumns),
}

impl Columns {
    /// The place of the users, records or classes, where there are any.
    fn persons(&self) -> Option<PersonColumn> {
        match self {
            Self::Interactions(columns) => Some(PersonColumn::Users(columns.user.0)),
            Self::Features(columns) => {
                let label = columns.label.as_ref().filter(|_| columns.classes.is_some());
                label.map(|(label, _)| PersonColumn::Classes(*label))
            }
            Self::Entities(columns) => Some(PersonColumn::Records(columns.id.0)),
        }
    }
}

/// What RETRAIN adds to a training.
#[derive(Debug)]
struct Retrained {
    /// The search that has chosen the options, unless they are searched anew.
    tuning: Option<StoredTuning>,
    /// Whether the statement says how many iterations there are to be.
    are_iterations_given: bool,
    /// Whether only what is new is folded in.
    is_fold_in: bool,
}

/// Plans CREATE MODEL.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    create: &CreateModel,
) -> Result<(SessionState, LogicalPlan)> {
    let mut options = TrainingOptions::read(&create.options)?;
    let context = &training_context(context, &options)?;
    let parts: Vec<String> = create.name.split('.').map(str::to_owned).collect();
    let name = context.target(&parts)?;
    context.rights().may_create(&name)?;
    let mode = table::mode(create.replace, create.if_not_exists)?;
    check_free(context, &name, mode).await?;
    let query = create.query.to_string();
    let ((state, input), columns, sides) = inputs(context, &create.query, &options).await?;
    let session = context.session().clone();
    let next = Next::of(context, &input, columns.persons()).await?;
    remember(&mut options, &next.trained_for);
    let retrained = None;
    let training = Training { name, mode, options, query, columns, retrained, session, next };
    node(state, input, sides, training)
}

/// Plans RETRAIN MODEL: the stored query and options, as the next version. Options that a search
/// has chosen are taken again, unless they are to be searched anew.
pub(crate) async fn plan_retrain(
    context: &Arc<StatementContext>,
    written: &str,
    options: &[(String, SqlExpr)],
) -> Result<(SessionState, LogicalPlan)> {
    let retrain = Retrain::read(options)?;
    let name = crate::model::existing(context, written).await?;
    context.may_change(&name).await?;
    let catalog = context.engine().catalog();
    let definition = catalog.definition(&name).await?;
    let Some(Spec::Model(head)) = definition.map(|definition| definition.spec) else {
        return Err(catalog::Error::not_found("model", &name.to_string(), []).into());
    };
    let mut given = head.options.clone();
    given.extend(retrain.instead.clone());
    let mut options = TrainingOptions::from_given(given)?;
    // What is said of this training is not said of the next one.
    options.given = head.options;
    if retrain.tune && options.tuning.is_none() {
        return Err(Error::invalid_hint(
            format!("model {name} has no search to do anew"),
            "CREATE OR REPLACE MODEL with num_trials, or RETRAIN without tune",
        ));
    }
    let mut tuning = None;
    if options.tuning.is_some() && !retrain.tune {
        // A version that cannot be read has chosen nothing: then the search is done again.
        let manifest = catalog.model_manifest(&name, None).await.ok();
        tuning = manifest.and_then(|(_, manifest)| manifest.tuning.clone());
        if let Some(tuning) = &tuning {
            let mut chosen = tuning.chosen.clone();
            chosen.retain(|name, _| !retrain.instead.contains_key(name));
            options.settle(&chosen)?;
        }
    }
    if retrain.fold_in {
        options.fold_in()?;
    }
    let context = &training_context(context, &options)?;
    let stored = parse_query(&head.query)?;
    let ((state, input), columns, sides) = inputs(context, &stored, &options).await?;
    let next = Next::of(context, &input, columns.persons()).await?;
    remember(&mut options, &next.trained_for);
    let are_iterations_given = retrain.fold_in || retrain.instead.contains_key("max_iterations");
    let is_fold_in = retrain.fold_in;
    let retrained = Some(Retrained { tuning, are_iterations_given, is_fold_in });
    let (query, mode, session) = (head.query, CreateMode::Replace, context.session().clone());
    let training = Training { name, mode, options, query, columns, retrained, session, next };
    node(state, input, sides, training)
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

/// The training query as it is planned, its columns, and the tables beside it.
type Inputs = ((SessionState, LogicalPlan), Columns, Vec<(Beside, LogicalPlan)>);

/// Plans what a training reads.
async fn inputs(
    context: &Arc<StatementContext>,
    query: &Query,
    options: &TrainingOptions,
) -> Result<Inputs> {
    let planned = context.plan_query(Box::new(query.clone())).await?;
    let schema: SchemaRef = Arc::new(planned.1.schema().as_arrow().clone());
    if options.learner.features().is_some() {
        return Ok((planned, Columns::Features(FeatureColumns::find(&schema, options)?), vec![]));
    }
    if let Learner::Entities(learner) = &options.learner {
        let mut found = EntityColumns::find(&schema, learner)?;
        let sides = side::plan_pairs(context, learner, found.source.is_some()).await?;
        let planned = entities::rules::plan(context, &mut found, query, planned).await?;
        return Ok((planned, Columns::Entities(found), sides));
    }
    let columns = TrainingColumns::find(&schema, options)?;
    if let Some(table) = &options.item_table {
        crate::model::items::check(context, table, &columns.item.1).await?;
    }
    let sides = side::plan(context, options, &columns).await?;
    Ok((planned, Columns::Interactions(columns), sides))
}

fn node(
    state: SessionState,
    input: LogicalPlan,
    sides: Vec<(Beside, LogicalPlan)>,
    training: Training,
) -> Result<(SessionState, LogicalPlan)> {
    let schema = Arc::new(DFSchema::try_from(result_schema().as_ref().clone())?);
    let (sides, mut plans): (Vec<Beside>, Vec<LogicalPlan>) = sides.into_iter().unzip();
    plans.insert(0, input);
    let what = What { training: Arc::new(training), sides: sides.into() };
    let node = Arc::new(CreateModelNode { what, inputs: plans, schema });
    Ok((state, LogicalPlan::Extension(Extension { node })))
}

/// Runs the plan and tells what was made.
pub(crate) async fn run(run: &Run, plan: &LogicalPlan) -> Result<Done> {
    let LogicalPlan::Extension(extension) = plan else {
        return Err(Error::Internal("CREATE MODEL was planned as something else".into()));
    };
    if let Some(node) = extension.node.as_any().downcast_ref::<CreateModelNode>()
        && node.what.training.mode == CreateMode::IfNotExists
        && run.session.engine().catalog().kind(&node.what.training.name).await?.is_some()
    {
        let message = format!("{} exists already, nothing was changed", node.what.training.name);
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

/// What is trained on what.
#[derive(Debug, Clone)]
struct What {
    training: Arc<Training>,
    /// What the inputs after the first are.
    sides: Arc<[Beside]>,
}

/// The plan node: its inputs are the training query and the tables beside it.
#[derive(Debug, Clone)]
pub struct CreateModelNode {
    what: What,
    inputs: Vec<LogicalPlan>,
    schema: DFSchemaRef,
}

impl CreateModelNode {
    fn key(&self) -> (&ObjectName, &[LogicalPlan]) {
        (&self.what.training.name, &self.inputs)
    }
}

compared_by_key!(CreateModelNode);

impl UserDefinedLogicalNodeCore for CreateModelNode {
    fn name(&self) -> &str {
        "CreateModel"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    // The node reads its columns by position, so none may be pruned below it.
    fn necessary_children_exprs(&self, _output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let all = |input: &LogicalPlan| (0..input.schema().fields().len()).collect();
        Some(self.inputs.iter().map(all).collect())
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CreateModel: {}", self.what.training)
    }

    fn with_exprs_and_inputs(
        &self,
        _expressions: Vec<Expr>,
        inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        if inputs.len() != self.inputs.len() {
            return Err(DataFusionError::Internal("CREATE MODEL lost an input".into()));
        }
        Ok(Self { what: self.what.clone(), inputs, schema: Arc::clone(&self.schema) })
    }
}

impl fmt::Display for Training {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, {}, columns=", self.name, self.options.learner)?;
        match &self.columns {
            Columns::Interactions(columns) => {
                write!(formatter, "{}, {}", columns.user.1, columns.item.1)?;
                if let Some((_, rating)) = &columns.rating {
                    write!(formatter, ", {rating}")?;
                }
            }
            Columns::Features(columns) => {
                let names: Vec<&str> =
                    columns.features.iter().map(|(_, name)| name.as_str()).collect();
                formatter.write_str(&names.join(", "))?;
            }
            Columns::Entities(columns) => {
                let names: Vec<&str> =
                    columns.compared.iter().map(|((_, name), _)| name.as_str()).collect();
                write!(formatter, "{}: {}", columns.id.1, names.join(", "))?;
            }
        }
        match &self.options.tuning {
            Some(tuning) => write!(formatter, ", num_trials={}", tuning.num_trials),
            None => Ok(()),
        }
    }
}

/// The operator.
#[derive(Debug)]
pub struct CreateModelExec {
    what: What,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    properties: Arc<PlanProperties>,
}

impl CreateModelExec {
    /// The operator of a node.
    pub fn new(node: &CreateModelNode, inputs: &[Arc<dyn ExecutionPlan>]) -> Self {
        Self::build(&node.what, inputs)
    }

    fn build(what: &What, inputs: &[Arc<dyn ExecutionPlan>]) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(result_schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { what: what.clone(), inputs: inputs.to_vec(), properties: Arc::new(properties) }
    }
}

impl DisplayAs for CreateModelExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CreateModelExec: {}", self.what.training)
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
        self.inputs.iter().collect()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition; self.inputs.len()]
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
        if children.len() != self.inputs.len() {
            return Err(DataFusionError::Internal("CREATE MODEL lost an input".into()));
        }
        Ok(Arc::new(Self::build(&self.what, &children)))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let inputs = self.inputs.iter().map(|input| input.execute(partition, Arc::clone(&context)));
        let inputs: Vec<SendableRecordBatchStream> = inputs.collect::<DataFusionResult<_>>()?;
        let What { training, sides } = self.what.clone();
        let result = futures::stream::once(async move {
            training.run(inputs, &sides, &context).await.map_err(DataFusionError::from)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(result_schema(), result)))
    }
}

impl Training {
    async fn run(
        &self,
        inputs: Vec<SendableRecordBatchStream>,
        sides: &[Beside],
        context: &TaskContext,
    ) -> Result<RecordBatch> {
        let mut inputs = inputs.into_iter();
        let Some(rows) = inputs.next() else {
            return Err(Error::Internal("CREATE MODEL has no input".into()));
        };
        let engine = self.session.engine();
        let catalog = engine.catalog();
        let owner = self.session.principal().name.as_str();
        let progress = Run::reporter(context, &self.session);
        let mut claim = catalog.claim_version(&self.name, owner, self.mode).await?;
        // An erasure that has looked for models before this version is there would miss it.
        claim.knows(context.session_config().get_extension::<ErasuresSeen>().unwrap_or_default());
        if self.retrained.is_none() {
            claim.take_over();
        }
        let consumer = MemoryConsumer::new(format!("CREATE MODEL {}", self.name));
        let memory = consumer.register(context.memory_pool());
        let (previous, why_cold) = self.previous(&memory).await;
        if let (true, None, Some(why)) = (self.is_fold_in(), &previous, &why_cold) {
            return Err(nothing_to_fold_into(why));
        }
        let live = previous.as_ref().filter(|_| self.retrained.is_some());
        let live = live.map(|previous| previous.version.version);
        let left = previous.as_ref().and_then(|previous| previous.left.clone());
        let before = previous.as_ref().map(|previous| Arc::clone(&previous.version.manifest));
        let (options, told) = (&self.options, progress.clone());
        let trained = match &self.columns {
            Columns::Interactions(columns) => {
                let mut interactions =
                    read(rows, columns, &options.split, &memory, &progress).await?;
                for (side, rows) in sides.iter().zip(inputs) {
                    side.read(rows, &memory, &mut interactions).await?;
                }
                fit(engine, interactions, options.clone(), previous, &memory, told).await?
            }
            Columns::Features(columns) => {
                features::fit::train(engine, rows, columns, options, &memory, told).await?
            }
            Columns::Entities(columns) => {
                let is_warm = self.retrained.is_some() && options.lifecycle.warm_start;
                let goes_on = is_warm && left.is_none();
                let versions = Versions { previous, version: claim.version(), goes_on };
                let said = sides.iter().zip(inputs).collect();
                let (rows, disk) = ((rows, said), Arc::clone(&context.runtime_env().disk_manager));
                let room = (&memory, &disk);
                entities::fit::train(engine, rows, columns, options, versions, room, told).await?
            }
        };
        progress.report(Progress { phase: "publishing".into(), ..Progress::default() });
        let version = claim.version();
        let name = self.name.to_string();
        let unlearns = left.is_some() && trained.start == StoredStart::Anew;
        let compared = (trained.compared.as_ref(), unlearns);
        let (standing, told) = standing(&self.options.lifecycle, compared, live, &name, version);
        let standing = Standing { is_fold_in: self.is_fold_in(), ..standing };
        let began = began(trained.began.clone().or(why_cold), left);
        let has_search = self.retrained.as_ref().is_some_and(|found| found.tuning.is_some());
        let more = [began, search_stays(unlearns && has_search), told];
        let message = whole(self.message(version, &trained), more);
        let publication = self.publication(&trained, before.as_deref());
        if let Some(pairs) = &trained.pairs {
            claim.write_pairs(pairs).await?;
        }
        let (model, interactions) = (trained.model, trained.interactions);
        let known =
            model.recommender().map(|found| (found.user_ids().len(), found.item_ids().len()));
        let (users, items) = known.unwrap_or_default();
        let version = catalog.publish(claim, Arc::new(model), publication, standing).await?;
        result(&self.name, version, [users, items, interactions], message)
    }

    fn is_fold_in(&self) -> bool {
        self.retrained.as_ref().is_some_and(|retrained| retrained.is_fold_in)
    }

    /// The version to go on from or to take ids from; or why there is none.
    async fn previous(&self, memory: &MemoryReservation) -> (Option<Previous>, Option<String>) {
        let engine = self.session.engine();
        let (catalog, model_type) = (engine.catalog(), self.options.learner.model_type());
        match (&self.retrained, &self.columns) {
            (Some(retrained), _) => {
                let how = (retrained.are_iterations_given, retrained.is_fold_in);
                versions::retrained(engine, &self.name, how, &self.next, memory).await
            }
            (None, Columns::Entities(_)) if self.mode == CreateMode::Replace => {
                versions::replaced(catalog, &self.name, model_type, memory).await
            }
            (None, _) => (None, None),
        }
    }

    fn publication(&self, trained: &Trained, before: Option<&Manifest>) -> Publication {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let name = |column: &(usize, String)| column.1.clone();
        let interactions = match &self.columns {
            Columns::Interactions(columns) => Some(columns),
            Columns::Features(_) | Columns::Entities(_) => None,
        };
        let from = self.next.learned_from(trained.start, before);
        Publication {
            model_type: self.options.learner.model_type().into(),
            options: self.options.given.clone(),
            query: self.query.clone(),
            user_col: interactions.map(|columns| name(&columns.user)).unwrap_or_default(),
            item_col: interactions.map(|columns| name(&columns.item)).unwrap_or_default(),
            rating_col: interactions.and_then(|columns| columns.rating.as_ref().map(name)),
            metrics: trained.metrics.iter().map(Metric::stored).collect(),
            iterations: trained.iterations.iter().map(Iteration::stored).collect(),
            validation_metric: trained.validation_metric.clone(),
            best_iteration: trained.best_iteration.map(count),
            total_iterations: count(trained.total_iterations),
            tuning: trained.tuning.clone().or_else(|| self.retrained.as_ref()?.tuning.clone()),
            segments: trained.segments.clone(),
            top_k: self.options.top_k,
            purpose: self.next.trained_for.purpose(),
            channel: self.next.trained_for.channel(),
            consents: self.next.trained_for.consents(),
            users_of: from.users_of,
            records_of: from.records_of,
            start: trained.start,
            read_from: from.read_from,
            reads_unknown: from.reads_unknown,
            left_models: self.next.left_models.clone(),
            policies: from.policies,
        }
    }

    /// What was made.
    fn message(&self, version: u32, trained: &Trained) -> String {
        let verb = if self.retrained.is_some() { "RETRAIN MODEL" } else { "CREATE MODEL" };
        let known = trained.model.recommender();
        let (users, items) =
            known.map(|known| (known.user_ids().len(), known.item_ids().len())).unwrap_or_default();
        let rows = trained.interactions;
        let of = match (trained.model.preparation(), trained.model.entities()) {
            (_, Some(found)) => entities::fit::described(found),
            (None, None) => format!("{users} users, {items} items, {rows} interactions"),
            (Some(found), _) => {
                format!("{rows} rows, {}", features::fit::described(&trained.model, found))
            }
        };
        let mut message = format!("{verb} {}@{version}: {of}", self.name);
        if trained.merged > 0 {
            let how = if self.options.learner.is_explicit() { "averaged" } else { "summed" };
            message.push_str(&format!(" ({} rows of the same pair were {how})", trained.merged));
        }
        if let (Some(best), Some(metric)) = (trained.best_iteration, &trained.validation_metric) {
            let of = trained.iterations.len();
            let value = trained.iterations.get(best.saturating_sub(1)).and_then(|now| now.metric);
            let value = value.map(|value| format!(" with {metric} {value:.4}")).unwrap_or_default();
            message.push_str(&format!("; iteration {best} of {of} is the best{value}"));
        }
        if let Some(tuning) = &trained.tuning {
            message.push_str(&best_trial(tuning));
        }
        message
    }
}
