//! Retention policies: rows whose time is over are there for nobody.
//!
//! How old a row is, a column of dates or timestamps tells, against the time at which the statement
//! began. A date is over with its day, and a timestamp without a zone is one of UTC. A row without
//! a time cannot be shown to be young, and is there only where the policy says so. The condition
//! stands in a barrier right above the table, so that files are left out by it and nothing else is
//! learnt of the rows below.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use catalog::ObjectName;
use catalog::policy::{Rule, RuleSet};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};

use super::barrier::Barrier;
use super::closed;
use crate::error::{Error, Result};
use crate::session::StatementContext;

const DAY_MS: i64 = 24 * 3_600_000;

/// How long a policy keeps the rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keep {
    pub(super) policy: String,
    column: String,
    words: String,
    keep_ms: i64,
    keeps_null: bool,
}

/// The rows of a table by their age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Those that are there.
    Young,
    /// Those whose time is over, by one policy at least: all the others.
    Over,
}

impl fmt::Display for Keep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}: {})", self.policy, self.column, self.words)
    }
}

impl Keep {
    /// The retention policies among a table's.
    pub(super) fn all(rules: &RuleSet) -> Vec<Self> {
        let kept = rules.policies.iter().filter_map(|(name, policy)| {
            let Rule::Retention { column, keep_ms, keeps_null, .. } = &policy.rule else {
                return None;
            };
            Some(Self {
                policy: name.clone(),
                column: column.clone(),
                words: policy.rule.kept().unwrap_or_default(),
                keep_ms: *keep_ms,
                keeps_null: *keeps_null,
            })
        });
        kept.collect()
    }

    /// The condition for the rows of an age. The two exclude each other and leave no row out, so
    /// that a table which is written anew loses none and has none twice.
    fn condition(
        &self,
        table: &ObjectName,
        schema: &DFSchema,
        (now_ms, age): (i64, Age),
    ) -> Result<Expr> {
        let Self { policy, column, .. } = self;
        let wrong = |why: String| {
            Error::invalid_hint(
                format!("{table} is not read: its retention policy {policy} {why}"),
                format!(
                    "DROP POLICY {policy} ON {table}, or CREATE OR REPLACE it over a column that \
                     holds the rows' times"
                ),
            )
        };
        let found = schema.iter().find(|(_, field)| field.name() == column);
        let Some((relation, field)) = found else {
            return Err(wrong(format!("finds no column {column}")));
        };
        let Some(since) = since(field.data_type(), now_ms.saturating_sub(self.keep_ms)) else {
            return Err(wrong(format!("finds no times in {column}: {}", field.data_type())));
        };
        let time = || Expr::Column(Column::from((relation, field)));
        let compared = match age {
            Age::Young => time().gt_eq(lit(since)),
            Age::Over => time().lt(lit(since)),
        };
        Ok(match self.keeps_null == (age == Age::Young) {
            true => compared.or(time().is_null()),
            false => compared,
        })
    }
}

/// The first time that is young, as a value of a column; `None` for a column without times. What
/// is told more coarsely than by the millisecond is young as long as a part of it is.
fn since(data_type: &DataType, since_ms: i64) -> Option<ScalarValue> {
    let day = since_ms.div_euclid(DAY_MS);
    Some(match data_type {
        // A day before the first that a date can be is as good as the first.
        DataType::Date32 => ScalarValue::Date32(Some(i32::try_from(day).unwrap_or(i32::MIN))),
        DataType::Date64 => ScalarValue::Date64(Some(day.saturating_mul(DAY_MS))),
        DataType::Timestamp(unit, zone) => {
            let zone = zone.clone();
            match unit {
                TimeUnit::Second => {
                    ScalarValue::TimestampSecond(Some(since_ms.div_euclid(1_000)), zone)
                }
                TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(since_ms), zone),
                TimeUnit::Microsecond => {
                    ScalarValue::TimestampMicrosecond(Some(since_ms.saturating_mul(1_000)), zone)
                }
                TimeUnit::Nanosecond => {
                    let since_ns = since_ms.saturating_mul(1_000_000);
                    ScalarValue::TimestampNanosecond(Some(since_ns), zone)
                }
            }
        }
        _ => return None,
    })
}

/// Checks that a column tells how old rows are.
///
/// # Errors
/// When there is no such column, or it holds no times.
pub(super) fn check(table: &ObjectName, schema: &SchemaRef, column: &str) -> Result<()> {
    let Ok(field) = schema.field_with_name(column) else {
        let known = schema.fields().iter().map(|field| field.name().as_str());
        return Err(Error::unknown("column", column, known));
    };
    match since(field.data_type(), 0) {
        Some(_) => Ok(()),
        None => Err(Error::invalid_hint(
            format!(
                "column {table}.{column} is {}, and dates and timestamps tell how old rows are",
                field.data_type()
            ),
            "name a column of times, or CREATE TABLE … AS SELECT … CAST(… AS TIMESTAMP)",
        )),
    }
}

/// The retention policies of a table: the same ones in the whole statement.
///
/// # Errors
/// When policies cannot be read.
pub(super) async fn of(context: &StatementContext, table: &ObjectName) -> Result<Arc<[Keep]>> {
    if let Some(known) = context.policies().kept(table) {
        return Ok(known);
    }
    let rules = context.engine().catalog().table_rules(table).await?;
    Ok(context.policies().keep(table, Keep::all(&rules.own)))
}

/// A table as it is read: without rows whose time is over.
///
/// # Errors
/// When policies cannot be read, or one finds no times: then nobody reads the table.
pub(crate) async fn readable(
    context: &StatementContext,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
) -> Result<Arc<dyn TableProvider>> {
    let kept = of(context, name).await?;
    match kept.is_empty() {
        true => Ok(table),
        false => rows(context, name, table, &kept, Age::Young),
    }
}

/// A table that is going to be written anew: the rows that are there, and those whose time is over,
/// if there may be any, which a change leaves as they are.
///
/// # Errors
/// As [`readable`].
pub(crate) async fn parts(
    context: &StatementContext,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
) -> Result<(Arc<dyn TableProvider>, Option<Arc<dyn TableProvider>>)> {
    let kept = of(context, name).await?;
    if kept.is_empty() {
        return Ok((table, None));
    }
    let over = rows(context, name, Arc::clone(&table), &kept, Age::Over)?;
    Ok((rows(context, name, table, &kept, Age::Young)?, Some(over)))
}

/// Whether rows of a table may be left out because of their age.
///
/// # Errors
/// When policies cannot be read.
pub(crate) async fn hides(context: &StatementContext, table: &ObjectName) -> Result<bool> {
    Ok(!of(context, table).await?.is_empty())
}

/// The rows of an age. The time is that of the statement's beginning.
///
/// # Errors
/// When a policy finds no times.
pub(super) fn rows(
    context: &StatementContext,
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
    kept: &[Keep],
    age: Age,
) -> Result<Arc<dyn TableProvider>> {
    let rows = barrier(name, table, kept, (context.started_ms(), age));
    rows.map_err(|error| closed(context, name, error))
}

fn barrier(
    name: &ObjectName,
    table: Arc<dyn TableProvider>,
    kept: &[Keep],
    (now_ms, age): (i64, Age),
) -> Result<Arc<dyn TableProvider>> {
    let at = TableReference::bare(name.name.clone());
    let scan = LogicalPlanBuilder::scan(at, provider_as_source(table), None)?;
    let schema = Arc::clone(scan.schema());
    let conditions = kept.iter().map(|kept| kept.condition(name, &schema, (now_ms, age)));
    let conditions = conditions.collect::<Result<Vec<Expr>>>()?;
    let condition = match age {
        Age::Young => conjunction(conditions),
        Age::Over => disjunction(conditions),
    };
    let plan = scan.filter(condition.unwrap_or_else(|| lit(age == Age::Young)))?.build()?;
    Ok(Arc::new(Barrier::new(plan, BTreeSet::new(), kept.iter().map(Keep::to_string))?))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
    use datafusion::datasource::MemTable;
    use datafusion::prelude::SessionContext;

    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn keep(column: &str, keep_ms: i64, keeps_null: bool) -> Keep {
        let (policy, words) = ("p".to_owned(), "so long".to_owned());
        Keep { policy, column: column.into(), words, keep_ms, keeps_null }
    }

    /// How many rows of a column of times are of an age.
    async fn count(times: ArrayRef, kept: &[Keep], age: Age) -> i64 {
        let batch = RecordBatch::try_from_iter_with_nullable([("at", times, true)]).unwrap();
        let table = Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap());
        let name = ObjectName::new("main", "t");
        let rows = barrier(&name, table, kept, (NOW_MS, age)).unwrap();
        let context = SessionContext::new();
        let plan = LogicalPlanBuilder::scan("t", provider_as_source(rows), None).unwrap();
        let plan = plan.build().unwrap();
        let rows = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
        rows.iter().map(|batch| i64::try_from(batch.num_rows()).unwrap()).sum()
    }

    #[tokio::test]
    async fn every_row_is_of_one_age() {
        let offsets = [None, Some(0), Some(-1), Some(1), Some(-9_999_999), Some(9_999_999)];
        let times = |zone: Option<&str>| -> ArrayRef {
            let since_us = (NOW_MS - 500) * 1_000;
            let times = offsets.map(|offset| offset.map(|offset| since_us + offset));
            Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone_opt(zone))
        };
        for zone in [None, Some("UTC"), Some("+02:00")] {
            for (keeps_null, young) in [(false, 3), (true, 4)] {
                let kept = [keep("at", 500, keeps_null)];
                assert_eq!(count(times(zone), &kept, Age::Young).await, young);
                assert_eq!(count(times(zone), &kept, Age::Over).await, 6 - young);
            }
        }
        // Of several policies each counts.
        let both = [keep("at", 500, true), keep("at", 501, false)];
        assert_eq!(count(times(None), &both, Age::Young).await, 3);
        assert_eq!(count(times(None), &both, Age::Over).await, 3);
    }

    #[tokio::test]
    async fn a_date_is_over_with_its_day() {
        let today = i32::try_from(NOW_MS / DAY_MS).unwrap();
        let dates: ArrayRef =
            Arc::new(Date32Array::from(vec![today - 2, today - 1, today, today + 1]));
        let of = |days: i64| [keep("at", days * DAY_MS, false)];
        assert_eq!(count(Arc::clone(&dates), &of(1), Age::Young).await, 3);
        assert_eq!(count(Arc::clone(&dates), &of(2), Age::Young).await, 4);
        assert_eq!(count(dates, &of(1), Age::Over).await, 1);
    }

    #[test]
    fn a_time_is_of_the_columns_own_type() {
        let zone: Option<Arc<str>> = Some("+02:00".into());
        for unit in
            [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond]
        {
            for zone in [None, zone.clone()] {
                let of = DataType::Timestamp(unit, zone);
                for ms in [0, -1, NOW_MS, i64::MIN, i64::MAX] {
                    assert_eq!(since(&of, ms).unwrap().data_type(), of);
                }
            }
        }
        assert_eq!(since(&DataType::Date32, -1), Some(ScalarValue::Date32(Some(-1))));
        assert_eq!(since(&DataType::Date32, i64::MIN), Some(ScalarValue::Date32(Some(i32::MIN))));
        assert!(since(&DataType::Int64, 0).is_none() && since(&DataType::Utf8, 0).is_none());
    }

    #[test]
    fn a_column_without_times_closes_the_table() {
        let name = ObjectName::new("main", "t");
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let batch = RecordBatch::try_from_iter([("at", numbers)]).unwrap();
        let table = || Arc::new(MemTable::try_new(batch.schema(), vec![vec![]]).unwrap());
        for column in ["at", "gone"] {
            let kept = [keep(column, 1, false)];
            let error = barrier(&name, table(), &kept, (NOW_MS, Age::Young)).unwrap_err();
            assert!(error.to_string().contains("is not read"), "{error}");
            assert!(check(&name, &batch.schema(), column).is_err());
        }
    }
}
