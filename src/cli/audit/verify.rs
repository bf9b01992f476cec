//! `attune audit verify`: finds every edit, removal, exchange and truncation behind the last
//! checkpoint, and names the entry.

use std::io::Write;

use catalog::Catalog;
use catalog::audit::{Anchor, Expected, Level, Verified};

use super::super::Context;
use super::super::arguments::AuditVerifyArguments;
use crate::config::Config;
use crate::error::{Error, Result};

/// Runs `attune audit verify`; a record that does not hold, or is not there, is an
/// error.
pub(super) async fn run(arguments: &AuditVerifyArguments, context: &Context) -> Result<()> {
    let config = Config::load(&arguments.store.overrides(), &context.environment)?;
    let mut opened = config.catalog(&context.environment)?;
    // Who verifies leaves no trace in what is verified.
    opened.audit.level = Level::Off;
    let catalog = Catalog::open(opened).await?;
    let anchors = arguments.anchor.iter().map(|anchor| anchor.parse::<Anchor>());
    let expected = Expected {
        keys: arguments.public_key.clone(),
        anchors: anchors.collect::<Result<Vec<Anchor>, catalog::Error>>()?,
    };
    let found = catalog.verify_audit(&expected).await?;
    if found.is_absent() {
        // Of nothing it must not be said that it holds: the whole record may have been removed.
        return Err(Error::NoRecord { warehouse: config.warehouse.url.0 });
    }
    let mut out = std::io::stdout().lock();
    write(&mut out, &config.warehouse.url.0, &found)?;
    match found.faults.len() {
        0 => Ok(()),
        faults => Err(Error::Record { faults }),
    }
}

fn write(out: &mut impl Write, warehouse: &str, found: &Verified) -> std::io::Result<()> {
    writeln!(out, "warehouse   {warehouse}")?;
    writeln!(out, "segments    {}", found.segments)?;
    match &found.last {
        Some(last) => {
            writeln!(out, "entries     {} ({} to {})", found.entries, found.first, last.sequence)?;
        }
        None => writeln!(out, "entries     0")?,
    }
    if found.removed > 0 {
        writeln!(out, "retention   has removed everything up to segment {}", found.removed)?;
    }
    if found.checkpoint > 0 {
        writeln!(out, "checkpoint  segment {}", found.checkpoint)?;
    }
    for key in &found.keys {
        writeln!(out, "public key  {key}")?;
    }
    if let Some(last) = &found.last {
        writeln!(out, "anchor      {last}")?;
    }
    for fault in &found.faults {
        writeln!(out, "fault       {fault}")?;
    }
    if found.faults.is_empty() {
        writeln!(out, "the record holds")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use catalog::audit::Fault;

    use super::*;

    #[test]
    fn what_was_found_is_told_line_by_line() {
        let last = Some(Anchor { sequence: 9, hash: "ab".into() });
        let mut found =
            Verified { segments: 2, entries: 3, first: 7, last, removed: 4, ..Verified::default() };
        let told = |found: &Verified| {
            let mut out = Vec::new();
            write(&mut out, "w", found).unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = told(&found);
        assert!(text.contains("entries     3 (7 to 9)"), "{text}");
        assert!(text.contains("anchor      9:ab"), "{text}");
        assert!(text.ends_with("the record holds\n"), "{text}");
        found.faults.push(Fault::new(5, Some(8), "it was changed"));
        let text = told(&found);
        assert!(text.contains("fault       entry 8 (segment 5): it was changed"), "{text}");
        assert!(!text.contains("holds"), "{text}");
    }
}
