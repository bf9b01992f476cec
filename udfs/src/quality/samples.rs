//! Columns as distributions, and the aggregates that compare two samples of one column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};

use super::distribution::{Distribution, ks, psi};
use crate::features::groups::{Kernel, Rows};
use crate::text::Text;

/// The type in which a column's distribution is read.
///
/// # Errors
/// When the values have no distribution.
pub(super) fn value_type(name: &str, given: &DataType) -> Result<DataType> {
    use DataType as T;
    match given {
        T::Null => Ok(T::Float64),
        other if other.is_numeric() => Ok(T::Float64),
        T::Date32 | T::Date64 | T::Timestamp(..) | T::Time32(_) | T::Time64(_) => Ok(given.clone()),
        T::Boolean => Ok(T::Utf8),
        T::Utf8 | T::LargeUtf8 | T::Utf8View => Ok(given.clone()),
        T::Dictionary(_, value) => match value.as_ref() {
            T::Utf8 | T::LargeUtf8 | T::Utf8View => Ok(given.clone()),
            other => value_type(name, other),
        },
        other => plan_err!("{name} takes numbers, times, texts and truth values, not {other}"),
    }
}

/// A column's values, ready to be put into distributions.
pub(super) enum Values {
    Numbers(Float64Array),
    Texts(Text),
}

impl Values {
    /// Reads a column of a type that [`value_type`] gives.
    pub(super) fn of(name: &str, column: &ArrayRef) -> Result<Self> {
        use DataType as T;
        let numbers = match column.data_type() {
            T::Float64 => Arc::clone(column),
            T::Date32 | T::Time32(_) => cast(&cast(column, &T::Int32)?, &T::Float64)?,
            T::Date64 | T::Timestamp(..) | T::Time64(_) => {
                cast(&cast(column, &T::Int64)?, &T::Float64)?
            }
            _ => return Ok(Self::Texts(Text::from_array(name, column)?)),
        };
        match numbers.as_primitive_opt::<Float64Type>() {
            Some(numbers) => Ok(Self::Numbers(numbers.clone())),
            None => exec_err!("{name} expects numbers, got {}", numbers.data_type()),
        }
    }

    /// Puts a row's value into a distribution.
    #[inline]
    pub(super) fn put(&self, row: usize, into: &mut Distribution) -> Result<()> {
        match self {
            Self::Numbers(numbers) if numbers.is_valid(row) => into.number(numbers.value(row)),
            Self::Texts(texts) => match texts.get(row) {
                Some(text) => into.category(text),
                None => {
                    into.miss(1);
                    Ok(())
                }
            },
            Self::Numbers(_) => {
                into.miss(1);
                Ok(())
            }
        }
    }
}

/// The distributions of a state column.
pub(super) fn read_state(name: &str, states: &[ArrayRef], at: usize) -> Result<BinaryArray> {
    let column = states.get(at).and_then(|state| state.as_binary_opt::<i32>());
    match column {
        Some(column) => Ok(column.clone()),
        None => exec_err!("{name}: a partial aggregate carries no distribution"),
    }
}

/// One distribution a group, as bytes.
pub(super) fn written<'a>(distributions: impl Iterator<Item = &'a Distribution>) -> ArrayRef {
    Arc::new(BinaryArray::from_iter_values(distributions.map(Distribution::to_bytes)))
}

/// The types of a value and of the mark that tells which sample it is of.
///
/// # Errors
/// When the call has other arguments.
pub(super) fn sample_types(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    let [value, mark] = given else {
        return plan_err!("{name}(value, is_reference) was called with {} arguments", given.len());
    };
    if !matches!(mark, DataType::Boolean | DataType::Null) {
        return plan_err!(
            "{name}: is_reference must be a condition such as year = 2024, not {mark}"
        );
    }
    Ok(vec![value_type(name, value)?, DataType::Boolean])
}

/// The state of an aggregate of two samples.
pub(super) fn sample_state(args: &StateFieldsArgs) -> Vec<FieldRef> {
    let field =
        |part: &str| Arc::new(Field::new(format!("{}[{part}]", args.name), DataType::Binary, true));
    vec![field("sample"), field("reference")]
}

/// Of each group two samples: with `PSI` they are compared by the population stability index,
/// else by the Kolmogorov–Smirnov statistic.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples<const PSI: bool> {
    groups: Vec<(Distribution, Distribution)>,
}

impl<const PSI: bool> Samples<PSI> {
    const NAME: &'static str = if PSI { "psi" } else { "ks_statistic" };

    pub(super) fn planned(_args: &AccumulatorArgs) -> Result<Self> {
        Ok(Self::default())
    }
}

impl<const PSI: bool> Kernel for Samples<PSI> {
    fn fresh(&self) -> Result<Self> {
        Ok(Self::default())
    }

    fn grow(&mut self, groups: usize) {
        self.groups.resize_with(groups.max(self.groups.len()), Default::default);
    }

    fn groups(&self) -> usize {
        self.groups.len()
    }

    fn update(&mut self, values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let [values, marks] = values else { return exec_err!("{} misses values", Self::NAME) };
        let values = Values::of(Self::NAME, values)?;
        let marks: &BooleanArray = match marks.as_boolean_opt() {
            Some(marks) => marks,
            None => return exec_err!("{} expects a condition", Self::NAME),
        };
        for (row, group) in rows.iter().filter(|(row, _)| marks.is_valid(*row)) {
            let (sample, reference) = &mut self.groups[group];
            values.put(row, if marks.value(row) { reference } else { sample })?;
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let sample = read_state(Self::NAME, states, 0)?;
        let reference = read_state(Self::NAME, states, 1)?;
        for (row, group) in rows.iter().filter(|(row, _)| sample.is_valid(*row)) {
            self.groups[group].0.merge(&Distribution::from_bytes(sample.value(row))?)?;
            self.groups[group].1.merge(&Distribution::from_bytes(reference.value(row))?)?;
        }
        Ok(())
    }

    fn answers(&self, groups: usize) -> Result<ArrayRef> {
        let compare = |(sample, reference): &(Distribution, Distribution)| match PSI {
            true => psi(sample, reference),
            false => ks(sample, reference),
        };
        let answers: Float64Array =
            self.groups.iter().take(groups).map(compare).collect::<Result<_>>()?;
        Ok(Arc::new(answers))
    }

    fn states(&self, groups: usize) -> Result<Vec<ArrayRef>> {
        let groups = || self.groups.iter().take(groups);
        Ok(vec![written(groups().map(|group| &group.0)), written(groups().map(|group| &group.1))])
    }

    fn forget(&mut self, groups: usize) {
        self.groups.drain(..groups);
    }

    fn heap_bytes(&self) -> usize {
        let each = |group: &(Distribution, Distribution)| {
            size_of_val(group) + group.0.heap_bytes() + group.1.heap_bytes()
        };
        self.groups.iter().map(each).sum()
    }
}

/// An aggregate of a column's distribution in two samples: `$kernel` of a value and a mark.
macro_rules! sample_aggregate {
    ($type:ident, $name:expr, $kernel:ident) => {
        $crate::features::groups::kernel_aggregate!($type, $name, $kernel, {
            fn coerce_types(
                &self,
                arg_types: &[arrow::datatypes::DataType],
            ) -> datafusion_common::Result<Vec<arrow::datatypes::DataType>> {
                $crate::quality::samples::sample_types($name, arg_types)
            }

            fn return_type(
                &self,
                _arg_types: &[arrow::datatypes::DataType],
            ) -> datafusion_common::Result<arrow::datatypes::DataType> {
                Ok(arrow::datatypes::DataType::Float64)
            }

            fn state_fields(
                &self,
                args: datafusion_expr::function::StateFieldsArgs,
            ) -> datafusion_common::Result<Vec<arrow::datatypes::FieldRef>> {
                Ok($crate::quality::samples::sample_state(&args))
            }
        });
    };
}

pub(super) use sample_aggregate;
