//! `attune audit export`: the record as one JSON object a line, oldest first. It shows what whoever
//! asks may see: all of it to holders of `admin` or `policy_admin`.

use super::super::Context;
use super::super::arguments::AuditExportArguments;
use super::super::format::{Destination, Format};
use super::super::run::{self, Output};
use crate::error::Result;

/// Runs `attune audit export`.
pub(super) async fn run(arguments: &AuditExportArguments, context: &Context) -> Result<()> {
    let destination = match &arguments.output {
        Some(path) => Destination::File(path.clone()),
        None => Destination::Output,
    };
    let output =
        Output { format: Format::Ndjson, destination, rows_max: 0, quiet: true, timing: false };
    let target = run::open(&arguments.store, &arguments.connect, context).await?;
    let query = "SELECT * FROM system.audit";
    let result = run::statement(target.as_ref(), query, &output, &context.screen).await;
    target.close().await?;
    result
}
