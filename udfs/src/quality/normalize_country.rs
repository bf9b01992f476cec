//! `normalize_country(text)`: a country's two letters of ISO 3166-1, NULL when there is doubt.
//!
//! Read are the codes of two and three letters and of three digits, and the names of each country
//! that are in use in English, with a few in its own language; case, accents, signs and blanks do
//! not count. A name that two countries share (Congo, Korea), and one that is none, is NULL. UK,
//! England, Scotland and Wales are GB. NULL in, NULL out.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::StringViewArray;
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::countries::COUNTRIES;
use crate::fuzzy::arguments::{map_text, scalar_function, texts};
use crate::identity::normalize_name::folded;

#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "A country's two letters of ISO 3166-1, from its codes (two letters, three letters, three digits) or its names in use. NULL for a name that is none, or that two countries share.",
    syntax_example = "normalize_country(text)",
    sql_example = r#"```sql
> SELECT normalize_country('deu') AS a, normalize_country('The Netherlands') AS b,
         normalize_country('Korea') AS c;
+----+----+---+
| a  | b  | c |
+----+----+---+
| DE | NL |   |
+----+----+---+
```"#,
    argument(name = "text", description = "A country's code or name.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormalizeCountryFunction {
    signature: Signature,
}

scalar_function!(
    NormalizeCountryFunction,
    "normalize_country",
    texts(1),
    DataType::Utf8View,
    normalize_country
);

fn normalize_country(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
) -> Result<ColumnarValue> {
    map_text(name, arguments, rows, |text, rows| {
        let codes = (0..rows).map(|row| text.get(row).and_then(code));
        Ok(Arc::new(codes.collect::<StringViewArray>()))
    })
}

/// The longest text that may be a country, in bytes.
const LENGTH_MAX: usize = 100;

/// Two letters by every spelling that is known.
static CODES: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    let mut codes = HashMap::new();
    for (two, three, digits, names) in &COUNTRIES {
        for spelling in [two, three, digits].into_iter().chain(names.iter()) {
            codes.insert(folded(spelling), *two);
        }
    }
    codes
});

fn code(text: &str) -> Option<&'static str> {
    let text = text.trim();
    if text.len() > LENGTH_MAX {
        return None;
    }
    CODES.get(&folded(text)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_countries_share_a_spelling() {
        let mut seen: HashMap<String, &str> = HashMap::new();
        for (two, three, digits, names) in &COUNTRIES {
            for spelling in [two, three, digits].into_iter().chain(names.iter()) {
                let before = seen.insert(folded(spelling), two);
                assert!(before.is_none_or(|before| before == *two), "{spelling} {before:?} {two}");
            }
        }
        assert!(COUNTRIES.is_sorted_by_key(|country| country.0));
    }

    #[test]
    fn codes_and_names_are_read() {
        for (text, expected) in [
            ("us", "US"),
            ("U.S.A.", "US"),
            ("united  states of AMERICA", "US"),
            ("840", "US"),
            ("Cote d’Ivoire", "CI"),
            ("türkiye", "TR"),
            ("Curacao", "CW"),
            ("uk", "GB"),
            (" deutschland ", "DE"),
            ("Viet-Nam", "VN"),
            ("Bosnia & Herzegovina", "BA"),
        ] {
            assert_eq!(code(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_in_doubt_is_null() {
        let long = "x".repeat(1_000_000);
        for text in ["", " ", "Congo", "Korea", "America", "XX", "N/A", "Bavaria", "8", &long] {
            assert_eq!(code(text), None, "{text:.20}");
        }
    }
}
