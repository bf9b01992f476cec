//! `decrypt(value, 'key')`: undoes `encrypt` and `encrypt_deterministic`.
//!
//! The id in front of the value says which generation of the key opens it; a value of another key
//! or of a retired generation, or one that was changed, is an error and not NULL. The form is that
//! of the module `seal`. NULL in, NULL out.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::key::{self, KeySet, Mode};
use super::keyed::Keyed;
use super::seal::{self, Form, Opener, Values};

const NAME: &str = "decrypt";

/// The function `decrypt`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Undoes `encrypt` and `encrypt_deterministic`. The generation is found by the id in front of the \
value; a value of another key or of a retired generation, or one that was changed, is an error.",
    syntax_example = "decrypt(value, 'key')",
    sql_example = r#"```sql
> SELECT decrypt(encrypt_deterministic('ada@example.com', 'demo'), 'demo') AS email;
+-----------------+
| email           |
+-----------------+
| ada@example.com |
+-----------------+
```"#,
    argument(
        name = "value",
        description = "What `encrypt` or `encrypt_deterministic` gave. NULL gives NULL."
    ),
    argument(
        name = "key",
        description = "Name of a key that you may use, as a literal; `'name@2'` is its second generation."
    ),
    related_udf(name = "encrypt"),
    related_udf(name = "encrypt_deterministic")
)]
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Decrypt;

impl Keyed for Decrypt {
    const NAME: &'static str = NAME;

    fn signature() -> Signature {
        seal::signature(1, Volatility::Immutable)
    }

    fn data_type(args: &ReturnFieldArgs) -> DataType {
        Form::planned(args).data_type()
    }

    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = Values::from_argument(NAME, arguments::argument(NAME, args, 0)?)?;
        let ring = key::ring(NAME, keys, args)?;
        let modes = [Mode::Randomized, Mode::Deterministic];
        let mut opener = Opener::new(NAME, ring, &modes, values.form());
        values.map(NAME, args.number_rows, values.is_constant(), |_, value, opened| {
            opened.extend_from_slice(&opener.open(value)?.value);
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, FieldRef};
    use datafusion_expr::ScalarUDFImpl;
    use proptest::prelude::*;

    use super::super::arguments::testing::{call, one, text};
    use super::super::encrypt::Encrypt;
    use super::super::encrypt_deterministic::EncryptDeterministic;
    use super::super::key::tests::{demo_keys, set};
    use super::super::key::{Key, KeyRing};
    use super::*;

    fn generation(number: u8) -> Arc<Key> {
        let id = format!("3fa1b2c4-{number}");
        Arc::new(Key::with_id("k", &id, &[number; 32]).unwrap())
    }

    fn ring(newest: u8, older: &[u8]) -> Arc<KeySet> {
        let older = older.iter().map(|number| generation(*number)).collect();
        Arc::new(set([KeyRing::new(generation(newest), older)]))
    }

    fn open(value: &str, keys: Arc<KeySet>) -> Result<Option<String>> {
        Ok(call(Decrypt::bound(keys), vec![text(value), text("k")])?.remove(0))
    }

    #[test]
    fn a_rotated_key_opens_what_its_generations_sealed() {
        let old = one(Encrypt::bound(ring(1, &[])), vec![text("ada"), text("k")]).unwrap();
        assert!(old.starts_with("3fa1b2c4-1.r."), "{old}");
        let rotated = ring(2, &[1]);
        let new = one(Encrypt::bound(Arc::clone(&rotated)), vec![text("ada"), text("k")]).unwrap();
        assert!(new.starts_with("3fa1b2c4-2.r."), "{new}");
        for value in [&old, &new] {
            assert_eq!(open(value, Arc::clone(&rotated)).unwrap().unwrap(), "ada");
        }
        let retired = open(&old, ring(2, &[])).unwrap_err().to_string();
        assert!(retired.contains("a generation that is retired"), "{retired}");
        assert!(retired.contains("key 'k' has 3fa1b2c4-2") && !retired.contains(&old), "{retired}");
    }

    #[test]
    fn what_was_not_sealed_or_was_changed_is_an_error_that_shows_nothing() {
        let keys = ring(1, &[]);
        let sealed = one(Encrypt::bound(Arc::clone(&keys)), vec![text("ada"), text("k")]).unwrap();
        let last = if sealed.ends_with('A') { "E" } else { "A" };
        let changed = format!("{}{last}", &sealed[..sealed.len() - 1]);
        let short = "3fa1b2c4-1.r.AAAA";
        for (value, reason) in [
            (changed.as_str(), "was changed"),
            (short, "was changed"),
            ("ada@example.com", "nothing that encrypt gave"),
            ("", "nothing that encrypt gave"),
            ("3fa1b2c4-1.r.*", "nothing that encrypt gave"),
            ("hunter2.r.AAAA", "another key"),
            ("3fa1b2c4-1.k.AAAA", "another key"),
        ] {
            let error = open(value, Arc::clone(&keys)).unwrap_err().to_string();
            assert!(error.contains(reason), "{value}: {error}");
            for shown in ["ada", "hunter", "AAAA"] {
                assert!(!error.contains(shown), "{value}: {error}");
            }
        }
        // Another secret under the same id.
        let other = Arc::new(Key::with_id("k", "3fa1b2c4-1", &[9; 32]).unwrap());
        let error = open(&sealed, Arc::new(set([other.into()]))).unwrap_err().to_string();
        assert!(error.contains("another secret"), "{error}");
    }

    #[test]
    fn bytes_open_as_bytes() {
        use arrow::array::{ArrayRef, AsArray, BinaryArray, BinaryViewArray};
        let run = |function: &dyn ScalarUDFImpl, value: ArrayRef| {
            let fields: Vec<FieldRef> = vec![
                Arc::new(Field::new("v", value.data_type().clone(), true)),
                Arc::new(Field::new("k", DataType::Utf8, false)),
            ];
            let key = datafusion_common::ScalarValue::from("demo");
            let planned =
                ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &[None, Some(&key)] };
            let return_field = function.return_field_from_args(planned).unwrap();
            assert_eq!(return_field.data_type(), &DataType::Binary);
            let rows = value.len();
            let args = ScalarFunctionArgs {
                args: vec![ColumnarValue::Array(value), ColumnarValue::Scalar(key)],
                arg_fields: fields,
                number_rows: rows,
                return_field,
                config_options: Arc::default(),
            };
            function.invoke_with_args(args).unwrap().to_array(rows).unwrap()
        };
        let values: ArrayRef =
            Arc::new(BinaryViewArray::from(vec![Some(&b"\xff\x00"[..]), None, Some(b"")]));
        let sealed = run(&EncryptDeterministic::bound(demo_keys()), values);
        let opened = run(&Decrypt::bound(demo_keys()), sealed);
        let expected = BinaryArray::from(vec![Some(&b"\xff\x00"[..]), None, Some(b"")]);
        assert_eq!(opened.as_binary::<i32>(), &expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn what_was_sealed_is_opened(value in ".*") {
            let args = |value: &str| vec![text(value), text("demo")];
            for sealed in [
                one(Encrypt::bound(demo_keys()), args(&value)).unwrap(),
                one(EncryptDeterministic::bound(demo_keys()), args(&value)).unwrap(),
            ] {
                let opened = one(Decrypt::bound(demo_keys()), args(&sealed)).unwrap();
                prop_assert_eq!(&opened, &value);
            }
        }

        #[test]
        fn no_text_is_opened_or_stops_the_process(value in "[a-z0-9.=-]*\\PC*") {
            prop_assert!(open(&value, ring(1, &[])).is_err());
        }
    }
}
