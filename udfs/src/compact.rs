//! Leaving rows out of columns: what a mask keeps, side by side.
//!
//! Arrow copies run by run, at the cost of a branch that nobody can predict for each run. Where a
//! row here and there is left out, runs are short and numbers are cheaper moved without branches:
//! every value of a block is written, and the place to write moves on where the mask has it. Under
//! a mask that keeps little, and for texts and nested values, Arrow's way is the better one.

use std::cell::OnceCell;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, PrimitiveArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::compute::{FilterBuilder, FilterPredicate, prep_null_mask_filter};
use arrow::datatypes::{ArrowNativeType, ArrowPrimitiveType, DataType};
use arrow::downcast_primitive_array;
use arrow::error::ArrowError;

/// Rows of a block: those of one word of the mask.
const BLOCK: usize = 64;
/// A mask that keeps fewer than one row in so many keeps little.
const SPARSE: usize = 8;

/// The rows of these columns where the mask is true, and not NULL.
///
/// # Errors
/// When a column has not as many rows as the mask.
pub fn compacted<'a>(
    columns: impl IntoIterator<Item = &'a ArrayRef>,
    kept: &BooleanArray,
) -> Result<Vec<ArrayRef>, ArrowError> {
    let rows = Rows::of(kept);
    let columns: Vec<&ArrayRef> = columns.into_iter().collect();
    columns.iter().try_for_each(|column| rows.check(column.as_ref()))?;
    let mut compacted: Vec<Option<ArrayRef>> = vec![None; columns.len()];
    if !rows.is_sparse() {
        // Where to write is found out once for two columns.
        let wide = columns.iter().enumerate().filter_map(|(at, column)| {
            let column: &dyn Array = column.as_ref();
            words_of(column).map(|words| (at, column, words))
        });
        let wide: Vec<_> = wide.collect();
        for [(one, left, ones), (other, right, others)] in wide.as_chunks::<2>().0 {
            let (ones, others) = packed_two(ones, others, &rows.words, rows.count);
            for (at, column, words) in [(*one, *left, ones), (*other, *right, others)] {
                if let Some(compacted) = compacted.get_mut(at) {
                    *compacted = Some(rows.of_words(column, words)?);
                }
            }
        }
    }
    let all = columns.into_iter().zip(compacted);
    all.map(|(column, compacted)| match compacted {
        Some(compacted) => Ok(compacted),
        None => rows.of_column(column.as_ref()),
    })
    .collect()
}

/// The values of a column of numbers of 64 bits.
fn words_of(array: &dyn Array) -> Option<&[u64]> {
    let data_type = array.data_type();
    // An interval of days is of two numbers, which may lie anywhere.
    if data_type.primitive_width() != Some(8) || matches!(data_type, DataType::Interval(_)) {
        return None;
    }
    downcast_primitive_array!(
        array => Some(array.values().inner().typed_data()),
        _ => None,
    )
}

/// The rows that stay.
struct Rows {
    kept: BooleanArray,
    count: usize,
    /// The mask's bits; the last word may be of no row.
    words: Vec<u64>,
    /// What Arrow makes of the mask, once a column asks for it.
    runs: OnceCell<FilterPredicate>,
}

impl Rows {
    fn of(kept: &BooleanArray) -> Self {
        let kept = match kept.null_count() {
            0 => kept.clone(),
            _ => prep_null_mask_filter(kept),
        };
        let words = kept.values().bit_chunks().iter_padded().collect();
        Self { count: kept.true_count(), words, kept, runs: OnceCell::new() }
    }

    fn check(&self, array: &dyn Array) -> Result<(), ArrowError> {
        let (rows, mask) = (array.len(), self.kept.len());
        if rows == mask {
            return Ok(());
        }
        let what = format!("a column of {rows} rows under a mask of {mask}");
        Err(ArrowError::InvalidArgumentError(what))
    }

    /// Whether the mask keeps little.
    fn is_sparse(&self) -> bool {
        self.count * SPARSE < self.kept.len()
    }

    fn of_column(&self, array: &dyn Array) -> Result<ArrayRef, ArrowError> {
        if self.is_sparse() {
            return self.by_runs(array);
        }
        downcast_primitive_array!(
            array => self.numbers(array, packed(array.values(), &self.words, self.count).into()),
            _ => self.by_runs(array),
        )
    }

    /// The rows of a column, whose values are packed already.
    fn of_words(&self, array: &dyn Array, packed: Vec<u64>) -> Result<ArrayRef, ArrowError> {
        let packed = Buffer::from_vec(packed);
        downcast_primitive_array!(
            array => self.numbers(array, ScalarBuffer::new(packed, 0, self.count)),
            _ => self.by_runs(array),
        )
    }

    fn by_runs(&self, array: &dyn Array) -> Result<ArrayRef, ArrowError> {
        let runs = || FilterBuilder::new(&self.kept).optimize().build();
        self.runs.get_or_init(runs).filter(array)
    }

    /// These values, with the NULLs of the column that they are of.
    fn numbers<T: ArrowPrimitiveType>(
        &self,
        array: &PrimitiveArray<T>,
        values: ScalarBuffer<T::Native>,
    ) -> Result<ArrayRef, ArrowError> {
        let nulls = array.nulls().map(|nulls| packed_bits(nulls.inner(), &self.words, self.count));
        let nulls = nulls.map(NullBuffer::new).filter(|nulls| nulls.null_count() > 0);
        let numbers = PrimitiveArray::<T>::try_new(values, nulls)?;
        Ok(Arc::new(numbers.with_data_type(array.data_type().clone())))
    }
}

/// The values that a mask keeps, `count` of them.
fn packed<N: ArrowNativeType>(values: &[N], words: &[u64], count: usize) -> Vec<N> {
    let mut packed = Vec::with_capacity(count + BLOCK);
    let mut block = [N::default(); BLOCK];
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    let (full, last) = words.split_at(blocks.len().min(words.len()));
    for (values, word) in blocks.iter().zip(full) {
        if *word == u64::MAX {
            packed.extend_from_slice(values);
        } else if *word != 0 {
            let kept = pack(values, *word, &mut block);
            append(&mut packed, &block, kept);
        }
    }
    if let Some(word) = last.first() {
        let kept = pack(rest, *word, &mut block);
        append(&mut packed, &block, kept);
    }
    packed
}

/// The same of two columns.
fn packed_two(ones: &[u64], others: &[u64], words: &[u64], count: usize) -> (Vec<u64>, Vec<u64>) {
    let (mut left, mut right) =
        (Vec::with_capacity(count + BLOCK), Vec::with_capacity(count + BLOCK));
    let (mut one, mut other) = ([0; BLOCK], [0; BLOCK]);
    let ((ones, ones_rest), (others, others_rest)) =
        (ones.as_chunks::<BLOCK>(), others.as_chunks::<BLOCK>());
    let (full, last) = words.split_at(ones.len().min(words.len()));
    for ((ones, others), word) in ones.iter().zip(others).zip(full) {
        if *word == u64::MAX {
            left.extend_from_slice(ones);
            right.extend_from_slice(others);
        } else if *word != 0 {
            let mut kept = 0;
            for (row, (from_one, from_other)) in ones.iter().zip(others).enumerate() {
                one[kept % BLOCK] = *from_one;
                other[kept % BLOCK] = *from_other;
                kept += ((word >> row) & 1) as usize;
            }
            append(&mut left, &one, kept);
            append(&mut right, &other, kept);
        }
    }
    if let Some(word) = last.first() {
        let kept = pack(ones_rest, *word, &mut one);
        append(&mut left, &one, kept);
        let kept = pack(others_rest, *word, &mut other);
        append(&mut right, &other, kept);
    }
    (left, right)
}

/// Appends the beginning of a block. To copy a known length and shorten it costs less than to copy
/// a length that nobody can predict.
#[inline(always)]
fn append<N: Copy>(packed: &mut Vec<N>, block: &[N; BLOCK], kept: usize) {
    packed.extend_from_slice(block);
    packed.truncate(packed.len() - BLOCK + kept);
}

/// Writes what a word keeps to the beginning of the block; how much that is.
#[inline(always)]
fn pack<N: Copy>(values: &[N], word: u64, block: &mut [N; BLOCK]) -> usize {
    let mut kept = 0;
    for (row, value) in values.iter().enumerate() {
        block[kept % BLOCK] = *value;
        kept += ((word >> row) & 1) as usize;
    }
    kept
}

/// The bits that a mask keeps, `count` of them.
fn packed_bits(bits: &BooleanBuffer, words: &[u64], count: usize) -> BooleanBuffer {
    let mut packed = Vec::with_capacity(count / BLOCK + 1);
    let (mut word, mut filled) = (0_u64, 0);
    for (bits, kept) in bits.bit_chunks().iter_padded().zip(words) {
        let found = pack_word(bits, *kept);
        word |= found << filled;
        filled += kept.count_ones();
        if filled >= u64::BITS {
            filled -= u64::BITS;
            packed.push(word);
            // What of the found bits has found no place yet.
            let placed = kept.count_ones() - filled;
            word = found.checked_shr(placed).unwrap_or(0);
        }
    }
    if filled > 0 {
        packed.push(word);
    }
    BooleanBuffer::new(Buffer::from_vec(packed), 0, count)
}

/// The bits of a word that a mask keeps, at its low end (Warren, Hacker's Delight, section 7-4).
fn pack_word(word: u64, mask: u64) -> u64 {
    let (mut word, mut mask) = (word & mask, mask);
    // Bits with a bit that is left out just below them.
    let mut below = !mask << 1;
    for step in 0..6 {
        let mut odd = below ^ (below << 1);
        for shift in [2, 4, 8, 16, 32] {
            odd ^= odd << shift;
        }
        let moving = odd & mask;
        mask = (mask ^ moving) | (moving >> (1 << step));
        let bits = word & moving;
        word = (word ^ bits) | (bits >> (1 << step));
        below &= !odd;
    }
    word
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Decimal128Array, Float64Array, Int8Array, Int64Array, StringArray, StringViewArray,
        TimestampMillisecondArray,
    };
    use arrow::compute::filter;
    use proptest::prelude::*;

    use super::*;

    /// The same values as columns of several types.
    fn columns(values: &[Option<i8>]) -> Vec<ArrayRef> {
        let wide = || values.iter().map(|value| value.map(i64::from));
        let decimals: Decimal128Array = values.iter().map(|value| value.map(i128::from)).collect();
        let doubles: Float64Array = values.iter().map(|value| value.map(f64::from)).collect();
        let texts = || values.iter().map(|value| value.map(|value| value.to_string()));
        vec![
            Arc::new(Int8Array::from(values.to_vec())),
            Arc::new(wide().collect::<Int64Array>()),
            Arc::new(wide().collect::<TimestampMillisecondArray>().with_timezone("UTC")),
            Arc::new(decimals.with_precision_and_scale(5, 2).unwrap()),
            Arc::new(doubles),
            Arc::new(values.iter().map(|v| v.map(|v| v > 0)).collect::<BooleanArray>()),
            Arc::new(texts().collect::<StringArray>()),
            Arc::new(texts().collect::<StringViewArray>()),
        ]
    }

    fn agrees(values: &[Option<i8>], kept: &BooleanArray, from: usize) {
        let columns = columns(values);
        let columns: Vec<ArrayRef> =
            columns.iter().map(|array| array.slice(from, array.len() - from)).collect();
        let kept = kept.slice(from, kept.len() - from);
        for (column, found) in columns.iter().zip(compacted(&columns, &kept).unwrap()) {
            assert_eq!(&found, &filter(column, &kept).unwrap(), "{}", column.data_type());
        }
    }

    #[test]
    fn every_number_of_rows_and_every_end_of_a_block_is_met() {
        for rows in [0, 1, 63, 64, 65, 127, 128, 129, 1_000] {
            let values: Vec<Option<i8>> =
                (0..rows).map(|row| (row % 7 != 3).then_some((row % 100) as i8)).collect();
            for hole in [1, 2, 10, 64, 65, 2_000] {
                let mask: BooleanArray =
                    (0..rows).map(|row| Some(row % hole != hole - 1)).collect();
                agrees(&values, &mask, 0);
                agrees(&values, &mask, rows.min(3));
            }
        }
    }

    #[test]
    fn a_mask_is_as_long_as_its_columns() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        assert!(compacted([&column], &BooleanArray::from(vec![true])).is_err());
        assert!(compacted([], &BooleanArray::from(vec![true])).unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn it_keeps_what_arrow_keeps(
            rows in prop::collection::vec(
                (prop::option::of(any::<i8>()), prop::option::weighted(0.95, any::<bool>())),
                0..400,
            ),
            keeps_most in any::<bool>(),
            from in 0_usize..70,
        ) {
            let values: Vec<Option<i8>> = rows.iter().map(|(value, _)| *value).collect();
            let mask = rows.iter().enumerate().map(|(row, (_, kept))| {
                kept.map(|kept| kept || (keeps_most && row % 9 != 0))
            });
            agrees(&values, &mask.collect(), from.min(rows.len()));
        }

        #[test]
        fn a_word_is_packed_bit_by_bit(
            word in any::<u64>(),
            one in any::<u64>(),
            two in any::<u64>(),
        ) {
            for mask in [one, one & two, one | two, 0, u64::MAX] {
                let (mut expected, mut at) = (0, 0);
                for bit in (0..64).filter(|bit| (mask >> bit) & 1 == 1) {
                    expected |= ((word >> bit) & 1) << at;
                    at += 1;
                }
                prop_assert_eq!(pack_word(word, mask), expected);
            }
        }
    }
}
