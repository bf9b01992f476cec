-- The case study: a shop knows its customers twice, in the CRM and on the web, under different
-- spellings. Join them without showing an e-mail address, find out what each likes, learn from it,
-- recommend, and check what may leave the house.
--
-- Runs as it is over the lake of `attune demo`:  attune sql --config attune-demo/attune.toml -f …

-- # What is in the lake

SELECT 'crm_customers' AS source, count(*) AS rows FROM crm_customers
UNION ALL SELECT 'web_customers', count(*) FROM web_customers
UNION ALL SELECT 'clicks', count(*) FROM clicks
UNION ALL SELECT 'orders', count(*) FROM orders
UNION ALL SELECT 'products', count(*) FROM products
UNION ALL SELECT 'third_party', count(*) FROM third_party
ORDER BY source;
-- > Every folder of the lake is a table: CSV from the CRM and the broker, Parquet from the web,
-- > the clickstream partitioned by day. Nothing was loaded.

-- # One id from messy e-mails

CREATE TABLE identities AS
SELECT record_id, source, postcode, email,
       normalize_name(name) AS name,
       pseudonymize(normalize_email(email), 'demo') AS email_token
FROM (
    SELECT customer_id AS record_id, 'crm' AS source, full_name AS name, email, postcode
    FROM crm_customers
    UNION ALL
    SELECT account_id, 'web', name, email, postcode
    FROM web_customers
);

SELECT c.email AS crm_wrote, w.email AS web_wrote, c.email_token AS token_of_both
FROM identities c JOIN identities w ON c.email_token = w.email_token
WHERE c.source = 'crm' AND w.source = 'web' AND c.email <> w.email
ORDER BY c.record_id LIMIT 4;
-- > Capitals, blanks and tags disappear, and the address becomes a token under a key that never
-- > stands in SQL: sources can be joined by it, and nobody can read it back.

-- # The same person under two addresses

CREATE TABLE duplicates AS
SELECT a.record_id AS first_id, b.record_id AS second_id, a.name AS first_name, b.name AS second_name,
       round(jaro_winkler_similarity(a.name, b.name), 3) AS similarity
FROM identities a JOIN identities b ON a.postcode = b.postcode
WHERE a.record_id < b.record_id AND a.email_token <> b.email_token
  AND jaro_winkler_similarity(a.name, b.name) >= 0.9;

SELECT first_id, second_id, first_name, second_name, similarity
FROM duplicates WHERE similarity < 1 ORDER BY similarity DESC, first_id LIMIT 6;
-- > Where the addresses differ the names decide; the postcode is the blocking key, so only
-- > neighbours are compared and not everybody with everybody.

-- # Who is who, and how well that worked

CREATE TABLE crosswalk AS
WITH links AS (
    SELECT b.record_id, min(a.record_id) AS customer_id
    FROM identities a JOIN identities b ON a.email_token = b.email_token
    WHERE a.record_id < b.record_id GROUP BY b.record_id
    UNION ALL
    SELECT second_id, min(first_id) FROM duplicates GROUP BY second_id
)
SELECT i.record_id, coalesce(min(l.customer_id), i.record_id) AS customer_id
FROM identities i LEFT JOIN links l ON l.record_id = i.record_id
GROUP BY i.record_id;

SELECT count(*) AS links,
       round(100.0 * sum(CASE WHEN a.person = b.person THEN 1 ELSE 0 END) / count(*), 1) AS right_percent,
       round(100.0 * sum(CASE WHEN a.person = b.person THEN 1 ELSE 0 END)
             / (SELECT count(*) - count(DISTINCT person) FROM answer_key), 1) AS found_percent
FROM crosswalk x
JOIN answer_key a ON a.record_id = x.record_id
JOIN answer_key b ON b.record_id = x.customer_id
WHERE x.record_id <> x.customer_id;
-- > The demo knows the truth, so the links can be graded: how many are right, and how many of the
-- > records that belong together were found.

-- # What each looked at last, and how often each buys

CREATE TABLE behaviour AS
WITH browsed AS (
    SELECT x.customer_id, last_value(k.category ORDER BY k.event_time) AS last_browsed_category,
           count(*) AS clicks
    FROM clicks k JOIN crosswalk x ON x.record_id = k.account_id GROUP BY x.customer_id
), bought AS (
    SELECT x.customer_id, last_value(p.category ORDER BY o.ordered_at) AS last_bought_category,
           count(*) / 6.0 AS purchase_frequency, sum(o.amount) AS revenue
    FROM orders o JOIN crosswalk x ON x.record_id = o.customer_id
    JOIN products p ON p.product_id = o.product_id GROUP BY x.customer_id
)
SELECT coalesce(browsed.customer_id, bought.customer_id) AS customer_id, last_browsed_category,
       last_bought_category, clicks, coalesce(purchase_frequency, 0) AS purchase_frequency,
       coalesce(revenue, 0) AS revenue
FROM browsed FULL JOIN bought ON browsed.customer_id = bought.customer_id;

SELECT customer_id, last_browsed_category, last_bought_category, clicks,
       round(purchase_frequency, 2) AS purchase_frequency
FROM behaviour ORDER BY customer_id LIMIT 5;
-- > Two features from raw events: last_browsed_category from the clickstream, purchase_frequency
-- > (orders a month over half a year) from the orders. NULL is somebody who only does the other.

-- # One customer table, in which purchases override browsing

CREATE TABLE customers AS
SELECT b.customer_id, i.email_token, r.birth_year, r.gender, r.postcode,
       coalesce(b.last_bought_category, b.last_browsed_category) AS favourite_category,
       CASE WHEN b.last_bought_category IS NULL THEN 'browsing' ELSE 'purchase' END AS known_from,
       b.purchase_frequency, b.revenue, t.household_income
FROM behaviour b
JOIN identities i ON i.record_id = b.customer_id
JOIN (
    SELECT customer_id, birth_year, gender, postcode FROM crm_customers
    UNION ALL SELECT account_id, birth_year, gender, postcode FROM web_customers
) r ON r.customer_id = b.customer_id
LEFT JOIN (
    SELECT pseudonymize(normalize_email(email), 'demo') AS email_token,
           min(household_income) AS household_income
    FROM third_party GROUP BY 1
) t ON t.email_token = i.email_token;

SELECT known_from, count(*) AS customers, count(household_income) AS with_income,
       round(avg(purchase_frequency), 2) AS purchase_frequency, round(sum(revenue)) AS revenue
FROM customers GROUP BY known_from ORDER BY known_from;
-- > What somebody bought says more than what somebody looked at. The broker's attributes join by
-- > the same token, so no address was exchanged.

-- # Learn what goes with what

CREATE MODEL shop OPTIONS (
    model_type = 'matrix_factorization', feedback_type = 'implicit',
    user_col = 'customer_id', item_col = 'product_id', rating_col = 'weight',
    num_factors = 8, l2_reg = 0.02, wals_alpha = 1, max_iterations = 15, seed = 42
) AS
SELECT customer_id, product_id, sum(weight) AS weight
FROM (
    SELECT x.customer_id, k.product_id, CASE WHEN k.event = 'cart' THEN 3.0 ELSE 1.0 END AS weight
    FROM clicks k JOIN crosswalk x ON x.record_id = k.account_id
    UNION ALL
    SELECT x.customer_id, o.product_id, 10.0
    FROM orders o JOIN crosswalk x ON x.record_id = o.customer_id
)
GROUP BY customer_id, product_id;

SELECT metric, round(value, 3) AS value, round(popularity, 3) AS popularity
FROM ML.EVALUATE(MODEL shop);
-- > Alternating least squares over views (weight 1), carts (3) and purchases (10), graded on events
-- > it has not seen, beside recommending to everybody what is popular.

-- # Recommend

SELECT c.customer_id, c.favourite_category, c.known_from FROM customers c WHERE c.customer_id = 'C00042';

SELECT r.rank, p.name, p.category, p.price, round(r.score, 3) AS score, r.source
FROM ml_recommend('main.shop', 'C00042', 5) r JOIN products p ON p.product_id = r.product_id
ORDER BY r.rank;

SELECT r.rank, p.name, p.category, r.source
FROM ml_recommend('main.shop', 'a stranger', 3) r JOIN products p ON p.product_id = r.product_id
ORDER BY r.rank;
-- > Products the customer has not had yet, best first; a stranger gets what is popular, and the
-- > column source says so.

-- # What may leave the house

SELECT 'as it is' AS export, k_anonymity(postcode, birth_year, gender) AS k FROM customers
UNION ALL
SELECT 'generalized', k_anonymity(left(postcode, 2), generalize_number(birth_year, 20), gender)
FROM customers
ORDER BY export;
-- > k is the size of the smallest group that looks alike: at 1 somebody can be singled out by
-- > postcode, birth year and gender; with the department and a span of years nobody can.
