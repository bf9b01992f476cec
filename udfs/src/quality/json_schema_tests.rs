//! What JSON schemas find, keyword by keyword, and that their work ends.

use datafusion_common::Result;
use serde_json::{Value, json};

use super::json_schema::Schema;
use crate::fuzzy::stop::Stop;

fn violations(schema: &Value, value: &Value) -> Result<Vec<String>> {
    Schema::new(schema.clone()).violations(value, &mut Stop::never().pace())
}

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
        (json!({"multipleOf": 1}), json!(1000000000.0), json!(1000000000.5)),
        (json!({"multipleOf": 3}), json!(3e20), json!(1e20)),
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
        (json!({"maxLength": 2.0}), json!("éé"), json!("ééé")),
        (json!({"pattern": "^[a-z]+$"}), json!("abc"), json!("ab1")),
        (json!({"items": {"type": "number"}}), json!([1, 2]), json!([1, "2"])),
        (json!({"prefixItems": [true], "items": false}), json!([1]), json!([1, 2])),
        (json!({"minItems": 1, "uniqueItems": true}), json!([1, 2]), json!([1, 1.0])),
        (json!({"contains": {"minimum": 5}}), json!([1, 5]), json!([1, 2])),
        (json!({"contains": {"minimum": 5}}), json!("no list"), json!([])),
        (
            json!({"contains": {"type": "null"}, "minContains": 0, "maxContains": 1}),
            json!([1]),
            json!([null, null]),
        ),
        (json!({"required": ["a"]}), json!({"a": null}), json!({})),
        (json!({"properties": {"a": false}}), json!({"b": 1}), json!({"a": 1})),
        (
            json!({"properties": {"a": true}, "additionalProperties": false}),
            json!({"a": 1}),
            json!({"a": 1, "b": 2}),
        ),
        (
            json!({"patternProperties": {"^x-": {"type": "string"}}}),
            json!({"x-a": "b", "y": 1}),
            json!({"x-a": 1}),
        ),
        (
            json!({"patternProperties": {"^x-": true}, "additionalProperties": false}),
            json!({"x-a": "b"}),
            json!({"y": 1}),
        ),
        (json!({"propertyNames": {"maxLength": 2}}), json!({"ab": 1}), json!({"abc": 1})),
        (json!({"maxProperties": 1}), json!({"a": 1}), json!({"a": 1, "b": 2})),
        (json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), json!(2), json!(3)),
        (json!({"anyOf": [{"type": "null"}, {"minimum": 1}]}), json!(null), json!(0)),
        (json!({"oneOf": [{"minimum": 1}, {"minimum": 5}]}), json!(3), json!(6)),
        (json!({"not": {"type": "null"}}), json!(1), json!(null)),
        (
            json!({"if": {"type": "string"}, "then": {"minLength": 1}, "else": {"minimum": 0}}),
            json!("a"),
            json!(""),
        ),
        (json!({"if": {"type": "string"}, "else": {"minimum": 0}}), json!(""), json!(-1)),
        (json!({"$ref": "#/$defs/n", "$defs": {"n": {"minimum": 1}}}), json!(1), json!(0)),
        (json!({"$ref": "#/$defs/a%25b", "$defs": {"a%b": {"minimum": 1}}}), json!(1), json!(0)),
        (json!({"$ref": "#/$defs/%C3%a9~1", "$defs": {"é/": {"minimum": 1}}}), json!(1), json!(0)),
        (json!({"$ref": "#/$defs/9%", "$defs": {"9%": {"minimum": 1}}}), json!(1), json!(0)),
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
        json!({"unevaluatedItems": true}),
        json!({"dependentRequired": {}}),
        json!({"patternProperties": []}),
        json!({"minContains": "a"}),
        json!({"type": "text"}),
        json!({"$ref": "https://example.org/schema"}),
        json!({"$ref": "#/$defs/%ff", "$defs": {"%ff": true}}),
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

#[test]
fn a_long_list_is_checked_about_as_fast_as_it_is_read() {
    let numbers: Vec<Value> = (0..200_000).map(Value::from).collect();
    let mut numbers = Value::from(numbers);
    let schema = json!({"uniqueItems": true});
    assert!(of(&schema, &numbers).is_empty());
    if let Some(items) = numbers.as_array_mut() {
        items.push(json!(7.0));
    }
    assert_eq!(of(&schema, &numbers), ["$[200000]: repeats another item"]);
}

#[test]
fn branches_of_branches_end_when_nobody_waits() {
    // Each level asks for the next one twice.
    let schema = json!({"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}], "not": {}});
    let deep = (0..18).fold(json!([]), |inner, _| json!([inner]));
    let stop = Stop::when_looked_at(3);
    let error = Schema::new(schema).violations(&deep, &mut stop.pace()).unwrap_err();
    assert!(error.to_string().contains("nobody waits for the result"), "{error}");
}
