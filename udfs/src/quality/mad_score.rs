//! `mad_score(value) OVER (…)`: the modified z-score of Iglewicz and Hoaglin (1993).
//!
//! 0.6745·(x − median) / MAD, where MAD is the median absolute deviation from the median; for
//! normal values it is about the z-score. Above 3.5 or below −3.5 is their bound of an outlier. Up
//! to half of the values may be far without hiding each other. When more than half of the values
//! are one, MAD is 0 and the mean absolute deviation takes its place, (x − median) / (1.253314·mean
//! deviation), as they advise. NULL and NaN have no score and do not count; values that are all
//! equal have none.

use arrow::array::ArrayRef;
use datafusion_common::Result;
use datafusion_expr::Signature;
use datafusion_macros::user_doc;

use super::outliers::{number, outlier_function, scores};
use crate::model::outlier::Method;

/// The window function `mad_score`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "The modified z-score 0.6745 * (value - median) / MAD of Iglewicz and Hoaglin, by the median \
absolute deviation of the partition: beyond 3.5 a value is an outlier, and outliers do not hide \
each other. NULL for NULL and NaN, which do not count, and where values do not spread.",
    syntax_example = "mad_score(value) OVER ([PARTITION BY group])",
    sql_example = r#"```sql
> SELECT n, round(mad_score(n) OVER (), 2) AS score FROM (VALUES (1), (2), (3), (90)) AS t (n);
+----+-------+
| n  | score |
+----+-------+
| 1  | -1.01 |
| 2  | -0.34 |
| 3  | 0.34  |
| 90 | 59.02 |
+----+-------+
```"#,
    argument(name = "value", description = "A number."),
    related_udf(name = "zscore"),
    related_udf(name = "iqr_score"),
    related_udf(name = "mad")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MadScore {
    signature: Signature,
}

outlier_function!(MadScore, "mad_score", number, answer);

fn answer(values: &[ArrayRef]) -> Result<ArrayRef> {
    scores(Method::Mad, values)
}

#[cfg(test)]
mod tests {
    use super::super::outliers::testing::scored;
    use super::*;

    #[test]
    fn far_values_do_not_hide_each_other() {
        let values: Vec<Option<f64>> =
            (0..10).map(|n| Some(if n < 7 { f64::from(n) } else { 1e6 })).collect();
        let found = scored(&MadScore::new(), &values);
        assert!(found[9].unwrap() > 3.5 && found[0].unwrap().abs() < 3.5);
    }

    #[test]
    fn when_most_values_are_one_the_mean_deviation_counts() {
        let values = [1.0, 1.0, 1.0, 1.0, 11.0].map(Some);
        let found = scored(&MadScore::new(), &values);
        assert_eq!(found[0], Some(0.0));
        assert!((found[4].unwrap() - 10.0 / (1.253_314 * 2.0)).abs() < 1e-12);
        assert!(scored(&MadScore::new(), &[Some(1.0), Some(1.0)]).iter().all(Option::is_none));
    }
}
