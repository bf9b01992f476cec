//! Which conditions of a join an index of texts can answer.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinSide, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, IsNotNullExpr, Literal,
};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{
    PhysicalExpr, ScalarFunctionExpr, conjunction_opt, split_conjunction,
};
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use udfs::fuzzy::index::{Floor, Likeness, SetKind};

/// A predicate over one text of either side.
#[derive(Debug, Clone)]
pub(super) struct FuzzyPredicate {
    pub likeness: Likeness,
    /// Over the columns of the left side.
    pub left: Arc<dyn PhysicalExpr>,
    /// Over the columns of the right side.
    pub right: Arc<dyn PhysicalExpr>,
    /// As it stands in the condition.
    pub shown: String,
}

/// Splits a join's condition into the most selective predicate that an index can answer and what
/// else must hold.
pub(super) fn split(
    filter: &JoinFilter,
    (left, right): (SchemaRef, SchemaRef),
) -> Result<Option<(FuzzyPredicate, Option<JoinFilter>)>> {
    let conditions = split_conjunction(filter.expression());
    let mut best: Option<(usize, Condition)> = None;
    for (at, condition) in conditions.iter().enumerate() {
        let Some(found) = recognize(condition) else { continue };
        if best.as_ref().is_none_or(|(_, best)| found.rank() < best.rank()) {
            best = Some((at, found));
        }
    }
    let Some((at, condition)) = best else { return Ok(None) };
    let indices = filter.column_indices();
    let first = side(&condition.texts[0], indices);
    let second = side(&condition.texts[1], indices);
    let [one, other] = &condition.texts;
    let (of_left, of_right) = match (first, second) {
        (Some(JoinSide::Left), Some(JoinSide::Right)) => (one, other),
        (Some(JoinSide::Right), Some(JoinSide::Left)) => (other, one),
        _ => return Ok(None),
    };
    let predicate = FuzzyPredicate {
        likeness: condition.likeness,
        left: over_side(of_left, indices, &left)?,
        right: over_side(of_right, indices, &right)?,
        shown: conditions[at].to_string(),
    };
    let rest = conditions.iter().enumerate().filter(|(other, _)| *other != at || condition.again);
    let rest = conjunction_opt(rest.map(|(_, condition)| Arc::clone(condition)));
    let filter =
        rest.map(|rest| JoinFilter::new(rest, indices.to_vec(), Arc::clone(filter.schema())));
    Ok(Some((predicate, filter)))
}

struct Condition {
    likeness: Likeness,
    texts: [Arc<dyn PhysicalExpr>; 2],
    /// Whether the likeness is necessary and not sufficient, so that the condition must be asked
    /// again.
    again: bool,
}

impl Condition {
    /// Lower is more selective and found faster.
    fn rank(&self) -> usize {
        match self.likeness {
            Likeness::Edit { max, .. } => max,
            Likeness::Sets { kind: SetKind::Trigrams, .. } => 10,
            Likeness::Sets { kind: SetKind::Bigrams, .. } => 11,
            Likeness::Jaro { .. } => 12,
            Likeness::Sets { kind: SetKind::Characters, .. } => 13,
        }
    }
}

/// A bound on a measure.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(i64),
    Exactly(i64),
    Least(Floor),
}

fn recognize(condition: &Arc<dyn PhysicalExpr>) -> Option<Condition> {
    if let Some(call) = condition.downcast_ref::<ScalarFunctionExpr>() {
        let (texts, limit) = (two_texts(call)?, call.args().get(2)?);
        let likeness = match call.name() {
            "levenshtein_within" => edit(false, integer(limit)?)?,
            "jaro_winkler_within" => {
                let value = number(limit).filter(|value| (0.0..=1.0).contains(value))?;
                similarity("jaro_winkler_similarity", Floor { value, exclusive: false })?
            }
            _ => return None,
        };
        return Some(Condition { likeness, texts, again: false });
    }
    if let Some(there) = condition.downcast_ref::<IsNotNullExpr>() {
        let call = there.arg().downcast_ref::<ScalarFunctionExpr>()?;
        let likeness = edit(is_osa(call)?, integer(call.args().get(2)?)?)?;
        return Some(Condition { likeness, texts: two_texts(call)?, again: false });
    }
    let comparison = condition.downcast_ref::<BinaryExpr>()?;
    let (call, operator, limit) = match (measure(comparison.left()), measure(comparison.right())) {
        (Some(call), None) => (call, *comparison.op(), comparison.right()),
        (None, Some(call)) => (call, comparison.op().swap()?, comparison.left()),
        _ => return None,
    };
    let texts = two_texts(call)?;
    let bound = bound(operator, limit)?;
    if let Some(osa) = is_osa(call) {
        let (max, again) = match bound {
            Bound::AtMost(max) => (max, false),
            Bound::Exactly(distance) => (distance, true),
            Bound::Least(_) => return None,
        };
        let within = match call.args().get(2) {
            Some(cutoff) => integer(cutoff).filter(|cutoff| *cutoff >= 0)?,
            None => max,
        };
        return Some(Condition { likeness: edit(osa, max.min(within))?, texts, again });
    }
    match bound {
        Bound::Least(floor) if call.args().len() == 2 => {
            Some(Condition { likeness: similarity(call.name(), floor)?, texts, again: false })
        }
        _ => None,
    }
}

/// A call, or a call made another type of number.
fn measure(expression: &Arc<dyn PhysicalExpr>) -> Option<&ScalarFunctionExpr> {
    match expression.downcast_ref::<CastExpr>() {
        Some(cast) if widens(cast) => cast.expr().downcast_ref(),
        Some(_) => None,
        None => expression.downcast_ref(),
    }
}

fn widens(cast: &CastExpr) -> bool {
    matches!(cast.cast_type(), DataType::Int64 | DataType::Float64)
}

fn is_osa(call: &ScalarFunctionExpr) -> Option<bool> {
    match call.name() {
        "levenshtein" => Some(false),
        "osa_distance" => Some(true),
        _ => None,
    }
}

fn two_texts(call: &ScalarFunctionExpr) -> Option<[Arc<dyn PhysicalExpr>; 2]> {
    let [first, second, ..] = call.args() else { return None };
    Some([Arc::clone(first), Arc::clone(second)])
}

fn edit(osa: bool, max: i64) -> Option<Likeness> {
    Some(Likeness::Edit { osa, max: usize::try_from(max).ok()? })
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
    let value = number(limit)?;
    let whole = integer(limit);
    // Distances are whole: at most 2.5 is at most 2.
    let below = |value: f64| (value.abs() < 9e15).then_some(value.floor() as i64);
    match operator {
        Operator::LtEq => whole.or_else(|| below(value)).map(Bound::AtMost),
        Operator::Lt => match whole {
            Some(whole) => whole.checked_sub(1),
            None if value.fract() == 0.0 => below(value - 1.0),
            None => below(value),
        }
        .map(Bound::AtMost),
        Operator::Eq => whole.map(Bound::Exactly),
        Operator::GtEq => Some(Bound::Least(Floor { value, exclusive: false })),
        Operator::Gt => Some(Bound::Least(Floor { value, exclusive: true })),
        _ => None,
    }
}

fn literal(expression: &Arc<dyn PhysicalExpr>) -> Option<&ScalarValue> {
    expression.downcast_ref::<Literal>().map(Literal::value)
}

fn integer(expression: &Arc<dyn PhysicalExpr>) -> Option<i64> {
    let value = literal(expression)?;
    if value.is_null() || !value.data_type().is_integer() {
        return None;
    }
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(value)) => value,
        _ => None,
    }
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
    if datafusion::physical_expr_common::physical_expr::is_volatile(expression) {
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
