//! EXPLAIN FORGET SUBJECT: what would be done, without doing it.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use catalog::ObjectName;
use catalog::erasures::Step;
use catalog::subject_marks::Mark;

use super::export::Held;
use super::forget::{held_in_words, steps};
use super::person::{Person, Standing, count, find, stand, unread};
use super::remains;
use super::syntax::Who;
use crate::error::{CatalogError, Error, Result};
use crate::session::StatementContext;
use crate::session::run::Run;

/// The columns of the answer: a table or model, what would be done there, how many rows, users or
/// records are the person's, and whether nothing of the person would be left there.
pub(crate) fn explain_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("object", DataType::Utf8, false),
        Field::new("action", DataType::Utf8, false),
        Field::new("rows", DataType::Int64, true),
        Field::new("exact", DataType::Boolean, false),
    ]))
}

struct Row {
    object: String,
    action: String,
    rows: Option<u64>,
    exact: bool,
}

/// Tells each step, and what would remain.
pub(super) async fn run(run: &Run, who: &Who) -> Result<RecordBatch> {
    let context = StatementContext::load(&run.session).await?;
    let person = find(run, &context, who).await?;
    let mut rows = Vec::new();
    if person.has(&context, Mark::Held).await? {
        rows.push(Row {
            object: "person".into(),
            action: "FORGET is refused: the person is held".into(),
            rows: None,
            exact: false,
        });
    }
    let (steps, doubts) = steps(run, &context, &person).await?;
    let mut left = Vec::new();
    for step in &steps {
        let row = told(run, &context, &person, step).await?;
        if let (Step::Hide { table }, false) = (step, row.exact || row.rows == Some(0)) {
            left.push(table.clone());
        }
        rows.push(row);
    }
    let mut remains = remains::of(&context, &person.names()).await?;
    remains.extend(remains::of_readers(&context, &person, &left).await);
    let unseen: Vec<(&Step, bool)> = steps.iter().map(|step| (step, false)).collect();
    remains.extend(remains::of_buckets(&context, &unseen).await?);
    for remains in remains.into_iter().chain(person.unreached).chain(doubts) {
        rows.push(Row { object: "remains".into(), action: remains, rows: None, exact: false });
    }
    let counts =
        rows.iter().map(|row| row.rows.map(|rows| i64::try_from(rows).unwrap_or(i64::MAX)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.object.as_str()))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.action.as_str()))),
        Arc::new(counts.collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.exact)).collect::<BooleanArray>()),
    ];
    Ok(RecordBatch::try_new(explain_schema(), columns)?)
}

/// How many rows of a table are the person's.
async fn counted_in(
    run: &Run,
    context: &Arc<StatementContext>,
    person: &Person,
    table: &ObjectName,
) -> Result<u64> {
    let Some(Standing { relation, schema }) = stand(context, table, None).await? else {
        return Ok(0);
    };
    match person.rows_of(table, &schema) {
        Some(condition) => count(run, context, &relation, &condition).await,
        None => Ok(0),
    }
}

async fn told(
    run: &Run,
    context: &Arc<StatementContext>,
    person: &Person,
    step: &Step,
) -> Result<Row> {
    let row = |action: &str, rows: Option<u64>, exact: bool| Row {
        object: step.object(),
        action: action.to_owned(),
        rows,
        exact,
    };
    match step {
        Step::Hide { table } | Step::Rewrite { table } => {
            let is_hidden = matches!(step, Step::Hide { .. });
            let rows = match Box::pin(counted_in(run, context, person, table)).await {
                Ok(rows) => Some(rows),
                // One that is closed, because another one keeps identifiers of its files apart.
                Err(Error::Catalog(CatalogError::Invalid { .. })) if is_hidden => None,
                Err(error) => {
                    let does = if is_hidden { "hide from every read" } else { "rewrite" };
                    let action = format!("{does}; {}", unread(table, error)?);
                    return Ok(row(&action, None, false));
                }
            };
            let catalog = context.engine().catalog();
            let rewrites = is_hidden
                && rows.is_some()
                && catalog.rewrites_files_of(table, context.engine().base()).await?;
            Ok(match (is_hidden, rewrites) {
                (true, true) => row(
                    "hide from every read, and rewrite the files; name those that cannot be",
                    rows,
                    true,
                ),
                (true, false) => row("hide from every read, and name the files", rows, false),
                (false, _) => row("rewrite, and purge every earlier version", rows, true),
            })
        }
        Step::Unlearn { model, version } => {
            let catalog = context.engine().catalog();
            let loaded = match catalog.load_model(model, Some(*version)).await {
                Ok(loaded) => loaded,
                Err(CatalogError::NotFound { .. }) => return Ok(row("gone", None, true)),
                Err(error) => return Err(error.into()),
            };
            let (ids, _) = person.ids_in(run, context, &loaded.manifest.users_of).await?;
            let held = Held::of(person, &loaded, &ids)?;
            let rows = held.users.len() as u64 + held.records.len() as u64;
            Ok(row(&held_in_words(&held), Some(rows), !held.records.is_empty()))
        }
        Step::Clear => Ok(row("remove caches, results of checks and marks", None, true)),
    }
}
