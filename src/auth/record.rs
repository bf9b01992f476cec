//! Logins on record: sessions that were opened, and credentials that were refused.
//!
//! A name that is no user's may be a password typed into the wrong field, so that it is not kept.

use std::net::IpAddr;

use catalog::audit::Event;
use catalog::{AuditEntry, Catalog};
use sql::Session;

use super::{Login, Proof, Refusal};
use crate::error::Error;

/// Who is named where no user is.
const UNKNOWN: &str = "(unknown)";

/// Records that a login opened a session.
pub fn opened(session: &Session, login: &Login) {
    let catalog = session.engine().catalog();
    let audit = catalog.audit();
    if login.principal.is_embedded() && !audit.config().embedded {
        return;
    }
    let kind = match login.proof {
        Proof::Anybody => "without credentials",
        Proof::User(_) => "user",
        Proof::Token { .. } => "api token",
        Proof::Provider { .. } => "provider token",
    };
    let origin = session.origin();
    let entry = AuditEntry {
        at_ms: catalog.now_ms(),
        event: Event::Login,
        principal: login.principal.name.clone(),
        roles: login.principal.roles.iter().cloned().collect(),
        purpose: login.purpose.clone(),
        client: origin.client.clone(),
        address: origin.address.clone(),
        session_id: Some(session.id().to_owned()),
        kind: kind.into(),
        outcome: Some("finished".into()),
        ..AuditEntry::default()
    };
    // A full queue is counted where it is, and told by metrics.
    let _ = audit.record(entry, false);
}

/// Records that a credential was refused. Attempts that have to wait are not: they check nothing,
/// and whoever makes them would fill the record.
pub(super) fn refused(
    catalog: &Catalog,
    kind: &str,
    user: Option<&str>,
    peer: Option<IpAddr>,
    refusal: &Refusal,
) {
    if !matches!(refusal, Refusal::Login | Refusal::Token | Refusal::Certificate) {
        return;
    }
    let entry = AuditEntry {
        at_ms: catalog.now_ms(),
        event: Event::Login,
        principal: user.unwrap_or(UNKNOWN).to_owned(),
        address: peer.map(|peer| peer.to_string()),
        kind: kind.into(),
        outcome: Some("failed".into()),
        error_code: Some(Error::Login.code().to_owned()),
        ..AuditEntry::default()
    };
    let _ = catalog.audit().record(entry, false);
}
