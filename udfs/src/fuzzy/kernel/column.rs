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
use crate::fuzzy::stop::{Stop, Stopped};

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
    texts: Letters,
}

/// Texts, one after the other.
#[derive(Debug)]
struct Letters {
    letters: String,
    /// Where each text ends.
    ends: Vec<usize>,
}

impl Letters {
    fn text(&self, row: usize) -> &str {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.letters[start..self.ends[row]]
    }
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

        struct $edit<'a, const OSA: bool>(&'a Block<$word, { $lanes }>, &'a [u8]);

        impl<const OSA: bool> WithSimd for $edit<'_, OSA> {
            type Output = [$word; $lanes];

            #[inline(always)]
            fn with_simd<S: Simd>(self, _simd: S) -> [$word; $lanes] {
                let Self(block, text) = self;
                let (mut plus, mut minus) = ([<$word>::MAX; $lanes], [0 as $word; $lanes]);
                let (mut diagonal, mut previous) = ([0 as $word; $lanes], [0 as $word; $lanes]);
                let mut distance = block.lengths;
                let last = &block.last;
                for letter in text {
                    let masks = &block.masks[symbol(*letter)];
                    for lane in 0..$lanes {
                        let (mask, vertical) = (masks[lane], plus[lane]);
                        let mut equal = ((mask & vertical).wrapping_add(vertical) ^ vertical)
                            | mask
                            | minus[lane];
                        if OSA {
                            equal |= ((!diagonal[lane] & mask) << 1) & previous[lane];
                            (diagonal[lane], previous[lane]) = (equal, mask);
                        }
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
    ///
    /// # Errors
    /// When nobody wants the result any more.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>, stop: &Stop) -> Result<Self, Stopped> {
        let (mut letters, mut ends) = (String::new(), Vec::new());
        let (mut widths, mut others) = (<[Vec<u32>; 4]>::default(), Vec::new());
        let mut pace = stop.pace();
        for (row, text) in texts.into_iter().enumerate() {
            pace.spend(32 + text.len())?;
            letters.push_str(text);
            ends.push(letters.len());
            let width = match text.len() {
                1..=8 => 0,
                9..=16 => 1,
                17..=32 => 2,
                33..=LONGEST => 3,
                _ => usize::MAX,
            };
            match widths.get_mut(width).filter(|_| text.is_ascii()) {
                Some(rows) => rows.push(row as u32),
                None => others.push(row as u32),
            }
        }
        let texts = Letters { letters, ends };
        let [bytes, words, doubles, quads] = &widths;
        Ok(Self {
            arch: Arch::new(),
            bytes: blocks(&texts, bytes, BYTES, Block::<u8, BYTES>::new, stop)?,
            words: blocks(&texts, words, BYTES / 2, Block::<u16, { BYTES / 2 }>::new, stop)?,
            doubles: blocks(&texts, doubles, BYTES / 4, Block::<u32, { BYTES / 4 }>::new, stop)?,
            quads: blocks(&texts, quads, BYTES / 8, Block::<u64, { BYTES / 8 }>::new, stop)?,
            others,
            texts,
        })
    }

    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.texts.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.ends.is_empty()
    }

    /// A row's text.
    pub fn text(&self, row: usize) -> &str {
        self.texts.text(row)
    }

    /// Memory that a column of texts takes at most.
    pub fn estimate(texts: &[&str]) -> usize {
        let lane = |length: usize| match length {
            0 => 0,
            1..=8 => 1,
            9..=16 => 2,
            17..=32 => 4,
            33..=LONGEST => 8,
            _ => 0,
        };
        // Vectors grow to twice what they hold; four blocks may be nearly empty.
        let of_text = |text: &&str| lane(text.len()) * (LETTERS + 8) + 2 * text.len() + 32;
        texts.iter().map(of_text).sum::<usize>() + 4 * (LETTERS + 8) * BYTES
    }

    /// Memory that the column takes.
    pub fn bytes(&self) -> usize {
        let blocks = self.bytes.len() + self.words.len() + self.doubles.len() + self.quads.len();
        let Letters { letters, ends } = &self.texts;
        let others = 4 * self.others.capacity();
        blocks * (LETTERS + 8) * BYTES + letters.capacity() + 8 * ends.capacity() + others
    }

    /// Gives the Levenshtein or, with `OSA`, optimal-string-alignment distance of each row's text
    /// to one, in no order. `take` answers with the largest distance that is still of interest;
    /// one beyond it may be left out.
    ///
    /// # Errors
    /// When nobody wants the result any more.
    pub fn edit<const OSA: bool>(
        &self,
        text: &str,
        scratch: &mut ColumnScratch,
        mut take: impl FnMut(usize, usize) -> usize,
    ) -> Result<(), Stopped> {
        let ColumnScratch { letters, pattern, pairs } = scratch;
        pattern.reset(text);
        let mut max = usize::MAX;
        if lane_text(text, letters) {
            lanes!(self, letters, |row, distance| max = take(row, distance as usize), [
                bytes: EditBytes::<OSA>, words: EditWords::<OSA>,
                doubles: EditDoubles::<OSA>, quads: EditQuads::<OSA>
            ]);
        }
        self.one_by_one(letters, pattern, pairs, |row, pattern, pairs| {
            if let Some(distance) = pattern.edit::<OSA>(self.texts.text(row), max, pairs) {
                max = take(row, distance);
            }
        })
    }

    /// Gives the Jaro or Jaro-Winkler similarity of each row's text to one, in no order.
    ///
    /// # Errors
    /// When nobody wants the result any more.
    pub fn jaro<const WINKLER: bool>(
        &self,
        text: &str,
        scratch: &mut ColumnScratch,
        mut take: impl FnMut(usize, f64),
    ) -> Result<(), Stopped> {
        let ColumnScratch { letters, pattern, pairs } = scratch;
        pattern.reset(text);
        if lane_text(text, letters) {
            lanes!(self, letters, take, [
                bytes: JaroBytes::<WINKLER>, words: JaroWords::<WINKLER>,
                doubles: JaroDoubles::<WINKLER>, quads: JaroQuads::<WINKLER>
            ]);
        }
        self.one_by_one(letters, pattern, pairs, |row, pattern, pairs| {
            let other = self.texts.text(row);
            let similarity = if WINKLER {
                pattern.jaro_winkler(other, pairs)
            } else {
                pattern.jaro(other, pairs)
            };
            take(row, similarity);
        })
    }

    /// Compares the texts that fit no lane, or all if the other text fits none.
    fn one_by_one(
        &self,
        letters: &[u8],
        pattern: &Pattern,
        pairs: &mut Scratch,
        mut compare: impl FnMut(usize, &Pattern, &mut Scratch),
    ) -> Result<(), Stopped> {
        let stop = pairs.stop().clone();
        let mut pace = stop.pace();
        let mut one = |row: usize| -> Result<(), Stopped> {
            pace.spend(32 + self.texts.text(row).len() * (1 + pattern.len() / 64))?;
            compare(row, pattern, pairs);
            Ok(())
        };
        if fits_lane(letters) {
            self.others.iter().try_for_each(|row| one(*row as usize))?;
        } else {
            (0..self.len()).try_for_each(one)?;
        }
        stop.check()
    }
}

/// The blocks of the texts of some rows, `lanes` in each.
fn blocks<B>(
    texts: &Letters,
    rows: &[u32],
    lanes: usize,
    block: impl Fn(&[(u32, &str)]) -> B,
    stop: &Stop,
) -> Result<Vec<B>, Stopped> {
    let text = |row: &u32| (*row, texts.text(*row as usize));
    let block =
        |rows: &[u32]| stop.check().map(|()| block(&rows.iter().map(text).collect::<Vec<_>>()));
    rows.chunks(lanes).map(block).collect()
}

/// Working memory of comparisons with a column.
#[derive(Debug, Default)]
pub struct ColumnScratch {
    letters: Vec<u8>,
    pattern: Pattern,
    pairs: Scratch,
}

impl ColumnScratch {
    /// Working memory of comparisons that end early once nobody wants them.
    pub fn new(stop: Stop) -> Self {
        Self { pairs: Scratch::new(stop), ..Self::default() }
    }
}

/// Reads a text that lanes can be compared with; false when it is empty or too long.
fn lane_text(text: &str, letters: &mut Vec<u8>) -> bool {
    letters.clear();
    let read = text.chars().take(LONGEST + 1);
    letters.extend(read.map(|letter| u8::try_from(letter).unwrap_or(u8::MAX)));
    fits_lane(letters)
}

fn fits_lane(letters: &[u8]) -> bool {
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
        let column = Column::new(texts.iter().map(String::as_str), &Stop::never()).unwrap();
        let (mut scratch, mut pairs) = (ColumnScratch::default(), Scratch::default());
        for text in texts.iter().step_by(7) {
            let pattern = Pattern::new(text);
            let mut seen = vec![0; texts.len()];
            let mut edit = |row: usize, distance: usize, expected: Option<usize>| {
                assert_eq!(Some(distance), expected, "{text:?} {:?}", texts[row]);
                seen[row] += 1;
                usize::MAX
            };
            let lanes = column.edit::<false>(text, &mut scratch, |row, distance| {
                edit(row, distance, pattern.levenshtein(&texts[row], usize::MAX, &mut pairs))
            });
            assert_eq!(lanes, Ok(()));
            let lanes = column.edit::<true>(text, &mut scratch, |row, distance| {
                edit(row, distance, pattern.osa(&texts[row], usize::MAX, &mut pairs))
            });
            assert_eq!(lanes, Ok(()));
            let lanes = column.jaro::<false>(text, &mut scratch, |row, similarity| {
                let expected = pattern.jaro(&texts[row], &mut pairs);
                assert_eq!(similarity.to_bits(), expected.to_bits(), "{text:?} {:?}", texts[row]);
                seen[row] += 1;
            });
            assert_eq!(lanes, Ok(()));
            let lanes = column.jaro::<true>(text, &mut scratch, |row, similarity| {
                let expected = pattern.jaro_winkler(&texts[row], &mut pairs);
                assert_eq!(similarity.to_bits(), expected.to_bits(), "{text:?} {:?}", texts[row]);
                seen[row] += 1;
            });
            assert_eq!(lanes, Ok(()));
            assert!(seen.iter().all(|times| *times == 4));
        }
    }

    #[test]
    fn distances_beyond_the_bound_may_be_left_out_and_no_other() {
        let texts = ["é", "ab", "x", "abcdé", "日本", ""];
        let column = Column::new(texts, &Stop::never()).unwrap();
        let mut given = Vec::new();
        let mut take = |row, distance| {
            given.push((row, distance));
            1
        };
        column.edit::<false>("abc", &mut ColumnScratch::default(), &mut take).unwrap();
        assert!(given.contains(&(1, 1)) && given.contains(&(2, 3)) && given.len() == 2);
    }

    #[test]
    fn a_comparison_ends_when_nobody_wants_it() {
        let (over, letters) = (|| Stop::when(|| true), "é".repeat(70_000));
        assert!(matches!(Column::new(["a"], &over()), Err(Stopped)));
        let column = Column::new(["a", letters.as_str()], &Stop::never()).unwrap();
        let mut scratch = ColumnScratch::new(over());
        assert_eq!(column.jaro::<true>("a", &mut scratch, |_, _| {}), Err(Stopped));
        // Two such texts take seconds without a look.
        assert_eq!(column.edit::<true>(&"ü".repeat(70_000), &mut scratch, |_, _| 0), Err(Stopped));
    }
}
