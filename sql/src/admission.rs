//! Admission: so many statements run at once, the others wait in the order in which they came.
//!
//! A slot belongs to a statement until its last row is out or its stream is dropped. What only
//! looks at the system tables, changes a setting, shows a plan or kills a statement takes no slot:
//! an overloaded server can still be looked at and set right. The queue is strictly first in, first
//! out; a statement that finds it full, or waits too long in it, is refused with an error that says
//! to come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::LogicalPlan;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::audit::RECORDS;
use crate::engine::Limits;
use crate::error::{Error, Result};
use crate::session::Action;
use crate::system;

/// System tables whose rows are not at hand: models may be loaded for them.
const LOADED: [&str; 1] = ["model_versions"];

/// The slots of an engine and the queue before them.
#[derive(Debug)]
pub struct Admission {
    /// None: every statement runs at once.
    slots: Option<Arc<Semaphore>>,
    slots_max: usize,
    waiting: AtomicUsize,
    queue_max: usize,
    queue_wait: Duration,
}

/// The right to run; dropping it lets the next statement in.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// The slots that `limits` give.
    pub(crate) fn new(limits: &Limits) -> Self {
        let slots_max = limits.statements_max.unwrap_or(0).min(Semaphore::MAX_PERMITS);
        Self {
            slots: (slots_max > 0).then(|| Arc::new(Semaphore::new(slots_max))),
            slots_max,
            waiting: AtomicUsize::new(0),
            queue_max: limits.queue_max,
            queue_wait: limits.queue_wait,
        }
    }

    /// Statements that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Slots in all; `None` when there is no limit.
    pub fn slots(&self) -> Option<usize> {
        self.slots.as_ref().map(|_| self.slots_max)
    }

    /// Waits for a slot; dropping the future leaves the queue.
    ///
    /// # Errors
    /// When the queue is full, or no slot becomes free in time.
    pub(crate) async fn enter(&self) -> Result<Slot> {
        let Some(slots) = &self.slots else { return Ok(Slot { _permit: None }) };
        // A free slot is never given past the queue: the semaphore hands slots to those who wait.
        if let Ok(permit) = Arc::clone(slots).try_acquire_owned() {
            return Ok(Slot { _permit: Some(permit) });
        }
        let _place = self.queue_up()?;
        match tokio::time::timeout(self.queue_wait, Arc::clone(slots).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Slot { _permit: Some(permit) }),
            Ok(Err(_)) => Err(Error::Internal("the slots are closed".into())),
            Err(_) => Err(Error::Busy {
                what: format!(
                    "all {} slots stayed taken for {}",
                    self.slots_max,
                    crate::error::duration(self.queue_wait)
                ),
            }),
        }
    }

    fn queue_up(&self) -> Result<Place<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place { waiting: &self.waiting };
        if before >= self.queue_max {
            return Err(Error::Busy {
                what: format!(
                    "all {} slots are taken and {} statements wait already",
                    self.slots_max, self.queue_max
                ),
            });
        }
        Ok(place)
    }
}

/// A place in the queue.
struct Place<'a> {
    waiting: &'a AtomicUsize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an action takes a slot.
pub(crate) fn needs_slot(action: &Action) -> bool {
    match action {
        Action::Query(plan) => !is_look_up(plan).unwrap_or(false),
        Action::Set(..)
        | Action::Kill(_)
        | Action::CreateToken(_)
        | Action::DropToken(_)
        | Action::Expectation(_)
        | Action::Access(_)
        | Action::Consent(_)
        | Action::Privacy(_)
        | Action::Policy(_) => false,
        Action::Key(change) => change.searches(),
        Action::Subject(change) => !change.waits(),
        _ => true,
    }
}

/// Whether a plan only shows a plan, or looks at one system table without joins and subqueries,
/// which could make much of little.
fn is_look_up(plan: &LogicalPlan) -> DataFusionResult<bool> {
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::DescribeTable(_)) {
        return Ok(true);
    }
    let (mut simple, mut scans, mut nodes) = (true, 0, 0usize);
    plan.apply(|node| {
        nodes += 1;
        match node {
            LogicalPlan::TableScan(scan) => {
                scans += 1;
                simple &= scan.table_name.schema().is_some_and(system::is_system)
                    && !RECORDS.contains(&scan.table_name.table())
                    && !LOADED.contains(&scan.table_name.table());
            }
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::SubqueryAlias(_) => {}
            _ => simple = false,
        }
        Ok(if simple { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    if !simple || scans != 1 {
        return Ok(false);
    }
    let mut with_subqueries = 0usize;
    plan.apply_with_subqueries(|_| {
        with_subqueries += 1;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(with_subqueries == nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(slots: usize, queue: usize, wait_ms: u64) -> Arc<Admission> {
        let limits = Limits {
            statements_max: Some(slots),
            queue_max: queue,
            queue_wait: Duration::from_millis(wait_ms),
            ..Limits::default()
        };
        Arc::new(Admission::new(&limits))
    }

    #[tokio::test]
    async fn the_first_to_wait_is_the_first_to_run() {
        let admission = admission(1, 10, 60_000);
        let held = admission.enter().await.unwrap();
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for number in 0..5 {
            let (admission, sender) = (Arc::clone(&admission), sender.clone());
            tasks.push(tokio::spawn({
                let admission = Arc::clone(&admission);
                async move {
                    let _slot = admission.enter().await.unwrap();
                    sender.send(number).unwrap();
                }
            }));
            while admission.waiting() <= number {
                tokio::task::yield_now().await;
            }
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        for number in 0..5 {
            assert_eq!(order.recv().await, Some(number));
        }
        assert_eq!(admission.waiting(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_and_a_long_wait_are_refused_for_now() {
        let admission = admission(1, 1, 20);
        let held = admission.enter().await.unwrap();
        let waits = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.enter().await.map(drop).map_err(|error| error.code()) }
        });
        while admission.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let refused = admission.enter().await.unwrap_err();
        assert_eq!((refused.code(), refused.class()), ("ATT-3005", crate::Class::Unavailable));
        assert_eq!(waits.await.unwrap(), Err("ATT-3005"));
        drop(held);
        assert!(admission.enter().await.is_ok());
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits() {
        let admission = Admission::new(&Limits::default());
        let slots: Vec<Slot> =
            vec![admission.enter().await.unwrap(), admission.enter().await.unwrap()];
        assert_eq!((admission.slots(), slots.len()), (None, 2));
    }
}
