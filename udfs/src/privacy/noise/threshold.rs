//! Which groups may be shown: a group of one person must not appear because of that person.
//!
//! The number of privacy units of a group gets noise, and the group is shown where it reaches tau.
//! A group that only one unit makes is then shown with a probability of at most
//! d = 1 - (1 - delta)^(1/g), g being the most groups of a unit, so that all groups which a unit
//! alone makes stay hidden with probability 1 - delta:
//!
//! * Laplace noise, of scale s = g/epsilon and a = exp(-1/s): P[1 + x >= tau] = a^(tau-1)/(1 + a),
//!   so tau = 1 + ceil(s ln(1/(d (1 + a))));
//! * Gaussian noise, rounded to whole numbers: tau = ceil(1.5 + sigma z), with P[N > z] = d. Its
//!   own delta adds to that of the threshold.
//!
//! (Wilson et al.: "Differentially Private SQL with Bounded User Contribution", 2020; the tau of
//! GoogleSQL's LAPLACE_THRESHOLD is this one's for real noise.) With a least number m of units a
//! group of fewer is never shown, and m - 1 units do not count toward tau.
//!
//! From an epsilon of 1e10 on, which protects nobody and serves to see answers without noise, tau
//! is 1, as it is in GoogleSQL by the rounding of doubles.

use datafusion_common::Result;
use rand::CryptoRng;

use super::{Mechanism, Noise, Sensitivity, check_delta, normal};

/// The epsilon from which on nobody is protected.
const EPSILON_VOID: f64 = 1e10;

/// Covers the rounding of logarithms.
const SLACK: f64 = 1e-12;

/// The rule by which groups are shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    mechanism: Mechanism,
    tau: i128,
    spared: u64,
}

impl Threshold {
    /// A rule for units that are in at most `groups_max` groups, under `noise` and with a
    /// probability of failure `delta` of its own. Groups of fewer than `units_min` units are never
    /// shown; 0 and 1 ask for nothing.
    ///
    /// # Errors
    /// As [`Noise::check`] and [`Sensitivity::new`], and when `delta` is not between 0 and 1.
    pub fn new(noise: Noise, groups_max: u32, delta: f64, units_min: u64) -> Result<Self> {
        check_delta(delta)?;
        let sensitivity = Sensitivity::new(groups_max, 1, 1.0)?;
        let mechanism = Mechanism::for_integers(noise, &sensitivity)?;
        let single = delta_per_group(delta, groups_max);
        let scale = mechanism.scale();
        let excess = match noise {
            _ if is_void(noise) => 0.0,
            Noise::Laplace { .. } => {
                let odds = single * (1.0 + (-1.0 / scale).exp());
                scale * -odds.ln()
            }
            Noise::Gaussian { .. } | Noise::Concentrated { .. } => {
                scale * normal::upper_quantile(single) + 0.5
            }
        };
        // The cast saturates; a delta beyond a half asks for no excess.
        let excess = (excess.max(0.0) * (1.0 + SLACK)).ceil() as i64;
        Ok(Self { mechanism, tau: 1 + i128::from(excess), spared: units_min.saturating_sub(1) })
    }

    /// The noisy number of units at which a group is shown.
    pub fn tau(&self) -> i128 {
        self.tau.saturating_add(i128::from(self.spared))
    }

    /// The noisy number of a group's units if the group may be shown. It may be shown too.
    pub fn admit(&self, units: u64, rng: &mut dyn CryptoRng) -> Option<i128> {
        let counted = units.checked_sub(self.spared).filter(|counted| *counted > 0)?;
        let noisy = self.mechanism.integer(i128::from(counted), rng);
        (noisy >= self.tau).then(|| noisy.saturating_add(i128::from(self.spared)))
    }
}

/// Whether it protects nobody: rho is about as large as an epsilon so large that it is the cost of.
fn is_void(noise: Noise) -> bool {
    match noise {
        Noise::Concentrated { rho } => rho >= EPSILON_VOID,
        Noise::Laplace { epsilon } | Noise::Gaussian { epsilon, .. } => epsilon >= EPSILON_VOID,
    }
}

/// The share of delta of each of the groups that a unit may make alone, rounded down.
fn delta_per_group(delta: f64, groups_max: u32) -> f64 {
    let share = -((-delta).ln_1p() / f64::from(groups_max)).exp_m1();
    (share * (1.0 - SLACK)).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn tau_is_that_of_opendp() {
        // make_laplace_threshold shows what is above 20 and 200; its deltas, a little more each.
        for (epsilon, delta, above) in [(1.0, 1.506_824_2e-9, 20), (0.1, 1.082_062_8e-9, 200)] {
            let rule = Threshold::new(Noise::Laplace { epsilon }, 1, delta, 0).unwrap();
            assert_eq!(rule.tau(), above + 1);
            let stricter = Threshold::new(Noise::Laplace { epsilon }, 1, delta * 0.99, 0).unwrap();
            assert_eq!(stricter.tau(), above + 2);
        }
    }

    #[test]
    fn a_single_unit_is_shown_with_a_probability_of_at_most_delta() {
        let mut rng = StdRng::seed_from_u64(10);
        let draws = 40_000_u32;
        let noises = [
            Noise::Laplace { epsilon: 1.0 },
            Noise::Laplace { epsilon: 0.2 },
            Noise::Gaussian { epsilon: 1.0, delta: 1e-3 },
            Noise::Concentrated { rho: 0.02 },
        ];
        for noise in noises {
            for groups in [1_u32, 4] {
                let rule = Threshold::new(noise, groups, 0.02, 0).unwrap();
                let shown = (0..draws).filter(|_| rule.admit(1, &mut rng).is_some()).count();
                let share = f64::from(u32::try_from(shown).unwrap()) / f64::from(draws);
                let allowed = delta_per_group(0.02, groups);
                let deviation = (allowed / f64::from(draws)).sqrt();
                assert!(share <= allowed + 4.0 * deviation, "{noise:?} {groups}: {share}");
                assert!(share > 0.2 * allowed, "{noise:?} {groups}: {share}");
            }
        }
    }

    #[test]
    fn large_groups_are_shown_and_small_ones_never() {
        let mut rng = StdRng::seed_from_u64(11);
        let noise = Noise::Laplace { epsilon: 1.0 };
        let rule = Threshold::new(noise, 1, 1e-6, 50).unwrap();
        assert_eq!(rule.tau(), Threshold::new(noise, 1, 1e-6, 0).unwrap().tau() + 49);
        for _ in 0..200 {
            assert!(rule.admit(200, &mut rng).is_some());
            assert!(rule.admit(0, &mut rng).is_none());
            assert!(rule.admit(49, &mut rng).is_none());
        }
        let generous = Threshold::new(Noise::Laplace { epsilon: 1e20 }, 1, 0.9, 0).unwrap();
        assert_eq!(generous.admit(1, &mut rng), Some(1));
        assert_eq!(generous.admit(0, &mut rng), None);
        let gaussian = Noise::Gaussian { epsilon: 1e20, delta: 0.01 }.split(3);
        let generous = Threshold::new(gaussian, 2, 0.01, 0).unwrap();
        assert_eq!((generous.tau(), generous.admit(1, &mut rng)), (1, Some(1)));
    }

    #[test]
    fn more_groups_and_less_delta_hide_more() {
        let tau = |groups, delta| {
            Threshold::new(Noise::Laplace { epsilon: 1.0 }, groups, delta, 0).unwrap().tau()
        };
        assert!(tau(2, 1e-6) > tau(1, 1e-6));
        assert!(tau(1, 1e-9) > tau(1, 1e-6));
        assert!(tau(1, 1e-300) > 600);
        for delta in [0.0, 1.0, f64::NAN] {
            assert!(Threshold::new(Noise::Laplace { epsilon: 1.0 }, 1, delta, 0).is_err());
        }
    }
}
