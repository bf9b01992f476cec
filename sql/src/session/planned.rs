//! Planning: from a parsed statement to what will be done.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::Schema;
use catalog::policy::PolicyMoment;
use datafusion::common::ScalarValue;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DataFusionStatement;
use sqlparser::ast::Statement as SqlStatement;
use tokio_util::sync::CancellationToken;

use crate::audit::Touched;
use crate::error::{Error, Result};
use crate::kill::Kill;
use crate::made::end_with;
use crate::parse::{Statement, name_parts};
use crate::rights::Rights;
use crate::session::Session;
use crate::session::bindings::Bindings;
use crate::session::optimized::Optimized;
use crate::session::plan::StatementContext;
use crate::tokens::TokenStatement;
use crate::{
    access, consent, dml, expectation, key, model, pii, policy, private, size, subject, table,
};

/// What a planned statement does when it runs.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Answers rows.
    Query(LogicalPlan),
    /// Trains and publishes a model; one row tells which version.
    CreateModel(LogicalPlan),
    /// Changes definitions.
    Definition(table::Definition),
    /// Changes rows of a warehouse table.
    Rows(dml::Change),
    /// Changes models.
    Model(model::Change),
    /// Makes an API token and answers its secret.
    CreateToken(TokenStatement),
    /// Ends an API token.
    DropToken(TokenStatement),
    /// Changes users, roles and grants.
    Access(access::Change),
    /// Makes, changes or drops keys.
    Key(key::Change),
    /// Changes policies and tags.
    Policy(policy::Change),
    /// Changes a setting of the session.
    Set(String, String),
    /// Ends a statement or a session.
    Kill(Kill),
    /// Changes privacy policies.
    Privacy(private::Change),
    /// Changes what is expected of a table.
    Expectation(expectation::Change),
    /// Changes purposes and consent policies.
    Consent(consent::Change),
    /// Checks what is expected of a table.
    CheckTable(Arc<expectation::CheckTable>),
    /// Changes subjects, or what is held about a person.
    Subject(subject::Change),
    /// Answers what is held about a person.
    SubjectRequest(subject::Request),
    /// Removes rows whose retention is over.
    Retention(policy::Apply),
    /// Answers which rows those are.
    RetentionReport(policy::Apply),
}

/// A planned statement: what it does, and the state it was planned in.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) action: Action,
    pub(crate) state: SessionState,
    pub(crate) at_ms: i64,
    pub(crate) rights: Arc<Rights>,
    /// The policies that it was planned under.
    pub(crate) policy_moment: PolicyMoment,
    /// How large it is: nodes and columns.
    pub(crate) parts: usize,
    /// Which keys it uses, and what for.
    pub(crate) keys: Arc<[key::UsedKey]>,
    /// What it touches, for the audit.
    pub(crate) touched: Arc<Touched>,
    /// Whether it holds for one run, because it knows who consents.
    pub(crate) knows_consent: bool,
    /// What is to be said of the answer besides its rows.
    pub(crate) notice: Option<String>,
    /// The query optimized before its values are known, once somebody has asked for it.
    optimized: OnceLock<Option<Optimized>>,
}

impl Planned {
    /// The same for another action.
    pub(crate) fn doing(self, action: Action) -> Self {
        Self { action, optimized: OnceLock::new(), ..self }
    }

    /// A query optimized before its values are known, where it can be and takes such values. The
    /// first runs do it, each until it ends itself.
    pub(super) fn optimized(
        &self,
        values: &[ScalarValue],
        parameters: &Schema,
        cancel: &CancellationToken,
    ) -> Option<&Optimized> {
        let Action::Query(plan) = &self.action else { return None };
        if values.is_empty() {
            return None;
        }
        if self.optimized.get().is_none() {
            let mut state = self.state.clone();
            end_with(&mut state, cancel);
            // No run waits for another's work; the first to end gives its own to all.
            let _ = self.optimized.set(Optimized::of(&state, plan));
        }
        self.optimized.get()?.as_ref().filter(|optimized| optimized.takes(values, parameters))
    }

    /// Whether it is a query whose operators are made in a moment: it was optimized by a run
    /// before, takes such values, and only reads tables and compares.
    pub(crate) fn is_light(&self, values: &[ScalarValue], parameters: &Schema) -> bool {
        let known = self.optimized.get().and_then(Option::as_ref);
        known.is_some_and(|known| known.is_light() && known.takes(values, parameters))
    }
}

/// Plans any statement.
pub(crate) async fn plan(session: &Session, statement: &Statement) -> Result<Planned> {
    plan_in(StatementContext::load(session).await?, statement).await
}

/// Plans any statement in a context that may know more tables than the catalog does.
pub(crate) async fn plan_in(
    context: Arc<StatementContext>,
    statement: &Statement,
) -> Result<Planned> {
    let at_ms = context.engine().catalog().now_ms();
    if writes_rows(statement) {
        context.see_erasures().await?;
    }
    let (state, action) = match statement {
        Statement::DataFusion(statement) => Box::pin(plan_datafusion(&context, statement)).await?,
        Statement::CreateModel(create) => {
            let (state, plan) = Box::pin(model::create::plan(&context, create)).await?;
            (state, Action::CreateModel(plan))
        }
        Statement::ExplainModel(create) => {
            let (state, plan) = Box::pin(model::create::plan_explain(&context, create)).await?;
            (state, Action::Query(plan))
        }
        Statement::Retrain { name, options } => {
            let planned = Box::pin(model::create::plan_retrain(&context, name, options));
            let (state, plan) = planned.await?;
            (state, Action::CreateModel(plan))
        }
        Statement::DropModel { name, if_exists } => {
            let change = model::Change::drop(&context, name, *if_exists).await?;
            (context.state(&Bindings::default())?, Action::Model(change))
        }
        Statement::SetDefaultVersion { name, version } => {
            let change = model::Change::set_default(&context, name, *version).await?;
            (context.state(&Bindings::default())?, Action::Model(change))
        }
        Statement::SetModelOptions { name, options } => {
            let change = model::Change::set_options(&context, name, options).await?;
            (context.state(&Bindings::default())?, Action::Model(change))
        }
        Statement::Show(listing) => {
            let query = crate::system::listing_query(*listing);
            let (state, plan) = context.plan_query(crate::parse::parse_query(query)?).await?;
            (state, Action::Query(plan))
        }
        Statement::Token(statement) => {
            statement.check(context.session(), context.rights())?;
            let action = match statement {
                TokenStatement::Create { .. } => Action::CreateToken(statement.clone()),
                TokenStatement::Drop { .. } => Action::DropToken(statement.clone()),
            };
            (context.state(&Bindings::default())?, action)
        }
        Statement::Kill(kill) => (context.state(&Bindings::default())?, Action::Kill(kill.clone())),
        Statement::Later(what, hint) => return Err(Error::unsupported(*what, *hint)),
        Statement::Expectation(statement) => {
            Box::pin(expectation::plan(&context, statement)).await?
        }
        Statement::Access(statement) => Box::pin(access::plan(&context, statement)).await?,
        Statement::Key(statement) => Box::pin(key::plan(&context, statement)).await?,
        Statement::Policy(statement) => Box::pin(policy::plan(&context, statement)).await?,
        Statement::Consent(statement) => Box::pin(consent::plan(&context, statement)).await?,
        Statement::Subject(statement) => Box::pin(subject::plan(&context, statement)).await?,
        Statement::Privacy(statement) => Box::pin(private::plan(&context, statement)).await?,
        Statement::DescribeModel { name } => {
            let (state, plan) = Box::pin(model::describe(&context, name)).await?;
            (state, Action::Query(plan))
        }
    };
    // What the request of a person reads is opened when it runs.
    if !matches!(statement, Statement::Subject(_)) {
        context.opened_all();
    }
    let parts = match &action {
        Action::Query(plan) | Action::CreateModel(plan) => size::parts(plan),
        Action::Definition(definition) => definition.plans().into_iter().map(size::parts).sum(),
        Action::Rows(change) => change.plans().into_iter().map(size::parts).sum(),
        Action::CheckTable(checks) => checks.plans().into_iter().map(size::parts).sum(),
        _ => 0,
    };
    let notice = match &action {
        Action::Query(plan) => private::notice(plan),
        _ => None,
    };
    let touched = Arc::new(Touched::of(&context, statement, &action));
    let rights = context.shared_rights();
    let policy_moment = context.policy_moment();
    let keys = context.used_keys();
    let knows_consent = context.opening().used().binds_model();
    Ok(Planned {
        action,
        state,
        at_ms,
        rights,
        policy_moment,
        parts,
        keys,
        touched,
        knows_consent,
        notice,
        optimized: OnceLock::new(),
    })
}

/// Whether a statement may write what it reads into a table or a model.
fn writes_rows(statement: &Statement) -> bool {
    match statement {
        Statement::DataFusion(statement) => match statement.as_ref() {
            DataFusionStatement::Statement(tree) => matches!(
                tree.as_ref(),
                SqlStatement::Insert(_)
                    | SqlStatement::Delete(_)
                    | SqlStatement::Update(_)
                    | SqlStatement::Merge(_)
                    | SqlStatement::Truncate(_)
                    | SqlStatement::CreateTable(_)
            ),
            _ => false,
        },
        // RECORD CONSENT, RECTIFY, and DECLASSIFY of a statement above are among them.
        Statement::CreateModel(_)
        | Statement::Retrain { .. }
        | Statement::Consent(_)
        | Statement::Policy(_)
        | Statement::Subject(_) => true,
        // It keeps values that it has found.
        Statement::Expectation(statement) => {
            matches!(statement.as_ref(), expectation::ExpectationStatement::Check(_))
        }
        _ => false,
    }
}

pub(crate) async fn plan_datafusion(
    context: &Arc<StatementContext>,
    statement: &DataFusionStatement,
) -> Result<(SessionState, Action)> {
    match statement {
        DataFusionStatement::Statement(tree) => match tree.as_ref() {
            SqlStatement::Insert(_)
            | SqlStatement::Delete(_)
            | SqlStatement::Update(_)
            | SqlStatement::Merge(_)
            | SqlStatement::Truncate(_) => dml::plan(context, statement, tree).await,
            SqlStatement::CreateTable(_)
            | SqlStatement::CreateView(_)
            | SqlStatement::AlterTable(_)
            | SqlStatement::Drop { .. } => table::plan(context, tree).await,
            SqlStatement::Set(set) => crate::session::run::plan_set(context, set),
            SqlStatement::Use(name) => crate::session::run::plan_use(context, name),
            SqlStatement::ShowVariable { variable } => {
                crate::session::run::plan_show(context, variable).await
            }
            SqlStatement::StartTransaction { .. }
            | SqlStatement::Commit { .. }
            | SqlStatement::Rollback { .. } => Err(Error::unsupported(
                "Attune has no transactions: every statement commits by itself",
                "run the statements one by one; each is atomic",
            )),
            SqlStatement::ExplainTable { table_name, .. } => {
                match pii::describe::plan(context, &name_parts(table_name)).await? {
                    Some(planned) => Ok(planned),
                    None => query(context, statement).await,
                }
            }
            SqlStatement::Query(_) | SqlStatement::Explain { .. } => {
                query(context, statement).await
            }
            SqlStatement::ShowColumns { .. } => {
                Err(Error::unsupported("SHOW COLUMNS is not supported", "use DESCRIBE table"))
            }
            other => Err(Error::unsupported(
                format!("{} is not supported", leading(&other.to_string())),
                "docs/sql.md lists the statements",
            )),
        },
        DataFusionStatement::Explain(_) => query(context, statement).await,
        DataFusionStatement::CreateExternalTable(create) => {
            table::external::plan(context, create).await
        }
        DataFusionStatement::CopyTo(_) => Err(Error::unsupported(
            "COPY is closed: it would write wherever the server can",
            "use CREATE TABLE … AS SELECT, or attune sql -o FILE on your side",
        )),
        DataFusionStatement::Reset(_) => {
            Err(Error::unsupported("RESET is not supported", "use SET name = value"))
        }
    }
}

async fn query(
    context: &Arc<StatementContext>,
    statement: &DataFusionStatement,
) -> Result<(SessionState, Action)> {
    let (state, plan) = context.plan_statement(statement.clone()).await?;
    Ok((state, Action::Query(plan)))
}

/// The first words of a statement, for an error.
fn leading(text: &str) -> String {
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
