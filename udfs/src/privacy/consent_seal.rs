//! `consent_seal(choices, 'key' [, expires])`: somebody's choices as a token for a cookie or the
//! browser's own storage, that nobody reads, makes or changes without the key.
//!
//! AES-256-SIV under a nonce with the newest generation of the key, as the module `seal` has it, in
//! a mode of its own: `decrypt` does not open a token, and `consent_open` opens nothing else. The
//! form of choices is that of the module `consent_token`. NULL where the choices or the expiry are
//! NULL.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use datafusion_common::{Result, exec_err, internal_err, plan_err};
use datafusion_expr::{ColumnarValue, Documentation, ScalarFunctionArgs};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::consent_token::{Choices, TOKEN_CHARACTERS_MAX, Told};
use super::key::{self, KeySet, Mode};
use super::keyed::Keyed;
use super::seal::{Form, Sealer};

const NAME: &str = "consent_seal";

/// The function `consent_seal`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Seals somebody's choices of consent into a token for a cookie or a browser's storage: \
nobody reads, makes or changes it without the key. It holds the time of the statement; \
`consent_open` gives the choices back, one a purpose. A token has at most 3,800 characters.",
    syntax_example = "consent_seal(choices, 'key' [, expires])",
    sql_example = r#"```sql
> SELECT array_length(consent_open(consent_seal('{"subject": "u7", "purposes": {"ads": true}}', 'demo'), 'demo')) AS choices;
+---------+
| choices |
+---------+
| 1       |
+---------+
```"#,
    argument(
        name = "choices",
        description = "JSON with a subject and, for each purpose, true or false: `{\"subject\": \"u7\", \"purposes\": \
{\"ads\": true}}`, nothing named twice. NULL gives NULL."
    ),
    argument(
        name = "key",
        description = "Name of a key that you may use to ENCRYPT, as a literal; `'name@2'` is its second generation."
    ),
    argument(
        name = "expires",
        description = "The time from which on the token says nothing; a time without a zone is UTC. Left out: never. \
NULL gives NULL."
    ),
    related_udf(name = "consent_open")
)]
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct ConsentSeal;

impl Keyed for ConsentSeal {
    const NAME: &'static str = NAME;

    fn signature() -> Signature {
        Signature::user_defined(Volatility::Volatile)
    }

    fn coerce_types(arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [choices, key] => Ok(vec![text_type(choices)?, text_type(key)?]),
            [choices, key, expires] => {
                Ok(vec![text_type(choices)?, text_type(key)?, time_type(expires)?])
            }
            other => plan_err!(
                "{NAME} takes two or three arguments, not {}. Hint: \
                 {NAME}(choices, 'key', now() + INTERVAL '180 days')",
                other.len()
            ),
        }
    }

    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = arguments::text_argument(NAME, args, 0)?;
        let key = key::called(NAME, keys, args)?;
        let random = key::random(NAME, keys)?;
        let at_ms = key::time_ms(NAME, keys)?;
        let expiries = match args.args.get(2) {
            Some(expires) => Some(expires.to_array(args.number_rows)?),
            None => None,
        };
        let expiries = match &expiries {
            Some(array) => match array.as_primitive_opt::<TimestampMillisecondType>() {
                Some(times) => Some(times),
                None => return exec_err!("{NAME} expects a time, got {}", array.data_type()),
            },
            None => None,
        };
        let mut sealer = Sealer::new(key, Mode::Consent, Form::Text);
        let mut sealed = Vec::new();
        // Each row has a nonce of its own, also where one value stands for all.
        arguments::text_rows(args.number_rows, false, |row, token| {
            let Some(text) = texts.get(row) else { return Ok(false) };
            let expires_ms = match expiries {
                Some(times) if times.is_null(row) => return Ok(false),
                Some(times) => Some(times.value(row)),
                None => None,
            };
            let told = Told { choices: Choices::read(NAME, text)?, sealed_ms: at_ms, expires_ms };
            if told.is_over(at_ms) {
                return exec_err!(
                    "{NAME}: a token would have expired already. Hint: give a time to come, such \
                     as now() + INTERVAL '180 days'"
                );
            }
            sealed.clear();
            sealer.seal(told.to_json().as_bytes(), &random.nonce()?, &mut sealed)?;
            if sealed.len() > TOKEN_CHARACTERS_MAX {
                return exec_err!(
                    "{NAME}: a token would have {} characters, and no cookie has room for more \
                     than {TOKEN_CHARACTERS_MAX}. Hint: seal the choices of fewer purposes",
                    sealed.len()
                );
            }
            match std::str::from_utf8(&sealed) {
                Ok(text) => token.push_str(text),
                Err(_) => return internal_err!("{NAME}: a token is no text"),
            }
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

/// The type that an argument of text is read as.
fn text_type(given: &DataType) -> Result<DataType> {
    match given {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(given.clone()),
        DataType::Null => Ok(DataType::Utf8),
        DataType::Dictionary(_, values) => text_type(values),
        other => plan_err!("{NAME}: expected text, got {other}. Hint: CAST(… AS VARCHAR)"),
    }
}

/// The type that an expiry is read as: its zone stays, so that a time with one is that very moment.
fn time_type(given: &DataType) -> Result<DataType> {
    match given {
        DataType::Timestamp(_, zone) => {
            Ok(DataType::Timestamp(TimeUnit::Millisecond, zone.clone()))
        }
        DataType::Date32
        | DataType::Date64
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Null => Ok(DataType::Timestamp(TimeUnit::Millisecond, None)),
        other => plan_err!(
            "{NAME}: expires must be a time, not {other}. Hint: now() + INTERVAL '180 days'"
        ),
    }
}

#[cfg(test)]
mod tests {
    use datafusion_common::ScalarValue;
    use datafusion_expr::ScalarUDFImpl;

    use super::super::arguments::testing::{call, one, text, texts};
    use super::super::key::tests::{AT_MS, demo_keys};
    use super::*;

    const CHOICES: &str = r#"{"subject": "u7", "purposes": {"ads": true}}"#;

    fn time(ms: Option<i64>) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::TimestampMillisecond(ms, None))
    }

    #[test]
    fn each_row_is_sealed_by_itself() {
        let column = texts(&[Some(CHOICES), Some(CHOICES), None]);
        let rows = call(ConsentSeal::bound(demo_keys()), vec![column, text("demo")]).unwrap();
        let (first, second) = (rows[0].as_ref().unwrap(), rows[1].as_ref().unwrap());
        assert!(first != second && rows[2].is_none());
        assert!(first.starts_with("13797227.c."), "{first}");
        // A cookie's value has no other characters.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        assert!(first.chars().all(plain), "{first}");
    }

    #[test]
    fn a_token_expires_later_or_never() {
        let seal = |expires| {
            call(ConsentSeal::bound(demo_keys()), vec![text(CHOICES), text("demo"), time(expires)])
        };
        assert!(seal(Some(AT_MS + 1)).unwrap()[0].is_some());
        assert!(seal(None).unwrap()[0].is_none());
        let error = seal(Some(AT_MS)).unwrap_err().to_string();
        assert!(error.contains("expired already"), "{error}");
    }

    #[test]
    fn a_token_fits_into_a_cookie() {
        let choices = |length: usize| {
            let purposes = (0..90).map(|n| format!(r#""{n:0length$}": true"#));
            let purposes = purposes.collect::<Vec<_>>().join(", ");
            format!(r#"{{"subject": "u7", "purposes": {{{purposes}}}}}"#)
        };
        let seal = |length| {
            let choices = choices(length);
            call(ConsentSeal::bound(demo_keys()), vec![text(&choices), text("demo")])
        };
        assert!(seal(9).is_ok());
        let error = seal(60).unwrap_err().to_string();
        assert!(error.contains("no cookie has room"), "{error}");
    }

    #[test]
    fn types_are_text_and_time() {
        let function = ConsentSeal::unbound();
        let zoned = DataType::Timestamp(TimeUnit::Nanosecond, Some("+02:00".into()));
        let types = [DataType::Utf8View, DataType::Utf8, zoned];
        let coerced = function.coerce_types(&types).unwrap();
        assert_eq!(coerced[2], DataType::Timestamp(TimeUnit::Millisecond, Some("+02:00".into())));
        assert!(function.coerce_types(&[DataType::Utf8]).is_err());
        assert!(function.coerce_types(&[DataType::Utf8, DataType::Int64]).is_err());
        let (text, number) = (DataType::Utf8, DataType::Int64);
        assert!(function.coerce_types(&[text.clone(), text, number]).is_err());
    }

    #[test]
    fn without_a_key_nothing_is_planned() {
        assert!(call(ConsentSeal::unbound(), vec![text(CHOICES), text("demo")]).is_err());
        assert_eq!(one(ConsentSeal::bound(demo_keys()), vec![texts(&[None]), text("demo")]), None);
    }
}
