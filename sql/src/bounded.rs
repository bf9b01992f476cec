//! DataFusion's functions that make long texts of short ones, with a limit on what one call makes.
//!
//! Their memory is charged to nobody, so `repeat('x', 2000000000)` would take it from everybody.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};

/// Bytes that one call on one batch may make.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The functions with a limit, and which argument counts.
const BOUNDED: [(&str, usize, bool); 3] =
    [("repeat", 1, true), ("lpad", 1, false), ("rpad", 1, false)];

/// The limited form of a function that needs a limit.
pub fn bounded(function: &Arc<ScalarUDF>) -> Option<Arc<ScalarUDF>> {
    let (_, count, multiplies) = BOUNDED.iter().find(|(name, ..)| *name == function.name())?;
    let inner = Arc::clone(function);
    let limited = Bounded { inner, count: *count, multiplies: *multiplies };
    Some(Arc::new(ScalarUDF::new_from_impl(limited)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    count: usize,
    multiplies: bool,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> DataFusionResult<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> DataFusionResult<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        if let [text, ..] = arguments.args.as_slice()
            && let Some(count) = arguments.args.get(self.count)
        {
            self.check(text, count, rows)?;
        }
        self.inner.invoke_with_args(arguments)
    }
}

impl Bounded {
    fn check(
        &self,
        text: &ColumnarValue,
        count: &ColumnarValue,
        rows: usize,
    ) -> DataFusionResult<()> {
        let rows = match (text, count) {
            (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)) => 1,
            _ => rows,
        };
        let mut bytes: u64 = 0;
        for row in 0..rows {
            let times = number(count, row);
            let each = if self.multiplies { length(text, row) } else { 1 };
            bytes = bytes.saturating_add(times.saturating_mul(each));
            if bytes > BYTES_MAX {
                return Err(DataFusionError::ResourcesExhausted(format!(
                    "{} would make more than {} MiB of text",
                    self.name(),
                    BYTES_MAX / (1024 * 1024)
                )));
            }
        }
        Ok(())
    }
}

fn number(value: &ColumnarValue, row: usize) -> u64 {
    let number = match value {
        ColumnarValue::Scalar(scalar) => match scalar.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(number)) => number,
            _ => None,
        },
        ColumnarValue::Array(array) => array
            .as_primitive_opt::<Int64Type>()
            .and_then(|numbers| numbers.is_valid(row).then(|| numbers.value(row))),
    };
    u64::try_from(number.unwrap_or(0)).unwrap_or(0)
}

fn length(value: &ColumnarValue, row: usize) -> u64 {
    let length = match value {
        ColumnarValue::Scalar(scalar) => scalar.try_as_str().flatten().map_or(0, str::len),
        ColumnarValue::Array(array) => match udfs::text::Text::from_array("repeat", array) {
            Ok(text) => text.get(row).map_or(0, str::len),
            Err(_) => 0,
        },
    };
    length as u64
}
