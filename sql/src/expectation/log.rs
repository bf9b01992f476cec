//! What checks gave since the server started: for metrics.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use catalog::ObjectName;
use catalog::checks::{CHECK, CheckResult, CheckStatus, Severity};
use parking_lot::Mutex;

/// What hears of each result and its origin.
pub type CheckObserver = Box<dyn Fn(&CheckResult, &str) + Send + Sync>;

/// The last result of each expectation that CHECK TABLE checked in this process.
#[derive(Default)]
pub struct CheckLog {
    last: Mutex<BTreeMap<(ObjectName, String), (Severity, CheckStatus)>>,
    observer: OnceLock<CheckObserver>,
}

impl std::fmt::Debug for CheckLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CheckLog").field("last", &*self.last.lock()).finish_non_exhaustive()
    }
}

impl CheckLog {
    /// Calls `observer` for every result from now on; the first observer stays.
    pub fn observe(&self, observer: CheckObserver) {
        let _ = self.observer.set(observer);
    }

    pub(crate) fn add(&self, table: &ObjectName, results: &[CheckResult], origin: &str) {
        let mut last = self.last.lock();
        for result in results {
            // Rows that were refused are not in the table.
            if origin == CHECK {
                let key = (table.clone(), result.name.clone());
                last.insert(key, (result.severity, result.status));
            }
            if let Some(observer) = self.observer.get() {
                observer(result, origin);
            }
        }
    }

    /// An expectation is gone, or means something else: what it last gave counts no more.
    pub(crate) fn forget(&self, table: &ObjectName, name: Option<&str>) {
        let gone =
            |key: &(ObjectName, String)| key.0 == *table && name.is_none_or(|name| name == key.1);
        self.last.lock().retain(|key, _| !gone(key));
    }

    /// How many expectations of a severity are not met by their last result.
    pub fn unmet(&self, severity: Severity) -> usize {
        let last = self.last.lock();
        let unmet = |(of, status): &&(Severity, CheckStatus)| {
            *of == severity && *status != CheckStatus::Pass
        };
        last.values().filter(unmet).count()
    }
}
