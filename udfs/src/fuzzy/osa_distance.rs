//! `osa_distance(a, b [, max])`: Levenshtein's edits and swaps of two adjacent characters.
//!
//! Optimal string alignment: no part of the text is edited twice, so `('ca', 'abc')` is 3 where
//! `damerau_levenshtein` gives 2; SQL Server's EDIT_DISTANCE. Counts code points, NULL for NULL;
//! with `max`, NULL beyond it; a negative `max` is an error.

use arrow::datatypes::DataType;
use datafusion_expr::Signature;
use datafusion_macros::user_doc;

use super::arguments::{integer_coercion, optional_last, scalar_function, text_coercion};
use super::levenshtein::edit_function;
use super::stop::Stop;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Counts the fewest insertions, deletions, substitutions and swaps of two adjacent characters that turn one text into the other, editing no part twice (optimal string alignment). With `max`, NULL when there are more than `max`.",
    syntax_example = "osa_distance(a, b [, max])",
    sql_example = r#"```sql
> SELECT osa_distance('martha', 'marhta') AS distance;
+----------+
| distance |
+----------+
| 1        |
+----------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with."),
    argument(name = "max", description = "Largest distance of interest, zero or more.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct OsaDistanceFunction {
    signature: Signature,
}

scalar_function!(
    OsaDistanceFunction,
    "osa_distance",
    optional_last(vec![text_coercion(), text_coercion(), integer_coercion()]),
    DataType::Int64,
    edit_function::<true>,
    Stop::of
);

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::{distance_table, integers};

    #[test]
    fn published_distances() {
        distance_table(
            "osa_distance",
            &[
                ("ca", "abc", 3),
                ("martha", "marhta", 1),
                ("ab", "ba", 1),
                ("kitten", "sitting", 3),
                ("éa", "aé", 1),
                ("", "", 0),
            ],
        );
        assert_eq!(integers("osa_distance", "ca", "abc", 2), None);
    }
}
