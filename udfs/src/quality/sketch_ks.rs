//! `sketch_ks(actual, expected)`: the Kolmogorov–Smirnov statistic of two kept distributions.
//!
//! The arguments are what `distribution_sketch` answered for numbers or times; the statistic is
//! that of `ks_statistic`. NULL in, NULL out; NULL without values on one side. Other bytes are an
//! error.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::distribution::ks;
use super::sketch_psi::{compared, sketch_coercion};
use crate::fuzzy::arguments::{scalar_function, signature};

#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "The Kolmogorov-Smirnov statistic of two distributions of numbers or times that \
distribution_sketch made: the largest distance between their cumulative shares, from 0 to 1.",
    syntax_example = "sketch_ks(actual, expected)",
    sql_example = r#"```sql
> SELECT sketch_ks(distribution_sketch(n), distribution_sketch(n + 5)) AS distance
  FROM generate_series(1, 10) AS t (n);
+----------+
| distance |
+----------+
| 0.5      |
+----------+
```"#,
    argument(name = "actual", description = "What distribution_sketch answered for these rows."),
    argument(name = "expected", description = "What it answered for the rows to compare with."),
    related_udf(name = "distribution_sketch"),
    related_udf(name = "ks_statistic")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SketchKsFunction {
    signature: Signature,
}

scalar_function!(
    SketchKsFunction,
    "sketch_ks",
    signature(vec![sketch_coercion(); 2]),
    DataType::Float64,
    sketch_ks
);

fn sketch_ks(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    compared(name, arguments, rows, ks)
}
