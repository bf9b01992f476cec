//! Ids of any type as dense codes 0, 1, 2 … and back.
//!
//! Text, integers of any width, UUIDs and other binary, and decimals without fraction are ids;
//! dictionaries count as their values. A code is a position: [`IdIndex::values`] lists the ids in
//! code order. NULL is no id while training; in a look-up it is simply not found.

use std::sync::{Arc, OnceLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, FixedSizeBinaryArray, Int64Array,
    UInt64Array, new_null_array,
};
use arrow::compute::{cast, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, UInt64Type};

use super::error::ModelError;
use super::id_table::IdTable;

/// How ids are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Signed,
    Unsigned,
    Text,
    Binary,
    Decimal,
}

/// A dictionary of ids: id → code by hashing, code → id by position.
#[derive(Debug, Clone)]
pub struct IdIndex {
    column: String,
    data_type: DataType,
    kind: Kind,
    table: IdTable,
    values: OnceLock<ArrayRef>,
}

impl IdIndex {
    /// An empty dictionary for a column of the training query.
    ///
    /// # Errors
    /// [`ModelError::Type`] when the type cannot be an id (floats, dates, lists …).
    pub fn new(column: &str, data_type: &DataType) -> Result<Self, ModelError> {
        let data_type = value_type(data_type).clone();
        let kind = match &data_type {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Kind::Signed,
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Kind::Unsigned
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
            DataType::FixedSizeBinary(_)
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView => Kind::Binary,
            DataType::Decimal128(_, 0) => Kind::Decimal,
            other => {
                return Err(ModelError::Type {
                    column: column.to_owned(),
                    found: other.to_string(),
                    expected: "an id",
                    hint: "Cast it to text or to an integer in the training query",
                });
            }
        };
        let table = match kind {
            Kind::Signed | Kind::Unsigned => IdTable::integers(kind == Kind::Signed),
            _ => IdTable::bytes(),
        };
        Ok(Self { column: column.to_owned(), data_type, kind, table, values: OnceLock::new() })
    }

    /// The dictionary of distinct ids in code order, as [`IdIndex::values`] gave them.
    ///
    /// # Errors
    /// When an id is NULL or repeated, or the type cannot be an id.
    pub fn from_values(column: &str, values: ArrayRef) -> Result<Self, ModelError> {
        let mut index = Self::new(column, values.data_type())?;
        let codes = index.encode(&values)?;
        if codes.iter().zip(0_u32..).any(|(&code, expected)| code != expected) {
            return Err(ModelError::Inconsistent(format!("ids of {column} are not distinct")));
        }
        Ok(index)
    }

    /// Number of distinct ids.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no id yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Type of the ids: the training query's, without dictionary encoding.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Name of the training query's column.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// Codes of a batch; ids not met before get the next codes.
    ///
    /// # Errors
    /// [`ModelError::Null`] when an id is NULL; [`ModelError::TooLarge`] beyond 2³² − 2 ids or
    /// 2 GiB of distinct text.
    pub fn encode(&mut self, array: &ArrayRef) -> Result<Vec<u32>, ModelError> {
        let array = cast(array, &self.data_type)?;
        if array.null_count() > 0 {
            return Err(ModelError::Null { column: self.column.clone() });
        }
        self.values = OnceLock::new();
        let mut codes = Vec::with_capacity(array.len());
        let table = &mut self.table;
        match self.kind {
            Kind::Signed => {
                let array = cast(&array, &DataType::Int64)?;
                for &value in array.as_primitive::<Int64Type>().values() {
                    codes.push(table.insert_integer(value as u64)?);
                }
            }
            Kind::Unsigned => {
                let array = cast(&array, &DataType::UInt64)?;
                for &value in array.as_primitive::<UInt64Type>().values() {
                    codes.push(table.insert_integer(value)?);
                }
            }
            Kind::Text | Kind::Binary | Kind::Decimal => {
                let keys = Keys::new(self.kind, &array)?;
                for row in 0..array.len() {
                    let mut buffer = [0; 16];
                    let key = keys.get(row, &mut buffer).unwrap_or_default();
                    codes.push(table.insert_bytes(key)?);
                }
            }
        }
        Ok(codes)
    }

    /// Renumbers the ids in their natural order and returns the new code of each old one, so
    /// that codes depend on the set of ids and not on the order of rows.
    ///
    /// # Errors
    /// None in practice; the signature leaves room for spilling.
    pub fn sort(&mut self) -> Result<Vec<u32>, ModelError> {
        self.values = OnceLock::new();
        Ok(self.table.sort())
    }

    /// Codes of ids of any type that casts to the model's; `None` for NULL, for unknown ids and
    /// for values that do not survive the cast (text 'x' or 1.5 among integers).
    ///
    /// # Errors
    /// When the type does not cast at all.
    pub fn lookup(&self, array: &ArrayRef) -> Result<Vec<Option<u32>>, ModelError> {
        let array = cast(array, value_type(array.data_type()))?;
        let table = &self.table;
        Ok(match self.kind {
            Kind::Signed => {
                let array = faithful_cast(&array, &DataType::Int64)?;
                let array = array.as_primitive::<Int64Type>();
                array.iter().map(|v| table.find_integer(v? as u64)).collect()
            }
            Kind::Unsigned => {
                let array = faithful_cast(&array, &DataType::UInt64)?;
                let array = array.as_primitive::<UInt64Type>();
                array.iter().map(|v| table.find_integer(v?)).collect()
            }
            Kind::Text | Kind::Binary | Kind::Decimal => {
                let array = self.cast_to_bytes(&array)?;
                let keys = Keys::new(self.kind, &array)?;
                let find = |row| {
                    let mut buffer = [0; 16];
                    table.find_bytes(keys.get(row, &mut buffer)?)
                };
                (0..array.len()).map(find).collect()
            }
        })
    }

    fn cast_to_bytes(&self, array: &ArrayRef) -> Result<ArrayRef, ModelError> {
        let is_text =
            matches!(array.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        match (self.kind, &self.data_type) {
            (Kind::Decimal, _) => faithful_cast(array, &self.data_type),
            (Kind::Binary, DataType::FixedSizeBinary(16)) if is_text => parse_uuids(array),
            (Kind::Binary, _) if array.data_type() == &DataType::Null => {
                Ok(new_null_array(&self.data_type, array.len()))
            }
            (Kind::Binary, _) => Ok(cast(array, &DataType::Binary)?),
            _ if is_text => Ok(Arc::clone(array)),
            _ => Ok(cast(array, &DataType::Utf8)?),
        }
    }

    /// Whether a type is of the same kind of ids: whole numbers, text or bytes.
    pub fn is_alike(&self, data_type: &DataType) -> bool {
        let class = |kind| match kind {
            Kind::Signed | Kind::Unsigned | Kind::Decimal => 0,
            Kind::Text => 1,
            Kind::Binary => 2,
        };
        Self::new("", data_type).is_ok_and(|other| class(other.kind) == class(self.kind))
    }

    /// The ids in code order, of [`IdIndex::data_type`].
    pub fn values(&self) -> ArrayRef {
        Arc::clone(self.values.get_or_init(|| self.build_values()))
    }

    fn build_values(&self) -> ArrayRef {
        let array: ArrayRef = match self.kind {
            Kind::Signed => {
                Arc::new(self.table.integers_iter().map(|v| v as i64).collect::<Int64Array>())
            }
            Kind::Unsigned => Arc::new(self.table.integers_iter().collect::<UInt64Array>()),
            Kind::Text => {
                let texts = self.table.bytes_iter().map(String::from_utf8_lossy);
                Arc::new(arrow::array::StringArray::from_iter_values(texts))
            }
            Kind::Binary => Arc::new(BinaryArray::from_iter_values(self.table.bytes_iter())),
            Kind::Decimal => {
                let decimals: Decimal128Array =
                    self.table.bytes_iter().map(decimal_from_key).collect();
                Arc::new(decimals.with_data_type(self.data_type.clone()))
            }
        };
        // What came from this type goes back to it.
        let back = match (&self.data_type, self.kind) {
            (DataType::FixedSizeBinary(size), _) => {
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    self.table.bytes_iter().map(Some),
                    *size,
                )
                .map(|array| Arc::new(array) as ArrayRef)
            }
            (data_type, _) => cast(&array, data_type),
        };
        back.unwrap_or_else(|_| new_null_array(&self.data_type, self.len()))
    }

    /// A hash of each id in code order; it depends on the id alone, not on the other ids.
    pub fn hashes(&self) -> Vec<u64> {
        self.table.hashes()
    }

    /// Bytes on the heap, without the array that [`IdIndex::values`] keeps.
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }
}

/// Dictionaries and run-length encodings count as their values.
fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => value_type(values),
        DataType::RunEndEncoded(_, values) => value_type(values.data_type()),
        other => other,
    }
}

/// Casts; what would change on the way (1.5 → 1) becomes NULL.
fn faithful_cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ModelError> {
    let options = arrow::compute::CastOptions { safe: true, ..Default::default() };
    let result = cast_with_options(array, to, &options)?;
    let lossy = matches!(
        array.data_type(),
        DataType::Float16
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
    );
    if !lossy {
        return Ok(result);
    }
    let back = cast_with_options(&result, array.data_type(), &options)?;
    let changed = arrow::compute::kernels::cmp::distinct(&back, array)?;
    Ok(arrow::compute::nullif(&result, &changed)?)
}

fn parse_uuids(array: &ArrayRef) -> Result<ArrayRef, ModelError> {
    let texts = cast(array, &DataType::Utf8)?;
    let uuids = texts.as_string::<i32>().iter().map(|text| text.and_then(parse_uuid));
    Ok(Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids, 16)?))
}

/// 32 hexadecimal digits; hyphens and braces are ignored.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0_u8; 16];
    let mut count = 0;
    for character in text.trim().chars().filter(|c| !matches!(c, '-' | '{' | '}')) {
        let digit = character.to_digit(16)? as u8;
        let byte = bytes.get_mut(count / 2)?;
        *byte = (*byte << 4) | digit;
        count += 1;
    }
    (count == 32).then_some(bytes)
}

/// Rows of a column as byte keys.
enum Keys<'a> {
    Utf8(&'a arrow::array::StringArray),
    LargeUtf8(&'a arrow::array::LargeStringArray),
    Utf8View(&'a arrow::array::StringViewArray),
    Binary(BinaryArray),
    Fixed(&'a FixedSizeBinaryArray),
    Decimal(&'a Decimal128Array),
}

impl<'a> Keys<'a> {
    fn new(kind: Kind, array: &'a ArrayRef) -> Result<Self, ModelError> {
        Ok(match (kind, array.data_type()) {
            (_, DataType::Utf8) => Self::Utf8(array.as_string()),
            (_, DataType::LargeUtf8) => Self::LargeUtf8(array.as_string()),
            (_, DataType::Utf8View) => Self::Utf8View(array.as_string_view()),
            (_, DataType::FixedSizeBinary(_)) => Self::Fixed(array.as_fixed_size_binary()),
            (_, DataType::Decimal128(..)) => Self::Decimal(array.as_primitive::<Decimal128Type>()),
            _ => Self::Binary(cast(array, &DataType::Binary)?.as_binary::<i32>().clone()),
        })
    }

    #[inline]
    fn get<'b>(&'b self, row: usize, buffer: &'b mut [u8; 16]) -> Option<&'b [u8]> {
        match self {
            Self::Utf8(array) => array.is_valid(row).then(|| array.value(row).as_bytes()),
            Self::LargeUtf8(array) => array.is_valid(row).then(|| array.value(row).as_bytes()),
            Self::Utf8View(array) => array.is_valid(row).then(|| array.value(row).as_bytes()),
            Self::Binary(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Fixed(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Decimal(array) => array.is_valid(row).then(|| {
                *buffer = decimal_key(array.value(row));
                buffer.as_slice()
            }),
        }
    }
}

/// Sixteen bytes that sort as the number does.
fn decimal_key(value: i128) -> [u8; 16] {
    ((value as u128) ^ (1 << 127)).to_be_bytes()
}

fn decimal_from_key(key: &[u8]) -> Option<i128> {
    let bytes: [u8; 16] = key.try_into().ok()?;
    Some((u128::from_be_bytes(bytes) ^ (1 << 127)) as i128)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array, StringArray};

    use super::*;

    fn text(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn ids_of_one_kind_are_alike() {
        let numbers = IdIndex::new("id", &DataType::Int64).unwrap();
        for (data_type, is_alike) in [
            (DataType::UInt8, true),
            (DataType::Decimal128(20, 0), true),
            (DataType::Utf8, false),
            (DataType::Float64, false),
            (DataType::Null, false),
        ] {
            assert_eq!(numbers.is_alike(&data_type), is_alike, "{data_type}");
        }
        let texts = IdIndex::new("id", &DataType::Utf8View).unwrap();
        assert!(texts.is_alike(&DataType::LargeUtf8) && !texts.is_alike(&DataType::Binary));
    }

    #[test]
    fn every_id_type_round_trips() {
        let numbers = text(&["7", "-3", "7", "120"]);
        let positive = text(&["7", "3", "7", "120"]);
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        for (data_type, source) in [
            (DataType::Utf8, &numbers),
            (DataType::LargeUtf8, &numbers),
            (DataType::Utf8View, &numbers),
            (dictionary, &numbers),
            (DataType::Int8, &numbers),
            (DataType::Int64, &numbers),
            (DataType::UInt16, &positive),
            (DataType::UInt64, &positive),
            (DataType::Decimal128(20, 0), &numbers),
            (DataType::Binary, &numbers),
        ] {
            let array = cast(source, &data_type).unwrap();
            let mut index = IdIndex::new("id", &data_type).unwrap();
            assert_eq!(index.encode(&array).unwrap(), [0, 1, 0, 2], "{data_type}");
            assert_eq!(index.lookup(&array).unwrap(), [Some(0), Some(1), Some(0), Some(2)]);
            let stored = index.values();
            assert_eq!(stored.data_type(), index.data_type());
            assert_eq!((stored.len(), stored.null_count()), (3, 0), "{data_type}");
            let again = IdIndex::from_values("id", stored).unwrap();
            assert_eq!(again.lookup(&array).unwrap(), index.lookup(&array).unwrap());
        }
    }

    #[test]
    fn codes_follow_the_natural_order_once_sorted() {
        let mut index = IdIndex::new("id", &DataType::Int32).unwrap();
        let ids: ArrayRef = Arc::new(Int32Array::from(vec![5, -9, 300]));
        index.encode(&ids).unwrap();
        assert_eq!(index.sort().unwrap(), [1, 0, 2]);
        assert_eq!(index.lookup(&ids).unwrap(), [Some(1), Some(0), Some(2)]);
        let sorted: ArrayRef = Arc::new(Int32Array::from(vec![-9, 5, 300]));
        assert_eq!(&index.values(), &sorted);
    }

    #[test]
    fn lookups_cast_and_never_match_a_changed_value() {
        let mut index = IdIndex::new("id", &DataType::Int64).unwrap();
        let ids = cast(&text(&["1", "42"]), &DataType::Int64).unwrap();
        index.encode(&ids).unwrap();
        let texts = text(&["42", "x", "1", ""]);
        assert_eq!(index.lookup(&texts).unwrap(), [Some(1), None, Some(0), None]);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(1.5), None]));
        assert_eq!(index.lookup(&floats).unwrap(), [Some(0), None, None]);
        let null: ArrayRef = Arc::new(arrow::array::NullArray::new(2));
        assert_eq!(index.lookup(&null).unwrap(), [None, None]);
        let mut texts = IdIndex::new("id", &DataType::Utf8).unwrap();
        texts.encode(&text(&["42"])).unwrap();
        assert_eq!(texts.lookup(&ids).unwrap(), [None, Some(0)]);
        assert_eq!(texts.lookup(&null).unwrap(), [None, None]);
    }

    #[test]
    fn a_uuid_is_found_by_its_text() {
        let uuid = [0x12_u8; 16];
        let ids = FixedSizeBinaryArray::try_from_iter([uuid].iter()).unwrap();
        let ids: ArrayRef = Arc::new(ids);
        let mut index = IdIndex::new("id", ids.data_type()).unwrap();
        index.encode(&ids).unwrap();
        let texts = text(&["12121212-1212-1212-1212-121212121212", "zz", "12"]);
        assert_eq!(index.lookup(&texts).unwrap(), [Some(0), None, None]);
        assert_eq!(&index.values(), &ids);
        let null: ArrayRef = Arc::new(arrow::array::NullArray::new(1));
        assert_eq!(index.lookup(&null).unwrap(), [None]);
    }

    #[test]
    fn null_and_unsuitable_types_are_refused_by_name() {
        let mut index = IdIndex::new("user_id", &DataType::Utf8).unwrap();
        let nulls: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let error = index.encode(&nulls).unwrap_err();
        assert_eq!(error, ModelError::Null { column: "user_id".to_owned() });
        let error = IdIndex::new("user_id", &DataType::Float64).unwrap_err();
        assert!(error.to_string().contains("\"user_id\" has type Float64"), "{error}");
        assert!(IdIndex::from_values("id", text(&["a", "a"])).is_err());
    }
}
