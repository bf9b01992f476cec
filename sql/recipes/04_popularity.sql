-- What is in demand now, here: popularity is the fallback of every model and the baseline of every
-- evaluation, and as a model of its own it knows time and place. Everything here is generated:
-- attune sql -f sql/recipes/04_popularity.sql

-- # A year of sales, and a new hit

CREATE OR REPLACE TABLE sales AS
SELECT 'buyer ' || buyer AS user_id,
       CASE WHEN day > 330 AND buyer % 3 = 0 THEN 'the new one'
            ELSE 'thing ' || ((buyer * 7 + day) % 40) END AS item_id,
       CASE WHEN buyer % 2 = 0 THEN 'north' ELSE 'south' END AS region,
       to_timestamp(1767225600 + day * 86400) AS sold_at
FROM generate_series(1, 300) AS a(buyer), generate_series(1, 360, 30) AS b(day)
UNION ALL
SELECT 'buyer ' || buyer, 'snow boots', 'north', to_timestamp(1767225600 + 86400 * 10)
FROM generate_series(2, 300, 2) AS a(buyer);
-- > The new one has sold for a month; snow boots sold in the north, long ago.

-- # All time, this month, and by region

CREATE OR REPLACE MODEL all_time OPTIONS (model_type = 'popularity', data_split_method = 'no_split')
AS SELECT user_id, item_id FROM sales;

CREATE OR REPLACE MODEL trending OPTIONS (
    model_type = 'popularity', half_life = '14 days', timestamp_col = 'sold_at',
    data_split_method = 'no_split'
) AS SELECT user_id, item_id, sold_at FROM sales;

CREATE OR REPLACE MODEL by_region OPTIONS (
    model_type = 'popularity', segment_col = 'region', data_split_method = 'no_split'
) AS SELECT user_id, item_id, region FROM sales;

SELECT 'all time' AS list, item_id, score FROM ml_recommend('all_time', 'a visitor', 3)
UNION ALL SELECT 'trending', item_id, score FROM ml_recommend('trending', 'a visitor', 3)
UNION ALL SELECT 'north', item_id, score FROM ml_recommend('by_region', 'buyer 2', 3, exclude_seen => FALSE)
UNION ALL SELECT 'south', item_id, score FROM ml_recommend('by_region', 'buyer 1', 3, exclude_seen => FALSE)
ORDER BY list, score DESC, item_id;
-- > A sale counts half after two weeks, so the new one leads; the south does not want snow boots.

-- # What has to hold

SELECT a.score = b.sold AS holds
FROM ml_recommend('all_time', 'a visitor', 3) AS a
JOIN (SELECT item_id, count(*) AS sold FROM sales GROUP BY item_id) AS b ON a.item_id = b.item_id;

SELECT item_id = 'the new one' AS holds FROM ml_recommend('trending', 'a visitor', 1);

SELECT item_id = 'snow boots' AS holds FROM ml_recommend('all_time', 'a visitor', 1);

SELECT item_id = 'snow boots' AS holds FROM ml_recommend('by_region', 'buyer 2', 1, exclude_seen => FALSE);

SELECT count(*) = 0 AS holds FROM ML.WEIGHTS(MODEL by_region)
WHERE segment = 'south' AND item_id = 'snow boots';
-- > Time and place change what comes first.
