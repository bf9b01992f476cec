//! What look-ups of texts found, remembered for the batches to come.
//!
//! The side whose texts are looked up may hold few distinct texts in many rows, so that each batch
//! brings the same ones again. What is remembered is bounded, and given up where texts hardly come
//! again or memory gets short.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};
use udfs::fuzzy::index::{InBlock, Likeness};

/// Texts that are looked for before it is known whether they come again.
const TRIAL: usize = 16_384;
/// At least one of so many must have come before.
const RARE: usize = 10;
/// What a text takes beside its letters and the values alike: allocations, and its place in a map,
/// which is there twice while the map grows.
const PER_TEXT: usize = 160;
/// Reserved at a time.
const STEP: usize = 1 << 16;
/// What may be taken at most.
const MOST: usize = 16 << 20;
/// The part of a statement's memory that may be taken.
const PART: usize = 16;
/// The part of what may be taken that one text may take.
const PART_OF_TEXT: usize = 16;
/// The part of the memory that stays free when more is taken.
const FREE: usize = 4;
/// With less than this part free, what was taken is given back.
const SHORT: usize = 8;

/// The values alike the texts that were looked up in one piece, in one way.
pub(super) struct Remembered {
    found: HashMap<Box<[u8]>, Box<[u32]>>,
    /// The key at hand.
    key: Vec<u8>,
    /// What all that was found takes.
    taken: usize,
    most: usize,
    /// Whether there is no room for more.
    is_full: bool,
    /// Whether a text of this batch can have come before.
    is_counted: bool,
    /// Texts that can have come before, and those that did.
    asked: usize,
    known: usize,
    memory: MemoryReservation,
    pool: Arc<dyn MemoryPool>,
}

impl Remembered {
    /// One of several that share a statement's memory.
    pub fn new(memory: MemoryReservation, pool: Arc<dyn MemoryPool>, several: usize) -> Self {
        let all = match pool.memory_limit() {
            MemoryLimit::Finite(limit) => limit / PART,
            _ => usize::MAX,
        };
        Self {
            found: HashMap::new(),
            key: Vec::new(),
            taken: 0,
            most: MOST.min(all / several.max(1)),
            is_full: false,
            is_counted: false,
            asked: 0,
            known: 0,
            memory,
            pool,
        }
    }

    /// Begins a batch. What does not pay is given up: once texts hardly come again, or memory is
    /// short, nothing is remembered any more.
    pub fn next_batch(&mut self) {
        let is_judged = self.asked >= TRIAL;
        if is_judged && self.known * RARE < self.asked || !self.stays_free(0, SHORT) {
            self.found = HashMap::new();
            self.taken = 0;
            self.is_full = true;
            self.memory.free();
        }
        if is_judged {
            (self.asked, self.known) = (0, 0);
        }
        self.is_counted = !self.found.is_empty();
    }

    /// The values alike a text, if they are remembered.
    pub fn find(&mut self, likeness: Likeness, text: InBlock<'_>) -> Option<&[u32]> {
        if self.found.is_empty() {
            return None;
        }
        let mut found = None;
        if self.may_take(size_of_text(text, 0)) {
            write_key(&mut self.key, likeness, text);
            found = self.found.get(self.key.as_slice());
        }
        if self.is_counted {
            self.asked += 1;
            self.known += usize::from(found.is_some());
        }
        found.map(AsRef::as_ref)
    }

    /// Remembers the values alike a text that is not remembered, if there is room.
    pub fn keep(
        &mut self,
        likeness: Likeness,
        text: InBlock<'_>,
        values: impl ExactSizeIterator<Item = u32>,
    ) {
        let bytes = size_of_text(text, values.len());
        if self.is_full || !self.may_take(bytes) {
            return;
        }
        if !self.reserve(self.taken + bytes) {
            self.is_full = true;
            return;
        }
        self.taken += bytes;
        write_key(&mut self.key, likeness, text);
        self.found.insert(self.key.as_slice().into(), values.collect());
    }

    /// Whether one text may take so much. What is larger than that is looked up each time.
    fn may_take(&self, bytes: usize) -> bool {
        bytes <= self.most / PART_OF_TEXT
    }

    /// Reserves so much, if there is.
    fn reserve(&self, bytes: usize) -> bool {
        let held = self.memory.size();
        if bytes <= held {
            return true;
        }
        if bytes > self.most {
            return false;
        }
        let more = (bytes - held).max(STEP.min(self.most - held));
        self.stays_free(more, FREE) && self.memory.try_grow(more).is_ok()
    }

    /// Whether a part of the memory is free when more is taken.
    fn stays_free(&self, more: usize, part: usize) -> bool {
        match self.pool.memory_limit() {
            MemoryLimit::Finite(limit) => {
                self.pool.reserved().saturating_add(more) <= limit - limit / part
            }
            _ => true,
        }
    }
}

/// What a text and so many values take.
fn size_of_text((_, text): InBlock<'_>, values: usize) -> usize {
    PER_TEXT + text.len() + values * size_of::<u32>()
}

/// All that a look-up depends on: what else a likeness holds is the same in all of one way.
fn write_key(key: &mut Vec<u8>, likeness: Likeness, (block, text): InBlock<'_>) {
    let max = match likeness {
        Likeness::Edit { max, .. } => max,
        _ => 0,
    };
    key.clear();
    key.extend_from_slice(&block.to_le_bytes());
    key.extend_from_slice(&max.to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer};
    use proptest::prelude::*;

    use super::*;

    const NEAR: Likeness = Likeness::Edit { osa: false, max: 1 };

    fn with_limit(bytes: usize) -> Remembered {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(bytes));
        let memory = MemoryConsumer::new("test").register(&pool);
        Remembered::new(memory, pool, 1)
    }

    /// How many texts were not remembered, of batches of a thousand.
    fn looked_up(remembered: &mut Remembered, texts: impl Iterator<Item = usize>) -> usize {
        let mut looked_up = 0;
        for (at, text) in texts.enumerate() {
            if at % 1_000 == 0 {
                remembered.next_batch();
            }
            let text = format!("text {text}");
            let text = (0, text.as_str());
            if remembered.find(NEAR, text).is_none() {
                looked_up += 1;
                remembered.keep(NEAR, text, [7].into_iter());
            }
        }
        looked_up
    }

    #[test]
    fn texts_that_come_again_are_looked_up_once() {
        let mut remembered = with_limit(1 << 30);
        assert_eq!(looked_up(&mut remembered, (0..100_000).map(|at| at % 3_000)), 3_000);
    }

    #[test]
    fn texts_that_hardly_come_again_are_not_remembered_for_long() {
        let mut remembered = with_limit(1 << 30);
        assert_eq!(looked_up(&mut remembered, 0..30_000), 30_000);
        assert_eq!(remembered.memory.size(), 0);
        assert_eq!(looked_up(&mut remembered, [1, 2, 1, 2].into_iter()), 4);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut remembered = with_limit(1 << 20);
        let looked_up = looked_up(&mut remembered, (0..20_000).map(|at| at % 1_000));
        assert!(1_000 < looked_up && looked_up < 18_000, "{looked_up}");
        assert_eq!(remembered.memory.size(), (1 << 20) / PART);
        // Alike so many that it is looked up each time.
        let mut remembered = with_limit(1 << 20);
        remembered.next_batch();
        remembered.keep(NEAR, (0, "a"), std::iter::repeat_n(0, 2_000));
        remembered.keep(NEAR, (0, "b"), std::iter::repeat_n(0, 200));
        assert_eq!(remembered.find(NEAR, (0, "a")), None);
        assert_eq!(remembered.find(NEAR, (0, "b")), Some([0; 200].as_slice()));
    }

    #[test]
    fn what_is_remembered_is_given_back_where_memory_is_short() {
        let mut remembered = with_limit(1 << 20);
        looked_up(&mut remembered, 0..100);
        let other = MemoryConsumer::new("other").register(&remembered.pool);
        other.try_grow((1 << 20) / 10 * 8).unwrap();
        assert_eq!(looked_up(&mut remembered, 0..100), 0);
        other.try_grow((1 << 20) / 10).unwrap();
        assert_eq!(looked_up(&mut remembered, 0..100), 100);
        assert_eq!(remembered.memory.size(), 0);
        // Nor is the last of it taken.
        let mut remembered = with_limit(1 << 20);
        let other = MemoryConsumer::new("other").register(&remembered.pool);
        other.try_grow((1 << 20) / 10 * 8).unwrap();
        assert_eq!(looked_up(&mut remembered, [1, 1].into_iter()), 2);
        assert_eq!(remembered.memory.size(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_found_is_what_was_kept(
            texts in prop::collection::vec((0_u32..3, 0_usize..3, "[ab]{0,3}"), 1..300),
            limit in 0_usize..600_000,
        ) {
            let mut remembered = with_limit(limit);
            for (at, (block, max, text)) in texts.iter().enumerate() {
                if at % 7 == 0 {
                    remembered.next_batch();
                }
                let (likeness, key) =
                    (Likeness::Edit { osa: true, max: *max }, (*block, text.as_str()));
                let values = text.bytes().map(u32::from).chain([*block, *max as u32]);
                let values: Vec<u32> = values.collect();
                let found = remembered.find(likeness, key).map(<[u32]>::to_vec);
                if let Some(found) = found {
                    prop_assert_eq!(found, values);
                } else {
                    remembered.keep(likeness, key, values.into_iter());
                }
                prop_assert!(remembered.taken <= remembered.memory.size());
                prop_assert!(remembered.memory.size() <= limit / PART);
            }
        }
    }
}
