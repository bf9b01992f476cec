//! What GetTables says of a column in its field's metadata, for JDBC and ODBC.
//!
//! Source: "Flight SQL" in Arrow's documentation, the keys `ARROW:FLIGHT:SQL:*`. Names and sizes
//! are those of GetXdbcTypeInfo. Queries' schemas do without: a result of ten thousand columns
//! would no longer fit into a message of the size that clients accept. Java's clients, which accept
//! any size, are told of a result's columns too: the JDBC driver has precision and scale from here
//! alone.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// What all keys begin with.
pub const PREFIX: &str = "ARROW:FLIGHT:SQL:";

/// The schema with each column described; `read_only` where that is known.
pub fn described(schema: &Schema, path: [&str; 3], read_only: Option<bool>) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| {
            let mut metadata = field.metadata().clone();
            metadata.extend(column(field.data_type(), path, read_only));
            field.as_ref().clone().with_metadata(metadata)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// The field of a result with what its type says. The encoder leaves a union nothing but its
/// members, so it is not described.
pub fn described_result(field: &Field) -> Field {
    if matches!(field.data_type(), DataType::Union(..)) {
        return field.clone();
    }
    let mut metadata = field.metadata().clone();
    metadata.extend(keys(kind(field.data_type())));
    field.clone().with_metadata(metadata)
}

fn column(
    data_type: &DataType,
    [catalog, schema, table]: [&str; 3],
    read_only: Option<bool>,
) -> HashMap<String, String> {
    let mut said = vec![
        ("CATALOG_NAME", catalog.to_owned()),
        ("SCHEMA_NAME", schema.to_owned()),
        ("TABLE_NAME", table.to_owned()),
    ];
    said.extend(kind(data_type));
    said.extend(read_only.map(|truth| ("IS_READ_ONLY", flag(truth))));
    keys(said).collect()
}

/// What a type says of its columns.
fn kind(data_type: &DataType) -> Vec<(&'static str, String)> {
    let (precision, scale) = size(data_type);
    let mut said = vec![
        ("TYPE_NAME", type_name(data_type).to_owned()),
        ("IS_AUTO_INCREMENT", flag(false)),
        ("IS_CASE_SENSITIVE", flag(type_name(data_type) == "VARCHAR")),
        ("IS_SEARCHABLE", flag(!data_type.is_nested())),
    ];
    said.extend(precision.map(|digits| ("PRECISION", digits.to_string())));
    said.extend(scale.map(|digits| ("SCALE", digits.to_string())));
    said
}

fn keys(said: Vec<(&'static str, String)>) -> impl Iterator<Item = (String, String)> {
    said.into_iter().map(|(key, value)| (format!("{PREFIX}{key}"), value))
}

fn flag(truth: bool) -> String {
    if truth { "1" } else { "0" }.to_owned()
}

/// The name of a type in SQL, as GetXdbcTypeInfo has it; of a nested one, what it is.
pub fn type_name(data_type: &DataType) -> &'static str {
    use DataType as T;
    match data_type {
        T::Null => "NULL",
        T::Boolean => "BOOLEAN",
        T::Int8 => "TINYINT",
        T::UInt8 => "TINYINT UNSIGNED",
        T::Int16 => "SMALLINT",
        T::UInt16 => "SMALLINT UNSIGNED",
        T::Int32 => "INTEGER",
        T::UInt32 => "INTEGER UNSIGNED",
        T::Int64 => "BIGINT",
        T::UInt64 => "BIGINT UNSIGNED",
        T::Float16 | T::Float32 => "REAL",
        T::Float64 => "DOUBLE",
        T::Decimal32(..) | T::Decimal64(..) | T::Decimal128(..) | T::Decimal256(..) => "DECIMAL",
        T::Utf8 | T::LargeUtf8 | T::Utf8View => "VARCHAR",
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => "BYTEA",
        T::Date32 | T::Date64 => "DATE",
        T::Time32(_) | T::Time64(_) => "TIME",
        T::Timestamp(_, None) => "TIMESTAMP",
        T::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        T::Duration(_) | T::Interval(_) => "INTERVAL",
        T::List(_)
        | T::LargeList(_)
        | T::ListView(_)
        | T::LargeListView(_)
        | T::FixedSizeList(..) => "ARRAY",
        T::Struct(_) => "STRUCT",
        T::Map(..) => "MAP",
        T::Union(..) => "UNION",
        T::Dictionary(_, value) => type_name(value),
        T::RunEndEncoded(_, value) => type_name(value.data_type()),
    }
}

/// Digits, bits or characters of a value, and its digits behind the point.
fn size(data_type: &DataType) -> (Option<u16>, Option<i16>) {
    use DataType as T;
    let digits = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    // `2026-11-24 12:00:00.123456`: the point counts when there is something behind it.
    let clock = |whole: u16, unit: &TimeUnit| {
        let fraction = digits(unit);
        (Some(whole + fraction + u16::from(fraction > 0)), i16::try_from(fraction).ok())
    };
    match data_type {
        T::Boolean => (Some(1), None),
        T::Int8 | T::UInt8 => (Some(3), Some(0)),
        T::Int16 | T::UInt16 => (Some(5), Some(0)),
        T::Int32 | T::UInt32 => (Some(10), Some(0)),
        T::Int64 => (Some(19), Some(0)),
        T::UInt64 => (Some(20), Some(0)),
        T::Float16 | T::Float32 => (Some(24), None),
        T::Float64 => (Some(53), None),
        T::Decimal32(precision, scale)
        | T::Decimal64(precision, scale)
        | T::Decimal128(precision, scale)
        | T::Decimal256(precision, scale) => (Some(u16::from(*precision)), Some(i16::from(*scale))),
        T::Date32 | T::Date64 => (Some(10), None),
        T::Time32(unit) | T::Time64(unit) => clock(8, unit),
        T::Timestamp(unit, None) => clock(19, unit),
        T::Timestamp(unit, Some(_)) => clock(25, unit),
        _ => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(data_type: DataType) -> HashMap<String, String> {
        let schema = Schema::new(vec![Field::new("c", data_type, true)]);
        let described = described(&schema, ["attune", "main", "t"], Some(false));
        described.field(0).metadata().clone()
    }

    #[test]
    fn a_column_says_its_table_type_and_size() {
        let price = said(DataType::Decimal128(10, 2));
        for (key, value) in [
            ("CATALOG_NAME", "attune"),
            ("SCHEMA_NAME", "main"),
            ("TABLE_NAME", "t"),
            ("TYPE_NAME", "DECIMAL"),
            ("PRECISION", "10"),
            ("SCALE", "2"),
            ("IS_AUTO_INCREMENT", "0"),
            ("IS_READ_ONLY", "0"),
        ] {
            assert_eq!(price[&format!("{PREFIX}{key}")], value, "{key}");
        }
    }

    #[test]
    fn sizes_are_those_of_the_type_info() {
        let of = |data_type| size(&data_type);
        assert_eq!(of(DataType::Timestamp(TimeUnit::Second, None)), (Some(19), Some(0)));
        assert_eq!(of(DataType::Timestamp(TimeUnit::Nanosecond, None)), (Some(29), Some(9)));
        let zoned = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        assert_eq!(of(zoned), (Some(35), Some(9)));
        assert_eq!(of(DataType::Time64(TimeUnit::Nanosecond)), (Some(18), Some(9)));
        assert_eq!(of(DataType::Utf8), (None, None));
    }
}
