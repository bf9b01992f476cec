//! `fpe_decrypt(text, 'key' [, 'alphabet' [, tweak]])`: undoes `fpe_encrypt`.
//!
//! FF1 of NIST SP 800-38G with AES-256 under the key's sub-key for encryption; alphabets, the
//! least domain and errors are those of the module `fpe`. NULL text or tweak gives NULL.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, internal_err};
use datafusion_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_expr::{ScalarUDFImpl, Signature};
use datafusion_macros::user_doc;

use super::fpe::{self, Direction};
use super::key::KeySet;

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
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct FpeDecrypt {
    signature: Signature,
    keys: Option<Arc<KeySet>>,
}

impl FpeDecrypt {
    /// The function by name alone: listed and documented, refused when planned.
    pub fn unbound() -> Self {
        Self { signature: fpe::signature(), keys: None }
    }

    /// The function with the keys of one statement.
    pub fn bound(keys: Arc<KeySet>) -> Self {
        Self { signature: fpe::signature(), keys: Some(keys) }
    }
}

impl ScalarUDFImpl for FpeDecrypt {
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
        fpe::return_field(NAME, self.keys.as_ref(), &args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        fpe::invoke(NAME, self.keys.as_ref(), Direction::Decrypt, &args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}
