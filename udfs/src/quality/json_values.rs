//! JSON values as JSON Schema sees them: 1 and 1.0 are one number, wherever they stand, and the
//! order of an object's members is of no matter.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use serde_json::{Number, Value};

use crate::fuzzy::stop::{Pace, Stopped};

/// Characters of a value that are shown.
const SHOWN_MAX: usize = 40;
/// Above all whole numbers that are read as such.
const WHOLE_MAX: f64 = 1e30;
/// What a look at a value takes, in steps of about a nanosecond.
const LOOK_STEPS: usize = 64;

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

pub(super) fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// How two numbers compare; whole ones exactly, however large, and beside a float as well.
pub(super) fn order(one: &Number, other: &Number) -> Option<Ordering> {
    if let (Some(one), Some(other)) = (one.as_i128(), other.as_i128()) {
        return Some(one.cmp(&other));
    }
    let order = one.as_f64()?.partial_cmp(&other.as_f64()?)?;
    // As a float a whole number may have been rounded to the other one, which then is whole too.
    let whole =
        |number: &Number| number.as_i128().or_else(|| number.as_f64().map(|number| number as i128));
    match order {
        Ordering::Equal if one.as_i128().is_some() || other.as_i128().is_some() => {
            Some(whole(one)?.cmp(&whole(other)?))
        }
        order => Some(order),
    }
}

/// Whether a number is a multiple of another, exactly, of the decimals as which they are written.
pub(super) fn is_multiple(number: &Number, of: &Number) -> bool {
    if let (Some(number), Some(of)) = (number.as_i128(), of.as_i128()) {
        return number.checked_rem(of) == Some(0);
    }
    let (Some(number), Some(of)) = (Decimal::of(number), Decimal::of(of)) else { return false };
    number.is_multiple(&of)
}

/// A number without its sign: digits, and the power of ten that they are multiplied by.
struct Decimal {
    digits: u128,
    exponent: i32,
}

impl Decimal {
    /// Of a float the fewest digits that tell it from any other.
    fn of(number: &Number) -> Option<Self> {
        let text = number.to_string();
        let text = text.trim_start_matches('-');
        let (decimal, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
        let digits = format!("{whole}{fraction}").parse().ok()?;
        let exponent = exponent.parse::<i32>().ok()?;
        let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        Some(Self { digits, exponent })
    }

    fn is_multiple(&self, of: &Self) -> bool {
        let shift = self.exponent.saturating_sub(of.exponent);
        if shift < 0 {
            let scale = 10_u128.checked_pow(shift.unsigned_abs());
            let divisor = scale.and_then(|scale| scale.checked_mul(of.digits));
            // A divisor beyond all digits divides 0 alone.
            return divisor.map_or(self.digits == 0, |divisor| self.digits.is_multiple_of(divisor));
        }
        // The rest of the digits with a zero more, and so on.
        let with_zero = |rest: u128| rest.checked_mul(10)?.checked_rem(of.digits);
        let rest = self.digits.checked_rem(of.digits);
        let rest = rest.and_then(|rest| (0..shift).try_fold(rest, |rest, _| with_zero(rest)));
        rest == Some(0)
    }
}

/// Whether two values are one.
pub(super) fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            order(one, other).is_some_and(Ordering::is_eq)
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(name, one): (&String, &Value)| {
                other.get(name).is_some_and(|other| equal(one, other))
            };
            one.len() == other.len() && one.iter().all(same)
        }
        _ => one == other,
    }
}

/// The first value that is equal to one before it: by hashes, so that it takes about as long as
/// reading them.
///
/// # Errors
/// When nobody wants the result any more.
pub(super) fn repeated(values: &[Value], pace: &mut Pace<'_>) -> Result<Option<usize>, Stopped> {
    let mut seen: HashMap<u64, usize> = HashMap::new();
    for (at, value) in values.iter().enumerate() {
        let mut hash = hash(value, pace)?;
        loop {
            pace.spend(LOOK_STEPS)?;
            match seen.entry(hash) {
                Entry::Vacant(place) => {
                    place.insert(at);
                    break;
                }
                Entry::Occupied(other) if equal(&values[*other.get()], value) => {
                    return Ok(Some(at));
                }
                // Another value of that hash is there: on to the next place.
                Entry::Occupied(_) => hash = hash.wrapping_add(1),
            }
        }
    }
    Ok(None)
}

/// Equal values have equal hashes.
fn hash(value: &Value, pace: &mut Pace<'_>) -> Result<u64, Stopped> {
    pace.spend(LOOK_STEPS)?;
    let mut hasher = DefaultHasher::new();
    kind(value).hash(&mut hasher);
    match value {
        Value::Null => {}
        Value::Bool(truth) => truth.hash(&mut hasher),
        Value::Number(number) => match (number.as_i128(), number.as_f64()) {
            (Some(whole), _) => whole.hash(&mut hasher),
            // Beyond whole numbers of JSON no float is equal to one.
            (None, Some(float)) if float.fract() == 0.0 && float.abs() < WHOLE_MAX => {
                (float as i128).hash(&mut hasher);
            }
            (None, float) => float.map(f64::to_bits).hash(&mut hasher),
        },
        Value::String(text) => {
            pace.spend(text.len())?;
            text.hash(&mut hasher);
        }
        Value::Array(items) => {
            for item in items {
                hash(item, pace)?.hash(&mut hasher);
            }
        }
        Value::Object(members) => {
            // A sum, as members are in no order.
            let mut sum = 0_u64;
            for (name, member) in members {
                let mut own = DefaultHasher::new();
                name.hash(&mut own);
                hash(member, pace)?.hash(&mut own);
                sum = sum.wrapping_add(own.finish());
            }
            sum.hash(&mut hasher);
        }
    }
    Ok(hasher.finish())
}

/// The beginning of a value's JSON: no more of it is written, however long it is.
pub(super) fn shown(value: &Value) -> String {
    // What is cut off of a text alone would have to be read to its end.
    let text = value.as_str().and_then(|text| text.char_indices().nth(SHOWN_MAX + 1));
    let short = text.and_then(|(end, _)| value.as_str()?.get(..end)).map(Value::from);
    let mut beginning = Beginning(Vec::new());
    // It ends early where there is no more place, and else it cannot fail.
    let _ = serde_json::to_writer(&mut beginning, short.as_ref().unwrap_or(value));
    let text = String::from_utf8_lossy(&beginning.0);
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into_owned(),
    }
}

/// Keeps so many bytes that what is shown is among them.
struct Beginning(Vec<u8>);

impl io::Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let place = (4 * (SHOWN_MAX + 2)).saturating_sub(self.0.len());
        if place == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let taken = bytes.len().min(place);
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::fuzzy::stop::Stop;

    fn first_repeated(values: &Value) -> Option<usize> {
        repeated(values.as_array().unwrap(), &mut Stop::never().pace()).unwrap()
    }

    #[test]
    fn one_number_is_one_however_it_is_written_and_wherever_it_stands() {
        assert_eq!(first_repeated(&json!([1, 2, 1.0])), Some(2));
        assert_eq!(first_repeated(&json!([0.0, -0.0])), Some(1));
        assert_eq!(first_repeated(&json!([1e300, 2, 1e300])), Some(2));
        assert_eq!(first_repeated(&json!([9007199254740993_i64, 9007199254740992.0])), None);
        let objects = json!([{"a": [1], "b": 2}, {"b": 2.0, "a": [1.0]}]);
        assert_eq!(first_repeated(&objects), Some(1));
        assert_eq!(first_repeated(&json!([1, "1", true, null, [1], {"1": 1}, [], {}])), None);
    }

    #[test]
    fn what_is_shown_is_the_beginning_of_the_json() {
        let long = json!(["é".repeat(100), {"a": "\"".repeat(50)}, 1, "x\u{1}y"]);
        let values = long.as_array().unwrap().iter().chain([&long]);
        for value in values {
            let text = value.to_string();
            let expected = match text.char_indices().nth(SHOWN_MAX) {
                Some((at, _)) => format!("{}…", &text[..at]),
                None => text,
            };
            assert_eq!(shown(value), expected);
        }
        for length in 36..44 {
            let value = Value::from("a".repeat(length));
            let whole = value.to_string();
            let is_whole = whole.chars().count() <= SHOWN_MAX;
            assert_eq!(shown(&value) == whole, is_whole, "{length}");
        }
    }

    #[test]
    fn multiples_are_those_of_decimals() {
        for (number, of, is_one) in [
            ("1000000000.5", "1", false),
            ("1000000000.5", "0.5", true),
            ("12345678.005", "0.01", false),
            ("12345678.01", "0.01", true),
            ("1e20", "3", false),
            ("3e20", "3", true),
            ("1e16", "3", false),
            ("10000000000000000", "3", false),
            ("-0.3", "0.1", true),
            ("0.30000000000000004", "0.1", false),
            ("4.35", "0.01", true),
            ("0", "0.7", true),
            ("-0.0", "1e-300", true),
            ("1e300", "1e-300", true),
            ("1e-300", "1e300", false),
            ("0.0075", "0.0001", true),
        ] {
            let [number, of] =
                [number, of].map(|text| serde_json::from_str::<Number>(text).unwrap());
            assert_eq!(is_multiple(&number, &of), is_one, "{number} of {of}");
        }
    }

    proptest! {
        /// As integers of so many decimal places.
        #[test]
        fn a_decimal_is_a_multiple_as_its_digits_are(
            number in 0_u64..1_000_000_000_000, of in 1_u64..2_000, places in 1_usize..4
        ) {
            let written = |digits: u64| {
                let digits = format!("{digits:0width$}", width = places + 1);
                let (whole, fraction) = digits.split_at(digits.len() - places);
                serde_json::from_str::<Number>(&format!("{whole}.{fraction}")).unwrap()
            };
            prop_assert_eq!(is_multiple(&written(number), &written(of)), number.is_multiple_of(of));
        }

        /// As comparing each with all before it.
        #[test]
        fn repeated_is_what_comparing_all_finds(
            picks in prop::collection::vec((0_usize..9, 0_i32..6), 0..30)
        ) {
            let value = |(form, n): (usize, i32)| match form {
                0 => json!(n),
                1 => json!(f64::from(n)),
                2 => json!(f64::from(n) + 0.5),
                3 => json!(n.to_string()),
                4 => json!([n]),
                5 => json!([f64::from(n)]),
                6 => json!({"a": n, "b": [null]}),
                7 => json!({"b": [null], "a": f64::from(n)}),
                _ => json!(n > 2),
            };
            let values: Vec<Value> = picks.into_iter().map(value).collect();
            let twice =
                (1..values.len()).find(|&at| values[..at].iter().any(|one| equal(one, &values[at])));
            prop_assert_eq!(first_repeated(&Value::from(values)), twice);
        }
    }
}
