//! A column of records, as it is compared: distinct values in one spelling, a code each.
//!
//! Of a long text the first [`LETTERS_MAX`] letters count. What stands for "not known" (`N/A`,
//! `null`, `unknown`, `-`, `test@test.com`, …) is no value. Texts lose case, accents and signs
//! ([`folded`]), so that it is of no matter whether an accent is a part of its letter or comes
//! after it (Unicode's NFC and NFD), nor is it in codes and e-mail addresses; telephone numbers
//! keep their last nine digits, dates become `yyyymmdd`, in the order of day and month that their
//! table itself shows. What no list knows and yet stands for nobody is found by how many records
//! have it ([`super::placeholders`]).

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::address::Address;
use super::dates::{Dates, place};
use super::kind::{Declared, Kind, is_missing};
use super::tokens::Tokens;
use super::values::{Distinct, Values};
use crate::identity::normalize_address::normalized;
use crate::identity::normalize_name::folded;
use crate::privacy::bloom::{self, Bits};
use crate::quality::dates::Order;

/// Letters of a value that count: a comparison of two texts costs the product of their lengths.
pub const LETTERS_MAX: usize = 1000;

/// Members of a list that count, the first by their order.
const MEMBERS_MAX: usize = 64;

/// What stands between the members of a list.
pub const MEMBER_END: &str = "\u{1f}";

/// The code of no value.
pub const NONE: u32 = u32::MAX;

/// A column of records.
#[derive(Debug, Clone, Default)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// How it is compared.
    pub kind: Kind,
    /// Each record's value: an index into `values`, or [`NONE`].
    pub codes: Vec<u32>,
    /// The distinct values.
    pub values: Values,
    /// How many records have each.
    pub counts: Vec<u32>,
    /// The values as numbers, of a column of numbers.
    pub numbers: Vec<f64>,
    /// The standard deviation of those, over records.
    pub deviation: f64,
    /// The bits of the values, of a column of encodings.
    pub bits: Vec<Bits>,
    /// The words of the values, of a column of texts or addresses; members of lists.
    pub tokens: Tokens,
    /// The parts of the values, of a column of addresses.
    pub addresses: Vec<Address>,
    /// The fingerprints of values that stand for nobody and count as none.
    pub placeholders: Vec<u64>,
    /// How many records have one of them.
    pub set_aside: u32,
}

impl Column {
    /// The share of records without a value.
    pub fn missing(&self) -> f64 {
        let missing = self.codes.iter().filter(|&&code| code == NONE).count();
        missing as f64 / self.codes.len().max(1) as f64
    }

    /// The ids of two keys that its encodings are under, if they are not under one.
    pub fn two_keys(&self) -> Option<(&str, &str)> {
        if self.kind != Kind::Bloom {
            return None;
        }
        let mut keys = self.values.iter().filter_map(|value| Some(bloom::parse(value)?.0));
        let first = keys.next()?;
        keys.find(|key| *key != first).map(|other| (first, other))
    }

    /// How likely two different records have the same value, when both have one.
    pub fn coincidence(&self) -> f64 {
        let known: f64 = self.counts.iter().map(|&count| f64::from(count)).sum();
        let equal: f64 =
            self.counts.iter().map(|&count| f64::from(count) * (f64::from(count) - 1.0)).sum();
        if known < 2.0 { 0.0 } else { equal / (known * (known - 1.0)) }
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.values.memory_bytes()
            + 4 * (self.codes.len() + self.counts.len())
            + self.tokens.memory_bytes()
            + size_of::<Bits>() * self.bits.len()
            + size_of::<Address>() * self.addresses.len()
    }
}

/// Gathers a column.
#[derive(Debug, Clone, Default)]
pub struct Gatherer {
    codes: Vec<u32>,
    distinct: Distinct,
}

impl Gatherer {
    /// Adds a record's value.
    pub fn push(&mut self, value: Option<&str>) {
        let code = value.map_or(NONE, |value| self.distinct.code(value));
        self.codes.push(code);
    }

    /// Values added.
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// A record's value as it came.
    pub fn value(&self, row: usize) -> Option<&str> {
        let code = self.codes.get(row).copied().filter(|code| *code != NONE)?;
        Some(self.distinct.values.get(code))
    }

    /// Whether a value says something and is no encoding.
    pub fn has_other_than_encodings(&self) -> bool {
        self.distinct.values.iter().any(|value| {
            let value = beginning(value.trim());
            !is_missing(value) && bloom::parse(value).is_none()
        })
    }

    /// Bytes on the heap, about.
    pub fn memory_bytes(&self) -> usize {
        4 * self.codes.capacity()
            + self.distinct.values.memory_bytes()
            + 20 * self.distinct.values.len()
    }

    /// The codes of the records in `order`, of values as they came.
    pub fn codes(&self, order: &[u32]) -> Vec<u32> {
        order.iter().map(|&row| self.codes[row as usize]).collect()
    }

    /// The column of the records in `order`, compared as `kind` says, or as its values suggest.
    /// Which table each of these is of, `sources` says; nothing where there is one.
    pub fn finish(
        self,
        name: &str,
        declared: Declared,
        kind: Option<Kind>,
        order: &[u32],
        sources: &[u32],
    ) -> Column {
        let Self { codes, distinct } = self;
        let values = distinct.values;
        let codes: Vec<u32> = order.iter().map(|&row| codes[row as usize]).collect();
        let kind = kind.unwrap_or_else(|| Kind::detect(name, declared, &codes, &values));
        let mut column = Column { name: name.to_owned(), kind, ..Column::default() };
        let spelling = Spelling::of(kind, &values, &codes, sources);
        let mut spelled = Distinct::default();
        // Tables may mean different dates by one text.
        let orders = if kind == Kind::Date { Order::ALL.len() } else { 1 };
        let mut renamed: Vec<Option<u32>> = vec![None; values.len() * orders];
        let mut code_of = |(code, source): (u32, u32)| {
            let order = spelling.order(source);
            let at = code as usize * orders + order.map_or(0, place);
            let Some(known) = renamed.get_mut(at) else { return NONE };
            *known.get_or_insert_with(|| {
                let text = spelling.spell(values.get(code), order);
                text.map_or(NONE, |text| spelled.code(&text))
            })
        };
        let sources = sources.iter().copied().chain(std::iter::repeat(0));
        column.codes = codes.into_iter().zip(sources).map(&mut code_of).collect();
        column.values = spelled.values;
        column.count();
        column
    }
}

impl Column {
    /// What is known of the values together.
    pub(super) fn count(&mut self) {
        self.counts = vec![0; self.values.len()];
        for &code in &self.codes {
            if let Some(count) = self.counts.get_mut(code as usize) {
                *count += 1;
            }
        }
        match self.kind {
            Kind::Number => {
                self.numbers =
                    self.values.iter().map(|value| value.parse().unwrap_or(f64::NAN)).collect();
                let records: f64 = self.counts.iter().map(|&count| f64::from(count)).sum();
                let of = |f: &dyn Fn(f64) -> f64| {
                    // What nobody has is no part of it, not even as nothing times infinity.
                    let cells = self.numbers.iter().zip(&self.counts);
                    let cells = cells.filter(|(_, count)| **count > 0);
                    cells.map(|(&value, &count)| f(value) * f64::from(count)).sum::<f64>()
                        / records.max(1.0)
                };
                let mean = of(&|value| value);
                self.deviation = of(&|value| (value - mean) * (value - mean)).sqrt();
            }
            Kind::Text => {
                let words = |value| str::split_whitespace(value).collect();
                self.tokens = Tokens::new(&self.values, &self.counts, words, true);
            }
            Kind::Array => {
                let members = |value| str::split(value, MEMBER_END).collect();
                self.tokens = Tokens::new(&self.values, &self.counts, members, false);
            }
            Kind::Address => {
                let words = |value| Address::read(value).1;
                self.tokens = Tokens::new(&self.values, &self.counts, words, false);
                self.addresses = self.values.iter().map(|value| Address::read(value).0).collect();
            }
            Kind::Bloom => {
                let bits =
                    self.values.iter().map(|value| bloom::parse(value).map(|(_, bits)| bits));
                self.bits = bits.map(Option::unwrap_or_default).collect();
            }
            _ => {}
        }
    }
}

/// How the values of a column are brought into one spelling.
struct Spelling {
    kind: Kind,
    /// Of a column of dates, how these are read.
    dates: Option<Dates>,
}

impl Spelling {
    fn of(kind: Kind, values: &Values, codes: &[u32], sources: &[u32]) -> Self {
        let dates = (kind == Kind::Date).then(|| Dates::of(values, codes, sources));
        Self { kind, dates }
    }

    /// The order of a table's dates.
    fn order(&self, source: u32) -> Option<Order> {
        self.dates.as_ref().map(|dates| dates.order(source))
    }

    /// A value in the column's spelling, of dates in an order; `None` when it says nothing.
    fn spell(&self, value: &str, order: Option<Order>) -> Option<String> {
        if self.kind == Kind::Array {
            return members(value);
        }
        let value = beginning(value.trim());
        if is_missing(value) {
            return None;
        }
        let spelled = match self.kind {
            Kind::Exact | Kind::Name | Kind::Text | Kind::Array => folded(value),
            Kind::Address => normalized(value),
            Kind::Email if value.is_ascii() => value.to_lowercase(),
            Kind::Email => value.to_lowercase().nfkc().collect(),
            Kind::Bloom => bloom::parse(value).map(|_| value.to_owned())?,
            Kind::Phone => {
                let digits = digits(value);
                let skip = digits.len().saturating_sub(9);
                if digits.len() < 5 { String::new() } else { digits[skip..].to_owned() }
            }
            Kind::Code => {
                let is_kept =
                    |letter: &char| letter.is_alphanumeric() && !is_combining_mark(*letter);
                match value.is_ascii() {
                    true => value.chars().filter(is_kept).flat_map(char::to_uppercase).collect(),
                    false => value.nfkd().filter(is_kept).flat_map(char::to_uppercase).collect(),
                }
            }
            Kind::Date => {
                let known = self.dates.as_ref().zip(order);
                let date = known.and_then(|(dates, order)| dates.spell(value, order));
                date.unwrap_or_else(|| digits(value))
            }
            Kind::Number => {
                let number: f64 = value.parse().ok()?;
                if !number.is_finite() {
                    return None;
                }
                number.to_string()
            }
        };
        (!spelled.is_empty()).then_some(spelled)
    }
}

/// The members of a list in one spelling, each once, in order; `None` when there is none.
fn members(value: &str) -> Option<String> {
    let spell = |member: &str| {
        let member = beginning(member.trim());
        // The point and the sign of a number count.
        match member.parse::<f64>() {
            _ if is_missing(member) => String::new(),
            Ok(number) if number.is_finite() => member.to_owned(),
            _ => folded(member),
        }
    };
    let mut members: Vec<String> = value.split(MEMBER_END).map(spell).collect();
    members.retain(|member| !member.is_empty());
    members.sort_unstable();
    members.dedup();
    members.truncate(MEMBERS_MAX);
    (!members.is_empty()).then(|| members.join(MEMBER_END))
}

/// The letters of a value that count.
pub(super) fn beginning(value: &str) -> &str {
    value.char_indices().nth(LETTERS_MAX).map_or(value, |(end, _)| &value[..end])
}

fn digits(value: &str) -> String {
    value.chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: Kind, values: &[&str]) -> Vec<Option<String>> {
        let mut gatherer = Gatherer::default();
        for value in values {
            gatherer.push(Some(value));
        }
        let order: Vec<u32> = (0..values.len() as u32).collect();
        let column = gatherer.finish("c", Declared::Text, Some(kind), &order, &[]);
        let text = |&code: &u32| (code != NONE).then(|| column.values.get(code).to_owned());
        column.codes.iter().map(text).collect()
    }

    #[test]
    fn one_spelling_and_no_value_for_what_is_not_known() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            column(Kind::Name, &["O'Brien ", "OBRIEN", "n/a", "", " - "]),
            [some("obrien"), some("obrien"), None, None, None]
        );
        assert_eq!(
            column(Kind::Phone, &["+44 161 496 0000", "0161 4960000", "000"]),
            [some("614960000"), some("614960000"), None]
        );
        assert_eq!(column(Kind::Email, &["Test@Test.com", "a@b.de"]), [None, some("a@b.de")]);
        assert_eq!(column(Kind::Number, &["1.50", "NaN", "x"]), [some("1.5"), None, None]);
    }

    #[test]
    fn an_accent_is_a_part_of_its_letter_or_comes_after_it() {
        for kind in [Kind::Exact, Kind::Name, Kind::Text, Kind::Email, Kind::Code, Kind::Address] {
            let (composed, decomposed) = ("12 M\u{fc}ller@x.de", "12 Mu\u{308}ller@x.de");
            let spelled = column(kind, &[composed, decomposed]);
            assert!(spelled[0].is_some() && spelled[0] == spelled[1], "{kind:?} {spelled:?}");
        }
        assert_eq!(column(Kind::Array, &["M\u{fc}ller"]), column(Kind::Array, &["Mu\u{308}ller"]));
        assert_eq!(column(Kind::Code, &["\u{e4}-17"]), [Some("A17".to_owned())]);
    }

    #[test]
    fn of_a_long_text_the_beginning_counts() {
        let long = "abcd ".repeat(LETTERS_MAX);
        let texts = [format!("{long}x"), format!("{long}y"), format!("y{long}")];
        let spelled = column(Kind::Text, &texts.each_ref().map(String::as_str));
        assert!(spelled[0] == spelled[1] && spelled[0] != spelled[2]);
        assert!(spelled.iter().flatten().all(|text| text.chars().count() <= LETTERS_MAX));
    }

    #[test]
    fn a_column_of_dates_shows_its_own_order() {
        let some = |text: &str| Some(text.to_owned());
        let days = column(Kind::Date, &["03/04/1990", "25/12/1990", "1990-04-03", "19561399"]);
        assert_eq!(days, [some("19900403"), some("19901225"), some("19900403"), some("19561399")]);
        let months = column(Kind::Date, &["03/04/1990", "12/25/1990"]);
        assert_eq!(months, [some("19900304"), some("19901225")]);
    }

    #[test]
    fn one_text_is_two_dates_in_tables_of_different_order() {
        let mut gatherer = Gatherer::default();
        for value in ["03/04/1990", "25/12/1990", "04/03/1990", "03/04/1990", "12/25/1990"] {
            gatherer.push(Some(value));
        }
        let (order, sources) = ([0, 1, 2, 3, 4], [0, 0, 1, 1, 1]);
        let column = gatherer.finish("c", Declared::Text, Some(Kind::Date), &order, &sources);
        assert_eq!(column.codes[0], column.codes[2]);
        assert_eq!(column.codes[1], column.codes[4]);
        assert_ne!(column.codes[0], column.codes[3]);
        assert_eq!(column.counts, [2, 2, 1]);
    }
}
