//! `normalize_name(text)`: a person's name in one spelling.
//!
//! Compatibility decomposition (NFKD), accents off (é is e, ß is ss, ø is o), lower case; an
//! apostrophe or full stop goes without a trace (O'Brien is obrien), any other sign and any run of
//! blanks becomes one blank. Words keep their order; titles stay, since "Dr" may be a name. Letters
//! of other scripts stay. NULL for NULL; a text without letters or digits gives the empty text.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::fuzzy::arguments::{scalar_function, text_to_text, texts};
use crate::fuzzy::phonetic::unaccented;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Brings a person's name into one spelling: lower case, accents off, apostrophes and full stops dropped, other signs and blanks as one blank. The order of words stays.",
    syntax_example = "normalize_name(text)",
    sql_example = r#"```sql
> SELECT normalize_name('  O''Brien-MÜLLER,  Seán ') AS name;
+--------------------+
| name               |
+--------------------+
| obrien muller sean |
+--------------------+
```"#,
    argument(name = "text", description = "A name.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormalizeNameFunction {
    signature: Signature,
}

scalar_function!(
    NormalizeNameFunction,
    "normalize_name",
    texts(1),
    DataType::Utf8View,
    normalize_name
);

fn normalize_name(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    text_to_text(name, arguments, rows, |text| Some(folded(text)))
}

/// Lower-case words without accents and signs, one blank between them.
pub(crate) fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut blank = false;
    let lower = text.nfkd().flat_map(char::to_lowercase);
    for letter in lower.nfkd().filter(|letter| !is_combining_mark(*letter)) {
        if is_dropped(letter) {
            continue;
        }
        if !letter.is_alphanumeric() {
            blank = true;
            continue;
        }
        if std::mem::take(&mut blank) && !folded.is_empty() {
            folded.push(' ');
        }
        match unaccented(letter) {
            Some(plain) => folded.extend(plain.chars().map(|letter| letter.to_ascii_lowercase())),
            None => folded.push(letter),
        }
    }
    folded
}

/// Apostrophes and full stops, as in O'Brien and J.R.
fn is_dropped(letter: char) -> bool {
    matches!(letter, '\'' | '\u{2018}' | '\u{2019}' | '\u{02BC}' | '`' | '\u{00B4}' | '.')
}

#[cfg(test)]
mod tests {
    use super::folded;
    use crate::fuzzy::testing::text_table;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_name_meet() {
        text_table(
            "normalize_name",
            &[
                ("  O'Brien-MÜLLER,  Seán ", "obrien muller sean"),
                ("O’Brien", "obrien"),
                ("J.R. Smith", "jr smith"),
                ("Strauß", "strauss"),
                ("STRAUSS", "strauss"),
                ("Łukasz Ørsted", "lukasz orsted"),
                ("ﬁnn", "finn"),
                ("İpek", "ipek"),
                ("山田 太郎", "山田 太郎"),
                ("...", ""),
                ("", ""),
            ],
        );
    }

    proptest! {
        #[test]
        fn normalizing_twice_changes_nothing(text in any::<String>()) {
            let once = folded(&text);
            prop_assert_eq!(folded(&once), once);
        }
    }
}
