//! `rekey(value, 'key')`: what an older generation of a key sealed, sealed by the newest.
//!
//! The value is opened and sealed inside; nobody sees it, so the right to encrypt is enough. What
//! was randomized stays randomized, under its old nonce, which the newest generation has not seen;
//! deterministic values and data keys stay what they are. A value that says that the newest
//! generation sealed it is given back as it is. NULL in, NULL out.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::key::{self, KeySet, Mode};
use super::keyed::Keyed;
use super::seal::{self, Form, Opener, Sealer, Values};

const NAME: &str = "rekey";

/// The function `rekey`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Seals with the newest generation of a key what an older one sealed, without \
showing it; what the newest sealed stays as it is. Works for what `encrypt`, \
`encrypt_deterministic` and `new_data_key` gave: `UPDATE t SET email = rekey(email, 'key')`, then \
the older generation can be retired.",
    syntax_example = "rekey(value, 'key')",
    sql_example = r#"```sql
> SELECT decrypt(rekey(encrypt('ada', 'demo'), 'demo'), 'demo') AS name;
+------+
| name |
+------+
| ada  |
+------+
```"#,
    argument(name = "value", description = "What was encrypted. NULL gives NULL."),
    argument(
        name = "key",
        description = "Name of a key that you may use, as a literal; `'name@2'` is its second generation."
    ),
    related_udf(name = "encrypt")
)]
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Rekey;

impl Keyed for Rekey {
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
        let modes = [Mode::Randomized, Mode::Deterministic, Mode::DataKey];
        let form = values.form();
        let mut opener = Opener::new(NAME, ring, &modes, form);
        let mut sealers = modes.map(|mode| (mode, Sealer::new(ring.newest(), mode, form)));
        values.map(NAME, args.number_rows, values.is_constant(), |_, value, sealed| {
            if opener.is_newest(value) {
                sealed.extend_from_slice(value);
                return Ok(true);
            }
            let opened = opener.open(value)?;
            let fitting = sealers.iter_mut().find(|(mode, _)| *mode == opened.mode);
            let Some((_, sealer)) = fitting else {
                return internal_err!("{NAME} cannot seal what it opened");
            };
            sealer.seal(&opened.value, &opened.nonce, sealed)?;
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

#[cfg(test)]
mod tests {
    use super::super::arguments::testing::{call, one, text};
    use super::super::decrypt::Decrypt;
    use super::super::encrypt::Encrypt;
    use super::super::encrypt_deterministic::EncryptDeterministic;
    use super::super::key::tests::set;
    use super::super::key::{Key, KeyRing};
    use super::*;

    fn ring(newest: u8, older: &[u8]) -> Arc<KeySet> {
        let key = |number: u8| {
            Arc::new(Key::with_id("k", &format!("key-{number}"), &[number; 32]).unwrap())
        };
        let older = older.iter().map(|number| key(*number)).collect();
        Arc::new(set([KeyRing::new(key(newest), older)]))
    }

    #[test]
    fn what_the_old_generation_sealed_the_new_one_seals() {
        let args = |value: &str| vec![text(value), text("k")];
        let (old, both, new) = (ring(1, &[]), ring(2, &[1]), ring(2, &[]));
        let random = one(Encrypt::bound(Arc::clone(&old)), args("ada")).unwrap();
        let equal = one(EncryptDeterministic::bound(old), args("ada")).unwrap();
        for (value, start) in [(random, "key-2.r."), (equal, "key-2.d.")] {
            let sealed = one(Rekey::bound(Arc::clone(&both)), args(&value)).unwrap();
            assert!(sealed.starts_with(start), "{sealed}");
            assert_eq!(one(Decrypt::bound(Arc::clone(&new)), args(&sealed)).unwrap(), "ada");
            // Once more changes nothing.
            assert_eq!(one(Rekey::bound(Arc::clone(&both)), args(&sealed)).unwrap(), sealed);
            assert!(call(Rekey::bound(Arc::clone(&new)), args(&value)).is_err());
        }
        let direct = one(EncryptDeterministic::bound(Arc::clone(&new)), args("ada")).unwrap();
        let old = one(EncryptDeterministic::bound(ring(1, &[])), args("ada")).unwrap();
        assert_eq!(one(Rekey::bound(both), args(&old)).unwrap(), direct);
    }
}
