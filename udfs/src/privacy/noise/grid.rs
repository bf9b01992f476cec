//! The grid on which real values get their noise.
//!
//! Its step is a power of two that is chosen by public numbers only. A value is moved to the
//! nearest point, noise is added as a whole number of steps, and the sum goes back to floating
//! point: the outcomes that can occur are the grid's points whatever the data was. Moving changes
//! the distance of two neighbours by at most one step, which the sensitivity has to include.

/// The most steps from zero: what lies beyond saturates, and noise added to it cannot overflow.
const UNITS_MAX: i128 = 1 << 120;

/// The exponents that a step may have.
const EXPONENT_MAX: i32 = 500;

/// A grid of multiples of a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    exponent: i32,
}

impl Grid {
    /// The grid of step 2^`exponent`, the exponent held between -500 and 500.
    pub fn new(exponent: i32) -> Self {
        Self { exponent: exponent.clamp(-EXPONENT_MAX, EXPONENT_MAX) }
    }

    /// The exponent of the step.
    pub fn exponent(&self) -> i32 {
        self.exponent
    }

    /// The distance of two points.
    pub fn step(&self) -> f64 {
        power_of_two(self.exponent)
    }

    /// The nearest point, in steps from zero. NaN is 0; what is more than 2^120 steps away
    /// saturates there.
    pub fn units(&self, value: f64) -> i128 {
        let steps = (value * power_of_two(-self.exponent)).round_ties_even();
        // The cast saturates, and takes NaN to 0.
        hold(steps as i128)
    }

    /// The number nearest to the point of `units` steps.
    pub fn value(&self, units: i128) -> f64 {
        units as f64 * self.step()
    }

    /// The point nearest to a whole number, in steps from zero, ties to even.
    pub(super) fn units_of_integer(&self, value: i128) -> i128 {
        if self.exponent > 0 {
            hold(divide_rounded(value, self.exponent.unsigned_abs()))
        } else {
            hold(multiply(value, self.exponent.unsigned_abs()))
        }
    }

    /// The whole number nearest to a point, ties to even; saturating.
    pub(super) fn integer(&self, units: i128) -> i128 {
        if self.exponent > 0 {
            multiply(units, self.exponent.unsigned_abs())
        } else {
            divide_rounded(units, self.exponent.unsigned_abs())
        }
    }
}

/// At most [`UNITS_MAX`] from zero.
fn hold(units: i128) -> i128 {
    units.clamp(-UNITS_MAX, UNITS_MAX)
}

/// `value` · 2^`bits`, saturating.
fn multiply(value: i128, bits: u32) -> i128 {
    let product = 1_i128.checked_shl(bits).filter(|factor| *factor > 0);
    match product.and_then(|factor| value.checked_mul(factor)) {
        Some(product) => product,
        None if value == 0 => 0,
        None if value > 0 => i128::MAX,
        None => i128::MIN,
    }
}

/// `value` / 2^`bits`, rounded to the nearest, ties to even.
fn divide_rounded(value: i128, bits: u32) -> i128 {
    if bits == 0 {
        return value;
    }
    if bits > 126 {
        return 0;
    }
    let floor = value >> bits;
    let rest = value - (floor << bits);
    let half = 1_i128 << (bits - 1);
    let up = rest > half || (rest == half && floor % 2 != 0);
    floor + i128::from(up)
}

/// The greatest e with 2^e at most `value`, for positive normal numbers; less than -1,000 for zero.
pub(super) fn exponent_of(value: f64) -> i32 {
    let biased = (value.to_bits() >> 52) & 0x7ff;
    i32::try_from(biased).unwrap_or(0) - 1023
}

/// 2^`exponent`, exact; the exponent is held between -1022 and 1023.
pub(super) fn power_of_two(exponent: i32) -> f64 {
    let biased = u64::try_from(exponent.clamp(-1022, 1023) + 1023).unwrap_or(0);
    f64::from_bits(biased << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_exact() {
        assert_eq!(power_of_two(0), 1.0);
        assert_eq!(power_of_two(-3), 0.125);
        assert_eq!(power_of_two(100), 2_f64.powi(100));
        for value in [1.0, 1.5, 1.999, 0.3, 1e-9, 3e20] {
            let exponent = exponent_of(value);
            assert!(power_of_two(exponent) <= value && value < power_of_two(exponent + 1));
        }
        assert!(exponent_of(0.0) < -1000);
    }

    #[test]
    fn values_go_to_the_nearest_point() {
        let quarter = Grid::new(-2);
        assert_eq!(quarter.units(1.3), 5);
        assert_eq!(quarter.value(5), 1.25);
        assert_eq!(quarter.units(f64::NAN), 0);
        assert_eq!(quarter.units(f64::INFINITY), UNITS_MAX);
        assert_eq!(quarter.units(-1e300), -UNITS_MAX);
        assert_eq!(Grid::new(-10_000).exponent(), -EXPONENT_MAX);
    }

    #[test]
    fn whole_numbers_go_and_come_back() {
        for exponent in [-52, -3, 0] {
            let grid = Grid::new(exponent);
            for value in [-7_i128, 0, 1, i128::from(i64::MAX)] {
                assert_eq!(grid.integer(grid.units_of_integer(value)), value);
            }
        }
        let eights = Grid::new(3);
        assert_eq!(eights.units_of_integer(13), 2);
        assert_eq!(eights.units_of_integer(12), 2);
        assert_eq!(eights.units_of_integer(20), 2);
        assert_eq!(eights.units_of_integer(-13), -2);
        assert_eq!(eights.integer(2), 16);
        assert_eq!(Grid::new(-500).units_of_integer(0), 0);
        assert_eq!(Grid::new(-500).units_of_integer(-1), -UNITS_MAX);
        assert_eq!(Grid::new(500).integer(-1), i128::MIN);
        assert_eq!(Grid::new(-100).integer(1 << 99), 0);
        assert_eq!(Grid::new(-100).integer((1 << 99) + 1), 1);
    }
}
