//! What is told of each check in this process: for metrics. What checks last gave is in the
//! warehouse ([`catalog::Catalog::last_checks`]).

use std::sync::OnceLock;

use catalog::checks::CheckResult;

/// What hears of each result and its origin.
pub type CheckObserver = Box<dyn Fn(&CheckResult, &str) + Send + Sync>;

/// Tells of each check.
#[derive(Default)]
pub struct CheckLog {
    observer: OnceLock<CheckObserver>,
}

impl std::fmt::Debug for CheckLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CheckLog").finish_non_exhaustive()
    }
}

impl CheckLog {
    /// Calls `observer` for every result from now on; the first observer stays.
    pub fn observe(&self, observer: CheckObserver) {
        let _ = self.observer.set(observer);
    }

    pub(crate) fn add(&self, results: &[CheckResult], origin: &str) {
        if let Some(observer) = self.observer.get() {
            results.iter().for_each(|result| observer(result, origin));
        }
    }
}
