//! `sketch_psi(actual, expected)`: the population stability index of two kept distributions.
//!
//! The arguments are what `distribution_sketch` answered; the index is that of `psi`. NULL in,
//! NULL out; NULL without rows on one side. Other bytes are an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion_common::types::logical_binary;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{Coercion, ColumnarValue, Signature, TypeSignatureClass};
use datafusion_macros::user_doc;

use super::distribution::{Distribution, psi};
use crate::fuzzy::arguments::{columnar, scalar_function, signature};

#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "The population stability index of two distributions that distribution_sketch \
made: 0 for equal ones, below 0.1 little has changed, above 0.25 much.",
    syntax_example = "sketch_psi(actual, expected)",
    sql_example = r#"```sql
> SELECT sketch_psi(distribution_sketch(c), distribution_sketch(c)) AS drift
  FROM (VALUES ('app'), ('shop')) AS t (c);
+-------+
| drift |
+-------+
| 0.0   |
+-------+
```"#,
    argument(name = "actual", description = "What distribution_sketch answered for these rows."),
    argument(name = "expected", description = "What it answered for the rows to compare with."),
    related_udf(name = "distribution_sketch"),
    related_udf(name = "psi")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SketchPsiFunction {
    signature: Signature,
}

scalar_function!(
    SketchPsiFunction,
    "sketch_psi",
    signature(vec![sketch_coercion(); 2]),
    DataType::Float64,
    sketch_psi
);

fn sketch_psi(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    compared(name, arguments, rows, psi)
}

pub(super) fn sketch_coercion() -> Coercion {
    Coercion::new_exact(TypeSignatureClass::Native(logical_binary()))
}

/// Compares two columns of distributions row by row.
pub(super) fn compared(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    compare: impl Fn(&Distribution, &Distribution) -> Result<Option<f64>>,
) -> Result<ColumnarValue> {
    let [actual, expected] = arguments else {
        return exec_err!("{name} takes two distributions, got {} arguments", arguments.len());
    };
    columnar(arguments, rows, |rows| {
        let (actual, expected) = (bytes(name, actual, rows)?, bytes(name, expected, rows)?);
        let pairs = actual.iter().zip(expected.iter());
        let values = pairs.map(|pair| match pair {
            (Some(actual), Some(expected)) => {
                compare(&Distribution::from_bytes(actual)?, &Distribution::from_bytes(expected)?)
            }
            _ => Ok(None),
        });
        Ok(Arc::new(values.collect::<Result<Float64Array>>()?))
    })
}

fn bytes(name: &str, argument: &ColumnarValue, rows: usize) -> Result<BinaryArray> {
    let array: ArrayRef = cast(&argument.to_array(rows)?, &DataType::Binary)?;
    match array.as_binary_opt::<i32>() {
        Some(bytes) => Ok(bytes.clone()),
        None => exec_err!("{name} expects a distribution, got {}", array.data_type()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use arrow::datatypes::Float64Type;
    use datafusion_common::ScalarValue;

    use super::*;
    use crate::fuzzy::testing::{error_of, one};

    #[test]
    fn kept_distributions_are_compared() {
        let mut kept = Distribution::default();
        kept.number(1.0).unwrap();
        let kept = ScalarValue::Binary(Some(kept.to_bytes()));
        for name in ["sketch_psi", "sketch_ks"] {
            let same = one(name, &[kept.clone(), kept.clone()]);
            assert_eq!(same.as_primitive::<Float64Type>().value(0), 0.0, "{name}");
            assert!(one(name, &[kept.clone(), ScalarValue::Binary(None)]).is_null(0), "{name}");
            let wrong = ScalarValue::Binary(Some(b"x".to_vec()));
            assert!(error_of(name, &[kept.clone(), wrong]).contains("no distribution"), "{name}");
        }
    }
}
