//! `distribution_sketch(value)`: a column's distribution in a few kilobytes, to be kept and
//! compared later with `sketch_psi` and `sketch_ks`.
//!
//! Numbers and times as a sketch of their ranks (exact up to 1,024 values, a few thousandths off
//! beyond), texts and truth values by value, at most 1,000 of them. Missing values are counted. The
//! bytes are Attune's own.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::Signature;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_macros::user_doc;
use std::sync::Arc;

use super::distribution::Distribution;
use super::samples::{Values, read_state, value_type, written};
use crate::features::groups::{Kernel, Rows, kernel_aggregate};

const NAME: &str = "distribution_sketch";

/// The aggregate `distribution_sketch`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "The distribution of a column as a few kilobytes: keep it in a table, and compare \
later rows with it by sketch_psi and sketch_ks. Numbers and times as ranks, texts and truth values \
by value (at most 1,000 different ones), missing values by their number.",
    syntax_example = "distribution_sketch(value)",
    sql_example = r#"```sql
> SELECT round(sketch_psi(distribution_sketch(n), distribution_sketch(n + 1)), 1) AS drift
  FROM generate_series(1, 10) AS t (n);
+-------+
| drift |
+-------+
| 0.8   |
+-------+
```"#,
    argument(name = "value", description = "Numbers, dates, timestamps, texts or truth values."),
    related_udf(name = "sketch_psi"),
    related_udf(name = "sketch_ks")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DistributionSketch {
    signature: Signature,
}

kernel_aggregate!(DistributionSketch, NAME, Sketches, {
    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [value] = arg_types else {
            return plan_err!("{NAME}(value) was called with {} arguments", arg_types.len());
        };
        Ok(vec![value_type(NAME, value)?])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format!("{}[distribution]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::Binary, true))])
    }
});

/// A distribution for each group.
#[derive(Debug, Clone, Default)]
struct Sketches(Vec<Distribution>);

impl Sketches {
    fn planned(_args: &AccumulatorArgs) -> Result<Self> {
        Ok(Self::default())
    }
}

impl Kernel for Sketches {
    fn fresh(&self) -> Result<Self> {
        Ok(Self::default())
    }

    fn grow(&mut self, groups: usize) {
        self.0.resize_with(groups.max(self.0.len()), Default::default);
    }

    fn groups(&self) -> usize {
        self.0.len()
    }

    fn update(&mut self, values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let Some(column) = values.first() else { return exec_err!("{NAME} misses its values") };
        let values = Values::of(NAME, column)?;
        rows.iter().try_for_each(|(row, group)| values.put(row, &mut self.0[group]))
    }

    fn merge(&mut self, states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let state = read_state(NAME, states, 0)?;
        for (row, group) in rows.iter().filter(|(row, _)| state.is_valid(*row)) {
            self.0[group].merge(&Distribution::from_bytes(state.value(row))?)?;
        }
        Ok(())
    }

    fn answers(&self, groups: usize) -> Result<ArrayRef> {
        Ok(written(self.0.iter().take(groups)))
    }

    fn states(&self, groups: usize) -> Result<Vec<ArrayRef>> {
        Ok(vec![written(self.0.iter().take(groups))])
    }

    fn forget(&mut self, groups: usize) {
        self.0.drain(..groups);
    }

    fn heap_bytes(&self) -> usize {
        self.0.iter().map(|each| size_of_val(each) + each.heap_bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, DictionaryArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Int8Type, TimeUnit};
    use datafusion_common::ScalarValue;
    use datafusion_expr::AggregateUDFImpl;

    use super::*;
    use crate::features::groups::testing::aggregate;

    #[test]
    fn every_type_that_can_be_compared_is_read() {
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![Some(1), None, Some(3)]));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]));
        let texts: DictionaryArray<Int8Type> = ["a", "b", "a"].into_iter().collect();
        for column in [dates, times, Arc::new(texts)] {
            let ScalarValue::Binary(Some(bytes)) = aggregate(&Sketches::default(), &[column])
            else {
                panic!("no bytes")
            };
            Distribution::from_bytes(&bytes).unwrap();
        }
        let kept = DataType::Timestamp(TimeUnit::Second, None);
        let types = |given: DataType| DistributionSketch::new().coerce_types(&[given]).unwrap();
        assert_eq!(types(kept.clone()), [kept]);
        assert_eq!(types(DataType::Decimal128(9, 2)), [DataType::Float64]);
        assert_eq!(types(DataType::Boolean), [DataType::Utf8]);
        assert!(DistributionSketch::new().coerce_types(&[DataType::Binary]).is_err());
    }
}
