//! Runs a function as the engine does: coercion by its signature, then every mix of encodings.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringViewArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use super::stop::Stop;

/// A text as an argument.
pub(crate) fn text(value: &str) -> ScalarValue {
    ScalarValue::from(value)
}

fn function(name: &str) -> Arc<ScalarUDF> {
    let all = crate::scalar_functions();
    all.into_iter().find(|function| function.name() == name).expect("a registered function")
}

/// Coerces the arguments as the planner does and calls the function.
pub(crate) fn call(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    call_until(&Stop::never(), name, arguments, rows)
}

/// The same in a statement that ends when `stop` says so.
pub(crate) fn call_until(
    stop: &Stop,
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
) -> Result<ColumnarValue> {
    let mut options = ConfigOptions::default();
    options.extensions.insert(stop.clone());
    let function = function(name);
    let fields: Vec<_> = arguments
        .iter()
        .map(|argument| Arc::new(Field::new("argument", argument.data_type(), true)))
        .collect();
    let fields = fields_with_udf(&fields, function.as_ref())?;
    let coerced = arguments.iter().zip(&fields);
    let args = coerced.map(|(argument, field)| argument.cast_to(field.data_type(), None));
    let args = args.collect::<Result<Vec<_>>>()?;
    let types: Vec<_> = fields.iter().map(|field| field.data_type().clone()).collect();
    let return_type = function.return_type(&types)?;
    let result = function.invoke_with_args(ScalarFunctionArgs {
        args,
        arg_fields: fields,
        number_rows: rows,
        return_field: Arc::new(Field::new("result", return_type.clone(), true)),
        config_options: Arc::new(options),
    })?;
    assert_eq!(result.data_type(), return_type, "{name}");
    Ok(result)
}

/// Calls the function with one value each.
pub(crate) fn one(name: &str, arguments: &[ScalarValue]) -> ArrayRef {
    let arguments: Vec<_> = arguments.iter().cloned().map(ColumnarValue::Scalar).collect();
    let result = call(name, &arguments, 1).unwrap();
    assert!(matches!(result, ColumnarValue::Scalar(_)), "{name}: values in, a value out");
    result.to_array(1).unwrap()
}

/// The message of a call that fails.
pub(crate) fn error_of(name: &str, arguments: &[ScalarValue]) -> String {
    let arguments: Vec<_> = arguments.iter().cloned().map(ColumnarValue::Scalar).collect();
    call(name, &arguments, 1).expect_err("an error").to_string()
}

/// The message of a failing call with two texts and a third argument.
pub(crate) fn one_error(name: &str, a: &str, b: &str, third: impl Into<ScalarValue>) -> String {
    error_of(name, &[text(a), text(b), third.into()])
}

/// The number that two texts and a cut-off give.
pub(crate) fn integers(name: &str, a: &str, b: &str, max: i64) -> Option<i64> {
    let result = one(name, &[text(a), text(b), max.into()]);
    result.is_valid(0).then(|| result.as_primitive::<Int64Type>().value(0))
}

/// The truth value that two texts and a threshold give.
pub(crate) fn truth(name: &str, a: &str, b: &str, limit: impl Into<ScalarValue>) -> Option<bool> {
    let result = one(name, &[text(a), text(b), limit.into()]);
    result.is_valid(0).then(|| result.as_boolean().value(0))
}

/// The list that a text, and perhaps a number, gives.
pub(crate) fn text_list(name: &str, value: &str, number: Option<i64>) -> Vec<String> {
    let mut arguments = vec![text(value)];
    arguments.extend(number.map(ScalarValue::from));
    let result = one(name, &arguments);
    let list = result.as_list::<i32>().value(0);
    list.as_string_view().iter().map(|text| text.unwrap().to_owned()).collect()
}

/// Checks a one-text function on single values, on columns of every encoding and on NULL.
pub(crate) fn text_table(name: &str, cases: &[(&str, &str)]) {
    let inputs = column(cases.iter().map(|case| case.0));
    let expected: Vec<_> = cases.iter().map(|case| Some(case.1)).chain([None]).collect();
    let expected = StringViewArray::from(expected);
    for (input, code) in cases {
        assert_eq!(one(name, &[text(input)]).as_string_view().value(0), *code, "{name} {input:?}");
    }
    for array in encodings(&inputs) {
        let kind = array.data_type().clone();
        let rows = array.len();
        let result = call(name, &[ColumnarValue::Array(array)], rows).unwrap();
        assert_eq!(result.to_array(rows).unwrap().as_string_view(), &expected, "{name} {kind}");
    }
}

/// Checks a distance both ways round, on values, columns of every encoding, constants and NULL.
pub(crate) fn distance_table(name: &str, cases: &[(&str, &str, i64)]) {
    table(name, cases, |array, row| array.as_primitive::<Int64Type>().value(row));
}

/// As [`distance_table`], for similarities to four places.
pub(crate) fn similarity_table(name: &str, cases: &[(&str, &str, f64)]) {
    table(name, cases, |array, row| {
        (array.as_primitive::<Float64Type>().value(row) * 10_000.0).round() / 10_000.0
    });
}

fn table<T: Copy + PartialEq + std::fmt::Debug>(
    name: &str,
    cases: &[(&str, &str, T)],
    read: impl Fn(&ArrayRef, usize) -> T,
) {
    let lefts = column(cases.iter().map(|case| case.0));
    let rights = column(cases.iter().map(|case| case.1));
    let rows = lefts.len();
    let check = |result: ColumnarValue, what: &str| {
        let array = result.to_array(rows).unwrap();
        for (row, (a, b, expected)) in cases.iter().enumerate() {
            assert!(array.is_valid(row), "{name}({a:?}, {b:?}) {what}");
            assert_eq!(read(&array, row), *expected, "{name}({a:?}, {b:?}) {what}");
        }
        assert!(array.is_null(rows - 1), "{name} of NULL, {what}");
    };
    for left in encodings(&lefts) {
        for right in encodings(&rights) {
            let what = format!("{} {}", left.data_type(), right.data_type());
            let pair = [left.clone(), right.clone()].map(ColumnarValue::Array);
            check(call(name, &pair, rows).unwrap(), &what);
            let turned = [right, left.clone()].map(ColumnarValue::Array);
            check(call(name, &turned, rows).unwrap(), &what);
        }
    }
    for (a, b, expected) in cases {
        let what = format!("{name}({a:?}, {b:?})");
        assert_eq!(read(&one(name, &[text(a), text(b)]), 0), *expected, "{what}");
        constant_against_column(name, a, b, &|array| assert_eq!(read(array, 0), *expected));
    }
}

/// A constant beside each encoding of a column that repeats the other text, on either side.
fn constant_against_column(name: &str, a: &str, b: &str, check: &dyn Fn(&ArrayRef)) {
    let constant = || ColumnarValue::Scalar(text(b));
    let repeated: ArrayRef = Arc::new(StringArray::from(vec![Some(a), None, Some(a), Some("?")]));
    for array in encodings(&repeated) {
        for arguments in [
            [ColumnarValue::Array(array.clone()), constant()],
            [constant(), ColumnarValue::Array(array.clone())],
        ] {
            let result = call(name, &arguments, 4).unwrap().to_array(4).unwrap();
            assert_eq!(result.null_count(), 1, "{name}({a:?}, {b:?})");
            check(&result);
            check(&result.slice(2, 1));
        }
        let null = ColumnarValue::Scalar(ScalarValue::Utf8(None));
        let nothing = call(name, &[ColumnarValue::Array(array), null], 4).unwrap();
        assert_eq!(nothing.to_array(4).unwrap().null_count(), 4, "{name} beside a constant NULL");
    }
}

fn column<'a>(texts: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter(texts.map(Some).chain([None])))
}

/// A column in each of Arrow's encodings, and as a slice from the middle of a longer one.
fn encodings(array: &ArrayRef) -> Vec<ArrayRef> {
    let before: ArrayRef = Arc::new(StringArray::from(vec![Some("before"), None]));
    let longer = concat(&[before.as_ref(), array.as_ref(), before.as_ref()]).unwrap();
    let dictionary = |value| DataType::Dictionary(Box::new(DataType::Int32), Box::new(value));
    let types = [
        DataType::LargeUtf8,
        DataType::Utf8View,
        dictionary(DataType::Utf8),
        dictionary(DataType::Utf8View),
    ];
    let mut arrays = vec![array.clone(), longer.slice(2, array.len())];
    arrays.extend(types.iter().filter_map(|to| cast(array, to).ok()));
    assert!(arrays.len() >= 5, "every encoding is made");
    arrays
}

#[test]
fn names_are_unique_and_documented() {
    let functions: Vec<_> =
        super::functions().into_iter().chain(crate::identity::functions()).collect();
    let mut names: Vec<_> = functions.iter().map(|function| function.name().to_owned()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "no name twice");
    for function in &functions {
        let name = function.name();
        let documentation = function.documentation().expect(name);
        assert_eq!(documentation.doc_section.label, "Identity Functions", "{name}");
        assert!(documentation.syntax_example.starts_with(&format!("{name}(")), "{name}");
        let example = documentation.sql_example.as_deref().expect(name);
        assert!(example.contains(&format!("{name}(")), "{name}");
        assert!(documentation.arguments.as_ref().is_some_and(|a| !a.is_empty()), "{name}");
    }
}

#[test]
fn long_texts_take_linear_memory_and_an_instant() {
    let (x, y) = ("x".repeat(100_000), "y".repeat(100_000));
    let almost = format!("{}z{}", &x[..50_000], &x[50_000..]);
    for name in ["levenshtein", "osa_distance"] {
        assert_eq!(integers(name, &x, &y, 100_000), Some(100_000));
        assert_eq!(integers(name, &x, &almost, 3), Some(1));
    }
    for name in ["jaro_similarity", "jaro_winkler_similarity", "partial_ratio"] {
        let result = one(name, &[text(&x), text(&y)]);
        assert_eq!(result.as_primitive::<Float64Type>().value(0), 0.0, "{name}");
    }
    for name in ["soundex", "metaphone", "nysiis"] {
        assert_eq!(one(name, &[text(&x)]).len(), 1, "{name}");
    }
    assert_eq!(text_list("ngrams", &x, Some(64)).len(), 99_937);
}

#[test]
fn wrong_types_are_refused() {
    for function in super::functions() {
        let number = ColumnarValue::Scalar(ScalarValue::from(1_i64));
        let argument = std::slice::from_ref(&number);
        let error = call(function.name(), &[argument, argument].concat(), 1).expect_err("an error");
        assert!(!error.to_string().is_empty(), "{}", function.name());
    }
}

#[test]
fn a_null_column_gives_null() {
    for name in ["levenshtein", "jaro_winkler_similarity", "token_set_ratio"] {
        let nothing: ArrayRef = arrow::array::new_null_array(&DataType::Null, 3);
        let texts = ColumnarValue::Scalar(text("a"));
        let result = call(name, &[ColumnarValue::Array(nothing), texts], 3).unwrap();
        assert_eq!(result.to_array(3).unwrap().null_count(), 3, "{name}");
    }
}
