//! The open sessions of an engine: what `system.sessions` shows and `KILL SESSION` ends.
//!
//! A session is listed from its opening until nobody holds it. Its id names it and opens nothing:
//! credentials are the caller's business. A session that was ended runs nothing more; what runs in
//! it is cancelled at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use catalog::policy::{Principal, Role};
use parking_lot::Mutex;

use crate::session::{Inner, Session};

/// Characters of a client's name that are kept.
const CLIENT_CHARS_MAX: usize = 200;

/// Where a session comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client program, as it names itself.
    pub client: Option<String>,
    /// The client's address.
    pub address: Option<String>,
}

impl Origin {
    /// An origin; control characters are dropped from the client's name and it is cut, because it
    /// is whatever the client says.
    pub fn new(client: Option<&str>, address: Option<String>) -> Self {
        let client = client.map(|name| {
            name.chars().filter(|c| !c.is_control()).take(CLIENT_CHARS_MAX).collect::<String>()
        });
        Self { client: client.filter(|name| !name.is_empty()), address }
    }
}

/// How a session is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Where it comes from.
    pub origin: Origin,
    /// Its id, when the caller chose one; it must be random.
    pub id: Option<String>,
    /// Until when a credential for this session could be shown to another server, in Unix
    /// milliseconds: a session that is killed is told to the others until then.
    pub credential_until_ms: Option<i64>,
    /// Whether an API token opened it.
    pub delegated: bool,
}

/// An open session as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id, which opens nothing.
    pub id: String,
    /// Who asks.
    pub principal: String,
    /// Where it comes from.
    pub origin: Origin,
    /// When it was opened, in Unix milliseconds.
    pub started_ms: i64,
    /// When its last statement was prepared or run, in Unix milliseconds.
    pub used_ms: i64,
    /// The purpose that is set.
    pub purpose: Option<String>,
    /// The channel that is set.
    pub channel: Option<String>,
}

/// The sessions that somebody holds.
#[derive(Debug, Default)]
pub struct OpenSessions(Mutex<BTreeMap<String, Weak<Inner>>>);

impl OpenSessions {
    pub(super) fn add(&self, session: &Session) {
        self.0.lock().insert(session.id().to_owned(), Arc::downgrade(&session.0));
    }

    pub(super) fn forget(&self, id: &str) {
        let mut sessions = self.0.lock();
        // Another session may have been opened under the same id meanwhile.
        if sessions.get(id).is_some_and(|session| session.strong_count() == 0) {
            sessions.remove(id);
        }
    }

    fn held(&self) -> Vec<Session> {
        // The lock is given back first: the last holder of a session may be this list.
        let held: Vec<_> = self.0.lock().values().filter_map(Weak::upgrade).collect();
        held.into_iter().map(Session).filter(|session| !session.is_ended()).collect()
    }

    /// The sessions that `principal` may see: its own, or all for an admin.
    pub fn records(&self, principal: &Principal) -> Vec<SessionRecord> {
        let held = self.held();
        held.iter().filter(|session| may_see(principal, session)).map(Session::record).collect()
    }

    /// The session of that id, when `principal` may see it.
    pub fn find(&self, id: &str, principal: &Principal) -> Option<Session> {
        let found = self.0.lock().get(id).and_then(Weak::upgrade).map(Session)?;
        (!found.is_ended() && may_see(principal, &found)).then_some(found)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

fn may_see(principal: &Principal, session: &Session) -> bool {
    principal.has(Role::Admin) || session.principal().name == principal.name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_name_is_cut_and_cleaned() {
        let long = "x".repeat(500);
        assert_eq!(Origin::new(Some("grpc\u{7}-go\n"), None).client.as_deref(), Some("grpc-go"));
        assert_eq!(Origin::new(Some(&long), None).client.map(|name| name.len()), Some(200));
        assert_eq!(Origin::new(Some("\n"), None).client, None);
    }
}
