//! Finds what `redact` replaces, in two passes of constant work a byte.
//!
//! The first pass finds what carries its own proof: addresses with an `@`, sums that hold, IP
//! addresses that parse. The second looks for phone numbers in what is left. Each look ahead
//! is bounded (at most 34 characters of an account, 19 digits of a card, 15 of a phone number), and
//! the runs around an `@` or of a possible IPv6 address are read once each.

use std::net::Ipv6Addr;

use super::redact_phone;

/// What a span of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An e-mail address.
    Email,
    /// A payment card number.
    Card,
    /// An international bank account number.
    Iban,
    /// An IPv4 or IPv6 address.
    Ip,
    /// A phone number.
    Phone,
}

impl Kind {
    /// What stands in its place.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Email => "[EMAIL]",
            Self::Card => "[CARD]",
            Self::Iban => "[IBAN]",
            Self::Ip => "[IP]",
            Self::Phone => "[PHONE]",
        }
    }
}

/// A half-open range of bytes, on character boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte.
    pub(super) start: usize,
    /// The byte behind the last.
    pub(super) end: usize,
    /// What it is.
    pub(super) kind: Kind,
}

/// The longest text of an IPv6 address, with room for punctuation around it.
const IPV6_BYTES_MAX: usize = 64;

/// The most and the fewest digits of a card.
const CARD_DIGITS_MAX: usize = 19;
const CARD_DIGITS_MIN: usize = 13;

/// Lengths of accounts by country, from the registry of ISO 13616.
const IBAN_LENGTHS: &str = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22\
DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27\
JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28\
PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20YE30";

/// Replaces `spans` by what is to be redacted in `text`, in order and without overlap.
pub(super) fn find(text: &str, spans: &mut Vec<Span>) {
    spans.clear();
    let bytes = text.as_bytes();
    let (mut position, mut mail_floor) = (0, 0);
    while let Some(&byte) = bytes.get(position) {
        step();
        let found = match byte {
            b'@' => email(text, mail_floor, position),
            b'0'..=b'9' | b':' | b'a'..=b'z' | b'A'..=b'Z' => strong(text, position),
            _ => None,
        };
        let Some(span) = found else {
            position += 1;
            continue;
        };
        if span.kind == Kind::Email {
            // The local part may hold digits that were taken for a card.
            while spans.last().is_some_and(|last| last.end > span.start) {
                spans.pop();
            }
            mail_floor = span.end;
        }
        position = span.end;
        spans.push(span);
    }
    redact_phone::find_between(bytes, spans);
}

fn strong(text: &str, position: usize) -> Option<Span> {
    let bytes = text.as_bytes();
    let span = |end, kind| Span { start: position, end, kind };
    ipv6(text, position)
        .or_else(|| ipv4(bytes, position).map(|end| span(end, Kind::Ip)))
        .or_else(|| iban(bytes, position).map(|end| span(end, Kind::Iban)))
        .or_else(|| card(bytes, position).map(|end| span(end, Kind::Card)))
}

fn before(bytes: &[u8], position: usize) -> Option<u8> {
    position.checked_sub(1).and_then(|position| bytes.get(position)).copied()
}

/// The address around the `@` at `at`, its local part not before `floor`.
fn email(text: &str, floor: usize, at: usize) -> Option<Span> {
    let local = |c: &(usize, char)| c.1.is_alphanumeric() || "._%+-'".contains(c.1);
    let domain = |c: &(usize, char)| c.1.is_alphanumeric() || c.1 == '-' || c.1 == '.';
    let mut start = at;
    let head = text.get(floor..at)?;
    for (offset, character) in head.char_indices().rev().take_while(local) {
        step();
        if character.is_alphanumeric() || character == '_' {
            start = floor + offset;
        }
    }
    let mut end = at + 1;
    for (offset, character) in text.get(at + 1..)?.char_indices().take_while(domain) {
        step();
        if character.is_alphanumeric() {
            end = at + 1 + offset + character.len_utf8();
        }
    }
    let named = text.get(at + 1..end)?;
    let dotted = named.find('.').is_some_and(|dot| dot > 0);
    (start < at && dotted).then_some(Span { start, end, kind: Kind::Email })
}

/// An IPv6 address in the run of hexadecimal digits, colons and dots that begins here.
fn ipv6(text: &str, position: usize) -> Option<Span> {
    let bytes = text.as_bytes();
    let part = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    let previous = before(bytes, position);
    if previous.is_some_and(part) || !bytes.get(position).copied().is_some_and(part) {
        return None;
    }
    let ahead = bytes.get(position..)?.iter().take(IPV6_BYTES_MAX + 1);
    let length = ahead.take_while(|byte| part(**byte)).count();
    let mut start = position;
    let mut end = position + length;
    let in_word = previous.is_some_and(|byte| byte.is_ascii_alphanumeric());
    if in_word {
        // The run began in the middle of a word, as in `host:fe80::1`'s "e:".
        start += text.get(position..end)?.find(':')?;
    }
    let word_follows = bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
    let run = text.get(start..end)?;
    if run.starts_with(':') && !run.starts_with("::") {
        start += 1;
    }
    end -= run.len() - run.trim_end_matches('.').len();
    let mut address = text.get(start..end)?;
    if address.ends_with(':') && !address.ends_with("::") {
        end -= 1;
        address = text.get(start..end)?;
    }
    let possible = address.len() > 2 && !word_follows && length <= IPV6_BYTES_MAX;
    let parses = possible && address.parse::<Ipv6Addr>().is_ok();
    parses.then_some(Span { start, end, kind: Kind::Ip })
}

/// The end of an IPv4 address that begins here.
fn ipv4(bytes: &[u8], start: usize) -> Option<usize> {
    let digit = |position: usize| bytes.get(position).is_some_and(u8::is_ascii_digit);
    match before(bytes, start) {
        Some(b'0'..=b'9') => return None,
        Some(b'.') if start > 1 && digit(start - 2) => return None,
        _ => {}
    }
    let mut position = start;
    for octet in 0..4 {
        if octet > 0 {
            if bytes.get(position) != Some(&b'.') {
                return None;
            }
            position += 1;
        }
        let mut value = 0_u32;
        let first = position;
        while let (true, Some(byte)) = (position - first < 3, bytes.get(position)) {
            if !byte.is_ascii_digit() {
                break;
            }
            value = value * 10 + u32::from(byte - b'0');
            position += 1;
        }
        if position == first || value > 255 {
            return None;
        }
    }
    let more = digit(position) || (bytes.get(position) == Some(&b'.') && digit(position + 1));
    (!more).then_some(position)
}

/// The end of an account number that begins here.
fn iban(bytes: &[u8], start: usize) -> Option<usize> {
    let country = bytes.get(start..start + 2)?;
    if !country.iter().all(u8::is_ascii_alphabetic)
        || !bytes.get(start + 2..start + 4)?.iter().all(u8::is_ascii_digit)
        || before(bytes, start).is_some_and(|byte| byte.is_ascii_alphanumeric())
    {
        return None;
    }
    let length = iban_length(country)?;
    let mut characters = Vec::with_capacity(length);
    let mut position = start;
    while characters.len() < length {
        let byte = *bytes.get(position)?;
        let blank = byte == b' ' || byte == b'-';
        if byte.is_ascii_alphanumeric() {
            characters.push(byte);
        } else if !blank || !bytes.get(position + 1)?.is_ascii_alphanumeric() {
            return None;
        }
        position += 1;
    }
    let ended = !bytes.get(position).is_some_and(u8::is_ascii_alphanumeric);
    (ended && iban_sum(&characters) == 1).then_some(position)
}

fn iban_length(country: &[u8]) -> Option<usize> {
    let entry = IBAN_LENGTHS
        .as_bytes()
        .chunks_exact(4)
        .find(|entry| entry.get(..2).is_some_and(|code| code.eq_ignore_ascii_case(country)))?;
    std::str::from_utf8(entry.get(2..)?).ok()?.parse().ok()
}

/// The remainder by 97 of ISO 7064, country and check digits last.
fn iban_sum(characters: &[u8]) -> u32 {
    let (head, tail) = characters.split_at(4.min(characters.len()));
    tail.iter().chain(head).fold(0, |sum, byte| match byte.to_ascii_uppercase() {
        digit @ b'0'..=b'9' => (sum * 10 + u32::from(digit - b'0')) % 97,
        letter => (sum * 100 + u32::from(letter.saturating_sub(b'A')) + 10) % 97,
    })
}

/// The end of a card number that begins here: digits in groups, one blank or hyphen between.
fn card(bytes: &[u8], start: usize) -> Option<usize> {
    if !bytes.get(start)?.is_ascii_digit()
        || before(bytes, start).is_some_and(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let mut digits = Vec::with_capacity(CARD_DIGITS_MAX);
    let (mut position, mut best) = (start, None);
    loop {
        match bytes.get(position) {
            Some(byte) if byte.is_ascii_digit() => {
                if digits.len() == CARD_DIGITS_MAX {
                    return best;
                }
                digits.push(byte - b'0');
                position += 1;
                continue;
            }
            next => {
                if digits.len() >= CARD_DIGITS_MIN && luhn(&digits) {
                    best = Some(position);
                }
                let separated = matches!(next, Some(b' ' | b'-'));
                if !separated || !bytes.get(position + 1).is_some_and(u8::is_ascii_digit) {
                    return best;
                }
                position += 1;
            }
        }
    }
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(position, &digit)| match (position % 2, u32::from(digit) * 2) {
            (0, _) => u32::from(digit),
            (_, double) => double / 10 + double % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Counts a step of work, in tests only.
#[inline(always)]
pub(super) fn step() {
    #[cfg(test)]
    STEPS.with(|steps| steps.set(steps.get() + 1));
}

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many steps `work` takes.
#[cfg(test)]
pub(super) fn counted(work: impl FnOnce()) -> usize {
    let before = STEPS.with(std::cell::Cell::get);
    work();
    STEPS.with(std::cell::Cell::get) - before
}
