//! What the outlier scores share: they are window functions that look at a whole partition.
//!
//! A score is computed for each row from the partition's values; ORDER BY and frames do not change
//! it. NULL and NaN have no score and do not count. A partition whose values do not spread has no
//! scores: NULL, not a division by zero.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::{Result, exec_err, plan_err};
use std::sync::Arc;

/// The type in which a score reads its argument.
///
/// # Errors
/// When the call has other arguments than one number.
pub(super) fn number(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    match given {
        [one] if one.is_numeric() || one.is_null() => Ok(vec![DataType::Float64]),
        [other] => plan_err!("{name} takes a number, not {other}"),
        _ => plan_err!("{name}(value) was called with {} arguments", given.len()),
    }
}

/// Scores a partition's rows: `fit` makes the score of the finite values, in order of size.
pub(super) fn scores(
    name: &str,
    values: &[ArrayRef],
    fit: impl FnOnce(&mut [f64]) -> Option<Score>,
) -> Result<ArrayRef> {
    let Some(column) = values.first().and_then(|column| column.as_primitive_opt::<Float64Type>())
    else {
        return exec_err!("{name} misses its values");
    };
    let mut present: Vec<f64> = column.iter().flatten().filter(|value| !value.is_nan()).collect();
    let score = fit(&mut present);
    let of = |value: f64| score.as_ref().filter(|_| !value.is_nan()).map(|score| score(value));
    let scores: Float64Array =
        (0..column.len()).map(|row| column.is_valid(row).then(|| of(column.value(row)))?).collect();
    Ok(Arc::new(scores))
}

/// The score of a value.
pub(super) type Score = Box<dyn Fn(f64) -> f64>;

/// The quantile of values, between the two nearest when it falls between them, as SQL's
/// `percentile_cont`. Sorts them; `None` of no values.
pub(super) fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    values.sort_unstable_by(f64::total_cmp);
    let place = share * (values.len() - 1) as f64;
    let below = place.floor();
    let at = below as usize;
    let next = values.get(at + 1).copied().unwrap_or(values[at]);
    let part = place - below;
    Some(if part == 0.0 { values[at] } else { values[at] + (next - values[at]) * part })
}

/// Implements `WindowUDFImpl` for a documented struct with a `signature` field; `fit` makes the
/// score of a partition's values.
macro_rules! outlier_function {
    ($function:ident, $name:literal, $fit:path) => {
        impl $function {
            /// The function.
            pub fn new() -> Self {
                let volatility = datafusion_expr::Volatility::Immutable;
                Self { signature: datafusion_expr::Signature::user_defined(volatility) }
            }
        }

        impl Default for $function {
            fn default() -> Self {
                Self::new()
            }
        }

        impl datafusion_expr::WindowUDFImpl for $function {
            fn name(&self) -> &str {
                $name
            }

            fn signature(&self) -> &datafusion_expr::Signature {
                &self.signature
            }

            fn coerce_types(
                &self,
                arg_types: &[arrow::datatypes::DataType],
            ) -> datafusion_common::Result<Vec<arrow::datatypes::DataType>> {
                $crate::quality::outliers::number($name, arg_types)
            }

            fn partition_evaluator(
                &self,
                _args: datafusion_expr::function::PartitionEvaluatorArgs,
            ) -> datafusion_common::Result<Box<dyn datafusion_expr::PartitionEvaluator>> {
                Ok(Box::new(Whole))
            }

            fn field(
                &self,
                args: datafusion_expr::function::WindowUDFFieldArgs,
            ) -> datafusion_common::Result<arrow::datatypes::FieldRef> {
                let float = arrow::datatypes::DataType::Float64;
                Ok(std::sync::Arc::new(arrow::datatypes::Field::new(args.name(), float, true)))
            }

            fn documentation(&self) -> Option<&datafusion_expr::Documentation> {
                self.doc()
            }
        }

        /// A partition, looked at as a whole.
        #[derive(Debug)]
        struct Whole;

        impl datafusion_expr::PartitionEvaluator for Whole {
            fn evaluate_all(
                &mut self,
                values: &[arrow::array::ArrayRef],
                _num_rows: usize,
            ) -> datafusion_common::Result<arrow::array::ArrayRef> {
                $crate::quality::outliers::scores($name, values, $fit)
            }
        }
    };
}

pub(super) use outlier_function;

#[cfg(test)]
pub(super) mod testing {
    //! Scores a partition as the engine does.

    use super::*;
    use datafusion_expr::WindowUDFImpl;
    use datafusion_expr::function::PartitionEvaluatorArgs;

    pub(crate) fn scored(
        function: &impl WindowUDFImpl,
        values: &[Option<f64>],
    ) -> Vec<Option<f64>> {
        let column: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let mut evaluator =
            function.partition_evaluator(PartitionEvaluatorArgs::default()).unwrap();
        let scores = evaluator.evaluate_all(&[column], values.len()).unwrap();
        scores.as_primitive::<Float64Type>().iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        assert_eq!(quantile(&mut [], 0.5), None);
        assert_eq!(quantile(&mut [7.0], 0.25), Some(7.0));
        assert_eq!(quantile(&mut [4.0, 1.0, 3.0, 2.0], 0.5), Some(2.5));
        assert_eq!(quantile(&mut [4.0, 1.0, 3.0, 2.0], 1.0), Some(4.0));
        assert_eq!(quantile(&mut [f64::INFINITY, 1.0, f64::INFINITY], 1.0), Some(f64::INFINITY));
    }

    #[test]
    fn only_one_number_is_scored() {
        assert!(number("zscore", &[DataType::Utf8]).is_err());
        assert!(number("zscore", &[]).is_err());
        assert_eq!(number("zscore", &[DataType::Int8]).unwrap(), [DataType::Float64]);
    }
}
