//! JSON of which no object names anything twice.
//!
//! JSON leaves open what a name that stands twice in one object means, and its readers differ: what
//! one program has checked is not what another one reads. Where somebody's choices depend on it,
//! such a text is refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a text is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is no JSON.
    NoJson,
    /// An object in it names something twice.
    Twice,
}

/// Reads a text.
///
/// # Errors
/// When it is no JSON, or names something twice.
pub(super) fn read(text: &str) -> Result<Value, Unread> {
    match serde_json::from_str::<Single>(text) {
        Ok(Single(value)) => Ok(value),
        // A name that stands twice is the one thing that is refused of what is JSON.
        Err(error) if error.is_data() => Err(Unread::Twice),
        Err(_) => Err(Unread::NoJson),
    }
}

struct Single(Value);

impl<'de> Deserialize<'de> for Single {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON that names nothing twice")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Single(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((name, Single(value))) = fields.next_entry::<String, Single>()? {
            if values.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_nothing_twice_is_read_as_ever() {
        for text in ["null", r#"[1, -2, 2.5, "a", true]"#, r#"{"a": {"b": []}, "b": {"a": 1}}"#] {
            assert_eq!(read(text), Ok(serde_json::from_str::<Value>(text).unwrap()), "{text}");
        }
    }

    #[test]
    fn a_name_that_stands_twice_is_found_at_any_depth() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": 1, "\u0061": 2}"#,
            r#"[{"x": {"a": null, "b": 2, "a": null}}]"#,
        ] {
            assert_eq!(read(text), Err(Unread::Twice), "{text}");
        }
        for text in ["", "{", r#"{"a": 1,}"#, "1e999", "nothing"] {
            assert_eq!(read(text), Err(Unread::NoJson), "{text}");
        }
    }
}
