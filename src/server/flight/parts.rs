//! Large results in several endpoints, each fetched on its own, on any server.
//!
//! A client that asks for it (`attune-endpoints: 4`, or the option `endpoints`) gets a large query
//! over warehouse tables in so many parts. A part's ticket holds the query, the user, the tables'
//! versions and its end, signed with the key that the servers of a warehouse share for their
//! session tokens: nothing is kept, and any of them serves it. Whoever brings the ticket must be
//! logged in as its user; the part is planned again under the rights of that moment, and refused
//! when the plan differs. What cannot be cut for certain comes in one endpoint, as always.

use std::time::SystemTime;

use arrow_flight::sql::Any;
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};
use sql::{Compression, Split};
use tonic::Status;

use super::rows::Fetched;
use super::service::State;
use super::sessions::Caller;
use super::statements::{Statement, expiration, schema_bytes};
use super::status;
use super::wire::WireTypes;

/// The type of the ticket.
const TYPE_URL: &str = "type.googleapis.com/attune.Part";
/// What the signature is for, so that no other token of ours passes for a ticket.
const AUDIENCE: &str = "attune-part";
/// Endpoints of one result.
pub const PARTS_MAX: usize = 64;
/// A ticket holds the text, and clients limit messages.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The query in several endpoints; `None` when it is to come in one.
pub async fn offer(
    state: &State,
    caller: &Caller,
    statement: &Statement,
    descriptor: &FlightDescriptor,
    asked: usize,
) -> Result<Option<FlightInfo>, Status> {
    let text = statement.prepared.text();
    if asked < 2 || text.len() > TEXT_BYTES_MAX {
        return Ok(None);
    }
    let session = &caller.client.session;
    let split = session.split(text, asked).await.map_err(|error| status::from_sql(&error))?;
    let Some(split) = split else { return Ok(None) };
    let query_id = &statement.query_id;
    let expires = expiration(&caller.client, state.statements.ttl());
    let mut info = FlightInfo::new()
        .with_descriptor(descriptor.clone())
        .with_total_records(-1)
        .with_total_bytes(-1)
        .with_ordered(false)
        .with_app_metadata(json!({ "query_id": query_id }).to_string());
    info.schema = schema_bytes(&statement.prepared, &statement.wire)?;
    for number in 0..split.parts {
        let (id, types) = (format!("{query_id}.{number}"), caller.types);
        let part = Part { id, number, types, split: split.clone() };
        let mut endpoint = FlightEndpoint::new().with_ticket(part.ticket(state, caller).await?);
        endpoint.expiration_time = Some(expires.into());
        info = info.with_endpoint(endpoint);
    }
    Ok(Some(info))
}

/// The signed text of a ticket; `None` for a ticket of another kind.
pub fn signed(any: &Any) -> Option<&Bytes> {
    (any.type_url == TYPE_URL).then_some(&any.value)
}

/// Reads one part.
pub async fn fetch(
    state: &State,
    caller: &Caller,
    signed: &Bytes,
    compression: Compression,
) -> Result<Fetched, Status> {
    let part = Part::read(state, caller, signed).await?;
    let session = &caller.client.session;
    let prepared = session.part(&part.split, part.number).await;
    let prepared = prepared.map_err(|error| status::from_sql(&error))?;
    let statement = Statement::new(&caller.client, part.types, prepared, Vec::new());
    let statement = Statement { query_id: part.id, ..statement };
    state.statements.run_now(statement, compression).await
}

/// Ends a part that is being read; whether it was.
pub async fn cancel(state: &State, caller: &Caller, signed: &Bytes) -> Result<bool, Status> {
    let part = Part::read(state, caller, signed).await?;
    let session = &caller.client.session;
    session.cancel_query(&part.id).await.map_err(|error| status::from_sql(&error))
}

/// The same part in a ticket with a later end, and that end.
pub async fn renew(
    state: &State,
    caller: &Caller,
    signed: &Bytes,
) -> Result<(Ticket, SystemTime), Status> {
    let part = Part::read(state, caller, signed).await?;
    let ticket = part.ticket(state, caller).await?;
    Ok((ticket, expiration(&caller.client, state.statements.ttl())))
}

/// What a ticket says.
struct Part {
    id: String,
    number: usize,
    types: WireTypes,
    split: Split,
}

impl Part {
    /// A ticket that holds from now on.
    async fn ticket(&self, state: &State, caller: &Caller) -> Result<Ticket, Status> {
        let now_ms = caller.client.session.engine().catalog().now_ms();
        let kept_ms = i64::try_from(state.statements.ttl().as_millis()).unwrap_or(i64::MAX);
        let body = json!({
            "id": self.id,
            "sub": caller.client.owner(),
            "exp": now_ms.saturating_add(kept_ms) / 1_000,
            "part": self.number,
            "views": self.types.views,
            "java": self.types.java,
            "split": written(&self.split),
        });
        let signed = state.sessions.seal(AUDIENCE, body).await?;
        let any = Any { type_url: TYPE_URL.into(), value: signed.into() };
        Ok(Ticket { ticket: any.encode_to_vec().into() })
    }

    async fn read(state: &State, caller: &Caller, signed: &Bytes) -> Result<Self, Status> {
        let now_ms = caller.client.session.engine().catalog().now_ms();
        let unknown = || status::unknown_handle("ticket");
        let text = std::str::from_utf8(signed).map_err(|_| unknown())?;
        let body = state.sessions.unseal(AUDIENCE, text).await.ok_or_else(unknown)?;
        let mine = body["sub"].as_str() == Some(caller.client.owner());
        let lives = body["exp"].as_i64().is_some_and(|until_s| now_ms / 1_000 < until_s);
        if !mine || !lives {
            return Err(unknown());
        }
        let number = body["part"].as_u64().and_then(|part| usize::try_from(part).ok());
        let part = || {
            let (views, java) = (body["views"].as_bool()?, body["java"].as_bool()?);
            Some(Self {
                id: body["id"].as_str()?.to_owned(),
                number: number?,
                types: WireTypes { views, java },
                split: read(&body["split"])?,
            })
        };
        part().filter(|part| part.number < part.split.parts).ok_or_else(unknown)
    }
}

fn written(split: &Split) -> Value {
    json!({
        "text": split.text,
        "settings": split.settings,
        "versions": split.versions,
        "parts": split.parts,
        "asked": split.asked,
        "fingerprint": split.fingerprint,
    })
}

fn read(value: &Value) -> Option<Split> {
    let number = |name: &str| usize::try_from(value[name].as_u64()?).ok();
    let settings = value["settings"].as_object()?.iter();
    let versions = value["versions"].as_array()?.iter().map(|version| {
        let name = |index: usize| version[index].as_str().map(str::to_owned);
        Some((name(0)?, name(1)?, version[2].as_u64()?))
    });
    Some(Split {
        text: value["text"].as_str()?.to_owned(),
        settings: settings
            .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect::<Option<_>>()?,
        versions: versions.collect::<Option<_>>()?,
        parts: number("parts")?,
        asked: number("asked")?,
        fingerprint: value["fingerprint"].as_str()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_says_what_was_cut() {
        let split = Split {
            text: "SELECT 'é' FROM t".into(),
            settings: [("schema".to_owned(), "main".to_owned())].into(),
            versions: vec![("main".into(), "t".into(), 7)],
            parts: 4,
            asked: 5,
            fingerprint: "ab".into(),
        };
        assert_eq!(read(&written(&split)).unwrap(), split);
        assert!(read(&json!({ "text": 1 })).is_none());
    }
}
