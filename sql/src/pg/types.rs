//! Arrow types as PostgreSQL's: one mapping for results, parameters and the catalog.
//!
//! Unsigned integers widen, every decimal is `numeric`, views and dictionaries are what they hold,
//! lists of plain values are arrays; structs, maps, unions and lists of those are `json`, because
//! PostgreSQL's composite types need a definition that a client can look up.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion_pg_catalog::pg_catalog::oid_field::OID_ALIAS_KEY;
use datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use sqlparser::ast::{DataType as SqlType, ObjectNamePart};

/// `text`.
pub const TEXT: u32 = 25;
/// `numeric`.
pub const NUMERIC: u32 = 1700;
/// `json`.
pub const JSON: u32 = 114;

/// Types with their array type, byte length (-1 when it varies) and names: in `pg_type` and in
/// the standard's words.
const TYPES: [(u32, u32, i16, &str, &str); 18] = [
    (16, 1000, 1, "bool", "boolean"),
    (17, 1001, -1, "bytea", "bytea"),
    (18, 1002, 1, "char", "\"char\""),
    (20, 1016, 8, "int8", "bigint"),
    (21, 1005, 2, "int2", "smallint"),
    (23, 1007, 4, "int4", "integer"),
    (TEXT, 1009, -1, "text", "text"),
    (26, 1028, 4, "oid", "oid"),
    (JSON, 199, -1, "json", "json"),
    (700, 1021, 4, "float4", "real"),
    (701, 1022, 8, "float8", "double precision"),
    (1082, 1182, 4, "date", "date"),
    (1083, 1183, 8, "time", "time without time zone"),
    (1114, 1115, 8, "timestamp", "timestamp without time zone"),
    (1184, 1185, 8, "timestamptz", "timestamp with time zone"),
    (1186, 1187, 16, "interval", "interval"),
    (NUMERIC, 1231, -1, "numeric", "numeric"),
    (2950, 2951, 16, "uuid", "uuid"),
];

/// The type of a column, by PostgreSQL's number.
pub fn oid_of(field: &Field) -> u32 {
    let alias = field.metadata().get(OID_ALIAS_KEY).map(String::as_str);
    let text = matches!(field.data_type(), DataType::Utf8);
    match alias.and_then(arrow_pg::datatypes::pg_type_for_alias_kind) {
        // `regproc` columns hold names, and clients read them as text.
        Some(known) if !text => known.oid(),
        _ => type_oid(field.data_type()),
    }
}

/// The type of values, by PostgreSQL's number.
pub fn type_oid(data_type: &DataType) -> u32 {
    match data_type {
        DataType::Null => TEXT,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => NUMERIC,
        DataType::Dictionary(_, values) => type_oid(values),
        DataType::RunEndEncoded(_, values) => type_oid(values.data_type()),
        DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) => JSON,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => array_oid(item.data_type()),
        other => arrow_pg::datatypes::into_pg_type(other).map_or(TEXT, |known| known.oid()),
    }
}

fn array_oid(item: &DataType) -> u32 {
    let oid = type_oid(item);
    let nested = oid == JSON || element_of(oid).is_some();
    let known = TYPES.iter().find(|known| known.0 == oid);
    match known {
        Some(known) if !nested => known.1,
        _ => JSON,
    }
}

/// The element type of an array type.
pub fn element_of(oid: u32) -> Option<u32> {
    TYPES.iter().find(|known| known.1 == oid).map(|known| known.0)
}

/// Bytes of a value; -1 when it varies.
pub fn length_of(oid: u32) -> i16 {
    TYPES.iter().find(|known| known.0 == oid).map_or(-1, |known| known.2)
}

/// Precision and scale of a decimal in PostgreSQL's form; -1 for every other type.
pub fn modifier_of(data_type: &DataType) -> i32 {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *scale >= 0 =>
        {
            ((i32::from(*precision) << 16) | i32::from(*scale)) + 4
        }
        DataType::Dictionary(_, values) => modifier_of(values),
        DataType::RunEndEncoded(_, values) => modifier_of(values.data_type()),
        _ => -1,
    }
}

/// The name in `pg_type`, and the standard's.
pub fn names_of(oid: u32) -> (String, &'static str) {
    if let Some(known) = TYPES.iter().find(|known| known.0 == oid) {
        return (known.3.to_owned(), known.4);
    }
    let element = element_of(oid).and_then(|element| TYPES.iter().find(|known| known.0 == element));
    match element {
        Some(element) => (format!("_{}", element.3), "ARRAY"),
        None => ("text".to_owned(), "text"),
    }
}

/// Reads PostgreSQL's type names in casts: `oid`, `regclass`, `name`, `pg_catalog.int4` and so on.
#[derive(Debug)]
pub(crate) struct PgTypes;

impl TypePlanner for PgTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> DataFusionResult<Option<Arc<Field>>> {
        if let Some(known) = PgOidTypePlanner.plan_type_field(sql_type)? {
            return Ok(Some(known));
        }
        let SqlType::Custom(name, modifiers) = sql_type else { return Ok(None) };
        let Some(ObjectNamePart::Identifier(last)) = name.0.last() else { return Ok(None) };
        let data_type = match last.value.to_lowercase().as_str() {
            "name" | "bpchar" | "cstring" | "unknown" | "json" | "jsonb" | "char"
                if modifiers.is_empty() =>
            {
                DataType::Utf8
            }
            "xid" | "cid" => DataType::Int32,
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Fields, TimeUnit};

    use super::*;

    fn list(item: DataType) -> DataType {
        DataType::List(Arc::new(Field::new_list_field(item, true)))
    }

    #[test]
    fn every_family_of_types_has_its_number() {
        let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8View));
        let point = DataType::Struct(Fields::from(vec![Field::new("x", DataType::Int8, true)]));
        for (data_type, oid) in [
            (DataType::Null, TEXT),
            (DataType::UInt8, 21),
            (DataType::UInt32, 20),
            (DataType::UInt64, NUMERIC),
            (DataType::Decimal256(60, 3), NUMERIC),
            (DataType::Timestamp(TimeUnit::Nanosecond, None), 1114),
            (DataType::Timestamp(TimeUnit::Second, Some("UTC".into())), 1184),
            (DataType::Duration(TimeUnit::Second), 1186),
            (text, TEXT),
            (list(DataType::Float32), 1021),
            (list(list(DataType::Int64)), JSON),
            (list(point.clone()), JSON),
            (point, JSON),
        ] {
            assert_eq!(type_oid(&data_type), oid, "{data_type}");
        }
    }

    #[test]
    fn a_decimal_tells_its_precision() {
        assert_eq!(modifier_of(&DataType::Decimal128(10, 2)), (10 << 16 | 2) + 4);
        assert_eq!(modifier_of(&DataType::Utf8), -1);
        assert_eq!(names_of(1231).1, "ARRAY");
    }
}
