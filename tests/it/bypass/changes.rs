//! Ways that make or change something: copies, models, rows; and policies that come later than
//! what somebody has prepared, copied or trained.

use std::collections::HashMap;

use catalog::ObjectName;

use super::Findings;
use super::cases::{DENIED, Expect, UNSUPPORTED};
use super::doors::Answer;
use super::house::run;
use super::kinds::{HIDDEN, KINDS, Kind, OF_HIDDEN, ROWS, ROWS_SEEN, Takes};

use Expect::{Fails, Open, Refused, Same};

/// A way to make something of a table; `{t}` is the table.
pub struct Making {
    pub name: &'static str,
    /// What is needed for it.
    pub before: &'static [&'static str],
    pub make: &'static str,
    /// Reads of what was made.
    pub reads: &'static [&'static str],
    /// Whether it is tried with a kind.
    pub asked: fn(&Kind) -> bool,
    pub expected: fn(&Kind) -> Expect,
}

const MAKINGS: &[Making] = &[
    Making {
        name: "a copy",
        before: &[],
        make: "CREATE TABLE ada.copy_{t} AS SELECT id, person, region, mail, pay, item, \
               seen FROM {t}",
        reads: &["SELECT * FROM ada.copy_{t}", "SELECT count(*) AS n FROM ada.copy_{t}"],
        asked: |_| true,
        expected: of_rows,
    },
    Making {
        name: "rows for a table of one's own",
        before: &["CREATE TABLE ada.own_{t} AS SELECT 0 AS id, 'x' AS mail"],
        make: "INSERT INTO ada.own_{t} SELECT id, mail FROM {t}",
        reads: &["SELECT * FROM ada.own_{t}"],
        asked: |_| true,
        // A table of one's own has no policy that rows could go on under.
        expected: |kind| match (kind.table, kind.takes) {
            ("g_consent" | "g_optin", _) => Refused("ATT-2001"),
            // Pseudonyms are what anybody may have.
            ("g_apart", _) => Same,
            // Of restricted persons nobody would be found in it.
            (_, Takes::Rows | Takes::Values | Takes::Nothing) => UNSUPPORTED,
            _ => of_rows(kind),
        },
    },
    Making {
        name: "rows of one's own that are removed",
        before: &[
            "CREATE TABLE ada.met_{t} AS SELECT value AS id FROM generate_series(1, 80) AS s (value)",
        ],
        make: "DELETE FROM ada.met_{t} WHERE id IN (SELECT id FROM {t} WHERE pay > 100)",
        reads: &["SELECT * FROM ada.met_{t}"],
        asked: |_| true,
        expected: of_rows,
    },
    Making {
        name: "a view of one's own",
        before: &[],
        make: "CREATE VIEW ada.view_{t} AS SELECT id, mail, region FROM {t}",
        reads: &["SELECT * FROM ada.view_{t}"],
        asked: |_| true,
        expected: |kind| match of_rows(kind) {
            Same => Same,
            _ => Open,
        },
    },
    Making {
        name: "a model",
        before: &[],
        make: "CREATE MODEL ada.model_{t} OPTIONS (model_type = 'item_knn', user_col = 'person', \
               item_col = 'item', data_split_method = 'no_split') AS SELECT person, item FROM {t}",
        reads: &[
            "SELECT DISTINCT person FROM ml_recommend('ada.model_{t}')",
            "SELECT DISTINCT item FROM ml_recommend('ada.model_{t}')",
            "SELECT DISTINCT person FROM ML.RECOMMEND(MODEL ada.model_{t}, \
             (SELECT DISTINCT person FROM {t} WHERE pay > 100), STRUCT(3 AS top_k))",
            "SELECT unnest(ml_similar_items('ada.model_{t}', 'i1', 20))['item'] AS item",
        ],
        asked: |_| true,
        expected: of_rows,
    },
];

/// A model that is older than a policy.
const LATE_MODEL: &str = "CREATE MODEL ada.model_g_late OPTIONS (model_type = 'item_knn', \
                          user_col = 'person', item_col = 'item', \
                          data_split_method = 'no_split') AS SELECT person, item FROM g_late";

/// What comes of reading rows, without cards, one by one.
pub fn of_rows(kind: &Kind) -> Expect {
    match kind.takes {
        Takes::SingleRows => UNSUPPORTED,
        Takes::Everything => DENIED,
        _ => Same,
    }
}

/// Changes of rows that somebody does not see all of.
const CHANGES: &[&str] = &[
    "UPDATE {t} SET item = 'gone'",
    "UPDATE {t} SET item = 'gone' WHERE pay > 7000000000",
    "DELETE FROM {t} WHERE region LIKE 'zz%'",
    "DELETE FROM {t} WHERE id IN (SELECT id FROM {t})",
    "MERGE INTO {t} AS m USING (SELECT 3 AS id) AS s ON m.id = s.id WHEN MATCHED THEN DELETE",
    "TRUNCATE TABLE {t}",
];

/// Changes that only rows would be changed by which somebody does not see.
const OF_HIDDEN_ROWS: &[&str] = &[
    "UPDATE {t} SET item = 'gone' WHERE pay > 7000000000",
    "UPDATE {t} SET item = 'gone' WHERE region LIKE 'zz%' OR 1 / (person - 3) > 5",
    "DELETE FROM {t} WHERE region LIKE 'zz%'",
    "DELETE FROM {t} WHERE id NOT IN (SELECT id FROM {t})",
    "MERGE INTO {t} AS m USING (SELECT 3 AS id) AS s ON m.id = s.id WHEN MATCHED THEN DELETE",
];

/// Changes that would bring hidden values to light, or change what is not seen.
const BY_VALUES: &[&str] = &["UPDATE {t} SET item = mail", "TRUNCATE TABLE {t}"];

/// The same of a column that may be used and not shown.
const BY_SHOWING: &[&str] = &["UPDATE {t} SET item = card", "TRUNCATE TABLE {t}"];

/// Changes by a column that somebody does not see.
const BY_CARD: &[&str] = &[
    "UPDATE {t} SET item = 'gone' WHERE card LIKE 'zz%'",
    "UPDATE {t} SET item = card",
    "UPDATE {t} SET card = 'gone' WHERE substr(card, 1, 2) = 'zz'",
    "DELETE FROM {t} WHERE card <> ''",
    "MERGE INTO {t} AS m USING (SELECT 3 AS id) AS s ON m.id = s.id AND m.card LIKE 'zz%' \
     WHEN MATCHED THEN DELETE",
];

/// Policies of `g_late` one after the other: what ends the one before, what brings the next into
/// force, and what a statement of single rows that was prepared before comes to then.
const LATER: &[(&str, &[&str], Expect)] = &[
    (
        "DROP POLICY late ON main.g_late",
        &["CREATE PROJECTION POLICY late ON main.g_late (mail)"],
        UNSUPPORTED,
    ),
    (
        "DROP POLICY late ON main.g_late",
        &["CREATE AGGREGATION POLICY late ON main.g_late (person) MIN_GROUP_SIZE 3"],
        UNSUPPORTED,
    ),
    (
        "DROP POLICY late ON main.g_late",
        &["CREATE SUBJECT later KEY (g_late.person)", "RESTRICT SUBJECT later '3'"],
        Same,
    ),
    (
        "RELEASE SUBJECT later '3' FROM RESTRICTION",
        &["CREATE RETENTION POLICY late ON main.g_late (seen) KEEP '20 years'"],
        Same,
    ),
    (
        "DROP RETENTION POLICY late ON main.g_late",
        &["CREATE PRIVACY POLICY late ON g_late (person) BUDGET (epsilon = 1) PER USER"],
        DENIED,
    ),
];

impl Findings<'_> {
    /// All ways that make or change something. They leave the tables changed.
    pub(super) async fn changes(&mut self) {
        self.made(MAKINGS, KINDS).await;
        self.learned().await;
        for kind in KINDS {
            match kind.takes {
                _ if kind.is_external() => self.files_stay(kind).await,
                // Who is excepted from policies may change all rows.
                Takes::Nothing => {}
                Takes::Columns => self.nothing_changes(kind, BY_CARD, Fails).await,
                Takes::Rows if ["g_restrict", "g_kept"].contains(&kind.table) => {}
                Takes::Rows => {
                    self.nothing_changes(kind, OF_HIDDEN_ROWS, Open).await;
                    self.nothing_changes(kind, &["TRUNCATE TABLE {t}"], DENIED).await;
                }
                Takes::Values => {
                    self.nothing_changes(kind, BY_VALUES, Fails).await;
                    let by_mask = &OF_HIDDEN_ROWS[..1];
                    self.nothing_changes(kind, by_mask, Open).await;
                }
                Takes::Showing => self.nothing_changes(kind, BY_SHOWING, Fails).await,
                _ => self.nothing_changes(kind, CHANGES, DENIED).await,
            }
        }
        let released =
            ["3", "7"].map(|person| format!("RELEASE SUBJECT someone '{person}' FROM RESTRICTION"));
        self.hidden_rows_stay("g_restrict", &released).await;
        let kept = ["DROP RETENTION POLICY aged ON main.g_kept".to_owned()];
        self.hidden_rows_stay("g_kept", &kept).await;
        self.identifiers_are_for_few().await;
        self.policies_that_come_later().await;
        self.withdrawals_that_come_later().await;
    }

    /// Makes one thing of a table, and reads it.
    async fn making(&mut self, making: &Making, table: &str) -> Vec<Answer> {
        let text = |text: &str| text.replace("{t}", table);
        for before in making.before {
            let told = self.door.change(&text(before)).await;
            if told.rows.is_err() {
                self.wrong.push(format!("{}: {}", text(before), told.said));
            }
        }
        let make = text(making.make);
        // A model that is made is told by a row.
        let made = match make.starts_with("CREATE MODEL") {
            true => self.door.ask_one(&make).await,
            false => self.door.change(&make).await,
        };
        let reads: Vec<String> = making.reads.iter().map(|read| text(read)).collect();
        let mut answers = vec![made];
        answers.extend(self.door.ask(&reads).await);
        answers
    }

    /// Makes things of tables, and reads them.
    pub(super) async fn made(&mut self, makings: &[Making], kinds: &[Kind]) {
        for making in makings {
            let mut oracles: HashMap<&str, Vec<Answer>> = HashMap::new();
            for kind in kinds.iter().filter(|kind| (making.asked)(kind)) {
                let expected = (making.expected)(kind);
                if expected == Same && !oracles.contains_key(kind.oracle) {
                    oracles.insert(kind.oracle, self.making(making, kind.oracle).await);
                }
                let answers = self.making(making, kind.table).await;
                let Some((made, reads)) = answers.split_first() else { continue };
                if expected != Same {
                    self.judge(kind, making.name, expected, made, None);
                }
                if expected == Same && made.rows.is_err() {
                    self.wrong.push(format!("{} {}: {}", kind.table, making.name, made.said));
                }
                for (at, (read, answer)) in making.reads.iter().zip(reads).enumerate() {
                    match expected {
                        Same => {
                            let oracle = (kind.oracle, &oracles[kind.oracle][at + 1]);
                            self.judge(kind, read, Same, answer, Some(oracle));
                        }
                        // What could be made is not read.
                        Open => self.judge(kind, read, Fails, answer, None),
                        _ => self.keeps(kind, read, answer),
                    }
                }
            }
        }
    }

    async fn version(&self, table: &str) -> u64 {
        let name = ObjectName::new("main", table);
        self.house.engine.catalog().table_version(&name).await.unwrap()
    }

    async fn nothing_changes(&mut self, kind: &Kind, changes: &[&str], expected: Expect) {
        let before = self.version(kind.table).await;
        for change in changes {
            let answer = self.door.change(&change.replace("{t}", kind.table)).await;
            self.judge(kind, change, expected, &answer, None);
        }
        if self.version(kind.table).await != before {
            self.wrong.push(format!("{} was changed", kind.table));
        }
    }

    /// Files of a lake are changed by nobody, and no attempt tells what they hold.
    async fn files_stay(&mut self, kind: &Kind) {
        for change in CHANGES.iter().chain(OF_HIDDEN_ROWS) {
            let answer = self.door.change(&change.replace("{t}", kind.table)).await;
            self.judge(kind, change, Fails, &answer, None);
        }
        let rows = format!("SELECT id FROM {}", kind.table);
        let rows = self.door.ask_one(&rows).await;
        let seen = if kind.hides_rows() { ROWS_SEEN } else { ROWS };
        if !rows.rows.as_ref().is_ok_and(|rows| rows.len() == seen) {
            self.wrong.push(format!("{} was changed: {}", kind.table, rows.said));
        }
    }

    /// The table that tells whose pseudonyms there are is no table for who was not given it.
    async fn identifiers_are_for_few(&mut self) {
        let Some(kind) = KINDS.iter().find(|kind| kind.table == "g_apart") else { return };
        for text in [
            "SELECT * FROM main.{t}_pii",
            "SELECT a.id, p.mail FROM {t} AS a JOIN {t}_pii AS p ON a.mail = p.mail_pseudonym",
            "CREATE VIEW ada.who AS SELECT * FROM main.{t}_pii",
            "EXPLAIN ANALYZE SELECT count(*) FROM main.{t}_pii",
        ] {
            let answer = self.door.ask_one(&text.replace("{t}", kind.table)).await;
            self.judge(kind, text, Refused("ATT-4001"), &answer, None);
        }
    }

    /// Rows that nobody sees, of restricted persons or too old, are neither changed nor removed,
    /// nor counted. They are there again after what is `released`.
    async fn hidden_rows_stay(&mut self, table: &str, released: &[String]) {
        let Some(kind) = KINDS.iter().find(|kind| kind.table == table) else { return };
        // A condition that would fail on their rows.
        let probe = "UPDATE {t} SET item = 'gone' WHERE 1 / (person - 3) > 5";
        for change in std::iter::once(&probe).chain(CHANGES) {
            let answer = self.door.change(&change.replace("{t}", table)).await;
            self.judge(kind, change, Open, &answer, None);
            if answer.rows.is_err() {
                self.wrong.push(format!("{table} {change}: {}", answer.said));
            }
        }
        let rows = self.door.ask_one(&format!("SELECT id FROM {table}")).await;
        self.is_empty(&format!("rows of {table} after TRUNCATE"), &rows);
        for text in released {
            run(&self.house.dpo, text).await;
        }
        let stayed =
            format!("SELECT id FROM {table} WHERE item LIKE 'zz-item-%' AND region = 'zz-land'");
        let stayed = run(&self.house.root, &stayed).await;
        if stayed != ROWS - ROWS_SEEN {
            self.wrong.push(format!("{stayed} hidden rows of {table} stayed"));
        }
    }

    fn is_empty(&mut self, what: &str, answer: &Answer) {
        if answer.rows.as_ref() != Ok(&Vec::new()) {
            self.wrong.push(format!("{what}: {}", answer.said));
        }
    }

    /// A statement that was prepared is under the policies of now, as a view is that was there.
    async fn policies_that_come_later(&mut self) {
        let house = self.house;
        house.guarded("g_late", HIDDEN, "").await;
        let late = Kind { table: "g_late", oracle: "o_rows", secrets: OF_HIDDEN, ..KINDS[0] };
        let text = "SELECT id, mail FROM {t} WHERE person = $1";
        let (mut held, mut oracle) = match (
            self.door.hold(&text.replace("{t}", "g_late")).await,
            self.door.hold(&text.replace("{t}", "o_rows")).await,
        ) {
            (Ok(held), Ok(oracle)) => (held, oracle),
            _ => return self.wrong.push("a statement cannot be prepared".into()),
        };
        let first = self.door.run(&mut held, 3).await;
        if !first.said.contains("zz-secret") {
            self.wrong.push(format!("nothing was there to hide: {}", first.said));
        }
        let trained = self.door.ask_one(LATE_MODEL).await;
        if trained.rows.is_err() {
            self.wrong.push(format!("{LATE_MODEL}: {}", trained.said));
        }
        run(&house.dpo, "CREATE ROW ACCESS POLICY late ON main.g_late USING (region <> 'zz-land')")
            .await;
        for value in [3, 4] {
            let answer = self.door.run(&mut held, value).await;
            let known = self.door.run(&mut oracle, value).await;
            let what = "prepared before a row access policy";
            self.judge(&late, what, Same, &answer, Some(("o_rows", &known)));
        }
        let all = "SELECT * FROM {t}_view";
        let answer = self.door.ask_one(&all.replace("{t}", "g_late")).await;
        let known = self.door.ask_one(&all.replace("{t}", "o_rows")).await;
        self.judge(&late, "a view from before", Same, &answer, Some(("o_rows", &known)));
        // A model from before is not asked; retrained, it is as if nothing had been there to hide.
        let told = "SELECT DISTINCT item FROM ml_recommend('ada.model_{t}')";
        for asked in [told, "SELECT * FROM ml_recommend('ada.model_{t}', 3, 5)"] {
            let answer = self.door.ask_one(&asked.replace("{t}", "g_late")).await;
            self.judge(&late, asked, DENIED, &answer, None);
        }
        let trained = self.door.ask_one("RETRAIN MODEL ada.model_g_late").await;
        self.judge(&late, "RETRAIN under a policy", Open, &trained, None);
        let answer = self.door.ask_one(&told.replace("{t}", "g_late")).await;
        let known = self.door.ask_one(&told.replace("{t}", "o_rows")).await;
        self.judge(&late, "a model that was retrained", Same, &answer, Some(("o_rows", &known)));
        run(&house.dpo, "DROP POLICY late ON main.g_late").await;
        run(
            &house.dpo,
            "CREATE MASKING POLICY late ON main.g_late (mail) USING regexp_replace(mail, '^[^@]+', '*')",
        )
        .await;
        let masked = Kind { secrets: &["zz-secret"], ..late };
        let answer = self.door.run(&mut held, 3).await;
        self.judge(&masked, "prepared before a mask", Open, &answer, None);
        if !answer.said.contains("*@zz.org") {
            self.wrong.push(format!("no mask is told: {}", answer.said));
        }
        for (drop, make, expected) in LATER {
            run(&house.dpo, drop).await;
            let answer = self.door.run(&mut held, 3).await;
            if !answer.said.contains("zz-secret") {
                self.wrong.push(format!("still hidden after {drop}: {}", answer.said));
            }
            for text in *make {
                run(&house.dpo, text).await;
            }
            for value in [3, 4] {
                let answer = self.door.run(&mut held, value).await;
                let known = self.door.run(&mut oracle, value).await;
                let what = format!("prepared before {}", make.join("; "));
                self.judge(&late, &what, *expected, &answer, Some(("o_rows", &known)));
            }
        }
        run(&house.root, "REVOKE SELECT ON g_late FROM ROLE analyst").await;
        let answer = self.door.run(&mut held, 3).await;
        self.judge(&late, "prepared before a revoke", Fails, &answer, None);
    }

    /// Who withdraws is gone from what was prepared, copied and trained before, in each version.
    async fn withdrawals_that_come_later(&mut self) {
        let text = "SELECT id FROM g_consent WHERE person = $1";
        let Ok(mut held) = self.door.hold(text).await else {
            return self.wrong.push("a statement cannot be prepared".into());
        };
        let rows = self.door.run(&mut held, 5).await;
        if rows.rows.is_ok_and(|rows| rows.is_empty()) {
            self.wrong.push("nobody was there to withdraw".into());
        }
        let trained = self.door.ask_one("RETRAIN MODEL ada.model_g_consent").await;
        if trained.rows.is_err() {
            self.wrong.push(format!("RETRAIN: {}", trained.said));
        }
        run(&self.house.root, "INSERT INTO consents VALUES (5, 'ads', FALSE)").await;
        let rows = self.door.run(&mut held, 5).await;
        self.is_empty("prepared before a withdrawal", &rows);
        // A consent that was opted in holds until it is taken back, and what was taken back for a
        // time that is over does not count.
        let Ok(mut opted) = self.door.hold("SELECT id FROM g_optin WHERE person = $1").await else {
            return self.wrong.push("a statement cannot be prepared".into());
        };
        for (person, ends, stays) in
            [(5, "NULL", false), (6, "TIMESTAMP '2022-01-01 00:00:00'", true)]
        {
            let before = self.door.run(&mut opted, person).await;
            if before.rows.as_ref().is_ok_and(Vec::is_empty) {
                self.wrong.push(format!("{person} had not opted in"));
            }
            let since = "TIMESTAMP '2021-01-01 00:00:00'";
            let taken =
                format!("INSERT INTO permits VALUES ({person}, 'ads', FALSE, {since}, {ends})");
            run(&self.house.root, &taken).await;
            let rows = self.door.run(&mut opted, person).await;
            if !stays {
                self.is_empty(&format!("prepared before {taken}"), &rows);
            } else if rows.rows != before.rows {
                self.wrong.push(format!("{taken}: {}", rows.said));
            }
        }
        let mut reads = vec![
            "SELECT id FROM ada.copy_g_consent WHERE person = 5".to_owned(),
            "SELECT id FROM ada.view_g_consent WHERE id IN (5, 17, 29, 41, 53)".to_owned(),
            "SELECT id FROM g_consent VERSION AS OF 0 WHERE person = 5".to_owned(),
        ];
        for model in ["ada.model_g_consent", "ada.model_g_consent@1", "ada.model_g_consent@2"] {
            reads.push(format!("SELECT person FROM ml_recommend('{model}') WHERE person = 5"));
            reads.push(format!("SELECT item FROM ml_recommend('{model}', 5, 3)"));
        }
        for (read, answer) in reads.iter().zip(&self.door.ask(&reads).await) {
            self.is_empty(read, answer);
        }
    }
}
