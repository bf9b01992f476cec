//! What aggregates and windows give: of all rows together, or values of some.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::WindowFunction;

use super::Walk;
use super::asked::Asked;
use crate::consent::tells_together;
use crate::policy::held::Held;
use crate::policy::ties::Origin;

/// Windows that give the place of a row, and no value of one.
const PLACES: [&str; 6] =
    ["cume_dist", "dense_rank", "ntile", "percent_rank", "rank", "row_number"];

impl Walk<'_> {
    /// What is told of all rows together: a value where these turn out to be picked, or where only
    /// some of them are there. Of other people's values put into own rows (`lag`) they stay such.
    pub(super) fn together<'e>(
        &self,
        of: impl IntoIterator<Item = &'e Expr>,
        schema: &DFSchema,
        from: &[Held],
    ) -> Result<Held> {
        let of: Vec<&Expr> = of.into_iter().collect();
        let asked = self.asked(of.iter().copied(), schema, from)?;
        let mut near = asked.near.clone();
        let mut all = Held::default();
        for expr in of {
            all.add(&self.made(expr, schema, from)?);
        }
        let (is_of_others, one) = (all.is_of_others, all.one.clone());
        // A value times what its place makes of it is that of a place.
        if !all.rows.is_empty() {
            self.ties.leave(&asked.places);
        }
        let is_told = |reading: &usize| self.is_told(*reading, &asked);
        let picking: BTreeSet<usize> = near.iter().copied().filter(|of| !is_told(of)).collect();
        self.ties.pick(&picking);
        from.iter().for_each(|held| all.add(held));
        let read = all.rows.iter().chain(all.told.keys()).chain(all.via.keys());
        let told = read.map(|reading| {
            let is_some = all.cut.contains(reading) || one.contains(reading);
            let some = is_some.then_some(None);
            (*reading, some.into_iter().collect::<BTreeSet<Option<Origin>>>())
        });
        let told = told.collect();
        near.extend(&all.near);
        Ok(Held { told, near, is_of_others, ..Held::default() })
    }

    /// What was told before, as the mean that a value is taken from or compared with, is of the
    /// same rows whatever stands beside it. Beside something else that is so of all rows, and of
    /// the groups that the rows of this are in: of other groups it may pick one.
    fn is_told(&self, reading: usize, asked: &Asked) -> bool {
        let mut told = asked.told.iter().filter_map(|of| Some((of, of.get(&reading)?))).peekable();
        if told.peek().is_none() || asked.rows.contains(&reading) || self.ties.is_few(reading) {
            return false;
        }
        told.all(|(of, by)| {
            let others = asked.told.iter().flat_map(BTreeMap::keys);
            let others = others.filter(|other| !of.contains_key(*other)).chain(&asked.rows);
            let others: BTreeSet<usize> = others.copied().collect();
            let is_in = |by: &Option<Origin>| {
                let is_in =
                    |of: &Origin| others.contains(&of.reading) || self.ties.is_shared(of, &others);
                by.as_ref().is_some_and(is_in)
            };
            asked.named == 1 || by.iter().all(is_in)
        })
    }

    /// What a window gives: of other rows, unless it is divided by what decides about them. In an
    /// order it tells the place of a row among those of all persons, where it is not so divided.
    pub(super) fn windowed(
        &self,
        call: &WindowFunction,
        schema: &DFSchema,
        from: &[Held],
    ) -> Result<Held> {
        let mut held = self.given(call, schema, from)?;
        let frame = &call.params.window_frame;
        let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
        let is_ordered = !call.params.order_by.is_empty() && !is_whole;
        if is_ordered || PLACES.contains(&call.fun.name()) {
            let by = call.params.partition_by.iter();
            let by = by.map(|by| self.made(by, schema, from)).collect::<Result<Vec<Held>>>()?;
            let apart: BTreeSet<usize> =
                by.iter().filter(|by| by.decides).filter_map(|by| by.key).collect();
            let read = from.iter().flat_map(|held| held.rows.iter().chain(held.told.keys()));
            held.places.extend(read.filter(|reading| !apart.contains(*reading)));
        }
        Ok(held)
    }

    fn given(&self, call: &WindowFunction, schema: &DFSchema, from: &[Held]) -> Result<Held> {
        let (name, params) = (call.fun.name(), &call.params);
        let frame = &params.window_frame;
        // A sum over a part of the rows may be the value of one of them.
        let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
        let order = || params.order_by.iter().map(|sort| &sort.expr);
        if PLACES.contains(&name) {
            let by = params.partition_by.iter().chain(order());
            let near = self.near(by, schema, from)?;
            return Ok(Held { near, ..Held::default() });
        }
        if name == "count" || (is_whole && tells_together(name)) {
            let of = params.args.iter().chain(params.filter.as_deref()).chain(order());
            let mut held = self.together(of, schema, from)?;
            held.divide(&self.each(&params.partition_by, schema, from)?);
            return Ok(held);
        }
        let mut all = Held::default();
        for arg in &params.args {
            all.add(&self.made(arg, schema, from)?);
        }
        let divided = self.each(&params.partition_by, schema, from)?;
        let is_alike = divided.iter().any(|by| {
            let mut read = all.rows.iter().chain(all.told.keys());
            by.decides && by.key.is_some_and(|key| read.all(|of| *of == key))
        });
        // What is told of a group is a value of it for other ones.
        let is_value = !all.rows.is_empty() || all.told.values().any(|by| !by.is_empty());
        all.is_of_others |= is_value && !is_alike;
        Ok(all)
    }
}
