//! Changes of rows: INSERT, DELETE, UPDATE, TRUNCATE on warehouse tables.
//!
//! Never through `TableProvider::delete_from` and the like: DataFusion 55.2 takes the filters from
//! the *optimized* plan, where `WHERE id IN (SELECT …)`, `WHERE false` or `= NULL` have already
//! vanished, and would remove every row. Instead the rows that stay are planned as a SELECT over
//! the principal's own view of the table, at one version, and written as one Delta commit that
//! fails when the table has moved on.

pub(crate) mod ingest;
mod many;
mod rewrite;
mod sent;

use std::sync::Arc;

use catalog::{Kind, ObjectName};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{LogicalPlan, WriteOp};
use datafusion::sql::parser::Statement as DataFusionStatement;
use futures::StreamExt;
use sqlparser::ast::{Statement as SqlStatement, TableObject};

use crate::error::{Error, Result};
use crate::parse::name_parts;
use crate::rights;
use crate::session::run::{Done, Run};
use crate::session::{Action, StatementContext};

/// A change of rows.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Adds the plan's rows, or replaces all rows by them.
    Insert { name: ObjectName, plan: LogicalPlan, overwrite: bool },
    /// Keeps the rows of `keep`; `count` tells how many were changed or removed.
    Rewrite {
        name: ObjectName,
        verb: &'static str,
        version: u64,
        keep: LogicalPlan,
        count: LogicalPlan,
    },
}

impl Change {
    pub(crate) fn plans(&self) -> Vec<&LogicalPlan> {
        match self {
            Self::Insert { plan, .. } => vec![plan],
            Self::Rewrite { keep, count, .. } => vec![keep, count],
        }
    }

    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        let catalog = run.session.engine().catalog();
        match self {
            Self::Insert { name, plan, overwrite } => {
                let plan = run.bound(plan)?;
                let state = run.state.clone();
                let written = catalog.insert(name, plan, state, None, *overwrite).await?;
                Ok(Done::new(written.rows, format!("INSERT {} rows into {name}", written.rows)))
            }
            Self::Rewrite { name, verb, version, keep, count } => {
                let changed = count_rows(run, count).await?;
                if changed > 0 {
                    let plan = run.bound(keep)?;
                    let state = run.state.clone();
                    catalog.insert(name, plan, state, Some(*version), true).await?;
                }
                Ok(Done::new(changed, format!("{verb} {changed} rows of {name}")))
            }
        }
    }
}

async fn count_rows(run: &Run, plan: &LogicalPlan) -> Result<u64> {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    let mut rows = run.start(plan).await?;
    let mut total = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let counts = batch.column(0).as_primitive::<Int64Type>();
        total += counts.values().iter().sum::<i64>();
    }
    Ok(u64::try_from(total).unwrap_or(0))
}

/// Plans a change of rows.
pub(crate) async fn plan(
    context: &Arc<StatementContext>,
    statement: &DataFusionStatement,
    tree: &SqlStatement,
) -> Result<(SessionState, Action)> {
    match tree {
        SqlStatement::Insert(insert) => {
            let TableObject::TableName(name) = &insert.table else {
                return Err(Error::unsupported("INSERT needs a table's name", "see docs/sql.md"));
            };
            if insert.on.is_some() || insert.returning.is_some() {
                return Err(Error::unsupported(
                    "ON CONFLICT and RETURNING are not supported",
                    "use INSERT INTO t SELECT …",
                ));
            }
            let name = target(context, &name_parts(name)).await?;
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
            Ok((state, Action::Rows(Change::Insert { name, plan, overwrite })))
        }
        SqlStatement::Delete(delete) => rewrite::delete(context, delete).await,
        SqlStatement::Update(update) => rewrite::update(context, update).await,
        SqlStatement::Truncate(truncate) => rewrite::truncate(context, truncate).await,
        SqlStatement::Merge(_) => Err(Error::unsupported(
            "MERGE is not supported yet",
            "use UPDATE and INSERT INTO … SELECT … WHERE NOT EXISTS",
        )),
        _ => Err(Error::Internal("this statement changes no rows".into())),
    }
}

/// The warehouse table that a written name means, with the right to change it.
pub(crate) async fn target(
    context: &Arc<StatementContext>,
    parts: &[String],
) -> Result<ObjectName> {
    let catalog = context.engine().catalog();
    let candidates = match parts {
        [name] => {
            context.search_path().into_iter().map(|schema| ObjectName::new(&schema, name)).collect()
        }
        _ => vec![context.target(parts)?],
    };
    for name in &candidates {
        let Some(kind) = catalog.kind(name).await? else { continue };
        if kind != Kind::Table {
            return Err(Error::unsupported(
                format!("{name} is {kind}, whose rows cannot be changed"),
                "only tables made by CREATE TABLE can be changed",
            ));
        }
        rights::may_create(context.session().principal(), name)?;
        return Ok(name.clone());
    }
    let names = context.session().table_names().await?;
    let known: Vec<String> =
        names.into_iter().flat_map(|(schema, name)| [format!("{schema}.{name}"), name]).collect();
    let written = parts.join(".");
    let known = known.iter().map(String::as_str);
    Err(catalog::Error::not_found("table", &written, known).into())
}
