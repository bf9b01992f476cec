//! JSON Schema (draft 2020-12), the part of it that describes data: what a value breaks.
//!
//! Known: `type`, `enum`, `const`; `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`,
//! `multipleOf`; `minLength`, `maxLength` (in characters), `pattern`; `items`, `prefixItems`,
//! `minItems`, `maxItems`, `uniqueItems`; `properties`, `required`, `additionalProperties`,
//! `minProperties`, `maxProperties`; `allOf`, `anyOf`, `oneOf`, `not`; `$ref` to a place in the
//! same schema (`#/$defs/…`). Annotations (`title`, `description`, `default`, `format`, …) assert
//! nothing, as in the standard. Any other keyword is an error: a part of a schema that is silently
//! not checked would pass for checked.

use std::cmp::Ordering;

use arrow::array::StringArray;
use arrow::compute::regexp_is_match_scalar;
use datafusion_common::{Result, exec_err};
use serde_json::{Map, Number, Value};

/// Violations told of one value.
const VIOLATIONS_MAX: usize = 100;
/// How deep schemas may refer to schemas.
const DEPTH_MAX: usize = 64;
/// Characters of a value that a violation shows.
const SHOWN_MAX: usize = 40;

const ANNOTATIONS: [&str; 14] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "$anchor",
];
const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "integer", "string"];

/// What of a schema a value breaks: a place and a sentence each.
///
/// # Errors
/// When the schema is none, or asks for something that is not known here.
pub(super) fn violations(schema: &Value, value: &Value) -> Result<Vec<String>> {
    let mut check = Check { root: schema, found: Vec::new() };
    check.value(schema, value, "$", 0)?;
    check.found.truncate(VIOLATIONS_MAX);
    Ok(check.found)
}

struct Check<'a> {
    root: &'a Value,
    found: Vec<String>,
}

impl<'a> Check<'a> {
    fn tell(&mut self, at: &str, what: impl std::fmt::Display) {
        if self.found.len() < VIOLATIONS_MAX {
            self.found.push(format!("{at}: {what}"));
        }
    }

    /// Whether a value meets a schema, telling nothing.
    fn meets(&self, schema: &'a Value, value: &Value, at: &str, depth: usize) -> Result<bool> {
        let mut apart = Check { root: self.root, found: Vec::new() };
        apart.value(schema, value, at, depth)?;
        Ok(apart.found.is_empty())
    }

    fn value(&mut self, schema: &'a Value, value: &Value, at: &str, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return exec_err!(
                "the JSON schema nests or refers to itself more than {DEPTH_MAX} times"
            );
        }
        let schema = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Bool(false) => {
                self.tell(at, "no value is allowed here");
                return Ok(());
            }
            Value::Object(schema) => schema,
            other => {
                return exec_err!(
                    "a JSON schema is an object or a truth value, not {}",
                    kind(other)
                );
            }
        };
        for (keyword, wanted) in schema {
            self.keyword(keyword, wanted, schema, value, at, depth)?;
        }
        Ok(())
    }

    fn keyword(
        &mut self,
        keyword: &str,
        wanted: &'a Value,
        schema: &'a Map<String, Value>,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<()> {
        match keyword {
            "type" => self.of_type(wanted, value, at),
            "enum" | "const" => self.one_of(keyword, wanted, value, at),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => {
                self.number(keyword, wanted, value, at)
            }
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" => self.length(keyword, wanted, value, at),
            "pattern" => self.pattern(wanted, value, at),
            "uniqueItems" => {
                if let (Value::Bool(true), Value::Array(items)) = (wanted, value) {
                    let twice = (1..items.len()).find(|n| items[..*n].contains(&items[*n]));
                    if let Some(twice) = twice {
                        self.tell(&format!("{at}[{twice}]"), "repeats another item");
                    }
                }
                Ok(())
            }
            "items" | "prefixItems" => self.items(keyword, wanted, schema, value, at, depth),
            "required" => self.required(wanted, value, at),
            "properties" | "additionalProperties" => {
                self.properties(keyword, wanted, schema, value, at, depth)
            }
            "allOf" | "anyOf" | "oneOf" | "not" => self.several(keyword, wanted, value, at, depth),
            "$ref" => {
                let target = self.target(wanted)?;
                self.value(target, value, at, depth + 1)
            }
            annotation if ANNOTATIONS.contains(&annotation) => Ok(()),
            other => exec_err!(
                "the JSON schema's keyword {other} is not supported. Hint: docs/functions.md lists \
                 those that are"
            ),
        }
    }

    fn of_type(&mut self, wanted: &Value, value: &Value, at: &str) -> Result<()> {
        let names: Vec<&str> = match wanted {
            Value::String(name) => vec![name],
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ => vec![],
        };
        if names.is_empty() || names.iter().any(|name| !TYPES.contains(name)) {
            return exec_err!("the JSON schema's type {wanted} is none of {}", TYPES.join(", "));
        }
        let found = kind(value);
        let whole = found == "number" && is_whole(value);
        let fits = |name: &&str| *name == found || (*name == "integer" && whole);
        if !names.iter().any(fits) {
            self.tell(at, format!("{} is no {}", shown(value), names.join(" or ")));
        }
        Ok(())
    }

    fn one_of(&mut self, keyword: &str, wanted: &Value, value: &Value, at: &str) -> Result<()> {
        let allowed = match (keyword, wanted) {
            ("const", one) => std::slice::from_ref(one),
            (_, Value::Array(allowed)) => allowed,
            _ => return exec_err!("the JSON schema's enum is no list"),
        };
        if !allowed.iter().any(|allowed| equal(allowed, value)) {
            let words = allowed.iter().map(shown).collect::<Vec<_>>().join(", ");
            self.tell(at, format!("{} is none of {words}", shown(value)));
        }
        Ok(())
    }

    fn number(&mut self, keyword: &str, wanted: &Value, value: &Value, at: &str) -> Result<()> {
        let Value::Number(bound) = wanted else {
            return exec_err!("the JSON schema's {keyword} is no number");
        };
        if keyword == "multipleOf" && bound.as_f64().is_none_or(|bound| bound <= 0.0) {
            return exec_err!("the JSON schema's multipleOf is not above 0");
        }
        let Value::Number(number) = value else { return Ok(()) };
        let order = order(number, bound);
        let (holds, word) = match keyword {
            "minimum" => (order.is_some_and(Ordering::is_ge), "less than the minimum"),
            "maximum" => (order.is_some_and(Ordering::is_le), "more than the maximum"),
            "exclusiveMinimum" => (order.is_some_and(Ordering::is_gt), "not above"),
            "exclusiveMaximum" => (order.is_some_and(Ordering::is_lt), "not below"),
            _ => (is_multiple(number, bound), "no multiple of"),
        };
        if !holds {
            self.tell(at, format!("{} is {word} {wanted}", shown(value)));
        }
        Ok(())
    }

    fn length(&mut self, keyword: &str, wanted: &Value, value: &Value, at: &str) -> Result<()> {
        let Some(bound) = wanted.as_u64() else {
            return exec_err!("the JSON schema's {keyword} is no number of things");
        };
        let (length, things) = match (value, &keyword[3..]) {
            (Value::String(text), "Length") => (text.chars().count(), "characters"),
            (Value::Array(items), "Items") => (items.len(), "items"),
            (Value::Object(members), "Properties") => (members.len(), "properties"),
            _ => return Ok(()),
        };
        let length = length as u64;
        if keyword.starts_with("min") && length < bound {
            self.tell(at, format!("has {length} {things}, the least is {bound}"));
        }
        if keyword.starts_with("max") && length > bound {
            self.tell(at, format!("has {length} {things}, the most is {bound}"));
        }
        Ok(())
    }

    fn pattern(&mut self, wanted: &Value, value: &Value, at: &str) -> Result<()> {
        let Value::String(pattern) = wanted else {
            return exec_err!("the JSON schema's pattern is no text");
        };
        let Value::String(text) = value else { return Ok(()) };
        let text = StringArray::from(vec![text.as_str()]);
        match regexp_is_match_scalar(&text, pattern, None) {
            Ok(found) if found.value(0) => {}
            Ok(_) => self.tell(at, format!("{} does not match {pattern}", shown(value))),
            Err(error) => return exec_err!("the JSON schema's pattern is none: {error}"),
        }
        Ok(())
    }

    fn items(
        &mut self,
        keyword: &str,
        wanted: &'a Value,
        schema: &'a Map<String, Value>,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<()> {
        let Value::Array(items) = value else { return Ok(()) };
        if keyword == "prefixItems" {
            let Value::Array(schemas) = wanted else {
                return exec_err!("the JSON schema's prefixItems is no list");
            };
            for (n, (schema, item)) in schemas.iter().zip(items).enumerate() {
                self.value(schema, item, &format!("{at}[{n}]"), depth + 1)?;
            }
            return Ok(());
        }
        let first = schema.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
        for (n, item) in items.iter().enumerate().skip(first) {
            self.value(wanted, item, &format!("{at}[{n}]"), depth + 1)?;
        }
        Ok(())
    }

    fn required(&mut self, wanted: &Value, value: &Value, at: &str) -> Result<()> {
        let Value::Array(names) = wanted else {
            return exec_err!("the JSON schema's required is no list");
        };
        let Value::Object(members) = value else { return Ok(()) };
        for name in names.iter().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                self.tell(at, format!("misses {name}"));
            }
        }
        Ok(())
    }

    fn properties(
        &mut self,
        keyword: &str,
        wanted: &'a Value,
        schema: &'a Map<String, Value>,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<()> {
        let Value::Object(members) = value else { return Ok(()) };
        let named = match keyword {
            "properties" => wanted.as_object(),
            _ => schema.get("properties").and_then(Value::as_object),
        };
        if keyword == "properties" && named.is_none() {
            return exec_err!("the JSON schema's properties are no object");
        }
        for (name, member) in members {
            let place = format!("{at}.{name}");
            match (keyword, named.and_then(|named| named.get(name))) {
                ("properties", Some(schema)) => self.value(schema, member, &place, depth + 1)?,
                ("additionalProperties", None) => match wanted {
                    Value::Bool(false) => self.tell(&place, "is not expected"),
                    schema => self.value(schema, member, &place, depth + 1)?,
                },
                _ => {}
            }
        }
        Ok(())
    }

    fn several(
        &mut self,
        keyword: &str,
        wanted: &'a Value,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<()> {
        if keyword == "not" {
            if self.meets(wanted, value, at, depth + 1)? {
                self.tell(at, format!("{} is what must not be", shown(value)));
            }
            return Ok(());
        }
        let Value::Array(schemas) = wanted else {
            return exec_err!("the JSON schema's {keyword} is no list");
        };
        if keyword == "allOf" {
            return schemas.iter().try_for_each(|schema| self.value(schema, value, at, depth + 1));
        }
        let mut met = 0;
        for schema in schemas {
            met += usize::from(self.meets(schema, value, at, depth + 1)?);
        }
        if met == 0 {
            self.tell(at, format!("{} meets none of {} schemas", shown(value), schemas.len()));
        } else if keyword == "oneOf" && met > 1 {
            self.tell(at, format!("{} meets {met} schemas where one is wanted", shown(value)));
        }
        Ok(())
    }

    fn target(&self, wanted: &Value) -> Result<&'a Value> {
        let place = wanted.as_str().and_then(|reference| reference.strip_prefix('#'));
        match place.and_then(|place| self.root.pointer(place)) {
            Some(target) => Ok(target),
            None => exec_err!(
                "the JSON schema's $ref {wanted} is no place in it. Hint: write '#/$defs/name'; other \
                 documents are not read"
            ),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// How two numbers compare; whole ones exactly, however large, and beside a float as well.
fn order(one: &Number, other: &Number) -> Option<Ordering> {
    if let (Some(one), Some(other)) = (one.as_i128(), other.as_i128()) {
        return Some(one.cmp(&other));
    }
    let order = one.as_f64()?.partial_cmp(&other.as_f64()?)?;
    // As a float a whole number may have been rounded to the other one, which then is whole too.
    let whole =
        |number: &Number| number.as_i128().or_else(|| number.as_f64().map(|number| number as i128));
    match order {
        Ordering::Equal if one.as_i128().is_some() || other.as_i128().is_some() => {
            Some(whole(one)?.cmp(&whole(other)?))
        }
        order => Some(order),
    }
}

fn is_multiple(number: &Number, of: &Number) -> bool {
    if let (Some(number), Some(of)) = (number.as_i128(), of.as_i128()) {
        return number.checked_rem(of) == Some(0);
    }
    let (Some(number), Some(of)) = (number.as_f64(), of.as_f64()) else { return false };
    let times = number / of;
    (times - times.round()).abs() <= 1e-9 * times.abs().max(1.0)
}

/// Equality of JSON Schema: 1 and 1.0 are one number.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            order(one, other).is_some_and(Ordering::is_eq)
        }
        _ => one == other,
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: &Value, value: &Value) -> Vec<String> {
        violations(schema, value).unwrap()
    }

    #[test]
    fn each_keyword_is_checked() {
        for (schema, sound, broken) in [
            (json!({"type": "integer"}), json!(3.0), json!(3.5)),
            (json!({"type": ["string", "null"]}), json!(null), json!(1)),
            (json!({"enum": ["a", 1]}), json!(1.0), json!("b")),
            (json!({"const": {"a": 1}}), json!({"a": 1}), json!({"a": 2})),
            (json!({"minimum": 0, "maximum": 9}), json!(9), json!(-1)),
            (json!({"exclusiveMinimum": 0}), json!(0.1), json!(0)),
            (json!({"exclusiveMaximum": 1}), json!("not a number"), json!(1)),
            (json!({"multipleOf": 0.1}), json!(0.3), json!(0.35)),
            (json!({"maximum": u64::MAX - 1}), json!(u64::MAX - 1), json!(u64::MAX)),
            (json!({"minimum": i64::MIN + 1}), json!(-5.5), json!(i64::MIN)),
            (json!({"const": i64::MAX - 1}), json!(i64::MAX - 1), json!(i64::MAX)),
            (
                json!({"exclusiveMaximum": 9007199254740993_i64}),
                json!(9007199254740992.0),
                json!(9007199254740994.0),
            ),
            (json!({"multipleOf": 2}), json!(9007199254740994_i64), json!(9007199254740993_i64)),
            (json!({"minLength": 2}), json!("éé"), json!("é")),
            (json!({"maxLength": 2}), json!("éé"), json!("ééé")),
            (json!({"pattern": "^[a-z]+$"}), json!("abc"), json!("ab1")),
            (json!({"items": {"type": "number"}}), json!([1, 2]), json!([1, "2"])),
            (json!({"prefixItems": [true], "items": false}), json!([1]), json!([1, 2])),
            (json!({"minItems": 1, "uniqueItems": true}), json!([1, 2]), json!([1, 1])),
            (json!({"required": ["a"]}), json!({"a": null}), json!({})),
            (json!({"properties": {"a": false}}), json!({"b": 1}), json!({"a": 1})),
            (
                json!({"properties": {"a": true}, "additionalProperties": false}),
                json!({"a": 1}),
                json!({"a": 1, "b": 2}),
            ),
            (json!({"maxProperties": 1}), json!({"a": 1}), json!({"a": 1, "b": 2})),
            (json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), json!(2), json!(3)),
            (json!({"anyOf": [{"type": "null"}, {"minimum": 1}]}), json!(null), json!(0)),
            (json!({"oneOf": [{"minimum": 1}, {"minimum": 5}]}), json!(3), json!(6)),
            (json!({"not": {"type": "null"}}), json!(1), json!(null)),
            (json!({"$ref": "#/$defs/n", "$defs": {"n": {"minimum": 1}}}), json!(1), json!(0)),
        ] {
            assert_eq!(of(&schema, &sound), Vec::<String>::new(), "{schema} {sound}");
            assert!(!of(&schema, &broken).is_empty(), "{schema} {broken}");
        }
    }

    #[test]
    fn a_violation_says_where_and_what() {
        let schema = json!({
            "type": "object",
            "required": ["id"],
            "properties": {"items": {"items": {"properties": {"price": {"minimum": 0}}}}},
        });
        let value = json!({"items": [{"price": 1}, {"price": -2}]});
        let mut found = of(&schema, &value);
        found.sort();
        assert_eq!(found, ["$.items[1].price: -2 is less than the minimum 0", "$: misses id"]);
    }

    #[test]
    fn what_is_not_checked_is_an_error() {
        for schema in [
            json!({"if": true}),
            json!({"patternProperties": {}}),
            json!({"type": "text"}),
            json!({"$ref": "https://example.org/schema"}),
            json!({"pattern": "("}),
            json!(3),
        ] {
            assert!(violations(&schema, &json!("a")).is_err(), "{schema}");
        }
        let endless = json!({"$ref": "#"});
        assert!(violations(&endless, &json!(1)).is_err());
        let tree = json!({"properties": {"next": {"$ref": "#"}}, "required": ["v"]});
        assert_eq!(of(&tree, &json!({"v": 1, "next": {"v": 1, "next": {}}})).len(), 1);
    }
}
