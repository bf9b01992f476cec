//! Object identifiers of schemas and tables: PostgreSQL's clients join by number, not by name.
//!
//! A number is a hash of the name, so that it is the same in every statement, on every replica and
//! after a restart, and tells nothing about tables that the asker does not see. Two names with one
//! hash get neighbouring numbers, for as long as the process lives.

use std::collections::HashMap;

use parking_lot::Mutex;

/// PostgreSQL gives numbers from here on to what users make.
const FIRST_OWN: u32 = 16_384;
/// PostgreSQL's numbers of its own two schemas.
const PG_CATALOG_OID: i32 = 11;
const INFORMATION_SCHEMA_OID: i32 = 13_000;

/// The numbers given so far.
#[derive(Debug, Default)]
pub(super) struct Oids(Mutex<HashMap<i32, String>>);

impl Oids {
    /// The number of a schema.
    pub(super) fn schema(&self, schema: &str) -> i32 {
        match schema {
            super::PG_CATALOG => PG_CATALOG_OID,
            "information_schema" => INFORMATION_SCHEMA_OID,
            other => self.of(format!("schema {other}")),
        }
    }

    /// The number of a table or view.
    pub(super) fn table(&self, schema: &str, name: &str) -> i32 {
        self.of(format!("table {schema}\u{0}{name}"))
    }

    fn of(&self, key: String) -> i32 {
        let mut given = self.0.lock();
        let span = (i32::MAX as u32) - FIRST_OWN;
        let mut offset = (fnv1a(key.as_bytes()) % u64::from(span)) as u32;
        loop {
            let oid = (FIRST_OWN + offset) as i32;
            match given.get(&oid) {
                Some(other) if *other != key => offset = (offset + 1) % span,
                Some(_) => return oid,
                None => {
                    given.insert(oid, key);
                    return oid;
                }
            }
        }
    }
}

/// FNV-1a with 64 bits: stable across builds, unlike the standard library's hasher.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_positive_and_different() {
        let (first, second) = (Oids::default(), Oids::default());
        let mut seen = std::collections::HashSet::new();
        for index in 0..2_000 {
            let name = format!("t{index}");
            let oid = first.table("main", &name);
            assert!(oid >= FIRST_OWN as i32 && seen.insert(oid));
            assert_eq!((oid, oid), (first.table("main", &name), second.table("main", &name)));
        }
        assert_ne!(first.table("a", "b"), first.schema("a"));
    }
}
