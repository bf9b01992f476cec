//! What goes on record of a statement, and when.
//!
//! A change (of data, definitions or rights) and a read under a policy are on record before they
//! do anything: an entry `begun` is kept first, and with `strict` a statement that cannot be
//! recorded does not run. Its end, with rows and outcome, is kept before a change is answered. A
//! plain read is recorded once it has ended, in company, within the configured delay; one that
//! gives rows for longer has a `begun` of its own by then. So a look-up never waits for the
//! warehouse.

mod beneath;
pub(crate) mod governance;
pub(crate) mod touched;

use std::sync::Arc;
use std::time::Duration;

use catalog::Class;
use catalog::audit::{Audit, AuditConfig, AuditEntry, Event, Level, Phase, Receipt, ValueTokens};

pub(crate) use self::touched::{RECORDS, Touched, Used, Weight};
use crate::error::{Error, Result};
use crate::queries::{QueryRecord, State, Ticket};
use crate::rights::Rights;
use crate::session::Session;
use crate::session::planned::Planned;

/// How long a statement waits until its beginning or its end is on record.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What is known of a statement before it ends.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    touched: Arc<Touched>,
    rights: Arc<Rights>,
    purpose: Option<String>,
    embedded: bool,
}

impl Draft {
    /// What is known of a planned statement in a session.
    pub(crate) fn new(session: &Session, planned: &Planned) -> Self {
        Self {
            touched: Arc::clone(&planned.touched),
            rights: Arc::clone(&planned.rights),
            purpose: planned.touched.purpose.clone(),
            embedded: session.principal().is_embedded(),
        }
    }

    /// Whether the statement is recorded at all, as far as is known before it ends.
    fn is_recorded(&self, config: &AuditConfig, class: Option<Class>) -> bool {
        let touched = &self.touched;
        if config.level == Level::Off || (self.embedded && !config.embedded) {
            // Users who come into being, or cease to be, are on record whoever does it.
            return config.level != Level::Off && touched.weight == Weight::Rights;
        }
        match touched.weight {
            Weight::None => false,
            Weight::System => config.system && config.level == Level::All,
            Weight::Read => {
                let protected = !touched.policies.is_empty();
                config.level == Level::All || protected || class.is_some_and(is_refusal)
            }
            Weight::Change | Weight::Rights => true,
        }
    }

    fn entry(&self, record: &QueryRecord, phase: Phase) -> AuditEntry {
        let touched = &self.touched;
        let ended = phase == Phase::Ended;
        AuditEntry {
            at_ms: record.started_ms,
            phase,
            roles: self.rights.roles().iter().cloned().collect(),
            purpose: self.purpose.clone(),
            channel: touched.channel.clone(),
            kind: kind(&record.text, touched),
            objects: touched.objects.clone(),
            columns: touched.columns.clone(),
            policies: touched.policies.clone(),
            keys: touched.keys.clone(),
            subjects: touched.subjects.clone(),
            rows: ended.then_some(record.rows),
            outcome: ended.then(|| record.state.name().to_owned()),
            error_code: record.error_code.map(str::to_owned),
            run_ms: record.run_ms.filter(|_| ended),
            ..of_record(record)
        }
    }

    /// Records the end of the statement.
    pub(crate) fn ended(&self, audit: &Audit, record: &QueryRecord) -> Option<Receipt> {
        if !self.is_recorded(audit.config(), record.error_class) {
            return None;
        }
        let urgent = self.touched.weight >= Weight::Change;
        // A full queue is counted where it is, and told by metrics.
        audit.record(self.entry(record, Phase::Ended), urgent).ok().flatten()
    }

    /// Records that the statement runs, without waiting.
    pub(crate) fn still_running(&self, audit: &Audit, record: &QueryRecord) {
        if self.is_recorded(audit.config(), None) {
            let _ = audit.record(self.entry(record, Phase::Begun), false);
        }
    }

    /// Whether the statement is on record before it does anything.
    pub(crate) fn is_written_first(&self) -> bool {
        self.touched.is_written_first()
    }
}

/// What every entry of a statement says.
fn of_record(record: &QueryRecord) -> AuditEntry {
    AuditEntry {
        event: Event::Statement,
        principal: record.principal.clone(),
        client: record.client.clone(),
        address: record.address.clone(),
        session_id: Some(record.session_id.clone()),
        query_id: Some(record.id.clone()),
        text: Some(record.text.to_string()),
        ..AuditEntry::default()
    }
}

/// Whether an error says that somebody asked for what it may not have; what it may not see does
/// not exist for it.
fn is_refusal(class: Class) -> bool {
    matches!(class, Class::Denied | Class::NotFound)
}

/// Records that a statement begins, where that is to be known before it does anything.
///
/// # Errors
/// When it cannot be recorded and the record is strict: it must not run.
pub(crate) async fn begin(session: &Session, ticket: &Ticket, draft: &Draft) -> Result<()> {
    let audit = session.engine().catalog().audit();
    let config = audit.config();
    if !draft.is_recorded(config, None) {
        return Ok(());
    }
    let failing = audit.failing();
    if config.strict
        && let Some(error) = &failing
    {
        return Err(unrecorded(error));
    }
    if !draft.is_written_first() {
        return Ok(());
    }
    let entry = draft.entry(&ticket.record(), Phase::Begun);
    let written = match audit.record(entry, true) {
        // While the warehouse fails nobody waits for it in vain.
        Ok(Some(_)) if failing.is_some() => Ok(()),
        Ok(Some(receipt)) => kept(audit, receipt).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    match written {
        Err(error) if config.strict => Err(unrecorded(&error)),
        _ => Ok(()),
    }
}

/// Waits until the end of a change is on record; the record tells itself when it cannot be.
pub(crate) async fn settle(audit: &Audit, receipt: Receipt) {
    if audit.failing().is_none() {
        let _ = kept(audit, receipt).await;
    }
}

/// Waits until an entry is kept, and not for ever.
async fn kept(audit: &Audit, receipt: Receipt) -> catalog::Result<()> {
    let waited = tokio::time::timeout(WAIT_MAX, audit.kept(receipt)).await;
    waited.unwrap_or_else(|_| {
        Err(catalog::Error::Store {
            url: "the record".into(),
            reason: format!("it has not been written within {} s", WAIT_MAX.as_secs()),
            denied: false,
        })
    })
}

fn unrecorded(error: &catalog::Error) -> Error {
    Error::Catalog(catalog::Error::Store {
        url: "the record of statements".into(),
        reason: format!("{error}; [audit] strict lets nothing run that is not recorded"),
        denied: false,
    })
}

/// What makes the tokens of the values in a planned statement's text; none where it may go on
/// record and the record's secret cannot be had.
pub(crate) async fn value_tokens(session: &Session, planned: &Planned) -> Option<Arc<ValueTokens>> {
    let catalog = session.engine().catalog();
    // A read that is refused yet is on record where others are not.
    let refused = Some(Class::Denied);
    let recorded = Draft::new(session, planned).is_recorded(catalog.audit().config(), refused);
    catalog.value_tokens(recorded).await
}

/// The same of a text that could not be planned: none where nobody knows which words of it are
/// values, or the warehouse, where the secret is, cannot be reached.
pub(crate) async fn value_tokens_of_refused(
    session: &Session,
    error: &Error,
) -> Option<Arc<ValueTokens>> {
    if matches!(error.class(), Class::Syntax | Class::Unavailable) {
        return None;
    }
    let catalog = session.engine().catalog();
    let config = catalog.audit().config();
    let embedded = session.principal().is_embedded() && !config.embedded;
    catalog.value_tokens(config.level != Level::Off && !embedded).await
}

/// Records a text that could not be planned.
pub(crate) fn refused(session: &Session, record: &QueryRecord) {
    let audit = session.engine().catalog().audit();
    let config = audit.config();
    let refusal = record.error_class.is_some_and(is_refusal);
    let wanted = match config.level {
        Level::Off => false,
        Level::Changes => refusal,
        Level::All => true,
    };
    if !wanted || (session.principal().is_embedded() && !config.embedded) {
        return;
    }
    let entry = AuditEntry {
        at_ms: record.started_ms,
        roles: session.principal().roles.iter().cloned().collect(),
        purpose: session.setting("purpose"),
        channel: session.setting("channel"),
        kind: kind(&record.text, &Touched::default()),
        outcome: Some(State::Failed.name().to_owned()),
        error_code: record.error_code.map(str::to_owned),
        run_ms: record.run_ms,
        ..of_record(record)
    };
    let _ = audit.record(entry, false);
}

/// What a statement does, in a word or two: its own first words.
fn kind(text: &str, touched: &Touched) -> String {
    if touched.explains {
        return "explain".into();
    }
    let noise = ["or", "replace", "external", "temporary", "if", "not", "exists"];
    let mut words = text
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase);
    let first = words.next().unwrap_or_default();
    let mut words = words.filter(|word| !noise.contains(&word.as_str()));
    match first.as_str() {
        "with" | "values" | "table" | "from" | "" if touched.weight <= Weight::Read => {
            "select".into()
        }
        "with" => "insert".into(),
        "create" | "drop" | "alter" | "retrain" | "check" | "kill" | "set" => {
            let second = words.next().unwrap_or_default();
            format!("{first} {second}").trim_end().to_owned()
        }
        _ => first.chars().take(40).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(weight: Weight, embedded: bool) -> Draft {
        let touched = Arc::new(Touched { weight, ..Touched::default() });
        Draft { touched, rights: Arc::default(), purpose: None, embedded }
    }

    #[test]
    fn a_statement_is_called_by_its_first_words() {
        let read = Touched { weight: Weight::Read, ..Touched::default() };
        let change = Touched { weight: Weight::Change, ..Touched::default() };
        for (text, touched, expected) in [
            ("SELECT * FROM t", &read, "select"),
            ("WITH a AS (SELECT ?) SELECT * FROM a", &read, "select"),
            ("CREATE OR REPLACE TABLE IF NOT EXISTS t AS SELECT ?", &change, "create table"),
            ("VALUES (?text:5f2c91ab03d7)", &read, "select"),
            ("KILL QUERY ?text:5f2c91ab03d7", &change, "kill query"),
            ("create model m options (a = ?) AS SELECT ?", &change, "create model"),
            ("DROP VIEW v", &change, "drop view"),
            ("INSERT INTO t VALUES (?)", &change, "insert"),
            ("GRANT SELECT ON t TO ROLE r", &change, "grant"),
            ("", &read, "select"),
            ("(no SQL)", &read, "no"),
        ] {
            assert_eq!(kind(text, touched), expected, "{text}");
        }
    }

    #[test]
    fn the_level_says_what_is_recorded() {
        let config = |level| AuditConfig { level, ..AuditConfig::default() };
        let (all, changes, off) = (config(Level::All), config(Level::Changes), config(Level::Off));
        for (weight, at_all, at_changes) in [
            (Weight::None, false, false),
            (Weight::System, false, false),
            (Weight::Read, true, false),
            (Weight::Change, true, true),
            (Weight::Rights, true, true),
        ] {
            let draft = draft(weight, false);
            assert_eq!(draft.is_recorded(&all, None), at_all, "{weight:?}");
            assert_eq!(draft.is_recorded(&changes, None), at_changes, "{weight:?}");
            assert!(!draft.is_recorded(&off, None));
        }
        let read = draft(Weight::Read, false);
        assert!(read.is_recorded(&changes, Some(Class::Denied)));
        // The owner of a warehouse without users is on record where users come into being.
        assert!(!draft(Weight::Change, true).is_recorded(&all, None));
        assert!(draft(Weight::Rights, true).is_recorded(&all, None));
        let embedded = AuditConfig { embedded: true, ..all };
        assert!(draft(Weight::Change, true).is_recorded(&embedded, None));
    }
}
