//! `levenshtein(a, b [, max])`: insertions, deletions and substitutions between two texts.
//!
//! Levenshtein 1966. Counts code points, NULL for NULL, 0 for two empty texts. With `max`, NULL
//! when the distance is more than `max`; a negative `max` is an error.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{
    Numbers, both_valid, columnar, integer_coercion, numbers, optional_last, pair, per_distinct,
    scalar_function, text_coercion,
};
use super::pairs::{BEYOND, Edit, measure};
use super::stop::{Stop, Stopped};
use crate::text::Text;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Counts the fewest insertions, deletions and substitutions of characters that turn one text into the other. With `max`, NULL when there are more than `max`, which is faster to find out.",
    syntax_example = "levenshtein(a, b [, max])",
    sql_example = r#"```sql
> SELECT levenshtein('kitten', 'sitting') AS distance;
+----------+
| distance |
+----------+
| 3        |
+----------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with."),
    argument(name = "max", description = "Largest distance of interest, zero or more.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct LevenshteinFunction {
    signature: Signature,
}

scalar_function!(
    LevenshteinFunction,
    "levenshtein",
    optional_last(vec![text_coercion(), text_coercion(), integer_coercion()]),
    DataType::Int64,
    edit_function::<false>,
    Stop::of
);

/// Edit distance of two columns with an optional cut-off, as a function.
pub(crate) fn edit_function<const OSA: bool>(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    let (left, right) = pair(name, arguments)?;
    let max = match arguments.get(2) {
        Some(argument) => Some(cutoff(name, argument, rows)?),
        None => None,
    };
    let compute = |left: &Text, right: &Text, rows: usize| match &max {
        None => distances::<OSA>(left, right, rows, stop),
        Some(max) => distances_up_to::<OSA>(left, right, max, rows, stop),
    };
    let same_for_all = max.as_ref().is_none_or(Numbers::is_constant);
    columnar(arguments, rows, |rows| match same_for_all {
        true => per_distinct(&left, &right, rows, compute),
        false => compute(&left, &right, rows),
    })
}

fn distances<const OSA: bool>(
    left: &Text,
    right: &Text,
    rows: usize,
    stop: &Stop,
) -> Result<ArrayRef> {
    let valid = both_valid(left, right, rows);
    let edit = Edit::<OSA, _>(|_| usize::MAX);
    let distances = measure(&edit, left, right, rows, valid.as_ref(), stop)?;
    numbers::<Int64Type>(distances.into_iter().map(i64::from).collect(), valid)
}

fn distances_up_to<const OSA: bool>(
    left: &Text,
    right: &Text,
    max: &Numbers<Int64Type>,
    rows: usize,
    stop: &Stop,
) -> Result<ArrayRef> {
    let distances = cut_off::<OSA>(left, right, max, rows, stop)?;
    let found = (0..rows).map(|row| {
        max.get(row).and(distances.get(row)).filter(|distance| **distance != BEYOND).is_some()
    });
    let found = arrow::buffer::NullBuffer::from_iter(found);
    let valid =
        arrow::buffer::NullBuffer::union(both_valid(left, right, rows).as_ref(), Some(&found));
    numbers::<Int64Type>(distances.into_iter().map(i64::from).collect(), valid)
}

/// Distances with [`BEYOND`] for those over the row's cut-off.
///
/// # Errors
/// When nobody wants the result any more.
pub(crate) fn cut_off<const OSA: bool>(
    left: &Text,
    right: &Text,
    max: &Numbers<Int64Type>,
    rows: usize,
    stop: &Stop,
) -> Result<Vec<u32>, Stopped> {
    let valid = both_valid(left, right, rows);
    let limit = |row| max.get(row).and_then(|max| usize::try_from(max).ok()).unwrap_or(0);
    measure(&Edit::<OSA, _>(limit), left, right, rows, valid.as_ref(), stop)
}

/// A cut-off argument, all of whose numbers are zero or more.
pub(crate) fn cutoff(
    name: &str,
    argument: &ColumnarValue,
    rows: usize,
) -> Result<Numbers<Int64Type>> {
    let max = Numbers::<Int64Type>::from_argument(name, argument)?;
    let checked = if max.is_constant() { rows.min(1) } else { rows };
    let negative = (0..checked).filter_map(|row| max.get(row)).find(|max| *max < 0);
    if let Some(negative) = negative {
        return exec_err!(
            "{name}: the largest distance must be zero or more, got {negative}. \
             Leave it out to get every distance"
        );
    }
    Ok(max)
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::{distance_table, integers, one_error};

    #[test]
    fn published_distances() {
        distance_table(
            "levenshtein",
            &[
                ("kitten", "sitting", 3),
                ("Saturday", "Sunday", 3),
                ("rosettacode", "raisethysword", 8),
                ("é", "e", 1),
                ("é", "e\u{301}", 2),
                ("ca", "abc", 3),
                ("", "", 0),
                ("", "日本", 2),
                ("the quick brown fox jumps", "the quick brown dog jumped over", 9),
            ],
        );
    }

    #[test]
    fn beyond_the_cut_off_is_null() {
        let cases = [(2, None), (3, Some(3)), (0, None), (i64::MAX, Some(3))];
        for (max, expected) in cases {
            assert_eq!(integers("levenshtein", "kitten", "sitting", max), expected, "max {max}");
        }
        let error = one_error("levenshtein", "a", "b", -1);
        assert!(error.contains("must be zero or more, got -1"), "{error}");
    }
}
