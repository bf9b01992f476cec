//! `json_schema_violations(json, schema)`: what of a JSON Schema a text breaks.
//!
//! A list of sentences, each with its place (`$.items[0].price: -1 is less than the minimum 0`),
//! empty when the value is sound, 100 at most. A text that is no JSON breaks any schema. NULL in,
//! NULL out. A schema that is none, or that holds a keyword which is not known here, is an error;
//! `json_schema.rs` and the description list those that are. `pattern` is compiled for each value.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringViewBuilder};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;
use serde_json::Value;

use super::json_schema::violations;
use crate::fuzzy::arguments::{columnar, list_of_text, pair, per_distinct, scalar_function, texts};
use crate::text::Text;

#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "What of a JSON Schema (draft 2020-12) a JSON text breaks, as sentences with their place; an empty list when it is sound. Known keywords: type, enum, const, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, minLength, maxLength, pattern, items, prefixItems, minItems, maxItems, uniqueItems, properties, required, additionalProperties, minProperties, maxProperties, allOf, anyOf, oneOf, not, $ref within the schema. Annotations, format among them, assert nothing; any other keyword is an error.",
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
    argument(name = "json", description = "A JSON text."),
    argument(name = "schema", description = "A JSON Schema, as text.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct JsonSchemaViolationsFunction {
    signature: Signature,
}

scalar_function!(
    JsonSchemaViolationsFunction,
    "json_schema_violations",
    texts(2),
    list_of_text(),
    json_schema_violations
);

fn json_schema_violations(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
) -> Result<ColumnarValue> {
    let (json, schema) = pair(name, arguments)?;
    columnar(arguments, rows, |rows| {
        per_distinct(&json, &schema, rows, |json, schema, rows| broken(name, json, schema, rows))
    })
}

fn broken(name: &str, json: &Text, schema: &Text, rows: usize) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    let mut known: Option<(&str, Value)> = None;
    for row in 0..rows {
        let (Some(json), Some(text)) = (json.get(row), schema.get(row)) else {
            lists.append(false);
            continue;
        };
        if known.as_ref().is_none_or(|(last, _)| *last != text) {
            known = Some((text, read(name, text)?));
        }
        let Some((_, schema)) = &known else { return exec_err!("{name} misses its schema") };
        match serde_json::from_str::<Value>(json) {
            Ok(value) => {
                let found = violations(schema, &value)?;
                found.iter().for_each(|sentence| lists.values().append_value(sentence));
            }
            Err(error) => lists.values().append_value(format!("$: this is no JSON: {error}")),
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

fn read(name: &str, schema: &str) -> Result<Value> {
    match serde_json::from_str(schema) {
        Ok(schema) => Ok(schema),
        Err(error) => exec_err!("{name}: the schema is no JSON: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::{error_of, one, text};
    use arrow::array::{Array, AsArray};
    use datafusion_common::ScalarValue;

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
        let error = error_of("json_schema_violations", &[text("1"), text("{\"if\": true}")]);
        assert!(error.contains("keyword if is not supported"), "{error}");
    }
}
