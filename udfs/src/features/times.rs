//! Reading times and durations of every Arrow type in place, for the functions of this package.
//!
//! A time is a date (its midnight) or a timestamp; both count from 1970-01-01 UTC, and a timestamp
//! without a time zone is read as UTC. A duration is an INTERVAL, a difference of timestamps, or a
//! number of seconds. A day of an interval has 24 hours and a month 30 days, whatever the calendar.

use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Date64Type, Float64Type, IntervalMonthDayNanoType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, IntervalMonthDayNanoArray};
use arrow::array::{DurationMicrosecondArray, DurationMillisecondArray};
use arrow::array::{DurationNanosecondArray, DurationSecondArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion_common::{Result, exec_err, plan_err};

/// Nanoseconds of a second.
pub(super) const NANOS_PER_SECOND: i128 = 1_000_000_000;
const NANOS_PER_DAY: i128 = 86_400 * NANOS_PER_SECOND;
const DAYS_PER_MONTH: i128 = 30;

/// The type that an argument of time is read as: dates and timestamps as they are, text as a
/// timestamp.
///
/// # Errors
/// When the argument is nothing of the kind, with a hint.
pub(super) fn time_type(function: &str, argument: &str, given: &DataType) -> Result<DataType> {
    match given {
        DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 => Ok(given.clone()),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            Ok(DataType::Timestamp(TimeUnit::Nanosecond, None))
        }
        DataType::Dictionary(_, values) => time_type(function, argument, values),
        other => plan_err!(
            "{function}: {argument} must be a date or a timestamp, not {other}. Hint: \
             to_timestamp_seconds(…) makes timestamps of seconds since 1970"
        ),
    }
}

/// The type that an argument of duration is read as.
///
/// # Errors
/// When the argument is neither an interval nor a number, with a hint.
pub(super) fn duration_type(function: &str, argument: &str, given: &DataType) -> Result<DataType> {
    match given {
        DataType::Interval(_) => Ok(DataType::Interval(IntervalUnit::MonthDayNano)),
        DataType::Duration(_) => Ok(given.clone()),
        DataType::Null => Ok(DataType::Float64),
        number if number.is_numeric() => Ok(DataType::Float64),
        other => plan_err!(
            "{function}: {argument} must be an interval or a number of seconds, not {other}. \
             Hint: write INTERVAL '30 minutes', or 1800"
        ),
    }
}

/// The arguments' count of a call, checked.
///
/// # Errors
/// When there are fewer or more.
pub(super) fn check_count(
    syntax: &str,
    types: &[DataType],
    least: usize,
    most: usize,
) -> Result<()> {
    if (least..=most).contains(&types.len()) {
        return Ok(());
    }
    plan_err!("{syntax} was called with {} arguments", types.len())
}

/// A column of times, read in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times<'a> {
    ticks: Ticks<'a>,
    nulls: Option<&'a NullBuffer>,
    nanos_per_tick: i128,
}

#[derive(Debug, Clone, Copy)]
enum Ticks<'a> {
    Days(&'a [i32]),
    Wide(&'a [i64]),
}

impl<'a> Times<'a> {
    /// Reads a column of dates or timestamps.
    ///
    /// # Errors
    /// When it holds something else.
    pub(super) fn new(function: &str, array: &'a ArrayRef) -> Result<Self> {
        let data_type = array.data_type();
        let ticks = match data_type {
            DataType::Date32 => {
                array.as_primitive_opt::<Date32Type>().map(|days| Ticks::Days(days.values()))
            }
            DataType::Date64 => wide::<Date64Type>(array),
            DataType::Timestamp(TimeUnit::Second, _) => wide::<TimestampSecondType>(array),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                wide::<TimestampMillisecondType>(array)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                wide::<TimestampMicrosecondType>(array)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => wide::<TimestampNanosecondType>(array),
            _ => None,
        };
        match (ticks, nanos_per_tick(data_type)) {
            (Some(ticks), Some(nanos_per_tick)) => {
                Ok(Self { ticks, nulls: array.nulls(), nanos_per_tick })
            }
            _ => exec_err!("{function} expects times, got {data_type}"),
        }
    }

    /// The time of a row in the column's own unit; `None` is NULL.
    #[inline]
    pub(super) fn ticks(&self, row: usize) -> Option<i64> {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        match self.ticks {
            Ticks::Days(days) => days.get(row).map(|&day| i64::from(day)),
            Ticks::Wide(ticks) => ticks.get(row).copied(),
        }
    }

    /// The time of a row in nanoseconds since 1970; `None` is NULL.
    #[inline]
    pub(super) fn nanos(&self, row: usize) -> Option<i128> {
        self.ticks(row).map(|ticks| i128::from(ticks) * self.nanos_per_tick)
    }
}

fn wide<T: ArrowPrimitiveType<Native = i64>>(array: &ArrayRef) -> Option<Ticks<'_>> {
    array.as_primitive_opt::<T>().map(|ticks| Ticks::Wide(ticks.values()))
}

/// Nanoseconds of the unit in which a type of time counts; `None` when it is no time.
pub(super) fn nanos_per_tick(data_type: &DataType) -> Option<i128> {
    match data_type {
        DataType::Date32 => Some(NANOS_PER_DAY),
        DataType::Date64 => Some(unit_nanos(TimeUnit::Millisecond)),
        DataType::Timestamp(unit, _) => Some(unit_nanos(*unit)),
        _ => None,
    }
}

fn unit_nanos(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => NANOS_PER_SECOND,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// Nanoseconds as seconds.
pub(super) fn seconds(nanos: i128) -> f64 {
    nanos as f64 / NANOS_PER_SECOND as f64
}

/// A column of durations, read in place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Durations<'a> {
    /// Intervals.
    Interval(&'a IntervalMonthDayNanoArray),
    /// Differences of timestamps: count, NULLs, nanoseconds of the unit.
    Difference(&'a [i64], Option<&'a NullBuffer>, i128),
    /// Seconds.
    Seconds(&'a Float64Array),
}

impl<'a> Durations<'a> {
    /// Reads a column of one of the types of [`duration_type`].
    ///
    /// # Errors
    /// When it holds something else.
    pub(super) fn new(function: &str, array: &'a ArrayRef) -> Result<Self> {
        let difference = |ticks: Option<&'a [i64]>, unit| {
            ticks.map(|ticks| Self::Difference(ticks, array.nulls(), unit_nanos(unit)))
        };
        let any = array.as_any();
        let read = match array.data_type() {
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                array.as_primitive_opt::<IntervalMonthDayNanoType>().map(Self::Interval)
            }
            DataType::Float64 => array.as_primitive_opt::<Float64Type>().map(Self::Seconds),
            DataType::Duration(unit @ TimeUnit::Second) => difference(
                any.downcast_ref::<DurationSecondArray>().map(|ticks| ticks.values().as_ref()),
                *unit,
            ),
            DataType::Duration(unit @ TimeUnit::Millisecond) => difference(
                any.downcast_ref::<DurationMillisecondArray>().map(|ticks| ticks.values().as_ref()),
                *unit,
            ),
            DataType::Duration(unit @ TimeUnit::Microsecond) => difference(
                any.downcast_ref::<DurationMicrosecondArray>().map(|ticks| ticks.values().as_ref()),
                *unit,
            ),
            DataType::Duration(unit @ TimeUnit::Nanosecond) => difference(
                any.downcast_ref::<DurationNanosecondArray>().map(|ticks| ticks.values().as_ref()),
                *unit,
            ),
            _ => None,
        };
        match read {
            Some(read) => Ok(read),
            None => exec_err!("{function} expects a duration, got {}", array.data_type()),
        }
    }

    /// The duration of a row in seconds; `None` is NULL.
    #[inline]
    pub(super) fn seconds(&self, row: usize) -> Option<f64> {
        match self {
            Self::Seconds(values) => values.is_valid(row).then(|| values.value(row)),
            _ => self.whole_nanos(row).map(seconds),
        }
    }

    /// The duration of a row in nanoseconds; `None` is NULL. Seconds are rounded, those beyond
    /// every time saturate, and NaN is 0: a caller to whom that matters asks [`Self::seconds`].
    #[inline]
    pub(super) fn nanos(&self, row: usize) -> Option<i128> {
        match self {
            Self::Seconds(values) => {
                let nanos = |seconds: f64| (seconds * NANOS_PER_SECOND as f64).round() as i128;
                values.is_valid(row).then(|| nanos(values.value(row)))
            }
            _ => self.whole_nanos(row),
        }
    }

    fn whole_nanos(&self, row: usize) -> Option<i128> {
        match self {
            Self::Interval(values) if values.is_valid(row) => {
                let value = values.value(row);
                let days = i128::from(value.months) * DAYS_PER_MONTH + i128::from(value.days);
                Some(days * NANOS_PER_DAY + i128::from(value.nanoseconds))
            }
            Self::Difference(ticks, nulls, unit) => {
                let valid = nulls.is_none_or(|nulls| nulls.is_valid(row));
                ticks.get(row).filter(|_| valid).map(|&ticks| i128::from(ticks) * unit)
            }
            Self::Interval(_) | Self::Seconds(_) => None,
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Columns of times for the tests of this package.

    use std::sync::Arc;

    use arrow::array::TimestampSecondArray;

    use super::*;

    /// Timestamps by their seconds since 1970.
    pub(crate) fn stamps(seconds: &[Option<i64>]) -> ArrayRef {
        Arc::new(TimestampSecondArray::from(seconds.to_vec()))
    }

    /// The same times in every type that holds whole days.
    pub(crate) fn in_every_type(days: &[Option<i64>]) -> Vec<ArrayRef> {
        let seconds: Vec<_> = days.iter().map(|day| day.map(|day| day * 86_400)).collect();
        let stamps = stamps(&seconds);
        let zone: Arc<str> = "+02:00".into();
        let types = [
            DataType::Timestamp(TimeUnit::Second, None),
            DataType::Timestamp(TimeUnit::Millisecond, None),
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::Date32,
            DataType::Date64,
        ];
        let mut arrays: Vec<ArrayRef> =
            types.iter().map(|to| arrow::compute::cast(&stamps, to).unwrap()).collect();
        let zoned = TimestampSecondArray::from(seconds).with_timezone(zone);
        arrays.push(Arc::new(zoned));
        arrays
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::DurationMillisecondArray;
    use arrow::datatypes::IntervalMonthDayNano;

    use super::*;

    #[test]
    fn every_type_of_time_reads_the_same() {
        for array in testing::in_every_type(&[Some(-1), None, Some(20_000)]) {
            let times = Times::new("f", &array).unwrap();
            let nanos = [times.nanos(0), times.nanos(1), times.nanos(2)];
            let expected = [Some(-NANOS_PER_DAY), None, Some(20_000 * NANOS_PER_DAY)];
            assert_eq!(nanos, expected, "{}", array.data_type());
        }
        let number: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        assert!(Times::new("f", &number).is_err());
    }

    #[test]
    fn every_type_of_duration_reads_the_same() {
        let interval = IntervalMonthDayNano::new(1, 2, 500_000_000);
        let seconds = 32.0 * 86_400.0 + 0.5;
        let columns: [ArrayRef; 3] = [
            Arc::new(IntervalMonthDayNanoArray::from(vec![Some(interval), None])),
            Arc::new(DurationMillisecondArray::from(vec![Some((seconds * 1000.0) as i64), None])),
            Arc::new(Float64Array::from(vec![Some(seconds), None])),
        ];
        for column in &columns {
            let durations = Durations::new("f", column).unwrap();
            assert_eq!(durations.seconds(0), Some(seconds), "{}", column.data_type());
            assert_eq!(durations.nanos(0), Some(2_764_800_500_000_000), "{}", column.data_type());
            assert_eq!((durations.seconds(1), durations.nanos(1)), (None, None));
        }
    }

    #[test]
    fn other_types_are_refused_with_a_hint() {
        let error = time_type("f", "ts", &DataType::Int64).unwrap_err().to_string();
        assert!(error.contains("ts must be a date") && error.contains("to_timestamp_seconds"));
        let error = duration_type("f", "gap", &DataType::Utf8).unwrap_err().to_string();
        assert!(error.contains("INTERVAL '30 minutes'"), "{error}");
        let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        assert!(time_type("f", "ts", &text).is_ok());
    }
}
