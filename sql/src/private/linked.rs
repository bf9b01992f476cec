//! Privacy units that a subject's crosswalk tells: all ids of one person are one unit.
//!
//! Where a policy is of a subject with a crosswalk, its table has one more column for private
//! statistics, of the subject's name: `person e` for an id whose record is of the person e,
//! `id i` for an id that the crosswalk does not know, which is a person of its own, and NULL for
//! NULL. Ids are compared by their text, as consents are. The table's own columns stay what they
//! are, so that public tables are joined as ever.
//!
//! Rows with an id of several persons are left out. Then each row is of one unit, and taking a
//! person out — the rows with any of the person's ids, and the crosswalk's own rows of the person
//! or not — takes out one unit and touches no other: a row that was left out because somebody
//! shares its id is either gone with that person or still left out.
//!
//! The crosswalk is read as it is, whoever asks: part of it would make several units of a person.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use catalog::ObjectName;
use catalog::privacy_policies::PrivacyPolicy;
use catalog::subjects::Crosswalk;
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, JoinType, ScalarValue, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, cast, lit, when,
};

use crate::consent::crosswalk_table;
use crate::error::{Error, Result};
use crate::session::StatementContext;

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
}

/// The rows of a table under a policy, with their units.
///
/// # Errors
/// When nobody can tell which ids are one person's.
pub(super) async fn rows(
    context: &StatementContext,
    name: &ObjectName,
    policy: &PrivacyPolicy,
    table: Arc<dyn TableProvider>,
    is_target: bool,
) -> Result<UnitRows> {
    let schema = table.schema();
    let at = TableReference::bare(name.name.clone());
    let scan = LogicalPlanBuilder::scan(at, provider_as_source(table), None)?;
    let Some(subject) = policy.subject.as_ref().filter(|_| !is_target) else {
        return Ok(UnitRows { plan: scan.build()?, via: None });
    };
    if context.opening().is_for_columns() {
        let plan = match policy.linked_by() {
            Some(_) => with_column(scan, lit(ScalarValue::Utf8(None)), &policy.unit_column)?,
            None => scan.build()?,
        };
        return Ok(UnitRows { plan, via: None });
    }
    let via = context.engine().catalog().subject(&subject.name).await?.via;
    match (via, policy.linked_by()) {
        (None, None) => Ok(UnitRows { plan: scan.build()?, via: None }),
        (Some(via), Some(subject)) => {
            check_name(name, policy, &schema)?;
            // Who may not see the ids is not told whose rows they are: there is no unit then.
            if schema.column_with_name(&subject.key).is_none() {
                return Ok(UnitRows { plan: scan.build()?, via: Some(via) });
            }
            let links = links(crosswalk_table(context.engine(), &via).await?, &via)?;
            let plan = with_units(scan, &subject.key, &policy.unit_column, links)?;
            Ok(UnitRows { plan, via: Some(via) })
        }
        (via, _) => {
            let has = if via.is_some() { "has a crosswalk now" } else { "has no crosswalk now" };
            Err(Error::invalid_hint(
                format!(
                    "subject {} {has}, and the privacy policy {} on {name} was made before",
                    subject.name, policy.name
                ),
                "a policy_admin makes it anew: CREATE OR REPLACE PRIVACY POLICY",
            ))
        }
    }
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
    if policy.linked_by().is_none() || schema.column_with_name(unit).is_none() {
        return Ok(());
    }
    Err(Error::invalid_hint(
        format!("{table} has a column {unit}, and its persons would be told by one of that name"),
        "create a subject of another name over the same keys and crosswalk, and take that",
    ))
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// Whose each record is: rows of a record, and the least and the greatest of its persons.
fn links(table: Arc<dyn TableProvider>, via: &Crosswalk) -> DataFusionResult<LogicalPlan> {
    let (record, entity) = (column(&via.record), column(&via.entity));
    let text = |id: Expr| cast(id, DataType::Utf8);
    let at = TableReference::bare("unit links");
    LogicalPlanBuilder::scan(at, provider_as_source(table), None)?
        .filter(record.clone().is_not_null().and(entity.clone().is_not_null()))?
        .project(vec![text(record).alias(RECORD), text(entity).alias(ENTITY)])?
        .aggregate(
            vec![column(RECORD)],
            vec![min(column(ENTITY)).alias(FIRST), max(column(ENTITY)).alias(LAST)],
        )?
        .build()
}

/// The rows with a column of their units, without those whose id is of several persons.
fn with_units(
    scan: LogicalPlanBuilder,
    key: &str,
    unit: &str,
    links: LogicalPlan,
) -> DataFusionResult<LogicalPlan> {
    let own: Vec<Column> = scan.schema().columns();
    let key = own.iter().find(|column| column.name == key).cloned();
    let id = key.map_or(lit(ScalarValue::Utf8(None)), Expr::Column);
    let of = |kind: &str, id: &str| binary_expr(lit(kind), Operator::StringConcat, column(id));
    let is_unknown = column(FIRST).is_null();
    let is_of_one = is_unknown.clone().or(column(FIRST).eq(column(LAST)));
    let told = when(is_unknown, of("id ", ID)).otherwise(of("person ", FIRST))?;
    let on = (vec![Column::from_name(ID)], vec![Column::from_name(RECORD)]);
    let shown = own.iter().cloned().map(Expr::Column);
    let with_id = shown.clone().chain([cast(id, DataType::Utf8).alias(ID)]);
    scan.project(with_id.collect::<Vec<_>>())?
        .join(links, JoinType::Left, on, None)?
        .filter(is_of_one)?
        .project(shown.chain([told.alias(unit)]).collect::<Vec<_>>())?
        .build()
}

/// The rows with one more column.
fn with_column(scan: LogicalPlanBuilder, value: Expr, name: &str) -> DataFusionResult<LogicalPlan> {
    let own = scan.schema().columns().into_iter().map(Expr::Column);
    let all: Vec<Expr> = own.chain([value.alias(name)]).collect();
    scan.project(all)?.build()
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
        let records = texts(links_of.iter().map(|(record, _)| *record).collect());
        let entities = texts(links_of.iter().map(|(_, entity)| *entity).collect());
        let crosswalk = table(vec![("record", records), ("whose", entities)]);
        let via = Crosswalk {
            table: ObjectName::new("main", "crosswalk"),
            record: "record".into(),
            entity: "whose".into(),
        };
        let scan = LogicalPlanBuilder::scan("rows", provider_as_source(rows), None).unwrap();
        let plan = with_units(scan, "id", "person", links(crosswalk, &via).unwrap()).unwrap();
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
