//! Noise calibrated to what a release may cost and to how much a person can change it.
//!
//! Laplace noise gets the scale l1/epsilon and Gaussian noise the sigma of
//! [`accounting::gaussian_sigma`], or that of its rho, at l2, where l1 and l2 are the sensitivity
//! over all groups, values' moves to the grid included. Calibrated once, it serves any number of
//! groups and values.
//!
//! Whole numbers under Laplace noise get the discrete distribution on the whole numbers. All else
//! is computed on a finer grid: Gaussian counts too, and they are rounded afterwards, since the
//! analytic sigma is that of the continuous distribution. The discrete one's mass differs from that
//! of the continuous one's cells by a factor of about 1 + step²/sigma²: on a grid of sigma's 2^-40
//! by 2^-80, far within the slack of sigma.

use datafusion_common::{Result, exec_err};
use rand::CryptoRng;

use super::gaussian::{DiscreteGaussian, SIGMA_BITS};
use super::grid::{Grid, exponent_of};
use super::laplace::DiscreteLaplace;
use super::rounding::{product_up, quotient_up};
use super::{Noise, Sensitivity, accounting, normal};

/// The grid of Laplace noise is this much finer than its scale and than the values' magnitude.
const FINE_BITS: i32 = 40;

/// No grid is finer than a magnitude's 2^-52: beyond that a double has no digits, and sums of many
/// values would leave the range.
const MAGNITUDE_BITS: i32 = 52;

/// No grid of Laplace noise is finer than its scale's 2^-58.
const SCALE_BITS: i32 = 58;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sampler {
    Laplace(DiscreteLaplace),
    Gaussian(DiscreteGaussian),
}

/// Noise of one release, to be added to the values of all its groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mechanism {
    grid: Grid,
    scale: f64,
    sampler: Sampler,
}

impl Mechanism {
    /// For real values of which one entry changes a group by at most the sensitivity's magnitude.
    ///
    /// # Errors
    /// As [`Noise::check`], and where the noise would be too large for any use.
    pub fn for_reals(noise: Noise, sensitivity: &Sensitivity) -> Result<Self> {
        let calibration = Calibration::of(noise)?;
        let grid = calibration.grid(sensitivity);
        Self::on(grid, noise, calibration.scale(sensitivity, grid.step()))
    }

    /// For whole numbers, such as counts; the magnitude is rounded up to a whole number.
    ///
    /// # Errors
    /// As [`Mechanism::for_reals`].
    pub fn for_integers(noise: Noise, sensitivity: &Sensitivity) -> Result<Self> {
        let whole = sensitivity.of_magnitude(sensitivity.magnitude().ceil())?;
        match noise {
            Noise::Gaussian { .. } | Noise::Concentrated { .. } => Self::for_reals(noise, &whole),
            Noise::Laplace { .. } => {
                let scale = Calibration::of(noise)?.scale(&whole, 0.0);
                Self::on(Grid::new(0), noise, scale)
            }
        }
    }

    fn on(grid: Grid, noise: Noise, scale: f64) -> Result<Self> {
        let steps = scale / grid.step();
        let sampler = match noise {
            Noise::Laplace { .. } => Sampler::Laplace(DiscreteLaplace::of_scale(steps)?),
            Noise::Gaussian { .. } | Noise::Concentrated { .. } => {
                Sampler::Gaussian(DiscreteGaussian::of_sigma(steps)?)
            }
        };
        Ok(Self { grid, scale, sampler })
    }

    /// The grid that values are moved to. It is public: it depends on no data.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The scale of Laplace noise or the sigma of Gaussian noise, in the values' own unit.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// A real value with noise.
    pub fn real(&self, value: f64, rng: &mut dyn CryptoRng) -> f64 {
        self.units(self.grid.units(value), rng)
    }

    /// The value of a sum of [`Grid::units`], with noise.
    pub fn units(&self, units: i128, rng: &mut dyn CryptoRng) -> f64 {
        self.grid.value(units.saturating_add(self.draw(rng)))
    }

    /// A whole number with noise; saturating.
    pub fn integer(&self, value: i128, rng: &mut dyn CryptoRng) -> i128 {
        let units = self.grid.units_of_integer(value);
        self.grid.integer(units.saturating_add(self.draw(rng)))
    }

    /// Noise alone, in steps of the grid.
    fn draw(&self, rng: &mut dyn CryptoRng) -> i128 {
        match &self.sampler {
            Sampler::Laplace(noise) => noise.sample(rng),
            Sampler::Gaussian(noise) => noise.sample(rng),
        }
    }

    /// How far noise takes a value at most, with probability `confidence`: what a report of an
    /// answer's interval adds and subtracts.
    ///
    /// # Errors
    /// When `confidence` is not between 0 and 1.
    pub fn margin(&self, confidence: f64) -> Result<f64> {
        if !(confidence > 0.0 && confidence < 1.0) {
            return exec_err!(
                "the confidence is {confidence}, it must lie between 0 and 1, both excluded. \
                 Hint: 0.95 is common"
            );
        }
        let miss = 1.0 - confidence;
        match &self.sampler {
            Sampler::Laplace(_) => {
                // P[|x| >= m] = 2 a^m/(1 + a), with a = exp(-1/s) and m in steps.
                let steps = self.scale / self.grid.step();
                let factor = 2.0 / (miss * (1.0 + (-1.0 / steps).exp()));
                Ok(self.scale * factor.ln().max(0.0))
            }
            Sampler::Gaussian(_) => Ok(self.scale * normal::upper_quantile(0.5 * miss)),
        }
    }
}

/// What the scale follows from.
#[derive(Clone, Copy, Debug)]
enum Calibration {
    Laplace {
        epsilon: f64,
    },
    /// The sigma at a sensitivity of 1, rounded up.
    Gaussian {
        sigma: f64,
    },
}

impl Calibration {
    fn of(noise: Noise) -> Result<Self> {
        noise.check()?;
        match noise {
            Noise::Laplace { epsilon } => Ok(Self::Laplace { epsilon }),
            Noise::Gaussian { epsilon, delta } => {
                Ok(Self::Gaussian { sigma: accounting::gaussian_sigma(epsilon, delta, 1.0)? })
            }
            Noise::Concentrated { rho } => {
                Ok(Self::Gaussian { sigma: accounting::sigma_of_rho(rho, 1.0) })
            }
        }
    }

    /// The scale, rounded up, where entries are moved by up to `step`.
    fn scale(&self, sensitivity: &Sensitivity, step: f64) -> f64 {
        match self {
            Self::Laplace { epsilon } => quotient_up(sensitivity.l1(step), *epsilon),
            Self::Gaussian { sigma } => product_up(*sigma, sensitivity.l2(step)),
        }
    }

    /// The grid for real values: fine against the noise and against the values themselves.
    fn grid(&self, sensitivity: &Sensitivity) -> Grid {
        let entry = exponent_of(sensitivity.magnitude());
        let scale = exponent_of(self.scale(sensitivity, 0.0));
        let exponent = match self {
            Self::Laplace { .. } => (scale.min(entry) - FINE_BITS).max(scale - SCALE_BITS),
            Self::Gaussian { .. } => scale - SIGMA_BITS,
        };
        Grid::new(exponent.max(entry - MAGNITUDE_BITS))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn laplace(epsilon: f64) -> Noise {
        Noise::Laplace { epsilon }
    }

    #[test]
    fn whole_numbers_get_the_scale_of_the_books() {
        for (groups, entries, magnitude, epsilon, scale) in
            [(1, 1, 1.0, 1.0, 1.0), (1, 1, 1.0, 0.1, 10.0), (2, 3, 90.0, 0.5, 1080.0)]
        {
            let sensitivity = Sensitivity::new(groups, entries, magnitude).unwrap();
            let noise = Mechanism::for_integers(laplace(epsilon), &sensitivity).unwrap();
            assert_eq!(noise.scale(), scale);
            assert_eq!(noise.grid(), Grid::new(0));
        }
    }

    #[test]
    fn the_grid_costs_next_to_nothing() {
        let one = Sensitivity::new(4, 1, 50.0).unwrap();
        for epsilon in [1e-6, 1e-3, 0.1, 1.0, 10.0, 1e20] {
            let noise = Mechanism::for_reals(laplace(epsilon), &one).unwrap();
            let exact = 200.0 / epsilon;
            assert!(noise.scale() >= exact && noise.scale() <= exact * (1.0 + 1e-9), "{epsilon}");
        }
        for epsilon in [0.01, 0.1, 1.0, 10.0] {
            let noise = Noise::Gaussian { epsilon, delta: 1e-6 };
            let mechanism = Mechanism::for_reals(noise, &one).unwrap();
            let exact = accounting::gaussian_sigma(epsilon, 1e-6, 100.0).unwrap();
            assert!(mechanism.scale() >= exact * (1.0 - 1e-12), "{epsilon}");
            assert!(mechanism.scale() <= exact * (1.0 + 1e-8), "{epsilon}");
        }
    }

    #[test]
    fn parts_of_gaussian_noise_are_together_as_private_as_the_whole() {
        let one = Sensitivity::new(1, 1, 1.0).unwrap();
        for (epsilon, delta) in [(0.1, 1e-9), (1.0, 1e-6), (5.0, 1e-3)] {
            let noise = Noise::Gaussian { epsilon, delta };
            for parts in [2_u32, 3, 30] {
                let part = Mechanism::for_reals(noise.split(parts), &one).unwrap().scale();
                // The squares of sensitivity over sigma add up.
                let all = part / f64::from(parts).sqrt();
                let lost = accounting::gaussian_delta(epsilon, all, 1.0);
                assert!(lost <= delta, "{epsilon} {parts}: {lost}");
                assert!(lost >= delta * (1.0 - 1e-4), "{epsilon} {parts}: {lost}");
            }
        }
        // Parts of parts, for groups too.
        let four = Sensitivity::new(4, 1, 1.0).unwrap();
        let noise = Noise::Concentrated { rho: 0.5 };
        let part = Mechanism::for_integers(noise.split(2).split(2), &four).unwrap();
        assert!((part.scale() - 4.0).abs() < 1e-6, "{}", part.scale());
    }

    #[test]
    fn an_epsilon_of_1e20_gives_the_values_themselves() {
        let mut rng = StdRng::seed_from_u64(8);
        let sensitivity = Sensitivity::new(2, 1, 100.0).unwrap();
        // Gaussian noise falls with the square root of epsilon only.
        let gaussian = Noise::Gaussian { epsilon: 1e20, delta: 0.01 };
        for (noise, within) in [(laplace(1e20), 1e-11), (gaussian, 1e-6)] {
            let reals = Mechanism::for_reals(noise, &sensitivity).unwrap();
            for value in [0.0, 18.5, 40.0, -7.25, 1e9, 12_345.678] {
                let found = reals.real(value, &mut rng);
                assert!((found - value).abs() <= within, "{found}");
            }
            let whole = Mechanism::for_integers(noise, &sensitivity).unwrap();
            for value in [0, 1, -5, i128::from(i64::MAX)] {
                assert_eq!(whole.integer(value, &mut rng), value);
            }
        }
    }

    #[test]
    fn extremes_are_errors_or_numbers() {
        let mut rng = StdRng::seed_from_u64(9);
        for magnitude in [1e-100, 1e-3, 1.0, 1e18, 1e100] {
            for groups in [1, 1_000, u32::MAX] {
                let sensitivity = Sensitivity::new(groups, 1, magnitude).unwrap();
                for epsilon in [1e-6, 1.0, 1e300] {
                    for noise in [laplace(epsilon), Noise::Gaussian { epsilon, delta: 1e-9 }] {
                        let reals = Mechanism::for_reals(noise, &sensitivity).unwrap();
                        for value in [0.0, f64::NAN, f64::INFINITY, f64::MIN, 1e-300] {
                            assert!(reals.real(value, &mut rng).is_finite());
                        }
                        if magnitude <= 1e18 && groups <= 1_000 {
                            let whole = Mechanism::for_integers(noise, &sensitivity).unwrap();
                            whole.integer(i128::MIN, &mut rng);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Sensitivity::new(0, 1, 1.0).is_err());
        assert!(Sensitivity::new(1, 0, 1.0).is_err());
        let one = Sensitivity::new(1, 1, 1.0).unwrap();
        for epsilon in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-7] {
            let error = Mechanism::for_reals(laplace(epsilon), &one).unwrap_err().to_string();
            assert!(error.contains("Hint"), "{error}");
        }
        for delta in [0.0, 1.0, f64::NAN] {
            let noise = Noise::Gaussian { epsilon: 1.0, delta };
            assert!(Mechanism::for_integers(noise, &one).is_err());
        }
        for magnitude in [0.0, f64::NAN, f64::INFINITY, -1.0] {
            assert!(Sensitivity::new(1, 1, magnitude).is_err());
        }
    }

    #[test]
    fn margins_are_those_of_opendp() {
        let one = Sensitivity::new(1, 1, 1.0).unwrap();
        let count = Mechanism::for_integers(laplace(1.0), &one).unwrap();
        // discrete_laplacian_scale_to_accuracy(1, 0.05); the real one is ln 20.
        assert!((count.margin(0.95).unwrap() - 3.375_617_766_595_713_7).abs() < 1e-9);
        let real = Mechanism::for_reals(laplace(1.0), &one).unwrap();
        assert!((real.margin(0.95).unwrap() - 20.0_f64.ln()).abs() < 1e-6);
        let noise = Noise::Gaussian { epsilon: 1.0, delta: 1e-6 };
        let gaussian = Mechanism::for_reals(noise, &one).unwrap();
        let margin = gaussian.margin(0.95).unwrap() / gaussian.scale();
        assert!((margin - 1.959_963_984_540_054).abs() < 1e-9);
        assert!(count.margin(1.0).is_err());
    }
}
