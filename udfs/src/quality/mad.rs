//! `mad(value)`: the median absolute deviation of a group, from its median.
//!
//! In the unit of the values and not scaled: of normal values about .6745 standard deviations, so
//! `mad(value) / 0.6745` estimates one. Up to half of the values may be far without changing it
//! much. Medians are those of `percentile_cont`. NULL and NaN do not count; without a value, and
//! where infinite values leave none, the answer is NULL. `mad_score` scores by it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use datafusion_common::Result;
use datafusion_expr::Signature;
use datafusion_expr::function::AccumulatorArgs;
use datafusion_macros::user_doc;

use super::held::{Held, Question, number_aggregate};
use crate::model::outlier::spread::median_absolute_deviation;

const NAME: &str = "mad";

/// The aggregate `mad`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "The median absolute deviation of a group: the median of the distances from the \
group's median, in the unit of the values. It is not scaled: divided by 0.6745 it estimates a \
standard deviation. NULL and NaN do not count; NULL without a value.",
    syntax_example = "mad(value)",
    sql_example = r#"```sql
> SELECT mad(n) AS mad FROM (VALUES (1), (2), (3), (4), (9)) AS t (n);
+-----+
| mad |
+-----+
| 1.0 |
+-----+
```"#,
    argument(name = "value", description = "A number."),
    related_udf(name = "mad_score"),
    related_udf(name = "outlier_bounds")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Mad {
    signature: Signature,
}

number_aggregate!(Mad, NAME, Deviations);

type Deviations = Held<OfDeviations>;

#[derive(Debug, Clone, Copy)]
struct OfDeviations;

impl Question for OfDeviations {
    const NAME: &'static str = NAME;

    fn planned(_args: &AccumulatorArgs) -> Result<Self> {
        Ok(Self)
    }

    fn answers(&self, groups: &[Vec<f64>]) -> Result<ArrayRef> {
        let answer = |numbers: &Vec<f64>| median_absolute_deviation(&mut numbers.clone());
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
        match aggregate(&Held::new(OfDeviations), &[column(values)]) {
            ScalarValue::Float64(answer) => answer,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn it_is_the_median_of_distances() {
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0, 9.0].map(Some)), Some(1.0));
        assert_eq!(of(&[Some(1.0), None, Some(4.0), Some(f64::NAN)]), Some(1.5));
        // Far values change little.
        assert_eq!(of(&[1.0, 2.0, 3.0, f64::INFINITY, 4.0].map(Some)), Some(1.0));
        assert_eq!(of(&[Some(5.0)]), Some(0.0));
        assert_eq!(of(&[None, Some(f64::NAN)]), None);
        assert_eq!(of(&[Some(1.0), Some(f64::INFINITY)]), None);
    }

    #[test]
    fn groups_are_kept_apart() {
        let values = column(&[1.0, 10.0, 2.0, 30.0, 4.0, 7.0].map(Some));
        check_groups(&Held::new(OfDeviations), &[values], &[0, 1, 0, 1, 0, 2]);
    }
}
