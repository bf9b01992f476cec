//! The doors through which a statement comes in: Flight SQL, PostgreSQL's protocol, the program as
//! a script starts it, which asks a server or opens the warehouse itself, and the program's shell
//! at a terminal.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::client::PreparedStatement;
use tonic::transport::Channel;

use crate::flight::support as flight;
use crate::pg::support as pg;
use crate::program::attune;

/// What begins the rows of a statement in the program's output.
const MARKER: &str = "{\"marker\":\"== ";

/// How many statements are typed into a line of the shell.
const TYPED_MAX: usize = 8;

/// What a statement was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its rows in the order of their texts, or the code of its error.
    pub rows: Result<Vec<String>, String>,
    /// All that was said: the names of columns and the words of an error too.
    pub said: String,
}

impl Answer {
    fn failed(said: String) -> Self {
        let code = said.find("ATT-").and_then(|at| said.get(at..at + 8));
        Self { rows: Err(code.unwrap_or("no code").to_owned()), said }
    }

    fn of_batches(batches: &[RecordBatch]) -> Self {
        let said = pretty_format_batches(batches).unwrap().to_string();
        Self { rows: Ok(flight::lines(batches)), said }
    }

    fn of_replies(replies: &[pg::Reply]) -> Self {
        if let Some(error) = replies.iter().find(|reply| reply.kind == 'E') {
            let (code, words, hint) = (error.code(), error.message(), error.hint());
            return Self::failed(format!("{code} {words} {hint}"));
        }
        let told = replies.iter().map(|reply| String::from_utf8_lossy(&reply.body));
        let said = told.collect::<Vec<_>>().join("\n");
        let rows = replies.iter().filter(|reply| reply.kind == 'D');
        let mut rows: Vec<String> = rows.map(|row| row.texts().join("|")).collect();
        rows.sort();
        Self { rows: Ok(rows), said }
    }

    /// Of what the shell showed: rows as objects, or the words of an error.
    fn of_lines(told: &str) -> Self {
        let lines = told.lines().filter(|line| !line.is_empty());
        let mut rows: Vec<String> = lines.map(str::to_owned).collect();
        if rows.iter().any(|line| !line.starts_with('{')) {
            return Self::failed(told.to_owned());
        }
        rows.sort();
        Self { said: rows.join("\n"), rows: Ok(rows) }
    }

    /// The rows, in which a table is called `t`.
    pub fn plain(&self, table: &str) -> Result<Vec<String>, String> {
        let rows = self.rows.clone();
        rows.map(|rows| rows.iter().map(|row| row.replace(table, "t")).collect())
    }
}

/// A door, in which somebody who has logged in stands.
pub enum Door {
    /// A client of Flight SQL.
    Flight(Box<flight::Client>),
    /// A client of PostgreSQL's protocol, and how many statements it has prepared.
    Postgres(Box<pg::Client>, usize),
    /// `attune sql`.
    Program(Script),
    /// `attune shell`.
    Shell(Shell),
}

/// A statement with one value that is kept to be run again.
pub enum Held {
    /// By the server.
    Flight(Box<PreparedStatement<Channel>>),
    /// By the server, under a name.
    Postgres(String),
    /// The program and its shell keep none: its text.
    Text(String),
}

impl Door {
    /// Whether each error ends a run of the program, so that errors are dear.
    pub fn is_program(&self) -> bool {
        matches!(self, Self::Program(_))
    }

    /// Whether statements are prepared here, and not only asked.
    pub fn prepares(&self) -> bool {
        matches!(self, Self::Flight(_) | Self::Postgres(..))
    }

    /// What some statements are answered.
    pub async fn ask(&mut self, texts: &[String]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(texts.len());
        match self {
            Self::Flight(client) => {
                for text in texts {
                    answers.push(match flight::attempt(client, text).await {
                        Ok(batches) => Answer::of_batches(&batches),
                        Err(status) => Answer::failed(status.message().to_owned()),
                    });
                }
            }
            Self::Postgres(client, _) => {
                for text in texts {
                    answers.push(Answer::of_replies(&client.query(text).await));
                }
            }
            Self::Program(script) => answers = script.ask(texts),
            Self::Shell(shell) => answers = shell.ask(texts),
        }
        answers
    }

    /// What one statement is answered.
    pub async fn ask_one(&mut self, text: &str) -> Answer {
        self.ask(&[text.to_owned()]).await.remove(0)
    }

    /// Runs a statement that changes something.
    pub async fn change(&mut self, text: &str) -> Answer {
        match self {
            Self::Flight(client) => match client.execute_update(text.to_owned(), None).await {
                Ok(rows) => Answer { rows: Ok(Vec::new()), said: rows.to_string() },
                Err(error) => Answer::failed(flight::status(error).message().to_owned()),
            },
            _ => {
                let told = self.ask_one(text).await;
                Answer { rows: told.rows.map(|_| Vec::new()), said: told.said }
            }
        }
    }

    /// Prepares a statement with one parameter, `$1`.
    pub async fn hold(&mut self, text: &str) -> Result<Held, Answer> {
        match self {
            Self::Flight(client) => match client.prepare(text.to_owned(), None).await {
                Ok(held) => Ok(Held::Flight(Box::new(held))),
                Err(error) => Err(Answer::failed(flight::status(error).message().to_owned())),
            },
            Self::Postgres(client, held) => {
                *held += 1;
                let name = format!("held_{held}");
                let mut parse = format!("{name}\0{text}\0").into_bytes();
                parse.extend([0, 0]);
                client.send(&[pg::framed(b'P', &parse), pg::sync()].concat()).await;
                let told = Answer::of_replies(&client.replies().await);
                if told.rows.is_ok() { Ok(Held::Postgres(name)) } else { Err(told) }
            }
            Self::Program(_) | Self::Shell(_) => Ok(Held::Text(text.to_owned())),
        }
    }

    /// Runs a statement that was prepared here.
    pub async fn run(&mut self, held: &mut Held, value: i64) -> Answer {
        match (self, held) {
            (Self::Flight(client), Held::Flight(held)) => {
                let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
                held.set_parameters(RecordBatch::try_from_iter([("1", column)]).unwrap()).unwrap();
                let fetched = match held.execute().await {
                    Ok(info) => flight::fetch(client, &info).await,
                    Err(error) => Err(flight::status(error)),
                };
                match fetched {
                    Ok(batches) => Answer::of_batches(&batches),
                    Err(status) => Answer::failed(status.message().to_owned()),
                }
            }
            (Self::Postgres(client, _), Held::Postgres(name)) => {
                let value = value.to_string();
                let mut bind = format!("\0{name}\0").into_bytes();
                bind.extend([0, 1, 0, 0, 0, 1]);
                bind.extend((value.len() as i32).to_be_bytes());
                bind.extend_from_slice(value.as_bytes());
                bind.extend([0, 1, 0, 0]);
                let execute = pg::framed(b'E', &[0; 5]);
                client.send(&[pg::framed(b'B', &bind), execute, pg::sync()].concat()).await;
                Answer::of_replies(&client.replies().await)
            }
            (door, Held::Text(text)) => door.ask_one(&text.replace("$1", &value.to_string())).await,
            _ => panic!("the statement was prepared at another door"),
        }
    }

    /// What the protocol itself tells of a table beside SQL: its columns.
    pub async fn browse(&mut self, table: &str) -> Option<String> {
        let Self::Flight(client) = self else { return None };
        let query = CommandGetTables {
            table_name_filter_pattern: Some(table.replace('_', "\\_")),
            include_schema: true,
            ..CommandGetTables::default()
        };
        let info = client.get_tables(query).await.unwrap();
        let batches = flight::fetch(client, &info).await.unwrap();
        let schema = |batch: &RecordBatch| {
            let schemas = batch.column(4).as_binary::<i32>().iter().flatten();
            schemas.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect::<String>()
        };
        Some(batches.iter().map(schema).collect::<Vec<String>>().join("\n"))
    }
}

/// `attune sql` with a script, or `attune shell`: as whom, and over which warehouse.
pub struct Script {
    /// `--connect …` or `--warehouse …`, and `--user …`.
    pub arguments: Vec<String>,
    /// The user's.
    pub password: String,
    /// Where its scripts and its history lie and where it runs.
    pub folder: PathBuf,
}

impl Script {
    /// The first error ends a run, and another run begins behind it.
    fn ask(&self, texts: &[String]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(texts.len());
        while answers.len() < texts.len() {
            answers.extend(self.run(&texts[answers.len()..]));
        }
        answers
    }

    fn run(&self, texts: &[String]) -> Vec<Answer> {
        let file = self.folder.join("script.sql");
        std::fs::write(&file, marked(texts, "\n")).unwrap();
        let mut command = attune();
        command.args(["sql", "-q", "--format", "ndjson", "-f"]).arg(&file).args(&self.arguments);
        command.current_dir(&self.folder).env("ATTUNE_PASSWORD", &self.password);
        let output = command.output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        let mut found: Vec<Vec<String>> = Vec::new();
        for line in out.lines() {
            if line.starts_with(MARKER) {
                found.push(Vec::new());
            } else {
                found.last_mut().expect(line).push(line.to_owned());
            }
        }
        assert!(!found.is_empty(), "{err}");
        assert!(!output.status.success() || found.len() == texts.len(), "{err}");
        let mut answers: Vec<Answer> = found
            .into_iter()
            .map(|mut rows| {
                rows.sort();
                Answer { said: rows.join("\n"), rows: Ok(rows) }
            })
            .collect();
        if !output.status.success()
            && let Some(last) = answers.last_mut()
        {
            *last = Answer::failed(format!("{err}\n{}", last.said));
        }
        answers
    }
}

/// Statements, each behind one that tells its place.
fn marked(texts: &[String], space: &str) -> String {
    let statements = texts.iter().enumerate();
    statements.map(|(n, text)| format!("SELECT '== {n}' AS marker;{space}{text};{space}")).collect()
}

/// `attune shell` at a terminal, into which lines are typed until it is dropped.
pub struct Shell {
    terminal: Child,
    typed: ChildStdin,
    shown: BufReader<ChildStdout>,
}

impl Drop for Shell {
    fn drop(&mut self) {
        // A shell whose terminal is gone ends, whatever it is doing.
        let _ = self.terminal.kill();
        let _ = self.terminal.wait();
    }
}

impl Shell {
    /// A shell that asks what a script would ask.
    pub fn start(script: &Script) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let program = attune();
        let mut command = Command::new("python3");
        command.arg(folder.join("shell_terminal.py")).arg(program.get_program());
        for (name, value) in program.get_envs() {
            if value.is_none() {
                command.env_remove(name);
            }
        }
        command.args(["shell", "-q", "--format", "ndjson"]).args(&script.arguments);
        command.current_dir(&script.folder).env("ATTUNE_PASSWORD", &script.password);
        command.env("XDG_STATE_HOME", &script.folder);
        let mut terminal = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let typed = terminal.stdin.take().unwrap();
        let shown = BufReader::new(terminal.stdout.take().unwrap());
        Self { terminal, typed, shown }
    }

    /// The first error ends a line, and the rest is typed into the next one.
    fn ask(&mut self, texts: &[String]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(texts.len());
        while answers.len() < texts.len() {
            let rest = &texts[answers.len()..];
            answers.extend(self.enter(&rest[..rest.len().min(TYPED_MAX)]));
        }
        answers
    }

    fn enter(&mut self, texts: &[String]) -> Vec<Answer> {
        let line = marked(texts, " ");
        assert!(!line.contains('\n'), "more than a line: {line}");
        writeln!(self.typed, "{line}").unwrap();
        self.typed.flush().unwrap();
        let mut shown = String::new();
        self.shown.read_line(&mut shown).unwrap();
        let shown: String = serde_json::from_str(&shown)
            .unwrap_or_else(|error| panic!("{line}: the terminal told {shown:?}: {error}"));
        // Before the first marker stands what was typed.
        let told = shown.split(MARKER).skip(1);
        let told = told.map(|told| told.split_once('\n').map_or("", |(_, told)| told));
        let answers: Vec<Answer> = told.map(Answer::of_lines).collect();
        let is_whole = answers.len() == texts.len();
        let is_ended = answers.last().is_some_and(|last| last.rows.is_err());
        assert!(is_whole || is_ended, "{line}: {shown}");
        answers
    }
}
