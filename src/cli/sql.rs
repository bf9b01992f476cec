//! `attune sql`: SQL from the command line, a file or standard input; results as tables, CSV,
//! JSON, Parquet or Arrow.

use std::io::{IsTerminal, Read};
use std::path::Path;

use super::Context;
use super::arguments::SqlArguments;
use super::run::{self, Output};
use super::target::Target;
use crate::error::{Error, Result};

/// Runs the statements one after the other; the first that fails ends it.
pub(super) async fn run(arguments: &SqlArguments, context: &Context) -> Result<()> {
    let script = script(arguments)?;
    let output = Output::new(&arguments.output, &context.screen)?;
    let target = run::open(&arguments.store, &arguments.connect, context).await?;
    let result = statements(target.as_ref(), &script, &output, context).await;
    target.close().await?;
    result
}

/// Runs every statement of a script.
pub(super) async fn statements(
    target: &dyn Target,
    script: &str,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let statements = target.split(script).await?;
    if statements.is_empty() {
        return Err(Error::usage("there is no statement in the SQL", USAGE));
    }
    for statement in statements {
        run::statement(target, &statement, output, &context.screen).await?;
    }
    Ok(())
}

const USAGE: &str = "attune sql -c 'SELECT 1', or attune sql -f FILE, or attune sql - < FILE";

fn script(arguments: &SqlArguments) -> Result<String> {
    match (&arguments.command, &arguments.file) {
        (Some(text), _) => Ok(text.clone()),
        (None, Some(path)) => read(path),
        (None, None) if arguments.input.is_some() || !std::io::stdin().is_terminal() => input(),
        (None, None) => Err(Error::usage("no SQL was given", USAGE)),
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::file("read", path, &error))
}

/// All of standard input.
pub(super) fn input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Error::file("read", "standard input", &error))?;
    Ok(text)
}
