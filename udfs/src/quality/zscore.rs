//! `zscore(value) OVER (…)`: how many standard deviations a value is from its partition's mean.
//!
//! (x − mean) / s with the sample's standard deviation s (n − 1). Above 3 or below −3 is the usual
//! bound of an outlier, of values that are about normal; one far value hides in the deviation that
//! it makes itself, which `mad_score` does not let it. NULL and NaN have no score and do not count;
//! fewer than two values, or values that are all equal, have none.

use datafusion_expr::Signature;
use datafusion_macros::user_doc;

use super::outliers::{Score, outlier_function};

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
    related_udf(name = "iqr_score")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Zscore {
    signature: Signature,
}

outlier_function!(Zscore, "zscore", fit);

fn fit(values: &mut [f64]) -> Option<Score> {
    if values.len() < 2 {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    // Two passes: the deviations are taken from the mean itself.
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    let deviation = (squares / (count - 1.0)).sqrt();
    let spreads = deviation.is_finite() && deviation > 0.0;
    spreads.then(|| Box::new(move |value: f64| (value - mean) / deviation) as Score)
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
        let endless = [Some(1.0), Some(f64::INFINITY)];
        assert!(scored(&Zscore::new(), &endless).iter().all(Option::is_none));
    }
}
