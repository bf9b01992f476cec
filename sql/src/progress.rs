//! How far a statement has come: told by its operators, read by whoever waits for it.

use tokio::sync::watch;

use crate::session::Progress;

/// Tells the progress of one statement, to those who watch it and to those who watch its session.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    statement: watch::Sender<Option<Progress>>,
    session: watch::Sender<Option<Progress>>,
}

impl Reporter {
    /// A reporter that tells the session's watchers too.
    pub(crate) fn new(session: watch::Sender<Option<Progress>>) -> Self {
        Self { statement: watch::channel(None).0, session }
    }

    /// Says how far the statement is.
    pub(crate) fn report(&self, progress: Progress) {
        self.statement.send_replace(Some(progress.clone()));
        self.session.send_replace(Some(progress));
    }

    /// The statement has ended: its session is not at anything any more.
    pub(crate) fn clear(&self) {
        if self.statement.send_replace(None).is_some() {
            self.session.send_replace(None);
        }
    }

    /// Where the statement's progress can be read.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Progress>> {
        self.statement.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_told_from_its_sessions_others() {
        let (session, watcher) = watch::channel(None);
        let [one, two] = [(); 2].map(|()| Reporter::new(session.clone()));
        one.report(Progress { phase: "reading".into(), ..Progress::default() });
        assert!(watcher.borrow().is_some() && one.watch().borrow().is_some());
        assert!(two.watch().borrow().is_none());
        two.clear();
        assert!(watcher.borrow().is_some());
        one.clear();
        assert!(watcher.borrow().is_none());
    }
}
