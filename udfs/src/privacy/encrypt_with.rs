//! `encrypt_with(value, data_key, 'key')`: a value that is gone for good with its data key.
//!
//! The data key is opened under the key and seals the value as `encrypt` does; the id in front is
//! the data key's. A NULL value or data key gives NULL.

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
use super::seal::{self, Form, Sealer, Values};

const NAME: &str = "encrypt_with";

/// The function `encrypt_with`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Encrypts text or bytes with a data key that `new_data_key` gave, as `encrypt` does with a key. Once \
the data key is gone from every version of its table (FORGET SUBJECT), no value that it sealed opens, in copies and backups too.",
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
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct EncryptWith;

impl Keyed for EncryptWith {
    const NAME: &'static str = NAME;

    fn signature() -> Signature {
        seal::signature(2, Volatility::Volatile)
    }

    fn data_type(args: &ReturnFieldArgs) -> DataType {
        Form::planned(args).data_type()
    }

    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = Values::from_argument(NAME, arguments::argument(NAME, args, 0)?)?;
        let data_keys = arguments::text_argument(NAME, args, 1)?;
        let ring = key::ring(NAME, keys, args)?;
        let random = key::random(NAME, keys)?;
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
