//! From what was gathered to what is released.
//!
//! Epsilon is divided evenly among the aggregates and, where groups come from the data, the number
//! of units by which rare ones are left out; delta is theirs alone. An aggregate without bounds
//! spends half of its part on finding them, once for all groups.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use udfs::privacy::generator::Generator;
use udfs::privacy::noise::bounded::{Bounds, IntegerSum, Moments, RealSum};
use udfs::privacy::noise::bounds::Bins;
use udfs::privacy::noise::quantile::Quantile;
use udfs::privacy::noise::threshold::Threshold;
use udfs::privacy::noise::{Noise, Sensitivity};

use crate::error::{Error, Result};
use crate::private::gather::{Gathered, Group, ROWS_MAX, Values};
use crate::private::options::{Aggregate, Contributions, PER_ROW, Spec, Statistic};

/// So many groups are computed before others may run.
const GROUPS_AT_ONCE: usize = 256;

/// Releases statistics of groups.
///
/// # Errors
/// When bounds make no sense, or none were found.
pub(crate) async fn release(
    spec: &Spec,
    gathered: &Gathered,
    schema: &SchemaRef,
    generator: &mut Generator,
) -> Result<RecordBatch> {
    let noise = Noise::Laplace { epsilon: spec.options.epsilon };
    let parts = spec.aggregates.len() + usize::from(spec.is_thresholded());
    let part = noise.split(u32::try_from(parts).unwrap_or(u32::MAX));
    let groups_max = match (spec.options.contributions, spec.groups) {
        (Contributions::Groups(_), 0) => 1,
        (contributions, _) => contributions.count(),
    };
    let threshold = match (spec.is_thresholded(), spec.options.delta) {
        (true, Some(delta)) => {
            let units_min = spec.options.units_min.map_or(0, u64::from);
            Some(Threshold::new(part, groups_max, delta, units_min)?)
        }
        _ => None,
    };
    if gathered.groups.is_empty() {
        return Ok(RecordBatch::new_empty(Arc::clone(schema)));
    }
    let mut mechanisms = Vec::with_capacity(spec.aggregates.len());
    for (index, aggregate) in spec.aggregates.iter().enumerate() {
        let entries = gathered.groups.iter().filter_map(|group| group.values.get(index));
        let contributions = (spec.options.contributions, groups_max);
        mechanisms.push(Released::new(aggregate, contributions, part, entries, generator)?);
    }
    let mut shown: Vec<&Group> = Vec::new();
    let mut results = vec![Vec::new(); mechanisms.len()];
    for (number, group) in gathered.groups.iter().enumerate() {
        if number % GROUPS_AT_ONCE == GROUPS_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        let is_shown = threshold.is_none_or(|threshold| {
            group.units > 0 && threshold.admit(group.units, generator).is_some()
        });
        if !is_shown {
            continue;
        }
        shown.push(group);
        for ((released, values), results) in mechanisms.iter().zip(&group.values).zip(&mut results)
        {
            results.push(released.of(values, generator));
        }
    }
    batch(spec, gathered, &shown, results, schema)
}

fn batch(
    spec: &Spec,
    gathered: &Gathered,
    shown: &[&Group],
    results: Vec<Vec<Number>>,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = match spec.groups {
        0 => vec![],
        _ => {
            let parser = gathered.keys.parser();
            gathered.keys.convert_rows(shown.iter().map(|group| parser.parse(&group.key)))?
        }
    };
    for numbers in results {
        let of_whole = |number: &Number| matches!(number, Number::Whole(_));
        columns.push(match numbers.first().is_some_and(of_whole) {
            true => Arc::new(Int64Array::from_iter_values(numbers.iter().map(Number::whole))),
            false => Arc::new(Float64Array::from_iter_values(numbers.iter().map(Number::real))),
        });
    }
    // Dictionaries come as their values; and where there is no group, no number tells its type.
    let columns = columns.iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => cast(column, field.data_type()),
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// A number that is released.
#[derive(Debug, Clone, Copy)]
enum Number {
    Whole(i64),
    Real(f64),
}

impl Number {
    fn whole(&self) -> i64 {
        match self {
            Self::Whole(number) => *number,
            // A whole column has none of these.
            Self::Real(_) => 0,
        }
    }

    fn real(&self) -> f64 {
        match self {
            Self::Whole(number) => *number as f64,
            Self::Real(number) => *number,
        }
    }
}

/// A statistic with its noise, for all groups.
enum Released {
    Whole(IntegerSum),
    Sum(RealSum),
    Mean(Moments),
    Variance(Moments),
    Deviation(Moments),
    Quantile(Quantile),
}

impl Released {
    /// The statistic under `noise`; `entries` are those of all groups, for bounds that were not
    /// given.
    fn new<'a>(
        aggregate: &Aggregate,
        (contributions, groups_max): (Contributions, u32),
        noise: Noise,
        entries: impl Iterator<Item = &'a Values> + Clone,
        generator: &mut Generator,
    ) -> Result<Self> {
        let is_of_rows = aggregate.statistic.takes_rows();
        let entries_max = match contributions {
            Contributions::Groups(_) if is_of_rows => ROWS_MAX,
            _ => 1,
        };
        let contribution = Sensitivity::new(groups_max, entries_max, 1.0)?;
        // Counts are as whole as sums of whole numbers; without entries either kind will do.
        let is_whole =
            entries.clone().next().is_some_and(|entry| matches!(entry, Values::Whole(_)));
        let (bounds, noise) = match aggregate.bounds {
            Some((lower, upper)) => (Bounds::new(lower, upper)?, noise),
            None => {
                let half = noise.split(2);
                let bins = match is_whole {
                    true => Bins::for_integers(&contribution, half.epsilon())?,
                    false => Bins::for_reals(&contribution, half.epsilon())?,
                };
                let found = bins.release(entries.flat_map(reals), generator);
                (found.ok_or_else(|| no_bounds(aggregate, contributions))?, half)
            }
        };
        Ok(match aggregate.statistic {
            Statistic::Count => {
                // Nobody has fewer than no rows.
                let lower = match aggregate.bounds {
                    Some(_) => bounds.lower(),
                    None => 0.0,
                };
                Self::Whole(whole(noise, &contribution, lower, bounds.upper())?)
            }
            Statistic::Sum if is_whole => {
                Self::Whole(whole(noise, &contribution, bounds.lower(), bounds.upper())?)
            }
            Statistic::Sum => Self::Sum(RealSum::new(noise, &contribution, bounds)?),
            Statistic::Average => Self::Mean(Moments::for_mean(noise, &contribution, bounds)?),
            Statistic::Variance => {
                Self::Variance(Moments::for_variance(noise, &contribution, bounds)?)
            }
            Statistic::Deviation => {
                Self::Deviation(Moments::for_variance(noise, &contribution, bounds)?)
            }
            Statistic::Quantile(share) => {
                Self::Quantile(Quantile::new(share, bounds, &contribution, noise.epsilon())?)
            }
        })
    }

    /// The statistic of a group.
    fn of(&self, values: &Values, generator: &mut Generator) -> Number {
        match (self, values) {
            (Self::Whole(sum), Values::Whole(values)) => {
                Number::Whole(sum.release(values.iter().copied(), generator))
            }
            // An aggregate has values of one kind in all groups.
            (Self::Whole(_), Values::Real(_)) => Number::Whole(0),
            (Self::Sum(sum), values) => Number::Real(sum.release(reals(values), generator)),
            (Self::Mean(moments), values) => Number::Real(moments.mean(reals(values), generator)),
            (Self::Variance(moments), values) => {
                Number::Real(moments.variance(reals(values), generator))
            }
            (Self::Deviation(moments), values) => {
                Number::Real(moments.variance(reals(values), generator).sqrt())
            }
            (Self::Quantile(quantile), values) => {
                Number::Real(quantile.release(reals(values), generator))
            }
        }
    }
}

fn whole(noise: Noise, contribution: &Sensitivity, lower: f64, upper: f64) -> Result<IntegerSum> {
    // `as` saturates; bounds between whole numbers hold for the whole numbers within.
    let bounds = (lower.ceil() as i64, upper.floor() as i64);
    if bounds.0 > bounds.1 || bounds == (0, 0) {
        return Err(Error::invalid_hint(
            format!("no whole number but 0 lies between {lower} and {upper}"),
            "counts and sums of whole numbers need bounds that are whole numbers, as (0, 10)",
        ));
    }
    Ok(IntegerSum::new(noise, contribution, bounds.0, bounds.1)?)
}

fn reals(values: &Values) -> Box<dyn Iterator<Item = f64> + '_> {
    match values {
        Values::Whole(values) => Box::new(values.iter().map(|value| *value as f64)),
        Values::Real(values) => Box::new(values.iter().copied()),
    }
}

/// That there are none may be said: it was found privately.
fn no_bounds(aggregate: &Aggregate, contributions: Contributions) -> Error {
    let argument = match aggregate.statistic.takes_rows() {
        true => PER_ROW,
        false => contributions.bounds_argument(),
    };
    Error::Execution {
        what: "too few persons contribute to find bounds privately".into(),
        hint: Some(format!("give them: {argument} => (0, 100), or spend more epsilon")),
    }
}

/// The types that results have: whole numbers or doubles.
pub(crate) fn result_types(spec: &Spec, schema: &SchemaRef) -> Vec<DataType> {
    schema.fields().iter().skip(spec.groups).map(|field| field.data_type().clone()).collect()
}
