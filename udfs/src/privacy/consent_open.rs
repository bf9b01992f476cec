//! `consent_open(token, 'key')`: what a token of `consent_seal` says, one entry a purpose.
//!
//! NULL for a token that has expired by the statement's time, and for NULL. A token of another key
//! or of a retired generation, or one that was changed, is an error and shows nothing.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, ListArray, StringArray, StructArray, TimestampMillisecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::consent_token::{TOKEN_CHARACTERS_MAX, Told};
use super::key::{self, KeySet, Mode};
use super::keyed::Keyed;
use super::seal::{Form, Opener};

pub(super) const NAME: &str = "consent_open";
const ZONE: &str = "UTC";

/// The function `consent_open`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "The choices in a token of `consent_seal`: a list of subject, purpose, granted, sealed \
(the time of the statement that sealed it) and expires, one a purpose. `unnest` makes rows of it, \
to be added to a table of consents. NULL once the token has expired; one that was changed, or \
sealed with another key, is an error.",
    syntax_example = "consent_open(token, 'key')",
    sql_example = r#"```sql
> SELECT c['subject'] AS subject, c['purpose'] AS purpose, c['granted'] AS granted
  FROM (SELECT unnest(consent_open(consent_seal('{"subject": "u7", "purposes": {"ads": true}}', 'demo'), 'demo')) AS c);
+---------+---------+---------+
| subject | purpose | granted |
+---------+---------+---------+
| u7      | ads     | true    |
+---------+---------+---------+
```"#,
    argument(name = "token", description = "What `consent_seal` gave. NULL gives NULL."),
    argument(
        name = "key",
        description = "Name of a key that you may use to DECRYPT, as a literal; `'name@2'` is its second generation."
    ),
    related_udf(name = "consent_seal")
)]
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct ConsentOpen;

impl Keyed for ConsentOpen {
    const NAME: &'static str = NAME;

    fn signature() -> Signature {
        let texts = vec![arguments::text_coercion(), arguments::text_coercion()];
        // Stable: what has expired depends on the statement's time.
        Signature::coercible(texts, Volatility::Stable)
    }

    fn data_type(_args: &ReturnFieldArgs) -> DataType {
        DataType::List(entry_field())
    }

    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let tokens = arguments::text_argument(NAME, args, 0)?;
        let ring = key::ring(NAME, keys, args)?;
        let at_ms = key::time_ms(NAME, keys)?;
        let mut opener = Opener::new(NAME, ring, &[Mode::Consent], Form::Text);
        let rows = if tokens.is_constant() { 1 } else { args.number_rows };
        let mut told = Vec::with_capacity(rows);
        for row in 0..rows {
            told.push(match tokens.get(row) {
                Some(token) => {
                    Some(opened(&mut opener, token)?).filter(|told| !told.is_over(at_ms))
                }
                None => None,
            });
        }
        let list: ArrayRef = Arc::new(entries(&told)?);
        match tokens.is_constant() {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&list, 0)?)),
            false => Ok(ColumnarValue::Array(list)),
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

/// What a token says.
fn opened(opener: &mut Opener, token: &str) -> Result<Told> {
    if token.len() > TOKEN_CHARACTERS_MAX {
        return exec_err!(
            "{NAME}: a value is longer than any token. Hint: leave out the rows that hold \
             something else"
        );
    }
    match Told::from_json(&opener.open(token.as_bytes())?.value) {
        Some(told) => Ok(told),
        None => exec_err!(
            "{NAME}: a token was sealed by another version of Attune. Hint: open it with that \
             version, or ask its subject again"
        ),
    }
}

fn entry_fields() -> Fields {
    let time = || DataType::Timestamp(TimeUnit::Millisecond, Some(ZONE.into()));
    Fields::from(vec![
        Field::new("subject", DataType::Utf8, true),
        Field::new("purpose", DataType::Utf8, true),
        Field::new("granted", DataType::Boolean, true),
        Field::new("sealed", time(), true),
        Field::new("expires", time(), true),
    ])
}

fn entry_field() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Struct(entry_fields()), true))
}

/// A list a token, in the order of its purposes' names.
fn entries(told: &[Option<Told>]) -> Result<ListArray> {
    let lengths = told.iter().map(|told| told.as_ref().map_or(0, |t| t.choices.purposes.len()));
    let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
    let nulls = NullBuffer::from_iter(told.iter().map(Option::is_some));
    let each = || {
        told.iter().flatten().flat_map(|told| {
            let purposes = told.choices.purposes.iter();
            purposes.map(move |(purpose, granted)| (told, purpose.as_str(), *granted))
        })
    };
    let subjects: StringArray =
        each().map(|(told, _, _)| Some(told.choices.subject.as_str())).collect();
    let purposes: StringArray = each().map(|(_, purpose, _)| Some(purpose)).collect();
    let granted: BooleanArray = each().map(|(_, _, granted)| Some(granted)).collect();
    let sealed: TimestampMillisecondArray =
        each().map(|(told, _, _)| Some(told.sealed_ms)).collect();
    let expires: TimestampMillisecondArray = each().map(|(told, _, _)| told.expires_ms).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(subjects),
        Arc::new(purposes),
        Arc::new(granted),
        Arc::new(sealed.with_timezone(ZONE)),
        Arc::new(expires.with_timezone(ZONE)),
    ];
    let entries = StructArray::try_new(entry_fields(), columns, None)?;
    Ok(ListArray::try_new(entry_field(), offsets, Arc::new(entries), Some(nulls))?)
}

#[cfg(test)]
mod tests {
    use datafusion_expr::ScalarUDFImpl;
    use std::collections::BTreeMap;

    use arrow::array::{Array, AsArray};
    use arrow::datatypes::TimestampMillisecondType;
    use datafusion_common::config::ConfigOptions;

    use super::super::arguments::testing::{call, one, text};
    use super::super::consent_seal::ConsentSeal;
    use super::super::decrypt::Decrypt;
    use super::super::encrypt::Encrypt;
    use super::super::key::tests::{AT_MS, demo_keys, set};
    use super::super::key::{Key, KeyRing};
    use super::*;

    const CHOICES: &str = r#"{"subject": "u7", "purposes": {"news": false, "ads": true}}"#;

    fn sealed(expires_ms: Option<i64>) -> String {
        let mut args = vec![text(CHOICES), text("demo")];
        if expires_ms.is_some() {
            let time = ScalarValue::TimestampMillisecond(expires_ms, None);
            args.push(ColumnarValue::Scalar(time));
        }
        one(ConsentSeal::bound(demo_keys()), args).unwrap()
    }

    fn open(tokens: &[Option<&str>], keys: Arc<KeySet>) -> Result<ListArray> {
        let function = ConsentOpen::bound(keys);
        let tokens: ArrayRef = Arc::new(StringArray::from(tokens.to_vec()));
        let key = ScalarValue::from("demo");
        let arg_fields: Vec<FieldRef> = vec![
            Arc::new(Field::new("t", DataType::Utf8, true)),
            Arc::new(Field::new("k", DataType::Utf8, false)),
        ];
        let planned =
            ReturnFieldArgs { arg_fields: &arg_fields, scalar_arguments: &[None, Some(&key)] };
        let return_field = function.return_field_from_args(planned)?;
        let number_rows = tokens.len();
        let answer = function.invoke_with_args(ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(tokens), ColumnarValue::Scalar(key)],
            arg_fields,
            number_rows,
            return_field: Arc::clone(&return_field),
            config_options: Arc::new(ConfigOptions::default()),
        })?;
        let array = answer.to_array(number_rows)?;
        assert_eq!(array.data_type(), return_field.data_type());
        Ok(array.as_list::<i32>().clone())
    }

    #[test]
    fn a_token_gives_its_choices_back() {
        let (forever, soon) = (sealed(None), sealed(Some(AT_MS + 5)));
        let lists = open(&[Some(&forever), None, Some(&soon)], demo_keys()).unwrap();
        assert!(lists.is_valid(0) && lists.is_null(1) && lists.is_valid(2));
        let first = lists.value(0);
        let entries = first.as_struct();
        let texts = |at: usize| -> Vec<&str> {
            entries.column(at).as_string::<i32>().iter().flatten().collect()
        };
        assert_eq!((texts(0), texts(1)), (vec!["u7", "u7"], vec!["ads", "news"]));
        let granted: Vec<_> = entries.column(2).as_boolean().iter().flatten().collect();
        assert_eq!(granted, [true, false]);
        let times = |entries: &StructArray, at: usize| {
            let times = entries.column(at).as_primitive::<TimestampMillisecondType>();
            times.iter().next().unwrap()
        };
        assert_eq!((times(entries, 3), times(entries, 4)), (Some(AT_MS), None));
        assert_eq!(times(lists.value(2).as_struct(), 4), Some(AT_MS + 5));
    }

    #[test]
    fn a_token_that_has_expired_says_nothing() {
        let token = sealed(Some(AT_MS + 5));
        let later = |at_ms| {
            let demo = Key::new("demo", &[b'a'; 32]).unwrap();
            let keys = Arc::new(set([Arc::new(demo).into()]).at(at_ms));
            open(&[Some(&token)], keys).unwrap().is_valid(0)
        };
        assert!(later(AT_MS + 4) && !later(AT_MS + 5) && !later(AT_MS + 1_000));
    }

    #[test]
    fn what_was_changed_or_is_no_token_is_an_error_that_shows_nothing() {
        let token = sealed(None);
        let mut changed = token.clone();
        let other = if token[30..].starts_with('A') { "B" } else { "A" };
        changed.replace_range(30..31, other);
        let encrypted =
            one(Encrypt::bound(demo_keys()), vec![text(CHOICES), text("demo")]).unwrap();
        let borrowed = encrypted.replacen(".r.", ".c.", 1);
        let long = format!("13797227.c.{}", "A".repeat(TOKEN_CHARACTERS_MAX));
        for (value, reason) in [
            (changed.as_str(), "was changed"),
            (borrowed.as_str(), "was changed"),
            (encrypted.as_str(), "another key"),
            ("", "nothing that consent_seal gave"),
            ("u7: ads", "nothing that consent_seal gave"),
            (long.as_str(), "longer than any token"),
        ] {
            let error = open(&[Some(value)], demo_keys()).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("u7"), "{value}: {error}");
        }
        // The other way round: a token is no value of decrypt's.
        let decrypted = call(Decrypt::bound(demo_keys()), vec![text(&token), text("demo")]);
        assert!(decrypted.unwrap_err().to_string().contains("in another way"));
    }

    #[test]
    fn a_retired_generation_opens_nothing() {
        let other = Arc::new(Key::with_id("demo", "g2", &[b'a'; 32]).unwrap());
        let keys = Arc::new(set([KeyRing::from(other)]));
        let error = open(&[Some(&sealed(None))], keys).unwrap_err().to_string();
        assert!(error.contains("a generation that is retired"), "{error}");
        // Without the statement's time nothing is opened at all.
        let ring = KeyRing::from(Arc::new(Key::new("demo", &[b'a'; 32]).unwrap()));
        let uses = std::collections::BTreeSet::from([super::super::KeyUse::Decrypt]);
        let usable = super::super::UsableKey { ring, uses };
        let keys = KeySet::new(BTreeMap::from([("demo".to_owned(), usable)]), None);
        let error = open(&[Some(&sealed(None))], Arc::new(keys)).unwrap_err().to_string();
        assert!(error.contains("no time bound to it"), "{error}");
    }
}
