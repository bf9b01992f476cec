//! A training that is cancelled ends within 100 ms: how much is computed between two looks at the
//! flag, counted in multiplications.

use super::super::super::cancel::meter::most_between_looks;
use super::methods::with_a_long_row;
use super::*;

/// Multiplications, each with an addition, of 100 ms at 1 GFLOP/s, which one core surpasses by far.
const PRODUCTS_MOST: usize = 50_000_000;
/// Factors that the bound is to hold for, from fewer: work between looks grows with their square.
const FACTORS: usize = 256;

#[test]
fn looks_at_the_flag_are_less_than_100_ms_apart_whatever_the_solver() {
    let csr = with_a_long_row();
    for (feedback, solver, num_factors) in [
        (Feedback::Explicit, Solver::Cholesky, 128),
        (Feedback::Explicit, Solver::ConjugateGradient, 128),
        (Feedback::Explicit, Solver::Subspace, 64),
        (Feedback::Implicit, Solver::Cholesky, 64),
        (Feedback::Implicit, Solver::ConjugateGradient, 64),
        (Feedback::Implicit, Solver::Subspace, 64),
        (Feedback::Implicit, Solver::Auto, 16),
    ] {
        let options = AlsOptions {
            feedback,
            solver,
            num_factors,
            non_negative: solver == Solver::Auto,
            max_iterations: 1,
            wals_alpha: Some(3.0),
            ..AlsOptions::default()
        };
        let most = most_between_looks(|| {
            quiet(&csr, &options);
        });
        let growth = (FACTORS / num_factors).pow(2);
        assert!(most > num_factors, "nothing was counted: {options:?}");
        assert!(most * growth < PRODUCTS_MOST, "{most} {options:?}");
    }
}
