//! `l_diversity_entropy(sensitive, q1, …)`: the l of entropy l-diversity.
//!
//! exp(H) of the class where it is least, with H = -Σ p ln p over the shares p of the sensitive
//! values in the class (Machanavajjhala et al. 2007): the number of equally frequent values that
//! would be as uncertain. It is never above `l_diversity`. pycanon reports its whole part. NULL is
//! a value of its own; over no rows the answer is NULL.

use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::utils::AggregateOrderSensitivity;
use datafusion_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility};
use datafusion_macros::user_doc;

use super::classes::{self, Crosstab, CrosstabAccumulator};

const NAME: &str = "l_diversity_entropy";

/// The aggregate `l_diversity_entropy`.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "The l of entropy l-diversity: exp(entropy) of the sensitive values in the class \
where it is least, so that a class with one frequent and some rare values counts little. NULL is a \
value of its own; over no rows the answer is NULL.",
    syntax_example = "l_diversity_entropy(sensitive, quasi_identifier [, ...])",
    sql_example = r#"```sql
> SELECT l_diversity_entropy(disease, zip) AS l
  FROM (VALUES ('flu', '130**'), ('ulcer', '130**')) AS t (disease, zip);
+-----+
| l   |
+-----+
| 2.0 |
+-----+
```"#,
    argument(name = "sensitive", description = "The column that must not be learnt, of any type."),
    argument(
        name = "quasi_identifier",
        description = "One or more columns of any type by which somebody could be recognized."
    ),
    related_udf(name = "l_diversity")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct LDiversityEntropy {
    signature: Signature,
}

impl LDiversityEntropy {
    /// The aggregate.
    pub fn new() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl Default for LDiversityEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for LDiversityEntropy {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        classes::check_columns(NAME, 1, arg_types)?;
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        classes::check_call(NAME, &args)?;
        Ok(Box::new(CrosstabAccumulator::new(least_entropy)))
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

fn least_entropy(table: &Crosstab) -> ScalarValue {
    let least = table.by_class().into_iter().map(effective_values).min_by(f64::total_cmp);
    ScalarValue::Float64(least)
}

/// exp of the entropy of the values of one class, with their counts.
pub(super) fn effective_values(mut counts: Vec<(usize, u64)>) -> f64 {
    // In a fixed order the sum is the same however the rows were spread over partitions.
    counts.sort_unstable_by_key(|(_, count)| *count);
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let entropy: f64 = counts
        .iter()
        .map(|(_, count)| {
            let share = *count as f64 / total as f64;
            -share * share.ln()
        })
        .sum();
    entropy.exp()
}

#[cfg(test)]
mod tests {
    use super::super::classes::testing::{aggregate, ints};
    use super::*;

    fn l(sensitive: &[i64], classes: &[i64]) -> f64 {
        let columns = [ints(sensitive), ints(classes)];
        match aggregate(&LDiversityEntropy::new(), &columns).unwrap() {
            ScalarValue::Float64(Some(l)) => l,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn even_shares_count_fully_and_uneven_ones_less() {
        assert!((l(&[1, 2, 3, 4], &[1, 1, 1, 1]) - 4.0).abs() < 1e-12);
        assert_eq!(l(&[1, 1, 1], &[1, 1, 1]), 1.0);
        // Shares 3/4 and 1/4: exp(0.5623351446188083).
        assert!((l(&[1, 1, 1, 2], &[1, 1, 1, 1]) - 1.754_765_350_603_323_1).abs() < 1e-12);
        assert_eq!(l(&[1, 2, 1, 1], &[1, 1, 2, 2]), 1.0);
    }

    #[test]
    fn no_rows_give_null() {
        let none = aggregate(&LDiversityEntropy::new(), &[ints(&[]), ints(&[])]).unwrap();
        assert_eq!(none, ScalarValue::Float64(None));
    }
}
