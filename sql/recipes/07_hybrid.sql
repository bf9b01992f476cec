-- Several models, and no need to know which of them is the best: a hybrid learns a factorization, neighbourhoods
-- and popularity from the same rows, and on rows of their own what each of them counts for.
-- Everything here is generated: attune sql -f sql/recipes/07_hybrid.sql

-- # Taste, and what everybody buys

CREATE OR REPLACE TABLE baskets AS
SELECT buyer AS user_id, item AS item_id,
       CASE ascii(md5(buyer || '/' || item)) % 10 WHEN 0 THEN 'EVAL' WHEN 1 THEN 'TEST' WHEN 2 THEN 'TEST' ELSE 'TRAIN' END AS part
FROM (
    SELECT buyer, (buyer % 6) * 15 + (buyer * 7 + step * step * 3) % 15 AS item
    FROM generate_series(1, 900) AS a(buyer), generate_series(1, 6) AS b(step)
    UNION
    SELECT buyer, 90 + ((buyer * 31 + step * 17) % 97) % (4 + (buyer * step) % 26)
    FROM generate_series(1, 900) AS a(buyer), generate_series(1, 4) AS b(step)
);
-- > A buyer has a taste of six; beside, a few of thirty things that everybody buys, some more than
-- > others.

-- # The models alone, and blended

CREATE OR REPLACE MODEL alone OPTIONS (
    model_type = 'matrix_factorization', feedback_type = 'implicit', num_factors = 16,
    data_split_method = 'custom', data_split_col = 'kept_aside', top_k = 10
) AS SELECT user_id, item_id, part = 'TEST' AS kept_aside FROM baskets;

CREATE OR REPLACE MODEL neighbors OPTIONS (
    model_type = 'item_knn', data_split_method = 'custom', data_split_col = 'kept_aside', top_k = 10
) AS SELECT user_id, item_id, part = 'TEST' AS kept_aside FROM baskets;

CREATE OR REPLACE MODEL blend OPTIONS (
    model_type = 'hybrid', num_factors = 16, data_split_method = 'custom', data_split_col = 'part', top_k = 10
) AS SELECT user_id, item_id, part FROM baskets;

SELECT model_type, round(weight, 2) AS weight FROM ML.WEIGHTS(MODEL blend);

SELECT 'alone' AS model, round(value, 3) AS ndcg FROM ML.EVALUATE(MODEL alone) WHERE metric = 'ndcg@10'
UNION ALL
SELECT 'neighbors', round(value, 3) FROM ML.EVALUATE(MODEL neighbors) WHERE metric = 'ndcg@10'
UNION ALL
SELECT 'blend', round(value, 3) FROM ML.EVALUATE(MODEL blend) WHERE metric = 'ndcg@10'
ORDER BY ndcg DESC;
-- > The weights were learned on rows that neither the models nor this measure have seen.

-- # Why

SELECT term, because_item, round(share, 2) AS share FROM ML.EXPLAIN(MODEL blend, 7, 92)
ORDER BY share DESC LIMIT 5;
-- > The shares of a blend add up as those of its models do.

-- # What has to hold

-- On the same rows implicit's CosineRecommender(K=100) has NDCG@10 .5684, its factorization .4298.
SELECT value > 0.98 * 0.5684 AS holds FROM ML.EVALUATE(MODEL blend) WHERE metric = 'ndcg@10';

SELECT value > 0.4298 AS holds FROM ML.EVALUATE(MODEL alone) WHERE metric = 'ndcg@10';

SELECT (SELECT value FROM ML.EVALUATE(MODEL blend) WHERE metric = 'ndcg@10')
    >= 0.98 * (SELECT max(value) FROM (
        SELECT value FROM ML.EVALUATE(MODEL alone) WHERE metric = 'ndcg@10'
        UNION ALL SELECT value FROM ML.EVALUATE(MODEL neighbors) WHERE metric = 'ndcg@10'))
    AS holds;

SELECT lower > 1.5 * popularity AS holds FROM ML.EVALUATE(MODEL blend) WHERE metric = 'ndcg@10';

SELECT abs(sum(weight) - 1) < 1e-6 AND min(weight) >= 0 AS holds FROM ML.WEIGHTS(MODEL blend);

SELECT abs(sum(share) - 1) < 1e-6 AS holds FROM ML.EXPLAIN(MODEL blend, 7, 92);
-- > The blend is worth what the best model in it is, without anybody having to know which that is.
