//! Rows as PostgreSQL sends them, in text and in binary form.
//!
//! A batch's columns are first brought to one Arrow type a PostgreSQL type, a column at a time;
//! then rows are written. A value that the announced type cannot hold is an error, never NULL.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Decimal256Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, ListArray, RecordBatch, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use arrow::util::display::FormatOptions;
use bytes::{BufMut, BytesMut};
use sql::pg::types;

use super::problem::Stop;
use super::{json, text};

/// A column as it was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, by PostgreSQL's number.
    pub oid: u32,
    /// Precision and scale; -1 for none.
    pub modifier: i32,
    /// Whether its values go in binary form.
    pub binary: bool,
}

impl Column {
    /// A column of a result, in text form.
    pub fn of(field: &Field) -> Self {
        Self {
            name: field.name().clone(),
            oid: types::oid_of(field),
            modifier: types::modifier_of(field.data_type()),
            binary: false,
        }
    }
}

/// A batch whose rows can be written.
pub struct Rows {
    cells: Vec<(Cells, bool)>,
    count: usize,
}

impl Rows {
    /// Brings a batch to the types that were announced.
    ///
    /// # Errors
    /// When a value does not fit the type.
    pub fn new(batch: &RecordBatch, columns: &[Column], zone: Tz) -> Result<Self, Stop> {
        let cells = batch.columns().iter().zip(columns).map(|(array, column)| {
            Cells::new(array, column.oid, zone).map(|cells| (cells, column.binary))
        });
        Ok(Self { cells: cells.collect::<Result<_, _>>()?, count: batch.num_rows() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Writes the fields of a row.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn write(&self, row: usize, out: &mut BytesMut) -> Result<(), Stop> {
        for (cells, binary) in &self.cells {
            cells.field(row, *binary, out)?;
        }
        Ok(())
    }
}

/// A column's values.
enum Cells {
    Bool(BooleanArray),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Numeric(Decimal128Array),
    LongNumeric(Decimal256Array),
    Text(StringArray),
    Bytes(BinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Stamp(TimestampMicrosecondArray, Option<Tz>),
    Interval(IntervalMonthDayNanoArray),
    Json(ArrayRef, json::Writer),
    List(ListArray, Box<Cells>, u32),
}

const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: FormatOptions::new() };

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Stop> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    Ok(cast_with_options(array, to, &STRICT)?)
}

impl Cells {
    fn new(array: &ArrayRef, oid: u32, zone: Tz) -> Result<Self, Stop> {
        let to = |data_type: &DataType| cast(array, data_type);
        if let Some(element) = types::element_of(oid) {
            return Self::list(array, element, zone);
        }
        Ok(match oid {
            16 => Self::Bool(to(&DataType::Boolean)?.as_boolean().clone()),
            21 => Self::Int16(to(&DataType::Int16)?.as_primitive().clone()),
            20 => Self::Int64(to(&DataType::Int64)?.as_primitive().clone()),
            700 => Self::Float32(to(&DataType::Float32)?.as_primitive().clone()),
            701 => Self::Float64(to(&DataType::Float64)?.as_primitive().clone()),
            17 => Self::Bytes(to(&DataType::Binary)?.as_binary().clone()),
            1082 => Self::Date(to(&DataType::Date32)?.as_primitive().clone()),
            1083 => {
                Self::Time(to(&DataType::Time64(TimeUnit::Microsecond))?.as_primitive().clone())
            }
            1114 => {
                let stamp = DataType::Timestamp(TimeUnit::Microsecond, None);
                Self::Stamp(to(&stamp)?.as_primitive().clone(), None)
            }
            1184 => {
                let stamp = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
                Self::Stamp(to(&stamp)?.as_primitive().clone(), Some(zone))
            }
            1186 => {
                let interval = DataType::Interval(IntervalUnit::MonthDayNano);
                Self::Interval(to(&interval)?.as_primitive().clone())
            }
            types::NUMERIC => Self::numeric(array)?,
            types::JSON if !matches!(array.data_type(), DataType::Utf8) => {
                Self::Json(Arc::clone(array), json::Writer::new(array))
            }
            // The catalog's object identifiers.
            23 | 24 | 26 | 2202..=2206 | 3734 | 3769 | 4089 | 4096 => {
                Self::Int32(to(&DataType::Int32)?.as_primitive().clone())
            }
            _ => Self::Text(to(&DataType::Utf8)?.as_string().clone()),
        })
    }

    fn numeric(array: &ArrayRef) -> Result<Self, Stop> {
        let wide = match array.data_type() {
            DataType::Dictionary(_, values) => return Self::numeric(&cast(array, values)?),
            DataType::RunEndEncoded(_, values) => {
                return Self::numeric(&cast(array, values.data_type())?);
            }
            DataType::Decimal256(..) => array.data_type().clone(),
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale) => DataType::Decimal128(*precision, *scale),
            _ => DataType::Decimal128(20, 0),
        };
        let array = cast(array, &wide)?;
        Ok(match wide {
            DataType::Decimal256(..) => Self::LongNumeric(array.as_primitive().clone()),
            _ => Self::Numeric(array.as_primitive().clone()),
        })
    }

    fn list(array: &ArrayRef, element: u32, zone: Tz) -> Result<Self, Stop> {
        let item = match array.data_type() {
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::ListView(item)
            | DataType::LargeListView(item) => Arc::clone(item),
            DataType::Dictionary(_, values) => {
                return Self::list(&cast(array, values)?, element, zone);
            }
            _ => Arc::new(Field::new_list_field(DataType::Utf8, true)),
        };
        let list = cast(array, &DataType::List(item))?;
        let list: ListArray = list.as_list().clone();
        let values = Self::new(list.values(), element, zone)?;
        Ok(Self::List(list, Box::new(values), element))
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(array) => array.is_null(row),
            Self::Int16(array) => array.is_null(row),
            Self::Int32(array) => array.is_null(row),
            Self::Int64(array) => array.is_null(row),
            Self::Float32(array) => array.is_null(row),
            Self::Float64(array) => array.is_null(row),
            Self::Numeric(array) => array.is_null(row),
            Self::LongNumeric(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Bytes(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Time(array) => array.is_null(row),
            Self::Stamp(array, _) => array.is_null(row),
            Self::Interval(array) => array.is_null(row),
            Self::Json(array, _) => array.is_null(row),
            Self::List(array, ..) => array.is_null(row),
        }
    }

    /// Length and value, or -1 for NULL.
    fn field(&self, row: usize, binary: bool, out: &mut BytesMut) -> Result<(), Stop> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        if binary {
            self.binary(row, out)?
        } else {
            self.text(row, out)?
        };
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn text(&self, row: usize, out: &mut BytesMut) -> Result<(), Stop> {
        match self {
            Self::Bool(array) => out.put_u8(if array.value(row) { b't' } else { b'f' }),
            Self::Int16(array) => text::display(out, array.value(row)),
            Self::Int32(array) => text::display(out, array.value(row)),
            Self::Int64(array) => text::display(out, array.value(row)),
            Self::Float32(array) => text::float(out, f64::from(array.value(row)), array.value(row)),
            Self::Float64(array) => text::float(out, array.value(row), array.value(row)),
            Self::Numeric(array) => out.put_slice(array.value_as_string(row).as_bytes()),
            Self::LongNumeric(array) => out.put_slice(array.value_as_string(row).as_bytes()),
            Self::Text(array) => out.put_slice(array.value(row).as_bytes()),
            Self::Bytes(array) => text::bytes(out, array.value(row)),
            Self::Date(array) => text::date(out, i64::from(array.value(row))),
            Self::Time(array) => text::time(out, array.value(row)),
            Self::Stamp(array, zone) => text::timestamp(out, array.value(row), zone.as_ref()),
            Self::Interval(array) => {
                let value = array.value(row);
                text::interval(out, value.months, value.days, value.nanoseconds / 1_000);
            }
            Self::Json(array, writer) => writer.write(array, row, out)?,
            Self::List(array, values, _) => {
                let offsets = array.value_offsets();
                return values.list_text(offsets[row] as usize..offsets[row + 1] as usize, out);
            }
        }
        Ok(())
    }

    fn list_text(&self, range: std::ops::Range<usize>, out: &mut BytesMut) -> Result<(), Stop> {
        out.put_u8(b'{');
        let mut element = BytesMut::new();
        for index in range.clone() {
            if index > range.start {
                out.put_u8(b',');
            }
            if self.is_null(index) {
                out.put_slice(b"NULL");
                continue;
            }
            element.clear();
            self.text(index, &mut element)?;
            text::element(out, &element);
        }
        out.put_u8(b'}');
        Ok(())
    }

    fn binary(&self, row: usize, out: &mut BytesMut) -> Result<(), Stop> {
        match self {
            Self::Bool(array) => out.put_u8(u8::from(array.value(row))),
            Self::Int16(array) => out.put_i16(array.value(row)),
            Self::Int32(array) => out.put_i32(array.value(row)),
            Self::Int64(array) => out.put_i64(array.value(row)),
            Self::Float32(array) => out.put_f32(array.value(row)),
            Self::Float64(array) => out.put_f64(array.value(row)),
            Self::Numeric(array) => text::numeric(out, &array.value_as_string(row)),
            Self::LongNumeric(array) => text::numeric(out, &array.value_as_string(row)),
            Self::Text(array) => out.put_slice(array.value(row).as_bytes()),
            Self::Bytes(array) => out.put_slice(array.value(row)),
            Self::Date(array) => out.put_i32(array.value(row).saturating_sub(text::EPOCH_DAYS)),
            Self::Time(array) => out.put_i64(array.value(row)),
            Self::Stamp(array, _) => {
                out.put_i64(array.value(row).saturating_sub(text::EPOCH_MICROS));
            }
            Self::Interval(array) => {
                let value = array.value(row);
                out.put_i64(value.nanoseconds / 1_000);
                out.put_i32(value.days);
                out.put_i32(value.months);
            }
            Self::Json(array, writer) => writer.write(array, row, out)?,
            Self::List(array, values, element) => {
                let offsets = array.value_offsets();
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                return values.list_binary(range, *element, out);
            }
        }
        Ok(())
    }

    fn list_binary(
        &self,
        range: std::ops::Range<usize>,
        element: u32,
        out: &mut BytesMut,
    ) -> Result<(), Stop> {
        let has_null = range.clone().any(|index| self.is_null(index));
        // An empty array has no dimension.
        out.put_i32(i32::from(!range.is_empty()));
        out.put_i32(i32::from(has_null));
        out.put_u32(element);
        if !range.is_empty() {
            out.put_u32(range.len() as u32);
            out.put_i32(1);
        }
        for index in range {
            self.field(index, true, out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int32Builder, ListBuilder, UInt64Array};
    use arrow::datatypes::{Int32Type, Schema};

    use super::*;

    fn written(array: ArrayRef, binary: bool) -> Vec<Option<Vec<u8>>> {
        let field = Field::new("c", array.data_type().clone(), true);
        let column = Column { binary, ..Column::of(&field) };
        let schema = Arc::new(Schema::new(vec![field]));
        let batch = RecordBatch::try_new(schema, vec![array]).unwrap();
        let zone = "+02:00".parse().unwrap();
        let rows = Rows::new(&batch, &[column], zone).unwrap_or_else(|_| panic!("no rows"));
        let field = |row| {
            let mut out = BytesMut::new();
            rows.write(row, &mut out).unwrap_or_else(|_| panic!("no row"));
            let length = i32::from_be_bytes(out[..4].try_into().unwrap());
            (length >= 0).then(|| out[4..].to_vec())
        };
        (0..rows.count()).map(field).collect()
    }

    fn texts(array: ArrayRef) -> Vec<String> {
        let text = |cell: Option<Vec<u8>>| match cell {
            Some(bytes) => String::from_utf8(bytes).unwrap(),
            None => "(null)".into(),
        };
        written(array, false).into_iter().map(text).collect()
    }

    #[test]
    fn values_are_written_as_postgresql_writes_them() {
        let decimal = Decimal128Array::from(vec![Some(-12_345), None]);
        let decimal = decimal.with_precision_and_scale(38, 2).unwrap();
        assert_eq!(texts(Arc::new(decimal)), ["-123.45", "(null)"]);
        let long = Decimal128Array::from(vec![i128::MAX / 2]);
        let long = long.with_precision_and_scale(38, 0);
        assert!(long.is_err() || texts(Arc::new(long.unwrap())).len() == 1);
        assert_eq!(texts(Arc::new(UInt64Array::from(vec![u64::MAX]))), ["18446744073709551615"]);
        let stamps = TimestampMicrosecondArray::from(vec![Some(-1), None]);
        assert_eq!(texts(Arc::new(stamps.clone())), ["1969-12-31 23:59:59.999999", "(null)"]);
        let zoned = stamps.with_timezone("UTC");
        assert_eq!(texts(Arc::new(zoned)), ["1970-01-01 01:59:59.999999+02", "(null)"]);
        let words: DictionaryArray<Int32Type> =
            vec![Some("a"), None, Some("a")].into_iter().collect();
        assert_eq!(texts(Arc::new(words)), ["a", "(null)", "a"]);
    }

    #[test]
    fn lists_are_arrays_in_both_forms() {
        let mut lists = ListBuilder::new(Int32Builder::new());
        lists.append_value([Some(1), None, Some(3)]);
        lists.append_value(std::iter::empty::<Option<i32>>());
        lists.append_null();
        let lists: ArrayRef = Arc::new(lists.finish());
        assert_eq!(texts(Arc::clone(&lists)), ["{1,NULL,3}", "{}", "(null)"]);
        let binary = written(lists, true);
        let expected: Vec<u8> = [1, 1, 23, 3, 1, 4, 1, -1, 4, 3]
            .iter()
            .flat_map(|number: &i32| number.to_be_bytes())
            .collect();
        assert_eq!(binary[0].as_deref(), Some(&expected[..]));
        assert_eq!(binary[1].as_ref().map(Vec::len), Some(12));
    }
}
