//! `system.keys`: keys and their generations, without secrets; all of them for who manages them,
//! those whose use one holds for others.

use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMillisecondArray};
use catalog::keyring::Generation;
use catalog::keys::{GenerationInfo, KeyInfo};

use super::batches::{batch, integers, optional_texts, texts};
use crate::error::Result;
use crate::session::Session;

/// A generation with its key.
struct Row<'a> {
    key: &'a KeyInfo,
    generation: &'a GenerationInfo,
}

impl Row<'_> {
    fn stored(&self) -> Option<&Generation> {
        self.generation.stored.as_ref()
    }

    fn source(&self) -> &'static str {
        if self.stored().is_some() { "warehouse" } else { "configuration" }
    }

    fn state(&self) -> &'static str {
        let newest = self.key.generations.first().map(GenerationInfo::number);
        match self.stored() {
            Some(stored) if stored.retired_ms.is_some() => "retired",
            _ if newest == Some(self.generation.number()) => "current",
            _ => "older",
        }
    }
}

pub(super) async fn keys(session: &Session) -> Result<RecordBatch> {
    let rights = session.rights().await?;
    let mut keys = session.engine().catalog().keys().await?;
    keys.retain(|key| rights.sees_key(&key.name));
    let rows = keys
        .iter()
        .flat_map(|key| key.generations.iter().map(move |generation| Row { key, generation }));
    let rows: Vec<Row<'_>> = rows.collect();
    let created = rows.iter().map(|row| row.stored().map(|stored| stored.created_ms));
    let created: TimestampMillisecondArray = created.collect();
    let by = |row: &Row<'_>| row.stored().map(|stored| stored.created_by.clone());
    let master = |row: &Row<'_>| row.stored().map(|stored| stored.master.clone());
    batch(vec![
        ("name", texts(rows.iter().map(|row| row.key.name.as_str()))),
        ("source", texts(rows.iter().map(Row::source))),
        ("generation", integers(rows.iter().map(|row| i64::from(row.generation.number())))),
        ("id", texts(rows.iter().map(|row| row.generation.id.as_str()))),
        ("state", texts(rows.iter().map(Row::state))),
        ("created", Arc::new(created.with_timezone("UTC"))),
        ("created_by", optional_texts(rows.iter().map(by))),
        ("master_key", optional_texts(rows.iter().map(master))),
    ])
}
