//! What checks make of pairs of floats: correlation, covariance and regression, the same in
//! whatever order and parts their rows are read.
//!
//! The two means, the sums of squared deviations and that of the products of deviations are kept
//! ([Chan et al.](https://doi.org/10.1080/00031305.1983.10483115)) of values that are divided by a
//! power of two, so that the largest seen lies between 1/2 and 1: nothing overflows, and of what is
//! lost nothing is left beside the largest. An infinite value or a NaN in a column that the
//! aggregate looks at makes it NaN.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int32Type, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::common::cast::as_float64_array;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};

/// The exponent of no values but zeros: below that of every float.
const NONE: i32 = -1_100;

/// What is made of pairs; of those of regression, the first value is the dependent one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Measure {
    Correlation,
    Covariance,
    CovarianceOfSample,
    Slope,
    Intercept,
    Determination,
    /// Of the first or second values.
    Mean(usize),
    Squares(usize),
    Products,
}

impl Measure {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "corr" => Self::Correlation,
            "covar_pop" => Self::Covariance,
            "covar_samp" => Self::CovarianceOfSample,
            "regr_slope" => Self::Slope,
            "regr_intercept" => Self::Intercept,
            "regr_r2" => Self::Determination,
            "regr_avgy" => Self::Mean(0),
            "regr_avgx" => Self::Mean(1),
            "regr_syy" => Self::Squares(0),
            "regr_sxx" => Self::Squares(1),
            "regr_sxy" => Self::Products,
            _ => return None,
        })
    }

    /// Whether it looks at the values of a side.
    fn looks_at(self, side: usize) -> bool {
        match self {
            Self::Mean(of) | Self::Squares(of) => of == side,
            _ => true,
        }
    }
}

/// An aggregate of pairs under its own name.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct OfPairs {
    of: Arc<AggregateUDF>,
    measure: Measure,
}

impl OfPairs {
    /// `None` of any other aggregate.
    pub(super) fn of(function: &Arc<AggregateUDF>) -> Option<Self> {
        let measure = Measure::of(function.name())?;
        Some(Self { of: Arc::clone(function), measure })
    }
}

impl AggregateUDFImpl for OfPairs {
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

    fn state_fields(&self, _: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |name: &str, kind: DataType| Arc::new(Field::new(name, kind, true));
        let mut fields = vec![field("count", DataType::UInt64)];
        for side in ["first", "second"] {
            fields.extend([
                field(&format!("{side} is finite"), DataType::Boolean),
                field(&format!("{side} exponent"), DataType::Int32),
                field(&format!("{side} mean"), DataType::Float64),
                field(&format!("{side} squares"), DataType::Float64),
            ]);
        }
        fields.push(field("products", DataType::Float64));
        Ok(fields)
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        // What it cannot do, such as DISTINCT, is its error.
        self.of.accumulator(arguments)?;
        let moments = Moments { count: 0, sides: [Side::NEW; 2], products: 0.0 };
        Ok(Box::new(Pairs { measure: self.measure, moments }))
    }
}

/// The values of one side of the pairs, divided by 2 to the power of `exponent`.
#[derive(Debug, Clone, Copy)]
struct Side {
    is_finite: bool,
    exponent: i32,
    mean: f64,
    /// The sum of the squared deviations from the mean.
    squares: f64,
}

impl Side {
    const NEW: Self = Self { is_finite: true, exponent: NONE, mean: 0.0, squares: 0.0 };

    /// By what the values are multiplied to be those of a larger exponent.
    fn grow(&mut self, exponent: i32) -> f64 {
        if exponent <= self.exponent {
            return 1.0;
        }
        let factor = 2f64.powi(self.exponent - exponent);
        self.mean *= factor;
        self.squares *= factor * factor;
        self.exponent = exponent;
        factor
    }
}

/// The power of two that a value lies below.
fn exponent(value: f64) -> i32 {
    if value == 0.0 {
        return NONE;
    }
    // A number too small to be normal has the exponent of the smallest that is.
    let bits = (value.to_bits() >> 52) & 0x7ff;
    i32::try_from(bits).map_or(NONE, |bits| bits - 1_022)
}

/// A value times 2 to a power that is itself no float.
fn times_power(value: f64, power: i32) -> f64 {
    let third = power / 3;
    value * 2f64.powi(third) * 2f64.powi(third) * 2f64.powi(power - 2 * third)
}

#[derive(Debug, Clone, Copy)]
struct Moments {
    count: u64,
    sides: [Side; 2],
    /// The sum of the products of the deviations, in the units of both sides.
    products: f64,
}

impl Moments {
    /// Other pairs, too.
    fn merge(&mut self, mut other: Self) {
        for side in 0..2 {
            self.products *= self.sides[side].grow(other.sides[side].exponent);
            other.products *= other.sides[side].grow(self.sides[side].exponent);
        }
        let [one, all] = [other.count as f64, (self.count + other.count) as f64];
        let weight = if other.count == 0 { 0.0 } else { one / all * self.count as f64 };
        let mut apart = [0.0; 2];
        for ((side, of_other), apart) in self.sides.iter_mut().zip(other.sides).zip(&mut apart) {
            side.is_finite &= of_other.is_finite;
            *apart = of_other.mean - side.mean;
            side.mean += if other.count == 0 { 0.0 } else { *apart * (one / all) };
            side.squares += of_other.squares + *apart * *apart * weight;
        }
        self.products += other.products + apart[0] * apart[1] * weight;
        self.count += other.count;
    }

    /// A pair; a value that is infinite or NaN is only told.
    fn add(&mut self, pair: [f64; 2]) {
        let side = |value: f64| {
            let is_finite = value.is_finite();
            let exponent = if is_finite { exponent(value) } else { NONE };
            let mean = if is_finite { times_power(value, -exponent) } else { 0.0 };
            Side { is_finite, exponent, mean, squares: 0.0 }
        };
        self.merge(Self { count: 1, sides: pair.map(side), products: 0.0 });
    }

    fn measured(&self, measure: Measure) -> Option<f64> {
        let least = match measure {
            Measure::Covariance | Measure::Mean(_) | Measure::Squares(_) | Measure::Products => 1,
            _ => 2,
        };
        if self.count < least {
            return None;
        }
        if (0..2).any(|side| measure.looks_at(side) && !self.sides[side].is_finite) {
            return Some(f64::NAN);
        }
        let [first, second] = self.sides;
        let both = first.exponent + second.exponent;
        let slope = || (second.squares > 0.0).then(|| self.products / second.squares);
        let spread = first.squares > 0.0 && second.squares > 0.0;
        let correlation = || self.products / first.squares.sqrt() / second.squares.sqrt();
        Some(match measure {
            Measure::Correlation => spread.then(correlation)?,
            Measure::Determination => spread.then(|| correlation().powi(2))?,
            Measure::Covariance => times_power(self.products / self.count as f64, both),
            Measure::CovarianceOfSample => {
                times_power(self.products / (self.count - 1) as f64, both)
            }
            Measure::Slope => times_power(slope()?, first.exponent - second.exponent),
            Measure::Intercept => times_power(first.mean - slope()? * second.mean, first.exponent),
            Measure::Mean(side) => times_power(self.sides[side].mean, self.sides[side].exponent),
            Measure::Squares(side) => {
                times_power(self.sides[side].squares, 2 * self.sides[side].exponent)
            }
            Measure::Products => times_power(self.products, both),
        })
    }
}

#[derive(Debug)]
struct Pairs {
    measure: Measure,
    moments: Moments,
}

impl Accumulator for Pairs {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (first, second) = (as_float64_array(&values[0])?, as_float64_array(&values[1])?);
        for pair in first.iter().zip(second) {
            if let (Some(first), Some(second)) = pair {
                self.moments.add([first, second]);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let side = |first: usize, row: usize| Side {
            is_finite: states[first].as_boolean().value(row),
            exponent: states[first + 1].as_primitive::<Int32Type>().value(row),
            mean: states[first + 2].as_primitive::<Float64Type>().value(row),
            squares: states[first + 3].as_primitive::<Float64Type>().value(row),
        };
        for row in 0..states[0].len() {
            self.moments.merge(Moments {
                count: states[0].as_primitive::<UInt64Type>().value(row),
                sides: [side(1, row), side(5, row)],
                products: states[9].as_primitive::<Float64Type>().value(row),
            });
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut state = vec![ScalarValue::from(self.moments.count)];
        for side in self.moments.sides {
            state.extend([
                ScalarValue::from(side.is_finite),
                ScalarValue::from(side.exponent),
                ScalarValue::from(side.mean),
                ScalarValue::from(side.squares),
            ]);
        }
        state.push(ScalarValue::from(self.moments.products));
        Ok(state)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.moments.measured(self.measure)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    const INF: f64 = f64::INFINITY;
    const NAMES: [&str; 11] = [
        "corr",
        "covar_pop",
        "covar_samp",
        "regr_slope",
        "regr_intercept",
        "regr_r2",
        "regr_avgy",
        "regr_avgx",
        "regr_syy",
        "regr_sxx",
        "regr_sxy",
    ];

    fn is_same(one: Option<f64>, other: Option<f64>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => {
                one == other
                    || (one.is_nan() && other.is_nan())
                    || (one - other).abs() < 1e-9 * other.abs().max(1e-9)
            }
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Pairs, as they are read.
    type Read<'a> = &'a [&'a [[f64; 2]]];

    /// The measure of pairs that are read in parts.
    fn read(measure: Measure, parts: Read<'_>) -> Option<f64> {
        let none = || Moments { count: 0, sides: [Side::NEW; 2], products: 0.0 };
        let mut all = Pairs { measure, moments: none() };
        for part in parts {
            let mut of_part = Pairs { measure, moments: none() };
            part.iter().for_each(|pair| of_part.moments.add(*pair));
            let state = of_part.state().unwrap();
            let state: Vec<ArrayRef> = state.iter().map(|part| part.to_array().unwrap()).collect();
            all.merge_batch(&state).unwrap();
        }
        match all.evaluate().unwrap() {
            ScalarValue::Float64(value) => value,
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn usual_pairs_give_what_the_aggregates_give() {
        let pairs: Vec<[f64; 2]> = (1..60_u32)
            .map(|n| [f64::from(n * n % 37) - 11.0, f64::from(n * 7 % 41) / 3.0 + f64::from(n)])
            .collect();
        let values: Vec<String> = pairs.iter().map(|[y, x]| format!("({y:?}, {x:?})")).collect();
        let context = SessionContext::new();
        for name in NAMES {
            let values = values.join(", ");
            let query = format!("SELECT {name}(y, x) FROM (VALUES {values}) AS t(y, x)");
            let plan = context.state().create_logical_plan(&query).await.unwrap();
            let answer = context.execute_logical_plan(plan).await.unwrap();
            let batches = answer.collect().await.unwrap();
            let expected = as_float64_array(batches[0].column(0)).unwrap().value(0);
            let measure = Measure::of(name).unwrap();
            for parts in [vec![pairs.as_slice()], pairs.chunks(7).collect()] {
                let found = read(measure, &parts);
                assert!(is_same(found, Some(expected)), "{name}: {found:?}, not {expected}");
            }
        }
    }

    #[test]
    fn parts_in_any_order_make_the_whole() {
        let cases: [(&str, Read<'_>, Option<f64>); 15] = [
            ("corr", &[&[[1e200, 1e-200]], &[[2e200, 2e-200]], &[[4e200, 4e-200]]], Some(1.0)),
            ("corr", &[&[[1.0, INF]], &[[2.0, 3.0], [4.0, 1.0]]], Some(f64::NAN)),
            ("corr", &[&[[1.0, 2.0]], &[[1.0, 3.0]], &[]], None),
            ("corr", &[&[[INF, 2.0]]], None),
            ("covar_pop", &[&[[1e200, 1.0]], &[[3e200, 3.0]]], Some(1e200)),
            ("covar_pop", &[&[[1e200, 1e200]], &[[-1e200, -1e200]]], Some(INF)),
            ("covar_samp", &[&[[INF, 1.0]], &[[-INF, 3.0], [1.0, 1.0]]], Some(f64::NAN)),
            ("regr_slope", &[&[[1e300, 1.0]], &[[3e300, 2.0]]], Some(2e300)),
            ("regr_slope", &[&[[1.0, 1e-300]], &[[3.0, 2e-300]], &[]], Some(2e300)),
            ("regr_intercept", &[&[[3e300, 1.0]], &[[5e300, 2.0]]], Some(1e300)),
            ("regr_r2", &[&[[1e-200, 1e200]], &[[2e-200, -1e200]], &[]], Some(1.0)),
            ("regr_avgx", &[&[[INF, 1e308]], &[[1.0, 1.5e308]]], Some(1.25e308)),
            ("regr_avgy", &[&[[INF, 1.0]], &[[1.0, 2.0]]], Some(f64::NAN)),
            ("regr_sxx", &[&[[INF, 1.0]], &[[2.0, 3.0]]], Some(2.0)),
            ("regr_sxy", &[&[[0.0, 0.0]], &[[0.0, 0.0]]], Some(0.0)),
        ];
        for (name, parts, expected) in cases {
            let measure = Measure::of(name).unwrap();
            let mut parts = parts.to_vec();
            for _ in 0..parts.len() {
                let found = read(measure, &parts);
                assert!(is_same(found, expected), "{name} {parts:?}: {found:?}");
                let found = read(measure, &[parts.concat().as_slice()]);
                assert!(is_same(found, expected), "{name} {parts:?}: {found:?}");
                parts.rotate_left(1);
            }
        }
    }
}
