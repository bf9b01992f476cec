//! `fpe_decrypt(text, 'key' [, 'alphabet' [, tweak]])`: undoes `fpe_encrypt`.
//!
//! FF1 of NIST SP 800-38G with AES-256 under the key's sub-key for encryption; alphabets, the
//! least domain and errors are those of the module `fpe`. NULL text or tweak gives NULL.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion_common::Result;
use datafusion_expr::Signature;
use datafusion_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_macros::user_doc;

use super::fpe::{self, Direction};
use super::key::KeySet;
use super::keyed::Keyed;

const NAME: &str = "fpe_decrypt";

/// The function `fpe_decrypt`, with the keys of one statement or with none.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Undoes `fpe_encrypt` under the same key, alphabet and tweak. With another key \
or tweak the answer is other text of the same form, not an error.",
    syntax_example = "fpe_decrypt(text, 'key' [, 'alphabet' [, tweak]])",
    sql_example = r#"```sql
> SELECT fpe_decrypt(fpe_encrypt('4111-1111-1111-1111', 'demo'), 'demo') AS card;
+---------------------+
| card                |
+---------------------+
| 4111-1111-1111-1111 |
+---------------------+
```"#,
    argument(name = "text", description = "Text that `fpe_encrypt` gave. NULL gives NULL."),
    argument(name = "key", description = "Name of a key that you may use, as a literal."),
    argument(
        name = "alphabet",
        description = "'digits' (default), 'hexadecimal', 'lowercase', 'uppercase', 'base36' \
(digits and lowercase) or 'alphanumeric', as a literal. Characters outside a named \
alphabet stay in place."
    ),
    argument(
        name = "tweak",
        description = "Public text that varies the result, such as the name of the column."
    ),
    related_udf(name = "fpe_encrypt")
)]
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct FpeDecrypt;

impl Keyed for FpeDecrypt {
    const NAME: &'static str = NAME;

    fn signature() -> Signature {
        fpe::signature()
    }

    fn planned(keys: Option<&Arc<KeySet>>, args: &ReturnFieldArgs) -> Result<FieldRef> {
        fpe::return_field(NAME, keys, args)
    }

    fn call(keys: Option<&Arc<KeySet>>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        fpe::invoke(NAME, keys, Direction::Decrypt, args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}
