//! `nysiis(text)`: how a name sounds in English, in at most six letters.
//!
//! New York State Identification and Intelligence System 1970, cut at six letters as published.
//! Accents are taken off first and other letters than A to Z dropped, see [`super::phonetic`]; a
//! text without letters gives the empty text. NULL for NULL. Crate rphonetic.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;
use rphonetic::{Encoder, Nysiis};

use super::arguments::{scalar_function, text_to_text, texts};
use super::phonetic::letters;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "NYSIIS code of a name: how it sounds in English, in at most six letters; it keeps more of the vowels than Soundex.",
    syntax_example = "nysiis(text)",
    sql_example = r#"```sql
> SELECT nysiis('Johnson') AS code;
+--------+
| code   |
+--------+
| JANSAN |
+--------+
```"#,
    argument(name = "text", description = "A name, in Latin letters.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NysiisFunction {
    signature: Signature,
}

scalar_function!(NysiisFunction, "nysiis", texts(1), DataType::Utf8View, nysiis);

fn nysiis(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    let encoder = Nysiis::default();
    text_to_text(name, arguments, rows, |text| Some(encoder.encode(&letters(text))))
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::text_table;

    #[test]
    fn published_codes() {
        text_table(
            "nysiis",
            &[
                ("Johnson", "JANSAN"),
                ("Jonson", "JANSAN"),
                ("MacDonald", "MCDANA"),
                ("Knight", "NAGT"),
                ("Schmidt", "SNAD"),
                ("Müller", "MALAR"),
                ("", ""),
            ],
        );
    }
}
