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
struct Making {
    name: &'static str,
    /// What is needed for it.
    before: &'static [&'static str],
    make: &'static str,
    /// Reads of what was made.
    reads: &'static [&'static str],
    expected: fn(&Kind) -> Expect,
}

const MAKINGS: &[Making] = &[
    Making {
        name: "a copy",
        before: &[],
        make: "CREATE TABLE ada.copy_{t} AS SELECT id, person, region, mail, pay, item FROM {t}",
        reads: &["SELECT * FROM ada.copy_{t}", "SELECT count(*) AS n FROM ada.copy_{t}"],
        expected: of_rows,
    },
    Making {
        name: "rows for a table of one's own",
        before: &["CREATE TABLE ada.own_{t} AS SELECT 0 AS id, 'x' AS mail"],
        make: "INSERT INTO ada.own_{t} SELECT id, mail FROM {t}",
        reads: &["SELECT * FROM ada.own_{t}"],
        // A table of one's own has no policy that rows could go on under.
        expected: |kind| match (kind.table, kind.takes) {
            ("g_consent", _) => Refused("ATT-2001"),
            // Nor would persons be found in it.
            ("g_row" | "g_restrict", _) | (_, Takes::Values) => UNSUPPORTED,
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
        expected: of_rows,
    },
    Making {
        name: "a view of one's own",
        before: &[],
        make: "CREATE VIEW ada.view_{t} AS SELECT id, mail, region FROM {t}",
        reads: &["SELECT * FROM ada.view_{t}"],
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
        expected: of_rows,
    },
];

/// A model that is older than a policy.
const LATE_MODEL: &str = "CREATE MODEL ada.model_g_late OPTIONS (model_type = 'item_knn', \
                          user_col = 'person', item_col = 'item', \
                          data_split_method = 'no_split') AS SELECT person, item FROM g_late";

/// What comes of reading rows, without cards, one by one.
fn of_rows(kind: &Kind) -> Expect {
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

impl Findings<'_> {
    /// All ways that make or change something. They leave the tables changed.
    pub(super) async fn changes(&mut self) {
        self.made().await;
        for kind in KINDS {
            match kind.takes {
                Takes::Columns => self.nothing_changes(kind, BY_CARD, Fails).await,
                Takes::Rows if kind.table == "g_restrict" => {}
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
        self.rows_of_restricted_persons_stay().await;
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

    async fn made(&mut self) {
        for making in MAKINGS {
            let mut oracles: HashMap<&str, Vec<Answer>> = HashMap::new();
            for kind in KINDS {
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

    /// Rows of restricted persons are neither changed nor removed, nor counted.
    async fn rows_of_restricted_persons_stay(&mut self) {
        let Some(kind) = KINDS.iter().find(|kind| kind.table == "g_restrict") else { return };
        // A condition that would fail on their rows.
        let probe = "UPDATE {t} SET item = 'gone' WHERE 1 / (person - 3) > 5";
        for change in std::iter::once(&probe).chain(CHANGES) {
            let answer = self.door.change(&change.replace("{t}", kind.table)).await;
            self.judge(kind, change, Open, &answer, None);
            if answer.rows.is_err() {
                self.wrong.push(format!("{change}: {}", answer.said));
            }
        }
        let rows = self.door.ask_one("SELECT id FROM g_restrict").await;
        self.is_empty("rows after TRUNCATE", &rows);
        for person in ["3", "7"] {
            let release = format!("RELEASE SUBJECT someone '{person}' FROM RESTRICTION");
            run(&self.house.dpo, &release).await;
        }
        let stayed = "SELECT id FROM g_restrict WHERE item LIKE 'zz-item-%' AND region = 'zz-land'";
        let stayed = run(&self.house.root, stayed).await;
        if stayed != ROWS - ROWS_SEEN {
            self.wrong.push(format!("{stayed} rows of restricted persons stayed"));
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
