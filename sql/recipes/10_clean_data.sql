-- Dirty rows become clean ones: what is sure is corrected, with a note of what was changed and why; what is in doubt
-- waits in a table of its own; and expectations keep both from coming back. Everything here is generated, so the
-- recipe runs anywhere: attune sql -f sql/recipes/10_clean_data.sql

-- # Orders of two sources, as they come

CREATE OR REPLACE TABLE raw_orders AS
SELECT n AS order_id,
    CASE WHEN n % 2 = 0 THEN 'eu' ELSE 'us' END AS source,
    -- Each source has an order of day and month of its own, and other spellings in between.
    CASE WHEN n % 50 = 0 THEN 'n/a'
         WHEN n % 7 = 0 THEN '2025-' || lpad(CAST(n % 12 + 1 AS VARCHAR), 2, '0') || '-' || lpad(CAST(n % 28 + 1 AS VARCHAR), 2, '0')
         WHEN n % 2 = 0 THEN (n % 28 + 1) || '.' || (n % 12 + 1) || '.2025'
         ELSE (n % 12 + 1) || '/' || (n % 28 + 1) || '/2025' END AS ordered,
    CASE n % 4 WHEN 0 THEN 'Deutschland' WHEN 1 THEN 'USA' WHEN 2 THEN ' france ' ELSE CASE WHEN n % 40 = 3 THEN 'Korea' ELSE 'us' END END AS country,
    '  Customer  ' || (n % 100) || ' ' AS customer,
    CASE WHEN n % 3 = 0 THEN (n % 20 + 1) * 1000.0 ELSE n % 20 + 1.0 END AS weight,
    CASE WHEN n % 3 = 0 THEN 'g' WHEN n % 90 = 1 THEN 'bags' ELSE 'kg' END AS weight_unit,
    CASE WHEN n = 777 THEN 99999.0 ELSE 20 + n % 30 + 0.5 END AS price,
    CASE WHEN n % 100 = 5 THEN '{"lines": [{"sku": "a", "quantity": 0}]}'
         ELSE '{"lines": [{"sku": "a", "quantity": ' || (n % 5 + 1) || '}]}' END AS payload
FROM generate_series(1, 1000) AS s(n);

-- # What is wrong with them

CREATE OR REPLACE EXPECTATION has_date ON raw_orders CHECK (parse_date_any(ordered, 'DMY') IS NOT NULL) TOLERANCE 0.01;
CREATE OR REPLACE EXPECTATION known_country ON raw_orders CHECK (country IN ('DE', 'US', 'FR'));
CREATE OR REPLACE EXPECTATION one_row_an_order ON raw_orders CHECK (uniqueness(order_id) = 1);
CREATE OR REPLACE EXPECTATION usual_price ON raw_orders CHECK (max(price) < 1000);
CREATE OR REPLACE EXPECTATION sound_payload ON raw_orders CHECK (cardinality(json_schema_violations(payload,
    '{"properties": {"lines": {"items": {"required": ["sku"], "properties": {"quantity": {"minimum": 1}}}}}}')) = 0);
CHECK TABLE raw_orders;
-- > One scan for all of them; `sample` is a query that shows rows which fail.

-- # Corrections, by rules that say when they are in doubt

-- The order of day and month is each source's own: the dates that can mean one thing only tell it.
SELECT source, infer_date_order(ordered) AS date_order FROM raw_orders GROUP BY source ORDER BY source;

CREATE OR REPLACE TABLE corrected AS
SELECT r.order_id, r.source, r.payload,
    r.ordered AS ordered_raw, parse_date_any(r.ordered, o.date_order) AS ordered,
    r.country AS country_raw, normalize_country(r.country) AS country,
    r.customer AS customer_raw, normalize_whitespace(r.customer) AS customer,
    r.weight AS weight_raw, r.weight_unit, convert_unit(r.weight, r.weight_unit, 'kg') AS weight_kg,
    r.price, mad_score(r.price) OVER () AS price_score
FROM raw_orders AS r
JOIN (SELECT source, infer_date_order(ordered) AS date_order FROM raw_orders GROUP BY source) AS o ON o.source = r.source;

-- Why a row is in doubt, if it is: a list of reasons, which a person can go through.
CREATE OR REPLACE VIEW judged AS
SELECT *, array_remove_all([
    CASE WHEN ordered IS NULL THEN 'date: ' || ordered_raw || ' is none' ELSE '' END,
    CASE WHEN country IS NULL THEN 'country: ' || country_raw || ' is none, or several' ELSE '' END,
    CASE WHEN weight_kg IS NULL THEN 'weight: ' || weight_unit || ' is no unit of weight' ELSE '' END,
    CASE WHEN abs(price_score) > 3.5 THEN 'price: ' || price || ' is far from the others' ELSE '' END,
    CASE WHEN cardinality(json_schema_violations(payload,
        '{"properties": {"lines": {"items": {"required": ["sku"], "properties": {"quantity": {"minimum": 1}}}}}}')) > 0
        THEN 'payload: a quantity below 1' ELSE '' END], '') AS doubts
FROM corrected;

-- # Doubtful rows wait, the others go on

CREATE OR REPLACE TABLE quarantine AS
SELECT r.*, array_to_string(j.doubts, '; ') AS doubts FROM judged AS j JOIN raw_orders AS r ON r.order_id = j.order_id WHERE cardinality(j.doubts) > 0;

SELECT split_part(doubts, ':', 1) AS doubt, count(*) AS orders, min(doubts) AS example FROM quarantine GROUP BY doubt ORDER BY orders DESC, doubt;

DROP TABLE IF EXISTS orders;
CREATE TABLE orders (order_id BIGINT, source VARCHAR, ordered DATE, country VARCHAR, customer VARCHAR, weight_kg DOUBLE, price DOUBLE);

CREATE EXPECTATION one_row_an_order ON orders CHECK (uniqueness(order_id) = 1) SEVERITY 'error';
CREATE EXPECTATION has_date ON orders CHECK (ordered IS NOT NULL) SEVERITY 'error';
CREATE EXPECTATION known_country ON orders CHECK (country IN ('DE', 'FR', 'US')) SEVERITY 'error';
CREATE EXPECTATION sound_weight ON orders CHECK (weight_kg > 0 AND weight_kg < 100) SEVERITY 'error';
CREATE EXPECTATION steady_price ON orders CHECK (drift_psi(price) < 0.25);
-- > With severity 'error', rows that do not meet it are not loaded: the statement fails and says which.

INSERT INTO orders SELECT order_id, source, ordered, country, customer, weight_kg, price FROM judged WHERE cardinality(doubts) = 0;

-- # What was changed, and why

CREATE OR REPLACE TABLE changes AS
SELECT order_id, 'ordered' AS column_name, ordered_raw AS before, CAST(ordered AS VARCHAR) AS after, 'date in the order of its source' AS reason
FROM judged WHERE cardinality(doubts) = 0 AND ordered_raw <> CAST(ordered AS VARCHAR)
UNION ALL SELECT order_id, 'country', country_raw, country, 'ISO 3166 code' FROM judged WHERE cardinality(doubts) = 0 AND country_raw <> country
UNION ALL SELECT order_id, 'customer', customer_raw, customer, 'white space' FROM judged WHERE cardinality(doubts) = 0 AND customer_raw <> customer
UNION ALL SELECT order_id, 'weight', weight_raw || ' ' || weight_unit, weight_kg || ' kg', 'kilograms' FROM judged WHERE cardinality(doubts) = 0 AND weight_unit <> 'kg';

SELECT column_name, reason, count(*) AS changed, min(before) AS example, min(after) AS became FROM changes GROUP BY column_name, reason ORDER BY column_name;

CHECK TABLE orders;

-- # What has to hold

SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM quarantine) = (SELECT count(*) FROM raw_orders) AS holds;
-- > No row is lost: it is clean, or it waits.

SELECT infer_date_order(ordered) = CASE source WHEN 'eu' THEN 'DMY' ELSE 'MDY' END AS holds FROM raw_orders GROUP BY source;

SELECT bool_and(ordered = make_date(2025, CAST(order_id % 12 + 1 AS INT), CAST(order_id % 28 + 1 AS INT))) AS holds FROM orders;
-- > Each date is the one that was meant, in both sources.

SELECT count(*) = 0 AS holds FROM system.checks WHERE "table" = 'orders' AND origin = 'check' AND status NOT IN ('pass');

SELECT count(*) = 1 AS holds FROM quarantine WHERE doubts LIKE 'price:%' OR doubts LIKE '%; price:%';

SELECT bool_and(status = CASE name WHEN 'one_row_an_order' THEN 'pass' ELSE 'warn' END) AS holds FROM system.checks WHERE "table" = 'raw_orders';
