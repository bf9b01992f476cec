//! Subjects, their keys and copies, and erasures as tables: for holders of `policy_admin` alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use catalog::ObjectName;
use catalog::erasures::{Erasure, SignedCertificate};
use catalog::policy::Role;
use catalog::subject_copies::CopiedKey;
use catalog::subject_marks::Mark;
use catalog::subjects::{Subject, SubjectKey};

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
    let mut copies = Vec::new();
    if context.rights().has(Role::PolicyAdmin) {
        copies = catalog.copies().await?;
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
    let copied = rows.iter().map(|(subject, _)| {
        let own = copies.iter().filter(|(_, copy)| subject.counts(copy));
        let named = own.map(|(table, copy)| match &copy.column {
            Some(column) => format!("{table}.{column}"),
            None => table.to_string(),
        });
        // A column may have come of several, or of one in several ways.
        let named: BTreeSet<String> = named.collect();
        (!named.is_empty()).then(|| named.into_iter().collect::<Vec<_>>().join(", "))
    });
    let marked = |mark: Mark| integers(rows.iter().map(|(_, marks)| count(marks.count(mark))));
    batch(vec![
        ("name", texts(rows.iter().map(|(subject, _)| subject.name.as_str()))),
        ("keys", texts(keys)),
        ("crosswalk", optional_texts(crosswalks)),
        ("copies", optional_texts(copied)),
        ("owner", texts(rows.iter().map(|(subject, _)| subject.owner.as_str()))),
        ("created", moments(rows.iter().map(|(subject, _)| Some(subject.created_ms)))),
        ("ids_restricted", marked(Mark::Restricted)),
        ("ids_held", marked(Mark::Held)),
        ("ids_erased", marked(Mark::Erased)),
    ])
}

/// A column with ids of persons.
struct KeyRow {
    subject: String,
    table: ObjectName,
    column: Option<String>,
    kind: &'static str,
    copied_from: Option<String>,
    transformation: Option<String>,
}

impl KeyRow {
    fn own(subject: &Subject, kind: &'static str, key: &SubjectKey) -> Self {
        Self {
            subject: subject.name.clone(),
            table: key.table.clone(),
            column: Some(key.column.clone()),
            kind,
            copied_from: None,
            transformation: None,
        }
    }

    fn copy(table: &ObjectName, copy: &CopiedKey) -> Self {
        Self {
            subject: copy.subject.clone(),
            table: table.clone(),
            column: copy.column.clone(),
            kind: "copy",
            copied_from: Some(copy.from.to_string()),
            transformation: copy.transformation(),
        }
    }

    /// Whether another one is of the same column, which came of the same one.
    fn is_of(&self, other: &Self) -> bool {
        (&self.table, &self.column, &self.copied_from)
            == (&other.table, &other.column, &other.copied_from)
    }

    /// The column may hold what was done in another way as well.
    fn add(&mut self, other: Self) {
        let ways = [self.transformation.take(), other.transformation];
        if ways.iter().all(Option::is_none) {
            return;
        }
        let [one, two] = ways.map(|way| way.unwrap_or_else(|| "none".to_owned()));
        self.transformation = Some(if one == two { one } else { format!("{one}; or {two}") });
    }
}

/// The columns with ids of persons: keys, the crosswalk's of records and of persons, and copies.
pub(super) async fn keys(context: &StatementContext) -> Result<RecordBatch> {
    let catalog = context.engine().catalog();
    let mut rows = Vec::new();
    if context.rights().has(Role::PolicyAdmin) {
        let copies = catalog.copies().await?;
        for subject in catalog.subjects().await? {
            rows.extend(subject.keys.iter().map(|key| KeyRow::own(&subject, "key", key)));
            if let Some(via) = &subject.via {
                for (kind, column) in [("record", &via.record), ("person", &via.entity)] {
                    let key = SubjectKey { table: via.table.clone(), column: column.clone() };
                    rows.push(KeyRow::own(&subject, kind, &key));
                }
            }
            let own = copies.iter().filter(|(_, copy)| subject.counts(copy));
            let mut copied: Vec<KeyRow> = Vec::new();
            for row in own.map(|(table, copy)| KeyRow::copy(table, copy)) {
                match copied.iter_mut().find(|known| known.is_of(&row)) {
                    Some(known) => known.add(row),
                    None => copied.push(row),
                }
            }
            rows.extend(copied);
        }
    }
    batch(vec![
        ("subject", texts(rows.iter().map(|row| row.subject.as_str()))),
        ("schema", texts(rows.iter().map(|row| row.table.schema.as_str()))),
        ("table", texts(rows.iter().map(|row| row.table.name.as_str()))),
        ("column", optional_texts(rows.iter().map(|row| row.column.clone()))),
        ("kind", texts(rows.iter().map(|row| row.kind))),
        ("copied_from", optional_texts(rows.iter().map(|row| row.copied_from.clone()))),
        ("transformation", optional_texts(rows.iter().map(|row| row.transformation.clone()))),
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
    let valid = rows.iter().map(|row| row.signed.as_ref().and_then(|(_, is_sound)| *is_sound));
    let keys = rows.iter().map(|row| signed(row).and_then(|of| of.key));
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
        ("key", optional_texts(keys)),
        ("is_valid", Arc::new(valid.collect::<BooleanArray>())),
    ])
}
