//! DELETE, UPDATE and TRUNCATE as the rows that stay.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use catalog::ObjectName;
use catalog::policy::Privilege;
use datafusion::catalog::TableProvider;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, TableFactor, TableWithJoins, Truncate,
    Update, visit_expressions_mut,
};

use crate::dml::sent::quoted;
use crate::dml::{Change, target};
use crate::error::{Error, Result};
use crate::parse::{name_parts, parse_query};
use crate::session::{Action, StatementContext};

/// A table to change, at the version it has now.
pub(super) struct Target {
    pub(super) name: ObjectName,
    pub(super) alias: String,
    pub(super) version: u64,
}

impl Target {
    async fn of(
        context: &Arc<StatementContext>,
        table: &TableWithJoins,
        privilege: Privilege,
    ) -> Result<Self> {
        if !table.joins.is_empty() {
            return Err(only_one_table());
        }
        Self::of_factor(context, &table.relation, &[privilege]).await
    }

    pub(super) async fn of_factor(
        context: &Arc<StatementContext>,
        table: &TableFactor,
        privileges: &[Privilege],
    ) -> Result<Self> {
        let TableFactor::Table { name, alias, args: None, .. } = table else {
            return Err(only_one_table());
        };
        let parts = name_parts(name);
        let alias = match alias {
            Some(alias) => crate::dialect::folded(&alias.name),
            None => parts.last().cloned().unwrap_or_default(),
        };
        Self::named(context, &parts, alias, privileges).await
    }

    async fn named(
        context: &Arc<StatementContext>,
        parts: &[String],
        alias: String,
        privileges: &[Privilege],
    ) -> Result<Self> {
        // The rows that stay are read and written again, so all of the table has to be readable.
        let needed: Vec<Privilege> =
            privileges.iter().copied().chain([Privilege::Select]).collect();
        let name = target(context, parts, &needed).await?;
        let version = context.engine().catalog().table_version(&name).await?;
        context.pin(&name, version);
        Ok(Self { name, alias, version })
    }

    /// `FROM schema.name AS alias`, quoted.
    pub(super) fn from(&self) -> String {
        let (schema, name) = (quoted(&self.name.schema), quoted(&self.name.name));
        format!("FROM {schema}.{name} AS {}", quoted(&self.alias))
    }

    /// The table itself.
    pub(super) async fn open(
        &self,
        context: &Arc<StatementContext>,
    ) -> Result<Arc<dyn TableProvider>> {
        let table = crate::session::open(context, &self.name).await?;
        let missing = || catalog::Error::not_found("table", &self.name.to_string(), []).into();
        table.ok_or_else(missing)
    }

    async fn rewrite(
        self,
        context: &Arc<StatementContext>,
        verb: &'static str,
        keep: String,
        condition: &str,
    ) -> Result<(SessionState, Action)> {
        let from = self.from();
        let (state, keep) = query(context, &keep).await?;
        let (_, count) =
            query(context, &format!("SELECT count(*) AS n {from} WHERE {condition}")).await?;
        let Self { name, version, .. } = self;
        Ok((state, Action::Rows(Change::Rewrite { name, verb, version, keep, count })))
    }
}

fn only_one_table() -> Error {
    Error::unsupported(
        "DELETE and UPDATE change one table without joins",
        "put the other table into WHERE … IN (SELECT …) or EXISTS (…)",
    )
}

async fn query(context: &Arc<StatementContext>, text: &str) -> Result<(SessionState, LogicalPlan)> {
    context.plan_query(parse_query(text)?).await
}

/// The condition as text; a missing one is true.
///
/// The one column of each `IN (SELECT …)` is renamed: DataFusion 55.2 cannot plan a nested IN over
/// a column whose name it has to repeat.
fn condition(selection: Option<&Expr>) -> String {
    let Some(selection) = selection else { return "true".to_owned() };
    let mut selection = selection.clone();
    let _: ControlFlow<()> = visit_expressions_mut(&mut selection, |expr| {
        if let Expr::InSubquery { subquery, .. } = expr {
            let renamed = format!("SELECT * FROM ({subquery}) AS \"__in\" (\"__value\")");
            if let Ok(query) = parse_query(&renamed) {
                *subquery = query;
            }
        }
        ControlFlow::Continue(())
    });
    format!("({selection})")
}

/// DELETE: rows for which the condition is not true stay, so NULL keeps a row.
pub(crate) async fn delete(
    context: &Arc<StatementContext>,
    delete: &Delete,
) -> Result<(SessionState, Action)> {
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
    let [table] = tables.as_slice() else { return Err(only_one_table()) };
    if delete.using.is_some()
        || delete.returning.is_some()
        || delete.limit.is_some()
        || !delete.order_by.is_empty()
        || !delete.tables.is_empty()
    {
        return Err(only_one_table());
    }
    let target = Target::of(context, table, Privilege::Delete).await?;
    let condition = condition(delete.selection.as_ref());
    let keep = format!("SELECT * {} WHERE ({condition}) IS NOT TRUE", target.from());
    target.rewrite(context, "DELETE", keep, &condition).await
}

/// TRUNCATE: no row stays.
pub(crate) async fn truncate(
    context: &Arc<StatementContext>,
    truncate: &Truncate,
) -> Result<(SessionState, Action)> {
    let [table] = truncate.table_names.as_slice() else { return Err(only_one_table()) };
    let parts = name_parts(&table.name);
    let alias = parts.last().cloned().unwrap_or_default();
    let target = Target::named(context, &parts, alias, &[Privilege::Delete]).await?;
    let keep = format!("SELECT * {} WHERE false", target.from());
    target.rewrite(context, "DELETE", keep, "true").await
}

/// UPDATE: the rows that match, changed, and the others as they are.
pub(crate) async fn update(
    context: &Arc<StatementContext>,
    update: &Update,
) -> Result<(SessionState, Action)> {
    if update.from.is_some()
        || update.returning.is_some()
        || update.limit.is_some()
        || !update.order_by.is_empty()
        || update.or.is_some()
    {
        return Err(only_one_table());
    }
    let target = Target::of(context, &update.table, Privilege::Update).await?;
    let columns = changed_columns(context, &target, &update.assignments).await?;
    let condition = condition(update.selection.as_ref());
    let from = target.from();
    let keep = format!(
        "SELECT {columns} {from} WHERE {condition} \
         UNION ALL SELECT * {from} WHERE ({condition}) IS NOT TRUE"
    );
    target.rewrite(context, "UPDATE", keep, &condition).await
}

/// The table's columns in order, each as itself or as its new value in the column's type.
async fn changed_columns(
    context: &Arc<StatementContext>,
    target: &Target,
    assignments: &[Assignment],
) -> Result<String> {
    let schema = target.open(context).await?.schema();
    let values = assigned(&schema, assignments)?;
    let columns = schema.fields().iter().map(|field| {
        let name = quoted(field.name());
        match values.get(field.name()) {
            Some(value) => format!("arrow_cast(({value}), '{}') AS {name}", field.data_type()),
            None => name,
        }
    });
    Ok(columns.collect::<Vec<_>>().join(", "))
}

/// The new values by column.
pub(super) fn assigned(
    schema: &SchemaRef,
    assignments: &[Assignment],
) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for assignment in assignments {
        let AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(Error::unsupported("SET (a, b) = … is not supported", "SET a = …, b = …"));
        };
        let column = name_parts(name).pop().unwrap_or_default();
        if schema.field_with_name(&column).is_err() {
            let known = schema.fields().iter().map(|field| field.name().as_str());
            return Err(Error::unknown("column", &column, known));
        }
        if values.insert(column.clone(), assignment.value.to_string()).is_some() {
            return Err(Error::invalid(format!("column {column} is set twice")));
        }
    }
    Ok(values)
}
