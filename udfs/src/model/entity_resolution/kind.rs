//! How a column is compared: named by the user, or read off its type and its values.

use super::address::is_address;
use super::column::{NONE, beginning};
use super::dates::is_date;
use super::values::Values;
use crate::privacy::bloom;

/// How the values of a column are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Kind {
    /// Equal or not.
    #[default]
    Exact,
    /// A name, a street, a town: by its letters.
    Name,
    /// Several words: by words and letters.
    Text,
    /// A quantity: by difference.
    Number,
    /// A day.
    Date,
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
    /// Digits and letters without meaning: by edits.
    Code,
    /// What `bloom_encode` has encoded: by bits.
    Bloom,
    /// A list: by the members that two have in common.
    Array,
    /// A postal address: by its house number, unit, postcode and words.
    Address,
}

/// The type that a column has in the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Declared {
    /// Text.
    #[default]
    Text,
    /// Whole numbers.
    Integer,
    /// Other numbers.
    Real,
    /// Dates and times.
    Day,
    /// True or false.
    Truth,
    /// Lists of values.
    List,
}

const KINDS: [(Kind, &str); 11] = [
    (Kind::Exact, "exact"),
    (Kind::Name, "name"),
    (Kind::Text, "text"),
    (Kind::Number, "number"),
    (Kind::Date, "date"),
    (Kind::Email, "email"),
    (Kind::Phone, "phone"),
    (Kind::Code, "code"),
    (Kind::Bloom, "bloom"),
    (Kind::Array, "array"),
    (Kind::Address, "address"),
];

/// Distinct values that are looked at, and of each the beginning: a text of ten megabytes is read
/// no further than it is compared.
const LOOKED_AT: usize = 4000;

impl Kind {
    /// The kind's name in SQL.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("exact", |(_, name)| name)
    }

    /// The kind of a name.
    pub fn parse(name: &str) -> Option<Self> {
        KINDS.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    /// The names of all kinds.
    pub fn names() -> String {
        KINDS.map(|(_, name)| name).join(", ")
    }

    /// The kind that a column's type and the records' `codes` into its values suggest.
    pub fn detect(name: &str, declared: Declared, codes: &[u32], values: &Values) -> Self {
        let known = codes.iter().filter(|&&code| code != NONE).count();
        let looked = looked_at(codes, values);
        let share = |test: &dyn Fn(&str) -> bool| {
            let passed = looked.iter().filter(|value| test(value)).count();
            passed as f64 / looked.len().max(1) as f64
        };
        match declared {
            Declared::Truth => return Self::Exact,
            Declared::List => return Self::Array,
            Declared::Day => return Self::Date,
            Declared::Real => return Self::Number,
            Declared::Integer if !is_day(&looked) => {
                return if values.len() * 2 > known { Self::Code } else { Self::Number };
            }
            Declared::Integer | Declared::Text => {}
        }
        if looked.is_empty() {
            return Self::Exact;
        }
        if share(&|value| bloom::parse(value).is_some()) >= 0.9 {
            return Self::Bloom;
        }
        if share(&is_email) >= 0.6 {
            return Self::Email;
        }
        if is_day(&looked) {
            return Self::Date;
        }
        let figures = |value: &str| value.bytes().all(|byte| byte.is_ascii_digit());
        if share(&figures) >= 0.9 {
            let year = |value: &str| {
                value.len() == 4 && matches!(value.get(..2), Some("18" | "19" | "20"))
            };
            return match () {
                () if share(&year) >= 0.95 => Self::Number,
                () if is_phone_name(name) => Self::Phone,
                () => Self::Code,
            };
        }
        if share(&is_phone) >= 0.8 {
            return Self::Phone;
        }
        if share(&|value| value.parse::<f64>().is_ok()) >= 0.95 {
            return Self::Number;
        }
        let length = |of: &dyn Fn(&str) -> usize| {
            looked.iter().map(|value| of(value)).sum::<usize>() as f64 / looked.len() as f64
        };
        let has_figures =
            |value: &str| !value.contains(' ') && value.bytes().any(|byte| byte.is_ascii_digit());
        match () {
            () if share(&has_figures) >= 0.6 => Self::Code,
            () if is_address_name(name) && share(&is_address) >= 0.6 => Self::Address,
            () if length(&|value| value.chars().count()) <= 1.5 => Self::Exact,
            () if length(&|value| value.split_whitespace().count()) >= 3.0 => Self::Text,
            () if length(&|value| value.chars().count()) > 30.0 => Self::Text,
            () => Self::Name,
        }
    }
}

/// The values that are looked at: those of the first records, in whatever order values came.
fn looked_at<'a>(codes: &[u32], values: &'a Values) -> Vec<&'a str> {
    let mut is_known = vec![false; values.len()];
    let is_first = |code: &u32| {
        let known = is_known.get_mut(*code as usize);
        known.is_some_and(|known| !std::mem::replace(known, true))
    };
    let first = codes.iter().copied().filter(is_first);
    let values = first.map(|code| beginning(values.get(code).trim()));
    values.filter(|value| !is_missing(value)).take(LOOKED_AT).collect()
}

fn is_day(looked: &[&str]) -> bool {
    let days = looked.iter().filter(|value| is_date(value)).count();
    !looked.is_empty() && days as f64 >= 0.8 * looked.len() as f64
}

fn is_email(value: &str) -> bool {
    matches!(value.split_once('@'), Some((local, domain)) if !local.is_empty() && domain.len() > 2)
}

fn is_phone_name(name: &str) -> bool {
    let name = name.to_lowercase();
    ["phone", "mobile", "telephone", "tel_", "_tel", "fax", "cell"]
        .iter()
        .any(|part| name.contains(part))
        || name == "tel"
}

fn is_address_name(name: &str) -> bool {
    let name = name.to_lowercase();
    ["addr", "anschrift", "adresse"].iter().any(|part| name.contains(part))
}

/// Seven digits or more with the signs of telephone numbers.
fn is_phone(value: &str) -> bool {
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let signs = |byte: u8| byte.is_ascii_digit() || b"+-() ./".contains(&byte);
    (7..=16).contains(&digits) && value.bytes().all(signs)
}

/// Whether a text says that nothing is known.
pub(super) fn is_missing(value: &str) -> bool {
    const LONGEST: usize = 20;
    if value.len() > LONGEST {
        return false;
    }
    let lower = value.trim().to_lowercase();
    matches!(
        lower.as_str(),
        "" | "-"
            | "--"
            | "---"
            | "?"
            | "??"
            | "."
            | "n/a"
            | "#n/a"
            | "n.a."
            | "null"
            | "none"
            | "nil"
            | "nan"
            | "unknown"
            | "undefined"
            | "missing"
            | "tbd"
            | "not known"
            | "not available"
            | "not applicable"
            | "no email"
            | "noemail"
            | "test@test.com"
            | "none@none.com"
            | "no@email.com"
            | "noemail@noemail.com"
            | "na@na.com"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(name: &str, declared: Declared, values: &[&str]) -> Kind {
        let values: Values = values.iter().copied().collect();
        let codes: Vec<u32> = (0..values.len() as u32).collect();
        Kind::detect(name, declared, &codes, &values)
    }

    #[test]
    fn values_tell_what_they_are() {
        let text = |values| detected("c", Declared::Text, values);
        assert_eq!(text(&["a@b.com", "n/a", "c.d@e.org"]), Kind::Email);
        assert_eq!(text(&["19560409", "19080419"]), Kind::Date);
        assert_eq!(text(&["1956-04-09", "2001-1-2"]), Kind::Date);
        assert_eq!(text(&["3 April 1956", "12-May-45", "03/04/56"]), Kind::Date);
        assert_eq!(text(&["1999", "2003"]), Kind::Number);
        assert_eq!(text(&["2119", "3165", "4881"]), Kind::Code);
        assert_eq!(text(&["+44 161 496 0000", "(02) 555-1234"]), Kind::Phone);
        assert_eq!(text(&["A-1234", "B-77"]), Kind::Code);
        assert_eq!(text(&["mitchell", "van der berg"]), Kind::Name);
        assert_eq!(text(&["Incremental maintenance for views", "The WASA2 system"]), Kind::Text);
        assert_eq!(text(&["m", "f"]), Kind::Exact);
        assert_eq!(text(&[]), Kind::Exact);
        let lines = ["12 main street", "4 oak lane"];
        assert_eq!(detected("home_address", Declared::Text, &lines), Kind::Address);
        assert_eq!(detected("c", Declared::List, &["a", "b"]), Kind::Array);
        assert_eq!(detected("mobile", Declared::Text, &["5551234567"]), Kind::Phone);
        assert_eq!(detected("c", Declared::Real, &["1.5"]), Kind::Number);
        assert_eq!(detected("c", Declared::Integer, &["15", "16"]), Kind::Code);
    }

    #[test]
    fn many_values_tell_the_same_in_whatever_order_they_came() {
        let addresses = (0..LOOKED_AT).map(|at| format!("{at}@x.org"));
        let words = (0..LOOKED_AT).map(|at| format!("word {at}"));
        let texts: Vec<String> = addresses.chain(words).collect();
        let count = texts.len() as u32;
        for codes in [(0..count).collect::<Vec<u32>>(), (0..count).rev().collect()] {
            // The first record has the first address, wherever that came.
            let mut came = vec![""; texts.len()];
            codes.iter().zip(&texts).for_each(|(code, text)| came[*code as usize] = text);
            let values: Values = came.into_iter().collect();
            assert_eq!(Kind::detect("c", Declared::Text, &codes, &values), Kind::Email);
        }
    }

    #[test]
    fn kinds_have_names() {
        for (kind, name) in KINDS {
            assert_eq!((kind.name(), Kind::parse(name)), (name, Some(kind)));
        }
        assert_eq!(Kind::parse("text "), None);
    }
}
