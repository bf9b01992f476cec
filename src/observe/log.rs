//! The log: lines or JSON on standard error, and the traces beside it.
//!
//! Each statement ends with one line that carries its id, session, principal, times, rows and code.
//! Lines that are written while a statement runs stand in its span and so carry its id.

use std::any::Any;

use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use futures::FutureExt;
use futures::future::BoxFuture;
use tracing::{Instrument, Span};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::traces::Traces;
use crate::config::Config;
use crate::error::{Error, Result};

/// Starts the log, and the traces when they are configured. The traces are to be ended with
/// [`Traces::end`] before the process does.
///
/// # Errors
/// A level that cannot be read, an endpoint that is no address.
pub fn start(config: &Config, colours: bool) -> Result<Option<Traces>> {
    let filter = EnvFilter::try_new(directives(&config.log.level)).map_err(|error| {
        Error::usage(
            format!("[log] level {:?} cannot be read: {error}", config.log.level),
            "write info, or attune=debug,info",
        )
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match config.log.format.as_str() {
        "json" => lines.json().with_current_span(false).boxed(),
        _ => lines.boxed(),
    };
    let traces = Traces::start(&config.observe)?;
    let spans = traces.as_ref().map(Traces::layer);
    // It fails only when a log has been started already, as in tests.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init();
    let _ = set_join_set_tracer(&InSpan);
    Ok(traces)
}

/// A bare level is for Attune's own lines: of what it stands on, only warnings are worth a line.
/// The parser's name begins like one of ours, and its lines hold texts of statements.
fn directives(level: &str) -> String {
    const OWN: [&str; 4] = ["attune", "sql", "catalog", "udfs"];
    match level.parse::<tracing::Level>() {
        Ok(level) if level > tracing::Level::WARN => {
            let own = OWN.map(|name| format!("{name}={level}"));
            format!("warn,{},sqlparser=warn", own.join(","))
        }
        _ => level.to_owned(),
    }
}

/// The tasks that DataFusion spawns for a statement stand in the statement's span.
struct InSpan;

impl JoinSetTracer for InSpan {
    fn trace_future(
        &self,
        future: BoxFuture<'static, Box<dyn Any + Send>>,
    ) -> BoxFuture<'static, Box<dyn Any + Send>> {
        future.in_current_span().boxed()
    }

    fn trace_block(
        &self,
        block: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> {
        let span = Span::current();
        Box::new(move || span.in_scope(block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_our_own_lines() {
        assert_eq!(
            directives("info"),
            "warn,attune=INFO,sql=INFO,catalog=INFO,udfs=INFO,sqlparser=warn"
        );
        for said in ["warn", "error", "attune=debug,info", "off", "nonsense"] {
            assert_eq!(directives(said), said);
        }
    }
}
