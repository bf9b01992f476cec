//! `iqr_score(value) OVER (…)`: how far outside the quartiles a value is, in interquartile ranges.
//!
//! 0 between the first and the third quartile, (x − Q3) / IQR above, (x − Q1) / IQR below. Beyond
//! 1.5 either way is Tukey's outlier (1977), beyond 3 his far one. Quartiles are those of
//! `percentile_cont`. NULL and NaN have no score and do not count; when the quartiles are equal,
//! no value has one.

use arrow::array::ArrayRef;
use datafusion_common::Result;
use datafusion_expr::Signature;
use datafusion_macros::user_doc;

use super::outliers::{number, outlier_function, scores};
use crate::model::outlier::Method;

/// The window function `iqr_score`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "How far outside the quartiles of its partition a value is, in interquartile ranges: 0 between \
them, beyond 1.5 either way an outlier by Tukey. NULL for NULL and NaN, which do not count, and \
where the quartiles are equal.",
    syntax_example = "iqr_score(value) OVER ([PARTITION BY group])",
    sql_example = r#"```sql
> SELECT n, iqr_score(n) OVER () AS score FROM (VALUES (1), (2), (3), (4), (9)) AS t (n);
+---+-------+
| n | score |
+---+-------+
| 1 | -0.5  |
| 2 | 0.0   |
| 3 | 0.0   |
| 4 | 0.0   |
| 9 | 2.5   |
+---+-------+
```"#,
    argument(name = "value", description = "A number."),
    related_udf(name = "zscore"),
    related_udf(name = "mad_score"),
    related_udf(name = "iqr")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct IqrScore {
    signature: Signature,
}

outlier_function!(IqrScore, "iqr_score", number, answer);

fn answer(values: &[ArrayRef]) -> Result<ArrayRef> {
    scores(Method::Iqr, values)
}

#[cfg(test)]
mod tests {
    use super::super::outliers::testing::scored;
    use super::*;

    #[test]
    fn scores_count_from_the_quartiles() {
        let found = scored(&IqrScore::new(), &[1.0, 2.0, 3.0, 4.0, 9.0].map(Some));
        assert_eq!(found, [-0.5, 0.0, 0.0, 0.0, 2.5].map(Some));
        assert_eq!(scored(&IqrScore::new(), &[Some(1.0), None]), [None, None]);
    }
}
