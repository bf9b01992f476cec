//! Verifying the record: every edit, removal, exchange and truncation behind the last checkpoint is
//! found, and the entry named.
//!
//! What nobody can find from the record alone is that its end is missing together with the
//! checkpoints that speak of it, and, when the signing secret lies in the warehouse, that somebody
//! with the bucket's credentials wrote the whole anew. Against the first an anchor that is kept
//! elsewhere helps (a sequence and its hash), against the second a public key that is.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};

use super::chain::{Fault, Hash, Head, Seal, Segment, from_hex, parse, to_hex};
use super::read::{self, AHEAD};
use super::sign::PublicKeys;
use crate::error::{Error, Result};
use crate::store::Place;

/// Faults that are told at most.
const FAULTS_MAX: usize = 100;

/// An entry and its hash, kept apart from the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The entry's sequence.
    pub sequence: u64,
    /// Its hash, in hexadecimal digits.
    pub hash: String,
}

impl std::fmt::Display for Anchor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.sequence, self.hash)
    }
}

impl std::str::FromStr for Anchor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.trim().split_once(':').and_then(|(sequence, hash)| {
            let hash = from_hex(hash).filter(|hash| hash.len() == 32)?;
            Some(Self { sequence: sequence.parse().ok()?, hash: to_hex(&hash) })
        });
        parts.ok_or_else(|| {
            Error::invalid_hint(
                format!("{text:?} is no anchor"),
                "an anchor is SEQUENCE:HASH, as attune audit verify shows it",
            )
        })
    }
}

/// What is believed and expected.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Public keys in hexadecimal digits; empty: those that the warehouse names.
    pub keys: Vec<String>,
    /// Entries that must be there.
    pub anchors: Vec<Anchor>,
}

/// What verifying found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Segments that were read.
    pub segments: u64,
    /// Entries that were read.
    pub entries: u64,
    /// The first entry; earlier ones were removed by the retention.
    pub first: u64,
    /// The last entry and its hash, to be kept elsewhere.
    pub last: Option<Anchor>,
    /// The segment up to which the retention has removed entries; 0 for none.
    pub removed: u64,
    /// The last checkpoint's segment; 0 for none.
    pub checkpoint: u64,
    /// The public keys that were believed.
    pub keys: Vec<String>,
    /// What is wrong; empty for a record that holds.
    pub faults: Vec<Fault>,
}

impl Verified {
    /// Whether there is no record at all, nor anything that speaks of one.
    pub fn is_absent(&self) -> bool {
        self.segments == 0 && self.removed == 0 && self.checkpoint == 0 && self.faults.is_empty()
    }
}

/// Verifies the record below `folder`.
///
/// # Errors
/// When the warehouse cannot be read. A damaged record is no error: see [`Verified::faults`].
pub(super) async fn verify(folder: &Place, expected: &Expected) -> Result<Verified> {
    let mut keys = PublicKeys::default();
    match expected.keys.as_slice() {
        [] => keys = PublicKeys::of(folder).await?,
        given => given.iter().try_for_each(|key| keys.add(key))?,
    }
    let found = Verified { keys: keys.shown(), ..Verified::default() };
    let mut check = Check { keys, anchors: expected.anchors.clone(), found, ..Check::default() };
    let removed = check.removal(folder).await?;
    check.checkpoints(folder).await?;
    let numbers = read::all(folder).await?;
    check.start(numbers.first().copied(), removed);
    let folder = folder.clone();
    let mut contents = stream::iter(numbers)
        .map(move |number| {
            let place = read::segment(&folder, number);
            async move { Ok::<_, Error>((number, place.read_if_exists().await?)) }
        })
        .buffered(AHEAD);
    while let Some(read) = contents.next().await {
        let (number, content) = read?;
        check.segment(number, content.as_deref());
    }
    drop(contents);
    check.end();
    Ok(check.found)
}

/// A walk along the chain.
#[derive(Default)]
struct Check {
    keys: PublicKeys,
    /// What signed notes state of a segment: its last entry, and that one's hash.
    stated: BTreeMap<u64, (u64, String)>,
    /// Segments with a checkpoint, valid or not, and those of which its absence is told.
    checkpoints: BTreeSet<u64>,
    absent: BTreeSet<u64>,
    anchors: Vec<Anchor>,
    /// Anchors that were met.
    met: BTreeSet<u64>,
    /// The segment before; 0 before the first.
    last: u64,
    /// Where the chain stands; `None` where it has to be taken as it comes.
    before: Option<Head>,
    found: Verified,
}

impl Check {
    fn fault(&mut self, segment: u64, sequence: Option<u64>, what: impl Into<String>) {
        if self.found.faults.len() < FAULTS_MAX {
            self.found.faults.push(Fault::new(segment, sequence, what));
        }
    }

    /// A signed note about a segment, when it is one.
    fn note(&self, number: u64, note: Result<Seal, String>, removed: bool) -> Result<Seal, String> {
        let seal = note?;
        self.keys.check(&seal)?;
        if seal.segment != number || seal.removed != removed {
            return Err("it speaks of something else".into());
        }
        Ok(seal)
    }

    /// Up to where the retention says to have removed entries.
    async fn removal(&mut self, folder: &Place) -> Result<Option<Head>> {
        let Some(number) = read::removals(folder).await?.pop() else { return Ok(None) };
        let place = read::removal(folder, number);
        let Some(note) = read::seal(&place).await? else { return Ok(None) };
        let head = self.note(number, note, true).and_then(|seal| {
            let hash: Option<Hash> = from_hex(&seal.hash).and_then(|hash| hash.try_into().ok());
            let hash = hash.ok_or_else(|| "it has no hash".to_owned())?;
            Ok(Head { segment: number, sequence: seal.sequence, hash })
        });
        match head {
            Ok(head) => {
                self.found.removed = number;
                self.stated.insert(number, (head.sequence, to_hex(&head.hash)));
                Ok(Some(head))
            }
            Err(what) => {
                let what = format!("the note that the retention removed it is not valid: {what}");
                self.fault(number, None, what);
                Ok(None)
            }
        }
    }

    async fn checkpoints(&mut self, folder: &Place) -> Result<()> {
        for number in read::checkpoints(folder).await? {
            let place = read::checkpoint(folder, number);
            let Some(note) = read::seal(&place).await? else { continue };
            self.checkpoints.insert(number);
            match self.note(number, note, false) {
                Ok(seal) => {
                    self.found.checkpoint = number;
                    self.stated.insert(number, (seal.sequence, seal.hash));
                }
                Err(what) => {
                    self.fault(number, None, format!("its checkpoint is not valid: {what}"));
                }
            }
        }
        Ok(())
    }

    /// Where the chain begins: at its first segment, or after what the retention removed.
    fn start(&mut self, first: Option<u64>, removed: Option<Head>) {
        match (first, removed) {
            (Some(1), _) => self.before = Some(Head::EMPTY),
            // A removal that has not come to its end: the note's hash is met on the way.
            (Some(first), Some(head)) if first <= head.segment => {
                self.last = first.saturating_sub(1)
            }
            (_, Some(head)) => {
                self.last = head.segment;
                self.before = Some(head);
            }
            (_, None) => self.before = Some(Head::EMPTY),
        }
    }

    fn segment(&mut self, number: u64, content: Option<&[u8]>) {
        let next = self.last.saturating_add(1);
        if number > next {
            let what = match number - 1 {
                last if last == next => "it is missing".to_owned(),
                last => format!("it and all up to segment {last} are missing"),
            };
            let sequence = self.before.as_ref().map(|before| before.sequence.saturating_add(1));
            self.fault(next, sequence, what);
            self.before = None;
        }
        self.last = number;
        let Some(content) = content else {
            // It was listed a moment ago.
            self.fault(number, None, "it vanished while it was verified: verify again");
            self.before = None;
            return;
        };
        match parse(number, content, self.before.as_ref()) {
            Ok(read) => self.accept(number, read),
            Err(fault) => {
                self.fault(fault.segment, fault.sequence, fault.what);
                self.before = None;
                // What does not follow can still hold together in itself.
                if let Ok(read) = parse(number, content, None) {
                    self.accept(number, read);
                }
            }
        }
    }

    fn accept(&mut self, number: u64, read: Segment) {
        if let Err(what) = self.keys.check(&read.seal) {
            self.fault(number, Some(read.head.sequence), what);
        }
        let known = read.header.checkpoint;
        let is_absent = known > self.found.removed && !self.checkpoints.contains(&known);
        if is_absent && self.absent.insert(known) {
            let what = format!("its checkpoint is missing, of which segment {number} speaks");
            self.fault(known, None, what);
        }
        self.meet(number, &read);
        let hash = to_hex(&read.head.hash);
        if let Some((sequence, stated)) = self.stated.get(&number)
            && (*sequence, stated) != (read.head.sequence, &hash)
        {
            let sequence = Some(*sequence);
            self.fault(number, sequence, "it is not what was signed: it was written anew");
        }
        self.found.segments += 1;
        self.found.entries += read.lines.len() as u64;
        if self.found.first == 0 {
            self.found.first = read.header.first;
        }
        self.found.last = Some(Anchor { sequence: read.head.sequence, hash });
        self.before = Some(read.head);
    }

    /// Compares entries with the anchors that were kept elsewhere.
    fn meet(&mut self, number: u64, read: &Segment) {
        let mut differing = Vec::new();
        for anchor in &self.anchors {
            let first = read.header.first;
            let Some(index) = anchor.sequence.checked_sub(first) else { continue };
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let Some(line) = read.lines.get(index) else { continue };
            self.met.insert(anchor.sequence);
            if anchor.hash != to_hex(&line.hash) {
                differing.push(anchor.sequence);
            }
        }
        for sequence in differing {
            let what = "its hash is not the anchor's: the record was written anew";
            self.fault(number, Some(sequence), what);
        }
    }

    /// What signed notes and anchors speak of must have been met.
    fn end(&mut self) {
        let last = self.last;
        let beyond = self.stated.last_key_value();
        if let Some((number, (sequence, _))) = beyond.filter(|(number, _)| **number > last) {
            let (number, sequence) = (*number, *sequence);
            let what = format!("it was signed, and the record ends with segment {last}");
            self.fault(number, Some(sequence), what);
        }
        let is_missing = |anchor: &&Anchor| !self.met.contains(&anchor.sequence);
        let missing: Vec<u64> =
            self.anchors.iter().filter(is_missing).map(|anchor| anchor.sequence).collect();
        for sequence in missing {
            let what = match sequence < self.found.first && self.found.removed > 0 {
                true => "the retention removed it; take a newer anchor",
                false => "it is missing, and an anchor speaks of it",
            };
            self.fault(last, Some(sequence), what);
        }
    }
}
