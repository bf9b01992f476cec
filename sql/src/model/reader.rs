//! Typed values out of options.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::error::{Error, Result};

/// Reads typed values out of the options as given.
pub struct Reader<'a>(pub &'a BTreeMap<String, Json>);

impl<'a> Reader<'a> {
    /// Whether the option is given.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn wrong(name: &str, value: &Json, wanted: &str) -> Error {
        Error::invalid_hint(format!("option {name} is {value}"), format!("it takes {wanted}"))
    }

    /// A text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(Self::wrong(name, other, "a text in quotes")),
        }
    }

    /// One of a few texts, whatever its case.
    ///
    /// # Errors
    /// When it is something else.
    pub fn choice(&self, name: &str, known: &[&'static str]) -> Result<Option<&'static str>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = known.iter().find(|known| known.eq_ignore_ascii_case(text));
        match found {
            Some(found) => Ok(Some(found)),
            None => Err(Error::unknown(name, &format!("'{text}'"), known.iter().copied())),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(Self::wrong(name, value, "a number")),
            },
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// When it is something else.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(Self::wrong(name, value, "a whole number")),
            },
        }
    }

    /// A whole number from 1.
    ///
    /// # Errors
    /// When it is something else.
    pub fn count(&self, name: &str) -> Result<Option<usize>> {
        let Some(number) = self.integer(name)? else { return Ok(None) };
        match usize::try_from(number) {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(Self::wrong(name, &Json::from(number), "a whole number from 1")),
        }
    }

    /// Names of columns, each once; none where the option is not given.
    ///
    /// # Errors
    /// When it is something else.
    pub fn columns(&self, name: &str) -> Result<Vec<String>> {
        let Some(value) = self.0.get(name) else { return Ok(vec![]) };
        let names = value.as_array().map(|names| names.iter().map(Json::as_str));
        let names: Option<Vec<&str>> = names.and_then(Iterator::collect);
        let mut found: Vec<String> = vec![];
        for name in names.unwrap_or_default() {
            if !found.iter().any(|other| other == name) {
                found.push(name.to_owned());
            }
        }
        match value.as_array().is_some_and(|names| names.len() == found.len() && !names.is_empty())
        {
            true => Ok(found),
            false => Err(Self::wrong(name, value, "names of columns, each once: ['brand']")),
        }
    }

    /// TRUE or FALSE.
    ///
    /// # Errors
    /// When it is something else.
    pub fn truth(&self, name: &str) -> Result<Option<bool>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Json::Bool(truth)) => Ok(Some(*truth)),
            Some(other) => Err(Self::wrong(name, other, "TRUE or FALSE")),
        }
    }
}
