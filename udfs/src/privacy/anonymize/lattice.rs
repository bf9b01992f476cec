//! The best full-domain generalization: every column at one level, classes that fail suppressed.
//!
//! A node of the lattice is a level for each column. What it costs is DM*: the sum of the squared
//! sizes of its classes, suppressed ones included, as ARX has it. A more general node merges
//! classes and never costs less, so that a walk can turn back where it costs as much as the best
//! node found, and gives the optimum whatever the criteria are. It goes column by column: at each
//! level of a column the classes are rolled up from those of the level before. Where a criterion is
//! monotone it also turns back when the columns not yet chosen fail even at their top: k-anonymity
//! always is, and every criterion when nothing may be suppressed.
//!
//! Classes are keyed by the codes of their columns, packed into 128 bits.

use datafusion_common::{HashMap, Result, exec_err};

use super::criteria::Checker;
use super::domain::Domains;
use super::{Input, NO_CLASS};
use crate::fuzzy::stop::Stop;

/// More nodes than this are not searched.
const NODES_MAX: u128 = 10_000_000;

/// Where a column's code is in a key.
#[derive(Debug, Clone, Copy)]
struct Place {
    shift: u32,
    mask: u128,
}

impl Place {
    fn code(self, key: u128) -> usize {
        ((key >> self.shift) & self.mask) as usize
    }

    fn with(self, key: u128, code: u32) -> u128 {
        (key & !(self.mask << self.shift)) | (u128::from(code) << self.shift)
    }
}

/// Classes of equal keys, numbered in the order in which they came.
#[derive(Debug, Default)]
struct Classes {
    keys: Vec<u128>,
    released: Vec<u32>,
    population: Vec<u32>,
    /// The class here of each class of ungeneralized values; empty where nobody asks.
    of_bottom: Vec<u32>,
}

impl Classes {
    /// The classes whose keys become equal.
    fn rolled_up(&self, numbers: &mut HashMap<u128, u32>, key: impl Fn(u128) -> u128) -> Self {
        // Clearing takes time by the room of the map, not by what is in it.
        if numbers.capacity() / 16 > self.keys.len() {
            *numbers = HashMap::with_capacity(self.keys.len());
        }
        numbers.clear();
        let mut rolled = Self::default();
        let mut number_of = Vec::with_capacity(self.keys.len());
        let sizes = self.released.iter().zip(&self.population);
        for (old, (released, population)) in self.keys.iter().zip(sizes) {
            let key = key(*old);
            let next = rolled.keys.len() as u32;
            let number = *numbers.entry(key).or_insert(next);
            if number == next {
                rolled.keys.push(key);
                rolled.released.push(*released);
                rolled.population.push(*population);
            } else {
                rolled.released[number as usize] += released;
                rolled.population[number as usize] += population;
            }
            number_of.push(number);
        }
        rolled.of_bottom = self.of_bottom.iter().map(|class| number_of[*class as usize]).collect();
        rolled
    }

    /// DM*.
    fn cost(&self) -> u64 {
        self.released.iter().map(|size| u64::from(*size).pow(2)).sum()
    }
}

/// Counts of a sensitive column's values by class.
pub(super) struct Grouped {
    starts: Vec<usize>,
    cells: Vec<(usize, u64)>,
}

impl Grouped {
    /// Counts by the classes that ungeneralized classes have become. Cells are a class, the rank of
    /// a value and a count, in the order of ranks.
    fn new(cells: &[(u32, u32, u32)], of_bottom: &[u32], classes: usize) -> Self {
        let mut starts = vec![0_usize; classes + 1];
        for (bottom, ..) in cells {
            starts[of_bottom[*bottom as usize] as usize + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut placed = vec![(0_usize, 0_u64); cells.len()];
        for (bottom, rank, count) in cells {
            let place = &mut next[of_bottom[*bottom as usize] as usize];
            placed[*place] = (*rank as usize, u64::from(*count));
            *place += 1;
        }
        let mut grouped = Self { starts: vec![0], cells: Vec::with_capacity(cells.len()) };
        for bounds in starts.windows(2) {
            let begin = grouped.cells.len();
            for cell in &placed[bounds[0]..bounds[1]] {
                let is_new = grouped.cells.len() == begin;
                match grouped.cells.last_mut() {
                    Some(last) if !is_new && last.0 == cell.0 => last.1 += cell.1,
                    _ => grouped.cells.push(*cell),
                }
            }
            grouped.starts.push(grouped.cells.len());
        }
        grouped
    }

    /// The values of a class, by rank, with their counts.
    pub fn class(&self, class: usize) -> &[(usize, u64)] {
        let at = |place: usize| self.starts.get(place).copied().unwrap_or_default();
        self.cells.get(at(class)..at(class + 1)).unwrap_or_default()
    }
}

/// The best node.
#[derive(Debug)]
pub(super) struct Node {
    /// The level of each column.
    pub levels: Vec<usize>,
    /// The class of each row.
    pub class_of: Vec<u32>,
    /// How many rows of each class are released, suppressed or not.
    pub released: Vec<u32>,
    /// How many rows of the population each class has.
    pub population: Vec<u32>,
    /// By column, the code of each class at the column's level.
    pub codes: Vec<Vec<u32>>,
    /// Which classes are suppressed.
    pub suppressed: Vec<bool>,
}

/// Finds the node that costs least, of equal ones the one with the fewest levels; `None` where
/// every node fails for more than `rows_max` rows.
///
/// # Errors
/// When there are too many nodes or values, or nobody waits any more.
pub(super) fn best(
    input: &Input,
    domains: &[Domains],
    checker: &Checker,
    rows_max: u64,
    stop: &Stop,
) -> Result<Option<Node>> {
    let nodes = domains.iter().try_fold(1_u128, |nodes, domain| {
        nodes.checked_mul(domain.height() as u128 + 1).filter(|nodes| *nodes <= NODES_MAX)
    });
    if nodes.is_none() {
        return exec_err!(
            "there are more than {NODES_MAX} ways to generalize these columns. Hint: name fewer \
             quasi-identifiers or levels, or use method => 'mondrian'"
        );
    }
    let mut search = Search::new(input, domains, checker, rows_max, stop)?;
    let bottom = search.bottom(input);
    search.cells = match checker.reads_values() {
        true => input.sensitive.iter().map(|s| cells(input, &s.column.codes, &bottom.1)).collect(),
        false => vec![],
    };
    let (mut classes, class_of) = bottom;
    if !checker.reads_values() {
        classes.of_bottom.clear();
    }
    search.descend(0, &classes)?;
    let Some((_, _, levels)) = search.best.take() else { return Ok(None) };
    classes.of_bottom = (0..classes.keys.len() as u32).collect();
    let chosen = search.at_levels(&classes, 0, &levels);
    let Some(suppressed) = search.failing(&chosen, false) else { return Ok(None) };
    let codes = search
        .places
        .iter()
        .map(|place| chosen.keys.iter().map(|key| place.code(*key) as u32).collect());
    Ok(Some(Node {
        codes: codes.collect(),
        class_of: class_of.iter().map(|bottom| chosen.of_bottom[*bottom as usize]).collect(),
        levels,
        released: chosen.released,
        population: chosen.population,
        suppressed,
    }))
}

/// The walk over the lattice.
struct Search<'a> {
    domains: &'a [Domains],
    /// Columns in the order in which they are chosen: of many values first, which fail and cost
    /// most.
    order: Vec<usize>,
    /// By column.
    places: Vec<Place>,
    checker: &'a Checker,
    /// The most rows that may be suppressed.
    rows_max: u64,
    /// By sensitive column, a class of ungeneralized values, a value and a count, by value.
    cells: Vec<Vec<(u32, u32, u32)>>,
    stop: &'a Stop,
    numbers: HashMap<u128, u32>,
    /// By column; 0 where not yet chosen.
    levels: Vec<usize>,
    /// Its cost, sum of levels, and levels.
    best: Option<(u64, usize, Vec<usize>)>,
}

impl<'a> Search<'a> {
    fn new(
        input: &Input,
        domains: &'a [Domains],
        checker: &'a Checker,
        rows_max: u64,
        stop: &'a Stop,
    ) -> Result<Self> {
        let mut shift = 0_u32;
        let mut places = vec![];
        for quasi in &input.quasi {
            let most = quasi.column.cardinality().saturating_sub(1) as u128;
            let bits = u128::BITS - most.leading_zeros();
            if shift + bits > u128::BITS {
                return exec_err!(
                    "the quasi-identifiers have too many values together to be searched. Hint: \
                     name fewer, generalize them in the query, or use method => 'mondrian'"
                );
            }
            // A column of one value takes no bits, and is not shifted out of the key.
            let mask = 1_u128.checked_shl(bits).map_or(u128::MAX, |above| above - 1);
            places.push(Place { shift: if bits == 0 { 0 } else { shift }, mask });
            shift += bits;
        }
        let mut order: Vec<usize> = (0..domains.len()).collect();
        let values = |column: usize| domains.get(column).map_or(0, |known| known.codes(0).len());
        order.sort_by_key(|column| std::cmp::Reverse(values(*column)));
        let levels = vec![0; domains.len()];
        let numbers = HashMap::new();
        let (cells, best) = (vec![], None);
        Ok(Self { domains, order, places, checker, rows_max, cells, stop, numbers, levels, best })
    }

    /// The classes of ungeneralized values, and the class of each row.
    fn bottom(&mut self, input: &Input) -> (Classes, Vec<u32>) {
        let rows = input.rows();
        let mut classes = Classes::default();
        let mut class_of = Vec::with_capacity(rows);
        self.numbers.clear();
        for row in 0..rows {
            let key = input
                .quasi
                .iter()
                .zip(&self.places)
                .fold(0, |key, (quasi, place)| place.with(key, quasi.column.codes[row]));
            let next = classes.keys.len() as u32;
            let number = *self.numbers.entry(key).or_insert(next);
            if number == next {
                classes.keys.push(key);
                classes.released.push(0);
                classes.population.push(0);
            }
            classes.released[number as usize] += u32::from(input.is_released(row));
            classes.population[number as usize] += 1;
            class_of.push(number);
        }
        classes.of_bottom = (0..classes.keys.len() as u32).collect();
        (classes, class_of)
    }

    /// Chooses the level of the column at a place of the order, and then of those behind it.
    fn descend(&mut self, at: usize, classes: &Classes) -> Result<()> {
        self.stop.check()?;
        let Some(column) = self.order.get(at).copied() else {
            if self.failing(classes, false).is_some() {
                let sum = self.levels.iter().sum();
                self.best = Some((classes.cost(), sum, self.levels.clone()));
            }
            return Ok(());
        };
        let mut rolled: Option<Classes> = None;
        for level in 0..=self.domains[column].height() {
            if level > 0 {
                let below = rolled.as_ref().unwrap_or(classes);
                rolled = Some(self.one_level_up(below, column, level));
            }
            let now = rolled.as_ref().unwrap_or(classes);
            self.levels[column] = level;
            if !self.is_better(now.cost()) {
                break;
            }
            let is_last = at + 1 == self.order.len();
            if is_last || self.may_hold(now, at + 1) {
                self.descend(at + 1, now)?;
            }
        }
        self.levels[column] = 0;
        Ok(())
    }

    /// Whether a node of the present levels would be better than the best so far. If it is not, no
    /// more general one is.
    fn is_better(&self, cost: u64) -> bool {
        let Some((best_cost, best_sum, best_levels)) = &self.best else { return true };
        let sum: usize = self.levels.iter().sum();
        (cost, sum, &self.levels) < (*best_cost, *best_sum, best_levels)
    }

    fn one_level_up(&mut self, classes: &Classes, column: usize, level: usize) -> Classes {
        let (place, parents) = (self.places[column], self.domains[column].parents(level - 1));
        classes.rolled_up(&mut self.numbers, |key| place.with(key, parents[place.code(key)]))
    }

    /// Whether the columns from a place of the order on can be generalized until criteria hold.
    fn may_hold(&mut self, classes: &Classes, from: usize) -> bool {
        let tops: Vec<usize> = self.domains.iter().map(Domains::height).collect();
        let top = self.at_levels(classes, from, &tops);
        self.failing(&top, true).is_some()
    }

    /// Classes whose columns from a place of the order on, which are at level 0, go to levels.
    fn at_levels(&mut self, classes: &Classes, from: usize, levels: &[usize]) -> Classes {
        let columns: Vec<(Place, &[u32])> = self
            .order
            .iter()
            .skip(from)
            .filter(|column| levels[**column] > 0)
            .map(|column| (self.places[*column], self.domains[*column].codes(levels[*column])))
            .collect();
        classes.rolled_up(&mut self.numbers, |key| {
            columns.iter().fold(key, |key, (place, codes)| place.with(key, codes[place.code(key)]))
        })
    }

    /// Which classes fail; `None` where they have more rows than may be suppressed. A rough look
    /// leaves out what may hold again in a more general node.
    fn failing(&self, classes: &Classes, is_rough: bool) -> Option<Vec<bool>> {
        let is_rough = is_rough && self.rows_max > 0;
        let (mut failed, mut rows) = (vec![false; classes.keys.len()], 0_u64);
        let sizes = classes.released.iter().zip(&classes.population);
        for (failed, (released, population)) in failed.iter_mut().zip(sizes) {
            let holds = match is_rough {
                true => self.checker.has_rows(*released),
                false => self.checker.size_holds(*released, *population),
            };
            if !holds {
                *failed = true;
                // A class of nobody released cannot be suppressed.
                rows += u64::from((*released).max(1));
                if rows > self.rows_max {
                    return None;
                }
            }
        }
        if is_rough {
            return Some(failed);
        }
        for (sensitive, cells) in self.cells.iter().enumerate() {
            let grouped = Grouped::new(cells, &classes.of_bottom, classes.keys.len());
            for (class, failed) in failed.iter_mut().enumerate() {
                if !*failed && !self.checker.values_hold(sensitive, grouped.class(class)) {
                    *failed = true;
                    rows += u64::from(classes.released[class].max(1));
                    if rows > self.rows_max {
                        return None;
                    }
                }
            }
        }
        Some(failed)
    }
}

/// The released values of a sensitive column by class: a class, a value and a count, by value.
fn cells(input: &Input, codes: &[u32], class_of: &[u32]) -> Vec<(u32, u32, u32)> {
    let mut pairs: Vec<(u32, u32)> = codes
        .iter()
        .zip(class_of)
        .enumerate()
        .filter(|(row, (_, class))| input.is_released(*row) && **class != NO_CLASS)
        .map(|(_, (code, class))| (*code, *class))
        .collect();
    pairs.sort_unstable();
    pairs
        .chunk_by(|left, right| left == right)
        .map(|same| {
            let (code, class) = same[0];
            (class, code, same.len() as u32)
        })
        .collect()
}

/// Counts of a sensitive column's released values by class.
pub(super) fn grouped(input: &Input, codes: &[u32], class_of: &[u32], classes: usize) -> Grouped {
    let identity: Vec<u32> = (0..classes as u32).collect();
    Grouped::new(&cells(input, codes, class_of), &identity, classes)
}
