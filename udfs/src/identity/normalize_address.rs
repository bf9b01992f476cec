//! `normalize_address(text)`: a postal address line in one spelling.
//!
//! As `normalize_name` (lower case, accents off, signs as blanks), then each word that is a usual
//! abbreviation of a street type, direction or unit is written out, so that "12 Main St." and "12
//! main street" meet. The words are English (after USPS Publication 28, appendices B and C); of
//! German the ending "-str" is written out as "-strasse". A word with two readings takes the one of
//! an address line: "st" is street unless it comes first or right after the number, where it is
//! saint; "dr" is drive.
//! NULL for NULL.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::normalize_name::folded;
use crate::fuzzy::arguments::{scalar_function, text_to_text, texts};

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Brings a postal address line into one spelling: lower case, accents and signs off, usual abbreviations of street types, directions and units written out.",
    syntax_example = "normalize_address(text)",
    sql_example = r#"```sql
> SELECT normalize_address('12 N. Main St., Apt. 4B') AS address;
+-----------------------------------+
| address                           |
+-----------------------------------+
| 12 north main street apartment 4b |
+-----------------------------------+
```"#,
    argument(name = "text", description = "An address, or its street line.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormalizeAddressFunction {
    signature: Signature,
}

scalar_function!(
    NormalizeAddressFunction,
    "normalize_address",
    texts(1),
    DataType::Utf8View,
    normalize_address
);

fn normalize_address(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
) -> Result<ColumnarValue> {
    text_to_text(name, arguments, rows, |text| Some(normalized(text)))
}

/// An address in one spelling.
pub(crate) fn normalized(text: &str) -> String {
    let folded = folded(text);
    let mut address = String::with_capacity(folded.len() + 16);
    let mut before: Option<&str> = None;
    let mut words = folded.split(' ').filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        if before.is_some() {
            address.push(' ');
        }
        let (long, ending) = written_out(word, before, words.peek().copied());
        address.push_str(long);
        address.push_str(ending);
        before = Some(word);
    }
    address
}

/// The word that an abbreviation stands for, or the word itself, and an ending to add.
fn written_out<'a>(
    word: &'a str,
    before: Option<&str>,
    after: Option<&str>,
) -> (&'a str, &'static str) {
    let number_before = before.is_none_or(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    if word == "st" && number_before && after.is_some() {
        return ("saint", "");
    }
    match ABBREVIATIONS.binary_search_by_key(&word, |pair| pair.0) {
        Ok(at) => (ABBREVIATIONS[at].1, ""),
        // "hauptstr" is German for "hauptstrasse".
        Err(_) if word.len() > 5 && word.ends_with("str") => (word, "asse"),
        Err(_) => (word, ""),
    }
}

/// Abbreviation and word, sorted.
const ABBREVIATIONS: &[(&str, &str)] = &[
    ("aly", "alley"),
    ("apt", "apartment"),
    ("av", "avenue"),
    ("ave", "avenue"),
    ("bd", "boulevard"),
    ("bldg", "building"),
    ("blvd", "boulevard"),
    ("cct", "circuit"),
    ("cir", "circle"),
    ("cl", "close"),
    ("cres", "crescent"),
    ("crt", "court"),
    ("ct", "court"),
    ("ctr", "center"),
    ("dr", "drive"),
    ("drv", "drive"),
    ("e", "east"),
    ("expy", "expressway"),
    ("fl", "floor"),
    ("ft", "fort"),
    ("fwy", "freeway"),
    ("gdns", "gardens"),
    ("gr", "grove"),
    ("grv", "grove"),
    ("hts", "heights"),
    ("hwy", "highway"),
    ("jct", "junction"),
    ("ln", "lane"),
    ("mt", "mount"),
    ("n", "north"),
    ("ne", "northeast"),
    ("nw", "northwest"),
    ("pde", "parade"),
    ("pk", "park"),
    ("pkwy", "parkway"),
    ("pl", "place"),
    ("plz", "plaza"),
    ("rd", "road"),
    ("rm", "room"),
    ("rte", "route"),
    ("s", "south"),
    ("se", "southeast"),
    ("sq", "square"),
    ("st", "street"),
    ("ste", "suite"),
    ("str", "street"),
    ("sw", "southwest"),
    ("ter", "terrace"),
    ("tpke", "turnpike"),
    ("trl", "trail"),
    ("w", "west"),
    ("xing", "crossing"),
];

#[cfg(test)]
mod tests {
    use super::{ABBREVIATIONS, normalized};
    use crate::fuzzy::testing::text_table;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_address_meet() {
        text_table(
            "normalize_address",
            &[
                ("12 N. Main St., Apt. 4B", "12 north main street apartment 4b"),
                ("12 north MAIN street apartment 4B", "12 north main street apartment 4b"),
                ("5th Ave", "5th avenue"),
                ("12 St. James Rd", "12 saint james road"),
                ("St. James St", "saint james street"),
                ("10 Rue de l'Église", "10 rue de leglise"),
                ("Hauptstraße 5", "hauptstrasse 5"),
                ("Hauptstr. 5", "hauptstrasse 5"),
                ("", ""),
            ],
        );
    }

    #[test]
    fn the_table_is_sorted_and_final() {
        assert!(ABBREVIATIONS.is_sorted_by(|x, y| x.0 < y.0));
        for (_, word) in ABBREVIATIONS {
            assert!(ABBREVIATIONS.binary_search_by_key(word, |pair| pair.0).is_err(), "{word}");
        }
    }

    proptest! {
        #[test]
        fn normalizing_twice_changes_nothing(text in "([a-z0-9ß.,]{0,6} |St |Hauptstr )*") {
            let once = normalized(&text);
            prop_assert_eq!(normalized(&once), once);
        }
    }
}
