//! Running: from a planned statement to rows, under limits.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{EmptyRecordBatchStream, execute_stream};
use sqlparser::ast::{Expr, Ident, Set, Use};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::memory::StatementPool;
use crate::queries::Ticket;
use crate::session::plan::StatementContext;
use crate::session::{Action, Prepared, Session};
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
    /// What was done, in a sentence, for a statement without rows.
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
    pool: Arc<StatementPool>,
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
        let wanted = prepared.parameters().fields().len();
        if parameters.len() != wanted {
            return Err(Error::invalid_hint(
                format!("the statement has {wanted} parameters, {} were given", parameters.len()),
                "bind one value for each ? or $n",
            ));
        }
        self.touch();
        if self.is_ended() {
            return Err(Error::Cancelled);
        }
        let cancel = self.end_token().child_token();
        let queries = self.engine().queries();
        let ticket = queries.start(self, query_id, prepared.text(), cancel.clone());
        let result = self.run_logged(prepared, parameters, cancel, &ticket).await;
        if let Err(error) = &result {
            ticket.fail(error);
        }
        result
    }

    async fn run_logged(
        &self,
        prepared: &Prepared,
        parameters: &[ScalarValue],
        cancel: CancellationToken,
        ticket: &Ticket,
    ) -> Result<Answer> {
        let planned = prepared.current(self).await?;
        let limits = self.engine().limits();
        let shared = Arc::clone(&self.engine().runtime().memory_pool);
        let run = Run {
            session: self.clone(),
            state: planned.state.clone(),
            parameters: parameters.to_vec(),
            pool: Arc::new(StatementPool::new(shared, limits.query_memory_bytes)),
        };
        let rows = match &planned.action {
            Action::Query(plan) => {
                Some(match planned.optimized(parameters, prepared.parameters())? {
                    Some(plan) => run.execute(&plan).await?,
                    None => run.start(plan).await?,
                })
            }
            Action::CreateToken(statement) => Some(one_batch(statement.create(self).await?)),
            _ => None,
        };
        if let Some(rows) = rows {
            let schema = prepared.schema_with(parameters);
            let rows = Guarded::new(rows, &schema, limits, cancel.clone(), ticket.clone());
            return Ok(Answer {
                query_id: ticket.id().to_owned(),
                schema,
                rows: Box::pin(rows),
                affected: None,
                message: None,
                cancel,
            });
        }
        let done = tokio::select! {
            done = run.change(&planned.action) => done?,
            () = cancel.cancelled() => return Err(Error::Cancelled),
        };
        ticket.finish(u64::try_from(done.affected).unwrap_or(0));
        let schema: SchemaRef = Arc::new(Schema::empty());
        Ok(Answer {
            query_id: ticket.id().to_owned(),
            rows: Box::pin(EmptyRecordBatchStream::new(Arc::clone(&schema))),
            schema,
            affected: Some(done.affected),
            message: Some(done.message),
            cancel,
        })
    }
}

impl Run {
    async fn change(&self, action: &Action) -> Result<Done> {
        match action {
            Action::Query(_) | Action::CreateToken(_) => {
                Err(Error::Internal("a query is no change".into()))
            }
            Action::DropToken(statement) => statement.drop(self).await,
            Action::KillSession(kill) => kill.run(self).await,
            Action::CreateModel(plan) => crate::model::create::run(self, plan).await,
            Action::Definition(definition) => definition.run(self).await,
            Action::Rows(change) => change.run(self).await,
            Action::Model(change) => change.run(self).await,
            Action::Access(change) => change.run(self).await,
            Action::Set(name, value) => {
                self.session.set(name, value).await?;
                Ok(Done::new(0, format!("SET {name} = {value}")))
            }
        }
    }

    /// The plan with this run's parameters in place of the placeholders.
    pub(crate) fn bound(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        if self.parameters.is_empty() {
            return Ok(plan.clone());
        }
        let values = ParamValues::from(self.parameters.clone());
        Ok(plan.clone().with_param_values(values)?)
    }

    /// Optimizes a plan and starts it.
    pub(crate) async fn start(&self, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
        let plan = self.bound(plan)?;
        let physical = self.state.create_physical_plan(&plan).await?;
        Ok(execute_stream(physical, self.task()?)?)
    }

    /// Starts a plan that is optimized and bound already.
    async fn execute(&self, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
        let planner = Arc::clone(self.state.query_planner());
        let physical = planner.create_physical_plan(plan, &self.state).await?;
        Ok(execute_stream(physical, self.task()?)?)
    }

    /// Where the statement's operators take memory and files from.
    pub(crate) fn task(&self) -> Result<Arc<TaskContext>> {
        Ok(Arc::new(TaskContext::from(&self.state).with_runtime(self.runtime()?)))
    }

    /// The state in which rows are written: what runs in it has this statement's memory.
    pub(crate) fn writing_state(&self) -> Result<SessionState> {
        let state = SessionStateBuilder::new_from_existing(self.state.clone());
        Ok(state.with_runtime_env(self.runtime()?).build())
    }

    fn runtime(&self) -> Result<Arc<RuntimeEnv>> {
        let pool: Arc<dyn MemoryPool> = Arc::clone(&self.pool) as _;
        Ok(RuntimeEnvBuilder::from_runtime_env(self.session.engine().runtime())
            .with_memory_pool(pool)
            .build_arc()?)
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
    // A wrong name or value is an error now, not when the prepared statement runs.
    context.session().settings().set(&name, &value, &context.schemas(), context.rights())?;
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
    context.session().settings().set("schema", &schema, &context.schemas(), context.rights())?;
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
