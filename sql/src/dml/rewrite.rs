//! DELETE, UPDATE and TRUNCATE as the rows that stay.
//!
//! A change reaches the rows that the principal sees: those of restricted persons, of persons who
//! do not consent to the purpose, and those that row access policies hide are written as they are,
//! and nothing of the statement is computed of them. The rows that stay are written with all of
//! their columns, whatever of them the principal may read: who has UPDATE or DELETE needs SELECT on
//! the columns of conditions and new values alone, and sees the mask of a masked one. Both are
//! planned over what the principal sees first; then the rows with all columns stand in the table's
//! place under a name that nobody can guess, so that no sub-query reaches it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use catalog::policy::Privilege;
use catalog::subject_marks::MarkedColumn;
use catalog::{ObjectName, Opened};
use datafusion::catalog::TableProvider;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, TableFactor, TableWithJoins, Truncate,
    Update, visit_expressions_mut,
};

use crate::dml::sent::{free, quoted};
use crate::dml::{Change, check_copy, copies_in, may_replace, steady, target};
use crate::error::{Error, Result};
use crate::expectation::load::Rows;
use crate::parse::{name_parts, parse_query};
use crate::policy::{RowCheck, retention};
use crate::rights::Columns;
use crate::session::{Action, StatementContext};
use crate::subject::copies::Copies;
use crate::subject::guard;
use crate::{consent, policy};

/// A table to change, at the version it has now.
pub(super) struct Target {
    pub(super) name: ObjectName,
    pub(super) alias: String,
    pub(super) version: u64,
    /// What stands in FROM for the rows that a change may reach, with all of the table's columns.
    relation: String,
    schema: SchemaRef,
    /// What the principal sees of the table; `None`: nothing.
    seen: Option<SchemaRef>,
    /// By masked column, what `relation` calls its own values.
    own: BTreeMap<String, String>,
    /// By column that a mask is computed of, the column that has the mask.
    deciding: BTreeMap<String, String>,
    /// What stands for the rows that no change reaches.
    untouched: Vec<String>,
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
        context.engine().catalog().check_append_only(&name).await?;
        let catalog = context.engine().catalog();
        let version = catalog.table_version(&name).await?;
        context.pin(&name, version);
        let marked = catalog.marked_columns(&name).await?;
        let seen = match context.access(&name).await.select {
            Columns::None => None,
            _ => crate::session::open(context, &name).await?.map(|seen| seen.schema()),
        };
        let (whole, restricted) = unrestricted(context, &name, version, &marked).await?;
        let schema = whole.schema();
        let (rows, over) = retention::parts(context, &name, whole).await?;
        let (rows, without_consent) = consent::parts(context, &name, rows).await?;
        let policy::Parts { rows, own, deciding, hidden: by_policy } =
            policy::parts(context, &name, rows).await?;
        let relation = hidden(context, &name, rows);
        let untouched = [restricted, over, without_consent, by_policy].into_iter().flatten();
        let untouched = untouched.map(|rows| hidden(context, &name, rows)).collect();
        Ok(Self { name, alias, version, relation, schema, seen, own, deciding, untouched })
    }

    /// `FROM relation AS alias`, quoted.
    pub(super) fn from(&self) -> String {
        format!("FROM {} AS {}", self.relation, quoted(&self.alias))
    }

    /// All of the table's columns.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// A column's own value, whatever the principal sees in its place, quoted.
    pub(super) fn value(&self, column: &str) -> String {
        quoted(self.own.get(column).map_or(column, String::as_str))
    }

    /// The table's columns in order, each as itself or as its new value in the column's type.
    fn columns(&self, values: &BTreeMap<String, String>) -> String {
        let columns = self.schema.fields().iter().map(|field| {
            let value = match values.get(field.name()) {
                Some(value) => typed(value, field.data_type()),
                None => self.value(field.name()),
            };
            format!("{value} AS {}", quoted(field.name()))
        });
        columns.collect::<Vec<_>>().join(", ")
    }

    /// A column that the table does not have, quoted: it tells which rows are new or changed.
    pub(super) fn mark(&self) -> String {
        free("__loaded", |name| self.schema.field_with_name(name).is_ok())
    }

    /// A query of the rows that the table has afterwards, with those that no change reaches.
    pub(super) fn with_untouched(&self, keep: String, rows: Rows) -> String {
        let mark = match rows {
            Rows::Changed => format!(", FALSE AS {}", self.mark()),
            _ => String::new(),
        };
        let untouched = self.untouched.iter();
        let untouched = untouched.map(|rows| format!(" UNION ALL SELECT *{mark} FROM {rows}"));
        untouched.fold(keep, |keep, rows| keep + &rows)
    }

    /// The error for a column that the table does not have.
    pub(super) fn unknown(&self, column: &str) -> Error {
        let known = self.seen.iter().flat_map(|seen| seen.fields());
        let known: Vec<&str> = known.map(|field| field.name().as_str()).collect();
        match known.is_empty() {
            true => Error::invalid(format!("column {column} does not exist")),
            false => Error::unknown("column", column, known),
        }
    }

    /// Plans new values, each with its column, over what the principal sees of the table and of
    /// `joined` beside it, which ends in a condition. `in_place`: they come into rows that are
    /// there, and into no others. `writes_values`: so does the statement, if not these, and
    /// computes the condition once more for each of them.
    ///
    /// # Errors
    /// When one of them or the condition needs more than that; when a value comes of a table that
    /// is under policies which this one is not under, or of a mask; when the condition may come out
    /// otherwise the next time.
    pub(super) async fn check(
        &self,
        context: &Arc<StatementContext>,
        values: &[(String, String)],
        joined: &str,
        in_place: bool,
        writes_values: bool,
    ) -> Result<()> {
        let seen = match &self.seen {
            Some(_) => format!("{}.{}", quoted(&self.name.schema), quoted(&self.name.name)),
            None => format!("(SELECT 1 AS {NOTHING})"),
        };
        let named = values.iter().map(|(column, value)| format!("({value}) AS {}", quoted(column)));
        let mut named: Vec<String> = named.collect();
        if named.is_empty() {
            named.push("1".into());
        }
        let alias = quoted(&self.alias);
        let text = format!("SELECT {} FROM {seen} AS {alias} {joined}", named.join(", "));
        let plan = match (query(context, &text).await, &self.seen) {
            (Ok((_, plan)), _) => plan,
            (Err(error), None) if error.to_string().starts_with("column ") => {
                return Err(context.rights().no_change(Privilege::Select, &self.name));
            }
            (Err(error), _) => return Err(error),
        };
        steady::check(&plan, writes_values)?;
        if !values.is_empty() {
            let columns: Vec<String> = values.iter().map(|(column, _)| column.clone()).collect();
            self.check_masks(context, &plan, &columns)?;
            check_copy(context, &plan, &columns, &self.name, in_place).await?;
        }
        context.used().add_read(plan);
        Ok(())
    }

    /// Checks that values which come into rows that are there, of rows that consents choose, are
    /// of the persons whose rows these are. `joined` stands beside the table, as for
    /// [`Target::check`].
    ///
    /// # Errors
    /// When they may be other persons'.
    pub(super) async fn check_persons(
        &self,
        context: &Arc<StatementContext>,
        values: &BTreeMap<String, String>,
        joined: &str,
    ) -> Result<()> {
        if values.is_empty() || !consent::copies::are_chosen(context) {
            return Ok(());
        }
        let alias = quoted(&self.alias);
        let columns = self.schema.fields().iter().map(|field| {
            let name = field.name();
            // In another type a person would not be known for the one that it is.
            let value = match values.get(name) {
                Some(value) => format!("({value})"),
                None => format!("{alias}.{}", self.value(name)),
            };
            format!("{value} AS {}", quoted(name))
        });
        let columns: Vec<String> = columns.collect();
        let text = format!("SELECT {} {} {joined}", columns.join(", "), self.from());
        let (_, plan) = query(context, &text).await?;
        consent::copies::may_change(context, &self.name, &plan).await
    }

    /// Checks that no mask is written in place of a value.
    fn check_masks(
        &self,
        context: &StatementContext,
        plan: &LogicalPlan,
        columns: &[String],
    ) -> Result<()> {
        let found = policy::computed_of_mask(context, &self.name, plan, &self.own)?;
        let Some((at, masked)) = found else { return Ok(()) };
        let column = columns.get(at).map_or("a column", String::as_str);
        Err(Error::unsupported(
            format!(
                "the new value of {column} is computed of {masked}, of which a policy shows a \
                 mask: that would be written, and not what the column holds"
            ),
            "a masked column may be compared, and set to other values; to compute with it needs a \
             role that the policy excepts",
        ))
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
        let keep = self.with_untouched(keep, rows);
        let (state, keep) = query(context, &keep).await?;
        let (mut check, mut copies) = (None, Copies::default());
        if rows == Rows::Changed {
            copies = copies_in(context, &keep, &self.name).await?;
            check = RowCheck::of(context, &self.name, &self.schema).await?;
        }
        let (_, count) =
            query(context, &format!("SELECT count(*) AS n {from} WHERE {condition}")).await?;
        let Self { name, version, .. } = self;
        let copies = Box::new(copies);
        let change = Change::Rewrite { name, verb, version, keep, rows, check, count, copies };
        Ok((state, Action::Rows(change)))
    }
}

/// The rows of a table at a version that are of no restricted person, and those of restricted ones,
/// if there are any.
async fn unrestricted(
    context: &Arc<StatementContext>,
    name: &ObjectName,
    version: u64,
    marked: &[MarkedColumn],
) -> Result<(Arc<dyn TableProvider>, Option<Arc<dyn TableProvider>>)> {
    let (catalog, base) = (context.engine().catalog(), context.engine().base());
    let Some(Opened::Table(whole)) = catalog.open_table(name, Some(version), base).await? else {
        return Err(catalog::Error::not_found("table", &name.to_string(), []).into());
    };
    guard::parts(context, whole, marked).await
}

/// The column of a table of which nothing is seen.
const NOTHING: &str = "\"__nothing\"";

/// Gives rows of a table a name in this statement that nobody can guess.
fn hidden(context: &StatementContext, of: &ObjectName, rows: Arc<dyn TableProvider>) -> String {
    context.stands_for(of, &rows);
    let name = format!("target {}", context.engine().catalog().new_id());
    let path = context.search_path();
    let schema = path.first().map_or(crate::engine::MAIN, String::as_str);
    context.hold(&ObjectName::new(schema, &name), &rows);
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
        || delete.limit.is_some()
        || !delete.order_by.is_empty()
        || !delete.tables.is_empty()
    {
        return Err(only_one_table());
    }
    let target = Target::of(context, table, Privilege::Delete).await?;
    let condition = condition(delete.selection.as_ref());
    target.check(context, &[], &format!("WHERE {condition}"), true, false).await?;
    let (columns, from) = (target.columns(&BTreeMap::new()), target.from());
    let keep = format!("SELECT {columns} {from} WHERE ({condition}) IS NOT TRUE");
    target.rewrite(context, "DELETE", keep, Rows::Left, &condition).await
}

/// TRUNCATE: no row stays but those of restricted persons, and those that are too old to be seen.
pub(crate) async fn truncate(
    context: &Arc<StatementContext>,
    truncate: &Truncate,
) -> Result<(SessionState, Action)> {
    let [table] = truncate.table_names.as_slice() else { return Err(only_one_table()) };
    let name = target(context, &name_parts(&table.name), &[Privilege::Delete]).await?;
    crate::private::no_changes(context, &name).await?;
    may_replace(context, &name, "remove all rows of").await?;
    let catalog = context.engine().catalog();
    catalog.check_append_only(&name).await?;
    let version = catalog.table_version(&name).await?;
    let marked = catalog.marked_columns(&name).await?;
    let (whole, restricted) = unrestricted(context, &name, version, &marked).await?;
    let (rows, over) = retention::parts(context, &name, whole).await?;
    let removed = hidden(context, &name, rows);
    let stay = [restricted, over].into_iter().flatten();
    let stay = stay.map(|rows| format!("SELECT * FROM {}", hidden(context, &name, rows)));
    let stay: Vec<String> = stay.collect();
    let keep = match stay.is_empty() {
        true => format!("SELECT * FROM {removed} WHERE false"),
        false => stay.join(" UNION ALL "),
    };
    let (state, keep) = query(context, &keep).await?;
    let (_, count) = query(context, &format!("SELECT count(*) AS n FROM {removed}")).await?;
    let (verb, rows) = ("DELETE", Rows::Left);
    let (check, copies) = (None, Box::default());
    let change = Change::Rewrite { name, verb, version, keep, rows, check, count, copies };
    Ok((state, Action::Rows(change)))
}

/// UPDATE: the rows that match, changed, and the others as they are, and which of them are which.
pub(crate) async fn update(
    context: &Arc<StatementContext>,
    update: &Update,
) -> Result<(SessionState, Action)> {
    if update.from.is_some()
        || update.limit.is_some()
        || !update.order_by.is_empty()
        || update.or.is_some()
    {
        return Err(only_one_table());
    }
    let target = Target::of(context, &update.table, Privilege::Update).await?;
    let values = assigned(&target, &update.assignments)?;
    let condition = condition(update.selection.as_ref());
    let written: Vec<(String, String)> = values.clone().into_iter().collect();
    let joined = format!("WHERE {condition}");
    target.check(context, &written, &joined, true, true).await?;
    target.check_persons(context, &values, &joined).await?;
    let (changed, same) = (target.columns(&values), target.columns(&BTreeMap::new()));
    let (from, mark) = (target.from(), target.mark());
    let keep = format!(
        "SELECT {changed}, TRUE AS {mark} {from} WHERE {condition} \
         UNION ALL SELECT {same}, FALSE AS {mark} {from} WHERE ({condition}) IS NOT TRUE"
    );
    target.rewrite(context, "UPDATE", keep, Rows::Changed, &condition).await
}

/// A value in a column's type.
pub(crate) fn typed(value: &str, data_type: &DataType) -> String {
    let named = data_type.to_string().replace('\'', "''");
    format!("arrow_cast(({value}), '{named}')")
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
        if let Some(masked) = target.deciding.get(&column) {
            return Err(Error::unsupported(
                format!(
                    "column {column} is not set: a policy masks {masked} by it, and another value \
                     could show what is masked"
                ),
                "to set it needs a role that the policy excepts; rows may be added with any value",
            ));
        }
        if values.insert(column.clone(), assignment.value.to_string()).is_some() {
            return Err(Error::invalid(format!("column {column} is set twice")));
        }
    }
    Ok(values)
}
