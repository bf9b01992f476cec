//! Appending to the chain: each commit creates the next number, so that of several servers one is
//! first and the others append after it.
//!
//! A commit is acknowledged when its object is there, and an object appears whole or not at all:
//! neither a lost race nor `kill -9` loses what was acknowledged. An answer that got lost is found
//! out by the object's bytes, which no other server writes, so that nothing is written twice.

use std::sync::Arc;

use bytes::Bytes;

use super::chain::{Head, Seal, Written, build, link, parse};
use super::entry::{AuditEntry, Event};
use super::read;
use super::sign::{self, Signer};
use crate::config::Clock;
use crate::error::{Error, Result};
use crate::store::{Place, Secret};
use crate::warehouse::Warehouse;

/// A checkpoint is made after so many segments of one server …
const CHECKPOINT_SEGMENTS: u64 = 100;
/// … and after so long, when there is anything new.
const CHECKPOINT_MS: i64 = 600_000;
/// Entries of one segment at most; the recorder gives no more.
pub(super) const ENTRIES_MAX: usize = 1_000;
/// Lost races in one commit before it is given up for the moment.
const RACES_MAX: usize = 1_000;
/// How often what is older than the retention is looked for.
const RETENTION_EVERY_MS: i64 = 3_600_000;
/// Segments that one look removes at most.
const REMOVED_MAX: usize = 10_000;

/// Appends to the record of a warehouse.
pub(super) struct Writer {
    folder: Place,
    warehouse: Arc<Warehouse>,
    clock: Clock,
    secret: Option<Secret>,
    retention_ms: Option<i64>,
    server: String,
    signer: Option<Arc<Signer>>,
    head: Option<Head>,
    /// A segment that may or may not have been written, and where the chain stands after it.
    tried: Option<Tried>,
    checkpoint: Checkpoint,
    retention_looked_ms: Option<i64>,
}

struct Tried {
    content: Bytes,
    seal: Seal,
    head: Head,
}

/// What is known of checkpoints.
#[derive(Default)]
struct Checkpoint {
    /// The last one's segment.
    segment: u64,
    /// When it was made or, before the first one, when this server first wrote.
    at_ms: Option<i64>,
    /// Segments since.
    segments: u64,
    /// What the next one would say.
    next: Option<Seal>,
}

impl Writer {
    /// A writer that has read nothing yet.
    pub fn new(
        warehouse: Arc<Warehouse>,
        clock: Clock,
        secret: Option<Secret>,
        retention_ms: Option<i64>,
    ) -> Self {
        Self {
            folder: warehouse.place().child(super::FOLDER),
            warehouse,
            clock,
            secret,
            retention_ms,
            server: uuid::Uuid::new_v4().to_string(),
            signer: None,
            head: None,
            tried: None,
            checkpoint: Checkpoint::default(),
            retention_looked_ms: None,
        }
    }

    /// Appends entries, which get their numbers; none of them is in the record when this fails, or
    /// all are and the same call again says so.
    ///
    /// # Errors
    /// When the warehouse cannot be read or written.
    pub async fn commit(&mut self, entries: &mut [AuditEntry]) -> Result<()> {
        let signer = self.signer().await?;
        for _ in 0..RACES_MAX {
            let head = self.head().await?;
            if head.segment == u64::MAX {
                // Looked for again by the next call: somebody has to remove it.
                self.head = None;
                return Err(Error::Corrupt {
                    what: read::segment(&self.folder, head.segment).url.to_string(),
                    reason: "no segment of the record can follow it".into(),
                });
            }
            let tried = match self.tried.take() {
                Some(tried) if tried.head.segment == head.segment.saturating_add(1) => tried,
                _ => self.build(&head, entries, &signer)?,
            };
            let place = read::segment(&self.folder, tried.head.segment);
            let tried = self.tried.insert(tried);
            // A failure leaves it there for the next call, which puts the same bytes.
            let mut written = place.create(tried.content.clone()).await?;
            if !written {
                let found = place.read_if_exists().await?;
                written = found.as_ref() == Some(&tried.content);
            }
            let Some(tried) = self.tried.take() else { continue };
            if written {
                self.written(tried);
                self.checkpoint(false).await;
                return Ok(());
            }
            self.catch_up(head).await?;
        }
        Err(Error::Conflict { name: "the record".into() })
    }

    async fn signer(&mut self) -> Result<Arc<Signer>> {
        if let Some(signer) = &self.signer {
            return Ok(Arc::clone(signer));
        }
        // Without create-only writes two servers would overwrite each other's entries.
        self.warehouse.writable().await?;
        let signer = Arc::new(sign::open(&self.folder, self.secret.as_ref()).await?);
        self.signer = Some(Arc::clone(&signer));
        Ok(signer)
    }

    fn build(&self, head: &Head, entries: &mut [AuditEntry], signer: &Signer) -> Result<Tried> {
        let written = Written {
            server: &self.server,
            at_ms: (self.clock)(),
            checkpoint: self.checkpoint.segment,
        };
        let (content, seal, head) = build(head, entries, written, signer)?;
        Ok(Tried { content: content.into(), seal, head })
    }

    fn written(&mut self, tried: Tried) {
        self.head = Some(tried.head);
        self.checkpoint.segments += 1;
        self.checkpoint.at_ms.get_or_insert(tried.seal.at_ms);
        self.checkpoint.next = Some(tried.seal);
    }

    /// Where the chain stands, as far as this server knows.
    async fn head(&mut self) -> Result<Head> {
        if let Some(head) = &self.head {
            return Ok(head.clone());
        }
        let last = read::last(&self.folder).await?;
        self.checkpoint.segment = read::checkpoints(&self.folder).await?.pop().unwrap_or(0);
        if self.checkpoint.segment > last {
            let signed = self.checkpoint.segment;
            tracing::error!(last, signed, "the record ends before its checkpoint: verify it");
        }
        let head = match last {
            0 => Head::EMPTY,
            last => self.after(last, None).await?.unwrap_or(Head::EMPTY),
        };
        self.head = Some(head.clone());
        Ok(head)
    }

    /// Reads what others have appended after `head`.
    async fn catch_up(&mut self, mut head: Head) -> Result<()> {
        while head.segment < u64::MAX
            && let Some(next) = self.after(head.segment.saturating_add(1), Some(&head)).await?
        {
            head = next;
        }
        self.head = Some(head);
        Ok(())
    }

    /// Where the chain stands after a segment; `None` when there is no such segment.
    ///
    /// One that does not hold together is somebody's work against the record. The chain goes on
    /// after its bytes as they are, and verifying tells; to stop recording would be what somebody
    /// who damages it wants.
    async fn after(&self, number: u64, before: Option<&Head>) -> Result<Option<Head>> {
        let place = read::segment(&self.folder, number);
        let Some(content) = place.read_if_exists().await? else { return Ok(None) };
        match parse(number, &content, before) {
            Ok(segment) => Ok(Some(segment.head)),
            Err(fault) => {
                tracing::error!(%fault, "the record is damaged: attune audit verify");
                let hash = link(&super::chain::GENESIS, &content);
                // No sequence is given twice, so some may be left out.
                let most = ENTRIES_MAX as u64 + 2;
                let sequence = match before {
                    Some(before) => before.sequence.saturating_add(most),
                    None => most.saturating_mul(number),
                };
                Ok(Some(Head { segment: number, sequence, hash }))
            }
        }
    }

    /// Makes a checkpoint when it is time, or when there is anything new and this is `the_last`.
    /// One that fails is made after the next commit.
    pub async fn checkpoint(&mut self, the_last: bool) {
        let Some(seal) = self.checkpoint.next.clone() else { return };
        let now_ms = (self.clock)();
        let due = self.checkpoint.segments >= CHECKPOINT_SEGMENTS
            || self
                .checkpoint
                .at_ms
                .is_none_or(|at_ms| now_ms >= at_ms.saturating_add(CHECKPOINT_MS));
        if !due && !the_last {
            return;
        }
        let place = read::checkpoint(&self.folder, seal.segment);
        let made = async {
            let content = serde_json::to_vec(&seal).map_err(|error| Error::Corrupt {
                what: "a checkpoint of the record".into(),
                reason: error.to_string(),
            })?;
            place.create(content).await
        };
        match made.await {
            Ok(_) => {
                let at_ms = Some(now_ms);
                let segment = seal.segment;
                self.checkpoint = Checkpoint { segment, at_ms, segments: 0, next: None };
            }
            Err(error) => tracing::warn!(%error, "a checkpoint of the record was not made"),
        }
    }

    /// Removes segments that are older than the retention, from the oldest on and never the newest,
    /// after a signed note that says so; once an hour. Gives an entry to record when it did.
    ///
    /// # Errors
    /// When the warehouse cannot be read or written.
    pub async fn retain(&mut self) -> Result<Option<AuditEntry>> {
        let Some(retention_ms) = self.retention_ms else { return Ok(None) };
        let now_ms = (self.clock)();
        let looked = self.retention_looked_ms;
        if looked.is_some_and(|at_ms| now_ms < at_ms.saturating_add(RETENTION_EVERY_MS)) {
            return Ok(None);
        }
        self.retention_looked_ms = Some(now_ms);
        let newest = self.head().await?.segment;
        let mut old: Vec<(u64, Seal)> = Vec::new();
        for number in read::oldest(&self.folder).await?.into_iter().take(REMOVED_MAX) {
            let place = read::segment(&self.folder, number);
            let Some(content) = place.read_if_exists().await? else { continue };
            // A damaged segment is evidence, and stays with all that follows it.
            let Ok(segment) = parse(number, &content, None) else { break };
            let is_old = segment.seal.at_ms.saturating_add(retention_ms) < now_ms;
            if !is_old || number >= newest {
                break;
            }
            old.push((number, segment.seal));
        }
        let Some((upto, seal)) = old.last().cloned() else { return Ok(None) };
        self.note_removal(upto, seal).await?;
        for (number, _) in &old {
            read::segment(&self.folder, *number).remove().await?;
        }
        for number in read::checkpoints(&self.folder).await? {
            if number <= upto {
                read::checkpoint(&self.folder, number).remove().await?;
            }
        }
        let removed = old.len() as u64;
        tracing::info!(removed, upto, "old segments of the record were removed");
        Ok(Some(AuditEntry::own(Event::Removal, now_ms, "retention", removed)))
    }

    async fn note_removal(&mut self, upto: u64, seal: Seal) -> Result<()> {
        let signer = self.signer().await?;
        let note = signer.seal(Seal { removed: true, ..seal })?;
        let content = serde_json::to_vec(&note).map_err(|error| Error::Corrupt {
            what: "a removal of the record".into(),
            reason: error.to_string(),
        })?;
        read::removal(&self.folder, upto).create(content).await?;
        for number in read::removals(&self.folder).await? {
            if number < upto {
                read::removal(&self.folder, number).remove().await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Shared;

    fn entries(names: &[&str]) -> Vec<AuditEntry> {
        let entry = |name: &&str| AuditEntry {
            principal: (*name).to_owned(),
            kind: "select".into(),
            ..AuditEntry::default()
        };
        names.iter().map(entry).collect()
    }

    async fn writer(shared: &Shared) -> Writer {
        let warehouse = Arc::new(Warehouse::open(shared.place.clone(), None).await);
        Writer::new(warehouse, shared.clock.clock(), None, None)
    }

    #[tokio::test]
    async fn an_answer_that_got_lost_writes_nothing_twice() {
        let shared = Shared::new();
        let (mut one, mut two) = (writer(&shared).await, writer(&shared).await);
        one.commit(&mut entries(&["a"])).await.unwrap();
        let signer = one.signer().await.unwrap();
        let head = one.head().await.unwrap();
        let mut batch = entries(&["b", "c"]);
        let tried = one.build(&head, &mut batch, &signer).unwrap();
        // The object is there, and its writer does not know.
        let place = read::segment(&one.folder, 2);
        assert!(place.create(tried.content.clone()).await.unwrap());
        one.tried = Some(tried);
        two.commit(&mut entries(&["d"])).await.unwrap();
        shared.clock.advance(1_000);
        one.commit(&mut batch).await.unwrap();
        one.commit(&mut entries(&["e"])).await.unwrap();
        assert_eq!(read::all(&one.folder).await.unwrap(), [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn what_was_tried_under_a_number_that_is_taken_gets_another() {
        let shared = Shared::new();
        let (mut one, mut two) = (writer(&shared).await, writer(&shared).await);
        one.commit(&mut entries(&["a"])).await.unwrap();
        two.commit(&mut entries(&["b"])).await.unwrap();
        shared.store.refuse("segments");
        let mut batch = entries(&["c"]);
        assert!(one.commit(&mut batch).await.is_err());
        shared.store.heal();
        two.commit(&mut entries(&["d"])).await.unwrap();
        one.commit(&mut batch).await.unwrap();
        assert_eq!(batch[0].sequence, 4);
    }
}
