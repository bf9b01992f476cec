//! Blocking rules: the pairs of records that are compared at all.
//!
//! A rule is one key or two: records that have them in common are compared. A block of more than
//! `block_max` records is left out, and counted: a value that stands in half the rows says little
//! and would cost the square of the rows.

use rayon::prelude::*;

use super::column::{Column, NONE};
use super::key::Key;
use crate::model::random::mixed;

/// Rules at most: a bit each.
pub const RULES_MAX: usize = 24;

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What records must have in common.
    pub keys: Vec<Key>,
}

impl Rule {
    /// The rule as a user writes it.
    pub fn text(&self, names: &[&str]) -> String {
        let keys: Vec<String> = self.keys.iter().map(|key| key.text(names)).collect();
        keys.join(" AND ")
    }

    /// Reads a rule: keys joined by AND.
    pub fn parse(text: &str, names: &[&str]) -> Option<Self> {
        let lower = text.to_lowercase();
        let mut keys = Vec::new();
        let mut rest = text;
        let mut lower = lower.as_str();
        // Case folding keeps the length of ASCII; other texts are read as they are.
        if lower.len() != text.len() {
            lower = text;
        }
        while let Some(at) = lower.find(" and ") {
            keys.push(Key::parse(rest.get(..at)?, names)?);
            rest = rest.get(at + 5..)?;
            lower = &lower[at + 5..];
        }
        keys.push(Key::parse(rest, names)?);
        Some(Self { keys })
    }

    /// The columns, a bit each.
    pub fn columns(&self) -> u32 {
        self.keys.iter().fold(0, |columns, key| columns | 1 << key.column)
    }

    /// The keys of each record, `slots` each, 0 for none.
    fn of_records(&self, columns: &[Column], hashes: &[Vec<u64>]) -> (usize, Vec<u64>) {
        let records = columns.first().map_or(0, |column| column.codes.len());
        let slots = self.keys.iter().map(Key::slots).max().unwrap_or(1);
        let mut made = vec![0; records * slots];
        made.par_chunks_mut(slots).enumerate().for_each(|(record, made)| {
            for (slot, made) in made.iter_mut().enumerate() {
                *made = self.hash_of(columns, hashes, record, slot);
            }
        });
        (slots, made)
    }

    /// The key of a record in a slot.
    #[inline]
    pub fn hash_of<H: AsRef<[u64]>>(
        &self,
        columns: &[Column],
        hashes: &[H],
        record: usize,
        slot: usize,
    ) -> u64 {
        let mut hash = 0;
        for (key, hashes) in self.keys.iter().zip(hashes) {
            let code = columns[key.column].codes[record];
            if code == NONE {
                return 0;
            }
            let slots = key.slots();
            let own = hashes.as_ref()[code as usize * slots + slot.min(slots - 1)];
            if own == 0 {
                return 0;
            }
            hash = mixed(hash ^ own);
        }
        hash.max(1)
    }

    /// The hashes of each key's column values.
    pub fn hashes(&self, columns: &[Column]) -> Vec<Vec<u64>> {
        self.keys.iter().map(|key| key.hashes(&columns[key.column])).collect()
    }
}

/// What a rule costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Pairs in its blocks.
    pub pairs: u64,
    /// Blocks that are too large and left out.
    pub skipped_blocks: u64,
    /// The records in these.
    pub skipped_records: u64,
    /// Records that have the key.
    pub keyed: u64,
}

/// The sides of a link: of each record, which table it is of; empty when all are one.
pub type Sides<'a> = &'a [u32];

/// The records of each block of a rule.
#[derive(Debug, Clone)]
pub struct Blocks {
    slots: usize,
    /// The block of each record and slot, [`NONE`] for none.
    of: Vec<u32>,
    /// Where the records of each block begin.
    starts: Vec<u32>,
    records: Vec<u32>,
    /// What the rule costs.
    pub cost: Cost,
}

impl Blocks {
    /// The blocks of a rule.
    pub fn new(rule: &Rule, columns: &[Column], sides: Sides<'_>, block_max: usize) -> Self {
        let (slots, keys) = rule.of_records(columns, &rule.hashes(columns));
        let mut keyed: Vec<(u64, u32)> = keys
            .iter()
            .zip(0_u32..)
            .filter(|(key, _)| **key != 0)
            .map(|(key, cell)| (*key, cell))
            .collect();
        drop(keys);
        keyed.par_sort_unstable();
        let records = columns.first().map_or(0, |column| column.codes.len());
        let mut of = vec![NONE; records * slots];
        let (mut starts, mut members) = (vec![0], Vec::new());
        let mut cost = Cost { keyed: keyed.len() as u64, ..Cost::default() };
        for block in keyed.chunk_by(|a, b| a.0 == b.0) {
            if block.len() < 2 {
                continue;
            }
            if block.len() > block_max {
                cost.skipped_blocks += 1;
                cost.skipped_records += block.len() as u64;
                continue;
            }
            let pairs = pairs_of(block.iter().map(|(_, cell)| *cell as usize / slots), sides);
            if pairs == 0 {
                continue;
            }
            cost.pairs += pairs;
            for (_, cell) in block {
                of[*cell as usize] = starts.len() as u32 - 1;
                members.push(cell / slots as u32);
            }
            starts.push(members.len() as u32);
        }
        Self { slots, of, starts, records: members, cost }
    }

    /// Whether two records have a block in common.
    pub fn has(&self, left: u32, right: u32) -> bool {
        let of = |record: u32| {
            let at = record as usize * self.slots;
            self.of[at..at + self.slots].iter().filter(|block| **block != NONE)
        };
        of(left).any(|block| of(right).any(|other| block == other))
    }

    /// Calls with the records of each block that a record is in, ascending.
    #[inline]
    fn with(&self, record: u32, mut call: impl FnMut(&[u32])) {
        let at = record as usize * self.slots;
        for &block in &self.of[at..at + self.slots] {
            if block != NONE {
                let (from, to) = (self.starts[block as usize], self.starts[block as usize + 1]);
                call(&self.records[from as usize..to as usize]);
            }
        }
    }
}

/// The rules whose blocks have two records in common, a bit each.
pub fn rules_of(blocks: &[Blocks], left: u32, right: u32) -> u32 {
    let found = blocks.iter().zip(0..).filter(|(blocks, _)| blocks.has(left, right));
    found.fold(0, |rules, (_, rule)| rules | 1 << rule)
}

/// The pairs among records that are compared.
pub fn pairs_of(records: impl ExactSizeIterator<Item = usize>, sides: Sides<'_>) -> u64 {
    let count = records.len() as u64;
    let all = count * (count - 1) / 2;
    if sides.is_empty() {
        return all;
    }
    let mut by_side: Vec<(u32, u64)> = Vec::new();
    for record in records {
        match by_side.iter_mut().find(|(side, _)| *side == sides[record]) {
            Some((_, count)) => *count += 1,
            None => by_side.push((sides[record], 1)),
        }
    }
    all - by_side.iter().map(|(_, count)| count * (count - 1) / 2).sum::<u64>()
}

/// Finds the partners of one record after another, each once.
#[derive(Debug)]
pub struct Partners<'a> {
    blocks: &'a [Blocks],
    sides: Sides<'a>,
    /// The rules that found a record, of the records found.
    rules: Vec<u32>,
    found: Vec<u32>,
}

impl<'a> Partners<'a> {
    /// Over the blocks of all rules.
    pub fn new(blocks: &'a [Blocks], sides: Sides<'a>, records: usize) -> Self {
        Self { blocks, sides, rules: vec![0; records], found: Vec::new() }
    }

    /// Calls with each partner after the record itself in order, or with all where `all` says so,
    /// and with the rules that found it.
    pub fn each(&mut self, record: u32, all: bool, mut call: impl FnMut(u32, u32)) {
        let Self { blocks, sides, rules, found } = self;
        for (rule, blocks) in blocks.iter().enumerate() {
            blocks.with(record, |members| {
                let from = if all { 0 } else { members.partition_point(|&other| other <= record) };
                for &other in &members[from..] {
                    if other == record {
                        continue;
                    }
                    let known = &mut rules[other as usize];
                    if *known == 0 {
                        found.push(other);
                    }
                    *known |= 1 << rule;
                }
            });
        }
        for other in found.drain(..) {
            let known = std::mem::take(&mut rules[other as usize]);
            let apart = sides.is_empty() || sides[record as usize] != sides[other as usize];
            if apart {
                call(other, known);
            }
        }
    }
}
