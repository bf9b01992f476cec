//! Anonymization of a table: rows whose quasi-identifiers are made so alike that each class of
//! equal ones is what [`Criteria`] ask for.
//!
//! Three methods. [`Method::Optimal`] puts every column at one level of its hierarchy, suppresses
//! the classes that fail, and finds the levels that cost least of all; [`Method::Mondrian`] cuts
//! the rows into classes, each with labels of its own; [`Method::Microaggregation`] shows few rows
//! that are near each other as their centre. What came of it is told by [`report`].
//!
//! Columns come in codes, which [`ColumnEncoder`] gives. The result depends on the rows and the
//! options alone, not on the order of the rows.

use std::sync::Arc;

use datafusion_common::{HashMap, Result, exec_err, plan_err};

pub use self::column::{CodedColumn, ColumnEncoder, Kind};
use self::criteria::Checker;
pub use self::criteria::{Closeness, Criteria, Distance, Diversity};
pub use self::domain::{Domains, Scheme};
use crate::fuzzy::stop::Stop;

mod column;
mod criteria;
mod domain;
mod lattice;
mod microaggregation;
mod mondrian;
pub mod report;

#[cfg(test)]
mod adult_tests;
#[cfg(test)]
mod tests;

/// The class of a row that is not in the result.
pub const NO_CLASS: u32 = u32::MAX;

/// A column by which somebody could be recognized.
#[derive(Debug, Clone)]
pub struct Quasi {
    /// Its values.
    pub column: CodedColumn,
    /// How it is generalized; `None` leaves it to the method.
    pub scheme: Option<Scheme>,
}

/// A column that must not be learnt.
#[derive(Debug, Clone)]
pub struct Sensitive {
    /// Its values.
    pub column: CodedColumn,
    /// How alike its values are, for hierarchical distances.
    pub scheme: Option<Scheme>,
}

/// A table to be anonymized.
#[derive(Debug, Clone)]
pub struct Input {
    /// At least one, all of one length.
    pub quasi: Vec<Quasi>,
    /// Of the same length.
    pub sensitive: Vec<Sensitive>,
    /// Which rows are to be in the result, all being the population; `None`: all of them.
    pub released: Option<Vec<bool>>,
}

impl Input {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.quasi.first().map_or(0, |quasi| quasi.column.codes.len())
    }

    fn is_released(&self, row: usize) -> bool {
        match &self.released {
            Some(released) => released.get(row).copied().unwrap_or_default(),
            None => true,
        }
    }

    /// Bytes of memory that the hierarchies of the columns take, for whoever reserves them.
    pub fn domain_bytes(&self) -> usize {
        let sensitive = self.sensitive.iter().map(|known| (&known.column, known.scheme.as_ref()));
        let quasi = self.quasi.iter().map(|known| (&known.column, known.scheme.as_ref()));
        let bytes = |(column, scheme): (&CodedColumn, Option<&Scheme>)| {
            scheme.unwrap_or(&Scheme::Suppress).domain_bytes(column)
        };
        quasi.chain(sensitive).map(bytes).fold(0, usize::saturating_add)
    }

    fn released_rows(&self) -> usize {
        match &self.released {
            Some(released) => released.iter().filter(|released| **released).count(),
            None => self.rows(),
        }
    }
}

/// How rows are anonymized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// The best full-domain generalization.
    Optimal,
    /// Local recoding.
    Mondrian,
    /// Means of few rows.
    Microaggregation,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How.
    pub method: Method,
    /// Until what holds.
    pub criteria: Criteria,
    /// The greatest share of rows that may be left out, from 0 to 1.
    pub suppression_limit: f64,
}

impl Options {
    /// Refuses what is out of its range, or does nothing.
    ///
    /// # Errors
    /// When an option is.
    pub fn check(&self, sensitive: usize, has_subset: bool) -> Result<()> {
        let Criteria { k, diversity, closeness, presence } = self.criteria;
        let limit = self.suppression_limit;
        if k == 0 {
            return plan_err!("k is 0. Hint: it takes a whole number from 1");
        }
        if !(0.0..=1.0).contains(&limit) {
            return plan_err!("suppression_limit is {limit}. Hint: it takes a share from 0 to 1");
        }
        let diverse = match diversity {
            None => true,
            Some(Diversity::Distinct(l)) => l >= 1,
            Some(Diversity::Entropy(l)) => l >= 1.0 && l < f64::from(u32::MAX),
            Some(Diversity::Recursive { c, l }) => l >= 1 && c > 0.0 && c.is_finite(),
        };
        if !diverse {
            return plan_err!(
                "l must be at least 1, and c a number greater than 0. Hint: l => 3, c => 3 is common"
            );
        }
        if let Some(Closeness { t, .. }) = closeness
            && !(0.0..=1.0).contains(&t)
        {
            return plan_err!("t is {t}. Hint: it takes a distance from 0 to 1");
        }
        if (diversity.is_some() || closeness.is_some()) && sensitive == 0 {
            return plan_err!(
                "l and t are of sensitive columns, and none is named. Hint: add sensitive => \
                 ['column']"
            );
        }
        if self.method != Method::Optimal && limit > 0.0 {
            return plan_err!(
                "suppression_limit is of method 'optimal': the others leave no row out. Hint: \
                 leave it out"
            );
        }
        self.check_presence(presence, has_subset)
    }

    fn check_presence(&self, presence: Option<(f64, f64)>, has_subset: bool) -> Result<()> {
        if has_subset && self.method == Method::Microaggregation {
            return plan_err!(
                "microaggregation takes no subset. Hint: use method 'optimal' or 'mondrian', or \
                 select the rows in the query"
            );
        }
        let Some((least, most)) = presence else { return Ok(()) };
        if !has_subset {
            return plan_err!(
                "delta_min and delta_max are of a subset of the rows, and none is named. Hint: add \
                 subset => 'column', a column that is TRUE for the rows to be released"
            );
        }
        if !(0.0..=1.0).contains(&least) || !(0.0..=1.0).contains(&most) || least > most {
            return plan_err!(
                "delta_min is {least} and delta_max {most}. Hint: they take shares from 0 to 1, \
                 the first not above the second"
            );
        }
        if least > 0.0 && self.suppression_limit > 0.0 {
            return plan_err!(
                "delta_min is above 0 and rows may be suppressed, which would tell of them that \
                 they are not in the result. Hint: leave one of the two out"
            );
        }
        Ok(())
    }
}

/// What a result shows of a column, by class.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// Labels; `None` is NULL.
    Labels(Vec<Option<Arc<str>>>),
    /// Means; `None` is NULL.
    Numbers(Vec<Option<f64>>),
}

/// Rows in classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The class of each row; [`NO_CLASS`] of one that is not in the result.
    pub class_of: Vec<u32>,
    /// By quasi-identifier, what it shows.
    pub shown: Vec<Shown>,
    /// The level of each quasi-identifier, where all rows have one.
    pub levels: Option<Vec<(usize, usize)>>,
    /// Rows that were to be in the result and are left out.
    pub suppressed: usize,
    /// Rows of the result by class.
    sizes: Vec<u32>,
    /// Rows of the population by class.
    population: Vec<u32>,
    /// DM*: the squared sizes of all classes, left out or not.
    cost: u64,
    /// By quasi-identifier and class, the share of the column that its label stands for.
    losses: Vec<Vec<f64>>,
}

impl Outcome {
    /// How many classes the result has.
    pub fn classes(&self) -> usize {
        self.sizes.len()
    }

    /// DM*, the discernibility that ARX minimizes: the sum of the squared sizes of all classes,
    /// suppressed ones included.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// The rows of the result by class and then by their sensitive values, so that their order
    /// tells nothing else.
    pub fn order(&self, input: &Input) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..self.class_of.len() as u32)
            .filter(|row| self.class_of[*row as usize] != NO_CLASS)
            .collect();
        let key = |row: &u32| self.class_of[*row as usize];
        rows.sort_by(|left, right| {
            let values = input.sensitive.iter().map(|sensitive| &sensitive.column.codes);
            let mut orders = values.map(|codes| codes[*left as usize].cmp(&codes[*right as usize]));
            let by_value = orders.find(|order| order.is_ne());
            key(left).cmp(&key(right)).then(by_value.unwrap_or(std::cmp::Ordering::Equal))
        });
        rows
    }
}

/// Anonymizes a table.
///
/// # Errors
/// When no result of the method is what the criteria ask for, a hierarchy does not fit, the table
/// is too large for the method, or nobody waits any more.
pub fn anonymize(input: &Input, options: &Options, stop: &Stop) -> Result<Outcome> {
    options.check(input.sensitive.len(), input.released.is_some())?;
    if input.quasi.is_empty() {
        return plan_err!(
            "there is no quasi-identifier. Hint: add quasi_identifiers => ['column']"
        );
    }
    let released = input.released_rows();
    if released == 0 {
        return Ok(empty(input));
    }
    let checker = Checker::new(input, options.criteria)?;
    let found = match options.method {
        Method::Optimal => optimal(input, options, &checker, stop)?,
        Method::Mondrian => mondrian::partition(input, &checker, stop)?
            .map(|classes| recoded(input, classes, Labels::Local))
            .transpose()?,
        Method::Microaggregation => microaggregation::partition(input, &checker, stop)?
            .map(|classes| recoded(input, classes, Labels::Centres))
            .transpose()?,
    };
    match found {
        Some(outcome) => Ok(outcome),
        None => exec_err!(
            "no generalization of these {released} rows is what is asked for. Hint: ask for a \
             smaller k or l or a greater t, allow a greater suppression_limit, or give the \
             hierarchies a last level that is '*' for all"
        ),
    }
}

/// Bytes of memory that anonymizing so many rows may take beside their codes: where no two rows are
/// alike, a table of classes for each column and each sensitive value in its class.
pub fn work_bytes(rows: usize, quasi: usize, sensitive: usize) -> usize {
    /// A key, two sizes, a number, and their place in a map.
    const BYTES_PER_CLASS: usize = 64;
    /// A value and its count, as they come and in order.
    const BYTES_PER_VALUE: usize = 48;
    /// The classes of a row, its place in the result, and a copy of each.
    const BYTES_PER_ROW: usize = 48;
    let classes = BYTES_PER_CLASS.saturating_mul(quasi.saturating_add(3));
    let values = BYTES_PER_VALUE.saturating_mul(sensitive);
    rows.saturating_mul(classes.saturating_add(values).saturating_add(BYTES_PER_ROW))
}

/// Of no rows.
fn empty(input: &Input) -> Outcome {
    Outcome {
        class_of: vec![NO_CLASS; input.rows()],
        shown: input.quasi.iter().map(|_| Shown::Labels(vec![])).collect(),
        levels: None,
        suppressed: 0,
        sizes: vec![],
        population: vec![],
        cost: 0,
        losses: input.quasi.iter().map(|_| vec![]).collect(),
    }
}

fn optimal(
    input: &Input,
    options: &Options,
    checker: &Checker,
    stop: &Stop,
) -> Result<Option<Outcome>> {
    let scheme = |quasi: &Quasi| quasi.scheme.clone().unwrap_or(Scheme::Suppress);
    let domains: Vec<Domains> = input
        .quasi
        .iter()
        .map(|quasi| scheme(quasi).domains(&quasi.column))
        .collect::<Result<_>>()?;
    let rows = input.released_rows();
    // A share below 1 of fewer than 2^32 rows.
    let rows_max = (options.suppression_limit * rows as f64).floor() as u64;
    let Some(node) = lattice::best(input, &domains, checker, rows_max, stop)? else {
        return Ok(None);
    };
    let cost = node.released.iter().map(|size| u64::from(*size).pow(2)).sum();
    // Classes that stay, in the order of their labels, which is that of no row.
    let key = |class: &usize| -> Vec<Option<Arc<str>>> {
        let codes = node.codes.iter().zip(&domains).zip(&node.levels);
        codes
            .map(|((codes, domain), level)| domain.labels(*level)[codes[*class] as usize].clone())
            .collect()
    };
    let mut kept: Vec<usize> = (0..node.released.len())
        .filter(|class| !node.suppressed[*class] && node.released[*class] > 0)
        .collect();
    kept.sort_by_cached_key(key);
    let mut new_class = vec![NO_CLASS; node.released.len()];
    for (new, old) in kept.iter().enumerate() {
        new_class[*old] = new as u32;
    }
    let class_of: Vec<u32> = node
        .class_of
        .iter()
        .enumerate()
        .map(|(row, class)| match input.is_released(row) {
            true => new_class[*class as usize],
            false => NO_CLASS,
        })
        .collect();
    let (mut shown, mut losses) = (vec![], vec![]);
    for (column, codes) in node.codes.iter().enumerate() {
        let (domain, level) = (&domains[column], node.levels[column]);
        let labels = domain.labels(level);
        let of = |class: &usize| codes[*class] as usize;
        shown.push(Shown::Labels(kept.iter().map(|class| labels[of(class)].clone()).collect()));
        losses.push(kept.iter().map(|class| domain.loss(level, codes[*class])).collect());
    }
    let sizes: Vec<u32> = kept.iter().map(|class| node.released[*class]).collect();
    let population = kept.iter().map(|class| node.population[*class]).collect();
    let stays: usize = sizes.iter().map(|size| *size as usize).sum();
    let levels = node.levels.iter().zip(&domains).map(|(level, d)| (*level, d.height())).collect();
    let (levels, suppressed) = (Some(levels), rows - stays);
    Ok(Some(Outcome { class_of, shown, levels, suppressed, sizes, population, cost, losses }))
}

/// What classes of rows show.
#[derive(Clone, Copy, PartialEq)]
enum Labels {
    /// Intervals, sets, and labels of hierarchies.
    Local,
    /// Centres.
    Centres,
}

fn recoded(input: &Input, mut classes: Vec<Vec<u32>>, how: Labels) -> Result<Outcome> {
    // In an order that depends on the rows alone.
    for class in &mut classes {
        class.sort_by(|x, y| microaggregation::compare(input, *x as usize, *y as usize));
    }
    let first = |class: &Vec<u32>| class.first().copied().unwrap_or_default() as usize;
    classes.sort_by(|x, y| microaggregation::compare(input, first(x), first(y)));
    let mut class_of = vec![NO_CLASS; input.rows()];
    let (mut sizes, mut population) = (vec![], vec![]);
    for (number, class) in classes.iter().enumerate() {
        let mut size = 0_u32;
        for row in class {
            if input.is_released(*row as usize) {
                class_of[*row as usize] = number as u32;
                size += 1;
            }
        }
        sizes.push(size);
        population.push(class.len() as u32);
    }
    let (mut shown, mut losses) = (vec![], vec![]);
    for quasi in &input.quasi {
        let column = &quasi.column;
        let domains = quasi.scheme.as_ref().map(|scheme| scheme.domains(column)).transpose()?;
        let values = classes.iter().map(|class| {
            // Those of the population that are not in the result, too: labels that do not stand for
            // them would tell that they are not.
            let mut codes: Vec<u32> = class.iter().map(|row| column.codes[*row as usize]).collect();
            codes.sort_unstable();
            codes
        });
        let (labels, lost) = match how {
            Labels::Local => local(column, domains.as_ref(), values),
            Labels::Centres => centres(column, values),
        };
        shown.push(labels);
        losses.push(lost);
    }
    let cost = sizes.iter().map(|size| u64::from(*size).pow(2)).sum();
    let (levels, suppressed) = (None, 0);
    Ok(Outcome { class_of, shown, levels, suppressed, sizes, population, cost, losses })
}

fn local(
    column: &CodedColumn,
    domains: Option<&Domains>,
    classes: impl Iterator<Item = Vec<u32>>,
) -> (Shown, Vec<f64>) {
    // Many classes have the same values of a column.
    let mut known: HashMap<Vec<u32>, (Option<Arc<str>>, f64)> = HashMap::new();
    let all = classes.map(|mut values| {
        values.dedup();
        let shown = |values: &Vec<u32>| mondrian::shown(column, domains, values);
        known.entry(values).or_insert_with_key(shown).clone()
    });
    let (labels, losses) = all.unzip();
    (Shown::Labels(labels), losses)
}

/// The mean of numbers: of finite ones it is finite, also where their sum is not.
fn mean(numbers: &[f64]) -> f64 {
    let count = numbers.len() as f64;
    let sum: f64 = numbers.iter().sum();
    if sum.is_finite() {
        return sum / count;
    }
    let mean: f64 = numbers.iter().map(|number| number / count).sum();
    match numbers.iter().all(|number| number.is_finite()) {
        // The parts were rounded, perhaps all of them up.
        true => mean.clamp(f64::MIN, f64::MAX),
        false => mean,
    }
}

/// The mean of numbers, the lower median of times, and the most frequent text.
fn centres(column: &CodedColumn, classes: impl Iterator<Item = Vec<u32>>) -> (Shown, Vec<f64>) {
    let number = |value: &Option<Arc<str>>| value.as_deref().and_then(|v| v.parse::<f64>().ok());
    let numbers: Vec<Option<f64>> = column.values.iter().map(number).collect();
    let others = column.cardinality().saturating_sub(1).max(1) as f64;
    let (mut means, mut labels, mut losses) = (vec![], vec![], vec![]);
    for values in classes {
        let (Some(least), Some(most)) = (values.first(), values.last()) else { continue };
        let others_here = values.windows(2).filter(|pair| pair[0] != pair[1]).count();
        losses.push(match column.kind {
            Kind::Text => others_here as f64 / others,
            Kind::Number | Kind::Time => column.spread(*least, *most),
        });
        let code = match column.kind {
            Kind::Text => {
                let mut best: &[u32] = &[];
                for same in values.chunk_by(|left, right| left == right) {
                    if same.len() > best.len() {
                        best = same;
                    }
                }
                best.first()
            }
            Kind::Number | Kind::Time => values.get((values.len() - 1) / 2),
        };
        let label = code.and_then(|code| column.values.get(*code as usize));
        labels.push(label.cloned().flatten());
        let known: Vec<f64> = values
            .iter()
            .filter_map(|code| numbers.get(*code as usize).copied().flatten())
            .collect();
        means.push((!known.is_empty()).then(|| mean(&known)));
    }
    match column.kind {
        Kind::Number => (Shown::Numbers(means), losses),
        Kind::Time | Kind::Text => (Shown::Labels(labels), losses),
    }
}
