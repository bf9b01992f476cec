//! Arithmetic on doubles that rounds up, and does not round what is exact.
//!
//! The rounding error of a sum is known exactly (Knuth's two-sum), and that of a product, quotient
//! or root has the sign of a fused multiply-add: so 1/0.1 stays 10, and nothing is ever too small.

/// `a` + `b`, rounded up.
pub(super) fn sum_up(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let rest = sum - a;
    let error = (a - (sum - rest)) + (b - rest);
    if error > 0.0 { sum.next_up() } else { sum }
}

/// `a` · `b`, rounded up; for positive numbers that do not underflow.
pub(super) fn product_up(a: f64, b: f64) -> f64 {
    let product = a * b;
    if a.mul_add(b, -product) > 0.0 { product.next_up() } else { product }
}

/// `a` / `b`, rounded up; for positive numbers that do not underflow.
pub(super) fn quotient_up(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    if quotient.mul_add(b, -a) < 0.0 { quotient.next_up() } else { quotient }
}

/// `a` / `b`, rounded down; for positive numbers that do not underflow.
pub(super) fn quotient_down(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    if quotient.mul_add(b, -a) > 0.0 { quotient.next_down() } else { quotient }
}

/// The square root of `a`, rounded up.
pub(super) fn root_up(a: f64) -> f64 {
    let root = a.sqrt();
    if root.mul_add(root, -a) < 0.0 { root.next_up() } else { root }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exact_is_not_rounded() {
        assert_eq!(sum_up(1.0, 0.5), 1.5);
        assert_eq!(product_up(3.0, 0.25), 0.75);
        assert_eq!(quotient_up(1.0, 4.0), 0.25);
        assert_eq!(quotient_down(1.0, 4.0), 0.25);
        assert_eq!(root_up(9.0), 3.0);
        // The double 0.1 is a little more than a tenth.
        assert_eq!(quotient_up(1.0, 0.1), 10.0);
        assert_eq!(quotient_down(1.0, 0.1), 10.0_f64.next_down());
    }

    #[test]
    fn all_else_goes_up() {
        assert_eq!(sum_up(1.0, 1e-30), 1.0_f64.next_up());
        assert_eq!(sum_up(1e-30, 1.0), 1.0_f64.next_up());
        assert!(quotient_up(1.0, 3.0) > quotient_down(1.0, 3.0));
        assert!(product_up(0.1, 3.0) >= 0.3);
        let root = root_up(2.0);
        assert!(root.mul_add(root, -2.0) >= 0.0);
    }
}
