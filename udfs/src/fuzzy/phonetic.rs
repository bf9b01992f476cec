//! What the phonetic codes share: their input.
//!
//! The codes are defined for the letters A to Z. Accents are taken off (é is e, ø is o, ß is ss),
//! other letters and signs are dropped, and of a longer text only the first [`LETTERS_MAX`] letters
//! are read: a name does not have more.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Letters of a text that count.
pub(crate) const LETTERS_MAX: usize = 255;

/// The letters A to Z of a text, upper case, without accents.
pub(crate) fn letters(text: &str) -> String {
    let mut letters = String::new();
    for letter in text.nfd().filter(|letter| !is_combining_mark(*letter)) {
        if letters.len() >= LETTERS_MAX {
            break;
        }
        match unaccented(letter) {
            Some(plain) => letters.push_str(plain),
            None if letter.is_ascii_alphabetic() => letters.push(letter.to_ascii_uppercase()),
            None => {}
        }
    }
    letters.truncate(LETTERS_MAX);
    letters
}

/// Letters that no decomposition turns into A to Z.
pub(crate) fn unaccented(letter: char) -> Option<&'static str> {
    Some(match letter {
        'ß' | 'ẞ' => "SS",
        'æ' | 'Æ' => "AE",
        'œ' | 'Œ' => "OE",
        'ø' | 'Ø' => "O",
        'đ' | 'Đ' | 'ð' | 'Ð' => "D",
        'ł' | 'Ł' => "L",
        'þ' | 'Þ' => "TH",
        'ı' => "I",
        'ħ' | 'Ħ' => "H",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accents_go_and_signs_are_dropped() {
        assert_eq!(letters("Müller-Strauß"), "MULLERSTRAUSS");
        assert_eq!(letters("Søren O'Łódź 3"), "SORENOLODZ");
        assert_eq!(letters("日本"), "");
        assert_eq!(letters(&"ß".repeat(300)).len(), LETTERS_MAX);
    }
}
