//! `decrypt_with(value, data_key, 'key')`: undoes `encrypt_with`.
//!
//! NULL where the data key is NULL, as after a LEFT JOIN once the subject's row is gone. A data key
//! that did not seal the value is an error.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::data_keys::DataKeys;
use super::key::{self, Key, KeySet, Mode};
use super::keyed::Keyed;
use super::seal::{self, Form, Opener, Values};

const NAME: &str = "decrypt_with";

/// The function `decrypt_with`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Undoes `encrypt_with`. NULL where the data key is NULL, as after a LEFT JOIN when the subject's data \
key was deleted; another subject's data key is an error.",
    syntax_example = "decrypt_with(value, data_key, 'key')",
    sql_example = r#"```sql
> SELECT decrypt_with(encrypt_with('ada', k, 'demo'), k, 'demo') AS name
  FROM (SELECT new_data_key('demo') AS k) AS keys;
+------+
| name |
+------+
| ada  |
+------+
```"#,
    argument(name = "value", description = "What `encrypt_with` gave. NULL gives NULL."),
    argument(
        name = "data_key",
        description = "What `new_data_key` gave, usually a column. NULL gives NULL."
    ),
    argument(
        name = "key",
        description = "Name of a key that you may use, as a literal; `'name@2'` is its second generation."
    ),
    related_udf(name = "encrypt_with"),
    related_udf(name = "new_data_key")
)]
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct DecryptWith;

impl Keyed for DecryptWith {
    const NAME: &'static str = NAME;

    fn signature() -> Signature {
        seal::signature(2, Volatility::Immutable)
    }

    fn data_type(args: &ReturnFieldArgs) -> DataType {
        Form::planned(args).data_type()
    }

    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = Values::from_argument(NAME, arguments::argument(NAME, args, 0)?)?;
        let data_keys = arguments::text_argument(NAME, args, 1)?;
        let ring = key::ring(NAME, keys, args)?;
        let form = values.form();
        let mut known = DataKeys::new(NAME, ring);
        let once = values.is_constant() && data_keys.is_constant();
        values.map(NAME, args.number_rows, once, |row, value, opened| {
            let Some(data_key) = data_keys.get(row) else { return Ok(false) };
            let make = |key: &Arc<Key>| {
                Opener::new(NAME, &Arc::clone(key).into(), &[Mode::Randomized], form)
            };
            opened.extend_from_slice(&known.with(data_key, make)?.open(value)?.value);
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

#[cfg(test)]
mod tests {
    use super::super::arguments::testing::{call, one, text, texts};
    use super::super::encrypt_with::EncryptWith;
    use super::super::key::tests::demo_keys;
    use super::super::new_data_key::NewDataKey;
    use super::*;

    #[test]
    fn a_value_opens_with_the_data_key_that_sealed_it_and_no_other() {
        let keys = demo_keys();
        let data_key = || one(NewDataKey::bound(Arc::clone(&keys)), vec![text("demo")]).unwrap();
        let (ada, bob) = (data_key(), data_key());
        let (of_ada, of_bob) = (Some(ada.as_str()), Some(bob.as_str()));
        let values = texts(&[Some("ada"), Some("bob"), Some("gone"), None]);
        let data_keys = texts(&[of_ada, of_bob, None, of_ada]);
        let seal = EncryptWith::bound(Arc::clone(&keys));
        let sealed = call(seal, vec![values, data_keys, text("demo")]).unwrap();
        assert!(sealed[2].is_none() && sealed[3].is_none());
        let open = || DecryptWith::bound(Arc::clone(&keys));
        let values = texts(&[sealed[0].as_deref(), sealed[1].as_deref(), sealed[0].as_deref()]);
        let data_keys = texts(&[of_ada, of_bob, None]);
        let opened = call(open(), vec![values, data_keys, text("demo")]).unwrap();
        assert_eq!(opened, [Some("ada".to_owned()), Some("bob".to_owned()), None]);
        for (data_key, key, reason) in [
            (bob.as_str(), "demo", "another key"),
            (ada.as_str(), "other", "another key"),
            ("ada", "demo", "nothing that encrypt gave"),
        ] {
            let args = vec![text(sealed[0].as_deref().unwrap()), text(data_key), text(key)];
            let error = call(open(), args).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
