//! Early stopping on a validation metric: the best iteration is kept, the run ends once it has not
//! been bettered for a while.

use std::ops::ControlFlow;

use super::features::FeatureMap;
use super::view::FactorView;
use super::{AlsFactors, Validation};

/// Keeps the best iteration seen.
pub(super) struct Watch<'a> {
    validation: Validation<'a>,
    pub(super) metrics: Vec<f64>,
    best: Option<Best>,
    /// The metric at the last improvement that counted, and iterations since.
    reference: f64,
    waited: usize,
}

/// The best iteration.
pub(super) struct Best {
    pub(super) iteration: usize,
    metric: f64,
    pub(super) factors: AlsFactors,
    pub(super) maps: [Option<FeatureMap>; 2],
}

impl<'a> Watch<'a> {
    pub(super) fn new(validation: Validation<'a>) -> Self {
        Self { validation, metrics: vec![], best: None, reference: f64::NAN, waited: 0 }
    }

    /// Asks for the metric of an iteration; returns it, and whether the run ends.
    pub(super) fn look(
        &mut self,
        view: &FactorView<'_>,
        iteration: usize,
        maps: impl FnOnce() -> [Option<FeatureMap>; 2],
    ) -> (f64, bool) {
        let (metric, ended) = match (self.validation.metric)(view, iteration) {
            ControlFlow::Continue(metric) => (metric, false),
            ControlFlow::Break(metric) => (metric, true),
        };
        self.metrics.push(metric);
        let lasts = |best: &Best| best.metric >= metric || metric.is_nan() && !best.metric.is_nan();
        if !self.best.as_ref().is_some_and(lasts) {
            let factors = self.best.take().map(|best| best.factors).unwrap_or_default();
            let mut best = Best { iteration, metric, factors, maps: maps() };
            view.copy_to(&mut best.factors);
            self.best = Some(best);
        }
        let needed = self.validation.min_rel_improvement * self.reference.abs();
        if is_better(metric, self.reference + needed) {
            (self.reference, self.waited) = (metric, 0);
        } else {
            self.waited += 1;
        }
        let patience = self.validation.patience;
        (metric, ended || patience > 0 && self.waited >= patience)
    }

    pub(super) fn finish(self) -> (Option<Best>, Vec<f64>) {
        (self.best, self.metrics)
    }
}

/// Whether a metric is higher; anything is better than NaN.
fn is_better(metric: f64, than: f64) -> bool {
    metric > than || than.is_nan() && !metric.is_nan()
}
