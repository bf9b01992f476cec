//! Format-preserving encryption: FF1 of NIST SP 800-38G with AES-256, for text.
//!
//! The characters of an alphabet are encrypted among themselves and keep their number; everything
//! else (`-`, space, `@`) stays where it is. Without a named alphabet it is `digits`, and a letter
//! in the text is an error rather than left readable. A domain below one million values, which
//! somebody could list, is refused as the standard's revision 1 demands.
//!
//! The tweak is public and varies the permutation: the same text under the same tweak is the same
//! ciphertext. There is no integrity check: with a wrong key or tweak decryption gives other
//! text of the same form, not an error. Errors name lengths, never the text.

use std::sync::Arc;

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, Signature};
use datafusion_expr::{TypeSignature, Volatility};
use fpe::ff1::{FF1, FlexibleNumeralString};

use super::arguments;
use super::key::{self, KeySet};
use crate::text::Text;

/// The least number of texts that a format must allow.
const DOMAIN_MIN: u64 = 1_000_000;

/// The longest text, in characters of the alphabet: the arithmetic is quadratic in it.
const CHARACTERS_MAX: usize = 1_024;

/// The longest tweak, in bytes.
const TWEAK_BYTES_MAX: usize = 1_024;

/// A set of characters that are encrypted among themselves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Alphabet {
    name: &'static str,
    characters: &'static [u8],
}

const DIGITS: Alphabet = Alphabet { name: "digits", characters: b"0123456789" };

const ALPHABETS: [Alphabet; 6] = [
    DIGITS,
    Alphabet { name: "hexadecimal", characters: b"0123456789abcdef" },
    Alphabet { name: "lowercase", characters: b"abcdefghijklmnopqrstuvwxyz" },
    Alphabet { name: "uppercase", characters: b"ABCDEFGHIJKLMNOPQRSTUVWXYZ" },
    Alphabet { name: "base36", characters: b"0123456789abcdefghijklmnopqrstuvwxyz" },
    Alphabet {
        name: "alphanumeric",
        characters: b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    },
];

impl Alphabet {
    fn by_name(function: &str, name: &str) -> Result<&'static Self> {
        match ALPHABETS.iter().find(|alphabet| alphabet.name == name) {
            Some(alphabet) => Ok(alphabet),
            None => exec_err!(
                "{function}: unknown alphabet '{name}'. Hint: use one of {}",
                ALPHABETS.map(|alphabet| format!("'{}'", alphabet.name)).join(", ")
            ),
        }
    }

    fn radix(&self) -> u32 {
        u32::try_from(self.characters.len()).unwrap_or(u32::MAX)
    }

    fn numeral(&self, character: char) -> Option<u16> {
        let byte = u8::try_from(character).ok()?;
        let position = self.characters.iter().position(|&other| other == byte)?;
        u16::try_from(position).ok()
    }

    /// How many characters a text needs for a domain of at least [`DOMAIN_MIN`].
    fn characters_min(&self) -> usize {
        let radix = u64::from(self.radix());
        let mut domain = radix;
        let mut count = 1;
        while domain < DOMAIN_MIN {
            domain = domain.saturating_mul(radix);
            count += 1;
        }
        count
    }
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// Text to ciphertext.
    Encrypt,
    /// Ciphertext to text.
    Decrypt,
}

/// FF1 under one key over one alphabet.
pub(super) struct Cipher<C> {
    function: &'static str,
    direction: Direction,
    ff1: FF1<C>,
    alphabet: &'static Alphabet,
    /// Whether letters and digits outside the alphabet are an error.
    strict: bool,
}

impl<C: BlockCipherEncrypt + KeyInit + Clone> Cipher<C> {
    fn new(
        function: &'static str,
        direction: Direction,
        key: &[u8],
        alphabet: Option<&str>,
    ) -> Result<Self> {
        let strict = alphabet.is_none();
        let alphabet = match alphabet {
            Some(name) => Alphabet::by_name(function, name)?,
            None => &DIGITS,
        };
        match FF1::<C>::new(key, alphabet.radix()) {
            Ok(ff1) => Ok(Self { function, direction, ff1, alphabet, strict }),
            Err(_) => exec_err!("{function} cannot use an alphabet of {}", alphabet.radix()),
        }
    }

    /// Appends the transformed text to `out`. The empty text stays empty.
    fn transform(&self, tweak: &[u8], text: &str, out: &mut String) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let numerals = self.numerals(text)?;
        let function = self.function;
        if tweak.len() > TWEAK_BYTES_MAX {
            return exec_err!(
                "{function}: the tweak has {} bytes, at most {TWEAK_BYTES_MAX} are allowed",
                tweak.len()
            );
        }
        let numerals = FlexibleNumeralString::from(numerals);
        let answer = match self.direction {
            Direction::Encrypt => self.ff1.encrypt(tweak, &numerals),
            Direction::Decrypt => self.ff1.decrypt(tweak, &numerals),
        };
        let Ok(answer) = answer else {
            return exec_err!("{function} cannot encrypt a text of this length");
        };
        let mut answer = Vec::<u16>::from(answer).into_iter();
        for character in text.chars() {
            if self.alphabet.numeral(character).is_none() {
                out.push(character);
                continue;
            }
            let position = answer.next().map_or(0, usize::from);
            let byte = self.alphabet.characters.get(position).copied().unwrap_or(b'0');
            out.push(char::from(byte));
        }
        Ok(())
    }

    fn numerals(&self, text: &str) -> Result<Vec<u16>> {
        let (function, alphabet) = (self.function, self.alphabet);
        let mut numerals = Vec::with_capacity(text.len().min(CHARACTERS_MAX));
        for character in text.chars() {
            match alphabet.numeral(character) {
                Some(numeral) if numerals.len() < CHARACTERS_MAX => numerals.push(numeral),
                Some(_) => {
                    return exec_err!(
                        "{function}: the text has more than {CHARACTERS_MAX} characters of \
                         alphabet '{}'. Hint: encrypt longer text with encrypt_deterministic",
                        alphabet.name
                    );
                }
                None if self.strict && character.is_alphanumeric() => {
                    return exec_err!(
                        "{function}: without an alphabet only digits are encrypted, and the text \
                         has a letter that would stay readable. Hint: name an alphabet, as in \
                         {function}(text, 'key', 'alphanumeric')"
                    );
                }
                None => {}
            }
        }
        let least = alphabet.characters_min();
        if numerals.len() < least {
            return exec_err!(
                "{function}: the text has {} characters of alphabet '{}', and {} such \
                 characters allow fewer than one million values, which could be listed. Hint: at \
                 least {least} are needed",
                numerals.len(),
                alphabet.name,
                numerals.len()
            );
        }
        Ok(numerals)
    }
}

/// The signature of both functions: text, key, and optionally alphabet and tweak.
pub(super) fn signature() -> Signature {
    let text = |count: usize| TypeSignature::Coercible(vec![arguments::text_coercion(); count]);
    Signature::one_of(vec![text(2), text(3), text(4)], Volatility::Immutable)
}

/// Checks the literals while planning.
///
/// # Errors
/// When the key or the alphabet is no literal or unknown.
pub(super) fn return_field(
    function: &'static str,
    keys: Option<&Arc<KeySet>>,
    args: &ReturnFieldArgs,
) -> Result<FieldRef> {
    key::planned(function, keys, args)?;
    if args.arg_fields.len() > 2 {
        let alphabet = arguments::literal_text(function, args, 2, "alphabet")?;
        Alphabet::by_name(function, alphabet)?;
    }
    Ok(Arc::new(Field::new(function, DataType::Utf8, true)))
}

/// Encrypts or decrypts a batch.
///
/// # Errors
/// When a text's domain is too small, or it holds letters and no alphabet was named.
pub(super) fn invoke(
    function: &'static str,
    keys: Option<&Arc<KeySet>>,
    direction: Direction,
    args: &ScalarFunctionArgs,
) -> Result<ColumnarValue> {
    let texts = arguments::text_argument(function, args, 0)?;
    let key = key::called(function, keys, args)?.cipher_key();
    let optional = |position: usize| -> Result<Option<Text>> {
        let given = args.args.len() > position;
        given.then(|| arguments::text_argument(function, args, position)).transpose()
    };
    let alphabet = optional(2)?;
    let alphabet = match &alphabet {
        Some(alphabet) => Some(arguments::constant_text(function, alphabet, "alphabet")?),
        None => None,
    };
    let tweaks = optional(3)?.unwrap_or_else(|| Text::Constant(Some(Arc::from(""))));
    let cipher = Cipher::<Aes256>::new(function, direction, key, alphabet)?;
    let constant = texts.is_constant() && tweaks.is_constant();
    arguments::text_rows(args.number_rows, constant, |row, out| {
        let (Some(text), Some(tweak)) = (texts.get(row), tweaks.get(row)) else {
            return Ok(false);
        };
        cipher.transform(tweak.as_bytes(), text, out)?;
        Ok(true)
    })
}

#[cfg(test)]
mod tests {
    use aes::{Aes128, Aes192};
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [
        0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f,
        0x3c, 0xef, 0x43, 0x59, 0xd8, 0xd5, 0x80, 0xaa, 0x4f, 0x7f, 0x03, 0x6d, 0x6f, 0x04, 0xfc,
        0x6a, 0x94,
    ];

    fn run<C: BlockCipherEncrypt + KeyInit + Clone>(
        direction: Direction,
        key: &[u8],
        alphabet: Option<&str>,
        tweak: &str,
        text: &str,
    ) -> Result<String> {
        let mut out = String::new();
        Cipher::<C>::new("fpe", direction, key, alphabet)?.transform(
            tweak.as_bytes(),
            text,
            &mut out,
        )?;
        Ok(out)
    }

    fn sample<C: BlockCipherEncrypt + KeyInit + Clone>(
        key_bytes: usize,
        alphabet: &str,
        tweak: &str,
        plain: &str,
        cipher: &str,
    ) {
        let key = &KEY[..key_bytes];
        let encrypted = run::<C>(Direction::Encrypt, key, Some(alphabet), tweak, plain).unwrap();
        assert_eq!(encrypted, cipher);
        let decrypted = run::<C>(Direction::Decrypt, key, Some(alphabet), tweak, cipher).unwrap();
        assert_eq!(decrypted, plain);
    }

    #[test]
    fn the_nine_samples_of_nist() {
        let (digits, long) = ("0123456789", "0123456789abcdefghi");
        sample::<Aes128>(16, "digits", "", digits, "2433477484");
        sample::<Aes128>(16, "digits", "9876543210", digits, "6124200773");
        sample::<Aes128>(16, "base36", "7777pqrs777", long, "a9tv40mll9kdu509eum");
        sample::<Aes192>(24, "digits", "", digits, "2830668132");
        sample::<Aes192>(24, "digits", "9876543210", digits, "2496655549");
        sample::<Aes192>(24, "base36", "7777pqrs777", long, "xbj3kv35jrawxv32ysr");
        sample::<Aes256>(32, "digits", "", digits, "6657667009");
        sample::<Aes256>(32, "digits", "9876543210", digits, "1001623463");
        sample::<Aes256>(32, "base36", "7777pqrs777", long, "xs8a0azh2avyalyzuwd");
    }

    #[test]
    fn punctuation_stays_and_does_not_count() {
        let encrypt = |text| run::<Aes256>(Direction::Encrypt, &KEY, None, "", text).unwrap();
        assert_eq!(encrypt("01 234-56789"), "66 576-67009");
        assert_eq!(encrypt(""), "");
    }

    #[test]
    fn small_domains_and_readable_letters_are_refused_without_showing_the_text() {
        let error = |alphabet, text| {
            let error = run::<Aes256>(Direction::Encrypt, &KEY, alphabet, "", text).unwrap_err();
            let error = error.to_string();
            assert!(!error.contains(text), "{error}");
            error
        };
        assert!(error(None, "12345").contains("at least 6"));
        assert!(error(Some("alphanumeric"), "a1!").contains("at least 4"));
        assert!(error(Some("hexadecimal"), "0123").contains("at least 5"));
        assert!(error(None, "---").contains("0 characters"));
        assert!(error(None, "1234567x").contains("name an alphabet"));
        assert!(error(None, "1234567é").contains("name an alphabet"));
        assert!(error(Some("roman"), "MCMXIV").contains("unknown alphabet"));
        assert!(error(None, &"1".repeat(CHARACTERS_MAX + 1)).contains("more than 1024"));
    }

    #[test]
    fn the_greatest_numerals_of_every_length_are_encrypted() {
        // The cipher computes byte lengths in floating point: no length may fall short.
        for alphabet in &ALPHABETS {
            let last = char::from(*alphabet.characters.last().unwrap());
            let lengths = (alphabet.characters_min()..64).chain([255, 512, CHARACTERS_MAX]);
            for length in lengths {
                let text = last.to_string().repeat(length);
                let name = Some(alphabet.name);
                let cipher = run::<Aes256>(Direction::Encrypt, &KEY, name, "", &text).unwrap();
                let plain = run::<Aes256>(Direction::Decrypt, &KEY, name, "", &cipher).unwrap();
                assert_eq!(plain, text);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn decryption_undoes_encryption_and_keeps_the_form(
            text in "[0-9A-Za-z é@-]{0,20}[0-9]{4}", tweak in "[a-z]{0,9}",
        ) {
            let name = Some("alphanumeric");
            let cipher = run::<Aes256>(Direction::Encrypt, &KEY, name, &tweak, &text).unwrap();
            let plain = run::<Aes256>(Direction::Decrypt, &KEY, name, &tweak, &cipher).unwrap();
            prop_assert_eq!(&plain, &text);
            prop_assert_eq!(cipher.chars().count(), text.chars().count());
            for (left, right) in text.chars().zip(cipher.chars()) {
                prop_assert!(left == right || left.is_ascii_alphanumeric());
                prop_assert_eq!(left.is_ascii_alphanumeric(), right.is_ascii_alphanumeric());
            }
        }
    }
}
