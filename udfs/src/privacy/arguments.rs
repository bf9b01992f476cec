//! Reading arguments and building answers, shared by the functions of this package.
//!
//! An answer whose arguments are all constant is computed once and returned as a scalar.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, Decimal128Type};
use datafusion_common::types::{NativeType, logical_int64, logical_string};
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::{Coercion, ColumnarValue, EncodingPreservation, ReturnFieldArgs};
use datafusion_expr::{ScalarFunctionArgs, TypeSignatureClass};

use crate::text::Text;

/// An argument of text in any encoding, dictionaries included.
pub(super) fn text_coercion() -> Coercion {
    Coercion::new_exact(TypeSignatureClass::Native(logical_string()))
        .with_encoding_preservation(EncodingPreservation::dictionary())
}

/// An argument of any integer type, read as 64 bits.
pub(super) fn integer_coercion() -> Coercion {
    Coercion::new_implicit(
        TypeSignatureClass::Native(logical_int64()),
        vec![TypeSignatureClass::Integer],
        NativeType::Int64,
    )
}

/// The literal text at `position`, which the SQL layer resolves before planning.
///
/// # Errors
/// When the argument is missing, a column or an expression, NULL, or no text.
pub(super) fn literal_text<'a>(
    function: &str,
    args: &ReturnFieldArgs<'a>,
    position: usize,
    what: &str,
) -> Result<&'a str> {
    let Some(Some(scalar)) = args.scalar_arguments.get(position) else {
        return plan_err!(
            "{function}: the {what} must be a literal such as 'name', not a column or expression. \
             Hint: write the {what} in one pair of quotes; nothing is computed of it"
        );
    };
    match scalar.try_as_str() {
        Some(Some(text)) => Ok(text),
        _ => plan_err!("{function}: the {what} must be text such as 'name', not {scalar}"),
    }
}

/// The text of an argument that was checked to be a literal while planning.
///
/// # Errors
/// When it is no constant after all.
pub(super) fn constant_text<'a>(function: &str, text: &'a Text, what: &str) -> Result<&'a str> {
    match text {
        Text::Constant(Some(text)) => Ok(text),
        _ => exec_err!("{function}: the {what} must be a literal such as 'name'"),
    }
}

/// The argument at `position`.
///
/// # Errors
/// When the call has fewer arguments.
pub(super) fn argument<'a>(
    function: &str,
    args: &'a ScalarFunctionArgs,
    position: usize,
) -> Result<&'a ColumnarValue> {
    match args.args.get(position) {
        Some(value) => Ok(value),
        None => exec_err!("{function} misses argument {}", position + 1),
    }
}

/// The text argument at `position`.
///
/// # Errors
/// When it is missing or no text.
pub(super) fn text_argument(
    function: &str,
    args: &ScalarFunctionArgs,
    position: usize,
) -> Result<Text> {
    Text::from_argument(function, argument(function, args, position)?)
}

/// Integers of any width, by row; `None` is NULL.
#[derive(Debug)]
pub(super) enum Integers {
    /// The same on every row.
    Constant(Option<i128>),
    /// One a row, as decimals without fraction.
    Rows(ArrayRef),
}

impl Integers {
    /// Reads an argument of any integer type.
    ///
    /// # Errors
    /// When it is no integer.
    pub(super) fn from_argument(function: &str, value: &ColumnarValue) -> Result<Self> {
        let data_type = value.data_type();
        if !data_type.is_integer() && !data_type.is_null() {
            return exec_err!("{function} expects an integer, got {data_type}");
        }
        // Twenty digits hold every 64-bit integer, signed or not.
        match value.cast_to(&DataType::Decimal128(20, 0), None)? {
            ColumnarValue::Scalar(ScalarValue::Decimal128(value, _, _)) => {
                Ok(Self::Constant(value))
            }
            ColumnarValue::Scalar(other) => exec_err!("{function} expects an integer, got {other}"),
            ColumnarValue::Array(array) => Ok(Self::Rows(array)),
        }
    }

    /// The integer of a row; a constant answers every row.
    pub(super) fn get(&self, row: usize) -> Option<i128> {
        match self {
            Self::Constant(value) => *value,
            Self::Rows(array) => {
                let array = array.as_primitive_opt::<Decimal128Type>()?;
                array.is_valid(row).then(|| array.value(row))
            }
        }
    }

    /// Whether one value stands for every row.
    pub(super) fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }
}

/// Builds the text answer: `value(row, buffer)` writes into the empty buffer and says whether
/// the row has a value at all.
///
/// # Errors
/// Those of `value`.
pub(super) fn text_rows(
    rows: usize,
    constant: bool,
    mut value: impl FnMut(usize, &mut String) -> Result<bool>,
) -> Result<ColumnarValue> {
    let mut buffer = String::new();
    if constant {
        let known = value(0, &mut buffer)?;
        return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(known.then_some(buffer))));
    }
    let mut builder = StringBuilder::with_capacity(rows, rows.saturating_mul(16));
    for row in 0..rows {
        buffer.clear();
        if value(row, &mut buffer)? {
            builder.append_value(&buffer);
        } else {
            builder.append_null();
        }
    }
    Ok(ColumnarValue::Array(Arc::new(builder.finish())))
}

/// Identifiers as text: text itself, integers as their decimal text, so that 42 and '42' agree.
#[derive(Debug)]
pub(super) enum Identifiers {
    /// Text.
    Text(Text),
    /// Integers.
    Integers(Integers),
}

impl Identifiers {
    /// Reads an argument of text or integers.
    ///
    /// # Errors
    /// When it is neither.
    pub(super) fn from_argument(function: &str, value: &ColumnarValue) -> Result<Self> {
        if value.data_type().is_integer() {
            return Ok(Self::Integers(Integers::from_argument(function, value)?));
        }
        Ok(Self::Text(Text::from_argument(function, value)?))
    }

    /// Passes the text of a row to `use_text`, without allocating; `None` is NULL.
    pub(super) fn with<R>(&self, row: usize, use_text: impl FnOnce(&str) -> R) -> Option<R> {
        match self {
            Self::Text(text) => text.get(row).map(use_text),
            Self::Integers(integers) => {
                let mut digits = DecimalText { bytes: [0; 40] };
                integers.get(row).map(|value| use_text(digits.write(value)))
            }
        }
    }

    /// Whether one value stands for every row.
    pub(super) fn is_constant(&self) -> bool {
        match self {
            Self::Text(text) => text.is_constant(),
            Self::Integers(integers) => integers.is_constant(),
        }
    }
}

/// The decimal text of an integer on the stack: a million identifiers need no allocation.
#[derive(Debug)]
struct DecimalText {
    bytes: [u8; 40],
}

impl DecimalText {
    fn write(&mut self, value: i128) -> &str {
        let mut start = self.bytes.len();
        let mut rest = value.unsigned_abs();
        loop {
            start -= 1;
            self.bytes[start] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            start -= 1;
            self.bytes[start] = b'-';
        }
        std::str::from_utf8(&self.bytes[start..]).unwrap_or_default()
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Calls a function as the engine does.

    use std::sync::Arc;

    use arrow::array::ArrayRef;
    use arrow::datatypes::{Field, FieldRef};
    use datafusion_common::config::ConfigOptions;
    use datafusion_common::{Result, ScalarValue};
    use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};

    /// Text as a literal.
    pub(crate) fn text(value: &str) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::from(value))
    }

    /// An integer as a literal.
    pub(crate) fn int(value: i64) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::from(value))
    }

    /// A column of text.
    pub(crate) fn texts(values: &[Option<&str>]) -> ColumnarValue {
        ColumnarValue::Array(Arc::new(arrow::array::StringArray::from(values.to_vec())))
    }

    /// Plans and invokes `function`, as rows of text where `None` is NULL.
    pub(crate) fn call(
        function: impl datafusion_expr::ScalarUDFImpl + 'static,
        args: Vec<ColumnarValue>,
    ) -> Result<Vec<Option<String>>> {
        call_udf(&ScalarUDF::new_from_impl(function), args)
    }

    /// As [`call`], on a function that is shared already.
    pub(crate) fn call_udf(
        udf: &ScalarUDF,
        args: Vec<ColumnarValue>,
    ) -> Result<Vec<Option<String>>> {
        let rows = args
            .iter()
            .find_map(|arg| match arg {
                ColumnarValue::Array(array) => Some(array.len()),
                ColumnarValue::Scalar(_) => None,
            })
            .unwrap_or(1);
        let arg_fields: Vec<FieldRef> =
            args.iter().map(|arg| Arc::new(Field::new("a", arg.data_type(), true))).collect();
        let scalars: Vec<Option<&ScalarValue>> = args
            .iter()
            .map(|arg| match arg {
                ColumnarValue::Scalar(scalar) => Some(scalar),
                ColumnarValue::Array(_) => None,
            })
            .collect();
        let return_field = udf.return_field_from_args(ReturnFieldArgs {
            arg_fields: &arg_fields,
            scalar_arguments: &scalars,
        })?;
        let answer = udf.invoke_with_args(ScalarFunctionArgs {
            args: args.clone(),
            arg_fields,
            number_rows: rows,
            return_field,
            config_options: Arc::new(ConfigOptions::default()),
        })?;
        let array: ArrayRef = answer.to_array(rows)?;
        let array = arrow::array::AsArray::as_string::<i32>(&array);
        Ok(array.iter().map(|value| value.map(str::to_string)).collect())
    }

    /// As [`call`] for one row of constants, which must not fail.
    pub(crate) fn one(
        function: impl datafusion_expr::ScalarUDFImpl + 'static,
        args: Vec<ColumnarValue>,
    ) -> Option<String> {
        call(function, args).unwrap().remove(0)
    }
}
