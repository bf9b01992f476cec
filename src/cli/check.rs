//! `attune check`: reads the configuration and tries every store, so that a wrong setting is found
//! before a server starts, with its file, line and column.

use std::io::Write;

use super::Context;
use super::arguments::{CheckArguments, ListenArguments};
use super::run::count;
use super::serve;
use crate::auth::{Authentication, Authenticator};
use crate::config::Config;
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
    if let Some(told) = opened.catalog().versioning().await?.told(catalog::WAREHOUSE_BUCKET) {
        context.screen.say(&format!("note: {told}"));
    }
    for (name, lake) in &config.lakes {
        let filter = sql::TableFilter {
            schema_pattern: Some(name.replace('_', "\\_")),
            with_columns: true,
            ..sql::TableFilter::default()
        };
        let tables = session.tables(&filter).await?;
        for table in tables.iter().filter(|table| table.columns.is_none()) {
            // A table without columns could not be opened; asking for its rows says why.
            let query = format!("SELECT * FROM \"{name}\".\"{}\" LIMIT 0", table.name);
            session.query(&query).await?;
        }
        let found = count(tables.len() as u64, "table");
        opened.catalog().check_lake_access(name).await?;
        if let Some(told) = opened.catalog().told_of_lake(name).await {
            context.screen.say(&format!("note: {told}"));
        }
        let access = opened.catalog().lake_access(name).unwrap_or_default().name();
        writeln!(out, "lake {name:<9} {} ({found}, access {access})", lake.store.url.0)?;
    }
    for name in config.keys.keys() {
        writeln!(out, "key {name:<10} can be read")?;
    }
    for key in opened.catalog().keys().await? {
        // Its master key must be there too, which only opening it tells.
        opened.catalog().key_ring(&key.name, None).await?;
        if !config.keys.contains_key(&key.name) {
            writeln!(out, "key {:<10} can be opened", key.name)?;
        }
    }
    let users = opened.catalog().users().await?.len();
    writeln!(out, "users          {users}")?;
    let has_users = opened.catalog().has_users().await?;
    let options = serve::flight_options(&config, &ListenArguments::default(), has_users)?;
    options.check()?;
    if let Some(tls) = &options.tls {
        tls.server_config()?;
        writeln!(out, "certificates   can be used")?;
    }
    let authenticator =
        Authenticator::open(Authentication::Users, options.credentials.clone(), opened.catalog());
    if let Some(keys) = authenticator.await?.try_provider().await {
        let keys = keys.map_err(|reason| {
            Error::usage(format!("[auth.oidc]: {reason}"), "check jwks_file or jwks_url")
        })?;
        writeln!(out, "provider       {}", count(keys as u64, "key"))?;
    }
    writeln!(out, "flight         {}", config.server.flight)?;
    writeln!(out, "everything works")?;
    Ok(())
}
