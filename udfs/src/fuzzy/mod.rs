//! Comparing texts: edit distances, similarities, phonetic codes.
//!
//! Conventions, the same everywhere: lengths and distances count Unicode code points; nothing is
//! normalized or case-folded unless the function says so; NULL in, NULL out; two empty texts have
//! distance 0 and similarity 1; a cut-off form gives NULL beyond the cut-off, and a negative
//! cut-off is an error.

use std::sync::Arc;

use datafusion_expr::ScalarUDF;

#[cfg(test)]
mod allocations;
pub(crate) mod arguments;
mod cosine_similarity;
mod damerau_levenshtein;
#[cfg(test)]
mod definitions;
mod double_metaphone;
mod hamming_distance;
pub mod index;
mod jaccard_similarity;
mod jaro_similarity;
mod jaro_winkler_similarity;
mod jaro_winkler_within;
pub mod kernel;
mod levenshtein;
mod levenshtein_within;
mod metaphone;
mod ngrams;
mod nysiis;
mod osa_distance;
mod pairs;
mod partial_ratio;
pub(crate) mod phonetic;
mod prepared;
mod soundex;
pub mod stop;
#[cfg(test)]
mod stop_tests;
#[cfg(test)]
pub(crate) mod testing;
mod token_set_ratio;
mod token_sort_ratio;
mod trigram_similarity;
mod words;

/// The package's functions.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        udf::<levenshtein::LevenshteinFunction>(),
        udf::<levenshtein_within::LevenshteinWithinFunction>(),
        udf::<osa_distance::OsaDistanceFunction>(),
        udf::<damerau_levenshtein::DamerauLevenshteinFunction>(),
        udf::<hamming_distance::HammingDistanceFunction>(),
        udf::<jaro_similarity::JaroSimilarityFunction>(),
        udf::<jaro_winkler_similarity::JaroWinklerSimilarityFunction>(),
        udf::<jaro_winkler_within::JaroWinklerWithinFunction>(),
        udf::<jaccard_similarity::JaccardSimilarityFunction>(),
        udf::<cosine_similarity::CosineSimilarityFunction>(),
        udf::<trigram_similarity::TrigramSimilarityFunction>(),
        udf::<token_sort_ratio::TokenSortRatioFunction>(),
        udf::<token_set_ratio::TokenSetRatioFunction>(),
        udf::<partial_ratio::PartialRatioFunction>(),
        udf::<soundex::SoundexFunction>(),
        udf::<metaphone::MetaphoneFunction>(),
        udf::<double_metaphone::DoubleMetaphoneFunction>(),
        udf::<nysiis::NysiisFunction>(),
        udf::<ngrams::NgramsFunction>(),
    ]
}

/// A function as DataFusion registers it.
pub(crate) fn udf<F: Default + datafusion_expr::ScalarUDFImpl + 'static>() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(F::default()))
}
