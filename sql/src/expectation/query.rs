//! All checks of a table as one query over it, and what its one row says.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use catalog::ObjectName;
use catalog::checks::{CheckResult, CheckStatus, Expectation, Severity};
use datafusion::logical_expr::LogicalPlan;

use super::check::{Check, Shape};
use super::floats;
use super::owners::Reading;
use super::references::Referenced;
use crate::dml::sent::quoted;
use crate::error::{Error, Result};
use crate::parse::parse_query;
use crate::session::StatementContext;

/// Characters of a value or an error that are kept.
const SHOWN_MAX: usize = 200;

/// An expectation with its check taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) expectation: Expectation,
    pub(crate) check: Check,
    /// Of a reference the query as its owner reads it, once that is planned.
    pub(crate) reading: Option<Reading>,
    /// Of a reference whose values are looked up by keys, what they are looked up in.
    pub(crate) referenced: Option<Arc<Referenced>>,
}

impl Item {
    /// One of which nothing is planned yet.
    pub(crate) fn new(name: String, expectation: Expectation, check: Check) -> Self {
        Self { name, expectation, check, reading: None, referenced: None }
    }
}

/// What the checks of one run gave, and profiles to compare with later.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) results: Vec<CheckResult>,
    pub(crate) baselines: BTreeMap<String, String>,
}

/// The query: one row with a few columns for each check, over a table that is called `alias`. With
/// `loaded`, a truth value of `from`, conditions on rows look at the rows where it holds, those on
/// the table at all.
///
/// Keys of other tables are joined to the table's rows, each key once, so that no row is doubled;
/// they stand on the left, where a hash join builds. What is looked up by keys of values instead
/// has the aggregate whose keys are kept. Conditions on rows are columns with names of
/// their own below the aggregates, of which DataFusion takes two for one where only a cast differs.
pub(crate) fn text(items: &[Item], from: &str, alias: &str, loaded: Option<&str>) -> String {
    let (mut from, mut joined) = (from.to_owned(), false);
    let scope = loaded.map(|loaded| format!("{loaded} AND ")).unwrap_or_default();
    let mut columns = vec![
        match loaded {
            Some(loaded) => format!("count(nullif({loaded}, FALSE)) AS \"rows\""),
            None => "count(*) AS \"rows\"".to_owned(),
        },
        "count(*) AS \"all\"".to_owned(),
    ];
    let mut conditions = Vec::new();
    for (at, item) in items.iter().enumerate() {
        match &item.check.shape {
            Shape::Rows { condition } => {
                // Of a truth value only FALSE is left, which count() counts without a filter.
                let fails = format!("nullif(({condition}), TRUE)");
                // What other rows hold keeps no new row out, not even where it cannot be computed:
                // a CASE of truth values would become AND and OR, which compute both sides.
                conditions.push(match loaded {
                    Some(loaded) => {
                        format!(
                            "(CASE WHEN {loaded} THEN CAST({fails} AS INT) END) AS \"check {at} fails\""
                        )
                    }
                    None => format!("({fails}) AS \"check {at} fails\""),
                });
                columns.push(format!("count(\"check {at} fails\") AS \"f{at}\""));
            }
            Shape::Reference { column, .. } if item.referenced.is_some() => {
                let looked_up = item.referenced.as_ref().map(|referenced| referenced.cast(column));
                let looked_up = looked_up.unwrap_or_default();
                columns.push(format!("duplicate_count({looked_up}) AS \"f{at}\""));
            }
            Shape::Reference { column, query } => {
                columns.push(format!(
                    "count(CASE WHEN {scope}{column} IS NOT NULL AND \"check {at} hit\" IS NULL \
                     THEN 1 END) AS \"f{at}\""
                ));
                from = format!(
                    "(SELECT DISTINCT \"check {at} key\", TRUE AS \"check {at} hit\" FROM ({query}) AS \
                     \"check {at} query\" (\"check {at} key\") WHERE \"check {at} key\" IS NOT NULL) AS \
                     \"check {at} keys\" RIGHT JOIN {} ON \"check {at} key\" = {column}",
                    if joined { format!("({from})") } else { from }
                );
                joined = true;
            }
            Shape::Table { condition, observed, failing, profile, .. } => {
                columns.push(format!("({condition}) AS \"p{at}\""));
                let more = [("o", observed), ("f", failing), ("b", profile)];
                columns.extend(more.into_iter().filter_map(|(letter, sql)| {
                    sql.as_ref().map(|sql| format!("({sql}) AS \"{letter}{at}\""))
                }));
            }
        }
    }
    if !conditions.is_empty() {
        from = format!("(SELECT *, {} FROM {from}) AS {alias}", conditions.join(", "));
    }
    format!("SELECT {} FROM {from}", columns.join(", "))
}

/// Plans the query, which answers the same however its rows are read.
///
/// # Errors
/// When it cannot be planned.
pub(super) async fn planned(context: &Arc<StatementContext>, text: &str) -> Result<LogicalPlan> {
    let (_, plan) = context.plan_query(parse_query(text)?).await?;
    Ok(floats::however_read(&plan)?)
}

/// What the query's one row says of each check.
///
/// # Errors
/// When the row is not of that query, or a value cannot be shown.
pub(crate) fn outcome(items: &[Item], row: &RecordBatch) -> Result<Outcome> {
    if row.num_rows() != 1 {
        return Err(Error::Internal(format!("checks answered {} rows", row.num_rows())));
    }
    let rows = count(row, "rows").unwrap_or(0);
    let all = count(row, "all").unwrap_or(0);
    let mut outcome = Outcome::default();
    for (at, item) in items.iter().enumerate() {
        let failing = count(row, &format!("f{at}"));
        let result = match &item.check.shape {
            Shape::Rows { .. } | Shape::Reference { .. } => {
                let failing = failing.unwrap_or(0);
                let share = if rows == 0 { 0.0 } else { failing as f64 / rows as f64 };
                CheckResult {
                    observed: Some(short(share)),
                    failing: Some(failing),
                    rows: Some(rows),
                    ..result(item, share <= item.expectation.tolerance)
                }
            }
            Shape::Table { profile, .. } => {
                let kept = profile.is_some();
                if kept && let Some(digits) = digits(row, &format!("b{at}")) {
                    outcome.baselines.insert(item.name.clone(), digits);
                }
                let observed = shown(row, &format!("o{at}"))?;
                let note = "the first result: later ones are compared with it";
                CheckResult {
                    observed,
                    failing,
                    rows: Some(all),
                    message: kept.then(|| note.to_owned()),
                    ..result(item, holds(row, &format!("p{at}")))
                }
            }
        };
        outcome.results.push(result);
    }
    Ok(outcome)
}

/// A result that says only whether the expectation is met.
fn result(item: &Item, met: bool) -> CheckResult {
    let severity = item.expectation.severity;
    let status = match (met, severity) {
        (true, _) => CheckStatus::Pass,
        (false, Severity::Warn) => CheckStatus::Warn,
        (false, Severity::Error) => CheckStatus::Fail,
    };
    let tolerance = item.expectation.tolerance;
    let expected = match tolerance > 0.0 {
        true => format!("{} (tolerance {tolerance})", item.check.expected),
        false => item.check.expected.clone(),
    };
    CheckResult {
        name: item.name.clone(),
        kind: item.check.kind.to_owned(),
        columns: item.check.columns.clone(),
        severity,
        status,
        observed: None,
        expected,
        failing: None,
        rows: None,
        files: None,
        message: None,
    }
}

/// The result of a check that could not be computed.
pub(crate) fn failed(name: &str, expectation: &Expectation, error: &Error) -> CheckResult {
    CheckResult {
        name: name.to_owned(),
        kind: expectation.kind.clone(),
        columns: expectation.columns.clone(),
        severity: expectation.severity,
        status: CheckStatus::Error,
        observed: None,
        expected: expectation.check.clone(),
        failing: None,
        rows: None,
        files: None,
        message: Some(cut(format!("{}: {error}", error.code()))),
    }
}

/// A query that shows rows which do not meet the expectation.
pub(crate) fn sample(table: &ObjectName, item: &Item) -> Option<String> {
    let from = from(table);
    match &item.check.shape {
        Shape::Rows { condition } => {
            Some(format!("SELECT * FROM {from} WHERE ({condition}) IS FALSE LIMIT 10"))
        }
        // Among values with a NULL no value is known to be missing: NULL is left out, as the check
        // does.
        Shape::Reference { column, query } => Some(format!(
            "SELECT * FROM {from} WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT \"key\" \
             FROM ({query}) AS \"keys\" (\"key\") WHERE \"key\" IS NOT NULL) LIMIT 10"
        )),
        Shape::Table { unique: Some(columns), .. } => Some(format!(
            "SELECT {columns}, count({columns}) AS times FROM {from} GROUP BY {columns} \
             HAVING count({columns}) > 1 ORDER BY times DESC LIMIT 10"
        )),
        Shape::Table { .. } => None,
    }
}

/// A table as a query names it.
pub(crate) fn from(table: &ObjectName) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.name))
}

fn count(row: &RecordBatch, name: &str) -> Option<u64> {
    let counts = row.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
    counts.is_valid(0).then(|| u64::try_from(counts.value(0)).unwrap_or(0))
}

/// Whether a condition is TRUE: NULL is not.
fn holds(row: &RecordBatch, name: &str) -> bool {
    let condition = row.column_by_name(name).and_then(|column| column.as_boolean_opt());
    condition.is_some_and(|condition| condition.is_valid(0) && condition.value(0))
}

fn shown(row: &RecordBatch, name: &str) -> Result<Option<String>> {
    let Some(column) = row.column_by_name(name) else { return Ok(None) };
    if column.is_null(0) {
        return Ok(None);
    }
    let options = FormatOptions::default();
    Ok(Some(cut(ArrayFormatter::try_new(column.as_ref(), &options)?.value(0).to_string())))
}

/// A text that results can keep, whatever the table holds.
fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(SHOWN_MAX) {
        text.truncate(at);
        text.push('…');
    }
    text
}

fn digits(row: &RecordBatch, name: &str) -> Option<String> {
    let bytes = row.column_by_name(name)?.as_binary_opt::<i32>()?;
    let bytes = bytes.is_valid(0).then(|| bytes.value(0))?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A share with six digits at most.
fn short(share: f64) -> String {
    let text = format!("{share:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match share > 0.0 && text == "0" {
        true => format!("{share:e}"),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, check: &str) -> Item {
        let check = super::super::check::check(check, None, |name| name == "count").unwrap();
        let expectation = Expectation {
            check: check.expected.clone(),
            kind: check.kind.into(),
            columns: vec![],
            severity: Severity::Warn,
            tolerance: 0.0,
            description: None,
            owner: "ann".into(),
            created_ms: 0,
        };
        Item::new(name.into(), expectation, check)
    }

    #[test]
    fn all_checks_are_columns_of_one_query() {
        let items = [
            item("a", "price > 0"),
            item("b", "customer IN (SELECT id FROM c)"),
            item("d", "shop IN (SELECT id FROM s)"),
            item("e", "completeness(mail) > 0.9"),
        ];
        let text = text(&items, "\"main\".\"t\"", "\"t\"", None);
        assert_eq!(text.matches("\"main\".\"t\"").count(), 1, "{text}");
        crate::parse::parse_query(&text).unwrap();
        let loaded = super::text(&items, "(SELECT 1) AS \"t\"", "\"t\"", Some("\"__loaded\""));
        crate::parse::parse_query(&loaded).unwrap();
    }

    #[test]
    fn shares_are_short() {
        assert_eq!(short(0.0), "0");
        assert_eq!(short(1.0 / 3.0), "0.333333");
        assert_eq!(short(0.5), "0.5");
        assert_eq!(short(1e-9), "1e-9");
        assert_eq!(cut("é".repeat(1_000)).chars().count(), SHOWN_MAX + 1);
    }
}
