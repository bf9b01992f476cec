//! `normalize_email(text)`: an e-mail address in one spelling, NULL when it is none.
//!
//! Blanks around it and a `mailto:` go, the whole address is lower-cased and brought to NFC. The
//! part after `+` goes for every provider (RFC 5233 subaddresses). For gmail.com and
//! googlemail.com, which are one, dots before the @ go too, since Gmail ignores them. NULL when
//! there is not one @ with a local part of up to 64 bytes and a domain of dotted labels (letters of
//! any script, digits, inner hyphens) of up to 253 bytes. A domain in its `xn--` spelling stays so:
//! no IDNA conversion is made. NULL for NULL.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::fuzzy::arguments::{scalar_function, text_to_text, texts};

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Brings an e-mail address into one spelling: lower case, without blanks around it and without a +tag; for Gmail also without dots before the @ and with gmail.com for googlemail.com. NULL when the text is no address.",
    syntax_example = "normalize_email(text)",
    sql_example = r#"```sql
> SELECT normalize_email(' Jane.Doe+shop@GoogleMail.com ') AS email;
+-------------------+
| email             |
+-------------------+
| janedoe@gmail.com |
+-------------------+
```"#,
    argument(name = "text", description = "An e-mail address.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormalizeEmailFunction {
    signature: Signature,
}

scalar_function!(
    NormalizeEmailFunction,
    "normalize_email",
    texts(1),
    DataType::Utf8View,
    normalize_email
);

fn normalize_email(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    text_to_text(name, arguments, rows, normalized)
}

/// Longest address (RFC 5321) with room for blanks and `mailto:` around it, in bytes.
const LENGTH_MAX: usize = 1024;

fn normalized(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > LENGTH_MAX {
        return None;
    }
    let lower: String = text.nfc().flat_map(char::to_lowercase).nfc().collect();
    let address = lower.strip_prefix("mailto:").unwrap_or(&lower).trim();
    let (local, domain) = address.split_once('@')?;
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if !is_domain(domain) {
        return None;
    }
    let local = match local.split_once('+') {
        Some((before, _)) if !before.is_empty() => before,
        _ => local,
    };
    let (local, domain) = match domain {
        "gmail.com" | "googlemail.com" => (local.replace('.', ""), "gmail.com"),
        _ => (local.to_owned(), domain),
    };
    is_local_part(&local).then(|| format!("{local}@{domain}"))
}

/// Unquoted local parts: no blank, no sign that RFC 5322 wants quoted, no empty dotted piece.
fn is_local_part(local: &str) -> bool {
    let forbidden = |letter: char| {
        letter.is_whitespace() || letter.is_control() || "@()<>[]:;,\\\"".contains(letter)
    };
    (1..=64).contains(&local.len())
        && !local.contains(forbidden)
        && local.split('.').all(|piece| !piece.is_empty())
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(is_label_letter)
    };
    domain.len() <= 253 && domain.contains('.') && domain.split('.').all(is_label)
}

/// Letters, digits and hyphens; of other scripts the combining marks too, which spell words there.
fn is_label_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '-' || is_combining_mark(letter)
}

#[cfg(test)]
mod tests {
    use super::normalized;
    use crate::fuzzy::testing::{one, text, text_table};
    use arrow::array::Array;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_address_meet() {
        text_table(
            "normalize_email",
            &[
                (" Jane.Doe+shop@GoogleMail.com ", "janedoe@gmail.com"),
                ("jane.doe@example.com", "jane.doe@example.com"),
                ("Jane.Doe+x+y@Example.COM.", "jane.doe@example.com"),
                ("mailto:a@b.co", "a@b.co"),
                ("+@example.com", "+@example.com"),
                ("jürgen@müller.de", "jürgen@müller.de"),
                ("ju\u{308}rgen@mu\u{308}ller.de", "jürgen@müller.de"),
                ("o'brien@example.co.uk", "o'brien@example.co.uk"),
            ],
        );
    }

    #[test]
    fn what_is_no_address_is_null() {
        let long = format!("{}@example.com", "a".repeat(65));
        let cases = [
            "",
            " ",
            "a",
            "@",
            "a@",
            "@b.co",
            "a@b",
            "a@@b.co",
            "a b@c.de",
            "a@b..co",
            "a@-b.co",
            ".a@b.co",
            "a..b@c.de",
            "...@gmail.com",
            "a@b@c.de",
            "<a@b.co>",
            &long,
        ];
        for case in cases {
            assert!(one("normalize_email", &[text(case)]).is_null(0), "{case:?}");
        }
    }

    proptest! {
        #[test]
        fn normalizing_twice_changes_nothing(
            local in "[a-zA-ZüÜİ.+_'-]{1,12}",
            domain in "(gmail\\.com|GoogleMail\\.com|[a-zA-Zé-]{1,8}\\.[a-z]{2,3}\\.?)",
        ) {
            if let Some(once) = normalized(&format!("{local}@{domain}")) {
                prop_assert_eq!(normalized(&once), Some(once));
            }
        }
    }
}
