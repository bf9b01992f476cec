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

-- They disagree: some web accounts have an initial, a slip in the surname or an address that was typed while browsing,
-- some customers gave the shop a new number, and the broker writes `N/A` and `test@test.com` where it knows nothing.

CREATE OR REPLACE TABLE crm AS
SELECT 'C' || person AS contact_no, title_case(first_name) AS given_name, title_case(last_name) AS surname, street AS address,
    CASE WHEN person % 4 = 0 THEN NULL ELSE phone END AS telephone, upper(email) AS mail, birth_date AS born, '2026-03-01' AS changed
FROM people WHERE person % 5 <> 0;

CREATE OR REPLACE TABLE web_accounts AS
SELECT person + 50000 AS account, CASE WHEN person % 8 = 0 THEN left(first_name, 1) ELSE first_name END AS first, CASE WHEN person % 3 = 0 THEN substr(last_name, 1, 2) || 'y' || substr(last_name, 3) ELSE last_name END AS last,
    CASE WHEN person % 6 = 0 OR person % 12 = 2 THEN '9 moved lane' ELSE street END AS street, email, CASE WHEN person % 2 = 0 THEN birth_date END AS birthday,
    ['shoes', 'books', 'garden', 'toys'][person % 4 + 1] AS last_browsed_category, '2026-06-15' AS seen
FROM people WHERE person % 2 = 0;

CREATE OR REPLACE TABLE orders AS
SELECT 'S' || person AS customer, first_name || ' ' || last_name AS name, street AS ship_to,
    '+49 ' || CASE WHEN person % 9 = 0 THEN substr(phone, 2, 4) || reverse(substr(phone, 6)) ELSE substr(phone, 2) END AS phone, email, o AS order_no, 20 + (person * o) % 90 AS amount, '2026-0' || (o + 3) || '-20' AS ordered
FROM people CROSS JOIN generate_series(1, 3) AS s(o) WHERE person % 3 = 0 AND (o = 1 OR person % (o * 3) = 0);

CREATE OR REPLACE TABLE broker AS
SELECT 'B' || person AS ref, upper(first_name) AS fname, upper(last_name) AS lname, CASE WHEN person % 4 = 1 THEN 'N/A' ELSE phone END AS mobile, birth_date AS dob, 'test@test.com' AS email
FROM people WHERE person % 7 = 0;

-- # A data dictionary: which field means what, in which unit, and what each system calls it

CREATE OR REPLACE TABLE dictionary AS
SELECT * FROM (VALUES
    ('source', 'text', NULL, '', 'the system that a record is of'),
    ('id', 'text', NULL, 'contact_no, account, customer, ref', 'the number of a record in its system'),
    ('full_name', 'text', NULL, 'name', 'first name, blank, last name'),
    ('first_name', 'text', NULL, 'given_name, first, fname', 'first name, or an initial'),
    ('last_name', 'text', NULL, 'surname, last, lname', 'family name'),
    ('birth_date', 'date', 'day', 'born, birthday, dob', 'day of birth, written yyyy-mm-dd'),
    ('street', 'text', NULL, 'address, ship_to', 'house number and street'),
    ('email', 'text', NULL, 'mail', 'e-mail address in small letters'),
    ('phone', 'text', NULL, 'telephone, mobile', 'telephone number, with +49 where the system knows the country'),
    ('updated', 'date', 'day', 'changed, seen, ordered', 'day on which a record was last written'),
    ('order_no', 'integer', NULL, '', 'number of an order of a customer'),
    ('amount', 'integer', 'EUR', '', 'what an order cost'),
    ('last_browsed_category', 'text', NULL, '', 'category that was looked at last'),
    ('customer_id', 'text', NULL, '', 'id of a person over all systems, a UUID'),
    ('street_from', 'text', NULL, '', 'the system that the street was taken from'),
    ('records', 'integer', 'records', '', 'how many records a person has'),
    ('sources', 'text', NULL, '', 'the systems that these records are of'),
    ('purchase_frequency', 'integer', 'orders', '', 'how often a person has bought'),
    ('spent', 'integer', 'EUR', '', 'what all orders of a person cost')) AS d(field, type, unit, synonyms, meaning);

-- Each word that a system may use, and the one field that it means.
CREATE OR REPLACE TABLE words AS
SELECT field, word FROM (SELECT field, unnest(string_to_array(field || ', ' || synonyms, ', ')) AS word FROM dictionary) WHERE word <> '';

SELECT count(*) = count(DISTINCT word) AS holds FROM words;
-- > No word means two fields.

SELECT count(unit) > 0 AND bool_and(unit IS NOT NULL) AS holds FROM dictionary WHERE type = 'date' OR field IN ('amount', 'spent', 'purchase_frequency');
-- > What is measured has a unit.

-- The columns of the four systems as they are, and the field that each is.
CREATE OR REPLACE TABLE harmonized AS
SELECT CASE c.table_name WHEN 'web_accounts' THEN 'web' WHEN 'orders' THEN 'shop' ELSE c.table_name END AS source, c.column_name, w.field
FROM information_schema.columns c LEFT JOIN words w ON w.word = c.column_name
WHERE c.table_schema = current_schema() AND c.table_name IN ('crm', 'web_accounts', 'orders', 'broker');

SELECT field, string_agg(source || ': ' || column_name, ', ' ORDER BY source, column_name) AS called FROM harmonized GROUP BY field ORDER BY field;

SELECT count(DISTINCT source) = 4 AND bool_and(field IS NOT NULL) AS holds FROM harmonized;
-- > Every column of every system is a field of the dictionary, or a synonym of one.

SELECT bool_and(h.column_name IS NOT NULL) AS holds
FROM words w LEFT JOIN harmonized h ON h.column_name = w.word WHERE w.word <> w.field;
-- > And every synonym is in use.

-- # One schema

CREATE OR REPLACE TABLE records AS
SELECT 'crm' AS source, contact_no AS id, given_name AS first_name, surname AS last_name, address AS street, telephone AS phone, mail AS email, born AS birth_date, changed AS updated FROM crm
UNION ALL SELECT 'web', CAST(account AS VARCHAR), first, last, street, NULL, email, birthday, seen FROM web_accounts
UNION ALL SELECT 'shop', customer, split_part(min(name), ' ', 1), split_part(min(name), ' ', 2), min(ship_to), min(phone), min(email), NULL, max(ordered) FROM orders GROUP BY customer
UNION ALL SELECT 'broker', ref, fname, lname, NULL, mobile, email, dob, '2024-01-01' FROM broker;

SELECT source, count(*) AS records, count(email) AS with_email, count(phone) AS with_phone, count(birth_date) AS with_birth_date FROM records GROUP BY source ORDER BY source;

-- The one schema is the dictionary's: its columns are fields, and a system fills those that it has a column for, no others.
SELECT bool_and(d.field IS NOT NULL) AS holds
FROM information_schema.columns c LEFT JOIN dictionary d ON d.field = c.column_name
WHERE c.table_schema = current_schema() AND c.table_name = 'records';

SELECT count(*) = 16 AND bool_and((f.filled > 0) = (h.field IS NOT NULL)) AS holds
FROM (SELECT source, 'street' AS field, count(street) AS filled FROM records GROUP BY source
    UNION ALL SELECT source, 'phone', count(phone) FROM records GROUP BY source
    UNION ALL SELECT source, 'email', count(email) FROM records GROUP BY source
    UNION ALL SELECT source, 'birth_date', count(birth_date) FROM records GROUP BY source) f
LEFT JOIN harmonized h ON h.source = f.source AND h.field = f.field;

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

-- Every value that a customer might have: `spelled` is what is compared, so that one value in two spellings is no conflict,
-- and the lowest `choice` survives, then the lowest `then_by`, then the most trusted source.
CREATE OR REPLACE TABLE candidates AS
SELECT * FROM (
    -- source priority: a name and a day of birth are as the most trusted source has them
    SELECT entity_id, 'first_name' AS field, title_case(first_name) AS value, normalize_name(first_name) AS spelled, 'most trusted source' AS rule,
        trust AS choice, 0 AS then_by, trust, source, id, updated FROM ranked
    UNION ALL SELECT entity_id, 'last_name', title_case(last_name), normalize_name(last_name), 'most trusted source', trust AS choice, 0, trust, source, id, updated FROM ranked
    UNION ALL SELECT entity_id, 'birth_date', birth_date, birth_date AS spelled, 'most trusted source', trust AS choice, 0, trust, source, id, updated FROM ranked
    -- a purchase tells where somebody lives, whenever it was; what else is known counts by its date
    UNION ALL SELECT entity_id, 'street', street, normalize_address(street), 'purchase over browsing, then most recent',
        CASE source WHEN 'shop' THEN 0 ELSE 1 END, -CAST(replace(updated, '-', '') AS BIGINT), trust, source, id, updated FROM ranked
    UNION ALL SELECT entity_id, 'email', normalize_email(email), normalize_email(email) AS spelled, 'most recent',
        -CAST(replace(updated, '-', '') AS BIGINT), 0, trust, source, id, updated FROM ranked WHERE email <> 'test@test.com'
    -- the number with the most of it, such as the country's code; two numbers are one if their last nine digits are
    UNION ALL SELECT entity_id, 'phone', phone, right(regexp_replace(phone, '[^0-9]', '', 'g'), 9), 'most complete',
        -length(phone), 0, trust, source, id, updated FROM ranked WHERE phone <> 'N/A') AS c
WHERE value IS NOT NULL;

CREATE OR REPLACE TABLE lineage AS
SELECT entity_id, field, value, rule, source, id AS record_id, updated
FROM (SELECT *, row_number() OVER (PARTITION BY entity_id, field ORDER BY choice, then_by, trust, id) AS rank FROM candidates)
WHERE rank = 1;
-- > Of each value of each customer: the rule that chose it, the record that it comes from, and when that was written.

CREATE OR REPLACE TABLE customers AS
SELECT r.entity_id AS customer_id, v.first_name, v.last_name, v.birth_date, v.street, v.street_from, v.email, v.phone, r.records, r.sources
FROM (SELECT entity_id, count(*) AS records, string_agg(source, ', ' ORDER BY trust, id) AS sources FROM ranked GROUP BY entity_id) r
JOIN (SELECT entity_id,
        max(value) FILTER (WHERE field = 'first_name') AS first_name, max(value) FILTER (WHERE field = 'last_name') AS last_name,
        CAST(max(value) FILTER (WHERE field = 'birth_date') AS DATE) AS birth_date, max(value) FILTER (WHERE field = 'street') AS street,
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

-- The unified customer is the dictionary's too, in names and types.
SELECT bool_and(d.field IS NOT NULL AND c.data_type LIKE CASE d.type WHEN 'text' THEN '%Utf8%' WHEN 'date' THEN 'Date%' ELSE '%Int%' END) AS holds
FROM information_schema.columns c LEFT JOIN dictionary d ON d.field = c.column_name
WHERE c.table_schema = current_schema() AND c.table_name = 'unified_customers';

-- # What the rules promise

-- Source priority: whoever is in the CRM has the first name that the CRM has, and never the initial of a web account.
SELECT count(*) > 800 AND bool_and(l.source = 'crm') AND bool_and(length(l.value) > 1) AS holds
FROM lineage l JOIN (SELECT DISTINCT entity_id FROM ranked WHERE source = 'crm' AND first_name IS NOT NULL) c ON c.entity_id = l.entity_id
WHERE l.field = 'first_name';

-- Most complete: no record of the customer has a longer number.
SELECT count(*) > 600 AND bool_and(length(l.value) = c.longest) AS holds
FROM lineage l JOIN (SELECT entity_id, max(length(phone)) AS longest FROM ranked WHERE phone <> 'N/A' GROUP BY entity_id) c ON c.entity_id = l.entity_id
WHERE l.field = 'phone';

-- Most recent: no record of the customer with an e-mail address was written later.
SELECT count(*) > 800 AND bool_and(l.updated = c.newest) AS holds
FROM lineage l JOIN (SELECT entity_id, max(updated) AS newest FROM ranked WHERE email <> 'test@test.com' AND normalize_email(email) IS NOT NULL GROUP BY entity_id) c
    ON c.entity_id = l.entity_id
WHERE l.field = 'email';

-- Purchase over browsing: whoever has bought lives where the shop has sent it …
SELECT count(*) > 300 AND bool_and(l.source = 'shop') AS holds
FROM lineage l JOIN (SELECT DISTINCT entity_id FROM ranked WHERE source = 'shop' AND street IS NOT NULL) s ON s.entity_id = l.entity_id
WHERE l.field = 'street';

-- … also where a web account has another address that is newer …
SELECT count(*) > 50 AS holds
FROM lineage l JOIN candidates w ON w.entity_id = l.entity_id AND w.field = 'street' AND w.source = 'web'
WHERE l.field = 'street' AND l.source = 'shop' AND w.updated > l.updated AND w.value <> l.value;

-- … and for all others the newest address counts.
SELECT count(*) > 500 AND bool_and(l.updated = c.newest) AS holds
FROM lineage l JOIN (SELECT entity_id, max(updated) AS newest FROM ranked WHERE street IS NOT NULL GROUP BY entity_id HAVING count(*) FILTER (WHERE source = 'shop') = 0) c
    ON c.entity_id = l.entity_id
WHERE l.field = 'street';

-- Lineage: one line for each value of a unified customer, with that value, and as a record of that system has it.
CREATE OR REPLACE TABLE golden AS
SELECT * FROM (
    SELECT customer_id, 'first_name' AS field, first_name AS value FROM unified_customers
    UNION ALL SELECT customer_id, 'last_name', last_name FROM unified_customers
    UNION ALL SELECT customer_id, 'birth_date', CAST(birth_date AS VARCHAR) FROM unified_customers
    UNION ALL SELECT customer_id, 'street', street FROM unified_customers
    UNION ALL SELECT customer_id, 'email', email FROM unified_customers
    UNION ALL SELECT customer_id, 'phone', phone FROM unified_customers) AS g
WHERE value IS NOT NULL;

SELECT (SELECT count(*) FROM golden) = (SELECT count(*) FROM lineage) AND bool_and(lines = 1) AS holds
FROM (SELECT g.customer_id, g.field, count(l.field) AS lines
    FROM golden g LEFT JOIN lineage l ON l.entity_id = g.customer_id AND l.field = g.field AND l.value = g.value
    GROUP BY g.customer_id, g.field);

SELECT count(*) = (SELECT count(*) FROM lineage) AS holds
FROM lineage l JOIN candidates c ON c.entity_id = l.entity_id AND c.field = l.field AND c.source = l.source AND c.id = l.record_id AND c.value = l.value;

SELECT count(*) = count(DISTINCT customer_id) AND sum(purchase_frequency) = (SELECT count(*) FROM orders) AND sum(spent) = (SELECT sum(amount) FROM orders) AS holds
FROM unified_customers;
-- > Nobody stands there twice, and every order is somebody's, once.

-- # Every conflict, with where each value comes from

-- They are found among the candidates, the values that the golden record was chosen from: for every field, with what was kept and by which rule.
CREATE OR REPLACE TABLE conflicts AS
SELECT c.entity_id, c.field, count(DISTINCT c.spelled) AS "values", string_agg(c.source || ' ' || c.id || ': ' || c.value, '; ' ORDER BY c.updated DESC, c.source, c.id) AS says,
    min(l.value) AS kept, min(l.source) AS kept_from, min(l.rule) AS because
FROM candidates c JOIN lineage l ON l.entity_id = c.entity_id AND l.field = c.field
GROUP BY c.entity_id, c.field HAVING count(DISTINCT c.spelled) > 1;

SELECT field, count(*) AS conflicts FROM conflicts GROUP BY field ORDER BY field;
SELECT field, says, kept, kept_from, because FROM conflicts ORDER BY field, says LIMIT 4;

-- Initials, slips in surnames, addresses of the past and new numbers are all among them.
SELECT f.field, count(c.field) AS conflicts, count(c.field) > 30 AS holds
FROM (VALUES ('first_name'), ('last_name'), ('street'), ('phone')) AS f(field) LEFT JOIN conflicts c ON c.field = f.field
GROUP BY f.field ORDER BY f.field;

-- Each has two values that differ, and what was kept is one of those that are listed.
SELECT count(*) = (SELECT count(*) FROM conflicts) AND bool_and(one <> another) AND bool_and(strpos(says, kept_from || ' ') > 0 AND strpos(says, ': ' || kept) > 0) AS holds
FROM (SELECT k.entity_id, k.field, min(c.spelled) AS one, max(c.spelled) AS another, min(k.says) AS says, min(k.kept) AS kept, min(k.kept_from) AS kept_from
    FROM conflicts k JOIN candidates c ON c.entity_id = k.entity_id AND c.field = k.field GROUP BY k.entity_id, k.field);

-- And none is missing: wherever two candidates differ, there is a conflict.
SELECT count(*) > 0 AND bool_and(k.entity_id IS NOT NULL) AS holds
FROM (SELECT DISTINCT a.entity_id, a.field FROM candidates a JOIN candidates b ON b.entity_id = a.entity_id AND b.field = a.field AND b.spelled <> a.spelled) d
LEFT JOIN conflicts k ON k.entity_id = d.entity_id AND k.field = d.field;

-- # How good it is

SELECT entities, duplicate_records, largest_entity, unlinkable_records, round(estimated_precision, 4) AS estimated_precision, round(estimated_recall, 4) AS estimated_recall FROM ML.EVALUATE(MODEL ids);

-- Here the truth is known: the number in every id is the person.
CREATE OR REPLACE TABLE truth AS
SELECT c.*, CASE source WHEN 'web' THEN CAST(record_id AS BIGINT) - 50000 ELSE CAST(substr(record_id, 2) AS BIGINT) END AS person FROM crosswalk c;

SELECT precision, recall, precision > 0.98 AND recall > 0.95 AS holds
FROM ML.EVALUATE(MODEL ids, (SELECT source, record_id, person AS truth FROM truth));

-- Customers of whom everything was found and nothing else: what the unified table and the conflicts say of them has to be what the people are.
CREATE OR REPLACE TABLE certain AS
SELECT e.entity_id, e.person
FROM (SELECT entity_id, min(person) AS person FROM truth GROUP BY entity_id HAVING count(DISTINCT person) = 1) e
JOIN (SELECT person FROM truth GROUP BY person HAVING count(DISTINCT entity_id) = 1) p ON p.person = e.person;

-- Purchases and what was browsed last are those of the person's own shop number and web account …
SELECT count(*) > 800 AND bool_and(u.purchase_frequency = coalesce(o.bought, 0)) AND bool_and(u.spent IS NOT DISTINCT FROM o.paid)
    AND bool_and(u.last_browsed_category IS NOT DISTINCT FROM w.last_browsed_category) AS holds
FROM certain c JOIN unified_customers u ON u.customer_id = c.entity_id
LEFT JOIN (SELECT CAST(substr(customer, 2) AS BIGINT) AS person, count(*) AS bought, sum(amount) AS paid FROM orders GROUP BY customer) o ON o.person = c.person
LEFT JOIN (SELECT account - 50000 AS person, last_browsed_category FROM web_accounts) w ON w.person = c.person;

-- … and those that this script has made: each third person buys once, twice or three times, each second one looks at shoes or at gardens.
SELECT count(*) > 800 AND bool_and(u.purchase_frequency = CASE WHEN c.person % 18 = 0 THEN 3 WHEN c.person % 6 = 0 OR c.person % 9 = 0 THEN 2 WHEN c.person % 3 = 0 THEN 1 ELSE 0 END)
    AND bool_and(u.last_browsed_category IS NOT DISTINCT FROM CASE c.person % 4 WHEN 0 THEN 'shoes' WHEN 2 THEN 'garden' END) AS holds
FROM certain c JOIN unified_customers u ON u.customer_id = c.entity_id;

-- Whoever has moved while browsing and never bought lives there now; everybody else lives where the shop or the CRM says.
SELECT count(*) > 800 AND bool_and(u.street = CASE WHEN c.person % 12 = 2 THEN '9 moved lane' ELSE p.street END) AS holds
FROM certain c JOIN unified_customers u ON u.customer_id = c.entity_id JOIN people p ON p.person = c.person WHERE u.street IS NOT NULL;

-- The conflicts are those that were put into the four systems, in every field: no more, no fewer.
SELECT e.field, count(k.field) AS conflicts, bool_and(e.differs = (k.field IS NOT NULL)) AS holds
FROM (SELECT entity_id, 'first_name' AS field, person % 8 = 0 AND (person % 5 <> 0 OR person % 3 = 0 OR person % 7 = 0) AS differs FROM certain
    UNION ALL SELECT entity_id, 'last_name', person % 6 = 0 FROM certain
    UNION ALL SELECT entity_id, 'street', person % 6 = 0 OR (person % 12 = 2 AND person % 5 <> 0) FROM certain
    UNION ALL SELECT entity_id, 'phone', person % 9 = 0 AND ((person % 5 <> 0 AND person % 4 <> 0) OR (person % 7 = 0 AND person % 4 <> 1)) FROM certain
    UNION ALL SELECT entity_id, 'birth_date', person = 0 FROM certain
    UNION ALL SELECT entity_id, 'email', person = 0 FROM certain) e
LEFT JOIN conflicts k ON k.entity_id = e.entity_id AND k.field = e.field GROUP BY e.field ORDER BY e.field;

SELECT count(*) = (SELECT count(DISTINCT entity_id) FROM crosswalk) AS holds FROM unified_customers;
SELECT count(*) > 100 AS holds FROM conflicts WHERE field = 'street' AND says LIKE '%9 moved lane%';

-- # A new record comes: the ids stay

CREATE OR REPLACE TABLE before AS SELECT * FROM crosswalk;
INSERT INTO records SELECT 'app', 'A12', first_name, last_name, street, phone, email, birth_date, '2026-07-01' FROM people WHERE person = 12;
RETRAIN MODEL ids;

SELECT bool_and(a.entity_id = b.entity_id) AS holds FROM before a JOIN resolve_entities('ids') b ON a.source = b.source AND a.record_id = b.record_id;
SELECT event, records, event = 'joined' AND records = 1 AS holds FROM ML.ENTITY_HISTORY(MODEL ids) WHERE version = 2;
-- > Only pairs with the new record were compared; merges and splits would stand in the history too.
