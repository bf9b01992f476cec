//! From what was gathered to what is released.
//!
//! Epsilon, or the rho of Gaussian noise, is divided evenly among the aggregates and, where groups
//! come from the data, the number of units by which rare ones are left out. An aggregate without
//! bounds spends half of its part on finding them, once for all groups.

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
use crate::private::options::{Aggregate, Contributions, Of, PER_ROW, Spec, Statistic, short};

/// So many groups are computed before others may run.
const GROUPS_AT_ONCE: usize = 256;

/// How an answer is made, as far as no data tells: the parts of epsilon and the sensitivities.
struct Plan {
    part: Noise,
    threshold: Option<Threshold>,
    kinds: Vec<Kind>,
}

impl Plan {
    fn of(spec: &Spec, schema: &SchemaRef) -> Result<Self> {
        let noise = spec.noise()?;
        let parts = spec.aggregates.len() + usize::from(spec.is_thresholded());
        let part = noise.split(u32::try_from(parts).unwrap_or(u32::MAX));
        let contributions = spec.options.contributions;
        let groups_max = match (contributions, spec.groups) {
            (Contributions::Groups(_), 0) => 1,
            _ => contributions.count(),
        };
        let threshold = match spec.is_thresholded() {
            true => {
                let units_min = spec.options.units_min.map_or(0, u64::from);
                Some(Threshold::new(part, groups_max, spec.delta_of_groups(), units_min)?)
            }
            false => None,
        };
        let kinds = result_types(spec, schema).into_iter().map(|result| Kind {
            contributions,
            groups_max,
            is_whole: result == DataType::Int64,
        });
        Ok(Self { part, threshold, kinds: kinds.collect() })
    }
}

/// Checks what can be checked before anybody pays.
///
/// # Errors
/// When bounds or epsilon cannot be used.
pub(crate) fn check(spec: &Spec, schema: &SchemaRef) -> Result<()> {
    let plan = Plan::of(spec, schema)?;
    for (aggregate, kind) in spec.aggregates.iter().zip(&plan.kinds) {
        match aggregate.bounds {
            Some((lower, upper)) => {
                Released::new(aggregate, *kind, plan.part, Bounds::new(lower, upper)?)?;
            }
            None => {
                kind.bins(aggregate, plan.part.split(2))?;
            }
        }
    }
    Ok(())
}

/// Releases statistics of groups.
///
/// # Errors
/// When bounds cannot be used, or none were found.
pub(crate) async fn release(
    spec: &Spec,
    gathered: &Gathered,
    schema: &SchemaRef,
    generator: &mut Generator,
) -> Result<RecordBatch> {
    let plan = Plan::of(spec, schema)?;
    // Also where there is no group: that would be told by an answer that comes where others fail.
    let mut mechanisms = Vec::with_capacity(spec.aggregates.len());
    for (index, (aggregate, kind)) in spec.aggregates.iter().zip(&plan.kinds).enumerate() {
        let (bounds, noise) = match aggregate.bounds {
            Some((lower, upper)) => (Bounds::new(lower, upper)?, plan.part),
            None => {
                let half = plan.part.split(2);
                let entries = gathered.groups.iter().filter_map(|group| group.values.get(index));
                let bins = kind.bins(aggregate, half)?;
                let found = bins.release(entries.flat_map(reals), generator);
                (found.ok_or_else(|| no_bounds(aggregate, kind.contributions))?, half)
            }
        };
        mechanisms.push(Released::new(aggregate, *kind, noise, bounds)?);
    }
    let mut shown: Vec<&Group> = Vec::new();
    let mut results = vec![Vec::new(); mechanisms.len()];
    for (number, group) in gathered.groups.iter().enumerate() {
        if number % GROUPS_AT_ONCE == GROUPS_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        let is_shown = plan.threshold.is_none_or(|threshold| {
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

/// What contributions are like, whichever they are.
#[derive(Debug, Clone, Copy)]
struct Kind {
    contributions: Contributions,
    groups_max: u32,
    /// Whether they are whole numbers, and what is released too.
    is_whole: bool,
}

impl Kind {
    /// By how much a unit changes an aggregate, for contributions of 1.
    fn sensitivity(&self, aggregate: &Aggregate) -> Result<Sensitivity> {
        let (groups_max, entries_max) = match (self.contributions, aggregate.statistic) {
            (Contributions::Groups(_), statistic) if statistic.takes_rows() => {
                (self.groups_max, ROWS_MAX)
            }
            (Contributions::Groups(_), _) => (self.groups_max, 1),
            // Quantiles are chosen group by group, and a row changes that of its own alone: each
            // row has its part of epsilon.
            (Contributions::Rows(_), Statistic::Quantile(_)) => (self.groups_max, 1),
            // All rows of a unit may be in one group, which is then as far away as they are many.
            (Contributions::Rows(rows), _) => (1, rows),
        };
        Ok(Sensitivity::new(groups_max, entries_max, 1.0)?)
    }

    /// What finds the bounds that were not given.
    fn bins(&self, aggregate: &Aggregate, noise: Noise) -> Result<Bins> {
        let contribution = self.sensitivity(aggregate)?;
        Ok(match self.is_whole {
            true => Bins::for_integers(&contribution, noise.epsilon())?,
            false => Bins::for_reals(&contribution, noise.epsilon())?,
        })
    }
}

/// A statistic with its noise, for all groups.
enum Released {
    Whole(IntegerSum),
    Sum(RealSum),
    Mean(Moments),
    Variance(Moments, Of),
    Deviation(Moments, Of),
    Quantile(Quantile),
}

impl Released {
    fn new(aggregate: &Aggregate, kind: Kind, noise: Noise, bounds: Bounds) -> Result<Self> {
        let contribution = kind.sensitivity(aggregate)?;
        Ok(match aggregate.statistic {
            Statistic::Count => {
                // Nobody has fewer than no rows, whatever was found.
                let lower = aggregate.bounds.map_or(0.0, |(lower, _)| lower);
                Self::Whole(whole(noise, &contribution, lower, bounds.upper())?)
            }
            Statistic::Distinct => Self::Whole(whole(noise, &contribution, 0.0, bounds.upper())?),
            Statistic::Sum if kind.is_whole => {
                Self::Whole(whole(noise, &contribution, bounds.lower(), bounds.upper())?)
            }
            Statistic::Sum => Self::Sum(RealSum::new(noise, &contribution, bounds)?),
            Statistic::Average => Self::Mean(Moments::for_mean(noise, &contribution, bounds)?),
            Statistic::Variance(of) => {
                Self::Variance(Moments::for_variance(noise, &contribution, bounds)?, of)
            }
            Statistic::Deviation(of) => {
                Self::Deviation(Moments::for_variance(noise, &contribution, bounds)?, of)
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
            (Self::Whole(sum), Values::Distinct(covered)) => {
                let total = i128::try_from(covered.count()).unwrap_or(i128::MAX);
                Number::Whole(sum.release_total(total, generator))
            }
            // An aggregate has values of one kind in all groups.
            (Self::Whole(_), Values::Real(_)) => Number::Whole(0),
            (Self::Sum(sum), values) => Number::Real(sum.release(reals(values), generator)),
            (Self::Mean(moments), values) => Number::Real(moments.mean(reals(values), generator)),
            (Self::Variance(moments, of), values) => {
                Number::Real(variance(moments, *of, values, generator))
            }
            (Self::Deviation(moments, of), values) => {
                Number::Real(variance(moments, *of, values, generator).sqrt())
            }
            (Self::Quantile(quantile), values) => {
                Number::Real(quantile.release(reals(values), generator))
            }
        }
    }
}

fn variance(moments: &Moments, of: Of, values: &Values, generator: &mut Generator) -> f64 {
    match of {
        Of::Population => moments.variance(reals(values), generator),
        Of::Sample => moments.sample_variance(reals(values), generator),
    }
}

fn whole(noise: Noise, contribution: &Sensitivity, lower: f64, upper: f64) -> Result<IntegerSum> {
    // `as` saturates; bounds between whole numbers hold for the whole numbers within.
    let bounds = (lower.ceil() as i64, upper.floor() as i64);
    if bounds.0 > bounds.1 || bounds == (0, 0) {
        return Err(Error::invalid_hint(
            format!("no whole number but 0 lies between {} and {}", short(lower), short(upper)),
            "counts and sums of whole numbers need bounds that are whole numbers, as (0, 10)",
        ));
    }
    Ok(IntegerSum::new(noise, contribution, bounds.0, bounds.1)?)
}

fn reals(values: &Values) -> Box<dyn Iterator<Item = f64> + '_> {
    match values {
        Values::Whole(values) => Box::new(values.iter().map(|value| *value as f64)),
        Values::Real(values) => Box::new(values.iter().copied()),
        Values::Distinct(_) => Box::new(std::iter::empty()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_of_a_unit_may_be_in_one_group() {
        let of = |contributions: Contributions, statistic: Statistic| {
            let kind = Kind { contributions, groups_max: contributions.count(), is_whole: true };
            let aggregate = Aggregate { statistic, bounds: Some((0.0, 1.0)) };
            let found = kind.sensitivity(&aggregate).unwrap();
            (found.groups_max(), found.entries_max())
        };
        let (rows, groups) = (Contributions::Rows(4), Contributions::Groups(3));
        assert_eq!(of(rows, Statistic::Count), (1, 4));
        assert_eq!(of(rows, Statistic::Variance(Of::Sample)), (1, 4));
        assert_eq!(of(rows, Statistic::Quantile(0.5)), (4, 1));
        assert_eq!(of(groups, Statistic::Distinct), (3, 1));
        assert_eq!(of(groups, Statistic::Quantile(0.5)), (3, ROWS_MAX));
    }
}
