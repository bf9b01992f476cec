-- Who bought this also bought that: item neighbourhoods need no training to speak of, explain
-- themselves, and count new interactions at once. Everything here is generated, so the recipe runs
-- anywhere:  attune sql -f sql/recipes/02_item_knn.sql

-- # Four circles of readers

CREATE OR REPLACE TABLE readings AS
SELECT reader AS user_id, 'book ' || book AS item_id, ascii(md5(reader || '/' || book)) % 5 = 0 AS kept_aside
FROM (
    SELECT DISTINCT reader, (reader % 4) * 25 + (reader * 7 + step * step * 3) % 25 AS book
    FROM generate_series(1, 400) AS a(reader), generate_series(1, 8) AS b(step)
);

CREATE OR REPLACE TABLE books AS
SELECT 'book ' || n AS item_id, 'author ' || (n % 10) AS author, n % 3 AS copies
FROM generate_series(0, 99) AS a(n);
-- > Each circle reads its own 25 books; nobody told the model which circle a reader is in.

-- # The model

CREATE OR REPLACE MODEL also_read OPTIONS (
    model_type = 'item_knn', similarity = 'cosine', num_neighbors = 30,
    item_table = 'books', data_split_method = 'custom', data_split_col = 'kept_aside', top_k = 10
) AS SELECT user_id, item_id, kept_aside FROM readings;

SELECT metric, round(value, 3) AS value, round(lower, 3) AS lower, round(upper, 3) AS upper,
    round(popularity, 3) AS popularity
FROM ML.EVALUATE(MODEL also_read) WHERE metric IN ('recall@10', 'ndcg@10');
-- > The rows kept aside are found several times as often as by recommending what is popular.

-- # What next, and why

SELECT r.item_id, r.rank, e.because_item, round(e.share, 2) AS part
FROM ml_recommend('also_read', 42, 3, item_filter => 'copies > 0', max_per => STRUCT(1 AS author)) AS r
JOIN ML.EXPLAIN(MODEL also_read, (SELECT 42 AS user_id, item_id FROM books)) AS e
    ON r.item_id = e.item_id
ORDER BY r.rank, e.share DESC;
-- > Only books that are there, one an author; each stands on books that the reader knows.

-- # What has to hold

-- implicit's CosineRecommender(K=30) on the same rows: Recall@10 .8842, NDCG@10 .6591.
SELECT value > 0.999 * CASE metric WHEN 'recall@10' THEN 0.8842 ELSE 0.6591 END AS holds
FROM ML.EVALUATE(MODEL also_read) WHERE metric IN ('recall@10', 'ndcg@10');

SELECT lower > popularity AS holds FROM ML.EVALUATE(MODEL also_read) WHERE metric = 'ndcg@10';

SELECT value > 3 * popularity AS holds FROM ML.EVALUATE(MODEL also_read) WHERE metric = 'recall@10';

SELECT count(*) = 3 AND count(DISTINCT author) = 3 AND min(copies) > 0 AS holds
FROM ml_recommend('also_read', 42, 3, item_filter => 'copies > 0', max_per => STRUCT(1 AS author)) AS r
JOIN books AS b ON r.item_id = b.item_id;

SELECT abs(sum(share) - 1) < 0.000001 AS holds
FROM ML.EXPLAIN(MODEL also_read, (SELECT 42 AS user_id, item_id FROM ml_recommend('also_read', 42, 1)));
-- > Better than popularity by more than three times; rules that are kept; shares that add up.
