//! `jaro_winkler_similarity(a, b)`: Jaro similarity with a bonus for a common beginning, 0 to 1.
//!
//! Winkler 1990; the formula is in [`super::kernel::jaro`]. Case-sensitive, code points, NULL for
//! NULL; two empty texts give 1 (as Databricks; DuckDB and Snowflake give 0), one empty text 0.

use arrow::datatypes::DataType;
use datafusion_expr::Signature;
use datafusion_macros::user_doc;

use super::arguments::{scalar_function, texts};
use super::jaro_similarity::jaro_function;
use super::stop::Stop;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Jaro similarity of two texts with Winkler's bonus for up to four equal characters at the start, given when the Jaro similarity is more than 0.7; from 0 to 1.",
    syntax_example = "jaro_winkler_similarity(a, b)",
    sql_example = r#"```sql
> SELECT round(jaro_winkler_similarity('martha', 'marhta'), 4) AS similarity;
+------------+
| similarity |
+------------+
| 0.9611     |
+------------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct JaroWinklerSimilarityFunction {
    signature: Signature,
}

scalar_function!(
    JaroWinklerSimilarityFunction,
    "jaro_winkler_similarity",
    texts(2),
    DataType::Float64,
    jaro_function::<true>,
    Stop::of
);

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::similarity_table;

    #[test]
    fn published_similarities() {
        similarity_table(
            "jaro_winkler_similarity",
            &[
                ("martha", "marhta", 0.9611),
                ("dixon", "dicksonx", 0.8133),
                ("dwayne", "duane", 0.84),
                ("painter", "paie", 0.9),
                ("", "", 1.0),
                ("a", "", 0.0),
                ("MARTHA", "martha", 0.0),
            ],
        );
    }
}
