//! PostgreSQL's `information_schema`: the standard's columns with PostgreSQL's type names.

use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};

use super::relations::{Columns, OWNER_NAME, Same, visible};
use super::types::{names_of, oid_of};
use crate::engine::CATALOG;
use crate::error::Result;
use crate::session::{StatementContext, TableInfo};

use Same::{Is, NoNumber, NoText, Text};

/// Views that have no rows here, with their columns: Attune has no keys, routines or sequences.
const NOTHING: [(&str, &str); 12] = [
    (
        "table_constraints",
        "constraint_catalog constraint_schema constraint_name table_catalog table_schema \
         table_name constraint_type is_deferrable initially_deferred enforced nulls_distinct",
    ),
    (
        "key_column_usage",
        "constraint_catalog constraint_schema constraint_name table_catalog table_schema \
         table_name column_name #ordinal_position #position_in_unique_constraint",
    ),
    (
        "referential_constraints",
        "constraint_catalog constraint_schema constraint_name unique_constraint_catalog \
         unique_constraint_schema unique_constraint_name match_option update_rule delete_rule",
    ),
    (
        "constraint_column_usage",
        "table_catalog table_schema table_name column_name constraint_catalog constraint_schema \
         constraint_name",
    ),
    (
        "constraint_table_usage",
        "table_catalog table_schema table_name constraint_catalog constraint_schema \
         constraint_name",
    ),
    ("check_constraints", "constraint_catalog constraint_schema constraint_name check_clause"),
    (
        "routines",
        "specific_catalog specific_schema specific_name routine_catalog routine_schema \
         routine_name routine_type data_type type_udt_schema type_udt_name routine_definition \
         external_language",
    ),
    (
        "parameters",
        "specific_catalog specific_schema specific_name #ordinal_position parameter_mode \
         parameter_name data_type udt_schema udt_name",
    ),
    (
        "sequences",
        "sequence_catalog sequence_schema sequence_name data_type start_value minimum_value \
         maximum_value increment cycle_option",
    ),
    (
        "element_types",
        "object_catalog object_schema object_name object_type collection_type_identifier \
         data_type udt_schema udt_name",
    ),
    (
        "triggers",
        "trigger_catalog trigger_schema trigger_name event_manipulation event_object_schema \
         event_object_table action_statement action_timing",
    ),
    (
        "domains",
        "domain_catalog domain_schema domain_name data_type udt_schema udt_name domain_default",
    ),
];

/// Whether a view of this schema never has rows.
pub(super) fn is_empty(name: &str) -> bool {
    NOTHING.iter().any(|(known, _)| *known == name)
}

/// A view by its name; `None` when there is none.
pub(super) async fn table(
    context: &Arc<StatementContext>,
    name: &str,
) -> Result<Option<RecordBatch>> {
    let batch = match name {
        "schemata" => schemata(context)?,
        "tables" => tables(&visible(context).await?)?,
        "columns" => columns(&visible(context).await?)?,
        "views" => views(&visible(context).await?)?,
        "character_sets" => character_sets()?,
        "enabled_roles" | "applicable_roles" => roles(context)?,
        other => match NOTHING.iter().find(|(known, _)| *known == other) {
            Some((_, columns)) => nothing(columns)?,
            None => return Ok(None),
        },
    };
    Ok(Some(batch))
}

/// Columns whose name begins with `#` are numbers.
fn nothing(columns: &'static str) -> Result<RecordBatch> {
    let mut made = Columns::of(0);
    for column in columns.split_whitespace() {
        made = match column.strip_prefix('#') {
            Some(number) => made.same(&[(number, NoNumber)]),
            None => made.same(&[(column, NoText)]),
        };
    }
    made.batch()
}

fn schemata(context: &Arc<StatementContext>) -> Result<RecordBatch> {
    let schemas = context.schemas();
    Columns::of(schemas.len())
        .same(&[("catalog_name", Text(CATALOG))])
        .texts("schema_name", schemas.iter().map(String::as_str))
        .same(&[
            ("schema_owner", Text(OWNER_NAME)),
            ("default_character_set_catalog", NoText),
            ("default_character_set_schema", NoText),
            ("default_character_set_name", NoText),
            ("sql_path", NoText),
        ])
        .batch()
}

fn tables(tables: &[TableInfo]) -> Result<RecordBatch> {
    let kind = |table: &TableInfo| if table.kind == "TABLE" { "BASE TABLE" } else { "VIEW" };
    Columns::of(tables.len())
        .same(&[("table_catalog", Text(CATALOG))])
        .texts("table_schema", tables.iter().map(|table| table.schema.as_str()))
        .texts("table_name", tables.iter().map(|table| table.name.as_str()))
        .texts("table_type", tables.iter().map(kind))
        .same(&[
            ("self_referencing_column_name", NoText),
            ("reference_generation", NoText),
            ("user_defined_type_catalog", NoText),
            ("user_defined_type_schema", NoText),
            ("user_defined_type_name", NoText),
            ("is_insertable_into", Text("NO")),
            ("is_typed", Text("NO")),
            ("commit_action", NoText),
        ])
        .batch()
}

fn views(tables: &[TableInfo]) -> Result<RecordBatch> {
    let views: Vec<&TableInfo> = tables.iter().filter(|table| table.kind != "TABLE").collect();
    Columns::of(views.len())
        .same(&[("table_catalog", Text(CATALOG))])
        .texts("table_schema", views.iter().map(|view| view.schema.as_str()))
        .texts("table_name", views.iter().map(|view| view.name.as_str()))
        .same(&[
            ("view_definition", NoText),
            ("check_option", Text("NONE")),
            ("is_updatable", Text("NO")),
            ("is_insertable_into", Text("NO")),
        ])
        .batch()
}

fn columns(tables: &[TableInfo]) -> Result<RecordBatch> {
    let mut rows: Vec<(&TableInfo, &Field, i32)> = Vec::new();
    for table in tables {
        let fields = table.columns.iter().flat_map(|columns| columns.fields());
        rows.extend(fields.zip(1..).map(|(field, position)| (table, field.as_ref(), position)));
    }
    let oids: Vec<u32> = rows.iter().map(|(_, field, _)| oid_of(field)).collect();
    let names: Vec<(String, &str)> = oids.iter().map(|oid| names_of(*oid)).collect();
    let numbers = |of: fn(&Field, u32) -> Option<i32>| {
        let values = rows.iter().zip(&oids).map(|((_, field, _), oid)| of(field, *oid));
        Arc::new(values.collect::<Int32Array>())
    };
    let nullable = |field: &Field| if field.is_nullable() { "YES" } else { "NO" };
    let positions = Int32Array::from_iter_values(rows.iter().map(|(_, _, position)| *position));
    let identifiers: Vec<String> = rows.iter().map(|(.., position)| position.to_string()).collect();
    Columns::of(rows.len())
        .same(&[("table_catalog", Text(CATALOG))])
        .texts("table_schema", rows.iter().map(|(table, ..)| table.schema.as_str()))
        .texts("table_name", rows.iter().map(|(table, ..)| table.name.as_str()))
        .texts("column_name", rows.iter().map(|(_, field, _)| field.name().as_str()))
        .plain("ordinal_position", Arc::new(positions))
        .same(&[("column_default", NoText)])
        .texts("is_nullable", rows.iter().map(|(_, field, _)| nullable(field)))
        .texts("data_type", names.iter().map(|(_, standard)| *standard))
        .same(&[("character_maximum_length", NoNumber), ("character_octet_length", NoNumber)])
        .plain("numeric_precision", numbers(precision))
        .plain("numeric_precision_radix", numbers(radix))
        .plain("numeric_scale", numbers(scale))
        .plain("datetime_precision", numbers(|_, oid| fraction(oid)))
        .same(&[
            ("interval_type", NoText),
            ("interval_precision", NoNumber),
            ("character_set_catalog", NoText),
            ("character_set_schema", NoText),
            ("character_set_name", NoText),
            ("collation_catalog", NoText),
            ("collation_schema", NoText),
            ("collation_name", NoText),
            ("domain_catalog", NoText),
            ("domain_schema", NoText),
            ("domain_name", NoText),
            ("udt_catalog", Text(CATALOG)),
            ("udt_schema", Text(super::PG_CATALOG)),
        ])
        .plain(
            "udt_name",
            Arc::new(StringArray::from_iter_values(names.iter().map(|(name, _)| name))),
        )
        .same(&[
            ("scope_catalog", NoText),
            ("scope_schema", NoText),
            ("scope_name", NoText),
            ("maximum_cardinality", NoNumber),
        ])
        .texts("dtd_identifier", identifiers)
        .same(&[
            ("is_self_referencing", Text("NO")),
            ("is_identity", Text("NO")),
            ("identity_generation", NoText),
            ("identity_start", NoText),
            ("identity_increment", NoText),
            ("identity_maximum", NoText),
            ("identity_minimum", NoText),
            ("identity_cycle", Text("NO")),
            ("is_generated", Text("NEVER")),
            ("generation_expression", NoText),
            ("is_updatable", Text("NO")),
        ])
        .batch()
}

/// Bits of a whole or floating number, digits of a decimal.
fn precision(field: &Field, oid: u32) -> Option<i32> {
    match (field.data_type(), oid) {
        (
            DataType::Decimal32(precision, _)
            | DataType::Decimal64(precision, _)
            | DataType::Decimal128(precision, _)
            | DataType::Decimal256(precision, _),
            _,
        ) => Some(i32::from(*precision)),
        (_, 21) => Some(16),
        (_, 23) => Some(32),
        (_, 20) => Some(64),
        (_, 700) => Some(24),
        (_, 701) => Some(53),
        _ => None,
    }
}

fn radix(field: &Field, oid: u32) -> Option<i32> {
    precision(field, oid).map(|_| if oid == super::types::NUMERIC { 10 } else { 2 })
}

fn scale(field: &Field, oid: u32) -> Option<i32> {
    match (field.data_type(), oid) {
        (
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale),
            _,
        ) => Some(i32::from(*scale)),
        (_, 20 | 21 | 23) => Some(0),
        _ => None,
    }
}

/// Digits of a second's fraction.
fn fraction(oid: u32) -> Option<i32> {
    match oid {
        1082 => Some(0),
        1083 | 1114 | 1184 | 1186 => Some(6),
        _ => None,
    }
}

fn character_sets() -> Result<RecordBatch> {
    Columns::of(1)
        .same(&[
            ("character_set_catalog", NoText),
            ("character_set_schema", NoText),
            ("character_set_name", Text("UTF8")),
            ("character_repertoire", Text("UCS")),
            ("form_of_use", Text("UTF8")),
            ("default_collate_catalog", Text(CATALOG)),
            ("default_collate_schema", Text(super::PG_CATALOG)),
            ("default_collate_name", Text("C")),
        ])
        .batch()
}

fn roles(context: &Arc<StatementContext>) -> Result<RecordBatch> {
    let name = context.session().principal().name.clone();
    Columns::of(1)
        .texts("role_name", [name.clone()])
        .texts("grantee", [name])
        .same(&[("is_grantable", Text("NO")), ("is_self", Is(true))])
        .batch()
}
