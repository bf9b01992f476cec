//! The statements that run or ran lately, for `system.queries` and for cancelling.
//!
//! Texts are kept with their literals replaced by `?`, so that the log holds no person's data.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use sqlparser::tokenizer::{Token, Tokenizer};
use tokio_util::sync::CancellationToken;

use crate::dialect::AttuneDialect;
use crate::error::Error;
use crate::session::Session;

/// Ended statements that are remembered.
const ENDED_MAX: usize = 1_000;
/// Characters of a text that are kept.
const TEXT_MAX: usize = 2_000;

/// A statement in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryRecord {
    /// Its id.
    pub id: String,
    /// The session it ran in.
    pub session_id: String,
    /// Who asked.
    pub principal: String,
    /// Its text, literals replaced by `?`.
    pub text: String,
    /// `running`, `finished`, `failed` or `cancelled`.
    pub state: &'static str,
    /// When it started, in Unix milliseconds.
    pub started_ms: i64,
    /// How long it ran, in milliseconds; `None` while it runs.
    pub duration_ms: Option<i64>,
    /// Rows sent or changed.
    pub rows: u64,
    /// The code of its error.
    pub error_code: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Records {
    running: BTreeMap<String, (QueryRecord, CancellationToken)>,
    ended: VecDeque<QueryRecord>,
}

/// The log of statements.
#[derive(Debug, Clone, Default)]
pub struct QueryLog(Arc<Mutex<Records>>);

impl QueryLog {
    pub(crate) fn start(
        &self,
        session: &Session,
        id: &str,
        text: &str,
        cancel: CancellationToken,
    ) -> Ticket {
        let catalog = session.engine().catalog();
        let record = QueryRecord {
            id: id.to_owned(),
            session_id: session.id().to_owned(),
            principal: session.principal().name.clone(),
            text: without_literals(text),
            state: "running",
            started_ms: catalog.now_ms(),
            duration_ms: None,
            rows: 0,
            error_code: None,
        };
        let id = record.id.clone();
        self.0.lock().running.insert(id.clone(), (record, cancel));
        Ticket(Arc::new(TicketInner { id, log: self.clone(), session: session.clone() }))
    }

    /// Running and lately ended statements, oldest first.
    pub fn records(&self) -> Vec<QueryRecord> {
        let records = self.0.lock();
        let running = records.running.values().map(|(record, _)| record.clone());
        records.ended.iter().cloned().chain(running).collect()
    }

    /// Cancels a running statement of `principal` (or of anybody, for an admin); whether there
    /// was one.
    pub fn cancel(&self, id: &str, principal: &catalog::policy::Principal) -> bool {
        let records = self.0.lock();
        let Some((record, token)) = records.running.get(id) else { return false };
        let allowed =
            record.principal == principal.name || principal.has(catalog::policy::Role::Admin);
        if allowed {
            token.cancel();
        }
        allowed
    }

    fn end(&self, id: &str, now_ms: i64, rows: u64, error: Option<&Error>) {
        let mut records = self.0.lock();
        let Some((mut record, _)) = records.running.remove(id) else { return };
        record.duration_ms = Some((now_ms - record.started_ms).max(0));
        record.rows = rows;
        record.state = match error {
            None => "finished",
            Some(Error::Cancelled) => "cancelled",
            Some(_) => "failed",
        };
        record.error_code = error.map(Error::code);
        tracing::info!(
            query = %record.id, principal = %record.principal, state = record.state,
            duration_ms = record.duration_ms, rows, code = record.error_code, text = %record.text,
            "statement"
        );
        records.ended.push_back(record);
        while records.ended.len() > ENDED_MAX {
            records.ended.pop_front();
        }
    }
}

/// A running statement's entry; when the last clone goes, the statement was abandoned.
#[derive(Debug, Clone)]
pub struct Ticket(Arc<TicketInner>);

#[derive(Debug)]
struct TicketInner {
    id: String,
    log: QueryLog,
    session: Session,
}

impl Ticket {
    /// The statement's id.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The statement ended well.
    pub fn finish(&self, rows: u64) {
        self.0.end(rows, None);
    }

    /// The statement ended with an error.
    pub fn fail(&self, error: &Error) {
        self.0.end(0, Some(error));
    }
}

impl TicketInner {
    fn end(&self, rows: u64, error: Option<&Error>) {
        self.log.end(&self.id, self.session.engine().catalog().now_ms(), rows, error);
    }
}

impl Drop for TicketInner {
    fn drop(&mut self) {
        self.end(0, Some(&Error::Cancelled));
    }
}

/// The text with its literals replaced by `?`.
pub fn without_literals(text: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&AttuneDialect, text).tokenize() else {
        return "(no SQL)".into();
    };
    let mut shown = String::new();
    for token in tokens {
        match token {
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::DollarQuotedString(_) => shown.push('?'),
            Token::Whitespace(_) => {
                if !shown.ends_with(' ') {
                    shown.push(' ');
                }
            }
            other => shown.push_str(&other.to_string()),
        }
        if shown.len() > TEXT_MAX {
            let cut = shown.char_indices().nth(TEXT_MAX).map_or(shown.len(), |(at, _)| at);
            shown.truncate(cut);
            shown.push('…');
            break;
        }
    }
    shown.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_literal_reaches_the_log() {
        let text = "SELECT * FROM t WHERE mail = 'ann@x.org' AND id = 42 -- ann\n";
        assert_eq!(without_literals(text), "SELECT * FROM t WHERE mail = ? AND id = ?");
    }
}
