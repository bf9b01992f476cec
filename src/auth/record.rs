//! Logins on record: sessions that were opened, and credentials that were refused.
//!
//! A name that is no user's may be a password typed into the wrong field, so that it is not kept.

use std::net::IpAddr;

use catalog::audit::Event;
use catalog::{AuditEntry, Catalog};
use parking_lot::Mutex;
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

/// Refusals of those who are no users, of which one a second is on record and says how many there
/// were: whoever knows no credential must not be able to fill the record.
#[derive(Default)]
pub(super) struct Strangers(Mutex<Refused>);

#[derive(Default)]
struct Refused {
    told_ms: Option<i64>,
    untold: u64,
}

impl Strangers {
    /// Counts a refusal; how many are to be told now, if any.
    fn count(&self, now_ms: i64) -> Option<u64> {
        let mut refused = self.0.lock();
        refused.untold += 1;
        let is_over = |told_ms: i64| !(told_ms..told_ms.saturating_add(1_000)).contains(&now_ms);
        refused.told_ms.is_none_or(is_over).then(|| {
            refused.told_ms = Some(now_ms);
            std::mem::take(&mut refused.untold)
        })
    }
}

/// A credential that was refused.
pub(super) struct Attempt<'a> {
    /// What it was: `user`, `api token` …
    pub kind: &'a str,
    /// Whose it would have been, when there is such a user.
    pub user: Option<&'a str>,
    /// Where it came from.
    pub peer: Option<IpAddr>,
}

/// Records that a credential was refused. Attempts that have to wait are not recorded: they check
/// nothing.
pub(super) fn refused(
    catalog: &Catalog,
    strangers: &Strangers,
    attempt: &Attempt<'_>,
    refusal: &Refusal,
) {
    if !matches!(refusal, Refusal::Login | Refusal::Token | Refusal::Certificate) {
        return;
    }
    let now_ms = catalog.now_ms();
    let times = match attempt.user {
        // Guesses at a user are slowed down, each name for itself.
        Some(_) => 1,
        None => match strangers.count(now_ms) {
            Some(times) => times,
            None => return,
        },
    };
    let entry = AuditEntry {
        at_ms: now_ms,
        event: Event::Login,
        principal: attempt.user.unwrap_or(UNKNOWN).to_owned(),
        address: attempt.peer.map(|peer| peer.to_string()),
        kind: attempt.kind.into(),
        rows: Some(times),
        outcome: Some("failed".into()),
        error_code: Some(Error::Login.code().to_owned()),
        ..AuditEntry::default()
    };
    // A full queue is counted where it is, and told by metrics.
    let _ = catalog.audit().record(entry, false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_strangers_one_a_second_is_told_with_their_number() {
        let strangers = Strangers::default();
        assert_eq!(strangers.count(5_000), Some(1));
        for _ in 0..9 {
            assert_eq!(strangers.count(5_500), None);
        }
        assert_eq!(strangers.count(6_000), Some(10));
        // A clock that was set back silences nothing.
        assert_eq!(strangers.count(1_000), Some(1));
    }
}
