//! The domains that a column can be generalized to, level by level.
//!
//! Level 0 is the value. The levels above come from a hierarchy in ARX's form, or are built in:
//!
//! ```text
//! interval:5,10,20     a number's interval of that width, each width a multiple of the one before
//! prefix:3,1           the first characters of a text: '130*', '1*'
//! date:month,year      the period of a date: month, quarter, year, decade; week alone
//! ```
//!
//! Built-in ones end in `*`, and a column without any has `*` as its only level. NULL is `*` at
//! every level but 0. Values that share a label share all later ones.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, StringArray};
use arrow::datatypes::{DataType, Date32Type};
use arrow::temporal_conversions::date32_to_datetime;
use datafusion_common::{HashMap, Result, exec_err, plan_err};

use super::super::generalize_date::Unit;
use super::super::generalize_number::{float_interval, integer_interval};
use super::super::hierarchy::{Hierarchy, SUPPRESSED};
use super::column::{CodedColumn, Kind};

/// The most levels of a built-in hierarchy.
const LEVELS_MAX: usize = 32;

/// How a column is generalized.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// The value or `*`.
    Suppress,
    /// A hierarchy of the caller's.
    Table(Arc<Hierarchy>),
    /// Intervals of these widths, as written.
    Interval(Vec<String>),
    /// So many first characters.
    Prefix(Vec<usize>),
    /// Periods of time.
    Date(Vec<Unit>),
}

impl Scheme {
    /// A built-in scheme as written, such as `interval:5,10`; `None` where the text is the name of
    /// a table.
    ///
    /// # Errors
    /// When the levels are none, or do not become more general.
    pub fn built_in(written: &str) -> Result<Option<Self>> {
        let Some((kind, levels)) = written.split_once(':') else { return Ok(None) };
        let levels: Vec<&str> = levels.split(',').map(str::trim).collect();
        if levels.len() > LEVELS_MAX {
            return plan_err!("hierarchy '{written}' has more than {LEVELS_MAX} levels");
        }
        match kind.trim().to_lowercase().as_str() {
            "interval" => intervals(written, &levels).map(Some),
            "prefix" => prefixes(written, &levels).map(Some),
            "date" => dates(written, &levels).map(Some),
            other => plan_err!(
                "there is no built-in hierarchy '{other}'. Hint: write 'interval:10,20', \
                 'prefix:3,1' or 'date:month,year', or the name of a table"
            ),
        }
    }

    /// Checks that a column of a kind can be generalized so.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(&self, name: &str, kind: Kind) -> Result<()> {
        match (self, kind) {
            (Self::Interval(_), Kind::Time | Kind::Text) => plan_err!(
                "column {name} is no number, and intervals are of numbers. Hint: CAST it to a \
                 number, or write 'prefix:3,1'"
            ),
            (Self::Date(_), Kind::Number) => plan_err!(
                "column {name} is a number, and periods are of dates. Hint: CAST it to a date, or \
                 write 'interval:10'"
            ),
            _ => Ok(()),
        }
    }

    /// The domains of a column.
    ///
    /// # Errors
    /// When values that share a label do not share the next one.
    pub fn domains(&self, column: &CodedColumn) -> Result<Domains> {
        // One level after the other: the texts of all together would take much memory.
        let mut domains = Domains::of_values(column);
        match self {
            Self::Suppress => {}
            Self::Table(hierarchy) => {
                for level in 1..=hierarchy.height() {
                    let label = |text: &str| {
                        let label = hierarchy.generalize(text, level);
                        Ok(label.unwrap_or(SUPPRESSED).to_owned())
                    };
                    domains.add(column, labels(column, label)?)?;
                }
            }
            Self::Interval(widths) => {
                for width in widths {
                    domains.add(column, labels(column, |text| interval(text, width))?)?;
                }
            }
            Self::Prefix(lengths) => {
                for length in lengths {
                    domains.add(column, labels(column, |text| Ok(prefix(text, *length)))?)?;
                }
            }
            Self::Date(units) => {
                let days = days(column)?;
                for unit in units {
                    domains.add(column, periods(&days, *unit)?)?;
                }
            }
        }
        if !matches!(self, Self::Table(_)) {
            domains.add(column, vec![SUPPRESSED.to_owned(); column.cardinality()])?;
        }
        Ok(domains)
    }

    /// How many levels there are above the values.
    fn levels(&self) -> usize {
        match self {
            Self::Suppress => 1,
            Self::Table(hierarchy) => hierarchy.height(),
            Self::Interval(widths) => widths.len() + 1,
            Self::Prefix(lengths) => lengths.len() + 1,
            Self::Date(units) => units.len() + 1,
        }
    }

    /// Bytes of memory that the domains of a column take at most, but for the labels' texts.
    pub(super) fn domain_bytes(&self, column: &CodedColumn) -> usize {
        /// A code, a parent, a label and its loss.
        const BYTES_PER_VALUE: usize = 32;
        /// The labels of one level as texts.
        const BYTES_PER_LABEL: usize = 96;
        let levels = (self.levels() + 1).saturating_mul(BYTES_PER_VALUE);
        column.cardinality().saturating_mul(levels + BYTES_PER_LABEL)
    }
}

fn intervals(written: &str, levels: &[&str]) -> Result<Scheme> {
    let mut before: Option<f64> = None;
    for level in levels {
        let width = level.parse::<f64>().ok();
        let width = width.filter(|width| width.is_normal() && *width > 0.0);
        let Some(width) = width else {
            return plan_err!(
                "hierarchy '{written}': a width is '{level}'. Hint: write numbers greater than \
                 zero that are no smaller than {:e}, as in 'interval:5,10,20'",
                f64::MIN_POSITIVE
            );
        };
        if let Some(before) = before {
            let times = width / before;
            if times < 1.5 || (times - times.round()).abs() > 1e-9 {
                return plan_err!(
                    "hierarchy '{written}': {level} is no multiple of the width before. Hint: \
                     intervals contain those of the level before, as in 'interval:5,10,20'"
                );
            }
        }
        before = Some(width);
    }
    Ok(Scheme::Interval(levels.iter().map(|level| (*level).to_owned()).collect()))
}

fn prefixes(written: &str, levels: &[&str]) -> Result<Scheme> {
    let mut lengths: Vec<usize> = vec![];
    for level in levels {
        match level.parse::<usize>() {
            Ok(length) if length > 0 && lengths.last().is_none_or(|before| length < *before) => {
                lengths.push(length);
            }
            _ => {
                return plan_err!(
                    "hierarchy '{written}': a length is '{level}'. Hint: write numbers of first \
                     characters that become fewer, as in 'prefix:4,2,1'"
                );
            }
        }
    }
    Ok(Scheme::Prefix(lengths))
}

fn dates(written: &str, levels: &[&str]) -> Result<Scheme> {
    let units: Vec<Unit> =
        levels.iter().map(|level| Unit::by_name(level)).collect::<Result<_>>()?;
    let is_nested = units.is_sorted_by(|left, right| left < right);
    if !is_nested || (units.contains(&Unit::Week) && units.len() > 1) {
        return plan_err!(
            "hierarchy '{written}': a period does not contain the one before. Hint: write some of \
             month, quarter, year, decade in that order, or week alone"
        );
    }
    Ok(Scheme::Date(units))
}

/// A label for each distinct value; NULL is suppressed.
fn labels(column: &CodedColumn, label: impl Fn(&str) -> Result<String>) -> Result<Vec<String>> {
    column
        .values
        .iter()
        .map(|value| value.as_deref().map_or_else(|| Ok(SUPPRESSED.to_owned()), &label))
        .collect()
}

fn interval(text: &str, width: &str) -> Result<String> {
    let mut out = String::new();
    if let (Some(number), Some(width)) = (whole(text), whole(width)) {
        integer_interval(number, width, &mut out)?;
        return Ok(out);
    }
    match (text.parse::<f64>(), width.parse::<f64>()) {
        (Ok(number), Ok(width)) => {
            float_interval(number, width, &mut out)?;
            Ok(out)
        }
        _ => Ok(SUPPRESSED.to_owned()),
    }
}

/// A whole number of 64 bits.
fn whole(text: &str) -> Option<i128> {
    let number: i128 = text.parse().ok()?;
    (number.unsigned_abs() <= u128::from(u64::MAX)).then_some(number)
}

fn prefix(text: &str, length: usize) -> String {
    let end = text.char_indices().nth(length).map_or(text.len(), |(at, _)| at);
    format!("{}*", text.get(..end).unwrap_or_default())
}

/// The day of each distinct value, NULL of what is no date.
fn days(column: &CodedColumn) -> Result<Date32Array> {
    let texts: ArrayRef =
        Arc::new(column.values.iter().map(|value| value.as_deref()).collect::<StringArray>());
    let days = arrow::compute::cast(&texts, &DataType::Date32)?;
    match days.as_primitive_opt::<Date32Type>() {
        Some(days) => Ok(days.clone()),
        None => exec_err!("column {} holds no dates", column.name),
    }
}

fn periods(days: &Date32Array, unit: Unit) -> Result<Vec<String>> {
    let label = |day: Option<i32>| -> Result<String> {
        let mut out = String::new();
        match day.and_then(date32_to_datetime) {
            Some(date) => unit.write(date.date(), &mut out)?,
            None => out.push_str(SUPPRESSED),
        }
        Ok(out)
    };
    days.iter().map(label).collect()
}

/// A column's values at each level, in codes.
#[derive(Debug, Clone, PartialEq)]
pub struct Domains {
    /// By level, the code of each value.
    codes: Vec<Vec<u32>>,
    /// By level, the label of each code.
    labels: Vec<Vec<Option<Arc<str>>>>,
    /// By level but the last, the code of the next level of each code.
    parents: Vec<Vec<u32>>,
    /// By level, the share of the column that each code stands for: of the width of numbers and
    /// times, of the other values of text.
    losses: Vec<Vec<f64>>,
}

impl Domains {
    /// Level 0 alone.
    fn of_values(column: &CodedColumn) -> Self {
        Self {
            codes: vec![(0..column.cardinality() as u32).collect()],
            labels: vec![column.values.clone()],
            parents: vec![],
            losses: vec![vec![0.0; column.cardinality()]],
        }
    }

    /// Adds a level by the label of each value.
    fn add(&mut self, column: &CodedColumn, level: Vec<String>) -> Result<()> {
        let (mut codes, mut labels) = (Vec::with_capacity(level.len()), vec![]);
        let mut numbers: HashMap<String, u32> = HashMap::new();
        for label in level {
            let next = labels.len() as u32;
            let code = match numbers.get(&label) {
                Some(code) => *code,
                None => {
                    labels.push(Some(Arc::from(label.as_str())));
                    numbers.insert(label, next);
                    next
                }
            };
            codes.push(code);
        }
        let below = self.codes.last().map_or(&[][..], Vec::as_slice);
        let mut parents: Vec<Option<u32>> =
            vec![None; self.labels.last().map_or(0, |labels| labels.len())];
        for (code, parent) in below.iter().zip(&codes) {
            match parents.get_mut(*code as usize) {
                Some(Some(known)) if *known != *parent => {
                    return exec_err!(
                        "column {}: values that are alike at level {} of its hierarchy differ at \
                         the next. Hint: a label must have one parent",
                        column.name,
                        self.codes.len() - 1
                    );
                }
                Some(slot) => *slot = Some(*parent),
                None => {}
            }
        }
        self.parents.push(parents.into_iter().map(Option::unwrap_or_default).collect());
        self.losses.push(losses(column, &codes, labels.len()));
        self.codes.push(codes);
        self.labels.push(labels);
        Ok(())
    }

    /// The highest level.
    pub fn height(&self) -> usize {
        self.codes.len() - 1
    }

    /// The code of each value at a level.
    pub(super) fn codes(&self, level: usize) -> &[u32] {
        self.codes.get(level).map_or(&[], Vec::as_slice)
    }

    /// The label of each code of a level.
    pub(super) fn labels(&self, level: usize) -> &[Option<Arc<str>>] {
        self.labels.get(level).map_or(&[], Vec::as_slice)
    }

    /// The codes of the level above of each code of a level.
    pub(super) fn parents(&self, level: usize) -> &[u32] {
        self.parents.get(level).map_or(&[], Vec::as_slice)
    }

    /// The share of the column that a code of a level stands for, from 0 to 1.
    pub(super) fn loss(&self, level: usize, code: u32) -> f64 {
        let losses = self.losses.get(level);
        losses.and_then(|losses| losses.get(code as usize)).copied().unwrap_or_default()
    }

    /// The lowest level at which values are alike, and their code there.
    pub(super) fn common(&self, values: impl Iterator<Item = u32> + Clone) -> Option<(usize, u32)> {
        (0..self.codes.len()).find_map(|level| {
            let mut codes = values.clone().map(|value| self.codes(level).get(value as usize));
            let first = codes.next()??;
            codes.all(|code| code == Some(first)).then_some((level, *first))
        })
    }
}

fn losses(column: &CodedColumn, codes: &[u32], labels: usize) -> Vec<f64> {
    let mut bounds = vec![(u32::MAX, 0_u32, 0_u32); labels];
    for (rank, code) in (0_u32..).zip(codes) {
        let (least, most, count) = &mut bounds[*code as usize];
        (*least, *most, *count) = ((*least).min(rank), (*most).max(rank), *count + 1);
    }
    let others = column.cardinality().saturating_sub(1).max(1) as f64;
    let loss = |(least, most, count): (u32, u32, u32)| match column.kind {
        _ if count < 2 => 0.0,
        Kind::Text => f64::from(count - 1) / others,
        Kind::Number | Kind::Time => column.spread(least, most),
    };
    bounds.into_iter().map(loss).collect()
}

#[cfg(test)]
mod tests {
    use super::super::column::tests::{integers, texts};
    use super::*;

    fn written(text: &str) -> Scheme {
        Scheme::built_in(text).unwrap().unwrap()
    }

    fn shown(domains: &Domains, level: usize) -> Vec<&str> {
        let labels = domains.labels(level);
        let label = |code: &u32| labels[*code as usize].as_deref().unwrap_or("NULL");
        domains.codes(level).iter().map(label).collect()
    }

    #[test]
    fn built_in_levels_become_more_general() {
        let ages = written("interval:10, 20").domains(&integers("age", &[9, 11, 25])).unwrap();
        assert_eq!(ages.height(), 3);
        assert_eq!(shown(&ages, 1), ["[0, 10)", "[10, 20)", "[20, 30)"]);
        assert_eq!(shown(&ages, 2), ["[0, 20)", "[0, 20)", "[20, 40)"]);
        assert_eq!(shown(&ages, 3), ["*", "*", "*"]);
        assert_eq!(ages.parents(1), [0, 0, 1]);
        assert_eq!(ages.common([0, 1].into_iter()), Some((2, 0)));
        let codes = written("prefix:2,1").domains(&texts("zip", &["1", "13053", "13068"])).unwrap();
        assert_eq!(shown(&codes, 1), ["1*", "13*", "13*"]);
        assert_eq!(shown(&codes, 2), ["1*", "1*", "1*"]);
        let days = ["2024-05-17", "2024-06-01", "never"];
        let days = written("date:month,quarter,year").domains(&texts("d", &days)).unwrap();
        assert_eq!(shown(&days, 1), ["2024-05", "2024-06", "*"]);
        assert_eq!(shown(&days, 2), ["2024-Q2", "2024-Q2", "*"]);
    }

    #[test]
    fn hierarchies_suppress_what_they_do_not_know() {
        let rows = [["a", "x", "*"], ["b", "x", "*"]].map(|row| row.map(str::to_owned).to_vec());
        let scheme = Scheme::Table(Arc::new(Hierarchy::from_rows("h", rows).unwrap()));
        let domains = scheme.domains(&texts("t", &["a", "b", "c"])).unwrap();
        assert_eq!(shown(&domains, 1), ["x", "x", "*"]);
        let rows = [["a", "*", "x"]].map(|row| row.map(str::to_owned).to_vec());
        let scheme = Scheme::Table(Arc::new(Hierarchy::from_rows("h", rows).unwrap()));
        let error = scheme.domains(&texts("t", &["a", "c"])).unwrap_err().to_string();
        assert!(error.contains("differ at the next"), "{error}");
    }

    #[test]
    fn what_is_no_hierarchy_is_refused() {
        for (text, part) in [
            ("interval:", "a width is ''"),
            ("interval:10,15", "no multiple"),
            ("interval:10,10", "no multiple"),
            ("interval:-1", "greater than zero"),
            ("interval:1e-320", "a width is '1e-320'"),
            ("prefix:1,2", "become fewer"),
            ("prefix:x", "become fewer"),
            ("date:year,month", "does not contain"),
            ("date:week,month", "does not contain"),
            ("date:hour", "hour"),
            ("zip:1", "no built-in hierarchy 'zip'"),
        ] {
            let error = Scheme::built_in(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(Scheme::built_in("main.education").unwrap(), None);
        assert!(written("interval:5").check("t", Kind::Text).is_err());
        assert!(written("date:year").check("t", Kind::Number).is_err());
    }
}
