-- Dirty rows become clean ones: what is sure is corrected, with a note of what was changed and why; what is in doubt
-- waits in a table of its own; and expectations keep both from coming back. Everything here is generated, so the
-- recipe runs anywhere: attune sql -f sql/recipes/10_clean_data.sql

-- # Orders of two sources, as they come: dates, countries, case, addresses, e-mails, telephone numbers, weights and blanks, each in several spellings

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
    -- Capitals were lost on the way, or came by a slip; a name with small words in it is right as it is.
    CASE WHEN n % 140 = 11 THEN 'bERLIN' WHEN n % 4 = 2 THEN 'Frankfurt am Main' WHEN n % 8 = 0 THEN 'BERLIN' WHEN n % 8 = 4 THEN 'Berlin' ELSE 'new york' END AS city,
    CASE WHEN n % 120 = 8 THEN 'Main Street'
         WHEN n % 3 = 0 THEN (n % 80 + 1) || ' N. Main St.'
         WHEN n % 3 = 1 THEN (n % 80 + 1) || ' NORTH MAIN STREET'
         ELSE (n % 80 + 1) || ' North Main Street' END AS address,
    CASE WHEN n % 110 = 4 THEN 'user' || n || ' at example.com'
         WHEN n % 130 = 6 THEN 'test@test.com'
         WHEN n % 5 = 0 THEN ' User' || n || '@Example.COM '
         WHEN n % 5 = 1 THEN 'user' || n || '+shop@example.com'
         ELSE 'user' || n || '@example.com' END AS email,
    CASE WHEN n % 125 = 9 THEN '+1 212'
         WHEN n % 10 = 6 THEN '+4930123456'
         WHEN n % 4 = 0 THEN '030 1234' || lpad(CAST(n % 100 AS VARCHAR), 2, '0')
         WHEN n % 4 = 2 THEN '01 42 68 53 ' || lpad(CAST(n % 100 AS VARCHAR), 2, '0')
         ELSE '(212) 736-50' || lpad(CAST(n % 100 AS VARCHAR), 2, '0') END AS phone,
    CASE WHEN n % 3 = 0 THEN (n % 20 + 1) * 1000.0 ELSE n % 20 + 1.0 END AS weight,
    CASE WHEN n % 3 = 0 THEN 'g' WHEN n % 90 = 1 THEN 'bags' ELSE 'kg' END AS weight_unit,
    CASE WHEN n = 777 THEN 99999.0 ELSE 20 + n % 30 + 0.5 END AS price,
    CASE WHEN n % 100 = 5 THEN '{"lines": [{"sku": "a", "quantity": 0}]}'
         ELSE '{"lines": [{"sku": "a", "quantity": ' || (n % 5 + 1) || '}]}' END AS payload
FROM generate_series(1, 1000) AS s(n);

-- # What is wrong with them

CREATE OR REPLACE EXPECTATION has_date ON raw_orders CHECK (parse_date_any(ordered, 'DMY') IS NOT NULL) TOLERANCE 0.01;
CREATE OR REPLACE EXPECTATION known_country ON raw_orders CHECK (country IN ('DE', 'US', 'FR'));
CREATE OR REPLACE EXPECTATION own_email ON raw_orders CHECK (normalize_email(email) IS NOT NULL AND email <> 'test@test.com');
CREATE OR REPLACE EXPECTATION real_phone ON raw_orders CHECK (phone LIKE '+%' AND normalize_phone(phone) IS NOT NULL);
CREATE OR REPLACE EXPECTATION one_row_an_order ON raw_orders CHECK (uniqueness(order_id) = 1);
CREATE OR REPLACE EXPECTATION usual_price ON raw_orders CHECK (max(price) < 1000);
CREATE OR REPLACE EXPECTATION sound_payload ON raw_orders CHECK (cardinality(json_schema_violations(payload,
    '{"properties": {"lines": {"items": {"required": ["sku"], "properties": {"quantity": {"minimum": 1}}}}}}')) = 0);
CHECK TABLE raw_orders;
-- > One scan for all of them; `sample` is a query that shows rows which fail.

-- # Corrections, by rules that say when they are in doubt

-- The order of day and month is each source's own: the dates that can mean one thing only tell it.
SELECT source, infer_date_order(ordered) AS date_order FROM raw_orders GROUP BY source ORDER BY source;

-- The kind of each column is told by its name and its values, for each source; which country a number is dialled in, and which unit
-- weights shall have, is said here.
CREATE OR REPLACE TABLE cleaned AS
SELECT * FROM clean('raw_orders', key => 'order_id', partition_by => 'source', region_column => 'country', units => STRUCT('kg' AS weight));

-- The same again as a list: what is changed and why, and what is in doubt.
CREATE OR REPLACE TABLE judged AS
SELECT * FROM clean_changes('raw_orders', key => 'order_id', partition_by => 'source', region_column => 'country', units => STRUCT('kg' AS weight));

SELECT "column", kind, status, count(*) AS cells FROM judged GROUP BY "column", kind, status ORDER BY "column", status;

-- To what is no spelling come rules of one's own: prices far from the others, and orders of nothing.
CREATE OR REPLACE TABLE doubts AS
SELECT order_id, "column" AS field, before || ' ' || reason AS doubt FROM judged WHERE status = 'quarantined'
UNION ALL SELECT order_id, 'price', price || ' is far from the others'
FROM (SELECT order_id, price, mad_score(price) OVER () AS price_score FROM raw_orders) WHERE abs(price_score) > 3.5
UNION ALL SELECT order_id, 'payload', 'a quantity below 1' FROM raw_orders WHERE cardinality(json_schema_violations(payload,
    '{"properties": {"lines": {"items": {"required": ["sku"], "properties": {"quantity": {"minimum": 1}}}}}}')) > 0;

-- # Doubtful rows wait, the others go on

CREATE OR REPLACE TABLE quarantine AS
SELECT r.*, d.doubts FROM raw_orders r
JOIN (SELECT order_id, string_agg(field || ': ' || doubt, '; ' ORDER BY field) AS doubts FROM doubts GROUP BY order_id) d ON d.order_id = r.order_id;

SELECT split_part(doubts, ':', 1) AS doubt, count(*) AS orders, min(doubts) AS example FROM quarantine GROUP BY doubt ORDER BY orders DESC, doubt;

DROP TABLE IF EXISTS orders;
CREATE TABLE orders (order_id BIGINT, source VARCHAR, ordered DATE, country VARCHAR, customer VARCHAR, city VARCHAR, address VARCHAR,
    email VARCHAR, phone VARCHAR, weight_kg DOUBLE, price DOUBLE);

CREATE EXPECTATION one_row_an_order ON orders CHECK (uniqueness(order_id) = 1) SEVERITY 'error';
CREATE EXPECTATION has_date ON orders CHECK (ordered IS NOT NULL) SEVERITY 'error';
CREATE EXPECTATION known_country ON orders CHECK (country IN ('DE', 'FR', 'US')) SEVERITY 'error';
CREATE EXPECTATION sound_email ON orders CHECK (email IS NOT NULL AND email = normalize_email(email)) SEVERITY 'error';
CREATE EXPECTATION sound_phone ON orders CHECK (phone IS NOT NULL AND phone = normalize_phone(phone)) SEVERITY 'error';
CREATE EXPECTATION one_spelling ON orders CHECK (address = initcap(normalize_address(address)) AND city <> upper(city) AND city <> lower(city)) SEVERITY 'error';
CREATE EXPECTATION sound_weight ON orders CHECK (weight_kg > 0 AND weight_kg < 100) SEVERITY 'error';
CREATE EXPECTATION steady_price ON orders CHECK (drift_psi(price) < 0.25);
-- > With severity 'error', rows that do not meet it are not loaded: the statement fails and says which.

INSERT INTO orders SELECT order_id, source, parse_date_any(ordered), country, customer, city, address, email, phone, weight, price
FROM cleaned WHERE order_id NOT IN (SELECT order_id FROM doubts);

-- # What was changed, and why

CREATE OR REPLACE TABLE changes AS
SELECT order_id, "column" AS column_name, before, after, reason FROM judged WHERE status = 'corrected' AND order_id NOT IN (SELECT order_id FROM doubts);

SELECT column_name, reason, count(*) AS changed, min(before) AS example, min(after) AS became FROM changes GROUP BY column_name, reason ORDER BY column_name, reason;

CHECK TABLE orders;

-- # What has to hold

SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM quarantine) = (SELECT count(*) FROM raw_orders) AS holds;
-- > No row is lost: it is clean, or it waits.

SELECT infer_date_order(ordered) = CASE source WHEN 'eu' THEN 'DMY' ELSE 'MDY' END AS holds FROM raw_orders GROUP BY source;

SELECT bool_and(ordered = make_date(2025, CAST(order_id % 12 + 1 AS INT), CAST(order_id % 28 + 1 AS INT))) AS holds FROM orders;
-- > Each date is the one that was meant, in both sources.

SELECT count(*) = 0 AS holds FROM system.checks WHERE "table" = 'orders' AND origin = 'check' AND status NOT IN ('pass');

SELECT count(*) = 1 AS holds FROM quarantine WHERE doubts LIKE 'price:%' OR doubts LIKE '%; price:%';

-- By groups the same is an aggregate, and as a model it is kept for the rows of other days.
SELECT source, usual['outliers'] = CASE source WHEN 'us' THEN 1 ELSE 0 END AS holds
FROM (SELECT source, outlier_bounds(price, 'mad') AS usual FROM raw_orders GROUP BY source) ORDER BY source;

CREATE OR REPLACE MODEL usual_prices OPTIONS (model_type = 'outlier', method = 'mad') AS SELECT price FROM raw_orders;

SELECT order_id = 777 AND outlier_column = 'price' AS holds FROM ML.PREDICT(MODEL usual_prices, (SELECT order_id, price FROM raw_orders)) WHERE is_outlier;

-- Every doubt is one that was put there, and each of those is found. Without a country a number as it is dialled there is in doubt as well.
SELECT e.field, e.doubtful, coalesce(f.doubtful, 0) = e.doubtful AS holds
FROM (VALUES ('ordered', 20), ('country', 25), ('city', 8), ('address', 9), ('email', 18), ('phone', 33), ('weight', 12), ('price', 1), ('payload', 10)) AS e(field, doubtful)
FULL JOIN (SELECT field, count(*) AS doubtful FROM doubts GROUP BY field) f ON f.field = e.field ORDER BY e.field;

SELECT bool_and(CASE field
    WHEN 'city' THEN order_id % 140 = 11 AND doubt = 'bERLIN may be a slip of the capitals key'
    WHEN 'address' THEN order_id % 120 = 8 AND doubt = 'Main Street has no house number'
    WHEN 'email' THEN (order_id % 110 = 4 AND doubt = 'user' || order_id || ' at example.com is no e-mail address')
        OR (order_id % 130 = 6 AND doubt = 'test@test.com is nobody''s address')
    WHEN 'phone' THEN (order_id % 125 = 9 AND doubt = '+1 212 is no number of its country''s plan')
        OR (order_id % 40 = 3 AND doubt LIKE '% has no country code, and its country is not known')
    ELSE TRUE END) AS holds
FROM doubts;

SELECT count(*) = (SELECT count(DISTINCT order_id) FROM doubts) AND count(*) = count(DISTINCT order_id) AS holds FROM quarantine;
-- > All of them wait, once each, and as they came:

SELECT count(*) = (SELECT count(*) FROM quarantine) AS holds
FROM quarantine q JOIN raw_orders r ON r.order_id = q.order_id AND r.city = q.city AND r.address = q.address AND r.email = q.email AND r.phone = q.phone;

-- What is in the clean table is what was meant: one spelling of each street, one address of each customer, one number.
SELECT bool_and(address = (order_id % 80 + 1) || ' North Main Street') AND bool_and(email = 'user' || order_id || '@example.com')
    AND bool_and(city = CASE WHEN order_id % 4 = 0 THEN 'Berlin' WHEN order_id % 4 = 2 THEN 'Frankfurt am Main' ELSE 'New York' END)
    AND bool_and(phone = CASE WHEN order_id % 10 = 6 THEN '+4930123456' WHEN order_id % 4 = 0 THEN '+49301234' || lpad(CAST(order_id % 100 AS VARCHAR), 2, '0')
        WHEN order_id % 4 = 2 THEN '+331426853' || lpad(CAST(order_id % 100 AS VARCHAR), 2, '0') ELSE '+121273650' || lpad(CAST(order_id % 100 AS VARCHAR), 2, '0') END) AS holds
FROM orders;

-- Every change tells what stood there, what stands there now, and that is not the same.
SELECT c.column_name, count(*) AS changed, bool_and(c.before <> c.after
    AND c.before = CASE c.column_name WHEN 'ordered' THEN r.ordered WHEN 'country' THEN r.country WHEN 'customer' THEN r.customer WHEN 'city' THEN r.city
        WHEN 'address' THEN r.address WHEN 'email' THEN r.email WHEN 'phone' THEN r.phone WHEN 'weight' THEN CAST(r.weight AS VARCHAR) ELSE r.weight_unit END
    AND c.after = CASE c.column_name WHEN 'ordered' THEN CAST(o.ordered AS VARCHAR) WHEN 'country' THEN o.country WHEN 'customer' THEN o.customer WHEN 'city' THEN o.city
        WHEN 'address' THEN o.address WHEN 'email' THEN o.email WHEN 'phone' THEN o.phone WHEN 'weight' THEN CAST(o.weight_kg AS VARCHAR) ELSE 'kg' END) AS holds
FROM changes c JOIN raw_orders r ON r.order_id = c.order_id JOIN orders o ON o.order_id = c.order_id GROUP BY c.column_name ORDER BY c.column_name;

-- And every difference between the two tables is among the changes, once: nothing was corrected in silence.
SELECT count(*) = (SELECT count(DISTINCT order_id || ' ' || column_name) FROM changes) AND count(*) = (
    SELECT sum(CASE WHEN r.ordered <> CAST(o.ordered AS VARCHAR) THEN 1 ELSE 0 END + CASE WHEN r.country <> o.country THEN 1 ELSE 0 END
        + CASE WHEN r.customer <> o.customer THEN 1 ELSE 0 END + CASE WHEN r.city <> o.city THEN 1 ELSE 0 END + CASE WHEN r.address <> o.address THEN 1 ELSE 0 END
        + CASE WHEN r.email <> o.email THEN 1 ELSE 0 END + CASE WHEN r.phone <> o.phone THEN 1 ELSE 0 END + CASE WHEN r.weight_unit <> 'kg' THEN 2 ELSE 0 END)
    FROM raw_orders r JOIN orders o ON o.order_id = r.order_id) AS holds
FROM changes;

-- The reasons are those for which the rows were written so.
SELECT e.column_name, e.reason, coalesce(f.changed, 0) = e.changed AND e.changed > 0 AS holds
FROM (SELECT 'city' AS column_name, 'case' AS reason, count(*) AS changed FROM orders WHERE order_id % 8 = 0 OR order_id % 2 = 1
    UNION ALL SELECT 'address', 'one spelling', count(*) FROM orders WHERE order_id % 3 = 0
    UNION ALL SELECT 'address', 'case', count(*) FROM orders WHERE order_id % 3 = 1
    UNION ALL SELECT 'email', 'lower case', count(*) FROM orders WHERE order_id % 5 = 0
    UNION ALL SELECT 'email', 'without what its provider leaves out', count(*) FROM orders WHERE order_id % 5 = 1
    UNION ALL SELECT 'phone', 'E.164, as dialled in ' || country, count(*) FROM orders WHERE order_id % 10 <> 6 GROUP BY country) e
FULL JOIN (SELECT column_name, reason, count(*) AS changed FROM changes WHERE column_name IN ('city', 'address', 'email', 'phone') GROUP BY column_name, reason) f
    ON f.column_name = e.column_name AND f.reason = e.reason ORDER BY e.column_name, e.reason;

SELECT count(*) = 1 AND min(after) = '9 North Main Street' AS holds FROM changes WHERE order_id = 888 AND column_name = 'address' AND before = '9 N. Main St.' AND reason = 'one spelling';
SELECT count(*) = 2 AND min(before) = '(212) 736-5011' AND min(after) = '+12127365011' AS holds FROM changes WHERE order_id IN (211, 311) AND column_name = 'phone' AND reason = 'E.164, as dialled in US';
SELECT count(*) = 1 AND min(after) = 'user15@example.com' AS holds FROM changes WHERE order_id = 15 AND column_name = 'email' AND before = ' User15@Example.COM ' AND reason = 'lower case';
SELECT count(*) = 1 AND min(after) = 'New York' AS holds FROM changes WHERE order_id = 15 AND column_name = 'city' AND before = 'new york' AND reason = 'case';

SELECT bool_and(status = CASE name WHEN 'one_row_an_order' THEN 'pass' ELSE 'warn' END) AS holds FROM system.checks WHERE "table" = 'raw_orders';
