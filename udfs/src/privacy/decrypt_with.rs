//! `decrypt_with(value, data_key, 'key')`: undoes `encrypt_with`.
//!
//! NULL where the data key is NULL, as after a LEFT JOIN once the subject's row is gone. A data key
//! that did not seal the value is an error.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, internal_err};
use datafusion_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_expr::{ScalarUDFImpl, Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::data_keys::DataKeys;
use super::key::{self, Key, KeySet, Mode};
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
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DecryptWith {
    signature: Signature,
    keys: Option<Arc<KeySet>>,
}

impl DecryptWith {
    /// The function by name alone: listed and documented, refused when planned.
    pub fn unbound() -> Self {
        Self::with_keys(None)
    }

    /// The function with the keys of one statement.
    pub fn bound(keys: Arc<KeySet>) -> Self {
        Self::with_keys(Some(keys))
    }

    fn with_keys(keys: Option<Arc<KeySet>>) -> Self {
        Self { signature: seal::signature(2, Volatility::Immutable), keys }
    }
}

impl ScalarUDFImpl for DecryptWith {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        internal_err!("{NAME} answers through return_field_from_args")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        key::planned(NAME, self.keys.as_ref(), &args)?;
        Ok(Arc::new(Field::new(NAME, Form::planned(&args).data_type(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = Values::from_argument(NAME, arguments::argument(NAME, &args, 0)?)?;
        let data_keys = arguments::text_argument(NAME, &args, 1)?;
        let ring = key::ring(NAME, self.keys.as_ref(), &args)?;
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
