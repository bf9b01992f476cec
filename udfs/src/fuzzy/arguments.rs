//! What the text functions share: signatures, arguments, dictionaries, and the `impl` itself.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int32Array, ListBuilder,
    PrimitiveArray, StringViewArray, StringViewBuilder,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use datafusion_common::types::{NativeType, logical_float64, logical_int64, logical_string};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{
    Coercion, ColumnarValue, EncodingPreservation, Signature, TypeSignature, TypeSignatureClass,
    Volatility,
};

use crate::text::Text;

/// Text in any encoding; dictionaries stay dictionaries.
pub(crate) fn text_coercion() -> Coercion {
    Coercion::new_exact(TypeSignatureClass::Native(logical_string()))
        .with_encoding_preservation(EncodingPreservation::dictionary())
}

/// A whole number.
pub(crate) fn integer_coercion() -> Coercion {
    Coercion::new_implicit(
        TypeSignatureClass::Native(logical_int64()),
        vec![TypeSignatureClass::Integer],
        NativeType::Int64,
    )
}

/// A number.
pub(crate) fn number_coercion() -> Coercion {
    Coercion::new_implicit(
        TypeSignatureClass::Native(logical_float64()),
        vec![TypeSignatureClass::Numeric],
        NativeType::Float64,
    )
}

/// A function of exactly these arguments.
pub(crate) fn signature(arguments: Vec<Coercion>) -> Signature {
    Signature::coercible(arguments, Volatility::Immutable)
}

/// A function of `texts` texts.
pub(crate) fn texts(count: usize) -> Signature {
    signature(vec![text_coercion(); count])
}

/// A function of the first arguments, or of all with the last one.
pub(crate) fn optional_last(arguments: Vec<Coercion>) -> Signature {
    let without = arguments[..arguments.len().saturating_sub(1)].to_vec();
    Signature::one_of(
        vec![TypeSignature::Coercible(without), TypeSignature::Coercible(arguments)],
        Volatility::Immutable,
    )
}

/// Implements `ScalarUDFImpl` for a documented struct with a `signature` field.
macro_rules! scalar_function {
    ($function:ident, $name:literal, $signature:expr, $returns:expr, $invoke:path) => {
        impl Default for $function {
            fn default() -> Self {
                Self { signature: $signature }
            }
        }

        impl datafusion_expr::ScalarUDFImpl for $function {
            fn name(&self) -> &str {
                $name
            }

            fn signature(&self) -> &datafusion_expr::Signature {
                &self.signature
            }

            fn return_type(
                &self,
                _arguments: &[arrow::datatypes::DataType],
            ) -> datafusion_common::Result<arrow::datatypes::DataType> {
                Ok($returns)
            }

            fn invoke_with_args(
                &self,
                arguments: datafusion_expr::ScalarFunctionArgs,
            ) -> datafusion_common::Result<datafusion_expr::ColumnarValue> {
                $invoke($name, &arguments.args, arguments.number_rows)
            }

            fn documentation(&self) -> Option<&datafusion_expr::Documentation> {
                self.doc()
            }
        }
    };
}
pub(crate) use scalar_function;

/// `List<Utf8View>`.
pub(crate) fn list_of_text() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)))
}

/// Number arguments, one a row or one for all.
#[derive(Debug, Clone)]
pub(crate) enum Numbers<T: ArrowPrimitiveType> {
    Constant(Option<T::Native>),
    Column(PrimitiveArray<T>),
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    /// Reads an argument that the signature made a `T`.
    pub(crate) fn from_argument(function: &str, value: &ColumnarValue) -> Result<Self> {
        let array = match value {
            ColumnarValue::Array(array) => cast(array, &T::DATA_TYPE)?,
            ColumnarValue::Scalar(scalar) => {
                let array = cast(&scalar.to_array()?, &T::DATA_TYPE)?;
                return match array.as_primitive_opt::<T>() {
                    Some(one) => Ok(Self::Constant(one.is_valid(0).then(|| one.value(0)))),
                    None => exec_err!("{function} expects a number, got {}", scalar.data_type()),
                };
            }
        };
        match array.as_primitive_opt::<T>() {
            Some(column) => Ok(Self::Column(column.clone())),
            None => exec_err!("{function} expects a number, got {}", array.data_type()),
        }
    }

    /// The number of a row.
    #[inline]
    pub(crate) fn get(&self, row: usize) -> Option<T::Native> {
        match self {
            Self::Constant(value) => *value,
            Self::Column(column) => column.is_valid(row).then(|| column.value(row)),
        }
    }

    /// Whether one number stands for every row.
    pub(crate) fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }
}

/// Whether every argument is one value, so that the answer is one value too.
pub(crate) fn all_scalar(arguments: &[ColumnarValue]) -> bool {
    arguments.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)))
}

/// Computes an array of `rows`, or of one row when every argument is one value.
pub(crate) fn columnar(
    arguments: &[ColumnarValue],
    rows: usize,
    compute: impl FnOnce(usize) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    if all_scalar(arguments) {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&compute(1)?, 0)?));
    }
    Ok(ColumnarValue::Array(compute(rows)?))
}

/// A dictionary's distinct values as a column of their own, and each row's position in it.
pub(crate) fn distinct(text: &Text) -> Option<(Text, Int32Array)> {
    let Text::Dictionary { keys, values } = text else {
        return None;
    };
    if values.len() > keys.len() {
        return None;
    }
    let positions = keys.iter().map(|&key| i32::try_from(key).ok().filter(|key| *key >= 0));
    Some((Text::Utf8View(values.clone()), positions.collect()))
}

/// One text in, one value out: once for each distinct value of a dictionary.
pub(crate) fn map_text(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    compute: impl Fn(&Text, usize) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let [argument] = arguments else {
        return exec_err!("{name} takes one text, got {} arguments", arguments.len());
    };
    let text = Text::from_argument(name, argument)?;
    columnar(arguments, rows, |rows| match distinct(&text) {
        Some((values, positions)) => {
            let of_values = compute(&values, positions_len(&values, rows))?;
            Ok(take(&of_values, &positions, None)?)
        }
        None => compute(&text, rows),
    })
}

fn positions_len(values: &Text, rows: usize) -> usize {
    match values {
        Text::Utf8View(values) => values.len(),
        _ => rows,
    }
}

/// One text in, one text out; `None` is NULL.
pub(crate) fn text_to_text(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    convert: impl Fn(&str) -> Option<String>,
) -> Result<ColumnarValue> {
    map_text(name, arguments, rows, |text, rows| {
        let converted = (0..rows).map(|row| text.get(row).and_then(&convert));
        Ok(Arc::new(converted.collect::<StringViewArray>()))
    })
}

/// One text in, a list of texts out.
pub(crate) fn text_to_list(
    text: &Text,
    rows: usize,
    split: impl Fn(&str, &mut dyn FnMut(&str)),
) -> ArrayRef {
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    for row in 0..rows {
        match text.get(row) {
            Some(value) => {
                split(value, &mut |piece| lists.values().append_value(piece));
                lists.append(true);
            }
            None => lists.append(false),
        }
    }
    Arc::new(lists.finish())
}

/// Two texts in, one number out. The closure sees rows in order; `None` is NULL.
pub(crate) fn two_texts<T: ArrowPrimitiveType>(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    mut compute: impl FnMut(&str, &str) -> Result<Option<T::Native>>,
) -> Result<ColumnarValue> {
    let (left, right) = pair(name, arguments)?;
    columnar(arguments, rows, |rows| {
        per_distinct(&left, &right, rows, |left, right, rows| {
            let mut values = PrimitiveArray::<T>::builder(rows);
            for row in 0..rows {
                match (left.get(row), right.get(row)) {
                    (Some(left), Some(right)) => values.append_option(compute(left, right)?),
                    _ => values.append_null(),
                }
            }
            Ok(Arc::new(values.finish()))
        })
    })
}

/// Two texts in, a similarity out.
pub(crate) fn similarity(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    mut compute: impl FnMut(&str, &str) -> f64,
) -> Result<ColumnarValue> {
    two_texts::<Float64Type>(name, arguments, rows, |left, right| Ok(Some(compute(left, right))))
}

/// Two texts in, a distance out.
pub(crate) fn distance(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    mut compute: impl FnMut(&str, &str) -> usize,
) -> Result<ColumnarValue> {
    two_texts::<Int64Type>(name, arguments, rows, |left, right| {
        Ok(Some(i64::try_from(compute(left, right)).unwrap_or(i64::MAX)))
    })
}

/// The first two arguments as texts.
pub(crate) fn pair(name: &str, arguments: &[ColumnarValue]) -> Result<(Text, Text)> {
    match arguments {
        [left, right, ..] => {
            Ok((Text::from_argument(name, left)?, Text::from_argument(name, right)?))
        }
        _ => exec_err!("{name} takes two texts, got {} arguments", arguments.len()),
    }
}

/// Computes once for each distinct value when one side is a dictionary and the other a constant.
pub(crate) fn per_distinct(
    left: &Text,
    right: &Text,
    rows: usize,
    mut compute: impl FnMut(&Text, &Text, usize) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    if right.is_constant()
        && let Some((values, positions)) = distinct(left)
    {
        let of_values = compute(&values, right, positions_len(&values, rows))?;
        return Ok(take(&of_values, &positions, None)?);
    }
    if left.is_constant()
        && let Some((values, positions)) = distinct(right)
    {
        let of_values = compute(left, &values, positions_len(&values, rows))?;
        return Ok(take(&of_values, &positions, None)?);
    }
    compute(left, right, rows)
}

/// The rows where both texts are there; `None` when that is every row.
pub(crate) fn both_valid(left: &Text, right: &Text, rows: usize) -> Option<NullBuffer> {
    NullBuffer::union(validity(left, rows).as_ref(), validity(right, rows).as_ref())
}

fn validity(text: &Text, rows: usize) -> Option<NullBuffer> {
    match text {
        Text::Constant(Some(_)) => None,
        Text::Constant(None) => Some(NullBuffer::new_null(rows)),
        Text::Utf8(array) => array.nulls().cloned(),
        Text::LargeUtf8(array) => array.nulls().cloned(),
        Text::Utf8View(array) => array.nulls().cloned(),
        Text::Dictionary { .. } => {
            Some(NullBuffer::new(BooleanBuffer::collect_bool(rows, |row| text.get(row).is_some())))
        }
    }
}

/// An array of numbers with these NULLs.
pub(crate) fn numbers<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    Ok(Arc::new(PrimitiveArray::<T>::try_new(ScalarBuffer::from(values), nulls)?))
}

/// An array of truth values with these NULLs.
pub(crate) fn booleans(
    rows: usize,
    nulls: Option<NullBuffer>,
    holds: impl FnMut(usize) -> bool,
) -> ArrayRef {
    Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(rows, holds), nulls))
}
