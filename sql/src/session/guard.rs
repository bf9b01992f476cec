//! Tables of which a principal sees a part: some columns, or nothing but the columns' names.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use catalog::ObjectName;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::ViewTable;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::error::{Error, Result};
use crate::rights::Columns;

/// The part of a table that may be read; `None` when it has none of the granted columns.
///
/// # Errors
/// When DataFusion refuses a view's columns.
pub(crate) fn narrowed(
    table: Arc<dyn TableProvider>,
    columns: &Columns,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let granted = match columns {
        Columns::All => return Ok(Some(table)),
        Columns::None => return Ok(None),
        Columns::Some(granted) => granted,
    };
    let schema = table.schema();
    let kept: Vec<usize> = (0..schema.fields().len())
        .filter(|index| granted.contains(schema.field(*index).name()))
        .collect();
    if kept.is_empty() {
        return Ok(None);
    }
    // A view stays a view, so that its query is planned with the statement's.
    if let Some(plan) = table.get_logical_plan() {
        let plan = plan.into_owned();
        let fields: Vec<Expr> = kept
            .iter()
            .map(|index| Expr::Column(plan.schema().columns().swap_remove(*index)))
            .collect();
        let plan = LogicalPlanBuilder::from(plan).project(fields)?.build()?;
        return Ok(Some(Arc::new(ViewTable::new(plan, None))));
    }
    let narrow = Arc::new(schema.project(&kept)?);
    Ok(Some(Arc::new(Narrowed { table, kept, schema: narrow })))
}

/// A table of which some columns exist.
#[derive(Debug)]
pub(crate) struct Narrowed {
    table: Arc<dyn TableProvider>,
    kept: Vec<usize>,
    schema: SchemaRef,
}

impl Narrowed {
    /// The whole table.
    pub(crate) fn table(&self) -> &Arc<dyn TableProvider> {
        &self.table
    }
}

#[async_trait]
impl TableProvider for Narrowed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        self.table.table_type()
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        self.table.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let columns: Vec<usize> = match projection {
            Some(wanted) => {
                wanted.iter().filter_map(|index| self.kept.get(*index)).copied().collect()
            }
            None => self.kept.clone(),
        };
        self.table.scan(state, Some(&columns), filters, limit).await
    }
}

/// The target of an INSERT by somebody who may add rows and not read them all.
#[derive(Debug)]
pub(crate) struct WriteOnly {
    name: ObjectName,
    principal: String,
    schema: SchemaRef,
}

impl WriteOnly {
    /// The columns of `table` without its rows.
    pub(crate) fn new(name: &ObjectName, principal: &str, table: &dyn TableProvider) -> Self {
        Self { name: name.clone(), principal: principal.to_owned(), schema: table.schema() }
    }
}

#[async_trait]
impl TableProvider for WriteOnly {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let refusal = Error::Denied {
            principal: self.principal.clone(),
            action: format!("read the table that it inserts into, {}", self.name),
            hint: Some(format!("ask for SELECT ON {}", self.name)),
        };
        Err(refusal.into())
    }
}
