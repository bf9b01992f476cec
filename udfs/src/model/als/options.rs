//! Options of matrix factorization, their domains, their defaults and what they cost in memory.

use std::sync::atomic::AtomicBool;

use super::super::error::ModelError;
use super::super::sparse::{Csr, csr_bytes};
use super::batch;
use super::choice::{self, EXPLICIT_STEPS};
use super::gram::partials;
use super::narrow::{WIDE_VALUES, narrow_bytes};
use super::normal::part_limit;
use super::parts;
use super::row::{GATHERED_VALUES, HEAVY_CELLS, Method};
use super::stream;

/// What a value of the training query's rating column means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Feedback {
    /// A rating: the model predicts the value.
    #[default]
    Explicit,
    /// A weight of evidence: the model predicts preference (1 where weight > 0, else 0) with
    /// confidence 1 + α·|weight|.
    Implicit,
}

/// How the regularization of a row grows with the number `n` of its interactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// λ, as implicit and BigQuery do.
    Constant,
    /// λ·n, as Spark does (ALS-WR, Zhou et al. 2008).
    Count,
    /// λ·(n + α₀·|other side|)^ν, as iALS does (Rendle et al. 2021); see [`AlsOptions`].
    Frequency,
}

/// How a row's normal equations are solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Solver {
    /// Cholesky or conjugate gradients, by feedback and size: see [`AlsOptions::solver_for`].
    #[default]
    Auto,
    /// Exactly.
    Cholesky,
    /// A few steps of preconditioned conjugate gradients from the last iteration's factors.
    ConjugateGradient,
    /// One sweep over blocks of coordinates, each solved exactly with the others held fixed
    /// (iALS++, Rendle et al. 2021).
    Subspace,
}

impl Solver {
    /// Its name as an option.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cholesky => "cholesky",
            Self::ConjugateGradient => "cg",
            Self::Subspace => "subspace",
        }
    }
}

/// Options of matrix factorization by alternating least squares.
///
/// Implicit feedback minimizes, with r the weight, c = 1 + α·|r| and p = 1 where r > 0, else 0,
///
/// ```text
/// Σ over all (u, i)  c·(p − xᵤ·yᵢ)²  +  Σ λᵤ·|xᵤ|²  +  Σ λᵢ·|yᵢ|²
/// ```
///
/// An unobserved cell weighs 1 and an observed one α·|r| more, so that relative to a unit of
/// observed weight an unobserved cell weighs α₀ = 1/α: the "unobserved weight" of iALS (2021).
/// Dividing the objective by α gives iALS's own scale: its λ is ours divided by α, which is why
/// a λ of .01 there is `l2_reg = 0.01·α` here. With scaling `frequency`, λᵤ = λ·(n + α₀·|I|)^ν
/// and λᵢ = λ·(n + α₀·|U|)^ν; with α = 0, α₀ is taken as 1.
///
/// Explicit feedback minimizes, over observed cells only, with biases b regularized alike,
///
/// ```text
/// Σ (r − μ − bᵤ − bᵢ − xᵤ·yᵢ)²  +  Σ λᵤ·(|xᵤ|² + bᵤ²)  +  Σ λᵢ·(|yᵢ|² + bᵢ²)
/// ```
///
/// where α₀ = 0. In every scaling n counts the row's distinct interactions.
///
/// A negative weight is evidence against (implicit feedback): preference 0, held with the
/// confidence 1 + α·|r|.
///
/// With features of a side, λ·|x|² of its rows becomes λ·|x − Wᵀf|² and γ·|W|² is added, where γ is
/// `feature_reg` times the mean λ of the side's rows; see [`super::features`].
#[derive(Debug, Clone, PartialEq)]
pub struct AlsOptions {
    /// Meaning of the rating column.
    pub feedback: Feedback,
    /// Length of a factor vector, 1 to 1,024.
    pub num_factors: usize,
    /// Number of iterations, each solving all users, then all items.
    pub max_iterations: usize,
    /// λ; `None` is .01·α for implicit and .1 for explicit feedback.
    pub l2_reg: Option<f64>,
    /// α; `None` weighs all observed cells together an eighth of all cells.
    pub wals_alpha: Option<f64>,
    /// How λ grows; `None` is `frequency` for implicit and `count` for explicit feedback.
    pub regularization_scaling: Option<Scaling>,
    /// ν of scaling `frequency`.
    pub frequency_exponent: f64,
    /// How rows are solved.
    pub solver: Solver,
    /// Steps of conjugate gradients per row and iteration; at least 3 where `auto` chooses them for
    /// explicit feedback.
    pub cg_steps: usize,
    /// Explicit feedback only: learn the mean and a bias for each user and item.
    pub biases: bool,
    /// Coordinates that solver `subspace` solves together, rounded up to a multiple of 16; `None`
    /// is 64.
    pub block_size: Option<usize>,
    /// Only factors of 0 or more, with every other term of the objective as it is; biases may be
    /// negative. It has its own solver: `solver` has to be `auto`.
    pub non_negative: bool,
    /// How strongly the map from features to factors is held to 0, in rows of average λ.
    pub feature_reg: f64,
    /// Seed of the initial factors.
    pub seed: u64,
    /// Stop once an iteration lowers the loss by less than this share; `None` never stops early.
    pub min_rel_progress: Option<f64>,
}

impl Default for AlsOptions {
    fn default() -> Self {
        Self {
            feedback: Feedback::Explicit,
            num_factors: 64,
            max_iterations: 8,
            l2_reg: None,
            wals_alpha: None,
            regularization_scaling: None,
            frequency_exponent: 1.0,
            solver: Solver::Auto,
            cg_steps: 2,
            biases: true,
            block_size: None,
            non_negative: false,
            feature_reg: 1.0,
            seed: 0,
            min_rel_progress: None,
        }
    }
}

/// Options with every default filled in for one data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resolved {
    /// λ.
    pub l2_reg: f64,
    /// α; 1 for explicit feedback, where it plays no part.
    pub alpha: f64,
    /// How λ grows.
    pub scaling: Scaling,
    /// ν.
    pub exponent: f64,
    /// α₀ of scaling `frequency`.
    pub unobserved_weight: f64,
}

impl Resolved {
    /// Regularization of a row with `count` interactions against `others` rows of the other side.
    ///
    /// Never below a relative 1e-7 of the row's weight, so that λ = 0 stays solvable.
    pub fn regularization(&self, count: usize, others: usize) -> f64 {
        let count = count as f64;
        let lambda = match self.scaling {
            Scaling::Constant => self.l2_reg,
            Scaling::Count => self.l2_reg * count,
            Scaling::Frequency => {
                let base = count + self.unobserved_weight * others as f64;
                self.l2_reg * base.powf(self.exponent)
            }
        };
        lambda.max(1e-7 * count.max(1.0))
    }
}

impl AlsOptions {
    /// Checks every option's domain.
    ///
    /// # Errors
    /// [`ModelError::Option`] naming the option.
    pub fn validate(&self) -> Result<(), ModelError> {
        let fail = |option, value: String, hint| Err(ModelError::Option { option, value, hint });
        if self.num_factors == 0 || self.num_factors > 1024 {
            let hint = "Give 1 to 1024 factors; 32 to 256 are usual";
            return fail("num_factors", self.num_factors.to_string(), hint);
        }
        if self.max_iterations == 0 || self.max_iterations > 10_000 {
            let hint = "Give 1 to 10000 iterations; 8 to 20 are usual";
            return fail("max_iterations", self.max_iterations.to_string(), hint);
        }
        if self.cg_steps == 0 || self.cg_steps > 1000 {
            let hint = "Give 1 to 1000 steps; 2 or 3 are usual";
            return fail("cg_steps", self.cg_steps.to_string(), hint);
        }
        if self.block_size.is_some_and(|size| size == 0 || size > 1024) {
            let value = self.block_size.unwrap_or_default().to_string();
            return fail("block_size", value, "Give 1 to 1024 factors; 32 to 128 are usual");
        }
        if self.non_negative && self.solver != Solver::Auto {
            let hint = "Leave solver = 'auto': non-negative factors have a solver of their own";
            return fail("solver", self.solver.name().to_owned(), hint);
        }
        self.check_numbers()
    }

    fn check_numbers(&self) -> Result<(), ModelError> {
        for (option, value, most, hint) in [
            ("l2_reg", self.l2_reg, 1e12, "Give a number from 0 to 1e12; 0.01 to 10 are usual"),
            (
                "wals_alpha",
                self.wals_alpha,
                1e12,
                "Give a number from 0 to 1e12; 1 to 100 are usual",
            ),
            (
                "frequency_exponent",
                Some(self.frequency_exponent),
                16.0,
                "Give a number from 0 to 16; 0.5 to 1 are usual",
            ),
            (
                "feature_reg",
                Some(self.feature_reg),
                1e12,
                "Give a number from 0 to 1e12; 1 is usual",
            ),
            (
                "min_rel_progress",
                self.min_rel_progress,
                1.0,
                "Give a share from 0 to 1; 0.01 stops once an iteration gains less than a hundredth",
            ),
        ] {
            if let Some(value) = value.filter(|value| !(0.0..=most).contains(value)) {
                return Err(ModelError::Option { option, value: value.to_string(), hint });
            }
        }
        Ok(())
    }

    /// Fills in the defaults that depend on the data.
    pub fn resolve(&self, interactions: &Csr) -> Resolved {
        self.resolve_unless(interactions, &AtomicBool::new(false))
    }

    /// [`AlsOptions::resolve`]; with the flag set it is wrong: the caller looks at the flag.
    pub(super) fn resolve_unless(&self, interactions: &Csr, cancel: &AtomicBool) -> Resolved {
        let implicit = self.feedback == Feedback::Implicit;
        let alpha = match (implicit, self.wals_alpha) {
            (false, _) => 1.0,
            (true, Some(alpha)) => alpha,
            (true, None) => default_alpha(interactions, cancel),
        };
        let l2_reg = self.l2_reg.unwrap_or(if implicit { 0.01 * alpha } else { 0.1 });
        let usual = if implicit { Scaling::Frequency } else { Scaling::Count };
        Resolved {
            l2_reg,
            alpha,
            scaling: self.regularization_scaling.unwrap_or(usual),
            exponent: self.frequency_exponent,
            unobserved_weight: match (implicit, alpha > 0.0) {
                (false, _) => 0.0,
                (true, true) => 1.0 / alpha,
                (true, false) => 1.0,
            },
        }
    }

    /// Whether the model has a mean and biases.
    pub fn has_biases(&self) -> bool {
        self.biases && self.feedback == Feedback::Explicit
    }

    /// Length of a padded factor row while training.
    pub(super) fn stride(&self) -> usize {
        stride(self.num_factors + usize::from(self.has_biases()))
    }

    /// The solver of so many users, items and interactions: the named one, or the one that `auto`
    /// comes to. For implicit feedback those are conjugate gradients unless `cg_steps` of them cost
    /// more than an exact solution; for explicit feedback Cholesky unless it costs more than twelve
    /// times as much as three steps: with biases from 128 factors where rows are as long, from 176
    /// where they are much longer.
    pub fn solver_for(&self, users: usize, items: usize, cells: usize) -> Solver {
        match self.solver {
            Solver::Auto => choice::choose(self, users, items, cells),
            named => named,
        }
    }

    /// How the rows of so many users, items and interactions are solved.
    pub(super) fn method(&self, users: usize, items: usize, cells: usize) -> Method {
        let explicit = self.feedback == Feedback::Explicit;
        match self.solver_for(users, items, cells) {
            _ if self.non_negative => Method::NonNegative,
            Solver::Auto | Solver::Cholesky => Method::Exact,
            Solver::ConjugateGradient if explicit && self.solver == Solver::Auto => {
                Method::Gradient { steps: self.cg_steps.max(EXPLICIT_STEPS) }
            }
            Solver::ConjugateGradient => Method::Gradient { steps: self.cg_steps },
            Solver::Subspace => {
                let block = self.block_size.unwrap_or(USUAL_BLOCK).next_multiple_of(16);
                Method::Subspace { block: block.min(self.stride()) }
            }
        }
    }

    /// Whether rows are gathered from a copy of the other side in 16 bits, where that has `rows`
    /// rows and is read as it is up to `wide_values` values; see [`super::narrow`].
    pub(super) fn is_narrow(&self, method: Method, rows: usize, wide_values: usize) -> bool {
        self.feedback == Feedback::Implicit
            && matches!(method, Method::Gradient { .. })
            && rows.saturating_mul(self.stride()) > wide_values
    }

    /// Peak bytes of training on the current rayon pool, the interactions themselves included;
    /// known before the start. Side features come on top: see [`super::Training::memory_bytes`].
    ///
    /// Three copies of the interactions (as given, by user, by item), the factors padded and, as
    /// the finished or best model, unpadded, and the larger side in 16 bits where it is large; then
    /// what depends on `num_factors` alone.
    pub fn memory_bytes(&self, users: usize, items: usize, cells: usize) -> usize {
        let stride = self.stride();
        let rows = users + items;
        let interactions = 2 * csr_bytes(users, cells) + csr_bytes(items, cells);
        let width = self.num_factors + usize::from(self.has_biases());
        let factors = rows * (stride + width) * size_of::<f32>();
        // Codes, positions, and what renumbering takes for a while.
        let codes = rows * 2 * size_of::<u32>() + users.max(items) * 2 * size_of::<usize>();
        let square = stride * stride;
        let gram = match self.feedback {
            Feedback::Explicit => 0,
            // Partial matrices in f32 and their sum; then that and four more of the eigenproblem.
            Feedback::Implicit => square * (8 + (4 * partials(users.max(items))).max(28)),
        };
        let larger = users.max(items);
        let longest = larger.min(cells);
        let methods = self.methods(users, items, cells);
        let is_narrow = methods.iter().any(|&method| self.is_narrow(method, larger, WIDE_VALUES));
        let narrow = if is_narrow { narrow_bytes(larger, stride) } else { 0 };
        let scratch = methods.map(|method| self.scratch_bytes(method, longest));
        let scratch = scratch.into_iter().max().unwrap_or(0);
        interactions + factors + codes + gram + narrow + scratch
    }

    /// The methods that rows may be solved by: `auto` chooses once duplicates are merged and what
    /// is kept aside is gone, when there are fewer interactions.
    fn methods(&self, users: usize, items: usize, cells: usize) -> [Method; 2] {
        if self.solver == Solver::Auto && !self.non_negative {
            return [Method::Exact, Method::Gradient { steps: self.cg_steps }];
        }
        [self.method(users, items, cells); 2]
    }

    /// Working memory of all threads for rows of at most `longest` interactions.
    fn scratch_bytes(&self, method: Method, longest: usize) -> usize {
        let stride = self.stride();
        let matrix = stride * stride;
        let (each, parts) = match method {
            Method::Gradient { .. } => ((longest * stride).min(GATHERED_VALUES), 0),
            Method::Subspace { block } => {
                let gathered = longest.min(HEAVY_CELLS) * block;
                (gathered + matrix + batch::values(stride), longest / HEAVY_CELLS)
            }
            Method::Exact | Method::NonNegative => {
                let together = if method == Method::Exact { batch::values(stride) } else { 0 };
                let own = longest.min(stride.max(512)) * stride + matrix;
                (own + together, longest / HEAVY_CELLS)
            }
        };
        let shared = parts.min(part_limit(stride)) * matrix + stream::part_values(longest, stride);
        let each = each + stream::values(stride);
        (rayon::current_num_threads() * each + shared) * size_of::<f32>()
    }
}

/// Coordinates of a subspace unless told.
const USUAL_BLOCK: usize = 64;

/// Rows are padded with zeros to whole 64-byte lines.
pub(super) fn stride(columns: usize) -> usize {
    columns.next_multiple_of(16)
}

/// α such that all observed weights together are an eighth of the number of cells, of users and
/// items that have interactions.
///
/// The best α₀ published for iALS follows the density of the data (ml-20m .1, msd .02; our runs
/// .3 on ml-100k and ml-1m, .01 on Gowalla): 8 × density is within a factor of 2 of each.
fn default_alpha(interactions: &Csr, cancel: &AtomicBool) -> f64 {
    let values = parts(interactions.values(), cancel).flatten();
    let weight: f64 = values.map(|value| f64::from(value.abs())).sum();
    let users = interactions.offsets().windows(2).filter(|pair| pair[0] < pair[1]).count();
    let items = interactions.column_counts().iter().filter(|&&count| count > 0).count();
    let cells = users as f64 * items as f64;
    if weight > 0.0 { (cells / (8.0 * weight)).clamp(1.0, 1000.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_outside_their_domain_are_refused_by_name() {
        let bad = [
            AlsOptions { num_factors: 0, ..AlsOptions::default() },
            AlsOptions { num_factors: 5000, ..AlsOptions::default() },
            AlsOptions { max_iterations: 0, ..AlsOptions::default() },
            AlsOptions { cg_steps: 0, ..AlsOptions::default() },
            AlsOptions { l2_reg: Some(-0.1), ..AlsOptions::default() },
            AlsOptions { wals_alpha: Some(f64::NAN), ..AlsOptions::default() },
            AlsOptions { frequency_exponent: f64::INFINITY, ..AlsOptions::default() },
            AlsOptions { feature_reg: -1.0, ..AlsOptions::default() },
            AlsOptions { block_size: Some(0), ..AlsOptions::default() },
            AlsOptions { non_negative: true, solver: Solver::Subspace, ..AlsOptions::default() },
        ];
        for (index, options) in bad.iter().enumerate() {
            assert!(options.validate().is_err(), "{index}");
        }
        assert_eq!(AlsOptions::default().validate(), Ok(()));
    }

    #[test]
    fn large_sides_are_copied_for_gradients_of_evidence_alone() {
        let rows = WIDE_VALUES / 64;
        let implicit = AlsOptions { feedback: Feedback::Implicit, ..AlsOptions::default() };
        let is_narrow = |options: &AlsOptions, rows| {
            options.is_narrow(options.method(rows, 9, 99), rows, WIDE_VALUES)
        };
        assert!(!is_narrow(&implicit, rows));
        assert!(is_narrow(&implicit, rows + 1));
        let more = implicit.memory_bytes(rows + 1, 9, 99) - implicit.memory_bytes(rows, 9, 99);
        assert!(more >= narrow_bytes(rows, 64));
        for other in [
            AlsOptions::default(),
            AlsOptions { solver: Solver::Cholesky, ..implicit.clone() },
            AlsOptions { solver: Solver::Subspace, ..implicit.clone() },
            AlsOptions { non_negative: true, ..implicit.clone() },
        ] {
            assert!(!is_narrow(&other, 2 * rows), "{other:?}");
        }
    }

    #[test]
    fn memory_is_at_most_three_times_the_interactions_and_factors_beside_the_threads_own() {
        let gathered = 4 * GATHERED_VALUES * size_of::<f32>();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        // Gowalla, and ten million interactions.
        for (users, items, cells) in [(29_858, 40_981, 810_128), (200_000, 50_000, 10_000_000)] {
            for num_factors in [32, 64, 128, 256] {
                for feedback in [Feedback::Implicit, Feedback::Explicit] {
                    let options = AlsOptions { feedback, num_factors, ..AlsOptions::default() };
                    let own = csr_bytes(users, cells) + (users + items) * num_factors * 4;
                    let peak = pool.install(|| options.memory_bytes(users, items, cells));
                    assert!(peak <= 3 * own + gathered, "{peak} {own} {options:?}");
                    assert!(peak >= 2 * own, "{peak} {own} {options:?}");
                    // Whichever solver the training part comes to.
                    for solver in [Solver::Cholesky, Solver::ConjugateGradient] {
                        let named = AlsOptions { solver, ..options.clone() };
                        let named = pool.install(|| named.memory_bytes(users, items, cells));
                        assert!(peak >= named, "{peak} {named} {options:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn scalings_follow_their_formulas() {
        let csr = Csr::new(vec![0, 2], vec![0, 1], vec![1.0; 2], 4).unwrap();
        let options = AlsOptions {
            feedback: Feedback::Implicit,
            l2_reg: Some(0.5),
            wals_alpha: Some(4.0),
            frequency_exponent: 2.0,
            ..AlsOptions::default()
        };
        let with = |scaling| {
            AlsOptions { regularization_scaling: Some(scaling), ..options.clone() }
                .resolve(&csr)
                .regularization(3, 8)
        };
        assert_eq!(with(Scaling::Constant), 0.5);
        assert_eq!(with(Scaling::Count), 1.5);
        assert_eq!(with(Scaling::Frequency), 0.5 * 25.0);
    }
}
