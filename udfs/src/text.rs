//! Columns of text in any of Arrow's encodings, read without copying.
//!
//! `Utf8`, `LargeUtf8`, `Utf8View` and dictionaries of these are read in place. NULL is `None`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, LargeStringArray, StringArray, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{ArrowDictionaryKeyType, DataType, Int8Type, Int16Type, Int32Type};
use arrow::datatypes::{Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::ColumnarValue;

/// A text column of `len` rows, or one value that stands for every row.
#[derive(Debug, Clone)]
pub enum Text {
    /// The same value (or NULL) on every row: prepare it once.
    Constant(Option<Arc<str>>),
    /// 32-bit offsets.
    Utf8(StringArray),
    /// 64-bit offsets.
    LargeUtf8(LargeStringArray),
    /// Views.
    Utf8View(StringViewArray),
    /// Dictionary: `keys[row]` indexes `values`; a negative key is NULL.
    Dictionary {
        /// Position in `values` of each row, -1 for NULL.
        keys: Vec<i64>,
        /// The distinct values.
        values: StringViewArray,
    },
}

impl Text {
    /// Reads a function's argument.
    ///
    /// # Errors
    /// When the argument is no text, NULL or dictionary of text.
    pub fn from_argument(function: &str, value: &ColumnarValue) -> Result<Self> {
        match value {
            ColumnarValue::Array(array) => Self::from_array(function, array),
            ColumnarValue::Scalar(scalar) => Self::from_scalar(function, scalar),
        }
    }

    fn from_scalar(function: &str, scalar: &ScalarValue) -> Result<Self> {
        if scalar.is_null() {
            return Ok(Self::Constant(None));
        }
        match scalar {
            ScalarValue::Dictionary(_, inner) => Self::from_scalar(function, inner),
            other => match other.try_as_str() {
                Some(text) => Ok(Self::Constant(text.map(Arc::from))),
                None => exec_err!("{function} expects text, got {}", scalar.data_type()),
            },
        }
    }

    /// Reads an array of text.
    ///
    /// # Errors
    /// When the array holds something else than text.
    pub fn from_array(function: &str, array: &ArrayRef) -> Result<Self> {
        let any = array.as_any();
        if let Some(array) = any.downcast_ref::<StringArray>() {
            return Ok(Self::Utf8(array.clone()));
        }
        if let Some(array) = any.downcast_ref::<LargeStringArray>() {
            return Ok(Self::LargeUtf8(array.clone()));
        }
        if let Some(array) = any.downcast_ref::<StringViewArray>() {
            return Ok(Self::Utf8View(array.clone()));
        }
        match array.data_type() {
            DataType::Null => Ok(Self::Constant(None)),
            DataType::Dictionary(key, _) => Self::from_dictionary(function, array, key),
            other => exec_err!("{function} expects text, got {other}"),
        }
    }

    fn from_dictionary(function: &str, array: &ArrayRef, key: &DataType) -> Result<Self> {
        match key {
            DataType::Int8 => dictionary::<Int8Type>(function, array),
            DataType::Int16 => dictionary::<Int16Type>(function, array),
            DataType::Int32 => dictionary::<Int32Type>(function, array),
            DataType::Int64 => dictionary::<Int64Type>(function, array),
            DataType::UInt8 => dictionary::<UInt8Type>(function, array),
            DataType::UInt16 => dictionary::<UInt16Type>(function, array),
            DataType::UInt32 => dictionary::<UInt32Type>(function, array),
            DataType::UInt64 => dictionary::<UInt64Type>(function, array),
            other => exec_err!("{function} does not read dictionaries with {other} keys"),
        }
    }

    /// The text of a row; `None` is NULL. A constant answers every row.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&str> {
        match self {
            Self::Constant(value) => value.as_deref(),
            Self::Utf8(array) => array.is_valid(row).then(|| array.value(row)),
            Self::LargeUtf8(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Utf8View(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Dictionary { keys, values } => {
                let key = usize::try_from(keys[row]).ok()?;
                values.is_valid(key).then(|| values.value(key))
            }
        }
    }

    /// The place of a row's text among a dictionary's values; `None` for NULL and other columns.
    #[inline]
    pub(crate) fn key(&self, row: usize) -> Option<usize> {
        match self {
            Self::Dictionary { keys, .. } => usize::try_from(*keys.get(row)?).ok(),
            _ => None,
        }
    }

    /// Whether one value stands for every row.
    pub fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }
}

fn dictionary<K: ArrowDictionaryKeyType>(function: &str, array: &ArrayRef) -> Result<Text> {
    let Some(dictionary) = array.as_any().downcast_ref::<DictionaryArray<K>>() else {
        return exec_err!("{function} got a dictionary of an unknown layout");
    };
    let values = cast(dictionary.values(), &DataType::Utf8View)?;
    let Some(values) = values.as_any().downcast_ref::<StringViewArray>() else {
        return exec_err!("{function} expects a dictionary of text");
    };
    let keys = dictionary
        .keys_iter()
        .map(|key| key.map_or(-1, |key| i64::try_from(key).unwrap_or(-1)))
        .collect();
    Ok(Text::Dictionary { keys, values: values.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_reads_the_same() {
        let plain: ArrayRef = Arc::new(StringArray::from(vec![Some("é"), None, Some("")]));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        for data_type in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, dictionary] {
            let array = cast(&plain, &data_type).unwrap();
            let text = Text::from_array("f", &array).unwrap();
            assert_eq!((text.get(0), text.get(1), text.get(2)), (Some("é"), None, Some("")));
        }
    }
}
