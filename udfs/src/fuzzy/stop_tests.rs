//! Each function of two texts ends with its statement, also in the middle of a pair.

use std::sync::Arc;

use arrow::array::StringArray;
use datafusion_common::ScalarValue;
use datafusion_expr::ColumnarValue;

use super::stop::Stop;
use super::testing::{call_until, text};

/// The functions of two texts, with the argument that follows them.
pub(crate) fn functions() -> Vec<(&'static str, Option<ScalarValue>)> {
    vec![
        ("levenshtein", None),
        ("levenshtein", Some(ScalarValue::from(3_i64))),
        ("levenshtein_within", Some(ScalarValue::from(3_i64))),
        ("osa_distance", None),
        ("damerau_levenshtein", None),
        ("hamming_distance", None),
        ("jaro_similarity", None),
        ("jaro_winkler_similarity", None),
        ("jaro_winkler_within", Some(ScalarValue::from(0.9))),
        ("jaccard_similarity", None),
        ("cosine_similarity", None),
        ("trigram_similarity", None),
        ("token_sort_ratio", None),
        ("token_set_ratio", None),
        ("partial_ratio", None),
    ]
}

/// The message of a call on two texts that is no longer wanted after so many looks.
fn ended(name: &str, third: Option<ScalarValue>, looks: usize, pair: (&str, &str)) -> String {
    let texts = [text(pair.0), text(pair.1)].into_iter().chain(third);
    let arguments: Vec<_> = texts.map(ColumnarValue::Scalar).collect();
    let answer = call_until(&Stop::when_looked_at(looks), name, &arguments, 1);
    answer.expect_err(name).to_string()
}

#[test]
fn what_nobody_wants_is_not_begun() {
    let (left, right) = ("ab ".repeat(1_000_000), "ba ".repeat(1_000_001));
    for (name, third) in functions() {
        let message = ended(name, third, 0, (&left, &right));
        assert!(message.contains("nobody waits for the result"), "{name}: {message}");
    }
}

/// Two such texts take the quadratic functions minutes.
#[test]
fn a_pair_of_long_texts_ends_in_its_midst() {
    for (one, other) in [("ab", "ba"), ("aé", "éa"), ("日本", "本日")] {
        let pair = (one.repeat(400_000), other.repeat(400_001));
        for name in ["levenshtein", "osa_distance", "damerau_levenshtein"] {
            for looks in [1, 3] {
                let message = ended(name, None, looks, (&pair.0, &pair.1));
                assert!(message.contains("nobody waits for the result"), "{name}: {message}");
            }
        }
        for name in ["token_sort_ratio", "token_set_ratio"] {
            let message = ended(name, None, 3, (&pair.0, &pair.1));
            assert!(message.contains("nobody waits for the result"), "{name}: {message}");
        }
        let pair = (format!("{}c", one.repeat(10_000)), other.repeat(100_000));
        let message = ended("partial_ratio", None, 3, (&pair.0, &pair.1));
        assert!(message.contains("nobody waits for the result"), "{message}");
    }
}

#[test]
fn a_batch_ends_between_its_pairs() {
    let column = |one: &str| -> ColumnarValue {
        let texts = (0..2_000).map(|row| format!("{}{row}", one.repeat(1_000)));
        ColumnarValue::Array(Arc::new(StringArray::from_iter_values(texts)))
    };
    let columns = [column("ab"), column("ba")];
    for (name, third) in functions() {
        let third = third.map(ColumnarValue::Scalar);
        let arguments: Vec<_> = columns.iter().cloned().chain(third).collect();
        let answer = call_until(&Stop::when_looked_at(1), name, &arguments, 2_000);
        let message = answer.expect_err(name).to_string();
        assert!(message.contains("nobody waits for the result"), "{name}: {message}");
    }
}
