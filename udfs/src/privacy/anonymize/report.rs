//! What an anonymized table is still good for, and what of it is at risk.
//!
//! With N rows to be released, S of them suppressed, and classes of f rows of which the population
//! has F:
//!
//! ```text
//! discernibility            sum of f² + N S              (Bayardo and Agrawal 2005)
//! discernibility_star       sum of f², suppressed classes too: ARX's DM*
//! average_class_size        N / (classes + 1 if S > 0)   (LeFevre et al. 2006)
//! information_loss          NCP: what labels stand for, as a share of the column, over all cells
//! non_uniform_entropy       sum of -log2 of the share of a value in its label, in bits
//! prosecutor_risk           1 / f of the smallest class: the target is known to be in the result
//! journalist_risk           1 / F of the smallest class: the target is in the population
//! marketer_risk             mean of 1 / F over rows: the share of rows that are recognized
//! ```

use datafusion_common::{HashMap, Result};

use super::super::l_diversity_entropy::effective_values;
use super::criteria::Checker;
use super::{Distance, Input, Kind, NO_CLASS, Options, Outcome, Shown, lattice};

/// A figure of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// `utility`, `risk`, `criterion` or `level`.
    pub aspect: &'static str,
    /// Its name.
    pub metric: String,
    /// Of the result; `None` where there is none.
    pub value: Option<f64>,
    /// Of the rows as they were.
    pub before: Option<f64>,
    /// What it is counted in.
    pub unit: &'static str,
    /// What it means.
    pub explanation: &'static str,
}

/// The report of a result.
///
/// # Errors
/// When a sensitive column's hierarchy is none.
pub fn report(input: &Input, options: &Options, outcome: &Outcome) -> Result<Vec<Line>> {
    let before = Table::before(input);
    let after = Table {
        class_of: outcome.class_of.clone(),
        released: outcome.sizes.clone(),
        population: outcome.population.clone(),
        suppressed: outcome.suppressed,
    };
    let mut lines = vec![];
    utility(input, outcome, &after, &before, &mut lines);
    risk(&after, &before, &mut lines);
    criteria(input, options, [&after, &before], &mut lines)?;
    for (quasi, (level, _)) in input.quasi.iter().zip(outcome.levels.iter().flatten()) {
        lines.push(Line {
            aspect: "level",
            metric: format!("level of {}", quasi.column.name),
            value: Some(*level as f64),
            before: Some(0.0),
            unit: "levels",
            explanation: "the level of the column's hierarchy that all rows show",
        });
    }
    Ok(lines)
}

/// Rows in classes.
struct Table {
    class_of: Vec<u32>,
    released: Vec<u32>,
    population: Vec<u32>,
    suppressed: usize,
}

impl Table {
    /// The rows as they are, by equal quasi-identifiers.
    fn before(input: &Input) -> Self {
        let codes =
            |row: u32| input.quasi.iter().map(move |quasi| quasi.column.codes[row as usize]);
        let mut rows: Vec<u32> = (0..input.rows() as u32).collect();
        rows.sort_unstable_by(|left, right| codes(*left).cmp(codes(*right)));
        let (mut released, mut population) = (vec![], vec![]);
        let mut class_of = vec![NO_CLASS; rows.len()];
        for class in rows.chunk_by(|left, right| codes(*left).eq(codes(*right))) {
            let number = released.len() as u32;
            let mut size = 0_u32;
            for row in class {
                if input.is_released(*row as usize) {
                    class_of[*row as usize] = number;
                    size += 1;
                }
            }
            if size > 0 {
                released.push(size);
                population.push(class.len() as u32);
            }
        }
        Self { class_of, released, population, suppressed: 0 }
    }

    fn rows(&self) -> usize {
        self.released.iter().map(|size| *size as usize).sum()
    }

    /// The sum of the squared sizes of classes.
    fn squares(&self) -> f64 {
        self.released.iter().map(|size| f64::from(*size).powi(2)).sum::<f64>() + 0.0
    }

    fn smallest(&self) -> Option<f64> {
        self.released.iter().min().map(|size| f64::from(*size))
    }

    fn discernibility(&self) -> f64 {
        let all = self.rows() + self.suppressed;
        self.squares() + all as f64 * self.suppressed as f64
    }

    fn average(&self) -> Option<f64> {
        let classes = self.released.len() + usize::from(self.suppressed > 0);
        (classes > 0).then(|| (self.rows() + self.suppressed) as f64 / classes as f64)
    }

    /// A share of the rows of the result.
    fn share(&self, rows: f64) -> Option<f64> {
        let all = self.rows();
        // A sum of nothing is a negative zero.
        (all > 0).then(|| rows / all as f64 + 0.0)
    }

    /// The share of rows whose class has one row of such sizes.
    fn unique(&self, sizes: &[u32]) -> Option<f64> {
        let rows = self.released.iter().zip(sizes).filter(|(_, size)| **size == 1);
        self.share(rows.map(|(released, _)| f64::from(*released)).sum())
    }

    fn marketer(&self) -> Option<f64> {
        let classes = self.released.iter().zip(&self.population);
        self.share(classes.map(|(f, all)| f64::from(*f) / f64::from((*all).max(1))).sum())
    }
}

fn utility(input: &Input, outcome: &Outcome, after: &Table, before: &Table, lines: &mut Vec<Line>) {
    let mut add = |metric: &str, pair: [Option<f64>; 2], unit, explanation| {
        let [value, before] = pair;
        let metric = metric.to_owned();
        lines.push(Line { aspect: "utility", metric, value, before, unit, explanation });
    };
    let count = |count: usize| Some(count as f64);
    let most = |table: &Table| table.released.iter().max().map(|size| f64::from(*size));
    add("rows", [count(after.rows()), count(before.rows())], "rows", "rows of the result");
    add(
        "suppressed_rows",
        [count(outcome.suppressed), Some(0.0)],
        "rows",
        "rows that are left out because their class would fail",
    );
    add(
        "classes",
        [count(after.released.len()), count(before.released.len())],
        "classes",
        "classes of rows with equal quasi-identifiers",
    );
    add("largest_class", [most(after), most(before)], "rows", "rows of the largest class");
    add(
        "average_class_size",
        [after.average(), before.average()],
        "rows",
        "rows over classes, suppressed rows being one more class",
    );
    add(
        "discernibility",
        [Some(after.discernibility()), Some(before.discernibility())],
        "rows²",
        "each row counts the rows that it cannot be told from, a suppressed one all",
    );
    add(
        "discernibility_star",
        [Some(outcome.cost as f64), Some(before.squares())],
        "rows²",
        "the squared sizes of all classes, suppressed ones too: what 'optimal' makes least",
    );
    add(
        "information_loss",
        [information_loss(input, outcome), Some(0.0)],
        "share",
        "how much of its column a cell's label stands for, on average; 1 is nothing left",
    );
    add(
        "non_uniform_entropy",
        [Some(entropy(input, outcome)), Some(0.0)],
        "bits",
        "the bits by which labels tell less than the values did, over all cells",
    );
}

fn information_loss(input: &Input, outcome: &Outcome) -> Option<f64> {
    let rows: usize = outcome.sizes.iter().map(|size| *size as usize).sum();
    let cells = (rows + outcome.suppressed) * input.quasi.len();
    let lost: f64 = outcome
        .losses
        .iter()
        .flat_map(|losses| losses.iter().zip(&outcome.sizes))
        .map(|(loss, size)| loss * f64::from(*size))
        .sum();
    let suppressed = (outcome.suppressed * input.quasi.len()) as f64;
    (cells > 0).then(|| (lost + suppressed) / cells as f64)
}

/// -log2 of the share of a value among the rows of its label; of suppressed rows, among all.
fn entropy(input: &Input, outcome: &Outcome) -> f64 {
    /// What suppressed rows show: all the same.
    const SUPPRESSED: u32 = u32::MAX;
    let mut bits = 0.0_f64;
    for (quasi, shown) in input.quasi.iter().zip(&outcome.shown) {
        let labels = numbered(shown);
        let mut of_label: HashMap<u32, u32> = HashMap::new();
        let mut of_both: HashMap<(u32, u32), u32> = HashMap::new();
        let mut of_value = vec![0_u32; quasi.column.cardinality()];
        let mut rows = 0_u32;
        for (row, (class, value)) in outcome.class_of.iter().zip(&quasi.column.codes).enumerate() {
            if input.is_released(row) {
                let label = labels.get(*class as usize).copied().unwrap_or(SUPPRESSED);
                *of_label.entry(label).or_default() += 1;
                *of_both.entry((label, *value)).or_default() += 1;
                of_value[*value as usize] += 1;
                rows += 1;
            }
        }
        // In a fixed order the sum is always the same.
        let mut cells: Vec<((u32, u32), u32)> = of_both.into_iter().collect();
        cells.sort_unstable();
        for ((label, value), count) in cells {
            let (among, all) = match label {
                SUPPRESSED => (of_value[value as usize], rows),
                label => (count, of_label.get(&label).copied().unwrap_or(count)),
            };
            bits -= f64::from(count) * (f64::from(among) / f64::from(all)).log2();
        }
    }
    bits
}

/// Numbers for the labels of classes, the same for the same label.
fn numbered(shown: &Shown) -> Vec<u32> {
    let texts: Vec<Option<String>> = match shown {
        Shown::Labels(labels) => {
            labels.iter().map(|label| label.as_deref().map(str::to_owned)).collect()
        }
        Shown::Numbers(numbers) => {
            numbers.iter().map(|number| number.map(|number| number.to_string())).collect()
        }
    };
    let mut known: HashMap<Option<String>, u32> = HashMap::new();
    let number = |text| {
        let next = known.len() as u32;
        *known.entry(text).or_insert(next)
    };
    texts.into_iter().map(number).collect()
}

fn risk(after: &Table, before: &Table, lines: &mut Vec<Line>) {
    let highest = |sizes: &[u32]| sizes.iter().min().map(|size| 1.0 / f64::from((*size).max(1)));
    let average = |table: &Table| table.share(table.released.len() as f64);
    let mut add = |metric: &str, of: &dyn Fn(&Table) -> Option<f64>, explanation| {
        lines.push(Line {
            aspect: "risk",
            metric: metric.to_owned(),
            value: of(after),
            before: of(before),
            unit: "share",
            explanation,
        });
    };
    add(
        "prosecutor_risk",
        &|table: &Table| highest(&table.released),
        "the greatest chance that somebody known to be in the result is recognized",
    );
    add(
        "prosecutor_risk_average",
        &average,
        "the chance that somebody known to be in the result is recognized, on average",
    );
    add(
        "journalist_risk",
        &|table: &Table| highest(&table.population),
        "the greatest chance that somebody of the population is recognized",
    );
    add(
        "marketer_risk",
        &|table: &Table| table.marketer(),
        "the share of rows that are recognized when all are guessed",
    );
    add(
        "unique_rows",
        &|table: &Table| table.unique(&table.released),
        "the share of rows that are alone in their class",
    );
    add(
        "population_unique_rows",
        &|table: &Table| table.unique(&table.population),
        "the share of rows that are alone even in the population",
    );
}

fn criteria(
    input: &Input,
    options: &Options,
    [after, before]: [&Table; 2],
    lines: &mut Vec<Line>,
) -> Result<()> {
    let checker = Checker::new(input, options.criteria)?;
    let mut add = |metric: String, pair: [Option<f64>; 2], unit, explanation| {
        let [value, before] = pair;
        lines.push(Line { aspect: "criterion", metric, value, before, unit, explanation });
    };
    let smallest = [after.smallest(), before.smallest()];
    add("k".to_owned(), smallest, "rows", "rows of the smallest class");
    for (at, sensitive) in input.sensitive.iter().enumerate() {
        let column = &sensitive.column;
        let distance = match (options.criteria.closeness, column.kind) {
            (Some(closeness), _) => closeness.distance,
            (None, Kind::Text) => Distance::Equal,
            (None, _) => Distance::Ordered,
        };
        let figures = [after, before].map(|table| {
            let classes = table.released.len();
            let grouped = lattice::grouped(input, &column.codes, &table.class_of, classes);
            let all: Vec<&[(usize, u64)]> =
                (0..classes).map(|class| grouped.class(class)).collect();
            let distinct = all.iter().map(|class| class.len() as f64);
            let entropy = all.iter().map(|class| effective_values(class.to_vec()));
            let far = all.iter().map(|class| checker.distance(at, class, distance));
            [
                distinct.min_by(f64::total_cmp),
                entropy.min_by(f64::total_cmp),
                far.max_by(f64::total_cmp),
            ]
        });
        let [[distinct, entropy, t], [distinct_before, entropy_before, t_before]] = figures;
        let name = &column.name;
        add(
            format!("l of {name}"),
            [distinct, distinct_before],
            "values",
            "distinct sensitive values of the class that has fewest",
        );
        add(
            format!("entropy l of {name}"),
            [entropy, entropy_before],
            "values",
            "equally frequent values as uncertain as those of the least uncertain class",
        );
        add(
            format!("t of {name}"),
            [t, t_before],
            "distance",
            "the earth mover's distance to all rows of the class that is farthest",
        );
    }
    if input.released.is_some() {
        let share = |table: &Table, pick: fn(f64, f64) -> f64| {
            let classes = table.released.iter().zip(&table.population);
            classes.map(|(f, all)| f64::from(*f) / f64::from((*all).max(1))).reduce(pick)
        };
        add(
            "delta_min".to_owned(),
            [share(after, f64::min), share(before, f64::min)],
            "share",
            "the smallest share of the population that a class releases",
        );
        add(
            "delta_max".to_owned(),
            [share(after, f64::max), share(before, f64::max)],
            "share",
            "the greatest share of the population that a class releases",
        );
    }
    Ok(())
}
