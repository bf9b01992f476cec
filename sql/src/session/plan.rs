//! Planning: from a parsed statement to what will be done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::Schema;
use catalog::ObjectName;
use catalog::policy::{PolicyMoment, Role};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DataFusionStatement;
use parking_lot::{Mutex, MutexGuard};
use sqlparser::ast::{Query, Statement as SqlStatement};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::allow;
use crate::anonymize::{self, AnonymizeRelation};
use crate::audit::{Touched, Used};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::join::NearestRelation;
use crate::kill::Kill;
use crate::limits::StatementLimits;
use crate::made::{charge_to, end_with};
use crate::memory::StatementPool;
use crate::model::table_functions::ModelRelations;
use crate::parse::Statement;
use crate::rights::Rights;
use crate::session::bindings::{self, Bindings, References};
use crate::session::optimized::Optimized;
use crate::session::schema::StatementCatalog;
use crate::session::{Session, Settings, TableFilter, TableInfo};
use crate::tokens::TokenStatement;
use crate::{access, consent, dml, expectation, key, model, policy, private, size, subject, table};

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
}

/// What one statement (or view inside it) is planned in.
#[derive(Debug)]
pub(crate) struct StatementContext {
    session: Session,
    settings: Settings,
    schemas: Arc<[String]>,
    rights: Arc<Rights>,
    policy_moment: PolicyMoment,
    depth: usize,
    pinned: Arc<Pinned>,
}

/// What all parts of one statement share: tables at one version, and names that were missing.
#[derive(Debug, Default)]
struct Pinned {
    target: Mutex<Option<ObjectName>>,
    opened: Mutex<HashMap<ObjectName, Arc<dyn TableProvider>>>,
    versions: Mutex<BTreeMap<ObjectName, u64>>,
    missed: Mutex<Vec<String>>,
    keys: Mutex<BTreeSet<key::UsedKey>>,
    used: Mutex<Used>,
    listed: OnceCell<Arc<Vec<TableInfo>>>,
    policies: policy::Seen,
    /// How governed tables are opened.
    opening: consent::Opening,
}

impl StatementContext {
    /// The context of a statement that starts now.
    ///
    /// # Errors
    /// When the principal's rights cannot be read.
    pub(crate) async fn load(session: &Session) -> Result<Arc<Self>> {
        Self::with_settings(session, session.settings()).await
    }

    /// A context in which the session has other settings.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(crate) async fn with_settings(session: &Session, settings: Settings) -> Result<Arc<Self>> {
        let rights = session.rights().await?;
        let purpose = consent::held::effective(settings.purpose.clone(), rights.purposes());
        Ok(Arc::new(Self {
            settings: Settings { purpose, ..settings },
            schemas: session.schemas().await?.into(),
            policy_moment: session.engine().catalog().policy_moment().await?,
            rights,
            session: session.clone(),
            depth: 0,
            pinned: Arc::default(),
        }))
    }

    /// The context of a view inside the statement.
    pub(crate) fn deeper(&self) -> Arc<Self> {
        // A view means the same, whoever asks.
        let settings = Settings { postgres: None, ..self.settings.clone() };
        self.with(settings, self.depth + 1, &self.pinned)
    }

    /// The same for a statement whose readings serve another purpose, with nothing opened yet.
    ///
    /// # Errors
    /// When the purpose is not held.
    pub(crate) fn serving(&self, purpose: &str) -> Result<Arc<Self>> {
        self.rights.purposes().check(self.rights.name(), purpose)?;
        let settings = Settings { purpose: Some(purpose.to_owned()), ..self.settings.clone() };
        Ok(self.with(settings, self.depth, &Arc::default()))
    }

    fn with(&self, settings: Settings, depth: usize, pinned: &Arc<Pinned>) -> Arc<Self> {
        let (session, rights) = (self.session.clone(), Arc::clone(&self.rights));
        let (schemas, pinned) = (Arc::clone(&self.schemas), Arc::clone(pinned));
        let policy_moment = self.policy_moment.clone();
        Arc::new(Self { session, settings, schemas, rights, policy_moment, depth, pinned })
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// What the principal may do.
    pub(crate) fn rights(&self) -> &Rights {
        &self.rights
    }

    /// What the statement has met of policies.
    pub(crate) fn policies(&self) -> &policy::Seen {
        &self.pinned.policies
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.session.engine()
    }

    /// The schemas in which an unqualified name is looked up, in order.
    pub(crate) fn search_path(&self) -> Vec<String> {
        let mut path = self.settings.search_path(&self.session.principal().name);
        if self.speaks_postgres() {
            path.push(crate::pg::PG_CATALOG.to_owned());
        }
        path
    }

    /// The session's settings when the statement started.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the statement came from a client that speaks PostgreSQL.
    pub(crate) fn speaks_postgres(&self) -> bool {
        self.settings.postgres.is_some()
    }

    /// Every table that the principal sees, with its columns; listed once a statement.
    pub(crate) async fn listed(&self) -> Result<Arc<Vec<TableInfo>>> {
        let filter = TableFilter { with_columns: true, ..TableFilter::default() };
        let listed = async { self.session.tables(&filter).await.map(Arc::new) };
        self.pinned.listed.get_or_try_init(|| listed).await.cloned()
    }

    /// Tries a setting: a wrong name or value is an error now, not when a prepared statement runs.
    ///
    /// # Errors
    /// When the setting does not exist or does not take the value.
    pub(crate) fn check_setting(&self, name: &str, value: &str) -> Result<()> {
        let limits = self.engine().limits();
        self.settings.clone().set(name, value, &self.schemas, &self.rights, limits)
    }

    /// The schemas that the principal sees.
    pub(crate) fn schemas(&self) -> Vec<String> {
        self.schemas.to_vec()
    }

    pub(crate) fn may_see(&self, schema: &str) -> bool {
        self.rights.has(Role::Admin) || self.schemas.iter().any(|known| known == schema)
    }

    pub(crate) fn opened(&self, name: &ObjectName) -> Option<Arc<dyn TableProvider>> {
        self.pinned.opened.lock().get(name).cloned()
    }

    /// The names that were opened so far.
    pub(crate) fn opened_names(&self) -> Vec<ObjectName> {
        self.pinned.opened.lock().keys().cloned().collect()
    }

    /// What the statement was bound to, and what was applied to it so far; for the audit.
    pub(crate) fn used(&self) -> MutexGuard<'_, Used> {
        self.pinned.used.lock()
    }

    pub(crate) fn remember(&self, name: &ObjectName, table: &Arc<dyn TableProvider>) {
        self.pinned.opened.lock().insert(name.clone(), Arc::clone(table));
    }

    pub(crate) fn version_of(&self, name: &ObjectName) -> Option<u64> {
        self.pinned.versions.lock().get(name).copied()
    }

    /// Reads a table at this version in the whole statement.
    pub(crate) fn pin(&self, name: &ObjectName, version: u64) {
        self.pinned.versions.lock().insert(name.clone(), version);
    }

    /// The table that the statement adds rows to: its columns are seen though its rows may not be.
    pub(crate) fn write_to(&self, name: &ObjectName) {
        *self.pinned.target.lock() = Some(name.clone());
    }

    pub(crate) fn writes_to(&self, name: &ObjectName) -> bool {
        self.pinned.target.lock().as_ref() == Some(name)
    }

    /// How governed tables are opened in this statement.
    pub(crate) fn opening(&self) -> &consent::Opening {
        &self.pinned.opening
    }

    pub(crate) fn missed(&self, name: String) {
        self.pinned.missed.lock().push(name);
    }

    /// Remembers that a part of the statement uses a key.
    pub(crate) fn uses_key(&self, used: key::UsedKey) {
        self.pinned.keys.lock().insert(used);
    }

    /// The object that a written name means for creating or changing: unqualified names lie in
    /// the session's schema.
    ///
    /// # Errors
    /// When the name has too many parts or another catalog.
    pub(crate) fn target(&self, parts: &[String]) -> Result<ObjectName> {
        let (schema, name) = match parts {
            [name] => (&self.settings.schema, name),
            [schema, name] => (schema, name),
            [catalog, schema, name] if catalog == crate::engine::CATALOG => (schema, name),
            _ => {
                return Err(Error::invalid_hint(
                    format!("'{}' is no name", parts.join(".")),
                    "write name or schema.name",
                ));
            }
        };
        let schemas = self.schemas();
        if !schemas.contains(schema) {
            return Err(Error::unknown("schema", schema, schemas.iter().map(String::as_str)));
        }
        Ok(ObjectName::new(schema, name))
    }

    /// A state for planning, with this statement's catalog and bindings.
    pub(crate) fn state(self: &Arc<Self>, bindings: &Bindings) -> Result<SessionState> {
        let mut state = match self.speaks_postgres() {
            true => self.engine().postgres().base(self.engine().base())?.clone(),
            false => self.engine().base().clone(),
        };
        state.register_catalog_list(Arc::new(StatementCatalog::new(Arc::clone(self))));
        bindings::register(&mut state, bindings)?;
        crate::functions::register_session(&mut state, &self.rights, &self.settings)?;
        crate::pg::register(&mut state, self)?;
        let relations = ModelRelations::new(bindings);
        state.register_relation_planner(Arc::new(relations))?;
        state.register_relation_planner(Arc::new(NearestRelation))?;
        state.register_relation_planner(Arc::new(AnonymizeRelation::new(bindings)))?;
        let proposals = policy::propose::ProposeRelation::new(bindings);
        state.register_relation_planner(Arc::new(proposals))?;
        if let Some(zone) = &self.settings.time_zone {
            set_time_zone(&mut state, zone)?;
        }
        let limits = StatementLimits::new(self.engine().limits(), &self.settings);
        let shared = Arc::clone(&self.engine().runtime().memory_pool);
        let pool = Arc::new(StatementPool::new(shared, limits.memory_bytes));
        // No statement runs yet: what is computed while planning ends with the session.
        charge_to(&mut state, pool, self.session.end_token());
        state.mark_start_execution();
        Ok(state)
    }

    /// Plans a statement that DataFusion's planner knows.
    pub(crate) async fn plan_statement(
        self: &Arc<Self>,
        mut statement: DataFusionStatement,
    ) -> Result<(SessionState, LogicalPlan)> {
        let tree = match &mut statement {
            DataFusionStatement::Statement(tree) => Some(tree),
            DataFusionStatement::Explain(explain) => match explain.statement.as_mut() {
                DataFusionStatement::Statement(tree) => Some(tree),
                _ => None,
            },
            _ => None,
        };
        let mut references = References::default();
        let mut private = Vec::new();
        if let Some(tree) = tree {
            size::check_tree(tree.as_ref())?;
            model::marked::plain(tree)?;
            anonymize::plain(tree)?;
            private = private::rewritten(self.engine(), tree)?;
            references = References::of(tree.as_ref());
        }
        self.pin_versions(&references)?;
        key::bind::check(self, &references.keys)?;
        let bindings = references.load(self).await?;
        self.used().add(&references.keys, bindings.loaded.values());
        let mut state = self.state(&bindings)?;
        private::register(&mut state, self, private)?;
        match state.statement_to_plan(statement).await {
            Ok(plan) => {
                size::check(&plan)?;
                allow::check(&plan)?;
                // What a view reads is looked at where the view stands.
                if self.depth == 0 {
                    private::check(&plan)?;
                }
                self.rights.may_call(&plan, &references.relations)?;
                let plan = analyzed(&state, plan)?;
                // A view's plan becomes part of its statement's, which is looked at as a whole.
                match self.depth {
                    0 => policy::checked(&state, plan).map(|plan| (state, plan)),
                    _ => Ok((state, plan)),
                }
            }
            Err(error) => Err(self.explain_failure(error).await),
        }
    }

    /// Plans a query.
    pub(crate) async fn plan_query(
        self: &Arc<Self>,
        query: Box<Query>,
    ) -> Result<(SessionState, LogicalPlan)> {
        let statement = SqlStatement::Query(query);
        self.plan_statement(DataFusionStatement::Statement(Box::new(statement))).await
    }

    fn pin_versions(&self, references: &References) -> Result<()> {
        let mut versions = self.pinned.versions.lock();
        for (parts, version) in &references.versions {
            let name = self.target(parts)?;
            let before = versions.insert(name.clone(), *version);
            if before.is_some_and(|before| before != *version) {
                return Err(Error::unsupported(
                    format!("{name} is read at two versions in one statement"),
                    "save one of them with CREATE TABLE … AS SELECT first",
                ));
            }
        }
        Ok(())
    }

    /// A missing table gets the nearest existing name as a hint.
    async fn explain_failure(&self, error: datafusion::error::DataFusionError) -> Error {
        let text = error.strip_backtrace();
        let schemas = self.schemas();
        if let Some(schema) = missing_schema(&text)
            && !schemas.contains(&schema)
            && schema != crate::pg::PG_CATALOG
        {
            let known = schemas.iter().map(String::as_str);
            return Error::Catalog(catalog::Error::not_found("schema", &schema, known));
        }
        let missed = self.pinned.missed.lock().clone();
        let missing = missed.into_iter().find(|name| {
            let last = name.rsplit('.').next().unwrap_or(name);
            text.contains(&format!(".{last}' not found"))
                || text.contains(&format!(".{last} not found"))
        });
        let Some(missing) = missing else { return error.into() };
        self.no_table(&missing).await
    }
}

/// Plans under a time zone. Functions such as `now()` hold the zone they were made for, so they
/// are made anew.
fn set_time_zone(state: &mut SessionState, zone: &str) -> Result<()> {
    state.config_mut().options_mut().execution.time_zone = Some(zone.to_owned());
    let options = state.config().options();
    let zoned: Vec<_> = state
        .scalar_functions()
        .values()
        .filter_map(|function| function.inner().with_updated_config(options))
        .collect();
    for function in zoned {
        state.register_udf(Arc::new(function))?;
    }
    Ok(())
}

/// The schema in DataFusion's "table 'attune.schema.name' not found".
fn missing_schema(text: &str) -> Option<String> {
    let (_, name) = text.split_once("table 'attune.")?;
    let (schema, _) = name.split_once('.')?;
    (schema != crate::session::SEARCH_PATH).then(|| schema.to_owned())
}

/// Coerces types, so that the columns announced are the columns that will be sent. A plan whose
/// parameters have no type yet is left as it is until they are bound.
pub(crate) fn analyzed(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    // What defines or changes things is taken apart first; its query is coerced when it runs.
    if matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::DescribeTable(_)) {
        return Ok(plan);
    }
    let options = state.config_options();
    if plan.get_parameter_types()?.is_empty() {
        return Ok(state.analyzer().execute_and_check(plan, options, |_, _| {})?);
    }
    let coerced = state.analyzer().execute_and_check(plan.clone(), options, |_, _| {});
    Ok(coerced.unwrap_or(plan))
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
    let rights = Arc::clone(&context.rights);
    let policy_moment = context.policy_moment.clone();
    let keys = context.pinned.keys.lock().iter().cloned().collect();
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
            SqlStatement::Query(_)
            | SqlStatement::Explain { .. }
            | SqlStatement::ExplainTable { .. } => query(context, statement).await,
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
