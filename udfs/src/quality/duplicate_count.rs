//! `duplicate_count(value [, …])`: rows that repeat what another row has.
//!
//! Rows with a value, less the different values: 0 says that the column is unique. With several
//! columns their combination counts. A row with a NULL is left out, as by SQL's UNIQUE; NaN equals
//! NaN and -0 equals 0, but for floats inside of structs and lists.
//!
//! One number or time of up to 64 bits is compared by its bits, everything else by 128 bits of
//! hash, by which two of a billion different values are taken for one with a chance below 10⁻²⁰.
//! Values are kept in a flat vector and sorted in the end, each partition its own, which takes less
//! memory and time than a hash table of a unique column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt64Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Float32Type, Float64Type, Int64Type, UInt64Type,
};
use datafusion_common::hash_utils::{RandomState, create_hashes};
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::utils::AggregateOrderSensitivity;
use datafusion_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility};
use datafusion_macros::user_doc;

const NAME: &str = "duplicate_count";
/// The seeds of the two hashes that make 128 bits: every server and partition has the same.
const SEEDS: [u64; 2] = [0x5bd1_e995_7f4a_7c15, 0x2545_f491_4f6c_dd1d];

/// The aggregate `duplicate_count`.
#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "How many rows repeat what another row has: rows with a value less the different \
values, so 0 says that the column is unique. Several columns count by their combination. Rows with \
a NULL are left out.",
    syntax_example = "duplicate_count(value [, ...])",
    sql_example = r#"```sql
> SELECT duplicate_count(mail) AS repeated
  FROM (VALUES ('ann@x.org'), ('bob@x.org'), ('ann@x.org'), (NULL), (NULL)) AS t (mail);
+----------+
| repeated |
+----------+
| 1        |
+----------+
```"#,
    argument(name = "value", description = "One or more columns of any type.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DuplicateCount {
    signature: Signature,
}

impl DuplicateCount {
    /// The aggregate.
    pub fn new() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl Default for DuplicateCount {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for DuplicateCount {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        if arg_types.is_empty() {
            return plan_err!("{NAME} needs at least one column");
        }
        Ok(DataType::Int64)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("{NAME} does not take DISTINCT: no value would be repeated");
        }
        let plain = match args.expr_fields {
            [field] => plain_type(field.data_type()),
            _ => false,
        };
        Ok(Box::new(match plain {
            true => Values::Plain(Vec::new()),
            false => Values::Hashed(Vec::new()),
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = DataType::new_list(DataType::UInt64, true);
        Ok(vec![Arc::new(Field::new(format!("{}[values]", args.name), list, true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn supports_null_handling_clause(&self) -> bool {
        false
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

/// Whether the bits of a value are the value.
pub(super) fn plain_type(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Float32
                | DataType::Float64
                | DataType::Date32
                | DataType::Date64
                | DataType::Timestamp(..)
        )
}

/// The values seen so far, all of one kind.
#[derive(Debug)]
enum Values {
    Plain(Vec<u64>),
    Hashed(Vec<[u64; 2]>),
}

/// Values less different values; sorts them.
fn repeated<T: Ord>(values: &mut [T]) -> usize {
    // The stable sort finds the sorted runs that partitions bring, and merges them.
    values.sort();
    values.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

impl Accumulator for Values {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let nulls = nulls(columns);
        match (self, columns) {
            (Self::Plain(seen), [column]) => add_valid(seen, &bits(column)?, nulls.as_ref()),
            (Self::Plain(_), _) => return exec_err!("{NAME} misses its column"),
            (Self::Hashed(seen), columns) => add_valid(seen, &hashes(columns)?, nulls.as_ref()),
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let repeated = match self {
            Self::Plain(seen) => repeated(seen),
            Self::Hashed(seen) => repeated(seen),
        };
        Ok(ScalarValue::Int64(Some(i64::try_from(repeated).unwrap_or(i64::MAX))))
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + match self {
                Self::Plain(seen) => seen.capacity() * size_of::<u64>(),
                Self::Hashed(seen) => seen.capacity() * size_of::<[u64; 2]>(),
            }
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<u64> = match self {
            Self::Plain(seen) => {
                seen.sort_unstable();
                std::mem::take(seen)
            }
            Self::Hashed(seen) => {
                seen.sort_unstable();
                std::mem::take(seen).into_flattened()
            }
        };
        let Ok(length) = i32::try_from(values.len()) else {
            return exec_err!("{NAME}: a partition has more than {} values", i32::MAX);
        };
        let item = Arc::new(Field::new_list_field(DataType::UInt64, true));
        let offsets = OffsetBuffer::new(vec![0, length].into());
        let list = ListArray::try_new(item, offsets, Arc::new(UInt64Array::from(values)), None)?;
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(lists) = states.first().and_then(|state| state.as_list_opt::<i32>()) else {
            return exec_err!("{NAME}: a partial aggregate carries no values");
        };
        for list in lists.iter().flatten() {
            let Some(values) = list.as_primitive_opt::<UInt64Type>() else {
                return exec_err!("{NAME}: a partial aggregate carries other values");
            };
            match self {
                Self::Plain(seen) => seen.extend_from_slice(values.values()),
                Self::Hashed(seen) => seen.extend_from_slice(values.values().as_chunks::<2>().0),
            }
        }
        Ok(())
    }
}

/// The rows in which a column is NULL.
pub(super) fn nulls(columns: &[ArrayRef]) -> Option<NullBuffer> {
    columns.iter().fold(None, |nulls: Option<NullBuffer>, column| {
        NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref())
    })
}

/// 128 bits of hash for each row; those of a row with NULL are anything.
pub(super) fn hashes(columns: &[ArrayRef]) -> Result<Vec<[u64; 2]>> {
    let columns: Vec<ArrayRef> = columns.iter().map(one_nan).collect();
    let rows = columns.first().map_or(0, Array::len);
    let mut hashes = [vec![0; rows], vec![0; rows]];
    for (hashes, seed) in hashes.iter_mut().zip(SEEDS) {
        create_hashes(&columns, &RandomState::with_seed(seed), hashes)?;
    }
    let [one, other] = hashes;
    Ok(one.into_iter().zip(other).map(|(one, other)| [one, other]).collect())
}

/// Floats with one NaN, which hashing tells apart by its bits.
fn one_nan(column: &ArrayRef) -> ArrayRef {
    if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
        let one = |value: f64| if value.is_nan() { f64::NAN } else { value };
        return Arc::new(floats.unary::<_, Float64Type>(one));
    }
    if let Some(floats) = column.as_primitive_opt::<Float32Type>() {
        let one = |value: f32| if value.is_nan() { f32::NAN } else { value };
        return Arc::new(floats.unary::<_, Float32Type>(one));
    }
    Arc::clone(column)
}

pub(super) fn add_valid<T: Copy>(seen: &mut Vec<T>, values: &[T], nulls: Option<&NullBuffer>) {
    match nulls {
        Some(nulls) => seen.extend(nulls.valid_indices().map(|row| values[row])),
        None => seen.extend_from_slice(values),
    }
}

/// The bits of a column of a plain type; those of NULL are anything.
pub(super) fn bits(column: &ArrayRef) -> Result<Vec<u64>> {
    use DataType as T;
    if column.data_type().is_floating() {
        let floats = cast(column, &T::Float64)?;
        let Some(floats) = floats.as_primitive_opt::<Float64Type>() else {
            return exec_err!("{NAME} expects numbers");
        };
        let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 }.to_bits();
        return Ok(floats.values().iter().map(|value| one(*value)).collect());
    }
    if *column.data_type() == T::UInt64 {
        let Some(values) = column.as_primitive_opt::<UInt64Type>() else {
            return exec_err!("{NAME} expects numbers");
        };
        return Ok(values.values().to_vec());
    }
    let whole = match column.data_type() {
        T::Date32 => cast(&cast(column, &T::Int32)?, &T::Int64)?,
        _ => cast(column, &T::Int64)?,
    };
    match whole.as_primitive_opt::<Int64Type>() {
        Some(values) => Ok(values.values().iter().map(|value| value.cast_unsigned()).collect()),
        None => exec_err!("{NAME} expects numbers, got {}", whole.data_type()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    fn of(plain: bool, parts: &[Vec<ArrayRef>]) -> i64 {
        let fresh = || match plain {
            true => Values::Plain(vec![]),
            false => Values::Hashed(vec![]),
        };
        let mut merged = fresh();
        let mut whole = fresh();
        for part in parts {
            let mut stage = fresh();
            stage.update_batch(part).unwrap();
            whole.update_batch(part).unwrap();
            let states: Vec<ArrayRef> =
                stage.state().unwrap().iter().map(|state| state.to_array().unwrap()).collect();
            merged.merge_batch(&states).unwrap();
        }
        let answer = merged.evaluate().unwrap();
        assert_eq!(answer, whole.evaluate().unwrap());
        let ScalarValue::Int64(Some(answer)) = answer else { panic!("{answer}") };
        answer
    }

    #[test]
    fn nulls_are_no_duplicates_and_nan_is_one_value() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("a"), None]));
        assert_eq!(of(false, &[vec![Arc::clone(&texts)]]), 1);
        assert_eq!(of(false, &[vec![Arc::clone(&texts)], vec![texts]]), 3);
        let floats: ArrayRef =
            Arc::new(Float64Array::from(vec![f64::NAN, -f64::NAN, 0.0, -0.0, 1.0]));
        assert_eq!(of(true, &[vec![floats]]), 2);
        assert_eq!(of(true, &[]), 0);
    }

    #[test]
    fn columns_count_together() {
        let left: ArrayRef = Arc::new(StringArray::from(vec!["ab", "a", "ab"]));
        let right: ArrayRef = Arc::new(StringArray::from(vec!["c", "bc", "c"]));
        assert_eq!(of(false, &[vec![left, right]]), 1);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(parts in prop::collection::vec(
            prop::collection::vec(prop::option::of(-20..20_i64), 0..40), 1..5)) {
            let present: Vec<i64> = parts.iter().flatten().filter_map(|value| *value).collect();
            let different: BTreeSet<i64> = present.iter().copied().collect();
            let expected = i64::try_from(present.len() - different.len()).unwrap();
            let columns: Vec<Vec<ArrayRef>> = parts
                .iter()
                .map(|part| vec![Arc::new(Int64Array::from(part.clone())) as ArrayRef])
                .collect();
            prop_assert_eq!(of(true, &columns), expected);
            prop_assert_eq!(of(false, &columns), expected);
        }
    }
}
