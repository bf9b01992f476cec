//! What every class of a result must be: k rows, diverse and close sensitive values, and a share of
//! the population that tells nothing of who is in the result.
//!
//! - *k*: at least k rows (Sweeney 2002).
//! - *l*: at least l distinct values; or exp of their entropy at least l; or, recursive (c, l), the
//!   most frequent value less than c times the sum of all but the l - 1 most frequent ones
//!   (Machanavajjhala et al. 2007).
//! - *t*: an earth mover's distance to the whole of at most t (Li et al. 2007), the values equally
//!   far apart, apart by rank, or as far as the height of their common ancestor.
//! - *delta*: between `delta_min` and `delta_max` of the rows of the population with the class's
//!   quasi-identifiers are in the result (Nergiz et al. 2007).

use datafusion_common::{Result, plan_err};

use super::super::l_diversity_entropy::effective_values;
use super::super::t_closeness::{Cumulated, class_size, equal_in_class, ordered_in_class, share};
use super::domain::Domains;
use super::{Input, Sensitive};

/// What rounding of a sum of logarithms or shares may add.
const TOLERANCE: f64 = 1e-9;

/// How sensitive values of a class are diverse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Diversity {
    /// At least so many distinct values.
    Distinct(u32),
    /// At least as uncertain as so many equally frequent ones.
    Entropy(f64),
    /// Recursive (c, l).
    Recursive {
        /// How many times the rest the most frequent value may be.
        c: f64,
        /// From which on values are the rest.
        l: u32,
    },
}

impl Diversity {
    /// A class of fewer rows cannot be diverse.
    fn rows_min(self) -> u32 {
        match self {
            Self::Distinct(l) | Self::Recursive { l, .. } => l,
            Self::Entropy(l) => (l - TOLERANCE).ceil() as u32,
        }
    }

    fn holds(self, class: &[(usize, u64)]) -> bool {
        match self {
            Self::Distinct(l) => class.len() >= l as usize,
            Self::Entropy(l) => effective_values(class.to_vec()) + TOLERANCE >= l,
            Self::Recursive { c, l } => {
                let mut counts: Vec<u64> = class.iter().map(|(_, count)| *count).collect();
                counts.sort_unstable_by(|left, right| right.cmp(left));
                let rest: u64 = counts.iter().skip((l as usize).saturating_sub(1)).sum();
                let most = counts.first().copied().unwrap_or_default();
                (most as f64) < c * rest as f64
            }
        }
    }
}

/// How far two values are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Distance {
    /// All values equally far.
    Equal,
    /// By rank, neighbours equally far.
    Ordered,
    /// By the height of the lowest label that both have.
    Hierarchical,
}

/// How close classes are to the whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Closeness {
    /// The greatest distance, from 0 to 1.
    pub t: f64,
    /// Between values.
    pub distance: Distance,
}

/// What every class must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Criteria {
    /// The fewest rows, at least 1.
    pub k: u32,
    /// Of each sensitive column.
    pub diversity: Option<Diversity>,
    /// Of each sensitive column.
    pub closeness: Option<Closeness>,
    /// The least and the greatest share of the population.
    pub presence: Option<(f64, f64)>,
}

/// Tells whether classes are what they must be.
#[derive(Debug)]
pub(super) struct Checker {
    criteria: Criteria,
    rows_min: u32,
    /// By sensitive column.
    wholes: Vec<Whole>,
}

impl Checker {
    /// A checker over the released rows of an input.
    ///
    /// # Errors
    /// When a sensitive column's hierarchy is none.
    pub fn new(input: &Input, criteria: Criteria) -> Result<Self> {
        let wholes = input
            .sensitive
            .iter()
            .map(|sensitive| Whole::new(input, sensitive, criteria.closeness))
            .collect::<Result<_>>()?;
        let diverse = criteria.diversity.map_or(1, Diversity::rows_min);
        Ok(Self { criteria, rows_min: criteria.k.max(diverse), wholes })
    }

    /// Whether sensitive values matter.
    pub fn reads_values(&self) -> bool {
        let criteria = self.criteria;
        (criteria.diversity.is_some() || criteria.closeness.is_some()) && !self.wholes.is_empty()
    }

    /// The fewest rows of a class.
    pub fn rows_min(&self) -> u32 {
        self.rows_min
    }

    /// Whether a class has rows enough; one without released rows is none.
    pub fn has_rows(&self, released: u32) -> bool {
        released == 0 || released >= self.rows_min
    }

    /// Whether a class's size, and its share of the population, are as they must be.
    pub fn size_holds(&self, released: u32, population: u32) -> bool {
        let present = self.criteria.presence.is_none_or(|(least, most)| {
            let share = f64::from(released) / f64::from(population.max(1));
            share >= least - TOLERANCE && share <= most + TOLERANCE
        });
        present && self.has_rows(released)
    }

    /// Whether a class's values of a sensitive column, by rank with their counts, are as they must
    /// be.
    pub fn values_hold(&self, sensitive: usize, class: &[(usize, u64)]) -> bool {
        let Some(whole) = self.wholes.get(sensitive) else { return true };
        if class.is_empty() {
            return true;
        }
        self.criteria.diversity.is_none_or(|diversity| diversity.holds(class))
            && self.criteria.closeness.is_none_or(|closeness| {
                whole.distance(class, closeness.distance) <= closeness.t + TOLERANCE
            })
    }

    /// The distance of a class to the whole.
    pub fn distance(&self, sensitive: usize, class: &[(usize, u64)], distance: Distance) -> f64 {
        self.wholes.get(sensitive).map_or(0.0, |whole| whole.distance(class, distance))
    }
}

/// All released values of a sensitive column.
#[derive(Debug)]
struct Whole {
    totals: Vec<u64>,
    rows: u64,
    cumulated: Cumulated,
    /// Of each level but the root, the node of the level above of each node.
    parents: Vec<Vec<u32>>,
}

impl Whole {
    fn new(input: &Input, sensitive: &Sensitive, closeness: Option<Closeness>) -> Result<Self> {
        let column = &sensitive.column;
        let mut totals = vec![0_u64; column.cardinality()];
        for (row, code) in column.codes.iter().enumerate() {
            if input.is_released(row) {
                totals[*code as usize] += 1;
            }
        }
        let order: Vec<usize> = (0..totals.len()).collect();
        let cumulated = Cumulated::new(&order, &totals);
        let is_tree = closeness.is_some_and(|known| known.distance == Distance::Hierarchical);
        let parents = match &sensitive.scheme {
            Some(scheme) if is_tree => ancestors(&scheme.domains(column)?),
            None if is_tree => {
                return plan_err!(
                    "hierarchical distances of column {0} need a hierarchy of it. Hint: add \
                     hierarchies => STRUCT('table' AS {0})",
                    column.name
                );
            }
            _ => vec![vec![0; totals.len()]],
        };
        let rows = totals.iter().sum();
        Ok(Self { totals, rows, cumulated, parents })
    }

    fn distance(&self, class: &[(usize, u64)], distance: Distance) -> f64 {
        match distance {
            Distance::Equal => equal_in_class(class, &self.totals, self.rows),
            Distance::Ordered => ordered_in_class(class, &self.cumulated),
            Distance::Hierarchical => self.hierarchical(class),
        }
    }

    /// Level by level, what flows between the children of a node costs the node's height.
    fn hierarchical(&self, class: &[(usize, u64)]) -> f64 {
        let size = class_size(class);
        let mut extra: Vec<f64> =
            self.totals.iter().map(|total| -share(*total, self.rows)).collect();
        for (value, count) in class {
            extra[*value] += share(*count, size);
        }
        let (mut cost, root) = (0.0, self.parents.len() as f64);
        for (level, parents) in self.parents.iter().enumerate() {
            let nodes = parents.iter().max().map_or(0, |most| *most as usize + 1);
            let mut flows = vec![(0.0, 0.0); nodes];
            for (extra, parent) in extra.iter().zip(parents) {
                let (more, less) = &mut flows[*parent as usize];
                if *extra > 0.0 {
                    *more += extra;
                } else {
                    *less -= extra;
                }
            }
            let height = (level + 1) as f64 / root;
            cost += flows.iter().map(|(more, less)| height * f64::min(*more, *less)).sum::<f64>();
            extra = flows.iter().map(|(more, less)| more - less).collect();
        }
        cost
    }
}

/// The levels up to one root.
fn ancestors(domains: &Domains) -> Vec<Vec<u32>> {
    let mut parents: Vec<Vec<u32>> =
        (0..domains.height()).map(|level| domains.parents(level).to_vec()).collect();
    let tops = domains.labels(domains.height()).len();
    if tops > 1 {
        parents.push(vec![0; tops]);
    }
    parents
}

#[cfg(test)]
mod tests {
    use super::super::column::tests::texts;
    use super::super::domain::Scheme;
    use super::*;

    fn input(scheme: Option<Scheme>) -> Input {
        let column = texts("s", &["a1", "a2", "b1", "b2"]);
        Input { quasi: vec![], sensitive: vec![Sensitive { column, scheme }], released: None }
    }

    fn criteria() -> Criteria {
        Criteria { k: 2, diversity: None, closeness: None, presence: None }
    }

    #[test]
    fn classes_are_diverse_in_three_ways() {
        let class = [(0, 4), (1, 2), (2, 1)];
        assert!(Diversity::Distinct(3).holds(&class) && !Diversity::Distinct(4).holds(&class));
        // exp of the entropy of 4/7, 2/7, 1/7.
        assert!(Diversity::Entropy(2.60).holds(&class) && !Diversity::Entropy(2.61).holds(&class));
        assert!(Diversity::Recursive { c: 1.4, l: 2 }.holds(&class));
        assert!(!Diversity::Recursive { c: 1.3, l: 2 }.holds(&class));
        assert!(!Diversity::Recursive { c: 4.0, l: 3 }.holds(&class));
        assert_eq!(Diversity::Entropy(2.1).rows_min(), 3);
    }

    #[test]
    fn distances_are_those_of_the_paper() {
        let closeness = Some(Closeness { t: 0.5, distance: Distance::Hierarchical });
        let input = input(Some(Scheme::built_in("prefix:1").unwrap().unwrap()));
        let checker = Checker::new(&input, Criteria { closeness, ..criteria() }).unwrap();
        // All of the class is 'a': half flows over the root.
        let class = [(0, 1), (1, 1)];
        assert!((checker.distance(0, &class, Distance::Hierarchical) - 0.5).abs() < 1e-12);
        // 'a1' and 'b1' take theirs from their neighbours, half as far.
        let near = [(0, 1), (2, 1)];
        assert!((checker.distance(0, &near, Distance::Hierarchical) - 0.25).abs() < 1e-12);
        assert!((checker.distance(0, &near, Distance::Equal) - 0.5).abs() < 1e-12);
        assert!((checker.distance(0, &class, Distance::Ordered) - 1.0 / 3.0).abs() < 1e-12);
        assert!(checker.values_hold(0, &class) && checker.reads_values());
    }

    #[test]
    fn sizes_and_shares_of_the_population_hold() {
        let presence = Some((0.0, 0.5));
        let checker = Checker::new(&input(None), Criteria { presence, ..criteria() }).unwrap();
        assert!(checker.size_holds(2, 4) && !checker.size_holds(3, 4));
        assert!(checker.size_holds(0, 4) && !checker.size_holds(1, 4));
        assert!(!checker.reads_values());
    }
}
