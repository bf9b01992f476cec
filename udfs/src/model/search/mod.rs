//! Search for hyper-parameters: which settings to try next, and which trials to end early.
//!
//! [`Search`] is a state machine without a clock or threads: [`Search::next`] proposes a trial,
//! [`Search::tell`] takes its value (higher is better), in any order and with any number of trials
//! under way at once. The same space, algorithm, seed and order of calls give the same trials.
//! [`Rungs`] ends trials that are behind, while they run.
//!
//! Sources: McKay, Beckman and Conover 1979 (stratified sampling); Jones, Schonlau and Welch 1998
//! (expected improvement); Snoek, Larochelle and Adams 2012 (Matérn 5/2, marginal likelihood);
//! Ginsbourger, Le Riche and Carraro 2010 (trials under way count as bad: the constant liar); Li et
//! al. 2020 (asynchronous successive halving).

mod acquire;
mod gaussian;
mod rungs;
mod sample;
mod space;

pub use self::rungs::Rungs;
pub use self::space::{Dimension, Space, Value};

use self::sample::{Halton, Source, grid, stratified};
use super::error::ModelError;

/// How trials are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// At random, each dimension's range divided evenly among the trials.
    Random,
    /// A grid over all dimensions, of at most as many points as there are trials.
    Grid,
    /// A Gaussian process over what was told, and the largest expected improvement on it.
    Bayesian,
}

/// Settings to try.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// From 0, in the order of proposal.
    pub id: usize,
    /// One value for each dimension, in the space's order.
    pub values: Vec<(String, Value)>,
}

/// What became of a trial.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    UnderWay,
    Told(f64),
}

/// A search under way.
#[derive(Debug, Clone)]
pub struct Search {
    space: Space,
    algorithm: Algorithm,
    num_trials: usize,
    seed: u64,
    /// All points, for random and grid.
    plan: Vec<Vec<f64>>,
    trials: Vec<Trial>,
    points: Vec<Vec<f64>>,
    outcomes: Vec<Outcome>,
}

impl Search {
    /// A search of at most `num_trials` trials, 1 to 1,000.
    ///
    /// # Errors
    /// [`ModelError::Option`] for another number.
    pub fn new(
        space: Space,
        algorithm: Algorithm,
        num_trials: usize,
        seed: u64,
    ) -> Result<Self, ModelError> {
        if num_trials == 0 || num_trials > 1000 {
            return Err(ModelError::Option {
                option: "num_trials",
                value: num_trials.to_string(),
                hint: "Give 1 to 1000 trials; 10 to 30 are usual",
            });
        }
        let plan = match algorithm {
            Algorithm::Random => stratified(space.dimensions(), num_trials, seed),
            Algorithm::Grid => grid(&space, num_trials),
            Algorithm::Bayesian => vec![],
        };
        let (trials, points, outcomes) = (vec![], vec![], vec![]);
        Ok(Self { space, algorithm, num_trials, seed, plan, trials, points, outcomes })
    }

    /// The next trial; `None` once all were proposed, or every setting of a finite space was.
    #[expect(clippy::should_implement_trait, reason = "what comes next depends on what is told")]
    pub fn next(&mut self) -> Option<Trial> {
        if self.trials.len() >= self.num_trials
            || self.space.size().is_some_and(|size| self.trials.len() >= size)
        {
            return None;
        }
        let point = self.propose()?;
        let trial = Trial { id: self.trials.len(), values: self.space.values(&point) };
        self.trials.push(trial.clone());
        self.points.push(point);
        self.outcomes.push(Outcome::UnderWay);
        Some(trial)
    }

    /// Takes a trial's value; one that failed is told NaN, which counts as the worst of all. A
    /// second value replaces the first; an unknown trial is passed over.
    pub fn tell(&mut self, trial: usize, value: f64) {
        if let Some(outcome) = self.outcomes.get_mut(trial) {
            *outcome = Outcome::Told(value);
        }
    }

    /// The trial with the highest value that is a number; of equal ones the first.
    pub fn best(&self) -> Option<(&Trial, f64)> {
        let mut best: Option<(&Trial, f64)> = None;
        for (trial, outcome) in self.trials.iter().zip(&self.outcomes) {
            if let Outcome::Told(value) = *outcome
                && !value.is_nan()
                && best.is_none_or(|(_, most)| value > most)
            {
                best = Some((trial, value));
            }
        }
        best
    }

    /// All trials proposed so far, with the values told.
    pub fn trials(&self) -> impl Iterator<Item = (&Trial, Option<f64>)> {
        self.trials.iter().zip(&self.outcomes).map(|(trial, outcome)| match *outcome {
            Outcome::UnderWay => (trial, None),
            Outcome::Told(value) => (trial, Some(value)),
        })
    }

    fn propose(&self) -> Option<Vec<f64>> {
        let number = self.trials.len();
        let planned = match self.algorithm {
            Algorithm::Random => self.plan.get(number).cloned(),
            // A grid has no setting twice, so that its points are taken as they are.
            Algorithm::Grid => return self.plan.get(number).cloned(),
            Algorithm::Bayesian if number < self.initial() => {
                Some(Halton::new(self.space.dimensions(), self.seed).point(number))
            }
            Algorithm::Bayesian => Some(self.most_promising()),
        };
        let snapped = self.space.snap(&planned?);
        if !self.was_tried(&snapped) {
            return Some(snapped);
        }
        self.another(number)
    }

    /// Trials before the first model is fitted.
    fn initial(&self) -> usize {
        (self.space.dimensions() + 1).max(3)
    }

    fn was_tried(&self, point: &[f64]) -> bool {
        let values = self.space.values(point);
        self.trials.iter().any(|trial| trial.values == values)
    }

    /// A random setting that was not tried; the first in order of a small finite space when
    /// chance does not find one.
    fn another(&self, number: usize) -> Option<Vec<f64>> {
        let mut source = Source::new(self.seed, 1 + number as u64);
        for _ in 0..200 {
            let drawn: Vec<f64> = (0..self.space.dimensions()).map(|_| source.uniform()).collect();
            let point = self.space.snap(&drawn);
            if !self.was_tried(&point) {
                return Some(point);
            }
        }
        let size = self.space.size()?;
        (0..size.min(100_000)).map(|at| self.space.nth(at)).find(|point| !self.was_tried(point))
    }

    fn most_promising(&self) -> Vec<f64> {
        let told: Vec<f64> = self
            .outcomes
            .iter()
            .filter_map(|outcome| match *outcome {
                Outcome::Told(value) if value.is_finite() => Some(value),
                _ => None,
            })
            .collect();
        // Without any number (or with one value everywhere) there is nothing to model, and the
        // Gaussian process of equal values sends the search where it has not been.
        let worst = told.iter().copied().fold(f64::INFINITY, f64::min);
        let worst = if worst.is_finite() { worst } else { 0.0 };
        let values: Vec<f64> = self
            .outcomes
            .iter()
            .map(|outcome| match *outcome {
                Outcome::Told(value) if value.is_finite() => value,
                Outcome::Told(_) | Outcome::UnderWay => worst,
            })
            .collect();
        let source = Source::new(self.seed, 1_000_000 + self.trials.len() as u64);
        acquire::most_promising(&self.space, &self.points, &values, source)
    }
}

#[cfg(test)]
mod tests;
