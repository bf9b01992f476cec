//! Running: from a planned statement to rows, under limits.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{EmptyRecordBatchStream, ExecutionPlan};
use sqlparser::ast::{Expr, Ident, Set, Use};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::audit::{self, Draft};
use crate::error::{Error, Result};
use crate::limits::StatementLimits;
use crate::made::charge_to;
use crate::memory::StatementPool;
use crate::patience::{cancellable, started};
use crate::progress::Reporter;
use crate::queries::Ticket;
use crate::session::optimized::Optimized;
use crate::session::plan::StatementContext;
use crate::session::planned::Planned;
use crate::session::{Action, Prepared, Progress, Session, apart};
use crate::stream::Guarded;

/// The answer to a statement.
pub struct Answer {
    /// The id under which the statement is logged and can be cancelled.
    pub query_id: String,
    /// The columns of `rows`.
    pub schema: SchemaRef,
    /// The rows; dropping them cancels the statement.
    pub rows: SendableRecordBatchStream,
    /// Rows that an update changed; `None` for a query.
    pub affected: Option<i64>,
    /// What was done, in a sentence, for a statement without rows; of a query, what else is to be
    /// said of it.
    pub message: Option<String>,
    /// Cancels the statement.
    pub cancel: CancellationToken,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Answer")
            .field("query_id", &self.query_id)
            .field("schema", &self.schema)
            .field("affected", &self.affected)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// What an update did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) affected: i64,
    pub(crate) message: String,
}

impl Done {
    pub(crate) fn new(affected: u64, message: impl Into<String>) -> Self {
        Self { affected: i64::try_from(affected).unwrap_or(i64::MAX), message: message.into() }
    }
}

/// What a running statement needs: its state, limits, cancellation and log entry.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) session: Session,
    pub(crate) state: SessionState,
    pub(crate) parameters: Vec<ScalarValue>,
    ticket: Ticket,
}

/// A statement that is logged, and waits to be told to run.
#[derive(Debug)]
pub struct Submitted {
    session: Session,
    prepared: Prepared,
    limits: StatementLimits,
    ticket: Ticket,
    span: Span,
}

impl Session {
    /// Runs a prepared statement with one value a placeholder.
    ///
    /// A statement without rows has run when this returns; of a query, only its start has.
    ///
    /// # Errors
    /// When parameters are missing or do not fit, a limit is hit, or the statement fails.
    pub async fn run(&self, prepared: &Prepared, parameters: &[ScalarValue]) -> Result<Answer> {
        self.run_as(&self.engine().new_query_id(), prepared, parameters).await
    }

    /// The same under an id from [`crate::Engine::new_query_id`], which the client knows before
    /// the statement runs.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn run_as(
        &self,
        query_id: &str,
        prepared: &Prepared,
        parameters: &[ScalarValue],
    ) -> Result<Answer> {
        self.submit(query_id, prepared).run(parameters).await
    }
}

impl Submitted {
    pub(crate) fn new(session: &Session, query_id: &str, prepared: &Prepared) -> Self {
        let (engine, settings) = (session.engine(), session.settings());
        let mut limits = StatementLimits::new(engine.limits(), &settings);
        if prepared.trains() {
            limits.timeout = settings.statement_timeout;
        }
        let shared = Arc::clone(&engine.runtime().memory_pool);
        let pool = Arc::new(StatementPool::new(shared, limits.memory_bytes));
        let text = Arc::clone(prepared.shown().text());
        let draft = Draft::new(session, &prepared.last_planned());
        let ticket = engine.queries().start(session, query_id, text, pool, draft);
        let span = tracing::info_span!(
            target: "attune", "statement", query = ticket.id(), session = session.id(),
            principal = session.principal().name, text = Empty, code = Empty,
        );
        Self { session: session.clone(), prepared: prepared.clone(), limits, ticket, span }
    }

    /// The id under which the statement is logged and can be killed.
    pub fn query_id(&self) -> &str {
        self.ticket.id()
    }

    /// How far the statement is, while it runs.
    pub fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.ticket.reporter().watch()
    }

    /// Cancels the statement.
    pub fn cancel(&self) -> CancellationToken {
        self.ticket.cancel().clone()
    }

    /// Waits for a slot, then runs, with one value a placeholder.
    ///
    /// # Errors
    /// When parameters are missing or do not fit, no slot becomes free, a limit is hit, or the
    /// statement fails.
    pub async fn run(self, parameters: &[ScalarValue]) -> Result<Answer> {
        let (ticket, span) = (self.ticket.clone(), self.span.clone());
        let text = self.prepared.shown().with(parameters);
        span.record("text", tracing::field::display(&text));
        ticket.show(text);
        // On the heap, as each step below is: together they would fill a thread's stack.
        let work = Box::pin(self.run_logged(parameters.to_vec()));
        let result = work.instrument(span.clone()).await;
        if let Err(error) = &result {
            span.record("code", error.code());
            ticket.fail(error);
        }
        ticket.settle().await;
        result
    }

    async fn run_logged(self, parameters: Vec<ScalarValue>) -> Result<Answer> {
        let wanted = self.prepared.parameters().fields().len();
        if parameters.len() != wanted {
            return Err(Error::invalid_hint(
                format!("the statement has {wanted} parameters, {} were given", parameters.len()),
                "bind one value for each ? or $n",
            ));
        }
        self.session.touch();
        if self.session.is_ended() {
            return Err(Error::Cancelled);
        }
        let cancel = self.ticket.cancel().clone();
        let slot = match self.prepared.needs_slot() {
            true => tokio::select! {
                slot = self.session.engine().admission().enter() => Some(slot?),
                () = cancel.cancelled() => return Err(Error::Cancelled),
            },
            false => None,
        };
        self.ticket.begin(slot);
        let limits = self.limits;
        let mut deadline = limits.timeout.map(|time| Box::pin(tokio::time::sleep(time)));
        let time_is_over = async {
            match &mut deadline {
                Some(deadline) => deadline.await,
                None => std::future::pending().await,
            }
        };
        let ticket = self.ticket.clone();
        let message = self.prepared.notice();
        let begun = tokio::select! {
            begun = Box::pin(self.start(parameters)) => begun?,
            () = cancel.cancelled() => return Err(Error::Cancelled),
            () = time_is_over => {
                return Err(Error::TimedOut { limit: limits.timeout.unwrap_or_default() });
            }
        };
        let (query_id, cancel) = (ticket.id().to_owned(), ticket.cancel().clone());
        match begun {
            Started::Rows { rows, schema } => {
                let span =
                    tracing::info_span!(target: "attune", "execute", rows = Empty, code = Empty);
                let rows = Guarded::new(rows, &schema, limits, deadline, ticket, span);
                let rows = Box::pin(rows);
                Ok(Answer { query_id, schema, rows, affected: None, message, cancel })
            }
            Started::Done(done) => {
                ticket.add(u64::try_from(done.affected).unwrap_or(0), 0);
                ticket.finish();
                let schema: SchemaRef = Arc::new(Schema::empty());
                Ok(Answer {
                    query_id,
                    rows: Box::pin(EmptyRecordBatchStream::new(Arc::clone(&schema))),
                    schema,
                    affected: Some(done.affected),
                    message: Some(done.message),
                    cancel,
                })
            }
        }
    }

    /// Plans and starts a query; makes a change.
    async fn start(self, parameters: Vec<ScalarValue>) -> Result<Started> {
        let heavy = self.prepared.is_heavy();
        let plan = tracing::info_span!(target: "attune", "plan");
        let at_hand = self.prepared.at_hand(&self.session, &parameters).await?;
        // Work in a task of its own computes on when nobody waits for it any more: it is told.
        let left = self.ticket.cancel().clone().drop_guard();
        let ready = match at_hand {
            Some(planned) => {
                let work = Box::pin(self.ready(planned, parameters));
                apart::here(work).instrument(plan).await
            }
            None => {
                let work = async move {
                    let planned = self.prepared.current(&self.session).await?;
                    self.ready(planned, parameters).await
                };
                apart::task(work, heavy).instrument(plan).await
            }
        };
        left.disarm();
        let Ready { run, planned, query } = ready?;
        let draft = Draft::new(&run.session, &planned);
        run.ticket.redraft(draft.clone());
        audit::begin(&run.session, &run.ticket, &draft).await?;
        if let Some((physical, schema)) = query {
            return Ok(Started::Rows { rows: started(physical, run.task()?)?, schema });
        }
        if let Action::CreateToken(statement) = &planned.action {
            let batch = statement.create(&run.session).await?;
            let schema = batch.schema();
            return Ok(Started::Rows { rows: one_batch(batch), schema });
        }
        if let Action::CheckTable(checks) = &planned.action {
            let batch = Box::pin(checks.run(&run)).await?;
            let schema = batch.schema();
            return Ok(Started::Rows { rows: one_batch(batch), schema });
        }
        if let Action::SubjectRequest(request) = &planned.action {
            let batch = Box::pin(request.run(&run)).await?;
            let schema = batch.schema();
            return Ok(Started::Rows { rows: one_batch(batch), schema });
        }
        if let Action::RetentionReport(apply) = &planned.action {
            let batch = Box::pin(apply.explain(&run)).await?;
            let schema = batch.schema();
            return Ok(Started::Rows { rows: one_batch(batch), schema });
        }
        let execute = tracing::info_span!(target: "attune", "execute");
        let change = Box::pin(run.change(&planned.action));
        Ok(Started::Done(change.instrument(execute).await?))
    }

    /// The statement with its values, and with its operators where it is a query.
    async fn ready(self, planned: Arc<Planned>, parameters: Vec<ScalarValue>) -> Result<Ready> {
        let (known, cancel) = (self.prepared.parameters(), self.ticket.cancel());
        let optimized = planned.optimized(&parameters, known, cancel);
        let mut state = optimized.map_or(&planned.state, Optimized::state).clone();
        charge_to(&mut state, self.ticket.pool(), self.ticket.cancel());
        let run = Run { session: self.session, state, parameters, ticket: self.ticket };
        let Action::Query(logical) = &planned.action else {
            return Ok(Ready { run, planned, query: None });
        };
        let physical = match optimized {
            Some(optimized) => {
                let plan = optimized.with_values(&run.state, &run.parameters)?;
                run.physical_of_optimized(&plan).await?
            }
            None => run.physical(logical).await?,
        };
        let schema = self.prepared.schema_with(&run.parameters);
        Ok(Ready { run, planned, query: Some((physical, schema)) })
    }
}

/// A statement that is planned with its values.
struct Ready {
    run: Run,
    planned: Arc<Planned>,
    /// The operators of a query, and the columns that it announced.
    query: Option<(Arc<dyn ExecutionPlan>, SchemaRef)>,
}

/// What became of a statement that was started.
enum Started {
    Rows { rows: SendableRecordBatchStream, schema: SchemaRef },
    Done(Done),
}

impl Run {
    async fn change(&self, action: &Action) -> Result<Done> {
        let done = self.changed(action).await;
        // Whatever was written, or written in part, may say who consents.
        self.session.engine().consents().note_write();
        done
    }

    async fn changed(&self, action: &Action) -> Result<Done> {
        match action {
            Action::Query(_)
            | Action::CreateToken(_)
            | Action::CheckTable(_)
            | Action::SubjectRequest(_)
            | Action::RetentionReport(_) => Err(Error::Internal("a query is no change".into())),
            Action::DropToken(statement) => statement.drop(self).await,
            Action::CreateModel(plan) => Box::pin(crate::model::create::run(self, plan)).await,
            Action::Definition(definition) => Box::pin(definition.run(self)).await,
            Action::Rows(change) => Box::pin(change.run(self)).await,
            Action::Model(change) => change.run(self).await,
            Action::Access(change) => Box::pin(change.run(self)).await,
            Action::Key(change) => Box::pin(change.run(self)).await,
            Action::Policy(change) => Box::pin(change.run(self)).await,
            Action::Subject(change) => Box::pin(change.run(self)).await,
            Action::Retention(apply) => Box::pin(apply.run(self)).await,
            Action::Expectation(change) => Box::pin(change.run(self)).await,
            Action::Consent(change) => Box::pin(change.run(self)).await,
            Action::Privacy(change) => change.run(self).await,
            Action::Set(name, value) => {
                self.session.set(name, value).await?;
                Ok(Done::new(0, format!("SET {name} = {value}")))
            }
            Action::Kill(kill) => kill.run(self).await,
        }
    }

    /// The plan with this run's parameters in place of the placeholders.
    pub(crate) fn bound(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        if self.parameters.is_empty() {
            return Ok(plan.clone());
        }
        let values = ParamValues::from(self.parameters.clone());
        let plan = plan.clone().with_param_values(values)?;
        crate::policy::checked_with_values(&self.state, &plan)?;
        crate::private::checked(&self.state, &plan)?;
        Ok(plan)
    }

    /// The rows of a plan over one file, in the order of the file: nothing is cut for more cores.
    pub(crate) async fn start_in_order(
        &self,
        plan: &LogicalPlan,
    ) -> Result<SendableRecordBatchStream> {
        let mut state = self.state.clone();
        state.config_mut().options_mut().execution.target_partitions = 1;
        let physical = state.create_physical_plan(plan).await?;
        started(cancellable(physical, self.ticket.cancel())?, self.task()?)
    }

    /// The operators of a plan.
    pub(crate) async fn physical(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let physical = self.state.create_physical_plan(&self.bound(plan)?).await?;
        cancellable(physical, self.ticket.cancel())
    }

    /// Optimizes a plan and starts it.
    pub(crate) async fn start(&self, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
        started(self.physical(plan).await?, self.task()?)
    }

    /// The operators of a plan that is optimized and bound already.
    async fn physical_of_optimized(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = Arc::clone(self.state.query_planner());
        let physical = planner.create_physical_plan(plan, &self.state).await?;
        cancellable(physical, self.ticket.cancel())
    }

    /// The state in which rows are written: what runs in it has this statement's memory.
    pub(crate) fn writing_state(&self) -> Result<SessionState> {
        let state = SessionStateBuilder::new_from_existing(self.state.clone());
        Ok(state.with_runtime_env(self.runtime()?).build())
    }

    fn runtime(&self) -> Result<Arc<RuntimeEnv>> {
        let shared = RuntimeEnvBuilder::from_runtime_env(self.session.engine().runtime());
        Ok(shared.with_memory_pool(self.ticket.pool()).build_arc()?)
    }

    /// Where the statement's operators take memory and files from, and tell their progress.
    pub(crate) fn task(&self) -> Result<Arc<TaskContext>> {
        let reporter = Arc::new(self.ticket.reporter().clone());
        let config = self.state.config().clone().with_extension(reporter);
        let session = self.state.session_id().to_owned();
        let runtime = self.runtime()?;
        // Operators hold their functions; nobody looks one up by name any more.
        let (scalars, lambdas) = (HashMap::new(), HashMap::new());
        let (aggregates, windows) = (HashMap::new(), HashMap::new());
        let task =
            TaskContext::new(None, session, config, scalars, lambdas, aggregates, windows, runtime);
        Ok(Arc::new(task))
    }

    /// Where an operator tells its progress; outside a statement, its session alone hears it.
    pub(crate) fn reporter(task: &TaskContext, session: &Session) -> Reporter {
        let reporter = task.session_config().get_extension::<Reporter>();
        reporter.map_or_else(|| Reporter::new(session.progress_sender()), Arc::unwrap_or_clone)
    }
}

/// The rows of a statement that has done its work.
fn one_batch(batch: RecordBatch) -> SendableRecordBatchStream {
    let schema = batch.schema();
    let rows = futures::stream::once(futures::future::ready(Ok(batch)));
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// `SET name = value`.
pub(crate) fn plan_set(
    context: &Arc<StatementContext>,
    set: &Set,
) -> Result<(SessionState, Action)> {
    let state = context.state(&Default::default())?;
    let (name, value) = match set {
        Set::SingleAssignment { variable, values, .. } => match values.as_slice() {
            [value] => (variable.to_string(), literal(value)?),
            _ => return Err(Error::invalid("SET takes one value")),
        },
        Set::SetTimeZone { value, .. } => ("time_zone".to_owned(), literal(value)?),
        other => {
            return Err(Error::unsupported(
                format!("{other} is not supported"),
                "use SET name = value",
            ));
        }
    };
    context.check_setting(&name, &value)?;
    Ok((state, Action::Set(name.to_lowercase(), value)))
}

/// `USE schema`.
pub(crate) fn plan_use(
    context: &Arc<StatementContext>,
    name: &Use,
) -> Result<(SessionState, Action)> {
    let (Use::Object(name) | Use::Schema(name) | Use::Database(name)) = name else {
        return Err(Error::unsupported(format!("{name} is not supported"), "use USE schema"));
    };
    let parts = crate::parse::name_parts(name);
    let schema = parts.last().cloned().unwrap_or_default();
    context.check_setting("schema", &schema)?;
    Ok((context.state(&Default::default())?, Action::Set("schema".into(), schema)))
}

/// `SHOW setting`.
pub(crate) async fn plan_show(
    context: &Arc<StatementContext>,
    variable: &[Ident],
) -> Result<(SessionState, Action)> {
    let name = variable.iter().map(|part| part.value.to_lowercase()).collect::<Vec<_>>().join("_");
    let known = crate::session::settings::SETTINGS.iter().map(|(name, _)| *name);
    let query = match name.as_str() {
        "all" => "SELECT name, value, description FROM system.settings ORDER BY name".to_owned(),
        _ if known.clone().any(|known| known == name) => {
            format!("SELECT name, value FROM system.settings WHERE name = '{name}'")
        }
        _ => return Err(Error::unknown("setting", &name, known)),
    };
    let (state, plan) = context.plan_query(crate::parse::parse_query(&query)?).await?;
    Ok((state, Action::Query(plan)))
}

fn literal(value: &Expr) -> Result<String> {
    use sqlparser::ast::{Value, ValueWithSpan};
    match value {
        Expr::Value(ValueWithSpan { value, .. }) => match value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => Ok(text.clone()),
            Value::Number(number, _) => Ok(number.clone()),
            Value::Boolean(truth) => Ok(truth.to_string()),
            Value::Null => Ok(String::new()),
            other => Err(Error::invalid(format!("{other} is no value of a setting"))),
        },
        Expr::Identifier(name) => Ok(crate::dialect::folded(name)),
        other => Err(Error::invalid_hint(
            format!("{other} is no value of a setting"),
            "write a text, a number, true or false",
        )),
    }
}
