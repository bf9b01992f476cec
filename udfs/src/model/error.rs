//! What can go wrong in a learner: each variant has a stable code, a sentence and a hint.

use thiserror::Error;

/// A learner's refusal. `Display` gives sentence and hint; [`ModelError::code`] is stable.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ModelError {
    /// An option is outside its domain.
    #[error("{option} = {value} is not valid. {hint}")]
    Option {
        /// The option's SQL name.
        option: &'static str,
        /// The value given, as text.
        value: String,
        /// What would be valid.
        hint: &'static str,
    },
    /// There is nothing to learn from.
    #[error("the training set is empty. Check the training query: it returned no usable row")]
    Empty,
    /// No model of a blend tells items apart.
    #[error(
        "no model of the blend tells items apart. Give it rows of several users with weights above \
         0, or less regularization"
    )]
    Flat,
    /// No weight tells what anybody likes.
    #[error(
        "no weight is above 0, so that nothing tells what anybody likes. Give weights above 0 to \
         what was liked, or leave the weights out: then every row counts 1"
    )]
    NoEvidence,
    /// A weight or rating whose square is beyond what 32-bit numbers add up.
    #[error("a {what} of {value:.2e} is too large to learn from. {hint}")]
    TooHeavy {
        /// What it is.
        what: &'static str,
        /// Its size.
        value: f64,
        /// How to make it smaller.
        hint: &'static str,
    },
    /// A weight or rating is NaN or infinite.
    #[error(
        "column \"{column}\" holds {value}, which is no weight. Filter such rows out in the \
         training query"
    )]
    NotFinite {
        /// The column's name.
        column: String,
        /// `NaN`, `inf` or `-inf`.
        value: f32,
    },
    /// A feature is NaN or infinite.
    #[error(
        "column \"{column}\" holds {value}, which is no feature. Write NULL for what is missing, \
         or filter such rows out in the query"
    )]
    FeatureValue {
        /// The column's name.
        column: String,
        /// `NaN`, `inf` or `-inf`.
        value: f64,
    },
    /// A text column has more values than there are categories.
    #[error(
        "column \"{column}\" has more than {limit} different texts, which are no categories. \
         Group the rare ones in the query, or leave the column out"
    )]
    Categories {
        /// The column's name.
        column: String,
        /// The most that there may be.
        limit: usize,
    },
    /// A key column holds NULL.
    #[error("column \"{column}\" holds NULL. Add WHERE {column} IS NOT NULL to the training query")]
    Null {
        /// The column's name.
        column: String,
    },
    /// Two rows have one id.
    #[error(
        "column \"{column}\" holds {value} more than once, and a record has an id of its own. \
         Number the rows in the query, or name the table that each is of with source_col"
    )]
    Repeated {
        /// The column's name.
        column: String,
        /// The id.
        value: String,
    },
    /// A rule to block by asks for a part that values of a column's kind do not have.
    #[error(
        "blocking_rules = '{rule}' is not valid: column {column} is compared by '{kind}', of which \
         {part} is no part. Of a column as it is compared, its parts are prefix(c, n), \
         suffix(c, n), first_half(c), second_half(c), soundex(c), of texts words(c), of dates \
         year(c), year_month(c), month_day(c), of addresses local_part(c), of encodings \
         bits(c, n); all else is an expression of SQL. How a column is compared is found from its \
         values unless comparisons says it, as in comparisons = [STRUCT('{column}', 'text')]"
    )]
    RulePart {
        /// The rule.
        rule: String,
        /// The part, as it is written.
        part: String,
        /// The column's name.
        column: String,
        /// How it is compared.
        kind: &'static str,
    },
    /// A column that is to hold encodings holds other texts.
    #[error(
        "column \"{column}\" is compared by 'bloom' and holds texts that are no encodings. Write \
         bloom_encode({column}, 'key') in the training query, or name another way in comparisons"
    )]
    NoEncodings {
        /// The column's name.
        column: String,
    },
    /// Encodings under different keys, of which nothing can be learned: they are never alike.
    #[error(
        "column \"{column}\" holds encodings under the keys {one} and {other}, which tell nothing \
         of each other. Encode all of them under one key"
    )]
    EncodingKeys {
        /// The column's name.
        column: String,
        /// The id of a key.
        one: String,
        /// That of another.
        other: String,
    },
    /// A column has a type that the learner cannot read.
    #[error("column \"{column}\" has type {found}, which cannot be {expected}. {hint}")]
    Type {
        /// The column's name.
        column: String,
        /// Its Arrow type.
        found: String,
        /// What was wanted.
        expected: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// More rows, ids or factors than the learner's codes can count.
    #[error("{what} exceeds the limit of {limit}. Reduce the training query or the options")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The largest count allowed.
        limit: u64,
    },
    /// The learner would need more memory than it may have; known before it starts.
    #[error(
        "{what} needs {needed_bytes} bytes of memory and may have {limit_bytes}. Reduce the \
         training query, raise the limit or take another model_type"
    )]
    Memory {
        /// What is to be learned, with its size, such as `ease over 41000 items`.
        what: String,
        /// Peak bytes of training.
        needed_bytes: usize,
        /// Bytes it may have.
        limit_bytes: usize,
    },
    /// There is no memory for the keys by which records are blocked, of which it is known only
    /// while training how many there are.
    #[error(
        "{what} take {needed_bytes} bytes beside what each record takes, and the memory limit has \
         no place for them. Raise the limit, name rules that make fewer keys in blocking_rules, \
         or reduce the training query"
    )]
    NoRoom {
        /// What takes them.
        what: &'static str,
        /// How many.
        needed_bytes: usize,
    },
    /// Scored pairs of records that memory has no place for cannot be kept on disk either; why.
    #[error(
        "scored pairs that do not fit in memory cannot be put on disk or read there: {0}. Give \
         more disk or memory, or keep fewer pairs: a higher pair_threshold, or a smaller \
         max_pairs or max_block_size"
    )]
    Spill(String),
    /// Trees could not be grown.
    #[error("boosted trees: {0}. Check the options and the training query")]
    Boosting(String),
    /// Stored parts do not fit together.
    #[error("the stored model is not consistent: {0}. Train it again")]
    Inconsistent(String),
    /// The caller asked to stop.
    #[error("training was cancelled")]
    Cancelled,
    /// Arrow refused an operation on an id column.
    #[error("{0}. Check the types of the id columns")]
    Arrow(String),
}

impl ModelError {
    /// A stable code for logs, status codes and documentation.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Option { .. } => "model_option",
            Self::Empty => "model_empty",
            Self::Flat => "model_flat",
            Self::NoEvidence => "model_no_evidence",
            Self::TooHeavy { .. } => "model_too_heavy",
            Self::NotFinite { .. } => "model_not_finite",
            Self::FeatureValue { .. } => "model_feature_value",
            Self::Categories { .. } => "model_categories",
            Self::Null { .. } => "model_null",
            Self::Repeated { .. } => "model_repeated",
            Self::RulePart { .. } => "model_rule_part",
            Self::NoEncodings { .. } => "model_no_encodings",
            Self::EncodingKeys { .. } => "model_encoding_keys",
            Self::Type { .. } => "model_type",
            Self::TooLarge { .. } => "model_too_large",
            Self::Memory { .. } => "model_memory",
            Self::NoRoom { .. } => "model_no_room",
            Self::Spill(_) => "model_spill",
            Self::Boosting(_) => "model_boosting",
            Self::Inconsistent(_) => "model_inconsistent",
            Self::Cancelled => "model_cancelled",
            Self::Arrow(_) => "model_arrow",
        }
    }
}

impl From<arrow::error::ArrowError> for ModelError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Arrow(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_column_and_gives_a_hint() {
        let error = ModelError::Null { column: "user_id".to_owned() };
        assert!(error.to_string().contains("WHERE user_id IS NOT NULL"));
        assert_eq!(error.code(), "model_null");
    }
}
