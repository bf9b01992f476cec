//! Isolation forest (Liu, Ting and Zhou 2008, 2012): rows that few random cuts set apart are
//! anomalies.
//!
//! A tree cuts a sample of ψ rows at random features and values until each row stands alone or the
//! height ⌈log₂ ψ⌉ is reached. A row's score is 2^(−E(h) / c(ψ)): E(h) is the mean height of the
//! leaf that it comes to, with c(size) added for a leaf of several rows, and c(n) = 2·H(n − 1) −
//! 2·(n − 1) / n the mean height of a search tree. Near 1 is an anomaly, well below .5 is not.
//!
//! The seed and the number of a tree alone say how it is cut, so the same rows in the same order
//! give the same forest.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::als::Progress;
use super::cancel;
use super::error::ModelError;
use super::random::{Seeded, mix};

/// The most trees.
const TREES_MAX: usize = 10_000;
/// The largest sample of a tree.
const SAMPLES_MAX: usize = 1 << 20;
/// Euler's constant.
const EULER: f64 = 0.577_215_664_901_532_9;
/// The feature of a leaf.
pub const LEAF: u32 = u32::MAX;
/// Trees that are grown before they are added to the forest.
const TREES_AT_ONCE: usize = 16;
/// Draws between two looks at the cancel flag.
const DRAWS_PER_LOOK: usize = 4096;

/// Options of an isolation forest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForestOptions {
    /// Trees.
    pub num_trees: usize,
    /// Rows that each tree samples, at most.
    pub max_samples: usize,
    /// The share of training rows that are taken for anomalies; `None` for a score above .5.
    pub contamination: Option<f64>,
    /// Seed of samples and cuts.
    pub seed: u64,
}

impl Default for ForestOptions {
    fn default() -> Self {
        Self { num_trees: 100, max_samples: 256, contamination: None, seed: 0 }
    }
}

impl ForestOptions {
    /// Checks every option's domain.
    ///
    /// # Errors
    /// [`ModelError::Option`] naming the option.
    pub fn validate(&self) -> Result<(), ModelError> {
        let wrong = |option, value: String, hint| Err(ModelError::Option { option, value, hint });
        if !(1..=TREES_MAX).contains(&self.num_trees) {
            let hint = "Give 1 to 10000 trees; 100 is usual";
            return wrong("num_trees", self.num_trees.to_string(), hint);
        }
        if !(2..=SAMPLES_MAX).contains(&self.max_samples) {
            let hint = "Give 2 rows to 1048576; 256 is usual";
            return wrong("max_samples", self.max_samples.to_string(), hint);
        }
        match self.contamination {
            Some(share) if !(share > 0.0 && share <= 0.5) => {
                let hint = "Give a share of rows above 0, at most 0.5";
                wrong("contamination", share.to_string(), hint)
            }
            _ => Ok(()),
        }
    }

    /// Peak bytes of training, beside the rows: the nodes, and a score of each row, twice while the
    /// scores are sorted.
    pub fn memory_bytes(&self, rows: usize) -> usize {
        let nodes = self.num_trees.saturating_mul(2 * self.max_samples.min(rows.max(1)));
        nodes.saturating_mul(NODE_BYTES).saturating_add(rows.saturating_mul(2 * size_of::<f64>()))
    }
}

const NODE_BYTES: usize = size_of::<u32>() * 2 + size_of::<f64>();

/// A grown forest; also what is stored of it. Nodes lie tree by tree, each before its left child.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct IsolationForest {
    /// Numbers of a row.
    pub width: usize,
    /// ψ, the rows that each tree sampled.
    pub samples: usize,
    /// A row whose score is above it is an anomaly.
    pub threshold: f64,
    /// The first node of each tree.
    pub roots: Vec<u32>,
    /// The feature that a node cuts; [`LEAF`] for a leaf.
    pub features: Vec<u32>,
    /// Rows below this value go left; of a leaf its height, with what a larger tree would add.
    pub values: Vec<f64>,
    /// The right child; 0 for a leaf.
    pub rights: Vec<u32>,
}

/// The mean height of an unsuccessful search among `count` values.
fn search_height(count: usize) -> f64 {
    match count {
        0 | 1 => 0.0,
        2 => 1.0,
        count => {
            let before = (count - 1) as f64;
            2.0 * (before.ln() + EULER) - 2.0 * before / count as f64
        }
    }
}

/// Grows a forest on rows, row-major, `width` finite numbers each, on the current rayon pool.
///
/// # Errors
/// Invalid options, no rows, cancellation.
pub fn train(
    rows: &[f64],
    width: usize,
    options: &ForestOptions,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<IsolationForest, ModelError> {
    options.validate()?;
    if width == 0 || rows.is_empty() {
        return Err(ModelError::Empty);
    }
    let count = rows.len() / width;
    let samples = options.max_samples.min(count);
    let limit = samples.next_power_of_two().ilog2();
    let mut forest =
        IsolationForest { width, samples, threshold: 0.5, ..IsolationForest::default() };
    let numbers: Vec<usize> = (0..options.num_trees).collect();
    for some in numbers.chunks(TREES_AT_ONCE) {
        let grown: Vec<Tree> = some
            .par_iter()
            .map(|number| {
                let mut draws = Seeded::new(mix(mix(options.seed) ^ *number as u64));
                let mut sample = sample(&mut draws, count, samples, cancel);
                let mut tree = Tree::default();
                tree.grow(&Rows { rows, width, cancel }, &mut sample, 0, limit, &mut draws);
                tree
            })
            .collect();
        if cancel::is_set(cancel) {
            return Err(ModelError::Cancelled);
        }
        grown.into_iter().for_each(|tree| forest.add(tree));
    }
    if let Some(share) = options.contamination {
        let mut scores = forest.scores_unless(rows, cancel)?;
        cancel::sort_unless(&mut scores, f64::total_cmp, cancel);
        cancel::check(cancel)?;
        // As many of the training rows lie above it; ties at it are no anomalies.
        let above = (share * count as f64).round() as usize;
        forest.threshold = scores[count - 1 - above.min(count - 1)];
    }
    progress(Progress { iteration: 1, done: 1, total: 1, loss: None, metric: None });
    Ok(forest)
}

struct Rows<'a> {
    rows: &'a [f64],
    width: usize,
    /// Once it is set, trees end where they are.
    cancel: &'a AtomicBool,
}

impl Rows<'_> {
    fn value(&self, row: u32, feature: usize) -> f64 {
        self.rows[row as usize * self.width + feature]
    }
}

fn below(draws: &mut Seeded, count: usize) -> usize {
    usize::try_from(draws.below(count as u64)).unwrap_or(0)
}

/// `size` different rows of `count`, by Floyd's method; fewer once the flag is set.
fn sample(draws: &mut Seeded, count: usize, size: usize, cancel: &AtomicBool) -> Vec<u32> {
    let mut taken = std::collections::BTreeSet::new();
    for last in count - size..count {
        if last.is_multiple_of(DRAWS_PER_LOOK) && cancel::is_set(cancel) {
            break;
        }
        let drawn = below(draws, last + 1);
        if !taken.insert(drawn) {
            taken.insert(last);
        }
    }
    taken.into_iter().map(|row| u32::try_from(row).unwrap_or(u32::MAX - 1)).collect()
}

#[derive(Default)]
struct Tree {
    features: Vec<u32>,
    values: Vec<f64>,
    rights: Vec<u32>,
}

impl Tree {
    fn node(&mut self, feature: u32, value: f64) -> usize {
        self.features.push(feature);
        self.values.push(value);
        self.rights.push(0);
        self.features.len() - 1
    }

    fn leaf(&mut self, depth: u32, rows: usize) {
        self.node(LEAF, f64::from(depth) + search_height(rows));
    }

    fn grow(
        &mut self,
        all: &Rows<'_>,
        rows: &mut [u32],
        depth: u32,
        limit: u32,
        draws: &mut Seeded,
    ) {
        if depth >= limit || rows.len() < 2 || cancel::is_set(all.cancel) {
            return self.leaf(depth, rows.len());
        }
        let Some((feature, low, high)) = cuttable(all, rows, draws) else {
            return self.leaf(depth, rows.len());
        };
        let mut cut = low + (high - low) * draws.share();
        // Both sides get a row, also where rounding puts the cut at the lowest value.
        if cut <= low || cut > high {
            cut = high;
        }
        let node = self.node(u32::try_from(feature).unwrap_or(LEAF - 1), cut);
        let middle = partition(rows, |row| all.value(row, feature) < cut);
        let (left, right) = rows.split_at_mut(middle);
        self.grow(all, left, depth + 1, limit, draws);
        self.rights[node] = u32::try_from(self.features.len()).unwrap_or(0);
        self.grow(all, right, depth + 1, limit, draws);
    }
}

/// A random feature in which the rows differ, with its least and largest value.
fn cuttable(all: &Rows<'_>, rows: &[u32], draws: &mut Seeded) -> Option<(usize, f64, f64)> {
    // Features without a difference are passed over in the order of a random start.
    let start = below(draws, all.width);
    (0..all.width).map(|step| (start + step) % all.width).find_map(|feature| {
        let ends = rows.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), row| {
            let value = all.value(*row, feature);
            (low.min(value), high.max(value))
        });
        (ends.0 < ends.1 && (ends.1 - ends.0).is_finite()).then_some((feature, ends.0, ends.1))
    })
}

/// Puts the rows for which `first` holds in front; gives how many they are.
fn partition(rows: &mut [u32], first: impl Fn(u32) -> bool) -> usize {
    let mut middle = 0;
    for at in 0..rows.len() {
        if first(rows[at]) {
            rows.swap(at, middle);
            middle += 1;
        }
    }
    middle
}

impl IsolationForest {
    fn add(&mut self, tree: Tree) {
        let root = u32::try_from(self.features.len()).unwrap_or(u32::MAX);
        self.roots.push(root);
        let moved = tree.rights.iter().map(|right| if *right == 0 { 0 } else { right + root });
        self.rights.extend(moved);
        self.features.extend(tree.features);
        self.values.extend(tree.values);
    }

    /// Whether the parts make trees over `width` numbers in which every way ends.
    pub fn is_sound(&self) -> bool {
        let count = self.features.len();
        let inside = |node: usize| {
            let (feature, right) = (self.features[node], self.rights[node] as usize);
            // Children lie behind their parent, so no way goes round.
            let cuts = (feature as usize) < self.width && right > node + 1 && right < count;
            self.values[node].is_finite() && (feature == LEAF || cuts)
        };
        self.width > 0
            && self.samples > 0
            && self.threshold.is_finite()
            && !self.roots.is_empty()
            && self.values.len() == count
            && self.rights.len() == count
            && self.roots.iter().all(|root| (*root as usize) < count)
            && self.features.last() == Some(&LEAF)
            && (0..count).all(inside)
    }

    /// The score of each row, row-major; a row's score does not depend on the others. Runs on the
    /// current rayon pool.
    ///
    /// # Errors
    /// When the rows do not have the forest's number of features.
    pub fn scores(&self, rows: &[f64]) -> Result<Vec<f64>, ModelError> {
        self.scores_unless(rows, &AtomicBool::new(false))
    }

    /// [`IsolationForest::scores`], unless the flag is set.
    ///
    /// # Errors
    /// Those of [`IsolationForest::scores`], and cancellation.
    pub fn scores_unless(&self, rows: &[f64], cancel: &AtomicBool) -> Result<Vec<f64>, ModelError> {
        if self.width == 0 || !rows.len().is_multiple_of(self.width) {
            return Err(ModelError::Inconsistent("rows and features differ in number".to_owned()));
        }
        let usual = search_height(self.samples) * self.roots.len() as f64;
        let score = |row: &[f64]| {
            if cancel::is_set(cancel) {
                return 0.0;
            }
            let height: f64 = self.roots.iter().map(|root| self.height(*root, row)).sum();
            // Of one row alone there is nothing to be set apart from.
            if usual > 0.0 { (-height / usual).exp2() } else { 0.5 }
        };
        let scores = rows.par_chunks(self.width).with_min_len(256).map(score).collect();
        cancel::check(cancel)?;
        Ok(scores)
    }

    fn height(&self, root: u32, row: &[f64]) -> f64 {
        let mut node = root as usize;
        loop {
            let feature = self.features[node];
            if feature == LEAF {
                return self.values[node];
            }
            let left = row[feature as usize] < self.values[node];
            node = if left { node + 1 } else { self.rights[node] as usize };
        }
    }

    /// Whether a score is an anomaly's.
    pub fn is_anomaly(&self, score: f64) -> bool {
        // A sum's last digit makes none.
        score > self.threshold * (1.0 + 1e-9)
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.features.len() * NODE_BYTES + self.roots.len() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<f64> {
        // A cloud of 500 points, and three far ones.
        let noise = |n: u64| (mix(n) >> 11) as f64 / (1_u64 << 53) as f64;
        let mut rows: Vec<f64> = (0..1000).map(noise).collect();
        rows.extend([9.0, 9.0, -8.0, 0.5, 0.5, 12.0]);
        rows
    }

    fn grown(options: &ForestOptions) -> IsolationForest {
        train(&points(), 2, options, &mut |_| {}, &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn far_points_have_the_highest_scores() {
        let forest = grown(&ForestOptions::default());
        assert!(forest.is_sound());
        let scores = forest.scores(&points()).unwrap();
        let (near, far) = scores.split_at(500);
        let highest = near.iter().copied().fold(0.0, f64::max);
        assert!(far.iter().all(|score| *score > highest && *score > 0.6), "{highest} {far:?}");
        let mean = near.iter().sum::<f64>() / 500.0;
        assert!((0.35..0.5).contains(&mean), "{mean}");
    }

    #[test]
    fn contamination_is_the_share_above_the_threshold() {
        let options = ForestOptions { contamination: Some(0.02), ..ForestOptions::default() };
        let forest = grown(&options);
        let scores = forest.scores(&points()).unwrap();
        let above = scores.iter().filter(|score| forest.is_anomaly(**score)).count();
        assert_eq!(above, 10);
    }

    #[test]
    fn the_seed_decides() {
        let options = ForestOptions { num_trees: 20, ..ForestOptions::default() };
        assert_eq!(grown(&options), grown(&options));
        assert_ne!(grown(&options), grown(&ForestOptions { seed: 1, ..options }));
    }

    #[test]
    fn heights_are_those_of_search_trees() {
        assert_eq!([0, 1, 2].map(search_height), [0.0, 0.0, 1.0]);
        // Table 1 of the paper: c(256) is about 10.24.
        assert!((search_height(256) - 10.2448).abs() < 1e-3);
    }

    #[test]
    fn few_and_equal_rows_have_no_anomalies() {
        let go_on = AtomicBool::new(false);
        for rows in [vec![1.0], vec![3.0; 50]] {
            let forest = train(&rows, 1, &ForestOptions::default(), &mut |_| {}, &go_on).unwrap();
            assert!(forest.is_sound());
            let scores = forest.scores(&rows).unwrap();
            assert!(scores.iter().all(|score| !forest.is_anomaly(*score)), "{scores:?}");
        }
        let huge = [f64::MAX, f64::MIN, 0.0];
        let forest = train(&huge, 1, &ForestOptions::default(), &mut |_| {}, &go_on).unwrap();
        assert!(forest.is_sound());
    }

    #[test]
    fn wrong_options_and_parts_are_refused() {
        for options in [
            ForestOptions { num_trees: 0, ..ForestOptions::default() },
            ForestOptions { max_samples: 1, ..ForestOptions::default() },
            ForestOptions { contamination: Some(0.7), ..ForestOptions::default() },
        ] {
            assert!(options.validate().is_err(), "{options:?}");
        }
        let forest = grown(&ForestOptions { num_trees: 2, ..ForestOptions::default() });
        let mut round = forest.clone();
        let inner = round.features.iter().position(|feature| *feature != LEAF).unwrap();
        round.rights[inner] = 0;
        assert!(!round.is_sound());
        assert!(!IsolationForest { width: 1, ..forest.clone() }.is_sound());
        assert!(forest.scores(&[1.0]).is_err());
        let cancelled = AtomicBool::new(true);
        let none = train(&points(), 2, &ForestOptions::default(), &mut |_| {}, &cancelled);
        assert!(matches!(none, Err(ModelError::Cancelled)));
        assert_eq!(forest.scores_unless(&points(), &cancelled), Err(ModelError::Cancelled));
    }
}
