//! What is usual in a column of numbers, and how far from it a value is.
//!
//! Three methods, each with the bound that its authors or habit give it:
//! - z-score, beyond 3: (x − mean) / s with the sample's standard deviation s (n − 1);
//! - MAD, beyond 3.5: 0.6745·(x − median) / MAD (Iglewicz and Hoaglin 1993), MAD being the median
//!   absolute deviation from the median. When more than half of the values are one, MAD is 0 and
//!   the mean absolute deviation takes its place, (x − median) / (1.253314·mean deviation), as they
//!   advise;
//! - IQR, beyond 1.5: how many interquartile ranges outside the quartiles (Tukey 1977), 0 between
//!   them.
//!
//! Quartiles and medians are those of SQL's `percentile_cont`. Values are sorted before they are
//! added up, so that the same values in any order give the same numbers. Where infinite values
//! leave no finite centre and scale, these are of the finite values alone, and the infinite ones
//! are outliers. Values of which a square or a sum would be infinite are made smaller for it.

use std::sync::atomic::AtomicBool;

use super::super::cancel::sort_unless;

/// How the centre and the scale of a column are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// By mean and standard deviation.
    Zscore,
    /// By median and median absolute deviation.
    Mad,
    /// By quartiles.
    Iqr,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Zscore, Self::Mad, Self::Iqr];

    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zscore => "zscore",
            Self::Mad => "mad",
            Self::Iqr => "iqr",
        }
    }

    /// The method of a name, whatever its case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name().eq_ignore_ascii_case(name))
    }

    /// The score beyond which a value is usually taken for an outlier.
    pub fn usual_threshold(self) -> f64 {
        match self {
            Self::Zscore => 3.0,
            Self::Mad => 3.5,
            Self::Iqr => 1.5,
        }
    }
}

/// The quartile of the standard normal distribution: MAD / .6745 estimates a standard deviation.
const NORMAL_QUARTILE: f64 = 0.6745;
/// √(π / 2): the mean absolute deviation times it estimates a standard deviation.
const MEAN_FACTOR: f64 = 1.253_314;
/// From here on squares and sums may be infinite.
const LARGE: f64 = 1e150;
/// 2⁻⁶⁰⁰ and 2⁶⁰⁰, by which a number of usual size is multiplied without rounding.
const SHRINK: f64 = f64::from_bits((1023 - 600) << 52);
const GROW: f64 = f64::from_bits((1023 + 600) << 52);

/// Where the values of a column are, and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The mean of z-scores; else the median.
    pub center: f64,
    /// From where values below are counted: the centre, or the first quartile.
    pub low: f64,
    /// From where values above are counted: the centre, or the third quartile.
    pub high: f64,
    /// A score of 1, in the column's unit; 0 where values do not spread and have no score.
    pub scale: f64,
    /// Whether all values are one: any other is an outlier.
    pub is_constant: bool,
}

impl Spread {
    /// The spread of values without NaN, which are a work space afterwards. `None` where there is
    /// no value, or no centre or no scale that is finite.
    pub fn of(method: Method, values: &mut [f64]) -> Option<Self> {
        Self::sorting(method, values, sort)
    }

    /// [`Spread::of`] of many values, on the current rayon pool, beside as many more. It is wrong,
    /// and soon there, once the flag is set: the caller looks at the flag.
    pub(super) fn of_unless(
        method: Method,
        values: &mut [f64],
        cancel: &AtomicBool,
    ) -> Option<Self> {
        Self::sorting(method, values, |values| sort_unless(values, f64::total_cmp, cancel))
    }

    fn sorting(method: Method, values: &mut [f64], sort: impl Fn(&mut [f64])) -> Option<Self> {
        sort(values);
        let largest = values.first()?.abs().max(values.last()?.abs());
        if largest <= LARGE {
            return Self::of_sorted(method, values, &sort);
        }
        let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        let of_finite = |factor: f64| {
            let mut values: Vec<f64> = finite.iter().map(|value| value * factor).collect();
            Self::of_sorted(method, &mut values, &sort)
        };
        Self::of_sorted(method, values, &sort)
            .or_else(|| of_finite(1.0))
            .or_else(|| of_finite(SHRINK)?.grown())
    }

    /// Of sorted values.
    fn of_sorted(method: Method, values: &mut [f64], sort: &impl Fn(&mut [f64])) -> Option<Self> {
        let (first, last) = (*values.first()?, *values.last()?);
        let (center, low, high, scale) = match method {
            _ if first == last => (first, first, first, 0.0),
            Method::Zscore => {
                let (mean, deviation) = mean_and_deviation(values);
                (mean, mean, mean, deviation)
            }
            Method::Mad => {
                let median = to_deviations(values, sort)?;
                (median, median, median, deviation_scale(values)?)
            }
            Method::Iqr => {
                let [first, median, third] = [0.25, 0.5, 0.75].map(|at| quantile(values, at));
                let (first, third) = (first?, third?);
                (median?, first, third, third - first)
            }
        };
        Self { center, low, high, scale, is_constant: first == last }.known()
    }

    /// The same of values that have been made smaller.
    fn grown(self) -> Option<Self> {
        let [center, low, high, scale] =
            [self.center, self.low, self.high, self.scale].map(|number| number * GROW);
        Self { center, low, high, scale, ..self }.known()
    }

    fn known(self) -> Option<Self> {
        let numbers = [self.center, self.low, self.high, self.scale];
        numbers.iter().all(|number| number.is_finite()).then_some(self)
    }

    /// How many scales a value is above (or, below 0, under) the usual. `None` of NaN and where
    /// values do not spread; but infinite of another value than the one of a constant column.
    pub fn score(&self, value: f64) -> Option<f64> {
        let beyond = match value {
            value if value.is_nan() => return None,
            value if value > self.high => value - self.high,
            value if value < self.low => value - self.low,
            _ => 0.0,
        };
        if self.scale > 0.0 {
            // Two large numbers may be farther apart than there are numbers.
            let is_beyond_numbers = beyond.is_infinite() && value.is_finite();
            let usual = if beyond > 0.0 { self.high } else { self.low };
            return Some(match is_beyond_numbers {
                true => value / self.scale - usual / self.scale,
                false => beyond / self.scale,
            });
        }
        (self.is_constant && beyond != 0.0).then(|| f64::INFINITY.copysign(beyond))
    }

    /// Between which numbers a value is usual, by the score that is still usual. `None` where
    /// values do not spread, unless all are one.
    pub fn bounds(&self, threshold: f64) -> Option<(f64, f64)> {
        let margin = threshold * self.scale;
        let has_bounds = self.scale > 0.0 || self.is_constant;
        // An infinite value is outside of bounds that are beyond all numbers.
        let (lower, upper) = (self.low - margin, self.high + margin);
        has_bounds.then_some((lower.max(f64::MIN), upper.min(f64::MAX)))
    }
}

/// Whether a value is outside of bounds; never of NaN, nor where there are none.
pub fn is_outside(bounds: Option<(f64, f64)>, value: f64) -> bool {
    bounds.is_some_and(|(lower, upper)| value < lower || value > upper)
}

/// The median absolute deviation from the median of values without NaN, which are a work space
/// afterwards. `None` of no values, and where it is not finite.
pub fn median_absolute_deviation(values: &mut [f64]) -> Option<f64> {
    sort(values);
    to_deviations(values, sort)?;
    quantile(values, 0.5).filter(|deviation| deviation.is_finite())
}

/// The third quartile of values without NaN less the first; sorts them. `None` likewise.
pub fn interquartile_range(values: &mut [f64]) -> Option<f64> {
    sort(values);
    let range = quantile(values, 0.75)? - quantile(values, 0.25)?;
    Some(range).filter(|range| range.is_finite())
}

fn sort(values: &mut [f64]) {
    values.sort_unstable_by(f64::total_cmp);
}

/// The quantile of sorted values, between the two nearest when it falls between them, as SQL's
/// `percentile_cont`; `None` of no values.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let below = place.floor();
    let at = below as usize;
    let value = *sorted.get(at)?;
    let next = sorted.get(at + 1).copied().unwrap_or(value);
    let part = place - below;
    Some(if part == 0.0 { value } else { value + (next - value) * part })
}

/// Puts their absolute deviations from the median, sorted, in place of sorted values; gives the
/// median. `None` when that is not finite.
fn to_deviations(values: &mut [f64], sort: impl Fn(&mut [f64])) -> Option<f64> {
    let median = quantile(values, 0.5).filter(|median| median.is_finite())?;
    values.iter_mut().for_each(|value| *value = (*value - median).abs());
    sort(values);
    Some(median)
}

/// What estimates a standard deviation by sorted deviations from the median.
fn deviation_scale(deviations: &[f64]) -> Option<f64> {
    let mad = quantile(deviations, 0.5)?;
    let mean = || deviations.iter().sum::<f64>() / deviations.len() as f64;
    Some(if mad > 0.0 { mad / NORMAL_QUARTILE } else { MEAN_FACTOR * mean() })
}

/// Of two values or more.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    // Two passes: the deviations are taken from the mean itself.
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(method: Method, values: &[f64]) -> Option<Spread> {
        Spread::of(method, &mut values.to_vec())
    }

    #[test]
    fn methods_are_known_by_their_names() {
        for method in Method::ALL {
            assert_eq!(Method::named(&method.name().to_uppercase()), Some(method));
        }
        assert_eq!(Method::named("sigma"), None);
        assert_eq!(Method::ALL.map(Method::usual_threshold), [3.0, 3.5, 1.5]);
    }

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[7.0], 0.25), Some(7.0));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), Some(2.5));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 1.0), Some(4.0));
        assert_eq!(quantile(&[1.0, f64::INFINITY, f64::INFINITY], 1.0), Some(f64::INFINITY));
    }

    #[test]
    fn values_may_be_farther_apart_than_there_are_numbers() {
        let found = spread(Method::Mad, &[1e308, -1e308, 1e308, 0.0, 1.7e308]).unwrap();
        let score = found.score(-1e308).unwrap();
        assert!((score + 0.6745 * 2.0 / 0.7).abs() < 1e-9, "{score}");
        assert_eq!(found.score(f64::NEG_INFINITY), Some(f64::NEG_INFINITY));
    }

    #[test]
    fn scales_are_those_of_the_methods() {
        let values = [9.0, 4.0, 1.0, 3.0, 2.0];
        let zscore = spread(Method::Zscore, &values).unwrap();
        assert!(
            (zscore.center - 3.8).abs() < 1e-12 && (zscore.scale - 9.7_f64.sqrt()).abs() < 1e-12
        );
        let mad = spread(Method::Mad, &values).unwrap();
        assert_eq!((mad.center, mad.low, mad.high, mad.scale), (3.0, 3.0, 3.0, 1.0 / 0.6745));
        let iqr = spread(Method::Iqr, &values).unwrap();
        assert_eq!((iqr.center, iqr.low, iqr.high, iqr.scale), (3.0, 2.0, 4.0, 2.0));
        assert_eq!(iqr.bounds(1.5), Some((-1.0, 7.0)));
        assert_eq!([1.0, 2.5, 9.0].map(|value| iqr.score(value)), [-0.5, 0.0, 2.5].map(Some));
        assert_eq!(median_absolute_deviation(&mut values.to_vec()), Some(1.0));
        assert_eq!(interquartile_range(&mut values.to_vec()), Some(2.0));
        assert_eq!(iqr.score(f64::NAN), None);
    }

    #[test]
    fn the_mean_deviation_counts_when_most_values_are_one() {
        let mad = spread(Method::Mad, &[1.0, 1.0, 1.0, 1.0, 11.0]).unwrap();
        assert_eq!((mad.center, mad.scale), (1.0, MEAN_FACTOR * 2.0));
    }

    #[test]
    fn another_value_than_that_of_a_constant_column_is_an_outlier() {
        for method in Method::ALL {
            // Three times .1 is more than .3: the mean is not .1.
            let constant = spread(method, &[0.1; 3]).unwrap();
            assert!(constant.is_constant && constant.scale == 0.0, "{method:?}");
            assert_eq!(constant.score(0.1), None);
            assert_eq!(constant.score(0.2), Some(f64::INFINITY));
            assert_eq!(constant.score(-0.2), Some(f64::NEG_INFINITY));
            assert_eq!(constant.bounds(3.0), Some((0.1, 0.1)));
            assert!(is_outside(constant.bounds(3.0), 0.2));
            assert!(!is_outside(constant.bounds(3.0), 0.1));
        }
    }

    #[test]
    fn values_without_a_scale_have_no_score() {
        let most = spread(Method::Iqr, &[0.0, 0.0, 0.0, 0.0, 5.0]).unwrap();
        assert_eq!((most.scale, most.is_constant), (0.0, false));
        assert_eq!((most.score(5.0), most.bounds(1.5)), (None, None));
        assert!(!is_outside(None, 5.0));
        for method in Method::ALL {
            assert_eq!(spread(method, &[]), None);
            assert_eq!(spread(method, &[f64::INFINITY; 3]), None);
        }
        assert_eq!(median_absolute_deviation(&mut [1.0, f64::INFINITY]), None);
        assert_eq!(interquartile_range(&mut []), None);
    }

    #[test]
    fn values_too_large_for_a_scale_have_no_spread() {
        let far = [f64::MIN, f64::MIN, 0.0, f64::MAX, f64::MAX];
        assert_eq!(spread(Method::Iqr, &far), None);
    }

    #[test]
    fn large_values_have_the_spread_of_small_ones() {
        let small = [1.0, -1.0, 5.0, 2.0, 2.5];
        for (method, times) in Method::ALL.into_iter().flat_map(|m| [(m, 1e200), (m, 2e307)]) {
            let usual = spread(method, &small).unwrap();
            let large = spread(method, &small.map(|value| value * times)).unwrap();
            for (one, other) in [(usual.center, large.center), (usual.scale, large.scale)] {
                assert!((one - other / times).abs() < 1e-12, "{method:?} {one} {other}");
            }
            let (lower, upper) = large.bounds(1e9).unwrap();
            assert!(lower.is_finite() && upper.is_finite(), "{method:?}");
            assert!(is_outside(Some((lower, upper)), f64::INFINITY));
        }
    }

    #[test]
    fn infinite_values_are_outliers_and_hide_none() {
        for method in Method::ALL {
            let found = spread(method, &[1.0, 2.0, 3.0, 4.0, f64::INFINITY]).unwrap();
            assert_eq!(found.score(f64::INFINITY), Some(f64::INFINITY), "{method:?}");
            assert_eq!(found.score(f64::NEG_INFINITY), Some(f64::NEG_INFINITY));
            assert!(found.score(2.0).unwrap().is_finite());
            assert!(is_outside(found.bounds(3.0), f64::INFINITY));
            let both = spread(method, &[1.0, 2.0, f64::INFINITY, f64::NEG_INFINITY]).unwrap();
            assert!(both.scale > 0.0, "{method:?}");
        }
        let zscore = spread(Method::Zscore, &[1.0, 2.0, 3.0, f64::NEG_INFINITY]).unwrap();
        assert_eq!((zscore.center, zscore.scale), (2.0, 1.0));
        let mad = spread(Method::Mad, &[1.0, 1.0, 1.0, 1.0, f64::INFINITY]).unwrap();
        assert!(mad.is_constant && mad.score(f64::INFINITY) == Some(f64::INFINITY));
    }

    #[test]
    fn many_values_have_the_spread_of_few() {
        let values: Vec<f64> = (0..600_000).map(|n| f64::from(n).sin() * 1e3).collect();
        let go_on = AtomicBool::new(false);
        for method in Method::ALL {
            let found = Spread::of_unless(method, &mut values.clone(), &go_on);
            assert_eq!(found, spread(method, &values), "{method:?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_values_changes_nothing(
            mut values in prop::collection::vec(-1e6_f64..1e6, 1..60),
        ) {
            let before = Method::ALL.map(|method| spread(method, &values));
            values.reverse();
            prop_assert_eq!(before, Method::ALL.map(|method| spread(method, &values)));
        }

        #[test]
        fn bounds_are_where_scores_reach_the_threshold(
            values in prop::collection::vec(-1e3_f64..1e3, 3..60),
        ) {
            for method in Method::ALL {
                let spread = spread(method, &values).unwrap();
                let threshold = method.usual_threshold();
                let Some((lower, upper)) = spread.bounds(threshold) else { continue };
                if spread.scale > 1e-6 {
                    prop_assert!((spread.score(lower).unwrap() + threshold).abs() < 1e-6);
                    prop_assert!((spread.score(upper).unwrap() - threshold).abs() < 1e-6);
                }
            }
        }
    }
}
