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
    /// Nothing: its policies except a role of who asks.
    Nothing,
}

/// Where the rows of a table lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    /// In the warehouse.
    Warehouse,
    /// In Parquet files of a lake.
    Parquet,
    /// In CSV files of a lake.
    Csv,
    /// In Parquet files of a lake, of which identifiers are kept apart.
    Apart,
}

/// The key of pseudonyms.
pub const KEY: &str = "web";

impl Lies {
    /// The statement that makes a table over the files in the lake's folder of its name.
    pub fn external(self, table: &str) -> String {
        let (format, more) = match self {
            Self::Csv => ("CSV", " OPTIONS (has_header 'true')".to_owned()),
            Self::Apart => ("PARQUET", format!(" WITH (pii = 'mail, card', pii_key = '{KEY}')")),
            Self::Warehouse | Self::Parquet => ("PARQUET", String::new()),
        };
        format!("CREATE EXTERNAL TABLE {table} STORED AS {format} LOCATION '{table}/'{more}")
    }
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
    /// Where its rows lie, and those of the oracle.
    pub lies: Lies,
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
        lies: Lies::Warehouse,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &["CREATE ROW ACCESS POLICY elsewhere ON main.g_row USING (region <> 'zz-land')"],
    },
    Kind {
        table: "g_mask",
        oracle: "o_mask",
        takes: Takes::Values,
        lies: Lies::Warehouse,
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
        lies: Lies::Warehouse,
        secret_where: "TRUE",
        secrets: &["zz-card"],
        policies: &["CREATE PROJECTION POLICY kept ON main.g_card (card)"],
    },
    Kind {
        table: "g_group",
        oracle: "o_rows",
        takes: Takes::SingleRows,
        lies: Lies::Warehouse,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &["CREATE AGGREGATION POLICY crowds ON main.g_group (person) MIN_GROUP_SIZE 3"],
    },
    Kind {
        table: "g_consent",
        oracle: "o_rows",
        takes: Takes::Rows,
        lies: Lies::Warehouse,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &["CREATE CONSENT POLICY asked ON g_consent (person) \
             USING consents (who, what, given) FOR PURPOSE ads DEFAULT ALLOW"],
    },
    Kind {
        table: "g_restrict",
        oracle: "o_rows",
        takes: Takes::Rows,
        lies: Lies::Warehouse,
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
        lies: Lies::Warehouse,
        secret_where: "TRUE",
        secrets: &["zz-card"],
        policies: &[],
    },
    Kind {
        table: "g_private",
        oracle: "o_rows",
        takes: Takes::Everything,
        lies: Lies::Warehouse,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &[
            "CREATE PRIVACY POLICY budgeted ON g_private (person) BUDGET (epsilon = 1) PER USER",
        ],
    },
    Kind {
        table: "g_tag",
        oracle: "o_tag",
        takes: Takes::Values,
        lies: Lies::Warehouse,
        secret_where: "TRUE",
        secrets: &["zz-secret", "77700000", "77790000"],
        policies: &[
            "ALTER TABLE main.g_tag ALTER COLUMN mail SET TAG 'pii.letter'",
            "ALTER TABLE main.g_tag ALTER COLUMN pay SET TAG 'money'",
            "CREATE MASKING POLICY letters ON TAG 'pii.letter' \
             USING regexp_replace(value, '^[^@]+', '*')",
            "CREATE MASKING POLICY amounts ON TAG 'money' USING value % 100",
        ],
    },
    Kind {
        table: "g_optin",
        oracle: "o_rows",
        takes: Takes::Rows,
        lies: Lies::Warehouse,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &["CREATE CONSENT POLICY opted ON g_optin (person) \
             USING permits (who, what, given, starts, ends) FOR PURPOSE ads DEFAULT DENY"],
    },
    Kind {
        table: "g_kept",
        oracle: "o_rows",
        takes: Takes::Rows,
        lies: Lies::Warehouse,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &["CREATE RETENTION POLICY aged ON main.g_kept (seen) KEEP '20 years'"],
    },
    Kind {
        table: "g_lake",
        oracle: "o_lake",
        takes: Takes::Rows,
        lies: Lies::Parquet,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &[
            "CREATE ROW ACCESS POLICY elsewhere ON main.g_lake USING (region <> 'zz-land')",
        ],
    },
    Kind {
        table: "g_csv",
        oracle: "o_csv",
        takes: Takes::Rows,
        lies: Lies::Csv,
        secret_where: HIDDEN,
        secrets: OF_HIDDEN,
        policies: &["CREATE ROW ACCESS POLICY elsewhere ON main.g_csv USING (region <> 'zz-land')"],
    },
    Kind {
        table: "g_apart",
        oracle: "o_apart",
        takes: Takes::Values,
        lies: Lies::Apart,
        secret_where: "TRUE",
        secrets: &["zz-secret", "zz-card"],
        policies: &[],
    },
    Kind {
        table: "g_except",
        oracle: "o_except",
        takes: Takes::Nothing,
        lies: Lies::Warehouse,
        secret_where: HIDDEN,
        secrets: &[],
        policies: &[
            "CREATE ROW ACCESS POLICY elsewhere ON main.g_except USING (region <> 'zz-land') \
             EXCEPT ROLE trusted",
            "CREATE MASKING POLICY veil ON main.g_except (mail) USING '*' EXCEPT ROLE trusted",
            "CREATE PROJECTION POLICY kept ON main.g_except (card) EXCEPT ROLE trusted",
        ],
    },
];

/// The tables that never had what is hidden, where they lie, and their rows; they come in the same
/// `{part}`s.
pub const ORACLES: &[(&str, Lies, &str)] = &[
    ("o_rows", Lies::Warehouse, "SELECT * FROM g_row WHERE region <> 'zz-land' AND {part}"),
    (
        "o_mask",
        Lies::Warehouse,
        "SELECT id, person, region, regexp_replace(mail, '^[^@]+', '*') AS mail, card, \
         CASE WHEN person < 6 THEN pay % 100 ELSE NULL END AS pay, item, seen \
         FROM g_mask WHERE {part}",
    ),
    (
        "o_tag",
        Lies::Warehouse,
        "SELECT id, person, region, regexp_replace(mail, '^[^@]+', '*') AS mail, card, \
         pay % 100 AS pay, item, seen FROM g_tag WHERE {part}",
    ),
    ("o_card", Lies::Warehouse, "SELECT * FROM g_card WHERE {part}"),
    (
        "o_column",
        Lies::Warehouse,
        "SELECT id, person, region, mail, pay, item, seen FROM g_column WHERE {part}",
    ),
    ("o_lake", Lies::Parquet, "SELECT * FROM g_lake WHERE region <> 'zz-land' AND {part}"),
    ("o_csv", Lies::Csv, "SELECT * FROM g_csv WHERE region <> 'zz-land' AND {part}"),
    // A table of the same rows whose identifiers are not kept apart yet.
    (
        "o_apart",
        Lies::Parquet,
        "SELECT id, person, region, pseudonymize(mail, 'web') AS mail, \
         pseudonymize(card, 'web') AS card, pay, item, seen FROM g_tag WHERE {part}",
    ),
    ("o_except", Lies::Warehouse, "SELECT * FROM g_except WHERE {part}"),
];

impl Kind {
    /// Columns that may be read; nothing where it is all of them.
    pub fn columns(&self) -> &'static str {
        match self.takes {
            Takes::Columns => " (id, person, region, mail, pay, item, seen)",
            _ => "",
        }
    }

    /// Whether somebody's rows are not there.
    pub fn hides_rows(&self) -> bool {
        self.takes == Takes::Rows
    }

    /// Whether nothing is known of the scan below its policies.
    pub fn hides_scans(&self) -> bool {
        !matches!(self.takes, Takes::Columns | Takes::Nothing)
    }

    /// Whether its rows lie in files that are not Attune's to write.
    pub fn is_external(&self) -> bool {
        self.lies != Lies::Warehouse
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
         CASE WHEN {HIDDEN} THEN 'zz-item-' || (n % 4) ELSE 'i' || (n * 7 % 11) END AS item, \
         CASE WHEN {HIDDEN} THEN TIMESTAMP '1990-01-01 00:00:00' \
         ELSE TIMESTAMP '2023-01-01 00:00:00' END AS seen \
         FROM (SELECT value AS n, CASE WHEN value > 60 THEN 3 ELSE value % 12 END AS person \
         FROM generate_series({first}, {last}) AS s (value)) AS r"
    )
}
