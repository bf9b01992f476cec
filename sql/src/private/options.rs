//! What is asked of differential privacy: the options of the clause, and what is computed.

use std::collections::BTreeSet;

use sqlparser::ast::{Expr, UnaryOperator, Value, ValueWithSpan};
use udfs::privacy::noise::accounting::rho_of_epsilon;
use udfs::privacy::noise::{EPSILON_MIN, Noise};

use crate::error::{Error, Result};

/// The options of the clause.
const OPTIONS: [&str; 9] = [
    "epsilon",
    "delta",
    "mechanism",
    "privacy_unit_column",
    "max_groups_contributed",
    "max_rows_contributed",
    "min_privacy_units_per_group",
    "group_selection_strategy",
    "kappa",
];

/// The most groups or rows that one unit may be let to contribute.
const CONTRIBUTIONS_MAX: u32 = 1_000_000;

/// What bounds how much one unit contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contributions {
    /// It is in at most so many groups, with all of its rows there.
    Groups(u32),
    /// It has at most so many rows, whichever groups they are in.
    Rows(u32),
}

impl Contributions {
    /// How many groups or rows.
    pub(crate) fn count(self) -> u32 {
        match self {
            Self::Groups(count) | Self::Rows(count) => count,
        }
    }

    /// The argument that bounds what an aggregate takes of a group or of a row.
    pub(crate) fn bounds_argument(self) -> &'static str {
        match self {
            Self::Groups(_) => PER_GROUP,
            Self::Rows(_) => PER_ROW,
        }
    }
}

/// Bounds what a unit contributes to a group.
pub(crate) const PER_GROUP: &str = "contribution_bounds_per_group";
/// Bounds what a row contributes.
pub(crate) const PER_ROW: &str = "contribution_bounds_per_row";

/// Where the answer's groups come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    /// From the data: a group is shown when its noisy number of units passes a threshold.
    Threshold,
    /// From a table of groups that are public.
    Public,
}

/// What noise values get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// Discrete Laplace noise, whose answers lose epsilon and no more.
    Laplace,
    /// Discrete Gaussian noise, whose answers lose more than epsilon with probability delta.
    Gaussian,
}

/// The options as given.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    /// The privacy loss of the whole answer.
    pub(crate) epsilon: f64,
    /// The probability with which a group that one unit alone makes is shown, or Gaussian noise
    /// loses more than epsilon.
    pub(crate) delta: Option<f64>,
    /// What noise values get.
    pub(crate) mechanism: Mechanism,
    /// The column that tells whose row it is.
    pub(crate) unit: Expr,
    /// The bound on contributions.
    pub(crate) contributions: Contributions,
    /// Groups of fewer units are not shown.
    pub(crate) units_min: Option<u32>,
    /// Where groups come from.
    pub(crate) selection: Selection,
}

impl Options {
    /// Reads the options in the order written.
    ///
    /// # Errors
    /// When one is unknown, given twice, missing, or has no usable value.
    pub(crate) fn read(given: &[(String, Expr)]) -> Result<Self> {
        let mut seen = BTreeSet::new();
        for (name, _) in given {
            if !OPTIONS.contains(&name.as_str()) {
                return Err(Error::unknown("option", name, OPTIONS));
            }
            if !seen.insert(name.as_str()) {
                return Err(Error::invalid_hint(
                    format!("option {name} is given twice"),
                    "leave one of them out",
                ));
            }
        }
        let find = |name: &str| {
            let found = given.iter().find(|(given, _)| given == name).map(|(_, value)| value);
            found.filter(|value| !is_null(value))
        };
        let Some(epsilon) = find("epsilon") else { return Err(missing("epsilon", "1")) };
        let epsilon = number("epsilon", epsilon)?;
        if !(epsilon.is_finite() && epsilon >= EPSILON_MIN) {
            return Err(Error::invalid_hint(
                format!("epsilon is {}", short(epsilon)),
                format!(
                    "it is {} at least; common values lie between 0.1 and 10",
                    short(EPSILON_MIN)
                ),
            ));
        }
        let delta = find("delta").map(|value| number("delta", value)).transpose()?;
        if let Some(delta) = delta.filter(|delta| !(*delta > 0.0 && *delta < 1.0)) {
            return Err(Error::invalid_hint(
                format!("delta is {}", short(delta)),
                "it lies between 0 and 1; take less than one over the number of people, as 1e-6",
            ));
        }
        let Some(unit) = find("privacy_unit_column") else {
            return Err(missing("privacy_unit_column", "person_id"));
        };
        if !matches!(unit, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
            return Err(Error::invalid_hint(
                format!("privacy_unit_column is {unit}"),
                "it names the column that tells whose row it is: person_id or t.person_id",
            ));
        }
        let units_min = find("min_privacy_units_per_group")
            .map(|value| count("min_privacy_units_per_group", value))
            .transpose()?;
        let selection = selection(find("group_selection_strategy"))?;
        if selection == Selection::Public && units_min.is_some() {
            return Err(Error::invalid_hint(
                "public groups have no least number of units",
                "leave min_privacy_units_per_group out",
            ));
        }
        let mechanism = mechanism(find("mechanism"))?;
        let contributions = contributions(find)?;
        let unit = unit.clone();
        Ok(Self { epsilon, delta, mechanism, unit, contributions, units_min, selection })
    }
}

fn contributions<'a>(find: impl Fn(&str) -> Option<&'a Expr>) -> Result<Contributions> {
    let groups = find("max_groups_contributed");
    if groups.is_some() && find("kappa").is_some() {
        return Err(Error::invalid_hint(
            "kappa is max_groups_contributed by its old name",
            "give one of them",
        ));
    }
    let groups = groups.or_else(|| find("kappa"));
    match (groups, find("max_rows_contributed")) {
        (Some(_), Some(_)) => Err(Error::invalid_hint(
            "max_groups_contributed and max_rows_contributed exclude each other",
            "bound either the groups or the rows of a person",
        )),
        (None, Some(rows)) => Ok(Contributions::Rows(count("max_rows_contributed", rows)?)),
        (Some(groups), None) => Ok(Contributions::Groups(count("max_groups_contributed", groups)?)),
        (None, None) => Ok(Contributions::Groups(1)),
    }
}

fn mechanism(given: Option<&Expr>) -> Result<Mechanism> {
    const KNOWN: [&str; 2] = ["LAPLACE", "GAUSSIAN"];
    match given.map(word).as_deref() {
        None | Some("LAPLACE") => Ok(Mechanism::Laplace),
        Some("GAUSSIAN") => Ok(Mechanism::Gaussian),
        Some(other) => Err(Error::unknown("mechanism", other, KNOWN)),
    }
}

fn selection(given: Option<&Expr>) -> Result<Selection> {
    const KNOWN: [&str; 2] = ["LAPLACE_THRESHOLD", "PUBLIC_GROUPS"];
    match given.map(word).as_deref() {
        None | Some("LAPLACE_THRESHOLD") => Ok(Selection::Threshold),
        Some("PUBLIC_GROUPS") => Ok(Selection::Public),
        Some(other) => Err(Error::unknown("group_selection_strategy", other, KNOWN)),
    }
}

/// A word, bare or in quotes.
fn word(given: &Expr) -> String {
    match given {
        Expr::Identifier(name) => name.value.to_uppercase(),
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => {
            text.to_uppercase()
        }
        other => other.to_string(),
    }
}

fn missing(name: &str, example: &str) -> Error {
    Error::invalid_hint(
        format!("differential privacy needs {name}"),
        format!("write OPTIONS ({name} = {example}, …)"),
    )
}

fn is_null(value: &Expr) -> bool {
    matches!(value, Expr::Value(ValueWithSpan { value: Value::Null, .. }))
}

/// A number that is written out.
///
/// # Errors
/// When it is something else: privacy must not depend on what is bound later.
pub(crate) fn number(name: &str, value: &Expr) -> Result<f64> {
    let number = match value {
        Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => text.parse().ok(),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            number(name, expr).ok().map(|number| -number)
        }
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => number(name, expr).ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        Error::invalid_hint(format!("{name} is {value}"), "it is a number, written out: 1 or 1e-6")
    })
}

/// A number for people: with an exponent where it would be a row of zeros or digits.
pub(crate) fn short(number: f64) -> String {
    match number == 0.0 || (1e-5..1e16).contains(&number.abs()) {
        true => number.to_string(),
        false => format!("{number:e}"),
    }
}

/// A whole number from 1.
fn count(name: &str, value: &Expr) -> Result<u32> {
    let text = value.to_string();
    match text.parse::<u32>() {
        Ok(count) if (1..=CONTRIBUTIONS_MAX).contains(&count) => Ok(count),
        _ => Err(Error::invalid_hint(
            format!("{name} is {value}"),
            format!("it is a whole number from 1 to {CONTRIBUTIONS_MAX}"),
        )),
    }
}

/// What is computed of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Statistic {
    /// Rows, or rows in which a value is there.
    Count,
    /// How many different values there are.
    Distinct,
    /// The sum of a value.
    Sum,
    /// The mean of the units' means.
    Average,
    /// The variance of rows.
    Variance(Of),
    /// Its root.
    Deviation(Of),
    /// The value below which this share of the rows lies.
    Quantile(f64),
}

/// What a variance is that of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// All that there is.
    Population,
    /// A sample of it.
    Sample,
}

impl Statistic {
    /// Whether it looks at single rows of a unit.
    pub(crate) fn takes_rows(self) -> bool {
        matches!(self, Self::Variance(_) | Self::Deviation(_) | Self::Quantile(_))
    }

    /// Whether it takes all that a unit has in a group, not what that sums up to.
    pub(crate) fn takes_lists(self) -> bool {
        self.takes_rows() || self == Self::Distinct
    }
}

/// One aggregate of the answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Aggregate {
    /// What is computed.
    pub(crate) statistic: Statistic,
    /// What a unit or a row contributes at least and at most; none: found privately.
    pub(crate) bounds: Option<(f64, f64)>,
}

/// What a private SELECT computes; its groups, units and values are columns of its input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    /// The clause's options.
    pub(crate) options: Options,
    /// How many columns the groups have; none: one group of all.
    pub(crate) groups: usize,
    /// The aggregates.
    pub(crate) aggregates: Vec<Aggregate>,
}

impl Spec {
    /// Checks what only the whole tells.
    ///
    /// # Errors
    /// When nothing is computed, or groups of the data have no delta.
    pub(crate) fn check(&self) -> Result<()> {
        if self.groups == 0 && self.aggregates.is_empty() {
            return Err(Error::invalid_hint(
                "nothing is computed",
                "write an aggregate, as COUNT(*), or GROUP BY",
            ));
        }
        if self.groups == 0 && self.options.selection == Selection::Public {
            return Err(Error::invalid_hint(
                "public groups need GROUP BY",
                "leave group_selection_strategy out for an answer of one row",
            ));
        }
        let takes_delta = self.is_thresholded() || self.options.mechanism == Mechanism::Gaussian;
        if takes_delta && self.options.delta.is_none() {
            return Err(missing("delta", "1e-6"));
        }
        if self.aggregates.len() > AGGREGATES_MAX {
            return Err(Error::invalid_hint(
                format!("the SELECT has more than {AGGREGATES_MAX} aggregates"),
                "each gets its part of epsilon; ask for fewer at a time",
            ));
        }
        Ok(())
    }

    /// Whether groups come from the data, and rare ones are left out.
    pub(crate) fn is_thresholded(&self) -> bool {
        self.groups > 0 && self.options.selection == Selection::Threshold
    }

    /// The delta of the answer.
    pub(crate) fn delta(&self) -> f64 {
        match (self.options.mechanism, self.is_thresholded()) {
            (Mechanism::Laplace, false) => 0.0,
            _ => self.options.delta.unwrap_or_default(),
        }
    }

    /// The part of delta with which groups that one unit makes alone are shown: half of it beside
    /// Gaussian noise.
    pub(crate) fn delta_of_groups(&self) -> f64 {
        match (self.options.mechanism, self.is_thresholded()) {
            (_, false) => 0.0,
            (Mechanism::Laplace, true) => self.delta(),
            (Mechanism::Gaussian, true) => 0.5 * self.delta(),
        }
    }

    /// The noise of the whole answer, before it is divided.
    ///
    /// Gaussian noise alone is exactly as private as one release with the sigma of epsilon and
    /// delta. Quantiles and bounds that are found privately have no Gaussian form: beside them it
    /// is what zero-concentrated differential privacy says of the sum.
    ///
    /// # Errors
    /// When epsilon or delta cannot be used.
    pub(crate) fn noise(&self) -> Result<Noise> {
        let (epsilon, delta) = (self.options.epsilon, self.delta() - self.delta_of_groups());
        let is_pure = |aggregate: &Aggregate| {
            aggregate.bounds.is_none() || matches!(aggregate.statistic, Statistic::Quantile(_))
        };
        Ok(match self.options.mechanism {
            Mechanism::Laplace => Noise::Laplace { epsilon },
            Mechanism::Gaussian if self.aggregates.iter().any(is_pure) => {
                Noise::Concentrated { rho: rho_of_epsilon(epsilon, delta) }
            }
            Mechanism::Gaussian => {
                Noise::Concentrated { rho: Noise::Gaussian { epsilon, delta }.rho()? }
            }
        })
    }
}

/// More would leave each a vanishing part of epsilon.
const AGGREGATES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use sqlparser::parser::Parser;

    use super::*;
    use crate::dialect::AttuneDialect;

    fn read(given: &[(&str, &str)]) -> Result<Options> {
        let parse = |text: &str| {
            Parser::new(&AttuneDialect).try_with_sql(text).unwrap().parse_expr().unwrap()
        };
        let given: Vec<(String, Expr)> =
            given.iter().map(|(name, value)| ((*name).to_owned(), parse(value))).collect();
        Options::read(&given)
    }

    #[test]
    fn options_have_the_defaults_of_googlesql() {
        let options = read(&[("epsilon", "1e20"), ("privacy_unit_column", "t.id")]).unwrap();
        assert_eq!((options.epsilon, options.delta), (1e20, None));
        assert_eq!(options.contributions, Contributions::Groups(1));
        assert_eq!(options.selection, Selection::Threshold);
        assert_eq!(options.mechanism, Mechanism::Laplace);
    }

    #[test]
    fn gaussian_noise_costs_what_its_sigma_is_worth() {
        let base = [("epsilon", "1"), ("delta", "1e-6"), ("privacy_unit_column", "id")];
        let gaussian = [base[0], base[1], base[2], ("mechanism", "'gaussian'")];
        let of = |groups: usize, bounds: Option<(f64, f64)>, statistic: Statistic| {
            let options = read(&gaussian).unwrap();
            Spec { options, groups, aggregates: vec![Aggregate { statistic, bounds }] }
        };
        let count = of(0, Some((0.0, 1.0)), Statistic::Count);
        assert_eq!((count.delta(), count.delta_of_groups()), (1e-6, 0.0));
        let exact = Noise::Gaussian { epsilon: 1.0, delta: 1e-6 }.rho().unwrap();
        assert_eq!(count.noise().unwrap(), Noise::Concentrated { rho: exact });
        let grouped = of(1, Some((0.0, 1.0)), Statistic::Count);
        assert_eq!((grouped.delta(), grouped.delta_of_groups()), (1e-6, 5e-7));
        assert!(grouped.noise().unwrap().rho().unwrap() < exact);
        // Beside noise of another kind a little less is affordable.
        for mixed in
            [of(0, None, Statistic::Count), of(0, Some((0.0, 1.0)), Statistic::Quantile(0.5))]
        {
            let rho = mixed.noise().unwrap().rho().unwrap();
            assert!(rho < exact && rho > 0.7 * exact, "{rho}, {exact}");
        }
        let mut without = of(0, Some((0.0, 1.0)), Statistic::Count);
        without.options.delta = None;
        assert!(without.check().unwrap_err().to_string().contains("delta"));
        assert!(read(&[base[0], base[2], ("mechanism", "normal")]).is_err());
    }

    #[test]
    fn numbers_are_told_shortly() {
        for (number, text) in
            [(0.0, "0"), (0.5, "0.5"), (-2e9, "-2000000000"), (1e-320, "1e-320"), (1e308, "1e308")]
        {
            assert_eq!(short(number), text);
        }
        let error = |epsilon: &str| {
            let given = [("epsilon", epsilon), ("privacy_unit_column", "id")];
            let Error::Invalid { what, hint } = read(&given).unwrap_err() else { panic!() };
            (what, hint.unwrap_or_default())
        };
        let (what, hint) = error("1e-320");
        assert_eq!(what, "epsilon is 1e-320");
        assert!(hint.starts_with(&format!("it is {} at least", short(EPSILON_MIN))), "{hint}");
        assert_eq!(error("-1").0, "epsilon is -1");
    }

    #[test]
    fn wrong_options_are_told() {
        let base = [("epsilon", "1"), ("privacy_unit_column", "id")];
        for (name, value, part) in [
            ("epsilon", "1", "twice"),
            ("delta", "2", "delta is 2"),
            ("delta", "'x'", "delta is 'x'"),
            ("max_groups_contributed", "0", "max_groups_contributed is 0"),
            ("max_groups_contributed", "1.5", "max_groups_contributed is 1.5"),
            ("group_selection_strategy", "NONE", "group_selection_strategy NONE"),
            ("epsilom", "1", "option epsilom"),
        ] {
            let error = read(&[base[0], base[1], (name, value)]).unwrap_err();
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
        assert!(read(&[("privacy_unit_column", "id")]).is_err());
        assert!(read(&[("epsilon", "1")]).is_err());
        assert!(read(&[("epsilon", "-1"), base[1]]).is_err());
        assert!(read(&[("epsilon", "1"), ("privacy_unit_column", "lower(id)")]).is_err());
        let both = [("max_groups_contributed", "1"), ("max_rows_contributed", "2")];
        assert!(read(&[base[0], base[1], both[0], both[1]]).is_err());
    }
}
