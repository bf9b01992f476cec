//! Which conditions of a join an index of texts can answer.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::cast::as_float64_array;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinSide, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, IsNotNullExpr, Literal,
};
use datafusion::physical_expr::utils::{collect_columns, split_disjunction};
use datafusion::physical_expr::{
    PhysicalExpr, ScalarFunctionExpr, conjunction_opt, split_conjunction,
};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use udfs::fuzzy::index::{Floor, Likeness, SetKind};

use crate::numbers;

/// A part of a join's condition that an index finds the pairs of.
#[derive(Debug, Clone)]
pub(super) struct Alternative {
    pub predicate: FuzzyPredicate,
    /// What else must hold of a pair of rows.
    pub filter: Option<JoinFilter>,
}

/// A predicate over one text of either side.
#[derive(Debug, Clone)]
pub(super) struct FuzzyPredicate {
    pub likeness: Likeness,
    /// Over the columns of the left side.
    pub left: Arc<dyn PhysicalExpr>,
    /// Over the columns of the right side.
    pub right: Arc<dyn PhysicalExpr>,
    /// The largest distance, where it differs from row to row.
    pub limit: Option<(JoinSide, Limit)>,
    /// As it stands in the condition.
    pub shown: String,
}

impl FuzzyPredicate {
    /// The largest distances, if they are those of a side's rows.
    pub fn limit_of(&self, side: JoinSide) -> Option<Limit> {
        self.limit.as_ref().filter(|(of, _)| *of == side).map(|(_, limit)| limit.clone())
    }
}

/// The largest distance of a row.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    /// Over the columns of its side.
    pub value: Arc<dyn PhysicalExpr>,
    /// Whether a negative one is an error of the function, and not merely less than any distance.
    pub negative_fails: bool,
    /// How many edits of the index' kind one of the function's may be.
    pub times: usize,
}

impl Limit {
    /// The largest distance of each row, or more: the predicate is asked again of what is found.
    /// `None` for a row that nothing is alike; everything for one on which the predicate fails.
    pub fn of_rows(&self, batch: &RecordBatch) -> Result<Vec<Option<usize>>> {
        let values = self.value.evaluate(batch)?.into_array(batch.num_rows())?;
        let values = cast(&values, &DataType::Float64)?;
        let radius = |value: f64| match value {
            value if value.is_nan() => Some(usize::MAX),
            value if value < 0.0 => self.negative_fails.then_some(usize::MAX),
            // Conversion to a float may round down.
            value if value <= SMALL => Some(self.times * (value + 1e-6) as usize),
            value => {
                let edits = (value as usize).saturating_mul(self.times);
                Some(edits.checked_next_power_of_two().unwrap_or(usize::MAX))
            }
        };
        Ok(as_float64_array(&values)?.iter().map(|value| value.and_then(radius)).collect())
    }
}

/// Largest distance that an index is made for before those of the rows are known.
const USUAL_LIMIT: usize = 2;
/// Largest distances beyond it are taken together, so that there are not many.
const SMALL: f64 = 8.0;
/// Digits that every distance has room in: no text has 10,000,000,000 letters.
const DISTANCE_DIGITS: i16 = 10;

/// Splits a join's condition into predicates that indexes can answer, and what else must hold.
/// Each pair of rows of which the condition holds is found by exactly one of them.
pub(super) fn split(
    filter: &JoinFilter,
    schemas: &(SchemaRef, SchemaRef),
) -> Result<Option<Vec<Alternative>>> {
    let conditions = split_conjunction(filter.expression());
    let mut best: Option<(usize, Vec<Found>)> = None;
    for (at, condition) in conditions.iter().enumerate() {
        let Some(found) = disjuncts(condition, filter.column_indices()) else { continue };
        if best.as_ref().is_none_or(|(_, best)| rank(&found) < rank(best)) {
            best = Some((at, found));
        }
    }
    let Some((at, found)) = best else { return Ok(None) };
    let others = conditions.iter().enumerate().filter(|(other, _)| *other != at);
    let others: Vec<_> = others.map(|(_, condition)| Arc::clone(condition)).collect();
    let (mut earlier, mut alternatives): (Vec<Arc<dyn PhysicalExpr>>, _) = (Vec::new(), Vec::new());
    for found in found {
        let predicate = found.condition.over_sides(filter.column_indices(), schemas)?;
        let rest = others.iter().chain(&found.rest).chain(&earlier).map(Arc::clone);
        let over = |rest| {
            let indices = filter.column_indices().to_vec();
            JoinFilter::new(rest, indices, Arc::clone(filter.schema()))
        };
        alternatives.push(Alternative { predicate, filter: conjunction_opt(rest).map(over) });
        // What an earlier one finds no later one gives again; NULL finds nothing.
        let yes: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::from(true)));
        earlier.push(Arc::new(BinaryExpr::new(found.whole, Operator::IsDistinctFrom, yes)));
    }
    Ok(Some(alternatives))
}

/// A condition of which an index can answer a part.
struct Found {
    whole: Arc<dyn PhysicalExpr>,
    condition: Condition,
    /// What else must hold.
    rest: Vec<Arc<dyn PhysicalExpr>>,
}

/// Lower is more selective and found faster.
fn rank(found: &[Found]) -> usize {
    found.iter().map(|found| found.condition.rank()).sum::<usize>() + 100 * (found.len() - 1)
}

/// The disjuncts of a condition, if indexes can answer a part of each.
fn disjuncts(condition: &Arc<dyn PhysicalExpr>, indices: &[ColumnIndex]) -> Option<Vec<Found>> {
    let parts = split_disjunction(condition);
    // A pair may not be one's now and another's the next time that it is looked at.
    if parts.len() > 1 && is_volatile(condition) {
        return None;
    }
    parts.into_iter().map(|whole| conjuncts(whole, indices)).collect()
}

/// The most selective of the conjuncts that an index can answer, and the others.
fn conjuncts(whole: &Arc<dyn PhysicalExpr>, indices: &[ColumnIndex]) -> Option<Found> {
    let parts = split_conjunction(whole);
    let known = parts.iter().enumerate().filter_map(|(at, part)| {
        recognize(part, indices).filter(|found| found.sides(indices).is_some()).map(|f| (at, f))
    });
    let (at, condition) = known.min_by_key(|(_, condition)| condition.rank())?;
    let rest = parts.iter().enumerate().filter(|(other, _)| *other != at || condition.again);
    let rest = rest.map(|(_, part)| Arc::clone(part)).collect();
    Some(Found { whole: Arc::clone(whole), condition, rest })
}

struct Condition {
    likeness: Likeness,
    texts: [Arc<dyn PhysicalExpr>; 2],
    limit: Option<(JoinSide, Limit)>,
    /// Whether the likeness is necessary and not sufficient, so that the condition must be asked
    /// again.
    again: bool,
    shown: String,
}

impl Condition {
    fn rank(&self) -> usize {
        match self.likeness {
            _ if self.limit.is_some() => 9,
            Likeness::Edit { max, .. } => max.min(50),
            Likeness::Sets { kind: SetKind::Trigrams, .. } => 10,
            Likeness::Sets { kind: SetKind::Bigrams, .. } => 11,
            Likeness::Jaro { .. } => 12,
            Likeness::Sets { kind: SetKind::Characters, .. } => 13,
        }
    }

    /// The texts of the left and the right side.
    fn sides(&self, indices: &[ColumnIndex]) -> Option<[&Arc<dyn PhysicalExpr>; 2]> {
        let [one, other] = &self.texts;
        match (side(one, indices)?, side(other, indices)?) {
            (JoinSide::Left, JoinSide::Right) => Some([one, other]),
            (JoinSide::Right, JoinSide::Left) => Some([other, one]),
            _ => None,
        }
    }

    fn over_sides(
        self,
        indices: &[ColumnIndex],
        (left, right): &(SchemaRef, SchemaRef),
    ) -> Result<FuzzyPredicate> {
        let Some([of_left, of_right]) = self.sides(indices) else {
            return Err(DataFusionError::Internal("a fuzzy join has no text of a side".into()));
        };
        let (of_left, of_right) =
            (over_side(of_left, indices, left)?, over_side(of_right, indices, right)?);
        let limit = match self.limit {
            None => None,
            Some((side, limit)) => {
                let schema = if side == JoinSide::Left { left } else { right };
                let value = over_side(&limit.value, indices, schema)?;
                Some((side, Limit { value, ..limit }))
            }
        };
        let Self { likeness, shown, .. } = self;
        Ok(FuzzyPredicate { likeness, left: of_left, right: of_right, limit, shown })
    }
}

/// A bound on a measure.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(i64),
    Exactly(i64),
    Least(Floor),
}

fn recognize(condition: &Arc<dyn PhysicalExpr>, indices: &[ColumnIndex]) -> Option<Condition> {
    let found = |likeness, texts, again| {
        Some(Condition { likeness, texts, limit: None, again, shown: condition.to_string() })
    };
    if let Some(call) = condition.downcast_ref::<ScalarFunctionExpr>() {
        let (texts, limit) = (two_texts(call)?, call.args().get(2)?);
        return match call.name() {
            "levenshtein_within" => match integer(limit) {
                Some(max) => found(Distance::Levenshtein.within(max)?, texts, false),
                None => by_row(condition, call, Distance::Levenshtein, (limit, true), indices),
            },
            "jaro_winkler_within" => {
                let value = number(limit).filter(|value| (0.0..=1.0).contains(value))?;
                let floor = Floor { value, exclusive: false };
                found(similarity("jaro_winkler_similarity", floor)?, texts, false)
            }
            _ => None,
        };
    }
    if let Some(there) = condition.downcast_ref::<IsNotNullExpr>() {
        let call = there.arg().downcast_ref::<ScalarFunctionExpr>()?;
        let (distance, limit) = (distance(call)?, call.args().get(2)?);
        return match integer(limit) {
            Some(max) => found(distance.within(max)?, two_texts(call)?, !distance.is_exact()),
            None => by_row(condition, call, distance, (limit, true), indices),
        };
    }
    let comparison = condition.downcast_ref::<BinaryExpr>()?;
    let (call, operator, limit) = match (measure(comparison.left()), measure(comparison.right())) {
        (Some(call), None) => (call, *comparison.op(), comparison.right()),
        (None, Some(call)) => (call, comparison.op().swap()?, comparison.left()),
        _ => return None,
    };
    let (texts, distance) = (two_texts(call)?, distance(call));
    let Some(bound) = bound(operator, limit) else {
        let is_upper = matches!(operator, Operator::LtEq | Operator::Lt | Operator::Eq);
        let is_whole = call.args().get(2).is_none_or(|cutoff| whole(cutoff).is_some());
        return match distance {
            Some(distance) if is_upper && is_whole && literal(limit).is_none() => {
                by_row(condition, call, distance, (limit, false), indices)
            }
            _ => None,
        };
    };
    let Some(distance) = distance else {
        let Bound::Least(floor) = bound else { return None };
        let likeness = similarity(call.name(), floor).filter(|_| call.args().len() == 2)?;
        return found(likeness, texts, false);
    };
    let (max, again) = match bound {
        Bound::AtMost(max) => (max, !distance.is_exact()),
        Bound::Exactly(max) => (max, true),
        Bound::Least(_) => return None,
    };
    let within = match call.args().get(2) {
        Some(cutoff) if literal(cutoff).is_none() => {
            return by_row(condition, call, distance, (cutoff, true), indices);
        }
        Some(cutoff) => whole(cutoff)?,
        None => max,
    };
    found(distance.within(max.min(within))?, texts, again)
}

/// A distance whose largest is a value of one side's row.
fn by_row(
    condition: &Arc<dyn PhysicalExpr>,
    call: &ScalarFunctionExpr,
    distance: Distance,
    (value, negative_fails): (&Arc<dyn PhysicalExpr>, bool),
    indices: &[ColumnIndex],
) -> Option<Condition> {
    let limit = Limit { value: Arc::clone(value), negative_fails, times: distance.times() };
    Some(Condition {
        likeness: Likeness::Edit { osa: distance == Distance::Osa, max: USUAL_LIMIT },
        texts: two_texts(call)?,
        limit: Some((side(value, indices)?, limit)),
        again: true,
        shown: condition.to_string(),
    })
}

/// A function that counts edits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distance {
    Levenshtein,
    Osa,
    Damerau,
    Hamming,
}

impl Distance {
    /// Whether an index finds exactly the pairs within a distance, and not others with them.
    fn is_exact(self) -> bool {
        matches!(self, Self::Levenshtein | Self::Osa)
    }

    /// How many of Levenshtein's edits, or of the index' own, one of this distance may be: a swap,
    /// of which Damerau's may have text between, is two. A position at which texts differ is a
    /// substitution, and one beyond the shorter text an insertion.
    fn times(self) -> usize {
        if self == Self::Damerau { 2 } else { 1 }
    }

    /// What pairs within a distance are alike in.
    fn within(self, max: i64) -> Option<Likeness> {
        let max = usize::try_from(max).ok()?;
        // A single edit is what it is in the restricted form.
        if self == Self::Damerau && max <= 1 {
            return Some(Likeness::Edit { osa: true, max });
        }
        let max = max.saturating_mul(self.times());
        Some(Likeness::Edit { osa: self == Self::Osa, max })
    }
}

/// A call that measures two texts, or such a call made another type of number.
fn measure(expression: &Arc<dyn PhysicalExpr>) -> Option<&ScalarFunctionExpr> {
    let cast = expression.downcast_ref::<CastExpr>();
    let measured = cast.map_or(expression, CastExpr::expr);
    let call = measured.downcast_ref::<ScalarFunctionExpr>()?;
    let is_distance = distance(call).is_some();
    let is_measure = is_distance || call.name().ends_with("_similarity");
    let is_itself = cast.is_none_or(|cast| widens(cast.cast_type(), is_distance));
    (is_measure && is_itself).then_some(call)
}

/// Whether a type of number holds every distance, or every similarity, as it is.
fn widens(to: &DataType, is_distance: bool) -> bool {
    match to {
        DataType::Float64 => true,
        DataType::Int64 => is_distance,
        DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            is_distance && i16::from(*precision) - i16::from(*scale) >= DISTANCE_DIGITS
        }
        _ => false,
    }
}

fn distance(call: &ScalarFunctionExpr) -> Option<Distance> {
    match call.name() {
        "levenshtein" => Some(Distance::Levenshtein),
        "osa_distance" => Some(Distance::Osa),
        "damerau_levenshtein" => Some(Distance::Damerau),
        "hamming_distance" => Some(Distance::Hamming),
        _ => None,
    }
}

fn two_texts(call: &ScalarFunctionExpr) -> Option<[Arc<dyn PhysicalExpr>; 2]> {
    let [first, second, ..] = call.args() else { return None };
    Some([Arc::clone(first), Arc::clone(second)])
}

fn similarity(function: &str, floor: Floor) -> Option<Likeness> {
    // Everything is at least 0: no index helps.
    if !(floor.value > 0.0 || floor.value == 0.0 && floor.exclusive) {
        return None;
    }
    let sets = |kind| Likeness::Sets { kind, floor };
    Some(match function {
        "jaro_similarity" => Likeness::Jaro { winkler: false, floor },
        "jaro_winkler_similarity" => Likeness::Jaro { winkler: true, floor },
        "trigram_similarity" => sets(SetKind::Trigrams),
        "jaccard_similarity" => sets(SetKind::Characters),
        "cosine_similarity" => sets(SetKind::Bigrams),
        _ => return None,
    })
}

fn bound(operator: Operator, limit: &Arc<dyn PhysicalExpr>) -> Option<Bound> {
    let floor = || numbers::floor(literal(limit)?);
    let least = |exclusive| Some(Bound::Least(Floor { value: number(limit)?, exclusive }));
    match operator {
        // Distances are whole: at most 2.5 is at most 2.
        Operator::LtEq => floor().map(|(whole, _)| Bound::AtMost(whole)),
        Operator::Lt => match floor()? {
            (whole, true) => whole.checked_sub(1).map(Bound::AtMost),
            (whole, false) => Some(Bound::AtMost(whole)),
        },
        Operator::Eq => integer(limit).map(Bound::Exactly),
        Operator::GtEq => least(false),
        Operator::Gt => least(true),
        _ => None,
    }
}

fn literal(expression: &Arc<dyn PhysicalExpr>) -> Option<&ScalarValue> {
    expression.downcast_ref::<Literal>().map(Literal::value)
}

fn integer(expression: &Arc<dyn PhysicalExpr>) -> Option<i64> {
    numbers::whole(literal(expression)?)
}

/// A whole number written out that is no less than 0.
fn whole(expression: &Arc<dyn PhysicalExpr>) -> Option<i64> {
    integer(expression).filter(|value| *value >= 0)
}

fn number(expression: &Arc<dyn PhysicalExpr>) -> Option<f64> {
    let value = literal(expression)?;
    if value.is_null() || !value.data_type().is_numeric() {
        return None;
    }
    match value.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(value)) => value.filter(|value| !value.is_nan()),
        _ => None,
    }
}

/// The one side whose columns an expression reads; `None` when there is not one, or when it gives
/// another value each time.
fn side(expression: &Arc<dyn PhysicalExpr>, indices: &[ColumnIndex]) -> Option<JoinSide> {
    if is_volatile(expression) {
        return None;
    }
    let columns = collect_columns(expression);
    let mut sides = columns.iter().map(|column| indices.get(column.index()).map(|at| at.side));
    let first = sides.next()??;
    sides.all(|side| side == Some(first)).then_some(first)
}

/// An expression over the condition's columns as one over the columns of their side.
fn over_side(
    expression: &Arc<dyn PhysicalExpr>,
    indices: &[ColumnIndex],
    schema: &Schema,
) -> Result<Arc<dyn PhysicalExpr>> {
    Arc::clone(expression)
        .transform(|part| {
            let Some(column) = part.downcast_ref::<Column>() else {
                return Ok(Transformed::no(part));
            };
            let Some(at) = indices.get(column.index()) else { return Ok(Transformed::no(part)) };
            let name = schema.field(at.index).name();
            Ok(Transformed::yes(Arc::new(Column::new(name, at.index)) as _))
        })
        .data()
}
