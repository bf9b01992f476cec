//! Session options: the session's settings as Flight clients set and read them.
//!
//! Every setting that `SHOW ALL` lists is an option. A value comes as text, truth value, number or
//! list and goes back in the type that the setting has. A value of another type is read when it
//! says the same ("true" for a truth value); an option that is not set says why: its name, its
//! value or a right. The options that fit are set all the same, as the protocol has it.

use std::collections::HashMap;

use bytes::Bytes;
use catalog::Class;
use prost::Message;
use sql::{SETTINGS, SettingKind, setting_kind};
use tonic::Status;

use super::messages::{
    GetSessionOptionsResult, OptionError, OptionErrorValue, OptionValue, SessionOptionValue,
    SetSessionOptionsRequest, SetSessionOptionsResult, decode_bare,
};
use super::sessions::{Caller, ClientSession};

/// SetSessionOptions.
pub async fn set(caller: &Caller, body: &Bytes) -> Result<Bytes, Status> {
    let client = caller.lasting()?;
    let request: SetSessionOptionsRequest = decode_bare(body, "SetSessionOptionsRequest")?;
    let mut errors = HashMap::new();
    for (name, value) in request.session_options {
        if let Err(reason) = set_one(client, &name, value.option_value).await {
            errors.insert(name, OptionError { value: reason as i32 });
        }
    }
    Ok(SetSessionOptionsResult { errors }.encode_to_vec().into())
}

async fn set_one(
    client: &ClientSession,
    name: &str,
    value: Option<OptionValue>,
) -> Result<(), OptionErrorValue> {
    if !SETTINGS.iter().any(|(known, _)| *known == name) {
        return Err(OptionErrorValue::InvalidName);
    }
    let outcome = match value {
        Some(value) => {
            let text = text(setting_kind(name), value).ok_or(OptionErrorValue::InvalidValue)?;
            client.session.set(name, &text).await
        }
        None => client.session.reset(name),
    };
    outcome.map_err(|error| {
        tracing::debug!(option = name, code = error.code(), "session option refused: {error}");
        match error.class() {
            Class::Invalid | Class::NotFound | Class::Syntax => OptionErrorValue::InvalidValue,
            _ => OptionErrorValue::Error,
        }
    })
}

/// A value as SET would write it; none for a value that a setting of this kind cannot hold.
fn text(kind: SettingKind, value: OptionValue) -> Option<String> {
    match (kind, value) {
        (_, OptionValue::Text(text)) => Some(text),
        // A list of one is that one; no setting holds several values.
        (_, OptionValue::TextList(list)) => match list.values.as_slice() {
            [one] => Some(one.clone()),
            _ => None,
        },
        (SettingKind::Truth, OptionValue::Bool(truth)) => Some(truth.to_string()),
        (SettingKind::Number, OptionValue::Int64(number)) => Some(number.to_string()),
        (SettingKind::Number, OptionValue::Double(number)) => {
            // A client whose language has one kind of number sends 10 as 10.0.
            (number.fract() == 0.0 && number.abs() < 1e15).then(|| format!("{number:.0}"))
        }
        _ => None,
    }
}

/// GetSessionOptions.
pub fn get(client: &ClientSession) -> Bytes {
    let session_options = SETTINGS
        .iter()
        .filter_map(|(name, _)| {
            let value = typed(setting_kind(name), client.session.setting(name)?);
            Some(((*name).to_owned(), SessionOptionValue { option_value: Some(value) }))
        })
        .collect();
    GetSessionOptionsResult { session_options }.encode_to_vec().into()
}

fn typed(kind: SettingKind, text: String) -> OptionValue {
    match kind {
        SettingKind::Truth => text.parse().map_or(OptionValue::Text(text), OptionValue::Bool),
        SettingKind::Number => text.parse().map_or(OptionValue::Text(text), OptionValue::Int64),
        SettingKind::Text => OptionValue::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::messages::TextList;
    use super::*;

    #[test]
    fn values_are_read_in_the_types_that_say_the_same() {
        let list = |values: &[&str]| {
            OptionValue::TextList(TextList {
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            })
        };
        for (kind, value, expected) in [
            (SettingKind::Text, OptionValue::Text("main".into()), Some("main")),
            (SettingKind::Text, list(&["main"]), Some("main")),
            (SettingKind::Text, list(&["main", "lake"]), None),
            (SettingKind::Text, OptionValue::Bool(true), None),
            (SettingKind::Truth, OptionValue::Bool(true), Some("true")),
            (SettingKind::Truth, OptionValue::Int64(1), None),
            (SettingKind::Number, OptionValue::Int64(10), Some("10")),
            (SettingKind::Number, OptionValue::Double(10.0), Some("10")),
            (SettingKind::Number, OptionValue::Double(1.5), None),
            (SettingKind::Number, OptionValue::Double(f64::NAN), None),
        ] {
            let label = format!("{kind:?} {value:?}");
            assert_eq!(text(kind, value).as_deref(), expected, "{label}");
        }
    }
}
