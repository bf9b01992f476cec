//! Memory for the keys and blocks of rules: how much they take is known once the rules are, and
//! what is beyond the part of each record that is taken for them before is asked for then.

use super::blocking::Rule;
use super::key::Key;
use super::records::Records;
use crate::model::ModelError;

/// Keys of a record whose blocks are made side by side.
const SLOTS_AT_ONCE: usize = 6;

/// Bytes of a key of a record while its block is made: the key with its record and slot, the block,
/// and the record once more in the block's list, which grows.
const MADE_BYTES: usize = 30;
/// The bytes that stay.
const CELL_BYTES: usize = 12;
/// The bytes of the two that are taken for each record before its rules are known.
const MADE_ROOM_BYTES: usize = 320;
const KEPT_ROOM_BYTES: usize = 200;

/// Takes memory beside what is taken for each record, so many bytes in all, or says that there are
/// not so many.
pub type Room<'a> = &'a (dyn Fn(usize) -> bool + Sync);

/// Takes memory for the keys of all values that rules to choose from are weighed by.
///
/// # Errors
/// When there is not so much.
pub fn take_for_keys(key_bytes: usize, records: usize, room: Room<'_>) -> Result<(), ModelError> {
    let needed_bytes = key_bytes.saturating_sub(records.saturating_mul(MADE_ROOM_BYTES));
    taken("the keys that blocking rules are chosen by", needed_bytes, room)
}

/// Takes memory for the blocks of rules.
///
/// # Errors
/// When there is not so much.
pub fn take_for_blocks(
    rules: &[&Rule],
    records: &Records,
    room: Room<'_>,
) -> Result<(), ModelError> {
    taken("the blocks of all blocking rules", needed_bytes(rules, records), room)
}

/// Takes memory for keys or blocks, of which so many bytes are needed for records in all.
fn taken(what: &'static str, needed_bytes: usize, room: Room<'_>) -> Result<(), ModelError> {
    match needed_bytes == 0 || room(needed_bytes) {
        true => Ok(()),
        false => Err(ModelError::NoRoom { what, needed_bytes }),
    }
}

/// Rules one behind the other, those together whose blocks are made side by side.
pub(super) fn batches<'a, 'b>(rules: &'b [&'a Rule]) -> Vec<&'b [&'a Rule]> {
    let (mut batches, mut from, mut slots) = (Vec::new(), 0, 0);
    for (at, rule) in rules.iter().enumerate() {
        if at > from && slots + rule.slots() > SLOTS_AT_ONCE {
            batches.push(&rules[from..at]);
            (from, slots) = (at, 0);
        }
        slots += rule.slots();
    }
    batches.push(&rules[from..]);
    batches
}

/// Bytes that the blocks of rules need beside what is taken for each record: while they are made,
/// or once they are, whichever are more.
fn needed_bytes(rules: &[&Rule], records: &Records) -> usize {
    let values = |key: &Key| records.columns.get(key.column).map_or(0, |of| of.values.len());
    let key_bytes = |key: &Key| values(key).saturating_mul(8 * key.slots());
    let (mut kept, mut most) = (0_usize, 0_usize);
    for rules in batches(rules) {
        let slots: usize = rules.iter().map(|rule| rule.slots()).sum();
        let cells = slots.saturating_mul(records.len);
        // Those of values are gone once records have theirs.
        let of_values: usize = rules.iter().flat_map(|rule| &rule.keys).map(key_bytes).sum();
        let keys = cells.saturating_mul(8).saturating_add(of_values);
        let made = cells.saturating_mul(MADE_BYTES).max(keys);
        most = most.max(kept.saturating_add(made));
        kept = kept.saturating_add(cells.saturating_mul(CELL_BYTES));
    }
    let beyond = |bytes: usize, room: usize| bytes.saturating_sub(records.len.saturating_mul(room));
    beyond(most, MADE_ROOM_BYTES).max(beyond(kept, KEPT_ROOM_BYTES))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::column::Gatherer;
    use super::super::kind::{Declared, Kind};
    use super::*;

    /// Two columns of texts, of so many records that all say the same.
    fn records(len: u32) -> Records {
        let order: Vec<u32> = (0..len).collect();
        let column = |name: &str| {
            let mut gatherer = Gatherer::default();
            order.iter().for_each(|_| gatherer.push(Some("sand tin")));
            gatherer.finish(name, Declared::Text, Some(Kind::Text), &order, &[])
        };
        Records::new(vec![column("a"), column("b")], vec![], len as usize)
    }

    #[test]
    fn memory_is_taken_for_as_many_keys_as_rules_make() {
        let rule = Rule::parse("words(a) AND words(b)", &["a", "b"]).unwrap();
        let records = records(4);
        let needed = |rules: usize| {
            let asked = AtomicUsize::new(0);
            let room = |bytes: usize| {
                asked.store(bytes, Ordering::Relaxed);
                false
            };
            let made = take_for_blocks(&vec![&rule; rules], &records, &room);
            let needed_bytes = asked.into_inner();
            let told = match made {
                Ok(()) => 0,
                Err(ModelError::NoRoom { needed_bytes, .. }) => needed_bytes,
                Err(other) => panic!("{other}"),
            };
            assert_eq!(told, needed_bytes);
            told
        };
        // Of a record, one rule of nine keys takes 9 · 30 bytes of the 320 that there are; with
        // those of two others 2 · 9 · 12 more.
        assert_eq!((needed(1), needed(3)), (0, 4 * (9 * 30 + 18 * 12 - 320)));
    }

    #[test]
    fn keys_to_choose_from_have_the_place_of_blocks() {
        let taken = |bytes| take_for_keys(bytes, 10, &|_| false);
        assert_eq!(taken(3_200), Ok(()));
        let error = taken(3_201).unwrap_err();
        assert!(matches!(error, ModelError::NoRoom { needed_bytes: 1, .. }), "{error}");
    }
}
