//! `KILL SESSION 'id'`: ends a session, its own or, for an admin, anybody's.

use datafusion::sql::parser::DFParser;
use sqlparser::parser::ParserError;

use crate::error::{Error, Result};
use crate::session::run::{Done, Run};

/// `KILL SESSION 'id'`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillSession {
    /// The session's id, as `system.sessions` shows it.
    pub id: String,
}

impl KillSession {
    /// Parses what follows KILL SESSION.
    pub(crate) fn parse(parser: &mut DFParser<'_>) -> Result<Self, ParserError> {
        Ok(Self { id: parser.parser.parse_literal_string()? })
    }

    pub(crate) async fn run(&self, run: &Run) -> Result<Done> {
        let (engine, principal) = (run.session.engine(), run.session.current_principal().await?);
        let Some(session) = engine.sessions().find(&self.id, &principal) else {
            // Somebody else's session is not told apart from one that does not exist.
            return Err(Error::invalid_hint(
                format!("you see no session {} on this server", self.id),
                "SHOW SESSIONS lists them; a session is killed on the server that has it",
            ));
        };
        let told = match session.credential_until_ms() {
            Some(until_ms) => engine.catalog().revoke_session(&self.id, until_ms).await,
            None => Ok(()),
        };
        // Last, because it cancels this statement too when it kills its own session; and also when
        // the other servers could not be told.
        session.end();
        told?;
        Ok(Done::new(1, format!("KILL SESSION {}", self.id)))
    }
}
