//! `attune serve`: opens the engine and hands it to the server; the server itself is in
//! `crate::server`.

use std::net::SocketAddr;

use super::Context;
use super::arguments::{ListenArguments, ServeArguments};
use crate::auth::Authentication;
use crate::config::Config;
use crate::engine;
use crate::error::Result;
use crate::observe::log;
use crate::server::flight::FlightOptions;
use crate::server::http::HttpOptions;
use crate::server::pg::PgOptions;
use crate::server::tls::Tls;
use crate::server::{self, ServeOptions};

/// Runs the server until Ctrl-C or SIGTERM.
pub(super) async fn run(arguments: &ServeArguments, context: &Context) -> Result<()> {
    let config = Config::load(&arguments.store.overrides(), &context.environment)?;
    let traces = log::start(&config, context.screen.error_colours())?;
    for variable in &config.unknown_variables {
        tracing::warn!("{variable} means nothing to Attune");
    }
    let served = async {
        let engine = engine::open(&config, &context.environment).await?;
        listen(engine, &config, &arguments.listen, context).await
    };
    let outcome = served.await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    outcome
}

/// Serves an engine that is open.
pub(super) async fn listen(
    engine: sql::Engine,
    config: &Config,
    arguments: &ListenArguments,
    context: &Context,
) -> Result<()> {
    let has_users = engine.catalog().has_users().await?;
    let flight = flight_options(config, arguments, has_users)?;
    let with_tls = flight.tls.is_some();
    let http = arguments.http.unwrap_or(config.server.http).address();
    // On loopback there is nobody to hide health and metrics from, and probes stay simple.
    let http = http.map(|address| HttpOptions {
        address,
        tls: flight.tls.clone().filter(|_| !address.ip().is_loopback()),
        name_expectations: config.observe.name_expectations,
    });
    let pg = arguments.pg.or(config.server.pg);
    let pg = pg.map(|address| pg_options(address, config, &flight));
    let every = config.server.retention_interval;
    let retain_every = (!every.is_zero()).then_some(every);
    let options = ServeOptions { flight, http, pg, retain_every };
    let servers = server::bind(engine, options).await?;
    let addresses = Addresses {
        flight: servers.flight_addr(),
        http: servers.http_addr(),
        pg: servers.pg_addr(),
    };
    context.screen.say(&banner(addresses, with_tls, has_users));
    let (first, second) = server::stop_signals();
    servers.run(first, second).await
}

/// How PostgreSQL's protocol will listen: to the same users, by the same certificate.
fn pg_options(address: SocketAddr, config: &Config, flight: &FlightOptions) -> PgOptions {
    PgOptions {
        tls: flight.tls.clone(),
        authentication: flight.authentication,
        credentials: flight.credentials.clone(),
        insecure: flight.insecure,
        connections_max: config.server.pg_connections_max,
        idle_max: flight.session_idle,
        drain: flight.drain,
        ..PgOptions::at(address)
    }
}

/// Where the listeners are.
struct Addresses {
    flight: SocketAddr,
    http: Option<SocketAddr>,
    pg: Option<SocketAddr>,
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
        drain: section.drain,
        ..FlightOptions::at(arguments.flight.unwrap_or(section.flight))
    })
}

/// The addresses, and lines to paste into the clients people have.
fn banner(addresses: Addresses, tls: bool, users: bool) -> String {
    let Addresses { flight: address, http, pg } = addresses;
    let scheme = if tls { "grpc+tls" } else { "grpc" };
    let login = if users { " --user NAME" } else { "" };
    let jdbc = if tls { "" } else { "?useEncryption=false" };
    let keywords = match users {
        true => ", db_kwargs={\"username\": \"NAME\", \"password\": \"…\"}",
        false => "",
    };
    let psql = pg.map_or(String::new(), |pg| {
        let (login, mode) =
            (if users { "NAME@" } else { "" }, if tls { "?sslmode=require" } else { "" });
        format!("  psql    psql \"postgresql://{login}{pg}/attune{mode}\"\n")
    });
    let health = http.map_or(String::new(), |http| {
        format!("  health  http://{http}/health/ready, and http://{http}/metrics\n")
    });
    format!(
        "\nattune {} serves Flight SQL at {scheme}://{address}\n\n  \
         shell   attune shell --connect {scheme}://{address}{login}\n  \
         JDBC    jdbc:arrow-flight-sql://{address}{jdbc}\n  \
         Python  import adbc_driver_flightsql.dbapi as flight\n          \
         connection = flight.connect(\"{scheme}://{address}\"{keywords})\n{psql}{health}\n\
         Ctrl-C stops it.",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str, flight: Option<&str>, has_users: bool) -> FlightOptions {
        let config = Config::parse(text).unwrap();
        let flight = flight.map(|address| address.parse().unwrap());
        let arguments = ListenArguments { flight, ..ListenArguments::default() };
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
        let flight = "127.0.0.1:50051".parse().unwrap();
        let text = banner(Addresses { flight, http: None, pg: None }, false, false);
        for line in [
            "attune shell --connect grpc://127.0.0.1:50051",
            "jdbc:arrow-flight-sql://127.0.0.1:50051?useEncryption=false",
            "flight.connect(\"grpc://127.0.0.1:50051\")",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("health"), "{text}");
        let all = Addresses {
            flight: "10.0.0.1:1".parse().unwrap(),
            http: "127.0.0.1:8080".parse().ok(),
            pg: "10.0.0.1:5432".parse().ok(),
        };
        let text = banner(all, true, true);
        assert!(text.contains("postgresql://NAME@10.0.0.1:5432/attune?sslmode=require"), "{text}");
        assert!(text.contains("http://127.0.0.1:8080/health/ready"), "{text}");
        assert!(text.contains("grpc+tls://10.0.0.1:1 --user NAME"), "{text}");
    }
}
