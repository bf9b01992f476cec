//! An aggregate's state as its value.
//!
//! What an average or a deviation of a file gives does not make that of the table; what its
//! accumulator holds after the file does: counts, sums, squares. [`StateOf`] is the aggregate whose
//! value is that state, as a struct with a field for each of its parts, in their order.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature,
};

/// The state of an aggregate over rows, as an aggregate of its own.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct StateOf {
    of: Arc<AggregateUDF>,
    name: String,
}

impl StateOf {
    pub(super) fn new(of: Arc<AggregateUDF>) -> Self {
        let name = format!("state_of_{}", of.name());
        Self { of, name }
    }

    /// The parts of the state, by number.
    fn parts(&self, arguments: &[FieldRef]) -> Result<Fields> {
        let parts = self.of.state_fields(StateFieldsArgs {
            name: self.of.name(),
            input_fields: arguments,
            return_field: self.of.return_field(arguments)?,
            ordering_fields: &[],
            is_distinct: false,
        })?;
        let parts = parts.iter().enumerate();
        let parts = parts
            .map(|(number, part)| Field::new(number.to_string(), part.data_type().clone(), true));
        Ok(parts.collect())
    }

    /// What the aggregate itself would be asked for.
    fn asked<'a>(&self, arguments: AccumulatorArgs<'a>) -> Result<AccumulatorArgs<'a>> {
        let return_field = self.of.return_field(arguments.expr_fields)?;
        Ok(AccumulatorArgs { return_field, ..arguments })
    }
}

impl AggregateUDFImpl for StateOf {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        self.of.signature()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.of.coerce_types(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let field = |(number, kind): (usize, &DataType)| {
            Arc::new(Field::new(number.to_string(), kind.clone(), true))
        };
        let arguments: Vec<FieldRef> = arguments.iter().enumerate().map(field).collect();
        Ok(DataType::Struct(self.parts(&arguments)?))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let return_field = self.of.return_field(arguments.input_fields)?;
        self.of.state_fields(StateFieldsArgs { return_field, ..arguments })
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let parts = self.parts(arguments.expr_fields)?;
        Ok(Box::new(State { of: self.of.accumulator(self.asked(arguments)?)?, parts }))
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs<'_>) -> bool {
        self.asked(arguments).is_ok_and(|asked| self.of.groups_accumulator_supported(asked))
    }

    fn create_groups_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let parts = self.parts(arguments.expr_fields)?;
        let of = self.of.create_groups_accumulator(self.asked(arguments)?)?;
        Ok(Box::new(States { of, parts }))
    }
}

/// The state over all rows.
#[derive(Debug)]
struct State {
    of: Box<dyn Accumulator>,
    parts: Fields,
}

impl Accumulator for State {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.of.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.of.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.of.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let parts = self.of.state()?;
        let parts = parts.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
        let state = StructArray::try_new(self.parts.clone(), parts, None)?;
        Ok(ScalarValue::Struct(Arc::new(state)))
    }

    fn size(&self) -> usize {
        self.of.size()
    }
}

/// The states over groups of rows.
struct States {
    of: Box<dyn GroupsAccumulator>,
    parts: Fields,
}

impl GroupsAccumulator for States {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.of.update_batch(values, group_indices, opt_filter, total_num_groups)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.of.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.of.convert_to_state(values, opt_filter)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.of.state(emit_to)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let parts = self.of.state(emit_to)?;
        Ok(Arc::new(StructArray::try_new(self.parts.clone(), parts, None)?))
    }

    fn size(&self) -> usize {
        self.of.size()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Float64Array};
    use arrow::datatypes::Schema;
    use datafusion::functions_aggregate::average::avg_udaf;
    use datafusion::functions_aggregate::stddev::stddev_udaf;
    use datafusion::physical_expr::PhysicalExpr;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::col;

    use super::*;

    #[test]
    fn states_of_parts_make_the_whole() {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
        let values: ArrayRef = Arc::new(Float64Array::from(vec![1.5, 2.0, 4.0, 9.0, 25.5]));
        for function in [avg_udaf(), stddev_udaf()] {
            let accumulator = |function: Arc<AggregateUDF>| {
                let arguments: Vec<Arc<dyn PhysicalExpr>> = vec![col("x", &schema).unwrap()];
                let builder = AggregateExprBuilder::new(function, arguments);
                let built = builder.schema(Arc::clone(&schema)).alias("value").build().unwrap();
                (built.create_accumulator().unwrap(), built)
            };
            let (mut whole, _) = accumulator(Arc::clone(&function));
            whole.update_batch(std::slice::from_ref(&values)).unwrap();
            let state = Arc::new(AggregateUDF::from(StateOf::new(Arc::clone(&function))));
            let parts = [(0, 2), (2, 0), (2, 3)].map(|(at, count)| {
                let (mut part, _) = accumulator(Arc::clone(&state));
                part.update_batch(&[values.slice(at, count)]).unwrap();
                part.evaluate().unwrap()
            });
            let (_, grouped) = accumulator(state);
            assert!(grouped.groups_accumulator_supported());
            let mut groups = grouped.create_groups_accumulator().unwrap();
            let rows = std::slice::from_ref(&values);
            groups.update_batch(rows, &[0, 0, 2, 2, 2], None, 3).unwrap();
            let groups = groups.evaluate(EmitTo::All).unwrap();
            for states in [ScalarValue::iter_to_array(parts).unwrap(), groups] {
                let (mut merged, _) = accumulator(Arc::clone(&function));
                merged.merge_batch(states.as_struct().columns()).unwrap();
                let (merged, whole) = (merged.evaluate().unwrap(), whole.evaluate().unwrap());
                let value = |value: ScalarValue| match value {
                    ScalarValue::Float64(Some(value)) => value,
                    other => panic!("{other}"),
                };
                assert!((value(merged) - value(whole)).abs() < 1e-12, "{}", function.name());
            }
        }
    }
}
