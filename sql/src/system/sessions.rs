//! `system.sessions` and `system.tokens`: one's own, or everybody's for an admin.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray};
use catalog::policy::Role;

use super::batches::{batch, integers, optional_texts, texts};
use crate::error::Result;
use crate::session::Session;

pub(super) fn instants(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    let values: TimestampMillisecondArray = values.into_iter().collect();
    Arc::new(values.with_timezone("UTC"))
}

pub(super) async fn sessions(session: &Session) -> Result<RecordBatch> {
    let engine = session.engine();
    let records = engine.sessions().records(&session.current_principal().await?);
    let mut running: HashMap<String, i64> = HashMap::new();
    let queries = engine.queries().records();
    for query in queries.into_iter().filter(|query| query.state.is_current()) {
        *running.entry(query.session_id).or_default() += 1;
    }
    let statements = |id: &str| running.get(id).copied().unwrap_or(0);
    let state = |id: &str| if statements(id) > 0 { "running" } else { "idle" };
    batch(vec![
        ("id", texts(records.iter().map(|record| record.id.as_str()))),
        ("principal", texts(records.iter().map(|record| record.principal.as_str()))),
        ("client", optional_texts(records.iter().map(|record| record.origin.client.clone()))),
        ("address", optional_texts(records.iter().map(|record| record.origin.address.clone()))),
        ("started", instants(records.iter().map(|record| Some(record.started_ms)))),
        ("last_used", instants(records.iter().map(|record| Some(record.used_ms)))),
        ("state", texts(records.iter().map(|record| state(&record.id)))),
        ("statements", integers(records.iter().map(|record| statements(&record.id)))),
        ("purpose", optional_texts(records.iter().map(|record| record.purpose.clone()))),
        ("channel", optional_texts(records.iter().map(|record| record.channel.clone()))),
    ])
}

pub(super) async fn tokens(session: &Session) -> Result<RecordBatch> {
    let (principal, catalog) = (session.current_principal().await?, session.engine().catalog());
    let now_ms = catalog.now_ms();
    let mut tokens = catalog.tokens().await?;
    tokens.retain(|token| principal.has(Role::Admin) || token.user == principal.name);
    let state = |expired| if expired { "expired" } else { "valid" };
    batch(vec![
        ("user_name", texts(tokens.iter().map(|token| token.user.as_str()))),
        ("name", texts(tokens.iter().map(|token| token.name.as_str()))),
        ("purpose", optional_texts(tokens.iter().map(|token| token.purpose.clone()))),
        ("created", instants(tokens.iter().map(|token| Some(token.created_ms)))),
        ("created_by", texts(tokens.iter().map(|token| token.made_by.as_str()))),
        ("expires", instants(tokens.iter().map(|token| token.expires_ms))),
        ("state", texts(tokens.iter().map(|token| state(token.has_expired(now_ms))))),
    ])
}
