//! Numbers that are written out, of whatever type: which whole number they are, or lie above.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::common::ScalarValue;

/// Floats below it differ from their neighbours by 1 or less.
const EXACT_MAX: f64 = 9e15;

/// The largest whole number that is not above a number, and whether it is that number; `None` for
/// what is none, and for what 64 bits or a decimal of 38 digits do not hold.
pub(crate) fn floor(value: &ScalarValue) -> Option<(i64, bool)> {
    let data_type = value.data_type();
    if value.is_null() || !data_type.is_numeric() {
        return None;
    }
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => of_decimal(value, scale),
        _ if data_type.is_integer() => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(whole)) => whole.map(|whole| (whole, true)),
            _ => None,
        },
        _ => match value.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(Some(float))) if float.abs() < EXACT_MAX => {
                Some((float.floor() as i64, float.fract() == 0.0))
            }
            _ => None,
        },
    }
}

/// The whole number that a number is.
pub(crate) fn whole(value: &ScalarValue) -> Option<i64> {
    floor(value).filter(|(_, is_whole)| *is_whole).map(|(whole, _)| whole)
}

/// As digits, which no float has to round.
fn of_decimal(value: &ScalarValue, scale: i8) -> Option<(i64, bool)> {
    let digits = match value.cast_to(&DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale)) {
        Ok(ScalarValue::Decimal128(digits, _, _)) => digits?,
        _ => return None,
    };
    let one = 10_i128.checked_pow(u32::try_from(scale).ok()?)?;
    Some((i64::try_from(digits.div_euclid(one)).ok()?, digits.rem_euclid(one) == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_type_lie_above_a_whole_number() {
        let decimal = |digits, scale| ScalarValue::Decimal128(Some(digits), 38, scale);
        let cases = [
            (ScalarValue::UInt8(Some(3)), Some((3, true))),
            (ScalarValue::UInt64(Some(u64::MAX)), None),
            (ScalarValue::Int64(Some(i64::MIN)), Some((i64::MIN, true))),
            (ScalarValue::Float64(Some(-0.5)), Some((-1, false))),
            (ScalarValue::Float64(Some(f64::NAN)), None),
            (decimal(200, 2), Some((2, true))),
            (decimal(-1, 1), Some((-1, false))),
            (decimal(199_999_999_999_999_999_999, 20), Some((1, false))),
            (decimal(i128::from(i64::MAX) + 1, 0), None),
            (ScalarValue::Decimal128(None, 38, 0), None),
            (ScalarValue::from("3"), None),
        ];
        for (value, expected) in cases {
            assert_eq!(floor(&value), expected, "{value:?}");
        }
        assert_eq!((whole(&decimal(30, 1)), whole(&decimal(31, 1))), (Some(3), None));
    }
}
