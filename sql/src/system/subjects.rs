//! Subjects and erasures as tables: for holders of `policy_admin` alone.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use catalog::erasures::{Erasure, SignedCertificate};
use catalog::policy::Role;
use catalog::subject_marks::Mark;

use super::batches::{batch, integers, optional_texts, texts};
use crate::error::{Error, Result};
use crate::session::StatementContext;

fn moments(times: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(times.collect::<TimestampMillisecondArray>().with_timezone("UTC"))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) async fn subjects(context: &StatementContext) -> Result<RecordBatch> {
    let catalog = context.engine().catalog();
    let mut rows = Vec::new();
    if context.rights().has(Role::PolicyAdmin) {
        for subject in catalog.subjects().await? {
            let marks = catalog.subject_marks(&subject.name).await?;
            rows.push((subject, marks));
        }
    }
    let keys = rows.iter().map(|(subject, _)| {
        subject.keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    });
    let crosswalks = rows.iter().map(|(subject, _)| {
        let via = subject.via.as_ref()?;
        Some(format!("{} ({}, {})", via.table, via.record, via.entity))
    });
    let marked = |mark: Mark| integers(rows.iter().map(|(_, marks)| count(marks.count(mark))));
    batch(vec![
        ("name", texts(rows.iter().map(|(subject, _)| subject.name.as_str()))),
        ("keys", texts(keys)),
        ("crosswalk", optional_texts(crosswalks)),
        ("owner", texts(rows.iter().map(|(subject, _)| subject.owner.as_str()))),
        ("created", moments(rows.iter().map(|(subject, _)| Some(subject.created_ms)))),
        ("ids_restricted", marked(Mark::Restricted)),
        ("ids_held", marked(Mark::Held)),
        ("ids_erased", marked(Mark::Erased)),
    ])
}

pub(super) async fn erasures(context: &StatementContext) -> Result<RecordBatch> {
    let rows: Vec<Erasure> = match context.rights().has(Role::PolicyAdmin) {
        true => context.engine().catalog().erasures().await?,
        false => vec![],
    };
    let signed = |row: &Erasure| row.signed.as_ref().map(|(signed, _)| signed.clone());
    let json = |signed: SignedCertificate| {
        serde_json::to_string(&signed).map_err(|error| Error::Internal(error.to_string()))
    };
    let certificates: Vec<Option<String>> =
        rows.iter().map(|row| signed(row).map(json).transpose()).collect::<Result<_>>()?;
    let state = rows.iter().map(|row| if row.signed.is_some() { "done" } else { "interrupted" });
    let finished = rows.iter().map(|row| signed(row).map(|of| of.certificate.finished_ms));
    let erased = rows.iter().map(|row| {
        let rows = signed(row)?.certificate.steps.iter().map(|step| step.rows).sum::<u64>();
        Some(i64::try_from(rows).unwrap_or(i64::MAX))
    });
    let remains = rows.iter().map(|row| signed(row).map(|of| of.certificate.remains.join("; ")));
    let valid = rows.iter().map(|row| row.signed.as_ref().map(|(_, is_sound)| *is_sound));
    batch(vec![
        ("id", texts(rows.iter().map(|row| row.id.as_str()))),
        ("subject", texts(rows.iter().map(|row| row.subject.as_str()))),
        ("requested_by", texts(rows.iter().map(|row| row.by.as_str()))),
        ("state", texts(state)),
        ("steps", integers(rows.iter().map(|row| count(row.steps[0])))),
        ("steps_done", integers(rows.iter().map(|row| count(row.steps[1])))),
        ("started", moments(rows.iter().map(|row| Some(row.started_ms)))),
        ("finished", moments(finished)),
        ("rows", Arc::new(erased.collect::<Int64Array>())),
        ("remains", optional_texts(remains)),
        ("certificate", optional_texts(certificates)),
        ("is_valid", Arc::new(valid.collect::<BooleanArray>())),
    ])
}
