//! `encrypt(value, 'key')`: a value that only who may decrypt reads again.
//!
//! AES-256-SIV (RFC 5297) under a nonce of 128 random bits, with the newest generation of the key;
//! the form is that of the module `seal`. Equal values differ, so the column neither joins nor
//! groups: `encrypt_deterministic` does. Text gives text, bytes give bytes, NULL gives NULL.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::key::{self, KeySet, Mode};
use super::keyed::Keyed;
use super::seal::{self, Form, Sealer, Values};

const NAME: &str = "encrypt";

/// The function `encrypt`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Encrypts text or bytes so that equal values differ: AES-256-SIV under a random nonce, shown as \
`<key id>.r.<base64url>`. The id is that of the key's newest generation; `decrypt` finds the one that sealed.",
    syntax_example = "encrypt(value, 'key')",
    sql_example = r#"```sql
> SELECT decrypt(encrypt('ada@example.com', 'demo'), 'demo') AS email;
+-----------------+
| email           |
+-----------------+
| ada@example.com |
+-----------------+
```"#,
    argument(name = "value", description = "Text or bytes. NULL gives NULL."),
    argument(
        name = "key",
        description = "Name of a key that you may use, as a literal; `'name@2'` is its second generation."
    ),
    related_udf(name = "decrypt"),
    related_udf(name = "encrypt_deterministic")
)]
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Encrypt;

impl Keyed for Encrypt {
    const NAME: &'static str = NAME;

    fn signature() -> Signature {
        seal::signature(1, Volatility::Volatile)
    }

    fn data_type(args: &ReturnFieldArgs) -> DataType {
        Form::planned(args).data_type()
    }

    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = Values::from_argument(NAME, arguments::argument(NAME, args, 0)?)?;
        let key = key::called(NAME, keys, args)?;
        let random = key::random(NAME, keys)?;
        let mut sealer = Sealer::new(key, Mode::Randomized, values.form());
        // Each row has a nonce of its own, also where one value stands for all.
        values.map(NAME, args.number_rows, false, |_, value, sealed| {
            sealer.seal(value, &random.nonce()?, sealed)?;
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
    use super::super::key::tests::demo_keys;
    use super::*;

    #[test]
    fn equal_values_differ_in_every_row() {
        let function = || Encrypt::bound(demo_keys());
        let column = texts(&[Some("ada"), Some("ada"), None]);
        let rows = call(function(), vec![column, text("demo")]).unwrap();
        let (first, second) = (rows[0].as_ref().unwrap(), rows[1].as_ref().unwrap());
        assert!(first != second && rows[2].is_none());
        // A nonce, a tag and three letters.
        assert_eq!(first.len(), "13797227.r.".len() + (16_usize + 16 + 3).div_ceil(3) * 4 - 1);
        assert!(first.starts_with("13797227.r."), "{first}");
    }

    #[test]
    fn the_form_is_that_of_an_independent_aes_siv() {
        // Python: cryptography's AESSIV under the derived key, with the generator's first nonce.
        let sealed = one(Encrypt::bound(demo_keys()), vec![text("ada@example.com"), text("demo")]);
        assert_eq!(
            sealed.unwrap(),
            "13797227.r.WSL37D5lFdA9UrINtslEMsHqs4VjCVTYE1bqMA-J18es0_-DGYXLO7coNZvC8bg"
        );
    }
}
