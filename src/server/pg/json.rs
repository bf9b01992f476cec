//! Structs, maps and nested lists as JSON, one value at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use bytes::{BufMut, BytesMut};

use super::problem::{Problem, Stop};

/// Writes the values of a column.
pub struct Writer {
    schema: Arc<Schema>,
}

impl Writer {
    /// For a column.
    pub fn new(array: &ArrayRef) -> Self {
        let field = Field::new("v", array.data_type().clone(), true);
        Self { schema: Arc::new(Schema::new(vec![field])) }
    }

    /// Writes a value that is not NULL.
    ///
    /// # Errors
    /// When it has no form in JSON.
    pub fn write(&self, array: &ArrayRef, row: usize, out: &mut BytesMut) -> Result<(), Stop> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![array.slice(row, 1)])?;
        let mut line = Vec::new();
        let builder = WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = builder.build::<_, LineDelimited>(&mut line);
        writer.write(&batch)?;
        writer.finish()?;
        // The writer puts the value into an object of its own: {"v":…}.
        let value = line.strip_prefix(b"{\"v\":").and_then(|rest| rest.strip_suffix(b"}\n"));
        let value = value.ok_or_else(|| Problem::internal(&"a value has no JSON form"))?;
        out.put_slice(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StructArray};
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn a_struct_is_an_object() {
        let field = Arc::new(Field::new("a", DataType::Int32, true));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
        let array: ArrayRef = Arc::new(StructArray::from(vec![(field, numbers)]));
        let writer = Writer::new(&array);
        let shown = |row| {
            let mut out = BytesMut::new();
            writer.write(&array, row, &mut out).unwrap_or_else(|_| panic!("no value"));
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!((shown(0).as_str(), shown(1).as_str()), ("{\"a\":1}", "{\"a\":null}"));
    }
}
