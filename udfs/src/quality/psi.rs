//! `psi(value, is_reference)`: the population stability index of a sample against a reference.
//!
//! Σ (a − e)·ln(a / e) over bins that hold the share a of the sample and e of the reference: the
//! tenths of the reference for numbers and times, the values themselves for texts and truth values,
//! and missing values (NULL, NaN) as a bin of their own. A share counts as 0.0001 at least. Rows
//! whose `is_reference` is NULL are left out; without rows on one side the answer is NULL. Above
//! 1,024 numbers a side the tenths are those of a sketch, a few thousandths off at most.

use datafusion_expr::Signature;
use datafusion_macros::user_doc;

use super::samples::{Samples, sample_aggregate};

const NAME: &str = "psi";

type PsiSamples = Samples<true>;

/// The aggregate `psi`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "The population stability index of the rows where is_reference is FALSE against \
those where it is TRUE: 0 for equal distributions, below 0.1 little has changed, above 0.25 much. \
Numbers and times are put into the tenths of the reference, texts and truth values by value; \
missing values are a bin of their own. NULL without rows on one side.",
    syntax_example = "psi(value, is_reference)",
    sql_example = r#"```sql
> SELECT round(psi(channel, year = 2024), 4) AS drift
  FROM (VALUES ('app', 2024), ('shop', 2024), ('app', 2025), ('app', 2025), ('app', 2025),
               ('shop', 2025)) AS t (channel, year);
+--------+
| drift  |
+--------+
| 0.2747 |
+--------+
```"#,
    argument(name = "value", description = "Numbers, dates, timestamps, texts or truth values."),
    argument(
        name = "is_reference",
        description = "TRUE for rows of the reference, FALSE for those compared with it."
    ),
    related_udf(name = "ks_statistic")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Psi {
    signature: Signature,
}

sample_aggregate!(Psi, NAME, PsiSamples);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray};
    use arrow::datatypes::DataType;
    use datafusion_common::ScalarValue;
    use datafusion_expr::AggregateUDFImpl;

    use super::*;
    use crate::features::groups::testing::{aggregate, check_groups};

    #[test]
    fn parts_and_groups_give_the_same() {
        let value: ArrayRef = Arc::new(StringArray::from(vec![
            Some("a"),
            Some("b"),
            Some("a"),
            None,
            Some("a"),
            Some("b"),
        ]));
        let mark: ArrayRef = Arc::new(BooleanArray::from(vec![
            Some(true),
            Some(true),
            Some(false),
            Some(false),
            None,
            Some(false),
        ]));
        check_groups(&PsiSamples::default(), &[value, mark], &[0, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn equal_samples_have_none() {
        let value: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0, 1.0, 2.0, 3.0]));
        let mark: ArrayRef =
            Arc::new(BooleanArray::from(vec![true, true, true, false, false, false]));
        let found = aggregate(&PsiSamples::default(), &[value, mark]);
        assert_eq!(found, ScalarValue::Float64(Some(0.0)));
    }

    #[test]
    fn a_mark_that_is_no_condition_is_refused() {
        let wrong = [DataType::Float64, DataType::Int64];
        let error = Psi::new().coerce_types(&wrong).unwrap_err().to_string();
        assert!(error.contains("must be a condition"), "{error}");
        let list = DataType::new_list(DataType::Int64, true);
        assert!(Psi::new().coerce_types(&[list, DataType::Boolean]).is_err());
    }
}
