//! From Arrow's types to those that a Delta table can store.
//!
//! Timestamps have microseconds, in UTC or without a zone; finer digits, as `now()` has them, are
//! cut (bulk loads are refused before). Unsigned integers take the next wider signed type, and a
//! 64-bit one that does not fit is an error. Dictionaries, views, large and run-end encoded types
//! lose their encoding; a column of nothing but NULL becomes text. What is left (times, durations,
//! intervals, unions) is an error that names the column. Source: the Delta protocol, "Schema
//! Serialization Format".

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

use crate::error::{Error, Result};

/// The nullability of a new table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// Every column takes NULL: what a query happens to produce is no constraint.
    Allowed,
    /// As the schema says.
    AsDeclared,
}

/// The schema of a Delta table that stores rows of `schema`.
///
/// # Errors
/// When two columns have the same name (Delta ignores case), a column has none, there is no
/// column, or a type cannot be stored.
pub fn storable_schema(schema: &Schema, nulls: Nulls) -> Result<SchemaRef> {
    if schema.fields().is_empty() {
        return Err(Error::invalid("a table needs at least one column"));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut fields = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let name = field.name();
        if name.is_empty() {
            return Err(Error::invalid_hint("a column has no name", "name it with AS"));
        }
        if !seen.insert(name.to_lowercase()) {
            return Err(Error::invalid_hint(
                format!("two columns are named {name}; a table ignores case in column names"),
                "rename one with AS",
            ));
        }
        let nullable = nulls == Nulls::Allowed || field.is_nullable();
        fields.push(Field::new(name, storable_type(name, field.data_type())?, nullable));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn storable_type(column: &str, data_type: &DataType) -> Result<DataType> {
    use DataType as T;
    Ok(match data_type {
        T::Boolean | T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 => {
            data_type.clone()
        }
        T::UInt8 => T::Int16,
        T::UInt16 => T::Int32,
        T::UInt32 | T::UInt64 => T::Int64,
        T::Float16 => T::Float32,
        T::Date32 | T::Date64 => T::Date32,
        T::Timestamp(_, None) => T::Timestamp(TimeUnit::Microsecond, None),
        T::Timestamp(_, Some(_)) => T::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        T::Null | T::Utf8 | T::LargeUtf8 | T::Utf8View => T::Utf8,
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => T::Binary,
        T::Decimal32(precision, scale)
        | T::Decimal64(precision, scale)
        | T::Decimal128(precision, scale)
        | T::Decimal256(precision, scale)
            if *precision <= 38 && *scale >= 0 =>
        {
            T::Decimal128(*precision, *scale)
        }
        T::Dictionary(_, values) => storable_type(column, values)?,
        T::RunEndEncoded(_, values) => storable_type(column, values.data_type())?,
        T::List(item)
        | T::LargeList(item)
        | T::FixedSizeList(item, _)
        | T::ListView(item)
        | T::LargeListView(item) => T::List(storable_field(column, item, "element")?),
        T::Struct(fields) => {
            let fields = fields.iter().map(|field| storable_field(column, field, field.name()));
            T::Struct(fields.collect::<Result<Fields>>()?)
        }
        T::Map(entries, _) => storable_map(column, entries)?,
        other => {
            return Err(Error::invalid_hint(
                format!("column {column} is {other}, which a table cannot store"),
                "CAST it to text, a number or a timestamp",
            ));
        }
    })
}

fn storable_field(column: &str, field: &Field, name: &str) -> Result<FieldRef> {
    Ok(Arc::new(Field::new(name, storable_type(column, field.data_type())?, true)))
}

fn storable_map(column: &str, entries: &Field) -> Result<DataType> {
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(Error::invalid(format!("column {column} is a map without entries")));
    };
    let [key, value] = fields.as_ref() else {
        return Err(Error::invalid(format!("column {column} is a map without key and value")));
    };
    let key = Field::new("key", storable_type(column, key.data_type())?, false);
    let value = Field::new("value", storable_type(column, value.data_type())?, true);
    let entries = DataType::Struct(Fields::from(vec![key, value]));
    Ok(DataType::Map(Arc::new(Field::new("key_value", entries, false)), false))
}

/// The rows of `batch` as the table stores them, column by column in order.
///
/// # Errors
/// When the number of columns differs, a value does not fit, or a NOT NULL column has a NULL.
pub fn conform(batch: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch> {
    check_width(batch.num_columns(), target)?;
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (column, field) in batch.columns().iter().zip(target.fields()) {
        columns.push(conform_column(column, field)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(target), columns, &options)
        .map_err(|error| Error::invalid(format!("the rows do not fit the table: {error}")))
}

/// Checks that a query has as many columns as the table.
///
/// # Errors
/// When it has not.
pub fn check_width(columns: usize, target: &Schema) -> Result<()> {
    if columns == target.fields().len() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the query has {columns} columns and the table has {}",
        target.fields().len()
    )))
}

fn conform_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let cast = if column.data_type() == field.data_type() {
        Arc::clone(column)
    } else {
        cast_with_options(column, field.data_type(), &strict).map_err(|error| {
            Error::invalid(format!(
                "column {} is {} and takes no {}: {error}",
                field.name(),
                field.data_type(),
                column.data_type()
            ))
        })?
    };
    if !field.is_nullable() && cast.logical_null_count() > 0 {
        return Err(Error::invalid(format!("column {} is NOT NULL", field.name())));
    }
    Ok(cast)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray, UInt64Array};

    use super::*;

    fn schema(fields: Vec<(&str, DataType)>) -> Schema {
        let fields = fields.into_iter().map(|(name, kind)| Field::new(name, kind, false));
        Schema::new(fields.collect::<Vec<_>>())
    }

    #[test]
    fn types_become_storable_or_name_the_column() {
        let input = schema(vec![
            ("t", DataType::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into()))),
            ("u", DataType::UInt32),
            ("d", DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8View))),
            ("n", DataType::Null),
        ]);
        let stored = storable_schema(&input, Nulls::Allowed).unwrap();
        let types: Vec<_> = stored.fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(
            types,
            [
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                DataType::Int64,
                DataType::Utf8,
                DataType::Utf8
            ]
        );
        assert!(stored.fields().iter().all(|field| field.is_nullable()));
        let wrong = schema(vec![("wait", DataType::Duration(TimeUnit::Second))]);
        let error = storable_schema(&wrong, Nulls::Allowed).unwrap_err().to_string();
        assert!(error.contains("wait") && error.contains("Duration"), "{error}");
    }

    #[test]
    fn two_columns_of_one_name_are_refused() {
        let twice = schema(vec![("id", DataType::Int64), ("ID", DataType::Int64)]);
        let error = storable_schema(&twice, Nulls::Allowed).unwrap_err().to_string();
        assert!(error.contains("ID"), "{error}");
    }

    #[test]
    fn values_that_do_not_fit_are_an_error_and_never_null() {
        let target = Arc::new(schema(vec![("n", DataType::Int64)]));
        let batch = |column: ArrayRef| RecordBatch::try_from_iter([("x", column)]).unwrap();
        let fits = conform(&batch(Arc::new(UInt64Array::from(vec![7]))), &target).unwrap();
        assert_eq!(fits.column(0).as_ref(), &Int64Array::from(vec![7]));
        let large = batch(Arc::new(UInt64Array::from(vec![u64::MAX])));
        assert!(conform(&large, &target).unwrap_err().to_string().contains("column n"));
        let text = batch(Arc::new(StringViewArray::from(vec!["x"])));
        assert!(conform(&text, &target).is_err());
        let null = batch(Arc::new(Int64Array::from(vec![None])));
        assert!(conform(&null, &target).unwrap_err().to_string().contains("NOT NULL"));
    }
}
