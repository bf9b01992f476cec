//! How much memory the texts of a value take.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ColumnarValue;

/// The bytes of all texts of a value.
pub(crate) fn text_bytes(value: &ColumnarValue, rows: usize) -> u64 {
    match value {
        ColumnarValue::Scalar(scalar) => scalar_bytes(scalar).saturating_mul(rows as u64),
        ColumnarValue::Array(array) => array_bytes(array),
    }
}

fn scalar_bytes(scalar: &ScalarValue) -> u64 {
    match scalar.try_as_str() {
        Some(text) => text.map_or(0, str::len) as u64,
        None => scalar.size() as u64,
    }
}

fn array_bytes(array: &ArrayRef) -> u64 {
    match array.data_type() {
        DataType::Utf8 => {
            let offsets = array.as_string::<i32>().offsets();
            u64::try_from(offsets.last().unwrap_or(&0) - offsets.first().unwrap_or(&0)).unwrap_or(0)
        }
        // The low half of a view is the length.
        DataType::Utf8View => {
            array.as_string_view().views().iter().map(|view| u64::from(*view as u32)).sum()
        }
        _ => array.to_data().get_slice_memory_size().unwrap_or(0) as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{StringArray, StringViewArray};

    use super::*;

    #[test]
    fn texts_are_counted_by_what_is_read_of_them() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["abc", "de", ""]));
        let views: ArrayRef =
            Arc::new(StringViewArray::from(vec![Some("longer than twelve"), None, Some("ab")]));
        let of = |array: ArrayRef| text_bytes(&ColumnarValue::Array(array), 0);
        assert_eq!((of(Arc::clone(&texts)), of(texts.slice(1, 2))), (5, 2));
        assert_eq!(of(views), 20);
        let scalar = ColumnarValue::Scalar(ScalarValue::from("abc"));
        assert_eq!(text_bytes(&scalar, 1_000), 3_000);
    }
}
