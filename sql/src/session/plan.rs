//! What one statement is planned in: who asks, the settings, and what was opened for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use catalog::policy::{PolicyMoment, Role};
use catalog::{ErasuresSeen, ObjectName, Pii};
use datafusion::catalog::TableProvider;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DataFusionStatement;
use parking_lot::{Mutex, MutexGuard};
use sqlparser::ast::{Query, Statement as SqlStatement};
use tokio::sync::OnceCell;

use crate::allow;
use crate::anonymize::AnonymizeRelation;
use crate::audit::Used;
use crate::clean::CleanRelation;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::join::NearestRelation;
use crate::limits::StatementLimits;
use crate::made::charge_to;
use crate::memory::StatementPool;
use crate::model::table_functions::ModelRelations;
use crate::rights::Rights;
use crate::session::bindings::{self, Bindings, References};
use crate::session::schema::StatementCatalog;
use crate::session::{Session, Settings, TableFilter, TableInfo};
use crate::values::ValuesRelation;
use crate::{
    consent, growth, key, model, over_query, policy, private, same_names, size, unread, using,
    value_rows, values,
};

/// What one statement (or view inside it) is planned in.
#[derive(Debug)]
pub(crate) struct StatementContext {
    session: Session,
    settings: Settings,
    schemas: Arc<[String]>,
    rights: Arc<Rights>,
    policy_moment: PolicyMoment,
    started_ms: i64,
    depth: usize,
    pinned: Arc<Pinned>,
}

/// What all parts of one statement share: tables at one version, and names that were missing.
#[derive(Debug, Default)]
struct Pinned {
    target: Mutex<Option<ObjectName>>,
    opened: Mutex<HashMap<ObjectName, Arc<dyn TableProvider>>>,
    /// What stands for rows of a table under a name of the statement's own.
    parts: Mutex<Vec<(ObjectName, Arc<dyn TableProvider>)>>,
    /// The opened tables that show identifiers, each with the one that keeps these apart.
    identifiers: Mutex<BTreeMap<ObjectName, (ObjectName, Pii)>>,
    versions: Mutex<BTreeMap<ObjectName, u64>>,
    missed: Mutex<Vec<String>>,
    keys: Arc<Mutex<BTreeSet<key::UsedKey>>>,
    used: Arc<Mutex<Used>>,
    listed: OnceCell<Arc<Vec<TableInfo>>>,
    /// What was known of erasures before anything was opened, where the statement may write rows.
    erasures: Arc<OnceCell<Arc<ErasuresSeen>>>,
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
        session.engine().catalog().freshen().await;
        let rights = session.rights().await?;
        let purpose = consent::held::effective(settings.purpose.clone(), rights.purposes());
        Ok(Arc::new(Self {
            settings: Settings { purpose, ..settings },
            schemas: session.schemas().await?.into(),
            policy_moment: session.engine().catalog().policy_moment().await?,
            rights,
            session: session.clone(),
            started_ms: session.engine().catalog().now_ms(),
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

    /// The same for a statement whose readings serve another purpose and channel, with nothing
    /// opened yet. What it opens and uses is noted for the whole statement.
    ///
    /// # Errors
    /// When the purpose is not held.
    pub(crate) fn serving(&self, purpose: &str, channel: Option<&str>) -> Result<Arc<Self>> {
        self.rights.purposes().check(self.rights.name(), purpose)?;
        let (purpose, channel) = (Some(purpose.to_owned()), channel.map(str::to_owned));
        self.used().purpose.clone_from(&purpose);
        self.used().channel.clone_from(&channel);
        let settings = Settings { purpose, channel, ..self.settings.clone() };
        let (keys, used) = (Arc::clone(&self.pinned.keys), Arc::clone(&self.pinned.used));
        let erasures = Arc::clone(&self.pinned.erasures);
        let pinned = Pinned { keys, used, erasures, ..Pinned::default() };
        Ok(self.with(settings, self.depth, &Arc::new(pinned)))
    }

    fn with(&self, settings: Settings, depth: usize, pinned: &Arc<Pinned>) -> Arc<Self> {
        let (session, rights) = (self.session.clone(), Arc::clone(&self.rights));
        let (schemas, pinned) = (Arc::clone(&self.schemas), Arc::clone(pinned));
        let (policy_moment, started_ms) = (self.policy_moment.clone(), self.started_ms);
        Arc::new(Self {
            session,
            settings,
            schemas,
            rights,
            policy_moment,
            started_ms,
            depth,
            pinned,
        })
    }

    /// The time at which the statement is asked, in Unix milliseconds: one in all of its parts.
    pub(crate) fn started_ms(&self) -> i64 {
        self.started_ms
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

    /// The rights that the statement is planned with.
    pub(crate) fn shared_rights(&self) -> Arc<Rights> {
        Arc::clone(&self.rights)
    }

    /// The policies that the statement is planned under.
    pub(crate) fn policy_moment(&self) -> PolicyMoment {
        self.policy_moment.clone()
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
        self.used().add_object(name);
        self.hold(name, table);
    }

    /// Gives a table a name in this statement that is no object's.
    pub(crate) fn hold(&self, name: &ObjectName, table: &Arc<dyn TableProvider>) {
        self.pinned.opened.lock().insert(name.clone(), Arc::clone(table));
    }

    /// Notes what is known of erasures, before anything is opened: what the statement writes is
    /// checked against it.
    ///
    /// # Errors
    /// When the warehouse cannot be read.
    pub(crate) async fn see_erasures(&self) -> Result<()> {
        let catalog = self.engine().catalog();
        let seen = async { catalog.see_erasures().await.map(Arc::new) };
        self.pinned.erasures.get_or_try_init(|| seen).await?;
        Ok(())
    }

    /// Notes that all is opened by now that the statement reads.
    pub(crate) fn opened_all(&self) {
        if let Some(seen) = self.pinned.erasures.get() {
            let (mut tables, models) = self.used().opened();
            // Identifiers are read of the files of the table that keeps them apart.
            tables.extend(self.identifiers().into_values().map(|(of, _)| of));
            seen.set_reads(tables, models);
        }
    }

    /// Remembers that a provider stands for rows of a table.
    pub(crate) fn stands_for(&self, name: &ObjectName, part: &Arc<dyn TableProvider>) {
        self.pinned.parts.lock().push((name.clone(), Arc::clone(part)));
    }

    /// Everything that stands for rows of a table.
    pub(crate) fn standing_for(&self, name: &ObjectName) -> Vec<Arc<dyn TableProvider>> {
        let parts = self.pinned.parts.lock();
        let parts = parts.iter().filter(|(of, _)| of == name);
        self.opened(name).into_iter().chain(parts.map(|(_, part)| Arc::clone(part))).collect()
    }

    /// Remembers that a table shows the identifiers that another one keeps apart.
    pub(crate) fn shows_identifiers(&self, name: &ObjectName, of: &ObjectName, pii: &Pii) {
        let apart = (of.clone(), pii.clone());
        self.pinned.identifiers.lock().insert(name.clone(), apart);
    }

    /// The opened tables that show identifiers, each with the one that keeps these apart.
    pub(crate) fn identifiers(&self) -> BTreeMap<ObjectName, (ObjectName, Pii)> {
        self.pinned.identifiers.lock().clone()
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

    /// The keys that the statement uses, and what for.
    pub(crate) fn used_keys(&self) -> Arc<[key::UsedKey]> {
        self.pinned.keys.lock().iter().cloned().collect()
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
        if let Some(seen) = self.pinned.erasures.get() {
            state.config_mut().set_extension(Arc::clone(seen));
        }
        state.register_catalog_list(Arc::new(StatementCatalog::new(Arc::clone(self))));
        bindings::register(&mut state, bindings)?;
        crate::functions::register_session(&mut state, &self.rights, &self.settings)?;
        crate::pg::register(&mut state, self)?;
        let relations = ModelRelations::new(bindings);
        state.register_relation_planner(Arc::new(relations))?;
        state.register_relation_planner(Arc::new(NearestRelation))?;
        state.register_relation_planner(Arc::new(AnonymizeRelation::new(bindings, self)))?;
        state.register_relation_planner(Arc::new(CleanRelation))?;
        state.register_relation_planner(Arc::new(ValuesRelation))?;
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
            growth::check_tree(tree.as_ref(), self.engine().base().scalar_functions())?;
            unread::check(tree.as_ref())?;
            unread::plain(tree);
            model::marked::plain(tree)?;
            over_query::plain(tree)?;
            same_names::apart(tree);
            using::plain(tree)?;
            private = private::rewritten(self.engine(), tree)?;
            references = References::of(tree.as_ref());
            values::plain(tree)?;
        }
        self.pin_versions(&references)?;
        key::bind::check(self, &references.keys)?;
        let bindings = references.load(self).await?;
        self.used().add_models(bindings.loaded.values());
        let mut state = self.state(&bindings)?;
        private::register(&mut state, self, private)?;
        match state.statement_to_plan(statement).await {
            Ok(plan) => {
                size::check(&plan)?;
                let plan = value_rows::computed(plan)?;
                // Rows that became queries count as such.
                size::check(&plan)?;
                growth::check(&plan)?;
                allow::check(&plan)?;
                // What a view reads is looked at where the view stands.
                if self.depth == 0 {
                    private::check(&plan)?;
                    private::checked(&state, &plan)?;
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
        let function =
            text.split_once("Invalid function '").and_then(|(_, rest)| rest.split_once('\''));
        if let Some((function, _)) = function
            && self.engine().base().window_functions().contains_key(function)
        {
            return Error::invalid_hint(
                format!("{function} is a window function, and this call has no OVER"),
                format!("write {function}(…) OVER (), or OVER (PARTITION BY …)"),
            );
        }
        let missed = self.pinned.missed.lock().clone();
        let missing = missed.into_iter().find(|name| {
            let last = name.rsplit('.').next().unwrap_or(name);
            text.contains(&format!(".{last}' not found"))
                || text.contains(&format!(".{last} not found"))
        });
        let Some(missing) = missing else {
            return match Error::from(error) {
                Error::Invalid { what, hint: None } if what.starts_with("table function '") => {
                    let hint = "SHOW FUNCTIONS lists them; files are read by the name that CREATE \
                                EXTERNAL TABLE gives them";
                    Error::invalid_hint(what, hint)
                }
                other => other,
            };
        };
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
