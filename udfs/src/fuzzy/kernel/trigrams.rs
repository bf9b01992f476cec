//! Sets of trigrams, as pg_trgm makes them.
//!
//! A text is lower-cased and split into words of letters and digits; each word is padded with two
//! blanks before and one after and cut into trigrams of code points.

/// The sorted set of a text's trigrams, three code points of 21 bits in a word.
pub fn trigrams(text: &str, set: &mut Vec<u64>) {
    const BLANK: u64 = ' ' as u64;
    set.clear();
    let (mut first, mut second) = (BLANK, BLANK);
    let mut in_word = false;
    let mut push = |letter: Option<char>| match letter {
        Some(letter) => {
            set.push(first << 42 | second << 21 | u64::from(letter));
            (first, second) = (second, u64::from(letter));
            in_word = true;
        }
        None => {
            if in_word {
                set.push(first << 42 | second << 21 | BLANK);
            }
            (first, second) = (BLANK, BLANK);
            in_word = false;
        }
    };
    for letter in text.chars() {
        if letter.is_alphanumeric() {
            letter.to_lowercase().for_each(|letter| push(Some(letter)));
        } else {
            push(None);
        }
    }
    push(None);
    set.sort_unstable();
    set.dedup();
}

/// How many elements two sorted sets share.
pub fn shared(left: &[u64], right: &[u64]) -> usize {
    let (mut i, mut j, mut common) = (0, 0, 0);
    while let (Some(x), Some(y)) = (left.get(i), right.get(j)) {
        common += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    common
}

#[cfg(test)]
mod tests {
    use super::{shared, trigrams};

    #[test]
    fn the_trigrams_of_cat() {
        let (mut cat, mut cats) = (Vec::new(), Vec::new());
        trigrams("Cat", &mut cat);
        trigrams("cat!s", &mut cats);
        assert_eq!((cat.len(), cats.len(), shared(&cat, &cats)), (4, 6, 4));
        trigrams("", &mut cat);
        assert!(cat.is_empty());
    }
}
