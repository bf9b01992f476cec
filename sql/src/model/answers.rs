//! Tables of what a model knows of persons: whoever follows ids through a plan finds here which
//! columns hold the model's users, or its records.
//!
//! A model of features has neither, and some of what it tells are values of rows that it learned
//! from all the same: of as many centroids as rows, each is a row.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use catalog::models::LoadedModel;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

/// The columns of a model of entities that hold records.
pub(crate) const RECORDS: [&str; 3] = ["record_id", "left_id", "right_id"];

/// A table of what a model knows.
#[derive(Debug)]
pub(crate) struct Answers {
    model: LoadedModel,
    /// The columns of the model's users or records.
    persons: Vec<String>,
    /// Where values of single training rows may be shown: the columns that tell these apart.
    apart: Option<Vec<String>>,
    rows: Arc<dyn TableProvider>,
}

impl Answers {
    /// Rows of a model, whose users or records are in these columns, as far as there are such.
    pub(crate) fn over(
        model: &LoadedModel,
        persons: &[&str],
        rows: Arc<dyn TableProvider>,
    ) -> Arc<dyn TableProvider> {
        Arc::new(Self { model: model.clone(), persons: owned(persons), apart: None, rows })
    }

    /// Rows of a model that may show values of single rows which it learned from, told apart by
    /// these columns.
    pub(crate) fn showing(
        model: &LoadedModel,
        apart: &[&str],
        rows: Arc<dyn TableProvider>,
    ) -> Arc<dyn TableProvider> {
        Arc::new(Self { model: model.clone(), persons: vec![], apart: Some(owned(apart)), rows })
    }

    /// The model.
    pub(crate) fn model(&self) -> &LoadedModel {
        &self.model
    }

    /// Whether a column holds the model's users or records.
    pub(crate) fn has_persons_in(&self, column: &str) -> bool {
        self.persons.iter().any(|known| known == column)
    }

    /// Whether values may be shown of single rows that were chosen by a consent policy.
    pub(crate) fn shows_rows_under(&self, policy: &str) -> bool {
        let mut consents = self.model.manifest.consents.iter();
        self.apart.is_some() && consents.any(|consent| consent.policy == policy)
    }

    /// Whether a column tells training rows apart of which values may be shown.
    pub(crate) fn tells_apart(&self, column: &str) -> bool {
        self.apart.iter().flatten().any(|known| known == column)
    }
}

fn owned(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|column| (*column).to_owned()).collect()
}

#[async_trait]
impl TableProvider for Answers {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        self.rows.table_type()
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        self.rows.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.rows.scan(state, projection, filters, limit).await
    }
}
