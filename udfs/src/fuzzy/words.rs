//! The words of a text, sorted and joined by blanks.

use std::ops::Range;

/// A text's words; the buffers are reused from text to text.
#[derive(Debug, Default)]
pub(crate) struct Words {
    joined: String,
    /// Where each word lies in `joined`.
    bounds: Vec<Range<usize>>,
}

impl Words {
    /// The words of a text, split at white space.
    pub(crate) fn read(&mut self, text: &str) {
        self.sort(text);
        self.join(text);
    }

    /// The same, each word once.
    pub(crate) fn read_distinct(&mut self, text: &str) {
        self.sort(text);
        self.bounds.dedup_by(|one, other| text[one.clone()] == text[other.clone()]);
        self.join(text);
    }

    /// The words, with one blank between two.
    pub(crate) fn joined(&self) -> &str {
        &self.joined
    }

    /// The words, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.bounds.iter().map(|bounds| &self.joined[bounds.clone()])
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.bounds.is_empty()
    }

    /// Finds where the words lie in the text, in the order of the words.
    fn sort(&mut self, text: &str) {
        let bounds = &mut self.bounds;
        bounds.clear();
        let mut start = None;
        for (at, letter) in text.char_indices() {
            match (start, letter.is_whitespace()) {
                (None, false) => start = Some(at),
                (Some(from), true) => {
                    bounds.push(from..at);
                    start = None;
                }
                _ => {}
            }
        }
        bounds.extend(start.map(|from| from..text.len()));
        bounds.sort_unstable_by(|one, other| text[one.clone()].cmp(&text[other.clone()]));
    }

    /// Writes the words behind each other.
    fn join(&mut self, text: &str) {
        self.joined.clear();
        for bounds in &mut self.bounds {
            if !self.joined.is_empty() {
                self.joined.push(' ');
            }
            let from = self.joined.len();
            self.joined.push_str(&text[bounds.clone()]);
            *bounds = from..self.joined.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted_joined_and_taken_once() {
        let mut words = Words::default();
        for text in ["", " ", "b  a\tb ", "ü\u{3000}é b", "one", " a"] {
            let mut expected: Vec<&str> = text.split_whitespace().collect();
            expected.sort_unstable();
            words.read(text);
            assert_eq!(words.iter().collect::<Vec<_>>(), expected, "{text:?}");
            assert_eq!(words.joined(), expected.join(" "), "{text:?}");
            expected.dedup();
            words.read_distinct(text);
            assert_eq!(words.iter().collect::<Vec<_>>(), expected, "{text:?}");
            assert_eq!(words.joined(), expected.join(" "), "{text:?}");
            assert_eq!(words.is_empty(), expected.is_empty(), "{text:?}");
        }
    }
}
