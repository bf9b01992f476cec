//! `attune serve`: opens the engine and hands it to the server; the server itself is in
//! `crate::server`.

use std::net::SocketAddr;
use std::path::Path;

use super::Context;
use super::arguments::{ListenArguments, ServeArguments};
use crate::auth::Authentication;
use crate::config::{Config, ServerSection};
use crate::engine;
use crate::error::{Error, Result};
use crate::server::flight::{FlightOptions, TlsOptions};
use crate::server::{self, ServeOptions};

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
    let address = arguments.flight.unwrap_or(config.server.flight);
    let insecure = arguments.insecure || config.server.insecure;
    let tls = tls_options(&config.server)?;
    let has_users = !engine.catalog().users().await?.is_empty();
    refuse_open_door(address, tls.is_some(), has_users, insecure)
        .map_err(|reason| Error::Listen { address: address.to_string(), reason })?;
    let with_tls = tls.is_some();
    let options = ServeOptions {
        flight: FlightOptions {
            tls,
            authentication: if has_users { Authentication::Users } else { Authentication::None },
            ..FlightOptions::new(address)
        },
    };
    let screen = context.screen;
    let ready = move |address: SocketAddr| screen.say(&banner(address, with_tls, has_users));
    server::serve(engine, options, ready, shutdown()).await
}

/// Why this combination is refused: a server that the network reaches, without TLS or users, gives
/// everything to everybody.
pub(super) fn refuse_open_door(
    address: SocketAddr,
    tls: bool,
    users: bool,
    insecure: bool,
) -> Result<(), String> {
    if address.ip().is_loopback() || insecure || (tls && users) {
        return Ok(());
    }
    let missing = match (tls, users) {
        (false, false) => "TLS and users",
        (false, true) => "TLS",
        _ => "users",
    };
    Err(format!(
        "it is reachable from other machines and has no {missing}: set [server] \
         tls_certificate_file and tls_key_file, make a user with `attune user add NAME --role \
         admin`, or say --insecure"
    ))
}

fn tls_options(server: &ServerSection) -> Result<Option<TlsOptions>> {
    let (Some(certificate), Some(key)) = (&server.tls_certificate_file, &server.tls_key_file)
    else {
        return Ok(None);
    };
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| Error::file("read", path, &error))
    };
    Ok(Some(TlsOptions { certificate_pem: read(certificate)?, key_pem: read(key)? }))
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

/// Ends when somebody asks the process to stop.
async fn shutdown() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // Without signals the process runs until it is killed.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
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

    #[test]
    fn an_open_door_is_refused_unless_said() {
        let local: SocketAddr = "127.0.0.1:50051".parse().unwrap();
        let everywhere: SocketAddr = "0.0.0.0:50051".parse().unwrap();
        assert!(refuse_open_door(local, false, false, false).is_ok());
        assert!(refuse_open_door(everywhere, true, true, false).is_ok());
        assert!(refuse_open_door(everywhere, false, false, true).is_ok());
        for (tls, users, missing) in
            [(false, false, "TLS and users"), (false, true, "no TLS"), (true, false, "no users")]
        {
            let reason = refuse_open_door(everywhere, tls, users, false).unwrap_err();
            assert!(reason.contains(missing), "{reason}");
        }
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
