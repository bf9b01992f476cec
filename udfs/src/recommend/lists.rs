//! Arguments and lists that the recommendation functions share.
//!
//! A list is `List<Struct<item, score>>` (or `user`), best first, never NULL inside; a NULL row is
//! a NULL list. `k` is the length of the lists at most, from 1 to 10,000.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, ListArray, StructArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Fields, Int64Type};
use datafusion_common::{DataFusionError, Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};

use super::binding::Asked;
use crate::consent::only_consenting;
use crate::model::{IdIndex, ModelError};

/// Longest list that can be asked for.
const K_MAX: i64 = 10_000;
/// Length of lists when none is asked for.
const K_DEFAULT: usize = 10;

/// Codes and scores of each row; `None` is a NULL list.
pub(super) type Rows = Vec<Option<(Vec<u32>, Vec<f32>)>>;

pub(super) fn model_error(error: ModelError) -> DataFusionError {
    DataFusionError::Execution(error.to_string())
}

/// `List<Struct<name, score>>` of ids of a type.
pub(super) fn list_type(name: &str, ids: &IdIndex) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(fields(name, ids)), true)))
}

fn fields(name: &str, ids: &IdIndex) -> Fields {
    Fields::from(vec![
        Field::new(name, ids.data_type().clone(), true),
        Field::new("score", DataType::Float32, true),
    ])
}

/// Builds the lists; one row stands for all when every argument was constant.
pub(super) fn lists(
    name: &str,
    ids: &IdIndex,
    rows: Rows,
    constant: bool,
) -> Result<ColumnarValue> {
    let lengths = rows.iter().map(|row| row.as_ref().map_or(0, |(codes, _)| codes.len()));
    let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
    let nulls = NullBuffer::from_iter(rows.iter().map(Option::is_some));
    let mut codes = vec![];
    let mut scores = vec![];
    for (row_codes, row_scores) in rows.into_iter().flatten() {
        codes.extend(row_codes);
        scores.extend(row_scores);
    }
    let items = take(&ids.values(), &UInt32Array::from(codes), None)?;
    let columns: Vec<ArrayRef> = vec![items, Arc::new(Float32Array::from(scores))];
    let entries = StructArray::try_new(fields(name, ids), columns, None)?;
    let field = Field::new_list_field(entries.data_type().clone(), true);
    let list = ListArray::try_new(Arc::new(field), offsets, Arc::new(entries), Some(nulls))?;
    value(Arc::new(list), constant)
}

/// The array, or its only row when every argument was constant.
pub(super) fn value(array: ArrayRef, constant: bool) -> Result<ColumnarValue> {
    if constant && array.len() == 1 {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
    }
    Ok(ColumnarValue::Array(array))
}

/// Whether every argument is one value, so that one row answers for all.
pub(super) fn is_constant(args: &ScalarFunctionArgs) -> bool {
    args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)))
}

/// The argument with users as rows; NULL in place of those who do not consent.
pub(super) fn users(
    function: &str,
    asked: &Asked<'_>,
    args: &ScalarFunctionArgs,
    index: usize,
) -> Result<ArrayRef> {
    only_consenting(asked.consents, rows(function, args, index)?)
}

/// An argument as rows: as many as the batch has, or 1 when all arguments are constant.
pub(super) fn rows(function: &str, args: &ScalarFunctionArgs, index: usize) -> Result<ArrayRef> {
    let rows = if is_constant(args) { 1 } else { args.number_rows };
    match args.args.get(index) {
        Some(argument) => Ok(argument.to_array(rows)?),
        None => exec_err!("{function} needs at least {} arguments", index + 1),
    }
}

/// Refuses, while planning, a literal `k` that is out of range or no whole number.
pub(super) fn check_k(function: &str, args: &ReturnFieldArgs, index: usize) -> Result<()> {
    if let Some(field) = args.arg_fields.get(index) {
        let data_type = field.data_type();
        if !data_type.is_integer() && !data_type.is_null() {
            return plan_err!("{function} takes k as a whole number, not as {data_type}");
        }
    }
    match args.scalar_arguments.get(index).copied().flatten() {
        Some(value) if !value.is_null() => match value.cast_to(&DataType::Int64)? {
            ScalarValue::Int64(Some(k)) => valid_k(function, k).map(|_| ()),
            _ => plan_err!("{function} takes k as a whole number, not {value}"),
        },
        _ => Ok(()),
    }
}

fn valid_k(function: &str, k: i64) -> Result<usize> {
    match usize::try_from(k) {
        Ok(length) if (1..=K_MAX).contains(&k) => Ok(length),
        _ => exec_err!("{function} got k = {k}: give a whole number from 1 to {K_MAX}"),
    }
}

/// `k` of each row: `None` is NULL. The default where the call has none.
pub(super) fn k_rows(
    function: &str,
    args: &ScalarFunctionArgs,
    index: usize,
    count: usize,
) -> Result<Vec<Option<usize>>> {
    if index >= args.args.len() {
        return Ok(vec![Some(K_DEFAULT); count]);
    }
    let array = cast(&rows(function, args, index)?, &DataType::Int64)?;
    let array = array.as_primitive::<Int64Type>();
    array.iter().map(|k| k.map(|k| valid_k(function, k)).transpose()).collect()
}

/// The longest list of a batch; every row's is cut from it.
pub(super) fn longest(k: &[Option<usize>]) -> usize {
    k.iter().flatten().copied().max().unwrap_or(0)
}

/// The first `k` of a list.
pub(super) fn cut(mut codes: Vec<u32>, mut scores: Vec<f32>, k: usize) -> (Vec<u32>, Vec<f32>) {
    codes.truncate(k);
    scores.truncate(k);
    (codes, scores)
}
