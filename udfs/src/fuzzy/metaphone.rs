//! `metaphone(text)`: how a name sounds in English, in consonants.
//!
//! Lawrence Philips 1990, in Apache Commons Codec's form; the code is not cut.
//! Accents are taken off first and other letters than A to Z dropped, see [`super::phonetic`]; a
//! text without letters gives the empty text. NULL for NULL. Crate rphonetic.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;
use rphonetic::{Encoder, Metaphone};

use super::arguments::{scalar_function, text_to_text, texts};
use super::phonetic::letters;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Metaphone code of a name: how it sounds in English, in consonants, all of them.",
    syntax_example = "metaphone(text)",
    sql_example = r#"```sql
> SELECT metaphone('jumped') AS code;
+------+
| code |
+------+
| JMPT |
+------+
```"#,
    argument(name = "text", description = "A name, in Latin letters.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MetaphoneFunction {
    signature: Signature,
}

scalar_function!(MetaphoneFunction, "metaphone", texts(1), DataType::Utf8View, metaphone);

fn metaphone(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    let encoder = Metaphone::new(None);
    text_to_text(name, arguments, rows, |text| Some(encoder.encode(&letters(text))))
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::text_table;

    #[test]
    fn published_codes() {
        text_table(
            "metaphone",
            &[
                ("howl", "HL"),
                ("testing", "TSTNK"),
                ("The", "0"),
                ("quick", "KK"),
                ("brown", "BRN"),
                ("fox", "FKS"),
                ("jumped", "JMPT"),
                ("over", "OFR"),
                ("lazy", "LS"),
                ("dogs", "TKS"),
                ("Müller", "MLR"),
                ("metaphone", "MTFN"),
                ("", ""),
                ("日本", ""),
            ],
        );
    }
}
