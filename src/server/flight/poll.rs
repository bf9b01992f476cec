//! PollFlightInfo: a long statement started once and watched until its rows are there.
//!
//! The first poll brings a command and starts it. The answer holds a descriptor with the
//! statement's ticket; polls with that descriptor only look. Each waits a little for the end or
//! for news and gives a fraction done; the FlightInfo's `app_metadata` says the rest as JSON:
//! `query_id`, and while it works `phase`, `done`, `total` and `metric`. When the first rows are
//! there (or, of a statement without rows, when it is done) the answer has no descriptor and its
//! FlightInfo has an endpoint, which DoGet takes up where the statement stands; of a statement
//! without rows the metadata then says `rows_affected` and `message`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo};
use sql::Progress;
use tokio::sync::watch;
use tonic::Status;

use super::execution::{Execution, Polled};
use super::handles::Handle;
use super::rows::Told;
use super::statements::{
    Statement, Statements, expiration, flight_info, handle_of, statement_ticket,
};
use super::status;

/// A poll without news is answered after so long.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// News of the progress are told this often at most.
const NEWS_EVERY: Duration = Duration::from_millis(200);

impl Statements {
    /// The first poll: starts the statement.
    pub async fn poll_first(
        self: &Arc<Self>,
        statement: Statement,
        descriptor: FlightDescriptor,
    ) -> Result<PollInfo, Status> {
        let (handle, execution) = self.keep(statement)?;
        self.start(handle, &execution);
        self.watch(handle, &execution, descriptor).await
    }

    /// A later poll; starts the statement when GetFlightInfo has left it waiting.
    pub async fn poll_again(
        self: &Arc<Self>,
        owner: &str,
        handle: &[u8],
        descriptor: FlightDescriptor,
    ) -> Result<PollInfo, Status> {
        let execution = self.find(owner, handle)?;
        let handle = handle_of(handle)?;
        self.start(handle, &execution);
        self.watch(handle, &execution, descriptor).await
    }

    async fn watch(
        &self,
        handle: Handle,
        execution: &Execution,
        descriptor: FlightDescriptor,
    ) -> Result<PollInfo, Status> {
        let mut settled = execution.settled();
        let mut progress = execution.progress();
        progress.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let news = async {
            tokio::time::sleep(NEWS_EVERY).await;
            let changed = match &mut progress {
                Some(progress) => progress.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = settled.wait_for(|settled| *settled) => {}
            () = news => {}
            () = tokio::time::sleep(WAIT_MAX.min(self.lease() / 2)) => {}
        }
        execution.extend(Instant::now() + self.lease());
        match execution.look().ok_or_else(|| status::unknown_handle("ticket"))? {
            Polled::Working => Ok(self.working(handle, execution)),
            Polled::Ready(told) => Ok(self.ready(handle, execution, descriptor, &told)),
            Polled::Failed(error) => {
                // The failure is told once; there is nothing to fetch.
                let _ = self.cancel(execution.client.owner(), &handle);
                Err(error)
            }
        }
    }

    fn working(&self, handle: Handle, execution: &Execution) -> PollInfo {
        // The ticket also tells CancelFlightInfo which statement is meant.
        let again = FlightDescriptor::new_cmd(statement_ticket(&handle));
        let progress = execution.progress().and_then(|progress| progress.borrow().clone());
        let mut info = FlightInfo::new()
            .with_descriptor(again.clone())
            .with_total_records(-1)
            .with_total_bytes(-1)
            .with_ordered(true)
            .with_app_metadata(metadata(&execution.query_id, progress.as_ref()));
        info.schema = execution.schema.clone();
        PollInfo {
            info: Some(info),
            flight_descriptor: Some(again),
            progress: progress.as_ref().and_then(fraction),
            expiration_time: Some(expiration(&execution.client, self.lease()).into()),
        }
    }

    fn ready(
        &self,
        handle: Handle,
        execution: &Execution,
        descriptor: FlightDescriptor,
        told: &Told,
    ) -> PollInfo {
        let expires = expiration(&execution.client, self.lease());
        let ticket = statement_ticket(&handle);
        let info = flight_info(execution.schema.clone(), ticket, descriptor, Some(expires));
        let mut said = serde_json::json!({ "query_id": execution.query_id });
        if let Some(affected) = told.affected {
            said["rows_affected"] = affected.into();
            said["message"] = told.message.as_deref().into();
        }
        PollInfo {
            info: Some(info.with_app_metadata(said.to_string())),
            flight_descriptor: None,
            progress: Some(1.0),
            expiration_time: None,
        }
    }
}

/// The answer to a poll of what is at hand without a statement.
pub fn complete(info: FlightInfo) -> PollInfo {
    PollInfo {
        info: Some(info),
        flight_descriptor: None,
        progress: Some(1.0),
        expiration_time: None,
    }
}

fn fraction(progress: &Progress) -> Option<f64> {
    (progress.total > 0).then(|| (progress.done as f64 / progress.total as f64).clamp(0.0, 1.0))
}

fn metadata(query_id: &str, progress: Option<&Progress>) -> String {
    let mut told = serde_json::json!({ "query_id": query_id });
    if let Some(progress) = progress {
        told["phase"] = progress.phase.as_str().into();
        told["done"] = progress.done.into();
        told["total"] = progress.total.into();
        told["metric"] = progress.metric.into();
    }
    told.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_told_when_the_total_is_known() {
        let at = |done, total| Progress { done, total, ..Progress::default() };
        assert_eq!(fraction(&at(1, 4)), Some(0.25));
        assert_eq!(fraction(&at(9, 4)), Some(1.0));
        assert_eq!(fraction(&at(9, 0)), None);
    }

    #[test]
    fn the_metadata_says_what_it_does() {
        let progress = Progress { phase: "training".into(), done: 3, total: 20, metric: None };
        assert_eq!(
            metadata("q", Some(&progress)),
            r#"{"done":3,"metric":null,"phase":"training","query_id":"q","total":20}"#
        );
        assert_eq!(metadata("q", None), r#"{"query_id":"q"}"#);
    }
}
