//! Dates as people write them: which dates a text can mean.
//!
//! Read are three numbers (`2024-05-01`, `1.5.2024`, `05/01/24`), eight digits (`20240501`, year
//! first), and a number with an English month (`1 May 2024`, `May 1st, 2024`, `1-May-24`), each
//! perhaps with a time of day behind, which is cut off (25:00 is none). A year of four digits is
//! the year; with it in front the order is year, month, day. A year of two digits lies between 1969
//! and 2068, as in POSIX, and comes first between hyphens only. Where the order is not clear from
//! the text itself, each order gives a reading; readings that are no date of the calendar fall
//! away.

use chrono::NaiveDate;

/// The longest text that may hold a date, in bytes.
const LENGTH_MAX: usize = 64;

/// In which order day, month and year stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Dmy,
    Mdy,
    Ymd,
}

impl Order {
    pub(crate) const ALL: [Self; 3] = [Self::Dmy, Self::Mdy, Self::Ymd];

    /// The order's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dmy => "DMY",
            Self::Mdy => "MDY",
            Self::Ymd => "YMD",
        }
    }

    /// The order of a word, in any case.
    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.name().eq_ignore_ascii_case(word.trim()))
    }
}

/// What a text can mean: the date by each order, and whether the order makes any difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Readings([Option<NaiveDate>; 3]);

impl Readings {
    fn all(date: Option<NaiveDate>) -> Self {
        Self([date; 3])
    }

    /// The date by an order.
    pub(crate) fn by(self, order: Order) -> Option<NaiveDate> {
        Order::ALL.iter().zip(self.0).find(|(of, _)| **of == order).and_then(|(_, date)| date)
    }

    /// The date, when every reading that is one is the same.
    pub(crate) fn only(self) -> Option<NaiveDate> {
        let mut dates = self.0.into_iter().flatten();
        let first = dates.next()?;
        dates.all(|date| date == first).then_some(first)
    }

    /// The one order by which the text is a date, when the others give none: it tells of the
    /// column's order.
    pub(crate) fn decided(self) -> Option<Order> {
        let mut orders = Order::ALL.into_iter().filter(|order| self.by(*order).is_some());
        let order = orders.next()?;
        orders.next().is_none().then_some(order)
    }
}

/// What a text can mean; nothing when it is no date.
pub(crate) fn readings(text: &str) -> Readings {
    let text = text.trim();
    if text.is_empty() || text.len() > LENGTH_MAX {
        return Readings::default();
    }
    let Some(parts) = parts(without_time(text)) else { return Readings::default() };
    match parts.as_slice() {
        [Part::Number(digits)] if digits.len() == 8 => {
            let (year, rest) = digits.split_at(4);
            let (month, day) = rest.split_at(2);
            Readings::all(date(year, month, day))
        }
        [Part::Number(one), Part::Number(two), Part::Number(three)] => {
            numbers(one, two, three, text.contains('-'))
        }
        [Part::Number(day), Part::Month(month), Part::Number(year)]
            if day.len() <= 2 && year.len() != 3 =>
        {
            Readings::all(with_month(year, *month, day))
        }
        [Part::Number(year), Part::Month(month), Part::Number(day)] if year.len() == 4 => {
            Readings::all(with_month(year, *month, day))
        }
        [Part::Month(month), Part::Number(day), Part::Number(year)] => {
            Readings::all(with_month(year, *month, day))
        }
        _ => Readings::default(),
    }
}

/// Three numbers in the order written.
fn numbers(one: &str, two: &str, three: &str, hyphens: bool) -> Readings {
    if one.len() == 4 {
        return Readings::all(date(one, two, three));
    }
    let mut by = [date(three, two, one), date(three, one, two), None];
    if hyphens && three.len() <= 2 && one.len() == 2 {
        by[2] = date(one, two, three);
    }
    Readings(by)
}

fn date(year: &str, month: &str, day: &str) -> Option<NaiveDate> {
    if month.len() > 2 || day.len() > 2 {
        return None;
    }
    NaiveDate::from_ymd_opt(year_of(year)?, month.parse().ok()?, day.parse().ok()?)
}

fn with_month(year: &str, month: u32, day: &str) -> Option<NaiveDate> {
    if day.len() > 2 {
        return None;
    }
    NaiveDate::from_ymd_opt(year_of(year)?, month, day.parse().ok()?)
}

fn year_of(digits: &str) -> Option<i32> {
    let year: i32 = digits.parse().ok()?;
    match digits.len() {
        // Year 0 is a placeholder, never a date of business.
        4 => (year > 0).then_some(year),
        2 if year < 69 => Some(2000 + year),
        2 => Some(1900 + year),
        _ => None,
    }
}

/// The text before a time of day: `T` or blanks, hours, minutes, perhaps seconds, and whatever
/// follows. What is no time stays, and is no part of a date.
fn without_time(text: &str) -> &str {
    let Some(colon) = text.find(':') else { return text };
    let before = &text[..colon];
    let hour = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (day, time) = text.split_at(colon - hour);
    if !begins_with_time(time) {
        return text;
    }
    match day.strip_suffix('T').or_else(|| day.strip_suffix('t')) {
        Some(day) => day,
        None if day.ends_with([' ', ',', '\u{a0}']) => day.trim_end_matches([' ', ',', '\u{a0}']),
        None => text,
    }
}

/// Whether a text begins with a time of day; 24:00 is the end of one.
fn begins_with_time(text: &str) -> bool {
    let mut pieces = text.splitn(3, ':');
    let (Some(hour), Some(minute)) = (pieces.next(), pieces.next()) else { return false };
    // Behind more than digits the colon is that of an offset.
    let is_alone = minute.bytes().all(|byte| byte.is_ascii_digit());
    let second = pieces.next().filter(|_| is_alone).unwrap_or("0");
    match [hour, minute, second].map(first_number) {
        [Some(24), Some(0), Some(0)] => true,
        // The sixtieth is a leap second.
        [Some(hour), Some(minute), Some(second)] => hour < 24 && minute < 60 && second <= 60,
        _ => false,
    }
}

/// The one or two digits that a text begins with.
fn first_number(text: &str) -> Option<u32> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.get(..digits).filter(|_| digits <= 2)?.parse().ok()
}

enum Part<'a> {
    Number(&'a str),
    Month(u32),
}

/// Numbers and months between separators; `None` when there is anything else.
fn parts(text: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::with_capacity(3);
    let mut rest = text;
    while !rest.is_empty() {
        let is_digit = |c: char| c.is_ascii_digit();
        let digits = rest.find(|c| !is_digit(c)).unwrap_or(rest.len());
        let (piece, after) = if digits > 0 {
            let (number, after) = rest.split_at(digits);
            (Part::Number(number), without_ordinal(number, after))
        } else {
            let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
            let (word, after) = rest.split_at(letters);
            (Part::Month(month(word)?), after)
        };
        parts.push(piece);
        let separators = after.trim_start_matches(['-', '/', '.', ',', ' ', '\u{a0}']);
        // Three signs, as in ", " or ". ", but no row of dashes.
        if after.len() - separators.len() > 3 || parts.len() > 3 {
            return None;
        }
        if separators.is_empty() && after.len() > 1 {
            return None;
        }
        rest = separators;
    }
    Some(parts)
}

/// What follows a day's number, without its `st`, `nd`, `rd` or `th`.
fn without_ordinal<'a>(number: &str, after: &'a str) -> &'a str {
    let Some(ending) = after.get(..2) else { return after };
    let ends = after[2..].chars().next().is_none_or(|c| !c.is_alphanumeric());
    let known = ["st", "nd", "rd", "th"].iter().any(|known| known.eq_ignore_ascii_case(ending));
    if number.len() <= 2 && ends && known { &after[2..] } else { after }
}

/// The month of an English name, whole or by its first three letters.
fn month(word: &str) -> Option<u32> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let word = word.to_lowercase();
    let found = MONTHS.iter().position(|month| {
        *month == word
            || (word.len() == 3 && month.starts_with(&word))
            || (word == "sept" && *month == "september")
    });
    found.and_then(|at| u32::try_from(at + 1).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ymd(year: i32, month: u32, day: u32) -> Option<NaiveDate> {
        NaiveDate::from_ymd_opt(year, month, day)
    }

    #[test]
    fn what_is_clear_needs_no_order() {
        for text in [
            "2024-05-01",
            "2024/5/1",
            "2024.05.01",
            "20240501",
            "1 May 2024",
            "May 1, 2024",
            "1-May-2024",
            "MAY 1st 2024",
            "2024 May 1",
            "2024-05-01T10:00:00Z",
            "1. May 2024",
            "2024-05-01 10:00:00+02",
            "2024-05-01 10:00 +05:45",
            "2024-05-01T23:59:60.5Z",
            "2024-05-01T24:00:00",
            "May 1, 2024, 9:05 PM",
            " 2024-05-01 ",
            "1 may 24",
        ] {
            assert_eq!(readings(text).only(), ymd(2024, 5, 1), "{text}");
        }
        assert_eq!(readings("31/12/2024").only(), ymd(2024, 12, 31));
        assert_eq!(readings("12/31/2024").only(), ymd(2024, 12, 31));
        assert_eq!(readings("05/05/2024").only(), ymd(2024, 5, 5));
        assert_eq!(readings("99-12-31").only(), ymd(1999, 12, 31));
    }

    #[test]
    fn what_is_not_clear_depends_on_the_order() {
        let found = readings("03/04/2024");
        assert_eq!(found.only(), None);
        assert_eq!(found.by(Order::Dmy), ymd(2024, 4, 3));
        assert_eq!(found.by(Order::Mdy), ymd(2024, 3, 4));
        assert_eq!(found.by(Order::Ymd), None);
        assert_eq!(found.decided(), None);
        assert_eq!(readings("13/04/2024").decided(), Some(Order::Dmy));
        assert_eq!(readings("04/13/2024").decided(), Some(Order::Mdy));
        assert_eq!(readings("01-02-03").by(Order::Ymd), ymd(2001, 2, 3));
        // Clear in itself, so it tells nothing of the others.
        assert_eq!(readings("2024-05-01").decided(), None);
    }

    #[test]
    fn what_is_no_date_has_no_reading() {
        let long = "1".repeat(100_000);
        for text in [
            "",
            " ",
            "N/A",
            "null",
            "0000-00-00",
            "2024-13-01",
            "2024-02-30",
            "31/04/2024",
            "1 2",
            "May 2024",
            "1.5",
            "12",
            "20241301",
            "1//////5/2024",
            "tomorrow",
            "1 Mai 2024",
            "2024-05-01x",
            "2024-05-01T25:00:00",
            "2024-05-01T24:01",
            "2024-05-01 99:99",
            "2024-05-01 10:60",
            "2024-05-01 10:000",
            "2024-05-01 10:00:61",
            "2024-05-01 10:",
            "2024-05-01 10:xx",
            "99999-01-01",
            "1/2/3/4",
            "2024-05-01--",
            "２０２４-05-01",
            &long,
        ] {
            assert_eq!(readings(text), Readings::default(), "{text:.40}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}") {
            let _ = readings(&text);
        }

        #[test]
        fn an_iso_date_reads_as_itself(days in -700_000..1_000_000_i32) {
            if let Some(date) = ymd(1970, 1, 1).and_then(|start| {
                start.checked_add_signed(chrono::Duration::days(i64::from(days)))
            }) && (1..=9999).contains(&chrono::Datelike::year(&date)) {
                prop_assert_eq!(readings(&date.format("%Y-%m-%d").to_string()).only(), Some(date));
            }
        }
    }
}
