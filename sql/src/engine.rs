//! The engine: what all sessions share — catalog, memory, functions, learners, running queries.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use catalog::Catalog;
use catalog::policy::Principal;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;

use crate::admission::Admission;
use crate::bounded::{BYTES_MAX, bounded};
use crate::cases::LazyCases;
use crate::concatenation::ConcatenationPlanner;
use crate::consent::ConsentStore;
use crate::error::Result;
use crate::expectation::CheckLog;
use crate::intervals::IntervalLengths;
use crate::model::hidden::HiddenStore;
use crate::patterns::{PatternOperators, patterned};
use crate::planner::AttuneQueryPlanner;
use crate::pushed_filters::FilterPushdown;
use crate::queries::QueryLog;
use crate::rewrites::{Rewrite, Rewrites};
use crate::session::{OpenSessions, Session, SessionOptions};
use crate::subqueries::Subqueries;

/// The name of the one catalog.
pub const CATALOG: &str = "attune";
/// The warehouse's default schema.
pub const MAIN: &str = "main";

/// Limits of the engine and of each statement.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Memory of all statements together, in bytes.
    pub memory_bytes: usize,
    /// Memory of one statement, in bytes.
    pub query_memory_bytes: usize,
    /// Where operators spill; the system's temporary folder when absent.
    pub spill_dir: Option<PathBuf>,
    /// Disk that spilling may use, in bytes.
    pub spill_bytes: u64,
    /// Time of one statement; a model's training is not bound by it.
    pub query_timeout: Option<Duration>,
    /// Rows of one result; more is an error, never a shorter result.
    pub rows_max: Option<u64>,
    /// Bytes of one result, as Arrow holds them; more is an error.
    pub result_bytes_max: Option<u64>,
    /// A reader that stays away from its rows for longer loses them.
    pub reader_idle: Option<Duration>,
    /// Statements that run at once; `None` for any number.
    pub statements_max: Option<usize>,
    /// Statements that wait for a slot; one more is refused.
    pub queue_max: usize,
    /// How long a statement waits for a slot before it is refused.
    pub queue_wait: Duration,
    /// Length of a statement's text, in bytes.
    pub sql_bytes_max: usize,
    /// Parallel partitions of a plan.
    pub target_partitions: usize,
    /// Threads of the learners' pool.
    pub learner_threads: usize,
    /// Consents are looked at anew when that was longer ago.
    pub policy_staleness: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const MEBIBYTE: usize = 1024 * 1024;
        Self {
            memory_bytes: 4096 * MEBIBYTE,
            query_memory_bytes: 2048 * MEBIBYTE,
            spill_dir: None,
            spill_bytes: 20 * 1024 * 1024 * 1024,
            query_timeout: None,
            rows_max: None,
            result_bytes_max: None,
            reader_idle: None,
            statements_max: None,
            queue_max: 1_000,
            queue_wait: Duration::from_secs(60),
            sql_bytes_max: MEBIBYTE,
            target_partitions: 2,
            learner_threads: 2,
            policy_staleness: Duration::from_millis(1_000),
        }
    }
}

/// Turns a new password into what a login checks. The program gives it, as it gives the clock:
/// hashing takes randomness and, on purpose, time.
#[async_trait]
pub trait PasswordHasher: std::fmt::Debug + Send + Sync {
    /// The password's hash, in PHC form; an error is a sentence without the password.
    async fn hash(&self, password: String) -> Result<String, String>;
}

/// Where the noise of private answers comes from. The program gives it, as it gives the clock.
pub trait NoiseSource: std::fmt::Debug + Send + Sync {
    /// A seed for one answer, as good as the operating system has it; tests give their own.
    ///
    /// # Errors
    /// A sentence, when there is no randomness; then there is no answer.
    fn seed(&self) -> Result<[u8; 32], String>;
}

/// What an engine uses at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Sessions that are open.
    pub sessions: usize,
    /// Memory that statements have reserved.
    pub memory_bytes: usize,
    /// Disk that spilled rows take.
    pub spill_bytes: u64,
    /// Memory that loaded models take.
    pub model_cache_bytes: usize,
}

/// One engine a process; a clone is the same engine.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    catalog: Arc<Catalog>,
    limits: Limits,
    base: SessionState,
    runtime: Arc<RuntimeEnv>,
    admission: Admission,
    queries: QueryLog,
    checks: CheckLog,
    consents: ConsentStore,
    hidden_users: HiddenStore,
    passwords: Arc<dyn PasswordHasher>,
    noise: OnceLock<Arc<dyn NoiseSource>>,
    sessions: OpenSessions,
    postgres: crate::pg::Shared,
}

impl Engine {
    /// Builds the engine over an open catalog; `passwords` hashes those of new users.
    ///
    /// # Errors
    /// When the spill folder cannot be used.
    pub fn open(
        catalog: Arc<Catalog>,
        limits: Limits,
        passwords: Arc<dyn PasswordHasher>,
    ) -> Result<Self> {
        let runtime = runtime(&catalog, &limits)?;
        let base = base_state(Arc::clone(&runtime), &limits)?;
        // Learners and vectorized functions share one pool a process; a second engine in it finds
        // the first one's and uses that.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(limits.learner_threads.max(1))
            .thread_name(|index| format!("learner-{index}"))
            .build_global();
        Ok(Self(Arc::new(Shared {
            admission: Admission::new(&limits),
            queries: QueryLog::new(Arc::clone(&catalog)),
            checks: CheckLog::default(),
            consents: ConsentStore::default(),
            hidden_users: HiddenStore::default(),
            sessions: OpenSessions::default(),
            postgres: crate::pg::Shared::default(),
            catalog,
            limits,
            base,
            runtime,
            passwords,
            noise: OnceLock::new(),
        })))
    }

    /// The same engine with a source of noise, without which it gives no private answers. The first
    /// source stays.
    #[must_use]
    pub fn with_noise(self, source: Arc<dyn NoiseSource>) -> Self {
        // Who has an engine must not be able to change its noise.
        let _ = self.0.noise.set(source);
        self
    }

    /// A session for somebody.
    pub fn session(&self, principal: Principal) -> Session {
        self.session_with(principal, SessionOptions::default())
    }

    /// A session for somebody, with where it comes from.
    pub fn session_with(&self, principal: Principal, options: SessionOptions) -> Session {
        Session::new(self.clone(), principal, options)
    }

    /// An id for a statement that is going to run.
    pub fn new_query_id(&self) -> String {
        self.catalog().new_id()
    }

    /// What exists.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.0.catalog
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The statements that run or ran lately.
    pub fn queries(&self) -> &QueryLog {
        &self.0.queries
    }

    /// What tells of each check.
    pub fn checks(&self) -> &CheckLog {
        &self.0.checks
    }

    /// Who consents, by policy and purpose.
    pub(crate) fn consents(&self) -> &ConsentStore {
        &self.0.consents
    }

    /// Whom models must not show, by version.
    pub(crate) fn hidden_users(&self) -> &HiddenStore {
        &self.0.hidden_users
    }

    pub(crate) fn noise(&self) -> Option<&Arc<dyn NoiseSource>> {
        self.0.noise.get()
    }

    pub(crate) fn passwords(&self) -> &Arc<dyn PasswordHasher> {
        &self.0.passwords
    }

    /// The sessions that are open.
    pub fn sessions(&self) -> &OpenSessions {
        &self.0.sessions
    }

    /// The slots that statements run in, and the queue before them.
    pub fn admission(&self) -> &Admission {
        &self.0.admission
    }

    /// What the engine uses now.
    pub fn usage(&self) -> Usage {
        let runtime = &self.0.runtime;
        Usage {
            sessions: self.0.sessions.len(),
            memory_bytes: runtime.memory_pool.reserved(),
            spill_bytes: runtime.disk_manager.used_disk_space(),
            model_cache_bytes: self.0.catalog.model_cache_bytes(),
        }
    }

    pub(crate) fn base(&self) -> &SessionState {
        &self.0.base
    }

    pub(crate) fn postgres(&self) -> &crate::pg::Shared {
        &self.0.postgres
    }

    pub(crate) fn runtime(&self) -> &Arc<RuntimeEnv> {
        &self.0.runtime
    }
}

fn runtime(catalog: &Arc<Catalog>, limits: &Limits) -> Result<Arc<RuntimeEnv>> {
    let consumers = std::num::NonZeroUsize::MIN.saturating_add(4);
    let pool: Arc<dyn MemoryPool> =
        Arc::new(TrackConsumersPool::new(FairSpillPool::new(limits.memory_bytes), consumers));
    let mode = match &limits.spill_dir {
        Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    let disk = DiskManagerBuilder::default()
        .with_mode(mode)
        .with_max_temp_directory_size(limits.spill_bytes);
    let stores: Arc<dyn ObjectStoreRegistry> = Arc::clone(catalog.stores()) as _;
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .with_disk_manager_builder(disk)
        .with_object_store_registry(stores)
        .with_object_list_cache_ttl(Some(catalog.freshness()))
        .build_arc()?;
    Ok(runtime)
}

/// The state that every statement starts from: functions, planner and settings, no catalog.
fn base_state(runtime: Arc<RuntimeEnv>, limits: &Limits) -> Result<SessionState> {
    let mut config = SessionConfig::new()
        .with_target_partitions(limits.target_partitions.max(1))
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, crate::session::SEARCH_PATH)
        .with_information_schema(false)
        .with_parquet_pruning(true)
        .with_parquet_bloom_filter_pruning(true)
        .with_collect_statistics(true);
    let options = config.options_mut();
    options.execution.parquet.pushdown_filters = true;
    // A recursion without a bound would run until the time limit.
    options.execution.enable_recursive_ctes = false;
    // In CASE WHEN a = b THEN a ELSE 0 END the logical plan knows that a is not NULL, the physical
    // one does not, and an aggregation over it would be refused for that.
    options.execution.skip_physical_aggregate_schema_check = true;
    let mut functions = udfs::scalar_functions();
    functions.extend(crate::functions::unbound());
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_query_planner(Arc::new(AttuneQueryPlanner));
    let made_max = BYTES_MAX.min(limits.query_memory_bytes as u64);
    if let Some(known) = builder.scalar_functions().as_mut() {
        for function in known.iter_mut() {
            if let Some(limited) = patterned(function) {
                *function = limited;
            }
            if let Some(limited) = bounded(function, made_max) {
                *function = limited;
            }
        }
        known.extend(functions);
    }
    if let Some(planners) = builder.expr_planners().as_mut() {
        // In front of the planner of lists, which would ask for the type of a chain each time.
        planners.insert(0, Arc::new(ConcatenationPlanner::new(made_max)));
    }
    if let Some(known) = builder.aggregate_functions().as_mut() {
        known.extend(udfs::aggregate_functions());
    }
    if let Some(known) = builder.window_functions().as_mut() {
        known.extend(udfs::window_functions());
    }
    let mut rules = PhysicalOptimizer::new().rules;
    FilterPushdown::replace(&mut rules);
    // Once join sides are chosen, before their inputs are repartitioned.
    let after = rules.iter().position(|rule| rule.name() == "join_selection");
    rules.insert(after.map_or(0, |at| at + 1), Arc::new(crate::join::FuzzyJoin));
    rules.push(Arc::new(crate::join::CorrelatedNotIn));
    builder = builder.with_physical_optimizer_rules(rules);
    // Tables come from the catalog only.
    if let Some(factories) = builder.table_factories().as_mut() {
        factories.clear();
    }
    let functions = builder.scalar_functions().iter().flatten();
    let rules = analyzer_rules(PatternOperators::new(functions));
    Ok(builder.with_analyzer_rules(rules).build())
}

/// DataFusion's rules, with what becomes of sub-queries and expressions before types are coerced
/// and after.
fn analyzer_rules(patterns: Option<PatternOperators>) -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let intervals = Arc::new(IntervalLengths::new());
    let mut rewrites: Vec<Rewrite> = Vec::new();
    rewrites.extend(patterns.map(|patterns| Arc::new(patterns) as Rewrite));
    rewrites.push(Arc::clone(&intervals) as Rewrite);
    let mut rules = Analyzer::new().rules;
    rules.insert(0, Arc::new(Rewrites(rewrites)));
    rules.insert(0, Arc::new(Subqueries));
    rules.push(intervals);
    rules.push(Arc::new(LazyCases));
    rules
}
