//! Trying a check when it is defined: what could never be computed, whatever the rows, is an error
//! of CREATE EXPECTATION, not of the first CHECK TABLE.
//!
//! Names, types and rights come out when the check is planned; a pattern that is none and a text
//! that is no number when the plan is optimized, which computes what is constant. No row is read.

use std::sync::Arc;

use arrow::datatypes::DataType;
use catalog::ObjectName;

use super::check::{Compared, Shape, compared};
use super::owners::Owners;
use super::query::{self, Item};
use crate::dml::sent::quoted;
use crate::error::{Error, Result};
use crate::parse::parse_query;
use crate::session::StatementContext;

/// Plans a check once.
///
/// # Errors
/// When it cannot be planned, or never computed.
pub(super) async fn try_check(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    item: &Item,
) -> Result<()> {
    let (from, alias) = (query::from(table), quoted(&table.name));
    let (text, column) = match &item.check.shape {
        Shape::Rows { condition } => (format!("SELECT ({condition}) AS \"p0\" FROM {from}"), "p0"),
        Shape::Table { .. } => (query::text(std::slice::from_ref(item), &from, &alias, None), "p0"),
        Shape::Reference { .. } => {
            (query::text(std::slice::from_ref(item), &from, &alias, None), "f0")
        }
    };
    let (state, plan) = context.plan_query(parse_query(&text)?).await?;
    let found = plan.schema().field_with_unqualified_name(column)?.data_type();
    if column == "p0" && !matches!(found, DataType::Boolean) {
        return Err(Error::invalid_hint(
            format!("the check gives {found}, not TRUE or FALSE"),
            "write a condition, such as CHECK (price > 0)",
        ));
    }
    state.optimize(&plan).map_err(|error| never(error.into()))?;
    for compared in compared(&item.expectation.check)? {
        try_comparison(context, table, item, &compared).await?;
    }
    Ok(())
}

/// An error that every run would give.
fn never(error: Error) -> Error {
    let Error::Execution { what, hint } = error else { return error };
    let is_cast = what.to_lowercase().contains("cannot cast");
    let hint = hint.filter(|_| !is_cast).unwrap_or_else(|| {
        "compare a number with a number, a date with a date, and a text with a text".into()
    });
    Error::invalid_hint(format!("the check can never be computed: {what}"), hint)
}

/// Refuses to compare distributions of which one is of numbers and the other is not.
async fn try_comparison(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    item: &Item,
    compared: &Compared,
) -> Result<()> {
    let Compared { word, column, reference } = compared;
    let text = format!("SELECT ({column}) AS \"c\" FROM {}", query::from(table));
    let (_, plan) = context.plan_query(parse_query(&text)?).await?;
    let own = plan.schema().field_with_unqualified_name("c")?.data_type().clone();
    if word == "drift_ks" && distributed(&own) == Some(Distributed::Texts) {
        return Err(Error::invalid_hint(
            format!("drift_ks compares numbers or times, and {column} is {own}"),
            format!("write drift_psi({column}), which compares how often each value comes"),
        ));
    }
    let Some((other, of)) = reference else { return Ok(()) };
    let text = format!("SELECT ({other}) AS \"c\" FROM {of}");
    let theirs = Owners::new(context, table).type_of(item, &text).await?;
    match (distributed(&own), distributed(&theirs)) {
        (Some(one), Some(another)) if one != another => Err(Error::invalid_hint(
            format!(
                "{word} compares {column}, which is {own}, with {of}.{other}, which is {theirs}"
            ),
            "compare columns of one type; a view of the other table can CAST its column",
        )),
        _ => Ok(()),
    }
}

/// As what the values of a column are distributed.
#[derive(Debug, PartialEq)]
enum Distributed {
    Numbers,
    Texts,
    /// Times of a type: how long after what they are counted.
    Times(DataType),
}

/// `None` of a column that has no values, and of one that has no distribution.
fn distributed(data_type: &DataType) -> Option<Distributed> {
    match data_type {
        DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            Some(Distributed::Texts)
        }
        DataType::Dictionary(_, values) => distributed(values),
        DataType::Timestamp(unit, _) => Some(Distributed::Times(DataType::Timestamp(*unit, None))),
        DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => {
            Some(Distributed::Times(data_type.clone()))
        }
        other => other.is_numeric().then_some(Distributed::Numbers),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn distributions_are_of_one_kind() {
        let time = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
        let micro = TimeUnit::Microsecond;
        for (one, other, same) in [
            (DataType::Int64, DataType::Decimal128(9, 2), true),
            (DataType::Utf8, DataType::Boolean, true),
            (DataType::Utf8View, DataType::Int64, false),
            (time(micro, None), time(micro, Some("UTC")), true),
            (time(micro, None), time(TimeUnit::Second, None), false),
            (DataType::Date32, time(micro, None), false),
        ] {
            assert_eq!(distributed(&one) == distributed(&other), same, "{one} {other}");
        }
        assert_eq!(distributed(&DataType::Null), None);
    }
}
