-- A table that may leave: nobody in it stands out, and no diagnosis can be read off a postcode and an age. Three ways
-- of getting there and what each of them costs. Everything here is generated, so the recipe runs anywhere:
-- attune sql -f sql/recipes/12_anonymize.sql

-- # Patients as they are: most are alone with their postcode, age and sex

CREATE OR REPLACE TABLE patients AS
SELECT 'person-' || n AS person,
    CAST(10000 + n * 7919 % 89 * 97 AS VARCHAR) AS postcode,
    18 + n * 31 % 67 + n % 7 AS age,
    CASE WHEN n * 13 % 5 < 3 THEN 'f' ELSE 'm' END AS sex,
    -- Where hospitals are found, that is by chance.
    ['flu', 'ulcer', 'asthma', 'cancer', 'flu', 'migraine'][1 + n * 17 % 6] AS diagnosis
FROM generate_series(1, 2000) AS s(n);

SELECT k_anonymity(postcode, age, sex) AS k, k_anonymity(postcode, age, sex) < 5 AS holds FROM patients;

-- # One level for each column, the best of all, with at most one row in twenty left out

CREATE OR REPLACE TABLE released AS
SELECT * FROM anonymize('patients',
    quasi_identifiers => ['postcode', 'age', 'sex'], sensitive => 'diagnosis',
    k => 5, l => 2, suppression_limit => 0.05,
    hierarchies => STRUCT('prefix:4,3,2,1' AS postcode, 'interval:5,10,20,40' AS age));

SELECT k_anonymity(postcode, age, sex) AS k, l_diversity(diagnosis, postcode, age, sex) AS l, count(*) AS rows,
    k_anonymity(postcode, age, sex) >= 5 AND l_diversity(diagnosis, postcode, age, sex) >= 2 AND count(*) >= 1900 AS holds
FROM released;

-- # What it is still good for, and what is at risk

SELECT metric, round(value, 4) AS value, round(before, 4) AS before, unit
FROM anonymize_report('patients',
    quasi_identifiers => ['postcode', 'age', 'sex'], sensitive => 'diagnosis',
    k => 5, l => 2, suppression_limit => 0.05,
    hierarchies => STRUCT('prefix:4,3,2,1' AS postcode, 'interval:5,10,20,40' AS age));

-- # Local recoding keeps more: each class has intervals and sets of its own, and nobody is left out

CREATE OR REPLACE TABLE compared AS
SELECT 'mondrian' AS method, metric, value
FROM anonymize_report('patients', quasi_identifiers => ['postcode', 'age', 'sex'], k => 5, method => 'mondrian')
UNION ALL
SELECT 'optimal', metric, value
FROM anonymize_report('patients', quasi_identifiers => ['postcode', 'age', 'sex'], k => 5,
    hierarchies => STRUCT('prefix:4,3,2,1' AS postcode, 'interval:5,10,20,40' AS age));

SELECT metric, round(min(value) FILTER (WHERE method = 'optimal'), 3) AS optimal,
    round(min(value) FILTER (WHERE method = 'mondrian'), 3) AS mondrian
FROM compared
WHERE metric IN ('classes', 'average_class_size', 'information_loss', 'prosecutor_risk')
GROUP BY metric ORDER BY metric;

SELECT bool_and(holds) AS holds FROM (
    SELECT min(value) FILTER (WHERE method = 'mondrian') >= min(value) FILTER (WHERE method = 'optimal') AS holds
    FROM compared WHERE metric = 'classes');

-- # Means of few who are near each other: for models that want numbers

SELECT round(avg(age), 6) AS mean_age, count(DISTINCT age) AS ages, abs(avg(age) - (SELECT avg(age) FROM patients)) < 0.000001 AS holds
FROM anonymize('patients', quasi_identifiers => 'age', sensitive => 'diagnosis', k => 20, method => 'microaggregation');
