//! Which column types may differ between the files of a table, and what they become together.
//!
//! A widening is allowed only where every value keeps its meaning exactly: integers to a wider
//! integer, Int32 (not Int64) to Float64, dates to timestamps, decimals to the decimal that holds
//! both. Everything else is a clash. A column that a file lacks is NULL there, so all columns of a
//! table are nullable.

use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, FieldRef, Fields, TimeUnit,
};

/// The type that holds every value of both, or `None` when there is none.
pub fn widen(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (Null, other) | (other, Null) => Some(other.clone()),
        (Dictionary(_, x), Dictionary(_, y)) => widen(x, y),
        (Dictionary(_, value), other) | (other, Dictionary(_, value)) => widen(value, other),
        _ if is_text(a) && is_text(b) => Some(Utf8View),
        _ if is_bytes(a) && is_bytes(b) => Some(BinaryView),
        _ if is_number(a) && is_number(b) => widen_numbers(a, b),
        (List(x), List(y)) => Some(List(widen_item(x, y)?)),
        (List(x) | LargeList(x), List(y) | LargeList(y)) => Some(LargeList(widen_item(x, y)?)),
        (FixedSizeList(x, n), FixedSizeList(y, m)) if n == m => {
            Some(FixedSizeList(widen_item(x, y)?, *n))
        }
        (Struct(x), Struct(y)) => widen_structs(x, y).map(Struct),
        _ => widen_times(a, b),
    }
}

/// The same for files of text, where a type is only a guess: whole numbers also become floats.
pub fn widen_guessed(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Float64, Int64};
    match (a, b) {
        (Int64, Float64) | (Float64, Int64) => Some(Float64),
        _ => widen(a, b),
    }
}

fn is_text(a: &DataType) -> bool {
    matches!(a, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(a: &DataType) -> bool {
    matches!(a, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_number(a: &DataType) -> bool {
    a.is_integer() || a.is_floating() || is_decimal(a)
}

fn is_decimal(a: &DataType) -> bool {
    use DataType::*;
    matches!(a, Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..))
}

/// Bits of an integer type that hold its magnitude, and whether it is signed.
fn integer(a: &DataType) -> Option<(u8, bool)> {
    use DataType::*;
    Some(match a {
        Int8 => (7, true),
        Int16 => (15, true),
        Int32 => (31, true),
        Int64 => (63, true),
        UInt8 => (8, false),
        UInt16 => (16, false),
        UInt32 => (32, false),
        UInt64 => (64, false),
        _ => return None,
    })
}

/// Bits of a float's significand: integers of that many bits are exact.
fn significand_bits(a: &DataType) -> Option<u8> {
    use DataType::*;
    Some(match a {
        Float16 => 11,
        Float32 => 24,
        Float64 => 53,
        _ => return None,
    })
}

fn widen_numbers(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    if is_decimal(a) || is_decimal(b) {
        return widen_decimals(a, b);
    }
    match (integer(a), integer(b)) {
        (Some((x, signed)), Some((y, other_signed))) => {
            let bits = x.max(y);
            let result = if signed || other_signed {
                [Int8, Int16, Int32, Int64]
            } else {
                [UInt8, UInt16, UInt32, UInt64]
            };
            result.into_iter().find(|t| integer(t).is_some_and(|(held, _)| held >= bits))
        }
        (Some((bits, _)), None) | (None, Some((bits, _))) => {
            let float = if a.is_floating() { a } else { b };
            [Float16, Float32, Float64].into_iter().find(|t| {
                significand_bits(t) >= significand_bits(float)
                    && significand_bits(t).is_some_and(|held| held >= bits)
            })
        }
        (None, None) => {
            Some(if significand_bits(a) >= significand_bits(b) { a.clone() } else { b.clone() })
        }
    }
}

/// Digits before and after the point.
fn digits(a: &DataType) -> Option<(i16, i16)> {
    use DataType::*;
    Some(match a {
        Decimal32(precision, scale)
        | Decimal64(precision, scale)
        | Decimal128(precision, scale)
        | Decimal256(precision, scale) => {
            (i16::from(*precision) - i16::from(*scale), i16::from(*scale))
        }
        Int8 | UInt8 => (3, 0),
        Int16 | UInt16 => (5, 0),
        Int32 | UInt32 => (10, 0),
        Int64 => (19, 0),
        UInt64 => (20, 0),
        _ => return None,
    })
}

fn widen_decimals(a: &DataType, b: &DataType) -> Option<DataType> {
    let ((before_a, after_a), (before_b, after_b)) = (digits(a)?, digits(b)?);
    let scale = after_a.max(after_b);
    let precision = u8::try_from((before_a.max(before_b) + scale).max(1)).ok()?;
    let scale = i8::try_from(scale).ok()?;
    if precision <= DECIMAL128_MAX_PRECISION {
        Some(DataType::Decimal128(precision, scale))
    } else if precision <= DECIMAL256_MAX_PRECISION {
        Some(DataType::Decimal256(precision, scale))
    } else {
        None
    }
}

fn finest(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    a.max(b)
}

fn widen_times(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    match (a, b) {
        (Date32, Date64) | (Date64, Date32) => Some(Date64),
        (Date32, Timestamp(unit, None)) | (Timestamp(unit, None), Date32) => {
            Some(Timestamp(*unit, None))
        }
        (Date64, Timestamp(unit, None)) | (Timestamp(unit, None), Date64) => {
            Some(Timestamp(finest(*unit, TimeUnit::Millisecond), None))
        }
        (Timestamp(x, zone), Timestamp(y, other)) if zone == other => {
            Some(Timestamp(finest(*x, *y), zone.clone()))
        }
        (Time32(x) | Time64(x), Time32(y) | Time64(y)) => Some(match finest(*x, *y) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
            unit => Time64(unit),
        }),
        (Duration(x), Duration(y)) => Some(Duration(finest(*x, *y))),
        _ => None,
    }
}

fn widen_item(a: &FieldRef, b: &FieldRef) -> Option<FieldRef> {
    let data_type = widen(a.data_type(), b.data_type())?;
    Some(Arc::new(Field::new(a.name(), data_type, a.is_nullable() || b.is_nullable())))
}

/// A struct with the fields of both; a field that one lacks is NULL there.
fn widen_structs(a: &Fields, b: &Fields) -> Option<Fields> {
    // Structs without a common field are different things, and DataFusion refuses to cast them.
    if !a.iter().any(|field| b.find(field.name()).is_some()) {
        return None;
    }
    let mut fields = Vec::with_capacity(a.len().max(b.len()));
    for field in a {
        fields.push(match b.find(field.name()) {
            Some((_, other)) => widen_item(field, other)?,
            None => Arc::new(field.as_ref().clone().with_nullable(true)),
        });
    }
    for field in b.iter().filter(|field| a.find(field.name()).is_none()) {
        fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
    }
    Some(fields.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataType::*;

    #[test]
    fn values_keep_their_meaning_or_the_types_clash() {
        let micro = TimeUnit::Microsecond;
        let nano = TimeUnit::Nanosecond;
        let utc: Option<Arc<str>> = Some("UTC".into());
        let cases = [
            (Int8, Int64, Some(Int64)),
            (UInt8, Int8, Some(Int16)),
            (UInt32, Int32, Some(Int64)),
            (UInt32, UInt8, Some(UInt32)),
            (UInt64, Int8, None),
            (Float32, Float64, Some(Float64)),
            (Int16, Float32, Some(Float32)),
            (Int32, Float32, Some(Float64)),
            (Int64, Float64, None),
            (Utf8, LargeUtf8, Some(Utf8View)),
            (Binary, BinaryView, Some(BinaryView)),
            (Utf8, Int64, None),
            (Utf8, Binary, None),
            (Boolean, Int8, None),
            (Null, Int8, Some(Int8)),
            (Date32, Timestamp(micro, None), Some(Timestamp(micro, None))),
            (Date32, Timestamp(micro, utc.clone()), None),
            (Timestamp(micro, None), Timestamp(nano, None), Some(Timestamp(nano, None))),
            (Timestamp(micro, utc), Timestamp(micro, None), None),
            (Time32(TimeUnit::Second), Time64(nano), Some(Time64(nano))),
            (Decimal128(10, 2), Decimal128(8, 4), Some(Decimal128(12, 4))),
            (Decimal128(38, 0), Decimal128(38, 10), Some(Decimal256(48, 10))),
            (Int32, Decimal128(5, 2), Some(Decimal128(12, 2))),
            (Dictionary(Box::new(Int8), Box::new(Utf8)), Utf8, Some(Utf8)),
        ];
        for (a, b, expected) in cases {
            assert_eq!(widen(&a, &b), expected, "{a} and {b}");
            assert_eq!(widen(&b, &a), expected, "{b} and {a}");
        }
        assert_eq!(widen_guessed(&Int64, &Float64), Some(Float64));
    }

    #[test]
    fn structs_and_lists_widen_inside() {
        let field = |name: &str, t: DataType| Field::new(name, t, false);
        let a = Struct(vec![field("x", Int8), field("y", Utf8)].into());
        let b = Struct(vec![field("x", Int32), field("z", Utf8)].into());
        let Some(Struct(fields)) = widen(&a, &b) else { panic!("no struct") };
        let names: Vec<_> = fields.iter().map(|f| (f.name().as_str(), f.is_nullable())).collect();
        assert_eq!(names, [("x", false), ("y", true), ("z", true)]);
        assert_eq!(fields[0].data_type(), &Int32);
        let list = |t| List(Arc::new(Field::new_list_field(t, true)));
        assert_eq!(widen(&list(Int8), &list(Int16)), Some(list(Int16)));
        assert_eq!(widen(&list(Int8), &list(Utf8)), None);
        let disjoint = Struct(vec![field("q", Int8)].into());
        assert_eq!(widen(&a, &disjoint), None);
    }

    #[test]
    fn widening_is_idempotent_and_commutes() {
        let all = [
            Null,
            Boolean,
            Int8,
            Int16,
            Int32,
            Int64,
            UInt8,
            UInt16,
            UInt32,
            UInt64,
            Float16,
            Float32,
            Float64,
            Utf8,
            LargeUtf8,
            Utf8View,
            Binary,
            Date32,
            Date64,
            Decimal128(20, 3),
            Timestamp(TimeUnit::Second, None),
        ];
        for a in &all {
            for b in &all {
                let both = widen(a, b);
                assert_eq!(both, widen(b, a), "{a} {b}");
                if let Some(both) = both {
                    assert_eq!(widen(&both, a), Some(both.clone()), "{a} {b}");
                    assert_eq!(widen(&both, b), Some(both.clone()), "{a} {b}");
                }
            }
        }
    }
}
