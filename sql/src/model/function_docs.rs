//! What the functions of models say of themselves.

use crate::functions::FunctionDoc;

/// The section of functions about identities.
const IDENTITY: &str = "Identity Functions";

/// The documentation of the table functions.
pub fn documentation() -> Vec<FunctionDoc> {
    let entry = |name: &str, syntax: &str, description: &str, example: &str| FunctionDoc {
        name: name.into(),
        aliases: vec![name.replacen("ml_", "ML.", 1).to_uppercase()],
        kind: "table",
        section: "Recommendation Functions".into(),
        description: description.into(),
        syntax: syntax.into(),
        example: example.into(),
        arguments: Vec::new(),
        own: true,
    };
    vec![
        entry(
            "ml_recommend",
            "ML.RECOMMEND(MODEL m [, user | (query)] [, STRUCT(10 AS top_k, TRUE AS exclude_seen)])",
            "Recommends items to one user, to the users of a query, or to everyone. Answers \
             the model's user and item columns, score, rank (from 1) and source: als, \
             fold_in, item_knn, ease, hybrid, or popularity for a user of whom the model \
             knows nothing. Options: top_k (10), exclude_seen (TRUE), include_items and \
             exclude_items (a list or a query in parentheses), item_filter ('stock > 0', a \
             condition on the model's item_table), max_per (STRUCT(2 AS brand): so many items \
             of one value of a column of item_table), diversity (0 by score, to 1 as \
             different as can be), min_score, popularity_penalty (0), boost ('0.2 * margin', \
             added to the score), promote (a list or a query), promote_share (0.2 of the \
             places), fold_in (TRUE: from what the users have had by now) and fold_in_items \
             (TRUE: and a factorization's items that training did not know). NULL for \
             include_items, exclude_items, min_score, max_per's number or promote is as if it \
             were not given. For max_per and boost an item has one row in item_table.",
            "SELECT * FROM ml_recommend('main.shop', 'user-42', 10);",
        ),
        entry(
            "ml_predict",
            "ML.PREDICT(MODEL m, (SELECT user, item, … FROM …))",
            "The query's rows with predicted_<rating column>: the model's score of the pair, \
             NULL when the model does not know the user or the item. Of kmeans: centroid_id, \
             the nearest centroid (from 1), and distance, that to it. Of pca: \
             principal_component_1 and so on. Of isolation_forest: is_anomaly and anomaly_score, \
             near 1 for rows that few cuts set apart. Of outlier: is_outlier, whether a value is \
             outside of its column's bounds, outlier_score, that of the value farthest from what \
             is usual in its column (infinite where a constant column has another value, NULL \
             where no value has one), and outlier_column, which that is. Of boosted trees: \
             predicted_<label>, of a classifier also predicted_<label>_probs, a list of (label, \
             prob), the most likely first; of a ranker the score of a row in its query. The query \
             has every column that such a model has learned from; a text that training did not \
             see counts as NULL. Of entity_resolution, without a query: its pairs, left_id, \
             right_id (with source_col also left_source, right_source), match_probability, \
             match_weight and weights, a list of (column, level, weight) that adds up to it.",
            "SELECT * FROM ML.PREDICT(MODEL shop, (SELECT user_id, item_id FROM pairs));",
        ),
        entry(
            "ml_explain",
            "ML.EXPLAIN(MODEL m, user, item | (SELECT user, item FROM …))",
            "Why a pair has its score: the model's user and item columns, term (interaction, \
             mean, user_bias, item_bias, popularity or a signal's name), because_item, weight, \
             contribution and share. Contributions add up to the score and shares to 1; for a \
             factorization it is the score that fold-in gives the user's own interactions.",
            "SELECT * FROM ML.EXPLAIN(MODEL shop, 'user-42', 'sku-7') ORDER BY contribution DESC;",
        ),
        entry(
            "ml_evaluate",
            "ML.EVALUATE(MODEL m [, (query)] [, STRUCT(20 AS top_k, 'country' AS segment_col)])",
            "Metrics: value with the ends lower and upper of its 95 % interval over users, \
             how many users have a say, and the same metric of recommending what is popular \
             and of the previous version. Without a query: on the rows that training kept \
             aside; with one: on its rows, and with segment_col also in each segment of \
             users. A model of features has one row with a column a metric: kmeans \
             davies_bouldin_index and mean_squared_distance; pca \
             total_explained_variance_ratio; isolation_forest anomaly_share and \
             mean_anomaly_score; outlier outlier_share and mean_outlier_score, the mean of \
             absolute scores; classifiers precision, recall, accuracy, \
             f1_score, log_loss, roc_auc; regressors mean_absolute_error, mean_squared_error, \
             mean_squared_log_error, median_absolute_error, r2_score, explained_variance; \
             rankers ndcg; entity_resolution precision, recall and f1_score over pairs (against \
             a query's record_id [, source] and truth, from a threshold of its own with \
             STRUCT(0.9 AS threshold), or against cluster_col; else NULL), the same as \
             estimated_…, records, entities, duplicate_records, largest_entity, linked_pairs, \
             refused_pairs (above the threshold, but bridges) and unlinkable_records (they say \
             too little).",
            "SELECT * FROM ML.EVALUATE(MODEL shop);",
        ),
        entry(
            "ml_weights",
            "ML.WEIGHTS(MODEL m)",
            "What was learned. Factorization: processed_input (the id column's name), feature \
             (the id as text), factor_weights and intercept (the bias, 0 without biases). \
             item_knn and ease: item, neighbor and weight, without weights of 0. popularity: \
             item, segment (NULL overall) and weight. hybrid: model_type, weight (the share \
             of the blend), scale (how far the model's own scores spread) and signal (the \
             column's name, of a signal). outlier: feature, center, scale (NULL where values do \
             not spread), lower and upper, between which a value is no outlier, and is_constant. \
             entity_resolution: column, comparison, level, \
             m_probability, u_probability, relatives_probability (NULL where none were found) \
             and match_weight.",
            "SELECT * FROM ML.WEIGHTS(MODEL shop) LIMIT 5;",
        ),
        entry(
            "ml_training_info",
            "ML.TRAINING_INFO(MODEL m)",
            "One row an iteration: iteration, loss (of trees that of 32,768 evenly spaced rows \
             where there are more), duration_ms, validation_metric and validation_value (NULL \
             without early_stop_metric), and is_best: the iteration that the model is of.",
            "SELECT * FROM ML.TRAINING_INFO(MODEL shop) ORDER BY iteration;",
        ),
        entry(
            "ml_trial_info",
            "ML.TRIAL_INFO(MODEL m)",
            "One row a trial of the search for hyper-parameters: trial_id, hyperparameters \
             and hparam_tuning_evaluation_metrics (structs), training_loss, iterations, \
             best_iteration, duration_ms, status (SUCCEEDED, STOPPED when others were ahead, \
             FAILED), error_message and is_optimal. A version retrained without a search \
             keeps the trials that chose its options.",
            "SELECT * FROM ML.TRIAL_INFO(MODEL shop) ORDER BY trial_id;",
        ),
        entry(
            "ml_centroids",
            "ML.CENTROIDS(MODEL m)",
            "The centroids of a kmeans model, a row for each of them and each column of \
             features: centroid_id (from 1), feature, numerical_value, and categorical_value, \
             of a text the list of its categories with their share (category, value).",
            "SELECT * FROM ML.CENTROIDS(MODEL groups) ORDER BY centroid_id, feature;",
        ),
        entry(
            "ml_principal_components",
            "ML.PRINCIPAL_COMPONENTS(MODEL m)",
            "The components of a pca model, a row for each of them and each column of \
             features: principal_component_id (from 1, the largest variance first), feature, \
             numerical_value, and categorical_value, of a text a list (category, value).",
            "SELECT * FROM ML.PRINCIPAL_COMPONENTS(MODEL axes) ORDER BY principal_component_id;",
        ),
        entry(
            "ml_principal_component_info",
            "ML.PRINCIPAL_COMPONENT_INFO(MODEL m)",
            "The variance along each component of a pca model: principal_component_id (from \
             1), eigenvalue, explained_variance_ratio and \
             cumulative_explained_variance_ratio.",
            "SELECT * FROM ML.PRINCIPAL_COMPONENT_INFO(MODEL axes);",
        ),
        entry(
            "ml_feature_importance",
            "ML.FEATURE_IMPORTANCE(MODEL m)",
            "What boosted trees look at, a row for each column of features: feature, \
             importance_weight (how many splits), importance_gain (the loss that a split \
             takes away, on average) and importance_cover (the rows that a split sees, on \
             average, each by its Hessian).",
            "SELECT * FROM ML.FEATURE_IMPORTANCE(MODEL clicks) ORDER BY importance_gain DESC;",
        ),
        FunctionDoc {
            section: IDENTITY.into(),
            ..entry(
                "ml_blocking_rules",
                "ML.BLOCKING_RULES(MODEL m)",
                "The rules by which a model of entities chose the pairs that it compared: rule, \
             pairs, match_share (of the matches that all rules found), expected_recall (of this \
             rule with those before it, as it seems before anything is learned), and \
             skipped_blocks with skipped_records: blocks that were too large and were left out. \
             Where no rule was found the error says why.",
                "SELECT * FROM ML.BLOCKING_RULES(MODEL ids) ORDER BY pairs;",
            )
        },
        FunctionDoc {
            section: IDENTITY.into(),
            ..entry(
                "ml_entity_history",
                "ML.ENTITY_HISTORY(MODEL m)",
                "What became of entities, version after version: version, event (created, joined, \
             merged, split, gone), entity_id, other_entity_id (what it became part of or came \
             from) and records. An entity that is one record from the first is not told of.",
                "SELECT * FROM ML.ENTITY_HISTORY(MODEL ids) WHERE event = 'merged';",
            )
        },
        FunctionDoc {
            section: IDENTITY.into(),
            ..entry(
                "ml_unlinkable_records",
                "ML.UNLINKABLE_RECORDS(MODEL m)",
                "The records of which a model of entities cannot tell whose they are: record_id \
             (with source_col also source) and entity_id. They say so little that from the \
             model's threshold none would match its own copy; ML.EVALUATE counts them.",
                "SELECT * FROM ML.UNLINKABLE_RECORDS(MODEL ids) LIMIT 100;",
            )
        },
        FunctionDoc {
            section: IDENTITY.into(),
            aliases: Vec::new(),
            ..entry(
                "resolve_entities",
                "resolve_entities('m' [, threshold])",
                "The crosswalk of a model of entities: record_id (with source_col also source) and \
             entity_id, a UUID that stays with an entity from version to version. Records are \
             one entity from the probability that the model was trained with, or from the one \
             given.",
                "SELECT * FROM resolve_entities('main.ids', 0.95);",
            )
        },
    ]
}
