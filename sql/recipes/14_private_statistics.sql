-- Statistics that tell of many and of nobody: a table under a privacy policy answers counts, sums and means with just enough noise
-- to hide any one person, and a budget bounds what all answers together can tell. Everything here is generated, so the recipe runs
-- anywhere: attune sql -f sql/recipes/14_private_statistics.sql

-- # Purchases of 2,000 customers, and one who buys what nobody else does

CREATE OR REPLACE TABLE purchases AS
SELECT n % 2000 AS customer_id,
    CASE WHEN n = 777 THEN 'helicopter' WHEN n % 10 < 6 THEN 'books' WHEN n % 10 < 9 THEN 'music' ELSE 'garden' END AS category,
    CASE WHEN n = 777 THEN 900000.0 ELSE 5.0 + n % 90 END AS price
FROM generate_series(1, 12000) AS s(n);

-- # Who may ask, and how much: each role may spend epsilon 10 a month, at most 3 at a time

DROP PRIVACY POLICY IF EXISTS purchases_private ON purchases;
CREATE PRIVACY POLICY purchases_private ON purchases (customer_id)
    BUDGET (epsilon = 10, delta = 1e-4) PER ROLE EVERY '30 days' MAX_EPSILON_PER_QUERY 3;
-- > From now on SELECT * FROM purchases is refused, to whoever asks and in whatever form: views, sub-queries, CREATE MODEL, exports.

-- # A question, as in GoogleSQL: the helicopter is not there, since one customer alone makes its group

CREATE OR REPLACE TABLE by_category AS
SELECT WITH DIFFERENTIAL_PRIVACY
    OPTIONS (epsilon = 3, delta = 1e-5, privacy_unit_column = customer_id, max_groups_contributed = 3)
    category,
    COUNT(*, contribution_bounds_per_group => (0, 6)) AS purchases,
    AVG(price, contribution_bounds_per_group => (0, 100)) AS mean_price
FROM purchases
GROUP BY category;

SELECT count(*) >= 1 AND count(*) FILTER (WHERE category = 'helicopter') = 0 AS holds FROM by_category;
SELECT category, purchases, mean_price, abs(mean_price - 50) < 25 AS holds FROM by_category WHERE category = 'books';
-- > What was released may be kept, joined and computed with freely: that costs nothing more.

-- # What is left

SELECT holder_kind, holder, epsilon_spent, epsilon_left, epsilon_spent <= 3.0001 AND epsilon_left > 6.9 AS holds
FROM system.privacy_budget WHERE table_name = 'purchases';

DROP PRIVACY POLICY purchases_private ON purchases;
