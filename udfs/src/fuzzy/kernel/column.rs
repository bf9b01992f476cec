//! One text against a column: the column's texts prepared once, as many at a time as a register
//! has lanes.
//!
//! A block holds texts of alike length, one a lane of 8, 16, 32 or 64 bits, with one bit a
//! character, and for every ASCII character the lanes' positions of it. A text is compared with a
//! block in one pass over its own characters: a load, then a dozen operations for all lanes. The
//! recurrences are those of [`super::edit`] and [`super::jaro`]. Texts that are no ASCII, empty or
//! longer than 64 characters are compared one by one.

use pulp::{Arch, Simd, WithSimd};

use super::{Pattern, Scratch};

/// Bytes of a register.
const BYTES: usize = 64;
/// ASCII characters, and all others as one that no text in a lane has.
const LETTERS: usize = 129;
/// Longest text in a lane, and longest text that lanes are compared with.
const LONGEST: usize = 64;

/// Texts prepared for comparison with one text after the other.
#[derive(Debug)]
pub struct Column {
    arch: Arch,
    bytes: Vec<Block<u8, BYTES>>,
    words: Vec<Block<u16, { BYTES / 2 }>>,
    doubles: Vec<Block<u32, { BYTES / 4 }>>,
    quads: Vec<Block<u64, { BYTES / 8 }>>,
    /// The rows of the texts that fit no lane.
    others: Vec<u32>,
    letters: String,
    /// Where each text ends.
    ends: Vec<usize>,
}

/// Texts of up to as many characters as a lane has bits.
#[derive(Debug)]
struct Block<W, const N: usize> {
    /// Bit i of `masks[c][lane]`: the lane's text has the character c at i.
    masks: Box<[[W; N]; LETTERS]>,
    lengths: [W; N],
    /// The bit of each text's last character.
    last: [W; N],
    rows: [u32; N],
    count: usize,
}

#[inline(always)]
fn symbol(letter: u8) -> usize {
    usize::from(letter).min(LETTERS - 1)
}

/// What makes a block: its lanes and their results.
macro_rules! block {
    ($word:ty, $lanes:expr, $edit:ident, $jaro:ident) => {
        impl Block<$word, { $lanes }> {
            fn new(texts: &[(u32, &str)]) -> Self {
                let mut masks = Box::new([[0; $lanes]; LETTERS]);
                let (mut lengths, mut last, mut rows) = ([0; $lanes], [0; $lanes], [0; $lanes]);
                for (lane, (row, text)) in texts.iter().enumerate().take($lanes) {
                    for (position, letter) in text.bytes().enumerate() {
                        masks[symbol(letter)][lane] |= (1 as $word) << position;
                    }
                    lengths[lane] = text.len() as $word;
                    last[lane] = (1 as $word) << (text.len() - 1);
                    rows[lane] = *row;
                }
                Self { masks, lengths, last, rows, count: texts.len().min($lanes) }
            }
        }

        struct $edit<'a>(&'a Block<$word, { $lanes }>, &'a [u8]);

        impl WithSimd for $edit<'_> {
            type Output = [$word; $lanes];

            #[inline(always)]
            fn with_simd<S: Simd>(self, _simd: S) -> [$word; $lanes] {
                let Self(block, text) = self;
                let (mut plus, mut minus) = ([<$word>::MAX; $lanes], [0 as $word; $lanes]);
                let mut distance = block.lengths;
                let last = &block.last;
                for letter in text {
                    let masks = &block.masks[symbol(*letter)];
                    for lane in 0..$lanes {
                        let (mask, vertical) = (masks[lane], plus[lane]);
                        let equal = ((mask & vertical).wrapping_add(vertical) ^ vertical)
                            | mask
                            | minus[lane];
                        let up = minus[lane] | !(equal | vertical);
                        let down = equal & vertical;
                        let step = (up & last[lane] != 0) as $word;
                        let back = (down & last[lane] != 0) as $word;
                        distance[lane] = distance[lane].wrapping_add(step).wrapping_sub(back);
                        let up = (up << 1) | 1;
                        plus[lane] = (down << 1) | !(equal | up);
                        minus[lane] = up & equal;
                    }
                }
                distance
            }
        }

        struct $jaro<'a, const WINKLER: bool>(&'a Block<$word, { $lanes }>, &'a [u8]);

        impl<const WINKLER: bool> WithSimd for $jaro<'_, WINKLER> {
            type Output = [f64; $lanes];

            #[inline(always)]
            fn with_simd<S: Simd>(self, _simd: S) -> [f64; $lanes] {
                let Self(block, text) = self;
                let length = text.len().min(LONGEST);
                let (mut window, mut near) = ([0 as $word; $lanes], [0 as $word; $lanes]);
                for lane in 0..$lanes {
                    let longer = block.lengths[lane].max(length as $word);
                    window[lane] = (longer / 2).saturating_sub(1);
                }
                for position in 0..<$word>::BITS as usize {
                    let bit = (1 as $word) << position;
                    for lane in 0..$lanes {
                        near[lane] |= if position as $word <= window[lane] { bit } else { 0 };
                    }
                }
                let mut taken = [0 as $word; $lanes];
                let mut hits = [[0 as $word; $lanes]; LONGEST];
                for (position, letter) in text.iter().enumerate().take(length) {
                    let masks = &block.masks[symbol(*letter)];
                    for lane in 0..$lanes {
                        let free = masks[lane] & near[lane] & !taken[lane];
                        taken[lane] |= free & free.wrapping_neg();
                        hits[position][lane] = if free != 0 { <$word>::MAX } else { 0 };
                        let open = ((position as $word) < window[lane]) as $word;
                        near[lane] = (near[lane] << 1) | open;
                    }
                }
                let (mut matches, mut unordered) = ([0 as $word; $lanes], [0 as $word; $lanes]);
                for (letter, hits) in text.iter().zip(&hits).take(length) {
                    let masks = &block.masks[symbol(*letter)];
                    for lane in 0..$lanes {
                        let lowest = taken[lane] & taken[lane].wrapping_neg() & hits[lane];
                        matches[lane] += hits[lane] & 1;
                        unordered[lane] +=
                            if masks[lane] & lowest == 0 { hits[lane] & 1 } else { 0 };
                        taken[lane] ^= lowest;
                    }
                }
                let mut prefix = [0 as $word; $lanes];
                if WINKLER {
                    let mut alike = [1 as $word; $lanes];
                    for (position, letter) in text.iter().enumerate().take(4) {
                        let masks = &block.masks[symbol(*letter)];
                        for lane in 0..$lanes {
                            alike[lane] &= masks[lane] >> position;
                            prefix[lane] += alike[lane] & 1;
                        }
                    }
                }
                let mut similarity = [0.0; $lanes];
                for lane in 0..$lanes {
                    let common = matches[lane] as f64;
                    let in_order = common - (unordered[lane] / 2) as f64;
                    let of_both = common / block.lengths[lane] as f64 + common / length as f64;
                    let jaro = (of_both + in_order / common) / 3.0;
                    let jaro = if matches[lane] == 0 { 0.0 } else { jaro };
                    similarity[lane] = jaro;
                    if WINKLER {
                        let more = jaro + 0.1 * prefix[lane] as f64 * (1.0 - jaro);
                        similarity[lane] = if jaro > 0.7 { more } else { jaro };
                    }
                }
                similarity
            }
        }
    };
}

block!(u8, BYTES, EditBytes, JaroBytes);
block!(u16, BYTES / 2, EditWords, JaroWords);
block!(u32, BYTES / 4, EditDoubles, JaroDoubles);
block!(u64, BYTES / 8, EditQuads, JaroQuads);

/// Runs a kernel over the blocks of all widths.
macro_rules! lanes {
    ($column:expr, $text:expr, $take:expr, [$($blocks:ident: $kernel:path),*]) => {$(
        for block in &$column.$blocks {
            let results = $column.arch.dispatch($kernel(block, $text));
            for (row, result) in block.rows.iter().zip(results).take(block.count) {
                $take(*row as usize, result);
            }
        }
    )*};
}

impl Column {
    /// Prepares texts; a result's row is a text's position here.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut letters, mut ends) = (String::new(), Vec::new());
        for text in texts {
            letters.push_str(text);
            ends.push(letters.len());
        }
        let mut column = Self {
            arch: Arch::new(),
            bytes: Vec::new(),
            words: Vec::new(),
            doubles: Vec::new(),
            quads: Vec::new(),
            others: Vec::new(),
            letters,
            ends,
        };
        let mut widths: [Vec<(u32, &str)>; 4] = Default::default();
        let mut others = Vec::new();
        for row in 0..column.len() {
            let text = column.text(row);
            let width = match text.len() {
                1..=8 => 0,
                9..=16 => 1,
                17..=32 => 2,
                33..=LONGEST => 3,
                _ => usize::MAX,
            };
            match widths.get_mut(width).filter(|_| text.is_ascii()) {
                Some(texts) => texts.push((row as u32, text)),
                None => others.push(row as u32),
            }
        }
        let [bytes, words, doubles, quads] = widths;
        let bytes = bytes.chunks(BYTES).map(Block::<u8, BYTES>::new).collect();
        let words = words.chunks(BYTES / 2).map(Block::<u16, { BYTES / 2 }>::new).collect();
        let doubles = doubles.chunks(BYTES / 4).map(Block::<u32, { BYTES / 4 }>::new).collect();
        let quads = quads.chunks(BYTES / 8).map(Block::<u64, { BYTES / 8 }>::new).collect();
        (column.bytes, column.words, column.doubles, column.quads) = (bytes, words, doubles, quads);
        column.others = others;
        column
    }

    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Memory that the column takes.
    pub fn bytes(&self) -> usize {
        let blocks = self.bytes.len() + self.words.len() + self.doubles.len() + self.quads.len();
        blocks * (LETTERS + 8) * BYTES + self.letters.capacity() + 8 * self.ends.capacity()
    }

    fn text(&self, row: usize) -> &str {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.letters[start..self.ends[row]]
    }

    /// Gives the Levenshtein distance of each row's text to one, in no order.
    pub fn levenshtein(
        &self,
        text: &str,
        scratch: &mut ColumnScratch,
        mut take: impl FnMut(usize, usize),
    ) {
        let ColumnScratch { letters, pattern, pairs } = scratch;
        pattern.reset(text);
        let mut one = |row: usize, take: &mut dyn FnMut(usize, usize)| {
            let distance = pattern.levenshtein(self.text(row), usize::MAX, pairs);
            take(row, distance.unwrap_or(usize::MAX));
        };
        if !lane_text(text, letters) {
            return (0..self.len()).for_each(|row| one(row, &mut take));
        }
        lanes!(self, letters, |row, distance| take(row, distance as usize), [
            bytes: EditBytes, words: EditWords, doubles: EditDoubles, quads: EditQuads
        ]);
        self.others.iter().for_each(|row| one(*row as usize, &mut take));
    }

    /// Gives the Jaro or Jaro-Winkler similarity of each row's text to one, in no order.
    pub fn jaro<const WINKLER: bool>(
        &self,
        text: &str,
        scratch: &mut ColumnScratch,
        mut take: impl FnMut(usize, f64),
    ) {
        let ColumnScratch { letters, pattern, pairs } = scratch;
        pattern.reset(text);
        let mut one = |row: usize, take: &mut dyn FnMut(usize, f64)| {
            let other = self.text(row);
            let similarity = if WINKLER {
                pattern.jaro_winkler(other, pairs)
            } else {
                pattern.jaro(other, pairs)
            };
            take(row, similarity);
        };
        if !lane_text(text, letters) {
            return (0..self.len()).for_each(|row| one(row, &mut take));
        }
        lanes!(self, letters, take, [
            bytes: JaroBytes::<WINKLER>, words: JaroWords::<WINKLER>,
            doubles: JaroDoubles::<WINKLER>, quads: JaroQuads::<WINKLER>
        ]);
        self.others.iter().for_each(|row| one(*row as usize, &mut take));
    }
}

/// Working memory of comparisons with a column.
#[derive(Debug, Default)]
pub struct ColumnScratch {
    letters: Vec<u8>,
    pattern: Pattern,
    pairs: Scratch,
}

/// Reads a text that lanes can be compared with; false when it is empty or too long.
fn lane_text(text: &str, letters: &mut Vec<u8>) -> bool {
    letters.clear();
    let read = text.chars().take(LONGEST + 1);
    letters.extend(read.map(|letter| u8::try_from(letter).unwrap_or(u8::MAX)));
    (1..=LONGEST).contains(&letters.len())
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn a_column_gives_what_single_pairs_give() {
        let mut random = StdRng::seed_from_u64(5);
        let mut texts = vec![String::new(), "é".into(), "ab\u{ff}".into(), "x".repeat(200)];
        for _ in 0..600 {
            let letters: Vec<char> =
                if random.random_bool(0.1) { "aé日" } else { "abcd ~" }.chars().collect();
            let longest = [7, 9, 20, 40, 70][random.random_range(0..5)];
            let length = random.random_range(0..=longest);
            texts.push(
                (0..length).map(|_| letters[random.random_range(0..letters.len())]).collect(),
            );
        }
        let column = Column::new(texts.iter().map(String::as_str));
        let (mut scratch, mut pairs) = (ColumnScratch::default(), Scratch::default());
        for text in texts.iter().step_by(7) {
            let pattern = Pattern::new(text);
            let mut seen = vec![0; texts.len()];
            column.levenshtein(text, &mut scratch, |row, distance| {
                let expected = pattern.levenshtein(&texts[row], usize::MAX, &mut pairs);
                assert_eq!(Some(distance), expected, "{text:?} {:?}", texts[row]);
                seen[row] += 1;
            });
            column.jaro::<false>(text, &mut scratch, |row, similarity| {
                let expected = pattern.jaro(&texts[row], &mut pairs);
                assert_eq!(similarity.to_bits(), expected.to_bits(), "{text:?} {:?}", texts[row]);
                seen[row] += 1;
            });
            column.jaro::<true>(text, &mut scratch, |row, similarity| {
                let expected = pattern.jaro_winkler(&texts[row], &mut pairs);
                assert_eq!(similarity.to_bits(), expected.to_bits(), "{text:?} {:?}", texts[row]);
                seen[row] += 1;
            });
            assert!(seen.iter().all(|times| *times == 3));
        }
    }
}
