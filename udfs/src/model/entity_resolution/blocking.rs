//! Blocking rules: the pairs of records that are compared at all.
//!
//! A rule is keys, of columns or computed by the query: records that have them all in common are
//! compared. Of keys that are several of a value, such as its words, any will do: a record is in a
//! block for each combination. A block of more than `block_max` records is left out, and counted: a
//! value that stands in half the rows says little and would cost the square of the rows.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::column::{Column, NONE};
use super::key::{Expression, Key, Part};
use super::records::Records;
use super::room::{Room, batches, take_for_blocks};
use crate::model::ModelError;
use crate::model::random::mixed;

/// Rules at most: a bit each.
pub const RULES_MAX: usize = 24;

/// Combinations of its keys that a rule makes of a record at most.
pub const SLOTS_MAX: usize = 81;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What records must have in common of columns.
    pub keys: Vec<Key>,
    /// What they must have in common that the query computes.
    pub expressions: Vec<Expression>,
}

impl Rule {
    /// The keys of columns as a user writes them.
    pub fn text(&self, names: &[&str]) -> String {
        let keys: Vec<String> = self.keys.iter().map(|key| key.text(names)).collect();
        keys.join(" AND ")
    }

    /// Reads a rule of columns: keys joined by AND.
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
        Some(Self { keys, expressions: Vec::new() })
    }

    /// The columns, a bit each.
    pub fn columns(&self) -> u32 {
        let of_keys = self.keys.iter().fold(0, |columns, key| columns | 1 << key.column);
        self.expressions.iter().fold(of_keys, |columns, computed| columns | computed.columns)
    }

    /// Whether it asks for nothing but a sample of a column's bits.
    pub fn samples(&self, at: usize) -> bool {
        let is_sample = |key: &Key| key.column == at && matches!(key.part, Part::Bits(_));
        self.keys.len() == 1 && self.keys.iter().all(is_sample) && self.expressions.is_empty()
    }

    /// How many keys a record has at most: the combinations of those of its values.
    pub fn slots(&self) -> usize {
        self.keys.iter().map(Key::slots).fold(1, usize::saturating_mul)
    }

    /// Whether the keys of so many records can be counted.
    pub fn is_countable(&self, records: usize) -> bool {
        records.checked_mul(self.slots()).is_some_and(|cells| u32::try_from(cells).is_ok())
    }

    /// Refuses what makes too many keys.
    ///
    /// # Errors
    /// Of one record, or of so many together.
    pub fn check(&self, records: usize) -> Result<(), ModelError> {
        if self.slots() > SLOTS_MAX {
            let what = "the number of combinations of a blocking rule's keys of a record";
            return Err(ModelError::TooLarge { what, limit: SLOTS_MAX as u64 });
        }
        if !self.is_countable(records) {
            let what = "the number of a blocking rule's keys of all records";
            return Err(ModelError::TooLarge { what, limit: u64::from(u32::MAX) });
        }
        Ok(())
    }

    /// The keys of each record, `slots` each, 0 for none. `mark` is called with each record and a
    /// sum over its keys.
    fn of_records(&self, records: &Records, mark: impl Fn(usize, u64) + Sync) -> (usize, Vec<u64>) {
        let columns = &records.columns;
        let hashes = self.hashes(columns);
        let computed: Vec<&[u64]> =
            self.expressions.iter().map(|expression| records.keys_of(expression)).collect();
        let slots = self.slots();
        let mut made = vec![0; records.len * slots];
        made.par_chunks_mut(slots).enumerate().for_each(|(record, made)| {
            let mut sum = 0_u64;
            for (slot, made) in made.iter_mut().enumerate() {
                let of_columns = self.hash_of(columns, &hashes, record, slot);
                *made = with_computed(of_columns, &computed, record);
                sum = sum.wrapping_add(*made);
            }
            mark(record, sum);
        });
        (slots, made)
    }

    /// The key of a record in a slot, of columns alone: slots count through the combinations.
    #[inline]
    pub fn hash_of<H: AsRef<[u64]>>(
        &self,
        columns: &[Column],
        hashes: &[H],
        record: usize,
        slot: usize,
    ) -> u64 {
        let (mut hash, mut rest) = (0, slot);
        for (key, hashes) in self.keys.iter().zip(hashes) {
            let code = columns[key.column].codes[record];
            if code == NONE {
                return 0;
            }
            let slots = key.slots();
            let mut at = code as usize * slots;
            if slots > 1 {
                at += rest % slots;
                rest /= slots;
            }
            let own = hashes.as_ref()[at];
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

/// The key of a record with what is computed of it; 0 where one of them is.
fn with_computed(hash: u64, computed: &[&[u64]], record: usize) -> u64 {
    computed.iter().fold(hash, |hash, keys| match keys.get(record) {
        Some(&own) if own != 0 && hash != 0 => mixed(hash ^ own).max(1),
        _ => 0,
    })
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

impl Cost {
    /// The share of the records that have the key and are in blocks small enough.
    pub fn kept(&self) -> f64 {
        1.0 - self.skipped_records as f64 / self.keyed.max(1) as f64
    }
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
    pub fn new(rule: &Rule, records: &Records, block_max: usize) -> Self {
        Self::of_sizes(rule, records, 2..=block_max)
    }

    /// The blocks of a rule with so many records.
    pub fn of_sizes(rule: &Rule, records: &Records, sizes: RangeInclusive<usize>) -> Self {
        Self::marking(rule, records, sizes, |_, _| {})
    }

    /// The same, of a rule that [`Rule::check`] lets pass; `mark` is called as
    /// [`Rule::of_records`] says.
    fn marking(
        rule: &Rule,
        records: &Records,
        sizes: RangeInclusive<usize>,
        mark: impl Fn(usize, u64) + Sync,
    ) -> Self {
        let (slots, keys) = rule.of_records(records, mark);
        let mut keyed: Vec<(u64, u32)> =
            Vec::with_capacity(keys.iter().filter(|key| **key != 0).count());
        keyed.extend(keys.iter().copied().zip(0_u32..).filter(|(key, _)| *key != 0));
        drop(keys);
        keyed.par_sort_unstable();
        let mut of = vec![NONE; records.len * slots];
        let (mut starts, mut members) = (vec![0], Vec::new());
        let mut cost = Cost { keyed: keyed.len() as u64, ..Cost::default() };
        for block in keyed.chunk_by(|a, b| a.0 == b.0) {
            if block.len() < (*sizes.start()).max(2) {
                continue;
            }
            if block.len() > *sizes.end() {
                cost.skipped_blocks += 1;
                cost.skipped_records += block.len() as u64;
                continue;
            }
            let members_of = block.iter().map(|(_, cell)| *cell as usize / slots);
            let pairs = pairs_of(members_of, &records.sides);
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
        starts.shrink_to_fit();
        members.shrink_to_fit();
        Self { slots, of, starts, records: members, cost }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
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

/// The blocks of rules, and by which keys records are in them.
#[derive(Debug, Clone, Default)]
pub struct Blocked {
    /// The blocks of each rule.
    pub blocks: Vec<Blocks>,
    /// A fingerprint of all keys of each record, the same in every version in which it has these.
    pub marks: Vec<u64>,
}

/// The blocks of rules, of a few at a time side by side.
///
/// # Errors
/// When a rule makes too many keys, and when there is no memory for all.
pub fn blocks_of<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    records: &Records,
    block_max: usize,
    room: Room<'_>,
) -> Result<Blocked, ModelError> {
    let rules: Vec<&Rule> = rules.collect();
    rules.iter().try_for_each(|rule| rule.check(records.len))?;
    take_for_blocks(&rules, records, room)?;
    let marks: Vec<AtomicU64> = (0..records.len).map(|_| AtomicU64::new(0)).collect();
    let mut blocks: Vec<Blocks> = Vec::new();
    for rules in batches(&rules) {
        let from = blocks.len();
        blocks.par_extend(rules.par_iter().enumerate().map(|(at, rule)| {
            let seed = mixed((from + at) as u64 + 1);
            // In which order rules come is of no matter to a sum.
            let mark = |record: usize, keys: u64| {
                marks[record].fetch_add(mixed(keys ^ seed), Ordering::Relaxed);
            };
            Blocks::marking(rule, records, 2..=block_max, mark)
        }));
    }
    let marks = marks.into_iter().map(AtomicU64::into_inner).collect();
    Ok(Blocked { blocks, marks })
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

#[cfg(test)]
mod tests {
    use super::super::column::Gatherer;
    use super::super::key::Computed;
    use super::super::kind::{Declared, Kind};
    use super::*;

    fn expression(text: &str) -> Expression {
        Expression { text: text.to_owned(), columns: 1 }
    }

    /// Six records of a name, with what is computed of them.
    fn records() -> Records {
        let mut gatherer = Gatherer::default();
        for name in ["ann", "ann", "ann", "bob", "bob", "cleo"] {
            gatherer.push(Some(name));
        }
        let order: Vec<u32> = (0..6).collect();
        let column = gatherer.finish("name", Declared::Text, Some(Kind::Name), &order, &[]);
        let mut records = Records::new(vec![column], vec![], 6);
        let keys = vec![7, 7, 8, 0, 0, 7];
        records.computed = vec![Computed { expression: expression("f(name)"), keys }];
        records
    }

    fn pairs(rule: &Rule, block_max: usize) -> (Vec<(u32, u32)>, Cost) {
        let records = records();
        let blocks = [Blocks::new(rule, &records, block_max)];
        let all = (0..6).flat_map(|left| (left + 1..6).map(move |right| (left, right)));
        (all.filter(|&(left, right)| blocks[0].has(left, right)).collect(), blocks[0].cost)
    }

    #[test]
    fn what_is_computed_makes_blocks_alone_and_beside_columns() {
        let computed = vec![expression("f(name)")];
        let alone = Rule { keys: vec![], expressions: computed.clone() };
        assert_eq!(pairs(&alone, 10).0, [(0, 1), (0, 5), (1, 5)]);
        let named = Rule::parse("name", &["name"]).unwrap();
        assert_eq!(pairs(&named, 10).0, [(0, 1), (0, 2), (1, 2), (3, 4)]);
        let both = Rule { expressions: computed, ..named };
        assert_eq!(pairs(&both, 10).0, [(0, 1)]);
        assert_eq!(both.columns(), 1);
        let unknown = Rule { keys: vec![], expressions: vec![expression("g(name)")] };
        assert!(pairs(&unknown, 10).0.is_empty());
    }

    #[test]
    fn blocks_of_many_rules_are_those_of_each_in_order() {
        let rules = ["name", "soundex(name)", "prefix(name, 1)", "suffix(name, 2)"];
        let rules = rules.map(|text| Rule::parse(text, &["name"]).unwrap());
        let many: Vec<&Rule> = rules.iter().cycle().take(RULES_MAX).collect();
        let cost = |blocks: &Blocks| blocks.cost;
        let found = blocks_of(many.iter().copied(), &records(), 10, &|_| true).unwrap();
        let each = many.iter().map(|rule| Blocks::new(rule, &records(), 10).cost);
        assert_eq!(found.blocks.iter().map(cost).collect::<Vec<_>>(), each.collect::<Vec<_>>());
        let none = blocks_of(std::iter::empty(), &records(), 10, &|_| true).unwrap();
        assert_eq!((none.blocks.len(), none.marks), (0, vec![0; 6]));
    }

    /// Four records of two columns of texts.
    fn texts() -> Records {
        let order: Vec<u32> = (0..4).collect();
        let column = |name: &str, values: [&str; 4]| {
            let mut gatherer = Gatherer::default();
            values.iter().for_each(|value| gatherer.push(Some(value)));
            gatherer.finish(name, Declared::Text, Some(Kind::Text), &order, &[])
        };
        let fruits = column("fruit", ["pear quince", "quince", "pear", "pear"]);
        let things = column("thing", ["sand tin", "tin", "tin", "sand"]);
        Records::new(vec![fruits, things], vec![], 4)
    }

    const TEXTS: [&str; 2] = ["fruit", "thing"];

    #[test]
    fn any_key_of_one_column_goes_with_any_of_another() {
        let rule = Rule::parse("words(fruit) AND words(thing)", &TEXTS).unwrap();
        assert_eq!(rule.slots(), 9);
        let blocks = Blocks::new(&rule, &texts(), 10);
        let all = (0..4).flat_map(|left| (left + 1..4).map(move |right| (left, right)));
        let found: Vec<(u32, u32)> = all.filter(|&(a, b)| blocks.has(a, b)).collect();
        assert_eq!(found, [(0, 1), (0, 2), (0, 3)]);
    }

    #[test]
    fn more_keys_than_can_be_counted_are_refused() {
        let samples = Rule::parse("bits(fruit, 6)", &TEXTS).unwrap();
        // 24 keys each: 4,294,967,280 and 24 more.
        assert!(samples.check(178_956_970).is_ok());
        let limit = |rule: &Rule, records| match rule.check(records) {
            Err(ModelError::TooLarge { limit, .. }) => limit,
            other => panic!("{other:?}"),
        };
        assert_eq!(limit(&samples, 178_956_971), u64::from(u32::MAX));
        let both = Rule::parse("bits(fruit, 6) AND bits(thing, 6)", &TEXTS).unwrap();
        assert_eq!((both.slots(), limit(&both, 1)), (576, 81));
        let error = blocks_of(std::iter::once(&both), &texts(), 10, &|_| true).unwrap_err();
        assert_eq!(error.code(), "model_too_large");
    }

    #[test]
    fn records_of_the_same_keys_are_marked_alike() {
        let marks = |records: &Records| {
            let rule = Rule::parse("words(fruit)", &TEXTS).unwrap();
            blocks_of(std::iter::once(&rule), records, 10, &|_| true).unwrap().marks
        };
        let found = marks(&texts());
        assert_eq!(found, marks(&texts()));
        assert!(found[2] == found[3] && found[0] != found[1] && found[1] != found[2]);
    }

    #[test]
    fn records_without_a_key_are_in_no_block_and_large_blocks_are_counted() {
        let rule = Rule { keys: vec![], expressions: vec![expression("f(name)")] };
        let (found, cost) = pairs(&rule, 2);
        assert!(found.is_empty());
        assert_eq!(cost, Cost { pairs: 0, skipped_blocks: 1, skipped_records: 3, keyed: 4 });
        assert_eq!(cost.kept(), 0.25);
    }

    #[test]
    fn blocks_of_a_size_are_those_and_no_smaller_ones() {
        let rule = Rule::parse("name", &["name"]).unwrap();
        let large = Blocks::of_sizes(&rule, &records(), 3..=3);
        assert!(large.has(0, 2) && !large.has(3, 4) && !large.is_empty());
        assert!(Blocks::of_sizes(&rule, &records(), 4..=9).is_empty());
    }
}
