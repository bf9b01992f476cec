//! What expressions over rows hold of persons' ids.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::{Lineage, column_of};
use crate::subject::ids::{
    CASTING, CHOOSING, FALLING_BACK, Held, Ids, NULLIF, called, cast_to, gathered,
};
use crate::subject::of_models::LISTING_USERS;
use crate::subject::whose::Persons;

impl Lineage<'_> {
    /// What an expression comes of; sub-queries that give values add to `persons`.
    pub(super) fn made(
        &self,
        expr: &Expr,
        schema: &DFSchema,
        from: &[Held],
        persons: &mut Persons,
    ) -> Result<Held> {
        let all = |parts: &[&Expr], persons: &mut Persons| {
            let (mut held, mut is_written) = (Held::default(), true);
            for part in parts {
                let made = self.made(part, schema, from, persons)?;
                is_written &= made.is_written || is_null(part);
                held.add(made);
            }
            Ok::<_, DataFusionError>(Held { is_written, ..held })
        };
        match expr {
            Expr::Alias(alias) => self.made(&alias.expr, schema, from, persons),
            Expr::Column(column) => Ok(named(column, schema, from)),
            Expr::Literal(value, _) => Ok(Held { is_written: !value.is_null(), ..Held::default() }),
            Expr::Cast(cast) => {
                let held = self.made(&cast.expr, schema, from, persons)?;
                Ok(cast_to(held, &cast.expr, schema, cast.field.data_type()))
            }
            Expr::TryCast(cast) => {
                let held = self.made(&cast.expr, schema, from, persons)?;
                Ok(cast_to(held, &cast.expr, schema, cast.field.data_type()))
            }
            Expr::Case(case) => {
                let values = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
                let values: Vec<&Expr> = values.chain(case.else_expr.as_deref()).collect();
                let mut held = self.chosen(values.iter().copied(), schema, from, persons)?;
                // Of ids that stay what they are some may be left out.
                if case.else_expr.is_none() || values.into_iter().any(is_null) {
                    held.replace(|ids| ids.by.as_ref().is_some_and(Vec::is_empty));
                }
                Ok(held)
            }
            Expr::ScalarFunction(call) => {
                let args: Vec<&Expr> = call.args.iter().collect();
                match call.func.name() {
                    name if CHOOSING.contains(&name) => {
                        self.given_back(name, &call.args, schema, from, persons)
                    }
                    name if CASTING.contains(&name) => {
                        let Some(value) = call.args.first() else { return Ok(Held::default()) };
                        let held = self.made(value, schema, from, persons)?;
                        let to = expr.get_type(schema).unwrap_or(DataType::Null);
                        Ok(cast_to(held, value, schema, &to))
                    }
                    name if LISTING_USERS.contains(&name) => {
                        let held = called(name, &call.args, all(&args, persons)?, self.keys);
                        Ok(self.models.listed(held, persons, self.next_reading()))
                    }
                    name => Ok(called(name, &call.args, all(&args, persons)?, self.keys)),
                }
            }
            Expr::AggregateFunction(call) => {
                let args: Vec<&Expr> = call.params.args.iter().collect();
                Ok(gathered(call.func.name(), all(&args, persons)?))
            }
            Expr::WindowFunction(call) => {
                let args: Vec<&Expr> = call.params.args.iter().collect();
                Ok(gathered(call.fun.name(), all(&args, persons)?))
            }
            Expr::ScalarSubquery(sub) => {
                let mut rows = self.of(&sub.subquery)?;
                rows.persons.bind(schema, from);
                persons.add(rows.persons);
                let mut held = rows.columns.into_iter().next().unwrap_or_default();
                for outer in &sub.outer_ref_columns {
                    if let Expr::OuterReferenceColumn(_, column) = outer {
                        held.readings.extend(named(column, schema, from).readings);
                    }
                }
                Ok(held)
            }
            Expr::Unnest(unnest) => self.made(&unnest.expr, schema, from, persons),
            other => self.mixed(other, schema, from, persons),
        }
    }

    /// One of several values: of some persons the ids may be there, of others something else.
    fn chosen<'b>(
        &self,
        values: impl IntoIterator<Item = &'b Expr>,
        schema: &DFSchema,
        from: &[Held],
        persons: &mut Persons,
    ) -> Result<Held> {
        let (mut held, mut is_other) = (Held::default(), false);
        let (mut is_written, mut beside) = (false, BTreeSet::new());
        for value in values {
            let made = self.made(value, schema, from, persons)?;
            is_other |= made.ids.is_empty() && !is_null(value);
            // What is made of the id, or blank where that is, stands for nobody else.
            if made.ids.is_empty() && made.lost.is_empty() && !is_blank(value) {
                is_written |= made.is_written;
                beside.extend(made.readings.iter().copied());
            }
            // In rows that are found by another column something else may be there.
            let partial = made.ids.iter().filter(|ids| ids.is_partial).map(|ids| ids.reading);
            let is_whole = |reading: &usize| {
                made.ids.iter().any(|ids| ids.reading == *reading && !ids.is_partial)
            };
            beside.extend(partial.filter(|reading| !is_whole(reading)));
            held.add(made);
        }
        if is_other {
            held.lose();
        }
        held.replace(|ids| is_written || beside.contains(&ids.reading));
        Ok(held)
    }

    /// What a function gives that gives back one of its arguments.
    fn given_back(
        &self,
        name: &str,
        args: &[Expr],
        schema: &DFSchema,
        from: &[Held],
        persons: &mut Persons,
    ) -> Result<Held> {
        let [first, others @ ..] = args else { return Ok(Held::default()) };
        if name == NULLIF {
            // The second is compared, and not given.
            let mut held = self.made(first, schema, from, persons)?;
            for other in others {
                held.readings.extend(self.made(other, schema, from, persons)?.readings);
            }
            if !others.iter().all(is_blank) {
                held.replace(|_| true);
            }
            return Ok(held);
        }
        if FALLING_BACK.contains(&name) && column_of(first).is_some() {
            let mut held = self.made(first, schema, from, persons)?;
            if held.ids.iter().any(|ids| !ids.is_partial) {
                // Rows without an id are nobody's, whatever stands in its place.
                for other in others {
                    held.add(self.made(other, schema, from, persons)?);
                }
                return Ok(held);
            }
        }
        let mut held = self.chosen(args, schema, from, persons)?;
        if FALLING_BACK.contains(&name) && !matches!(first, Expr::Case(_)) {
            let of_first = self.made(first, schema, from, &mut Persons::default())?;
            let is_whole = of_first.ids.iter().any(|ids| !ids.is_partial);
            if is_whole && of_first.replaced.is_empty() {
                held.replaced.clear();
            }
        }
        Ok(held)
    }

    /// What is computed in another way: no id is left, and what it comes of is.
    fn mixed(
        &self,
        expr: &Expr,
        schema: &DFSchema,
        from: &[Held],
        persons: &mut Persons,
    ) -> Result<Held> {
        let (mut held, mut is_written) = (Held::default(), true);
        expr.apply(|part| {
            match part {
                Expr::Column(column) => {
                    is_written = false;
                    held.add(named(column, schema, from));
                }
                // Which column of a query around it is, is not looked for: all may be.
                Expr::OuterReferenceColumn(..) => {
                    is_written = false;
                    from.iter().cloned().for_each(|outer| held.add(outer));
                }
                Expr::ScalarSubquery(sub) => {
                    is_written = false;
                    let mut rows = self.of(&sub.subquery)?;
                    rows.persons.bind(schema, from);
                    persons.add(rows.persons);
                    rows.columns.into_iter().for_each(|inner| held.add(inner));
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        held.is_written |= is_written;
        Ok(held.without_ids())
    }
}

/// What a named column comes of. Where the name says no more it may be anything, of which no ids
/// can be looked for.
fn named(column: &Column, schema: &DFSchema, from: &[Held]) -> Held {
    let found = schema.maybe_index_of_column(column).and_then(|at| from.get(at));
    found.cloned().unwrap_or_else(|| {
        let mut all = Held::default();
        from.iter().cloned().for_each(|held| all.add(held));
        all.each(Ids::hidden)
    })
}

fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null(),
        Expr::Alias(alias) => is_null(&alias.expr),
        Expr::Cast(cast) => is_null(&cast.expr),
        _ => false,
    }
}

/// Whether a value is a text of nothing.
fn is_blank(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => {
            value.try_as_str().flatten().is_some_and(|text| text.trim().is_empty())
        }
        Expr::Alias(alias) => is_blank(&alias.expr),
        Expr::Cast(cast) => is_blank(&cast.expr),
        _ => false,
    }
}
