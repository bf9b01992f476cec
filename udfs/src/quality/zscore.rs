//! `zscore(value) OVER (…)`: how many standard deviations a value is from its partition's mean.
//!
//! (x − mean) / s with the sample's standard deviation s (n − 1). Above 3 or below −3 is the usual
//! bound of an outlier, of values that are about normal; one far value hides in the deviation that
//! it makes itself, which `mad_score` does not let it. NULL and NaN have no score and do not count;
//! fewer than two values, or values that are all equal, have none.

use arrow::array::ArrayRef;
use datafusion_common::Result;
use datafusion_expr::Signature;
use datafusion_macros::user_doc;

use super::outliers::{number, outlier_function, scores};
use crate::model::outlier::Method;

/// The window function `zscore`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "How many sample standard deviations a value is from the mean of its partition; beyond 3 it is an \
outlier by the usual bound. NULL for NULL and NaN, which do not count, and where values do not spread.",
    syntax_example = "zscore(value) OVER ([PARTITION BY group])",
    sql_example = r#"```sql
> SELECT n, round(zscore(n) OVER (), 2) AS score FROM (VALUES (1), (2), (3)) AS t (n);
+---+-------+
| n | score |
+---+-------+
| 1 | -1.0  |
| 2 | 0.0   |
| 3 | 1.0   |
+---+-------+
```"#,
    argument(name = "value", description = "A number."),
    related_udf(name = "mad_score"),
    related_udf(name = "iqr_score"),
    related_udf(name = "outlier_bounds")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Zscore {
    signature: Signature,
}

outlier_function!(Zscore, "zscore", number, answer);

fn answer(values: &[ArrayRef]) -> Result<ArrayRef> {
    scores(Method::Zscore, values)
}

#[cfg(test)]
mod tests {
    use super::super::outliers::testing::scored;
    use super::*;

    #[test]
    fn scores_are_deviations_from_the_mean() {
        let found =
            scored(&Zscore::new(), &[Some(1.0), None, Some(2.0), Some(f64::NAN), Some(3.0)]);
        assert_eq!(found, [Some(-1.0), None, Some(0.0), None, Some(1.0)]);
    }

    #[test]
    fn values_that_do_not_spread_have_no_score() {
        for values in [&[Some(5.0)][..], &[Some(5.0), Some(5.0)], &[], &[None]] {
            assert!(scored(&Zscore::new(), values).iter().all(Option::is_none), "{values:?}");
        }
        // Three times .1 is more than .3: the mean is not .1.
        assert!(scored(&Zscore::new(), &[Some(0.1); 3]).iter().all(Option::is_none));
        let endless = [1.0, 2.0, f64::INFINITY, 3.0].map(Some);
        let found = scored(&Zscore::new(), &endless);
        assert_eq!(found, [-1.0, 0.0, f64::INFINITY, 1.0].map(Some));
    }
}
