//! JSON Schema (draft 2020-12), the part of it that describes data: what a value breaks.
//!
//! Known: `type`, `enum`, `const`; `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`,
//! `multipleOf`; `minLength`, `maxLength` (in characters), `pattern`; `items`, `prefixItems`,
//! `minItems`, `maxItems`, `uniqueItems`, `contains`, `minContains`, `maxContains`; `properties`,
//! `required`, `additionalProperties`, `patternProperties`, `propertyNames`, `minProperties`,
//! `maxProperties`; `allOf`, `anyOf`, `oneOf`, `not`, `if`, `then`, `else`; `$ref` to a place in
//! the same schema (`#/$defs/…`). Numbers are multiples by their decimals, exactly. Annotations
//! (`title`, `description`, `default`, `format`, …) assert nothing, as in the standard. Any other
//! keyword is an error: a part of a schema that is silently not checked would pass for checked.
//! Whole numbers beyond 64 bits are compared as floats of 64 bits, of which about 17 digits count;
//! a schema that holds one is an error.
//!
//! A schema may ask for as much work as it likes, of branches of branches of a long list: each look
//! at a value is counted, so that the work ends with its statement.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;

use datafusion_common::{Result, exec_err};
use regex::Regex;
use serde_json::{Map, Value};

use super::json_values::{equal, is_multiple, is_whole, kind, order, repeated, shown};
use crate::fuzzy::stop::Pace;

/// Violations told of one value.
const VIOLATIONS_MAX: usize = 100;
/// How deep schemas may refer to schemas: for each of the 127 levels that JSON may have, a schema
/// that refers to itself does so once, and has items or properties.
const DEPTH_MAX: usize = 300;
/// What a look at a value takes, in steps of about a nanosecond.
const LOOK_STEPS: usize = 256;

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

/// A schema, with the patterns that have been compiled of it.
#[derive(Debug)]
pub(super) struct Schema {
    root: Value,
    patterns: RefCell<HashMap<String, Regex>>,
}

impl Schema {
    /// Nothing is asked of it before a value is.
    pub(super) fn new(root: Value) -> Self {
        Self { root, patterns: RefCell::default() }
    }

    /// What of it a value breaks: a place and a sentence each.
    ///
    /// # Errors
    /// When the schema is none, or asks for something that is not known here; when nobody wants the
    /// result any more.
    pub(super) fn violations(&self, value: &Value, pace: &mut Pace<'_>) -> Result<Vec<String>> {
        let mut check = Check { schema: self, found: Vec::new(), pace };
        check.value(&self.root, value, "$", 0)?;
        Ok(check.found)
    }

    /// Whether a text matches a pattern, which is compiled once.
    fn matches(&self, pattern: &str, text: &str) -> Result<bool> {
        let mut known = self.patterns.borrow_mut();
        if let Some(regex) = known.get(pattern) {
            return Ok(regex.is_match(text));
        }
        let regex = compiled(pattern)?;
        let found = regex.is_match(text);
        known.insert(pattern.to_owned(), regex);
        Ok(found)
    }

    /// Refuses patterns that are none, wherever they stand: a value may never come to them.
    ///
    /// # Errors
    /// When a pattern does not compile.
    pub(super) fn check_patterns(&self) -> Result<()> {
        self.check_in(&self.root)
    }

    fn check_in(&self, schema: &Value) -> Result<()> {
        let members = match schema {
            Value::Array(schemas) => {
                return schemas.iter().try_for_each(|schema| self.check_in(schema));
            }
            Value::Object(members) => members,
            _ => return Ok(()),
        };
        for (keyword, wanted) in members {
            match (keyword.as_str(), wanted) {
                // Values, not schemas.
                ("const" | "enum" | "default" | "examples", _) => {}
                ("pattern", Value::String(pattern)) => {
                    self.matches(pattern, "")?;
                }
                ("properties" | "patternProperties" | "$defs" | "definitions", named) => {
                    for (name, schema) in named.as_object().into_iter().flatten() {
                        if keyword == "patternProperties" {
                            self.matches(name, "")?;
                        }
                        self.check_in(schema)?;
                    }
                }
                (_, schema) => self.check_in(schema)?,
            }
        }
        Ok(())
    }
}

/// A pattern, or why it is none, on one line.
fn compiled(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).or_else(|error| {
        let text = error.to_string();
        let why = text.lines().find_map(|line| line.trim().strip_prefix("error: "));
        let why = why.unwrap_or("it is too large");
        let pattern = shown(&Value::from(pattern));
        exec_err!(
            "the JSON schema's pattern {pattern} did not compile: {why}. Hint: a sign that is meant \
             itself has a backslash before it, written twice in JSON"
        )
    })
}

struct Check<'a, 'p, 's> {
    schema: &'a Schema,
    found: Vec<String>,
    pace: &'p mut Pace<'s>,
}

impl<'a, 's> Check<'a, '_, 's> {
    fn tell(&mut self, at: &str, what: impl std::fmt::Display) {
        if self.found.len() < VIOLATIONS_MAX {
            self.found.push(format!("{at}: {what}"));
        }
    }

    /// Whether a value meets a schema, telling nothing.
    fn meets(&mut self, schema: &'a Value, value: &Value, at: &str, depth: usize) -> Result<bool> {
        let mut apart: Check<'a, '_, 's> =
            Check { schema: self.schema, found: Vec::new(), pace: &mut *self.pace };
        apart.value(schema, value, at, depth)?;
        Ok(apart.found.is_empty())
    }

    fn value(&mut self, schema: &'a Value, value: &Value, at: &str, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return exec_err!(
                "the JSON schema nests or refers to itself more than {DEPTH_MAX} times"
            );
        }
        self.pace.spend(LOOK_STEPS)?;
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
            self.pace.spend(LOOK_STEPS)?;
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
                if let (Value::Bool(true), Value::Array(items)) = (wanted, value)
                    && let Some(twice) = repeated(items, self.pace)?
                {
                    self.tell(&format!("{at}[{twice}]"), "repeats another item");
                }
                Ok(())
            }
            "contains" => self.contains(wanted, schema, value, at, depth),
            "minContains" | "maxContains" => bound(keyword, wanted).map(|_| ()),
            "items" | "prefixItems" => self.items(keyword, wanted, schema, value, at, depth),
            "required" => self.required(wanted, value, at),
            "properties" | "additionalProperties" => {
                self.properties(keyword, wanted, schema, value, at, depth)
            }
            "patternProperties" | "propertyNames" => self.names(keyword, wanted, value, at, depth),
            "allOf" | "anyOf" | "oneOf" | "not" => self.several(keyword, wanted, value, at, depth),
            "if" => {
                let branch =
                    if self.meets(wanted, value, at, depth + 1)? { "then" } else { "else" };
                let branch = schema.get(branch);
                branch.map_or(Ok(()), |schema| self.value(schema, value, at, depth + 1))
            }
            // Without `if` they say nothing.
            "then" | "else" => Ok(()),
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
        self.pace.spend(LOOK_STEPS * allowed.len())?;
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
        let bound = bound(keyword, wanted)?;
        let (length, things) = match (value, &keyword[3..]) {
            (Value::String(text), "Length") => {
                self.pace.spend(text.len())?;
                (text.chars().count(), "characters")
            }
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
        self.pace.spend(text.len())?;
        if !self.schema.matches(pattern, text)? {
            self.tell(at, format!("{} does not match {pattern}", shown(value)));
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

    /// Of a list so many items at least meet a schema, by default one.
    fn contains(
        &mut self,
        wanted: &'a Value,
        schema: &'a Map<String, Value>,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<()> {
        let Value::Array(items) = value else { return Ok(()) };
        let mut met = 0_u64;
        for item in items {
            met += u64::from(self.meets(wanted, item, at, depth + 1)?);
        }
        let number =
            |keyword: &str| schema.get(keyword).map(|wanted| bound(keyword, wanted)).transpose();
        let least = number("minContains")?.unwrap_or(1);
        if met < least {
            self.tell(at, format!("has {met} items that it is to contain, the least is {least}"));
        }
        if let Some(most) = number("maxContains")?
            && met > most
        {
            self.tell(at, format!("has {met} items that it is to contain, the most is {most}"));
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
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        for (name, member) in members {
            let place = format!("{at}.{name}");
            match (keyword, named.and_then(|named| named.get(name))) {
                ("properties", Some(schema)) => self.value(schema, member, &place, depth + 1)?,
                ("additionalProperties", None) if !self.is_of(patterns, name)? => match wanted {
                    Value::Bool(false) => self.tell(&place, "is not expected"),
                    schema => self.value(schema, member, &place, depth + 1)?,
                },
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a name matches one of the patterns.
    fn is_of(&mut self, patterns: Option<&Map<String, Value>>, name: &str) -> Result<bool> {
        for pattern in patterns.into_iter().flat_map(Map::keys) {
            self.pace.spend(LOOK_STEPS + name.len())?;
            if self.schema.matches(pattern, name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Members whose names match patterns, and the names themselves.
    fn names(
        &mut self,
        keyword: &str,
        wanted: &'a Value,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<()> {
        if keyword == "propertyNames" {
            let Value::Object(members) = value else { return Ok(()) };
            for name in members.keys() {
                let text = Value::from(name.as_str());
                self.value(wanted, &text, &format!("{at}.{name}, the name"), depth + 1)?;
            }
            return Ok(());
        }
        let Value::Object(patterns) = wanted else {
            return exec_err!("the JSON schema's patternProperties are no object");
        };
        let Value::Object(members) = value else { return Ok(()) };
        for (pattern, schema) in patterns {
            for (name, member) in members {
                self.pace.spend(LOOK_STEPS + name.len())?;
                if self.schema.matches(pattern, name)? {
                    self.value(schema, member, &format!("{at}.{name}"), depth + 1)?;
                }
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
        let fragment = wanted.as_str().and_then(|reference| reference.strip_prefix('#'));
        let place = fragment.and_then(decoded);
        match place.and_then(|place| self.schema.root.pointer(&place)) {
            Some(target) => Ok(target),
            None => exec_err!(
                "the JSON schema's $ref {wanted} is no place in it. Hint: write '#/$defs/name'; other \
                 documents are not read"
            ),
        }
    }
}

/// A fragment with each `%` and two hexadecimal digits as the byte that they stand for (RFC 6901,
/// section 6).
fn decoded(fragment: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(fragment.len()), fragment.as_bytes());
    while let [first, after @ ..] = rest {
        let coded = match (first, after) {
            (b'%', [high, low, after @ ..]) => of_digits(*high, *low).map(|byte| (byte, after)),
            _ => None,
        };
        let (byte, after) = coded.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// The byte of two hexadecimal digits.
fn of_digits(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(16 * digit(high)? + digit(low)?).ok()
}

/// How many things a keyword asks for: 2.0 is a whole number as well.
fn bound(keyword: &str, wanted: &Value) -> Result<u64> {
    let whole = || {
        let bound = wanted.as_f64().filter(|bound| *bound >= 0.0 && bound.fract() == 0.0)?;
        // Exact up to 2⁵³, and no list has as many things.
        (bound <= 9_007_199_254_740_992.0).then_some(bound as u64)
    };
    match wanted.as_u64().or_else(whole) {
        Some(bound) => Ok(bound),
        None => exec_err!("the JSON schema's {keyword} is no number of things"),
    }
}
