//! `double_metaphone(text)`: two codes of how a name may sound, as a list of one or two.
//!
//! Lawrence Philips 2000, codes of at most four letters: the primary one, then the alternate one if
//! it differs. Accents are taken off first and other letters than A to Z dropped, see
//! [`super::phonetic`]; a text without letters gives an empty list. NULL for NULL. Crate rphonetic.

use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;
use rphonetic::DoubleMetaphone;

use super::arguments::{list_of_text, map_text, scalar_function, text_to_list, texts};
use super::phonetic::letters;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Double Metaphone codes of a name: the primary code of how it sounds and, if another reading gives another code, the alternate. Two names may be the same when they share a code (`array_has_any`).",
    syntax_example = "double_metaphone(text)",
    sql_example = r#"```sql
> SELECT double_metaphone('Schmidt') AS codes;
+------------+
| codes      |
+------------+
| [XMT, SMT] |
+------------+
```"#,
    argument(name = "text", description = "A name, in Latin letters.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DoubleMetaphoneFunction {
    signature: Signature,
}

scalar_function!(
    DoubleMetaphoneFunction,
    "double_metaphone",
    texts(1),
    list_of_text(),
    double_metaphone
);

fn double_metaphone(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    let encoder = DoubleMetaphone::default();
    map_text(name, arguments, rows, |text, rows| {
        Ok(text_to_list(text, rows, |value, push| {
            let codes = encoder.double_metaphone(&letters(value));
            let (primary, alternate) = (codes.primary(), codes.alternate());
            if !primary.is_empty() {
                push(&primary);
            }
            if !alternate.is_empty() && alternate != primary {
                push(&alternate);
            }
        }))
    })
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::text_list;

    #[test]
    fn published_codes() {
        let cases: [(&str, &[&str]); 7] = [
            ("Schmidt", &["XMT", "SMT"]),
            ("Smith", &["SM0", "XMT"]),
            ("Thompson", &["TMPS"]),
            ("Knight", &["NT"]),
            ("Müller", &["MLR"]),
            ("", &[]),
            ("日本", &[]),
        ];
        for (name, codes) in cases {
            assert_eq!(text_list("double_metaphone", name, None), codes, "{name}");
        }
    }
}
