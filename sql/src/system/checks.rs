//! Expectations and what checking gave, of the tables whose rows the principal may read.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMillisecondArray};
use catalog::ObjectName;
use catalog::checks::{CheckHistory, CheckResult, CheckRun, Expectation};

use super::batches::{batch, optional_texts, texts};
use crate::error::Result;
use crate::rights::Columns;
use crate::session::StatementContext;

/// Those of the tables that may be read as a whole.
async fn readable<T>(
    context: &StatementContext,
    all: Vec<(ObjectName, T)>,
) -> Vec<(ObjectName, T)> {
    let mut seen = Vec::with_capacity(all.len());
    for (table, held) in all {
        // What checks found tells of rows that policies hide.
        if context.access(&table).await.select == Columns::All
            && crate::policy::binding(context, &table).await.is_ok_and(|bound| bound.is_free())
        {
            seen.push((table, held));
        }
    }
    seen
}

fn moments(times: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(times.collect::<TimestampMillisecondArray>().with_timezone("UTC"))
}

fn columns(columns: &[String]) -> Option<String> {
    (!columns.is_empty()).then(|| columns.join(", "))
}

struct Expected {
    table: ObjectName,
    name: String,
    expectation: Expectation,
    last: Option<(i64, &'static str)>,
}

pub(super) async fn expectations(context: &StatementContext) -> Result<RecordBatch> {
    let catalog = context.engine().catalog();
    let history: std::collections::BTreeMap<ObjectName, CheckHistory> =
        catalog.all_check_history().await?.into_iter().collect();
    let mut rows = Vec::new();
    for (table, held) in readable(context, catalog.all_expectations().await?).await {
        for (name, expectation) in held.by_name {
            let last = history.get(&table).and_then(|history| history.last(&name));
            // What an expectation of the same name gave before is not this one's.
            let last = last.filter(|(run, _)| run.at_ms >= expectation.created_ms);
            let last = last.map(|(run, result)| (run.at_ms, result.status.name()));
            rows.push(Expected { table: table.clone(), name, expectation, last });
        }
    }
    let of = |read: fn(&Expectation) -> &str| texts(rows.iter().map(|row| read(&row.expectation)));
    batch(vec![
        ("schema", texts(rows.iter().map(|row| row.table.schema.as_str()))),
        ("table", texts(rows.iter().map(|row| row.table.name.as_str()))),
        ("name", texts(rows.iter().map(|row| row.name.as_str()))),
        ("check", of(|expectation| &expectation.check)),
        ("kind", of(|expectation| &expectation.kind)),
        ("columns", optional_texts(rows.iter().map(|row| columns(&row.expectation.columns)))),
        ("severity", of(|expectation| expectation.severity.name())),
        (
            "tolerance",
            Arc::new(Float64Array::from_iter_values(
                rows.iter().map(|row| row.expectation.tolerance),
            )),
        ),
        ("description", optional_texts(rows.iter().map(|row| row.expectation.description.clone()))),
        ("owner", of(|expectation| &expectation.owner)),
        ("created", moments(rows.iter().map(|row| Some(row.expectation.created_ms)))),
        ("last_status", optional_texts(rows.iter().map(|row| row.last.map(|last| last.1.into())))),
        ("last_checked", moments(rows.iter().map(|row| row.last.map(|last| last.0)))),
    ])
}

struct Checked {
    table: ObjectName,
    at_ms: i64,
    by: String,
    origin: String,
    result: CheckResult,
}

/// How a check came out, and nothing of the rows: some of them are not shown to who asks.
fn without_values(result: CheckResult) -> CheckResult {
    CheckResult { observed: None, failing: None, rows: None, message: None, ..result }
}

/// The kept runs, the newest first.
pub(super) async fn checks(context: &StatementContext) -> Result<RecordBatch> {
    let all = context.engine().catalog().all_check_history().await?;
    let mut rows = Vec::new();
    for (table, history) in readable(context, all).await {
        let tells_all = crate::expectation::tells_all(context, &table).await;
        for CheckRun { at_ms, by, origin, results } in history.runs.into_iter().rev() {
            rows.extend(results.into_iter().map(|result| Checked {
                table: table.clone(),
                at_ms,
                by: by.clone(),
                origin: origin.clone(),
                result: if tells_all { result } else { without_values(result) },
            }));
        }
    }
    let of = |read: fn(&CheckResult) -> &str| texts(rows.iter().map(|row| read(&row.result)));
    let optional = |read: fn(&CheckResult) -> Option<String>| {
        optional_texts(rows.iter().map(|row| read(&row.result)))
    };
    let counts = |read: fn(&CheckResult) -> Option<u64>| {
        let counts = rows.iter().map(|row| read(&row.result));
        let counts = counts.map(|count| count.map(|n| i64::try_from(n).unwrap_or(i64::MAX)));
        Arc::new(counts.collect::<Int64Array>()) as ArrayRef
    };
    batch(vec![
        ("schema", texts(rows.iter().map(|row| row.table.schema.as_str()))),
        ("table", texts(rows.iter().map(|row| row.table.name.as_str()))),
        ("name", of(|result| &result.name)),
        ("columns", optional(|result| columns(&result.columns))),
        ("kind", of(|result| &result.kind)),
        ("severity", of(|result| result.severity.name())),
        ("status", of(|result| result.status.name())),
        ("observed", optional(|result| result.observed.clone())),
        ("expected", of(|result| &result.expected)),
        ("rows_failing", counts(|result| result.failing)),
        ("rows_checked", counts(|result| result.rows)),
        ("files_read", counts(|result| result.files.map(|files| files.read))),
        ("files_total", counts(|result| result.files.map(|files| files.total))),
        ("message", optional(|result| result.message.clone())),
        ("checked", moments(rows.iter().map(|row| Some(row.at_ms)))),
        ("checked_by", texts(rows.iter().map(|row| row.by.as_str()))),
        ("origin", texts(rows.iter().map(|row| row.origin.as_str()))),
    ])
}
