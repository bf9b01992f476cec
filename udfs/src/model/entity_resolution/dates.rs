//! Dates of a column as `yyyymmdd`: each in the order of day, month and year that its table shows.
//!
//! Eight digits and three numbers with a year of four are taken as they stand, so that a day that
//! no month has, a slip of the pen, is still near what was meant. Everything else is read as
//! `parse_date_any` reads it: English months, years of two digits, a time behind. Where a text can
//! mean several dates, the order decides that most telling dates of its table tell; a table that
//! tells nothing has the order of the whole column. A year of two digits that lies more than
//! [`AHEAD_MAX`] years behind nearly all whole years of the column is one of the century before: a
//! birthday in `45` beside birthdays until 2005 was in 1945.

use super::column::NONE;
use super::values::Values;
use crate::quality::dates::{Order, readings};

/// Years that a year of two digits may lie behind the whole years of the column.
const AHEAD_MAX: u32 = 10;
/// The last year that two digits can mean.
const SHORT_YEAR_MAX: u32 = 2068;

/// How the dates of a column are read.
#[derive(Debug, Clone)]
pub(super) struct Dates {
    /// The order of each table; of others it is the first.
    orders: Vec<Order>,
    /// The last year that a year of two digits may mean.
    year_max: u32,
}

impl Dates {
    /// How the records' `codes` into `values` are read; `sources` says which table each is of, and
    /// nothing where there is one.
    pub(super) fn of(values: &Values, codes: &[u32], sources: &[u32]) -> Self {
        let told: Vec<Option<Order>> = values.iter().map(told).collect();
        let tables = sources.iter().max().map_or(1, |&last| last as usize + 1);
        let mut votes = vec![[0_u32; Order::ALL.len()]; tables];
        let sources = sources.iter().copied().chain(std::iter::repeat(0));
        for (&code, source) in codes.iter().zip(sources).filter(|(code, _)| **code != NONE) {
            if let Some(order) = told[code as usize] {
                votes[source as usize][place(order)] += 1;
            }
        }
        let mut all = [0_u32; Order::ALL.len()];
        for of_table in &votes {
            all.iter_mut().zip(of_table).for_each(|(all, own)| *all += own);
        }
        let common = winner(&all).unwrap_or(Order::Dmy);
        let orders = votes.iter().map(|votes| winner(votes).unwrap_or(common)).collect();
        Self { orders, year_max: year_max(values) }
    }

    /// The order of a table's dates.
    pub(super) fn order(&self, source: u32) -> Order {
        self.orders.get(source as usize).copied().unwrap_or(Order::Dmy)
    }

    /// A date in an order as `yyyymmdd`; `None` when the text is none.
    pub(super) fn spell(&self, value: &str, order: Order) -> Option<String> {
        date(value, order, self.year_max)
    }
}

/// Whether a text is a date in any order.
pub(super) fn is_date(value: &str) -> bool {
    date(value, Order::Dmy, SHORT_YEAR_MAX).is_some()
}

/// An order's place among all.
pub(super) fn place(order: Order) -> usize {
    Order::ALL.iter().position(|known| *known == order).unwrap_or(0)
}

/// The order that most tell, the first of those that as many tell; `None` when nothing is told.
fn winner(votes: &[u32; Order::ALL.len()]) -> Option<Order> {
    let most = votes.iter().copied().max().filter(|most| *most > 0)?;
    Order::ALL.into_iter().zip(votes).find(|(_, votes)| **votes == most).map(|(order, _)| order)
}

/// The order that a date tells: the only one by which it is one.
fn told(value: &str) -> Option<Order> {
    let value = value.trim();
    match parts(value) {
        Some(Parts::Known(..)) => None,
        // A first part above 12 is a day, a second one shows that the month is first.
        Some(Parts::Ambiguous(first, second, _)) => match (first > 12, second > 12) {
            (true, false) => Some(Order::Dmy),
            (false, true) => Some(Order::Mdy),
            _ => None,
        },
        None => has_digit(value).then(|| readings(value).decided())?,
    }
}

/// The last year that a year of two digits may mean.
fn year_max(values: &Values) -> u32 {
    if !values.iter().any(|value| !has_century(value) && is_date(value)) {
        return SHORT_YEAR_MAX;
    }
    let whole = values.iter().filter(|value| has_century(value));
    let years = whole.filter_map(|value| date(value, Order::Dmy, SHORT_YEAR_MAX));
    let years = years.filter_map(|date| date.get(..4)?.parse::<u32>().ok());
    // What is later stands for no date.
    let mut years: Vec<u32> = years.filter(|year| *year <= SHORT_YEAR_MAX).collect();
    years.sort_unstable();
    // One in a hundred may be wrong.
    let last = years.len().checked_sub(1 + years.len() / 100);
    last.and_then(|at| years.get(at)).map_or(SHORT_YEAR_MAX, |year| year + AHEAD_MAX)
}

/// Whether the year is told with its century.
fn has_century(value: &str) -> bool {
    let day = value.split(':').next().unwrap_or(value);
    day.split(|letter: char| !letter.is_ascii_digit()).any(|run| matches!(run.len(), 4 | 8))
}

fn has_digit(value: &str) -> bool {
    value.bytes().any(|byte| byte.is_ascii_digit())
}

/// The parts of a date in figures with a year of four digits.
enum Parts {
    /// Year, month, day.
    Known(u32, u32, u32),
    /// Two parts of unknown order, and the year.
    Ambiguous(u32, u32, u32),
}

fn parts(value: &str) -> Option<Parts> {
    let value = value.split(['T', ' ']).next().unwrap_or(value);
    if value.len() == 8 && value.bytes().all(|byte| byte.is_ascii_digit()) {
        let part = |from: usize, to: usize| value[from..to].parse().ok();
        return Some(Parts::Known(part(0, 4)?, part(4, 6)?, part(6, 8)?));
    }
    let mut pieces = value.split(['-', '/', '.']);
    let mut next = || -> Option<(u32, usize)> {
        let piece = pieces.next()?;
        Some((piece.parse().ok()?, piece.len()))
    };
    let (first, second, third) = (next()?, next()?, next()?);
    if pieces.next().is_some() {
        return None;
    }
    match (first.1, third.1) {
        (4, _) => Some(Parts::Known(first.0, second.0, third.0)),
        (_, 4) => Some(Parts::Ambiguous(first.0, second.0, third.0)),
        _ => None,
    }
}

/// A date as `yyyymmdd`; `None` when the text is none.
fn date(value: &str, order: Order, year_max: u32) -> Option<String> {
    let value = value.trim();
    let (year, month, day) = match parts(value) {
        Some(Parts::Known(year, month, day)) => (year, month, day),
        Some(Parts::Ambiguous(first, second, year))
            if first > 12 || (order != Order::Mdy && second <= 12) =>
        {
            (year, second, first)
        }
        Some(Parts::Ambiguous(first, second, year)) => (year, first, second),
        None => return written(value, order, year_max),
    };
    let is_date = (1000..3000).contains(&year) && (1..=12).contains(&month);
    (is_date && (1..=31).contains(&day)).then(|| format!("{year:04}{month:02}{day:02}"))
}

/// A date that is written in another way.
fn written(value: &str, order: Order, year_max: u32) -> Option<String> {
    if !has_digit(value) {
        return None;
    }
    let found = readings(value);
    let date = found.by(order).or_else(|| found.decided().and_then(|only| found.by(only)))?;
    let text = date.format("%Y%m%d").to_string();
    let year: u32 = text.get(..4)?.parse().ok()?;
    match has_century(value) || year <= year_max {
        true => Some(text),
        false => Some(format!("{:04}{}", year - 100, text.get(4..)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dates of records, each of a table.
    fn spelled(records: &[(&str, u32)]) -> Vec<String> {
        let values: Values = records.iter().map(|(value, _)| *value).collect();
        let codes: Vec<u32> = (0..records.len() as u32).collect();
        let sources: Vec<u32> = records.iter().map(|(_, source)| *source).collect();
        let dates = Dates::of(&values, &codes, &sources);
        let spell = |(value, source): &(&str, u32)| {
            dates.spell(value, dates.order(*source)).unwrap_or_default()
        };
        records.iter().map(spell).collect()
    }

    #[test]
    fn each_table_has_its_own_order() {
        let found = spelled(&[
            ("03/04/1990", 0),
            ("25/12/1990", 0),
            ("04/03/1990", 1),
            ("12/25/1990", 1),
            ("1990-04-03", 2),
            ("3 April 1990", 2),
        ]);
        let (april, christmas) = ("19900403", "19901225");
        assert_eq!(found, [april, christmas, april, christmas, april, april]);
    }

    #[test]
    fn a_table_that_tells_nothing_has_the_order_of_the_column() {
        let found = spelled(&[("03/04/1990", 0), ("12/25/1990", 1), ("12/26/90", 1)]);
        assert_eq!(found, ["19900304", "19901225", "19901226"]);
        assert_eq!(spelled(&[("03/04/1990", 0)]), ["19900403"]);
    }

    #[test]
    fn months_have_names_and_years_two_digits() {
        for text in ["3-Apr-90", "April 3rd, 1990", "03.04.90", "3 apr 1990 10:15:00", "19900403"] {
            assert_eq!(spelled(&[(text, 0), ("1990-01-01", 0)])[0], "19900403", "{text}");
        }
        // Between hyphens the year may come first; the column tells it.
        assert_eq!(spelled(&[("90-04-03", 0), ("99-12-31", 0)]), ["19900403", "19991231"]);
        // No date stays none, and a slip is near what was meant.
        let found = spelled(&[("tomorrow", 0), ("19561399", 0), ("31/04/1990", 0)]);
        assert_eq!(found, ["", "", "19900431"]);
    }

    #[test]
    fn birthdays_are_not_in_the_future() {
        let found = spelled(&[("3-Apr-45", 0), ("1945-04-03", 1), ("2005-06-07", 1)]);
        assert_eq!(found, ["19450403", "19450403", "20050607"]);
        // Beside later dates they may be, and placeholders are none of these.
        let found = spelled(&[("3-Apr-45", 0), ("2050-04-03", 1)]);
        assert_eq!(found[0], "20450403");
        let found = spelled(&[("3-Apr-45", 0), ("9999-12-31", 1), ("2005-06-07", 1)]);
        assert_eq!(found[0], "19450403");
    }
}
