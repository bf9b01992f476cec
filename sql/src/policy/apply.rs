//! APPLY RETENTION POLICY: rows whose time is over are removed, with every earlier version.
//!
//! A warehouse table is written anew without them, as an erasure does it, when its present version
//! has such rows or its past has. Rows of persons who are held or restricted stay until these are
//! released. Tables over files that Attune does not write are left to their owner: nobody reads
//! their old rows. A server that serves does the same by itself, table by table, one server an
//! interval.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use catalog::policy::{Attached, Principal, Role, RuleSet};
use catalog::{Catalog, Kind, ObjectName, TableFiles};
use datafusion::catalog::TableProvider;

use super::change::{administers, attached, check_kind, known};
use super::retention::{self, Age, Keep};
use super::syntax::{PolicyKind, WrittenOn};
use crate::dml::sent::{name_rows, quoted};
use crate::engine::Engine;
use crate::error::{CatalogError, Error, Result};
use crate::parse::parse_query;
use crate::session::run::{Done, Run};
use crate::session::{Origin, SessionOptions, StatementContext};
use crate::subject::{self, guard};

/// The name that the session of a server gives as its client when it applies policies by itself.
const CLIENT: &str = "retention";
/// How often a table is begun anew when others change it at the same time.
const TRIES: usize = 8;
/// When a server tries again what failed, at the latest at the table's next turn.
const TRIED_AGAIN_MS: i64 = 10 * 60 * 1_000;
/// How often it is noted that a rewriting goes on.
const NOTED_EVERY: Duration = Duration::from_secs(60);

/// What became of a table whose turn it was.
#[derive(Debug)]
pub struct Retained {
    /// Its name.
    pub table: String,
    /// What APPLY said, or why it failed.
    pub outcome: Result<String>,
}

/// Applies the retention policies of tables to which they were not applied for so long, one table
/// after another; of several servers one does. Folders that were left longer than statements read
/// them are removed.
///
/// # Errors
/// When the policies cannot be listed.
pub async fn retain_due(engine: &Engine, every: Duration) -> Result<Vec<Retained>> {
    let every_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
    let catalog = engine.catalog();
    let mut done = Vec::new();
    for (on, rules) in catalog.all_rules().await? {
        let (Attached::Table(table), Some(owner)) = (on, owner(&rules)) else { continue };
        let outcome = match catalog.claim_retention(&table, every_ms).await {
            Ok(true) => {
                let outcome = apply(engine, &table, owner).await;
                if outcome.is_err() && every_ms > TRIED_AGAIN_MS {
                    let last_ms = catalog.now_ms().saturating_sub(every_ms - TRIED_AGAIN_MS);
                    if let Err(error) = catalog.date_retention(&table, last_ms).await {
                        tracing::debug!(%error, %table, "tried again at its next turn");
                    }
                }
                outcome
            }
            Ok(false) => continue,
            Err(error) => Err(error.into()),
        };
        done.push(Retained { table: table.to_string(), outcome });
    }
    catalog.sweep().await;
    Ok(done)
}

/// Whose the first of a table's retention policies is, if it has any.
fn owner(rules: &RuleSet) -> Option<String> {
    let kept = Keep::all(rules).into_iter().next()?;
    rules.policies.get(&kept.policy).map(|policy| policy.owner.clone())
}

async fn apply(engine: &Engine, table: &ObjectName, owner: String) -> Result<String> {
    let origin = Origin::new(Some(CLIENT), None);
    let options = SessionOptions { origin, ..SessionOptions::default() };
    // Also when the owner is no user any more: the policy holds.
    let session = engine.session_with(Principal::new(owner, [Role::PolicyAdmin]), options);
    let (schema, name) = (quoted(&table.schema), quoted(&table.name));
    let text = format!("APPLY RETENTION POLICIES ON {schema}.{name}");
    Ok(session.query(&text).await?.message.unwrap_or_default())
}

/// APPLY RETENTION POLICY, and what EXPLAIN tells of it.
#[derive(Debug, Clone)]
pub(crate) struct Apply {
    /// The one policy; none: all of each table.
    policy: Option<String>,
    tables: Vec<ObjectName>,
}

/// What was done with a table.
struct Applied {
    rows: u64,
    told: String,
}

impl Applied {
    fn nothing(table: &ObjectName, why: &str) -> Self {
        Self { rows: 0, told: format!("{table}: {why}") }
    }
}

/// A warehouse table's rows by what becomes of them.
struct Divided {
    /// Those that stay because they are young.
    young: Arc<dyn TableProvider>,
    /// Those that go.
    over: Arc<dyn TableProvider>,
    /// Those that stay because of whose they are.
    kept: Option<Arc<dyn TableProvider>>,
}

impl Divided {
    async fn of(
        context: &StatementContext,
        table: &ObjectName,
        kept: &[Keep],
        version: u64,
    ) -> Result<Self> {
        let Some(whole) = subject::raw(context, table, Some(version)).await? else {
            return Err(CatalogError::Conflict { name: table.to_string() }.into());
        };
        let (others, held) = guard::removable(context, table, whole).await?;
        let young = retention::rows(context, table, Arc::clone(&others), kept, Age::Young)?;
        let over = retention::rows(context, table, others, kept, Age::Over)?;
        Ok(Self { young, over, kept: held })
    }
}

/// Ends an application that was begun and not finished, also where its statement is killed.
struct Begun {
    catalog: Arc<Catalog>,
    table: ObjectName,
    id: Option<String>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let (catalog, table) = (Arc::clone(&self.catalog), self.table.clone());
        runtime.spawn(async move {
            if let Err(error) = catalog.stop_retention(&table, Some(&id)).await {
                tracing::warn!(%error, %table, "the table takes no rows for five minutes");
            } else {
                sweep(&catalog, &table, &id).await;
            }
        });
    }
}

impl Apply {
    pub(super) async fn plan(
        context: &StatementContext,
        policy: Option<&str>,
        on: Option<&WrittenOn>,
    ) -> Result<Self> {
        administers(context, "apply retention policies")?;
        let catalog = context.engine().catalog();
        let mut tables = Vec::new();
        match on {
            Some(on) => match attached(context, on).await? {
                Attached::Table(table) => tables.push(table),
                Attached::Tag(_) => {
                    return Err(Error::invalid_hint(
                        "a retention policy is on a table",
                        "write ON and the table's name",
                    ));
                }
            },
            None => {
                for (on, rules) in catalog.all_rules().await? {
                    if let (Attached::Table(table), Some(_)) = (on, owner(&rules)) {
                        tables.push(table);
                    }
                }
            }
        }
        if let (Some(policy), [table]) = (policy, tables.as_slice()) {
            let found = known(context, &Attached::Table(table.clone()), policy).await?;
            check_kind(policy, &found, Some(PolicyKind::Retention))?;
        }
        let apply = Self { policy: policy.map(str::to_owned), tables };
        for table in &apply.tables {
            for kept in apply.kept(context, table).await? {
                let applied = format!("retention policy {} on {table}", kept.policy);
                context.used().policies.insert(applied);
            }
        }
        Ok(apply)
    }

    /// The tables whose rows it removes.
    pub(crate) fn tables(&self) -> &[ObjectName] {
        &self.tables
    }

    /// The policies of a table that are applied.
    async fn kept(&self, context: &StatementContext, table: &ObjectName) -> Result<Vec<Keep>> {
        let all = retention::of(context, table).await?;
        let chosen = all.iter().filter(|kept| {
            let policy = self.policy.as_ref();
            policy.is_none_or(|policy| *policy == kept.policy)
        });
        Ok(chosen.cloned().collect())
    }

    /// Removes the rows.
    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        // The rights of this moment: a prepared statement may be older.
        let context = StatementContext::load(&run.session).await?;
        administers(&context, "apply retention policies")?;
        let (mut rows, mut told, mut failed) = (0, Vec::new(), None);
        for table in &self.tables {
            match Box::pin(self.tried(run, table)).await {
                Ok(applied) => {
                    rows += applied.rows;
                    told.push(applied.told);
                }
                // What can be done of the others is done.
                Err(error) => {
                    tracing::warn!(%table, code = error.code(), "retention not applied: {error}");
                    failed = failed.or(Some(error));
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None if told.is_empty() => Ok(Done::new(0, "no table has a retention policy")),
            None => Ok(Done::new(rows, format!("APPLY RETENTION: {}", told.join("; ")))),
        }
    }

    /// Applies the policies to a table, again when somebody else has changed it meanwhile.
    async fn tried(&self, run: &Run, table: &ObjectName) -> Result<Applied> {
        let mut last = None;
        for _ in 0..TRIES {
            match Box::pin(self.once(run, table)).await {
                Err(Error::Catalog(error)) if error.is_lost_race() => last = Some(error),
                other => return other,
            }
        }
        let last = last.unwrap_or_else(|| CatalogError::Conflict { name: table.to_string() });
        Err(last.into())
    }

    async fn once(&self, run: &Run, table: &ObjectName) -> Result<Applied> {
        let context = StatementContext::load(&run.session).await?;
        let catalog = context.engine().catalog();
        match place_of(&context, table).await? {
            Place::Warehouse => {}
            other => return Ok(Applied::nothing(table, other.words())),
        }
        let kept = self.kept(&context, table).await?;
        let begun_ms = catalog.now_ms();
        let version = catalog.table_version(table).await?;
        let divided = Divided::of(&context, table, &kept, version).await?;
        let over = counted(run, &context, divided.over).await?;
        if kept.is_empty() || (over == 0 && !has_past(run, &context, table, &kept).await) {
            return Ok(Applied::nothing(table, "no rows are too old"));
        }
        let applied = self.rewritten(run, table).await?;
        catalog.forget_checked_files(table).await?;
        // A server that does it by itself leaves the files for a while to the statements that read
        // them; who asks for it wants them gone.
        if run.session.origin().client.as_deref() != Some(CLIENT) {
            catalog.purge_table_folders(table, begun_ms).await?;
        }
        Ok(applied)
    }

    /// Writes the rows that stay, while nobody else writes to the table.
    async fn rewritten(&self, run: &Run, table: &ObjectName) -> Result<Applied> {
        let catalog = run.session.engine().catalog();
        let Some((id, version)) = catalog.begin_retention(table).await? else {
            return Ok(Applied::nothing(table, Place::Gone.words()));
        };
        let owned = Arc::clone(catalog);
        let mut begun = Begun { catalog: owned, table: table.clone(), id: Some(id.clone()) };
        let applied = Box::pin(self.written(run, table, (id.as_str(), version))).await;
        if applied.is_err() {
            // Who tries again must not find itself at work.
            catalog.stop_retention(table, Some(&id)).await?;
        }
        begun.id = None;
        sweep(catalog, table, &id).await;
        applied
    }

    /// Writes the rows that stay into a new folder, in place of all that the table had at a
    /// version.
    async fn written(
        &self,
        run: &Run,
        table: &ObjectName,
        (id, version): (&str, u64),
    ) -> Result<Applied> {
        let catalog = run.session.engine().catalog();
        // Whoever is held from now on ends what has begun, so that those are known who were before.
        let context = StatementContext::load(&run.session).await?;
        let kept = self.kept(&context, table).await?;
        let divided = Divided::of(&context, table, &kept, version).await?;
        let rows = counted(run, &context, divided.over).await?;
        let mut keep = format!("SELECT * FROM {}", name_rows(&context, divided.young));
        if let Some(held) = divided.kept {
            keep.push_str(&format!(" UNION ALL SELECT * FROM {}", name_rows(&context, held)));
        }
        let (_, plan) = Box::pin(context.plan_query(parse_query(&keep)?)).await?;
        let state = run.writing_state()?;
        let writing = Box::pin(catalog.finish_table_erasure(table, id, version, plan, &state));
        let written = tokio::select! {
            written = writing => written?,
            taken = taken_over(catalog, table, id) => return Err(taken.into()),
        };
        let version = written.version;
        let told = format!("{table}: {rows} rows removed; versions before {version} are purged");
        Ok(Applied { rows, told })
    }

    /// What APPLY would do.
    pub(crate) async fn explain(&self, run: &Run) -> Result<RecordBatch> {
        let context = StatementContext::load(&run.session).await?;
        administers(&context, "apply retention policies")?;
        let mut lines = Vec::new();
        for table in &self.tables {
            lines.push(Box::pin(self.explained(run, &context, table)).await?);
        }
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let texts = |text: fn(&Line) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(lines.iter().map(text)))
        };
        let numbers = |of: fn(&Line) -> Option<u64>| -> ArrayRef {
            Arc::new(lines.iter().map(|line| of(line).map(number)).collect::<Int64Array>())
        };
        let columns = vec![
            texts(|line| line.table.as_str()),
            texts(|line| line.policies.as_str()),
            texts(|line| line.action),
            numbers(|line| line.rows),
            numbers(|line| line.kept),
            numbers(|line| line.files),
        ];
        Ok(RecordBatch::try_new(explain_schema(), columns)?)
    }

    async fn explained(
        &self,
        run: &Run,
        context: &Arc<StatementContext>,
        table: &ObjectName,
    ) -> Result<Line> {
        let catalog = context.engine().catalog();
        let kept = self.kept(context, table).await?;
        let policies: Vec<String> = kept.iter().map(Keep::to_string).collect();
        let place = place_of(context, table).await?;
        let mut line = Line {
            table: table.to_string(),
            policies: policies.join(", "),
            action: place.words(),
            rows: None,
            kept: None,
            files: None,
        };
        if place == Place::Gone {
            return Ok(line);
        }
        let version = match place {
            Place::Warehouse => Some(catalog.table_version(table).await?),
            _ => None,
        };
        if let Some(version) = version {
            let divided = Divided::of(context, table, &kept, version).await?;
            let rows = counted(run, context, divided.over).await?;
            let held = match divided.kept {
                Some(held) => {
                    let over = retention::rows(context, table, held, &kept, Age::Over)?;
                    counted(run, context, over).await?
                }
                None => 0,
            };
            (line.rows, line.kept) = (Some(rows), Some(held));
            if rows == 0 && !has_past(run, context, table, &kept).await {
                line.action = "nothing: no rows are too old";
            }
        } else if let Some(whole) = subject::raw(context, table, None).await? {
            let over = retention::rows(context, table, whole, &kept, Age::Over)?;
            line.rows = Some(counted(run, context, over).await?);
        }
        let present = catalog.table_files(table, version, context.engine().base()).await?;
        if let Some(files) = present {
            let mut number = in_files(run, context, table, &kept, &files).await?;
            if version.is_some()
                && let Some(files) = catalog.past_files(table, context.engine().base()).await?
            {
                number += in_files(run, context, table, &kept, &files).await?;
            }
            line.files = Some(number);
        }
        Ok(line)
    }
}

/// What EXPLAIN tells of a table.
struct Line {
    table: String,
    policies: String,
    action: &'static str,
    rows: Option<u64>,
    kept: Option<u64>,
    files: Option<u64>,
}

/// The columns of EXPLAIN's answer: a table, its policies, what would be done, how many rows would
/// go, how many are as old and stay because of whose they are, and how many files, of all versions,
/// hold rows that would go.
pub(crate) fn explain_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("table", DataType::Utf8, false),
        Field::new("policies", DataType::Utf8, false),
        Field::new("action", DataType::Utf8, false),
        Field::new("rows", DataType::Int64, true),
        Field::new("kept", DataType::Int64, true),
        Field::new("files", DataType::Int64, true),
    ]))
}

/// Where a table's rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Warehouse,
    Files,
    Gone,
}

impl Place {
    /// What is done there.
    fn words(self) -> &'static str {
        match self {
            Self::Warehouse => "rewrite, and purge every earlier version",
            Self::Files => "hidden from every read; its files are not Attune's to write",
            Self::Gone => "there is no such table",
        }
    }
}

async fn place_of(context: &StatementContext, table: &ObjectName) -> Result<Place> {
    let object = context.engine().catalog().object(table).await?;
    Ok(match object.filter(|object| object.kind == Kind::Table) {
        Some(object) if object.external => Place::Files,
        Some(_) => Place::Warehouse,
        None => Place::Gone,
    })
}

/// How many rows a table has.
async fn counted(
    run: &Run,
    context: &Arc<StatementContext>,
    rows: Arc<dyn TableProvider>,
) -> Result<u64> {
    subject::count(run, context, &name_rows(context, rows), "TRUE").await
}

/// Whether files that only earlier versions name have rows whose time is over. What cannot be read
/// is taken for old: it goes with the rest.
async fn has_past(
    run: &Run,
    context: &Arc<StatementContext>,
    table: &ObjectName,
    kept: &[Keep],
) -> bool {
    let engine = context.engine();
    let found = async {
        match engine.catalog().past_files(table, engine.base()).await? {
            Some(files) => in_files(run, context, table, kept, &files).await,
            None => Ok(0),
        }
    };
    match found.await {
        Ok(files) => files > 0,
        Err(error) => {
            tracing::debug!(%error, %table, "earlier files cannot be read");
            true
        }
    }
}

/// How many of the files have rows that would go.
async fn in_files(
    run: &Run,
    context: &Arc<StatementContext>,
    table: &ObjectName,
    kept: &[Keep],
    files: &TableFiles,
) -> Result<u64> {
    let all: Vec<usize> = (0..files.ids().len()).collect();
    let (others, _) = guard::removable(context, table, files.rows(&all)).await?;
    let over = retention::rows(context, table, others, kept, Age::Over)?;
    let (file, relation) = (catalog::FILE, name_rows(context, over));
    let text = format!("SELECT {file}, count(*) AS n FROM {relation} GROUP BY {file}");
    let (numbers, _) = subject::counted(run, context, &text).await?;
    Ok(numbers.len() as u64)
}

/// Removes what is left of an application of policies that has ended.
async fn sweep(catalog: &Catalog, table: &ObjectName, id: &str) {
    if let Err(error) = catalog.sweep_rewritings(id).await {
        tracing::warn!(%error, %table, "files of a rewriting that has ended stay");
    }
}

/// Waits until somebody else has ended this application of policies, which is noted to go on
/// meanwhile.
async fn taken_over(catalog: &Catalog, table: &ObjectName, id: &str) -> CatalogError {
    loop {
        tokio::time::sleep(NOTED_EVERY).await;
        match catalog.note_retention(table, id).await {
            Err(error) if error.is_lost_race() => return error,
            Err(error) => tracing::warn!(%error, %table, "not noted that its rewriting goes on"),
            Ok(()) => {}
        }
    }
}
