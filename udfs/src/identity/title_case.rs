//! `title_case(text)`: a name in capitals or small letters with its case.
//!
//! Letters are composed first (NFC), so that an accent that comes after its letter is a part of it.
//! The first letter of each word is a capital and all others are small, by the whole Unicode: a
//! Greek word ends in ς. Words are runs of letters and digits; a combining mark never ends one. Of
//! a first letter whose capital is several the first is a capital alone (ß gives Ss), and ß within
//! a word stays. NULL in, NULL out.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::fuzzy::arguments::{scalar_function, text_to_text, texts};

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "The first letter of each word as a capital and all others small, as a name is written. Letters are composed (NFC) first, a combining mark never ends a word, a Greek word ends in its own sigma, and ß stays.",
    syntax_example = "title_case(text)",
    sql_example = r#"```sql
> SELECT title_case('ANNA O''BRIEN-MÜLLER') AS name;
+---------------------+
| name                |
+---------------------+
| Anna O'Brien-Müller |
+---------------------+
```"#,
    argument(name = "text", description = "A name.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TitleCaseFunction {
    signature: Signature,
}

scalar_function!(TitleCaseFunction, "title_case", texts(1), DataType::Utf8View, title_case);

fn title_case(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    text_to_text(name, arguments, rows, |text| Some(titled(text)))
}

fn titled(text: &str) -> String {
    let small = text.nfc().collect::<String>().to_lowercase();
    // Making small may take a letter apart (İ), which has its mark back before words are told.
    let small: String = small.nfc().collect();
    let mut titled = String::with_capacity(small.len());
    let mut is_within = false;
    for letter in small.chars() {
        if is_combining_mark(letter) {
            titled.push(letter);
        } else if !letter.is_alphanumeric() {
            is_within = false;
            titled.push(letter);
        } else if std::mem::replace(&mut is_within, true) {
            titled.push(letter);
        } else {
            push_capital(letter, &mut titled);
        }
    }
    titled.nfc().collect()
}

/// A letter as the first of a word.
fn push_capital(letter: char, titled: &mut String) {
    match letter {
        // Two letters in one, which have a form of their own for the beginning of a word.
        'ǆ' => titled.push('ǅ'),
        'ǉ' => titled.push('ǈ'),
        'ǌ' => titled.push('ǋ'),
        'ǳ' => titled.push('ǲ'),
        // Georgian has capitals for texts in capitals alone.
        '\u{10D0}'..='\u{10FF}' => titled.push(letter),
        _ => {
            let mut capital = letter.to_uppercase();
            titled.extend(capital.next());
            titled.extend(capital.flat_map(char::to_lowercase));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::titled;
    use crate::fuzzy::testing::text_table;

    #[test]
    fn names_have_their_case() {
        text_table(
            "title_case",
            &[
                ("ANNA O'BRIEN-MÜLLER", "Anna O'Brien-Müller"),
                ("MU\u{308}LLER", "M\u{fc}ller"),
                ("FRANC\u{327}OIS", "Fran\u{e7}ois"),
                ("ßß", "Ssß"),
                ("strauß", "Strauß"),
                ("ΟΔΥΣΣΕΥΣ ΣΑΣ", "Οδυσσευς Σας"),
                ("İPEK", "İpek"),
                ("ﬁnn", "Finn"),
                ("ǆ", "ǅ"),
                ("ნინო", "ნინო"),
                // A mark without a letter composed with it stays within its word.
                ("X\u{327}Y", "X\u{327}y"),
                ("山田 太郎", "山田 太郎"),
                ("", ""),
            ],
        );
    }

    proptest! {
        /// Nor is it of matter whether accents are parts of their letters.
        #[test]
        fn accents_may_stand_behind_their_letters(text in "[a-zA-ZÄÖÜäöüÇçéÉñÑ '-]{0,20}") {
            use unicode_normalization::UnicodeNormalization;
            let apart: String = text.nfd().collect();
            prop_assert_eq!(titled(&apart), titled(&text));
            let once = titled(&text);
            prop_assert_eq!(titled(&once), once);
        }
    }
}
