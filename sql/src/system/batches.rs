//! The rows of the system tables.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use catalog::Spec;
use catalog::models::ModelInfo;
use catalog::policy::Role;

use crate::consent;
use crate::consent::withdrawals::have_changed_since;
use crate::engine::CATALOG;
use crate::error::Result;
use crate::rights::Rights;
use crate::session::{Session, StatementContext, TableFilter, TableInfo};

pub(crate) type Column = (&'static str, ArrayRef);

pub(crate) fn batch(columns: Vec<Column>) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )?)
}

pub(crate) fn texts<T: Into<String>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values.into_iter().map(Into::into)))
}

pub(crate) fn optional_texts(values: impl IntoIterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

pub(super) fn integers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

async fn listed(session: &Session, with_columns: bool) -> Result<Vec<TableInfo>> {
    session.tables(&TableFilter { with_columns, ..TableFilter::default() }).await
}

/// A table's column with its place.
struct ColumnRow<'a> {
    table: &'a TableInfo,
    field: &'a arrow::datatypes::Field,
    position: i64,
}

fn column_rows(tables: &[TableInfo]) -> Vec<ColumnRow<'_>> {
    tables
        .iter()
        .filter_map(|table| table.columns.as_ref().map(|columns| (table, columns)))
        .flat_map(|(table, columns)| {
            columns.fields().iter().zip(1..).map(move |(field, position)| ColumnRow {
                table,
                field,
                position,
            })
        })
        .collect()
}

pub(super) async fn tables(session: &Session) -> Result<RecordBatch> {
    let tables = listed(session, false).await?;
    let definitions = session.engine().catalog().definitions().await?;
    let only_grows = |table: &TableInfo| {
        let found = definitions.get(&(table.schema.clone(), table.name.clone()));
        found.is_some_and(|found| matches!(&found.spec, Spec::Managed(of) if of.append_only))
    };
    batch(vec![
        ("schema", texts(tables.iter().map(|table| table.schema.as_str()))),
        ("name", texts(tables.iter().map(|table| table.name.as_str()))),
        ("kind", texts(tables.iter().map(|table| table.kind.to_lowercase()))),
        (
            "append_only",
            Arc::new(tables.iter().map(|table| Some(only_grows(table))).collect::<BooleanArray>()),
        ),
        ("pii_table", optional_texts(tables.iter().map(|table| table.pii_table.clone()))),
        (
            "restricted",
            Arc::new(tables.iter().map(|table| Some(table.restricted)).collect::<BooleanArray>()),
        ),
    ])
}

pub(super) async fn columns(session: &Session) -> Result<RecordBatch> {
    columns_of(&listed(session, true).await?)
}

pub(super) fn columns_of(tables: &[TableInfo]) -> Result<RecordBatch> {
    let rows = column_rows(tables);
    let key = |row: &ColumnRow<'_>| {
        let pii = row.table.pii.as_ref().filter(|pii| pii.has(row.field.name()));
        pii.map(|pii| pii.key.clone())
    };
    batch(vec![
        ("schema", texts(rows.iter().map(|row| row.table.schema.as_str()))),
        ("table", texts(rows.iter().map(|row| row.table.name.as_str()))),
        ("name", texts(rows.iter().map(|row| row.field.name().as_str()))),
        ("position", integers(rows.iter().map(|row| row.position))),
        ("type", texts(rows.iter().map(|row| row.field.data_type().to_string()))),
        (
            "nullable",
            Arc::new(
                rows.iter().map(|row| Some(row.field.is_nullable())).collect::<BooleanArray>(),
            ),
        ),
        ("pseudonymized_under", optional_texts(rows.iter().map(key))),
    ])
}

pub(super) async fn schemas(session: &Session) -> Result<RecordBatch> {
    batch(vec![("name", texts(session.schemas().await?))])
}

pub(super) async fn functions(session: &Session) -> Result<RecordBatch> {
    let rights = session.rights().await?;
    let mut documented = session.engine().functions_documentation();
    documented.retain(|function| rights.may_execute(&function.name));
    batch(vec![
        ("name", texts(documented.iter().map(|function| function.name.as_str()))),
        ("kind", texts(documented.iter().map(|function| function.kind))),
        ("syntax", texts(documented.iter().map(|function| function.syntax.as_str()))),
        ("description", texts(documented.iter().map(|function| function.description.as_str()))),
        ("section", texts(documented.iter().map(|function| function.section.as_str()))),
        ("example", texts(documented.iter().map(|function| function.example.as_str()))),
        (
            "own",
            Arc::new(
                documented.iter().map(|function| Some(function.own)).collect::<BooleanArray>(),
            ),
        ),
    ])
}

/// Whether somebody sees a model in lists. Who keeps policies sees which models were trained for a
/// purpose.
pub(super) fn sees_model(rights: &Rights, model: &ModelInfo) -> bool {
    rights.may_use(&model.name, Some(&model.owner))
        || (rights.has(Role::PolicyAdmin) && model.options.contains_key("purpose"))
}

pub(super) async fn models(context: &Arc<StatementContext>) -> Result<RecordBatch> {
    let rights = context.rights();
    let all = context.engine().catalog().models().await?;
    let models: Vec<_> = all.into_iter().filter(|model| sees_model(rights, model)).collect();
    let standings = consent::models::standings(context, &models).await?;
    let mut changed = Vec::with_capacity(models.len());
    for model in &models {
        changed.push(match standings.contains_key(&model.name) {
            true => have_changed_since(context.engine(), &model.name).await,
            false => None,
        });
    }
    let standing = || models.iter().map(|model| standings.get(&model.name));
    let withdrawn = standing().map(|found| found.and_then(|found| found.withdrawn));
    let options = models.iter().map(|model| serde_json::to_string(&model.options));
    let options: Vec<String> = options.map(Result::unwrap_or_default).collect();
    let query = |model: &ModelInfo| {
        rights.sees_definition(&model.name, Some(&model.owner)).then(|| model.query.clone())
    };
    batch(vec![
        ("schema", texts(models.iter().map(|model| model.name.schema.as_str()))),
        ("name", texts(models.iter().map(|model| model.name.name.as_str()))),
        ("model_type", texts(models.iter().map(|model| model.model_type.as_str()))),
        ("default_version", integers(models.iter().map(|model| i64::from(model.default_version)))),
        ("versions", integers(models.iter().map(|model| model.versions as i64))),
        ("owner", texts(models.iter().map(|model| model.owner.as_str()))),
        (
            "created",
            Arc::new(
                TimestampMillisecondArray::from_iter_values(
                    models.iter().map(|model| model.created_ms),
                )
                .with_timezone("UTC"),
            ),
        ),
        (
            "metric",
            optional_texts(models.iter().map(|model| model.metric.as_ref().map(|m| m.0.clone()))),
        ),
        (
            "metric_value",
            Arc::new(
                models
                    .iter()
                    .map(|model| model.metric.as_ref().map(|metric| metric.1))
                    .collect::<Float64Array>(),
            ),
        ),
        ("options", texts(options.iter().map(String::as_str))),
        ("query", optional_texts(models.iter().map(query))),
        ("purpose", optional_texts(standing().map(|found| Some(found?.purpose.clone())))),
        ("consent_version", optional_texts(standing().map(|found| Some(found?.version.clone())))),
        ("withdrawn_users", Arc::new(withdrawn.collect::<Int64Array>())),
        ("consents_changed", Arc::new(changed.into_iter().collect::<BooleanArray>())),
    ])
}

pub(super) async fn queries(session: &Session) -> Result<RecordBatch> {
    let rights = session.rights().await?;
    let mut records = session.engine().queries().records();
    records.retain(|record| rights.has(Role::Admin) || record.principal == rights.name());
    let progress = || records.iter().map(|record| record.progress.as_ref());
    let optional =
        |values: Vec<Option<i64>>| Arc::new(values.into_iter().collect::<Int64Array>()) as ArrayRef;
    batch(vec![
        ("id", texts(records.iter().map(|record| record.id.as_str()))),
        ("session_id", texts(records.iter().map(|record| record.session_id.as_str()))),
        ("principal", texts(records.iter().map(|record| record.principal.as_str()))),
        ("client", optional_texts(records.iter().map(|record| record.client.clone()))),
        ("address", optional_texts(records.iter().map(|record| record.address.clone()))),
        ("text", texts(records.iter().map(|record| record.text.as_ref()))),
        ("state", texts(records.iter().map(|record| record.state.name()))),
        (
            "started",
            Arc::new(
                TimestampMillisecondArray::from_iter_values(
                    records.iter().map(|record| record.started_ms),
                )
                .with_timezone("UTC"),
            ),
        ),
        ("queued_ms", integers(records.iter().map(|record| record.queued_ms))),
        ("run_ms", optional(records.iter().map(|record| record.run_ms).collect())),
        ("rows", integers(records.iter().map(|record| record.rows.cast_signed()))),
        ("bytes", integers(records.iter().map(|record| record.bytes.cast_signed()))),
        (
            "memory_peak_bytes",
            integers(records.iter().map(|record| record.memory_peak_bytes.cast_signed())),
        ),
        ("phase", optional_texts(progress().map(|now| now.map(|now| now.phase.clone())))),
        ("done", optional(progress().map(|now| now.map(|now| now.done.cast_signed())).collect())),
        ("total", optional(progress().map(|now| now.map(|now| now.total.cast_signed())).collect())),
        ("error_code", optional_texts(records.iter().map(|r| r.error_code.map(str::to_owned)))),
    ])
}

pub(super) fn settings(session: &Session) -> Result<RecordBatch> {
    let known = crate::session::SETTINGS;
    batch(vec![
        ("name", texts(known.iter().map(|(name, _)| *name))),
        ("value", optional_texts(known.iter().map(|(name, _)| session.setting(name)))),
        ("description", texts(known.iter().map(|(_, meaning)| *meaning))),
    ])
}

pub(super) async fn information_tables(session: &Session) -> Result<RecordBatch> {
    let tables = listed(session, false).await?;
    let kind = |table: &TableInfo| match table.kind {
        "TABLE" => "BASE TABLE",
        other => other,
    };
    batch(vec![
        ("table_catalog", texts(tables.iter().map(|_| CATALOG))),
        ("table_schema", texts(tables.iter().map(|table| table.schema.as_str()))),
        ("table_name", texts(tables.iter().map(|table| table.name.as_str()))),
        ("table_type", texts(tables.iter().map(kind))),
    ])
}

pub(super) async fn information_columns(session: &Session) -> Result<RecordBatch> {
    information_columns_of(&listed(session, true).await?)
}

pub(super) fn information_columns_of(tables: &[TableInfo]) -> Result<RecordBatch> {
    let rows = column_rows(tables);
    let nullable = |row: &ColumnRow<'_>| if row.field.is_nullable() { "YES" } else { "NO" };
    batch(vec![
        ("table_catalog", texts(rows.iter().map(|_| CATALOG))),
        ("table_schema", texts(rows.iter().map(|row| row.table.schema.as_str()))),
        ("table_name", texts(rows.iter().map(|row| row.table.name.as_str()))),
        ("column_name", texts(rows.iter().map(|row| row.field.name().as_str()))),
        ("ordinal_position", integers(rows.iter().map(|row| row.position))),
        ("is_nullable", texts(rows.iter().map(nullable))),
        ("data_type", texts(rows.iter().map(|row| row.field.data_type().to_string()))),
    ])
}

pub(super) async fn information_schemata(session: &Session) -> Result<RecordBatch> {
    let schemas = session.schemas().await?;
    batch(vec![
        ("catalog_name", texts(schemas.iter().map(|_| CATALOG))),
        ("schema_name", texts(schemas.clone())),
    ])
}
