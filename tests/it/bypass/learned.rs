//! What models learn of rows and tell of them: each is asked what the same model would tell that
//! was trained on a table which never had what is hidden.
//!
//! The kinds are those that hide in ways of their own. The door is one: behind it models are the
//! same whoever brings the statement.

use super::Findings;
use super::cases::Expect;
use super::changes::{Making, of_rows};
use super::doors::Door;
use super::kinds::{KINDS, Kind, Takes};

/// Whether models are trained on a kind's table.
fn is_learned(kind: &Kind) -> bool {
    let hide_rows = ["g_row", "g_consent", "g_kept", "g_restrict", "g_lake"];
    let others = ["g_tag", "g_apart", "g_group", "g_private"];
    hide_rows.contains(&kind.table) || others.contains(&kind.table)
}

/// Whether it does so and mails are what they are.
fn shows_mails(kind: &Kind) -> bool {
    is_learned(kind) && kind.takes != Takes::Values
}

/// What comes of reading a table whose rows are none of those that are learned.
fn of_rows_of_others(kind: &Kind) -> Expect {
    match of_rows(kind) {
        Expect::Same => Expect::Same,
        _ => Expect::Open,
    }
}

const LEARNINGS: &[Making] = &[
    Making {
        name: "a tree",
        before: &[],
        make: "CREATE MODEL ada.tree_{t} OPTIONS (model_type = 'boosted_tree_regressor', \
               input_label_cols = ['pay'], max_iterations = 8, max_tree_depth = 3, seed = 1, \
               data_split_method = 'no_split') AS SELECT id, region, item, pay FROM {t}",
        reads: &[
            "SELECT id, predicted_pay FROM ML.PREDICT(MODEL ada.tree_{t}, \
             (SELECT id, region, item FROM {t}))",
            // Rows that are not there: what was learned of them would be told.
            "SELECT predicted_pay FROM ML.PREDICT(MODEL ada.tree_{t}, \
             (SELECT 3 AS id, 'zz-' || 'land' AS region, 'zz-' || 'item-3' AS item))",
            // Sums of floats depend on the order of rows.
            "SELECT mean_absolute_error, round(r2_score, 9) AS r2 FROM ML.EVALUATE(\
             MODEL ada.tree_{t}, (SELECT id, region, item, pay FROM {t}))",
            "SELECT * FROM ML.FEATURE_IMPORTANCE(MODEL ada.tree_{t})",
        ],
        asked: is_learned,
        expected: of_rows,
    },
    Making {
        name: "clusters",
        before: &[],
        make: "CREATE MODEL ada.means_{t} OPTIONS (model_type = 'kmeans', num_clusters = 3, \
               seed = 1) AS SELECT id, region, pay FROM {t}",
        reads: &[
            "SELECT id, centroid_id FROM ML.PREDICT(MODEL ada.means_{t}, \
             (SELECT id, region, pay FROM {t}))",
            "SELECT * FROM ML.EVALUATE(MODEL ada.means_{t})",
            "SELECT * FROM ML.CENTROIDS(MODEL ada.means_{t})",
        ],
        asked: is_learned,
        expected: of_rows,
    },
    Making {
        name: "factors",
        before: &[],
        make: "CREATE MODEL ada.als_{t} OPTIONS (model_type = 'matrix_factorization', \
               feedback_type = 'implicit', user_col = 'person', item_col = 'item', \
               num_factors = 4, max_iterations = 4, seed = 1, \
               data_split_method = 'no_split') AS SELECT person, item FROM {t}",
        // Of lists so long that all items are in them the order does not count.
        reads: &[
            "SELECT person, item, source FROM ML.RECOMMEND(MODEL ada.als_{t}, \
             (SELECT DISTINCT person FROM {t}), STRUCT(40 AS top_k, TRUE AS fold_in))",
            "SELECT item FROM (SELECT unnest(als_fold_in('ada.als_{t}', ['i1', 'i7'], \
             [1.0, 1.0], 40))['item'] AS item)",
            "SELECT person, item, source FROM ML.RECOMMEND(MODEL ada.als_{t}, \
             (SELECT DISTINCT person FROM {t}), STRUCT(40 AS top_k, TRUE AS fold_in_items))",
            "SELECT count(*) AS n, count(DISTINCT term) AS t FROM ML.EXPLAIN(MODEL ada.als_{t}, \
             (SELECT DISTINCT person, item FROM {t}))",
            "SELECT DISTINCT because_item FROM ML.EXPLAIN(MODEL ada.als_{t}, \
             (SELECT DISTINCT person, item FROM {t}))",
            "SELECT metric, users FROM ML.EVALUATE(MODEL ada.als_{t}, \
             (SELECT person, item FROM {t} WHERE id % 3 = 0))",
            "SELECT metric, users, round(value, 6) AS v FROM ML.EVALUATE(MODEL ada.model_{t}, \
             (SELECT person, item FROM {t} WHERE id % 3 = 0))",
            "SELECT DISTINCT because_item FROM ML.EXPLAIN(MODEL ada.model_{t}, \
             (SELECT DISTINCT person, item FROM {t}))",
        ],
        asked: is_learned,
        expected: of_rows,
    },
    // Who asks knows all items, and the table of items only some of them. Restricted persons are
    // not asked for: a model that has read a subject's table has nothing for them.
    Making {
        name: "a table of items",
        before: &["CREATE TABLE ada.plays_{t} AS SELECT value % 9 AS person, \
             CASE WHEN value % 3 = 0 THEN 'zz-' || 'item-' || (value % 4) \
             ELSE 'i' || (value * 7 % 11) END AS item FROM generate_series(1, 90) AS s (value)"],
        make: "CREATE MODEL ada.shelf_{t} OPTIONS (model_type = 'item_knn', user_col = 'person', \
               item_col = 'item', item_table = 'main.{t}', data_split_method = 'no_split') \
               AS SELECT person, item FROM ada.plays_{t}",
        reads: &[
            "SELECT person, item FROM ML.RECOMMEND(MODEL ada.shelf_{t}, \
             (SELECT DISTINCT person FROM ada.plays_{t} WHERE person NOT IN (3, 7)), \
             STRUCT(40 AS top_k, FALSE AS exclude_seen, 'id > 0' AS item_filter))",
            "SELECT count(*) AS n FROM ML.RECOMMEND(MODEL ada.shelf_{t}, \
             (SELECT DISTINCT person FROM ada.plays_{t} WHERE person NOT IN (3, 7)), \
             STRUCT(40 AS top_k, FALSE AS exclude_seen, 'pay > 7000000000' AS item_filter))",
        ],
        asked: is_learned,
        expected: of_rows_of_others,
    },
    // A condition that fails on the rows of the first hidden person.
    Making {
        name: "a view of items",
        before: &[],
        make: "CREATE VIEW ada.listed_{t} AS SELECT item FROM ML.RECOMMEND(MODEL ada.shelf_{t}, \
               (SELECT DISTINCT person FROM ada.plays_{t} WHERE person NOT IN (3, 7)), \
               STRUCT(40 AS top_k, \
               FALSE AS exclude_seen, '1 / (person - 3) <= 0' AS item_filter))",
        reads: &["SELECT item FROM ada.listed_{t}"],
        asked: shows_mails,
        expected: of_rows_of_others,
    },
    Making {
        name: "entities",
        before: &[],
        make: "CREATE MODEL ada.who_{t} OPTIONS (model_type = 'entity_resolution', id_col = 'id', \
               comparisons = [STRUCT('mail', 'email')], blocking_rules = ['mail', 'card'], \
               seed = 1) AS SELECT id, mail, card, item FROM {t} \
               UNION ALL SELECT id + 1000, mail, card, item FROM {t}",
        reads: &[
            "SELECT record_id FROM resolve_entities('ada.who_{t}')",
            "SELECT n, count(*) AS entities FROM (SELECT entity_id, count(*) AS n \
             FROM resolve_entities('ada.who_{t}') GROUP BY entity_id) AS e GROUP BY n",
            "SELECT record_id FROM resolve_entities('ada.who_{t}') WHERE record_id IN (3, 7, 66, 1066)",
            "SELECT count(*) AS n FROM ML.PREDICT(MODEL ada.who_{t}) WHERE match_probability > 0.5",
        ],
        asked: shows_mails,
        expected: of_rows,
    },
];

impl Findings<'_> {
    /// What models tell that somebody trains who does not see all rows.
    pub(super) async fn learned(&mut self) {
        if matches!(self.door, Door::Flight(_)) {
            self.made(LEARNINGS, KINDS).await;
        }
    }
}
