//! Parameters: from the bytes that a client bound to the values that a statement takes.
//!
//! A value in binary form is read by the type that the client declared, or by the one that it was
//! told; in text form by the type that the statement wants. Either is then cast to what the
//! statement wants, and what does not fit is an error.

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use bytes::{Buf, Bytes};
use datafusion::common::ScalarValue;
use sql::pg::types;

use super::problem::{Problem, Stop};
use super::text::{EPOCH_DAYS, EPOCH_MICROS};

/// A value for a parameter: `declared` is the type that the client named (0 when it did not),
/// `wanted` what the statement takes (Null when it does not tell).
///
/// # Errors
/// When the bytes are no value of the type.
pub fn value(
    bytes: Option<&Bytes>,
    binary: bool,
    declared: u32,
    wanted: &DataType,
) -> Result<ScalarValue, Stop> {
    let oid = match declared {
        0 | 705 => types::type_oid(wanted),
        known => known,
    };
    // Without a wish of the statement, the client's type is the value's.
    let target = match wanted {
        DataType::Null => data_type(oid),
        other => other.clone(),
    };
    let Some(bytes) = bytes else { return Ok(ScalarValue::try_from(&target)?) };
    let value = match binary {
        true => from_binary(bytes, oid)?,
        false => from_text(bytes, &target)?,
    };
    if value.data_type() == target {
        return Ok(value);
    }
    Ok(value.cast_to(&target)?)
}

/// A NULL of the type that a client declared, to find out what a result will be.
pub fn placeholder(declared: u32, wanted: &DataType) -> ScalarValue {
    let data_type = match wanted {
        DataType::Null => data_type(declared),
        other => other.clone(),
    };
    ScalarValue::try_from(&data_type).unwrap_or(ScalarValue::Utf8(None))
}

/// The Arrow type of a type of PostgreSQL.
fn data_type(oid: u32) -> DataType {
    if let Some(element) = types::element_of(oid) {
        return DataType::new_list(data_type(element), true);
    }
    match oid {
        16 => DataType::Boolean,
        17 => DataType::Binary,
        21 => DataType::Int16,
        23 | 26 => DataType::Int32,
        20 => DataType::Int64,
        700 => DataType::Float32,
        701 => DataType::Float64,
        1082 => DataType::Date32,
        1083 => DataType::Time64(TimeUnit::Microsecond),
        1114 => DataType::Timestamp(TimeUnit::Microsecond, None),
        1184 => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        1186 => DataType::Interval(IntervalUnit::MonthDayNano),
        types::NUMERIC => DataType::Decimal128(38, 10),
        _ => DataType::Utf8,
    }
}

fn wrong(what: &str) -> Stop {
    Problem::new("22P03", format!("a parameter is no {what} in binary form")).into()
}

fn from_text(bytes: &[u8], target: &DataType) -> Result<ScalarValue, Stop> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Problem::new("22021", "a parameter is not UTF-8 text"))?;
    let unread = |what: &str| -> Stop {
        Problem::new("22P02", format!("'{text}' is no value of type {what}")).into()
    };
    match target {
        DataType::Boolean => match text.trim().to_lowercase().as_str() {
            "t" | "true" | "1" | "on" | "y" | "yes" => Ok(ScalarValue::from(true)),
            "f" | "false" | "0" | "off" | "n" | "no" => Ok(ScalarValue::from(false)),
            _ => Err(unread("boolean")),
        },
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let digits = text.strip_prefix("\\x").ok_or_else(|| unread("bytea"))?;
            let bytes = unhex(digits).ok_or_else(|| unread("bytea"))?;
            Ok(ScalarValue::Binary(Some(bytes)))
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let elements = elements(text).ok_or_else(|| unread("array"))?;
            let read = |element: Option<String>| match element {
                Some(element) => from_text(element.as_bytes(), item.data_type()),
                None => Ok(ScalarValue::try_from(item.data_type())?),
            };
            let values = elements.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
            Ok(ScalarValue::List(ScalarValue::new_list(&values, item.data_type(), true)))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            Ok(ScalarValue::from(text))
        }
        other => {
            let cast = ScalarValue::from(text.trim()).cast_to(other);
            cast.map_err(|_| unread(types::names_of(types::type_oid(other)).1))
        }
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pairs = digits.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

/// The elements of `{a,"b c",NULL}`; arrays of arrays are not read.
fn elements(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut found = Vec::new();
    let mut characters = inner.chars().peekable();
    while characters.peek().is_some() {
        let mut element = String::new();
        let mut quoted = false;
        loop {
            match characters.next() {
                None => break,
                Some(',') => {
                    // A comma at the end announces one more.
                    characters.peek()?;
                    break;
                }
                Some('"') if element.trim().is_empty() && !quoted => {
                    quoted = true;
                    element.clear();
                    loop {
                        match characters.next()? {
                            '"' => break,
                            '\\' => element.push(characters.next()?),
                            other => element.push(other),
                        }
                    }
                }
                Some('\\') => element.push(characters.next()?),
                Some('{' | '}' | '"') => return None,
                Some(other) if quoted && !other.is_whitespace() => return None,
                Some(_) if quoted => {}
                Some(other) => element.push(other),
            }
        }
        let is_null = !quoted && element.trim().eq_ignore_ascii_case("null");
        if !quoted {
            element = element.trim().to_owned();
            if element.is_empty() {
                return None;
            }
        }
        found.push((!is_null).then_some(element));
    }
    Some(found)
}

fn from_binary(bytes: &Bytes, oid: u32) -> Result<ScalarValue, Stop> {
    let mut bytes = bytes.clone();
    if let Some(element) = types::element_of(oid) {
        return array(&mut bytes, element);
    }
    let whole = bytes.len();
    let name = types::names_of(oid).1;
    let short = |_| wrong(name);
    let value = match oid {
        16 => ScalarValue::from(bytes.try_get_u8().map_err(short)? != 0),
        21 => ScalarValue::from(bytes.try_get_i16().map_err(short)?),
        23 | 26 => ScalarValue::from(bytes.try_get_i32().map_err(short)?),
        20 => ScalarValue::from(bytes.try_get_i64().map_err(short)?),
        700 => ScalarValue::from(bytes.try_get_f32().map_err(short)?),
        701 => ScalarValue::from(bytes.try_get_f64().map_err(short)?),
        1082 => {
            let days = bytes.try_get_i32().map_err(short)?;
            ScalarValue::Date32(Some(days.saturating_add(EPOCH_DAYS)))
        }
        1083 => ScalarValue::Time64Microsecond(Some(bytes.try_get_i64().map_err(short)?)),
        1114 | 1184 => {
            let micros = bytes.try_get_i64().map_err(short)?.saturating_add(EPOCH_MICROS);
            let zone = (oid == 1184).then(|| "+00:00".into());
            ScalarValue::TimestampMicrosecond(Some(micros), zone)
        }
        1186 => {
            let micros = bytes.try_get_i64().map_err(short)?;
            let days = bytes.try_get_i32().map_err(short)?;
            let months = bytes.try_get_i32().map_err(short)?;
            let nanos = micros.checked_mul(1_000).ok_or_else(|| wrong(name))?;
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanos)))
        }
        types::NUMERIC => ScalarValue::from(numeric(&mut bytes).ok_or_else(|| wrong(name))?),
        2950 => {
            let id = <[u8; 16]>::try_from(bytes.as_ref()).map_err(|_| wrong(name))?;
            bytes.clear();
            ScalarValue::from(uuid(id))
        }
        17 => {
            let value = ScalarValue::Binary(Some(bytes.to_vec()));
            bytes.clear();
            value
        }
        // jsonb has its version in front.
        3802 if bytes.first() == Some(&1) => {
            let text = std::str::from_utf8(&bytes[1..]).map_err(|_| wrong("jsonb"))?;
            let value = ScalarValue::from(text);
            bytes.clear();
            value
        }
        _ => {
            let text = std::str::from_utf8(&bytes).map_err(|_| wrong("text"))?;
            let value = ScalarValue::from(text);
            bytes.clear();
            value
        }
    };
    match bytes.is_empty() {
        true => Ok(value),
        false => Err(wrong(&format!("{name} of {whole} bytes"))),
    }
}

fn uuid(id: [u8; 16]) -> String {
    let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

/// A decimal's text from groups of four digits.
fn numeric(bytes: &mut Bytes) -> Option<String> {
    let count = bytes.try_get_i16().ok()?;
    let weight = bytes.try_get_i16().ok()?;
    let sign = bytes.try_get_u16().ok()?;
    let scale = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
    // NaN and the infinities have no form in Arrow's decimals; nor has one so long.
    if !matches!(sign, 0 | 0x4000) || weight.unsigned_abs() > 100 || scale > 400 {
        return None;
    }
    let mut groups = Vec::new();
    for _ in 0..count {
        groups.push(bytes.try_get_i16().ok().filter(|group| (0..10_000).contains(group))?);
    }
    let digit_group = |place: i16| {
        let index = usize::try_from(i32::from(weight) - i32::from(place)).ok();
        index.and_then(|index| groups.get(index)).copied().unwrap_or(0)
    };
    let mut text = String::new();
    if sign == 0x4000 {
        text.push('-');
    }
    let whole: String =
        (0..=weight.max(0)).rev().map(|place| format!("{:04}", digit_group(place))).collect();
    let whole = whole.trim_start_matches('0');
    text.push_str(if whole.is_empty() { "0" } else { whole });
    let mut fraction = String::new();
    let mut place = -1;
    while fraction.len() < scale {
        fraction.push_str(&format!("{:04}", digit_group(place)));
        place -= 1;
    }
    fraction.truncate(scale);
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(&fraction);
    }
    Some(text)
}

fn array(bytes: &mut Bytes, element: u32) -> Result<ScalarValue, Stop> {
    let short = |_| wrong("array");
    let item = data_type(element);
    let dimensions = bytes.try_get_i32().map_err(short)?;
    let _has_null = bytes.try_get_i32().map_err(short)?;
    let kind = bytes.try_get_u32().map_err(short)?;
    let mut values = Vec::new();
    match dimensions {
        0 => {}
        1 => {
            let count = bytes.try_get_u32().map_err(short)?;
            let _lower = bytes.try_get_i32().map_err(short)?;
            for _ in 0..count {
                let length = bytes.try_get_i32().map_err(short)?;
                if length < 0 {
                    values.push(ScalarValue::try_from(&item)?);
                    continue;
                }
                let length = length as usize;
                if length > bytes.len() {
                    return Err(wrong("array"));
                }
                let one = from_binary(&bytes.split_to(length), kind)?;
                values.push(one.cast_to(&item)?);
            }
        }
        _ => {
            let problem = Problem::new("0A000", "an array of arrays is no parameter");
            return Err(problem.hint("bind one array a parameter").into());
        }
    }
    if !bytes.is_empty() {
        return Err(wrong("array"));
    }
    Ok(ScalarValue::List(ScalarValue::new_list(&values, &item, true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str, wanted: &DataType) -> Result<ScalarValue, Stop> {
        super::value(Some(&Bytes::copy_from_slice(value.as_bytes())), false, 0, wanted)
    }

    fn binary(value: &[u8], declared: u32, wanted: &DataType) -> Result<ScalarValue, Stop> {
        super::value(Some(&Bytes::copy_from_slice(value)), true, declared, wanted)
    }

    #[test]
    fn text_takes_the_statements_type() {
        let day = DataType::Date32;
        assert_eq!(text("1970-01-02", &day).unwrap(), ScalarValue::Date32(Some(1)));
        assert_eq!(text("t", &DataType::Boolean).unwrap(), ScalarValue::from(true));
        assert_eq!(text("x", &DataType::Null).unwrap(), ScalarValue::from("x"));
        let list = DataType::new_list(DataType::Int64, true);
        let read = text("{1,NULL}", &list).unwrap();
        assert_eq!(read.to_string(), "[1, ]");
        for (bad, wanted) in [("x", DataType::Int64), ("\\x1", DataType::Binary), ("{1", list)] {
            assert!(text(bad, &wanted).is_err(), "{bad}");
        }
    }

    #[test]
    fn binary_takes_the_clients_type_and_is_cast() {
        let wanted = DataType::Int64;
        assert_eq!(binary(&7i32.to_be_bytes(), 23, &wanted).unwrap(), ScalarValue::from(7i64));
        assert_eq!(binary(&7i64.to_be_bytes(), 0, &wanted).unwrap(), ScalarValue::from(7i64));
        let decimal = [3i16, 1, 0x4000, 2, 1, 2345, 6700];
        let bytes: Vec<u8> = decimal.iter().flat_map(|part| part.to_be_bytes()).collect();
        let wanted = DataType::Decimal128(10, 2);
        let read = binary(&bytes, types::NUMERIC, &wanted).unwrap();
        assert_eq!(read, ScalarValue::Decimal128(Some(-1_234_567), 10, 2));
        for (bytes, declared) in [(&[1u8][..], 23), (&[0; 9], 20), (&[0; 4], 1007), (&[1; 3], 2950)]
        {
            assert!(binary(bytes, declared, &DataType::Null).is_err(), "{declared}");
        }
    }

    #[test]
    fn arrays_are_read_with_their_quotes() {
        let read = elements("{a,\"b,\\\"c\",NULL,\"null\"}").unwrap();
        let expected = [Some("a"), Some("b,\"c"), None, Some("null")];
        assert_eq!(read, expected.map(|element| element.map(str::to_owned)));
        assert_eq!(elements("{}"), Some(vec![]));
        for bad in ["a", "{a,}", "{{1}}", "{\"a}"] {
            assert_eq!(elements(bad), None, "{bad}");
        }
    }
}
