//! `encrypt_deterministic(value, 'key')`: a value that joins, and that only who may decrypt reads.
//!
//! AES-256-SIV (RFC 5297) without a nonce, with the newest generation of the key; the form is that
//! of the module `seal`. Equal values are equal under one generation, which shows how often each
//! comes, and lets who may encrypt try values. Text gives text, bytes give bytes, NULL gives NULL.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::key::{self, Key, KeySet, Mode};
use super::keyed::Keyed;
use super::seal::{self, Form, Sealer, Values};

const NAME: &str = "encrypt_deterministic";

/// The function `encrypt_deterministic`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Encrypts text or bytes so that equal values are equal and still join: AES-256-SIV without a nonce, \
shown as `<key id>.d.<base64url>`. It shows which values are equal and how often each comes; \
`encrypt` does not.",
    syntax_example = "encrypt_deterministic(value, 'key')",
    sql_example = r#"```sql
> SELECT encrypt_deterministic('ada', 'demo') AS sealed;
+---------------------------------------+
| sealed                                |
+---------------------------------------+
| 13797227.d.cI_V38FSNhZ7i1LvmiN3jv9cDQ |
+---------------------------------------+
```"#,
    argument(name = "value", description = "Text or bytes. NULL gives NULL."),
    argument(
        name = "key",
        description = "Name of a key that you may use, as a literal; `'name@2'` is its second generation."
    ),
    related_udf(name = "decrypt"),
    related_udf(name = "encrypt")
)]
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct EncryptDeterministic;

/// A text encrypted under a generation of a key.
///
/// # Errors
/// When the cipher refuses the text, as one longer than it takes.
pub fn ciphertext(key: &Key, value: &str) -> Result<String> {
    let mut sealed = Vec::new();
    let mut sealer = Sealer::new(key, Mode::Deterministic, Form::Text);
    sealer.seal(value.as_bytes(), &seal::NO_NONCE, &mut sealed)?;
    match String::from_utf8(sealed) {
        Ok(sealed) => Ok(sealed),
        Err(_) => internal_err!("{NAME} gave no text"),
    }
}

impl Keyed for EncryptDeterministic {
    const NAME: &'static str = NAME;

    fn signature() -> Signature {
        seal::signature(1, Volatility::Immutable)
    }

    fn data_type(args: &ReturnFieldArgs) -> DataType {
        Form::planned(args).data_type()
    }

    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = Values::from_argument(NAME, arguments::argument(NAME, args, 0)?)?;
        let key = key::called(NAME, keys, args)?;
        let mut sealer = Sealer::new(key, Mode::Deterministic, values.form());
        values.map(NAME, args.number_rows, values.is_constant(), |_, value, sealed| {
            sealer.seal(value, &seal::NO_NONCE, sealed)?;
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
    fn values_are_those_of_an_independent_aes_siv() {
        // Python: cryptography's AESSIV under the derived key.
        let sealed = |value: &str, key: &str| {
            one(EncryptDeterministic::bound(demo_keys()), vec![text(value), text(key)]).unwrap()
        };
        assert_eq!(
            sealed("ada@example.com", "demo"),
            "13797227.d.7v9xbFlZsWwqdj6Dd3M8_jDFa2PKqFL0P6I45IIxQw"
        );
        assert_eq!(sealed("", "demo"), "13797227.d.GzyMnuNjh02GqWmN8IROmQ");
        assert_ne!(sealed("ada@example.com", "other"), sealed("ada@example.com", "demo"));
    }

    #[test]
    fn the_ciphertext_of_a_text_is_that_of_a_statement() {
        let keys = demo_keys();
        let ring = keys.get("demo", key::KeyUse::Encrypt).unwrap();
        let made = ciphertext(ring.newest(), "ada").unwrap();
        let function = EncryptDeterministic::bound(demo_keys());
        assert_eq!(Some(made), one(function, vec![text("ada"), text("demo")]));
    }

    #[test]
    fn equal_values_are_equal() {
        let column = texts(&[Some("ada"), Some("ada"), Some("Ada"), None]);
        let function = EncryptDeterministic::bound(demo_keys());
        let rows = call(function, vec![column, text("demo")]).unwrap();
        assert!(rows[0] == rows[1] && rows[0] != rows[2] && rows[3].is_none());
    }
}
