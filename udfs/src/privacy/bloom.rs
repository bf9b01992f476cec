//! Encodings of texts that can be compared without being read: keyed Bloom filters of bigrams.
//!
//! A text, in one spelling as `normalize_name` gives it, is cut into its pairs of neighbouring
//! letters, with a blank before and behind; each pair sets twelve of 512 bits, at places
//! `h₁ + i·h₂` taken from its HMAC (Schnell, Bachteler and Reiher 2009). Texts that share most
//! pairs share most bits. An encoding is shown as `<key id>.<128 hexadecimal digits>`.

use std::fmt::Write;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::identity::normalize_name::folded;

/// The bits of an encoding, in words of 64.
pub(crate) type Bits = [u64; 8];

/// Places that a pair of letters sets.
const PLACES: u64 = 12;
/// Bits of an encoding.
pub(crate) const BIT_COUNT: u64 = 512;
/// Hexadecimal digits of a word.
const DIGITS: usize = 16;

/// The bits of a text; none for a text without letters and digits.
pub(crate) fn encoded(text: &str, mac: &Hmac<Sha256>) -> Option<Bits> {
    let text = folded(text);
    if text.is_empty() {
        return None;
    }
    let mut bits = [0; 8];
    let mut before = ' ';
    for letter in text.chars().chain([' ']) {
        let mut mac = mac.clone();
        let mut pair = [0; 8];
        pair[..4].copy_from_slice(&u32::from(before).to_be_bytes());
        pair[4..].copy_from_slice(&u32::from(letter).to_be_bytes());
        mac.update(&pair);
        let digest = mac.finalize().into_bytes();
        let word = |from: usize| {
            digest[from..from + 8].iter().fold(0, |word, &byte| word << 8 | u64::from(byte))
        };
        let (first, step) = (word(0), word(8) | 1);
        for place in 0..PLACES {
            let at = first.wrapping_add(place.wrapping_mul(step)) % BIT_COUNT;
            bits[(at / 64) as usize] |= 1 << (at % 64);
        }
        before = letter;
    }
    Some(bits)
}

/// Appends an encoding as it is shown.
pub(crate) fn show(key_id: &str, bits: &Bits, text: &mut String) -> std::fmt::Result {
    text.push_str(key_id);
    text.push('.');
    bits.iter().try_for_each(|word| write!(text, "{word:016x}"))
}

/// Reads an encoding: the id of its key, and its bits.
pub(crate) fn parse(text: &str) -> Option<(&str, Bits)> {
    let (key, digits) = text.split_once('.')?;
    if key.is_empty() || digits.len() != 8 * DIGITS || !digits.is_ascii() {
        return None;
    }
    let mut bits = [0; 8];
    for (word, digits) in bits.iter_mut().zip(digits.as_bytes().chunks_exact(DIGITS)) {
        *word = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some((key, bits))
}

/// Twice the bits that two encodings share over all bits that they have, 0 to 1.
pub(crate) fn dice(left: &Bits, right: &Bits) -> f64 {
    let shared: u32 = left.iter().zip(right).map(|(x, y)| (x & y).count_ones()).sum();
    let all: u32 = left.iter().chain(right).map(|word| word.count_ones()).sum();
    if all == 0 { 1.0 } else { 2.0 * f64::from(shared) / f64::from(all) }
}
