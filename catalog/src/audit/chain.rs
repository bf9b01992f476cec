//! The chain: how entries follow each other in a segment, and segments each other.
//!
//! A segment is one immutable object, a text of lines:
//!
//! ```text
//! header {"format":1,"segment":7,"previous":"<hash>","first":42,"server":"…","at_ms":…,"checkpoint":5}
//! <hash of entry 42> {"sequence":42,…}
//! <hash of entry 43> {"sequence":43,…}
//! seal {"segment":7,"sequence":43,"hash":"<hash of entry 43>","at_ms":…,"key":"…","signature":"…"}
//! ```
//!
//! `hash = SHA-256(hash before ‖ bytes of the JSON)`: the header is hashed after the last hash of
//! the segment before, each entry after what stands above it. The first segment follows 32 zero
//! bytes. What is hashed are the stored bytes, so no other reading of them can have the same hash.
//! The seal is signed; a checkpoint is a copy of a seal in an object of its own, which says that
//! the chain went on at least so far.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::entry::AuditEntry;
use super::sign::Signer;
use crate::error::{Error, Result};

/// A SHA-256 hash.
pub type Hash = [u8; 32];
/// What the first segment follows.
pub const GENESIS: Hash = [0; 32];
/// The format of segments.
const FORMAT: u32 = 1;
/// Hexadecimal digits of a hash.
const DIGITS: usize = 64;

/// The hash of a line after the hash before it.
pub fn link(previous: &Hash, line: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(line);
    let mut hash = GENESIS;
    hash.copy_from_slice(&hasher.finalize());
    hash
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal digits as bytes; `None` for anything else.
pub fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let value = |digit: u8| u8::try_from(char::from(digit).to_digit(16)?).ok();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pairs = digits.chunks_exact(2).map(|pair| match pair {
        [high, low] => Some((value(*high)? << 4) | value(*low)?),
        _ => None,
    });
    pairs.collect()
}

fn hash_of(digits: &str) -> Option<Hash> {
    from_hex(digits)?.try_into().ok()
}

/// Where the chain ends, or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The last segment; 0 when there is none.
    pub segment: u64,
    /// The last entry; 0 when there is none.
    pub sequence: u64,
    /// The last hash.
    pub hash: Hash,
}

impl Head {
    /// The head of an empty chain.
    pub const EMPTY: Self = Self { segment: 0, sequence: 0, hash: GENESIS };
}

/// A segment's first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format of the segment.
    pub format: u32,
    /// Its number, which is its object's name too.
    pub segment: u64,
    /// The last hash of the segment before.
    pub previous: String,
    /// The sequence of its first entry.
    pub first: u64,
    /// The server that wrote it.
    pub server: String,
    /// When it was written, in Unix milliseconds.
    pub at_ms: i64,
    /// The last checkpoint that its server knew of; 0 for none.
    pub checkpoint: u64,
}

/// A segment's last line, and the whole of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The segment's number.
    pub segment: u64,
    /// The sequence of its last entry.
    pub sequence: u64,
    /// The hash of its last entry.
    pub hash: String,
    /// When it was signed, in Unix milliseconds.
    pub at_ms: i64,
    /// Whether everything up to here was removed by the retention.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// The id of the key.
    pub key: String,
    /// The signature of [`Seal::message`], in hexadecimal digits.
    pub signature: String,
}

impl Seal {
    /// What is signed.
    pub fn message(&self) -> String {
        let Self { segment, sequence, hash, at_ms, removed, .. } = self;
        let what = if *removed { "removal" } else { "seal" };
        format!("attune audit {what} 1\n{segment}\n{sequence}\n{hash}\n{at_ms}\n")
    }
}

/// An entry in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its hash.
    pub hash: Hash,
    /// The entry.
    pub entry: AuditEntry,
}

/// A segment that holds together in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its first line.
    pub header: Header,
    /// Its entries.
    pub lines: Vec<Line>,
    /// Its last line, whose signature has not been checked.
    pub seal: Seal,
    /// Where the chain stands after it.
    pub head: Head,
}

/// Something wrong with the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The segment.
    pub segment: u64,
    /// The entry, where one can be named.
    pub sequence: Option<u64>,
    /// What is wrong, in a sentence.
    pub what: String,
}

impl Fault {
    /// Something wrong with a segment.
    pub fn new(segment: u64, sequence: Option<u64>, what: impl Into<String>) -> Self {
        Self { segment, sequence, what: what.into() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.sequence {
            Some(sequence) => {
                write!(formatter, "entry {sequence} (segment {}): {}", self.segment, self.what)
            }
            None => write!(formatter, "segment {}: {}", self.segment, self.what),
        }
    }
}

/// Who writes a segment, and when.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    /// The server.
    pub server: &'a str,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// The last checkpoint that the server knows of.
    pub checkpoint: u64,
}

/// Makes the segment that follows `head`; numbers the entries.
///
/// # Errors
/// When an entry has no JSON, which is a defect, or the seal cannot be signed.
pub fn build(
    head: &Head,
    entries: &mut [AuditEntry],
    written: Written<'_>,
    signer: &Signer,
) -> Result<(Vec<u8>, Seal, Head)> {
    let wrong = |error: serde_json::Error| Error::Corrupt {
        what: "an entry of the record".into(),
        reason: error.to_string(),
    };
    let segment = head.segment.saturating_add(1);
    let first = head.sequence.saturating_add(1);
    let header = Header {
        format: FORMAT,
        segment,
        previous: to_hex(&head.hash),
        first,
        server: written.server.to_owned(),
        at_ms: written.at_ms,
        checkpoint: written.checkpoint,
    };
    let header = serde_json::to_vec(&header).map_err(wrong)?;
    let mut text = b"header ".to_vec();
    text.extend_from_slice(&header);
    text.push(b'\n');
    let mut hash = link(&head.hash, &header);
    let mut sequence = head.sequence;
    for entry in entries {
        sequence = sequence.saturating_add(1);
        entry.sequence = sequence;
        let line = serde_json::to_vec(entry).map_err(wrong)?;
        hash = link(&hash, &line);
        text.extend_from_slice(to_hex(&hash).as_bytes());
        text.push(b' ');
        text.extend_from_slice(&line);
        text.push(b'\n');
    }
    let at_ms = written.at_ms;
    let seal = Seal { segment, sequence, hash: to_hex(&hash), at_ms, ..Seal::default() };
    let seal = signer.seal(seal)?;
    text.extend_from_slice(b"seal ");
    text.extend_from_slice(&serde_json::to_vec(&seal).map_err(wrong)?);
    text.push(b'\n');
    Ok((text, seal, Head { segment, sequence, hash }))
}

/// Reads segment `number`, which follows `before` when that is known, and checks its chain.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(number: u64, content: &[u8], before: Option<&Head>) -> Result<Segment, Fault> {
    let wrong = |what: String| Fault::new(number, None, what);
    let text = std::str::from_utf8(content).map_err(|_| wrong("it is no text".into()))?;
    let text = text.strip_suffix('\n').ok_or_else(|| wrong("its end is missing".into()))?;
    let mut lines = text.split('\n');
    let first = lines.next().and_then(|line| line.strip_prefix("header "));
    let written = first.ok_or_else(|| wrong("its header is missing".into()))?;
    let header: Header = serde_json::from_str(written)
        .map_err(|error| wrong(format!("its header cannot be read: {error}")))?;
    check_header(&header, number, before)?;
    let previous = hash_of(&header.previous)
        .ok_or_else(|| wrong("its header names no hash before it".into()))?;
    let last = lines.next_back().and_then(|line| line.strip_prefix("seal "));
    let seal = last.ok_or_else(|| wrong("its seal is missing".into()))?;
    let seal: Seal = serde_json::from_str(seal)
        .map_err(|error| wrong(format!("its seal cannot be read: {error}")))?;
    let mut head = Head {
        segment: number,
        sequence: header.first.saturating_sub(1),
        hash: link(&previous, written.as_bytes()),
    };
    let mut found = Vec::new();
    for line in lines {
        found.push(parse_line(number, line, &mut head)?);
    }
    if found.is_empty() {
        return Err(wrong("it has no entries".into()));
    }
    let sealed = (seal.segment, seal.sequence, seal.hash.as_str(), seal.removed);
    let expected = to_hex(&head.hash);
    if sealed != (number, head.sequence, expected.as_str(), false) {
        return Err(wrong(format!(
            "its seal is for entry {} of segment {}, and its last entry is {}",
            seal.sequence, seal.segment, head.sequence
        )));
    }
    Ok(Segment { header, lines: found, seal, head })
}

fn check_header(header: &Header, number: u64, before: Option<&Head>) -> Result<(), Fault> {
    let wrong = |what: String| Fault::new(number, None, what);
    if header.format != FORMAT {
        return Err(wrong(format!("its format {} is not known", header.format)));
    }
    if header.segment != number {
        return Err(wrong(format!("it was written as segment {}", header.segment)));
    }
    let Some(before) = before else { return Ok(()) };
    if header.first != before.sequence.saturating_add(1) {
        return Err(Fault::new(
            number,
            Some(header.first),
            format!("entry {} should follow", before.sequence.saturating_add(1)),
        ));
    }
    if header.previous != to_hex(&before.hash) {
        let what = "it does not follow the segment before it: one of the two was exchanged";
        return Err(Fault::new(number, Some(header.first), what));
    }
    Ok(())
}

/// Reads the line that follows `head`, and moves `head` on.
fn parse_line(number: u64, line: &str, head: &mut Head) -> Result<Line, Fault> {
    let expected = head.sequence.saturating_add(1);
    let fault = |what: String| Fault::new(number, Some(expected), what);
    let (digits, json) = line
        .split_at_checked(DIGITS)
        .and_then(|(digits, rest)| Some((digits, rest.strip_prefix(' ')?)))
        .ok_or_else(|| fault("its line is no entry".into()))?;
    let entry: AuditEntry =
        serde_json::from_str(json).map_err(|error| fault(format!("it cannot be read: {error}")))?;
    if entry.sequence != expected {
        return Err(fault(format!("it is missing; entry {} stands there", entry.sequence)));
    }
    let hash = link(&head.hash, json.as_bytes());
    if to_hex(&hash) != digits {
        return Err(fault("it was changed: its hash is not that of its content".into()));
    }
    *head = Head { segment: number, sequence: expected, hash };
    Ok(Line { hash, entry })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Secret;

    fn signer() -> Signer {
        Signer::new(&Secret::new("0123456789abcdef0123456789abcdef")).unwrap()
    }

    fn entries(count: usize) -> Vec<AuditEntry> {
        let entry = |index: usize| AuditEntry {
            at_ms: 1_000,
            principal: format!("user{index}"),
            kind: "select".into(),
            text: Some("SELECT 'ü' FROM t\nWHERE a = ?".into()),
            ..AuditEntry::default()
        };
        (0..count).map(entry).collect()
    }

    fn segment(head: &Head, count: usize) -> (Vec<u8>, Head) {
        let written = Written { server: "s", at_ms: 5, checkpoint: 0 };
        let (text, _, head) = build(head, &mut entries(count), written, &signer()).unwrap();
        (text, head)
    }

    fn lines(text: &[u8]) -> Vec<String> {
        let text = std::str::from_utf8(text).unwrap();
        text.trim_end().split('\n').map(str::to_owned).collect()
    }

    fn text(lines: &[String]) -> Vec<u8> {
        format!("{}\n", lines.join("\n")).into_bytes()
    }

    #[test]
    fn links_are_those_of_the_reference() {
        let one = link(&GENESIS, br#"{"action":"SELECT","actor":"alice","table":"users"}"#);
        let two = link(&one, br#"{"action":"ERASE","actor":"bob","subject":"42"}"#);
        assert_eq!(
            to_hex(&one),
            "3840c74746c445e4b4623d6b0cf1a0a5dd0c661be22f91322988ab498e655e61"
        );
        assert_eq!(
            to_hex(&two),
            "5f452a719a2ed810cb5a7225414433b70f6171b4055b6fdba1315c1e673451f5"
        );
    }

    #[test]
    fn what_is_built_is_read_back() {
        let (one, head) = segment(&Head::EMPTY, 3);
        let read = parse(1, &one, Some(&Head::EMPTY)).unwrap();
        assert_eq!(read.head, head);
        let sequences: Vec<u64> = read.lines.iter().map(|line| line.entry.sequence).collect();
        assert_eq!(sequences, [1, 2, 3]);
        let (two, _) = segment(&head, 1);
        assert_eq!(parse(2, &two, Some(&head)).unwrap().lines[0].entry.sequence, 4);
        // Alone it holds together too; in another place it does not.
        assert!(parse(2, &two, None).is_ok());
        assert!(parse(2, &two, Some(&Head::EMPTY)).is_err());
        assert!(parse(3, &two, None).is_err());
    }

    #[test]
    fn an_entry_that_is_removed_exchanged_or_added_is_named() {
        let (whole, _) = segment(&Head::EMPTY, 4);
        let fault = |lines: &[String]| parse(1, &text(lines), Some(&Head::EMPTY)).unwrap_err();
        let mut removed = lines(&whole);
        removed.remove(2);
        let told = fault(&removed);
        assert_eq!((told.sequence, told.what.contains("missing")), (Some(2), true), "{told}");
        let mut exchanged = lines(&whole);
        exchanged.swap(2, 3);
        assert_eq!(fault(&exchanged).sequence, Some(2));
        let mut twice = lines(&whole);
        twice.insert(3, twice[2].clone());
        assert_eq!(fault(&twice).sequence, Some(3));
        let mut edited = lines(&whole);
        edited[3] = edited[3].replace("user2", "user9");
        let told = fault(&edited);
        assert_eq!((told.sequence, told.what.contains("changed")), (Some(3), true), "{told}");
        let mut cut = lines(&whole);
        cut.remove(4);
        assert!(fault(&cut).what.contains("its seal is for entry 4"));
        let mut unsealed = lines(&whole);
        unsealed.pop();
        assert!(fault(&unsealed).what.contains("seal is missing"));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            cases: 200,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_flipped_bit_goes_unseen(at in 0_usize..10_000, bit in 0_u32..8) {
            let (whole, head) = segment(&Head::EMPTY, 2);
            let mut changed = whole.clone();
            let at = at % changed.len();
            changed[at] ^= 1 << bit;
            let mut keys = super::super::sign::PublicKeys::default();
            keys.add(&signer().public()).unwrap();
            // The chain, the seal or its signature tells; only the spelling of a seal may differ.
            let unseen = parse(1, &changed, Some(&Head::EMPTY)).is_ok_and(|read| {
                read.head == head && keys.check(&read.seal).is_ok()
            });
            let in_seal = at + lines(&whole).last().unwrap().len() + 1 >= whole.len();
            prop_assert!(!unseen || in_seal);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            content in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = parse(1, &content, None);
            let _ = from_hex(&String::from_utf8_lossy(&content));
        }
    }
}
