//! The space of settings: named dimensions, and the unit cube that searches work in.

use super::super::error::ModelError;

/// One setting's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Float(f64),
    /// A whole number.
    Int(i64),
    /// A word, such as the name of a solver.
    Text(String),
}

/// What values one setting may have.
#[derive(Debug, Clone, PartialEq)]
pub enum Dimension {
    /// Numbers from `low` to `high`; searched by their logarithm when `log`.
    Float {
        /// The least.
        low: f64,
        /// The greatest.
        high: f64,
        /// Whether ratios matter rather than differences; `low` is then above 0.
        log: bool,
    },
    /// Whole numbers from `low` to `high`, both included.
    Int {
        /// The least.
        low: i64,
        /// The greatest.
        high: i64,
        /// As for `Float`.
        log: bool,
    },
    /// One of these, 1 to 1,000; numbers are searched in their order, words have none.
    Candidates(Vec<Value>),
}

/// Named dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct Space {
    dimensions: Vec<(String, Dimension)>,
}

impl Space {
    /// Checks names and ranges.
    ///
    /// # Errors
    /// [`ModelError::Option`]: no dimension or more than 32, a name twice, an empty or infinite
    /// range, a logarithm of 0 or less, candidates that repeat or are no number.
    pub fn new(mut dimensions: Vec<(String, Dimension)>) -> Result<Self, ModelError> {
        if dimensions.is_empty() || dimensions.len() > 32 {
            let hint = "Give 1 to 32 options a range or candidates";
            return Err(refused(format!("{} dimensions", dimensions.len()), hint));
        }
        for (at, (name, dimension)) in dimensions.iter().enumerate() {
            if dimensions[..at].iter().any(|(other, _)| other == name) {
                return Err(refused(name.clone(), "Give each option one range"));
            }
            if let Err(hint) = dimension.check() {
                return Err(refused(name.clone(), hint));
            }
        }
        for (_, dimension) in &mut dimensions {
            if let Dimension::Candidates(values) = dimension
                && are_numbers(values)
            {
                values.sort_by(|a, b| number(a).total_cmp(&number(b)));
            }
        }
        Ok(Self { dimensions })
    }

    /// Number of dimensions.
    pub fn dimensions(&self) -> usize {
        self.dimensions.len()
    }

    /// Number of distinct settings; `None` when it is infinite or beyond counting.
    pub fn size(&self) -> Option<usize> {
        let mut size = 1_usize;
        for (_, dimension) in &self.dimensions {
            size = size.checked_mul(dimension.size()?)?;
        }
        Some(size)
    }

    /// The settings at a point of the unit cube.
    pub fn values(&self, point: &[f64]) -> Vec<(String, Value)> {
        let named = self.dimensions.iter().zip(point);
        named.map(|((name, dimension), &at)| (name.clone(), dimension.value(at))).collect()
    }

    /// The point that stands for the settings at `point`: equal settings have one point.
    pub(super) fn snap(&self, point: &[f64]) -> Vec<f64> {
        let pairs = self.dimensions.iter().zip(point);
        pairs.map(|((_, dimension), &at)| dimension.snap(at)).collect()
    }

    /// The settings number `index` of a finite space.
    pub(super) fn nth(&self, mut index: usize) -> Vec<f64> {
        let mut point = vec![];
        for (_, dimension) in &self.dimensions {
            let size = dimension.size().unwrap_or(1);
            point.push(dimension.level(index % size, size));
            index /= size;
        }
        point
    }

    /// Points of each dimension for a grid of at most `limit` points: all candidates, and of
    /// ranges as many values as fit.
    pub(super) fn levels(&self, limit: usize) -> Vec<Vec<f64>> {
        let mut counts: Vec<usize> = self
            .dimensions
            .iter()
            .map(|(_, dimension)| match dimension {
                Dimension::Candidates(values) => values.len(),
                _ => 1,
            })
            .collect();
        // One more value for whichever range has the fewest, as long as all fit.
        loop {
            let total: usize = counts.iter().product();
            let growing = (0..counts.len())
                .filter(|&at| {
                    let most = self.dimensions[at].1.size().unwrap_or(usize::MAX);
                    counts[at] < most && total / counts[at] * (counts[at] + 1) <= limit
                })
                .min_by_key(|&at| counts[at]);
            let Some(at) = growing else { break };
            counts[at] += 1;
        }
        let levels = |(at, &count): (usize, &usize)| -> Vec<f64> {
            (0..count).map(|level| self.dimensions[at].1.level(level, count)).collect()
        };
        counts.iter().enumerate().map(levels).collect()
    }

    /// Coordinates for a model of the values: one a dimension, but one a word.
    pub(super) fn encode(&self, point: &[f64]) -> Vec<f64> {
        let mut encoded = vec![];
        for ((_, dimension), &at) in self.dimensions.iter().zip(point) {
            match dimension {
                Dimension::Candidates(values) if !are_numbers(values) => {
                    let chosen = index(at, values.len());
                    encoded.extend((0..values.len()).map(|v| if v == chosen { 1.0 } else { 0.0 }));
                }
                _ => encoded.push(at),
            }
        }
        encoded
    }
}

impl Dimension {
    /// Checks the values.
    ///
    /// # Errors
    /// What to give instead.
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Float { low, high, log } => {
                if low > high {
                    return Err("Give the lower end first");
                }
                if !(low.is_finite() && high.is_finite() && high - low < f64::MAX) {
                    return Err("Give a finite range");
                }
                if *log && *low <= 0.0 { Err("A logarithmic range begins above 0") } else { Ok(()) }
            }
            Self::Int { low, high, log } => {
                if low > high {
                    return Err("Give the lower end first");
                }
                if high.checked_sub(*low).is_none_or(|width| width >= 1 << 52) {
                    return Err("Give a range of less than 2^52 numbers");
                }
                if *log && *low <= 0 { Err("A logarithmic range begins above 0") } else { Ok(()) }
            }
            Self::Candidates(values) => {
                if values.is_empty() || values.len() > 1000 {
                    return Err("Give 1 to 1000 candidates");
                }
                let repeats = |at: usize| values[..at].contains(&values[at]);
                if (0..values.len()).any(repeats) {
                    return Err("Give each candidate once");
                }
                let is_nan = |value: &Value| matches!(value, Value::Float(x) if !x.is_finite());
                if values.iter().any(is_nan) { Err("Give finite candidates") } else { Ok(()) }
            }
        }
    }

    fn size(&self) -> Option<usize> {
        match self {
            Self::Float { low, high, .. } => (low == high).then_some(1),
            Self::Int { low, high, .. } => usize::try_from(high.abs_diff(*low) + 1).ok(),
            Self::Candidates(values) => Some(values.len()),
        }
    }

    fn value(&self, at: f64) -> Value {
        match self {
            Self::Float { low, high, log } => Value::Float(between(*low, *high, *log, at)),
            Self::Int { low, high, log } => Value::Int(self.whole(*low, *high, *log, at)),
            Self::Candidates(values) => {
                values.get(index(at, values.len())).cloned().unwrap_or(Value::Int(0))
            }
        }
    }

    /// The whole number at a point: each has a cell of half a unit to either side.
    fn whole(&self, low: i64, high: i64, log: bool, at: f64) -> i64 {
        let (from, to) = (low as f64 - 0.5, high as f64 + 0.5);
        (between(from, to, log, at).round() as i64).clamp(low, high)
    }

    fn snap(&self, at: f64) -> f64 {
        let at = if at.is_nan() { 0.5 } else { at.clamp(0.0, 1.0) };
        match self {
            Self::Float { low, high, .. } => {
                if low == high {
                    0.5
                } else {
                    at
                }
            }
            Self::Int { low, high, log } => {
                place(*low, *high, *log, self.whole(*low, *high, *log, at))
            }
            Self::Candidates(values) => self.level(index(at, values.len()), values.len()),
        }
    }

    /// The point of level `level` of `count` evenly spaced ones.
    fn level(&self, level: usize, count: usize) -> f64 {
        match self {
            Self::Candidates(values) => (level as f64 + 0.5) / values.len() as f64,
            Self::Int { low, high, log } if self.size() == Some(count) => {
                place(*low, *high, *log, low.saturating_add_unsigned(level as u64))
            }
            _ if count == 1 => self.snap(0.5),
            _ => self.snap(level as f64 / (count - 1) as f64),
        }
    }
}

fn between(low: f64, high: f64, log: bool, at: f64) -> f64 {
    let at = at.clamp(0.0, 1.0);
    let value = if log { low * (high / low).powf(at) } else { low + (high - low) * at };
    value.clamp(low, high)
}

/// The point of a whole number.
fn place(low: i64, high: i64, log: bool, whole: i64) -> f64 {
    let (from, to, whole) = (low as f64 - 0.5, high as f64 + 0.5, whole as f64);
    if log { (whole / from).ln() / (to / from).ln() } else { (whole - from) / (to - from) }
}

fn index(at: f64, count: usize) -> usize {
    ((at * count as f64) as usize).min(count.saturating_sub(1))
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Float(value) => *value,
        Value::Int(value) => *value as f64,
        Value::Text(_) => f64::NAN,
    }
}

fn are_numbers(values: &[Value]) -> bool {
    !values.iter().any(|value| matches!(value, Value::Text(_)))
}

fn refused(value: String, hint: &'static str) -> ModelError {
    ModelError::Option { option: "hparam_range", value, hint }
}
