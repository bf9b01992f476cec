//! The alternation: half steps, what is reported of them, and when it ends.

use std::sync::atomic::AtomicBool;

use super::super::cancel::check;
use super::super::error::ModelError;
use super::features::{FeatureMap, Prior, Shape};
use super::gram::{Basis, diagonal_basis, gram};
use super::narrow::{Narrow, WIDE_VALUES};
use super::options::{AlsOptions, Feedback, Resolved};
use super::row::{HalfStep, Method, Pool};
use super::side::{Previous, Side, by_descending_count, encode_weight, renumber};
use super::view::FactorView;
use super::watch::Watch;
use super::{AlsFactors, Progress, Trained, Training, Validation, mean_unless};

pub(super) struct Trainer<'a> {
    options: &'a AlsOptions,
    resolved: Resolved,
    users: Side,
    items: Side,
    mean: f64,
    method: Method,
    /// A fixed side of more values is gathered from a copy.
    pub(super) wide_values: usize,
    narrow: Narrow,
    cancel: &'a AtomicBool,
    pool: Pool,
}

/// What the fixed side contributes to every row of implicit feedback.
enum Dense {
    Basis(Basis),
    Gram(Vec<f32>),
}

/// The objective after a half step but for the solved side's penalty, and that penalty.
pub(super) struct Half {
    pub(super) rest: f64,
    pub(super) penalty: f64,
}

impl<'a> Trainer<'a> {
    pub(super) fn new(
        training: &'a Training<'_>,
        resolved: Resolved,
        cancel: &'a AtomicBool,
    ) -> Result<Self, ModelError> {
        let Training { interactions, options, .. } = *training;
        let mean =
            if options.has_biases() { mean_unless(interactions.values(), cancel) } else { 0.0 };
        let user_counts = interactions.offsets().windows(2).map(|pair| pair[1] - pair[0]);
        let item_counts = || interactions.column_counts().into_iter().map(|count| count as usize);
        let (user_codes, item_codes) = rayon::join(
            || by_descending_count(user_counts, cancel),
            || by_descending_count(item_counts(), cancel),
        );
        check(cancel)?;
        let value = |value: f32| match options.feedback {
            Feedback::Implicit => encode_weight(value, resolved.alpha),
            Feedback::Explicit => (f64::from(value) - mean) as f32,
        };
        let by_user = renumber(interactions, &user_codes, &item_codes, value, cancel);
        check(cancel)?;
        let by_item = by_user.transpose_unless(cancel);
        check(cancel)?;
        let mut users = Side::new(user_codes, by_user, options);
        let mut items = Side::new(item_codes, by_item, options);
        let warm = training.warm_start.as_ref();
        let last_users = warm.map(|warm| Previous::users(warm.factors, warm.users));
        let last_items = warm.map(|warm| Previous::items(warm.factors, warm.items));
        users.start(options, last_users, false, cancel);
        items.start(options, last_items, true, cancel);
        let pool = Pool::default();
        check(cancel)?;
        let (rows, columns) = (interactions.rows(), interactions.columns());
        let method = options.method(rows, columns, interactions.cells());
        let (wide_values, narrow) = (WIDE_VALUES, Narrow::default());
        let mut trainer = Self {
            options,
            resolved,
            users,
            items,
            mean,
            method,
            wide_values,
            narrow,
            cancel,
            pool,
        };
        trainer.set_features(training)?;
        Ok(trainer)
    }

    fn set_features(&mut self, training: &Training<'_>) -> Result<(), ModelError> {
        let shape = Shape {
            size: self.options.num_factors,
            stride: self.options.stride(),
            biased: self.options.has_biases(),
        };
        let (users, items) = (self.users.live, self.items.live);
        let sides = [
            (&mut self.users, training.user_features, items),
            (&mut self.items, training.item_features, users),
        ];
        for (side, features, others) in sides {
            let Some(features) = features else { continue };
            let counts = side.cells.offsets().windows(2).map(|pair| pair[1] - pair[0]);
            let lambda = counts
                .take(side.live)
                .map(|count| self.resolved.regularization(count, others) as f32)
                .collect();
            let regularization = self.options.feature_reg;
            let codes = side.codes();
            let mut prior =
                Prior::new(features, codes, lambda, regularization, shape, self.cancel)?;
            if training.warm_start.is_some() {
                prior.fit(&side.factors, side.bias.as_deref(), self.cancel);
            }
            side.prior = Some(prior);
        }
        Ok(())
    }

    pub(super) fn run(
        mut self,
        validation: Option<Validation<'_>>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Trained, ModelError> {
        let mut losses: Vec<f64> = vec![];
        let mut watch = validation.map(Watch::new);
        let total = 2 * self.options.max_iterations;
        for iteration in 1..=self.options.max_iterations {
            let done = 2 * iteration;
            let users = self.half_step(true)?;
            progress(Progress { iteration, done: done - 1, total, loss: None, metric: None });
            let items = self.half_step(false)?;
            let loss = items.rest + items.penalty + users.penalty;
            let mut ends = self.is_slow(losses.last().copied(), loss);
            losses.push(loss);
            let mut metric = None;
            if let Some(watch) = &mut watch {
                self.fill_cold();
                check(self.cancel)?;
                let (value, ended) = watch.look(&self.view(), iteration, || self.maps());
                metric = Some(value);
                ends |= ended;
            }
            progress(Progress { iteration, done, total, loss: Some(loss), metric });
            if ends {
                break;
            }
        }
        self.finish(losses, watch)
    }

    fn is_slow(&self, last: Option<f64>, loss: f64) -> bool {
        let least = self.options.min_rel_progress;
        least.zip(last).is_some_and(|(least, last)| last - loss < least * last.abs())
    }

    fn finish(mut self, losses: Vec<f64>, watch: Option<Watch<'_>>) -> Result<Trained, ModelError> {
        let (best, metrics) = watch.map_or((None, vec![]), Watch::finish);
        let (best_iteration, factors, [user_map, item_map]) = match best {
            Some(best) => (best.iteration, best.factors, best.maps),
            None => {
                self.fill_cold();
                check(self.cancel)?;
                (losses.len(), self.view().to_factors(), self.maps())
            }
        };
        let factors = AlsFactors { losses, ..factors };
        Ok(Trained { factors, best_iteration, metrics, user_map, item_map })
    }

    fn view(&self) -> FactorView<'_> {
        let (size, stride) = (self.options.num_factors, self.options.stride());
        FactorView::new(&self.users, &self.items, size, stride).with_mean(self.mean as f32)
    }

    fn maps(&self) -> [Option<FeatureMap>; 2] {
        let non_negative = self.options.non_negative;
        [&self.users, &self.items].map(|side| Some(side.prior.as_ref()?.map(non_negative)))
    }

    /// Gives rows without interactions what their features say.
    fn fill_cold(&mut self) {
        let least = if self.options.non_negative { 0.0 } else { f32::NEG_INFINITY };
        for side in [&mut self.users, &mut self.items] {
            if let Some(prior) = &side.prior {
                let bias = side.bias.as_deref_mut();
                prior.fill_cold(&mut side.factors, bias, least, self.cancel);
            }
        }
    }

    pub(super) fn half_step(&mut self, solve_users: bool) -> Result<Half, ModelError> {
        let (solved, fixed) = if solve_users {
            (&mut self.users, &mut self.items)
        } else {
            (&mut self.items, &mut self.users)
        };
        let stride = self.options.stride();
        let is_narrow = self.options.is_narrow(self.method, fixed.live, self.wide_values);
        let copy = is_narrow.then_some(&mut self.narrow);
        let dense = dense(self.options, solved, fixed, copy, self.cancel)?;
        check(self.cancel)?;
        let (basis, gram) = match &dense {
            None => (None, None),
            Some(Dense::Basis(basis)) => (Some(basis), None),
            Some(Dense::Gram(gram)) => (None, Some(gram.as_slice())),
        };
        let step = HalfStep {
            cells: &solved.cells,
            fixed: &fixed.factors,
            narrow: is_narrow.then_some(&self.narrow),
            others: fixed.live,
            fixed_bias: fixed.bias.as_deref(),
            bias_column: self.options.num_factors,
            stride,
            basis,
            dense: gram,
            prior: solved.prior.as_ref(),
            feedback: self.options.feedback,
            resolved: &self.resolved,
            method: self.method,
            cancel: self.cancel,
            pool: &self.pool,
        };
        let sums = step.run(&mut solved.factors, solved.bias.as_deref_mut())?;
        let penalty = match &mut solved.prior {
            None => sums.penalty,
            Some(prior) => prior.fit(&solved.factors, solved.bias.as_deref(), self.cancel),
        };
        check(self.cancel)?;
        Ok(Half { rest: sums.objective - sums.penalty, penalty })
    }
}

/// The fixed side's Gram matrix, or for any method but the non-negative one, whose constraint knows
/// no other basis, the basis where it is diagonal: into it everything is turned but the solved
/// side's factors, which are while they are in the cache to be solved. What is turned of the fixed
/// side is copied where that is asked for.
fn dense(
    options: &AlsOptions,
    solved: &mut Side,
    fixed: &mut Side,
    copy: Option<&mut Narrow>,
    cancel: &AtomicBool,
) -> Result<Option<Dense>, ModelError> {
    if options.feedback == Feedback::Explicit {
        return Ok(None);
    }
    let stride = options.stride();
    let gram = gram(fixed.live_factors(stride), stride, cancel);
    check(cancel)?;
    if options.non_negative {
        return Ok(Some(Dense::Gram(gram.iter().map(|&value| value as f32).collect())));
    }
    let basis = diagonal_basis(&gram, options.num_factors, stride, cancel)?;
    let factors = &mut fixed.factors[..fixed.live * stride];
    match copy {
        Some(copy) => basis.rotate_and_copy(factors, stride, copy, cancel),
        None => basis.rotate(factors, stride, cancel),
    }
    for side in [solved, fixed] {
        if let Some(prior) = &mut side.prior {
            basis.rotate(&mut prior.weights, stride, cancel);
        }
    }
    Ok(Some(Dense::Basis(basis)))
}
