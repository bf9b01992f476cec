//! Kinds of policies, a table under each, and the table that never had what it hides.

/// What a kind takes away, by which it is known what a statement has to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Rows of some persons.
    Rows,
    /// Values of some columns, which have others in their place.
    Values,
    /// A column that may be used, from what is shown.
    Showing,
    /// Rows one by one: groups are left.
    SingleRows,
    /// A column.
    Columns,
    /// All rows: private statistics are left.
    Everything,
}

/// A kind of policy.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The table under it.
    pub table: &'static str,
    /// The table that never had what it hides.
    pub oracle: &'static str,
    /// What it takes away.
    pub takes: Takes,
    /// In which rows of the table the values of `mail`, `card` and `pay` are secrets.
    pub secret_where: &'static str,
    /// Parts of what nobody may be told.
    pub secrets: &'static [&'static str],
    /// What a policy_admin says to bring it into force.
    pub policies: &'static [&'static str],
}

/// The persons who are hidden, whose region, cards, mails, payments and items are nobody else's.
pub const HIDDEN: &str = "person IN (3, 7)";
/// Parts of what is theirs alone.
pub const OF_HIDDEN: &[&str] = &["zz-", "77700000", "77790000"];
/// How many rows a table has, and how many of them others than the hidden persons have.
pub const ROWS: usize = 70;
pub const ROWS_SEEN: usize = 50;

/// Every kind.
pub const KINDS: &[Kind] = &[
    Kind {
        table: "g_row",
        oracle: "o_rows",
        takes: Takes::Rows,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &["CREATE ROW ACCESS POLICY elsewhere ON main.g_row USING (region <> 'zz-land')"],
    },
    Kind {
        table: "g_mask",
        oracle: "o_mask",
        takes: Takes::Values,
        secret_where: "TRUE",
        secrets: &["zz-secret", "77700000", "77790000"],
        policies: &[
            "CREATE MASKING POLICY veil ON main.g_mask (mail) USING regexp_replace(mail, '^[^@]+', '*')",
            "CREATE MASKING POLICY coarse ON main.g_mask (pay) \
             USING CASE WHEN person < 6 THEN pay % 100 ELSE NULL END",
        ],
    },
    Kind {
        table: "g_card",
        oracle: "o_card",
        takes: Takes::Showing,
        secret_where: "TRUE",
        secrets: &["zz-card"],
        policies: &["CREATE PROJECTION POLICY kept ON main.g_card (card)"],
    },
    Kind {
        table: "g_group",
        oracle: "o_rows",
        takes: Takes::SingleRows,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &["CREATE AGGREGATION POLICY crowds ON main.g_group (person) MIN_GROUP_SIZE 3"],
    },
    Kind {
        table: "g_consent",
        oracle: "o_rows",
        takes: Takes::Rows,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &["CREATE CONSENT POLICY asked ON g_consent (person) \
             USING consents (who, what, given) FOR PURPOSE ads DEFAULT ALLOW"],
    },
    Kind {
        table: "g_restrict",
        oracle: "o_rows",
        takes: Takes::Rows,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &[
            "CREATE SUBJECT someone KEY (g_restrict.person)",
            "RESTRICT SUBJECT someone '3'",
            "RESTRICT SUBJECT someone '7'",
        ],
    },
    Kind {
        table: "g_column",
        oracle: "o_column",
        takes: Takes::Columns,
        secret_where: "TRUE",
        secrets: &["zz-card"],
        policies: &[],
    },
    Kind {
        table: "g_private",
        oracle: "o_rows",
        takes: Takes::Everything,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &[
            "CREATE PRIVACY POLICY budgeted ON g_private (person) BUDGET (epsilon = 1) PER USER",
        ],
    },
];

/// The tables that never had what is hidden, each with its rows; they come in the same `{part}`s.
pub const ORACLES: &[(&str, &str)] = &[
    ("o_rows", "SELECT * FROM g_row WHERE region <> 'zz-land' AND {part}"),
    (
        "o_mask",
        "SELECT id, person, region, regexp_replace(mail, '^[^@]+', '*') AS mail, card, \
         CASE WHEN person < 6 THEN pay % 100 ELSE NULL END AS pay, item FROM g_mask WHERE {part}",
    ),
    ("o_card", "SELECT * FROM g_card WHERE {part}"),
    ("o_column", "SELECT id, person, region, mail, pay, item FROM g_column WHERE {part}"),
];

impl Kind {
    /// Columns that may be read; nothing where it is all of them.
    pub fn columns(&self) -> &'static str {
        match self.takes {
            Takes::Columns => " (id, person, region, mail, pay, item)",
            _ => "",
        }
    }

    /// Whether somebody's rows are not there.
    pub fn hides_rows(&self) -> bool {
        self.takes == Takes::Rows
    }
}

/// A query of a table's rows with ids from `first` to `last`. Those from 61 on are all of a hidden
/// person, and are to lie in a file of their own.
pub fn rows(secret_where: &str, first: usize, last: usize) -> String {
    format!(
        "SELECT n AS id, person, \
         CASE WHEN {HIDDEN} THEN 'zz-land' WHEN n % 2 = 0 THEN 'north' ELSE 'south' END AS region, \
         CASE WHEN {secret_where} THEN 'zz-secret-' || n || '@zz.org' \
         ELSE 'm' || n || '@a.org' END AS mail, \
         CASE WHEN {secret_where} THEN 'zz-card-' || (n % 6) ELSE 'k' || (n % 6) END AS card, \
         CASE WHEN n > 60 THEN 7779000000 + n WHEN {secret_where} THEN 7770000000 + n \
         ELSE n * 10 END AS pay, \
         CASE WHEN {HIDDEN} THEN 'zz-item-' || (n % 4) ELSE 'i' || (n * 7 % 11) END AS item \
         FROM (SELECT value AS n, CASE WHEN value > 60 THEN 3 ELSE value % 12 END AS person \
         FROM generate_series({first}, {last}) AS s (value)) AS r"
    )
}
