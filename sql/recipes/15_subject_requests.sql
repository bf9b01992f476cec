-- Persons ask what is known of them, have it corrected, and are forgotten. Everything here is generated, so the recipe
-- runs anywhere: attune sql -f sql/recipes/15_subject_requests.sql

-- # Customers, their clicks under cookies, and the crosswalk that says whose each record is

CREATE OR REPLACE TABLE customers AS
SELECT 'c-' || n AS customer_id, 'Customer ' || n AS name, 'customer' || n || '@example.com' AS email
FROM generate_series(1, 100) AS s(n);

CREATE OR REPLACE TABLE clicks AS
SELECT 'k-' || (n % 100 + 1) AS cookie_id, 'item-' || (n * 7 % 23) AS item
FROM generate_series(1, 1000) AS s(n);

CREATE OR REPLACE TABLE crosswalk AS
SELECT 'c-' || n AS record_id, 'person-' || n AS entity_id FROM generate_series(1, 100) AS s(n)
UNION ALL
SELECT 'k-' || n, 'person-' || n FROM generate_series(1, 100) AS s(n);

CREATE OR REPLACE MODEL taste
OPTIONS (model_type = 'matrix_factorization', feedback_type = 'implicit', user_col = 'cookie_id', item_col = 'item', num_factors = 4)
AS SELECT cookie_id, item FROM clicks;

-- # Where persons are

CREATE OR REPLACE SUBJECT person KEY (customers.customer_id, clicks.cookie_id) VIA crosswalk (record_id, entity_id);

-- # A table that is made of one of these is found by itself, whatever became of the ids

CREATE OR REPLACE TABLE mailing AS SELECT upper(customer_id) AS id, email FROM customers;
SHOW SUBJECTS;
SELECT bool_and(transformation = 'upper(id)' AND copied_from = 'main.customers.customer_id') AS holds
FROM system.subject_keys WHERE kind = 'copy';

-- # What is known of somebody, whichever id is given: rows, and what models learned

EXPORT SUBJECT person 'c-42';

-- # Something is wrong

RECTIFY SUBJECT person 'c-42' SET customers.email = 'ann@example.com';
SELECT email = 'ann@example.com' AS holds FROM customers WHERE customer_id = 'c-42';

-- # While it is disputed, the rows are kept and nobody reads them

RESTRICT SUBJECT person 'c-42';
SELECT count(*) = 99 AS holds FROM customers;
SELECT count(*) = 0 AS holds FROM clicks WHERE cookie_id = 'k-42';
SELECT count(*) = 0 AS holds FROM mailing WHERE id = 'C-42';
RELEASE SUBJECT person 'c-42' FROM RESTRICTION;

-- # Forgotten: first what would be done, then done, and certified

EXPLAIN FORGET SUBJECT person 'c-42';
FORGET SUBJECT person 'c-42';
SELECT count(*) = 99 AS holds FROM customers;
SELECT count(*) = 990 AS holds FROM clicks;
SELECT count(*) = 99 AS holds FROM mailing;
SELECT count(*) = 0 AS holds FROM crosswalk WHERE entity_id = 'person-42';
SELECT bool_and(source = 'popularity') AS holds FROM ml_recommend('taste', 'k-42', 5);
SELECT bool_and(is_valid AND state = 'done') AS holds FROM system.erasures;
SHOW CERTIFICATES;

-- # What was learned of many together is forgotten by training anew: RETRAIN does not go on from a version that somebody has left

SELECT to_unlearn IS NOT NULL AS holds FROM system.model_versions WHERE name = 'taste' AND is_default;
RETRAIN MODEL taste;
SELECT to_unlearn IS NULL AS holds FROM system.model_versions WHERE name = 'taste' AND is_default;
SELECT count(*) = 8 AS holds FROM ML.TRAINING_INFO(MODEL taste);
SELECT bool_and(source = 'als') AS holds FROM ml_recommend('taste', 'k-43', 5);
