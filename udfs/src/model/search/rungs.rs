//! Asynchronous successive halving: a trial that is behind the others at the same iteration ends.
//!
//! Rungs are at `first`, `first`·η, `first`·η², … iterations. A trial that reaches a rung goes on
//! if its value is among the best ⌈n/η⌉ of the n trials that have reached it so far, itself
//! included. So nobody waits for anybody: the first trial always goes on, and later ones meet a bar
//! that gets firmer (Li et al. 2020, the stopping variant).

/// The rungs of one search.
#[derive(Debug, Clone, PartialEq)]
pub struct Rungs {
    first: usize,
    eta: usize,
    /// At each rung the values reported, by trial.
    values: Vec<Vec<(usize, f64)>>,
}

impl Rungs {
    /// Rungs from `first` iterations on, each `eta` times the one before; both are raised to 1 and
    /// 2. Usual are 2 and 3.
    pub fn new(first: usize, eta: usize) -> Self {
        Self { first: first.max(1), eta: eta.max(2), values: vec![] }
    }

    /// Whether a trial goes on after so many iterations (from 1), given its value, higher being
    /// better. Between rungs every trial does; NaN never passes a rung.
    pub fn goes_on(&mut self, trial: usize, iterations: usize, value: f64) -> bool {
        let Some(rung) = self.rung_at(iterations) else { return true };
        if self.values.len() <= rung {
            self.values.resize(rung + 1, vec![]);
        }
        let values = &mut self.values[rung];
        match values.iter_mut().find(|(other, _)| *other == trial) {
            Some(own) => own.1 = value,
            None => values.push((trial, value)),
        }
        let better = values.iter().filter(|&&(other, v)| other != trial && v > value).count();
        !value.is_nan() && better < values.len().div_ceil(self.eta)
    }

    fn rung_at(&self, iterations: usize) -> Option<usize> {
        let (mut at, mut rung) = (self.first, 0);
        while at < iterations {
            at = at.checked_mul(self.eta)?;
            rung += 1;
        }
        (at == iterations).then_some(rung)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_goes_on_and_nobody_waits() {
        let mut rungs = Rungs::new(2, 3);
        assert!(rungs.goes_on(0, 1, 0.0) && rungs.goes_on(0, 2, 0.5) && rungs.goes_on(0, 6, 0.6));
        assert!(!rungs.goes_on(1, 2, 0.4));
        assert!(!rungs.goes_on(2, 2, 0.45));
        // Of four, the two best go on.
        assert!(rungs.goes_on(3, 2, 0.48));
        assert!(!rungs.goes_on(4, 2, f64::NAN));
        assert!(rungs.goes_on(5, 3, -9.0) && rungs.goes_on(5, 5, -9.0));
        assert!(rungs.goes_on(3, 6, 0.7) && rungs.goes_on(3, 18, 0.1));
    }

    #[test]
    fn a_search_of_trials_spends_a_fraction_of_the_iterations() {
        let mut rungs = Rungs::new(1, 3);
        let (mut spent, mut finished) = (0, vec![]);
        for trial in 0..27 {
            let quality = f64::from(trial * 11 % 27);
            let stopped = (1..=27).find(|&iteration| {
                spent += 1;
                !rungs.goes_on(trial as usize, iteration, quality)
            });
            if stopped.is_none() {
                finished.push(trial * 11 % 27);
            }
        }
        assert!(spent < 27 * 27 / 2, "{spent}");
        assert!(finished.contains(&26), "{finished:?}");
    }

    #[test]
    fn a_number_of_iterations_beyond_all_rungs_is_no_rung() {
        let mut rungs = Rungs::new(0, 0);
        assert!(rungs.goes_on(0, usize::MAX, 1.0) && rungs.goes_on(0, 0, 1.0));
    }
}
