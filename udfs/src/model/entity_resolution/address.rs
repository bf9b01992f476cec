//! The parts of an address in one spelling: house number, unit, postcode, and the words of street
//! and town.
//!
//! Parts are told by their form, as no list of towns and streets is at hand. A postcode is a number
//! of four to six digits that is not the house number, or British or Canadian in two pieces. A
//! unit follows "apartment", "flat" and the like, or is a second number. What is left are words.

use std::ops::Range;

use super::key::fingerprint;

/// The parts of an address as fingerprints, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Address {
    number: u64,
    unit: u64,
    postcode: u64,
}

/// What stands before a unit.
const UNITS: [&str; 6] = ["apartment", "flat", "floor", "room", "suite", "unit"];

impl Address {
    /// The parts of an address as [`crate::identity::normalize_address`] spells it, and its words.
    pub fn read(text: &str) -> (Self, Vec<&str>) {
        let mut pieces: Vec<&str> = text.split_whitespace().collect();
        let hash = |text: &str| fingerprint(text, 3);
        let mut address = Self::default();
        if let Some(range) = postcode(&pieces) {
            let first = range.start;
            let code: String = pieces.drain(range).collect();
            address.postcode = hash(&code);
            // The four digits that the United States add.
            if code.len() == 5 && pieces.get(first).is_some_and(|more| is_digits(more, 4..=4)) {
                pieces.remove(first);
            }
        }
        let unit = pieces.windows(2).position(|pair| UNITS.contains(&pair[0]) && is_unit(pair[1]));
        if let Some(at) = unit {
            address.unit = hash(pieces[at + 1]);
            pieces.drain(at..at + 2);
        }
        let is_number = |piece: &&str| is_house(piece);
        let numbers: Vec<usize> =
            (0..pieces.len()).filter(|&at| is_number(&pieces[at])).take(2).collect();
        // "4/12 Main Street" is unit 4 of number 12, "12 Main Street 4" is so too.
        let (number, other) = match numbers[..] {
            [0, 1] if address.unit == 0 => (Some(1), Some(0)),
            [number, other] if address.unit == 0 => (Some(number), Some(other)),
            [number, ..] => (Some(number), None),
            [] => (None, None),
        };
        address.number = number.map_or(0, |at| hash(pieces[at]));
        if let Some(at) = other {
            address.unit = hash(pieces[at]);
        }
        let mut at = 0;
        pieces.retain(|_| {
            at += 1;
            number != Some(at - 1) && other != Some(at - 1)
        });
        (address, pieces)
    }

    /// The level of two addresses whose words are so alike.
    pub fn level(self, other: Self, alike: f64) -> u64 {
        let differ = |a: u64, b: u64| a != 0 && b != 0 && a != b;
        let same = |a: u64, b: u64| a != 0 && a == b;
        let is_apart = differ(self.unit, other.unit) || differ(self.postcode, other.postcode);
        let is_near = alike >= 0.5 || (alike >= 0.3 && same(self.postcode, other.postcode));
        match () {
            () if same(self.number, other.number) && alike >= 0.8 && !is_apart => 4,
            () if same(self.number, other.number) && is_near => 3,
            () if alike >= 0.8 => 2,
            () => 1,
        }
    }
}

/// Whether a text looks like an address: a number, and a word.
pub fn is_address(value: &str) -> bool {
    let mut pieces = value.split(|letter: char| letter.is_whitespace() || letter == ',');
    let is_word = |piece: &str| piece.chars().filter(|letter| letter.is_alphabetic()).count() > 2;
    let is_number = |piece: &str| piece.starts_with(|letter: char| letter.is_ascii_digit());
    pieces.clone().any(is_word) && pieces.any(is_number)
}

fn is_digits(piece: &str, digits: std::ops::RangeInclusive<usize>) -> bool {
    digits.contains(&piece.len()) && piece.bytes().all(|byte| byte.is_ascii_digit())
}

/// "12", "12a"; not "5th".
fn is_house(piece: &str) -> bool {
    let rest = piece.trim_start_matches(|letter: char| letter.is_ascii_digit());
    rest.len() < piece.len() && !["st", "nd", "rd", "th"].contains(&rest)
}

fn is_unit(piece: &str) -> bool {
    piece.chars().count() == 1 || piece.bytes().any(|byte| byte.is_ascii_digit())
}

/// Where the postcode stands.
fn postcode(pieces: &[&str]) -> Option<Range<usize>> {
    let in_two = |pair: &[&str]| {
        let is_outward = (2..=4).contains(&pair[0].len())
            && pair[0].starts_with(|letter: char| letter.is_ascii_lowercase())
            && pair[0].bytes().any(|byte| byte.is_ascii_digit());
        let inward = pair[1];
        is_outward && inward.len() == 3 && is_house(pair[1]) && !is_digits(pair[1], 3..=3)
    };
    if let Some(at) = pieces.windows(2).rposition(in_two) {
        return Some(at..at + 2);
    }
    let houses = pieces.iter().filter(|piece| is_house(piece)).count();
    let codes: Vec<usize> = (0..pieces.len()).filter(|&at| is_digits(pieces[at], 4..=6)).collect();
    let at = match codes[..] {
        // Of a code with four more digits it is the first.
        [.., code, more] if code > 0 && more == code + 1 && pieces[code].len() == 5 => code,
        [.., last] => last,
        [] => return None,
    };
    // A number that stands first, or alone with four digits, is that of a house.
    let is_code = houses > 1 && (at > 0 || pieces[at].len() > 4);
    (is_code || (at > 0 && pieces[at].len() > 4)).then_some(at..at + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Address, Vec<&str>) {
        Address::read(text)
    }

    #[test]
    fn parts_are_told_by_their_form() {
        let hash = |text: &str| if text.is_empty() { 0 } else { fingerprint(text, 3) };
        for (text, number, unit, postcode, words) in [
            ("12 main street apartment 4b", "12", "4b", "", "main street"),
            ("12 main street 4b", "12", "4b", "", "main street"),
            (
                "4 12 main street springfield 62704 1234",
                "12",
                "4",
                "62704",
                "main street springfield",
            ),
            ("hauptstrasse 5a 10115 berlin", "5a", "", "10115", "hauptstrasse berlin"),
            ("10115 berlin hauptstrasse 5", "5", "", "10115", "berlin hauptstrasse"),
            ("10 downing street london sw1a 2aa", "10", "", "sw1a2aa", "downing street london"),
            ("12345 ranch road", "12345", "", "", "ranch road"),
            ("5th avenue 350", "350", "", "", "5th avenue"),
            ("main street", "", "", "", "main street"),
            ("", "", "", "", ""),
        ] {
            let parts =
                Address { number: hash(number), unit: hash(unit), postcode: hash(postcode) };
            assert_eq!(read(text), (parts, words.split_whitespace().collect()), "{text}");
        }
    }

    #[test]
    fn a_house_is_one_of_its_street() {
        let level = |a: &str, b: &str, alike| read(a).0.level(read(b).0, alike);
        assert_eq!(level("12 main street", "12 main street 10115", 1.0), 4);
        assert_eq!(level("12 main street 4", "12 main street 5", 1.0), 3);
        assert_eq!(level("12 main street", "14 main street", 1.0), 2);
        assert_eq!(level("12 main street", "12 oak lane", 0.1), 1);
    }

    proptest! {
        #[test]
        fn any_text_has_parts(text in "([a-z0-9é]{0,6} ){0,8}") {
            let (_, words) = read(&text);
            prop_assert!(words.len() <= text.split_whitespace().count());
        }
    }
}
