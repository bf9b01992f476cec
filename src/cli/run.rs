//! Runs one statement for a person or a script: progress while it runs, rows in the format asked
//! for, a line on what happened, Ctrl-C to cancel.

use std::time::{Duration, Instant};

use futures::StreamExt;

use super::Context;
use super::arguments::{ConnectArguments, OutputArguments, StoreArguments};
use super::format::{Destination, Format, TableStyle, Written, format_of, sink};
use super::password;
use super::progress::Meter;
use super::target::{Embedded, Remote, RemoteOptions, Reply, Target};
use super::terminal::Screen;
use crate::config::Config;
use crate::engine;
use crate::error::{Error, Result};

/// How results are written, as the shell's dot commands may change it.
#[derive(Debug, Clone)]
pub(super) struct Output {
    /// The format.
    pub(super) format: Format,
    /// Where to.
    pub(super) destination: Destination,
    /// Rows a table on a terminal shows; 0 for all.
    pub(super) rows_max: usize,
    /// Whether only errors are told.
    pub(super) quiet: bool,
    /// Whether the time is told.
    pub(super) timing: bool,
}

impl Output {
    /// What the flags say.
    pub(super) fn new(arguments: &OutputArguments, screen: &Screen) -> Result<Self> {
        let by_name = arguments.output.as_deref().and_then(format_of);
        let format = arguments.format.or(by_name).unwrap_or(Format::Table);
        let destination = match &arguments.output {
            Some(path) => Destination::File(path.clone()),
            None => Destination::Output,
        };
        if format.is_binary() && destination == Destination::Output && screen.output {
            return Err(Error::usage(
                format!("{} is no text, so a terminal cannot show it", format.name()),
                "name a file with -o FILE",
            ));
        }
        Ok(Self {
            format,
            destination,
            rows_max: arguments.rows,
            quiet: arguments.quiet,
            timing: screen.error,
        })
    }

    fn style(&self, screen: &Screen) -> TableStyle {
        if self.destination != Destination::Output || !screen.output {
            return TableStyle::default();
        }
        TableStyle {
            width_max: screen.width,
            rows_max: (self.rows_max > 0).then_some(self.rows_max),
            colours: screen.output_colours(),
        }
    }
}

/// Opens what the flags ask for: a server, or the engine in this process.
pub(super) async fn open(
    store: &StoreArguments,
    connect: &ConnectArguments,
    context: &Context,
) -> Result<Box<dyn Target>> {
    let Context { environment, screen } = context;
    let ask = |name: &str| password::existing(environment, screen, name);
    let address = match &connect.connect {
        Some(address) => Some(address.as_str()),
        None if store.is_given() => None,
        None => environment.get("ATTUNE_CONNECT"),
    };
    if let Some(address) = address {
        let login = match &connect.user {
            Some(name) => Some((name.clone(), ask(name)?)),
            None => None,
        };
        let options = RemoteOptions {
            address: address.to_owned(),
            login,
            token: environment.get("ATTUNE_TOKEN").map(str::to_owned),
            ca: connect.ca.clone(),
            certificate: connect.certificate.clone().zip(connect.certificate_key.clone()),
        };
        return Ok(Box::new(Remote::connect(&options).await?));
    }
    let config = Config::load(&store.overrides(), environment)?;
    let opened = engine::open(&config, environment).await?;
    let principal = engine::embedded_principal(&opened, connect.user.as_deref(), ask).await?;
    let description = format!("warehouse {}", config.warehouse.url.0);
    Ok(Box::new(Embedded::new(opened.session(principal), description, *screen)))
}

/// Runs one statement and writes its result. Ctrl-C cancels it and gives `Error::Interrupted`.
pub(super) async fn statement(
    target: &dyn Target,
    text: &str,
    output: &Output,
    screen: &Screen,
) -> Result<()> {
    let mut meter = Meter::new(screen, target.progress(), output.quiet);
    let started = Instant::now();
    let result = tokio::select! {
        result = answer(target, text, output, screen, &mut meter) => result,
        // Dropping the answer cancels the statement.
        _ = tokio::signal::ctrl_c() => Err(Error::Interrupted),
    };
    meter.clear();
    if result.is_err() {
        output.destination.abandon();
    }
    let (reply, written) = result?;
    if !output.quiet {
        report(&reply, written, started.elapsed(), output, screen);
    }
    Ok(())
}

/// What a reply said besides its rows.
struct Summary {
    has_rows: bool,
    affected: Option<i64>,
    message: Option<String>,
}

async fn answer(
    target: &dyn Target,
    text: &str,
    output: &Output,
    screen: &Screen,
    meter: &mut Meter,
) -> Result<(Summary, Written)> {
    let reply = meter.watch(target.run(text)).await?;
    let Reply { schema, mut rows, affected, message } = reply;
    let has_rows = !schema.fields().is_empty();
    let summary = Summary { has_rows, affected, message };
    if !has_rows {
        // The stream of an update is empty, but an error may still stand in it.
        while let Some(batch) = meter.watch(rows.next()).await {
            batch?;
        }
        return Ok((summary, Written { rows: 0, cut: false }));
    }
    // The first batch is awaited before anything is written: a query that fails at once leaves no
    // head of a table behind, and the bar is gone before rows come.
    let first = meter.watch(rows.next()).await.transpose()?;
    meter.clear();
    let writer = output.destination.open()?;
    let mut sink = sink(output.format, schema, writer, output.style(screen))?;
    let mut next = first;
    while let Some(batch) = next {
        if !sink.write(&batch)? {
            break;
        }
        next = rows.next().await.transpose()?;
    }
    let written = sink.finish()?;
    output.destination.publish()?;
    Ok((summary, written))
}

fn report(
    summary: &Summary,
    written: Written,
    elapsed: Duration,
    output: &Output,
    screen: &Screen,
) {
    let mut parts = Vec::new();
    if let Some(message) = &summary.message {
        parts.push(message.clone());
    }
    if summary.has_rows {
        let rows = count(written.rows, "row");
        parts.push(if written.cut { format!("first {rows}; --rows 0 for all") } else { rows });
    } else if summary.message.is_none() {
        let affected = summary.affected.and_then(|rows| u64::try_from(rows).ok());
        parts.push(
            affected.map_or("done".into(), |rows| format!("{} affected", count(rows, "row"))),
        );
    }
    if output.timing {
        parts.push(duration(elapsed));
    }
    screen.whisper(&parts.join(" · "));
}

/// `1 row`, `12,345 rows`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `12 ms`, `2.1 s`, `3 m 20 s`.
pub(super) fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if seconds >= 60 {
        return format!("{} m {} s", seconds / 60, seconds % 60);
    }
    if seconds >= 1 {
        return format!("{:.1} s", elapsed.as_secs_f64());
    }
    format!("{} ms", elapsed.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_written_for_people() {
        assert_eq!(count(1, "row"), "1 row");
        assert_eq!(count(0, "row"), "0 rows");
        assert_eq!(count(1_234_567, "row"), "1,234,567 rows");
        assert_eq!(duration(Duration::from_millis(12)), "12 ms");
        assert_eq!(duration(Duration::from_millis(2_140)), "2.1 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 m 20 s");
    }

    #[test]
    fn the_format_follows_the_flag_then_the_file() {
        let output = |format, path: Option<&str>| {
            let arguments =
                OutputArguments { format, output: path.map(Into::into), ..Default::default() };
            Output::new(&arguments, &Screen::none()).unwrap().format
        };
        assert_eq!(output(None, None), Format::Table);
        assert_eq!(output(None, Some("x.csv")), Format::Csv);
        assert_eq!(output(Some(Format::Json), Some("x.csv")), Format::Json);
    }

    #[test]
    fn parquet_is_not_thrown_at_a_terminal() {
        let arguments =
            OutputArguments { format: Some(Format::Parquet), ..OutputArguments::default() };
        let terminal = Screen { output: true, ..Screen::none() };
        assert_eq!(Output::new(&arguments, &terminal).unwrap_err().exit_code(), 2);
        assert!(Output::new(&arguments, &Screen::none()).is_ok());
    }
}
