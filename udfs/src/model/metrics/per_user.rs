//! Metrics kept by user, so that their uncertainty can be told.
//!
//! Each user contributes a sum and a weight to each metric; the metric is Σ sums / Σ weights, or
//! its square root. A mean over users has weight 1 a user; a mean over rows (an error, a loss) has
//! the user's number of rows. A user with weight 0 has no say in a metric.

use std::collections::HashSet;

/// What a user adds to a metric.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Contribution {
    /// The sum.
    pub sum: f64,
    /// The weight; 0 when the metric says nothing of this user.
    pub weight: f64,
}

impl Contribution {
    /// A value that counts once, or none.
    pub fn of(value: Option<f64>) -> Self {
        value.map_or(Self::default(), |sum| Self { sum, weight: 1.0 })
    }

    fn plus(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, weight: self.weight + other.weight }
    }
}

/// A metric's name and how its sums become a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Such as `recall@20` or `rmse`.
    pub name: String,
    /// Whether the square root is taken at the end, as for RMSE.
    pub root: bool,
}

impl Metric {
    /// The value of sums; NaN when nothing has weight.
    pub fn value(&self, of: Contribution) -> f64 {
        let mean = of.sum / of.weight;
        if self.root { mean.sqrt() } else { mean }
    }
}

/// Contributions of users to metrics: 16 bytes a user and metric, and 4 a user.
#[derive(Debug, Clone, PartialEq)]
pub struct PerUser {
    metrics: Vec<Metric>,
    users: Vec<u32>,
    /// Row after row, one a metric.
    contributions: Vec<Contribution>,
}

impl PerUser {
    /// No users yet.
    pub fn new(metrics: Vec<Metric>) -> Self {
        Self { metrics, users: vec![], contributions: vec![] }
    }

    /// No users yet; every metric is a mean.
    pub fn means(names: Vec<String>) -> Self {
        Self::new(names.into_iter().map(|name| Metric { name, root: false }).collect())
    }

    /// Adds one user, who comes once. Metrics that `contributions` lacks have no weight.
    pub fn push(&mut self, user: u32, contributions: &[Contribution]) {
        self.users.push(user);
        let given = contributions.iter().copied().chain(std::iter::repeat(Contribution::default()));
        self.contributions.extend(given.take(self.metrics.len()));
    }

    /// Takes the users of another table of the same metrics.
    pub fn append(&mut self, mut other: Self) {
        self.users.append(&mut other.users);
        self.contributions.append(&mut other.contributions);
    }

    /// The users that `keep` accepts: a segment.
    pub fn select(&self, keep: impl Fn(u32) -> bool) -> Self {
        let mut kept = Self::new(self.metrics.clone());
        for (user, row) in self.rows().filter(|(user, _)| keep(*user)) {
            kept.push(user, row);
        }
        kept
    }

    /// The metrics.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// Users, in the order in which they came.
    pub fn users(&self) -> &[u32] {
        &self.users
    }

    /// Each user's code and contributions, one a metric.
    pub fn rows(&self) -> impl Iterator<Item = (u32, &[Contribution])> {
        let width = self.metrics.len().max(1);
        self.users.iter().copied().zip(self.contributions.chunks_exact(width))
    }

    /// How many users have a say in each metric.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.metrics.len()];
        for (_, row) in self.rows() {
            for (count, contribution) in counts.iter_mut().zip(row) {
                *count += usize::from(contribution.weight > 0.0);
            }
        }
        counts
    }

    /// Names and values; NaN when no user has a say.
    pub fn values(&self) -> Vec<(String, f64)> {
        let mut sums = vec![Contribution::default(); self.metrics.len()];
        for (_, row) in self.rows() {
            add(&mut sums, row);
        }
        let named = self.metrics.iter().zip(sums);
        named.map(|(metric, sum)| (metric.name.clone(), metric.value(sum))).collect()
    }

    /// The users whom both tables know, in the order of this one; one row a user in each.
    pub(super) fn paired(&self, other: &Self) -> (Self, Self) {
        let mine: HashSet<u32> = self.users.iter().copied().collect();
        let theirs: HashSet<u32> = other.users.iter().copied().collect();
        let mut pair =
            [self.select(|user| theirs.contains(&user)), other.select(|user| mine.contains(&user))];
        pair.iter_mut().for_each(Self::sort);
        let [mine, theirs] = pair;
        (mine, theirs)
    }

    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.users.len()).collect();
        order.sort_unstable_by_key(|&row| self.users[row]);
        let width = self.metrics.len();
        let rows = order.iter().flat_map(|&row| &self.contributions[row * width..][..width]);
        self.contributions = rows.copied().collect();
        self.users.sort_unstable();
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.users.capacity() * size_of::<u32>()
            + self.contributions.capacity() * size_of::<Contribution>()
    }
}

/// Adds a user's contributions to the sums.
pub(super) fn add(sums: &mut [Contribution], row: &[Contribution]) {
    for (sum, contribution) in sums.iter_mut().zip(row) {
        *sum = sum.plus(*contribution);
    }
}

/// Errors of predicted ratings by user: `rmse` and `mae` over all ratings.
#[derive(Debug, Clone)]
pub struct RatingEvaluation {
    per_user: PerUser,
}

impl RatingEvaluation {
    /// No users yet.
    pub fn new() -> Self {
        let metric = |name: &str, root| Metric { name: name.to_owned(), root };
        Self { per_user: PerUser::new(vec![metric("rmse", true), metric("mae", false)]) }
    }

    /// Adds one user, who comes once, with pairs of rating and prediction.
    pub fn add(&mut self, user: u32, pairs: impl IntoIterator<Item = (f64, f64)>) {
        let (mut squared, mut absolute) = (Contribution::default(), Contribution::default());
        for (rating, predicted) in pairs {
            let error = rating - predicted;
            squared = squared.plus(Contribution::of(Some(error * error)));
            absolute = absolute.plus(Contribution::of(Some(error.abs())));
        }
        self.per_user.push(user, &[squared, absolute]);
    }

    /// Takes the users of another evaluation.
    pub fn append(&mut self, other: Self) {
        self.per_user.append(other.per_user);
    }

    /// Values by user.
    pub fn per_user(&self) -> &PerUser {
        &self.per_user
    }
}

impl Default for RatingEvaluation {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_ratings_equal_values_computed_by_hand() {
        let users: [&[(f64, f64)]; 3] = [&[(4.0, 3.0), (5.0, 4.5)], &[], &[(1.0, 3.0)]];
        let mut evaluation = RatingEvaluation::new();
        assert!(evaluation.per_user().values()[0].1.is_nan());
        for (user, pairs) in (0..).zip(users) {
            evaluation.add(user, pairs.iter().copied());
        }
        let values = evaluation.per_user().values();
        assert_eq!((values[0].0.as_str(), values[1].0.as_str()), ("rmse", "mae"));
        assert!((values[0].1 - (5.25_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((values[1].1 - 3.5 / 3.0).abs() < 1e-12);
        assert_eq!(evaluation.per_user().counts(), [2, 2]);
    }

    #[test]
    fn a_segment_holds_its_users_only() {
        let mut table = PerUser::means(vec!["a".to_owned(), "b".to_owned()]);
        table.push(7, &[Contribution::of(Some(1.0)), Contribution::of(None)]);
        table.push(8, &[Contribution::of(Some(3.0)), Contribution::of(Some(5.0))]);
        table.push(9, &[Contribution::of(Some(5.0))]);
        assert_eq!(table.values()[0].1, 3.0);
        assert_eq!(table.values()[1].1, 5.0);
        assert_eq!(table.counts(), [3, 1]);
        let segment = table.select(|user| user < 9);
        assert_eq!((segment.users().len(), segment.values()[0].1), (2, 2.0));
        assert!(table.select(|_| false).values()[0].1.is_nan());
    }

    #[test]
    fn pairs_are_aligned_by_user() {
        let mut first = PerUser::means(vec!["a".to_owned()]);
        let mut second = first.clone();
        for user in [3, 1, 2] {
            first.push(user, &[Contribution::of(Some(f64::from(user)))]);
        }
        for user in [2, 9, 3] {
            second.push(user, &[Contribution::of(Some(f64::from(user) * 10.0))]);
        }
        let (mine, theirs) = first.paired(&second);
        assert_eq!((mine.users(), theirs.users()), (&[2, 3][..], &[2, 3][..]));
        assert_eq!((mine.values()[0].1, theirs.values()[0].1), (2.5, 25.0));
    }
}
