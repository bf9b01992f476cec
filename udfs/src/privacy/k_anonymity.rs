//! `k_anonymity(q1, q2, …)`: the size of the smallest equivalence class.
//!
//! Rows form a class when all their quasi-identifiers are equal (Sweeney 2002). The answer k says
//! that each row is one of at least k that look alike. NULL is a value of its own: two NULLs are
//! alike, NULL and 'x' are not. Over no rows the answer is NULL, not a number that could pass a
//! check.

use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::Result;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::utils::AggregateOrderSensitivity;
use datafusion_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility};
use datafusion_macros::user_doc;

use super::classes::{self, ClassSizes};

const NAME: &str = "k_anonymity";

/// The aggregate `k_anonymity`.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "The number of rows in the smallest class of rows whose quasi-identifiers are \
all equal: the table is k-anonymous for every k up to it. NULL is a value of its own; over no rows \
the answer is NULL.",
    syntax_example = "k_anonymity(quasi_identifier [, ...])",
    sql_example = r#"```sql
> SELECT k_anonymity(zip, age) AS k
  FROM (VALUES ('130**', '<30'), ('130**', '<30'), ('148**', '>=40')) AS t (zip, age);
+---+
| k |
+---+
| 1 |
+---+
```"#,
    argument(
        name = "quasi_identifier",
        description = "One or more columns of any type by which somebody could be recognized."
    ),
    related_udf(name = "l_diversity"),
    related_udf(name = "t_closeness")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct KAnonymity {
    signature: Signature,
}

impl KAnonymity {
    /// The aggregate.
    pub fn new() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl Default for KAnonymity {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for KAnonymity {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        classes::check_columns(NAME, 0, arg_types)?;
        Ok(DataType::Int64)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        classes::check_call(NAME, &args)?;
        Ok(Box::<ClassSizes>::default())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(classes::class_state(&args))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn supports_null_handling_clause(&self) -> bool {
        false
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

#[cfg(test)]
mod tests {
    use super::super::classes::testing::{accumulator, aggregate, ints, texts};
    use super::*;
    use arrow::array::{Float64Array, StringViewArray};
    use arrow::compute::cast;
    use arrow::datatypes::DataType;
    use datafusion_common::ScalarValue;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn k(columns: &[arrow::array::ArrayRef]) -> ScalarValue {
        aggregate(&KAnonymity::new(), columns).unwrap()
    }

    #[test]
    fn the_smallest_class_counts() {
        let zip = texts(&[Some("a"), Some("a"), Some("b"), Some("b"), Some("b")]);
        assert_eq!(k(std::slice::from_ref(&zip)), ScalarValue::from(2_i64));
        assert_eq!(k(&[zip, ints(&[1, 1, 1, 1, 2])]), ScalarValue::from(1_i64));
    }

    #[test]
    fn null_is_a_value_of_its_own() {
        let zip = texts(&[None, None, Some(""), Some(""), Some("")]);
        assert_eq!(k(&[zip]), ScalarValue::from(2_i64));
    }

    #[test]
    fn columns_do_not_run_together() {
        let left = texts(&[Some("ab"), Some("a")]);
        let right = texts(&[Some("c"), Some("bc")]);
        assert_eq!(k(&[left, right]), ScalarValue::from(1_i64));
    }

    #[test]
    fn types_and_encodings_do_not_matter() {
        let values = vec![Some("x"), Some("x"), Some("y"), Some("y")];
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let dictionary = cast(&texts(&values), &dictionary).unwrap();
        let views = Arc::new(StringViewArray::from(values));
        let floats = Arc::new(Float64Array::from(vec![f64::NAN, f64::NAN, 1.0, 1.0]));
        assert_eq!(k(&[dictionary, views, floats]), ScalarValue::from(2_i64));
    }

    #[test]
    fn no_rows_give_null() {
        assert_eq!(k(&[texts(&[])]), ScalarValue::Int64(None));
    }

    #[test]
    fn calls_that_make_no_sense_are_refused() {
        let error = KAnonymity::new().return_type(&[]).unwrap_err().to_string();
        assert!(error.contains("at least one quasi-identifier"), "{error}");
        let error = accumulator(&KAnonymity::new(), &[ints(&[1])], true).unwrap_err().to_string();
        assert!(error.contains("DISTINCT"), "{error}");
    }

    proptest! {
        #[test]
        fn agrees_with_counting_by_hand(
            rows in prop::collection::vec((0..4_i64, 0..3_i64), 1..60),
        ) {
            let mut sizes = BTreeMap::new();
            for row in &rows {
                *sizes.entry(*row).or_insert(0_i64) += 1;
            }
            let (left, right): (Vec<i64>, Vec<i64>) = rows.into_iter().unzip();
            let expected = sizes.values().min().copied();
            prop_assert_eq!(k(&[ints(&left), ints(&right)]), ScalarValue::Int64(expected));
        }
    }
}
