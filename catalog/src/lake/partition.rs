//! Hive partitions: folders named `key=value` that are columns, and queries that skip folders.
//!
//! Keys and values are percent-decoded, as Hive and Spark encode them. `__HIVE_DEFAULT_PARTITION__`
//! and the empty value are NULL, and so is a partition column of a file that lies above its
//! folders. A type that is not given is Int64 when every value is a whole number (written without
//! padding, or padded to two digits as months and days are), Date32 when every value is
//! `YYYY-MM-DD`, and text otherwise.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;

use super::table::{Column, LakeTable};
use crate::error::{Error, Result};

/// The name that Hive gives to the folder of NULL.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// The keys and values of the folders above a file, outermost first; `None` is NULL.
pub(crate) type Keys = Vec<(String, Option<String>)>;

/// Reads a folder's name as `key=value`.
pub(crate) fn parse_folder(name: &str) -> Option<(String, Option<String>)> {
    let (key, value) = name.split_once('=')?;
    if key.is_empty() {
        return None;
    }
    let value = if value.is_empty() || value == NULL_FOLDER { None } else { Some(decode(value)) };
    Some((decode(key), value))
}

/// Percent-decodes; what is no escape, or would not be UTF-8, stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                decoded.push(hex(*high).unwrap_or(0) * 16 + hex(*low).unwrap_or(0));
                rest = after;
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Makes the URL of a folder or file, when a message needs it.
pub(crate) type MakeUrl<'a> = &'a dyn Fn() -> String;

/// The partition columns of a table, from the folders that exist and the columns that are given.
///
/// # Errors
/// When two folders are partitioned by different keys; the error names one of them.
pub(crate) fn columns(folders: &[(MakeUrl<'_>, &Keys)], table: &LakeTable) -> Result<Vec<Column>> {
    let given = &table.partitions;
    let names: Vec<String> = if given.is_empty() {
        let longest = folders.iter().max_by_key(|(_, keys)| keys.len());
        longest.map(|(_, keys)| keys.iter().map(|(k, _)| k.clone()).collect()).unwrap_or_default()
    } else {
        given.iter().map(|column| column.name.clone()).collect()
    };
    let mut unique = HashSet::new();
    for (url, keys) in folders {
        check_keys(url, keys, &names)?;
        unique.extend(keys.iter().enumerate().map(|(level, (_, value))| (level, value.as_deref())));
    }
    let typed = |(level, name): (usize, String)| {
        let values = || unique.iter().filter(move |(l, _)| *l == level).filter_map(|(_, v)| *v);
        let given = table.given_partition_type(&name).cloned();
        Column { data_type: given.unwrap_or_else(|| infer(values())), name }
    };
    Ok(names.into_iter().enumerate().map(typed).collect())
}

/// Checks that a folder's keys are the first of the table's.
pub(crate) fn check_keys(url: MakeUrl<'_>, keys: &Keys, names: &[String]) -> Result<()> {
    let fits = keys.len() <= names.len() && keys.iter().zip(names).all(|((k, _), name)| k == name);
    if fits {
        return Ok(());
    }
    let own: Vec<&str> = keys.iter().map(|(key, _)| key.as_str()).collect();
    Err(Error::File {
        url: url(),
        reason: format!(
            "its folders are partitioned by ({}), but the table is partitioned by ({})",
            own.join(", "),
            names.join(", ")
        ),
    })
}

fn infer<'a>(values: impl Iterator<Item = &'a str> + Clone) -> DataType {
    if values.clone().next().is_none() {
        DataType::Utf8
    } else if values.clone().all(is_whole_number) {
        DataType::Int64
    } else if values.clone().all(is_date) {
        DataType::Date32
    } else {
        DataType::Utf8
    }
}

fn is_whole_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let padded = digits.starts_with('0') && digits.len() > 1;
    digits.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse::<i64>().is_ok()
        && (!padded || text.len() == 2)
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
}

/// The values of a folder's keys as the table's types, NULL where the folder has no key.
///
/// # Errors
/// When a value is not of its column's type; the error names the folder.
pub(crate) fn tuple(url: MakeUrl<'_>, keys: &Keys, columns: &[Column]) -> Result<Vec<ScalarValue>> {
    let value = |(level, column): (usize, &Column)| {
        let Some(text) = keys.get(level).and_then(|(_, value)| value.clone()) else {
            return ScalarValue::try_from(&column.data_type)
                .map_err(|error| Error::File { url: url(), reason: error.to_string() });
        };
        match ScalarValue::try_from_string(text, &column.data_type) {
            Ok(value) if !value.is_null() => Ok(value),
            _ => Err(Error::Clash {
                url: url(),
                column: column.name.clone(),
                found: "another type".into(),
                expected: column.data_type.to_string(),
                other: "the table".into(),
            }),
        }
    };
    columns.iter().enumerate().map(value).collect()
}

/// Whether a filter can be answered by the partition columns alone.
pub(crate) fn decides(filter: &Expr, columns: &[Column]) -> bool {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    !filter.column_refs().is_empty()
        && datafusion::datasource::listing::helpers::expr_applicable_for_cols(&names, filter)
}

/// Filters over partition columns, ready to be asked about folders.
pub(crate) struct Pruner {
    schema: SchemaRef,
    /// Each filter with the number of outermost columns that it needs.
    filters: Vec<(usize, Arc<dyn PhysicalExpr>)>,
}

impl Pruner {
    /// Prepares filters, all of which [`decides`] accepts.
    ///
    /// # Errors
    /// When a filter has no physical form.
    pub fn try_new(session: &dyn Session, columns: &[Column], filters: &[Expr]) -> Result<Self> {
        let fields: Vec<Field> =
            columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let named = DFSchema::try_from(Arc::clone(&schema))?;
        let mut prepared = Vec::with_capacity(filters.len());
        for filter in filters {
            let depth = filter
                .column_refs()
                .iter()
                .filter_map(|used| columns.iter().position(|column| column.name == used.name))
                .max()
                .map_or(0, |deepest| deepest + 1);
            let unqualified =
                datafusion::logical_expr::expr_rewriter::unnormalize_col(filter.clone());
            prepared.push((depth, session.create_physical_expr(unqualified, &named)?));
        }
        Ok(Self { schema, filters: prepared })
    }

    /// Which tuples may hold rows, when only the first `depth` values of each are known.
    ///
    /// # Errors
    /// When a filter fails, as `1 / day` does for a day of 0.
    pub fn keep(&self, depth: usize, tuples: &[Vec<ScalarValue>]) -> Result<Vec<bool>> {
        let mut kept = vec![true; tuples.len()];
        if tuples.is_empty() || !self.filters.iter().any(|(needed, _)| *needed <= depth) {
            return Ok(kept);
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (level, field) in self.schema.fields().iter().enumerate() {
            let null = ScalarValue::try_from(field.data_type())?;
            let values = tuples.iter().map(|tuple| tuple.get(level).unwrap_or(&null).clone());
            columns.push(ScalarValue::iter_to_array(values)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(tuples.len()));
        let schema = Arc::clone(&self.schema);
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(datafusion::error::DataFusionError::from)?;
        for (needed, filter) in &self.filters {
            if *needed > depth {
                continue;
            }
            let answer = filter.evaluate(&batch)?.into_array(tuples.len())?;
            let Some(answer) = answer.as_boolean_opt() else { continue };
            for (row, keep) in kept.iter_mut().enumerate() {
                // NULL is not true: the row would be filtered out.
                *keep &= answer.is_valid(row) && answer.value(row);
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pairs: &[(&str, Option<&str>)]) -> Keys {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned))).collect()
    }

    #[test]
    fn folders_are_decoded() {
        assert_eq!(parse_folder("day=2024-01-02"), Some(("day".into(), Some("2024-01-02".into()))));
        assert_eq!(parse_folder("a=b%2Fc%20d"), Some(("a".into(), Some("b/c d".into()))));
        assert_eq!(parse_folder("city=S%C3%A3o"), Some(("city".into(), Some("São".into()))));
        assert_eq!(parse_folder("rate=50%"), Some(("rate".into(), Some("50%".into()))));
        assert_eq!(parse_folder("x=%FF"), Some(("x".into(), Some("%FF".into()))));
        assert_eq!(parse_folder("x=a=b"), Some(("x".into(), Some("a=b".into()))));
        assert_eq!(parse_folder("x=__HIVE_DEFAULT_PARTITION__"), Some(("x".into(), None)));
        assert_eq!(parse_folder("x="), Some(("x".into(), None)));
        assert_eq!(parse_folder("=x"), None);
        assert_eq!(parse_folder("plain"), None);
    }

    #[test]
    fn types_are_told_by_all_values() {
        let type_of = |values: &[&str]| infer(values.iter().copied());
        assert_eq!(type_of(&["2024", "2025"]), DataType::Int64);
        assert_eq!(type_of(&["01", "12"]), DataType::Int64);
        assert_eq!(type_of(&["007", "12"]), DataType::Utf8);
        assert_eq!(type_of(&["-3", "0"]), DataType::Int64);
        assert_eq!(type_of(&["99999999999999999999"]), DataType::Utf8);
        assert_eq!(type_of(&["2024-02-29"]), DataType::Date32);
        assert_eq!(type_of(&["2024-02-30"]), DataType::Utf8);
        assert_eq!(type_of(&["1", "x"]), DataType::Utf8);
        assert_eq!(type_of(&[]), DataType::Utf8);
    }

    #[test]
    fn folders_that_disagree_are_named() {
        let deep = keys(&[("y", Some("1")), ("m", Some("2"))]);
        let shallow = keys(&[("y", None)]);
        let other = keys(&[("z", Some("1"))]);
        let url = || "the folder".to_owned();
        let table = LakeTable::new("a/", crate::lake::Format::Csv);
        let found = columns(&[(&url, &deep), (&url, &shallow)], &table).unwrap();
        let names: Vec<_> = found.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["y", "m"]);
        let bad = || "a/z=1".to_owned();
        let error = columns(&[(&url, &deep), (&bad, &other)], &table).unwrap_err().to_string();
        assert!(error.contains("a/z=1") && error.contains("(y, m)"), "{error}");
    }

    #[test]
    fn values_become_the_columns_types() {
        let table = [Column::new("y", DataType::Int64), Column::new("d", DataType::Date32)];
        let url = || "f".to_owned();
        let values = tuple(&url, &keys(&[("y", Some("7"))]), &table).unwrap();
        assert_eq!(values, [ScalarValue::Int64(Some(7)), ScalarValue::Date32(None)]);
        assert!(tuple(&url, &keys(&[("y", Some("x"))]), &table).is_err());
    }
}
