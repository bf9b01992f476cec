//! How conditions go down a physical plan: to the columns that they are about.
//!
//! DataFusion 55 asks every operator which of the conditions above it may go down to its inputs,
//! and most operators then look up the condition's columns in an input by name. Where a join has
//! two columns of one name, a condition on the second so reached the first, and rows were left out
//! or stayed that should not (apache/datafusion#25244 and #25296; releases after 55.2 have #25259
//! for it). The same happened to the filters that joins, sorts and aggregates make while they run.
//! Here operators decide as before whether a condition may go down; which column it is about there
//! is told by the column's place in the row. What cannot be told so stays above.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinSide, JoinType, internal_err};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterPushdownResult, ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation,
    PushedDown, PushedDownPredicate,
};
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::joins::utils::{ColumnIndex, build_join_schema};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;

type Plan = Arc<dyn ExecutionPlan>;
type Expr = Arc<dyn PhysicalExpr>;

/// Stands in the place of DataFusion's two rules of this name.
#[derive(Debug)]
pub(crate) struct FilterPushdown {
    name: &'static str,
    phase: FilterPushdownPhase,
}

impl FilterPushdown {
    /// Puts these rules where DataFusion has its own.
    pub(crate) fn replace(rules: &mut [Arc<dyn PhysicalOptimizerRule + Send + Sync>]) {
        let phases = [
            ("FilterPushdown", FilterPushdownPhase::Pre),
            ("FilterPushdown(Post)", FilterPushdownPhase::Post),
        ];
        for rule in rules {
            if let Some((name, phase)) = phases.into_iter().find(|(name, _)| *name == rule.name()) {
                *rule = Arc::new(Self { name, phase });
            }
        }
    }

    /// Offers filters on an operator's rows to it and to all below it.
    fn offer(
        &self,
        node: &Plan,
        filters: &[Expr],
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Plan>> {
        let mut offered = Offered::new(self.phase, node, filters)?;
        let asked = offered.asked.iter().map(|&(_, filter)| Arc::clone(filter)).collect();
        let description = node.gather_filters_for_pushdown(self.phase, asked, config)?;
        let (passed, own) = (description.parent_filters(), description.self_filters());
        let children: Vec<Plan> = node.children().into_iter().cloned().collect();
        if passed.len() != children.len() || own.len() != children.len() {
            return internal_err!("{} answers for another number of inputs", node.name());
        }
        let mut new_children = Vec::with_capacity(children.len());
        let mut self_filters = Vec::with_capacity(children.len());
        let inputs = children.into_iter().zip(passed.into_iter().zip(own));
        for (side, (child, (passed, own))) in inputs.enumerate() {
            let (places, moved) = offered.moved(&passed, || origins(node, side, &child))?;
            let goes = own.iter().map(may_go).collect::<Result<Vec<bool>>>()?;
            let going = own.iter().zip(&goes).filter(|(_, goes)| **goes);
            let mut down: Vec<Expr> = going.map(|(filter, _)| Arc::clone(filter)).collect();
            down.extend(moved);
            let below = self.offer(&child, &down, config)?;
            if below.filters.len() != down.len() {
                return internal_err!("{} answers for another number of filters", child.name());
            }
            let mut answers = below.filters.into_iter();
            self_filters.push(of_own(own, &goes, &mut answers));
            offered.answered(&places, answers);
            new_children.push(below.updated_node.unwrap_or(child));
        }
        let updated = replace_children_if_necessary(Arc::clone(node), new_children)?;
        let parent_filters = offered.results();
        let results = ChildPushdownResult { parent_filters, self_filters };
        let mut answer = updated.handle_child_pushdown_result(self.phase, results, config)?;
        answer.filters = offered.of_all(answer.filters);
        if answer.updated_node.is_none() && !Arc::ptr_eq(&updated, node) {
            answer.updated_node = Some(updated);
        }
        Ok(answer)
    }
}

impl PhysicalOptimizerRule for FilterPushdown {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> Result<Plan> {
        Ok(self.offer(&plan, &[], config)?.updated_node.unwrap_or(plan))
    }

    fn name(&self) -> &str {
        self.name
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The filters that one operator is offered, and what becomes of each.
struct Offered<'a> {
    filters: &'a [Expr],
    /// Whether the operator hears of the filter.
    is_told: Vec<bool>,
    /// Those that it is asked about, by their places among all.
    asked: Vec<(usize, &'a Expr)>,
    /// What each input did with each filter.
    supports: Vec<Vec<PushedDown>>,
}

impl<'a> Offered<'a> {
    fn new(phase: FilterPushdownPhase, node: &Plan, filters: &'a [Expr]) -> Result<Self> {
        let is_told = filters
            .iter()
            .map(|filter| Ok(phase != FilterPushdownPhase::Pre || is_read_right(node, filter)?))
            .collect::<Result<Vec<bool>>>()?;
        let asked = filters.iter().enumerate().zip(&is_told);
        let asked = asked.filter(|(_, is_told)| **is_told);
        let asked = asked.map(|(filter, _)| filter).collect();
        let supports = vec![Vec::new(); filters.len()];
        Ok(Self { filters, is_told, asked, supports })
    }

    /// The filters that the operator passes to an input, about the input's columns, and the place
    /// of each among all.
    fn moved(
        &self,
        passed: &[PushedDownPredicate],
        origins: impl FnOnce() -> Vec<Option<Expr>>,
    ) -> Result<(Vec<usize>, Vec<Expr>)> {
        let passed = self.asked.iter().zip(passed);
        let mut passed =
            passed.filter(|(_, one)| matches!(one.discriminant, PushedDown::Yes)).peekable();
        let (mut places, mut filters) = (Vec::new(), Vec::new());
        if passed.peek().is_none() {
            return Ok((places, filters));
        }
        let origins = origins();
        for ((place, filter), _) in passed {
            // The column of a projection may be what has another value at each call.
            let filter = moved(filter, &origins)?.filter(|filter| !is_volatile(filter));
            if let Some(filter) = filter {
                places.push(*place);
                filters.push(filter);
            }
        }
        Ok((places, filters))
    }

    /// Takes an input's answers to the filters at `places`; it has not got the others.
    fn answered(&mut self, places: &[usize], answers: impl Iterator<Item = PushedDown>) {
        for support in &mut self.supports {
            support.push(PushedDown::No);
        }
        for (place, answer) in places.iter().zip(answers) {
            let support = self.supports.get_mut(*place).and_then(|support| support.last_mut());
            if let Some(support) = support {
                *support = answer;
            }
        }
    }

    /// What the operator hears when all its inputs have answered.
    fn results(&self) -> Vec<ChildFilterPushdownResult> {
        let told = self.filters.iter().zip(&self.supports).zip(&self.is_told);
        told.filter(|(_, is_told)| **is_told)
            .map(|((filter, support), _)| ChildFilterPushdownResult {
                filter: Arc::clone(filter),
                child_results: support.clone(),
            })
            .collect()
    }

    /// The operator's answers, with those to filters that it has not heard of.
    fn of_all(&self, answers: Vec<PushedDown>) -> Vec<PushedDown> {
        let mut answers = answers.into_iter();
        let is_told = self.is_told.iter();
        is_told
            .map(|is_told| is_told.then(|| answers.next()).flatten().unwrap_or(PushedDown::No))
            .collect()
    }
}

/// An operator's own filters with an input's answers; some were not passed.
fn of_own(
    own: Vec<Expr>,
    goes: &[bool],
    answers: &mut impl Iterator<Item = PushedDown>,
) -> Vec<PushedDownPredicate> {
    own.into_iter()
        .zip(goes)
        .map(|(filter, goes)| {
            let answer = if *goes { answers.next() } else { None };
            answer.unwrap_or(PushedDown::No).wrap_expression(filter)
        })
        .collect()
}

/// Whether an operator's own filter may go to its inputs.
///
/// A function that has another value at each call is computed where it was written. A filter that
/// changes while the statement runs is told what each of its terms is below, and replaces them from
/// the inside: where it has `a` and `a + b`, it would find `a` within the sum, no longer the sum,
/// and read `b` at the place that it had above.
fn may_go(filter: &Expr) -> Result<bool> {
    if is_volatile(filter) {
        return Ok(false);
    }
    if filter.downcast_ref::<DynamicFilterPhysicalExpr>().is_none() {
        return Ok(true);
    }
    let terms = filter.children();
    for term in &terms {
        let (mut has_term, mut has_other) = (false, false);
        for inner in term.children() {
            inner.apply(|part| {
                let is_term = terms.contains(&part);
                has_term |= is_term;
                has_other |= !is_term && part.downcast_ref::<Column>().is_some();
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        if has_term && has_other {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether an operator would take this filter in as it is meant. A filter with a projection looks
/// up by name, among its input's columns, what came to it as columns of its projection.
fn is_read_right(node: &Plan, filter: &Expr) -> Result<bool> {
    let Some(node) = node.downcast_ref::<FilterExec>() else { return Ok(true) };
    let Some(kept) = node.projection() else { return Ok(true) };
    let input = node.input().schema();
    let mut is_right = true;
    filter.apply(|expr| {
        if let Some(column) = expr.downcast_ref::<Column>() {
            let named = input.index_of(column.name()).ok();
            is_right &= kept.get(column.index()).is_some_and(|place| named == Some(*place));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(is_right)
}

/// A filter on an operator's rows as one on the rows of an input, where all its columns are of it.
fn moved(filter: &Expr, origins: &[Option<Expr>]) -> Result<Option<Expr>> {
    let mut is_whole = true;
    let moved = Arc::clone(filter).transform_up(|expr| {
        let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
        match origins.get(column.index()) {
            Some(Some(origin)) => Ok(Transformed::yes(Arc::clone(origin))),
            _ => {
                is_whole = false;
                Ok(Transformed::no(expr))
            }
        }
    });
    let moved = moved.data()?;
    Ok(is_whole.then_some(moved))
}

/// What each column of an operator is on the rows of one of its inputs; none where that cannot be
/// told, or is nothing that is there.
fn origins(node: &Plan, side: usize, child: &Plan) -> Vec<Option<Expr>> {
    let input = child.schema();
    if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        return projection.expr().iter().map(|one| Some(Arc::clone(&one.expr))).collect();
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        return of_join(join, side);
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let groups = aggregate.group_expr().expr().iter();
        return groups.map(|(group, _)| column(&input, place(group)?)).collect();
    }
    if let Some(filter) = node.downcast_ref::<FilterExec>()
        && let Some(kept) = filter.projection()
    {
        return kept.iter().map(|place| column(&input, *place)).collect();
    }
    let output = node.schema();
    if node.is::<UnionExec>() || has_names_of(&output, &input) {
        return (0..output.fields().len()).map(|place| column(&input, place)).collect();
    }
    // Of an operator that is not known, a name says what is meant where it is there only once.
    let names = output.fields().iter().map(|field| field.name());
    names
        .map(|name| -> Option<Expr> {
            sole(&output, name)?;
            column(&input, sole(&input, name)?)
        })
        .collect()
}

/// The same of a join's left input, which is the first, or its right one.
fn of_join(join: &HashJoinExec, side: usize) -> Vec<Option<Expr>> {
    let (left, right) = (join.left().schema(), join.right().schema());
    let (here, input, there, other) = if side == 0 {
        (JoinSide::Left, &left, JoinSide::Right, &right)
    } else {
        (JoinSide::Right, &right, JoinSide::Left, &left)
    };
    // What a semi join keeps has its keys on both sides.
    let is_semi = matches!(join.join_type(), JoinType::LeftSemi | JoinType::RightSemi);
    let key = |index: usize| -> Option<Expr> {
        let mut pairs = join.on().iter();
        let pair = pairs.find_map(|(left, right)| {
            let (here, there) = if side == 0 { (left, right) } else { (right, left) };
            (place(there)? == index).then(|| place(here)).flatten()
        })?;
        let types = (input.fields().get(pair)?.data_type(), other.fields().get(index)?.data_type());
        (types.0 == types.1).then(|| column(input, pair)).flatten()
    };
    let origin = |of: &ColumnIndex| -> Option<Expr> {
        if of.side == here {
            column(input, of.index)
        } else if is_semi && of.side == there {
            key(of.index)
        } else {
            None
        }
    };
    let (_, columns) = build_join_schema(&left, &right, join.join_type());
    match &join.projection {
        Some(kept) => kept.iter().map(|place| origin(columns.get(*place)?)).collect(),
        None => columns.iter().map(origin).collect(),
    }
}

fn column(schema: &Schema, place: usize) -> Option<Expr> {
    let field = schema.fields().get(place)?;
    Some(Arc::new(Column::new(field.name(), place)))
}

/// The place of an expression that is a column.
fn place(expr: &Expr) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

/// Whether an operator has the columns of its input, each at its place.
fn has_names_of(output: &Schema, input: &Schema) -> bool {
    let (output, input) = (output.fields(), input.fields());
    let mut pairs = output.iter().zip(input.iter());
    output.len() == input.len() && pairs.all(|(output, input)| output.name() == input.name())
}

/// The place of the one column of a name.
fn sole(schema: &Schema, name: &str) -> Option<usize> {
    let fields = schema.fields().iter().enumerate();
    let mut named = fields.filter(|(_, field)| field.name() == name);
    let (place, _) = named.next()?;
    named.next().is_none().then_some(place)
}
