//! PostgreSQL's forms of values: text as `psql` shows it, and what its binary forms count from.

use std::fmt::{Display, Write};

use arrow::array::timezone::Tz;
use bytes::{BufMut, BytesMut};
use chrono::{DateTime, Offset, TimeZone};

/// Days from 1970-01-01 to 2000-01-01, from which PostgreSQL counts.
pub const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
pub const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * DAY;
const DAY: i64 = 86_400_000_000;

/// A value as Rust shows it.
pub fn display(out: &mut BytesMut, value: impl Display) {
    // Writing to memory does not fail.
    let _ = write!(out, "{value}");
}

/// The shortest digits that mean the same number; `shown` is `value` in its own precision.
pub fn float(out: &mut BytesMut, value: f64, shown: impl Display + std::fmt::LowerExp) {
    match value {
        value if value.is_nan() => out.put_slice(b"NaN"),
        f64::INFINITY => out.put_slice(b"Infinity"),
        f64::NEG_INFINITY => out.put_slice(b"-Infinity"),
        value if value != 0.0 && !(1e-4..1e15).contains(&value.abs()) => {
            let text = format!("{shown:e}");
            match text.split_once('e') {
                Some((digits, power)) if !power.starts_with('-') => {
                    display(out, format_args!("{digits}e+{power:0>2}"));
                }
                Some((digits, power)) => {
                    display(out, format_args!("{digits}e-{:0>2}", power.trim_start_matches('-')));
                }
                None => display(out, text),
            }
        }
        _ => display(out, shown),
    }
}

/// `\x` and two digits a byte.
pub fn bytes(out: &mut BytesMut, value: &[u8]) {
    out.put_slice(b"\\x");
    for byte in value {
        display(out, format_args!("{byte:02x}"));
    }
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar (Howard
/// Hinnant's algorithm).
fn civil(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// Year, month and day; whether the year is before Christ.
fn calendar(out: &mut BytesMut, days: i64) -> bool {
    let (year, month, day) = civil(days);
    let before = year <= 0;
    let year = if before { 1 - year } else { year };
    display(out, format_args!("{year:04}-{month:02}-{day:02}"));
    before
}

/// A day since 1970-01-01.
pub fn date(out: &mut BytesMut, days: i64) {
    if calendar(out, days) {
        out.put_slice(b" BC");
    }
}

/// Microseconds since midnight.
pub fn time(out: &mut BytesMut, micros: i64) {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    display(out, format_args!("{hours:02}:{minutes:02}:{seconds:02}"));
    digits(out, fraction);
}

/// A fraction of a second, without the zeros at its end.
fn digits(out: &mut BytesMut, micros: i64) {
    if micros != 0 {
        let text = format!(".{micros:06}");
        out.put_slice(text.trim_end_matches('0').as_bytes());
    }
}

/// Microseconds since 1970; in a zone, or without one.
pub fn timestamp(out: &mut BytesMut, micros: i64, zone: Option<&Tz>) {
    let offset = zone.map(|zone| {
        let at = DateTime::from_timestamp_micros(micros).unwrap_or_default().naive_utc();
        i64::from(zone.offset_from_utc_datetime(&at).fix().local_minus_utc())
    });
    let local = micros.saturating_add(offset.unwrap_or(0) * 1_000_000);
    let before = calendar(out, local.div_euclid(DAY));
    out.put_u8(b' ');
    time(out, local.rem_euclid(DAY));
    if let Some(offset) = offset {
        let sign = if offset < 0 { '-' } else { '+' };
        let (hours, minutes) = (offset.abs() / 3_600, offset.abs() / 60 % 60);
        display(out, format_args!("{sign}{hours:02}"));
        if minutes != 0 {
            display(out, format_args!(":{minutes:02}"));
        }
    }
    if before {
        out.put_slice(b" BC");
    }
}

/// `1 year 2 mons 3 days 04:05:06`.
pub fn interval(out: &mut BytesMut, months: i32, days: i32, micros: i64) {
    let start = out.len();
    let mut part = |number: i32, unit: &str| {
        if number != 0 {
            let space = if out.len() > start { " " } else { "" };
            let plural = if number == 1 { "" } else { "s" };
            display(out, format_args!("{space}{number} {unit}{plural}"));
        }
    };
    part(months / 12, "year");
    part(months % 12, "mon");
    part(days, "day");
    if micros != 0 || out.len() == start {
        if out.len() > start {
            out.put_u8(b' ');
        }
        if micros < 0 {
            out.put_u8(b'-');
        }
        let micros = micros.unsigned_abs();
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        display(out, format_args!("{hours:02}:{minutes:02}:{seconds:02}"));
        digits(out, fraction as i64);
    }
}

/// An element of an array, in quotes where it needs them.
pub fn element(out: &mut BytesMut, value: &[u8]) {
    let special = |byte: &u8| b"{},\"\\".contains(byte) || byte.is_ascii_whitespace();
    let quoted =
        value.is_empty() || value.iter().any(special) || value.eq_ignore_ascii_case(b"null");
    if !quoted {
        out.put_slice(value);
        return;
    }
    out.put_u8(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

/// A decimal's text in binary form: groups of four digits, with the weight of the first.
pub fn numeric(out: &mut BytesMut, shown: &str) {
    let (negative, shown) = match shown.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, shown),
    };
    let (whole, fraction) = shown.split_once('.').unwrap_or((shown, ""));
    let whole = whole.trim_start_matches('0');
    let padding = (4 - whole.len() % 4) % 4;
    let mut digits: Vec<u8> = vec![b'0'; padding];
    digits.extend_from_slice(whole.as_bytes());
    let whole_groups = digits.len() / 4;
    digits.extend_from_slice(fraction.as_bytes());
    digits.resize(digits.len().next_multiple_of(4), b'0');
    let group = |four: &[u8]| {
        four.iter().fold(0i16, |number, digit| number * 10 + i16::from(digit.saturating_sub(b'0')))
    };
    let groups: Vec<i16> = digits.chunks(4).map(group).collect();
    let first = groups.iter().position(|group| *group != 0).unwrap_or(groups.len());
    let last = groups.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    let kept = groups.get(first..last).unwrap_or_default();
    let weight = if kept.is_empty() { 0 } else { whole_groups as i64 - first as i64 - 1 };
    out.put_i16(kept.len() as i16);
    out.put_i16(weight as i16);
    out.put_u16(if negative && !kept.is_empty() { 0x4000 } else { 0 });
    out.put_i16(fraction.len() as i16);
    for group in kept {
        out.put_i16(*group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn dates_and_times_are_postgresqls() {
        assert_eq!(made(|out| date(out, 0)), "1970-01-01");
        assert_eq!(made(|out| date(out, i64::from(EPOCH_DAYS))), "2000-01-01");
        assert_eq!(made(|out| date(out, -719_163)), "0001-12-31 BC");
        assert_eq!(made(|out| timestamp(out, -1, None)), "1969-12-31 23:59:59.999999");
        let zone: Tz = "-03:30".parse().unwrap();
        assert_eq!(made(|out| timestamp(out, 0, Some(&zone))), "1969-12-31 20:30:00-03:30");
        assert_eq!(
            made(|out| interval(out, 14, -3, 3_723_500_000)),
            "1 year 2 mons -3 days 01:02:03.5"
        );
        assert_eq!(made(|out| interval(out, 0, 0, 0)), "00:00:00");
    }

    #[test]
    fn floats_are_short_and_read_back() {
        for value in [0.1, 1.0, -2.5e-9, 1e21, f64::MAX, f64::MIN_POSITIVE, 123_456_789.125] {
            let text = made(|out| float(out, value, value));
            assert_eq!(text.parse::<f64>().unwrap(), value, "{text}");
        }
        assert_eq!(made(|out| float(out, 1e21, 1e21)), "1e+21");
        assert_eq!(made(|out| float(out, f64::from(0.1f32), 0.1f32)), "0.1");
        assert_eq!(made(|out| float(out, f64::NEG_INFINITY, f64::NEG_INFINITY)), "-Infinity");
    }

    #[test]
    fn elements_are_quoted_where_they_must_be() {
        for (value, text) in
            [("a", "a"), ("", "\"\""), ("null", "\"null\""), ("a\"b", "\"a\\\"b\"")]
        {
            assert_eq!(made(|out| element(out, value.as_bytes())), text);
        }
    }

    #[test]
    fn decimals_in_binary_are_groups_of_four() {
        let parts = |text: &str| {
            let mut out = BytesMut::new();
            numeric(&mut out, text);
            let numbers = out.chunks(2).map(|two| i16::from_be_bytes([two[0], two[1]]));
            numbers.collect::<Vec<_>>()
        };
        assert_eq!(parts("12345.67"), [3, 1, 0, 2, 1, 2345, 6700]);
        assert_eq!(parts("-0.0001"), [1, -1, 0x4000, 4, 1]);
        assert_eq!(parts("0.00"), [0, 0, 0, 2]);
        assert_eq!(parts("10000"), [1, 1, 0, 0, 1]);
    }
}
