//! The bypass suite: whatever way somebody asks, what a policy forbids appears nowhere, and what it
//! allows is what a lake would answer that never had the rest.
//!
//! [`cases`] are the ways to ask, [`kinds`] the policies with a table under each, [`doors`] the
//! protocols. Each way is asked of each table through each door, and of the table that never had
//! what the policy hides: both have to come to the same, and nothing that is said holds a part of a
//! secret. [`changes`] are the ways that make something, [`learned`] models and what they tell;
//! [`random`] makes queries and policies up.

mod cases;
mod changes;
mod doors;
mod house;
mod kinds;
mod learned;
mod random;

use std::collections::{BTreeMap, HashMap};

use self::cases::{
    CASES, Case, EXPLAINED, Expect, LISTINGS, METADATA, METADATA_OF_POSTGRES, NUMBERS, PREPARED,
    PRIVATE_SHAPES, SHAPES,
};
use self::doors::{Answer, Door};
use self::house::House;
use self::kinds::{KINDS, Kind, Lies, ROWS, Takes};
use crate::clients::install::installed;

/// Debug builds use much stack for deeply nested plans; the program gives its threads 8 MiB.
const STACK_BYTES: usize = 64 << 20;
/// An error ends a run of the program: of the ways that fail it is asked every so many.
const EACH_FAILING: usize = 4;

/// What was found at one door.
struct Findings<'a> {
    house: &'a House,
    door: Door,
    wrong: Vec<String>,
    /// What the tables that never had the hidden answer, by the place of the case.
    oracles: HashMap<&'static str, BTreeMap<usize, Answer>>,
    /// How many cases were asked of a kind whose oracle may fail, and how many it answered.
    asked: usize,
    answered: usize,
}

impl<'a> Findings<'a> {
    fn new(house: &'a House, door: Door) -> Self {
        let (wrong, oracles) = (Vec::new(), HashMap::new());
        Self { house, door, wrong, oracles, asked: 0, answered: 0 }
    }

    /// Notes what an answer tells of secrets.
    fn keeps(&mut self, kind: &Kind, what: &str, answer: &Answer) {
        for secret in kind.secrets.iter().filter(|secret| answer.said.contains(*secret)) {
            let Answer { said, .. } = answer;
            self.wrong.push(format!("{} {what}: tells {secret}\n{said}", kind.table));
        }
    }

    /// Notes what is wrong with an answer; `oracle` is the other table's, of that name.
    fn judge(
        &mut self,
        kind: &Kind,
        what: &str,
        expected: Expect,
        answer: &Answer,
        oracle: Option<(&str, &Answer)>,
    ) {
        self.keeps(kind, what, answer);
        let found = answer.plain(kind.table);
        let known = oracle.map(|(name, answer)| answer.plain(name));
        let right = match expected {
            Expect::Same => known.as_ref() == Some(&found) && found.is_ok(),
            Expect::Alike => known.as_ref() == Some(&found),
            Expect::Open => true,
            Expect::Refused(code) => found.as_ref().err().is_some_and(|found| found == code),
            Expect::Fails => found.is_err(),
        };
        if expected == Expect::Alike {
            self.asked += 1;
            self.answered += usize::from(found.is_ok());
        }
        if !right {
            let told = &answer.said;
            let oracle = oracle.map_or("", |(_, answer)| answer.said.as_str());
            let table = kind.table;
            self.wrong.push(format!("{table} {what}: {expected:?}\n{told}\noracle: {oracle}"));
        }
    }

    /// Fails when anything was found, or next to nothing was compared.
    fn end(self) {
        let (wrong, asked, answered) = (self.wrong, self.asked, self.answered);
        assert!(wrong.is_empty(), "{} wrong\n\n{}", wrong.len(), wrong.join("\n\n"));
        assert!(answered * 10 >= asked * 6, "{answered} of {asked} were answered");
    }

    /// Whether a case is asked at this door: what fails costs a run of the program.
    fn asks(&self, at: usize, fails: bool) -> bool {
        !fails || !self.door.is_program() || at.is_multiple_of(EACH_FAILING)
    }

    /// Asks the table that never had what others hide.
    async fn oracle(&mut self, table: &'static str) {
        let cases = CASES.iter().enumerate();
        let asked: Vec<(usize, &Case)> =
            cases.filter(|(at, case)| self.asks(*at, case.may_fail())).collect();
        let texts: Vec<String> =
            asked.iter().map(|(_, case)| case.text.replace("{t}", table)).collect();
        let answers = self.door.ask(&texts).await;
        for ((_, case), answer) in asked.iter().zip(&answers) {
            let told = answer.rows.as_ref().err().map_or("answered", String::as_str);
            match case.of_oracle() {
                // What is said of it here is for whoever settles what it has to come to.
                Expect::Alike => println!("{table} {}: {told}", case.name),
                Expect::Refused(code) if told != code => {
                    self.wrong.push(format!("{table} {}: {}", case.name, answer.said));
                }
                _ => {}
            }
        }
        let places = asked.iter().map(|(at, _)| *at);
        self.oracles.insert(table, places.zip(answers).collect());
    }

    /// All cases of all kinds.
    async fn reads(&mut self) {
        for kind in KINDS {
            if !self.oracles.contains_key(kind.oracle) {
                self.oracle(kind.oracle).await;
            }
            let known = self.oracles[kind.oracle].clone();
            let cases = CASES.iter().enumerate();
            let asked: Vec<(usize, &Case)> = cases
                .filter(|(at, case)| {
                    let refused = matches!(case.expected(kind), Expect::Refused(_) | Expect::Fails);
                    let answered = known.get(at).is_some_and(|answer| answer.rows.is_ok());
                    self.asks(*at, refused || !answered)
                })
                .collect();
            let texts: Vec<String> =
                asked.iter().map(|(_, case)| case.text.replace("{t}", kind.table)).collect();
            let answers = self.door.ask(&texts).await;
            for ((at, case), answer) in asked.iter().zip(&answers) {
                let oracle = known.get(at).map(|answer| (kind.oracle, answer));
                self.judge(kind, case.name, case.expected(kind), answer, oracle);
            }
        }
    }

    /// Statements that are prepared and run twice with each value.
    async fn prepared(&mut self) {
        for (case, values) in PREPARED {
            for kind in KINDS {
                for value in values {
                    let answer = self.held(case.text, kind.table, *value).await;
                    let oracle = self.held(case.text, kind.oracle, *value).await;
                    let oracle = Some((kind.oracle, &oracle));
                    self.judge(kind, case.name, case.expected(kind), &answer, oracle);
                }
            }
        }
    }

    async fn held(&mut self, text: &str, table: &str, value: i64) -> Answer {
        match self.door.hold(&text.replace("{t}", table)).await {
            Err(refused) => refused,
            Ok(mut held) => {
                self.door.run(&mut held, value).await;
                self.door.run(&mut held, value).await
            }
        }
    }

    /// What is told beside rows: columns, sizes, definitions.
    async fn metadata(&mut self) {
        let is_postgres = matches!(self.door, Door::Postgres(..));
        let postgres = METADATA_OF_POSTGRES.iter().filter(|_| is_postgres);
        let asked: Vec<&str> = METADATA.iter().chain(postgres).copied().collect();
        for kind in KINDS {
            let texts = |table: &str| -> Vec<String> {
                let plain = asked.iter().map(|text| text.replace("{t}", table));
                // Pseudonyms are texts of another type than those of files.
                let untyped = |text: String| match kind.lies {
                    Lies::Apart => text.replace(", type", "").replace(", data_type", ""),
                    _ => text,
                };
                plain.map(untyped).collect()
            };
            let answers = self.door.ask(&texts(kind.table)).await;
            let oracles = self.door.ask(&texts(kind.oracle)).await;
            for ((text, answer), oracle) in asked.iter().zip(&answers).zip(&oracles) {
                let oracle = Some((kind.oracle, oracle));
                self.judge(kind, text, Expect::Alike, answer, oracle);
            }
            let texts: Vec<String> =
                LISTINGS.iter().map(|text| text.replace("{t}", kind.table)).collect();
            for (text, answer) in texts.iter().zip(&self.door.ask(&texts).await) {
                self.keeps(kind, text, answer);
            }
            if let Some(columns) = self.door.browse(kind.table).await {
                let shows_card = columns.contains("card");
                let hides_card = kind.takes == Takes::Columns;
                if shows_card == hides_card {
                    self.wrong.push(format!("{} is browsed: {columns}", kind.table));
                }
            }
        }
    }

    /// Plans: no secret, no scan of files, no number of hidden rows, and no shape that they have.
    async fn explained(&mut self) {
        let shown: Vec<&Kind> = KINDS.iter().filter(|kind| !self.is_dear(kind)).collect();
        for kind in shown {
            let texts: Vec<String> =
                EXPLAINED.iter().map(|text| text.replace("{t}", kind.table)).collect();
            for (text, answer) in texts.iter().zip(&self.door.ask(&texts).await) {
                self.keeps(kind, text, answer);
                let mut hidden = Vec::new();
                if kind.hides_scans() {
                    hidden.push("DataSourceExec".to_owned());
                }
                if kind.hides_rows() {
                    hidden.extend([ROWS, 60].map(|rows| format!("output_rows={rows}")));
                }
                for part in hidden.iter().filter(|part| answer.said.contains(*part)) {
                    self.wrong.push(format!("{text}: tells {part}\n{}", answer.said));
                }
            }
        }
        for kind in KINDS.iter().filter(|kind| kind.hides_scans()) {
            let shapes = match kind.takes {
                Takes::Everything => PRIVATE_SHAPES,
                _ => SHAPES,
            };
            for shape in shapes {
                let shape = shape.replace("{t}", kind.table);
                let texts = NUMBERS.map(|number| shape.replace("{n}", number));
                let plans = self.door.ask(&texts).await;
                let plain = |(plan, number): (&Answer, &str)| plan.plain(number);
                let plans: Vec<_> = plans.iter().zip(NUMBERS).map(plain).collect();
                if plans[0].is_err() || plans.iter().any(|plan| *plan != plans[0]) {
                    self.wrong.push(format!("{shape}: {plans:#?}"));
                }
            }
        }
    }

    /// Every way, through a server.
    async fn of_everything(mut self) {
        self.reads().await;
        // Elsewhere it would be asked the same again.
        if self.door.prepares() {
            self.prepared().await;
        }
        self.metadata().await;
        self.explained().await;
        self.changes().await;
        self.end();
    }

    /// Whether most plans of a kind are refused, each of which would be a run of the program.
    fn is_dear(&self, kind: &Kind) -> bool {
        let refused = matches!(kind.takes, Takes::SingleRows | Takes::Everything);
        refused && self.door.is_program()
    }
}

/// Runs a test on threads with enough stack for debug builds.
fn on_threads(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_stack_size(STACK_BYTES).build().unwrap();
    runtime.block_on(test);
}

#[test]
fn nothing_forbidden_comes_by_flight_sql() {
    on_threads(async {
        let house = House::new().await;
        Findings::new(&house, house.by_flight().await).of_everything().await;
    });
}

#[test]
fn nothing_forbidden_comes_by_the_protocol_of_postgresql() {
    on_threads(async {
        let house = House::new().await;
        Findings::new(&house, house.by_postgres().await).of_everything().await;
    });
}

#[test]
fn nothing_forbidden_comes_by_the_program() {
    on_threads(async {
        let house = House::new().await;
        Findings::new(&house, house.by_program()).of_everything().await;
    });
}

/// A machine without Python has no terminal to put the shell in, and says so.
#[test]
fn nothing_forbidden_comes_by_the_shell() {
    if !installed("python3", "--version") {
        println!("not run: no python3 here");
        return;
    }
    on_threads(async {
        let house = House::new().await;
        Findings::new(&house, house.by_shell()).of_everything().await;
    });
}

#[test]
fn nothing_forbidden_comes_by_the_program_without_a_server() {
    on_threads(async {
        let house = House::new().await;
        let mut findings = Findings::new(&house, house.by_embedded_program());
        findings.reads().await;
        findings.explained().await;
        findings.end();
    });
}
