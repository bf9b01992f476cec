//! Sets of keys of values, as [`value_keys`](super::value_keys) answers them: counted over several
//! parts of the rows, a byte of the keys at a time.

use super::value_keys::{COUNT_BYTES, KEY_BYTES};

/// An answer of `value_keys`.
pub(super) struct Answer<'a> {
    pub(super) rows: u64,
    pub(super) keys: &'a [[u8; KEY_BYTES]],
    /// How many rows each key has; none where each has one.
    pub(super) counts: &'a [[u8; COUNT_BYTES]],
}

impl<'a> Answer<'a> {
    pub(super) fn of(content: &'a [u8]) -> Option<Self> {
        let (rows, content) = content.split_first_chunk::<COUNT_BYTES>()?;
        let (different, content) = content.split_first_chunk::<COUNT_BYTES>()?;
        let different = usize::try_from(u64::from_be_bytes(*different)).ok()?;
        let (keys, counts) = content.split_at_checked(different.checked_mul(KEY_BYTES)?)?;
        let (keys, _) = keys.as_chunks::<KEY_BYTES>();
        let (counts, rest) = counts.as_chunks::<COUNT_BYTES>();
        let is_whole = rest.is_empty() && (counts.is_empty() || counts.len() == keys.len());
        is_whole.then_some(Self { rows: u64::from_be_bytes(*rows), keys, counts })
    }

    /// Takes away the keys that begin with this byte or a smaller one, with their counts.
    fn take_to(&mut self, first: u8) -> (&'a [[u8; KEY_BYTES]], &'a [[u8; COUNT_BYTES]]) {
        let at = self.keys.partition_point(|key| key[0] <= first);
        let (keys, later) = self.keys.split_at(at);
        let (counts, counts_later) = self.counts.split_at(at.min(self.counts.len()));
        (self.keys, self.counts) = (later, counts_later);
        (keys, counts)
    }
}

/// How many rows a key has.
pub(super) fn count(counts: &[[u8; COUNT_BYTES]], at: usize) -> u64 {
    counts.get(at).map_or(1, |count| u64::from_be_bytes(*count))
}

/// How many different values there are in an answer of `value_keys`; `None` when it is none.
pub fn different(content: &[u8]) -> Option<u64> {
    Answer::of(content).map(|answer| answer.keys.len() as u64)
}

/// How many rows repeat what another row has, by the answers of `value_keys` for parts of the
/// rows: what `duplicate_count` gives for all of them. `None` when one of them is no answer.
pub fn repeated<T: AsRef<[u8]>>(contents: &[T]) -> Option<u64> {
    let mut answers = answers(contents)?;
    let rows: u64 = answers.iter().map(|answer| answer.rows).sum();
    let (mut different, mut some) = (0, Vec::new());
    // Keys are spread evenly: those that begin with one byte are few beside all of them.
    for first in 0..=u8::MAX {
        gather(&mut answers, first, &mut some);
        different += some.len() as u64;
    }
    Some(rows.saturating_sub(different))
}

/// How many rows have a value that none of other rows has, by the answers of `value_keys` for
/// parts of both. `None` when one of them is no answer.
pub fn missing<T: AsRef<[u8]>>(contents: &[T], among: &[T]) -> Option<u64> {
    let (mut answers, mut others) = (answers(contents)?, answers(among)?);
    let (mut rows, mut some) = (0, Vec::new());
    for first in 0..=u8::MAX {
        gather(&mut others, first, &mut some);
        for answer in &mut answers {
            let (keys, counts) = answer.take_to(first);
            let mut others = some.iter().copied().peekable();
            for (at, key) in keys.iter().map(|key| u128::from_be_bytes(*key)).enumerate() {
                while others.next_if(|other| *other < key).is_some() {}
                if others.peek() != Some(&key) {
                    rows += count(counts, at);
                }
            }
        }
    }
    Some(rows)
}

fn answers<T: AsRef<[u8]>>(contents: &[T]) -> Option<Vec<Answer<'_>>> {
    contents.iter().map(|content| Answer::of(content.as_ref())).collect()
}

/// The keys of all answers that begin with a byte, in order and each once; taken away from them.
fn gather(answers: &mut [Answer<'_>], first: u8, keys: &mut Vec<u128>) {
    keys.clear();
    for answer in answers {
        let (these, _) = answer.take_to(first);
        keys.extend(these.iter().map(|key| u128::from_be_bytes(*key)));
    }
    keys.sort();
    keys.dedup();
}
