//! `value_keys(value [, …])`: the different values of rows as keys, which tell later which of them
//! are repeated elsewhere. Checks keep them of each file of a table; SQL cannot call it.
//!
//! A key is 128 bits: that by which `duplicate_count` compares a value, enciphered with AES-128
//! under a secret. A cipher makes no two inputs one, so keys are the same exactly where
//! `duplicate_count` takes values for the same; and who does not have the secret cannot try which
//! value a key is of.
//!
//! The answer is the number of rows with a value and that of keys, eight bytes each, the keys, each
//! once and in order, sixteen bytes each, and, unless each has one row, how many rows each has,
//! eight bytes each; NULL when there are more keys than may be held. A row with a NULL is left out.
//! [`key_sets`](super::key_sets) counts over the answers of several parts of the rows.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::utils::AggregateOrderSensitivity;
use datafusion_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use super::duplicate_count::{add_valid, bits, hashes, nulls, plain_type};
use super::key_sets::{Answer, count};

const NAME: &str = "value_keys";
/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// Bytes of a number.
pub(super) const COUNT_BYTES: usize = 8;
/// Bytes of a key and the number of its rows.
pub const ENTRY_BYTES: usize = KEY_BYTES + COUNT_BYTES;
/// So many keys are gathered before they are put in order with those before.
const GATHERED_MIN: usize = 16_384;

/// What keys are made under. It shows, compares and hashes by its id.
pub struct KeySecret {
    cipher: Aes128,
    id: String,
}

impl KeySecret {
    /// A secret of 128 random bits.
    ///
    /// # Errors
    /// When nothing can be hashed, which is a defect.
    pub fn new(secret: &[u8; 16]) -> Result<Self> {
        let mut made = Self { cipher: Aes128::new(&(*secret).into()), id: String::new() };
        let known: [ArrayRef; 3] = [
            Arc::new(StringArray::from(vec!["attune"])),
            Arc::new(Int64Array::from(vec![1])),
            Arc::new(Float64Array::from(vec![0.5])),
        ];
        for key in made.keys(hashes(&known)?) {
            made.id = format!("{key:032x}");
        }
        Ok(made)
    }

    /// A known value's key: it changes with the secret, and with the way in which keys are made.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn keys(&self, values: Vec<[u64; 2]>) -> Vec<u128> {
        let block = |[one, other]: [u64; 2]| {
            Block::from(((u128::from(one) << 64) | u128::from(other)).to_be_bytes())
        };
        let mut blocks: Vec<Block> = values.into_iter().map(block).collect();
        self.cipher.encrypt_blocks(&mut blocks);
        blocks.into_iter().map(|block| u128::from_be_bytes(block.0)).collect()
    }
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeySecret({})", self.id)
    }
}

/// The aggregate `value_keys`.
#[derive(Debug)]
pub struct ValueKeys {
    signature: Signature,
    secret: Arc<KeySecret>,
    room: Arc<Room>,
}

impl ValueKeys {
    /// The aggregate under a secret; all groups of all partitions together may have so many
    /// different values, and twice as many keys are held at most.
    pub fn new(secret: Arc<KeySecret>, keys_max: usize) -> Self {
        let room = Room {
            held: AtomicUsize::new(0),
            held_max: keys_max.saturating_mul(2),
            passed: AtomicBool::new(false),
        };
        let signature = Signature::variadic_any(Volatility::Immutable);
        Self { signature, secret, room: Arc::new(room) }
    }

    /// What it gives for no rows.
    pub fn none() -> ScalarValue {
        ScalarValue::LargeBinary(Some(vec![0; 2 * COUNT_BYTES]))
    }
}

impl PartialEq for ValueKeys {
    fn eq(&self, other: &Self) -> bool {
        self.secret.id == other.secret.id && self.room.held_max == other.room.held_max
    }
}

impl Eq for ValueKeys {}

impl Hash for ValueKeys {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.secret.id.hash(state);
        self.room.held_max.hash(state);
    }
}

impl AggregateUDFImpl for ValueKeys {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::LargeBinary)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let plain = match args.expr_fields {
            [field] => plain_type(field.data_type()),
            _ => false,
        };
        Ok(Box::new(Seen {
            secret: Arc::clone(&self.secret),
            room: Arc::clone(&self.room),
            plain,
            rows: 0,
            ordered: Counted::default(),
            gathered: Vec::new(),
            noted: 0,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format!("{}[keys]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::LargeBinary, true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn supports_null_handling_clause(&self) -> bool {
        false
    }
}

/// How many keys the groups of an aggregation hold together.
#[derive(Debug)]
struct Room {
    held: AtomicUsize,
    held_max: usize,
    /// Whether there were more than may be held: then no group has an answer.
    passed: AtomicBool,
}

impl Room {
    /// Notes that so many keys are held in place of so many.
    fn note(&self, before: usize, now: usize) {
        match now.checked_sub(before) {
            Some(more) => self.held.fetch_add(more, Ordering::Relaxed),
            None => self.held.fetch_sub(before - now, Ordering::Relaxed),
        };
    }

    fn is_full(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.held_max
    }

    fn is_passed(&self) -> bool {
        self.passed.load(Ordering::Relaxed)
    }

    fn pass(&self) {
        self.passed.store(true, Ordering::Relaxed);
    }
}

/// Keys in order, each once, with the number of its rows.
#[derive(Debug, Default)]
struct Counted {
    keys: Vec<u128>,
    counts: Vec<u64>,
}

impl Counted {
    fn push(&mut self, key: u128, count: u64) {
        match (self.keys.last(), self.counts.last_mut()) {
            (Some(last), Some(counted)) if *last == key => *counted += count,
            _ => {
                self.keys.push(key);
                self.counts.push(count);
            }
        }
    }

    /// Puts more keys, which are in order, among these.
    fn merge(&mut self, more: impl Iterator<Item = (u128, u64)>, more_keys: usize) {
        let before = std::mem::take(self);
        self.keys.reserve(before.keys.len() + more_keys);
        self.counts.reserve(before.keys.len() + more_keys);
        let mut before = before.keys.into_iter().zip(before.counts).peekable();
        for (key, count) in more {
            while let Some((key, count)) = before.next_if(|(before, _)| *before <= key) {
                self.push(key, count);
            }
            self.push(key, count);
        }
        before.for_each(|(key, count)| self.push(key, count));
    }
}

/// The keys seen so far.
#[derive(Debug)]
struct Seen {
    secret: Arc<KeySecret>,
    room: Arc<Room>,
    plain: bool,
    rows: u64,
    ordered: Counted,
    /// Those that came since, as they came.
    gathered: Vec<u128>,
    /// The keys of which the room knows.
    noted: usize,
}

impl Seen {
    fn add(&mut self, keys: Vec<u128>) {
        self.rows += keys.len() as u64;
        match self.gathered.is_empty() {
            true => self.gathered = keys,
            false => self.gathered.extend(keys),
        }
        if self.gathered.len() >= self.ordered.keys.len().max(GATHERED_MIN) {
            self.order();
        }
        self.bound();
    }

    /// Gives up where there are more keys than may be held.
    fn bound(&mut self) {
        self.note();
        if self.room.is_full() {
            self.order();
            self.note();
        }
        if self.room.is_full() {
            self.give_up();
        }
    }

    fn order(&mut self) {
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.sort_unstable();
        let repeats = gathered.windows(2).filter(|pair| matches!(pair, [a, b] if a == b)).count();
        let different = gathered.len() - repeats;
        self.ordered.merge(gathered.into_iter().map(|key| (key, 1)), different);
    }

    fn note(&mut self) {
        let held = self.ordered.keys.len() + self.gathered.len();
        self.room.note(self.noted, held);
        self.noted = held;
    }

    fn give_up(&mut self) {
        self.room.pass();
        self.clear();
    }

    fn clear(&mut self) {
        self.ordered = Counted::default();
        self.gathered = Vec::new();
        self.note();
    }

    fn content(&mut self) -> ScalarValue {
        if self.room.is_passed() {
            return ScalarValue::LargeBinary(None);
        }
        self.order();
        let Counted { keys, counts } = &self.ordered;
        let different = keys.len() as u64;
        let mut content = Vec::with_capacity(2 * COUNT_BYTES + keys.len() * ENTRY_BYTES);
        content.extend_from_slice(&self.rows.to_be_bytes());
        content.extend_from_slice(&different.to_be_bytes());
        keys.iter().for_each(|key| content.extend_from_slice(&key.to_be_bytes()));
        if different < self.rows {
            counts.iter().for_each(|count| content.extend_from_slice(&count.to_be_bytes()));
        }
        ScalarValue::LargeBinary(Some(content))
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.room.note(self.noted, 0);
    }
}

impl Accumulator for Seen {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        if self.room.is_passed() {
            self.give_up();
            return Ok(());
        }
        let mut values: Vec<[u64; 2]> = Vec::new();
        match (self.plain, columns) {
            (true, [column]) => {
                let bits: Vec<[u64; 2]> = bits(column)?.into_iter().map(|bits| [bits, 0]).collect();
                add_valid(&mut values, &bits, nulls(columns).as_ref());
            }
            (true, _) => return exec_err!("{NAME} misses its column"),
            (false, columns) => {
                add_valid(&mut values, &hashes(columns)?, nulls(columns).as_ref());
            }
        }
        let keys = self.secret.keys(values);
        self.add(keys);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.content())
    }

    fn size(&self) -> usize {
        let Counted { keys, counts } = &self.ordered;
        size_of_val(self)
            + (keys.capacity() + self.gathered.capacity()) * size_of::<u128>()
            + counts.capacity() * size_of::<u64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = self.content();
        self.clear();
        Ok(vec![state])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(states) = states.first().and_then(|state| state.as_binary_opt::<i64>()) else {
            return exec_err!("{NAME}: a partial aggregate carries no keys");
        };
        for state in states {
            let Some(content) = state else {
                self.give_up();
                continue;
            };
            let Some(Answer { rows, keys, counts }) = Answer::of(content) else {
                return exec_err!("{NAME}: a partial aggregate carries other values");
            };
            if self.room.is_passed() {
                continue;
            }
            self.order();
            self.rows += rows;
            let entries = keys.iter().enumerate();
            let entries = entries.map(|(at, key)| (u128::from_be_bytes(*key), count(counts, at)));
            self.ordered.merge(entries, keys.len());
            self.bound();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, DictionaryArray, Float32Array, LargeBinaryArray};
    use arrow::compute::concat;
    use arrow::datatypes::{Int32Type, Schema};
    use datafusion_expr::AggregateUDF;
    use proptest::prelude::*;

    use super::super::duplicate_count::DuplicateCount;
    use super::super::key_sets::{different, missing, repeated};
    use super::*;

    fn secret(byte: u8) -> Arc<KeySecret> {
        Arc::new(KeySecret::new(&[byte; 16]).unwrap())
    }

    fn accumulator(of: &AggregateUDF, columns: &[ArrayRef]) -> Box<dyn Accumulator> {
        let fields: Vec<FieldRef> = columns
            .iter()
            .map(|column| Arc::new(Field::new("c", column.data_type().clone(), true)))
            .collect();
        let return_field = of.return_field(&fields).unwrap();
        of.accumulator(AccumulatorArgs {
            return_field,
            schema: &Schema::empty(),
            ignore_nulls: false,
            order_bys: &[],
            is_reversed: false,
            name: "c",
            is_distinct: false,
            exprs: &[],
            expr_fields: &fields,
        })
        .unwrap()
    }

    fn keys(of: &AggregateUDF, columns: &[ArrayRef]) -> Option<Vec<u8>> {
        let mut seen = accumulator(of, columns);
        seen.update_batch(columns).unwrap();
        match seen.evaluate().unwrap() {
            ScalarValue::LargeBinary(content) => content,
            other => panic!("{other}"),
        }
    }

    /// Counts by the keys of each part, and over all rows.
    fn both(parts: &[Vec<ArrayRef>]) -> (u64, u64) {
        let by_keys = AggregateUDF::from(ValueKeys::new(secret(1), 1_000));
        let contents: Vec<Vec<u8>> =
            parts.iter().map(|columns| keys(&by_keys, columns).unwrap()).collect();
        let whole: Vec<ArrayRef> = (0..parts[0].len())
            .map(|column| {
                let of: Vec<&dyn Array> =
                    parts.iter().map(|columns| columns[column].as_ref()).collect();
                concat(&of).unwrap()
            })
            .collect();
        let mut count = accumulator(&AggregateUDF::from(DuplicateCount::new()), &whole);
        count.update_batch(&whole).unwrap();
        let ScalarValue::Int64(Some(count)) = count.evaluate().unwrap() else { panic!() };
        (repeated(&contents).unwrap(), u64::try_from(count).unwrap())
    }

    #[test]
    fn keys_repeat_where_duplicate_count_finds_repeats() {
        let texts = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
        let parts = [
            vec![texts(vec![Some("a"), None, Some("b"), Some("a")])],
            vec![texts(vec![None, Some("b"), Some("c")])],
            vec![texts(vec![])],
        ];
        assert_eq!(both(&parts), (2, 2));
        let floats = |values: Vec<f32>| Arc::new(Float32Array::from(values)) as ArrayRef;
        let parts =
            [vec![floats(vec![f32::NAN, 0.0])], vec![floats(vec![-f32::NAN, -0.0, 1.0, 2.5])]];
        assert_eq!(both(&parts), (2, 2));
        // The same values, by other numbers in each part.
        let named = |values: Vec<&str>| {
            Arc::new(values.into_iter().collect::<DictionaryArray<Int32Type>>()) as ArrayRef
        };
        let numbers = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let parts = [
            vec![named(vec!["x", "y"]), numbers(vec![1, 1])],
            vec![named(vec!["y", "x"]), numbers(vec![1, 2])],
        ];
        assert_eq!(both(&parts), (1, 1));
    }

    #[test]
    fn another_secret_makes_other_keys() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 2]));
        let of = |byte| AggregateUDF::from(ValueKeys::new(secret(byte), 10));
        let one = keys(&of(1), &[Arc::clone(&column)]).unwrap();
        assert_eq!(different(&one), Some(2));
        assert_ne!(one, keys(&of(2), &[column]).unwrap());
        assert_ne!(secret(1).id(), secret(2).id());
        assert_eq!(repeated(&[&one[..9]]), None);
        assert_eq!(repeated(&[&one[..one.len() - 1]]), None);
        assert_eq!(missing(&[one.as_slice()], &[&one[..one.len() - 1]]), None);
        assert_eq!(repeated::<Vec<u8>>(&[]), Some(0));
    }

    #[test]
    fn too_many_keys_are_no_answer() {
        let of = AggregateUDF::from(ValueKeys::new(secret(1), 10));
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..21));
        let again: ArrayRef = Arc::new(Int64Array::from_iter_values((0..4_000).map(|n| n % 5)));
        assert_eq!(different(&keys(&of, &[again]).unwrap()), Some(5));
        assert_eq!(keys(&of, &[column]), None);
    }

    proptest! {
        #[test]
        fn rows_are_missing_where_no_other_has_their_value(
            parts in prop::collection::vec(
                prop::collection::vec(prop::option::of(-20..20_i64), 0..60), 1..4),
            among in prop::collection::vec(
                prop::collection::vec(prop::option::of(-20..20_i64), 0..30), 0..3),
        ) {
            let by_keys = AggregateUDF::from(ValueKeys::new(secret(1), 1_000));
            let contents = |parts: &[Vec<Option<i64>>]| {
                let columns = parts.iter().map(|part| Int64Array::from(part.clone()));
                let contents = columns.map(|column| keys(&by_keys, &[Arc::new(column)]).unwrap());
                contents.collect::<Vec<Vec<u8>>>()
            };
            let other: Vec<i64> = among.iter().flatten().flatten().copied().collect();
            let rows = parts.iter().flatten().flatten();
            let expected = rows.filter(|value| !other.contains(value)).count() as u64;
            let (parts, among) = (contents(&parts), contents(&among));
            prop_assert_eq!(missing(&parts, &among), Some(expected));
            // The states of partitions make the same.
            let column: ArrayRef = Arc::new(Int64Array::from(vec![0]));
            let mut merged = accumulator(&by_keys, &[column]);
            let states: Vec<Option<&[u8]>> = parts.iter().map(|part| Some(&part[..])).collect();
            merged.merge_batch(&[Arc::new(LargeBinaryArray::from(states))]).unwrap();
            let ScalarValue::LargeBinary(Some(merged)) = merged.evaluate().unwrap() else {
                panic!()
            };
            prop_assert_eq!(missing(&[merged], &among), Some(expected));
        }

        #[test]
        fn parts_count_as_all_rows(parts in prop::collection::vec(
            prop::collection::vec(prop::option::of(-20..20_i64), 0..40), 1..5)) {
            let columns: Vec<Vec<ArrayRef>> = parts
                .iter()
                .map(|part| vec![Arc::new(Int64Array::from(part.clone())) as ArrayRef])
                .collect();
            let (by_keys, all) = both(&columns);
            prop_assert_eq!(by_keys, all);
        }
    }
}
