//! `encrypt_with(value, data_key, 'key')`: a value that is gone for good with its data key.
//!
//! The data key is opened under the key and seals the value as `encrypt` does; the id in front is
//! the data key's. A NULL value or data key gives NULL.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, internal_err};
use datafusion_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_expr::{ScalarUDFImpl, Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::data_keys::DataKeys;
use super::key::{self, Key, KeySet, Mode};
use super::seal::{self, Form, Sealer, Values};

const NAME: &str = "encrypt_with";

/// The function `encrypt_with`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Encrypts text or bytes with a data key that `new_data_key` gave, as `encrypt` does with a key. Who \
deletes the data key makes every value that it sealed unreadable, in copies and backups too.",
    syntax_example = "encrypt_with(value, data_key, 'key')",
    sql_example = r#"```sql
> SELECT decrypt_with(encrypt_with('ada', k, 'demo'), k, 'demo') AS name
  FROM (SELECT new_data_key('demo') AS k) AS keys;
+------+
| name |
+------+
| ada  |
+------+
```"#,
    argument(name = "value", description = "Text or bytes. NULL gives NULL."),
    argument(
        name = "data_key",
        description = "What `new_data_key` gave, usually a column. NULL gives NULL."
    ),
    argument(
        name = "key",
        description = "Name of a key that you may use, as a literal; `'name@2'` is its second generation."
    ),
    related_udf(name = "decrypt_with"),
    related_udf(name = "new_data_key")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct EncryptWith {
    signature: Signature,
    keys: Option<Arc<KeySet>>,
}

impl EncryptWith {
    /// The function by name alone: listed and documented, refused when planned.
    pub fn unbound() -> Self {
        Self::with_keys(None)
    }

    /// The function with the keys of one statement.
    pub fn bound(keys: Arc<KeySet>) -> Self {
        Self::with_keys(Some(keys))
    }

    fn with_keys(keys: Option<Arc<KeySet>>) -> Self {
        Self { signature: seal::signature(2, Volatility::Volatile), keys }
    }
}

impl ScalarUDFImpl for EncryptWith {
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
        let random = key::random(NAME, self.keys.as_ref())?;
        let form = values.form();
        let mut opened = DataKeys::new(NAME, ring);
        values.map(NAME, args.number_rows, false, |row, value, sealed| {
            let Some(data_key) = data_keys.get(row) else { return Ok(false) };
            let make = |key: &Arc<Key>| Sealer::new(key, Mode::Randomized, form);
            opened.with(data_key, make)?.seal(value, &random.nonce()?, sealed)?;
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}
