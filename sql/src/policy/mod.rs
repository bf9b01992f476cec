//! Policies: what of a table somebody sees, decided when the table is opened.
//!
//! [`guarded`] stands between the catalog and every plan: what binds the principal becomes a
//! [`barrier`] around the table, and where nothing does there is none. What only a whole statement
//! shows, that a column is not shown and rows come in groups, [`checked`] looks for in its plan.
//! Changes of rows reach those that are left ([`rows`]). Copies of what policies protect carry them
//! along ([`copies`]). [`retention`] leaves rows out for everybody, and [`apply`] removes them.

mod apply;
pub(crate) mod barrier;
pub(crate) mod beside;
mod bound;
mod change;
mod copies;
mod expression;
mod groups;
pub(crate) mod harmless;
mod held;
mod identifiers;
mod lineage;
pub(crate) mod propose;
pub(crate) mod retention;
mod rows;
mod shown;
pub(crate) mod since;
pub(crate) mod syntax;
mod ties;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use catalog::ObjectName;
use catalog::policy::{Attached, Role};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DataFusionStatement;
use parking_lot::Mutex;
use sqlparser::ast::Statement as SqlStatement;

pub(crate) use self::apply::{Apply, explain_schema};
pub use self::apply::{Retained, retain_due};
use self::barrier::Barrier;
use self::bound::Bound;
pub(crate) use self::change::Change;
pub(crate) use self::copies::{Copied, have_an_age};
use self::retention::Keep;
pub(crate) use self::rows::{Parts, RowCheck, computed_of_mask, parts};
use self::since::Versions;
use self::syntax::PolicyStatement;
use crate::dml::sent::quoted;
use crate::error::{Class, Error, Result};
use crate::parse::parse_query;
use crate::session::bindings::Bindings;
use crate::session::plan::analyzed;
use crate::session::planned::plan_datafusion;
use crate::session::{Action, StatementContext};
use crate::subqueries::told;

/// What a statement has met of policies.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    tables: Mutex<BTreeSet<ObjectName>>,
    /// The policies of each table that was opened, with what they were known by.
    versions: Mutex<Versions>,
    /// Those whose policies are being planned.
    planned: Mutex<BTreeSet<ObjectName>>,
    /// The retention policies of each table that was opened.
    kept: Mutex<BTreeMap<ObjectName, Arc<[Keep]>>>,
    declassified: AtomicBool,
}

impl Seen {
    /// The statement reads a table with policies, whether or not they bind its principal, or with
    /// tags that its copies have to have.
    pub(crate) fn met(&self, table: &ObjectName) {
        self.tables.lock().insert(table.clone());
    }

    /// Notes the policies of a table as they are applied; those that were noted first stay.
    fn note_versions(&self, table: &ObjectName, found: BTreeMap<String, String>) {
        let mut known = self.versions.lock();
        let known = known.entry(table.to_string()).or_default();
        for (policy, version) in found {
            known.entry(policy).or_insert(version);
        }
    }

    /// The policies of the tables that were opened, whether or not they bind the principal.
    pub(crate) fn versions(&self) -> Versions {
        self.versions.lock().clone()
    }

    fn tables(&self) -> BTreeSet<ObjectName> {
        self.tables.lock().clone()
    }

    /// Begins to plan a table's policies; `false` where that is under way already, because one of
    /// them reads the table, and would without end.
    fn begin(&self, table: &ObjectName) -> bool {
        self.planned.lock().insert(table.clone())
    }

    fn end(&self, table: &ObjectName) {
        self.planned.lock().remove(table);
    }

    /// The retention policies of a table, once they have been looked up.
    fn kept(&self, table: &ObjectName) -> Option<Arc<[Keep]>> {
        self.kept.lock().get(table).cloned()
    }

    /// Notes a table's retention policies; those that were noted first stay.
    fn keep(&self, table: &ObjectName, kept: Vec<Keep>) -> Arc<[Keep]> {
        let mut known = self.kept.lock();
        Arc::clone(known.entry(table.clone()).or_insert_with(|| kept.into()))
    }

    /// Copies that the statement makes carry no policies.
    fn declassify(&self) {
        self.declassified.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_declassified(&self) -> bool {
        self.declassified.load(Ordering::Relaxed)
    }
}

/// A table as its policies leave it to the statement's principal.
///
/// # Errors
/// When policies cannot be read or applied: then nobody whom they bind may read the table.
pub(crate) async fn guarded(
    context: &Arc<StatementContext>,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
) -> Result<Arc<dyn TableProvider>> {
    let Some(bound) = applied(context, name).await? else { return Ok(table) };
    let barrier = planning(context, name, bound.barrier(context, name, table)).await?;
    Ok(Arc::new(barrier))
}

/// The policies that bind the principal on a table, which the statement has met and applies; `None`
/// where none does.
async fn applied(context: &StatementContext, name: &ObjectName) -> Result<Option<Bound>> {
    let rules = context.engine().catalog().table_rules(name).await?;
    if rules.is_free() {
        return Ok(None);
    }
    context.policies().met(name);
    context.policies().note_versions(name, since::of_rules(&rules)?);
    let bound =
        Bound::of(&rules, context.rights().roles()).map_err(|e| closed(context, name, e))?;
    if bound.is_free() {
        return Ok(None);
    }
    let applied = bound.described.iter().map(|policy| format!("{policy} on {name}"));
    context.used().policies.extend(applied);
    Ok(Some(bound))
}

/// What is planned of a table's policies, none of which may read the table itself.
async fn planning<T>(
    context: &StatementContext,
    name: &ObjectName,
    planned: impl Future<Output = Result<T>>,
) -> Result<T> {
    if !context.policies().begin(name) {
        let error = Error::unsupported(
            format!("a policy of {name} names a hierarchy that is {name} itself, or reads it"),
            "name a hierarchy that is under no such policy",
        );
        return Err(closed(context, name, error));
    }
    let planned = planned.await;
    context.policies().end(name);
    planned.map_err(|error| closed(context, name, error))
}

/// Checks that no policy is on a view: views run as who asks, over tables that have them.
///
/// # Errors
/// When one is, as where a view took the name of a table.
pub(crate) async fn no_policy_on_view(context: &StatementContext, name: &ObjectName) -> Result<()> {
    match context.engine().catalog().table_rules(name).await?.is_free() {
        true => Ok(()),
        false => Err(Error::unsupported(
            format!("{name} is a view, and policies of a table of that name are still there"),
            format!("DROP POLICY … ON {name}, and define them on the tables that it reads"),
        )),
    }
}

/// What somebody is told when a policy cannot be applied: its text is a policy administrator's.
fn closed(context: &StatementContext, name: &ObjectName, error: Error) -> Error {
    let tells = matches!(error.class(), Class::Invalid | Class::Unsupported | Class::NotFound);
    if !tells || context.rights().has(Role::PolicyAdmin) {
        return error;
    }
    Error::Denied {
        principal: context.rights().name().to_owned(),
        action: format!("read {name}: one of its policies cannot be applied"),
        hint: Some("who administers policies learns why from SHOW POLICIES and SELECT".into()),
    }
}

/// The policies that bind the principal on a table.
///
/// # Errors
/// When policies cannot be read.
pub(crate) async fn binding(context: &StatementContext, name: &ObjectName) -> Result<Bound> {
    let rules = context.engine().catalog().table_rules(name).await?;
    Bound::of(&rules, context.rights().roles())
}

/// Checks that a principal sees the whole of a table, because `action` needs that.
///
/// # Errors
/// When a policy binds it.
pub(crate) async fn whole(
    context: &StatementContext,
    name: &ObjectName,
    action: &str,
) -> Result<()> {
    let bound = binding(context, name).await?;
    if bound.is_free() {
        return Ok(());
    }
    Err(Error::Denied {
        principal: context.rights().name().to_owned(),
        action: format!("{action} {name}, of which a policy hides a part ({})", bound.listed()),
        hint: Some("it needs a role that these policies except".into()),
    })
}

/// A statement's plan, once it shows no more than policies let it.
///
/// # Errors
/// When it shows a column that is used only, or rows that come in groups only.
pub(crate) fn checked(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    if !is_bounded(&plan)? {
        return Ok(plan);
    }
    // What writes rows is coerced when it runs, and a cast could fail on a row.
    if matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Dml(_)) {
        for input in plan.inputs() {
            let coerced = analyzed(state, input.clone())?;
            shown::check(&coerced)?;
            groups::enforce(coerced)?;
        }
    }
    shown::check(&plan)?;
    // A sub-query whose group is too small has no row.
    Ok(told(groups::enforce(plan)?)?)
}

/// The same of a plan that was checked before its values were known: a value of another type than
/// was announced makes other casts, and what may fail on a row may tell of it.
///
/// # Errors
/// As [`checked`].
pub(crate) fn checked_with_values(state: &SessionState, plan: &LogicalPlan) -> Result<()> {
    if !is_bounded(plan)? {
        return Ok(());
    }
    checked(state, analyzed(state, plan.clone())?).map(|_| ())
}

/// Whether a plan reads a table with a column that is used only, or rows that come in groups.
fn is_bounded(plan: &LogicalPlan) -> Result<bool> {
    let mut bounded = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            bounded |= barrier::barrier_of(&scan.source, Barrier::bounds_plans) == Some(true);
        }
        Ok(match bounded {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(bounded)
}

/// Plans a statement about policies.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    statement: &PolicyStatement,
) -> Result<(SessionState, Action)> {
    const COLUMNS: &str = "schema, \"table\", tag, name, kind, columns, except_roles";
    match statement {
        PolicyStatement::Show(on) => {
            let filter = match on {
                Some(on) => filter(&change::attached(context, on).await?),
                None => "TRUE".to_owned(),
            };
            let order = "schema, \"table\", tag, name";
            answer(
                context,
                &format!("SELECT {COLUMNS} FROM system.policies WHERE {filter} ORDER BY {order}"),
            )
            .await
        }
        PolicyStatement::ShowRetention(on) => {
            let filter = match on {
                Some(on) => filter(&change::attached(context, on).await?),
                None => "TRUE".to_owned(),
            };
            answer(
                context,
                &format!(
                    "SELECT schema, \"table\", name, columns AS time_column, \"keep\" \
                     FROM system.policies WHERE kind = 'retention' AND {filter} \
                     ORDER BY schema, \"table\", name"
                ),
            )
            .await
        }
        PolicyStatement::Apply { policy, on, explain } => {
            let apply = Apply::plan(context, policy.as_deref(), on.as_ref()).await?;
            let action = match explain {
                true => Action::RetentionReport(apply),
                false => Action::Retention(apply),
            };
            Ok((context.state(&Bindings::default())?, action))
        }
        PolicyStatement::Describe { kind, name, on } => {
            let on = change::attached(context, on).await?;
            let filter = format!("{} AND name = {}", filter(&on), literal(name));
            let policy = change::known(context, &on, name).await?;
            change::check_kind(name, &policy, *kind)?;
            answer(context, &format!("SELECT * FROM system.policies WHERE {filter}")).await
        }
        PolicyStatement::Declassify(statement) => {
            change::administers(context, "declassify")?;
            context.policies().declassify();
            plan_declassified(context, statement).await
        }
        change => {
            let change = Change::plan(context, change).await?;
            Ok((context.state(&Bindings::default())?, Action::Policy(change)))
        }
    }
}

/// Plans what makes a copy, which carries no policies.
async fn plan_declassified(
    context: &Arc<StatementContext>,
    statement: &DataFusionStatement,
) -> Result<(SessionState, Action)> {
    let copies = match statement {
        DataFusionStatement::Statement(tree) => {
            matches!(tree.as_ref(), SqlStatement::CreateTable(_) | SqlStatement::Insert(_))
        }
        _ => false,
    };
    match copies {
        true => Box::pin(plan_datafusion(context, statement)).await,
        false => Err(Error::unsupported(
            "DECLASSIFY is for a statement that copies rows",
            "write DECLASSIFY CREATE TABLE … AS SELECT …, or DECLASSIFY INSERT INTO … SELECT …",
        )),
    }
}

async fn answer(context: &Arc<StatementContext>, text: &str) -> Result<(SessionState, Action)> {
    let (state, plan) = context.plan_query(parse_query(text)?).await?;
    Ok((state, Action::Query(plan)))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn filter(on: &Attached) -> String {
    match on {
        Attached::Table(table) => {
            let (schema, name) = (literal(&table.schema), literal(&table.name));
            format!("schema = {schema} AND {} = {name}", quoted("table"))
        }
        Attached::Tag(tag) => format!("tag = {} AND schema IS NULL", literal(tag)),
    }
}
