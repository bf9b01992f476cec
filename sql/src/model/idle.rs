//! Options that do nothing beside the others: what each of them needs.
//!
//! Given in a statement without what it needs an option is refused, and so is a search of it: the
//! trials would all be the same. Where a search gives some trials what an option needs, the others
//! are without the option.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::error::{Error, Result};

/// What an option needs to do something, when the others do not have it.
pub fn missing(option: &str, given: &BTreeMap<String, Json>) -> Option<&'static str> {
    let text = |name: &str, usual: &str| {
        given.get(name).and_then(Json::as_str).unwrap_or(usual).to_lowercase()
    };
    let is_implicit = text("feedback_type", "explicit") == "implicit"
        || text("model_type", "matrix_factorization") == "hybrid";
    let usual_scaling = if is_implicit { "frequency" } else { "count" };
    let solver = text("solver", "auto");
    let has = |name: &str, value: bool| given.get(name) == Some(&Json::Bool(value));
    let (is_met, needs) = match option {
        "wals_alpha" => (is_implicit, "feedback_type = 'implicit'"),
        "biases" => (!is_implicit, "feedback_type = 'explicit'"),
        "frequency_exponent" => (
            text("regularization_scaling", usual_scaling) == "frequency",
            "regularization_scaling = 'frequency'",
        ),
        "block_size" => (solver == "subspace", "solver = 'subspace'"),
        "cg_steps" if has("non_negative", true) => (false, "non_negative = FALSE"),
        "cg_steps" => (solver == "cg" || (solver == "auto" && is_implicit), "solver = 'cg'"),
        "min_rel_progress" => (!has("early_stop", false), "early_stop = TRUE"),
        "bm25_k1" | "bm25_b" => (text("similarity", "cosine") == "bm25", "similarity = 'bm25'"),
        "rp3_alpha" | "rp3_beta" => {
            (text("similarity", "cosine") == "rp3beta", "similarity = 'rp3beta'")
        }
        "timestamp_col" => (given.contains_key("half_life"), "half_life = '30 days'"),
        "item_features" => (given.contains_key("item_table"), "item_table = 'products'"),
        "signals" => (given.contains_key("item_table"), "item_table = 'products'"),
        "user_features" => (given.contains_key("user_table"), "user_table = 'customers'"),
        "user_table" => (given.contains_key("user_features"), "user_features = ['country']"),
        "feature_reg" => (
            given.contains_key("item_features") || given.contains_key("user_features"),
            "item_features = ['brand']",
        ),
        _ => return None,
    };
    (!is_met).then_some(needs)
}

/// Refuses an option that does nothing in any of several settings, which are those of a search.
///
/// # Errors
/// When there is one.
pub fn refuse(settings: &[BTreeMap<String, Json>]) -> Result<()> {
    let Some(first) = settings.first() else { return Ok(()) };
    for option in first.keys() {
        let missing: Option<Vec<&str>> =
            settings.iter().map(|setting| missing(option, setting)).collect();
        if let Some(needs) = missing.and_then(|missing| missing.first().copied()) {
            return Err(Error::invalid_hint(
                format!("option {option} needs {needs}, and does nothing without"),
                format!("leave it out, or give {needs}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::options::TrainingOptions;
    use crate::model::options::tests::read;

    #[test]
    fn options_that_do_nothing_are_refused_searched_or_not() {
        let (als, implicit) = ("matrix_factorization", "feedback_type = 'implicit', ");
        let range = "HPARAM_RANGE(1, 2)";
        let searched = |option: &str| format!("{option} = {range}");
        for (model_type, options, needs) in [
            (als, searched("wals_alpha"), "feedback_type = 'implicit'"),
            (als, "wals_alpha = 3".into(), "feedback_type = 'implicit'"),
            (als, format!("{implicit}solver = 'cholesky', cg_steps = {range}"), "solver = 'cg'"),
            (als, searched("cg_steps"), "solver = 'cg'"),
            (als, format!("{implicit}non_negative = TRUE, cg_steps = 3"), "non_negative = FALSE"),
            (als, searched("frequency_exponent"), "regularization_scaling = 'frequency'"),
            (als, "block_size = 32".into(), "solver = 'subspace'"),
            (als, format!("{implicit}biases = FALSE"), "feedback_type = 'explicit'"),
            (als, "early_stop = FALSE, min_rel_progress = 0.1".into(), "early_stop = TRUE"),
            ("item_knn", "bm25_b = HPARAM_RANGE(0, 1)".into(), "similarity = 'bm25'"),
            (
                "item_knn",
                "similarity = HPARAM_CANDIDATES(['cosine', 'tfidf']), bm25_k1 = 1".into(),
                "similarity = 'bm25'",
            ),
            ("popularity", "timestamp_col = 'at'".into(), "half_life"),
            (als, "item_features = ['brand']".into(), "item_table"),
            (als, "user_features = ['country']".into(), "user_table"),
            (als, "user_table = 'people'".into(), "user_features"),
            (als, "feature_reg = 2".into(), "item_features"),
            ("hybrid", "item_features = ['brand']".into(), "item_table"),
            ("hybrid", "signals = ['margin']".into(), "item_table"),
            ("hybrid", "timestamp_col = 'at'".into(), "half_life"),
        ] {
            let options = format!("model_type = '{model_type}', {options}");
            let error = read(&options).unwrap_err().to_string();
            assert!(error.contains(&format!("needs {needs}")), "{options}: {error}");
        }
        for options in [
            "model_type = 'item_knn', bm25_k1 = 1, similarity = HPARAM_CANDIDATES(['cosine', \
             'bm25']), bm25_b = HPARAM_RANGE(0, 1)",
            "model_type = 'matrix_factorization', cg_steps = HPARAM_RANGE(1, 4), solver = \
             HPARAM_CANDIDATES(['cholesky', 'cg'])",
            "model_type = 'matrix_factorization', feedback_type = 'IMPLICIT', cg_steps = 3, \
             frequency_exponent = 0.5, wals_alpha = HPARAM_RANGE(1, 4)",
        ] {
            assert!(read(options).is_ok(), "{options}");
        }
        // A stored definition goes on without them.
        let given = [("model_type", Json::from(als)), ("wals_alpha", Json::from(3))];
        let given = given.map(|(name, value)| (name.to_owned(), value));
        assert!(TrainingOptions::from_given(given.into()).is_ok());
    }
}
