//! What windows and aggregates give of rows of many persons.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use catalog::ObjectName;
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::Lineage;
use crate::subject::ids::{Held, Ids, gives_values};
use crate::subject::whose::Persons;

impl Lineage<'_> {
    /// What a window gives of rows that are not all one person's counts as read by itself, as the
    /// second reading of a table does: ids of its row do not tell whose it is.
    pub(super) fn set_apart(
        &self,
        window: &Expr,
        made: &mut Held,
        schema: &DFSchema,
        from: &[Held],
        persons: &mut Persons,
    ) -> Result<()> {
        let call = match window {
            Expr::Alias(alias) => return self.set_apart(&alias.expr, made, schema, from, persons),
            Expr::WindowFunction(call) => call,
            _ => return Ok(()),
        };
        if made.ids.is_empty() && !gives_values(call.fun.name(), &type_of(window, schema)) {
            return Ok(());
        }
        let mut divided = Vec::with_capacity(call.params.partition_by.len());
        for by in &call.params.partition_by {
            divided.push(self.made(by, schema, from, &mut Persons::default())?);
        }
        let is_one = |reading: usize| {
            let by = divided.iter().filter(|by| !by.is_of_others);
            let mut ids = by.flat_map(|by| by.ids.iter().filter(move |ids| !by.is_replaced(ids)));
            ids.any(|ids| persons.are_told(reading, ids))
        };
        let read = persons.readings.iter();
        let read = read.filter(|(reading, _)| made.comes_of(*reading) && !is_one(*reading));
        for (reading, name) in read.cloned().collect::<Vec<_>>() {
            let apart = self.next_reading();
            made.read_apart(reading, apart);
            persons.readings.insert((apart, name));
            persons.apart.insert(apart);
        }
        Ok(())
    }

    /// What an aggregate gives of rows in groups that are nobody's may be a value of any of them.
    pub(super) fn add_others(
        &self,
        aggregate: &Expr,
        made: &mut Held,
        schema: &DFSchema,
        nobodys: &BTreeSet<(usize, ObjectName)>,
    ) {
        let call = match aggregate {
            Expr::Alias(alias) => return self.add_others(&alias.expr, made, schema, nobodys),
            Expr::AggregateFunction(call) => call,
            _ => return,
        };
        if !gives_values(call.func.name(), &type_of(aggregate, schema)) {
            return;
        }
        for (reading, name) in nobodys {
            // Ids are followed by themselves.
            let is_id = made.ids.iter().any(|ids| ids.reading == *reading);
            if is_id || !made.readings.contains(reading) {
                continue;
            }
            let columns = self.tables.iter().filter(|table| table.name == *name);
            let ids = columns.flat_map(|table| &table.columns).map(|(_, ids)| ids);
            let ids = ids.filter(|ids| ids.by.is_some());
            made.others.extend(ids.cloned().map(|ids| Ids::hidden(ids.read_in(*reading))));
        }
    }
}

fn type_of(expr: &Expr, schema: &DFSchema) -> DataType {
    expr.get_type(schema).unwrap_or(DataType::Binary)
}
