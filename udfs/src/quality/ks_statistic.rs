//! `ks_statistic(value, is_reference)`: the Kolmogorov–Smirnov statistic of two samples.
//!
//! The largest distance between the cumulative shares of the two, from 0 (alike) to 1 (apart).
//! Missing values (NULL, NaN) and rows whose `is_reference` is NULL are left out; without values on
//! one side the answer is NULL. Above 1,024 values a side the shares are those of a sketch, a few
//! thousandths off at most.

use datafusion_expr::Signature;
use datafusion_macros::user_doc;

use super::samples::{Samples, sample_aggregate};

const NAME: &str = "ks_statistic";

type KsSamples = Samples<false>;

/// The aggregate `ks_statistic`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "The Kolmogorov-Smirnov statistic of two samples: the largest distance between \
the cumulative shares of the rows where is_reference is TRUE and of those where it is FALSE, from \
0 to 1. Missing values are left out; NULL without values on one side.",
    syntax_example = "ks_statistic(value, is_reference)",
    sql_example = r#"```sql
> SELECT ks_statistic(price, year = 2024) AS distance
  FROM (VALUES (1, 2024), (2, 2024), (3, 2024), (4, 2024), (3, 2025), (4, 2025)) AS t (price, year);
+----------+
| distance |
+----------+
| 0.5      |
+----------+
```"#,
    argument(name = "value", description = "Numbers, dates or timestamps."),
    argument(
        name = "is_reference",
        description = "TRUE for rows of the reference, FALSE for those compared with it."
    ),
    related_udf(name = "psi")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct KsStatistic {
    signature: Signature,
}

sample_aggregate!(KsStatistic, NAME, KsSamples);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Float64Array};
    use datafusion_common::ScalarValue;

    use super::*;
    use crate::features::groups::testing::{aggregate, check_groups};

    fn columns() -> Vec<ArrayRef> {
        let value = [Some(1.0), Some(2.0), Some(3.0), Some(4.0), Some(3.0), Some(4.0), None];
        let mark = [true, true, true, true, false, false, false];
        vec![
            Arc::new(Float64Array::from(value.to_vec())),
            Arc::new(BooleanArray::from(mark.to_vec())),
        ]
    }

    #[test]
    fn the_largest_distance_counts() {
        let found = aggregate(&KsSamples::default(), &columns());
        assert_eq!(found, ScalarValue::Float64(Some(0.5)));
    }

    #[test]
    fn groups_are_kept_apart() {
        check_groups(&KsSamples::default(), &columns(), &[0, 0, 0, 0, 0, 0, 1]);
    }
}
