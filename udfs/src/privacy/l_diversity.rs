//! `l_diversity(sensitive, q1, …)`: the least number of distinct sensitive values in a class.
//!
//! Distinct l-diversity (Machanavajjhala et al. 2007): in each class of rows with equal
//! quasi-identifiers at least l different sensitive values occur. It does not say how evenly: see
//! `l_diversity_entropy`. NULL is a value of its own, also as a sensitive value: filter NULLs
//! out for the stricter reading. Over no rows the answer is NULL.

use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::utils::AggregateOrderSensitivity;
use datafusion_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility};
use datafusion_macros::user_doc;

use super::classes::{self, Crosstab, CrosstabAccumulator};

const NAME: &str = "l_diversity";

/// The aggregate `l_diversity`.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "The least number of distinct sensitive values within a class of rows whose \
quasi-identifiers are all equal (distinct l-diversity). NULL is a value of its own; over no rows \
the answer is NULL.",
    syntax_example = "l_diversity(sensitive, quasi_identifier [, ...])",
    sql_example = r#"```sql
> SELECT l_diversity(disease, zip) AS l
  FROM (VALUES ('flu', '130**'), ('ulcer', '130**'), ('flu', '148**')) AS t (disease, zip);
+---+
| l |
+---+
| 1 |
+---+
```"#,
    argument(name = "sensitive", description = "The column that must not be learnt, of any type."),
    argument(
        name = "quasi_identifier",
        description = "One or more columns of any type by which somebody could be recognized."
    ),
    related_udf(name = "k_anonymity"),
    related_udf(name = "l_diversity_entropy")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct LDiversity {
    signature: Signature,
}

impl LDiversity {
    /// The aggregate.
    pub fn new() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl Default for LDiversity {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for LDiversity {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        classes::check_columns(NAME, 1, arg_types)?;
        Ok(DataType::Int64)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        classes::check_call(NAME, &args)?;
        Ok(Box::new(CrosstabAccumulator::new(least_distinct)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(classes::crosstab_state(&args))
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

fn least_distinct(table: &Crosstab) -> ScalarValue {
    let least = table.by_class().iter().map(Vec::len).min();
    ScalarValue::Int64(least.and_then(|least| i64::try_from(least).ok()))
}

#[cfg(test)]
mod tests {
    use super::super::classes::testing::{accumulator, aggregate, ints, texts};
    use super::*;

    #[test]
    fn the_least_diverse_class_counts() {
        let disease = texts(&[Some("flu"), Some("ulcer"), Some("flu"), Some("flu"), None]);
        let l = |classes: &[i64]| {
            aggregate(&LDiversity::new(), &[disease.clone(), ints(classes)]).unwrap()
        };
        assert_eq!(l(&[1, 1, 2, 2, 2]), ScalarValue::from(2_i64));
        assert_eq!(l(&[1, 1, 2, 2, 1]), ScalarValue::from(1_i64));
        assert_eq!(l(&[1, 1, 1, 1, 1]), ScalarValue::from(3_i64));
    }

    #[test]
    fn edges() {
        let none = aggregate(&LDiversity::new(), &[texts(&[]), ints(&[])]).unwrap();
        assert_eq!(none, ScalarValue::Int64(None));
        let error = LDiversity::new().return_type(&[DataType::Utf8]).unwrap_err().to_string();
        assert!(error.contains("the sensitive column and at least one"), "{error}");
        let columns = [ints(&[1]), ints(&[1])];
        assert!(accumulator(&LDiversity::new(), &columns, true).is_err());
    }
}
