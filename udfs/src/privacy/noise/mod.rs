//! Differential privacy: the mechanisms, as pure functions over a generator that the caller gives.
//!
//! Nothing here makes randomness: each function that draws takes a `&mut dyn CryptoRng`, seeded by
//! the operating system in the program and by a constant in tests. What is drawn is drawn in
//! integers: uniform numbers without bias, Bernoulli(exp(-x)) of rational x, and from these the
//! discrete Laplace and Gaussian distributions (Canonne, Kamath, Steinke: "The Discrete Gaussian
//! for Differential Privacy", 2020, algorithms 1 to 3). Real values are first moved to a grid whose
//! step is a power of two that depends on the bounds and the privacy parameters only, so that which
//! floating-point numbers can come out does not depend on the data (Mironov: "On Significance of
//! the Least Significant Bits for Differential Privacy", 2012). Wherever a real number has to be
//! rounded, it is rounded toward more noise.
//!
//! | module | what it gives |
//! |---|---|
//! | [`laplace`], [`gaussian`] | noise of a scale that the caller chose: `integer`, `real` |
//! | [`Mechanism`] | noise calibrated to a [`Noise`] and a [`Sensitivity`], for many groups |
//! | [`bounded`] | contribution bounding; private count, sum, mean and variance of a group |
//! | [`distinct`] | which values a group has, so that each unit adds only so many |
//! | [`threshold`] | which groups may be shown at all |
//! | [`quantile`] | private quantiles between given bounds |
//! | [`bounds`] | bounds found privately, where none were given |
//! | [`select`] | the best of some candidates |
//! | [`accounting`] | what releases cost together: zCDP, (epsilon, delta), sigma |
//!
//! Two data sets are neighbours when one of them lacks all rows of one *privacy unit* (a person):
//! a unit contributes to at most `groups_max` groups, and to each of them at most `entries_max`
//! entries; [`bounded::choose`] makes that true. Errors never depend on the data: what does not
//! fit saturates, which is as private as clamping is.

use datafusion_common::{Result, exec_err};

pub mod accounting;
pub mod bounded;
pub mod bounds;
pub mod distinct;
mod exact;
pub mod gaussian;
mod grid;
pub mod laplace;
mod mechanism;
mod normal;
pub mod quantile;
mod rounding;
pub mod select;
pub mod threshold;

#[cfg(test)]
mod tests;

use rounding::{product_up, quotient_down, root_up, sum_up};

pub use grid::Grid;
pub use mechanism::Mechanism;

/// The least epsilon that is taken: below it noise is beyond any use.
pub const EPSILON_MIN: f64 = 1e-6;

/// The distribution of the noise of one release, and what the release may cost.
///
/// The cost is that of all groups together: whoever contributes to several groups is covered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Noise {
    /// Laplace noise: `epsilon`-differential privacy.
    Laplace {
        /// The privacy loss, from [`EPSILON_MIN`] up; `1e20` leaves values practically as they are.
        epsilon: f64,
    },
    /// Gaussian noise: `(epsilon, delta)`-differential privacy.
    Gaussian {
        /// The privacy loss, from [`EPSILON_MIN`] up.
        epsilon: f64,
        /// The probability with which the loss may be larger, between 0 and 1, both excluded.
        delta: f64,
    },
    /// Gaussian noise by its cost in zero-concentrated differential privacy. Such costs add up and
    /// divide exactly: of parts whose rhos sum up to that of a sigma, all together are as private
    /// as one release with that sigma.
    Concentrated {
        /// The cost, from that of an epsilon of [`EPSILON_MIN`] up.
        rho: f64,
    },
}

impl Noise {
    /// Whether the parameters can be used.
    ///
    /// # Errors
    /// When epsilon is below [`EPSILON_MIN`] or not finite, or delta is not between 0 and 1.
    pub fn check(&self) -> Result<()> {
        let epsilon = self.epsilon();
        if !epsilon.is_finite() || epsilon < EPSILON_MIN {
            return exec_err!(
                "epsilon is {epsilon}, it must be a number of at least {EPSILON_MIN:e}. Hint: \
                 common values lie between 0.1 and 10; the smaller, the more noise"
            );
        }
        match self {
            Self::Laplace { .. } | Self::Concentrated { .. } => Ok(()),
            Self::Gaussian { delta, .. } => check_delta(*delta),
        }
    }

    /// The privacy loss; of noise that is given by its rho, the epsilon of a release without delta
    /// that costs as much, rounded down.
    pub fn epsilon(&self) -> f64 {
        match self {
            Self::Laplace { epsilon } | Self::Gaussian { epsilon, .. } => *epsilon,
            Self::Concentrated { rho } if rho.is_finite() => (2.0 * rho).sqrt().next_down(),
            Self::Concentrated { rho } => *rho,
        }
    }

    /// The noise of one of `parts` releases that together cost no more than this one.
    ///
    /// The epsilon of Laplace noise is divided (basic composition), and the rho of Gaussian noise:
    /// parts of it with sigma times the root of their number are one Gaussian release of sigma.
    /// `parts` of 0 counts as 1.
    pub fn split(&self, parts: u32) -> Self {
        if parts <= 1 {
            return *self;
        }
        let parts = f64::from(parts);
        match (*self, self.rho()) {
            (Self::Laplace { epsilon }, _) => {
                Self::Laplace { epsilon: quotient_down(epsilon, parts) }
            }
            (Self::Gaussian { .. } | Self::Concentrated { .. }, Ok(rho)) => {
                Self::Concentrated { rho: quotient_down(rho, parts) }
            }
            // Whoever uses it is told what is wrong with it.
            (unusable, Err(_)) => unusable,
        }
    }

    /// What the release costs in zero-concentrated differential privacy.
    ///
    /// For Laplace noise epsilon²/2; for Gaussian noise of epsilon and delta that of the sigma
    /// which [`accounting::gaussian_sigma`] finds, 1/(2 sigma²) at sensitivity 1.
    ///
    /// # Errors
    /// As [`Noise::check`].
    pub fn rho(&self) -> Result<f64> {
        self.check()?;
        match *self {
            Self::Laplace { epsilon } => Ok(accounting::rho_of_pure(epsilon)),
            Self::Gaussian { epsilon, delta } => {
                let sigma = accounting::gaussian_sigma(epsilon, delta, 1.0)?;
                Ok(accounting::rho_of_gaussian(1.0, sigma))
            }
            Self::Concentrated { rho } => Ok(rho),
        }
    }
}

/// By how much one privacy unit can change a release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sensitivity {
    groups_max: u32,
    entries_max: u32,
    magnitude: f64,
}

impl Sensitivity {
    /// A unit is in at most `groups_max` groups, with at most `entries_max` entries in each, and
    /// an entry changes its group's value by at most `magnitude`.
    ///
    /// # Errors
    /// When a count is 0, or `magnitude` is not between 1e-100 and 1e100.
    pub fn new(groups_max: u32, entries_max: u32, magnitude: f64) -> Result<Self> {
        if groups_max == 0 || entries_max == 0 {
            return exec_err!(
                "a privacy unit must be let to contribute to at least one group with at least one \
                 entry. Hint: set max_groups_contributed to 1 or more"
            );
        }
        if !(1e-100..=1e100).contains(&magnitude) {
            return exec_err!(
                "one entry may change a group by {magnitude:e}, which is not between 1e-100 and \
                 1e100. Hint: give contribution bounds that are not both zero and no wider than \
                 the values are"
            );
        }
        Ok(Self { groups_max, entries_max, magnitude })
    }

    /// The same person, values of another magnitude.
    ///
    /// # Errors
    /// As [`Sensitivity::new`].
    pub fn of_magnitude(&self, magnitude: f64) -> Result<Self> {
        Self::new(self.groups_max, self.entries_max, magnitude)
    }

    /// The most groups that a unit is in.
    pub fn groups_max(&self) -> u32 {
        self.groups_max
    }

    /// The most entries of a unit in one group.
    pub fn entries_max(&self) -> u32 {
        self.entries_max
    }

    /// The most by which an entry changes its group's value.
    pub fn magnitude(&self) -> f64 {
        self.magnitude
    }

    /// The greatest change summed over groups, rounded up, when each entry may be moved by
    /// `step` more.
    fn l1(&self, step: f64) -> f64 {
        product_up(f64::from(self.groups_max), self.linf(step))
    }

    /// The greatest Euclidean length of the change, rounded up, as [`Sensitivity::l1`].
    fn l2(&self, step: f64) -> f64 {
        product_up(root_up(f64::from(self.groups_max)), self.linf(step))
    }

    fn linf(&self, step: f64) -> f64 {
        product_up(f64::from(self.entries_max), sum_up(self.magnitude, step))
    }
}

/// Whether `delta` is a probability that leaves something to protect.
fn check_delta(delta: f64) -> Result<()> {
    if delta > 0.0 && delta < 1.0 {
        return Ok(());
    }
    exec_err!(
        "delta is {delta}, it must lie between 0 and 1, both excluded. Hint: take less than one \
         over the number of people, such as 1e-6"
    )
}
