//! Privacy units that are told by another table: all ids of one person are one unit, and rows that
//! refer to a person's rows are the person's.
//!
//! A table under such a policy has one more column for private statistics; its own columns stay
//! what they are, so that public tables are joined as ever. Keys are compared by their text, as
//! consents are.
//!
//! * Of a subject with a crosswalk, the column has the subject's name: `person e` for an id whose
//!   record is of the person e, `id i` for an id that the crosswalk does not know, which is a
//!   person of its own, and NULL for NULL.
//! * Of a foreign key, it is what tells the persons of the other table, which is under a policy
//!   itself. Rows that refer to nothing, or to rows of nobody, are left out.
//!
//! Rows with a key of several persons are left out. Then each row is of one unit, and taking a
//! person out — the rows with any of the person's keys, and the rows of the other table that tell
//! so or not — takes out one unit and touches no other: a row that was left out because somebody
//! shares its key is either gone with that person or still left out.
//!
//! The other table is read as it is, whoever asks: part of it would make several units of a person.
//! Its rows decide an answer as the table's own do. So one under a privacy policy, and whatever
//! tells its persons in turn, is charged too ([`Teller`]); and who asks along a foreign key needs
//! the columns that it leads to.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use catalog::ObjectName;
use catalog::privacy_policies::{PrivacyPolicy, UnitSource};
use catalog::subjects::Crosswalk;
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, JoinType, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, cast, lit, when,
};
use futures::future::BoxFuture;

use crate::consent::crosswalk_table;
use crate::error::{Error, Result};
use crate::pii::{self, Reader, Shown};
use crate::policy::{self, retention};
use crate::rights::Columns;
use crate::session::StatementContext;
use crate::subject;

/// Tables refer to each other this deep.
const DEPTH_MAX: usize = 8;

/// Names of what is computed on the way; a table's own columns are told apart by their table.
const ID: &str = "unit id";
const RECORD: &str = "unit record";
const ENTITY: &str = "unit entity";
const FIRST: &str = "unit first";
const LAST: &str = "unit last";

/// The rows of a table with the column that tells whose they are.
pub(crate) struct UnitRows {
    pub(crate) plan: LogicalPlan,
    /// The crosswalk that tells it; none: the column is the table's own.
    pub(crate) via: Option<Crosswalk>,
    /// The tables under privacy policies that tell it beside the table itself.
    pub(crate) tellers: Vec<Teller>,
}

impl UnitRows {
    fn alone(plan: LogicalPlan) -> Self {
        Self { plan, via: None, tellers: vec![] }
    }
}

/// A table under a privacy policy whose rows tell whose those of another are.
#[derive(Debug)]
pub(crate) struct Teller {
    pub(crate) name: ObjectName,
    pub(crate) policy: Arc<PrivacyPolicy>,
    /// Why who asks may not learn of it.
    closed: Option<Closed>,
}

/// Why somebody may not learn of a column.
#[derive(Debug)]
enum Closed {
    NotGranted,
    Masked(String),
}

impl Teller {
    /// One that is read whoever asks, as crosswalks are.
    fn open(name: &ObjectName, policy: Arc<PrivacyPolicy>) -> Self {
        Self { name: name.clone(), policy, closed: None }
    }

    /// One that a foreign key leads to, at `column`: it and what tells the table's own persons have
    /// to be granted, and not masked.
    async fn of_key(
        context: &StatementContext,
        name: &ObjectName,
        policy: &Arc<PrivacyPolicy>,
        column: &str,
    ) -> Result<Self> {
        let needed = [column, policy.key_column()];
        let select = context.access(name).await.select;
        let is_granted = |column: &&str| match &select {
            Columns::None => false,
            Columns::Some(granted) => granted.contains(*column),
            Columns::All => true,
        };
        let closed = match needed.iter().all(is_granted) {
            false => Some(Closed::NotGranted),
            true => {
                let bound = policy::binding(context, name).await?;
                let masked = needed.into_iter().find(|column| bound.masks(column));
                masked.map(|column| Closed::Masked(column.to_owned()))
            }
        };
        Ok(Self { name: name.clone(), policy: Arc::clone(policy), closed })
    }

    /// Checks that `principal` may learn of it by asking `table`. Whom it is not granted is not
    /// told its name either.
    ///
    /// # Errors
    /// When it is not granted, or masked.
    pub(super) fn check(&self, table: &ObjectName, principal: &str) -> Result<()> {
        match &self.closed {
            None => Ok(()),
            Some(Closed::NotGranted) => Err(Error::Denied {
                principal: principal.to_owned(),
                action: format!("ask {table}, whose persons are told by rows of another table"),
                hint: Some(
                    "ask a policy_admin which table its privacy policy REFERENCES, and for SELECT \
                     on that"
                        .into(),
                ),
            }),
            Some(Closed::Masked(column)) => Err(Error::unsupported(
                format!(
                    "the persons of {table} are told by the column {column} of {}, which is masked \
                     for {principal}",
                    self.name
                ),
                "private statistics need a role that the masking policy excepts",
            )),
        }
    }
}

/// The rows of a table under a policy, with their units. One that a statement adds rows to has its
/// own columns alone.
///
/// # Errors
/// When nobody can tell whose the rows are.
pub(super) async fn rows(
    context: &StatementContext,
    name: &ObjectName,
    policy: &PrivacyPolicy,
    table: Arc<dyn TableProvider>,
    is_target: bool,
) -> Result<UnitRows> {
    if is_target {
        return Ok(UnitRows::alone(scan(name, table)?.build()?));
    }
    match told(context, name, policy, Arc::clone(&table), 0).await {
        // What columns a table has is told of one that cannot be read, too.
        Err(_) if context.opening().is_for_columns() => {
            Ok(UnitRows::alone(scan(name, table)?.build()?))
        }
        told => told,
    }
}

fn scan(name: &ObjectName, table: Arc<dyn TableProvider>) -> DataFusionResult<LogicalPlanBuilder> {
    let at = TableReference::bare(name.name.clone());
    LogicalPlanBuilder::scan(at, provider_as_source(table), None)
}

/// The rows with the column that tells whose they are; a table that a foreign key leads to may have
/// one itself.
fn told<'a>(
    context: &'a StatementContext,
    name: &'a ObjectName,
    policy: &'a PrivacyPolicy,
    table: Arc<dyn TableProvider>,
    depth: usize,
) -> BoxFuture<'a, Result<UnitRows>> {
    Box::pin(async move {
        let engine = context.engine();
        check_name(name, policy, &table.schema())?;
        let rows = scan(name, table)?;
        let (key, unit) = (policy.key_column(), policy.unit_column.as_str());
        match &policy.source {
            None => Ok(UnitRows::alone(rows.build()?)),
            Some(UnitSource::Subject { name: person, .. }) => {
                let via = engine.catalog().subject(person).await?.via;
                if via.is_some() != policy.is_linked() {
                    return Err(changed(name, policy, person, via.as_ref()));
                }
                let Some(via) = via else { return Ok(UnitRows::alone(rows.build()?)) };
                let links = records(crosswalk_table(engine, &via).await?, &via)?;
                let plan = with_persons(rows, key, unit, links)?;
                let told_by = engine.catalog().privacy_policy(&via.table).await?;
                let tellers = told_by.map(|policy| Teller::open(&via.table, policy));
                Ok(UnitRows { plan, via: Some(via), tellers: tellers.into_iter().collect() })
            }
            Some(UnitSource::Reference { table, column, .. }) => {
                let other = referenced(context, table, depth).await?;
                if other.policy.unit_column != *unit {
                    return Err(unlike(name, policy, table));
                }
                let (policy, opened) = (&other.policy, other.table);
                context
                    .used()
                    .policies
                    .insert(format!("privacy policy {} on {table}", policy.name));
                let teller = Teller::of_key(context, table, policy, column).await?;
                let other = told(context, table, policy, opened, depth + 1).await?;
                let links = references(other.plan, column, unit)?;
                let plan = with_references(rows, key, unit, links)?;
                let tellers = std::iter::once(teller).chain(other.tellers).collect();
                Ok(UnitRows { plan, via: other.via, tellers })
            }
        }
    })
}

/// A table that a foreign key leads to, without those who must not be seen.
struct Referenced {
    policy: Arc<PrivacyPolicy>,
    table: Arc<dyn TableProvider>,
}

async fn referenced(
    context: &StatementContext,
    name: &ObjectName,
    depth: usize,
) -> Result<Referenced> {
    if depth == DEPTH_MAX {
        return Err(Error::invalid_hint(
            format!("privacy policies refer to each other more than {DEPTH_MAX} deep"),
            "let them end at a table that tells persons by a column or a subject",
        ));
    }
    let engine = context.engine();
    let policy = engine.catalog().privacy_policy(name).await?;
    let opened = pii::open_now(engine, name, None, Reader::Engine).await?;
    match (policy, opened) {
        (Some(policy), Some(Shown::Table(table))) => {
            let table = subject::guard::readable(context, name, table).await?;
            let table = retention::readable(context, name, table).await?;
            Ok(Referenced { policy, table })
        }
        _ => Err(Error::invalid_hint(
            format!(
                "{name} is gone or under no privacy policy, so nobody knows whose rows these are"
            ),
            "a policy_admin makes its privacy policy again",
        )),
    }
}

fn changed(
    name: &ObjectName,
    policy: &PrivacyPolicy,
    subject: &str,
    via: Option<&Crosswalk>,
) -> Error {
    let has = if via.is_some() { "has a crosswalk now" } else { "has no crosswalk now" };
    let policy = &policy.name;
    Error::invalid_hint(
        format!(
            "subject {subject} {has}, and the privacy policy {policy} on {name} was made before"
        ),
        "a policy_admin makes it anew: CREATE OR REPLACE PRIVACY POLICY",
    )
}

fn unlike(name: &ObjectName, policy: &PrivacyPolicy, other: &ObjectName) -> Error {
    Error::invalid_hint(
        format!(
            "{other} does not tell persons by {} any more, as the privacy policy {} on {name} says",
            policy.unit_column, policy.name
        ),
        "a policy_admin makes it anew: CREATE OR REPLACE PRIVACY POLICY",
    )
}

/// Checks that the column of persons has a name of its own.
///
/// # Errors
/// When the table has a column of that name.
pub(super) fn check_name(
    table: &ObjectName,
    policy: &PrivacyPolicy,
    schema: &Schema,
) -> Result<()> {
    let unit = &policy.unit_column;
    if !policy.is_linked() || schema.column_with_name(unit).is_none() {
        return Ok(());
    }
    Err(Error::invalid_hint(
        format!("{table} has a column {unit}, and its persons would be told by one of that name"),
        "rename it; a subject of another name may have the same keys and crosswalk",
    ))
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

fn text(id: Expr) -> Expr {
    cast(id, DataType::Utf8)
}

/// Whose each record is, by a crosswalk.
fn records(table: Arc<dyn TableProvider>, via: &Crosswalk) -> DataFusionResult<LogicalPlan> {
    let at = TableReference::bare("unit links");
    let rows = LogicalPlanBuilder::scan(at, provider_as_source(table), None)?;
    links(rows, column(&via.record), text(column(&via.entity)))
}

/// Whose each row is that may be referred to.
fn references(rows: LogicalPlan, to: &str, unit: &str) -> DataFusionResult<LogicalPlan> {
    links(LogicalPlanBuilder::from(rows), column(to), column(unit))
}

/// Rows of a key, and the least and the greatest of its persons.
fn links(rows: LogicalPlanBuilder, key: Expr, person: Expr) -> DataFusionResult<LogicalPlan> {
    rows.filter(key.clone().is_not_null().and(person.clone().is_not_null()))?
        .project(vec![text(key).alias(RECORD), person.alias(ENTITY)])?
        .aggregate(
            vec![column(RECORD)],
            vec![min(column(ENTITY)).alias(FIRST), max(column(ENTITY)).alias(LAST)],
        )?
        .build()
}

/// The rows with their persons by a crosswalk: an id that it does not know is a person.
fn with_persons(
    rows: LogicalPlanBuilder,
    key: &str,
    unit: &str,
    links: LogicalPlan,
) -> DataFusionResult<LogicalPlan> {
    let of = |kind: &str, id: &str| binary_expr(lit(kind), Operator::StringConcat, column(id));
    let is_unknown = column(FIRST).is_null();
    let is_of_one = is_unknown.clone().or(column(FIRST).eq(column(LAST)));
    let told = when(is_unknown, of("id ", ID)).otherwise(of("person ", FIRST))?;
    with_units(rows, key, (links, JoinType::Left), is_of_one, told.alias(unit))
}

/// The rows with the persons that they refer to.
fn with_references(
    rows: LogicalPlanBuilder,
    key: &str,
    unit: &str,
    links: LogicalPlan,
) -> DataFusionResult<LogicalPlan> {
    let is_of_one = column(FIRST).eq(column(LAST));
    with_units(rows, key, (links, JoinType::Inner), is_of_one, column(FIRST).alias(unit))
}

/// The rows with one more column, without those that are not of one person. Who may not see the
/// key is not told whose they are: there is no such column then.
fn with_units(
    rows: LogicalPlanBuilder,
    key: &str,
    (links, join_type): (LogicalPlan, JoinType),
    is_of_one: Expr,
    unit: Expr,
) -> DataFusionResult<LogicalPlan> {
    let own: Vec<Column> = rows.schema().columns();
    let Some(id) = own.iter().find(|column| column.name == key).cloned() else {
        return rows.build();
    };
    let on = (vec![Column::from_name(ID)], vec![Column::from_name(RECORD)]);
    let shown = own.iter().cloned().map(Expr::Column);
    let with_id: Vec<Expr> = shown.clone().chain([text(Expr::Column(id)).alias(ID)]).collect();
    rows.project(with_id)?
        .join(links, join_type, on, None)?
        .filter(is_of_one)?
        .project(shown.chain([unit]).collect::<Vec<_>>())?
        .build()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use arrow::record_batch::RecordBatch;
    use datafusion::datasource::MemTable;
    use datafusion::prelude::SessionContext;

    use super::*;

    fn table(columns: Vec<(&str, ArrayRef)>) -> Arc<dyn TableProvider> {
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, values)| (name, values, true)),
        );
        let batch = batch.unwrap();
        Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap())
    }

    /// The number of each row that is left, and its unit.
    async fn units(ids: ArrayRef, links_of: &[(Option<&str>, Option<&str>)]) -> Vec<String> {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ids.len() as i64));
        let rows = table(vec![("id", ids), ("number", numbers)]);
        let texts = |values: StringArray| -> ArrayRef { Arc::new(values) };
        let of_rows = texts(links_of.iter().map(|(record, _)| *record).collect());
        let whose = texts(links_of.iter().map(|(_, entity)| *entity).collect());
        let crosswalk = table(vec![("record", of_rows), ("whose", whose)]);
        let via = Crosswalk {
            table: ObjectName::new("main", "crosswalk"),
            record: "record".into(),
            entity: "whose".into(),
        };
        let scan = LogicalPlanBuilder::scan("rows", provider_as_source(rows), None).unwrap();
        let links = records(crosswalk, &via).unwrap();
        let plan = with_persons(scan, "id", "person", links).unwrap();
        let names: Vec<&String> = plan.schema().fields().iter().map(|field| field.name()).collect();
        assert_eq!(names, ["id", "number", "person"]);
        let frame = SessionContext::new().execute_logical_plan(plan).await.unwrap();
        let mut found = Vec::new();
        for batch in frame.collect().await.unwrap() {
            let numbers = batch.column(1).as_primitive::<Int64Type>();
            let persons = batch.column(2).as_string::<i32>();
            for (number, person) in numbers.iter().zip(persons) {
                found.push(format!("{} {}", number.unwrap(), person.unwrap_or("NULL")));
            }
        }
        found.sort_unstable();
        found
    }

    #[tokio::test]
    async fn ids_of_one_person_are_one_unit() {
        let links = [
            (Some("c1"), Some("e1")),
            (Some("c2"), Some("e1")),
            (Some("c2"), Some("e1")),
            // Of two persons, and rows that link nothing.
            (Some("c3"), Some("e1")),
            (Some("c3"), Some("e3")),
            (Some("c4"), None),
            (None, Some("e4")),
        ];
        let ids: StringArray = [Some("c1"), Some("c2"), Some("c3"), Some("c4"), None, Some("e1")]
            .into_iter()
            .collect();
        let expected = ["0 person e1", "1 person e1", "3 id c4", "4 NULL", "5 id e1"];
        assert_eq!(units(Arc::new(ids), &links).await, expected);
    }

    #[tokio::test]
    async fn ids_are_compared_by_their_text() {
        let ids: Int64Array = [Some(7), Some(8), Some(-1)].into_iter().collect();
        let links = [(Some("007"), Some("e1")), (Some("8"), Some("e2")), (Some("-1"), Some("e2"))];
        let expected = ["0 id 7", "1 person e2", "2 person e2"];
        assert_eq!(units(Arc::new(ids), &links).await, expected);
    }
}
