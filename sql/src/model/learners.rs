//! What can be learned: the types of models, and the options that each of them takes.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value as Json;
use udfs::model::als::{AlsOptions, Feedback, Scaling, Solver};
use udfs::model::ease::{self, EaseOptions};
use udfs::model::item_knn::{ItemKnnOptions, Weighting};

use crate::error::{Error, Result};
use crate::model::entities::{self, EntityLearner};
use crate::model::features::FeatureLearner;
use crate::model::hybrid::{self, HybridOptions};
use crate::model::options::model_error;
use crate::model::reader::Reader;

/// Options that every type takes.
const COMMON: [&str; 8] = [
    "model_type",
    "seed",
    "promote",
    "promote_tolerance",
    "keep_versions",
    "schedule",
    "purpose",
    "channel",
];

/// Options that every recommender takes.
const OF_RECOMMENDERS: [&str; 14] = [
    "user_col",
    "item_col",
    "rating_col",
    "item_table",
    "data_split_method",
    "data_split_eval_fraction",
    "data_split_test_fraction",
    "data_split_col",
    "top_k",
    "fold_in_schedule",
    "num_trials",
    "hparam_tuning_algorithm",
    "hparam_tuning_objectives",
    "successive_halving",
];

/// Each recommender with the options that it takes beside the common ones.
pub(super) const RECOMMENDERS: [(&str, &[&str]); 5] = [
    (
        "matrix_factorization",
        &[
            "feedback_type",
            "num_factors",
            "max_iterations",
            "l2_reg",
            "wals_alpha",
            "regularization_scaling",
            "frequency_exponent",
            "solver",
            "cg_steps",
            "block_size",
            "non_negative",
            "biases",
            "early_stop",
            "min_rel_progress",
            "early_stop_metric",
            "early_stop_patience",
            "warm_start",
            "item_features",
            "user_table",
            "user_features",
            "feature_reg",
        ],
    ),
    (
        "item_knn",
        &["similarity", "num_neighbors", "shrinkage", "bm25_k1", "bm25_b", "rp3_alpha", "rp3_beta"],
    ),
    ("ease", &["l2_reg"]),
    ("popularity", &["half_life", "timestamp_col", "segment_col"]),
    ("hybrid", &hybrid::OPTIONS),
];

/// Each type that learns of rows of features, likewise.
const OF_FEATURES: [(&str, &[&str]); 7] = [
    (
        "kmeans",
        &[
            "num_clusters",
            "kmeans_init_method",
            "distance_type",
            "standardize_features",
            "max_iterations",
            "early_stop",
            "min_rel_progress",
        ],
    ),
    ("pca", &["num_principal_components", "pca_explained_variance_ratio", "scale_features"]),
    ("isolation_forest", &["num_trees", "max_samples", "contamination"]),
    ("outlier", &["method", "threshold"]),
    ("boosted_tree_classifier", &["calibration", "auto_class_weights", "class_weights"]),
    ("boosted_tree_regressor", &[]),
    ("boosted_tree_ranker", &["query_group_col"]),
];

/// Options that all boosted trees take.
const OF_TREES: [&str; 14] = [
    "input_label_cols",
    "max_iterations",
    "learn_rate",
    "max_tree_depth",
    "min_tree_child_weight",
    "subsample",
    "colsample_bytree",
    "l1_reg",
    "l2_reg",
    "early_stop",
    "data_split_method",
    "data_split_eval_fraction",
    "data_split_test_fraction",
    "data_split_col",
];

/// The type that finds out which records are of one entity.
const OF_RECORDS: [(&str, &[&str]); 1] = [("entity_resolution", &entities::options::OPTIONS)];

/// Options that later versions have, with what to do today.
const ELSEWHERE: [(&str, &str); 5] = [
    ("max_parallel_trials", "leave it out: trials run one after another, each on all cores"),
    ("epsilon", NOT_PRIVATE),
    ("delta", NOT_PRIVATE),
    ("privacy_budget", NOT_PRIVATE),
    ("privacy_unit_column", NOT_PRIVATE),
];

/// What to do without noise in training, whose place is [`udfs::model::als::gradient`].
const NOT_PRIVATE: &str = "training under differential privacy does not exist yet: train on the \
    answers of SELECT WITH DIFFERENTIAL_PRIVACY, on rows of anonymize(…), or, where the model may \
    tell of single persons, on a copy that a policy_admin DECLASSIFYs";

/// A learner with its options.
#[derive(Debug, Clone, PartialEq)]
pub enum Learner {
    /// A matrix factorization.
    Als(AlsOptions),
    /// Item neighbourhoods.
    ItemKnn(ItemKnnOptions),
    /// EASE.
    Ease(EaseOptions),
    /// What is popular.
    Popularity(PopularityOptions),
    /// A blend of recommenders.
    Hybrid(HybridOptions),
    /// Of rows of features.
    Features(FeatureLearner),
    /// Of records of entities.
    Entities(EntityLearner),
}

/// Options of popularity.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PopularityOptions {
    /// After how long an interaction counts half, in milliseconds; none: it always counts whole.
    pub half_life_ms: Option<i64>,
    /// The column with the time of an interaction, when named.
    pub timestamp_col: Option<String>,
    /// The column with the user's segment, when named.
    pub segment_col: Option<String>,
}

impl Learner {
    /// The learner that options ask for; [`check_names`] has looked at their names.
    ///
    /// # Errors
    /// When the type is missing or unknown, or a value is not taken.
    pub fn read(given: &BTreeMap<String, Json>) -> Result<Self> {
        let reader = Reader(given);
        let model_type = model_type(reader.text("model_type")?)?;
        if let Some(learner) = FeatureLearner::read(model_type, &reader)? {
            return Ok(Self::Features(learner));
        }
        Ok(match model_type {
            "entity_resolution" => Self::Entities(EntityLearner::read(&reader)?),
            "item_knn" => Self::ItemKnn(item_knn(&reader)?),
            "ease" => Self::Ease(ease_options(&reader)?),
            "popularity" => Self::Popularity(popularity(&reader)?),
            "hybrid" => Self::Hybrid(HybridOptions::read(given)?),
            _ => Self::Als(als(&reader)?),
        })
    }

    /// The `model_type`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Als(_) => "matrix_factorization",
            Self::ItemKnn(_) => "item_knn",
            Self::Ease(_) => "ease",
            Self::Popularity(_) => "popularity",
            Self::Hybrid(_) => "hybrid",
            Self::Features(learner) => learner.model_type(),
            Self::Entities(_) => "entity_resolution",
        }
    }

    /// The learner of rows of features, when it is one.
    pub fn features(&self) -> Option<&FeatureLearner> {
        match self {
            Self::Features(learner) => Some(learner),
            _ => None,
        }
    }

    /// What is popular, as far as the learner asks for it.
    pub fn popularity(&self) -> Option<&PopularityOptions> {
        match self {
            Self::Popularity(popularity) => Some(popularity),
            Self::Hybrid(hybrid) => hybrid.bases.iter().find_map(Self::popularity),
            _ => None,
        }
    }

    /// The columns of the item table that count in a blend.
    pub fn signals(&self) -> &[String] {
        match self {
            Self::Hybrid(hybrid) => &hybrid.signals,
            _ => &[],
        }
    }

    /// Whether ratings are predicted; else they are weights of evidence.
    pub fn is_explicit(&self) -> bool {
        matches!(self, Self::Als(als) if als.feedback == Feedback::Explicit)
    }

    /// Whether a column of a usual name is taken for the rating when none is named.
    pub fn finds_rating(&self) -> bool {
        match self {
            Self::Als(_) | Self::ItemKnn(_) => true,
            Self::Hybrid(hybrid) => hybrid.bases.iter().any(Self::finds_rating),
            _ => false,
        }
    }

    /// Whether an interaction counts once, however often it is told, when no rating is named.
    pub fn is_of_sets(&self) -> bool {
        match self {
            Self::Ease(_) => true,
            Self::Hybrid(hybrid) => hybrid.bases.iter().any(Self::is_of_sets),
            _ => false,
        }
    }

    /// Whether training has to choose something on a validation part, whatever the options.
    pub fn chooses(&self) -> bool {
        matches!(self, Self::Hybrid(_))
    }

    /// Peak bytes of training, known before it starts; of features, `cells` rows of `items` numbers
    /// and `segments` classes.
    pub fn memory_bytes(&self, users: usize, items: usize, cells: usize, segments: usize) -> usize {
        let kept = cells.saturating_mul(16).saturating_add((users + items).saturating_mul(16));
        match self {
            Self::Als(options) => options.memory_bytes(users, items, cells),
            Self::ItemKnn(options) => {
                kept + options.memory_bytes(users, items, cells, rayon::current_num_threads())
            }
            Self::Ease(_) => ease::memory_bytes(users, items, cells).saturating_add(kept),
            Self::Popularity(_) => {
                kept.saturating_add(items.saturating_mul(segments + 1).saturating_mul(8))
            }
            Self::Hybrid(hybrid) => hybrid.memory_bytes(users, items, cells),
            Self::Features(learner) => learner.memory_bytes(cells, items, segments),
            // Known once the records are read: their values take what they take.
            Self::Entities(_) => kept,
        }
    }
}

impl Learner {
    /// Bytes that features of users or of items take in training, rows × columns with so many
    /// cells.
    pub fn feature_bytes(&self, rows: usize, columns: usize, cells: usize) -> usize {
        match self {
            Self::Als(options) => options.feature_bytes(rows, columns, cells),
            Self::Hybrid(hybrid) => {
                let bases = hybrid.bases.iter();
                bases.map(|base| base.feature_bytes(rows, columns, cells)).sum()
            }
            _ => 0,
        }
    }
}

/// As EXPLAIN shows it.
impl fmt::Display for Learner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Als(als) => {
                let feedback = format!("{:?}", als.feedback).to_lowercase();
                let (factors, iterations) = (als.num_factors, als.max_iterations);
                write!(formatter, "feedback={feedback}, num_factors={factors}, ")?;
                write!(formatter, "max_iterations={iterations}")
            }
            Self::ItemKnn(knn) => {
                let similarity = format!("{:?}", knn.weighting).to_lowercase();
                write!(formatter, "item_knn, similarity={similarity}, ")?;
                write!(formatter, "num_neighbors={}", knn.num_neighbors)
            }
            Self::Ease(ease) => write!(formatter, "ease, l2_reg={}", ease.l2_reg),
            Self::Popularity(popularity) => match popularity.half_life_ms {
                Some(half_life_ms) => {
                    write!(formatter, "popularity, half_life_ms={half_life_ms}")
                }
                None => formatter.write_str("popularity"),
            },
            Self::Hybrid(hybrid) => fmt::Display::fmt(hybrid, formatter),
            Self::Features(learner) => fmt::Display::fmt(learner, formatter),
            Self::Entities(learner) => fmt::Display::fmt(learner, formatter),
        }
    }
}

fn model_type(given: Option<&str>) -> Result<&'static str> {
    let known: Vec<&'static str> = types().map(|(name, _)| name).collect();
    let Some(given) = given.map(str::to_lowercase) else {
        return Err(Error::invalid_hint(
            "CREATE MODEL needs the option model_type",
            format!("write OPTIONS (model_type = '{}', …)", known.join("' or '")),
        ));
    };
    if let Some(found) = known.iter().copied().find(|name| *name == given) {
        return Ok(found);
    }
    Err(Error::unknown("model_type", &given, known))
}

/// Each type with its own options.
fn types() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    RECOMMENDERS.into_iter().chain(OF_FEATURES).chain(OF_RECORDS)
}

/// The options that a type shares with those like it.
fn shared(model_type: &str) -> &'static [&'static str] {
    if RECOMMENDERS.iter().any(|(name, _)| *name == model_type) {
        return &OF_RECOMMENDERS;
    }
    if model_type.starts_with("boosted_tree") { &OF_TREES } else { &[] }
}

/// Whether any type has an option of that name.
pub fn is_option(name: &str) -> bool {
    COMMON.contains(&name)
        || OF_RECOMMENDERS.contains(&name)
        || OF_TREES.contains(&name)
        || types().any(|(_, names)| names.contains(&name))
}

/// Checks that every name is an option of the type.
///
/// # Errors
/// When the type is missing or unknown, or an option is unknown or belongs to another type.
pub fn check_names(given: &BTreeMap<String, Json>) -> Result<()> {
    let model_type = model_type(Reader(given).text("model_type")?)?;
    let own = |name: &str| types().find(|(other, _)| *other == name).map_or(&[][..], |t| t.1);
    for name in given.keys().map(String::as_str) {
        if COMMON.contains(&name)
            || shared(model_type).contains(&name)
            || own(model_type).contains(&name)
        {
            continue;
        }
        let takes = |(other, names): &(&str, &[&str])| {
            names.contains(&name) || shared(other).contains(&name)
        };
        let others: Vec<&str> = types().filter(takes).map(|(other, _)| other).collect();
        if !others.is_empty() {
            return Err(Error::invalid_hint(
                format!("option {name} belongs to {}, not to {model_type}", others.join(", ")),
                match own(model_type) {
                    [] => format!("{model_type} takes {}", shared(model_type).join(", ")),
                    own => format!("{model_type} takes {}", own.join(", ")),
                },
            ));
        }
        if let Some((_, why)) = ELSEWHERE.iter().find(|(known, _)| *known == name) {
            return Err(Error::unsupported(format!("option {name} is not supported"), *why));
        }
        let known = COMMON.iter().chain(shared(model_type)).chain(own(model_type)).copied();
        return Err(Error::unknown("option", name, known));
    }
    Ok(())
}

/// What `similarity` may be.
pub const SIMILARITIES: [&str; 4] = ["cosine", "tfidf", "bm25", "rp3beta"];

fn item_knn(reader: &Reader<'_>) -> Result<ItemKnnOptions> {
    let usual = ItemKnnOptions::default();
    let options = ItemKnnOptions {
        weighting: match reader.choice("similarity", &SIMILARITIES)? {
            Some("tfidf") => Weighting::TfIdf,
            Some("bm25") => Weighting::Bm25,
            Some("rp3beta") => Weighting::Rp3Beta,
            _ => Weighting::Cosine,
        },
        num_neighbors: reader.count("num_neighbors")?.unwrap_or(usual.num_neighbors),
        shrinkage: reader.number("shrinkage")?.unwrap_or(usual.shrinkage),
        bm25_k1: reader.number("bm25_k1")?.unwrap_or(usual.bm25_k1),
        bm25_b: reader.number("bm25_b")?.unwrap_or(usual.bm25_b),
        rp3_alpha: reader.number("rp3_alpha")?.unwrap_or(usual.rp3_alpha),
        rp3_beta: reader.number("rp3_beta")?.unwrap_or(usual.rp3_beta),
    };
    options.validate().map_err(model_error)?;
    Ok(options)
}

fn ease_options(reader: &Reader<'_>) -> Result<EaseOptions> {
    let mut options = EaseOptions::default();
    if let Some(l2_reg) = reader.number("l2_reg")? {
        if !(l2_reg > 0.0 && l2_reg.is_finite()) {
            return Err(Error::invalid_hint(
                format!("l2_reg = {l2_reg} of ease is not valid"),
                "give a number above 0; 100 to 1000 are usual",
            ));
        }
        options.l2_reg = l2_reg;
    }
    Ok(options)
}

fn popularity(reader: &Reader<'_>) -> Result<PopularityOptions> {
    let half_life_ms = match reader.text("half_life")? {
        None => None,
        Some(written) => match crate::tokens::duration_ms(written) {
            Some(length) => Some(length),
            None => {
                return Err(Error::invalid_hint(
                    format!("half_life is '{written}'"),
                    "it takes a time such as '30 days', '12 hours' or '2 weeks'",
                ));
            }
        },
    };
    Ok(PopularityOptions {
        half_life_ms,
        timestamp_col: reader.text("timestamp_col")?.map(str::to_owned),
        segment_col: reader.text("segment_col")?.map(str::to_owned),
    })
}

fn als(reader: &Reader<'_>) -> Result<AlsOptions> {
    let mut als = AlsOptions::default();
    if reader.choice("feedback_type", &["explicit", "implicit"])? == Some("implicit") {
        als.feedback = Feedback::Implicit;
    }
    if let Some(factors) = reader.count("num_factors")? {
        als.num_factors = factors;
    }
    if let Some(iterations) = reader.count("max_iterations")? {
        als.max_iterations = iterations;
    }
    if let Some(steps) = reader.count("cg_steps")? {
        als.cg_steps = steps;
    }
    als.l2_reg = reader.number("l2_reg")?;
    als.wals_alpha = reader.number("wals_alpha")?;
    let scalings = ["constant", "count", "frequency"];
    als.regularization_scaling = match reader.choice("regularization_scaling", &scalings)? {
        Some("constant") => Some(Scaling::Constant),
        Some("count") => Some(Scaling::Count),
        Some(_) => Some(Scaling::Frequency),
        None => None,
    };
    if let Some(exponent) = reader.number("frequency_exponent")? {
        als.frequency_exponent = exponent;
    }
    als.solver = match reader.choice("solver", &["auto", "cholesky", "cg", "subspace"])? {
        Some("cholesky") => Solver::Cholesky,
        Some("cg") => Solver::ConjugateGradient,
        Some("subspace") => Solver::Subspace,
        _ => Solver::Auto,
    };
    als.block_size = reader.count("block_size")?;
    als.non_negative = reader.truth("non_negative")?.unwrap_or(false);
    if let Some(biases) = reader.truth("biases")? {
        als.biases = biases;
    }
    if let Some(feature_reg) = reader.number("feature_reg")? {
        als.feature_reg = feature_reg;
    }
    if let Some(seed) = reader.integer("seed")? {
        als.seed = seed.cast_unsigned();
    }
    let early_stop = reader.truth("early_stop")?.unwrap_or(false);
    als.min_rel_progress = match reader.number("min_rel_progress")? {
        // Of the metric, then.
        _ if reader.has("early_stop_metric") => None,
        Some(progress) => Some(progress),
        None => early_stop.then_some(0.01),
    };
    als.validate().map_err(model_error)?;
    Ok(als)
}
