//! What a consent token says: whose choices they are, for which purposes, since when, until when.
//!
//! The choices come as JSON, `{"subject": "u7", "purposes": {"ads": true, "news": false}}`, which a
//! program makes with its own JSON library and binds as a parameter. What names a subject or a
//! purpose twice is refused: programs differ in which of both they read. Sealed is a form of its
//! own, with the time of the sealing statement and the expiry in Unix milliseconds. No error shows
//! a choice.

use std::collections::BTreeMap;

use datafusion_common::{Result, exec_err};
use serde_json::{Map, Value};

use super::single::{self, Unread};

/// Purposes of one token.
const PURPOSES_MAX: usize = 100;
/// Characters of a subject and of a purpose.
const NAME_CHARACTERS_MAX: usize = 255;
/// Characters of a token: browsers keep 4,096 bytes of a cookie, its name and attributes included.
pub(super) const TOKEN_CHARACTERS_MAX: usize = 3_800;
/// The version of the sealed form.
const VERSION: u64 = 1;

/// A subject's choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choices {
    /// Whose they are.
    pub(super) subject: String,
    /// Of each purpose, whether it is consented to.
    pub(super) purposes: BTreeMap<String, bool>,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// The choices.
    pub(super) choices: Choices,
    /// When they were sealed.
    pub(super) sealed_ms: i64,
    /// From when on they say nothing any more.
    pub(super) expires_ms: Option<i64>,
}

impl Choices {
    /// Reads choices as somebody wrote them.
    ///
    /// # Errors
    /// When the text is no such JSON, or says too much.
    pub(super) fn read(function: &str, text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            exec_err!(
                "{function}: {what}. Hint: choices are JSON such as \
                 '{{\"subject\": \"u7\", \"purposes\": {{\"ads\": true, \"news\": false}}}}'"
            )
        };
        let fields = match single::read(text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) | Err(Unread::NoJson) => return wrong("the choices are no JSON object"),
            Err(Unread::Twice) => return wrong("the choices name something twice"),
        };
        if fields.keys().any(|name| name != "subject" && name != "purposes") {
            return wrong("the choices have more fields than subject and purposes");
        }
        let subject = match fields.get("subject") {
            Some(Value::String(subject)) => subject.clone(),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => return wrong("the subject of the choices is no text or whole number"),
        };
        let Some(Value::Object(written)) = fields.get("purposes") else {
            return wrong("the purposes of the choices are no JSON object");
        };
        let mut purposes = BTreeMap::new();
        for (purpose, granted) in written {
            let Value::Bool(granted) = granted else {
                return wrong("a choice is neither true nor false");
            };
            purposes.insert(purpose.clone(), *granted);
        }
        let is_name = |name: &str| (1..=NAME_CHARACTERS_MAX).contains(&name.chars().count());
        if !is_name(&subject) || !purposes.keys().all(|purpose| is_name(purpose)) {
            return wrong("a subject or purpose is empty, or longer than 255 characters");
        }
        if purposes.is_empty() || purposes.len() > PURPOSES_MAX {
            return wrong("the choices are of no purpose, or of more than 100");
        }
        Ok(Self { subject, purposes })
    }
}

impl Told {
    /// What is sealed.
    pub(super) fn to_json(&self) -> String {
        let purposes = self.choices.purposes.iter();
        let purposes: Map<String, Value> =
            purposes.map(|(purpose, granted)| (purpose.clone(), Value::from(*granted))).collect();
        let mut fields = Map::new();
        fields.insert("v".into(), Value::from(VERSION));
        fields.insert("s".into(), Value::from(self.choices.subject.as_str()));
        fields.insert("p".into(), Value::Object(purposes));
        fields.insert("i".into(), Value::from(self.sealed_ms));
        if let Some(expires_ms) = self.expires_ms {
            fields.insert("e".into(), Value::from(expires_ms));
        }
        Value::Object(fields).to_string()
    }

    /// What was sealed; `None` for a form of another version.
    pub(super) fn from_json(json: &[u8]) -> Option<Self> {
        let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(json) else { return None };
        if fields.get("v").and_then(Value::as_u64) != Some(VERSION) {
            return None;
        }
        let written = fields.get("p")?.as_object()?.iter();
        let purposes: Option<BTreeMap<String, bool>> =
            written.map(|(purpose, granted)| Some((purpose.clone(), granted.as_bool()?))).collect();
        let expires_ms = match fields.get("e") {
            Some(expires) => Some(expires.as_i64()?),
            None => None,
        };
        Some(Self {
            choices: Choices {
                subject: fields.get("s")?.as_str()?.to_owned(),
                purposes: purposes?,
            },
            sealed_ms: fields.get("i")?.as_i64()?,
            expires_ms,
        })
    }

    /// Whether it says nothing any more.
    pub(super) fn is_over(&self, at_ms: i64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| at_ms >= expires_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Choices> {
        Choices::read("consent_seal", text)
    }

    #[test]
    fn choices_are_of_a_subject_for_purposes() {
        let choices = read(r#"{"subject": 7, "purposes": {"news": false, "ads": true}}"#).unwrap();
        assert_eq!(choices.subject, "7");
        assert_eq!(
            choices.purposes,
            BTreeMap::from([("ads".into(), true), ("news".into(), false)])
        );
    }

    #[test]
    fn what_is_no_choice_is_refused_and_not_shown() {
        let long =
            format!(r#"{{"subject": "{}", "purposes": {{"ads": true}}}}"#, "hush".repeat(70));
        let many = (0..=PURPOSES_MAX).map(|n| format!(r#""p{n}": true"#));
        let many = many.collect::<Vec<_>>().join(", ");
        let many = format!(r#"{{"subject": "hush", "purposes": {{{many}}}}}"#);
        for (text, reason) in [
            ("", "no JSON object"),
            ("hush", "no JSON object"),
            (r#"["hush"]"#, "no JSON object"),
            (r#"{"subject": "hush"}"#, "purposes of the choices"),
            (r#"{"subject": "a", "subject": "hush", "purposes": {"ads": true}}"#, "twice"),
            (r#"{"subject": "hush", "purposes": {"ads": true, "ads": false}}"#, "twice"),
            (r#"{"subject": "hush", "purposes": {}}"#, "of no purpose"),
            (r#"{"subject": "hush", "purposes": {"ads": "hush"}}"#, "neither true nor false"),
            (r#"{"subject": "hush", "purposes": {"ads": 1}}"#, "neither true nor false"),
            (r#"{"subject": "hush", "purposes": {"": true}}"#, "is empty"),
            (r#"{"subject": "", "purposes": {"ads": true}}"#, "is empty"),
            (r#"{"subject": 1.5, "purposes": {"ads": true}}"#, "no text or whole number"),
            (r#"{"purposes": {"ads": true}}"#, "no text or whole number"),
            (r#"{"subject": "a", "purposes": {"ads": true}, "until": "hush"}"#, "more fields"),
            (long.as_str(), "longer than 255"),
            (many.as_str(), "more than 100"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("hush"), "{text}: {error}");
        }
    }

    #[test]
    fn another_version_says_nothing() {
        for json in ["", "{}", r#"{"v":2,"s":"a","p":{},"i":1}"#, r#"{"v":1,"s":"a","p":{"x":1}}"#]
        {
            assert_eq!(Told::from_json(json.as_bytes()), None, "{json}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_told_comes_back(
            subject in ".{1,20}",
            purposes in prop::collection::btree_map(".{1,20}", any::<bool>(), 1..9),
            sealed_ms in any::<i64>(),
            expires_ms in prop::option::of(any::<i64>()),
        ) {
            let told = Told { choices: Choices { subject, purposes }, sealed_ms, expires_ms };
            prop_assert_eq!(Told::from_json(told.to_json().as_bytes()), Some(told));
        }

        #[test]
        fn no_text_stops_the_process(text in "\\PC*") {
            prop_assert!(read(&text).is_err());
        }
    }
}
