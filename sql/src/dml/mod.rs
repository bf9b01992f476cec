//! Changes of rows: INSERT, DELETE, UPDATE, MERGE, TRUNCATE on warehouse tables.
//!
//! Never through `TableProvider::delete_from` and the like: DataFusion 55.2 takes the filters from
//! the *optimized* plan, where `WHERE id IN (SELECT …)`, `WHERE false` or `= NULL` have already
//! vanished, and would remove every row. Instead the rows that stay are planned as a SELECT over
//! the principal's own view of the table, at one version, and written as one Delta commit that
//! fails when the table has moved on. Rows that the principal does not see stay as they are, and
//! new ones have to be such that row access policies would not hide them. Whatever is written
//! passes the table's expectations of severity `error` on its way.

pub(crate) mod ingest;
mod many;
mod merge;
mod rewrite;
pub(crate) mod sent;
mod steady;

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::policy::Privilege;
use catalog::{Kind, Object, ObjectName};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{LogicalPlan, WriteOp};
use datafusion::sql::parser::Statement as DataFusionStatement;
use futures::StreamExt;
use sqlparser::ast::{Insert, ObjectName as SqlName, Statement as SqlStatement, TableObject};

pub(crate) use self::rewrite::typed;
pub(crate) use self::steady::varies;
use crate::error::{Error, Result};
use crate::expectation::load::{Guard, Rows};
use crate::parse::name_parts;
use crate::policy::RowCheck;
use crate::rights::Rights;
use crate::session::run::{Done, Run};
use crate::session::{Action, StatementContext};
use crate::subject::copies::{Copies, Target};
use crate::{consent, policy, subject, unread};

/// A change of rows.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Adds the plan's rows, or replaces all rows by them.
    Insert {
        name: ObjectName,
        plan: LogicalPlan,
        overwrite: bool,
        /// What new rows have to be.
        check: Option<Arc<RowCheck>>,
        /// The ids of persons that come with them.
        copies: Box<Copies>,
    },
    /// Adds those of a consent token's choices that the table does not have yet; `count` tells how
    /// many the token has, and how many of them are new.
    Record {
        name: ObjectName,
        plan: LogicalPlan,
        check: Option<Arc<RowCheck>>,
        copies: Box<Copies>,
        count: LogicalPlan,
    },
    /// Keeps the rows of `keep`; `count` tells how many were changed or removed.
    Rewrite {
        name: ObjectName,
        verb: &'static str,
        version: u64,
        keep: LogicalPlan,
        /// What the rows of `keep` are to the table.
        rows: Rows,
        /// What new rows have to be.
        check: Option<Arc<RowCheck>>,
        count: LogicalPlan,
        /// The ids of persons that come into the table.
        copies: Box<Copies>,
    },
    /// Writes what comes of every meeting of two tables' rows.
    Merge(Box<MergePlan>),
}

/// A planned MERGE.
#[derive(Debug, Clone)]
pub(crate) struct MergePlan {
    pub(crate) name: ObjectName,
    pub(crate) version: u64,
    /// The table's rows afterwards, and whether each is new or changed.
    pub(crate) keep: LogicalPlan,
    /// What new rows have to be.
    pub(crate) check: Option<Arc<RowCheck>>,
    /// Rows inserted, updated and deleted, and how many changes too many rows would have had.
    pub(crate) counts: LogicalPlan,
    /// The ids of persons that come into the table.
    pub(crate) copies: Copies,
}

impl MergePlan {
    async fn run(&self, run: &Run) -> Result<Done> {
        let [inserted, updated, deleted, twice] = count_rows(run, &self.counts).await?;
        let name = &self.name;
        if twice > 0 {
            return Err(Error::invalid_hint(
                format!(
                    "MERGE would change rows of {name} more than once ({twice} times too many)"
                ),
                "make the source have one row for each row it meets, by GROUP BY or DISTINCT",
            ));
        }
        let changed = inserted + updated + deleted;
        if changed > 0 {
            let rows = tested(run, &self.keep, Rows::Changed, self.check.as_deref()).await?;
            announce(run, name, &self.copies).await?;
            rewrite(run, name, rows, Rows::Changed, self.version).await?;
        }
        let message =
            format!("MERGE into {name}: {inserted} inserted, {updated} updated, {deleted} deleted");
        Ok(Done::new(changed, message))
    }
}

impl Change {
    pub(crate) fn plans(&self) -> Vec<&LogicalPlan> {
        match self {
            Self::Insert { plan, .. } => vec![plan],
            Self::Record { plan, count, .. } => vec![plan, count],
            Self::Rewrite { keep, count, .. } => vec![keep, count],
            Self::Merge(merge) => vec![&merge.keep, &merge.counts],
        }
    }

    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        match self {
            Self::Insert { name, plan, overwrite, check, copies } => {
                let rows = if *overwrite { Rows::Replaced } else { Rows::Added };
                let rows = insert(run, name, plan, rows, (check.as_deref(), copies)).await?;
                Ok(Done::new(rows, format!("INSERT {rows} rows into {name}")))
            }
            Self::Record { name, plan, check, copies, count } => {
                let [told, new] = count_rows(run, count).await?;
                let message = match (told, new) {
                    (0, _) => "no token is in force, nothing was recorded".to_owned(),
                    (_, 0) => format!("{name} has what the token says, nothing was recorded"),
                    _ => {
                        let with = (check.as_deref(), copies.as_ref());
                        let rows = insert(run, name, plan, Rows::Added, with).await?;
                        return Ok(Done::new(rows, format!("RECORD {rows} choices in {name}")));
                    }
                };
                Ok(Done::new(0, message))
            }
            Self::Rewrite { name, verb, version, keep, rows, check, count, copies } => {
                let [changed] = count_rows(run, count).await?;
                if changed > 0 {
                    let keep = tested(run, keep, *rows, check.as_deref()).await?;
                    announce(run, name, copies).await?;
                    rewrite(run, name, keep, *rows, *version).await?;
                }
                Ok(Done::new(changed, format!("{verb} {changed} rows of {name}")))
            }
            Self::Merge(merge) => merge.run(run).await,
        }
    }
}

/// A plan with the run's values, which fails where a new row is not what it has to be.
async fn tested(
    run: &Run,
    plan: &LogicalPlan,
    rows: Rows,
    check: Option<&RowCheck>,
) -> Result<LogicalPlan> {
    match check {
        None => run.bound(plan),
        Some(check) => check.over(&run.state, run.physical(plan).await?, rows == Rows::Changed),
    }
}

/// Writes the rows of a plan into a table, if they meet what is expected of them; how many they
/// were.
async fn insert(
    run: &Run,
    name: &ObjectName,
    plan: &LogicalPlan,
    rows: Rows,
    (check, copies): (Option<&RowCheck>, &Copies),
) -> Result<u64> {
    let plan = tested(run, plan, rows, check).await?;
    let guard = Guard::new(run, name, plan, rows).await?;
    let (catalog, state) = (run.session.engine().catalog(), run.writing_state()?);
    let (plan, version, overwrite) = (guard.plan(), guard.version(), rows == Rows::Replaced);
    announce(run, name, copies).await?;
    let written = catalog.insert(name, plan, state, version, overwrite).await;
    let written = guard.finish(run, written.map_err(Error::from)).await?;
    Ok(written.rows)
}

/// Says which ids come into a table, before they do: no request of a person misses them.
async fn announce(run: &Run, name: &ObjectName, copies: &Copies) -> Result<()> {
    let catalog = run.session.engine().catalog();
    catalog.announce_copies(name, &copies.0).await?;
    Ok(())
}

/// Writes a table's rows anew, if they meet what is expected of them and the table is still at the
/// version that they were planned at.
async fn rewrite(
    run: &Run,
    name: &ObjectName,
    keep: LogicalPlan,
    rows: Rows,
    version: u64,
) -> Result<()> {
    let guard = Guard::new(run, name, keep, rows).await?;
    let (catalog, state) = (run.session.engine().catalog(), run.writing_state()?);
    let written = catalog.insert(name, guard.plan(), state, Some(version), true).await;
    guard.finish(run, written.map_err(Error::from)).await.map(|_| ())
}

/// The sums of a plan's first columns, which are counts.
async fn count_rows<const N: usize>(run: &Run, plan: &LogicalPlan) -> Result<[u64; N]> {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    let mut rows = run.start(plan).await?;
    let mut totals = [0; N];
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        for (total, column) in totals.iter_mut().zip(batch.columns()) {
            let counts = column.as_primitive::<Int64Type>();
            let sum: i64 = counts.values().iter().sum();
            *total += u64::try_from(sum).unwrap_or(0);
        }
    }
    Ok(totals)
}

/// Plans a change of rows.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    statement: &DataFusionStatement,
    tree: &SqlStatement,
) -> Result<(SessionState, Action)> {
    unread::check(tree)?;
    match tree {
        SqlStatement::Insert(insert) => insertion(context, statement, insert, false).await,
        SqlStatement::Delete(delete) => rewrite::delete(context, delete).await,
        SqlStatement::Update(update) => rewrite::update(context, update).await,
        SqlStatement::Truncate(truncate) => rewrite::truncate(context, truncate).await,
        SqlStatement::Merge(merge) => merge::merge(context, merge).await,
        _ => Err(Error::Internal("this statement changes no rows".into())),
    }
}

/// Plans an INSERT. `says_whose`: each row says itself whose it is, whatever it was made of.
pub(crate) async fn insertion(
    context: &Arc<StatementContext>,
    statement: &DataFusionStatement,
    insert: &Insert,
    says_whose: bool,
) -> Result<(SessionState, Action)> {
    let TableObject::TableName(name) = &insert.table else {
        return Err(Error::unsupported("INSERT needs a table's name", "see docs/sql.md"));
    };
    if insert.on.is_some() || insert.returning.is_some() {
        return Err(Error::unsupported(
            "ON CONFLICT and RETURNING are not supported",
            "use INSERT INTO t SELECT …",
        ));
    }
    check_once(&insert.columns)?;
    let needed = match insert.overwrite {
        true => &[Privilege::Insert, Privilege::Delete][..],
        false => &[Privilege::Insert],
    };
    let name = target(context, &name_parts(name), needed).await?;
    if insert.overwrite {
        may_replace(context, &name, "replace the rows of").await?;
        subject::guard::may_overwrite(context, &name).await?;
        context.engine().catalog().check_append_only(&name).await?;
    }
    context.write_to(&name);
    let (state, plan) = context.plan_statement(statement.clone()).await?;
    let LogicalPlan::Dml(dml) = plan else {
        return Err(Error::Internal("INSERT was planned as something else".into()));
    };
    let overwrite = match dml.op {
        WriteOp::Insert(InsertOp::Append) => false,
        WriteOp::Insert(InsertOp::Overwrite) => true,
        other => {
            let what = format!("{} is not supported", other.name());
            return Err(Error::unsupported(what, "use INSERT INTO"));
        }
    };
    let plan = Arc::unwrap_or_clone(dml.input);
    let fields = plan.schema().fields().iter();
    let columns: Vec<String> = fields.map(|field| field.name().clone()).collect();
    // Whose the rows are is told before which tags their columns need.
    consent::copies::may_insert(context, &name, &plan).await?;
    check_copy(context, &plan, &columns, &name, false).await?;
    let to = if says_whose { Target::Told(&name) } else { Target::Changed(&name) };
    let copies = Box::new(Copies::of(context, &plan, &columns, to).await?);
    let check = RowCheck::of(context, &name, plan.schema().as_arrow()).await?;
    Ok((state, Action::Rows(Change::Insert { name, plan, overwrite, check, copies })))
}

/// Refuses a column that an INSERT names more than once.
fn check_once(columns: &[SqlName]) -> Result<()> {
    let mut named = BTreeSet::new();
    for column in columns {
        let name = name_parts(column).join(".");
        if !named.insert(name.clone()) {
            return Err(Error::invalid_hint(
                format!("INSERT names the column {name} twice"),
                "name each column once, with one value for it",
            ));
        }
    }
    Ok(())
}

/// Checks that a plan's values may come into columns of a table: those of a protected one only
/// where they are protected as well. `in_place`: the rows are there already.
async fn check_copy(
    context: &Arc<StatementContext>,
    plan: &LogicalPlan,
    columns: &[String],
    name: &ObjectName,
    in_place: bool,
) -> Result<()> {
    let copied = policy::Copied::of(context, plan, columns, Some(name), in_place).await?;
    copied.check_into(context.engine().catalog(), name).await
}

/// The ids of persons that come into a table with the rows of a plan, whose last column is a mark
/// that is not written.
async fn copies_in(
    context: &Arc<StatementContext>,
    plan: &LogicalPlan,
    name: &ObjectName,
) -> Result<Copies> {
    let fields = plan.schema().fields();
    let written = fields.iter().take(fields.len().saturating_sub(1));
    let columns: Vec<String> = written.map(|field| field.name().clone()).collect();
    Copies::of(context, plan, &columns, Target::Changed(name)).await
}

/// Checks that all rows of a table may go at once, those that the principal does not see too.
async fn may_replace(context: &StatementContext, name: &ObjectName, action: &str) -> Result<()> {
    match policy::whole(context, name, action).await {
        Err(Error::Denied { principal, action, .. }) => {
            let hint = "DELETE and INSERT change the rows that you see; all of them at once are for \
                        a role that these policies except";
            Err(Error::Denied { principal, action, hint: Some(hint.into()) })
        }
        Err(other) => Err(other),
        Ok(()) => consent::may_replace(context, name),
    }
}

/// The warehouse table that a written name means, with the rights to change it.
pub(crate) async fn target(
    context: &Arc<StatementContext>,
    parts: &[String],
    needed: &[Privilege],
) -> Result<ObjectName> {
    let seen = |rights: &Rights, name: &ObjectName, object: &Object| match object.kind {
        Kind::Model => rights.may_use(name, object.owner.as_deref()),
        _ => rights.access(name, Some(object)).is_any(),
    };
    let Some((name, object)) = context.find(parts, seen).await? else {
        return Err(context.no_table(&parts.join(".")).await);
    };
    if object.kind != Kind::Table {
        return Err(Error::unsupported(
            format!("{name} is a {}, whose rows cannot be changed", object.kind),
            "only tables made by CREATE TABLE can be changed",
        ));
    }
    let access = context.rights().access(&name, Some(&object));
    match needed.iter().find(|privilege| !access.allows(**privilege)) {
        Some(missing) => Err(context.rights().no_change(*missing, &name)),
        None => Ok(name),
    }
}
