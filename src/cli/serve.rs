//! `attune serve`: opens the engine and hands it to the server; the server itself is in
//! `crate::server`.

use std::net::SocketAddr;

use super::Context;
use super::arguments::{ListenArguments, ServeArguments};
use crate::auth::Authentication;
use crate::config::Config;
use crate::engine;
use crate::error::{Error, Result};
use crate::server;
use crate::server::flight::{self, FlightOptions};
use crate::server::tls::Tls;

/// Runs the server until Ctrl-C or SIGTERM.
pub(super) async fn run(arguments: &ServeArguments, context: &Context) -> Result<()> {
    let config = Config::load(&arguments.store.overrides(), &context.environment)?;
    start_log(&config, context)?;
    for variable in &config.unknown_variables {
        tracing::warn!("{variable} means nothing to Attune");
    }
    let engine = engine::open(&config, &context.environment).await?;
    listen(engine, &config, &arguments.listen, context).await
}

/// Serves an engine that is open.
pub(super) async fn listen(
    engine: sql::Engine,
    config: &Config,
    arguments: &ListenArguments,
    context: &Context,
) -> Result<()> {
    let has_users = engine.catalog().has_users().await?;
    let options = flight_options(config, arguments, has_users)?;
    let with_tls = options.tls.is_some();
    let server = flight::bind(engine, options).await?;
    context.screen.say(&banner(server.local_addr(), with_tls, has_users));
    let (first, second) = server::stop_signals();
    server.run(first, second).await
}

/// How Flight SQL will listen. With users everybody logs in; without, everybody is the embedded
/// principal, which `FlightOptions::check` allows on this machine only.
pub(super) fn flight_options(
    config: &Config,
    arguments: &ListenArguments,
    has_users: bool,
) -> Result<FlightOptions> {
    let section = &config.server;
    let auth = &config.auth;
    Ok(FlightOptions {
        tls: config.tls_files().map(Tls::open).transpose()?,
        credentials: config.credentials()?,
        session_idle: auth.session_idle,
        session_lifetime: auth.session_lifetime,
        sessions_max: auth.sessions_max,
        sessions_per_user_max: auth.sessions_per_user_max,
        handle_ttl: auth.handle_idle,
        handles_per_user_max: auth.handles_per_user_max,
        authentication: if has_users { Authentication::Users } else { Authentication::None },
        insecure: arguments.insecure || section.insecure,
        ..FlightOptions::at(arguments.flight.unwrap_or(section.flight))
    })
}

/// The addresses, and lines to paste into the clients people have.
fn banner(address: SocketAddr, tls: bool, users: bool) -> String {
    let scheme = if tls { "grpc+tls" } else { "grpc" };
    let login = if users { " --user NAME" } else { "" };
    let jdbc = if tls { "" } else { "?useEncryption=false" };
    let keywords = match users {
        true => ", db_kwargs={\"username\": \"NAME\", \"password\": \"…\"}",
        false => "",
    };
    format!(
        "\nattune {} serves Flight SQL at {scheme}://{address}\n\n  \
         shell   attune shell --connect {scheme}://{address}{login}\n  \
         JDBC    jdbc:arrow-flight-sql://{address}{jdbc}\n  \
         Python  import adbc_driver_flightsql.dbapi as flight\n          \
         connection = flight.connect(\"{scheme}://{address}\"{keywords})\n\n\
         Ctrl-C stops it.",
        env!("CARGO_PKG_VERSION")
    )
}

/// Sends the log to standard error, as lines or as JSON.
fn start_log(config: &Config, context: &Context) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.level).map_err(|error| {
        Error::usage(
            format!("[log] level {:?} cannot be read: {error}", config.log.level),
            "write info, or attune=debug,info",
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(context.screen.error_colours());
    // It fails only when a log has been started already, as in tests.
    let _ = match config.log.format.as_str() {
        "json" => builder.json().try_init(),
        _ => builder.try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str, flight: Option<&str>, has_users: bool) -> FlightOptions {
        let config = Config::parse(text).unwrap();
        let flight = flight.map(|address| address.parse().unwrap());
        let arguments = ListenArguments { flight, insecure: false };
        flight_options(&config, &arguments, has_users).unwrap()
    }

    #[test]
    fn the_flag_overrides_the_file_and_users_must_log_in() {
        let file = "[server]\nflight = \"127.0.0.1:1\"\n";
        assert_eq!(options(file, None, true).address.port(), 1);
        assert_eq!(options(file, Some("127.0.0.1:2"), true).address.port(), 2);
        assert_eq!(options(file, None, true).authentication, Authentication::Users);
        assert_eq!(options(file, None, false).authentication, Authentication::None);
    }

    #[test]
    fn an_open_door_is_refused_unless_said() {
        let error = options("", Some("0.0.0.0:1"), false).check().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(options("[server]\ninsecure = true\n", Some("0.0.0.0:1"), false).check().is_ok());
    }

    #[test]
    fn the_banner_can_be_pasted() {
        let text = banner("127.0.0.1:50051".parse().unwrap(), false, false);
        for line in [
            "attune shell --connect grpc://127.0.0.1:50051",
            "jdbc:arrow-flight-sql://127.0.0.1:50051?useEncryption=false",
            "flight.connect(\"grpc://127.0.0.1:50051\")",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let text = banner("10.0.0.1:1".parse().unwrap(), true, true);
        assert!(text.contains("grpc+tls://10.0.0.1:1 --user NAME"), "{text}");
    }
}
