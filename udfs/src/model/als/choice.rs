//! The solver that `auto` comes to, by the size of the data and of the factors.
//!
//! Multiplications that an interaction costs, in units of its k coordinates, in a row of d of them:
//!
//! ```text
//! exactly, n = min(d, k), m = max(d, k)    n/2 + 1 + n²/(6m)    Gram matrix, right side, U
//! s steps of conjugate gradients           2·(s + 1)            two passes a step, two before them
//! a sweep over blocks of b coordinates     b/2 + 3 + b²/(6d)    each block's, twice the residual
//! ```
//!
//! Of implicit feedback a few steps are as good as the exact solution: the dense part is scaled
//! away, and each iteration goes on where the last one ended. So gradients are chosen as long as
//! they cost less in rows that are as long as the factors, or as the mean row if that is longer:
//! most interactions of a power law are in rows beyond the mean.
//!
//! Explicit feedback is solved exactly where that is affordable. Three steps come close to the
//! same loss, after some more iterations, so an exact solution may cost an order of magnitude more;
//! it costs more than that from 144 coordinates where rows are as long, from 192 where rows are
//! much longer. Coordinates are the factors and the bias, padded to a multiple of 16.
//!
//! Blocks have to be named: a sweep over the usual ones of 64 coordinates costs as much as 16
//! steps.

use super::options::{AlsOptions, Feedback, Solver};

/// Steps of conjugate gradients of explicit feedback, at least.
pub(super) const EXPLICIT_STEPS: usize = 3;
/// How much more an exact solution of explicit feedback may cost than those steps.
const EXACT_TIMES: f64 = 12.0;

/// Cholesky's method or conjugate gradients, for so many users, items and interactions.
pub(super) fn choose(options: &AlsOptions, users: usize, items: usize, cells: usize) -> Solver {
    let factors = options.stride() as f64;
    let length = |rows: usize| cells as f64 / rows.max(1) as f64;
    let is_exact = match options.feedback {
        Feedback::Implicit => {
            let exact = |rows: usize| exact_share(length(rows).max(factors), factors);
            let steps = gradient_share(options.cg_steps);
            (exact(users) + exact(items)) / 2.0 <= steps
        }
        Feedback::Explicit => {
            let exact = |rows: usize| exact_share(length(rows), factors);
            let steps = gradient_share(options.cg_steps.max(EXPLICIT_STEPS));
            (exact(users) + exact(items)) / 2.0 <= EXACT_TIMES * steps
        }
    };
    if is_exact { Solver::Cholesky } else { Solver::ConjugateGradient }
}

fn exact_share(length: f64, factors: f64) -> f64 {
    let (order, other) = (length.min(factors), length.max(factors));
    order / 2.0 + 1.0 + order * order / (6.0 * other)
}

fn gradient_share(steps: usize) -> f64 {
    2.0 * (steps as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::row::Method;
    use super::*;

    fn chosen(
        feedback: Feedback,
        num_factors: usize,
        cg_steps: usize,
        (users, items, cells): (usize, usize, usize),
    ) -> Solver {
        let options = AlsOptions { feedback, num_factors, cg_steps, ..AlsOptions::default() };
        choose(&options, users, items, cells)
    }

    const GOWALLA: (usize, usize, usize) = (29_858, 40_981, 810_128);
    const MOVIELENS_1M: (usize, usize, usize) = (6_040, 3_706, 1_000_209);
    const MOVIELENS_100K: (usize, usize, usize) = (943, 1_682, 100_000);

    #[test]
    fn evidence_is_solved_by_a_few_steps_of_gradients_whatever_its_size() {
        for size in [(3, 4, 8), GOWALLA, MOVIELENS_1M, (10_000_000, 1_000_000, 1_000_000_000)] {
            for factors in [1, 8, 16, 64, 256, 1024] {
                for steps in [1, 2, 3] {
                    let solver = chosen(Feedback::Implicit, factors, steps, size);
                    assert_eq!(solver, Solver::ConjugateGradient, "{factors} {steps} {size:?}");
                }
            }
        }
    }

    #[test]
    fn steps_that_cost_more_than_an_exact_solution_are_not_taken() {
        for (factors, steps, solver) in [
            (16, 4, Solver::ConjugateGradient),
            (16, 5, Solver::Cholesky),
            (64, 20, Solver::ConjugateGradient),
            (64, 22, Solver::Cholesky),
            (256, 50, Solver::ConjugateGradient),
            (256, 90, Solver::Cholesky),
        ] {
            assert_eq!(chosen(Feedback::Implicit, factors, steps, GOWALLA), solver, "{factors}");
        }
    }

    #[test]
    fn ratings_are_solved_exactly_unless_factors_and_rows_are_large() {
        for (factors, size, solver) in [
            (8, MOVIELENS_1M, Solver::Cholesky),
            (64, MOVIELENS_100K, Solver::Cholesky),
            (64, MOVIELENS_1M, Solver::Cholesky),
            (128, MOVIELENS_1M, Solver::Cholesky),
            (256, MOVIELENS_1M, Solver::ConjugateGradient),
            (512, MOVIELENS_1M, Solver::ConjugateGradient),
            // Short rows are small systems, however many factors there are.
            (512, MOVIELENS_100K, Solver::Cholesky),
            (1024, GOWALLA, Solver::Cholesky),
            // Rows as long as factors and bias are, padded, and rows that are much longer.
            (127, (1_000, 1_000, 144_000), Solver::Cholesky),
            (128, (1_000, 1_000, 144_000), Solver::ConjugateGradient),
            (175, (1_000, 1_000, 1_000_000_000), Solver::Cholesky),
            (176, (1_000, 1_000, 1_000_000_000), Solver::ConjugateGradient),
        ] {
            assert_eq!(chosen(Feedback::Explicit, factors, 2, size), solver, "{factors} {size:?}");
        }
    }

    #[test]
    fn a_named_solver_is_not_chosen() {
        let (users, items, cells) = MOVIELENS_1M;
        let ratings = AlsOptions { num_factors: 256, ..AlsOptions::default() };
        let method = |solver| AlsOptions { solver, ..ratings.clone() }.method(users, items, cells);
        assert_eq!(method(Solver::Auto), Method::Gradient { steps: EXPLICIT_STEPS });
        assert_eq!(method(Solver::ConjugateGradient), Method::Gradient { steps: 2 });
        assert_eq!(method(Solver::Cholesky), Method::Exact);
        assert_eq!(method(Solver::Subspace), Method::Subspace { block: 64 });
        let non_negative = AlsOptions { non_negative: true, ..ratings.clone() };
        assert_eq!(non_negative.method(users, items, cells), Method::NonNegative);
        let evidence = AlsOptions { feedback: Feedback::Implicit, ..ratings };
        assert_eq!(evidence.method(users, items, cells), Method::Gradient { steps: 2 });
    }
}
