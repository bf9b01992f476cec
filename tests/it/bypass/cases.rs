//! Ways to ask for what a policy takes away; `{t}` is the table.

use super::kinds::{Kind, Takes};

/// What a statement has to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// It is answered, as the table that never had what is hidden answers.
    Same,
    /// It comes to what that table comes to, an error of the same code too.
    Alike,
    /// It may be answered with more than that table knows, and with no secret.
    Open,
    /// It fails with this code.
    Refused(&'static str),
    /// It fails.
    Fails,
}

use Expect::{Alike, Fails, Open, Refused, Same};

/// The code of what a policy does not let a statement do with a table.
pub const UNSUPPORTED: Expect = Refused("ATT-2002");
/// The code of what somebody may not do at all.
pub const DENIED: Expect = Refused("ATT-2003");

/// A way to ask.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it tries.
    pub name: &'static str,
    /// The statement.
    pub text: &'static str,
    plain: Expect,
    kept: Expect,
    grouped: Expect,
    /// Whether it may be refused otherwise than its like where single rows are not given at all.
    loose: bool,
}

impl Case {
    /// Reads rows, without showing a card.
    const fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, plain: Same, kept: Alike, grouped: UNSUPPORTED, loose: false }
    }

    /// Shows cards, or computes of them what could fail.
    const fn shows(self) -> Self {
        Self { kept: UNSUPPORTED, ..self }
    }

    /// Gives groups that have enough persons, and no others.
    const fn groups(self) -> Self {
        Self { grouped: Same, ..self }
    }

    /// Gives one group of all rows.
    const fn sums(self) -> Self {
        Self { grouped: Open, ..self }
    }

    /// Is answered; of tables that give no single rows it may be refused in several ways.
    const fn answered(self) -> Self {
        Self { grouped: Open, loose: true, ..self }
    }

    /// Fails with this code on rows that are seen, whatever others there are.
    const fn fails(self, code: &'static str) -> Self {
        Self { plain: Refused(code), grouped: Fails, loose: true, ..self }
    }

    /// Is not known to be supported: both sides answer it, or refuse it with one code.
    const fn unsure(self) -> Self {
        Self { plain: Alike, grouped: Open, loose: true, ..self }
    }

    /// Looks at each column, cards too, and shows none.
    const fn looks_at_all(self) -> Self {
        Self { kept: Open, ..self }
    }

    /// Whether it may fail over any table.
    pub fn may_fail(&self) -> bool {
        self.plain != Same
    }

    /// What it comes to over a table of which nothing is hidden.
    pub fn of_oracle(&self) -> Expect {
        self.plain
    }

    /// What it has to come to over a table.
    pub fn expected(&self, kind: &Kind) -> Expect {
        // Files that lie in a lake have no older versions.
        if kind.is_external() && self.text.contains("VERSION AS OF") {
            return Alike;
        }
        match kind.takes {
            Takes::Rows => self.plain,
            // Rows that others do not see fail where they would fail anyway.
            Takes::Nothing if self.plain == Same => Alike,
            Takes::Nothing => self.plain,
            Takes::Values | Takes::Columns => Alike,
            Takes::Showing => self.kept,
            Takes::SingleRows => self.grouped,
            Takes::Everything if self.loose => Fails,
            Takes::Everything => DENIED,
        }
    }
}

/// Reads, clause by clause.
pub const CASES: &[Case] = &[
    Case::new("all of it", "SELECT * FROM {t}").shows(),
    Case::new("an older version", "SELECT * FROM {t} VERSION AS OF 0").shows(),
    Case::new("a view", "SELECT * FROM {t}_view").shows(),
    Case::new("a view's condition", "SELECT count(*) AS n FROM {t}_view WHERE region LIKE 'zz%'").sums(),
    Case::new("another name", "SELECT u.mail AS post FROM {t} AS u"),
    Case::new("a schema's name", "SELECT mail FROM attune.main.{t}"),
    // Sub-queries in every clause.
    Case::new("sub-query in SELECT", "SELECT id, (SELECT max(pay) FROM {t}) AS most FROM {t}"),
    Case::new("sub-query alone", "SELECT (SELECT max(pay) FROM {t}) AS most"),
    Case::new("sub-query in FROM", "SELECT s.m FROM (SELECT mail AS m, id FROM {t}) AS s"),
    Case::new("sub-query in WHERE", "SELECT id FROM {t} WHERE pay >= (SELECT avg(pay) FROM {t})"),
    Case::new(
        "correlated sub-query",
        "SELECT a.id FROM {t} AS a WHERE a.pay = (SELECT max(b.pay) FROM {t} AS b WHERE b.region = a.region)",
    ),
    Case::new("IN", "SELECT id FROM {t} WHERE person IN (SELECT person FROM {t} WHERE pay > 7000000000)"),
    Case::new("IN of one value", "SELECT 1 AS one WHERE 3 IN (SELECT person FROM {t})"),
    Case::new("NOT IN", "SELECT id FROM {t} WHERE id NOT IN (SELECT id FROM {t} WHERE pay > 300)"),
    Case::new("ALL", "SELECT id FROM {t} WHERE id >= ALL (SELECT id FROM {t})").unsure(),
    Case::new("sub-query in HAVING", "SELECT region, count(*) AS n FROM {t} GROUP BY region HAVING count(*) > (SELECT count(*) / 4 FROM {t})").sums(),
    Case::new("sub-query in ORDER BY", "SELECT id FROM {t} ORDER BY (SELECT max(pay) FROM {t}), id LIMIT 7").answered(),
    Case::new("sub-query in GROUP BY", "SELECT count(*) AS n FROM {t} GROUP BY region, (SELECT min(id) FROM {t})").answered(),
    Case::new("sub-query in ON", "SELECT a.id FROM {t} AS a JOIN {t} AS b ON a.id = b.id AND b.pay < (SELECT max(pay) FROM {t})").answered(),
    Case::new("sub-query in CASE", "SELECT id, CASE WHEN pay < (SELECT max(pay) FROM {t}) THEN 'less' ELSE 'most' END AS s FROM {t}"),
    Case::new("sub-query in VALUES", "SELECT v.n FROM (VALUES ((SELECT count(*) FROM {t}))) AS v (n)").unsure(),
    Case::new("sub-query in a call", "SELECT concat('n', CAST((SELECT count(*) FROM {t}) AS TEXT)) AS c").sums(),
    Case::new("sub-query in FILTER", "SELECT count(*) FILTER (WHERE id > (SELECT min(id) FROM {t})) AS n FROM {t}").answered(),
    Case::new("EXISTS", "SELECT 1 AS one WHERE EXISTS (SELECT 1 FROM {t} WHERE pay > 7000000000)"),
    Case::new("EXISTS in SELECT", "SELECT EXISTS (SELECT 1 FROM {t} WHERE region LIKE 'zz%') AS e").looks_at_all().unsure(),
    Case::new("EXISTS of each", "SELECT a.id FROM {t} AS a WHERE EXISTS (SELECT 1 FROM {t} AS b WHERE b.person = a.person AND b.id > a.id)"),
    Case::new("NOT EXISTS", "SELECT a.id FROM {t} AS a WHERE NOT EXISTS (SELECT 1 FROM {t} AS b WHERE b.id = a.id + 1)"),
    // Common table expressions, set operations, LATERAL, joins.
    Case::new("CTE", "WITH c AS (SELECT * FROM {t}) SELECT c.mail, c.pay FROM c"),
    Case::new("CTE of a CTE", "WITH c AS (SELECT * FROM {t}), d AS (SELECT id, region FROM c) SELECT * FROM d"),
    Case::new("CTE with the table's name", "WITH {t} AS (SELECT id, mail FROM {t}) SELECT * FROM {t}").unsure(),
    Case::new("CTE with groups", "WITH c AS (SELECT person, count(*) AS n FROM {t} GROUP BY person) SELECT a.person, b.n FROM c AS a JOIN c AS b ON a.person = b.person").sums(),
    Case::new("recursive CTE", "WITH RECURSIVE r AS (SELECT id FROM {t} UNION ALL SELECT id + 1000 FROM r WHERE id < 900) SELECT id FROM r").fails("ATT-2002"),
    Case::new("UNION ALL", "SELECT mail FROM {t} UNION ALL SELECT region FROM {t}"),
    Case::new("UNION", "SELECT region FROM {t} UNION SELECT item FROM {t}"),
    Case::new("EXCEPT", "SELECT region FROM {t} EXCEPT SELECT 'north'"),
    Case::new("INTERSECT", "SELECT person FROM {t} INTERSECT SELECT id FROM {t}"),
    Case::new("LATERAL", "SELECT x.m FROM {t} AS a, LATERAL (SELECT a.mail AS m) AS x").unsure(),
    Case::new("LATERAL groups", "SELECT a.id, x.n FROM {t} AS a CROSS JOIN LATERAL (SELECT count(*) AS n FROM {t} AS b WHERE b.person = a.person) AS x").unsure(),
    Case::new("self join", "SELECT a.mail AS one, b.mail AS other FROM {t} AS a JOIN {t} AS b ON a.id = b.id + 1"),
    Case::new("anti join", "SELECT a.id FROM {t} AS a LEFT JOIN {t} AS b ON a.id = b.id + 2 WHERE b.id IS NULL"),
    Case::new("full join", "SELECT count(*) AS n FROM {t} AS a FULL JOIN {t} AS b ON a.id = b.id + 1"),
    Case::new("cross join", "SELECT count(*) AS n FROM {t} AS a CROSS JOIN {t} AS b"),
    Case::new("join by a card", "SELECT count(*) AS n FROM {t} AS a JOIN {t} AS b ON a.card = b.card"),
    Case::new("fuzzy join", "SELECT a.id, b.id AS other FROM {t} AS a JOIN {t} AS b ON levenshtein_within(a.mail, b.mail, 1) AND a.id < b.id"),
    // Windows, orders and limits.
    Case::new("row_number", "SELECT id, row_number() OVER (ORDER BY pay DESC, id) AS r FROM {t}"),
    Case::new("lag and sum", "SELECT id, lag(mail) OVER (ORDER BY id) AS l, sum(pay) OVER (PARTITION BY region) AS s FROM {t}"),
    Case::new("ntile and rank", "SELECT id, ntile(4) OVER (ORDER BY id) AS q, rank() OVER (PARTITION BY region ORDER BY id) AS r FROM {t}"),
    Case::new("window frame", "SELECT id, sum(pay) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s FROM {t}"),
    Case::new("window of a card", "SELECT id, lag(card) OVER (ORDER BY id) AS l FROM {t}").shows(),
    Case::new("greatest first", "SELECT id FROM {t} ORDER BY pay DESC, id LIMIT 3 OFFSET 1"),
    Case::new("order by a card", "SELECT id FROM {t} ORDER BY card, id LIMIT 5").shows(),
    Case::new("DISTINCT ON", "SELECT DISTINCT ON (region) region, id FROM {t} ORDER BY region, id DESC"),
    // Counts, statistics and what files know of themselves.
    Case::new("count", "SELECT count(*) AS n FROM {t}").sums(),
    Case::new("count of a column", "SELECT count(mail) AS n, count(id) AS m FROM {t}").sums(),
    Case::new("least and greatest", "SELECT count(*) AS n, min(pay) AS a, max(pay) AS b, min(mail) AS c, max(mail) AS d FROM {t}"),
    Case::new("greatest card", "SELECT max(card) AS c FROM {t}").shows(),
    Case::new("statistics", "SELECT approx_distinct(mail) AS n, median(pay) AS m, count(DISTINCT region) AS r FROM {t}"),
    Case::new("groups", "SELECT region, count(*) AS n, sum(id) AS s FROM {t} GROUP BY region").groups(),
    Case::new("groups of a hidden region", "SELECT region, count(*) AS n FROM {t} GROUP BY region HAVING region LIKE 'zz%'").groups(),
    Case::new("small groups", "SELECT person, count(*) AS n FROM {t} GROUP BY person").sums(),
    Case::new("groups by a card", "SELECT count(*) AS n FROM {t} GROUP BY card").sums(),
    Case::new("groups with their card", "SELECT card, count(*) AS n FROM {t} GROUP BY card").shows().sums(),
    Case::new("cards counted", "SELECT count(DISTINCT card) AS n, count(card) AS m FROM {t}").sums(),
    Case::new("ROLLUP", "SELECT region, count(*) AS n FROM {t} GROUP BY ROLLUP (region)").sums(),
    Case::new("GROUPING SETS", "SELECT region, item, count(*) AS n FROM {t} GROUP BY GROUPING SETS ((region), (item))").sums(),
    Case::new("FILTER", "SELECT sum(id) FILTER (WHERE pay > 7000000000) AS s, count(*) AS n FROM {t}"),
    Case::new("array_agg", "SELECT array_agg(mail ORDER BY id) AS a FROM {t}"),
    Case::new("string_agg", "SELECT string_agg(region, ',' ORDER BY id) AS a FROM {t}"),
    Case::new("first_value", "SELECT first_value(mail ORDER BY id DESC) AS a FROM {t}"),
    Case::new("an array", "SELECT unnest(make_array(mail, region)) AS u FROM {t}"),
    Case::new("an array with a card", "SELECT unnest(make_array(card, 'x')) AS u FROM {t}").shows(),
    Case::new("anonymity", "SELECT k_anonymity(region) AS k, l_diversity(item, region) AS l FROM {t}"),
    // Probes: one condition after another, and what may fail on a row that is not seen.
    Case::new("LIKE", "SELECT id FROM {t} WHERE mail LIKE 'zz%'"),
    Case::new("LIKE in the middle", "SELECT id FROM {t} WHERE mail LIKE '%secret%'"),
    Case::new("LIKE a card", "SELECT id FROM {t} WHERE card LIKE 'zz%'"),
    Case::new("pattern", "SELECT id FROM {t} WHERE mail ~ '^z+.s'"),
    Case::new("SIMILAR TO", "SELECT id FROM {t} WHERE mail SIMILAR TO 'z%'"),
    Case::new("length", "SELECT id FROM {t} WHERE length(mail) > 13"),
    Case::new("greater", "SELECT id FROM {t} WHERE pay > 7000000000"),
    Case::new("BETWEEN", "SELECT count(*) AS n FROM {t} WHERE pay BETWEEN 7000000000 AND 7999999999").sums(),
    Case::new("an equal id", "SELECT mail FROM {t} WHERE id = 3"),
    Case::new("some ids", "SELECT mail FROM {t} WHERE id IN (2, 3, 7, 66)"),
    Case::new("either", "SELECT id FROM {t} WHERE pay > 7000000000 OR region LIKE 'zz%'"),
    Case::new("a long computation", "SELECT id FROM {t} WHERE CASE WHEN pay > 7000000000 THEN length(repeat(mail, 100)) > 0 ELSE FALSE END"),
    Case::new("division", "SELECT sum(1 / (person - 3)) AS s FROM {t}"),
    Case::new("division in WHERE", "SELECT id FROM {t} WHERE 1 / (pay - 7770000003) <= 0"),
    Case::new("division in CASE", "SELECT id FROM {t} WHERE CASE WHEN region LIKE 'zz%' THEN 1 / (id - id) ELSE 1 END = 1"),
    Case::new("division of a group", "SELECT region, 1 / (count(*) - 20) AS q FROM {t} WHERE region LIKE 'zz%' GROUP BY region").sums(),
    Case::new("cast", "SELECT CAST(mail AS BIGINT) AS n FROM {t}").fails("ATT-3001"),
    Case::new("cast that may fail", "SELECT TRY_CAST(mail AS BIGINT) AS n FROM {t}"),
    Case::new("cast of a card", "SELECT CAST(substr(card, 2) AS BIGINT) AS c FROM {t}").shows(),
    Case::new("cast of a card in WHERE", "SELECT id FROM {t} WHERE CAST(substr(card, 2) AS BIGINT) = 3").shows(),
    Case::new("narrow number", "SELECT arrow_cast(pay, 'Int32') AS p FROM {t}"),
    Case::new("a card beside others", "SELECT upper(card) AS c, card = 'k1' AS e FROM {t}").shows(),
    Case::new("no such column", "SELECT nothing FROM {t}").fails("ATT-2001"),
    // Functions that read tables by their names.
    Case::new("sample", "SELECT * FROM propose_tags('{t}')").looks_at_all().answered(),
    Case::new("hierarchy", "SELECT generalize('zz-' || 'secret-3@zz.org', 'main.{t}_ladder', 1) AS g").answered(),
    Case::new("anonymize", "SELECT * FROM anonymize((SELECT region, item FROM {t}), quasi_identifiers => 'region', insensitive => 'item', k => 2)").answered(),
    Case::new("anonymize_report", "SELECT * FROM anonymize_report((SELECT region, item FROM {t}), quasi_identifiers => 'region', insensitive => 'item', k => 2)").answered(),
    Case::new("clean", "SELECT * FROM clean((SELECT id, region, mail FROM {t}), key => 'id')").unsure(),
    Case::new("clean_changes", "SELECT * FROM clean_changes((SELECT id, region, mail FROM {t}), key => 'id', emails => 'mail')").unsure(),
];

/// Statements that are prepared, and values of `$1` with which they are run.
pub const PREPARED: &[(Case, [i64; 2])] = &[
    (Case::new("prepared: rows of a person", "SELECT id, mail FROM {t} WHERE person = $1"), [3, 4]),
    (
        Case::new("prepared: how many pay more", "SELECT count(*) AS n FROM {t} WHERE pay > $1")
            .sums(),
        [7_000_000_000, 100],
    ),
    (
        Case::new("prepared: division", "SELECT id FROM {t} WHERE 1 / (pay - $1) <= 0"),
        [7_770_000_003, -1],
    ),
    (Case::new("prepared: a card", "SELECT card FROM {t} WHERE id = $1").shows(), [3, 4]),
];

/// What is known of a table beside its rows.
pub const METADATA: &[&str] = &[
    "SELECT name, position, type FROM system.columns WHERE \"table\" = '{t}'",
    "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{t}'",
    "SELECT kind FROM system.tables WHERE name = '{t}'",
    "SELECT table_type FROM information_schema.tables WHERE table_name = '{t}'",
];

/// The same as clients of PostgreSQL ask.
pub const METADATA_OF_POSTGRES: &[&str] = &[
    "SELECT relname, reltuples, relpages, relnatts FROM pg_class WHERE relname = '{t}'",
    "SELECT a.attname FROM pg_attribute AS a JOIN pg_class AS c ON a.attrelid = c.oid WHERE c.relname = '{t}'",
    "SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = '{t}'",
    "SELECT * FROM pg_stats WHERE tablename = '{t}'",
    "SELECT pg_relation_size('{t}'::regclass) AS n",
];

/// What is told of tables and statements, in which there is no secret.
pub const LISTINGS: &[&str] = &[
    "DESCRIBE {t}",
    "SHOW TABLES",
    "SELECT * FROM system.tables",
    "SELECT * FROM system.columns",
    "SELECT * FROM system.policies",
    "SELECT * FROM system.consents",
    "SELECT * FROM system.privacy_policies",
    "SELECT * FROM system.subjects",
    "SELECT * FROM system.checks",
    "SELECT * FROM system.models",
    "SELECT * FROM system.queries",
    "SELECT * FROM system.grants",
];

/// How a statement is shown; what it counts is what is seen.
pub const EXPLAINED: &[&str] = &[
    "EXPLAIN SELECT count(*) AS n FROM {t} WHERE id = 3",
    "EXPLAIN VERBOSE SELECT id, mail FROM {t} WHERE pay > 7000000000",
    "EXPLAIN ANALYZE SELECT count(*) AS n FROM {t}",
    "EXPLAIN ANALYZE SELECT id FROM {t} WHERE mail LIKE 'zz%'",
    "EXPLAIN ANALYZE VERBOSE SELECT region, count(*) AS n FROM {t} GROUP BY region ORDER BY region",
];

/// Plans that may not depend on the number, because only what is hidden does.
pub const SHAPES: &[&str] = &[
    "EXPLAIN SELECT count(*) AS n FROM {t} WHERE pay >= {n}",
    "EXPLAIN SELECT region, count(*) AS n FROM {t} WHERE pay >= {n} GROUP BY region ORDER BY region",
];

/// The same of a table that gives private statistics alone.
pub const PRIVATE_SHAPES: &[&str] = &[
    "EXPLAIN SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = .1, privacy_unit_column = person) \
     COUNT(*, contribution_bounds_per_group => (0, 10)) FROM {t} WHERE pay >= {n}",
];

/// Numbers of as many digits: below all payments of hidden persons, between them, above all.
pub const NUMBERS: [&str; 3] = ["1000000000", "7779000001", "7999999999"];
