//! The cipher against RFC 5297's own examples, and what is written around it.

use aes_siv::siv::Aes128Siv;

use super::*;

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digit = |place: usize| u8::from_str_radix(&hexadecimal[place..place + 2], 16).unwrap();
    (0..hexadecimal.len()).step_by(2).map(digit).collect()
}

fn key(hexadecimal: &str) -> [u8; 32] {
    bytes(hexadecimal).try_into().unwrap()
}

#[test]
fn the_cipher_is_that_of_rfc_5297() {
    // A.1: deterministic.
    let secret = key("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
    let header = [bytes("101112131415161718191a1b1c1d1e1f2021222324252627")];
    let value = bytes("112233445566778899aabbccddee");
    let sealed = bytes("85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c");
    let mut cipher = Aes128Siv::new(&secret.into());
    assert_eq!(cipher.encrypt(&header, &value).unwrap(), sealed);
    assert_eq!(cipher.decrypt(&header, &sealed).unwrap(), value);
    // A.2: under a nonce, which is the last header.
    let secret = key("7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f");
    let headers = [
        "00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
        "102030405060708090a0",
        "09f911029d74e35bd84156c5635688c0",
    ]
    .map(bytes);
    let value = b"this is some plaintext to encrypt using SIV-AES";
    let sealed = bytes(
        "7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17\
         dba77ceb094fa663b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d",
    );
    let mut cipher = Aes128Siv::new(&secret.into());
    assert_eq!(cipher.encrypt(&headers, value).unwrap(), sealed);
    assert_eq!(cipher.decrypt(&headers, &sealed).unwrap(), value);
}

fn demo() -> KeyRing {
    std::sync::Arc::new(Key::new("demo", &[b'a'; 32]).unwrap()).into()
}

fn sealed(mode: Mode, form: Form) -> Vec<u8> {
    let mut sealed = Vec::new();
    let nonce = [7; NONCE_BYTES];
    Sealer::new(demo().newest(), mode, form).seal(b"ada", &nonce, &mut sealed).unwrap();
    sealed
}

fn opens(value: &[u8], form: Form) -> bool {
    let modes = [Mode::Randomized, Mode::Deterministic, Mode::DataKey];
    Opener::new("decrypt", &demo(), &modes, form).open(value).is_ok()
}

#[test]
fn a_changed_bit_or_a_borrowed_header_opens_nothing() {
    let whole = sealed(Mode::Randomized, Form::Binary);
    assert!(opens(&whole, Form::Binary));
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        assert!(!opens(&changed, Form::Binary), "{place}");
        assert!(!opens(&whole[..place], Form::Binary), "{place}");
    }
    let header = whole.len() - NONCE_BYTES - 16 - 3;
    for letter in *b"dk" {
        let mut borrowed = whole.clone();
        borrowed[header - 2] = letter;
        assert!(!opens(&borrowed, Form::Binary));
    }
}

#[test]
fn bytes_are_no_text() {
    for mode in [Mode::Randomized, Mode::Deterministic, Mode::DataKey] {
        let binary = sealed(mode, Form::Binary);
        let start = header_of(&binary).unwrap().len();
        let mut text = binary[..start].to_vec();
        text.extend_from_slice(URL_SAFE_NO_PAD.encode(&binary[start..]).as_bytes());
        assert!(opens(&binary, Form::Binary) && !opens(&text, Form::Text));
        assert!(opens(&sealed(mode, Form::Text), Form::Text));
    }
}
