//! `attune audit`: verifies the record of who did what, exports it, reports from it.
//!
//! Verifying needs the warehouse alone and shows nobody's doings. Exporting and reporting ask the
//! engine as anybody does, so that they show what whoever asks may see.

mod chapters;
mod export;
mod report;
mod verify;

use super::Context;
use super::arguments::{AuditArguments, AuditCommand};
use crate::error::Result;

/// Runs `attune audit …`.
pub(super) async fn run(arguments: &AuditArguments, context: &Context) -> Result<()> {
    match &arguments.command {
        AuditCommand::Verify(arguments) => verify::run(arguments, context).await,
        AuditCommand::Export(arguments) => export::run(arguments, context).await,
        AuditCommand::Report(arguments) => report::run(arguments, context).await,
    }
}
