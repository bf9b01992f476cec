//! `iqr(value)`: the interquartile range of a group.
//!
//! The third quartile less the first, those of `percentile_cont`: between them lies the middle half
//! of the values. NULL and NaN do not count; without a value, and where infinite values leave none,
//! the answer is NULL. `iqr_score` scores by it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use datafusion_common::Result;
use datafusion_expr::Signature;
use datafusion_expr::function::AccumulatorArgs;
use datafusion_macros::user_doc;

use super::held::{Held, Question, number_aggregate};
use crate::model::outlier::spread::interquartile_range;

const NAME: &str = "iqr";

/// The aggregate `iqr`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "The interquartile range of a group: the third quartile less the first, as \
percentile_cont has them. NULL and NaN do not count; NULL without a value.",
    syntax_example = "iqr(value)",
    sql_example = r#"```sql
> SELECT iqr(n) AS iqr FROM (VALUES (1), (2), (3), (4), (9)) AS t (n);
+-----+
| iqr |
+-----+
| 2.0 |
+-----+
```"#,
    argument(name = "value", description = "A number."),
    related_udf(name = "iqr_score"),
    related_udf(name = "outlier_bounds")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Iqr {
    signature: Signature,
}

number_aggregate!(Iqr, NAME, Quartiles);

type Quartiles = Held<OfQuartiles>;

#[derive(Debug, Clone, Copy)]
struct OfQuartiles;

impl Question for OfQuartiles {
    const NAME: &'static str = NAME;

    fn planned(_args: &AccumulatorArgs) -> Result<Self> {
        Ok(Self)
    }

    fn answers(&self, groups: &[Vec<f64>]) -> Result<ArrayRef> {
        let answer = |numbers: &Vec<f64>| interquartile_range(&mut numbers.clone());
        Ok(Arc::new(groups.iter().map(answer).collect::<Float64Array>()))
    }
}

#[cfg(test)]
mod tests {
    use datafusion_common::ScalarValue;

    use super::*;
    use crate::features::groups::testing::{aggregate, check_groups};

    fn column(values: &[Option<f64>]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    fn of(values: &[Option<f64>]) -> Option<f64> {
        match aggregate(&Held::new(OfQuartiles), &[column(values)]) {
            ScalarValue::Float64(answer) => answer,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn it_is_the_middle_half() {
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0, 9.0].map(Some)), Some(2.0));
        assert_eq!(of(&[Some(1.0), None, Some(4.0), Some(f64::NAN)]), Some(1.5));
        assert_eq!(of(&[Some(5.0)]), Some(0.0));
        assert_eq!(of(&[None, Some(f64::NAN)]), None);
        assert_eq!(of(&[Some(1.0), Some(f64::INFINITY)]), None);
    }

    #[test]
    fn groups_are_kept_apart() {
        let values = column(&[1.0, 10.0, 2.0, 30.0, 4.0, 7.0].map(Some));
        check_groups(&Held::new(OfQuartiles), &[values], &[0, 1, 0, 1, 0, 2]);
    }
}
