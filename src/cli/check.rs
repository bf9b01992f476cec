//! `attune check`: reads the configuration and tries every store, so that a wrong setting is found
//! before a server starts, with its file, line and column.

use std::io::Write;

use super::Context;
use super::arguments::CheckArguments;
use super::run::count;
use crate::config::{Config, FromSetting};
use crate::engine;
use crate::error::{Error, Result};

/// Runs `attune check`; the first thing that does not work is the error.
pub(super) async fn run(arguments: &CheckArguments, context: &Context) -> Result<()> {
    let config = Config::load(&arguments.store.overrides(), &context.environment)?;
    let mut out = std::io::stdout().lock();
    match &config.file {
        Some(file) => writeln!(out, "configuration  {}", file.display())?,
        None => writeln!(out, "configuration  defaults; no attune.toml here")?,
    }
    for variable in &config.unknown_variables {
        context.screen.say(&format!("note: {variable} means nothing to Attune"));
    }
    writeln!(out, "warehouse      {}", config.warehouse.url.0)?;
    let opened = engine::open(&config, &context.environment).await?;
    let session = opened.session(catalog::policy::Principal::embedded());
    for (name, lake) in &config.lakes {
        let filter = sql::TableFilter {
            schema_pattern: Some(name.clone()),
            name_pattern: None,
            kinds: None,
            with_columns: true,
        };
        let tables = session.tables(&filter).await?;
        let found = count(tables.len() as u64, "table");
        writeln!(out, "lake {name:<9} {} ({found})", lake.store.url.0)?;
    }
    for name in config.keys.keys() {
        writeln!(out, "key {name:<10} can be read")?;
    }
    let users = opened.catalog().users().await?.len();
    writeln!(out, "users          {users}")?;
    check_server(&config, users > 0)?;
    writeln!(out, "flight         {}", config.server.flight.shown())?;
    writeln!(out, "everything works")?;
    Ok(())
}

/// What `attune serve` would refuse.
fn check_server(config: &Config, has_users: bool) -> Result<()> {
    let server = &config.server;
    super::serve::refuse_open_door(
        server.flight,
        server.tls_certificate_file.is_some(),
        has_users,
        server.insecure,
    )
    .map_err(|reason| Error::Listen { address: server.flight.to_string(), reason })
}
