//! One kernel for both ways in which the engine runs an aggregate.
//!
//! A [`Kernel`] keeps the state of many groups in flat vectors, so that an aggregate over a million
//! people costs no object each. [`Grouped`] runs it for GROUP BY and [`Single`] for one group at a
//! time: without GROUP BY, and over windows.

use std::fmt::Debug;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::record_batch::RecordBatch;
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, ColumnarValue, EmitTo, GroupsAccumulator};

/// The state of an aggregate for groups numbered from zero.
pub(crate) trait Kernel: Debug + Send + Sync + Sized + 'static {
    /// A kernel of the same options without any group.
    ///
    /// # Errors
    /// Those of making one.
    fn fresh(&self) -> Result<Self>;

    /// Makes room for `groups` in all.
    fn grow(&mut self, groups: usize);

    /// How many groups there are.
    fn groups(&self) -> usize;

    /// Takes rows of the arguments.
    ///
    /// # Errors
    /// When a column is not of the type that was planned.
    fn update(&mut self, values: &[ArrayRef], rows: Rows<'_>) -> Result<()>;

    /// Takes rows of another kernel's state.
    ///
    /// # Errors
    /// When a column is not of the state's type.
    fn merge(&mut self, states: &[ArrayRef], rows: Rows<'_>) -> Result<()>;

    /// The answers of the first `groups`.
    ///
    /// # Errors
    /// When the answer does not fit into an array.
    fn answers(&self, groups: usize) -> Result<ArrayRef>;

    /// The states of the first `groups`, one column a field.
    ///
    /// # Errors
    /// When the state does not fit into an array.
    fn states(&self, groups: usize) -> Result<Vec<ArrayRef>>;

    /// Removes the first `groups`; those that follow are numbered from zero again.
    fn forget(&mut self, groups: usize);

    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize;
}

/// Which rows of a batch count, and for which group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    count: usize,
    groups: Option<&'a [usize]>,
    filter: Option<&'a BooleanArray>,
}

impl<'a> Rows<'a> {
    /// Every row of `count`, for one group.
    pub(crate) fn all(count: usize) -> Self {
        Self { count, groups: None, filter: None }
    }

    /// Pairs of row and group.
    pub(crate) fn iter(self) -> impl Iterator<Item = (usize, usize)> + 'a {
        let Self { count, groups, filter } = self;
        let kept = move |row: &usize| {
            filter.is_none_or(|filter| filter.is_valid(*row) && filter.value(*row))
        };
        let group = move |row| groups.map_or(0, |groups: &[usize]| groups[row]);
        (0..count).filter(kept).map(move |row| (row, group(row)))
    }
}

/// What the aggregates over a [`Kernel`] have in common: how they are made, and the methods of
/// `AggregateUDFImpl` that do not differ. `own` is the rest of the implementation; the kernel is
/// made by `planned(&AccumulatorArgs)`.
macro_rules! kernel_aggregate {
    ($type:ident, $name:expr, $kernel:ident, { $($own:tt)* }) => {
        impl $type {
            /// The aggregate.
            pub fn new() -> Self {
                let volatility = datafusion_expr::Volatility::Immutable;
                Self { signature: datafusion_expr::Signature::user_defined(volatility) }
            }
        }

        impl Default for $type {
            fn default() -> Self {
                Self::new()
            }
        }

        impl datafusion_expr::AggregateUDFImpl for $type {
            $($own)*

            fn name(&self) -> &str {
                $name
            }

            fn signature(&self) -> &datafusion_expr::Signature {
                &self.signature
            }

            fn accumulator(
                &self,
                args: datafusion_expr::function::AccumulatorArgs,
            ) -> datafusion_common::Result<Box<dyn datafusion_expr::Accumulator>> {
                $crate::features::groups::refuse_distinct($name, &args)?;
                Ok(Box::new($crate::features::groups::Single::new($kernel::planned(&args)?)))
            }

            fn groups_accumulator_supported(
                &self,
                args: datafusion_expr::function::AccumulatorArgs,
            ) -> bool {
                !args.is_distinct
            }

            fn create_groups_accumulator(
                &self,
                args: datafusion_expr::function::AccumulatorArgs,
            ) -> datafusion_common::Result<Box<dyn datafusion_expr::GroupsAccumulator>> {
                Ok(Box::new($crate::features::groups::Grouped($kernel::planned(&args)?)))
            }

            fn order_sensitivity(&self) -> datafusion_expr::utils::AggregateOrderSensitivity {
                datafusion_expr::utils::AggregateOrderSensitivity::Insensitive
            }

            fn supports_null_handling_clause(&self) -> bool {
                false
            }

            fn documentation(&self) -> Option<&datafusion_expr::Documentation> {
                self.doc()
            }
        }
    };
}

pub(crate) use kernel_aggregate;

/// A kernel under GROUP BY.
#[derive(Debug)]
pub(crate) struct Grouped<K>(pub(crate) K);

impl<K: Kernel> Grouped<K> {
    fn emitted(&self, emit_to: EmitTo) -> usize {
        match emit_to {
            EmitTo::All => self.0.groups(),
            EmitTo::First(groups) => groups.min(self.0.groups()),
        }
    }
}

impl<K: Kernel> GroupsAccumulator for Grouped<K> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.0.grow(total_num_groups);
        let count = group_indices.len();
        self.0.update(values, Rows { count, groups: Some(group_indices), filter: opt_filter })
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = self.emitted(emit_to);
        let answers = self.0.answers(groups)?;
        self.0.forget(groups);
        Ok(answers)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.emitted(emit_to);
        let states = self.0.states(groups)?;
        self.0.forget(groups);
        Ok(states)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.0.grow(total_num_groups);
        let count = group_indices.len();
        self.0.merge(values, Rows { count, groups: Some(group_indices), filter: None })
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let count = values.first().map_or(0, Array::len);
        let each: Vec<usize> = (0..count).collect();
        let mut kernel = self.0.fresh()?;
        kernel.grow(count);
        kernel.update(values, Rows { count, groups: Some(&each), filter: opt_filter })?;
        kernel.states(count)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.heap_bytes()
    }
}

/// A kernel of one group.
#[derive(Debug)]
pub(crate) struct Single<K>(K);

impl<K: Kernel> Single<K> {
    /// Gives a kernel its one group.
    pub(crate) fn new(mut kernel: K) -> Self {
        kernel.grow(1);
        Self(kernel)
    }
}

impl<K: Kernel> Accumulator for Single<K> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update(values, Rows::all(values.first().map_or(0, Array::len)))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.0.answers(1)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.heap_bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let states = self.0.states(1)?;
        states.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge(states, Rows::all(states.first().map_or(0, Array::len)))
    }
}

/// Refuses DISTINCT, which would change what these aggregates count.
///
/// # Errors
/// When DISTINCT was asked for.
pub(crate) fn refuse_distinct(name: &str, args: &AccumulatorArgs) -> Result<()> {
    if args.is_distinct {
        return plan_err!(
            "{name} does not take DISTINCT: every row is an event. Hint: SELECT DISTINCT in a \
             subquery"
        );
    }
    Ok(())
}

/// The constant argument at `position`; `None` when the call has no such argument.
///
/// # Errors
/// When it is a column or an expression of one.
pub(crate) fn constant(
    name: &str,
    args: &AccumulatorArgs,
    position: usize,
    what: &str,
) -> Result<Option<ScalarValue>> {
    let Some(expression) = args.exprs.get(position) else { return Ok(None) };
    // A constant evaluates to itself over no rows; a column gives a column, or fails.
    let nothing = RecordBatch::new_empty(args.schema.clone().into());
    match expression.evaluate(&nothing) {
        Ok(ColumnarValue::Scalar(value)) => Ok(Some(value)),
        _ => plan_err!("{name}: {what} must be a constant, not a column or an expression of one"),
    }
}

/// The type of the argument at `position`.
///
/// # Errors
/// When the call has no such argument.
pub(crate) fn argument_type<'a>(
    name: &str,
    args: &'a AccumulatorArgs,
    position: usize,
) -> Result<&'a arrow::datatypes::DataType> {
    match args.expr_fields.get(position) {
        Some(field) => Ok(field.data_type()),
        None => exec_err!("{name} misses argument {}", position + 1),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Runs a kernel as the engine does.

    use super::*;

    /// The answer for one group, asserted to be the same in one stage, in batches, and in three
    /// partitions of which one is empty.
    pub(crate) fn aggregate<K: Kernel>(kernel: &K, columns: &[ArrayRef]) -> ScalarValue {
        let single = || Single::new(kernel.fresh().unwrap());
        let rows = columns[0].len();
        let part = |from: usize, count: usize| -> Vec<ArrayRef> {
            columns.iter().map(|column| column.slice(from, count)).collect()
        };
        let mut whole = single();
        whole.update_batch(columns).unwrap();
        let answer = whole.evaluate().unwrap();
        assert_eq!(answer, whole.evaluate().unwrap(), "evaluate does not consume");
        let mut batches = single();
        (0..rows).for_each(|row| batches.update_batch(&part(row, 1)).unwrap());
        assert_eq!(batches.evaluate().unwrap(), answer, "in batches");
        let mut merged = single();
        for (from, count) in [(0, rows / 3), (rows / 3, 0), (rows / 3, rows - rows / 3)] {
            let mut stage = single();
            stage.update_batch(&part(from, count)).unwrap();
            let state: Vec<ArrayRef> =
                stage.state().unwrap().iter().map(|state| state.to_array().unwrap()).collect();
            merged.merge_batch(&state).unwrap();
        }
        assert_eq!(merged.evaluate().unwrap(), answer, "merged");
        assert!(merged.size() > 0);
        answer
    }

    /// Checks that GROUP BY gives what each group alone gives: in one stage, through states of
    /// groups and of single rows, and when groups are emitted early.
    pub(crate) fn check_groups<K: Kernel>(kernel: &K, columns: &[ArrayRef], groups: &[usize]) {
        let count = groups.iter().max().map_or(0, |last| last + 1);
        let fresh = || Grouped(kernel.fresh().unwrap());
        let alone: Vec<ScalarValue> = (0..count)
            .map(|group| {
                let keep: BooleanArray = groups.iter().map(|&of| Some(of == group)).collect();
                let rows: Vec<ArrayRef> = columns
                    .iter()
                    .map(|column| arrow::compute::filter(column, &keep).unwrap())
                    .collect();
                aggregate(kernel, &rows)
            })
            .collect();
        let check = |answers: ArrayRef, from: usize, what: &str| {
            for row in 0..answers.len() {
                let answer = ScalarValue::try_from_array(&answers, row).unwrap();
                assert_eq!(answer, alone[from + row], "group {}, {what}", from + row);
            }
        };
        let mut whole = fresh();
        whole.update_batch(columns, groups, None, count).unwrap();
        let grown = whole.size();
        let first = whole.evaluate(EmitTo::First(count / 2)).unwrap();
        let rest = whole.evaluate(EmitTo::All).unwrap();
        assert_eq!((first.len(), rest.len()), (count / 2, count - count / 2));
        assert!(whole.size() <= grown, "emitted groups are given back");
        check(first, 0, "emitted first");
        check(rest, count / 2, "emitted last");
        let mut stage = fresh();
        stage.update_batch(columns, groups, None, count).unwrap();
        let mut merged = fresh();
        let numbers: Vec<usize> = (0..count).collect();
        merged.merge_batch(&stage.state(EmitTo::All).unwrap(), &numbers, count).unwrap();
        check(merged.evaluate(EmitTo::All).unwrap(), 0, "merged");
        let mut rows = fresh();
        let states = rows.convert_to_state(columns, None).unwrap();
        rows.merge_batch(&states, groups, count).unwrap();
        check(rows.evaluate(EmitTo::All).unwrap(), 0, "from rows");
        let none: BooleanArray = groups.iter().map(|_| None::<bool>).collect();
        let mut filtered = fresh();
        filtered.update_batch(columns, groups, Some(&none), count).unwrap();
        assert_eq!(filtered.evaluate(EmitTo::All).unwrap().null_count(), count, "all filtered");
    }
}
