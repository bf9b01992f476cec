-- One customer out of four systems that disagree: who is who, one record a customer with the value
-- that is to be trusted, every conflict listed, and how good it is. Everything here is generated, so
-- the recipe runs anywhere: attune sql -f sql/recipes/09_golden_record.sql

-- # The people, whom no system knows as they are

CREATE OR REPLACE TABLE people AS
SELECT n AS person,
    ['anna', 'bernd', 'clara', 'david', 'emma', 'felix', 'greta', 'hugo', 'ida', 'jonas', 'karl', 'lena'][n * 7919 % 104729 % 12 + 1] AS first_name,
    ['schneider', 'fischer', 'weber', 'becker', 'wagner', 'hoffmann', 'koch', 'richter', 'klein', 'wolf', 'neumann', 'schwarz', 'zimmermann', 'krueger', 'hartmann'][n * 6271 % 104729 % 15 + 1] AS last_name,
    (n * 3571 % 104729 % 199 + 1) || ' ' || ['oak', 'mill', 'station', 'church', 'garden', 'market', 'school', 'forest', 'lake'][n * 9437 % 104729 % 9 + 1] || ' street' AS street,
    '0' || (n * 2741 % 104729 % 900 + 100) || ' ' || (n * 48271 % 8999993 + 1000000) AS phone,
    'user' || (n * 31 % 9973) || '@example.org' AS email,
    (n * 5113 % 104729 % 65 + 1940) || '-' || lpad(CAST(n * 4603 % 104729 % 12 + 1 AS VARCHAR), 2, '0') || '-' || lpad(CAST(n * 8111 % 104729 % 28 + 1 AS VARCHAR), 2, '0') AS birth_date
FROM generate_series(1, 1200) AS s(n);

-- # Four systems, each with names and habits of its own

CREATE OR REPLACE TABLE crm AS
SELECT 'C' || person AS contact_no, initcap(first_name) AS given_name, initcap(last_name) AS surname, street AS address,
    CASE WHEN person % 4 = 0 THEN NULL ELSE phone END AS telephone, upper(email) AS mail, birth_date AS born, '2026-03-01' AS changed
FROM people WHERE person % 5 <> 0;

CREATE OR REPLACE TABLE web_accounts AS
SELECT person + 50000 AS account, first_name AS first, CASE WHEN person % 3 = 0 THEN substr(last_name, 1, 2) || 'y' || substr(last_name, 3) ELSE last_name END AS last,
    CASE WHEN person % 6 = 0 THEN '9 moved lane' ELSE street END AS street, email, CASE WHEN person % 2 = 0 THEN birth_date END AS birthday,
    ['shoes', 'books', 'garden', 'toys'][person % 4 + 1] AS last_browsed_category, '2026-06-15' AS seen
FROM people WHERE person % 2 = 0;

CREATE OR REPLACE TABLE orders AS
SELECT 'S' || person AS customer, first_name || ' ' || last_name AS name, street AS ship_to, '+49 ' || substr(phone, 2) AS phone, email, o AS order_no, 20 + (person * o) % 90 AS amount, '2026-0' || (o + 3) || '-20' AS ordered
FROM people CROSS JOIN generate_series(1, 3) AS s(o) WHERE person % 3 = 0 AND (o = 1 OR person % (o * 3) = 0);

CREATE OR REPLACE TABLE broker AS
SELECT 'B' || person AS ref, upper(first_name) AS fname, upper(last_name) AS lname, CASE WHEN person % 4 = 1 THEN 'N/A' ELSE phone END AS mobile, birth_date AS dob, 'test@test.com' AS email
FROM people WHERE person % 7 = 0;

-- # A data dictionary: which field means what, in which system

CREATE OR REPLACE TABLE dictionary AS
SELECT * FROM (VALUES
    ('first_name', 'text', 'given_name, first, fname'), ('last_name', 'text', 'surname, last, lname'),
    ('street', 'text', 'address, ship_to'), ('phone', 'text, E.164 where the country is known', 'telephone, mobile'),
    ('email', 'text, lower case', 'mail'), ('birth_date', 'date, yyyy-mm-dd', 'born, birthday, dob'),
    ('updated', 'date', 'changed, seen, ordered')) AS d(field, type, synonyms);

-- # One schema

CREATE OR REPLACE TABLE records AS
SELECT 'crm' AS source, contact_no AS id, given_name AS first_name, surname AS last_name, address AS street, telephone AS phone, mail AS email, born AS birth_date, changed AS updated FROM crm
UNION ALL SELECT 'web', CAST(account AS VARCHAR), first, last, street, NULL, email, birthday, seen FROM web_accounts
UNION ALL SELECT 'shop', customer, split_part(min(name), ' ', 1), split_part(min(name), ' ', 2), min(ship_to), min(phone), min(email), NULL, max(ordered) FROM orders GROUP BY customer
UNION ALL SELECT 'broker', ref, fname, lname, NULL, mobile, email, dob, '2024-01-01' FROM broker;

SELECT source, count(*) AS records, count(email) AS with_email, count(phone) AS with_phone, count(birth_date) AS with_birth_date FROM records GROUP BY source ORDER BY source;

-- # Who is who: nothing is said of how, and no labels are needed

CREATE OR REPLACE MODEL ids OPTIONS (model_type = 'entity_resolution', id_col = 'id', source_col = 'source')
AS SELECT source, id, first_name, last_name, street, phone, email, birth_date FROM records;
-- > Every column is compared in the way that suits its values; `N/A` and `test@test.com` are none.

SELECT rule, pairs, round(match_share, 3) AS match_share FROM ML.BLOCKING_RULES(MODEL ids) ORDER BY pairs;
SELECT "column", level, round(match_weight, 1) AS bits FROM ML.WEIGHTS(MODEL ids) WHERE level = 'exact' ORDER BY bits DESC;

CREATE OR REPLACE TABLE crosswalk AS SELECT source, record_id, entity_id FROM resolve_entities('ids');

SELECT records, count(*) AS customers FROM (SELECT entity_id, count(*) AS records FROM crosswalk GROUP BY entity_id) GROUP BY records ORDER BY records;

-- # The same crosswalk by hashed e-mail, for who brings addresses and may see nobody else's

CREATE OR REPLACE TABLE email_crosswalk AS
SELECT DISTINCT encode(sha256(normalize_email(r.email)), 'hex') AS email_hash, c.entity_id
FROM records r JOIN crosswalk c ON c.source = r.source AND c.record_id = r.id
WHERE normalize_email(r.email) IS NOT NULL AND r.email <> 'test@test.com';
-- > Whoever guesses an address can hash it too. Among tables of one's own a key keeps that from others, and is to be
-- > preferred where one is configured: pseudonymize(normalize_email(r.email), 'key') in place of encode(sha256(…), 'hex').

SELECT count(DISTINCT email_hash) AS addresses, bool_and(length(email_hash) = 64 AND email_hash NOT LIKE '%@%') AS holds FROM email_crosswalk;

-- A partner who has hashed its own spelling of 120 addresses, and no name, finds their customers.
SELECT count(DISTINCT p.email_hash) AS found, count(DISTINCT p.email_hash) = 120 AS holds
FROM (SELECT encode(sha256(normalize_email(' ' || upper(email))), 'hex') AS email_hash FROM people WHERE person % 10 = 0) p
JOIN email_crosswalk x ON x.email_hash = p.email_hash
JOIN crosswalk c ON c.entity_id = x.entity_id;

-- # Why two records are one

SELECT left_source, left_id, right_source, right_id, round(match_probability, 4) AS probability, part['column'] AS because, part['level'] AS level, round(part['weight'], 1) AS bits
FROM (SELECT *, unnest(weights) AS part FROM ML.PREDICT(MODEL ids) WHERE left_id = 'C6' OR right_id = 'C6')
ORDER BY left_id, right_id, bits DESC LIMIT 12;

-- # The golden record: which value survives is a rule a field

CREATE OR REPLACE TABLE ranked AS
SELECT c.entity_id, r.*, CASE r.source WHEN 'crm' THEN 1 WHEN 'shop' THEN 2 WHEN 'web' THEN 3 ELSE 4 END AS trust
FROM records r JOIN crosswalk c ON c.source = r.source AND c.record_id = r.id;

CREATE OR REPLACE TABLE lineage AS
WITH candidates AS (
    SELECT entity_id, 'first_name' AS field, initcap(first_name) AS value, 'most trusted source' AS rule, 0 AS priority, trust, source, id, updated FROM ranked
    UNION ALL SELECT entity_id, 'last_name', initcap(last_name), 'most trusted source', 0, trust, source, id, updated FROM ranked
    UNION ALL SELECT entity_id, 'birth_date', birth_date, 'most trusted source', 0, trust, source, id, updated FROM ranked
    -- a purchase tells more of where somebody lives than a visit of the same day
    UNION ALL SELECT entity_id, 'street', street, 'most recent', -CAST(replace(updated, '-', '') AS BIGINT), trust, source, id, updated FROM ranked
    UNION ALL SELECT entity_id, 'email', normalize_email(email), 'valid, most trusted source', 0, trust, source, id, updated FROM ranked WHERE email <> 'test@test.com'
    UNION ALL SELECT entity_id, 'phone', phone, 'most complete', -length(phone), trust, source, id, updated FROM ranked WHERE phone <> 'N/A')
SELECT entity_id, field, value, rule, source, id AS record_id, updated
FROM (SELECT *, row_number() OVER (PARTITION BY entity_id, field ORDER BY priority, trust, id) AS rank FROM candidates WHERE value IS NOT NULL)
WHERE rank = 1;
-- > Of each value of each customer: the rule that chose it, the record that it comes from, and when that was written.

CREATE OR REPLACE TABLE customers AS
SELECT r.entity_id AS customer_id, v.first_name, v.last_name, v.birth_date, v.street, v.street_from, v.email, v.phone, r.records, r.sources
FROM (SELECT entity_id, count(*) AS records, string_agg(source, ', ' ORDER BY trust, id) AS sources FROM ranked GROUP BY entity_id) r
JOIN (SELECT entity_id,
        max(value) FILTER (WHERE field = 'first_name') AS first_name, max(value) FILTER (WHERE field = 'last_name') AS last_name,
        max(value) FILTER (WHERE field = 'birth_date') AS birth_date, max(value) FILTER (WHERE field = 'street') AS street,
        max(source) FILTER (WHERE field = 'street') AS street_from, max(value) FILTER (WHERE field = 'email') AS email,
        max(value) FILTER (WHERE field = 'phone') AS phone
    FROM lineage GROUP BY entity_id) v ON v.entity_id = r.entity_id;

CREATE OR REPLACE TABLE unified_customers AS
SELECT u.*, w.last_browsed_category, coalesce(o.purchase_frequency, 0) AS purchase_frequency, o.spent
FROM customers u
LEFT JOIN (SELECT c.entity_id, first_value(last_browsed_category ORDER BY seen DESC) AS last_browsed_category
    FROM web_accounts w JOIN crosswalk c ON c.source = 'web' AND c.record_id = CAST(w.account AS VARCHAR) GROUP BY c.entity_id) w ON w.entity_id = u.customer_id
LEFT JOIN (SELECT c.entity_id, count(*) AS purchase_frequency, sum(amount) AS spent
    FROM orders o JOIN crosswalk c ON c.source = 'shop' AND c.record_id = o.customer GROUP BY c.entity_id) o ON o.entity_id = u.customer_id;

SELECT first_name, last_name, street, street_from, email, records, sources, last_browsed_category, purchase_frequency
FROM unified_customers WHERE records >= 3 ORDER BY records DESC, last_name, first_name, email LIMIT 5;

SELECT field, value, rule, source, record_id, updated FROM lineage
WHERE entity_id = (SELECT customer_id FROM unified_customers ORDER BY records DESC, last_name, first_name, email LIMIT 1) ORDER BY field;
SELECT count(*) > 100 AS holds FROM lineage WHERE field = 'street' AND source <> 'crm';

-- # Every conflict, with where each value comes from

CREATE OR REPLACE TABLE conflicts AS
WITH fields AS (
    SELECT entity_id, source, id, updated, 'last_name' AS field, normalize_name(last_name) AS value FROM ranked
    UNION ALL SELECT entity_id, source, id, updated, 'street', normalize_name(street) FROM ranked
    UNION ALL SELECT entity_id, source, id, updated, 'birth_date', birth_date FROM ranked
    UNION ALL SELECT entity_id, source, id, updated, 'email', normalize_email(email) FROM ranked WHERE email <> 'test@test.com')
SELECT entity_id, field, count(DISTINCT value) AS "values", string_agg(source || ' ' || id || ': ' || value, '; ' ORDER BY updated DESC, source) AS says
FROM fields WHERE value IS NOT NULL GROUP BY entity_id, field HAVING count(DISTINCT value) > 1;

SELECT field, count(*) AS conflicts FROM conflicts GROUP BY field ORDER BY field;
SELECT field, says FROM conflicts ORDER BY field, says LIMIT 4;

-- # How good it is

SELECT entities, duplicate_records, largest_entity, unlinkable_records, round(estimated_precision, 4) AS estimated_precision, round(estimated_recall, 4) AS estimated_recall FROM ML.EVALUATE(MODEL ids);

-- Here the truth is known: the number in every id is the person.
CREATE OR REPLACE TABLE truth AS
SELECT c.*, CASE source WHEN 'web' THEN CAST(record_id AS BIGINT) - 50000 ELSE CAST(substr(record_id, 2) AS BIGINT) END AS person FROM crosswalk c;

SELECT precision, recall, precision > 0.98 AND recall > 0.95 AS holds
FROM ML.EVALUATE(MODEL ids, (SELECT source, record_id, person AS truth FROM truth));

SELECT count(*) = (SELECT count(DISTINCT entity_id) FROM crosswalk) AS holds FROM unified_customers;
SELECT count(*) > 100 AS holds FROM conflicts WHERE field = 'street' AND says LIKE '%9 moved lane%';

-- # A new record comes: the ids stay

CREATE OR REPLACE TABLE before AS SELECT * FROM crosswalk;
INSERT INTO records SELECT 'app', 'A12', first_name, last_name, street, phone, email, birth_date, '2026-07-01' FROM people WHERE person = 12;
RETRAIN MODEL ids;

SELECT bool_and(a.entity_id = b.entity_id) AS holds FROM before a JOIN resolve_entities('ids') b ON a.source = b.source AND a.record_id = b.record_id;
SELECT event, records, event = 'joined' AND records = 1 AS holds FROM ML.ENTITY_HISTORY(MODEL ids) WHERE version = 2;
-- > Only pairs with the new record were compared; merges and splits would stand in the history too.
