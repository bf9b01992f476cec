//! The kernel of aggregates that look at all numbers of a group: they are held until the end.
//!
//! NULL and NaN do not count. A group's numbers are copied to be answered, so that what answers may
//! sort them; the largest group is therefore counted twice as memory.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion_common::{Result, exec_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};

use crate::features::groups::{Kernel, Rows};

/// What is asked of a group's numbers.
pub(super) trait Question: Clone + Debug + Send + Sync + 'static {
    /// The aggregate's name.
    const NAME: &'static str;

    /// The question of a call.
    ///
    /// # Errors
    /// When its constants are not taken.
    fn planned(args: &AccumulatorArgs) -> Result<Self>;

    /// An answer for each group of numbers.
    ///
    /// # Errors
    /// When Arrow refuses the column.
    fn answers(&self, groups: &[Vec<f64>]) -> Result<ArrayRef>;
}

/// The numbers of each group.
#[derive(Debug, Clone)]
pub(super) struct Held<Q> {
    question: Q,
    groups: Vec<Vec<f64>>,
    /// Bytes of all numbers.
    held_bytes: usize,
    /// Numbers of the largest group so far.
    most: usize,
}

impl<Q: Question> Held<Q> {
    pub(super) fn planned(args: &AccumulatorArgs) -> Result<Self> {
        Ok(Self::new(Q::planned(args)?))
    }

    pub(super) fn new(question: Q) -> Self {
        Self { question, groups: vec![], held_bytes: 0, most: 0 }
    }

    fn hold(&mut self, group: usize, numbers: &[f64]) {
        let held = &mut self.groups[group];
        let before = held.capacity();
        held.extend(numbers.iter().filter(|number| !number.is_nan()));
        self.held_bytes += (held.capacity() - before) * size_of::<f64>();
        self.most = self.most.max(held.len());
    }
}

/// The state: a list of numbers.
pub(super) fn state(args: &StateFieldsArgs) -> Vec<FieldRef> {
    let list = DataType::new_list(DataType::Float64, true);
    vec![Arc::new(Field::new(format!("{}[numbers]", args.name), list, true))]
}

impl<Q: Question> Kernel for Held<Q> {
    fn fresh(&self) -> Result<Self> {
        Ok(Self::new(self.question.clone()))
    }

    fn grow(&mut self, groups: usize) {
        self.groups.resize_with(groups.max(self.groups.len()), Vec::new);
    }

    fn groups(&self) -> usize {
        self.groups.len()
    }

    fn update(&mut self, values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let numbers = values.first().and_then(|values| values.as_primitive_opt::<Float64Type>());
        let Some(numbers) = numbers else { return exec_err!("{} misses its numbers", Q::NAME) };
        for (row, group) in rows.iter().filter(|(row, _)| numbers.is_valid(*row)) {
            self.hold(group, &[numbers.value(row)]);
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let Some(lists) = states.first().and_then(|state| state.as_list_opt::<i32>()) else {
            return exec_err!("{}: a partial aggregate carries no lists", Q::NAME);
        };
        for (row, group) in rows.iter().filter(|(row, _)| lists.is_valid(*row)) {
            let list = lists.value(row);
            match list.as_primitive_opt::<Float64Type>() {
                Some(numbers) => self.hold(group, numbers.values()),
                None => return exec_err!("{}: a partial aggregate has no numbers", Q::NAME),
            }
        }
        Ok(())
    }

    fn answers(&self, groups: usize) -> Result<ArrayRef> {
        self.question.answers(&self.groups[..groups])
    }

    fn states(&self, groups: usize) -> Result<Vec<ArrayRef>> {
        let groups = &self.groups[..groups];
        let mut offsets = vec![0];
        let mut end = 0_usize;
        for numbers in groups {
            end += numbers.len();
            let Ok(offset) = i32::try_from(end) else {
                return exec_err!("{}: a partition has more than {} numbers", Q::NAME, i32::MAX);
            };
            offsets.push(offset);
        }
        let numbers = Float64Array::from_iter_values(groups.iter().flatten().copied());
        let field = Arc::new(Field::new_list_field(DataType::Float64, true));
        let offsets = OffsetBuffer::new(offsets.into());
        Ok(vec![Arc::new(ListArray::try_new(field, offsets, Arc::new(numbers), None)?)])
    }

    fn forget(&mut self, groups: usize) {
        let gone = self.groups.drain(..groups).map(|numbers| numbers.capacity());
        self.held_bytes -= gone.sum::<usize>() * size_of::<f64>();
    }

    fn heap_bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Vec<f64>>()
            + self.held_bytes
            + self.most * size_of::<f64>()
    }
}

/// An aggregate of one column of numbers, whose answer is a number: `$kernel` of it.
macro_rules! number_aggregate {
    ($type:ident, $name:expr, $kernel:ident) => {
        $crate::features::groups::kernel_aggregate!($type, $name, $kernel, {
            fn coerce_types(
                &self,
                arg_types: &[arrow::datatypes::DataType],
            ) -> datafusion_common::Result<Vec<arrow::datatypes::DataType>> {
                $crate::quality::outliers::number($name, arg_types)
            }

            fn return_type(
                &self,
                _arg_types: &[arrow::datatypes::DataType],
            ) -> datafusion_common::Result<arrow::datatypes::DataType> {
                Ok(arrow::datatypes::DataType::Float64)
            }

            fn state_fields(
                &self,
                args: datafusion_expr::function::StateFieldsArgs,
            ) -> datafusion_common::Result<Vec<arrow::datatypes::FieldRef>> {
                Ok($crate::quality::held::state(&args))
            }
        });
    };
}

pub(super) use number_aggregate;
