//! What the outlier scores share: they are window functions that look at a whole partition.
//!
//! A score is computed for each row from the partition's values; ORDER BY and frames do not change
//! it. NULL and NaN have no score and do not count. A partition whose values do not spread has no
//! scores: NULL, not a division by zero. How scores are made is [`crate::model::outlier`]'s, which
//! the aggregates and models share.

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::{Result, exec_err, plan_err};
use std::sync::Arc;

use crate::model::outlier::{Method, Spread};

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

/// Scores a partition's rows by what is usual among them.
pub(super) fn scores(method: Method, values: &[ArrayRef]) -> Result<ArrayRef> {
    let Some(column) = values.first().and_then(|column| column.as_primitive_opt::<Float64Type>())
    else {
        return exec_err!("a score by {} misses its values", method.name());
    };
    let mut present: Vec<f64> = column.iter().flatten().filter(|value| !value.is_nan()).collect();
    let spread = Spread::of(method, &mut present);
    let score = |value: Option<f64>| spread.as_ref()?.score(value?);
    Ok(Arc::new(column.iter().map(score).collect::<Float64Array>()))
}

/// Implements `WindowUDFImpl` for a documented struct with a `signature` field: `types` gives the
/// types in which arguments are read, `answer` scores a partition's columns.
macro_rules! outlier_function {
    ($function:ident, $name:expr, $types:path, $answer:path) => {
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
                $types($name, arg_types)
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
                $answer(values)
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
    fn only_one_number_is_scored() {
        assert!(number("zscore", &[DataType::Utf8]).is_err());
        assert!(number("zscore", &[]).is_err());
        assert_eq!(number("zscore", &[DataType::Int8]).unwrap(), [DataType::Float64]);
    }
}
