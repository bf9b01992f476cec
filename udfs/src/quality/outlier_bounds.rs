//! `outlier_bounds(value, method [, threshold])`: between which numbers the values of a group are
//! usual, and how many are not.
//!
//! The method is `'zscore'`, `'mad'` or `'iqr'`, the threshold the score that is still usual: 3,
//! 3.5 and 1.5 unless given. The bounds are where the scores of `zscore`, `mad_score` and
//! `iqr_score` reach it, up to the last digit: joined back by `value < lower OR value > upper`,
//! they tell the outliers that were counted. NULL and NaN do not count; a group without a value has
//! no answer. Bounds are NULL, and nothing is an outlier, where values do not spread; but of values
//! that are all one they are that value.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::Signature;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_macros::user_doc;

use super::held::{self, Held, Question};
use super::outliers;
use crate::features::groups::{constant, kernel_aggregate};
use crate::model::outlier::spread::is_outside;
use crate::model::outlier::{Method, Spread, is_threshold};

const NAME: &str = "outlier_bounds";
const SYNTAX: &str = "outlier_bounds(value, method [, threshold])";

/// The aggregate `outlier_bounds`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "Between which numbers the values of a group are usual, and how many are not: a \
struct of lower, upper, outliers (values outside of them) and rows (values in all). The bounds are \
where the scores of zscore, mad_score and iqr_score reach the threshold. NULL and NaN do not \
count; NULL without a value. Bounds are NULL where values do not spread; of values that are all \
one they are that value.",
    syntax_example = "outlier_bounds(value, method [, threshold])",
    sql_example = r#"```sql
> SELECT outlier_bounds(n, 'iqr') AS bounds FROM (VALUES (1), (2), (3), (4), (9)) AS t (n);
+-------------------------------------------------+
| bounds                                          |
+-------------------------------------------------+
| {lower: -1.0, upper: 7.0, outliers: 1, rows: 5} |
+-------------------------------------------------+
```"#,
    argument(name = "value", description = "A number."),
    argument(name = "method", description = "'zscore', 'mad' or 'iqr'; a constant."),
    argument(
        name = "threshold",
        description = "The score that is still usual, above 0: 3 of 'zscore', 3.5 of 'mad' and 1.5 \
of 'iqr' unless given. Constant."
    ),
    related_udf(name = "mad"),
    related_udf(name = "iqr"),
    related_udf(name = "mad_score")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct OutlierBounds {
    signature: Signature,
}

kernel_aggregate!(OutlierBounds, NAME, Bounded, {
    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let (value, method, threshold) = match arg_types {
            [value, method] => (value, method, None),
            [value, method, threshold] => (value, method, Some(threshold)),
            _ => return plan_err!("{SYNTAX} was called with {} arguments", arg_types.len()),
        };
        let mut types = outliers::number(NAME, std::slice::from_ref(value))?;
        match method {
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => {
                types.push(DataType::Utf8);
            }
            other => return plan_err!("{NAME}: method must be text such as 'mad', not {other}"),
        }
        if let Some(threshold) = threshold {
            if !threshold.is_numeric() && !threshold.is_null() {
                return plan_err!("{NAME}: threshold must be a number, not {threshold}");
            }
            types.push(DataType::Float64);
        }
        Ok(types)
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(held::state(&args))
    }
});

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("lower", DataType::Float64, true),
        Field::new("upper", DataType::Float64, true),
        Field::new("outliers", DataType::Int64, true),
        Field::new("rows", DataType::Int64, true),
    ])
}

type Bounded = Held<Usual>;

/// What is usual: by which method, up to which score.
#[derive(Debug, Clone, Copy)]
struct Usual {
    method: Method,
    threshold: f64,
}

impl Usual {
    fn new(method: Option<&ScalarValue>, threshold: Option<&ScalarValue>) -> Result<Self> {
        let given = method.and_then(|method| method.try_as_str().flatten());
        let Some(method) = given.and_then(Method::named) else {
            let given = given.unwrap_or("NULL");
            return plan_err!("{NAME}: method must be 'zscore', 'mad' or 'iqr', not {given}");
        };
        let threshold = match threshold {
            None => method.usual_threshold(),
            Some(ScalarValue::Float64(Some(number))) if is_threshold(*number) => *number,
            Some(other) => {
                let usual = method.usual_threshold();
                return plan_err!(
                    "{NAME}: threshold must be a number above 0, not {other}. Hint: leave it out \
                     for the usual {usual}"
                );
            }
        };
        Ok(Self { method, threshold })
    }
}

impl Question for Usual {
    const NAME: &'static str = NAME;

    fn planned(args: &AccumulatorArgs) -> Result<Self> {
        let method = constant(NAME, args, 1, "method")?;
        let threshold = constant(NAME, args, 2, "threshold")?;
        Self::new(method.as_ref(), threshold.as_ref())
    }

    fn answers(&self, groups: &[Vec<f64>]) -> Result<ArrayRef> {
        let bounds = |numbers: &Vec<f64>| {
            Spread::of(self.method, &mut numbers.clone())?.bounds(self.threshold)
        };
        let bounds: Vec<Option<(f64, f64)>> = groups.iter().map(bounds).collect();
        let lower = bounds.iter().map(|bounds| bounds.map(|(lower, _)| lower));
        let upper = bounds.iter().map(|bounds| bounds.map(|(_, upper)| upper));
        let outliers = groups.iter().zip(&bounds).map(|(numbers, bounds)| {
            let outside = numbers.iter().filter(|number| is_outside(*bounds, **number)).count();
            (!numbers.is_empty()).then(|| count(outside))
        });
        let rows = groups.iter().map(|numbers| Some(count(numbers.len())).filter(|rows| *rows > 0));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(lower.collect::<Float64Array>()),
            Arc::new(upper.collect::<Float64Array>()),
            Arc::new(outliers.collect::<Int64Array>()),
            Arc::new(rows.collect::<Int64Array>()),
        ];
        let nulls: NullBuffer = groups.iter().map(|numbers| !numbers.is_empty()).collect();
        Ok(Arc::new(StructArray::try_new(fields(), columns, Some(nulls))?))
    }
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float64Type, Int64Type};
    use datafusion_expr::AggregateUDFImpl;
    use proptest::prelude::*;

    use super::super::outliers::testing::scored;
    use super::super::{iqr_score::IqrScore, mad_score::MadScore, zscore::Zscore};
    use super::*;
    use crate::features::groups::testing::{aggregate, check_groups};

    type Answer = (Option<f64>, Option<f64>, i64, i64);

    fn column(values: &[Option<f64>]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    fn asked(method: Method) -> Bounded {
        Held::new(Usual { method, threshold: method.usual_threshold() })
    }

    fn of(method: Method, values: &[Option<f64>]) -> Option<Answer> {
        let answer = aggregate(&asked(method), &[column(values)]).to_array().unwrap();
        let answer = answer.as_struct();
        let number = |at: usize| {
            let column = answer.column(at).as_primitive::<Float64Type>();
            column.is_valid(0).then(|| column.value(0))
        };
        let count = |at: usize| answer.column(at).as_primitive::<Int64Type>().value(0);
        answer.is_valid(0).then(|| (number(0), number(1), count(2), count(3)))
    }

    #[test]
    fn outliers_lie_outside_of_the_bounds() {
        let values = [Some(1.0), None, Some(2.0), Some(3.0), Some(4.0), Some(f64::NAN), Some(9.0)];
        assert_eq!(of(Method::Iqr, &values), Some((Some(-1.0), Some(7.0), 1, 5)));
        let (lower, upper, outliers, rows) = of(Method::Mad, &values).unwrap();
        let margin = 3.5 / 0.6745;
        assert!((lower.unwrap() - (3.0 - margin)).abs() < 1e-12);
        assert!((upper.unwrap() - (3.0 + margin)).abs() < 1e-12);
        assert_eq!((outliers, rows), (1, 5));
        assert_eq!(of(Method::Zscore, &values).unwrap().2, 0);
    }

    #[test]
    fn values_that_do_not_spread_have_no_outliers() {
        for method in Method::ALL {
            assert_eq!(of(method, &[Some(5.0); 3]), Some((Some(5.0), Some(5.0), 0, 3)));
            assert_eq!(of(method, &[None, Some(f64::NAN)]), None);
            assert_eq!(of(method, &[Some(f64::INFINITY); 2]), Some((None, None, 0, 2)));
        }
        let most = [0.0, 0.0, 0.0, 0.0, 5.0].map(Some);
        assert_eq!(of(Method::Iqr, &most), Some((None, None, 0, 5)));
    }

    #[test]
    fn groups_are_kept_apart() {
        let values = column(&[1.0, 10.0, 2.0, 30.0, 4.0, 7.0].map(Some));
        check_groups(&asked(Method::Mad), &[values], &[0, 1, 0, 1, 0, 2]);
    }

    #[test]
    fn misuse_is_refused() {
        let text = |text: &str| ScalarValue::from(text);
        let usual = |method: ScalarValue, threshold: Option<f64>| {
            let threshold = threshold.map(|number| ScalarValue::Float64(Some(number)));
            Usual::new(Some(&method), threshold.as_ref())
        };
        assert!(usual(text("IQR"), Some(3.0)).is_ok_and(|usual| usual.threshold == 3.0));
        let unknown = usual(text("sigma"), None).unwrap_err().to_string();
        assert!(unknown.contains("'zscore', 'mad' or 'iqr', not sigma"), "{unknown}");
        assert!(usual(ScalarValue::Utf8(None), None).is_err());
        for threshold in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = usual(text("mad"), Some(threshold)).unwrap_err().to_string();
            assert!(error.contains("the usual 3.5"), "{error}");
        }
        let types = |given: &[DataType]| OutlierBounds::new().coerce_types(given);
        let numbers = [DataType::Float64, DataType::Utf8, DataType::Float64];
        let given = [DataType::Int8, DataType::Utf8View, DataType::Int64];
        assert_eq!(types(&given).unwrap(), numbers);
        assert_eq!(types(&given[..2]).unwrap(), numbers[..2]);
        assert!(types(&given[..1]).is_err() && types(&[DataType::Utf8, DataType::Utf8]).is_err());
        assert!(types(&[DataType::Int8, DataType::Int8]).is_err());
        assert!(types(&[DataType::Int8, DataType::Utf8, DataType::Utf8]).is_err());
    }

    proptest! {
        #[test]
        fn outliers_are_those_of_the_window_functions(
            values in prop::collection::vec(prop::option::of(-1e3_f64..1e3), 1..80),
        ) {
            for method in Method::ALL {
                let scores = match method {
                    Method::Zscore => scored(&Zscore::new(), &values),
                    Method::Mad => scored(&MadScore::new(), &values),
                    Method::Iqr => scored(&IqrScore::new(), &values),
                };
                let threshold = method.usual_threshold();
                let far = scores.iter().flatten().filter(|score| score.abs() > threshold).count();
                let counted = of(method, &values).map_or(0, |answer| answer.2);
                prop_assert_eq!(counted, count(far));
            }
        }
    }
}
