//! DELETE, UPDATE and TRUNCATE as the rows that stay.
//!
//! The rows that stay are written with all of their columns, whatever of them the principal may
//! read: who has UPDATE or DELETE needs SELECT on the columns of conditions and new values alone.
//! These are planned over what the principal sees first; then the whole table stands in its place
//! under a name that nobody can guess, so that no sub-query reaches it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use catalog::policy::Privilege;
use catalog::{ObjectName, Opened};
use datafusion::catalog::TableProvider;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, TableFactor, TableWithJoins, Truncate,
    Update, visit_expressions_mut,
};

use crate::dml::sent::{free, quoted};
use crate::dml::{Change, check_copy, target};
use crate::error::{Error, Result};
use crate::expectation::load::Rows;
use crate::parse::{name_parts, parse_query};
use crate::rights::Columns;
use crate::session::{Action, StatementContext};
use crate::subject::copies::Copies;
use crate::subject::guard;

/// A table to change, at the version it has now.
pub(super) struct Target {
    pub(super) name: ObjectName,
    pub(super) alias: String,
    pub(super) version: u64,
    /// What stands for the table in FROM, with all of its columns.
    relation: String,
    schema: SchemaRef,
    /// What the principal sees of it.
    seen: Seen,
    /// What stands for the rows of restricted persons, which no change reaches.
    restricted: Option<String>,
}

/// What a principal sees of a table that it may change.
enum Seen {
    All,
    /// Some columns.
    Columns(SchemaRef),
    Nothing,
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
        let name = target(context, parts, privileges).await?;
        crate::private::no_changes(context, &name).await?;
        // The rows that stay are written anew: those that a policy hides would be lost, and masks
        // would take the place of values.
        crate::policy::whole(context, &name, "change rows of").await?;
        let governed = crate::consent::may_rewrite(context, &name)?;
        let catalog = context.engine().catalog();
        let version = catalog.table_version(&name).await?;
        context.pin(&name, version);
        let marked = catalog.marked_columns(&name).await?;
        let missing = || Error::from(catalog::Error::not_found("table", &name.to_string(), []));
        let seen = match context.access(&name).await.select {
            Columns::None => None,
            _ => crate::session::open(context, &name).await?,
        };
        let base = context.engine().base();
        let Some(Opened::Table(whole)) = catalog.open_table(&name, Some(version), base).await?
        else {
            return Err(missing());
        };
        let schema = whole.schema();
        let (whole, restricted) = guard::parts(context, whole, &marked).await?;
        let restricted = restricted.map(|rows| hidden(context, &name, rows));
        // What was opened above leaves out whom it knew to be restricted: were it others, rows
        // would be lost, or be there twice.
        if catalog.marked_columns(&name).await? != marked {
            return Err(catalog::Error::Conflict { name: name.to_string() }.into());
        }
        let plain = format!("{}.{}", quoted(&name.schema), quoted(&name.name));
        let (relation, seen) = match seen.map(|seen| seen.schema()) {
            // Rows that a purpose does not show are rewritten too.
            Some(seen) if !governed && seen.fields().len() == schema.fields().len() => {
                (plain, Seen::All)
            }
            Some(seen) => (hidden(context, &name, whole), Seen::Columns(seen)),
            None => (hidden(context, &name, whole), Seen::Nothing),
        };
        Ok(Self { name, alias, version, relation, schema, seen, restricted })
    }

    /// `FROM schema.name AS alias`, quoted.
    pub(super) fn from(&self) -> String {
        format!("FROM {} AS {}", self.relation, quoted(&self.alias))
    }

    /// All of the table's columns.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// A column that the table does not have, quoted: it tells which rows are new or changed.
    pub(super) fn mark(&self) -> String {
        free("__loaded", |name| self.schema.field_with_name(name).is_ok())
    }

    /// A query of the rows that the table has afterwards, with those of restricted persons as they
    /// are.
    pub(super) fn with_restricted(&self, keep: String, rows: Rows) -> String {
        let Some(restricted) = &self.restricted else { return keep };
        let mark = match rows {
            Rows::Changed => format!(", FALSE AS {}", self.mark()),
            _ => String::new(),
        };
        format!("{keep} UNION ALL SELECT *{mark} FROM {restricted}")
    }

    /// The error for a column that the table does not have.
    pub(super) fn unknown(&self, column: &str) -> Error {
        let seen = match &self.seen {
            Seen::All => Some(&self.schema),
            Seen::Columns(seen) => Some(seen),
            Seen::Nothing => None,
        };
        let known = seen.into_iter().flat_map(|seen| seen.fields());
        let known: Vec<&str> = known.map(|field| field.name().as_str()).collect();
        match known.is_empty() {
            true => Error::invalid(format!("column {column} does not exist")),
            false => Error::unknown("column", column, known),
        }
    }

    /// Plans expressions over what the principal sees of the table, and of `joined` beside it.
    ///
    /// # Errors
    /// When one of them needs more than that.
    pub(super) async fn check(
        &self,
        context: &Arc<StatementContext>,
        expressions: &[String],
        joined: &str,
    ) -> Result<()> {
        let seen = match &self.seen {
            Seen::All => return Ok(()),
            Seen::Columns(_) => {
                format!("{}.{}", quoted(&self.name.schema), quoted(&self.name.name))
            }
            Seen::Nothing => format!("(SELECT 1 AS {NOTHING})"),
        };
        let named = expressions.iter().enumerate();
        let named = named.map(|(at, expression)| format!(", ({expression}) AS \"__{at}\""));
        let text = format!(
            "SELECT 1{} FROM {seen} AS {} {joined}",
            named.collect::<String>(),
            quoted(&self.alias)
        );
        match (query(context, &text).await, &self.seen) {
            (Ok(_), _) => Ok(()),
            (Err(error), Seen::Nothing) if error.to_string().starts_with("column ") => {
                Err(context.rights().no_change(Privilege::Select, &self.name))
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn rewrite(
        self,
        context: &Arc<StatementContext>,
        verb: &'static str,
        keep: String,
        rows: Rows,
        condition: &str,
    ) -> Result<(SessionState, Action)> {
        let from = self.from();
        let keep = self.with_restricted(keep, rows);
        let (state, keep) = query(context, &keep).await?;
        let mut copies = Copies::default();
        if rows == Rows::Changed {
            copies = check_copy(context, &keep, &self.name, 1).await?;
            crate::consent::copies::may_add(context, &self.name, &keep).await?;
        }
        let (_, count) =
            query(context, &format!("SELECT count(*) AS n {from} WHERE {condition}")).await?;
        let Self { name, version, .. } = self;
        let copies = Box::new(copies);
        let change = Change::Rewrite { name, verb, version, keep, rows, count, copies };
        Ok((state, Action::Rows(change)))
    }
}

/// The column of a table of which nothing is seen.
const NOTHING: &str = "\"__nothing\"";

/// Gives rows of a whole table a name in this statement.
fn hidden(context: &StatementContext, of: &ObjectName, table: Arc<dyn TableProvider>) -> String {
    context.stands_for(of, &table);
    let name = format!("target {}", context.engine().catalog().new_id());
    let path = context.search_path();
    let schema = path.first().map_or(crate::engine::MAIN, String::as_str);
    context.remember(&ObjectName::new(schema, &name), &table);
    quoted(&name)
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
    target.check(context, &[], &format!("WHERE {condition}")).await?;
    let keep = format!("SELECT * {} WHERE ({condition}) IS NOT TRUE", target.from());
    target.rewrite(context, "DELETE", keep, Rows::Left, &condition).await
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
    target.rewrite(context, "DELETE", keep, Rows::Left, "true").await
}

/// UPDATE: the rows that match, changed, and the others as they are, and which of them are which.
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
    let values = assigned(&target, &update.assignments)?;
    let condition = condition(update.selection.as_ref());
    let expressions: Vec<String> = values.values().cloned().collect();
    target.check(context, &expressions, &format!("WHERE {condition}")).await?;
    let columns = changed_columns(&target, &values);
    let (from, mark) = (target.from(), target.mark());
    let keep = format!(
        "SELECT {columns}, TRUE AS {mark} {from} WHERE {condition} \
         UNION ALL SELECT *, FALSE AS {mark} {from} WHERE ({condition}) IS NOT TRUE"
    );
    target.rewrite(context, "UPDATE", keep, Rows::Changed, &condition).await
}

/// A value in a column's type.
pub(crate) fn typed(value: &str, data_type: &DataType) -> String {
    let named = data_type.to_string().replace('\'', "''");
    format!("arrow_cast(({value}), '{named}')")
}

/// The table's columns in order, each as itself or as its new value in the column's type.
fn changed_columns(target: &Target, values: &BTreeMap<String, String>) -> String {
    let columns = target.schema().fields().iter().map(|field| {
        let name = quoted(field.name());
        match values.get(field.name()) {
            Some(value) => format!("{} AS {name}", typed(value, field.data_type())),
            None => name,
        }
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// The new values by column.
pub(super) fn assigned(
    target: &Target,
    assignments: &[Assignment],
) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for assignment in assignments {
        let AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(Error::unsupported("SET (a, b) = … is not supported", "SET a = …, b = …"));
        };
        let column = name_parts(name).pop().unwrap_or_default();
        if target.schema().field_with_name(&column).is_err() {
            return Err(target.unknown(&column));
        }
        if values.insert(column.clone(), assignment.value.to_string()).is_some() {
            return Err(Error::invalid(format!("column {column} is set twice")));
        }
    }
    Ok(values)
}
