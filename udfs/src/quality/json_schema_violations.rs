//! `json_schema_violations(json, schema)`: what of a JSON Schema a text or nested value breaks.
//!
//! A list of sentences, each with its place (`$.items[0].price: -1 is less than the minimum 0`),
//! empty when the value is sound, 100 at most. A text that is no JSON breaks any schema. A struct,
//! list or map is what Arrow writes as JSON for it: a NULL member of a struct is left out, times
//! are texts, binary data is hexadecimal. NULL in, NULL out. A schema that is none, or that holds a
//! keyword which is not known here, is an error; `json_schema.rs` and the description list those
//! that are. A schema that stands in many rows is read once, and so are its patterns.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringViewBuilder};
use arrow::datatypes::Field;
use arrow::json::writer::{EncoderOptions, make_encoder};
use datafusion_common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion_expr::{
    Coercion, ColumnarValue, Signature, TypeSignature, TypeSignatureClass, Volatility,
};
use datafusion_macros::user_doc;
use serde_json::Value;

use super::json_schema::Schema;
use crate::fuzzy::arguments::{
    columnar, list_of_text, pair, per_distinct, scalar_function, text_coercion,
};
use crate::fuzzy::stop::Stop;
use crate::text::Text;

#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "What of a JSON Schema (draft 2020-12) a JSON text, struct, list or map breaks, as sentences with their place; an empty list when it is sound. A NULL member of a struct is one that is missing. Known keywords: type, enum, const, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, minLength, maxLength, pattern, items, prefixItems, minItems, maxItems, uniqueItems, contains, minContains, maxContains, properties, required, additionalProperties, patternProperties, propertyNames, minProperties, maxProperties, allOf, anyOf, oneOf, not, if, then, else, $ref within the schema. Annotations, format among them, assert nothing; any other keyword is an error. Whole numbers beyond 64 bits count as floats, and a schema may hold none.",
    syntax_example = "json_schema_violations(json, schema)",
    sql_example = r#"```sql
> SELECT json_schema_violations('{"price": -1}',
    '{"required": ["id"], "properties": {"price": {"minimum": 0}}}') AS broken;
+--------------------------------------------------------+
| broken                                                 |
+--------------------------------------------------------+
| [$.price: -1 is less than the minimum 0, $: misses id] |
+--------------------------------------------------------+
```"#,
    argument(
        name = "json",
        description = "A JSON text, or a struct, list or map, whose keys are texts."
    ),
    argument(name = "schema", description = "A JSON Schema, as text.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct JsonSchemaViolationsFunction {
    signature: Signature,
}

scalar_function!(
    JsonSchemaViolationsFunction,
    "json_schema_violations",
    signature(),
    list_of_text(),
    json_schema_violations,
    Stop::of
);

/// Texts as they are, and anything else for what it is: what cannot be validated is an error.
fn signature() -> Signature {
    let any = Coercion::new_exact(TypeSignatureClass::Any);
    Signature::one_of(
        vec![
            TypeSignature::Coercible(vec![text_coercion(), text_coercion()]),
            TypeSignature::Coercible(vec![any, text_coercion()]),
        ],
        Volatility::Immutable,
    )
}

fn json_schema_violations(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    let [value, schema] = arguments else {
        return exec_err!("{name} takes two arguments, got {}", arguments.len());
    };
    let arguments = [as_text(name, value)?, schema.clone()];
    let (json, schema) = pair(name, &arguments)?;
    columnar(&arguments, rows, |rows| {
        per_distinct(&json, &schema, rows, |json, schema, rows| {
            broken(name, json, schema, rows, stop)
        })
    })
}

/// Nested values as JSON texts, and anything else as it is.
fn as_text(name: &str, value: &ColumnarValue) -> Result<ColumnarValue> {
    if !value.data_type().is_nested() {
        return Ok(value.clone());
    }
    Ok(match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(written(name, array)?),
        ColumnarValue::Scalar(one) => {
            let text = written(name, &one.to_array()?)?;
            ColumnarValue::Scalar(ScalarValue::try_from_array(&text, 0)?)
        }
    })
}

fn written(name: &str, values: &ArrayRef) -> Result<ArrayRef> {
    let field = Arc::new(Field::new("", values.data_type().clone(), true));
    let options = EncoderOptions::default();
    let encoder = make_encoder(&field, values.as_ref(), &options);
    let mut encoder = encoder.map_err(|_| {
        exec_datafusion_err!(
            "{name}: a value of type {} cannot be written as JSON. Hint: the keys of a map are \
             texts, and what JSON has no form for is cast to text",
            values.data_type()
        )
    })?;
    let (mut texts, mut json) = (StringViewBuilder::with_capacity(values.len()), Vec::new());
    for row in 0..values.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        json.clear();
        encoder.encode(row, &mut json);
        match std::str::from_utf8(&json) {
            Ok(text) => texts.append_value(text),
            Err(error) => return exec_err!("a value was not written as JSON: {error}"),
        }
    }
    Ok(Arc::new(texts.finish()))
}

fn broken(name: &str, json: &Text, schema: &Text, rows: usize, stop: &Stop) -> Result<ArrayRef> {
    stop.check()?;
    let mut pace = stop.pace();
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    let mut known: Option<(&str, Schema)> = None;
    for row in 0..rows {
        let (Some(json), Some(text)) = (json.get(row), schema.get(row)) else {
            lists.append(false);
            continue;
        };
        if known.as_ref().is_none_or(|(last, _)| *last != text) {
            pace.spend(text.len())?;
            known = Some((text, read(name, text)?));
        }
        let Some((_, schema)) = &known else { return exec_err!("{name} misses its schema") };
        pace.spend(json.len())?;
        match serde_json::from_str::<Value>(json) {
            Ok(value) => {
                let found = schema.violations(&value, &mut pace)?;
                found.iter().for_each(|sentence| lists.values().append_value(sentence));
            }
            Err(error) => lists.values().append_value(format!("$: this is no JSON: {error}")),
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

fn read(name: &str, text: &str) -> Result<Schema> {
    let schema = match serde_json::from_str(text) {
        Ok(schema) => Schema::new(schema),
        Err(error) => return exec_err!("{name}: the schema is no JSON: {error}"),
    };
    if let Some(number) = beyond_64_bits(text) {
        return exec_err!(
            "{name}: the schema's number {number} is beyond 64 bits, and others would be taken for \
             it. Hint: keep such numbers as texts, with a pattern"
        );
    }
    schema.check_patterns()?;
    Ok(schema)
}

/// The first whole number of a JSON text that no 64 bits hold, so that others are taken for it.
fn beyond_64_bits(json: &str) -> Option<&str> {
    let bytes = json.as_bytes();
    let (mut at, mut is_in_text) = (0_usize, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => is_in_text = !is_in_text,
            // What comes behind it is no end of the text.
            b'\\' => at += 1,
            b'-' | b'0'..=b'9' if !is_in_text => {
                let rest = json.get(at..)?;
                let is_of_number = |letter: char| {
                    letter.is_ascii_digit() || matches!(letter, '-' | '+' | '.' | 'e' | 'E')
                };
                let length = rest.find(|letter: char| !is_of_number(letter)).unwrap_or(rest.len());
                let number = rest.get(..length)?;
                let is_whole = !number.contains(['.', 'e', 'E']);
                if is_whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(number);
                }
                at += length.saturating_sub(1);
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, StructArray,
    };
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::{DataType, Field, Int64Type};
    use datafusion_common::ScalarValue;
    use datafusion_expr::ColumnarValue;

    use super::beyond_64_bits;
    use crate::fuzzy::stop::Stop;
    use crate::fuzzy::testing::{call, call_until, error_of, one, text};

    fn broken(array: ArrayRef, schema: &str) -> Vec<Option<Vec<String>>> {
        let rows = array.len();
        let arguments = [ColumnarValue::Array(array), ColumnarValue::Scalar(text(schema))];
        let lists = call("json_schema_violations", &arguments, rows).unwrap();
        let lists = lists.to_array(rows).unwrap();
        let texts = |list: ArrayRef| {
            list.as_string_view().iter().map(|text| text.unwrap().to_owned()).collect()
        };
        lists.as_list::<i32>().iter().map(|list| list.map(texts)).collect()
    }

    #[test]
    fn nested_values_are_checked_as_the_json_that_they_are() {
        let fields = vec![
            Field::new("id", DataType::Int64, true),
            Field::new("price", DataType::Float64, true),
        ];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(4)])),
            Arc::new(Float64Array::from(vec![Some(2.5), Some(-1.0), Some(1.0), None])),
        ];
        let valid = NullBuffer::from(vec![true, true, true, false]);
        let orders: ArrayRef = Arc::new(StructArray::new(fields.into(), columns, Some(valid)));
        let schema = r#"{"required": ["id"], "properties": {"price": {"minimum": 0}}}"#;
        let below = "$.price: -1.0 is less than the minimum 0".to_owned();
        let expected = [Some(vec![]), Some(vec![below]), Some(vec!["$: misses id".into()]), None];
        assert_eq!(broken(Arc::clone(&orders), schema), expected);
        assert_eq!(broken(orders.slice(1, 2), schema), expected[1..3]);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(1), Some(-2)]),
            None,
            Some(vec![]),
        ]);
        let found = broken(Arc::new(lists), r#"{"items": {"minimum": 0}}"#);
        let below = "$[1]: -2 is less than the minimum 0".to_owned();
        assert_eq!(found, [Some(vec![below]), None, Some(vec![])]);
    }

    #[test]
    fn what_is_neither_text_nor_nested_is_an_error() {
        let error = error_of("json_schema_violations", &[3_i64.into(), text("true")]);
        assert!(error.contains("expects text, got Int64"), "{error}");
    }

    #[test]
    fn a_sound_value_has_an_empty_list() {
        let list = one("json_schema_violations", &[text("3"), text("{\"minimum\": 1}")]);
        assert_eq!(list.as_list::<i32>().value(0).len(), 0);
        let list = one("json_schema_violations", &[text("{"), text("true")]);
        assert_eq!(list.as_list::<i32>().value(0).len(), 1);
        let none = [ScalarValue::Utf8(None), text("true")];
        assert!(one("json_schema_violations", &none).is_null(0));
    }

    #[test]
    fn a_schema_that_is_none_is_an_error() {
        let error = error_of("json_schema_violations", &[text("1"), text("{")]);
        assert!(error.contains("the schema is no JSON"), "{error}");
        let schema = text("{\"unevaluatedItems\": true}");
        let error = error_of("json_schema_violations", &[text("1"), schema]);
        assert!(error.contains("keyword unevaluatedItems is not supported"), "{error}");
        for number in ["123456789012345678901234567890", "-9223372036854775809"] {
            let schema = format!(r#"{{"title": "12 \\", "enum": [1, {number}]}}"#);
            let error = error_of("json_schema_violations", &[text("1"), text(&schema)]);
            assert!(error.contains(&format!("number {number} is beyond 64 bits")), "{error}");
        }
        for schema in [
            r#"{"const": "123456789012345678901234567890 \\\""}"#,
            r#"{"maximum": 18446744073709551615, "minimum": -9223372036854775808}"#,
            r#"{"maximum": 1e300}"#,
        ] {
            assert_eq!(beyond_64_bits(schema), None, "{schema}");
        }
        // Whatever value it would be held against.
        for schema in [
            r#"{"pattern": "("}"#,
            r#"{"properties": {"a": {"items": {"pattern": "("}}}}"#,
            r#"{"patternProperties": {"(": true}}"#,
        ] {
            let error = error_of("json_schema_violations", &[text("1"), text(schema)]);
            let said = r#"pattern "(" did not compile: unclosed group. Hint: "#;
            assert!(error.contains(said), "{error}");
        }
        for schema in [r#"{"enum": [{"pattern": "("}]}"#, r#"{"properties": {"pattern": true}}"#] {
            one("json_schema_violations", &[text("1"), text(schema)]);
        }
    }

    #[test]
    fn a_long_list_ends_with_its_statement() {
        let numbers: Vec<String> = (0..300_000).map(|number| number.to_string()).collect();
        let list = text(&format!("[{}]", numbers.join(",")));
        let arguments = [list, text("{\"uniqueItems\": true}")].map(ColumnarValue::Scalar);
        for looks in [0, 1, 3] {
            let stop = Stop::when_looked_at(looks);
            let error = call_until(&stop, "json_schema_violations", &arguments, 1).unwrap_err();
            assert!(error.to_string().contains("nobody waits for the result"), "{error}");
        }
    }
}
