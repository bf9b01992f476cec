//! What the query of checks makes of floats: the same, in whatever parts its rows are read.
//!
//! Sums, averages and deviations are put together from those of files, partitions and batches. What
//! overflows meanwhile depends on these: 1e308 + 1e308 - 1e308 is infinite, or 1e308; the deviation
//! of 1e200 and 1e200 is 0, or NaN where the state of one is merged into that of no rows, of which
//! the mean counts as far away. So [`WithoutOverflow`] accumulates each value twice: as it is, and
//! multiplied by 2⁻⁶⁰⁰, where the squares of the largest differences and 2¹²⁸ times as much are
//! numbers still. The first counts where it gives a finite number, which no overflow is in. Else
//! the second does, times 2⁶⁰⁰ (a variance, twice): what is too small for it is nothing beside
//! values that have overflowed.
//!
//! And an aggregate that is NaN is the NaN without a sign: it is greater than every number, while
//! one with a sign, which processors make of infinity less infinity, is less.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::cast::as_float64_array;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::functions::expr_fn::nanvl;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, Aggregate, AggregateUDF, AggregateUDFImpl, Expr, ExprSchemable, LogicalPlan,
    Projection, Signature, lit,
};

use super::aggregation::{Query, call, instead};
use super::pairs::OfPairs;

/// 2⁻⁶⁰⁰, by the bits of its exponent: a product with it is exact.
const SMALL: f64 = f64::from_bits((1_023 - 600) << 52);

/// The query of checks, over aggregates that do not depend on how rows are read.
///
/// # Errors
/// When the query cannot be put together again, which is a defect.
pub(super) fn however_read(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let Some(Query { projection, aggregate }) = Query::of(plan) else { return Ok(plan.clone()) };
    let calls = aggregate.aggr_expr.iter().zip(aggregate.schema.fields());
    let calls = calls.map(|(expr, value)| {
        let Some(function) = call(expr).map(|call| &call.func) else { return expr.clone() };
        let of = WithoutOverflow::of(function, value.data_type()).map(AggregateUDF::from);
        match of.or_else(|| OfPairs::of(function).map(AggregateUDF::from)) {
            Some(of) => instead(expr, &Arc::new(of)),
            None => expr.clone(),
        }
    });
    let calls = calls.collect();
    let (rows, schema) = (Arc::clone(&aggregate.input), Arc::clone(&aggregate.schema));
    let aggregates = Aggregate::try_new_with_schema(rows, vec![], calls, schema)?;
    let answer = projection.expr.iter().map(|expr| one_nan(expr, &aggregate.schema));
    let answer = answer.collect::<Result<Vec<Expr>>>()?;
    let aggregates = Arc::new(LogicalPlan::Aggregate(aggregates));
    let schema = Arc::clone(&projection.schema);
    let answer = Projection::try_new_with_schema(answer, aggregates, schema)?;
    Ok(LogicalPlan::Projection(answer))
}

/// An expression over aggregates, each of which is at most one NaN.
fn one_nan(expr: &Expr, aggregates: &DFSchema) -> Result<Expr> {
    let one = expr.clone().transform_up(|part| {
        if !matches!(part, Expr::Column(_)) {
            return Ok(Transformed::no(part));
        }
        let nan = match part.get_type(aggregates)? {
            DataType::Float64 => lit(f64::NAN),
            DataType::Float32 => lit(f32::NAN),
            _ => return Ok(Transformed::no(part)),
        };
        Ok(Transformed::yes(nanvl(part, nan)))
    })?;
    Ok(one.data)
}

/// An aggregate of floats, under its own name, of which no value overflows that it does not have.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WithoutOverflow {
    of: Arc<AggregateUDF>,
    /// By which power of the values it grows.
    power: u8,
}

impl WithoutOverflow {
    /// `None` of an aggregate that has none of it, or whose value is no float.
    fn of(function: &Arc<AggregateUDF>, value: &DataType) -> Option<Self> {
        let power = match function.name() {
            "sum" | "avg" | "stddev" | "stddev_pop" => 1,
            "var" | "var_pop" => 2,
            _ => return None,
        };
        (*value == DataType::Float64).then(|| Self { of: Arc::clone(function), power })
    }
}

impl AggregateUDFImpl for WithoutOverflow {
    fn name(&self) -> &str {
        self.of.name()
    }

    fn signature(&self) -> &Signature {
        self.of.signature()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.of.coerce_types(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.of.return_type(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let fields = self.of.state_fields(arguments)?;
        let small = fields.iter().map(|field| {
            let name = format!("{} of small values", field.name());
            Arc::new(field.as_ref().clone().with_name(name))
        });
        Ok(fields.iter().cloned().chain(small).collect())
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let values = self.of.accumulator(arguments.clone())?;
        let small = self.of.accumulator(arguments)?;
        Ok(Box::new(Both { values, small, power: self.power }))
    }
}

/// What values give, and what they give multiplied by [`SMALL`].
#[derive(Debug)]
struct Both {
    values: Box<dyn Accumulator>,
    small: Box<dyn Accumulator>,
    power: u8,
}

impl Accumulator for Both {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.update_batch(values)?;
        let small = values.iter().map(|values| {
            let values = as_float64_array(values)?;
            Ok(Arc::new(values.unary::<_, Float64Type>(|value| value * SMALL)) as ArrayRef)
        });
        self.small.update_batch(&small.collect::<Result<Vec<ArrayRef>>>()?)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, small) = states.split_at(states.len() / 2);
        self.values.merge_batch(values)?;
        self.small.merge_batch(small)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut state = self.values.state()?;
        state.extend(self.small.state()?);
        Ok(state)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.values.evaluate()?;
        if !matches!(value, ScalarValue::Float64(Some(value)) if !value.is_finite()) {
            return Ok(value);
        }
        let ScalarValue::Float64(small) = self.small.evaluate()? else { return Ok(value) };
        let grown = |small: f64| (0..self.power).fold(small, |value, _| value / SMALL);
        Ok(ScalarValue::Float64(small.map(grown)))
    }

    fn size(&self) -> usize {
        self.values.size() + self.small.size()
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::SQRT_2;

    use arrow::array::Float64Array;
    use arrow::datatypes::{Field, Schema};
    use datafusion::functions_aggregate::average::avg_udaf;
    use datafusion::functions_aggregate::stddev::{stddev_pop_udaf, stddev_udaf};
    use datafusion::functions_aggregate::sum::sum_udaf;
    use datafusion::functions_aggregate::variance::{var_pop_udaf, var_samp_udaf};
    use datafusion::physical_expr::PhysicalExpr;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::col;

    use super::*;

    fn accumulator(function: &Arc<AggregateUDF>) -> Box<dyn Accumulator> {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
        let function = WithoutOverflow::of(function, &DataType::Float64).unwrap();
        let arguments: Vec<Arc<dyn PhysicalExpr>> = vec![col("x", &schema).unwrap()];
        let builder = AggregateExprBuilder::new(Arc::new(function.into()), arguments);
        builder.schema(schema).alias("value").build().unwrap().create_accumulator().unwrap()
    }

    /// Values, as they are read.
    type Parts<'a> = &'a [&'a [f64]];

    /// The aggregate of values that are read in parts.
    fn read(function: &Arc<AggregateUDF>, parts: Parts<'_>) -> Option<f64> {
        let mut all = accumulator(function);
        for part in parts {
            let mut of_part = accumulator(function);
            of_part.update_batch(&[Arc::new(Float64Array::from(part.to_vec()))]).unwrap();
            let state = of_part.state().unwrap();
            let state: Vec<ArrayRef> = state.iter().map(|part| part.to_array().unwrap()).collect();
            all.merge_batch(&state).unwrap();
        }
        match all.evaluate().unwrap() {
            ScalarValue::Float64(value) => value,
            other => panic!("{other}"),
        }
    }

    fn is_same(one: Option<f64>, other: Option<f64>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => {
                one == other
                    || (one.is_nan() && other.is_nan())
                    || (one - other).abs() < 1e-12 * other.abs()
            }
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    #[test]
    fn parts_in_any_order_make_the_whole() {
        const INF: f64 = f64::INFINITY;
        // 2¹⁰²³, of which no double is the double.
        let half = f64::from_bits(2_046 << 52);
        let [sum, avg] = [sum_udaf(), avg_udaf()];
        let [stddev, stddev_pop] = [stddev_udaf(), stddev_pop_udaf()];
        let [var, var_pop] = [var_samp_udaf(), var_pop_udaf()];
        let cases: [(&Arc<AggregateUDF>, Parts<'_>, Option<f64>); 17] = [
            (&sum, &[&[half], &[half], &[-half]], Some(half)),
            (&sum, &[&[half], &[half], &[]], Some(INF)),
            (&sum, &[&[INF], &[-INF]], Some(f64::NAN)),
            (&sum, &[&[], &[]], None),
            (&sum, &[&[0.25, 0.5], &[4.0]], Some(4.75)),
            (&avg, &[&[half, half], &[], &[half], &[half]], Some(half)),
            (&avg, &[&[INF], &[1.0]], Some(INF)),
            (&stddev, &[&[1e200], &[], &[1e200]], Some(0.0)),
            (&stddev, &[&[1e308], &[-1e308]], Some(1e308 * SQRT_2)),
            (&stddev, &[&[INF], &[1.0, 2.0]], Some(f64::NAN)),
            (&stddev, &[&[INF], &[]], None),
            (&stddev_pop, &[&[1e308], &[-1e308]], Some(1e308)),
            (&var, &[&[1e308], &[-1e308]], Some(INF)),
            (&var, &[&[f64::NAN], &[1.0, 2.0], &[1e308]], Some(f64::NAN)),
            (&var, &[&[1.0, 2.0], &[3.0]], Some(1.0)),
            (&var_pop, &[&[], &[INF]], Some(0.0)),
            (&var_pop, &[&[1e-200], &[-1e-200]], Some(0.0)),
        ];
        for (function, parts, expected) in cases {
            let mut parts = parts.to_vec();
            for _ in 0..parts.len() {
                let found = read(function, &parts);
                assert!(is_same(found, expected), "{} {parts:?}: {found:?}", function.name());
                let found = read(function, &[parts.concat().as_slice()]);
                assert!(is_same(found, expected), "{} {parts:?}: {found:?}", function.name());
                parts.rotate_left(1);
            }
        }
    }
}
