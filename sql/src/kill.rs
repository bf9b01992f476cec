//! `KILL QUERY 'id'` and `KILL SESSION 'id'`: ends a statement or a session, its own or, for an
//! admin, anybody's.

use crate::error::{Error, Result};
use crate::session::run::{Done, Run};

/// What is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kill {
    /// A statement, by its id in `system.queries`.
    Query(String),
    /// A session, by its id in `system.sessions`.
    Session(String),
}

impl Kill {
    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        match self {
            Self::Query(id) => query(id, run).await,
            Self::Session(id) => session(id, run).await,
        }
    }
}

async fn query(id: &str, run: &Run) -> Result<Done> {
    if !run.session.cancel_query(id).await? {
        return Err(Error::Catalog(catalog::Error::not_found("running query", id, [])));
    }
    Ok(Done::new(0, format!("KILL QUERY {id}")))
}

async fn session(id: &str, run: &Run) -> Result<Done> {
    let (engine, principal) = (run.session.engine(), run.session.current_principal().await?);
    let Some(session) = engine.sessions().find(id, &principal) else {
        // Somebody else's session is not told apart from one that does not exist.
        return Err(Error::invalid_hint(
            format!("you see no session {id} on this server"),
            "SHOW SESSIONS lists them; a session is killed on the server that has it",
        ));
    };
    let told = match session.credential_until_ms() {
        Some(until_ms) => engine.catalog().revoke_session(id, until_ms).await,
        None => Ok(()),
    };
    // Last, because it cancels this statement too when it kills its own session; and also when the
    // other servers could not be told.
    session.end();
    told?;
    Ok(Done::new(1, format!("KILL SESSION {id}")))
}
