//! `isolation_forest_score(value [, …]) OVER (…)`: how easily a row is set apart from the others of
//! its partition, by all values together.
//!
//! The isolation forest of `model_type = 'isolation_forest'` with its defaults: 100 trees on
//! samples of 256 rows, seed 0, grown on the partition's rows and asked for the same. The score is
//! above 0 and at most 1: near 1 is an anomaly, well below .5 is not. Rows are sorted by their
//! values first, so that neither their order nor their batches change it. Values are read as by the
//! model: numbers and truths as they are, texts as categories, NULL as the partition's mean and no
//! category. A row whose values are all NULL, or one of whose numbers is NaN or infinite, has no
//! score and does not count.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::{DataFusionError, Result, plan_err};
use datafusion_expr::Signature;
use datafusion_macros::user_doc;

use super::outliers::outlier_function;
use crate::model::features::is_text;
use crate::model::isolation_forest::{ForestOptions, train};
use crate::model::{FeatureRows, ModelError, Preparation};

const NAME: &str = "isolation_forest_score";
/// Numbers of a partition's rows at most, a text as one number a category: 1 GiB.
const NUMBERS_MAX: usize = 1 << 27;

/// The window function `isolation_forest_score`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "How easily a row is set apart from the others of its partition, by all values \
together: the score of an isolation forest with the defaults of model_type = 'isolation_forest', \
above 0 and at most 1, near 1 an anomaly, well below .5 none. The same rows have the same scores \
in any order. NULL is the partition's mean; NULL where all values are NULL or a number is NaN or \
infinite, which do not count. A partition has 134,217,728 numbers at most, where a text is as many \
as there are different ones.",
    syntax_example = "isolation_forest_score(value [, ...]) OVER ([PARTITION BY group])",
    sql_example = r#"```sql
> SELECT n, isolation_forest_score(n) OVER () > 0.6 AS is_far
  FROM (VALUES (1), (2), (3), (4), (100)) AS t (n);
+-----+--------+
| n   | is_far |
+-----+--------+
| 1   | false  |
| 2   | false  |
| 3   | false  |
| 4   | false  |
| 100 | true   |
+-----+--------+
```"#,
    argument(name = "value", description = "One or more numbers, truths or texts."),
    related_udf(name = "mad_score")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct IsolationForestScore {
    signature: Signature,
}

outlier_function!(IsolationForestScore, NAME, types, answer);

/// The types in which values are read.
fn types(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    if given.is_empty() {
        return plan_err!("{name}(value [, …]) was called without a value");
    }
    let read = |of: &DataType| match of {
        of if of.is_numeric() || of.is_null() => Ok(DataType::Float64),
        of if *of == DataType::Boolean || is_text(of) => Ok(of.clone()),
        other => plan_err!("{name} takes numbers, truths and texts, not {other}"),
    };
    given.iter().map(read).collect()
}

fn answer(values: &[ArrayRef]) -> Result<ArrayRef> {
    let rows = values.first().map_or(0, |column| column.len());
    let counted = counted(values, rows);
    let places: Vec<usize> = (0..rows).filter(|row| counted.value(*row)).collect();
    let kept: Vec<ArrayRef> =
        values.iter().map(|column| filter(column, &counted)).collect::<Result<_, _>>()?;
    let mut answers = vec![None; rows];
    for (row, score) in scores(&kept).map_err(refused)? {
        answers[places[row]] = Some(score);
    }
    Ok(Arc::new(Float64Array::from(answers)))
}

/// Which rows have a value, and no number that is NaN or infinite.
fn counted(columns: &[ArrayRef], rows: usize) -> BooleanArray {
    let mut found = vec![(false, true); rows];
    for column in columns {
        let nulls = column.logical_nulls();
        let numbers = column.as_primitive_opt::<Float64Type>();
        for (row, (has_value, is_finite)) in found.iter_mut().enumerate() {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                *has_value = true;
                *is_finite &= numbers.is_none_or(|numbers| numbers.value(row).is_finite());
            }
        }
    }
    found.into_iter().map(|(has_value, is_finite)| Some(has_value && is_finite)).collect()
}

/// Rows, as they came, with their scores; none of no rows.
fn scores(columns: &[ArrayRef]) -> Result<Vec<(usize, f64)>, ModelError> {
    if columns.first().is_none_or(|column| column.is_empty()) {
        return Ok(vec![]);
    }
    let named: Vec<(String, &DataType)> =
        (1..).zip(columns).map(|(at, of)| (format!("value {at}"), of.data_type())).collect();
    let named: Vec<(&str, &DataType)> = named.iter().map(|(name, of)| (&**name, *of)).collect();
    let mut rows = FeatureRows::new(&named)?;
    rows.add(columns)?;
    let gathered = rows.finish(&[]);
    let preparation = Preparation::new(gathered.features)?;
    if gathered.order.len().saturating_mul(preparation.width()) > NUMBERS_MAX {
        let what = "the numbers of a partition, a text as many as there are categories,";
        return Err(ModelError::TooLarge { what, limit: NUMBERS_MAX as u64 });
    }
    let dense = preparation.one_hot(&gathered.columns);
    let go_on = AtomicBool::new(false);
    let options = ForestOptions::default();
    let forest = train(&dense, preparation.width(), &options, &mut |_| {}, &go_on)?;
    Ok(gathered.order.into_iter().zip(forest.scores(&dense)?).collect())
}

fn refused(error: ModelError) -> DataFusionError {
    DataFusionError::Execution(format!("{NAME}: {error}"))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::compute::take;

    use super::super::outliers::testing::scored;
    use super::*;

    fn visits() -> Vec<ArrayRef> {
        let minutes = (0..300).map(|n| f64::from(n).sin()).chain([50.0]);
        let pages = (0..300).map(|n| f64::from(n * 7 % 300).cos()).chain([-40.0]);
        let channels = (0..301).map(|n| ["app", "web"][n % 2]);
        vec![
            Arc::new(Float64Array::from_iter_values(minutes)),
            Arc::new(Float64Array::from_iter_values(pages)),
            Arc::new(StringArray::from_iter_values(channels)),
        ]
    }

    fn scores_of(columns: &[ArrayRef]) -> Vec<Option<f64>> {
        answer(columns).unwrap().as_primitive::<Float64Type>().iter().collect()
    }

    #[test]
    fn the_row_that_is_unlike_the_others_has_the_highest_score() {
        let found = scores_of(&visits());
        assert!(found.iter().all(|score| score.is_some_and(|score| score > 0.0 && score <= 1.0)));
        assert!(found[300] > Some(0.7));
        assert!(found[..300].iter().all(|score| *score < found[300]));
    }

    #[test]
    fn neither_order_nor_rows_that_do_not_count_change_a_score() {
        let columns = visits();
        let order = arrow::array::UInt32Array::from_iter_values((0..301).rev());
        let turned: Vec<ArrayRef> =
            columns.iter().map(|column| take(column, &order, None).unwrap()).collect();
        let mut found = scores_of(&turned);
        found.reverse();
        assert_eq!(found, scores_of(&columns));
        let values = [Some(1.0), Some(2.0), None, Some(f64::NAN), Some(f64::INFINITY), Some(90.0)];
        let with_others = scored(&IsolationForestScore::new(), &values);
        assert_eq!(with_others[2..5], [None; 3]);
        let alone = scored(&IsolationForestScore::new(), &[1.0, 2.0, 90.0].map(Some));
        assert_eq!([with_others[0], with_others[1], with_others[5]], alone[..]);
    }

    #[test]
    fn null_beside_a_value_is_the_mean() {
        let of = |last: Option<f64>| {
            let numbers = [Some(1.0), Some(2.0), Some(6.0), last].to_vec();
            let columns: [ArrayRef; 2] = [
                Arc::new(Float64Array::from(numbers)),
                Arc::new(Float64Array::from(vec![1.0, 5.0, 2.0, 4.0])),
            ];
            scores_of(&columns)
        };
        assert!(of(None).iter().all(Option::is_some));
        assert_eq!(scored(&IsolationForestScore::new(), &[None, None]), [None, None]);
        assert!(scored(&IsolationForestScore::new(), &[]).is_empty());
    }

    #[test]
    fn only_values_of_features_are_scored() {
        assert!(types(NAME, &[]).is_err());
        assert!(types(NAME, &[DataType::Int8, DataType::Date32]).is_err());
        let given = [DataType::Decimal128(9, 2), DataType::Boolean, DataType::Utf8View];
        let read = [DataType::Float64, DataType::Boolean, DataType::Utf8View];
        assert_eq!(types(NAME, &given).unwrap(), read);
        let texts: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..=1000).map(|n| n.to_string())));
        let many = answer(&[texts]).unwrap_err().to_string();
        assert!(many.contains("1000 different texts"), "{many}");
    }
}
