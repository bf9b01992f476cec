-- Consent as part of the plan: a purpose, a table of every change of consent, a policy, and what is left of
-- queries and models when somebody withdraws. Everything here is generated, so the recipe runs anywhere:
-- attune sql -f sql/recipes/13_consent.sql

-- # What people listened to, and what they have said

DROP CONSENT POLICY IF EXISTS listeners;
CREATE OR REPLACE TABLE plays AS
SELECT 'u' || (n % 40) AS listener, 'song ' || (n * 7 % 23) AS song FROM generate_series(1, 400) AS s(n);

-- Rows are only ever added, so that this is the record of every change too. A row says since when it is true, and by which
-- channel it came; a browser that sends Global Privacy Control is the channel `gpc`.

CREATE OR REPLACE TABLE consents AS
SELECT 'u' || n AS subject, 'personalization' AS purpose, true AS granted, TIMESTAMP '2024-01-01 00:00:00' AS since, 'web' AS channel
FROM generate_series(0, 35) AS s(n);

CREATE OR REPLACE EXPECTATION since_ever ON consents CHECK (subject IS NOT NULL AND since IS NOT NULL) SEVERITY 'error';

-- # A purpose, and a policy for it

CREATE PURPOSE IF NOT EXISTS personalization DESCRIPTION 'lists of songs for one listener';
CREATE CONSENT POLICY listeners ON plays (listener) USING consents (subject, purpose, granted, since, channel) FOR PURPOSE personalization;
SET purpose = 'personalization';

-- u36 to u39 have never been asked: opt-in leaves them out.

SELECT count(DISTINCT listener) = 36 AS holds FROM plays;

CREATE OR REPLACE MODEL songs OPTIONS (model_type = 'popularity', user_col = 'listener', item_col = 'song', data_split_method = 'no_split') AS
SELECT listener, song FROM plays;
SELECT count(*) = 3 AS holds FROM ml_recommend('songs', 'u7', 3);
SELECT count(*) = 0 AS holds FROM ml_recommend('songs', 'u38', 3);

-- # u7 withdraws on the site, u8's browser signals Global Privacy Control

INSERT INTO consents VALUES
    ('u7', 'personalization', false, TIMESTAMP '2024-03-01 09:30:00', 'web'),
    ('u8', 'personalization', false, TIMESTAMP '2024-03-01 09:31:00', 'gpc');

SELECT count(*) = 0 AS holds FROM plays WHERE listener IN ('u7', 'u8');
SELECT count(*) = 0 AS holds FROM ml_recommend('songs', 'u7', 3);

-- The model still holds what both did, until it is trained again.

SELECT withdrawn_users = 2 AS holds FROM system.models WHERE name = 'songs';
RETRAIN MODEL songs;
SELECT withdrawn_users = 0 AS holds FROM system.models WHERE name = 'songs';
SELECT bool_and(to_unlearn IS NULL) AS holds FROM system.model_versions WHERE name = 'songs' AND is_default;

-- A form that u8 signs later does not undo what the browser says; the browser's own word does.

INSERT INTO consents VALUES ('u8', 'personalization', true, TIMESTAMP '2024-04-01 10:00:00', 'web');
SELECT count(*) = 0 AS holds FROM plays WHERE listener = 'u8';
INSERT INTO consents VALUES ('u8', 'personalization', true, TIMESTAMP '2024-04-02 10:00:00', 'gpc');
SELECT count(*) = 10 AS holds FROM plays WHERE listener = 'u8';

-- # What was said when, and which policies there are

SELECT subject, since, channel, granted FROM consents WHERE subject IN ('u7', 'u8') ORDER BY subject, since;
SELECT name, purpose, "default", exceptions, version FROM system.consents ORDER BY name;
