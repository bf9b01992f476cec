//! A trained model of entities: what was learned, and who is who. The scored pairs are beside it,
//! as they may be many more than fit in memory: who asks for them reads them.
//!
//! Entities have ids of 128 bits, shown as UUIDs (version 8 of RFC 9562): of the smallest record
//! when an entity is seen first, and kept from version to version by the entity that most of its
//! records come from. What became of entities is told as [`Event`]s.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef, AsArray};
use rayon::prelude::*;

use super::cluster::{Clusters, Decision, Method, cluster};
use super::gather::{bytes, keys};
use super::learn::Linkage;
use super::pairs::Pairs;
use super::values::{Mixed, MixedSet};
use crate::model::ModelError;
use crate::model::random::mixed;

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The column of ids.
    pub id_col: String,
    /// The column that tells which table a record is of.
    pub source_col: Option<String>,
    /// Whether records of one table are never of one entity.
    pub is_link: bool,
    /// How pairs become entities.
    pub method: Method,
    /// From which probability.
    pub threshold: f64,
}

/// What became of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Several records that nobody knew are an entity. One that is an entity by itself is not told:
    /// there would be about as many events as records.
    Created,
    /// Records have come to an entity.
    Joined,
    /// An entity has become part of another.
    Merged,
    /// Records of an entity are another now.
    Split,
    /// An entity has no records any more.
    Gone,
}

/// Names of what becomes of entities.
pub const EVENTS: [(What, &str); 5] = [
    (What::Created, "created"),
    (What::Joined, "joined"),
    (What::Merged, "merged"),
    (What::Split, "split"),
    (What::Gone, "gone"),
];

/// Something that became of an entity in a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The version.
    pub version: u32,
    /// What.
    pub what: What,
    /// The entity.
    pub entity: u128,
    /// The entity that it came from or has become part of.
    pub other: Option<u128>,
    /// The records that are meant.
    pub records: u32,
}

/// What a model is made of; also what is stored.
#[derive(Debug, Clone)]
pub struct EntityParts {
    /// What was asked for.
    pub settings: Settings,
    /// What was learned.
    pub linkage: Linkage,
    /// The records' ids.
    pub ids: ArrayRef,
    /// The table of each.
    pub sources: Option<ArrayRef>,
    /// A fingerprint of what each says.
    pub contents: Vec<u64>,
    /// A fingerprint of the keys of blocking rules that each has; none where they are not known.
    pub marks: Vec<u64>,
    /// The entity of each.
    pub entities: Vec<u128>,
    /// What became of entities, version after version.
    pub history: Vec<Event>,
    /// Decisions about records.
    pub decisions: Vec<Decision>,
    /// Records that say too little to match even their own copies, ascending.
    pub unlinkable: Vec<u32>,
}

/// A trained model of entities.
#[derive(Debug)]
pub struct EntityModel {
    parts: EntityParts,
    /// The side of each record, as [`cluster`] takes it.
    sides: Vec<u32>,
}

impl EntityModel {
    /// Puts a model together.
    ///
    /// # Errors
    /// When the parts contradict each other.
    pub fn from_parts(parts: EntityParts) -> Result<Self, ModelError> {
        let records = parts.ids.len();
        let wrong = |what: &str| Err(ModelError::Inconsistent(what.to_owned()));
        if parts.entities.len() != records || parts.contents.len() != records {
            return wrong("its records have no entity each");
        }
        if parts.sources.as_ref().is_some_and(|sources| sources.len() != records) {
            return wrong("its records have no table each");
        }
        if !parts.marks.is_empty() && parts.marks.len() != records {
            return wrong("its records have no keys each");
        }
        let known = |decision: &Decision| {
            (decision.left as usize) < records && (decision.right as usize) < records
        };
        if !parts.decisions.iter().all(known) {
            return wrong("its decisions are of records that it does not know");
        }
        if parts.unlinkable.iter().any(|&record| record as usize >= records) {
            return wrong("records that it does not know say too little");
        }
        let sides = sides(parts.sources.as_ref())?;
        Ok(Self { parts, sides })
    }

    /// What it is made of.
    pub fn parts(&self) -> &EntityParts {
        &self.parts
    }

    /// Records.
    pub fn len(&self) -> usize {
        self.parts.ids.len()
    }

    /// Whether there is no record; a model has one at least.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fingerprints of the records' ids and tables.
    ///
    /// # Errors
    /// When Arrow makes no text of an id.
    pub fn keys(&self) -> Result<Vec<u64>, ModelError> {
        keys(&self.parts.ids, self.parts.sources.as_ref())
    }

    /// The entity of each record by the model's pairs, from another threshold than its own.
    ///
    /// # Errors
    /// When Arrow makes no text of an id, and when the disk that pairs are on is full, or fails.
    pub fn entities_at(&self, pairs: &Pairs, threshold: f64) -> Result<Vec<u128>, ModelError> {
        let clusters = self.clusters_at(pairs, threshold)?;
        let keys = self.keys()?;
        let before: Vec<Option<u128>> = self.parts.entities.iter().copied().map(Some).collect();
        Ok(named(&clusters, &keys, &before))
    }

    /// The groups of records by the model's pairs, from a threshold.
    ///
    /// # Errors
    /// When the disk that pairs are on is full, or fails.
    pub fn clusters_at(&self, pairs: &Pairs, threshold: f64) -> Result<Clusters, ModelError> {
        let method = self.parts.settings.method;
        cluster(self.len(), pairs, threshold, method, &self.sides, &self.parts.decisions)
    }

    /// The table of each record by number; empty where there is one table.
    pub fn sides(&self) -> &[u32] {
        &self.sides
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        let parts = &self.parts;
        let sources = parts.sources.as_ref().map_or(0, |sources| sources.get_array_memory_size());
        parts.ids.get_array_memory_size()
            + sources
            + 4 * self.sides.len()
            + 24 * parts.entities.len()
            + 8 * parts.marks.len()
            + 4 * parts.unlinkable.len()
            + size_of::<Event>() * parts.history.len()
    }
}

/// The side of each record by its table; none where all are of one.
fn sides(sources: Option<&ArrayRef>) -> Result<Vec<u32>, ModelError> {
    let Some(sources) = sources else { return Ok(Vec::new()) };
    let sources = bytes(sources)?;
    let mut known: HashMap<&[u8], u32> = HashMap::new();
    let sides = sources.as_binary_view().iter().map(|source| {
        let next = known.len() as u32;
        *known.entry(source.unwrap_or_default()).or_insert(next)
    });
    Ok(sides.collect())
}

/// An id for an entity that is seen first, of its smallest record's key.
fn fresh(key: u64, taken: &MixedSet<u128>) -> u128 {
    let mut salt = 0;
    loop {
        let halves = [mixed(key ^ mixed(salt + 1)), mixed(key.rotate_left(32) ^ mixed(salt + 2))];
        let bits = (u128::from(halves[0]) << 64) | u128::from(halves[1]);
        // Version 8 and the variant of RFC 9562.
        let id = bits & !(0xF << 76) & !(0x3 << 62) | (0x8 << 76) | (0x2 << 62);
        if !taken.contains(&id) {
            return id;
        }
        salt += 2;
    }
}

/// The ids of entities: that which most records of one had `before`, else one of its smallest
/// record. An id stays with the entity that has most of its records.
pub fn named(clusters: &Clusters, keys: &[u64], before: &[Option<u128>]) -> Vec<u128> {
    let claims = clusters.of.iter().zip(before);
    let mut claims: Vec<(u32, u128)> =
        claims.filter_map(|(&root, entity)| Some((root, (*entity)?))).collect();
    claims.par_sort_unstable();
    let counted = claims.chunk_by(|a, b| a == b).map(|of| (of.len(), of[0].0, of[0].1));
    let mut claims: Vec<(usize, u32, u128)> = counted.collect();
    claims.par_sort_unstable_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut of: Mixed<u32, u128> = Mixed::default();
    let mut taken: MixedSet<u128> = MixedSet::default();
    for (_, root, entity) in claims {
        if !of.contains_key(&root) && taken.insert(entity) {
            of.insert(root, entity);
        }
    }
    // An id that all its records have left is not given again.
    taken.extend(before.iter().flatten());
    let mut names = Vec::with_capacity(clusters.of.len());
    for &root in &clusters.of {
        let id = *of.entry(root).or_insert_with(|| {
            let id = fresh(keys[root as usize], &taken);
            taken.insert(id);
            id
        });
        names.push(id);
    }
    names
}

/// What became of entities between `before` and `now`, of records that both or one of them have;
/// `lost` are the entities of records that are gone.
pub fn events(version: u32, before: &[Option<u128>], now: &[u128], lost: &[u128]) -> Vec<Event> {
    let moves = before.iter().copied().zip(now.iter().copied());
    // What stays is no event.
    let mut moves: Vec<(Option<u128>, u128)> =
        moves.filter(|(from, to)| *from != Some(*to)).collect();
    moves.par_sort_unstable();
    let kept: MixedSet<u128> = now.iter().copied().collect();
    let known: MixedSet<u128> = before.iter().flatten().copied().collect();
    let mut events = Vec::new();
    for same in moves.chunk_by(|a, b| a == b) {
        let ((from, to), records) = (same[0], same.len() as u32);
        let what = match from {
            None if known.contains(&to) => What::Joined,
            None if records > 1 => What::Created,
            None => continue,
            Some(from) if kept.contains(&from) => What::Split,
            Some(_) => What::Merged,
        };
        let (entity, other) = match (what, from) {
            (What::Merged, Some(from)) => (from, Some(to)),
            _ => (to, from),
        };
        events.push(Event { version, what, entity, other, records });
    }
    let mut gone: BTreeMap<u128, u32> = BTreeMap::new();
    for entity in lost.iter().filter(|entity| !kept.contains(entity) && !known.contains(entity)) {
        *gone.entry(*entity).or_default() += 1;
    }
    events.extend(gone.into_iter().map(|(entity, records)| Event {
        version,
        what: What::Gone,
        entity,
        other: None,
        records,
    }));
    events
}

/// An entity's id as text.
pub fn uuid(entity: u128) -> String {
    let text = format!("{entity:032x}");
    let part = |from: usize, to: usize| &text[from..to];
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::super::key::fingerprint;
    use super::*;

    fn clusters(of: &[u32]) -> Clusters {
        Clusters { of: of.to_vec(), by_pairs: of.to_vec(), ..Clusters::default() }
    }

    #[test]
    fn entities_keep_their_ids_and_what_becomes_of_them_is_told() {
        let keys: Vec<u64> = (0..6).map(|at| fingerprint(&at.to_string(), 0)).collect();
        let first = named(&clusters(&[0, 0, 2, 2, 4]), &keys, &[None; 5]);
        assert_eq!((first[0], first[2]), (first[1], first[3]));
        assert_eq!(named(&clusters(&[0, 0, 2, 2, 4]), &keys, &[None; 5]), first);
        // Record 4 joins the first entity, and record 3 leaves the second with a new record.
        let before: Vec<Option<u128>> =
            first.iter().map(|&entity| Some(entity)).chain([None]).collect();
        let now = named(&clusters(&[0, 0, 2, 3, 0, 3]), &keys, &before);
        assert_eq!((now[0], now[1], now[2]), (first[0], first[1], first[2]));
        assert_ne!(now[3], first[3]);
        assert_eq!(now[5], now[3]);
        let told = events(2, &before, &now, &[]);
        let count = |what| told.iter().filter(|event| event.what == what).count();
        assert_eq!((count(What::Merged), count(What::Split), count(What::Created)), (1, 1, 0));
        assert!(told.contains(&Event {
            version: 2,
            what: What::Merged,
            entity: first[4],
            other: Some(first[0]),
            records: 1
        }));
    }

    #[test]
    fn ids_are_uuids() {
        let text = uuid(fresh(fingerprint("a", 0), &MixedSet::default()));
        assert_eq!(text.len(), 36);
        assert_eq!((&text[14..15], &text[8..9]), ("8", "-"));
        assert!(["8", "9", "a", "b"].contains(&&text[19..20]), "{text}");
    }
}
