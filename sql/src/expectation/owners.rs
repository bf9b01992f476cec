//! What checks read beside their table: tables in which they look values up, and those with which
//! they compare.
//!
//! Who writes rows or checks a table need not be able to read these tables, and learns of them no
//! more than whether, and how often, the rows do not meet the expectation. They are read as the
//! expectation's owner, whose text it is, with the owner's rights of now, and a name means what it
//! means to the owner in the table's schema: no setting of who asks changes what is asked. Where
//! the owner is no user any more, nobody can say what may be read: no rows are let in, and the
//! check is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use catalog::ObjectName;
use catalog::policy::Role;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Column;
use datafusion::datasource::TableType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr as PlannedExpr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use sqlparser::ast::{Expr, Query, visit_expressions, visit_expressions_mut};

use super::check::{Shape, parsed};
use super::query::Item;
use super::run::is_of_all;
use crate::dml::sent::name_rows;
use crate::error::{Error, Result};
use crate::parse::parse_query;
use crate::rights;
use crate::session::{Origin, SessionOptions, Settings, StatementContext};

/// Where the reason is kept from who asks.
pub(super) const OWNER_LEARNS: &str = "its owner learns why from CHECK TABLE";
/// The name that the session of an owner gives as its client.
const CLIENT: &str = "expectation";

/// A query as an owner reads it.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) reader: Arc<StatementContext>,
    pub(crate) plan: LogicalPlan,
}

/// The owners of a table's expectations, each with the context in which it reads.
pub(super) struct Owners<'a> {
    context: &'a Arc<StatementContext>,
    table: &'a ObjectName,
    readers: BTreeMap<String, Arc<StatementContext>>,
}

impl<'a> Owners<'a> {
    /// Those of a table, for a statement.
    pub(super) fn new(context: &'a Arc<StatementContext>, table: &'a ObjectName) -> Self {
        Self { context, table, readers: BTreeMap::new() }
    }

    /// Puts in place of each query that a check holds one under which the statement finds its rows
    /// as the expectation's owner sees them.
    ///
    /// # Errors
    /// When the owner cannot read them.
    pub(super) async fn read(&mut self, item: &mut Item) -> Result<()> {
        let written = queries(&item.check.shape)?;
        if written.is_empty() {
            return Ok(());
        }
        let reader = self.reader(&item.expectation.owner).await?;
        let is_reference = item.check.is_reference();
        let mut named: BTreeMap<String, Box<Query>> = BTreeMap::new();
        for text in written {
            let planned = reader.plan_query(parse_query(&text)?).await;
            let (_, plan) = planned.map_err(|error| self.told(item, error))?;
            if is_reference {
                let (reader, plan) = (Arc::clone(&reader), plan.clone());
                item.reading = Some(Reading { reader, plan });
            }
            let name = name_rows(self.context, seen(plan));
            named.insert(text, parse_query(&format!("SELECT * FROM {name}"))?);
        }
        replace(&mut item.check.shape, &named)
    }

    /// The type of the one column of a query, as the expectation's owner reads it.
    ///
    /// # Errors
    /// When the owner cannot read it.
    pub(super) async fn type_of(&mut self, item: &Item, text: &str) -> Result<DataType> {
        let reader = self.reader(&item.expectation.owner).await?;
        let planned = reader.plan_query(parse_query(text)?).await;
        let (_, plan) = planned.map_err(|error| self.told(item, error))?;
        Ok(plan.schema().field(0).data_type().clone())
    }

    /// Whether a check, which [`Self::read`] has read, looks into its own table.
    pub(super) fn looks_into_table(&self, item: &Item) -> bool {
        let reader = self.readers.get(&item.expectation.owner);
        reader.is_some_and(|reader| reader.opened_names().contains(self.table))
    }

    /// What who asks is told when a check cannot be computed: the reason may hold a value of what
    /// is looked up.
    pub(super) fn computed(&self, item: &Item, error: Error) -> Error {
        let is_told = matches!(error, Error::Exhausted { .. } | Error::Denied { .. })
            || is_of_all(&error)
            || is_shown(self.context, item);
        if is_told {
            return error;
        }
        Error::Execution {
            what: "what it looks up, or the comparison with that, cannot be computed".into(),
            hint: Some(OWNER_LEARNS.into()),
        }
    }

    /// What who asks is told when an owner cannot read: which names there are is the owner's.
    fn told(&self, item: &Item, error: Error) -> Error {
        if is_of_all(&error) || is_shown(self.context, item) {
            return error;
        }
        Error::Denied {
            principal: item.expectation.owner.clone(),
            action: "read what its expectation looks up".into(),
            hint: Some("CREATE OR REPLACE EXPECTATION by somebody who may".into()),
        }
    }

    /// The context in which an owner reads.
    async fn reader(&mut self, owner: &str) -> Result<Arc<StatementContext>> {
        if let Some(known) = self.readers.get(owner) {
            return Ok(Arc::clone(known));
        }
        let engine = self.context.engine();
        // Who asks is who it is, also where it is no user of the warehouse.
        let principal = match self.context.rights().is_me(Some(owner)) {
            true => Some(self.context.session().principal().clone()),
            false => rights::owner(engine.catalog(), owner).await?,
        };
        let Some(principal) = principal else {
            return Err(Error::invalid_hint(
                format!("{owner}, who expects it, is no user"),
                format!("REASSIGN OWNED BY {owner} TO a user who may read what it looks up"),
            ));
        };
        let origin = Origin::new(Some(CLIENT), None);
        let options = SessionOptions { origin, ..SessionOptions::default() };
        let session = engine.session_with(principal, options);
        let settings = Settings { schema: self.table.schema.clone(), ..Settings::default() };
        let reader = StatementContext::with_settings(&session, settings).await?;
        self.readers.insert(owner.to_owned(), Arc::clone(&reader));
        Ok(reader)
    }
}

/// Whether who asks may see how a check is computed: of one that looks elsewhere its owner, and an
/// administrator, who reads all.
pub(super) fn is_shown(context: &StatementContext, item: &Item) -> bool {
    let rights = context.rights();
    rights.is_me(Some(&item.expectation.owner)) || rights.has(Role::Admin) || !looks_up(item)
}

/// Whether a check reads more than its table.
pub(super) fn looks_up(item: &Item) -> bool {
    queries(&item.check.shape).is_ok_and(|queries| !queries.is_empty())
}

/// The rows of a query as its owner sees them. It is no view, whose plan would become part of the
/// plan of who asks, and be looked at with the rights of that one.
#[derive(Debug)]
struct Seen(LogicalPlan);

#[async_trait]
impl TableProvider for Seen {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.0.schema().inner())
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[PlannedExpr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let mut plan = LogicalPlanBuilder::from(self.0.clone());
        if let Some(columns) = projection {
            let column = |column: &usize| Column::from(self.0.schema().qualified_field(*column));
            plan = plan.project(columns.iter().map(column).map(PlannedExpr::Column))?;
        }
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        session.create_physical_plan(&plan.build()?).await
    }
}

/// The rows of a plan of another, as a table.
pub(super) fn seen(plan: LogicalPlan) -> Arc<dyn TableProvider> {
    Arc::new(Seen(plan))
}

/// The queries that a check holds, each once.
fn queries(shape: &Shape) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    match shape {
        Shape::Rows { .. } => {}
        Shape::Reference { query, .. } => {
            found.insert(query.clone());
        }
        Shape::Table { condition, observed, .. } => {
            for text in std::iter::once(condition).chain(observed) {
                let expr = parsed(text)?;
                let _: ControlFlow<()> = visit_expressions(&expr, |part| {
                    if let Expr::Subquery(query) = part {
                        found.insert(query.to_string());
                    }
                    ControlFlow::Continue(())
                });
            }
        }
    }
    Ok(found)
}

fn replace(shape: &mut Shape, named: &BTreeMap<String, Box<Query>>) -> Result<()> {
    match shape {
        Shape::Rows { .. } => {}
        Shape::Reference { query, .. } => {
            if let Some(rows) = named.get(query.as_str()) {
                *query = rows.to_string();
            }
        }
        Shape::Table { condition, observed, .. } => {
            for text in std::iter::once(condition).chain(observed) {
                let mut expr = parsed(text)?;
                let _: ControlFlow<()> = visit_expressions_mut(&mut expr, |part| {
                    if let Expr::Subquery(query) = part
                        && let Some(rows) = named.get(&query.to_string())
                    {
                        *query = rows.clone();
                    }
                    ControlFlow::Continue(())
                });
                *text = expr.to_string();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::*;

    #[test]
    fn each_query_of_a_check_is_replaced() {
        for (text, count) in [
            ("price > 0", 0),
            ("max(price) > 0", 0),
            ("customer IN (SELECT id FROM customers)", 1),
            ("drift_psi(price, last_year.price) < 0.25", 1),
            ("drift_ks(a, t.b) < 0.1 AND drift_ks(a, u.b) < 0.1", 2),
        ] {
            let mut shape = check(text, None, |name| name == "max").unwrap().shape;
            let before = shape.clone();
            let found = queries(&shape).unwrap();
            assert_eq!(found.len(), count, "{text}: {found:?}");
            let other = || parse_query("SELECT * FROM \"main\".\"rows 1\"").unwrap();
            let named: BTreeMap<_, _> = found.into_iter().map(|text| (text, other())).collect();
            replace(&mut shape, &named).unwrap();
            if count == 0 {
                continue;
            }
            assert_ne!(shape, before, "{text}");
            let after = queries(&shape).unwrap();
            assert_eq!(after.into_iter().collect::<Vec<_>>(), [other().to_string()], "{text}");
        }
    }
}
