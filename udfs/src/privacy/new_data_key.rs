//! `new_data_key('key')`: a random key for the values of one subject, itself sealed under a key.
//!
//! 256 random bits, sealed as the module `seal` says in the mode `k`; each row gets its own. Kept
//! in a table with the subject's id, it seals with `encrypt_with` and opens with `decrypt_with`;
//! once its row is gone nothing opens the subject's values any more, wherever copies of them are.

use std::sync::Arc;

use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Documentation, ScalarFunctionArgs};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::key::{self, KeySet, Mode};
use super::keyed::Keyed;
use super::seal::{Form, Sealer};

const NAME: &str = "new_data_key";

/// The function `new_data_key`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "A new random data key for one subject, sealed under a key: keep one a subject in \
a table, encrypt the subject's values with `encrypt_with`, and forget the subject (FORGET \
SUBJECT; DELETE leaves earlier versions of the table) to make all of them unreadable. Each row gets a key of its own.",
    syntax_example = "new_data_key('key')",
    sql_example = r#"```sql
> SELECT length(new_data_key('demo')) AS length;
+--------+
| length |
+--------+
| 97     |
+--------+
```"#,
    argument(
        name = "key",
        description = "Name of a key that you may use, as a literal; `'name@2'` is its second generation."
    ),
    related_udf(name = "encrypt_with"),
    related_udf(name = "decrypt_with")
)]
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct NewDataKey;

impl Keyed for NewDataKey {
    const NAME: &'static str = NAME;

    fn signature() -> Signature {
        Signature::coercible(vec![arguments::text_coercion()], Volatility::Volatile)
    }

    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let key = key::called(NAME, keys, args)?;
        let random = key::random(NAME, keys)?;
        let mut sealer = Sealer::new(key, Mode::DataKey, Form::Text);
        let mut sealed = Vec::new();
        arguments::text_rows(args.number_rows, false, |_, text| {
            sealed.clear();
            sealer.seal(&random.block()?, &random.nonce()?, &mut sealed)?;
            text.push_str(&String::from_utf8_lossy(&sealed));
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

#[cfg(test)]
mod tests {
    use super::super::arguments::testing::{one, text};
    use super::super::key::tests::demo_keys;
    use super::*;

    #[test]
    fn each_call_makes_another_key() {
        let keys = demo_keys();
        let made = || one(NewDataKey::bound(Arc::clone(&keys)), vec![text("demo")]).unwrap();
        let (one, other) = (made(), made());
        assert!(one.starts_with("13797227.k.") && one != other, "{one} {other}");
    }
}
