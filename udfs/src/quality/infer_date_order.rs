//! `infer_date_order(text)`: in which order the dates of a column stand.
//!
//! A text like `13/04/2024` is a date by one order only, and tells it; `03/04/2024` and
//! `2024-05-01` tell nothing. The answer is the order (`'DMY'`, `'MDY'` or `'YMD'`) that at least
//! 95 % of the telling texts tell, and NULL when there is none: no text tells, or they disagree,
//! as when two sources were mixed; then infer for each source (GROUP BY).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::Signature;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_macros::user_doc;

use super::dates::{Order, readings};
use crate::features::groups::{Kernel, Rows, kernel_aggregate};
use crate::text::Text;

const NAME: &str = "infer_date_order";
/// Telling texts per one that may disagree.
const AGREEING_PER_OTHER: i64 = 19;

/// The aggregate `infer_date_order`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "The order in which the dates of a column stand: 'DMY', 'MDY' or 'YMD', when at \
least 95 % of the texts that only one order makes a date of say so; NULL when none says anything \
or they disagree. Give it to parse_date_any.",
    syntax_example = "infer_date_order(text)",
    sql_example = r#"```sql
> SELECT infer_date_order(d) AS date_order
  FROM (VALUES ('03/04/2024'), ('28/04/2024'), ('01/05/2024')) AS t (d);
+------------+
| date_order |
+------------+
| DMY        |
+------------+
```"#,
    argument(name = "text", description = "Dates as text."),
    related_udf(name = "parse_date_any")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct InferDateOrder {
    signature: Signature,
}

kernel_aggregate!(InferDateOrder, NAME, Votes, {
    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [text] = arg_types else {
            return plan_err!("{NAME}(text) was called with {} arguments", arg_types.len());
        };
        let value = match text {
            DataType::Dictionary(_, value) => value.as_ref(),
            other => other,
        };
        match value {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(vec![text.clone()]),
            DataType::Null => Ok(vec![DataType::Utf8]),
            other => plan_err!("{NAME} takes dates as text, not {other}"),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |order: Order| {
            Arc::new(Field::new(format!("{}[{}]", args.name, order.name()), DataType::Int64, true))
        };
        Ok(Order::ALL.map(field).to_vec())
    }
});

/// Of each group, how many texts tell each order.
#[derive(Debug, Clone, Default)]
struct Votes(Vec<[i64; 3]>);

impl Votes {
    fn planned(_args: &AccumulatorArgs) -> Result<Self> {
        Ok(Self::default())
    }
}

fn winner(votes: &[i64; 3]) -> Option<Order> {
    let all: i64 = votes.iter().sum();
    let mut told = Order::ALL.into_iter().zip(votes);
    let wins =
        |(_, votes): &(Order, &i64)| **votes > 0 && **votes >= AGREEING_PER_OTHER * (all - **votes);
    told.find(wins).map(|(order, _)| order)
}

impl Kernel for Votes {
    fn fresh(&self) -> Result<Self> {
        Ok(Self::default())
    }

    fn grow(&mut self, groups: usize) {
        self.0.resize(groups.max(self.0.len()), [0; 3]);
    }

    fn groups(&self) -> usize {
        self.0.len()
    }

    fn update(&mut self, values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let Some(column) = values.first() else { return exec_err!("{NAME} misses its text") };
        let text = Text::from_array(NAME, column)?;
        for (row, group) in rows.iter() {
            let Some(told) = text.get(row).and_then(|text| readings(text).decided()) else {
                continue;
            };
            for (order, votes) in Order::ALL.into_iter().zip(&mut self.0[group]) {
                *votes += i64::from(order == told);
            }
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let columns: Vec<_> =
            states.iter().filter_map(|state| state.as_primitive_opt::<Int64Type>()).collect();
        if columns.len() != Order::ALL.len() {
            return exec_err!("{NAME}: a partial aggregate carries no counts");
        }
        for (row, group) in rows.iter() {
            for (votes, column) in self.0[group].iter_mut().zip(&columns) {
                *votes += if column.is_valid(row) { column.value(row) } else { 0 };
            }
        }
        Ok(())
    }

    fn answers(&self, groups: usize) -> Result<ArrayRef> {
        let orders = self.0.iter().take(groups).map(|votes| winner(votes).map(Order::name));
        Ok(Arc::new(orders.collect::<StringArray>()))
    }

    fn states(&self, groups: usize) -> Result<Vec<ArrayRef>> {
        let column = |at: usize| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                self.0.iter().take(groups).map(|votes| votes[at]),
            ))
        };
        Ok((0..Order::ALL.len()).map(column).collect())
    }

    fn forget(&mut self, groups: usize) {
        self.0.drain(..groups);
    }

    fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<[i64; 3]>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::groups::testing::{aggregate, check_groups};
    use datafusion_common::ScalarValue;

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn order(values: &[&str]) -> Option<String> {
        match aggregate(&Votes::default(), &[texts(values)]) {
            ScalarValue::Utf8(order) => order,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn telling_texts_decide() {
        assert_eq!(order(&["03/04/2024", "28/04/2024", "2024-05-01"]).as_deref(), Some("DMY"));
        assert_eq!(order(&["03/04/2024", "04/28/2024"]).as_deref(), Some("MDY"));
        assert_eq!(order(&["03/04/2024", "n/a", ""]), None);
        assert_eq!(order(&["28/04/2024", "04/28/2024"]), None);
        assert_eq!(order(&[]), None);
    }

    #[test]
    fn one_in_twenty_may_disagree() {
        let mut values = vec!["28/04/2024"; 19];
        values.push("04/28/2024");
        assert_eq!(order(&values).as_deref(), Some("DMY"));
        values.push("04/29/2024");
        assert_eq!(order(&values), None);
    }

    #[test]
    fn groups_are_kept_apart() {
        let values = texts(&["28/04/2024", "04/28/2024", "x", "99-12-31"]);
        check_groups(&Votes::default(), &[values], &[0, 1, 1, 2]);
    }
}
