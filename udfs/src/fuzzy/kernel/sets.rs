//! Texts as sorted sets of trigrams, of characters, or as counted bigrams, and how alike two are.

/// Sorts a text's elements into a list.
pub type Elements = fn(&str, &mut Vec<u64>);

/// The sorted set of a text's trigrams as pg_trgm makes them, three code points of 21 bits in a
/// word: lower case, words of letters and digits, two blanks before and one after each.
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

/// The sorted set of a text's characters.
pub fn characters(text: &str, set: &mut Vec<u64>) {
    set.clear();
    set.extend(text.chars().map(u64::from));
    set.sort_unstable();
    set.dedup();
}

/// Marks a gram of one character, as the bigram of NUL and that character is another.
const ALONE: u64 = 1 << 60;

/// The sorted bigrams of a text, two code points in a word, each as often as it occurs; a text of
/// one character is its own only gram.
pub fn bigrams(text: &str, grams: &mut Vec<u64>) {
    grams.clear();
    let mut previous = None;
    for letter in text.chars().map(u64::from) {
        if let Some(previous) = previous {
            grams.push(previous << 32 | letter);
        }
        previous = Some(letter);
    }
    if grams.is_empty() {
        grams.extend(previous.map(|letter| ALONE | letter));
    }
    grams.sort_unstable();
}

/// `common / all`; 1 when both sets are empty.
pub fn share(common: usize, all: usize) -> f64 {
    if all == 0 { 1.0 } else { common as f64 / all as f64 }
}

/// Cosine of two sorted lists, whose runs of equal grams are the counts; 1 when both are empty.
pub fn cosine(left: &[u64], right: &[u64]) -> f64 {
    if left.is_empty() || right.is_empty() {
        return if left.len() == right.len() { 1.0 } else { 0.0 };
    }
    dot(left, right) as f64 / (square(left) as f64 * square(right) as f64).sqrt()
}

/// The sum of the products of the counts of two sorted lists.
pub fn dot(left: &[u64], right: &[u64]) -> u64 {
    let mut dot = 0_u64;
    let mut others = right.chunk_by(|x, y| x == y).peekable();
    for run in left.chunk_by(|x, y| x == y) {
        while others.next_if(|other| other[0] < run[0]).is_some() {}
        if let Some(other) = others.peek().filter(|other| other[0] == run[0]) {
            dot += (run.len() * other.len()) as u64;
        }
    }
    dot
}

/// The sum of the squared counts of a sorted list.
pub fn square(grams: &[u64]) -> u64 {
    grams.chunk_by(|x, y| x == y).map(|run| (run.len() as u64).pow(2)).sum()
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
