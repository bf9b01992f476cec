//! Outliers of single columns, by z-score, MAD or IQR: what is usual in each column of the training
//! rows is kept, and the rows of another query are held against it.
//!
//! A row is an outlier when one of its values is outside of the column's bounds; its score is that
//! of the value which is farthest from what is usual in its column, with its sign. NULL is passed
//! over. [`spread`] has the methods, which the window functions and aggregates of quality share.

pub mod spread;

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

pub use self::spread::{Method, Spread};

use self::spread::is_outside;
use super::als::Progress;
use super::cancel::{self, VALUES_PER_LOOK};
use super::error::ModelError;

/// Options of outliers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutlierOptions {
    /// How centre and scale are found.
    pub method: Method,
    /// The score beyond which a value is an outlier; `None` for the method's usual one.
    pub threshold: Option<f64>,
}

impl Default for OutlierOptions {
    fn default() -> Self {
        Self { method: Method::Mad, threshold: None }
    }
}

impl OutlierOptions {
    /// Checks every option's domain.
    ///
    /// # Errors
    /// [`ModelError::Option`] naming the option.
    pub fn validate(&self) -> Result<(), ModelError> {
        match self.threshold {
            Some(threshold) if !is_threshold(threshold) => Err(ModelError::Option {
                option: "threshold",
                value: threshold.to_string(),
                hint: "Give a number above 0; 3 of zscore, 3.5 of mad and 1.5 of iqr are usual",
            }),
            _ => Ok(()),
        }
    }

    /// The score beyond which a value is an outlier.
    pub fn threshold(&self) -> f64 {
        self.threshold.unwrap_or(self.method.usual_threshold())
    }

    /// Peak bytes of training, beside the rows: each value twice to be sorted, and of each row what
    /// it is.
    pub fn memory_bytes(&self, rows: usize, width: usize) -> usize {
        let sorted = rows.saturating_mul(width).saturating_mul(2 * size_of::<f64>());
        sorted.saturating_add(rows.saturating_mul(size_of::<Judged>()))
    }
}

/// Whether a number can be the score beyond which a value is an outlier.
pub fn is_threshold(number: f64) -> bool {
    number > 0.0 && number.is_finite()
}

/// What is usual in each column; also what is stored of it.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierModel {
    /// How it was found.
    pub method: Method,
    /// The score beyond which a value is an outlier.
    pub threshold: f64,
    /// The spread of each column.
    pub spreads: Vec<Spread>,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Judged {
    /// Whether a value is outside of its column's bounds.
    pub is_outlier: bool,
    /// The column whose value is the farthest from what is usual there, and its score; the first
    /// of several. `None` where no value has a score.
    pub farthest: Option<(usize, f64)>,
}

/// Learns what is usual in columns of finite numbers, NaN where there is none, on the current rayon
/// pool.
///
/// # Errors
/// Invalid options, a column without a number, numbers too large to be added up, cancellation.
pub fn train(
    columns: &[Vec<f64>],
    options: &OutlierOptions,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<OutlierModel, ModelError> {
    options.validate()?;
    if columns.is_empty() {
        return Err(ModelError::Empty);
    }
    let spread = |column: &Vec<f64>| {
        let mut known = Vec::with_capacity(column.len());
        let mut largest = 0.0_f64;
        for values in column.chunks(VALUES_PER_LOOK) {
            cancel::check(cancel)?;
            for &value in values.iter().filter(|value| !value.is_nan()) {
                known.push(value);
                largest = largest.max(value.abs());
            }
        }
        let spread = Spread::of_unless(options.method, &mut known, cancel);
        cancel::check(cancel)?;
        match spread {
            Some(spread) => Ok(spread),
            None if known.is_empty() => Err(ModelError::Empty),
            None => Err(ModelError::TooHeavy {
                what: "feature",
                value: largest,
                hint: "Divide its column in the training query",
            }),
        }
    };
    let spreads = columns.par_iter().map(spread).collect::<Result<Vec<_>, _>>()?;
    progress(Progress { iteration: 1, done: 1, total: 1, loss: None, metric: None });
    Ok(OutlierModel { method: options.method, threshold: options.threshold(), spreads })
}

impl OutlierModel {
    /// Whether the parts are such as training makes.
    pub fn is_sound(&self) -> bool {
        let is_sound = |spread: &Spread| {
            let Spread { center, low, high, scale, is_constant } = *spread;
            [center, low, high, scale].iter().all(|number| number.is_finite())
                && low <= high
                && scale >= 0.0
                && (!is_constant || (scale == 0.0 && low == high))
        };
        is_threshold(self.threshold)
            && !self.spreads.is_empty()
            && self.spreads.iter().all(is_sound)
    }

    /// What each of `rows` rows is, their columns in the order of training, NaN where there is no
    /// number.
    ///
    /// # Errors
    /// When there are more or fewer columns.
    pub fn judge(&self, columns: &[Vec<f64>], rows: usize) -> Result<Vec<Judged>, ModelError> {
        self.judge_unless(columns, rows, &AtomicBool::new(false))
    }

    /// [`OutlierModel::judge`], unless the flag is set.
    ///
    /// # Errors
    /// Those of [`OutlierModel::judge`], and cancellation.
    pub fn judge_unless(
        &self,
        columns: &[Vec<f64>],
        rows: usize,
        cancel: &AtomicBool,
    ) -> Result<Vec<Judged>, ModelError> {
        if columns.len() != self.spreads.len() {
            return Err(ModelError::Inconsistent("columns differ in number".to_owned()));
        }
        let mut judged = vec![Judged::default(); rows];
        for (at, (spread, column)) in self.spreads.iter().zip(columns).enumerate() {
            let bounds = spread.bounds(self.threshold);
            let parts = judged.chunks_mut(VALUES_PER_LOOK).zip(column.chunks(VALUES_PER_LOOK));
            for (judged, values) in parts {
                cancel::check(cancel)?;
                for (row, &value) in judged.iter_mut().zip(values) {
                    row.is_outlier |= is_outside(bounds, value);
                    let Some(score) = spread.score(value) else { continue };
                    if row.farthest.is_none_or(|(_, farthest)| score.abs() > farthest.abs()) {
                        row.farthest = Some((at, score));
                    }
                }
            }
        }
        Ok(judged)
    }

    /// The share of rows that are outliers, and the mean of absolute scores over the rows that have
    /// one: NaN where none has, infinite where a constant column has another value.
    pub fn measures(judged: &[Judged]) -> [f64; 2] {
        let outliers = judged.iter().filter(|row| row.is_outlier).count();
        let scores = || judged.iter().filter_map(|row| row.farthest).map(|(_, score)| score.abs());
        let mean = scores().sum::<f64>() / scores().count() as f64;
        [outliers as f64 / judged.len() as f64, mean]
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.spreads.len() * size_of::<Spread>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Vec<f64>> {
        // About 0 but for one row, always 7, and with a value that is not known.
        let mut near: Vec<f64> = (0..30).map(|n| f64::from(n).sin()).collect();
        near.push(90.0);
        let mut some: Vec<f64> = (0..31).map(|n| f64::from(n % 5)).collect();
        some[3] = f64::NAN;
        vec![near, vec![7.0; 31], some]
    }

    fn learned(method: Method) -> OutlierModel {
        let options = OutlierOptions { method, threshold: None };
        train(&columns(), &options, &mut |_| {}, &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn a_row_is_as_its_farthest_value() {
        for method in Method::ALL {
            let model = learned(method);
            assert!(model.is_sound());
            assert_eq!(model.threshold, method.usual_threshold());
            let judged = model.judge(&columns(), 31).unwrap();
            assert!(judged[..30].iter().all(|row| !row.is_outlier), "{method:?}");
            let (column, score) = judged[30].farthest.unwrap();
            assert!(judged[30].is_outlier && column == 0 && score > model.threshold);
            assert_eq!(Some(score), model.spreads[0].score(90.0));
            let [share, mean] = OutlierModel::measures(&judged);
            assert!((share - 1.0 / 31.0).abs() < 1e-12 && mean.is_finite() && mean > 0.0);
        }
    }

    #[test]
    fn a_constant_column_has_outliers_where_it_differs_only() {
        let model = learned(Method::Mad);
        assert!(model.spreads[1].is_constant);
        let rows = [vec![0.0, f64::NAN], vec![6.0, 7.0], vec![2.0, f64::NAN]];
        let judged = model.judge(&rows, 2).unwrap();
        assert_eq!(judged[0].farthest, Some((1, f64::NEG_INFINITY)));
        assert!(judged[0].is_outlier);
        // A row of which nothing is known has no score.
        assert_eq!(judged[1], Judged::default());
        assert!(OutlierModel::measures(&judged)[1].is_infinite());
    }

    #[test]
    fn a_threshold_of_ones_own_decides() {
        let options = OutlierOptions { method: Method::Iqr, threshold: Some(1e6) };
        let model = train(&columns(), &options, &mut |_| {}, &AtomicBool::new(false)).unwrap();
        assert!(model.judge(&columns(), 31).unwrap().iter().all(|row| !row.is_outlier));
    }

    #[test]
    fn wrong_options_columns_and_parts_are_refused() {
        let go_on = AtomicBool::new(false);
        let usual = OutlierOptions::default();
        for threshold in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let options = OutlierOptions { threshold: Some(threshold), ..usual };
            assert_eq!(options.validate().unwrap_err().code(), "model_option");
        }
        let of = |columns: &[Vec<f64>]| train(columns, &usual, &mut |_| {}, &go_on).unwrap_err();
        assert_eq!(of(&[]), ModelError::Empty);
        assert_eq!(of(&[vec![f64::NAN; 2]]), ModelError::Empty);
        assert_eq!(of(&[vec![f64::MAX, f64::MIN]]).code(), "model_too_heavy");
        let zscore = OutlierOptions { method: Method::Zscore, ..usual };
        let huge = train(&[vec![1e200, -1e200, 5e200]], &zscore, &mut |_| {}, &go_on);
        assert!(huge.is_ok_and(|model| model.is_sound()));
        let cancelled = train(&columns(), &usual, &mut |_| {}, &AtomicBool::new(true));
        assert!(matches!(cancelled, Err(ModelError::Cancelled)));
        let model = learned(Method::Zscore);
        let cancelled = model.judge_unless(&columns(), 31, &AtomicBool::new(true));
        assert_eq!(cancelled, Err(ModelError::Cancelled));
        assert!(model.judge(&columns()[..2], 31).is_err());
        assert!(!OutlierModel { threshold: 0.0, ..model.clone() }.is_sound());
        assert!(!OutlierModel { spreads: vec![], ..model.clone() }.is_sound());
        let wrong = Spread { scale: 1.0, ..model.spreads[1] };
        assert!(!OutlierModel { spreads: vec![wrong], ..model }.is_sound());
    }
}
