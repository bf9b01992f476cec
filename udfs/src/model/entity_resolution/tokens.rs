//! The words of the values of a column of texts, or the members of lists, and how alike two values
//! are by them.
//!
//! Words weigh `ln(1 + N / df)`, N records and df of them with the word; two values are alike by
//! the weight of the words they share over the weight of all their words (weighted Jaccard), where
//! of texts an initial shares half the weight of a word that begins with it.

use std::collections::HashMap;

use super::key::fingerprint;
use super::values::Values;

/// The words of distinct values.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Where the words of each value begin in `words`.
    starts: Vec<u32>,
    /// Words by code, ascending within a value.
    words: Vec<u32>,
    /// The weight of each word.
    weights: Vec<f32>,
    /// The records that have each word.
    counts: Vec<u32>,
    /// The first letter of a word; of an initial, with `INITIAL` set.
    letters: Vec<u32>,
    /// A fingerprint of each word, by which it is known to other versions.
    prints: Vec<u64>,
}

/// Marks a word of one letter.
const INITIAL: u32 = 1 << 31;

/// Words of a value that count.
const WORDS_MAX: usize = 64;

impl Tokens {
    /// The words, as `split` finds them, of values that so many records have; whether a word of one
    /// letter is an initial.
    pub fn new<'a>(
        values: &'a Values,
        counts: &[u32],
        split: impl Fn(&'a str) -> Vec<&'a str>,
        has_initials: bool,
    ) -> Self {
        let mut known: HashMap<&str, u32> = HashMap::new();
        let mut tokens = Self { starts: vec![0], ..Self::default() };
        let records: f64 = counts.iter().map(|&count| f64::from(count)).sum();
        for (value, &count) in values.iter().zip(counts) {
            let from = tokens.words.len();
            for word in split(value).into_iter().take(WORDS_MAX) {
                let code = *known.entry(word).or_insert_with(|| {
                    tokens.counts.push(0);
                    tokens.prints.push(fingerprint(word, 0));
                    let mut letters = word.chars();
                    let first = letters.next().map_or(0, u32::from);
                    let is_initial = has_initials && letters.next().is_none();
                    tokens.letters.push(if is_initial { first | INITIAL } else { first });
                    tokens.counts.len() as u32 - 1
                });
                tokens.words.push(code);
            }
            tokens.words[from..].sort_unstable();
            let mut kept = from;
            for at in from..tokens.words.len() {
                if at == from || tokens.words[at] != tokens.words[at - 1] {
                    tokens.words[kept] = tokens.words[at];
                    kept += 1;
                }
            }
            tokens.words.truncate(kept);
            for &word in &tokens.words[from..] {
                tokens.counts[word as usize] += count;
            }
            tokens.starts.push(tokens.words.len() as u32);
        }
        let weight = |&count: &u32| (1.0 + records / f64::from(count.max(1))).ln() as f32;
        tokens.weights = tokens.counts.iter().map(weight).collect();
        tokens
    }

    /// The words of a value, by code.
    pub fn of(&self, value: u32) -> &[u32] {
        let at = value as usize;
        match (self.starts.get(at), self.starts.get(at + 1)) {
            (Some(&from), Some(&to)) => &self.words[from as usize..to as usize],
            _ => &[],
        }
    }

    /// The records that have a word.
    pub fn count(&self, word: u32) -> u32 {
        self.counts[word as usize]
    }

    /// A fingerprint of a word.
    pub fn print(&self, word: u32) -> u64 {
        self.prints[word as usize]
    }

    /// How alike two values are, 0 to 1.
    pub fn similarity(&self, left: u32, right: u32) -> f64 {
        let (left, right) = (self.of(left), self.of(right));
        let weight = |word: &u32| f64::from(self.weights[*word as usize]);
        let all: f64 = left.iter().chain(right).map(weight).sum();
        let (mut a, mut b) = (0, 0);
        let mut shared = 0.0;
        let mut alone = [[0_u32; WORDS_MAX]; 2];
        let mut lengths = [0; 2];
        while a < left.len() || b < right.len() {
            let (x, y) = (left.get(a), right.get(b));
            match (x, y) {
                (Some(x), Some(y)) if x == y => {
                    shared += weight(x);
                    (a, b) = (a + 1, b + 1);
                }
                (Some(x), y) if y.is_none_or(|y| x < y) => {
                    alone[0][lengths[0]] = *x;
                    lengths[0] += 1;
                    a += 1;
                }
                (_, Some(y)) => {
                    alone[1][lengths[1]] = *y;
                    lengths[1] += 1;
                    b += 1;
                }
                _ => break,
            }
        }
        let [left, mut right] = alone;
        shared += self.initials(&left[..lengths[0]], &mut right[..lengths[1]]);
        let union = all - shared;
        if union > 0.0 { (shared / union).min(1.0) } else { 0.0 }
    }

    /// What initials share with words of the other side.
    fn initials(&self, left: &[u32], right: &mut [u32]) -> f64 {
        let mut shared = 0.0;
        for &x in left {
            let x = self.letters[x as usize];
            let partner = right.iter().position(|&y| {
                y != u32::MAX && {
                    let y = self.letters[y as usize];
                    (x ^ y) == INITIAL
                }
            });
            if let Some(at) = partner {
                shared += 0.5 * f64::from(self.weights[right[at] as usize]);
                right[at] = u32::MAX;
            }
        }
        shared
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        4 * (self.starts.len() + self.words.len() + 3 * self.weights.len()) + 8 * self.prints.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_words_tell_more_than_common_ones() {
        let values: Values = ["the rare", "the common", "a common", "the", "j smith", "john smith"]
            .into_iter()
            .collect();
        let words = |value| str::split_whitespace(value).collect();
        let tokens = Tokens::new(&values, &[1, 1, 10, 10, 1, 1], words, true);
        assert_eq!(tokens.similarity(0, 0), 1.0);
        assert!(tokens.similarity(0, 3) < 0.5);
        assert!(tokens.similarity(4, 5) > 0.5);
        assert_eq!(tokens.similarity(4, 5), tokens.similarity(4, 5));
        assert_eq!(tokens.of(9), &[] as &[u32]);
    }
}
