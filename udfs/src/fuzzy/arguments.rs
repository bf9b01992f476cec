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

use super::prepared::{Prepared, repeating_first};
use super::stop::Stop;
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

/// Implements `ScalarUDFImpl` for a documented struct with a `signature` field. What `$of` reads in
/// the statement's options is the function's last argument.
macro_rules! scalar_function {
    (
        $function:ident, $name:literal, $signature:expr, $returns:expr, $invoke:path
        $(, $of:path)?
    ) => {
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
                $invoke(
                    $name,
                    &arguments.args,
                    arguments.number_rows,
                    $(&$of(&arguments.config_options),)?
                )
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

/// Two texts in, one number out; the measure is the same both ways round.
///
/// `compute` is given the texts of a row, each with what was made of it: the first is of the side
/// whose texts repeat more. It gives `None` for NULL.
pub(crate) fn two_texts<T: ArrowPrimitiveType, L: Default, R: Default>(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
    (mut make_first, mut make_second): (impl FnMut(&str, &mut L), impl FnMut(&str, &mut R)),
    mut compute: impl FnMut((&str, &L), (&str, &R)) -> Result<Option<T::Native>>,
) -> Result<ColumnarValue> {
    let (left, right) = pair(name, arguments)?;
    columnar(arguments, rows, |rows| {
        per_distinct(&left, &right, rows, |left, right, rows| {
            let (first, second) = repeating_first(left, right);
            let (mut of_first, mut of_second) = (Prepared::new(first), Prepared::new(second));
            let mut pace = stop.pace();
            let mut values = PrimitiveArray::<T>::builder(rows);
            for row in 0..rows {
                let (Some(one), Some(other)) = (first.get(row), second.get(row)) else {
                    values.append_null();
                    continue;
                };
                pace.spend(steps(one, other))?;
                let of_one = of_first.of(one, first.key(row), &mut make_first);
                let of_other = of_second.of(other, second.key(row), &mut make_second);
                values.append_option(compute((one, of_one), (other, of_other))?);
            }
            stop.check()?;
            Ok(Arc::new(values.finish()))
        })
    })
}

/// What comparing two texts may take, in steps of 64 cells of a matrix.
fn steps(left: &str, right: &str) -> usize {
    left.len() + right.len() + left.len().saturating_mul(right.len()) / 64
}

/// Two texts in, the similarity of what is made of them out.
pub(crate) fn similarity<P: Default>(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
    make: impl Fn(&str, &mut P) + Copy,
    mut compute: impl FnMut((&str, &P), (&str, &P)) -> f64,
) -> Result<ColumnarValue> {
    let compute = |left: (&str, &P), right: (&str, &P)| Ok(Some(compute(left, right)));
    two_texts::<Float64Type, P, P>(name, arguments, rows, stop, (make, make), compute)
}

/// Two texts in, the distance of a text to what is made of the other out.
pub(crate) fn distance<P: Default>(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
    make: impl FnMut(&str, &mut P),
    mut compute: impl FnMut((&str, &P), &str) -> usize,
) -> Result<ColumnarValue> {
    let nothing = |_: &str, (): &mut ()| {};
    let compute = |left: (&str, &P), (right, ()): (&str, &())| {
        Ok(Some(i64::try_from(compute(left, right)).unwrap_or(i64::MAX)))
    };
    two_texts::<Int64Type, P, ()>(name, arguments, rows, stop, (make, nothing), compute)
}

/// The error of two texts for which nobody would wait.
pub(crate) fn too_long<T>(name: &str, left: &str, right: &str) -> Result<T> {
    exec_err!(
        "{name}: two texts of {} and {} bytes take too long to compare. \
         Compare shorter pieces, for instance with left(text, 1000)",
        left.len(),
        right.len()
    )
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

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    const ROWS: usize = 8_000;

    /// How often each side is prepared and pairs are compared.
    fn counts(left: ColumnarValue, right: ColumnarValue) -> [usize; 3] {
        let (mut firsts, mut seconds, mut pairs) = (0, 0, 0);
        let make = (|_: &str, (): &mut ()| firsts += 1, |_: &str, (): &mut ()| seconds += 1);
        let compute = |_: (&str, &()), _: (&str, &())| {
            pairs += 1;
            Ok(Some(1))
        };
        let (arguments, stop) = ([left, right], Stop::never());
        let answer =
            two_texts::<Int64Type, (), ()>("f", &arguments, ROWS, &stop, make, compute).unwrap();
        assert_eq!(answer.to_array(ROWS).unwrap().null_count(), 0);
        [firsts, seconds, pairs]
    }

    fn column(distinct: usize, to: &DataType) -> ColumnarValue {
        let texts = (0..ROWS).map(|row| format!("text {}", row % distinct));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        ColumnarValue::Array(cast(&texts, to).unwrap())
    }

    #[test]
    fn constants_and_dictionaries_are_worked_on_once() {
        let constant = || ColumnarValue::Scalar(ScalarValue::from("constant"));
        let to = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let dictionary = || column(10, &to);
        let plain = || column(ROWS, &DataType::Utf8);
        for turned in [false, true] {
            let counts =
                |left, right| if turned { counts(right, left) } else { counts(left, right) };
            assert_eq!(counts(constant(), constant()), [1, 1, 1]);
            assert_eq!(counts(constant(), dictionary()), [1, 10, 10]);
            assert_eq!(counts(constant(), plain()), [1, ROWS, ROWS]);
            assert_eq!(counts(dictionary(), plain()), [10, ROWS, ROWS]);
            assert_eq!(
                counts(dictionary(), column(7, &to)),
                if turned { [7, 10, ROWS] } else { [10, 7, ROWS] }
            );
        }
    }

    #[test]
    fn what_nobody_wants_is_an_error() {
        let stop = Stop::when(|| true);
        let nothing = |_: &str, (): &mut ()| {};
        let arguments = [column(10, &DataType::Utf8), column(7, &DataType::Utf8)];
        let answer = distance("f", &arguments, ROWS, &stop, nothing, |_, _| 0);
        assert!(answer.unwrap_err().to_string().contains("nobody waits"));
    }
}
