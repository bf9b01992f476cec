//! A connection after its opening: messages and their answers.
//!
//! Two ways lead to the same work. A script comes in one message and is answered at once; or the
//! parts of a statement (parse, bind, describe, execute) come as messages of their own, and after
//! an error all are ignored until the client says that a new start is meant.

use std::sync::Arc;

use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete};
use pgwire::messages::response::{EmptyQueryResponse, ReadyForQuery};
use sql::Session;
use sql::pg::control::Control;
use sql::pg::parameters::REPORTED;

use super::State;
use super::input::Message;
use super::keys::Key;
use super::opening::{Opened, Reading, Writing, reported};
use super::portals::{Portal, Portals};
use super::problem::{Problem, Stop};
use super::run::complete;
use super::statements::{Statements, described, described_parameters, missing};
use super::transaction::{Ended, Transaction};
use crate::auth::Proof;

/// A statement's text has a smaller limit of its own; values may be long.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A client that is logged in.
pub struct Connection<'a> {
    /// What all connections share.
    pub state: &'a Arc<State>,
    /// What the client sends.
    pub input: Reading,
    /// What it is sent.
    pub output: Writing,
    /// Its session.
    pub session: Session,
    /// The key to cancel its statements.
    pub key: Key,
    /// Where it stands.
    pub transaction: Transaction,
    proof: Proof,
    statements: Statements,
    portals: Portals,
    /// Whether messages are ignored until the next Sync.
    skipping: bool,
}

/// Whether a connection goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Goes,
    Ends,
}

/// Answers a client until it, or the server, has enough.
pub async fn serve(state: &Arc<State>, opened: Opened) {
    let Opened { input, output, session, proof, key } = opened;
    let mut connection = Connection {
        state,
        input,
        output,
        session,
        key,
        transaction: Transaction::default(),
        proof,
        statements: Statements::default(),
        portals: Portals::default(),
        skipping: false,
    };
    loop {
        match connection.step().await {
            Ok(Next::Goes) => {}
            Ok(Next::Ends) => break,
            Err(Stop::Problem(problem)) => {
                let _ = connection.output.add(&problem.response());
                break;
            }
            Err(Stop::Gone) => return,
        }
    }
    connection.output.close().await;
}

/// Tells a client that there is no place for it.
pub async fn turn_away(opened: Opened) {
    let Opened { mut output, .. } = opened;
    let problem = Problem::new("53300", "there are too many connections").fatal();
    let hint = "try again, or raise [server] pg_connections_max";
    let _ = output.add(&problem.hint(hint).response());
    output.close().await;
}

/// The server stops.
pub fn stopping() -> Problem {
    Problem::new("57P01", "the server is stopping").fatal()
}

/// Somebody ended the session.
pub fn killed() -> Problem {
    Problem::new("57P01", "the session was ended").fatal().hint("connect again")
}

impl Connection<'_> {
    /// Waits for a message and answers it.
    async fn step(&mut self) -> Result<Next, Stop> {
        let options = &self.state.options;
        let (idle_max, state, what) = match self.portals.has_running() {
            true => (options.suspended_max, "25P03", "a result was left half read for too long"),
            false => (options.idle_max, "57P05", "the connection was idle for too long"),
        };
        let message = tokio::select! {
            biased;
            message = self.input.message(MESSAGE_BYTES_MAX) => message?,
            () = self.state.draining.cancelled() => return Err(stopping().into()),
            () = self.session.end_token().cancelled() => return Err(killed().into()),
            () = tokio::time::sleep(idle_max) => {
                return Err(Problem::new(state, what).fatal().into());
            }
        };
        let is_script = matches!(message, Message::Query(_));
        match message {
            Message::Terminate => return Ok(Next::Ends),
            Message::Sync => return self.sync().await,
            _ if self.skipping && !is_script => return Ok(Next::Goes),
            _ => {}
        }
        match self.answer(message).await {
            Ok(()) => {}
            Err(Stop::Problem(problem)) if !problem.fatal => {
                self.transaction.failed();
                self.output.add(&problem.response())?;
                self.skipping = !is_script;
            }
            Err(stop) => return Err(stop),
        }
        if is_script {
            self.skipping = false;
            self.ready().await?;
        } else if self.skipping || self.output.is_full() {
            self.output.flush().await?;
        }
        Ok(Next::Goes)
    }

    async fn answer(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Query(text) => self.script(&text).await,
            Message::Parse { name, text, types } => {
                let statement = self.read(&text, types).await?;
                self.statements.keep(name, statement, self.state.options.statements_max)?;
                self.output.add(&Backend::ParseComplete(ParseComplete::new()))
            }
            Message::Bind { portal, statement, formats, values, results } => {
                let statement = self.statements.get(&statement)?;
                let bound = Portal::bind(statement, &formats, &values, &results)?;
                self.portals.keep(portal, bound, self.state.options.statements_max)?;
                self.output.add(&Backend::BindComplete(BindComplete::new()))
            }
            Message::Describe { portal: true, name } => {
                let portal = self.portals.get(&name)?;
                self.output.add(&described(portal.statement.has_rows(), &portal.columns))
            }
            Message::Describe { portal: false, name } => {
                let statement = self.statements.get(&name)?;
                self.output.add(&described_parameters(statement.parameters()))?;
                self.output.add(&described(statement.has_rows(), &statement.columns_unbound()))
            }
            Message::Execute { portal: name, rows_max } => {
                let mut portal = self.portals.take(&name)?;
                self.execute(&mut portal, rows_max).await?;
                self.portals.put_back(name, portal);
                Ok(())
            }
            Message::Close { portal, name } => {
                match portal {
                    true => self.portals.forget(&name),
                    false => {
                        self.statements.forget(&name);
                    }
                }
                self.output.add(&Backend::CloseComplete(CloseComplete::new()))
            }
            Message::Flush => self.output.flush().await,
            Message::Password(_) => {
                Err(Problem::new("08P01", "nobody asked for a password").fatal().into())
            }
            // A client that was refused its COPY may have sent data already.
            Message::Copy | Message::Sync | Message::Terminate => Ok(()),
        }
    }

    /// Runs the statements of a script one after the other.
    async fn script(&mut self, text: &str) -> Result<(), Stop> {
        self.portals.forget("");
        let parts = self.session.script(text)?;
        if parts.is_empty() {
            return self.output.add(&Backend::EmptyQueryResponse(EmptyQueryResponse::new()));
        }
        for part in parts {
            let statement = Arc::new(self.read(&part, Vec::new()).await?);
            let mut portal = Portal::plain(statement);
            if portal.statement.has_rows() {
                let wanted = portal.statement.wanted().fields().len();
                if wanted > 0 {
                    let what = format!("the statement has {wanted} parameters, none are bound");
                    return Err(Problem::new("42P02", what).into());
                }
                self.output.add(&described(true, &portal.columns))?;
            }
            self.execute(&mut portal, 0).await?;
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<Next, Stop> {
        self.skipping = false;
        if !self.transaction.is_open() {
            self.portals.clear();
        }
        self.ready().await?;
        Ok(Next::Goes)
    }

    async fn ready(&mut self) -> Result<(), Stop> {
        let status = ReadyForQuery::new(self.transaction.status());
        self.output.add(&Backend::ReadyForQuery(status))?;
        self.output.flush().await
    }

    /// Whether the user is still the one that logged in.
    pub async fn still_admitted(&mut self) -> Result<(), Stop> {
        let name = self.session.principal().name.as_str();
        let checked = self.state.authenticator.check(&self.proof).await;
        checked.map_err(|refusal| Problem::refused(&refusal, name).into())
    }

    /// Does what a statement wants of the connection, and tells the client.
    pub async fn control(&mut self, control: &Control) -> Result<(), Stop> {
        let tag = match control {
            Control::Begin(read_only) => {
                if self.transaction.is_open() {
                    let what = "there is a transaction in progress already";
                    self.output.add(&Problem::new("25001", what).warning())?;
                }
                self.transaction.begin(*read_only);
                "BEGIN"
            }
            Control::Commit => {
                let ended = self.transaction.commit();
                self.ended(ended).await?
            }
            Control::Rollback => {
                let ended = self.transaction.rollback();
                self.ended(ended).await?
            }
            Control::Savepoint(name) => {
                self.transaction.save(name)?;
                "SAVEPOINT"
            }
            Control::Release(name) => {
                self.transaction.release(name)?;
                "RELEASE"
            }
            Control::RollbackTo(name) => {
                self.transaction.return_to(name)?;
                "ROLLBACK"
            }
            Control::Set { name, value, local } => {
                self.set(name, value.as_deref(), *local).await?;
                if value.is_some() { "SET" } else { "RESET" }
            }
            Control::ResetAll => {
                self.reset()?;
                "RESET"
            }
            Control::DiscardAll => {
                if self.transaction.is_open() {
                    let what = "DISCARD ALL cannot run inside a transaction";
                    return Err(Problem::new("25001", what).into());
                }
                self.statements.clear();
                self.portals.clear();
                self.reset()?;
                "DISCARD ALL"
            }
            Control::Deallocate(None) => {
                self.statements.clear();
                "DEALLOCATE ALL"
            }
            Control::Deallocate(Some(name)) => {
                if !self.statements.forget(name) {
                    return Err(missing(name).into());
                }
                "DEALLOCATE"
            }
            // SHOW was made a query when it was read.
            Control::Show(_) => "SHOW",
            Control::Nothing(tag) => tag,
        };
        self.output.add(&complete(tag))
    }

    async fn ended(&mut self, ended: Ended) -> Result<&'static str, Stop> {
        self.portals.clear();
        for (name, before) in ended.restore {
            self.session.set_parameter(&name, Some(&before)).await?;
            self.report(&name)?;
        }
        Ok(ended.answer?)
    }

    async fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<(), Stop> {
        if name.eq_ignore_ascii_case("transaction_read_only") {
            let read_only = matches!(value, Some("on" | "true" | "1"));
            if !self.transaction.set_read_only(read_only) {
                self.warn("SET TRANSACTION has an effect inside a transaction only")?;
            }
            return Ok(());
        }
        if local && !self.transaction.is_open() {
            return self.warn("SET LOCAL has an effect inside a transaction only");
        }
        let before = self.session.parameter(name).or_else(|| self.session.setting(name));
        self.session.set_parameter(name, value).await?;
        if local {
            self.transaction.keep(name, before.unwrap_or_default());
        }
        self.report(name)
    }

    fn warn(&mut self, what: &str) -> Result<(), Stop> {
        self.output.add(&Problem::new("25P01", what).warning())
    }

    fn reset(&mut self) -> Result<(), Stop> {
        self.session.reset_parameters();
        for name in REPORTED {
            self.report(name)?;
        }
        Ok(())
    }

    /// Tells the client a parameter's new value, where it wants to know.
    fn report(&mut self, name: &str) -> Result<(), Stop> {
        let known = REPORTED.iter().find(|known| known.eq_ignore_ascii_case(name));
        match known {
            Some(known) => {
                let value = self.session.parameter(known).unwrap_or_default();
                self.output.add(&reported(known, value))
            }
            None => Ok(()),
        }
    }
}
