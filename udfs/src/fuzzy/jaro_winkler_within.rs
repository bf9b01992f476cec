//! `jaro_winkler_within(a, b, min)`: whether the Jaro-Winkler similarity is at least `min`.
//!
//! Exactly `jaro_winkler_similarity(a, b) >= min`, ties included. NULL for NULL; `min` outside 0
//! to 1 is an error.

use arrow::array::ArrayRef;
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{
    Numbers, booleans, both_valid, columnar, number_coercion, pair, per_distinct, scalar_function,
    signature, text_coercion,
};
use super::pairs::{Jaro, measure};
use super::stop::Stop;
use crate::text::Text;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Whether the Jaro-Winkler similarity of two texts is at least `min`. In the ON clause of a join it runs as a fuzzy join.",
    syntax_example = "jaro_winkler_within(a, b, min)",
    sql_example = r#"```sql
> SELECT jaro_winkler_within('painter', 'paie', 0.9) AS alike;
+-------+
| alike |
+-------+
| true  |
+-------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with."),
    argument(name = "min", description = "Least similarity that counts as alike, 0 to 1.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct JaroWinklerWithinFunction {
    signature: Signature,
}

scalar_function!(
    JaroWinklerWithinFunction,
    "jaro_winkler_within",
    signature(vec![text_coercion(), text_coercion(), number_coercion()]),
    DataType::Boolean,
    within,
    Stop::of
);

fn within(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    let [_, _, min] = arguments else {
        return exec_err!("{name} takes two texts and the least similarity");
    };
    let (left, right) = pair(name, arguments)?;
    let min = Numbers::<Float64Type>::from_argument(name, min)?;
    let checked = if min.is_constant() { rows.min(1) } else { rows };
    let outside = (0..checked).filter_map(|row| min.get(row)).find(|m| !(0.0..=1.0).contains(m));
    if let Some(outside) = outside {
        return exec_err!("{name}: the least similarity must be between 0 and 1, got {outside}");
    }
    let compute = |left: &Text, right: &Text, rows: usize| -> Result<ArrayRef> {
        let texts = both_valid(left, right, rows);
        let similarities = measure(&Jaro::<true>, left, right, rows, texts.as_ref(), stop)?;
        let limits = NullBuffer::from_iter((0..rows).map(|row| min.get(row).is_some()));
        let valid = NullBuffer::union(texts.as_ref(), Some(&limits));
        let holds = |row: usize| match (similarities.get(row), min.get(row)) {
            (Some(similarity), Some(min)) => *similarity >= min,
            _ => false,
        };
        Ok(booleans(rows, valid, holds))
    };
    columnar(arguments, rows, |rows| match min.is_constant() {
        true => per_distinct(&left, &right, rows, compute),
        false => compute(&left, &right, rows),
    })
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::{one_error, truth};

    #[test]
    fn ties_at_the_threshold_hold() {
        assert_eq!(truth("jaro_winkler_within", "painter", "paie", 0.9), Some(true));
        assert_eq!(truth("jaro_winkler_within", "painter", "paie", 0.91), Some(false));
        assert_eq!(truth("jaro_winkler_within", "", "", 1.0), Some(true));
        for min in [-0.1, 1.1, f64::NAN] {
            let error = one_error("jaro_winkler_within", "a", "b", min);
            assert!(error.contains("between 0 and 1"), "{error}");
        }
    }
}
