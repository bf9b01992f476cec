//! How much memory the texts of a value take, and all values of a batch.

use arrow::array::{Array, ArrayData, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
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

/// The bytes that a batch's rows refer to; a slice of a large batch is small.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> u64 {
    let columns = batch.columns().iter().map(|column| column.to_data());
    let counted =
        |data: ArrayData| data.get_slice_memory_size().unwrap_or(0) as u64 + pointed_bytes(&data);
    columns.map(counted).sum()
}

/// What views point to, which Arrow does not count; a value of up to twelve bytes is in its view.
fn pointed_bytes(data: &ArrayData) -> u64 {
    if matches!(data.data_type(), DataType::Utf8View | DataType::BinaryView) {
        let views = data.buffer::<u128>(0).iter().take(data.len());
        let lengths = views.map(|view| u64::from(*view as u32));
        return lengths.filter(|length| *length > 12).sum();
    }
    data.child_data().iter().map(pointed_bytes).sum()
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

    #[test]
    fn what_views_point_to_counts_among_a_batchs_bytes() {
        let long = "x".repeat(1_000);
        let views = StringViewArray::from(vec![Some(long.as_str()), None, Some("ab")]);
        let batch = |column: ArrayRef| RecordBatch::try_from_iter([("a", column)]).unwrap();
        let bytes = |column: ArrayRef| batch_bytes(&batch(column));
        let views: ArrayRef = Arc::new(views);
        assert!((1_000..1_100).contains(&bytes(Arc::clone(&views))));
        assert!(bytes(views.slice(1, 2)) < 100);
        let plain: ArrayRef = Arc::new(StringArray::from(vec![long.as_str(), "ab"]));
        assert!((1_000..1_100).contains(&bytes(plain)));
    }
}
