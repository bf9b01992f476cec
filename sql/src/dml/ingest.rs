//! Bulk ingestion: rows that a client streams become a table, or are added to one, in one commit.
//!
//! Planned as `CREATE [OR REPLACE] TABLE … AS SELECT` or `INSERT INTO … SELECT` over the rows, so
//! whoever may not write the statement may not ingest. Added rows go by column name; a column that
//! the table has and the rows lack becomes NULL. Types are checked before the first row is read:
//! a column takes its own type and those that convert without loss (narrower integers and floats,
//! integers into decimals, any encoding of text or bytes, dates and times in other units). Tables
//! keep microseconds and whole days: a time that is finer is refused when it comes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait};
use arrow::datatypes::{DataType, Date64Type, Field, Schema, TimeUnit, TimestampNanosecondType};
use arrow::util::display::array_value_to_string;
use catalog::policy::Privilege;
use catalog::{Kind, ObjectName};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use crate::dml::sent::{self, quoted};
use crate::error::{Error, Result};
use crate::parse;
use crate::session::{Answer, Prepared, Session, StatementContext};

/// What to do when the table does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Create it.
    Create,
    /// Nothing, and say so.
    Fail,
}

/// What to do when the table exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfPresent {
    /// Nothing, and say so.
    Fail,
    /// Add the rows to it.
    Append,
    /// Put a new table with these rows in its place.
    Replace,
}

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// The catalog; there is one.
    pub catalog: Option<String>,
    /// The schema; the session's when absent.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// When it does not exist.
    pub if_missing: IfMissing,
    /// When it exists.
    pub if_present: IfPresent,
}

impl Ingest {
    fn parts(&self) -> Vec<String> {
        let parts = [self.catalog.as_ref(), self.schema.as_ref(), Some(&self.table)];
        let mut parts: Vec<String> = parts.into_iter().flatten().cloned().collect();
        if self.catalog.is_some() && self.schema.is_none() {
            parts.insert(1, crate::engine::MAIN.to_owned());
        }
        parts
    }
}

impl Session {
    /// Writes the rows into a warehouse table, in one commit; `query_id` is its id in the log.
    ///
    /// # Errors
    /// As CREATE TABLE and INSERT; when the table exists, or does not, against `ingest`; when a
    /// column does not fit the table's.
    pub async fn ingest(
        &self,
        query_id: &str,
        ingest: &Ingest,
        rows: SendableRecordBatchStream,
    ) -> Result<Answer> {
        let shown = ingest.parts().iter().map(|part| quoted(part)).collect::<Vec<_>>().join(".");
        let context = StatementContext::load(self).await?;
        let text = statement(&context, ingest, kept_whole(rows)).await?;
        let statement = parse::parse(&text, usize::MAX)?;
        let shown = format!("INGEST INTO {shown}");
        let prepared = Prepared::once(context, &shown, statement).await?;
        self.run_as(query_id, &prepared, &[]).await
    }
}

/// The statement that does it.
async fn statement(
    context: &Arc<StatementContext>,
    ingest: &Ingest,
    rows: SendableRecordBatchStream,
) -> Result<String> {
    let schema = rows.schema();
    let parts = ingest.parts();
    let name = context.target(&parts)?;
    let exists = exists_for(context, &name).await?;
    let target = format!("{}.{}", quoted(&name.schema), quoted(&name.name));
    match (exists, ingest.if_missing, ingest.if_present) {
        (true, _, IfPresent::Append) => {
            let columns = columns_to_append(context, &name, &schema).await?;
            let rows = quoted(&sent::register(context, rows)?);
            Ok(format!("INSERT INTO {target} ({columns}) SELECT {columns} FROM {rows}"))
        }
        (true, _, IfPresent::Replace) => {
            let rows = quoted(&sent::register(context, rows)?);
            Ok(format!("CREATE OR REPLACE TABLE {target} AS SELECT * FROM {rows}"))
        }
        // Where the table exists, CREATE TABLE says so, to whom it may.
        (true, _, IfPresent::Fail) | (false, IfMissing::Create, _) => {
            let rows = quoted(&sent::register(context, rows)?);
            Ok(format!("CREATE TABLE {target} AS SELECT * FROM {rows}"))
        }
        (false, IfMissing::Fail, _) => {
            // INSERT says that the table is missing, with the nearest name there is.
            crate::dml::target(context, &parts, &[Privilege::Insert]).await?;
            Err(catalog::Error::not_found("table", &name.to_string(), []).into())
        }
    }
}

/// Whether the name is taken, as far as the principal may know.
async fn exists_for(context: &Arc<StatementContext>, name: &ObjectName) -> Result<bool> {
    let rights = context.rights();
    let Some(object) = context.engine().catalog().object(name).await? else { return Ok(false) };
    Ok(rights.may_create(name).is_ok()
        || rights.access(name, Some(&object)).is_any()
        || (object.kind == Kind::Model && rights.may_use(name, object.owner.as_deref())))
}

/// The rows' columns as INSERT names them, once each is known to fit.
async fn columns_to_append(
    context: &Arc<StatementContext>,
    name: &ObjectName,
    rows: &Schema,
) -> Result<String> {
    // The right to change the table comes before what its columns are.
    let parts = [name.schema.clone(), name.name.clone()];
    let name = crate::dml::target(context, &parts, &[Privilege::Insert]).await?;
    context.write_to(&name);
    let Some(table) = crate::session::open(context, &name).await? else {
        return Err(catalog::Error::not_found("table", &name.to_string(), []).into());
    };
    let schema = table.schema();
    for field in rows.fields() {
        let Ok(column) = schema.field_with_name(field.name()) else {
            let known = schema.fields().iter().map(|field| field.name().as_str());
            let hint = match catalog::error::nearest(field.name(), known) {
                Some(near) => format!("did you mean {near}?"),
                None => "leave it out, or replace the table".into(),
            };
            let what = format!("table {name} has no column {}", field.name());
            return Err(Error::invalid_hint(what, hint));
        };
        check_type(&name, column, field)?;
    }
    let names = rows.fields().iter().map(|field| quoted(field.name()));
    Ok(names.collect::<Vec<_>>().join(", "))
}

/// The rows, as long as a table keeps all of their times.
fn kept_whole(rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let names = Arc::clone(&schema);
    let checked = rows.map(move |batch| {
        let batch = batch?;
        for (column, field) in batch.columns().iter().zip(names.fields()) {
            if let Some(finer) = finer_time(column.as_ref())? {
                return Err(Error::Execution {
                    what: format!(
                        "column {} holds {finer}, and a table would keep less of it: microseconds \
                         of a timestamp, the day of a date",
                        field.name()
                    ),
                    hint: Some(
                        "round or cut the times before sending them, as to timestamp[us], or send \
                         what they count as whole numbers"
                            .into(),
                    ),
                }
                .into());
            }
        }
        Ok(batch)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, checked))
}

/// A time in a column, at any depth, that is finer than what tables keep.
fn finer_time(column: &dyn Array) -> Result<Option<String>> {
    let finer = match column.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let times = column.as_primitive::<TimestampNanosecondType>();
            times.iter().position(|time| time.is_some_and(|time| time % 1_000 != 0))
        }
        DataType::Date64 => {
            let days = column.as_primitive::<Date64Type>();
            days.iter().position(|day| day.is_some_and(|day| day % 86_400_000 != 0))
        }
        DataType::Struct(_) => return any_finer(column.as_struct().columns()),
        DataType::List(_) => return finer_time(elements(column.as_list::<i32>()).as_ref()),
        DataType::LargeList(_) => return finer_time(elements(column.as_list::<i64>()).as_ref()),
        DataType::FixedSizeList(..) => {
            return finer_time(column.as_fixed_size_list().values().as_ref());
        }
        DataType::Map(..) => return any_finer(column.as_map().entries().columns()),
        DataType::Dictionary(..) => {
            return finer_time(column.as_any_dictionary().values().as_ref());
        }
        _ => None,
    };
    match finer {
        Some(row) => Ok(Some(array_value_to_string(column, row)?)),
        None => Ok(None),
    }
}

/// What the lists of a column hold.
fn elements<O: OffsetSizeTrait>(lists: &GenericListArray<O>) -> ArrayRef {
    let ends = lists.value_offsets().first().zip(lists.value_offsets().last());
    let (first, last) = ends.map_or((0, 0), |(first, last)| (first.as_usize(), last.as_usize()));
    lists.values().slice(first, last - first)
}

fn any_finer(columns: &[ArrayRef]) -> Result<Option<String>> {
    for column in columns {
        if let Some(finer) = finer_time(column.as_ref())? {
            return Ok(Some(finer));
        }
    }
    Ok(None)
}

fn check_type(table: &ObjectName, column: &Field, sent: &Field) -> Result<()> {
    if takes(column.data_type(), sent.data_type()) {
        return Ok(());
    }
    Err(Error::invalid_hint(
        format!(
            "column {} of {table} is {} and the rows have {}",
            column.name(),
            column.data_type(),
            sent.data_type()
        ),
        "convert the column before sending it, or replace the table",
    ))
}

/// Whether a column of type `column` takes every value of type `sent`, or says which it does not.
fn takes(column: &DataType, sent: &DataType) -> bool {
    use DataType as T;
    if column == sent || sent.is_null() {
        return true;
    }
    let text = |kind: &T| matches!(kind, T::Utf8 | T::LargeUtf8 | T::Utf8View);
    let bytes = |kind: &T| {
        matches!(kind, T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_))
    };
    match (column, sent) {
        (_, T::Dictionary(_, value)) => takes(column, value),
        (_, T::RunEndEncoded(_, value)) => takes(column, value.data_type()),
        _ if text(column) => text(sent),
        _ if bytes(column) => bytes(sent),
        // A value that is too large is an error when it comes.
        _ if column.is_integer() => sent.is_integer(),
        _ if column.is_floating() => sent.is_floating() || sent.is_integer(),
        (T::Decimal128(digits, scale) | T::Decimal256(digits, scale), _) => match sent {
            T::Decimal32(sent_digits, sent_scale)
            | T::Decimal64(sent_digits, sent_scale)
            | T::Decimal128(sent_digits, sent_scale)
            | T::Decimal256(sent_digits, sent_scale) => {
                // No digit is lost on either side of the point.
                let whole = |digits: &u8, scale: &i8| i16::from(*digits) - i16::from(*scale);
                sent_scale <= scale && whole(sent_digits, sent_scale) <= whole(digits, scale)
            }
            _ => sent.is_integer(),
        },
        (T::Date32, T::Date64) => true,
        (T::Timestamp(_, None), T::Timestamp(_, None)) => true,
        (T::Timestamp(_, Some(_)), T::Timestamp(_, Some(_))) => true,
        (T::Struct(columns), T::Struct(sent)) => {
            columns.len() == sent.len()
                && columns.iter().zip(sent).all(|(column, sent)| {
                    column.name() == sent.name() && takes(column.data_type(), sent.data_type())
                })
        }
        (T::Map(column, _), T::Map(sent, _)) => match (column.data_type(), sent.data_type()) {
            (T::Struct(columns), T::Struct(sent)) => columns
                .iter()
                .zip(sent)
                .all(|(column, sent)| takes(column.data_type(), sent.data_type())),
            _ => false,
        },
        _ => match (item(column), item(sent)) {
            (Some(column), Some(sent)) => takes(column, sent),
            _ => false,
        },
    }
}

fn item(list: &DataType) -> Option<&DataType> {
    match list {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Some(item.data_type()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{StructArray, TimestampNanosecondArray};

    use super::*;

    #[test]
    fn a_column_takes_what_converts_without_loss() {
        use DataType as T;
        let seconds = T::Timestamp(TimeUnit::Second, None);
        let micros = T::Timestamp(TimeUnit::Microsecond, None);
        let utc = T::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let list = |item| T::List(Arc::new(Field::new("item", item, true)));
        for (column, sent, expected) in [
            (T::Int64, T::Int8, true),
            (T::Int32, T::Int64, true),
            (T::Int64, T::Float64, false),
            (T::Float64, T::Int32, true),
            (T::Utf8View, T::LargeUtf8, true),
            (T::Utf8View, T::Int64, false),
            (T::Int64, T::Utf8, false),
            (T::Int64, T::Null, true),
            (T::Decimal128(10, 2), T::Decimal128(8, 2), true),
            (T::Decimal128(10, 2), T::Decimal128(10, 3), false),
            (T::Decimal128(10, 2), T::Int32, true),
            (micros.clone(), seconds, true),
            (micros, utc, false),
            (list(T::Utf8), list(T::Utf8View), true),
            (list(T::Int64), list(T::Utf8), false),
        ] {
            assert_eq!(takes(&column, &sent), expected, "{column} {sent}");
        }
    }

    #[test]
    fn times_finer_than_a_table_keeps_are_found_at_any_depth() {
        let nested = |nanos: Vec<Option<i64>>| -> StructArray {
            let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(nanos));
            let list =
                DataType::List(Arc::new(Field::new("item", times.data_type().clone(), true)));
            let list = arrow::compute::cast(&times, &list).unwrap();
            StructArray::from(vec![(
                Arc::new(Field::new("l", list.data_type().clone(), true)),
                list,
            )])
        };
        let whole = nested(vec![Some(1_700_000_000_000_001_000), None]);
        assert_eq!(finer_time(&whole).unwrap(), None);
        let finer = nested(vec![Some(0), Some(1_700_000_000_000_001_001)]);
        let found = finer_time(&finer).unwrap().unwrap();
        assert!(found.ends_with(".000001001"), "{found}");
        assert_eq!(finer_time(&finer.slice(0, 1)).unwrap(), None);
        let day = arrow::array::Date64Array::from(vec![86_400_000, 86_400_001]);
        assert!(finer_time(&day).unwrap().is_some());
    }

    #[test]
    fn the_error_names_the_column_and_both_types() {
        let table = ObjectName::new("main", "people");
        let column = Field::new("age", DataType::Int64, true);
        let sent = Field::new("age", DataType::Utf8, true);
        let error = check_type(&table, &column, &sent).unwrap_err().to_string();
        for word in ["age", "main.people", "Int64", "Utf8"] {
            assert!(error.contains(word), "{error}");
        }
    }
}
