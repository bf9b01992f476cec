//! `soundex(text)`: the first letter of a name and three digits for its consonants.
//!
//! American Soundex as the US National Archives define it: H and W do not separate equal digits.
//! Accents are taken off first and other letters than A to Z dropped, see [`super::phonetic`]; a
//! text without letters gives the empty text. NULL for NULL. Crate rphonetic.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;
use rphonetic::{Encoder, Soundex};

use super::arguments::{scalar_function, text_to_text, texts};
use super::phonetic::letters;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "American Soundex of a name: its first letter and three digits for the consonants that follow. Names that sound alike in English share a code.",
    syntax_example = "soundex(text)",
    sql_example = r#"```sql
> SELECT soundex('Robert') AS code;
+------+
| code |
+------+
| R163 |
+------+
```"#,
    argument(name = "text", description = "A name, in Latin letters.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SoundexFunction {
    signature: Signature,
}

scalar_function!(SoundexFunction, "soundex", texts(1), DataType::Utf8View, soundex);

fn soundex(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    let encoder = Soundex::default();
    text_to_text(name, arguments, rows, |text| Some(encoder.encode(&letters(text))))
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::text_table;

    #[test]
    fn published_codes() {
        text_table(
            "soundex",
            &[
                ("Robert", "R163"),
                ("Rupert", "R163"),
                ("Ashcraft", "A261"),
                ("Tymczak", "T522"),
                ("Pfister", "P236"),
                ("Honeyman", "H555"),
                ("Müller", "M460"),
                ("Lee", "L000"),
                ("", ""),
                ("123", ""),
            ],
        );
    }
}
