//! `normalize_phone(text [, country])`: a telephone number as E.164, NULL when it is none.
//!
//! E.164 is `+`, the country's calling code and the national number, digits only. A number written
//! nationally needs the country (ISO 3166 alpha-2, any case); one that starts with `+` does not.
//! Only numbers that the country's numbering plan knows are given (libphonenumber's metadata, crate
//! phonenumber); extensions are dropped. An unknown country is an error; NULL for NULL.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;
use phonenumber::{Mode, country};

use crate::fuzzy::arguments::{
    columnar, map_text, optional_last, pair, per_distinct, scalar_function, text_coercion,
};
use crate::text::Text;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Brings a telephone number into E.164, the international spelling of digits only. NULL when it is no number of its country's plan. Numbers without a leading + need the country.",
    syntax_example = "normalize_phone(text [, country])",
    sql_example = r#"```sql
> SELECT normalize_phone('(0161) 496 0000', 'GB') AS phone;
+---------------+
| phone         |
+---------------+
| +441614960000 |
+---------------+
```"#,
    argument(name = "text", description = "A telephone number."),
    argument(
        name = "country",
        description = "Two letters of the country (ISO 3166) whose national spelling to expect."
    )
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormalizePhoneFunction {
    signature: Signature,
}

scalar_function!(
    NormalizePhoneFunction,
    "normalize_phone",
    optional_last(vec![text_coercion(), text_coercion()]),
    DataType::Utf8View,
    normalize_phone
);

fn normalize_phone(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    if arguments.len() == 1 {
        return map_text(name, arguments, rows, |text, rows| {
            let numbers = (0..rows).map(|row| text.get(row).and_then(|text| e164(text, None)));
            Ok(Arc::new(numbers.collect::<StringViewArray>()))
        });
    }
    let (text, country) = pair(name, arguments)?;
    columnar(arguments, rows, |rows| {
        per_distinct(&text, &country, rows, |text, country, rows| {
            in_country(name, text, country, rows)
        })
    })
}

fn in_country(name: &str, text: &Text, country: &Text, rows: usize) -> Result<ArrayRef> {
    let mut numbers = Vec::with_capacity(rows);
    let mut known: Option<(&str, country::Id)> = None;
    for row in 0..rows {
        let (Some(text), Some(country)) = (text.get(row), country.get(row)) else {
            numbers.push(None);
            continue;
        };
        let id = match known {
            Some((last, id)) if last == country => id,
            _ => country_id(name, country)?,
        };
        known = Some((country, id));
        numbers.push(e164(text, Some(id)));
    }
    Ok(Arc::new(StringViewArray::from_iter(numbers)))
}

/// Whether a country's two letters are of one with a numbering plan that is known.
pub fn has_numbering_plan(country: &str) -> bool {
    country.trim().to_ascii_uppercase().parse::<country::Id>().is_ok()
}

fn country_id(name: &str, country: &str) -> Result<country::Id> {
    match country.trim().to_ascii_uppercase().parse() {
        Ok(id) => Ok(id),
        Err(_) => exec_err!(
            "{name}: unknown country '{}'. Give two letters as in ISO 3166, such as 'GB'",
            country.chars().take(20).collect::<String>()
        ),
    }
}

/// Longest text that may hold a number, in bytes.
const LENGTH_MAX: usize = 250;

fn e164(text: &str, country: Option<country::Id>) -> Option<String> {
    let text = text.trim();
    if text.len() > LENGTH_MAX {
        return None;
    }
    let number = if text.starts_with(['+', '\u{FF0B}']) || text.starts_with("tel:+") {
        // The country would lend its own trunk prefix to a foreign number.
        phonenumber::parse(None, text).ok()?
    } else {
        let number = phonenumber::parse(Some(country?), text).ok()?;
        match number.code().source() {
            country::Source::Idd => dialled_abroad(text, number.code().value())?,
            _ => number,
        }
    };
    let valid = phonenumber::is_valid(&number);
    valid.then(|| number.format().mode(Mode::E164).to_string())
}

/// Reads a number that begins with an international prefix, as `0044 …`, by the code after it.
fn dialled_abroad(text: &str, code: u16) -> Option<phonenumber::PhoneNumber> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let code = code.to_string();
    let mut prefixes = ["0011", "011", "010", "00"].iter();
    let rest = prefixes
        .find_map(|prefix| digits.strip_prefix(prefix).filter(|rest| rest.starts_with(&code)))?;
    phonenumber::parse(None, format!("+{rest}")).ok()
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::{error_of, one, text};
    use arrow::array::{Array, AsArray};

    #[test]
    fn numbers_of_several_countries() {
        let cases = [
            ("(0161) 496 0000", "GB", "+441614960000"),
            ("+44 161 496 0000", "US", "+441614960000"),
            ("+44 (0)161 496 0000", "GB", "+441614960000"),
            ("0044 161 496 0000", "DE", "+441614960000"),
            ("011 44 161 496 0000", "US", "+441614960000"),
            ("(212) 736-5000", "us", "+12127365000"),
            ("030 123456", "DE", "+4930123456"),
            ("01 42 68 53 00", "FR", "+33142685300"),
            ("03-331 6005", "NZ", "+6433316005"),
        ];
        for (number, country, expected) in cases {
            let result = one("normalize_phone", &[text(number), text(country)]);
            assert!(result.is_valid(0), "{number} {country}");
            assert_eq!(result.as_string_view().value(0), expected, "{number} {country}");
        }
        let result = one("normalize_phone", &[text("+1 212 736 5000")]);
        assert_eq!(result.as_string_view().value(0), "+12127365000");
    }

    #[test]
    fn what_is_no_number_is_null() {
        let long = "1".repeat(100_000);
        for number in ["", " ", "abc", "12", "+", "+999 123", "+1 212", "☎", &long] {
            assert!(one("normalize_phone", &[text(number)]).is_null(0), "{number:?}");
            assert!(one("normalize_phone", &[text(number), text("US")]).is_null(0), "{number:?}");
        }
        assert!(one("normalize_phone", &[text("212 736 5000")]).is_null(0));
    }

    #[test]
    fn an_unknown_country_is_an_error() {
        let error = error_of("normalize_phone", &[text("212 736 5000"), text("Utopia")]);
        assert!(error.contains("unknown country 'Utopia'"), "{error}");
    }
}
