//! `mad_score(value) OVER (…)`: the modified z-score of Iglewicz and Hoaglin (1993).
//!
//! 0.6745·(x − median) / MAD, where MAD is the median absolute deviation from the median; for
//! normal values it is about the z-score. Above 3.5 or below −3.5 is their bound of an outlier. Up
//! to half of the values may be far without hiding each other. When more than half of the values
//! are one, MAD is 0 and the mean absolute deviation takes its place, (x − median) / (1.253314·mean
//! deviation), as they advise. NULL and NaN have no score and do not count; values that are all
//! equal have none.

use datafusion_expr::Signature;
use datafusion_macros::user_doc;

use super::outliers::{Score, outlier_function, quantile};

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
    related_udf(name = "iqr_score")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MadScore {
    signature: Signature,
}

outlier_function!(MadScore, "mad_score", fit);

/// The quartile of the standard normal distribution: MAD / .6745 estimates a standard deviation.
const NORMAL_QUARTILE: f64 = 0.6745;
/// √(π / 2): the mean absolute deviation times it estimates a standard deviation.
const MEAN_FACTOR: f64 = 1.253_314;

fn fit(values: &mut [f64]) -> Option<Score> {
    let median = quantile(values, 0.5)?;
    let mut deviations: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    let mean = deviations.iter().sum::<f64>() / deviations.len() as f64;
    let mad = quantile(&mut deviations, 0.5)?;
    let scale = if mad > 0.0 { mad / NORMAL_QUARTILE } else { MEAN_FACTOR * mean };
    let spreads = median.is_finite() && scale.is_finite() && scale > 0.0;
    spreads.then(|| Box::new(move |value: f64| (value - median) / scale) as Score)
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
        assert!((found[4].unwrap() - 10.0 / (MEAN_FACTOR * 2.0)).abs() < 1e-12);
        assert!(scored(&MadScore::new(), &[Some(1.0), Some(1.0)]).iter().all(Option::is_none));
    }
}
