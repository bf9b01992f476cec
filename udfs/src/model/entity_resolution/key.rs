//! Keys of blocking rules: what two records must have in common to be compared.
//!
//! A [`Key`] is a part of a column as it is compared; an [`Expression`] is what the query has
//! computed of a record, whatever that is: equal values make equal keys, NULL makes none.

use rayon::prelude::*;

use super::column::Column;
use super::kind::Kind;
use crate::model::random::{Seeded, mixed};
use crate::privacy::bloom::{BIT_COUNT, Bits};

/// What of a value makes the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first letters.
    Prefix(u8),
    /// The last letters.
    Suffix(u8),
    /// The first half of the letters.
    FirstHalf,
    /// The other half.
    SecondHalf,
    /// How a name sounds.
    Soundex,
    /// Any of the rarest words, or of the rarest members of a list.
    Words,
    /// The year of a date.
    Year,
    /// Its year and month.
    YearMonth,
    /// Its month and day.
    MonthDay,
    /// An e-mail address before the @.
    LocalPart,
    /// Any of [`SAMPLES`] samples of so many set bits of an encoding.
    Bits(u8),
}

/// A part of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The column's position.
    pub column: usize,
    /// The part.
    pub part: Part,
}

/// A key that the query computes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expression {
    /// Its text, by which it is known.
    pub text: String,
    /// The compared columns that it is made of, a bit each.
    pub columns: u32,
}

/// What the query has computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Computed {
    /// Of what.
    pub expression: Expression,
    /// The key of each record: a hash, 0 for none.
    pub keys: Vec<u64>,
}

/// Rarest words that make keys.
pub const WORDS: usize = 3;
/// Samples of an encoding's bits that make keys.
pub const SAMPLES: usize = 24;
/// The share of the set bits of two encodings that they have in common after one slip in a name
/// (Jaccard): a Dice of .88.
const ALIKE: f64 = 0.78;

/// The function of a part in SQL's spelling, `None` for the whole value.
const FUNCTIONS: [(Part, &str); 8] = [
    (Part::FirstHalf, "first_half"),
    (Part::SecondHalf, "second_half"),
    (Part::Soundex, "soundex"),
    (Part::Words, "words"),
    (Part::Year, "year"),
    (Part::YearMonth, "year_month"),
    (Part::MonthDay, "month_day"),
    (Part::LocalPart, "local_part"),
];

impl Key {
    /// The key as a user writes it.
    pub fn text(&self, names: &[&str]) -> String {
        let name = names.get(self.column).copied().unwrap_or_default();
        match self.part {
            Part::Whole => name.to_owned(),
            Part::Prefix(letters) => format!("prefix({name}, {letters})"),
            Part::Suffix(letters) => format!("suffix({name}, {letters})"),
            Part::Bits(bits) => format!("bits({name}, {bits})"),
            part => {
                let function = FUNCTIONS.iter().find(|(known, _)| *known == part);
                format!("{}({name})", function.map_or("", |(_, function)| *function))
            }
        }
    }

    /// Reads a key: `column`, `soundex(column)`, `prefix(column, 4)`, ….
    pub fn parse(text: &str, names: &[&str]) -> Option<Self> {
        let text = text.trim();
        let find = |name: &str| {
            let name = name.trim();
            names.iter().position(|known| known.eq_ignore_ascii_case(name))
        };
        let Some((function, arguments)) = text.split_once('(') else {
            return Some(Self { column: find(text)?, part: Part::Whole });
        };
        let arguments = arguments.strip_suffix(')')?;
        let function = function.trim().to_lowercase();
        if let Some((part, _)) = FUNCTIONS.iter().find(|(_, name)| *name == function) {
            return Some(Self { column: find(arguments)?, part: *part });
        }
        let (name, letters) = arguments.split_once(',')?;
        let letters: u8 = letters.trim().parse().ok().filter(|letters| *letters > 0)?;
        let part = match function.as_str() {
            "prefix" => Part::Prefix(letters),
            "suffix" => Part::Suffix(letters),
            "bits" => Part::Bits(letters),
            _ => return None,
        };
        Some(Self { column: find(name)?, part })
    }

    /// Why a text that calls a part of a column by its name is no key, where that is so.
    pub fn unread(text: &str, names: &[&str]) -> Option<String> {
        const COUNTED: [&str; 3] = ["prefix", "suffix", "bits"];
        let (function, arguments) = text.trim().split_once('(')?;
        let function = function.trim().to_lowercase();
        let known = COUNTED.iter().find(|known| **known == function)?;
        let mut arguments = arguments.trim_end_matches(')').splitn(2, ',').map(str::trim);
        let name = arguments.next()?;
        if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return None;
        }
        let given = arguments.next().unwrap_or_default();
        let is_count = given.parse::<u8>().is_ok_and(|count| count > 0);
        (!is_count).then(|| {
            let things = if *known == "bits" { "bits" } else { "letters" };
            format!("{known}({name}, n) takes how many {things}, a whole number from 1 to 255")
        })
    }

    /// How many keys a value has at most.
    pub fn slots(&self) -> usize {
        match self.part {
            Part::Words => WORDS,
            Part::Bits(_) => SAMPLES,
            _ => 1,
        }
    }

    /// The keys of a column's distinct values, `slots` each: a hash, 0 for none.
    pub fn hashes(&self, column: &Column) -> Vec<u64> {
        let seed = mixed(self.column as u64 + 1);
        if self.part == Part::Words {
            return words(column, seed);
        }
        if let Part::Bits(bits) = self.part {
            return samples(column, usize::from(bits), seed);
        }
        let hash = |value: &str| match cut(value, self.part, column.kind) {
            Some(piece) if !piece.is_empty() => fingerprint(piece, seed),
            _ => 0,
        };
        if self.part == Part::Soundex {
            let encoder = rphonetic::Soundex::default();
            let code = |value: &str| soundex(&encoder, value).map_or(0, |c| fingerprint(&c, seed));
            return column.values.iter().map(code).collect();
        }
        column.values.iter().map(hash).collect()
    }
}

/// The keys that a column of a kind offers.
pub fn offered(kind: Kind) -> &'static [Part] {
    match kind {
        Kind::Exact | Kind::Number => &[Part::Whole],
        Kind::Bloom => &[Part::Whole, Part::Bits(6), Part::Bits(8), Part::Bits(12)],
        Kind::Name => &[Part::Whole, Part::Soundex, Part::Prefix(4), Part::Suffix(4)],
        Kind::Text | Kind::Array | Kind::Address => &[Part::Whole, Part::Words],
        Kind::Date => &[Part::Whole, Part::YearMonth, Part::MonthDay],
        Kind::Email => &[Part::Whole, Part::LocalPart],
        Kind::Phone | Kind::Code => &[Part::Whole, Part::FirstHalf, Part::SecondHalf],
    }
}

/// Whether a part can be cut of values of a kind.
pub fn fits(part: Part, kind: Kind) -> bool {
    match part {
        Part::Words => matches!(kind, Kind::Text | Kind::Array | Kind::Address),
        Part::Year | Part::YearMonth | Part::MonthDay => kind == Kind::Date,
        Part::LocalPart => kind == Kind::Email,
        Part::Bits(_) => kind == Kind::Bloom,
        _ => true,
    }
}

/// How likely two encodings of a name with one slip have a sample of so many bits in common.
pub fn sampled_share(bits: u8) -> f64 {
    1.0 - (1.0 - ALIKE.powi(i32::from(bits))).powi(SAMPLES as i32)
}

fn soundex(encoder: &rphonetic::Soundex, value: &str) -> Option<String> {
    let letters = crate::fuzzy::phonetic::letters(value);
    (!letters.is_empty()).then(|| rphonetic::Encoder::encode(encoder, &letters))
}

/// The rarest words of each value that another record has too. Which of two is taken that are as
/// rare, and what key it makes, is the same in every version.
fn words(column: &Column, seed: u64) -> Vec<u64> {
    let tokens = &column.tokens;
    let mut keys = vec![0; column.values.len() * WORDS];
    let mut shared = Vec::new();
    for (value, keys) in (0..).zip(keys.chunks_exact_mut(WORDS)) {
        shared.clear();
        shared.extend(tokens.of(value).iter().filter(|&&word| tokens.count(word) > 1));
        shared.sort_unstable_by(|&a, &b| {
            let by_count = tokens.count(a).cmp(&tokens.count(b));
            by_count.then_with(|| tokens.print(a).cmp(&tokens.print(b)))
        });
        for (key, &word) in keys.iter_mut().zip(&shared) {
            *key = mixed(seed ^ tokens.print(word)).max(1);
        }
    }
    keys
}

/// Samples of the set bits of each encoding: of each, the bits that come first in as many random
/// orders. Two encodings have such a bit in common as likely as any that one of them has set, so
/// that what is alike has some sample in common and what is not hardly any (Broder 1997, Indyk and
/// Motwani 1998).
fn samples(column: &Column, count: usize, seed: u64) -> Vec<u64> {
    let mut random = Seeded::new(mixed(seed ^ mixed(count as u64)));
    let mut order = || -> Vec<u16> {
        let mut order: Vec<u16> = (0..BIT_COUNT as u16).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.below(at as u64 + 1) as usize);
        }
        order
    };
    let count = count.max(1);
    let orders: Vec<Vec<u16>> = (0..SAMPLES * count).map(|_| order()).collect();
    let mut keys = vec![0_u64; column.values.len() * SAMPLES];
    let each = keys.par_chunks_exact_mut(SAMPLES).zip(column.bits.par_iter());
    each.for_each(|(keys, bits)| {
        for (slot, (key, orders)) in (1_u64..).zip(keys.iter_mut().zip(orders.chunks_exact(count)))
        {
            let hash = orders.iter().try_fold(mixed(seed ^ mixed(slot)), |hash, order| {
                let first = order.iter().find(|bit| is_set(bits, **bit))?;
                Some(mixed(hash ^ (u64::from(*first) + 1)))
            });
            // An encoding without any bit has no sample.
            *key = hash.map_or(0, |hash| hash.max(1));
        }
    });
    keys
}

fn is_set(bits: &Bits, bit: u16) -> bool {
    bits[usize::from(bit / 64)] >> (bit % 64) & 1 == 1
}

/// The piece of a value that makes the key; `None` where the value is too short to have one.
fn cut(value: &str, part: Part, kind: Kind) -> Option<&str> {
    let letters = value.chars().count();
    let at = |letter: usize| value.char_indices().nth(letter).map_or(value.len(), |(at, _)| at);
    let is_date = kind != Kind::Date || (value.len() == 8 && value.is_ascii());
    match part {
        Part::Prefix(count) => {
            (letters >= usize::from(count)).then(|| &value[..at(usize::from(count))])
        }
        Part::Suffix(count) => {
            let count = usize::from(count);
            (letters >= count).then(|| &value[at(letters - count)..])
        }
        Part::FirstHalf => (letters >= 4).then(|| &value[..at(letters.div_ceil(2))]),
        Part::SecondHalf => (letters >= 4).then(|| &value[at(letters / 2)..]),
        Part::Year => is_date.then(|| value.get(..4))?,
        Part::YearMonth => is_date.then(|| value.get(..6))?,
        Part::MonthDay => is_date.then(|| value.get(4..))?,
        Part::LocalPart => value.split_once('@').map(|(local, _)| local),
        Part::Whole | Part::Soundex | Part::Words | Part::Bits(_) => Some(value),
    }
}

/// A hash of a text that is the same in every run; never 0.
pub fn fingerprint(text: &str, seed: u64) -> u64 {
    fingerprint_of(text.as_bytes(), seed)
}

/// The same of bytes.
pub fn fingerprint_of(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = seed ^ bytes.len() as u64;
    for piece in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..piece.len()].copy_from_slice(piece);
        hash = mixed(hash ^ u64::from_le_bytes(word)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    }
    mixed(hash).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::blocking::{Blocks, rules_of};
    use super::super::column::Gatherer;
    use super::super::kind::Declared;
    use super::super::records::Records;
    use super::super::suggest::suggest;
    use super::super::tests::encodings;
    use super::*;

    const NAMES: &[&str] = &["c"];

    fn records(texts: &[String], sides: Vec<u32>) -> Records {
        let mut gatherer = Gatherer::default();
        texts.iter().for_each(|text| gatherer.push(Some(text)));
        let order: Vec<u32> = (0..texts.len() as u32).collect();
        let column = gatherer.finish("c", Declared::Text, None, &order, &sides);
        assert_eq!(column.kind, Kind::Bloom);
        Records::new(vec![column], sides, texts.len())
    }

    #[test]
    fn samples_of_bits_find_encodings_with_a_slip_in_bounded_blocks() {
        const COUNT: usize = 1_000;
        const BLOCK_MAX: usize = 150;
        // Of each person two encodings, one a table; none equals the other.
        let (left, right): (Vec<String>, Vec<String>) = encodings(COUNT, 3).into_iter().unzip();
        let sides = (0..2 * COUNT).map(|at| u32::from(at >= COUNT)).collect();
        let records = records(&[left, right].concat(), sides);
        let columns = &records.columns;
        let rules = suggest(columns, &records.sides, 500_000, BLOCK_MAX, 0);
        assert!(!rules.is_empty());
        let blocks: Vec<Blocks> =
            rules.iter().map(|rule| Blocks::new(rule, &records, BLOCK_MAX)).collect();
        let pairs: u64 = blocks.iter().map(|blocks| blocks.cost.pairs).sum();
        assert!(pairs <= 500_000, "{pairs}");
        let found = (0..COUNT as u32).filter(|&at| rules_of(&blocks, at, at + COUNT as u32) != 0);
        let found = found.count();
        assert!(found * 100 >= 95 * COUNT, "{found}");
    }

    #[test]
    fn samples_of_bits_are_keys_of_encodings_alone() {
        let key = Key::parse("bits(c, 8)", NAMES).unwrap();
        assert_eq!(key, Key { column: 0, part: Part::Bits(8) });
        assert_eq!((key.text(NAMES), key.slots()), ("bits(c, 8)".to_owned(), SAMPLES));
        assert_eq!(Key::parse("bits(c, 0)", NAMES), None);
        for text in ["bits(c, 0)", "prefix(c, 256)", "suffix(c)", "Prefix(C, 'a')"] {
            let why = Key::unread(text, NAMES);
            assert!(why.is_some_and(|why| why.contains("from 1 to 255")), "{text}");
        }
        for text in ["bits(c, 8)", "soundex(c)", "prefix(d, 0)", "lower(c)"] {
            assert_eq!(Key::unread(text, NAMES), None, "{text}");
        }
        assert!(fits(key.part, Kind::Bloom) && !fits(key.part, Kind::Name));
        assert!(sampled_share(6) > 0.95 && sampled_share(12) < sampled_share(8));
        // An encoding without any bit has no key; every other has all.
        let empty = format!("ab-1.{}", "0".repeat(128));
        let one = format!("ab-1.{}1", "0".repeat(127));
        let hashes = key.hashes(&records(&[empty, one], vec![]).columns[0]);
        assert!(hashes[..SAMPLES].iter().all(|key| *key == 0));
        assert!(hashes[SAMPLES..].iter().all(|key| *key != 0));
    }
}
