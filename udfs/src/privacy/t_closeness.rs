//! `t_closeness(sensitive, q1, …)`: how far a class's sensitive values can be from the whole's.
//!
//! The greatest earth mover's distance between the distribution of the sensitive column in a class
//! of rows with equal quasi-identifiers and in all rows (Li, Li, Venkatasubramanian 2007), from 0
//! (every class looks like the whole) to 1. For text, booleans and other types without a
//! distance all values are equally far apart: half the sum of |p - q|. For numbers, dates and
//! times the m values that occur are ranked and neighbours are 1/(m-1) apart: the sum of
//! the absolute differences of the cumulated shares over m-1. These are the conventions of ARX and
//! of pycanon. NULL is a value of its own and ranks first; over no rows the answer is NULL.

use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::utils::AggregateOrderSensitivity;
use datafusion_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility};
use datafusion_macros::user_doc;

use super::classes::{self, Crosstab, CrosstabAccumulator};

const NAME: &str = "t_closeness";

/// The aggregate `t_closeness`.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "The greatest distance between the distribution of a sensitive column in a class \
of rows whose quasi-identifiers are all equal and in all rows, from 0 to 1 (earth mover's \
distance: ordered for numbers, dates and times, equal distances for all else). NULL is a value of \
its own; over no rows the answer is NULL.",
    syntax_example = "t_closeness(sensitive, quasi_identifier [, ...])",
    sql_example = r#"```sql
> SELECT t_closeness(disease, zip) AS t
  FROM (VALUES ('flu', '130**'), ('ulcer', '130**'), ('flu', '148**'), ('ulcer', '148**'))
  AS t (disease, zip);
+-----+
| t   |
+-----+
| 0.0 |
+-----+
```"#,
    argument(name = "sensitive", description = "The column that must not be learnt, of any type."),
    argument(
        name = "quasi_identifier",
        description = "One or more columns of any type by which somebody could be recognized."
    ),
    related_udf(name = "k_anonymity"),
    related_udf(name = "l_diversity")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TCloseness {
    signature: Signature,
}

impl TCloseness {
    /// The aggregate.
    pub fn new() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl Default for TCloseness {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for TCloseness {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        classes::check_columns(NAME, 1, arg_types)?;
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        classes::check_call(NAME, &args)?;
        let ordered = args.expr_fields.first().is_some_and(|field| has_order(field.data_type()));
        Ok(Box::new(CrosstabAccumulator::new(if ordered {
            ordered_distance
        } else {
            equal_distance
        })))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(classes::crosstab_state(&args))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn supports_null_handling_clause(&self) -> bool {
        false
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

/// Whether values of a type have distances, and not only an order of their text.
fn has_order(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => has_order(values),
        other => other.is_numeric() || other.is_temporal(),
    }
}

pub(super) fn share(count: u64, total: u64) -> f64 {
    count as f64 / total as f64
}

pub(super) fn class_size(class: &[(usize, u64)]) -> u64 {
    class.iter().map(|(_, count)| count).sum()
}

fn greatest(distances: impl Iterator<Item = f64>) -> ScalarValue {
    // Rounding must not report a distance below nothing or above everything.
    ScalarValue::Float64(distances.map(|t| t.clamp(0.0, 1.0)).max_by(f64::total_cmp))
}

fn equal_distance(table: &Crosstab) -> ScalarValue {
    let totals = table.totals();
    let rows = totals.iter().sum();
    greatest(table.by_class().into_iter().map(|mut class| {
        class.sort_unstable();
        equal_in_class(&class, &totals, rows)
    }))
}

/// Half the sum of |p - q|. Values that a class lacks add their q, which need not be listed.
pub(super) fn equal_in_class(class: &[(usize, u64)], totals: &[u64], rows: u64) -> f64 {
    let size = class_size(class);
    let (mut distance, mut present) = (0.0, 0_u64);
    for (value, count) in class {
        let total = totals.get(*value).copied().unwrap_or_default();
        distance += (share(*count, size) - share(total, rows)).abs();
        present += total;
    }
    0.5 * (distance + share(rows - present, rows))
}

fn ordered_distance(table: &Crosstab) -> ScalarValue {
    let totals = table.totals();
    let whole = Cumulated::new(&table.values().ordered(), &totals);
    greatest(table.by_class().into_iter().map(|class| {
        let mut class: Vec<(usize, u64)> = class
            .into_iter()
            .map(|(value, count)| (whole.ranks.get(value).copied().unwrap_or_default(), count))
            .collect();
        class.sort_unstable();
        ordered_in_class(&class, &whole)
    }))
}

/// The sum of |P - Q| over the ranks, P and Q being cumulated shares, over the number of steps. The
/// class's values are given by rank, in order.
pub(super) fn ordered_in_class(class: &[(usize, u64)], whole: &Cumulated) -> f64 {
    let (size, values) = (class_size(class), whole.shares.len());
    let (mut distance, mut from, mut below) = (0.0, 0, 0_u64);
    for (rank, count) in class {
        distance += whole.distance(from..*rank, share(below, size));
        below += count;
        from = *rank;
    }
    distance += whole.distance(from..values, share(below, size));
    distance / values.saturating_sub(1).max(1) as f64
}

/// The cumulated shares of the whole, prepared so that a class costs only its own values.
#[derive(Debug)]
pub(super) struct Cumulated {
    /// The rank of each value, by number.
    ranks: Vec<usize>,
    /// The share of values up to and with each rank.
    shares: Vec<f64>,
    /// The sum of the first n shares.
    sums: Vec<f64>,
}

impl Cumulated {
    /// The shares of values, by number, in an order of their numbers.
    pub(super) fn new(order: &[usize], totals: &[u64]) -> Self {
        let rows: u64 = totals.iter().sum();
        let mut ranks = vec![0; order.len()];
        let (mut shares, mut sums, mut below, mut sum) = (vec![], vec![0.0], 0_u64, 0.0);
        for (rank, &value) in order.iter().enumerate() {
            if let Some(slot) = ranks.get_mut(value) {
                *slot = rank;
            }
            below += totals.get(value).copied().unwrap_or_default();
            let cumulated = share(below, rows);
            sum += cumulated;
            shares.push(cumulated);
            sums.push(sum);
        }
        Self { ranks, shares, sums }
    }

    /// The sum of |level - share| over a range of ranks; the shares ascend, so they cross
    /// `level` once.
    fn distance(&self, ranks: std::ops::Range<usize>, level: f64) -> f64 {
        let shares = self.shares.get(ranks.clone()).unwrap_or_default();
        let middle = ranks.start + shares.partition_point(|share| *share <= level);
        let sum = |from: usize, to: usize| {
            let at = |position: usize| self.sums.get(position).copied().unwrap_or_default();
            at(to) - at(from)
        };
        let below = level * (middle - ranks.start) as f64 - sum(ranks.start, middle);
        let above = sum(middle, ranks.end) - level * (ranks.end - middle) as f64;
        below + above
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::classes::testing::{aggregate, ints, texts};
    use super::*;

    fn t(sensitive: arrow::array::ArrayRef, classes: &[i64]) -> f64 {
        match aggregate(&TCloseness::new(), &[sensitive, ints(classes)]).unwrap() {
            ScalarValue::Float64(Some(t)) => t,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn ordered_distances_are_those_of_the_paper() {
        // Li et al. 2007, section 4: incomes of 3k to 11k; classes {3, 4, 5} and {6, 8, 11}
        // are .375 and .167 from the whole; the greater is reported.
        let incomes = ints(&[3, 4, 5, 6, 11, 8, 7, 9, 10]);
        let t = t(incomes, &[1, 1, 1, 2, 2, 2, 3, 3, 3]);
        assert!((t - 0.375).abs() < 1e-12, "{t}");
        let cumulated = Cumulated::new(&[0, 1, 2, 3, 4, 5, 6, 7, 8], &[1; 9]);
        let third = 1.0 / 3.0;
        let distance = cumulated.distance(0..3, 0.0)
            + cumulated.distance(3..5, third)
            + cumulated.distance(5..8, 2.0 * third)
            + cumulated.distance(8..9, 1.0);
        assert!((distance / 8.0 - 1.0 / 6.0).abs() < 1e-12, "{distance}");
    }

    #[test]
    fn equal_distances_count_shares_only() {
        let disease = texts(&[Some("a"), Some("b"), Some("c"), Some("d")]);
        assert_eq!(t(disease.clone(), &[1, 1, 2, 2]), 0.5);
        assert_eq!(t(disease, &[1, 1, 1, 1]), 0.0);
        // The same values as numbers: {1, 2} of {1, 2, 3, 4} are a third away.
        assert!((t(ints(&[1, 2, 3, 4]), &[1, 1, 2, 2]) - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn edges() {
        let none = aggregate(&TCloseness::new(), &[ints(&[]), ints(&[])]).unwrap();
        assert_eq!(none, ScalarValue::Float64(None));
        assert_eq!(t(ints(&[7, 7, 7]), &[1, 1, 2]), 0.0);
        assert_eq!(t(texts(&[None, None, Some("x"), Some("x")]), &[1, 1, 2, 2]), 0.5);
    }

    proptest! {
        #[test]
        fn agrees_with_the_formulas_written_out(
            rows in prop::collection::vec((0..6_i64, 0..3_i64), 1..50),
        ) {
            let (sensitive, classes): (Vec<i64>, Vec<i64>) = rows.iter().copied().unzip();
            let mut values = sensitive.clone();
            values.sort_unstable();
            values.dedup();
            let part = |value: i64, class: Option<i64>| {
                let of = rows.iter().filter(|row| class.is_none_or(|class| row.1 == class));
                let (all, hits) = of.fold((0.0, 0.0), |(all, hits), row| {
                    (all + 1.0, hits + f64::from(u8::from(row.0 == value)))
                });
                hits / all
            };
            let (mut equal, mut ordered) = (0.0_f64, 0.0_f64);
            for class in &classes {
                let (mut half, mut cumulated, mut sum) = (0.0, 0.0, 0.0);
                for value in &values {
                    let difference = part(*value, Some(*class)) - part(*value, None);
                    half += 0.5 * difference.abs();
                    cumulated += difference;
                    sum += f64::abs(cumulated);
                }
                equal = equal.max(half);
                ordered = ordered.max(sum / (values.len().max(2) - 1) as f64);
            }
            let text: Vec<String> = sensitive.iter().map(i64::to_string).collect();
            let text: Vec<Option<&str>> = text.iter().map(|text| Some(text.as_str())).collect();
            prop_assert!((t(texts(&text), &classes) - equal).abs() < 1e-9);
            prop_assert!((t(ints(&sensitive), &classes) - ordered).abs() < 1e-9);
        }
    }
}
