-- A linear model in closed form: EASE learns what each item says of every other. It is among the
-- best there is where the catalog is small enough for items² numbers. Everything here is generated:
-- attune sql -f sql/recipes/03_ease.sql

-- # Two tastes in everyone

CREATE OR REPLACE TABLE plays AS
SELECT DISTINCT listener AS user_id, song AS item_id, ascii(md5(listener || '/' || song)) % 5 = 0 AS kept_aside
FROM (
    SELECT listener, ((listener % 5) * 12 + (listener * 5 + step * step) % 12) AS song
    FROM generate_series(1, 500) AS a(listener), generate_series(1, 6) AS b(step)
    UNION ALL
    SELECT listener, (((listener / 5) % 5) * 12 + (listener * 11 + step * step * 5) % 12)
    FROM generate_series(1, 500) AS a(listener), generate_series(1, 6) AS b(step)
);
-- > A listener likes two of five kinds of songs.

-- # The model

CREATE OR REPLACE MODEL radio OPTIONS (
    model_type = 'ease', l2_reg = 20, data_split_method = 'custom', data_split_col = 'kept_aside',
    top_k = 10
) AS SELECT user_id, item_id, kept_aside FROM plays;

SELECT metric, round(value, 3) AS value, round(lower, 3) AS lower, round(upper, 3) AS upper,
    round(popularity, 3) AS popularity
FROM ML.EVALUATE(MODEL radio) WHERE metric IN ('recall@10', 'ndcg@10');

SELECT item_id, neighbor, round(weight, 3) AS weight FROM ML.WEIGHTS(MODEL radio)
WHERE item_id = 0 ORDER BY weight DESC, neighbor LIMIT 5;
-- > The weights are there to be read: what a song says of the next.

-- # What has to hold

-- The closed form as its author published it, on the same rows: Recall@10 .9748, NDCG@10 .8570.
SELECT value > 0.999 * CASE metric WHEN 'recall@10' THEN 0.9748 ELSE 0.8570 END AS holds
FROM ML.EVALUATE(MODEL radio) WHERE metric IN ('recall@10', 'ndcg@10');

SELECT lower > popularity AS holds FROM ML.EVALUATE(MODEL radio) WHERE metric = 'ndcg@10';

SELECT value > 2 * popularity AS holds FROM ML.EVALUATE(MODEL radio) WHERE metric = 'recall@10';

SELECT avg(CASE WHEN item_id / 12 IN (7 % 5, 7 / 5 % 5) THEN 1 ELSE 0 END) > 0.8 AS holds
FROM ml_recommend('radio', 7, 5);

SELECT count(*) = 0 AS holds FROM ML.WEIGHTS(MODEL radio) WHERE item_id = neighbor;
-- > Twice as good as popularity, of the listener's two kinds, and no song speaks for itself.
