//! The command line: one subcommand a file. Rows go to standard output, everything else to
//! standard error; the exit code is 0, 1 when the work failed, 2 when the call was wrong.

mod arguments;
mod audit;
mod check;
mod demo;
mod docs;
mod format;
pub mod lexer;
mod password;
mod progress;
mod run;
mod serve;
mod shell;
mod sql;
mod target;
mod terminal;
mod user;

pub use arguments::{Arguments, Command};
pub use terminal::Screen;

use crate::config::Environment;
use crate::error::{Error, Result};

/// What every subcommand gets from the process.
#[derive(Debug, Clone)]
pub struct Context {
    /// The environment.
    pub environment: Environment,
    /// The terminal.
    pub screen: Screen,
}

impl Context {
    /// This process's.
    pub fn of_process() -> Self {
        let environment = Environment::of_process();
        let screen = Screen::of_process(&environment);
        Self { environment, screen }
    }
}

/// Runs a subcommand; without one, the shell on a terminal, and a script on standard input.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    match arguments.command {
        Some(Command::Demo(arguments)) => demo::run(&arguments, context).await,
        Some(Command::Serve(arguments)) => serve::run(&arguments, context).await,
        Some(Command::Sql(arguments)) => sql::run(&arguments, context).await,
        Some(Command::Shell(arguments)) => shell::run(&arguments, context).await,
        Some(Command::Check(arguments)) => check::run(&arguments, context).await,
        Some(Command::Docs(arguments)) => docs::run(&arguments, context).await,
        Some(Command::User(arguments)) => user::run(&arguments, context).await,
        Some(Command::Audit(arguments)) => audit::run(&arguments, context).await,
        None => shell::run(&arguments.shell, context).await,
    }
}

/// Reports how a run ended and gives the exit code. Output that nobody reads any more is success.
pub fn exit_code(result: Result<()>, context: &Context) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) if error.is_broken_pipe() => 0,
        Err(error) => {
            context.screen.complain(&error);
            error.exit_code()
        }
    }
}

/// What a panic-free `main` says when the runtime cannot start.
pub fn runtime_error(error: std::io::Error) -> Error {
    Error::file("start", "the runtime", &error)
}
